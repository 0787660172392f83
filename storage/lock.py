"""One process per store: `DIR/lock`, held by flock on a descriptor that stays open and is not inherited.

The file says who holds it (pid, program, socket), so that a second command can meet the first instead of
colliding with it. LevelDB's own LOCK is neither relied upon nor opened.
"""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec

from ..protocol.errors import Unavailable
from ..protocol.world import Files
from . import posix

__all__ = ["Holder", "StoreLock", "read_holder"]


class Holder(msgspec.Struct, frozen=True):
    pid: int
    program: str
    socket: str = ""


class StoreInUse(Unavailable):
    """Another process has the store; `holder` is who, when that could be read."""

    def __init__(self, root: str, holder: Holder | None) -> None:
        self.holder = holder
        who = f"{holder.program} (pid {holder.pid})" if holder else "another process"
        super().__init__(f"store {root} is in use by {who}")


class StoreLock:
    def __init__(self, files: Files, fd: int) -> None:
        self._files = files
        self._fd = fd

    @classmethod
    def take(cls, root: str, files: Files, holder: Holder) -> StoreLock:
        """Blocking, but never waits. Raises StoreInUse."""
        files.make_folder(root)
        fd = files.open(f"{root}/lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not files.lock(fd):
                raise StoreInUse(root, read_holder(root, files))
            lock = cls(files, fd)
            lock.announce(holder)
        except BaseException:
            files.close(fd)
            raise
        return lock

    def announce(self, holder: Holder) -> None:
        """Write down who holds the store; a hundred bytes, never synced. A courtesy: the lock holds without it, and a
        disk that is full is no reason not to serve."""
        text = msgspec.json.encode(holder) + b"\n"
        with suppress(OSError):
            self._files.truncate(self._fd, 0)  # half a holder would be none
            self._files.seek(self._fd, 0)
            posix.write_all(self._files, self._fd, text)

    def release(self) -> None:
        with suppress(OSError):
            self._files.truncate(self._fd, 0)
        self._files.close(self._fd)


def read_holder(root: str, files: Files) -> Holder | None:
    """Who says to hold the store. Only the lock itself knows whether that is still so."""
    try:
        fd = files.open(f"{root}/lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(files.pread(fd, 4096, 0), type=Holder)
    except msgspec.MsgspecError:
        return None
    finally:
        files.close(fd)
