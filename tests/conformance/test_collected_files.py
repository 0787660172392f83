"""What becomes of the bytes behind, and of ingests; collections beside everything else. Source: spec gc 15 to 17."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

import orlop
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import errors
from orlop.storage.memory import MemoryStore
from tests.conftest import StoreMaker
from tests.support.collections import EXPIRE, FUTURE, REF, ROOT, after_seconds, digests, keep, named
from tests.support.content import blob, digest_of

# files -------------------------------------------------------------------------------------------------------


async def test_files_go_when_the_last_namespace_lets_go(stores: StoreMaker) -> None:
    data = blob(5, 50_000)
    folder = stores.folder / "store" / "blobs" / "sha256"
    async with stores.open() as store:
        names = ["one", "two", "three"]
        for name in names:
            there = store.in_namespace(name)
            await there.leases.create("lease")
            await keep(there.with_lease("lease"), data)
            await there.images.create("app", orlop.Descriptor("t", digest_of(data), len(data)))
            await there.leases.delete("lease", sync=True)
        for name in names:
            assert len(os.listdir(folder)) == 1
            there = store.in_namespace(name)
            assert await there.content.read(digest_of(data)) == data
            await there.images.delete("app", sync=True)
            assert await digests(there) == []
        assert os.listdir(folder) == []


async def test_explicit_deletes_free_the_file_once_all_have_deleted(stores: StoreMaker) -> None:
    data = blob(6, 50_000)
    folder = stores.folder / "store" / "blobs" / "sha256"
    async with stores.open() as store:
        other = store.in_namespace("other")
        await keep(store, data, {ROOT: "r"})
        await keep(other, data, {ROOT: "r"})
        await store.content.delete(digest_of(data))
        await store.collect()
        assert len(os.listdir(folder)) == 1
        assert await other.content.read(digest_of(data)) == data
        await other.content.delete(digest_of(data))
        await store.collect()
        assert os.listdir(folder) == []


async def test_an_image_deleted_with_sync_frees_the_disk_before_it_answers(stores: StoreMaker) -> None:
    folder = stores.folder / "store" / "blobs" / "sha256"
    async with stores.open() as store:
        await store.leases.create("lease")
        leased = store.with_lease("lease")
        layers = [await keep(leased, blob(10 + n, 40_000)) for n in range(4)]
        shared = await keep(leased, blob(20, 40_000))
        for name in ("one", "two"):
            mine = layers[:2] if name == "one" else layers[2:]
            labels = {f"{REF}.l.{n}": digest for n, digest in enumerate([*mine, shared])}
            manifest = await keep(leased, f"manifest {name}".encode(), labels)
            await store.images.create(name, orlop.Descriptor("t", manifest, 10))
        await store.leases.delete("lease", sync=True)
        assert len(os.listdir(folder)) == 5
        await store.images.delete("one", sync=True)
        assert {f"sha256:{name.split('.')[0]}" for name in os.listdir(folder)} == {*layers[2:], shared}
        await store.images.delete("two", sync=True)
        assert os.listdir(folder) == []


# ingests -----------------------------------------------------------------------------------------------------


async def test_an_open_or_closed_ingest_survives_collections(store: orlop.Store) -> None:
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    async with store.content.ingest("closed") as writer:
        await writer.write(blob(30, 50_000))
    async with leased.content.ingest("leased") as writer:
        await writer.write(blob(31, 50_000))
    async with store.content.ingest("open") as writer:
        await writer.write(blob(32, 50_000))
        await store.collect()
        assert {s.ref async for s in store.content.ingests()} == {"closed", "leased", "open"}
        await writer.commit(expected=digest_of(blob(32, 50_000)), labels={ROOT: "r"})
    async with leased.content.ingest("leased") as writer:
        assert writer.offset == 50_000
    await store.leases.delete("lease", sync=True)
    assert {s.ref async for s in store.content.ingests()} == {"closed"}
    async with store.content.ingest("leased") as writer:
        assert writer.offset == 0


async def test_an_open_ingest_whose_lease_goes_ends_in_a_clear_way(stores: StoreMaker) -> None:
    data = blob(33, 50_000)
    async with stores.open() as store:
        await store.leases.create("lease")
        async with store.with_lease("lease").content.ingest("ref") as writer:
            await writer.write(data)
            await store.leases.delete("lease", sync=True)
            try:
                await writer.commit(labels={ROOT: "r"})
            except (errors.NotFound, errors.FailedPrecondition):
                assert await digests(store) == []
            else:
                assert await store.content.read(digest_of(data)) == data
                await store.content.delete(digest_of(data))
        await store.collect()
        assert [status async for status in store.content.ingests()] == []
        async with store.content.ingest("ref") as writer:
            assert writer.offset == 0
            await writer.write(data)
            await writer.commit(labels={ROOT: "r"})
        await store.collect()
        assert await store.content.read(digest_of(data)) == data
        assert os.listdir(stores.folder / "store" / "ingests") == []


class _ShiftedClock:
    """The real clock, and how far the test has moved it."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def now_ns(self) -> int:
        return time.time_ns() + int(self.shift_s * 1e9)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


@asynccontextmanager
async def shifted_store(folder: Path) -> AsyncIterator[tuple[orlop.Store, _ShiftedClock]]:
    clock = _ShiftedClock()
    world = dataclasses.replace(real_world(), clock=clock)
    config = orlop.StoreConfig(str(folder))
    async with run_store(config, world, host_platform(), [], MemoryStore()) as running:
        yield running.store, clock


