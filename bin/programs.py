"""Programs of others: each in a session of its own, with bounded output, and gone when its run is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final, Self

import trio

from ..actors.failures import first_of
from ..protocol.world import Finished

__all__ = ["ForeignPrograms"]

_READ_BYTES: Final = 64 * 1024  # what a pipe holds
_LOOK_AGAIN_S: Final = 0.005  # what was killed ends within a millisecond or two
_STUCK_S: Final = 2.0  # who has not ended then hangs in the kernel, and does nothing either


class ForeignPrograms:
    def __init__(self) -> None:
        self._looking = trio.CapacityLimiter(1)

    async def run(self, command: Sequence[str], data: bytes, keep_bytes: int) -> Finished:
        with _Output(keep_bytes) as out, _Output(keep_bytes) as error:
            process = await trio.lowlevel.open_process(
                list(command),
                stdin=subprocess.PIPE,
                stdout=out.sink,
                stderr=error.sink,
                start_new_session=True,
            )
            try:
                out.close_sink()
                error.close_sink()
                code = await _attended(process, data, out, error)
            finally:
                await self._end(process)
            # Nobody of its session writes any more. Who left the session may: that is not waited for.
            out.take_rest()
            error.take_rest()
        return Finished(code, bytes(out.kept), bytes(error.kept), cut=out.cut)

    async def _end(self, process: trio.Process) -> None:
        """Its session, of which nobody is left then, but for who is another user's or stuck. Cancellation: shielded."""
        _kill(os.killpg, process.pid)
        with trio.CancelScope(shield=True):  # a killed process ends
            if sys.platform == "linux":
                # Some have groups of their own: shells make them for jobs, and timeout(1) for itself.
                with trio.move_on_after(_STUCK_S):
                    while left := await trio.to_thread.run_sync(_running_in, process.pid, limiter=self._looking):
                        for pid in left:
                            _kill(os.kill, pid)
                        await trio.sleep(_LOOK_AGAIN_S)
            await process.wait()


async def _attended(process: trio.Process, data: bytes, out: _Output, error: _Output) -> int:
    """Fed and read until it ends, whoever else holds its pipes open then; its exit code. Raises OSError."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, process, data)
            nursery.start_soon(out.read)
            nursery.start_soon(error.read)
            code = await _ended(process)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first_of(group) from None
    return code


async def _feed(process: trio.Process, data: bytes) -> None:
    assert process.stdin is not None
    async with process.stdin as stdin:
        try:
            await stdin.send_all(data)
        except trio.BrokenResourceError:  # it need not read what it is given
            pass


async def _ended(process: trio.Process) -> int:
    """Its exit code, once it has one. Raises ChildProcessError.

    On Linux it is not reaped here: while its number is its own, its session can be found by that number and no other
    is hit. And if somebody else takes the code away (an ignored SIGCHLD does), that is an error; Python's
    own wait would make 0 of it.
    """
    if sys.platform != "linux":
        return await process.wait()
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError as error:  # it is reaped already
        raise ChildProcessError(error.errno, error.strerror) from None
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
    return _code_of(process.pid)


def _code_of(pid: int) -> int:
    """Of a process that has ended, and stays to be reaped. Raises ChildProcessError."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _kill(kill: Callable[[int, int], None], number: int) -> None:
    try:
        kill(number, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nobody is left, or (macOS) only what is not reaped yet. What runs as another user (set-uid) ends by itself.
        pass


def _running_in(session: int) -> list[int]:
    """The processes of a session that have not ended. Blocking. Linux."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if _session_of(pid) == session and _runs(pid)]


def _session_of(pid: int) -> int:
    """Asked of the kernel: whose numbers /proc shows depends on who mounted it."""
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in (b"Z", b"X")


class _Output:
    """One of a program's outputs: its beginning is kept, the rest thrown away, so that it never waits for us."""

    def __init__(self, keep_bytes: int) -> None:
        self.kept = bytearray()
        self.cut = False
        self._keep_bytes = keep_bytes
        self._source, self.sink = os.pipe()
        os.set_blocking(self._source, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._source)
        self.close_sink()

    def close_sink(self) -> None:
        """The end that the program writes to: ours, so that its own is the last."""
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    async def read(self) -> None:
        more = True
        while more:
            await trio.lowlevel.wait_readable(self._source)
            more = self._take() is not False

    def take_rest(self) -> None:
        """What lies in the pipe, without waiting for more."""
        while not self.cut and self._take():
            pass

    def _take(self) -> bool | None:
        """Whether something was there: None: not now; False: never again."""
        try:
            data = os.read(self._source, _READ_BYTES)
        except BlockingIOError:
            return None
        room = self._keep_bytes - len(self.kept)
        self.kept += data[:room]
        self.cut = self.cut or len(data) > room
        return bool(data)
