"""A snapshot's tree as it would look when mounted, read without mounting it: folders laid over each other.

Layers stand nearest first, as in overlayfs's `lowerdir`: a device 0:0 hides what lies below it, an opaque folder is not
merged with those below. Every step is a single name below an open folder, never followed: nothing outside can be
reached, whatever anybody does to the tree meanwhile. Source: kernel documentation, overlayfs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from ...protocol.errors import NotFound

__all__ = [
    "FOLDER_FLAGS",
    "OPAQUE",
    "Folder",
    "Found",
    "has_mark",
    "is_whiteout",
    "opaque_name",
    "open_folder",
    "opened_folder",
]

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPAQUE: Final = "overlay.opaque"


def opaque_name(userxattr: bool) -> str:
    return f"user.{OPAQUE}" if userxattr else f"trusted.{OPAQUE}"


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def has_mark(fd: int, opaque: str) -> bool:
    """Whether an open folder hides what lies below it."""
    try:
        return os.getxattr(fd, opaque) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            return False
        raise


def open_folder(name: bytes | str, at: int) -> int:
    return os.open(name, FOLDER_FLAGS, dir_fd=at)


@contextmanager
def opened_folder(name: str, at: int) -> Iterator[int]:
    """A folder below an open one. Raises NotFound."""
    try:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=at)
    except FileNotFoundError:
        raise NotFound(f"folder {name}") from None
    try:
        yield fd
    finally:
        os.close(fd)


class Found(NamedTuple):
    """What stands under a name: its status, an open folder (of the layer it is in) to reach it from, and, if it is a
    folder itself, all of that."""

    status: os.stat_result
    at: int
    folder: Folder | None


class Folder:
    """One folder of the merged tree. It owns its descriptors; `close` gives back those of everything below, too."""

    def __init__(self, fds: Sequence[int], opaque: str) -> None:
        self.fds = list(fds)
        self._opaque = opaque
        self._children: dict[bytes, Folder] = {}

    @property
    def status(self) -> os.stat_result:
        return os.fstat(self.fds[0])

    def again(self) -> Folder:
        """The same folder, opened once more: what one does below it the other does not notice."""
        return Folder([open_folder(b".", fd) for fd in self.fds], self._opaque)

    def look(self, name: bytes) -> Found | None:
        """What is visible under a name; None if nothing is."""
        known = self._children.get(name)
        if known is not None:
            return Found(known.status, self.fds[0], known)
        status: os.stat_result | None = None
        top = -1
        merged: list[int] = []
        try:
            for fd in self.fds:
                try:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if is_whiteout(found):
                    break
                if not stat.S_ISDIR(found.st_mode):
                    if not merged:
                        return Found(found, fd, None)
                    break
                if status is None:
                    status, top = found, fd
                merged.append(open_folder(name, fd))
                if has_mark(merged[-1], self._opaque):
                    break
        except BaseException:
            for fd in merged:
                os.close(fd)
            raise
        if status is None:
            return None
        folder = self._children[name] = Folder(merged, self._opaque)
        return Found(status, top, folder)

    def names(self) -> list[bytes]:
        """All that is visible, in the order of their bytes."""
        seen: dict[bytes, bool] = {}
        for fd in self.fds:
            os.lseek(fd, 0, os.SEEK_SET)  # one that was listed before stands at its end
            for text in os.listdir(fd):
                name = os.fsencode(text)
                if name not in seen:
                    try:
                        seen[name] = not is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False))
                    except FileNotFoundError:
                        continue
        return sorted(name for name, visible in seen.items() if visible)

    def forget(self, name: bytes) -> None:
        """Give back what is open of a folder below; it is opened again when asked for."""
        folder = self._children.pop(name, None)
        if folder is not None:
            folder.close()

    def forget_all(self) -> None:
        for folder in self._children.values():
            folder.close()
        self._children.clear()

    def close(self) -> None:
        self.forget_all()
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
