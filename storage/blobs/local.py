"""Blobs and ingests as files: the half of the blob store that touches the disk.

    blobs/<algorithm>/<hex>.<generation>   committed, read-only
    ingests/<generation>                   being written

Order of a commit: data synced, renamed, folder synced, and only then recorded (spec content 7.3). All
functions block; they are called through the workers.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from ...protocol.errors import NotFound, OrlopError, OutOfRange, ResourceExhausted, Unavailable
from ...protocol.messages import MAX_INLINE_BYTES
from ...protocol.world import Files
from .ledger import blob_path, ingest_path

__all__ = ["Digester", "IngestFile", "LocalBlobs", "Progress", "disk_error", "disk_errors", "new_digester"]

ALGORITHMS: Final = ("sha256", "sha384", "sha512")
_READ_BYTES: Final = 1024 * 1024
_FLUSH_BYTES: Final = 8 * 1024 * 1024  # begin writing to disk this often, so that the final sync has little left


class Digester(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Digester: ...


def new_digester(algorithm: str) -> Digester:
    return hashlib.new(algorithm, usedforsecurity=True)


class Progress(NamedTuple):
    """How far an ingest's bytes are hashed."""

    algorithm: str
    offset: int
    digester: Digester


class IngestFile:
    """The bytes of one open ingest, with their running digest. One thread at a time.

    The first bytes stay in memory: most blobs are small, end in the engine, and never need a file. It is made when
    there are more than live in the engine, or when bytes are to be kept for a resume.
    """

    def __init__(self, files: Files, path: str, algorithm: str) -> None:
        self._files = files
        self.path = path
        self.algorithm = algorithm
        self.offset = 0
        self._flushed = 0
        self._fd = -1
        self._memory = bytearray()
        self._digester = new_digester(algorithm)

    @property
    def on_disk(self) -> bool:
        return self._fd >= 0

    def fits_in_memory(self, count: int) -> bool:
        """Whether `append` of so many bytes only copies and hashes them, without touching the disk."""
        return self._fd < 0 and self.offset + count <= MAX_INLINE_BYTES

    def resume(self, known: Progress | None = None) -> None:
        """Go on after what is there. It is hashed again, which is long for a long file, unless what is known of an
        earlier writer's progress covers exactly this many bytes."""
        self._open()
        at = 0
        if known is not None and self._files.size(self._fd) == known.offset and known.algorithm == self.algorithm:
            self._digester = known.digester.copy()
            at = known.offset
        while data := self._files.pread(self._fd, _READ_BYTES, at):
            self._digester.update(data)
            at += len(data)
        self._files.seek(self._fd, at)
        self.offset = self._flushed = at

    def append(self, pieces: list[bytes]) -> None:
        """Write at the end. `offset` counts what was really written, also when this raises OSError."""
        if self.fits_in_memory(sum(map(len, pieces))):
            for piece in pieces:
                self._memory += piece
                self._digester.update(piece)
                self.offset += len(piece)
            return
        self._spill()
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                written = self._files.write(self._fd, rest)
                self._digester.update(bytes(rest[:written]) if written != len(piece) else piece)
                self.offset += written
                rest = rest[written:]
        if self.offset - self._flushed >= _FLUSH_BYTES:
            self._files.flush_behind(self._fd, self._flushed, self.offset - self._flushed)
            self._flushed = self.offset

    def restart(self) -> None:
        """Back to zero bytes; what a longer predecessor held is cut off."""
        if self._fd >= 0:
            self._files.truncate(self._fd, 0)
            self._files.seek(self._fd, 0)
        self._memory.clear()
        self.offset = self._flushed = 0
        self._digester = new_digester(self.algorithm)

    def progress(self) -> Progress:
        """What a later writer needs in order not to hash these bytes again."""
        return Progress(self.algorithm, self.offset, self._digester)

    def digest(self) -> str:
        return f"{self.algorithm}:{self._digester.hexdigest()}"

    def digest_with(self, algorithm: str) -> str:
        """The digest by another algorithm: everything is read again."""
        digester = new_digester(algorithm)
        if self._fd < 0:
            digester.update(bytes(self._memory))
        else:
            at = 0
            while data := self._files.pread(self._fd, _READ_BYTES, at):
                digester.update(data)
                at += len(data)
        return f"{algorithm}:{digester.hexdigest()}"

    def contents(self) -> bytes:
        if self._fd < 0:
            return bytes(self._memory)
        return self._files.pread(self._fd, self.offset, 0) if self.offset else b""

    def sync(self) -> None:
        self._spill()
        self._files.sync(self._fd)

    def keep(self, updated_at: int) -> None:
        """Sync what was written and its name, and remember when that was: the status survives a reopen."""
        if self._fd < 0 and not self.offset:
            return
        self.sync()
        self._files.set_modified(self.path, updated_at)
        self._files.sync_folder(os.path.dirname(self.path))

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._files.close(fd)

    def discard(self) -> None:
        """The ingest is no more, and nobody else knows of its file."""
        self.close()
        try:
            self._files.unlink(self.path)
        except FileNotFoundError:
            pass

    def _open(self) -> None:
        self._fd = self._files.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def _spill(self) -> None:
        """From memory into a file. If that fails, the bytes are still in memory, and the next attempt begins anew."""
        if self._fd >= 0:
            return
        self._open()
        try:
            self._files.truncate(self._fd, 0)
            rest = memoryview(bytes(self._memory))
            while rest:
                rest = rest[self._files.write(self._fd, rest) :]
        except BaseException:
            self.close()
            raise
        self._memory.clear()