async def test_an_ingest_without_lease_lives_for_a_day(tmp_path: Path) -> None:
    async with shifted_store(tmp_path) as (store, clock):
        async with store.content.ingest("ref") as writer:
            await writer.write(blob(40, 50_000))
        clock.shift_s = 24 * 3600 - 60
        await store.collect()
        assert (await store.content.status("ref")).offset == 50_000
        clock.shift_s = 24 * 3600 + 1
        await store.collect()
        with pytest.raises(errors.NotFound):
            await store.content.status("ref")
        assert os.listdir(tmp_path / "ingests") == []


async def test_a_reopened_ingest_lives_for_another_day(tmp_path: Path) -> None:
    async with shifted_store(tmp_path) as (store, clock):
        async with store.content.ingest("ref") as writer:
            await writer.write(b"bytes")
        clock.shift_s = 23 * 3600
        async with store.content.ingest("ref") as writer:
            assert writer.offset == 5
        clock.shift_s = 46 * 3600
        await store.collect()
        assert (await store.content.status("ref")).offset == 5
        clock.shift_s = 47 * 3600 + 1
        await store.collect()
        assert [s async for s in store.content.ingests()] == []


async def test_a_lease_is_expired_when_its_time_has_passed(tmp_path: Path) -> None:
    async with shifted_store(tmp_path) as (store, clock):
        expiry = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S+02:00")
        await store.leases.create("zone", {EXPIRE: expiry})  # an hour ago, as its zone reads it
        await store.leases.create("hour", {EXPIRE: after_seconds(3600)})
        await store.leases.create("never")
        await store.collect()
        assert {lease.id async for lease in store.leases.list()} == {"hour", "never"}
        clock.shift_s = 3599
        await store.collect()
        assert {lease.id async for lease in store.leases.list()} == {"hour", "never"}
        clock.shift_s = 3601
        await store.collect()
        assert {lease.id async for lease in store.leases.list()} == {"never"}


# at the same time --------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_collections_take_nothing_from_writers_who_hold_a_lease(stores: StoreMaker) -> None:
    """Content under a lease, then the image, then the lease goes; collections and removals run throughout."""
    count, workers = 300, 24
    shared = blob(50, 20_000)
    numbers = iter(range(count))
    kept: list[int] = []

    async with stores.open() as store:

        async def work(chance: random.Random) -> None:
            for n in numbers:
                lease = f"lease-{n}"
                await store.leases.create(lease, {EXPIRE: FUTURE})
                leased = store.with_lease(lease)
                layers = [await keep(leased, shared)]
                layers.append(await keep(leased, blob(1000 + n, 20_000 if n % 10 == 0 else 200)))
                config = await keep(leased, f"config {n}".encode())
                labels = {f"{REF}.l.{k}": digest for k, digest in enumerate(layers)}
                manifest = await keep(leased, f"manifest {n}".encode(), {**labels, f"{REF}.config": config})
                await store.images.create(f"image-{n}", orlop.Descriptor("t", manifest, 1))
                await store.leases.delete(lease, sync=chance.random() < 0.1)
                if n % 3 == 0:
                    await store.images.delete(f"image-{n}", sync=chance.random() < 0.2)
                else:
                    kept.append(n)

        async def collect_all_the_time() -> None:
            while True:
                await store.collect()

        async with trio.open_nursery() as background:
            background.start_soon(collect_all_the_time)
            async with trio.open_nursery() as nursery:
                for n in range(workers):
                    nursery.start_soon(work, random.Random(n))
            background.cancel_scope.cancel()
        await store.collect()

        expected = {digest_of(shared)}
        for n in kept:
            expected |= {named(f"manifest {n}"), named(f"config {n}")}
            expected.add(digest_of(blob(1000 + n, 20_000 if n % 10 == 0 else 200)))
        found = set(await digests(store))
        assert (found - expected, expected - found) == (set(), set())
        for digest in expected:
            assert digest_of(await store.content.read(digest)) == digest
        files = {f"sha256:{name.split('.')[0]}" for name in os.listdir(stores.folder / "store" / "blobs" / "sha256")}
        large = {digest_of(blob(1000 + n, 20_000)) for n in kept if n % 10 == 0}
        assert files == {digest_of(shared), *large}


@pytest.mark.slow
@pytest.mark.parametrize("size", [200, 20_000])
async def test_a_blob_that_comes_back_while_its_bytes_go_is_never_without_them(stores: StoreMaker, size: int) -> None:
    data = blob(51, size)
    async with stores.open() as store:

        async def come_and_go(name: str) -> None:
            there = store.in_namespace(name)
            for n in range(12):
                await there.leases.create(f"lease-{n}")
                await keep(there.with_lease(f"lease-{n}"), data)
                assert await there.content.read(digest_of(data)) == data
                if n % 2:
                    await there.content.delete(digest_of(data))
                await there.leases.delete(f"lease-{n}", sync=n % 5 == 0)

        async def collect_all_the_time() -> None:
            while True:
                await store.collect()

        async with trio.open_nursery() as background:
            background.start_soon(collect_all_the_time)
            async with trio.open_nursery() as nursery:
                for n in range(6):
                    nursery.start_soon(come_and_go, f"ns{n}")
            background.cancel_scope.cancel()
        await store.collect()
        assert os.listdir(stores.folder / "store" / "blobs" / "sha256") == []
