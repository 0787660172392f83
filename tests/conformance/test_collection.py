"""What lives and what goes: roots, references, leases, expiry, and the bytes behind. Source: spec gc 3 to 6, 15 to 17.

The worked graphs of spec gc 16 are in tests/collection, and so are the edge cases of 17 that are not here.

A graph is built under a lease called `scaffold`, because the collector may run at any moment; then the lease is
deleted, a collection runs, and the survivors are compared with the specification's. A blob's name is its bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
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
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from orlop.storage.memory import MemoryStore

from ..conftest import StoreMaker

PAST, FUTURE = "2001-01-01T00:00:00Z", "2200-01-01T00:00:00Z"
EXPIRE = "containerd.io/gc.expire"
ROOT = "containerd.io/gc.root"
REF = "containerd.io/gc.ref.content"
BREF = "containerd.io/gc.bref.content"
INLINE_BYTES = 16 * 1024


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def named(name: str) -> str:
    """The digest of the blob called `name`."""
    return digest_of(name.encode())


def blob(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def after_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


async def keep(store: orlop.Store, data: bytes, labels: dict[str, str] | None = None) -> str:
    """A blob of any size, already here or not."""
    try:
        if len(data) <= INLINE_BYTES:
            await store.content.put(data, labels=labels or {})
        else:
            async with store.content.ingest(f"keep-{digest_of(data)}-{random.getrandbits(64)}") as writer:
                await writer.write(data)
                await writer.commit(labels=labels or {})
    except errors.AlreadyExists:
        pass
    return digest_of(data)


async def digests(store: orlop.Store) -> list[str]:
    return [info.digest async for info in store.content.list()]


class Graph:
    """Builds one scenario in one namespace, then tells who survived."""

    def __init__(self, store: orlop.Store) -> None:
        self.store = store
        self.scaffold = store.with_lease("scaffold")
        self._names: dict[str, str] = {}

    async def blobs(self, *names: str, **labelled: dict[str, str]) -> None:
        """Blobs; a label's value is a blob's name where the label refers to content."""
        for name in names:
            await self._blob(name, {})
        for name, labels in labelled.items():
            await self._blob(name, labels)

    async def _blob(self, name: str, labels: dict[str, str]) -> None:
        self._names[named(name)] = name
        targets = ("containerd.io/gc.ref.content", "containerd.io/gc.bref.content")
        resolved = {k: named(v) if k.startswith(targets) else v for k, v in labels.items()}
        await self.scaffold.content.put(name.encode(), labels=resolved)

    async def image(self, name: str, target: str, labels: dict[str, str] | None = None) -> None:
        """An image, protected by the scaffold as well if it has an expiry."""
        descriptor = orlop.Descriptor("application/octet-stream", named(target), len(target))
        await self.scaffold.images.create(name, descriptor, labels)

    async def survivors(self) -> set[str]:
        """c:, i: and L: as in the specification's worked graphs."""
        await self.store.leases.delete("scaffold")
        return await self.collected()

    async def collected(self) -> set[str]:
        await self.store.collect()
        found = {f"c:{self._names[digest]}" for digest in await digests(self.store)}
        found |= {f"i:{image.name}" async for image in self.store.images.list()}
        found |= {f"L:{lease.id}" async for lease in self.store.leases.list()}
        for info in [info async for info in self.store.content.list()]:
            assert digest_of(await self.store.content.read(info.digest)) == info.digest
        return found


@pytest.fixture
async def graph(store: orlop.Store) -> Graph:
    await store.leases.create("scaffold")
    return Graph(store)


# roots and references ----------------------------------------------------------------------------------------


async def test_nothing_to_collect_is_no_error_and_no_event(store: orlop.Store) -> None:
    removed = await store.collect()
    assert (removed.leases, removed.images, removed.ingests, removed.content, removed.blobs) == (0, 0, 0, 0, 0)
    assert (await store.events.page()).items == []


async def test_a_blob_that_nobody_wants_goes(store: orlop.Store) -> None:
    await keep(store, b"small")
    await keep(store, blob(1, 50_000))
    await store.collect()
    assert await digests(store) == []


async def test_a_lease_keeps_what_was_committed_under_it(store: orlop.Store) -> None:
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    kept = sorted([await keep(leased, b"small"), await keep(leased, blob(2, 50_000))])
    await store.collect()
    assert await digests(store) == kept
    await store.leases.delete("lease")
    await store.collect()
    assert await digests(store) == []