class LocalBlobs:
    """The files under one store's folder."""

    def __init__(self, root: str, files: Files) -> None:
        self._root = root
        self._files = files

    def prepare(self) -> None:
        """Make the folders, durably, so that no commit has to."""
        for folder in ("ingests", *(f"blobs/{algorithm}" for algorithm in ALGORITHMS)):
            self._files.make_folder(f"{self._root}/{folder}")
        self._files.sync_folder(f"{self._root}/blobs")
        self._files.sync_folder(self._root)

    def new_ingest(self, generation: int, algorithm: str) -> IngestFile:
        """Nothing yet, neither in memory nor on disk. Does not block."""
        return IngestFile(self._files, self.path(ingest_path(generation)), algorithm)

    def resume_ingest(self, generation: int, algorithm: str, known: Progress | None = None) -> IngestFile:
        """With the bytes that an earlier writer left."""
        file = self.new_ingest(generation, algorithm)
        try:
            file.resume(known)
        except BaseException:
            file.close()
            raise
        return file

    def seal(self, generation: int, digest: str) -> None:
        """Give a synced ingest its name as a blob, durably. Doing it again is harmless."""
        source, target = self.path(ingest_path(generation)), self.path(blob_path(digest, generation))
        try:
            self._files.chmod(source, 0o444)
            self._files.rename(source, target)
        except FileNotFoundError:
            if self._files.status(target) is None:
                raise
        self._files.sync_folder(os.path.dirname(target))

    def unseal(self, generation: int, digest: str) -> bool:
        """Undo `seal` of a commit that was not recorded; True if there was something to undo."""
        source, target = self.path(ingest_path(generation)), self.path(blob_path(digest, generation))
        if self._files.status(target) is None:
            return False
        self._files.chmod(target, 0o600)
        self._files.rename(target, source)
        return True

    def ingest_status(self, generation: int, sealed: str) -> tuple[int, int] | None:
        """(bytes so far, time of the last write in nanoseconds), also when it has its blob's name already."""
        status = self._files.status(self.path(ingest_path(generation)))
        if status is None and sealed:
            status = self._files.status(self.path(blob_path(sealed, generation)))
        return None if status is None else (status.size, status.modified_ns)

    def exists(self, digest: str, generation: int) -> bool:
        return self._files.status(self.path(blob_path(digest, generation))) is not None

    def open_blob(self, digest: str, generation: int) -> int:
        """A fresh read-only descriptor. Raises NotFound when the file has gone."""
        try:
            return self._files.open(self.path(blob_path(digest, generation)), os.O_RDONLY)
        except FileNotFoundError:
            raise NotFound(
                f"bytes of content {digest}", hint="the file vanished from the store; pull or ingest it again"
            ) from None

    def copy(self, digest: str, generation: int, count: int, target: IngestFile) -> None:
        """Append the first `count` bytes of a blob to an ingest. Raises NotFound when its file has gone."""
        fd = self.open_blob(digest, generation)
        try:
            at = 0
            while at < count and (piece := self._files.pread(fd, min(_READ_BYTES, count - at), at)):
                target.append([piece])
                at += len(piece)
        finally:
            self._files.close(fd)

    def read(self, fd: int, offset: int, count: int) -> bytes:
        """Exactly `count` bytes. Raises OutOfRange past the end."""
        pieces = []
        while count:
            piece = self._files.pread(fd, min(count, _READ_BYTES), offset)
            if not piece:
                raise OutOfRange(f"read at {offset}: the blob ends before")
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_some(self, fd: int, offset: int, count: int) -> bytes:
        """Up to `count` bytes; none at the end."""
        return self._files.pread(fd, count, offset)

    def close(self, fd: int) -> None:
        self._files.close(fd)

    def ingest_files(self) -> list[str]:
        """The paths of all files in the ingests' folder."""
        return [f"ingests/{name}" for name in self._files.list_folder(self.path("ingests"))]

    def remove(self, paths: list[str]) -> None:
        """Unlink files, durably: who strikes them off a queue afterwards never meets them again. One that is gone
        already is fine."""
        for path in paths:
            try:
                self._files.unlink(self.path(path))
            except FileNotFoundError:
                pass
        for folder in {os.path.dirname(path) for path in paths}:
            self._files.sync_folder(self.path(folder))

    def size_of(self, inside: str) -> int:
        """Bytes of a file; 0 if it is not there."""
        status = self._files.status(self.path(inside))
        return 0 if status is None else status.size

    def sync_folder(self, inside: str) -> None:
        self._files.sync_folder(self.path(inside))

    def path(self, inside: str) -> str:
        return f"{self._root}/{inside}"


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Raises `disk_error` for an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, what) from error


def disk_error(error: OSError, what: str) -> OrlopError:
    """What a caller is told when the disk refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"{what}: no space left on the store's disk", hint="remove images, then try again")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Unavailable(f"{what}: too many open files")
    return Unavailable(f"{what}: {error.strerror or error}")
