"""Worker processes: children of one server, which is started for the first of them. See storage/archive/worker.py."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from ..protocol.world import Pool
from ..storage.archive.worker import COMMAND, KILL, MAX_MESSAGE_BYTES, START

__all__ = ["ForkedProcesses"]

# The package's own __init__ would bring trio, httpx and the rest: a hundred modules that no worker needs.
_PROGRAM: Final = """
import sys, types
package = types.ModuleType("orlop")
package.__path__ = [sys.argv[2]]
sys.modules["orlop"] = package
sys.path[:] = sys.argv[3:]
from orlop.storage.archive.worker import serve
serve(int(sys.argv[1]))
"""
_PACKAGE: Final = os.path.dirname(os.path.abspath(sys.modules["orlop"].__file__ or ""))


def _pair() -> tuple[trio.socket.SocketType, socket.socket]:
    """Ours, and one for a worker, which blocks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return trio.socket.from_stdlib_socket(ours), theirs


class ForkedJob:
    def __init__(self, pool: ForkedPool, number: int, channel: trio.socket.SocketType) -> None:
        self._pool = pool
        self._number = number
        self._channel = channel
        self._ended = False

    async def send(self, message: bytes) -> None:
        await self._channel.send(message)

    async def receive(self) -> bytes:
        try:
            message: bytes = await self._channel.recv(MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            message = b""
        self._ended = self._ended or not message
        return message

    async def close(self) -> None:
        with trio.CancelScope(shield=True):  # a killed process ends
            if not self._ended:
                await self._pool.kill(self._number)
                while await self.receive():
                    pass
            self._channel.close()
            await trio.lowlevel.checkpoint()


class ForkedPool:
    def __init__(self) -> None:
        self._server: trio.Process | None = None
        self._control: trio.socket.SocketType | None = None
        self._starting = trio.Lock()
        self._last = 0

    async def warm(self) -> None:
        async with self._starting:
            if self._control is None:
                await self._open()

    async def start(self, message: bytes, descriptors: Sequence[int]) -> ForkedJob:
        ours, theirs = _pair()
        try:
            self._last += 1
            number = self._last
            with theirs:
                await self._order(number, theirs.fileno())
            fds = array.array("i", descriptors).tobytes()
            await ours.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except BaseException:
            ours.close()
            raise
        return ForkedJob(self, number, ours)

    async def kill(self, number: int) -> None:
        if self._control is not None:
            try:
                await self._control.send(COMMAND.pack(KILL, number))
            except OSError:  # the server ended, and its children with it
                pass

    async def close(self) -> None:
        with trio.CancelScope(shield=True):  # the server ends when its socket does, and kills what it has
            async with self._starting:
                await self._end()

    async def _order(self, number: int, fd: int) -> None:
        """Have the server fork. One that was killed is replaced."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes())]
        async with self._starting:
            for last in (False, True):
                if self._control is None:
                    await self._open()
                assert self._control is not None
                try:
                    await self._control.sendmsg([COMMAND.pack(START, number)], rights)
                    return
                except ConnectionError:  # it is gone; another error is this job's alone
                    await self._end()
                    if last:
                        raise

    async def _open(self) -> None:
        ours, theirs = _pair()
        arguments = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(theirs.fileno()), _PACKAGE, *sys.path]
        try:
            with theirs:
                self._server = await trio.lowlevel.open_process(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C at a terminal is ours to hear; it ends with us
                )
        except BaseException:
            ours.close()
            raise
        self._control = ours

    async def _end(self) -> None:
        control, self._control = self._control, None
        server, self._server = self._server, None
        if control is not None:
            control.close()
        if server is not None:
            await server.wait()


class ForkedProcesses:
    @asynccontextmanager
    async def pool(self) -> AsyncIterator[Pool]:
        pool = ForkedPool()
        try:
            yield pool
        finally:
            await pool.close()
