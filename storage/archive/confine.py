"""What a worker process gives up before it looks at foreign bytes. Linux; elsewhere names are still resolved one by
one below open folders, which is the barrier that counts (folders.py)."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

__all__ = ["confine", "die_with_parent"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x20080522
# chown, dac_override, dac_read_search, fowner, fsetid, sys_admin (for trusted.*), mknod, setfcap
_KEPT: Final = sum(1 << bit for bit in (0, 1, 2, 3, 4, 21, 27, 31))
_SIGKILL: Final = 9
_MOST_MEMORY: Final = 2 * 1024**3


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def confine(root: int) -> None:
    """From here on the root is the open folder `root`, and privileges are those that unpacking needs."""
    os.fchdir(root)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    # Whatever were imported from here on would come out of the foreign tree.
    sys.meta_path.clear()
    sys.path.clear()
    if not sys.platform.startswith("linux"):
        return
    if os.geteuid() == 0:
        try:
            os.chroot(".")
        except PermissionError:  # a user namespace without it: names are still taken one by one below open folders
            pass
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = _Header(_CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    if libc.capget(ctypes.byref(header), ctypes.byref(sets)) == 0:
        for index, kept in enumerate((_KEPT & 0xFFFFFFFF, _KEPT >> 32)):
            sets[index].effective &= kept
            sets[index].permitted &= kept
            sets[index].inheritable = 0
        libc.capset(ctypes.byref(header), ctypes.byref(sets))


def die_with_parent(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before
            os._exit(1)