async def test_a_blob_committed_without_the_lease_of_its_open_goes(store: orlop.Store) -> None:
    await store.leases.create("lease")
    request = m.OpenIngest("ref")
    opened = await store.with_lease("lease").content._call(t.INGESTS_OPEN, request)
    await store.content._call(t.INGESTS_WRITE, m.WriteIngest(opened.writer, 0, b"bytes"))
    await store.content._call(t.INGESTS_COMMIT, m.CommitIngest(opened.writer))
    await store.collect()
    assert await digests(store) == []
    assert [(r.type, r.id) async for r in store.leases.resources("lease")] == [("ingests", "ref")]


async def test_a_lease_deleted_with_sync_takes_what_only_it_held(stores: StoreMaker) -> None:
    async with stores.open() as store:
        await store.leases.create("lease")
        await keep(store.with_lease("lease"), blob(3, 50_000))
        await store.leases.delete("lease", sync=True)
        assert await digests(store) == []
        assert os.listdir(stores.folder / "store" / "blobs" / "sha256") == []


async def test_an_image_that_no_longer_expires_is_a_root_again(graph: Graph) -> None:
    await graph.blobs("x", "y")
    await graph.image("a", "x", {EXPIRE: PAST})
    await graph.image("b", "y", {EXPIRE: PAST})
    await graph.store.images.update("a", labels={}, mask=[f"labels.{EXPIRE}"])
    assert await graph.survivors() == {"i:a", "c:x"}


async def test_a_retargeted_image_lets_its_old_target_go(graph: Graph) -> None:
    await graph.blobs("old layer", "new layer", old={REF: "old layer"}, new={REF: "new layer"})
    await graph.image("app", "old")
    assert await graph.survivors() == {"i:app", "c:old", "c:old layer"}
    store = graph.store
    await store.leases.create("scaffold")
    await graph.blobs("new layer", new={REF: "new layer"})
    await store.images.update("app", target=orlop.Descriptor("t", named("new"), 3), mask=["target"])
    assert await graph.survivors() == {"i:app", "c:new", "c:new layer"}


async def test_a_replaced_reference_label_lets_the_old_blob_go(graph: Graph) -> None:
    await graph.blobs("l0", "l1", man={f"{REF}.l.0": "l0"})
    await graph.image("app", "man")
    await graph.store.content.update(named("man"), {f"{REF}.l.0": named("l1")}, [f"labels.{REF}.l.0"])
    assert await graph.survivors() == {"i:app", "c:man", "c:l1"}


async def test_a_blob_loses_its_root_with_its_label(graph: Graph) -> None:
    await graph.blobs("child", parent={ROOT: "r", REF: "child"})
    assert await graph.survivors() == {"c:parent", "c:child"}
    await graph.store.content.update(named("parent"), {}, [f"labels.{ROOT}"])
    assert await graph.collected() == set()


async def test_a_reference_may_come_before_its_target(graph: Graph) -> None:
    await graph.blobs(man={f"{REF}.l.0": "late"})
    await graph.image("app", "man")
    assert await graph.survivors() == {"i:app", "c:man"}
    graph._names[named("late")] = "late"
    await graph.store.content.put(b"late")  # no lease: the edge is there already
    assert await graph.collected() == {"i:app", "c:man", "c:late"}


async def test_two_holders_of_one_blob_must_both_let_go(graph: Graph) -> None:
    await graph.blobs("base", a={REF: "base"}, b={REF: "base"})
    await graph.image("one", "a")
    await graph.image("two", "b")
    assert await graph.survivors() == {"i:one", "i:two", "c:a", "c:b", "c:base"}
    await graph.store.images.delete("one", sync=True)
    assert await graph.collected() == {"i:two", "c:b", "c:base"}
    await graph.store.images.delete("two", sync=True)
    assert await graph.collected() == set()


async def test_a_cycle_hanging_on_an_image_goes_with_it(graph: Graph) -> None:
    await graph.blobs(a={REF: "b"}, b={REF: "c"}, c={REF: "a"}, d={BREF: "c"})
    await graph.image("app", "b")
    assert await graph.survivors() == {"i:app", "c:a", "c:b", "c:c", "c:d"}
    await graph.store.images.delete("app")
    assert await graph.collected() == set()


async def test_references_do_not_cross_namespaces(store: orlop.Store) -> None:
    other = store.in_namespace("other")
    await store.leases.create("lease")
    await store.with_lease("lease").content.put(b"target")
    await other.content.put(b"root", labels={ROOT: "r", REF: named("target")})
    await other.images.create("app", orlop.Descriptor("t", named("target"), 6))
    await store.leases.delete("lease")
    await store.collect()
    assert await digests(store) == []
    assert await digests(other) == [named("root")]


