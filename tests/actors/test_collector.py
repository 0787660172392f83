"""When the collector runs, and when it does not. What it keeps: tests/conformance/test_collection.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import trio

from orlop.actors.config import CollectorConfig, StoreConfig
from orlop.actors.supervisor import run_store
from orlop.actors.timestamps import rfc3339
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import NotFound
from orlop.protocol.labels import GC_EXPIRE
from orlop.protocol.world import World
from orlop.storage.memory import MemoryStore

PAUSE_S = CollectorConfig().pause_s


def running(folder: Path, engine: MemoryStore | None = None):
    return run_store(StoreConfig(str(folder)), real_world(), host_platform(), (), engine or MemoryStore())


async def test_nothing_is_collected_while_nothing_is_deleted(tmp_path: Path) -> None:
    """An ingest announces when it expires; that alone starts no collection, so what has no reference yet stays."""
    async with running(tmp_path / "store") as up:
        async with up.store.content.ingest("r") as writer:
            await writer.write(bytes(100_000))
            info = await writer.commit()
        await up.store.leases.create("l", {GC_EXPIRE: "2099-01-01T00:00:00Z"})
        await trio.sleep(5 * PAUSE_S)
        assert up.collector.runs == 0
        assert (await up.store.content.info(info.digest)).size == 100_000


async def test_a_delete_starts_a_collection_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as up:
        info = await up.store.content.put(b"loose")
        lease = await up.store.leases.create()
        await up.store.leases.delete(lease.id)
        with trio.fail_after(5):
            while True:
                try:
                    await up.store.content.info(info.digest)
                except NotFound:
                    break
                await trio.sleep(PAUSE_S / 4)


async def test_an_expiry_starts_a_collection_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as up:
        soon = rfc3339(real_world().clock.now_ns() + 1_000_000_000)
        await up.store.leases.create("short", {GC_EXPIRE: soon})
        with trio.fail_after(10):
            while [lease async for lease in up.store.leases.list()]:
                await trio.sleep(PAUSE_S)


async def test_a_collection_that_a_crash_prevented_runs_after_the_restart(tmp_path: Path) -> None:
    engine = MemoryStore()
    async with running(tmp_path / "store", engine) as up:
        await up.store.content.put(b"loose")
        lease = await up.store.leases.create()
        await up.store.leases.delete(lease.id)
        disk = engine.power_cut()  # before the pause is over
    async with running(tmp_path / "store", disk) as up:
        with trio.fail_after(5):
            while [info async for info in up.store.content.list()]:
                await trio.sleep(PAUSE_S / 4)


class _SlowClock:
    """As if everything took long: every look at it finds five milliseconds gone."""

    def __init__(self) -> None:
        self._real = real_world().clock
        self._passed_ns = 0

    def now_ns(self) -> int:
        return self._real.now_ns()

    def monotonic_ns(self) -> int:
        self._passed_ns += 5_000_000
        return self._real.monotonic_ns() + self._passed_ns


async def _slices_for(folder: Path, world: World) -> int:
    """How many transactions it takes to collect what a lease held."""
    async with run_store(StoreConfig(str(folder)), world, host_platform(), (), MemoryStore()) as up:
        lease = await up.store.leases.create()
        leased = up.store.with_lease(lease.id)
        for number in range(100):
            await leased.content.put(b"%d" % number)
        before = up.storage.statistics().transactions
        await up.store.leases.delete(lease.id)
        assert (await up.store.collect()).content == 100
        return up.storage.statistics().transactions - before


async def test_a_slice_does_less_where_everything_takes_long(tmp_path: Path) -> None:
    quick = await _slices_for(tmp_path / "quick", real_world())
    slow = await _slices_for(tmp_path / "slow", replace(real_world(), clock=_SlowClock()))
    assert slow > 2 * quick
