"""`python -m benchmarks.content`: many small blobs, reads, lists over many; ratios against the machine in one run.

Baselines: for small blobs, one synced LevelDB write of the same bytes after another; for reads, the file itself.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import plyvel
import trio

import orlop
from orlop.protocol.messages import GetContent
from orlop.protocol.methods import CONTENT_INFO

from .limits import MIB, server
from .metadata import cpu_seconds, peak_memory

ROOT = {"containerd.io/gc.root": "bench"}
BIG_MIB = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blobs", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="orlop-bench-", dir=options.folder))
    try:
        trio.run(run, folder, options.blobs, options.many)
    finally:
        shutil.rmtree(folder)


async def run(folder: Path, blobs: int, many: int) -> None:
    with server(folder / "a", instrumented=False) as (address, process):
        async with orlop.connect(address) as store:
            for measure in (
                partial(measure_small, store, folder, blobs),
                partial(measure_boundary, store),
                partial(measure_reads, store, folder),
                partial(measure_many, store, many),
            ):
                await measure()
                print(f"  (server: peak memory so far {peak_memory(process.pid)} MiB)")
        print(f"\nserver: peak memory {peak_memory(process.pid)} MiB, {cpu_seconds(process.pid):.0f} s of CPU in all")


async def measure_small(store: orlop.Store, folder: Path, blobs: int) -> None:
    baseline = baseline_small(folder / "bare")
    print(f"one synced LevelDB write of 4 KiB after another {baseline:10,.0f} /s   1.00 (baseline)")
    print("\nblobs of 4 KiB")
    for title, act in (("ingest, with digest", ingest), ("put, with digest", put)):
        for callers in (1, 16):
            count = blobs if callers > 1 else blobs // 5
            rate = await small(store, callers, count, act)
            print(f"  {title:20} {callers:3} callers {rate:14,.0f} /s   {rate / baseline:.2f} of baseline")


async def small(store: orlop.Store, callers: int, count: int, act) -> float:
    numbers = iter(range(count))

    async def caller() -> None:
        for _ in numbers:
            await act(store, os.urandom(4096))

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    return count / (time.perf_counter() - began)


async def ingest(store: orlop.Store, data: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    async with store.content.ingest(digest, size=len(data), expected=digest) as writer:
        await writer.write(data)
        await writer.commit(size=len(data), expected=digest, labels=ROOT)


async def put(store: orlop.Store, data: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await store.content.put(data, expected=digest, labels=ROOT)


async def measure_boundary(store: orlop.Store) -> None:
    """Where a blob should stop living in the engine: the same bytes in it and as a file, by 16 callers."""
    print("\ningests by 16 callers, by size (up to 16 KiB they live in the engine)")
    for kib in (4, 12, 16, 17, 32, 64):

        async def act(store: orlop.Store, _: bytes, size: int = kib * 1024) -> None:
            await ingest(store, os.urandom(size))

        print(f"  {kib:3} KiB {await small(store, 16, 1500, act):32,.0f} /s")


async def measure_reads(store: orlop.Store, folder: Path) -> None:
    async with store.content.ingest("big") as writer:
        await writer.write_many(MIB for _ in range(BIG_MIB))
        big = (await writer.commit(labels=ROOT)).digest
    path = folder / "plain"
    with path.open("wb") as file:
        for _ in range(BIG_MIB):
            file.write(MIB)
    plain = min(timed_read(path) for _ in range(3))
    print(f"\nreads of {BIG_MIB} MiB\n  the file itself {plain * 1e3:31.0f} ms   1.00 (baseline)")

    async def streamed(*, verify: bool = False) -> float:
        began, came = time.perf_counter(), 0
        async with store.content.chunks(big, verify=verify) as pieces:
            async for piece in pieces:
                came += len(piece)
        assert came == BIG_MIB * len(MIB)
        return time.perf_counter() - began

    stream = min([await streamed() for _ in range(3)])
    checked = min([await streamed(verify=True) for _ in range(2)])
    print(f"  stream through the socket {stream * 1e3:21.0f} ms   {plain / stream:.2f} of baseline")
    print(f"  the same, verified {checked * 1e3:28.0f} ms   {plain / checked:.2f} of baseline")
    async with store.content.open(big) as reader:
        places = [random.randrange(reader.size - 4096) for _ in range(5000)]
        began = time.perf_counter()
        for place in places:
            await reader.read_at(place, 4096)
        rate = len(places) / (time.perf_counter() - began)
        fd = reader.fileno()
        assert fd is not None
        began = time.perf_counter()
        for place in places:
            os.pread(fd, 4096, place)
        bare = len(places) / (time.perf_counter() - began)
    print(f"  4 KiB at random, pread of the descriptor {bare:9,.0f} /s   1.00 (baseline)")
    print(f"  4 KiB at random, read_at {rate:25,.0f} /s   {rate / bare:.2f} of baseline")


async def measure_many(store: orlop.Store, many: int) -> None:
    began = time.perf_counter()
    digests: list[str] = []
    limiter = trio.CapacityLimiter(8)

    async def batch(start: int) -> None:
        async with limiter, store.transaction() as tx:
            for n in range(start, min(start + 100, many)):
                data = b"blob %d" % n
                tx.content.put(data, labels={**ROOT, "tier": "gold" if n % 100 == 0 else "iron"})
                digests.append(f"sha256:{hashlib.sha256(data).hexdigest()}")

    async with trio.open_nursery() as nursery:
        for start in range(0, many, 100):
            nursery.start_soon(batch, start)
    print(f"\n{many:,} small blobs in transactions of 100: {many / (time.perf_counter() - began):,.0f} /s")
    asked = [GetContent(digest) for digest in random.sample(digests, min(20_000, many))]
    began = time.perf_counter()
    await store._caller.call_many(CONTENT_INFO, asked, store.context)
    print(f"  info, pipelined {len(asked) / (time.perf_counter() - began):34,.0f} /s")
    for title, filters in (("list", []), ("list, labels.tier==gold", ["labels.tier==gold"])):
        began, found = time.perf_counter(), 0
        async with store.content.stream(filters) as items:
            async for _ in items:
                found += 1
        print(f"  {title:24} {(time.perf_counter() - began) * 1e3:22.0f} ms, {found:,} found")


def baseline_small(path: Path) -> float:
    database = plyvel.DB(str(path), create_if_missing=True)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < 2:
        database.put(b"blob/%d" % count, os.urandom(4096), sync=True)
        count += 1
    rate = count / (time.perf_counter() - began)
    database.close()
    return rate


def timed_read(path: Path) -> float:
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(1024 * 1024):
            pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
