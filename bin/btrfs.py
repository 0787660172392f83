"""Subvolumes of btrfs, by its ioctls. Source: the kernel's include/uapi/linux/btrfs.h."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Final

__all__ = ["BtrfsSubvolumes"]

_CREATE: Final = 0x5000940E
_DESTROY: Final = 0x5000940F
_SNAPSHOT: Final = 0x50009417
_LOOKUP: Final = 0xD0009412
_ARGUMENTS: Final = struct.Struct("=q4088s")
_SNAPSHOT_ARGUMENTS: Final = struct.Struct("=qQQ32s4040s")
_LOOKUP_ARGUMENTS: Final = struct.Struct("=QQ4080s")
_FIRST_INODE: Final = 256  # of every subvolume


class BtrfsSubvolumes:
    def possible(self, folder: str) -> bool:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _LOOKUP, bytearray(_LOOKUP_ARGUMENTS.pack(0, _FIRST_INODE, b"")))
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
                return False
            raise
        finally:
            os.close(fd)
        return True

    def make(self, path: str) -> None:
        self._in_parent(path, _CREATE, lambda name: _ARGUMENTS.pack(0, name))

    def clone(self, source: str, path: str) -> None:
        fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._in_parent(path, _SNAPSHOT, lambda name: _SNAPSHOT_ARGUMENTS.pack(fd, 0, 0, b"", name))
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        os.lstat(path)
        self._in_parent(path, _DESTROY, lambda name: _ARGUMENTS.pack(0, name))

    def _in_parent(self, path: str, request: int, arguments: Callable[[bytes], bytes]) -> None:
        folder, name = os.path.split(path)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, request, bytearray(arguments(os.fsencode(name))))
        finally:
            os.close(fd)
