"""Owner, mode, times and extended attributes of what a layer puts down. Source: spec unpack 5.5."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container
from typing import Final

from ...protocol.errors import InvalidArgument, PermissionDenied
from .names import shown
from .tar import Entry

__all__ = ["ACL_DEFAULT", "NOT_OF_LAYERS", "check_owner", "copy_attributes", "drop_xattrs", "entry_times", "set_xattrs"]

_MAX_ID: Final = 2**32 - 2
_MAX_TIME_NS: Final = 2**63 - 1
ACL_DEFAULT: Final = "system.posix_acl_default"
NOT_OF_LAYERS: Final = ("trusted.", "user.overlay.", "security.selinux", "security.ima", "security.evm")
Warn = Callable[[str], None]


def entry_times(entry: Entry) -> tuple[int, int]:
    """(access, modification) in nanoseconds. Out of range is the epoch; access is never before modification."""
    modified = entry.mtime_ns if 0 <= entry.mtime_ns <= _MAX_TIME_NS else 0
    accessed = entry.atime_ns
    if accessed is None or accessed < modified or accessed > _MAX_TIME_NS:
        return modified, modified
    return accessed, modified


def _said(name: str) -> str:
    """Names come out of archives: any length, any bytes."""
    return shown(name.encode(errors="surrogateescape"))


def check_owner(entry: Entry) -> None:
    """Raises InvalidArgument for an owner that no file can have."""
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise InvalidArgument(f"entry {shown(entry.name)}: owner {entry.uid}:{entry.gid} is out of range")


def set_xattrs(
    at: int | bytes, xattrs: dict[str, bytes], entry: bytes, warn: Warn, *, userxattr: bool, regular: bool
) -> None:
    """`at`: a descriptor, or a name in the current folder that is not followed. Raises InvalidArgument."""
    for name, value in xattrs.items():
        if name.startswith("trusted.") or (userxattr and name.startswith("user.overlay.")):
            warn(f"entry {shown(entry)}: extended attribute {_said(name)} is not taken from layers")
            continue
        try:
            if isinstance(at, int):
                os.setxattr(at, name, value)
            else:
                os.setxattr(at, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP or (error.errno == errno.EPERM and not regular):
                warn(f"entry {shown(entry)}: extended attribute {_said(name)} is not supported here")
            elif error.errno in (errno.EPERM, errno.EACCES):
                raise PermissionDenied(
                    f"entry {shown(entry)}: extended attribute {_said(name)}", hint="unpacking it needs privileges"
                ) from None
            elif error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            else:
                raise InvalidArgument(
                    f"entry {shown(entry)}: extended attribute {_said(name)}: {error.strerror}"
                ) from None


def drop_xattrs(fd: int, kept: Container[str]) -> None:
    """Away with the attributes that an earlier one of that name had, but for those that layers do not say."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if name not in kept and not name.startswith(NOT_OF_LAYERS):
            os.removexattr(fd, name)


def copy_attributes(
    source: int, target: int, status: os.stat_result, warn: Warn, *, own: bool, all_of_them: bool = False
) -> None:
    """Owner, extended attributes and mode from one open file to another; times are the caller's. What overlays keep in
    `trusted.*` and the like is left out, unless `all_of_them` are to be copied."""
    if own:
        os.fchown(target, status.st_uid, status.st_gid)
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        names = []
    for name in names:
        if not all_of_them and name.startswith(("trusted.", "user.overlay.")):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            warn(f"extended attribute {_said(name)} could not be copied: {error.strerror}")
    os.fchmod(target, stat.S_IMODE(status.st_mode))
