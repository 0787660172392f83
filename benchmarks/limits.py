"""`python -m benchmarks.limits [--seconds N] [--folder DIR]`: beside the least that the work can cost here.

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
import socket
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

from .figures import Comparison, Side

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
        compare(folder, options.seconds)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, seconds: float) -> list[Comparison]:
    """Raises what the store raises."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Comparison] = trio.run(run, folder, seconds)
    return found


async def run(folder: Path, seconds: float) -> list[Comparison]:
    synced = Side([baseline_synced(folder, seconds)])
    found = []
    with server(folder / "a", instrumented=False) as (address, _):
        async with orlop.connect(address) as store:
            for callers in (1, 8, 64, 256):
                rate = Side([await creates(store, callers, seconds, f"c{callers}")])
                title = f"durable creates, {callers} callers; synced records one by one"
                found.append(_told(Comparison(f"synced-{callers}", title, "/s", "higher", rate, synced)))
            found += await gets(store, seconds)
            found += await gibibyte(store, folder)
    with server(folder / "b", instrumented=True) as (address, process):
        async with orlop.connect(address) as store:
            await creates(store, 64, seconds, "steps")
            found.append(longest("create", "64 creating callers", process))
            await store.images.create("one", TARGET)
            await store._caller.call_many(IMAGES_GET, [GetImage("one")] * 50_000, store.context)
            found.append(longest("get", "pipelined gets", process))
            await write_gib(store, "steps")
            found.append(longest("write", "writing 1 GiB", process))
            await store.collect()
            found.append(longest("collect", "a collection of it all", process))
    return found


def _told(comparison: Comparison) -> Comparison:
    other = "" if comparison.other is None else f"{comparison.other.value:12,.2f}   {comparison.ratio:.2f} of it"
    print(f"  {comparison.title:66} {comparison.orlop.value:12,.2f} {comparison.unit} {other}", flush=True)
    return comparison


async def gets(store: orlop.Store, seconds: float) -> list[Comparison]:
    await store.images.create("one", TARGET)
    echo = Side([await bare_echo(seconds)])
    single = Side([await repeat(1, seconds, lambda _: store.images.get("one"))])
    many = Side([await repeat(64, seconds, lambda _: store.images.get("one"))])
    count = 100_000
    began = time.perf_counter()
    await store._caller.call_many(IMAGES_GET, [GetImage("one")] * count, store.context)
    piped = Side([count / (time.perf_counter() - began)])
    return [
        _told(
            Comparison(
                "get-1", "gets, one after another; a bare echo between two processes", "/s", "higher", single, echo
            )
        ),
        _told(Comparison("get-64", "gets, 64 tasks", "/s", "higher", many)),
        _told(Comparison("get-piped", "gets, pipelined by one task", "/s", "higher", piped)),
    ]


async def bare_echo(seconds: float) -> float:
    """300 bytes there and back over a unix socket, with trio on both sides and nothing else."""
    ours, theirs = socket.socketpair()
    code = (
        "import socket, sys, trio\n"
        "async def main():\n"
        "    s = trio.socket.from_stdlib_socket(socket.socket(fileno=int(sys.argv[1])))\n"
        "    while data := await s.recv(4096): await s.send(data)\n"
        "trio.run(main)\n"
    )
    fd = theirs.fileno()
    with theirs, subprocess.Popen([sys.executable, "-c", code, str(fd)], pass_fds=[fd]):  # noqa: ASYNC220 - alone
        theirs.close()
        with trio.socket.from_stdlib_socket(ours) as sock:
            data = bytes(300)

            async def once(_: int) -> None:
                await sock.send(data)
                await sock.recv(4096)

            await once(0)
            return await repeat(1, seconds, once)


async def gibibyte(store: orlop.Store, folder: Path) -> list[Comparison]:
    """Written in alternation with its limit; read from a page cache that has it."""
    plain, ours, digest = [], [], ""
    for n in range(3):
        plain.append(baseline_write(folder / "plain0"))
        took, digest = await write_gib(store, f"big{n}")
        ours.append(took)
    read = Side([baseline_read(folder / "plain0") for _ in range(3)])
    direct = Side([await read_descriptor(store, digest) for _ in range(3)])
    at = Side([await read_gib(store, digest) for _ in range(3)])
    title = "1 GiB ingested over the socket; sha256, write and fsync in one thread"
    return [
        _told(Comparison("gib-write", title, "s", "lower", Side(ours), Side(plain))),
        _told(Comparison("gib-fd", "1 GiB read by the passed descriptor; a file", "s", "lower", direct, read)),
        _told(Comparison("gib-at", "1 GiB by read_at, 4 MiB at a time; a file", "s", "lower", at, read)),
    ]


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


def longest(key: str, what: str, process: subprocess.Popen[str]) -> Comparison:
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    _, cpu, _ = process.stdout.readline().split()
    title = f"longest step of the event loop in CPU, {what}"
    return _told(Comparison(f"step-{key}", title, "ms", "lower", Side([float(cpu)])))


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
