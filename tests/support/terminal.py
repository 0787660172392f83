"""A pseudo-terminal of a given size, and what stands on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

__all__ = ["Terminal"]

_PATIENCE_S = 30.0


class Terminal:
    """Runs a program as a person at a terminal would. `lines` is the screen, with what has scrolled off above it."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 100,
        rows: int = 30,
        folder: Path | None = None,
    ) -> None:
        self._command = command
        self._folder = folder
        self._environment = {**environment, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows)}
        self.columns = columns
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self.seen = b""
        self.exit_status: int | None = None

    def __enter__(self) -> Self:
        self._pid, self._fd = pty.fork()
        if not self._pid:
            fcntl.ioctl(0, termios.TIOCSWINSZ, self._size)
            if self._folder is not None:
                os.chdir(self._folder)
            os.execvpe(self._command[0], list(self._command), self._environment)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.exit_status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    @property
    def lines(self) -> list[str]:
        above = ["".join(line[at].data for at in range(self.columns)).rstrip() for line in self.screen.history.top]
        return [*above, *(line.rstrip() for line in self.screen.display)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, there: Callable[[str], bool]) -> str:
        """Read until the screen shows it."""
        deadline = time.monotonic() + _PATIENCE_S
        while not there(self.text):
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"not shown; the screen is:\n{self.text}")
        return self.text

    def look(self) -> None:
        """Read what has come by now."""
        self._read()

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait(self) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + _PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, self.text
        _, status = os.waitpid(self._pid, 0)
        self.exit_status = os.waitstatus_to_exitcode(status)
        return self.exit_status

    def _read(self) -> bool:
        """False: the program has ended."""
        if not select.select([self._fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # how Linux says that nobody has the other end
            return False
        self.seen += data
        self._stream.feed(data)
        return bool(data)
