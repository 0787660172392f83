"""What is said when the system refuses something of a layer."""

from __future__ import annotations

import errno
from typing import Final

from ...protocol.errors import InvalidArgument, OrlopError, PermissionDenied, ResourceExhausted, Unavailable
from .names import shown

__all__ = ["refused"]

_INVALID: Final = (
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENOENT,
    errno.EISDIR,
    errno.EMLINK,
    errno.EFBIG,
    errno.EOVERFLOW,
)


def refused(error: OSError, entry: bytes | None) -> OrlopError:
    """The error of an entry by its name, or of the whole."""
    what = "unpacking" if entry is None else f"entry {shown(entry)}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"{what}: no space left on the store's disk", hint="remove images, then try again")
    if error.errno in (errno.EPERM, errno.EACCES):
        return PermissionDenied(f"{what}: {error.strerror}", hint="unpacking it needs privileges")
    if error.errno in _INVALID and entry is not None:
        return InvalidArgument(f"{what}: {error.strerror}")
    return Unavailable(f"{what}: {error.strerror}")
