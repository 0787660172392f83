"""`python -m benchmarks.metadata`: lists, masked updates, containers; ratios against bare LevelDB in the same run.

The list's baseline reads the same bytes with a bare LevelDB scan in one process and copies them over a unix
socket into another. CPU is of client and server together.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import plyvel
import trio

import orlop

from .limits import TARGET, repeat, server

SPEC = orlop.Any("types.containerd.io/opencontainers/runtime-spec/1/Spec", os.urandom(4096))
RUNTIME = orlop.Runtime("io.containerd.runc.v2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="orlop-bench-", dir=options.folder))
    try:
        trio.run(run, folder, options.images, options.seconds)
    finally:
        shutil.rmtree(folder)


async def run(folder: Path, images: int, seconds: float) -> None:
    with server(folder / "a", instrumented=False) as (address, process):
        async with orlop.connect(address) as store:
            await fill(store, images)
            await measure_lists(store, process.pid, folder, images)
            await measure_writes(store, seconds)


async def fill(store: orlop.Store, images: int) -> None:
    began = time.perf_counter()
    starts = iter(range(0, images, 200))

    async def filler() -> None:
        for start in starts:
            async with store.transaction() as tx:
                for n in range(start, min(start + 200, images)):
                    labels = {"foo": "bar" if n % 10 == 0 else "no", "tier": "gold", "owner": f"team-{n % 50}"}
                    tx.images.create(f"registry.example/fleet/app-{n:07}:latest", TARGET, labels)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(filler)
    rate = images / (time.perf_counter() - began)
    print(f"{images:,} images in transactions of 200: {rate:,.0f} /s")


async def measure_lists(store: orlop.Store, server_pid: int, folder: Path, images: int) -> None:
    baseline = baseline_copy(folder / "bare", images)
    print(f"\nlist of {images:,} images\n  bare scan and socket copy {baseline * 1e3:25.1f} ms   1.00 (baseline)")

    async def count(items: object) -> int:
        found = 0
        async for _ in items:  # type: ignore[attr-defined]  # any list
            found += 1
        return found

    async def streamed(**wanted: object) -> int:
        async with store.images.stream(**wanted) as found:  # type: ignore[arg-type]  # passed on
            return await count(found)

    cases: list[tuple[str, Callable[[], Awaitable[int]]]] = [
        ("list, page by page", lambda: count(store.images.list())),
        ("list, streamed", lambda: streamed()),
        ("streamed, names only", lambda: streamed(fields=["name"])),
        ("labels.foo==bar (a tenth)", lambda: streamed(filters=["labels.foo==bar"])),
        ("name~=app-00000.1: (1 %)", lambda: streamed(filters=["name~=app-00000.1:"])),
        ("name~=nothing", lambda: streamed(filters=["name~=nothing"])),
    ]
    for title, act in cases:
        best, cpu, found = 1e9, 0.0, 0
        for _ in range(3):
            before, began = cpu_seconds(server_pid), time.perf_counter()
            found = await act()
            took = time.perf_counter() - began
            if took < best:
                best, cpu = took, cpu_seconds(server_pid) - before
        print(
            f"  {title:28} {best * 1e3:22.1f} ms   {best / baseline:5.1f} x baseline, "
            f"{cpu * 1e3:6.0f} ms of CPU, {found:,} found"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"  peak memory: client {peak} MiB, server {peak_memory(server_pid)} MiB")


async def measure_writes(store: orlop.Store, seconds: float) -> None:
    print("\nupdate of one label by mask")
    numbers = iter(range(10**9))

    async def update(number: int) -> None:
        name = f"registry.example/fleet/app-{number:07}:latest"
        await store.images.update(name, labels={"seen": str(next(numbers))}, mask=["labels.seen"])

    first = 0.0
    for callers in (1, 64):
        rate = await repeat(callers, seconds, update)
        first = first or rate
        print(f"  {callers:3} callers {rate:40,.0f} /s   {rate / first:.1f} x one caller")
    print("\ncreate of containers with a 4 KiB spec")
    first = 0.0
    for callers in (1, 64):
        rate = await repeat(
            callers,
            seconds,
            lambda _: store.containers.create(orlop.Container(f"c{next(numbers)}", runtime=RUNTIME, spec=SPEC)),
        )
        first = first or rate
        print(f"  {callers:3} callers {rate:40,.0f} /s   {rate / first:.1f} x one caller")


def baseline_copy(path: Path, images: int) -> float:
    """Records of the size of ours, scanned and sent; the best of three."""
    database = plyvel.DB(str(path), create_if_missing=True)
    with database.write_batch() as batch:
        for n in range(images):
            batch.put(b"image/%07d" % n, os.urandom(270))
    ours, theirs = socket.socketpair()

    def receive(count: int) -> None:
        while count > 0:
            count -= len(theirs.recv(256 * 1024))

    best = 1e9
    for _ in range(3):
        total = images * 270
        thread = threading.Thread(target=receive, args=(total,))
        thread.start()
        began = time.perf_counter()
        piece = bytearray()
        for _key, value in database.iterator():
            piece += value
            if len(piece) > 192 * 1024:
                ours.sendall(piece)
                piece.clear()
        ours.sendall(piece)
        thread.join()
        best = min(best, time.perf_counter() - began)
    database.close()
    ours.close()
    theirs.close()
    return best


def cpu_seconds(server_pid: int) -> float:
    """Of this process and the server's."""
    fields = Path(f"/proc/{server_pid}/stat").read_text().rsplit(")", 1)[1].split()
    own = os.times()
    return own.user + own.system + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    main()
