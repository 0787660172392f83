"""Making a layer: what turns one tree into another, as a tar of the same bytes each time. Source: spec unpack 7."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final, NamedTuple, Self

import zstandard
from isal import isal_zlib

from ...protocol.errors import NotImplemented as Unsupported
from .attributes import NOT_OF_LAYERS
from .names import WHITEOUT
from .tree import Folder, Found

__all__ = ["write_difference"]

_PIECE: Final = 1024 * 1024
_END: Final = bytes(1024)
_GZIP_LEVEL: Final = 2  # of igzip: five times as fast as zlib's 6, and a tenth larger


class _Change(Enum):
    ADDED = 1
    CHANGED = 2
    SAME = 3
    DELETED = 4


class _Step(NamedTuple):
    change: _Change
    path: bytes
    found: Found | None
    """In the upper tree; None where it is deleted."""


def write_difference(
    lower: Folder, upper: Folder, compression: str, epoch_s: int | None, emit: Callable[[bytes], None]
) -> tuple[str, str]:
    """Hand the layer's bytes to `emit`; returns the digest of the uncompressed archive, and that of those bytes.

    Files that change meanwhile are taken as they are met. Raises NotImplemented (compression), OSError.
    """
    sink = _Sink(compression, emit)
    writer = _Writer(sink, epoch_s, lambda: _walk_again(lower, upper))
    for step in _walk(lower, upper, b""):
        writer.step(step)
    sink.write(_END)
    return sink.close()


# what changed ------------------------------------------------------------------------------------------------


def _walk(lower: Folder | None, upper: Folder, path: bytes) -> Iterator[_Step]:
    """Both trees together, each folder before what is in it, names in the order of their bytes."""
    old = lower.names() if lower is not None else []
    new = upper.names()
    for name in sorted({*old, *new}):
        inside = b"%b/%b" % (path, name) if path else name
        after = upper.look(name)
        before = lower.look(name) if lower is not None else None
        if after is not None and stat.S_ISSOCK(after.status.st_mode):
            after = None  # a layer cannot hold one
            if before is not None and stat.S_ISSOCK(before.status.st_mode):
                before = None
        if after is None:
            if before is not None:
                yield _Step(_Change.DELETED, inside, None)
        else:
            yield _Step(_compared(name, before, after), inside, after)
            if after.folder is not None:
                below = before.folder if before is not None else None
                yield from _walk(below, after.folder, inside)
        upper.forget(name)
        if lower is not None:
            lower.forget(name)


def _walk_again(lower: Folder, upper: Folder) -> Iterator[_Step]:
    """In the middle of another walk."""
    before, after = lower.again(), upper.again()
    try:
        yield from _walk(before, after, b"")
    finally:
        before.close()
        after.close()


def _compared(name: bytes, before: Found | None, after: Found) -> _Change:
    if before is None:
        return _Change.ADDED
    old, new = before.status, after.status
    if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) and before.folder is None:
        return _Change.SAME
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return _Change.CHANGED
    if _xattrs(name, before) != _xattrs(name, after):
        return _Change.CHANGED
    if after.folder is not None:
        return _Change.SAME
    if old.st_size != new.st_size or old.st_mtime_ns // 10**9 != new.st_mtime_ns // 10**9:
        return _Change.CHANGED
    old_part, new_part = old.st_mtime_ns % 10**9, new.st_mtime_ns % 10**9
    if old_part or new_part:
        return _Change.SAME if old_part == new_part else _Change.CHANGED
    return _Change.SAME if _same_content(name, before, after) else _Change.CHANGED


def _same_content(name: bytes, before: Found, after: Found) -> bool:
    """Times without fractions say little: an archive may have set them."""
    if stat.S_ISLNK(after.status.st_mode):
        return os.readlink(name, dir_fd=before.at) == os.readlink(name, dir_fd=after.at)
    if not stat.S_ISREG(after.status.st_mode):
        return True
    with _File(name, before.at) as old, _File(name, after.at) as new:
        at = 0
        while True:
            data = new.read(at)
            if data != old.read(at):
                return False
            if not data:
                return True
            at += len(data)


class _File:
    def __init__(self, name: bytes, at: int) -> None:
        self._fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)

    def read(self, at: int, most: int = _PIECE) -> bytes:
        return os.pread(self._fd, min(most, _PIECE), at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _xattrs(name: bytes, found: Found) -> dict[str, bytes]:
    """What a layer records of them. Of a folder by its descriptor, else by its name in the current folder."""
    target: int | bytes
    if found.folder is not None:
        target, follow = found.folder.fds[0], True
    else:
        os.fchdir(found.at)
        target, follow = name, False
    try:
        names = sorted(os.listxattr(target, follow_symlinks=follow))
        return {
            each: os.getxattr(target, each, follow_symlinks=follow)
            for each in names
            if not each.startswith(NOT_OF_LAYERS)
        }
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA, errno.ENOENT, errno.EPERM):
            return {}
        raise


# writing it --------------------------------------------------------------------------------------------------


class _Writer:
    """Entries in order, each behind the folders on its way. Source: spec unpack 7.1 to 7.5."""

    def __init__(self, sink: _Sink, epoch_s: int | None, walk: Callable[[], Iterator[_Step]]) -> None:
        self._sink = sink
        self._epoch_s = epoch_s
        self._walk = walk
        self._way: list[tuple[bytes, bytes]] = []  # folders down to here, with their headers
        self._out: set[bytes] = set()  # folders that are written
        self._sources: dict[tuple[int, int], bytes] = {}
        self._linked_names: dict[tuple[int, int], list[tuple[bytes, list[tuple[bytes, bytes]]]]] | None = None

    def step(self, step: _Step) -> None:
        path, found = step.path, step.found
        while self._way and not path.startswith(self._way[-1][0] + b"/"):
            self._way.pop()
        if found is None:
            self._folders(self._way)
            folder, slash, base = path.rpartition(b"/")
            self._sink.write(self._header(folder + slash + WHITEOUT + base, None, {}))
        elif found.folder is not None:
            self._way.append((path, self._header(path + b"/", found, _xattrs(b"", found))))
            if step.change is not _Change.SAME:
                self._folders(self._way)
        elif found.status.st_nlink > 1:
            self._linked(step.change, path, found)
        elif step.change is not _Change.SAME:
            self._folders(self._way)
            self._entry(path, found)

    def _linked(self, change: _Change, path: bytes, found: Found) -> None:
        """A file with several names: the first that is written carries the data, the others are links to it. Names
        that did not change follow right behind, so that they stay one file."""
        key = (found.status.st_dev, found.status.st_ino)
        source = self._sources.get(key)
        if change is _Change.SAME:
            return  # with the first that is not
        self._folders(self._way)
        if source is not None:
            self._sink.write(self._header(path, found, {}, source))
            return
        self._sources[key] = path
        self._entry(path, found)
        for other, way in self._unchanged_names(key):
            self._folders(way)
            self._sink.write(self._header(other, found, {}, path))

    def _unchanged_names(self, key: tuple[int, int]) -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
        """Names of files that have several and did not change, with the folders on their way. Most layers have none to
        look for: it takes another walk."""
        if self._linked_names is None:
            self._linked_names = {}
            way: list[tuple[bytes, bytes]] = []
            for step in self._walk():
                while way and not step.path.startswith(way[-1][0] + b"/"):
                    way.pop()
                found = step.found
                if found is None:
                    continue
                if found.folder is not None:
                    way.append((step.path, self._header(step.path + b"/", found, _xattrs(b"", found))))
                elif step.change is _Change.SAME and found.status.st_nlink > 1:
                    inode = (found.status.st_dev, found.status.st_ino)
                    self._linked_names.setdefault(inode, []).append((step.path, list(way)))
        return self._linked_names.pop(key, [])

    def _folders(self, way: list[tuple[bytes, bytes]]) -> None:
        for path, header in way:
            if path not in self._out:
                self._out.add(path)
                self._sink.write(header)

    def _entry(self, path: bytes, found: Found) -> None:
        name = path.rpartition(b"/")[2]
        self._sink.write(self._header(path, found, _xattrs(name, found)))
        if stat.S_ISREG(found.status.st_mode):
            self._content(name, found)

    def _content(self, name: bytes, found: Found) -> None:
        """As many bytes as the header says, whatever becomes of the file meanwhile."""
        size = found.status.st_size
        at = 0
        with _File(name, found.at) as file:
            while at < size:
                data = file.read(at, size - at) or bytes(min(_PIECE, size - at))
                self._sink.write(data)
                at += len(data)
        self._sink.write(bytes(-size % tarfile.BLOCKSIZE))

    def _header(self, path: bytes, found: Found | None, xattrs: dict[str, bytes], link: bytes | None = None) -> bytes:
        """Of a whiteout where nothing was found. Source: spec unpack 7.3."""
        info = tarfile.TarInfo(path.decode(errors="surrogateescape"))
        info.mode = 0
        if found is not None:
            self._fill(info, path, found, link)
            info.pax_headers = {
                f"SCHILY.xattr.{key}": value.decode(errors="surrogateescape") for key, value in xattrs.items()
            }
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def _fill(self, info: tarfile.TarInfo, path: bytes, found: Found, link: bytes | None) -> None:
        status = found.status
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = status.st_uid, status.st_gid
        info.mtime = status.st_mtime_ns // 10**9
        if self._epoch_s is not None:
            info.mtime = min(info.mtime, self._epoch_s)
        if link is not None:
            info.type, info.linkname = tarfile.LNKTYPE, link.decode(errors="surrogateescape")
        elif found.folder is not None:
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(status.st_mode):
            target = os.readlink(path.rpartition(b"/")[2], dir_fd=found.at)
            info.type, info.linkname = tarfile.SYMTYPE, target.decode(errors="surrogateescape")
        elif stat.S_ISREG(status.st_mode):
            info.size = status.st_size
        elif stat.S_ISFIFO(status.st_mode):
            info.type = tarfile.FIFOTYPE
        else:
            info.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)


class _Sink:
    """Hashes what is written, and hands it on compressed, without names or times of its own."""

    def __init__(self, compression: str, emit: Callable[[bytes], None]) -> None:
        self._emit = emit
        self._hash = hashlib.sha256()
        self._stored = hashlib.sha256()
        self._held: list[bytes] = []
        self._size = 0
        self._compressor: Any = None
        if compression == "gzip":
            self._compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        elif compression == "zstd":
            self._compressor = zstandard.ZstdCompressor(level=3).compressobj()
        elif compression:
            raise Unsupported(f"layer compression {compression}")

    def write(self, data: bytes) -> None:
        if data:
            self._held.append(data)
            self._size += len(data)
            if self._size >= _PIECE:
                self._flush()

    def close(self) -> tuple[str, str]:
        self._flush()
        if self._compressor is not None:
            self._put(self._compressor.flush())
        return f"sha256:{self._hash.hexdigest()}", f"sha256:{self._stored.hexdigest()}"

    def _flush(self) -> None:
        data = b"".join(self._held)
        self._held, self._size = [], 0
        self._hash.update(data)
        if self._compressor is not None:
            data = self._compressor.compress(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        if data:
            self._stored.update(data)
            self._emit(data)
