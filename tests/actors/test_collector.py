"""When the collector runs, and when it does not. What it keeps: tests/conformance/test_collection.py."""

from __future__ import annotations

from pathlib import Path

import trio

from orlop.actors.config import CollectorConfig, StoreConfig
from orlop.actors.supervisor import run_store
from orlop.actors.timestamps import rfc3339
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import NotFound
from orlop.protocol.labels import GC_EXPIRE
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