async def put_linked(store: orlop.Store, names: list[str], following: list[str]) -> None:
    """Each blob refers to the one that follows; all are held by leases of 100 until they hang together."""

    async def put(lease: str, first: int) -> None:
        await store.leases.create(lease)
        for n in range(first, min(first + 100, len(names))):
            labels = {REF: named(following[n])}
            await store.with_lease(lease).content.put(names[n].encode(), labels=labels)

    leases = [f"lease {first}" for first in range(0, len(names), 100)]
    async with trio.open_nursery() as nursery:
        for n, lease in enumerate(leases):
            nursery.start_soon(put, lease, n * 100)
    await store.images.create("app", orlop.Descriptor("t", named(names[0]), 1))
    for lease in leases:
        await store.leases.delete(lease)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cycle", "chain"])
async def test_no_chain_is_too_long_and_no_cycle_too_large(store: orlop.Store, shape: str) -> None:
    names = [f"node {n}" for n in range(1500)]
    await put_linked(store, names, names[1:] + (names[:1] if shape == "cycle" else ["absent"]))
    await store.collect()
    assert len(await digests(store)) == len(names)
    await store.images.delete("app", sync=True)
    assert await digests(store) == []


@pytest.mark.slow
async def test_a_lease_may_hold_much_and_still_be_deleted(store: orlop.Store) -> None:
    count = 1100
    await store.leases.create("lease")
    leased = store.with_lease("lease")

    async def put(numbers: range) -> None:
        for n in numbers:
            await leased.content.put(f"blob {n}".encode())

    async with trio.open_nursery() as nursery:
        for first in range(0, count, 100):
            nursery.start_soon(put, range(first, first + 100))
    assert len([r async for r in store.leases.resources("lease")]) == count
    await store.collect()
    assert len(await digests(store)) == count
    await store.leases.delete("lease", sync=True)
    assert await digests(store) == []


@pytest.mark.slow
async def test_a_lease_that_holds_much_expires_too(store: orlop.Store) -> None:
    count = 1100
    await store.leases.create("lease", {EXPIRE: after_seconds(3)})
    leased = store.with_lease("lease")

    async def put(numbers: range) -> None:
        for n in numbers:
            await leased.content.put(f"blob {n}".encode())

    async with trio.open_nursery() as nursery:
        for first in range(0, count, 100):
            nursery.start_soon(put, range(first, first + 100))
    await trio.sleep(3)
    await store.collect()
    assert await digests(store) == []
    assert [lease.id async for lease in store.leases.list()] == []


async def test_a_dangling_lease_entry_protects_what_comes_later(store: orlop.Store) -> None:
    await store.leases.create("lease")
    await store.with_lease("lease").content.put(b"x")
    await store.content.delete(named("x"))
    await store.collect()
    await store.content.put(b"x")
    await store.collect()
    assert await digests(store) == [named("x")]
    await store.leases.remove("lease", orlop.LeaseResource(named("x"), "content"))
    await store.collect()
    assert await digests(store) == []
    await store.leases.remove("lease", orlop.LeaseResource(named("x"), "content"))  # absent is fine


async def test_an_expired_lease_protects_nothing(store: orlop.Store) -> None:
    await store.leases.create("lease", {EXPIRE: after_seconds(0.2), ROOT: "means nothing here"})
    await store.with_lease("lease").content.put(b"x")
    await trio.sleep(0.25)
    await store.collect()
    assert await digests(store) == []
    assert [lease async for lease in store.leases.list()] == []


async def test_expiry_needs_nobody_to_ask_for_a_collection(store: orlop.Store) -> None:
    info = await store.content.put(b"x", labels={ROOT: "r"})
    async with store.events.subscribe() as events:
        descriptor = orlop.Descriptor("t", info.digest, 1)
        await store.images.create("short-lived", descriptor, {EXPIRE: after_seconds(0.3)})
        with trio.fail_after(10):
            async for event in events:
                if event.topic == "/images/delete":
                    break
    with pytest.raises(errors.NotFound):
        await store.images.get("short-lived")


async def test_a_deletion_is_followed_by_a_collection_without_being_asked(store: orlop.Store) -> None:
    await store.leases.create("lease")
    await store.with_lease("lease").content.put(b"x")
    await store.images.create("app", orlop.Descriptor("t", named("x"), 1))
    await store.leases.delete("lease")
    assert await digests(store) == [named("x")]
    await store.images.delete("app")
    with trio.fail_after(10):
        while await digests(store):
            await trio.sleep(0.01)


async def test_a_collection_tells_what_it_removed(store: orlop.Store) -> None:
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    await keep(leased, blob(4, 50_000))
    await keep(leased, b"small")
    await store.leases.delete("lease", sync=True)
    events = [event.topic for event in (await store.events.page()).items]
    assert "/content/delete" not in events  # only deletes by hand are told


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
