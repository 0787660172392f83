"""What a collection costs, by the size of the store: `python -m benchmarks.collection [--sizes 1000,10000,...]`.

Stores of that many content records (images of ten blobs each: manifest, config, eight layers) from which images are
deleted one by one, synchronously, while one client creates images and another reads; beside it the same clients with
nothing collected. And what all at once costs: rings, chains, many referrers, a million objects released.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import RunningStore, run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world

IMAGES_A_BATCH = 12
DELETES = 30


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


REF = "containerd.io/gc.ref.content"


@asynccontextmanager
async def running(folder: str) -> AsyncIterator[RunningStore]:
    async with run_store(StoreConfig(folder), real_world(), host_platform()) as up:
        yield up


async def fill(store: orlop.Store, images: int) -> None:
    for first in range(0, images, IMAGES_A_BATCH):
        async with store.transaction() as tx:
            for n in range(first, min(first + IMAGES_A_BATCH, images)):
                blobs = [f"blob {n}.{k}".encode() for k in range(9)]
                manifest = f"manifest {n}".encode()
                tx.images.create(f"image-{n}", orlop.Descriptor("application/x", digest_of(manifest), len(manifest)))
                tx.content.put(manifest, labels={f"{REF}.l.{k}": digest_of(data) for k, data in enumerate(blobs)})
                for data in blobs:
                    tx.content.put(data)


class Latencies:
    def __init__(self) -> None:
        self.creates: list[float] = []
        self.gets: list[float] = []

    def line(self) -> str:
        return (
            f"create p50 {at(self.creates, 50):6.2f} p99 {at(self.creates, 99):6.2f} max {max(self.creates):6.2f} ms, "
            f"get p50 {at(self.gets, 50):5.2f} p99 {at(self.gets, 99):5.2f} max {max(self.gets):5.2f} ms"
        )


def at(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


async def clients(store: orlop.Store, found: Latencies, name: str) -> None:
    """One that creates and one that reads, until cancelled."""
    target = orlop.Descriptor("application/x", digest_of(b"manifest 0"), 1)

    async def create() -> None:
        n = 0
        while True:
            began = time.perf_counter()
            await store.images.create(f"{name}-{n}", target)
            found.creates.append((time.perf_counter() - began) * 1e3)
            n += 1
            await trio.sleep(0.002)

    async def get() -> None:
        while True:
            began = time.perf_counter()
            await store.images.get("image-0")
            found.gets.append((time.perf_counter() - began) * 1e3)
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        nursery.start_soon(get)


def own_memory_mib() -> int:
    """Without the files that LevelDB maps, which are the page cache's."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found.group(1)) // 1024 if found else 0


async def measure(up: RunningStore, images: int) -> None:
    store = up.store
    quiet, busy = Latencies(), Latencies()
    with trio.move_on_after(2):
        await clients(store, quiet, "quiet")
    works, walls = [], []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients, store, busy, "busy")
        await trio.sleep(0.2)
        for n in range(1, DELETES + 1):
            before = (await store.collector()).worked_ns
            began = time.perf_counter()
            await store.images.delete(f"image-{n * (images - 2) // DELETES}", sync=True)
            walls.append((time.perf_counter() - began) * 1e3)
            works.append(((await store.collector()).worked_ns - before) / 1e6)
        nursery.cancel_scope.cancel()
    status = await store.collector()
    print(
        f"{images * 10:>9} records: delete with 10 blobs {statistics.median(walls):6.1f} ms, "
        f"collector's work {statistics.median(works):5.2f} ms, longest slice {status.longest_ns / 1e6:.1f} ms, "
        f"memory of its own {own_memory_mib()} MiB"
    )
    print(f"          quiet: {quiet.line()}\n          while collecting: {busy.line()}", flush=True)


async def by_size(folder: Path, sizes: list[int]) -> None:
    for size in sizes:
        async with running(str(folder / str(size))) as up:
            began = time.perf_counter()
            await fill(up.store, size // 10)
            print(f"{size:>9} records made in {time.perf_counter() - began:.1f} s", flush=True)
            await up.store.collect()
            await trio.sleep(size / 50_000)  # LevelDB sorts what was just written
            await measure(up, size // 10)


async def collected(up: RunningStore, what: str, count: int) -> None:
    """Everything that was made under the lease `all` is released, and collected while others are served."""
    found = Latencies()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients, up.store, found, what)
        await trio.sleep(0.2)
        before = await up.store.collector()
        began = time.perf_counter()
        await up.store.leases.delete("all")
        removed = await up.store.collect()
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    work = ((await up.store.collector()).worked_ns - before.worked_ns) / 1e9
    gone = removed.content + removed.snapshots
    print(
        f"{what}: {gone} of {count} collected in {took:.1f} s ({work:.1f} s of work, {work / count * 1e6:.0f} us each)"
    )
    print(f"          meanwhile: {found.line()}", flush=True)
    left = [info.digest async for info in up.store.content.list()]
    assert len(left) <= 1, f"{len(left)} blobs are left"


async def put_all(store: orlop.Store, blobs: list[tuple[bytes, dict[str, str]]]) -> None:
    leased = store.with_lease("all")
    for first in range(0, len(blobs), 100):
        async with leased.transaction() as tx:
            for data, labels in blobs[first : first + 100]:
                tx.content.put(data, labels=labels)


async def at_once(folder: Path, what: str, release: int) -> None:
    """One of the shapes that are the worst for a collector."""
    if what == "ring":
        digests = [digest_of(f"ring {n}".encode()) for n in range(LONG)]
        blobs = [(f"ring {n}".encode(), {f"{REF}.next": digests[(n + 1) % LONG]}) for n in range(LONG)]
    elif what == "referrers":
        hub = digest_of(b"hub")
        blobs = [(b"hub", {})] + [(f"spoke {n}".encode(), {f"{REF}.hub": hub}) for n in range(10 * LONG)]
    else:
        blobs = [(f"loose {n}".encode(), {}) for n in range(release if what == "release" else 0)]
    async with running(str(folder / what)) as up:
        await up.store.images.create("image-0", orlop.Descriptor("x", digest_of(b"manifest 0"), 1))
        await up.store.leases.create("all")
        if what == "chain":
            await make_chain(up.store.with_lease("all"))
            await collected(up, f"chain of {LONG:,} snapshots", LONG)
        else:
            await put_all(up.store, blobs)
            await collected(up, f"{what} of {len(blobs):,}", len(blobs))


async def make_chain(leased: orlop.Store) -> None:
    snapshots = leased.snapshots.using("native")
    parent = ""
    for n in range(LONG):
        await snapshots.prepare(f"active {n}", parent)
        await snapshots.commit(f"s{n}", f"active {n}")
        parent = f"s{n}"


LONG = 10_000
SHAPES = ["ring", "chain", "referrers", "release"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--release", type=int, default=100_000, help="how many objects are released at once")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=["sizes", *SHAPES])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.only in (None, "sizes"):
            trio.run(by_size, Path(folder), [int(size) for size in options.sizes.split(",")])
        for what in SHAPES:
            if options.only in (None, what):
                trio.run(at_once, Path(folder), what, options.release)


if __name__ == "__main__":
    main()
