"""mount(2) and umount2(2) of Linux."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["LinuxMounts"]

_FLAGS: Final = {
    "ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "remount": 32, "dirsync": 128, "noatime": 1024,
    "nodiratime": 2048, "bind": 4096, "rbind": 4096 | 16384, "relatime": 1 << 21, "strictatime": 1 << 24,
}  # fmt: skip
_CLEARED: Final = {"rw": 1, "suid": 2, "dev": 4, "exec": 8, "async": 16, "atime": 1024, "diratime": 2048}
_BIND: Final = 4096
_RDONLY: Final = 1
_REMOUNT: Final = 32
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_CLONE_FS: Final = 0x200
_PAGE: Final = 4096
_LOWER: Final = "lowerdir="


class LinuxMounts:
    def mount(self, kind: str, source: str, target: str, options: Sequence[str]) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "mounting needs Linux")
        flags, data = _parse(options)
        folder = ""
        if len(data) >= _PAGE - 1 and kind == "overlay":
            folder, options = _shortened(options)
            flags, data = _parse(options)
        if folder:
            _in_folder(folder, lambda: _mount(kind, source, target, flags, data))
        else:
            _mount(kind, source, target, flags, data)
        if flags & _BIND and flags & _RDONLY:
            # A bind takes its flags only in a second step.
            try:
                _mount(kind, source, target, flags | _REMOUNT, data)
            except OSError:
                self.unmount(target)
                raise

    def unmount(self, target: str) -> None:
        if _libc().umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            _raise(f"unmount {target}")


def _parse(options: Sequence[str]) -> tuple[int, str]:
    flags, data = 0, []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option in _CLEARED:
            flags &= ~_CLEARED[option]
        elif option not in ("defaults", "loop"):
            data.append(option)
    return flags, ",".join(data)


def _shortened(options: Sequence[str]) -> tuple[str, list[str]]:
    """The kernel takes one page of options: the folders below are named relative to the one they share."""
    lower = next(option for option in options if option.startswith(_LOWER))
    folders = lower[len(_LOWER) :].split(":")
    shared = os.path.commonpath(folders)
    relative = ":".join(os.path.relpath(folder, shared) for folder in folders)
    return shared, [f"{_LOWER}{relative}" if option is lower else option for option in options]


def _in_folder(folder: str, act: Callable[[], None]) -> None:
    """In a thread whose current folder is its own."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            if _libc().unshare(_CLONE_FS) != 0:
                _raise("unshare")
            os.chdir(folder)
            act()
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _mount(kind: str, source: str, target: str, flags: int, data: str) -> None:
    encoded = [os.fsencode(text) for text in (source, target, kind)]
    if _libc().mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data)) != 0:
        _raise(f"mount {kind} on {target}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _raise(what: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{what}: {os.strerror(code)}")
