"""Copies of files and of whole trees: shared where the file system can, else copied."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Final

from .attributes import copy_attributes
from .tree import FOLDER_FLAGS

__all__ = ["copy_bytes", "copy_tree"]

_FICLONE: Final = 0x40049409
_PIECE: Final = 8 * 1024 * 1024
_NOT_HERE: Final = (errno.EXDEV, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.ETXTBSY)


def copy_bytes(source: int, target: int, status: os.stat_result) -> None:
    """All bytes of one file into an empty one, holes kept."""
    if not status.st_size:
        return
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as error:
        if error.errno not in (*_NOT_HERE, errno.EPERM):
            raise
    at = 0
    sparse = status.st_blocks * 512 < status.st_size
    while at < status.st_size:
        end = status.st_size
        if sparse:
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
                end = os.lseek(source, at, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # nothing but a hole to the end
        at = _copy_range(source, target, at, end)
    os.ftruncate(target, status.st_size)


def _copy_range(source: int, target: int, at: int, end: int) -> int:
    while at < end:
        try:
            copied = os.copy_file_range(source, target, min(_PIECE, end - at), at, at)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            data = os.pread(source, min(1024 * 1024, end - at), at)
            copied = os.pwrite(target, data, at)
        if not copied:
            return end  # it became shorter meanwhile
        at += copied
    return at


def copy_tree(source: int, target: int, *, own: bool) -> None:
    """Everything below one open folder into another, empty one: modes, owners, links, devices, times, extended
    attributes. Hard links within the tree stay hard links. Source: spec snapshots 8.1."""
    links: dict[tuple[int, int], bytes] = {}
    _copy_folder(source, target, target, b"", links, own)


def _copy_folder(
    source: int, target: int, root: int, path: bytes, links: dict[tuple[int, int], bytes], own: bool
) -> None:
    os.lseek(source, 0, os.SEEK_SET)
    for text in os.listdir(source):
        name = os.fsencode(text)
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        inside = b"%b/%b" % (path, name) if path else name
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            below = os.open(name, FOLDER_FLAGS, dir_fd=source)
            try:
                made = os.open(name, FOLDER_FLAGS, dir_fd=target)
                try:
                    _copy_folder(below, made, root, inside, links, own)
                finally:
                    os.close(made)
            finally:
                os.close(below)
            continue
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            if key in links:
                os.link(links[key], name, src_dir_fd=root, dst_dir_fd=target, follow_symlinks=False)
                continue
            links[key] = inside
        _copy_one(name, status, source, target, own)
    status = os.fstat(source)
    copy_attributes(source, target, status, _ignore, own=own, all_of_them=True)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_one(name: bytes, status: os.stat_result, source: int, target: int, own: bool) -> None:
    times = (status.st_atime_ns, status.st_mtime_ns)
    if stat.S_ISREG(status.st_mode):
        read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            write = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
            )
            try:
                copy_bytes(read, write, status)
                copy_attributes(read, write, status, _ignore, own=own, all_of_them=True)
                os.utime(write, ns=times)
            finally:
                os.close(write)
        finally:
            os.close(read)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISSOCK(status.st_mode):
        os.mknod(name, status.st_mode, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    if own:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    _copy_link_xattrs(name, source, target)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_link_xattrs(name: bytes, source: int, target: int) -> None:
    """Of what cannot be opened: by its name in the current folder."""
    os.fchdir(source)
    try:
        found = {
            key: os.getxattr(name, key, follow_symlinks=False) for key in os.listxattr(name, follow_symlinks=False)
        }
    except OSError:
        return
    if not found:
        return
    os.fchdir(target)
    for key, value in found.items():
        try:
            os.setxattr(name, key, value, follow_symlinks=False)
        except OSError:  # as the reference does
            pass


def _ignore(_: str) -> None:
    """An attribute that cannot be copied is left out."""
