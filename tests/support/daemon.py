"""A daemon as a child process, to be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

import orlop
from orlop.protocol import errors

__all__ = ["GONE", "Daemon"]

REPOSITORY = Path(__file__).parents[2]
DAEMON = "from orlop.bin.daemon import main; main()"
GONE = (errors.Unavailable, errors.Unknown)


@dataclass
class Daemon:
    """One store, served by one child after another."""

    folder: Path
    ready_s: list[float] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"unix:{self.folder}/socket"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Process]:
        """A child from its `ready:` until the block's end, which kills it if it still lives."""
        command = [sys.executable, "-c", DAEMON, "--root", str(self.folder / "store"), "--listen", self.address]
        command += ["--log-level", "warning"]
        began = time.monotonic()
        process = await trio.lowlevel.open_process(command, cwd=REPOSITORY, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            line = b""
            with trio.fail_after(30):
                while not line.endswith(b"\n"):
                    more = await process.stdout.receive_some(4096)
                    assert more, f"the daemon ended before it was ready: {line!r}"
                    line += more
            assert line.startswith(b"ready:")
            self.ready_s.append(time.monotonic() - began)
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stdout is not None
                await process.stdout.aclose()

    async def work_until_gone(self, work: Callable[[orlop.Store], Awaitable[None]], tasks: int) -> None:
        """`work` in many tasks over one connection, until the child is gone."""
        try:
            async with orlop.connect(self.address) as store, trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(_until_gone, work, store)
        except GONE:
            pass  # it was killed while we connected

    @asynccontextmanager
    async def store(self) -> AsyncIterator[orlop.Store]:
        async with self.running(), orlop.connect(self.address) as store:
            yield store


async def _until_gone(work: Callable[[orlop.Store], Awaitable[None]], store: orlop.Store) -> None:
    try:
        await work(store)
    except GONE:
        pass
