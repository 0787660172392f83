"""A daemon of the harness's own, which it may kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ....protocol.errors import FailedPrecondition

__all__ = ["OwnServer", "own_server"]

# It ends when whoever started it does, be it by a kill that leaves no time for anything.
_DAEMON = """
import os, signal, threading, time
from orlop.bin.daemon import main
leader = os.getppid()
def look():
    while os.getppid() == leader:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=look, daemon=True).start()
main()
"""
_READY_S = 60.0
_END_S = 30.0


class OwnServer:
    """Use `own_server`. `address`: where it answers, and answers again after a kill."""

    def __init__(self, folder: str, way: str) -> None:
        self._folder = os.path.abspath(folder)
        self.address = f"unix:{self._folder}/socket"
        if way == "tcp":
            self.address = "tcp:127.0.0.1:0"
        self._process: trio.Process | None = None
        self._ending = False
        self.kills = 0

    async def start(self) -> None:
        """Raises FailedPrecondition: it said why on standard error."""
        command = [sys.executable, "-c", _DAEMON, "--root", self._folder, "--listen", self.address]
        command += ["--log-level", "warning"]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, start_new_session=True)
        self._process = process
        assert process.stdout is not None
        line = b""
        with trio.move_on_after(_READY_S):
            while not line.endswith(b"\n") and (more := await process.stdout.receive_some(4096)):
                line += more
        if not line.startswith(b"ready: "):
            raise FailedPrecondition("the server did not start", hint="what it said is above")
        self.address = line.decode().split()[1]

    async def kill(self) -> None:
        """As a power cut would, and start it again."""
        assert self._process is not None
        self._ending = True
        self._process.send_signal(signal.SIGKILL)
        await self._ended()
        self.kills += 1
        await self.start()
        self._ending = False

    async def watch(self) -> None:
        """Ends when cancelled. Raises FailedPrecondition: it ended by itself."""
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if not self._ending:
                raise FailedPrecondition(f"the server ended with code {code}", hint="what it said is above")
            await trio.sleep(0.1)

    async def stop(self) -> None:
        """Let it drain."""
        if self._process is None or self._process.returncode is not None:
            return
        self._ending = True
        self._process.send_signal(signal.SIGTERM)
        with trio.move_on_after(_END_S):
            await self._ended()
        if self._process.returncode is None:
            self._process.kill()
            await self._ended()

    async def _ended(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        await self._process.wait()
        await self._process.stdout.aclose()


@asynccontextmanager
async def own_server(folder: str, way: str) -> AsyncIterator[OwnServer]:
    """`way`: unix or tcp. For the length of the block. Raises FailedPrecondition."""
    server = OwnServer(folder, way)
    try:
        await server.start()
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await server.stop()
