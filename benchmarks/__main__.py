"""`python -m benchmarks [--seconds N] [--folder DIR]`: one run, its own baselines, ratios.

The server runs in a process of its own; the client is this one. Baselines: synced LevelDB batches of one
record (the least that a durable create can cost), and sha256 + write + fsync of the same bytes in one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plyvel
import trio

import orlop
from orlop.protocol.messages import GetImage
from orlop.protocol.methods import IMAGES_GET

TARGET = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 1234)
GIB = 1024
MIB = os.urandom(1024 * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="orlop-bench-", dir=options.folder))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, trio {trio.__version__}")
    try:
        trio.run(run, folder, options.seconds)
    finally:
        shutil.rmtree(folder)


async def run(folder: Path, seconds: float) -> None:
    synced = baseline_synced(folder, seconds)
    print(f"\nLevelDB, one synced record after another       {synced:10,.0f} /s   1.00 (baseline)")
    with server(folder / "a", instrumented=False) as (address, _):
        async with orlop.connect(address) as store:
            await measure_creates(store, seconds, synced)
            await measure_gets(store, seconds)
            await measure_bytes(store, folder)
    with server(folder / "b", instrumented=True) as (address, process):
        async with orlop.connect(address) as store:
            await creates(store, 64, seconds, "steps")
            longest("64 creating callers", process)
            await store.images.create("one", TARGET)
            await store._caller.call_many(IMAGES_GET, [GetImage("one")] * 50_000, store.context)
            longest("pipelined gets", process)
            await write_gib(store, "steps")
            longest("writing 1 GiB", process)
            await store.collect()
            longest("a collection of it all", process)


async def measure_creates(store: orlop.Store, seconds: float, synced: float) -> None:
    print("\ndurable image creates")
    first = 0.0
    for callers in (1, 8, 64, 256):
        rate = await creates(store, callers, seconds, f"c{callers}")
        first = first or rate
        print(
            f"  {callers:3} callers {rate:36,.0f} /s   {rate / synced:.2f} of baseline, {rate / first:.1f} x one caller"
        )


async def measure_gets(store: orlop.Store, seconds: float) -> None:
    await store.images.create("one", TARGET)
    print("\nimage gets")
    rate = await repeat(1, seconds, lambda _: store.images.get("one"))
    print(f"  depth 1, one task {rate:29,.0f} /s")
    rate = await repeat(64, seconds, lambda _: store.images.get("one"))
    print(f"  depth 64, a task each {rate:25,.0f} /s")
    count = 100_000
    began = time.perf_counter()
    await store._caller.call_many(IMAGES_GET, [GetImage("one")] * count, store.context)
    print(f"  pipelined from one task {count / (time.perf_counter() - began):23,.0f} /s")


async def measure_bytes(store: orlop.Store, folder: Path) -> None:
    print("\n1 GiB, in alternation with its baseline, three times")
    ratios, digest = [], ""
    for n in range(3):
        plain = baseline_write(folder / "plain0")
        ours, digest = await write_gib(store, f"big{n}")
        ratios.append(plain / ours)
        print(
            f"  sha256 + write + fsync {plain:9.2f} s, ingest over the socket {ours:9.2f} s, {plain / ours:.2f} of it"
        )
    print(f"  ingest over the socket, the middle one {sorted(ratios)[1]:15.2f} of baseline")
    plain = min(baseline_read(folder / "plain0") for _ in range(3))
    ours = min([await read_gib(store, digest) for _ in range(3)])
    direct = min([await read_descriptor(store, digest) for _ in range(3)])
    print(f"  read a file {plain:35.2f} s    1.00 (baseline)")
    print(f"  read the passed descriptor {direct:20.2f} s    {plain / direct:.2f} of baseline")
    print(f"  read_at, 4 MiB at a time {ours:22.2f} s    {plain / ours:.2f} of baseline")


async def creates(store: orlop.Store, callers: int, seconds: float, prefix: str) -> float:
    numbers = iter(range(10**9))
    return await repeat(callers, seconds, lambda _: store.images.create(f"{prefix}/{next(numbers)}", TARGET))


async def repeat(callers: int, seconds: float, act) -> float:
    """Calls a second, of callers that each wait for their answer."""
    done = 0
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await act(number)
            done += 1

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(callers):
            nursery.start_soon(caller, number)
    return done / (time.perf_counter() - began)


async def write_gib(store: orlop.Store, ref: str) -> tuple[float, str]:
    stamp = ref.encode().ljust(1024 * 1024, b".")
    began = time.perf_counter()
    async with store.content.ingest(ref) as writer:
        await writer.write_many(piece for piece in [stamp, *[MIB] * (GIB - 1)])
        info = await writer.commit(labels={"containerd.io/gc.root": "bench"})
    return time.perf_counter() - began, info.digest


async def read_gib(store: orlop.Store, digest: str) -> float:
    began = time.perf_counter()
    async with store.content.open(digest) as reader:
        at = 0
        while at < reader.size:
            at += len(await reader.read_at(at, 4 * 1024 * 1024))
    return time.perf_counter() - began


async def read_descriptor(store: orlop.Store, digest: str) -> float:
    began = time.perf_counter()
    async with store.content.open(digest) as reader:
        fd = reader.fileno()
        assert fd is not None
        while os.read(fd, 4 * 1024 * 1024):
            pass
    return time.perf_counter() - began


def baseline_synced(folder: Path, seconds: float) -> float:
    database = plyvel.DB(str(folder / "baseline"), create_if_missing=True)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        database.put(b"image/%d" % count, bytes(300), sync=True)
        count += 1
    rate = count / (time.perf_counter() - began)
    database.close()
    return rate


def baseline_write(path: Path) -> float:
    began = time.perf_counter()
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        for _ in range(GIB):
            digest.update(MIB)
            file.write(MIB)
        os.fsync(file.fileno())
    return time.perf_counter() - began


def baseline_read(path: Path) -> float:
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(4 * 1024 * 1024):
            pass
    return time.perf_counter() - began


def longest(what: str, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    wall, cpu, task = process.stdout.readline().split()
    print(f"longest step of the loop, {what}: {wall} ms wall, {cpu} ms of CPU ({task})")


@contextmanager
def server(root: Path, *, instrumented: bool) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    address = f"unix:{root}/sock"
    command = [sys.executable, "-m", "benchmarks.server", str(root), address, "yes" if instrumented else "no"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield address, process
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
