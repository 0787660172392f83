"""LevelDB, with the rules that measurements force on whoever wants to lose nothing (docs/durability.md).

* Creating a database is not crash-safe: every file of a new one is synced, then a marker READY outside the
  folder. No marker at start means that nothing was ever acknowledged: it is made anew.
* A new log file's name is only durable once its folder is synced: done whenever the set of names changed.
* After one failed write the handle is never written to again; it is closed and the data opened afresh.
* A plyvel handle may not be closed while a thread is inside it: reads happen on the loop's thread only, and
  check that the handle still is the one they began with.
* No code of ours opens the file LOCK: closing any descriptor of it gives up LevelDB's own lock.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from itertools import islice
from typing import Any

import plyvel

from ..protocol.errors import DataLoss, Unavailable
from ..protocol.world import Files
from . import posix
from .engine import Reopened, WriteFailed

__all__ = ["LevelDBStore"]

_WRITE_BUFFER_BYTES = 32 * 1024 * 1024  # 4 MiB, the default, stalls ten times as often and rewrites twice as much
_CACHE_BYTES = 64 * 1024 * 1024
_BALLAST_BYTES = 16 * 1024 * 1024


class LevelDBStore:
    """`root` is the store's folder; LevelDB's own is `root/metadata`."""

    def __init__(self, root: str, files: Files) -> None:
        self._files = files
        self._root = root
        self._path = f"{root}/metadata"
        self._ready = f"{root}/READY"
        self._ballast = f"{root}/ballast"
        self._db: Any = None
        self._epoch = 0
        self._names: frozenset[str] = frozenset()

    @classmethod
    def open(cls, root: str, files: Files) -> LevelDBStore:
        """Open or make the database. Blocking. Raises OSError, DataLoss or Unavailable."""
        store = cls(root, files)
        try:
            if files.status(store._ready) is None:
                store._create()
            else:
                store._open(create=False)
            store._ensure_ballast()
        except BaseException:
            store.close()  # else its lock would stay for as long as somebody looks at the error
            raise
        return store

    def snapshot(self) -> _Snapshot:
        return _Snapshot(self, self._db.snapshot(), self._epoch)

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        try:
            with self._db.write_batch(sync=True) as writes:
                put, delete = writes.put, writes.delete
                for key, value in batch.items():
                    if value is None:
                        delete(key)
                    else:
                        put(key, value)
            self._sync_new_names()
        except (plyvel.Error, OSError) as error:
            raise WriteFailed(f"LevelDB: {error}", full=_is_full(error)) from error

    def invalidate(self) -> None:
        self._epoch += 1

    def recover(self) -> None:
        self.close()
        # Opening writes a little, so it needs what the ballast keeps free when the disk is full.
        if self._files.status(self._ballast) is not None:
            self._files.unlink(self._ballast)
        self._open(create=False)

    def close(self) -> None:
        self._epoch += 1
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def compact(self, start: bytes, stop: bytes) -> None:
        """Give back the space of what was deleted between two keys. Called where writes are called."""
        self._db.compact_range(start=start, stop=stop)

    def _create(self) -> None:
        self._files.remove_tree(self._path)
        self._files.make_folder(self._path)
        self._open(create=True)
        self._db.put(b"\x00created", b"", sync=True)
        for name in self._files.list_folder(self._path):
            if name != "LOCK":
                posix.sync_path(self._files, f"{self._path}/{name}")
        self._files.sync_folder(self._path)
        self._files.sync_folder(self._root)  # before the marker: it may never stand without what it speaks of
        posix.write_file(self._files, self._ready, b"The database in metadata/ was made completely.\n")
        self._files.sync_folder(self._root)

    def _open(self, *, create: bool) -> None:
        try:
            # paranoid_checks would refuse a log whose unacknowledged end is torn; commit numbers tell
            # an end that was torn from one that was lost.
            self._db = plyvel.DB(
                self._path,
                create_if_missing=create,
                write_buffer_size=_WRITE_BUFFER_BYTES,
                lru_cache_size=_CACHE_BYTES,
                bloom_filter_bits=10,
                max_open_files=512,
            )
        except plyvel.CorruptionError as error:
            raise DataLoss(f"database {self._path}: {error}") from error
        except plyvel.Error as error:
            if "already held" in str(error) or "temporarily unavailable" in str(error):
                raise Unavailable(f"database {self._path} is in use by another process") from error
            if isinstance(error, plyvel.IOError) and "No such file" not in str(error):
                raise Unavailable(f"database {self._path}: {error}", hint="the disk is full or failing") from error
            raise DataLoss(
                f"database {self._path} does not open: {error}",
                hint="the folder metadata/ was damaged or changed",
            ) from error
        self._sync_new_names()

    def _sync_new_names(self) -> None:
        names = frozenset(
            name
            for name in self._files.list_folder(self._path)
            if name.endswith(".log") or name.startswith(("MANIFEST", "CURRENT"))
        )
        if names != self._names:
            self._files.sync_folder(self._path)
            self._names = names

    def _ensure_ballast(self) -> None:
        """Space that is given up when the disk is full, so that deletes can still be written."""
        if self._files.status(self._ballast) is not None:
            return
        try:
            fd = self._files.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                self._files.allocate(fd, _BALLAST_BYTES)
            finally:
                self._files.close(fd)
        except OSError:  # a disk too full for ballast is still worth opening
            if self._files.status(self._ballast) is not None:
                self._files.unlink(self._ballast)

    def _check(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise Reopened("the store was reopened; read again")


class _Snapshot:
    __slots__ = ("_epoch", "_get", "_snapshot", "_store")

    def __init__(self, store: LevelDBStore, snapshot: Any, epoch: int) -> None:
        self._store = store
        self._snapshot = snapshot
        self._get = snapshot.get
        self._epoch = epoch

    def get(self, key: bytes) -> bytes | None:
        if self._epoch != self._store._epoch:
            self._store._check(self._epoch)
        try:
            # Without verify_checksums a flipped bit in a table file is served as a value.
            return self._get(key, verify_checksums=True)  # type: ignore[no-any-return]  # plyvel has no types
        except plyvel.Error as error:
            raise DataLoss(f"key {key!r}: {error}") from error

    def read(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        self._store._check(self._epoch)
        iterator = self._snapshot.iterator(start=start, stop=stop, verify_checksums=True)
        try:
            return list(islice(iterator, limit))
        except plyvel.Error as error:
            raise DataLoss(f"scan from {start!r}: {error}") from error
        finally:
            iterator.close()

    def scan(self, start: bytes, stop: bytes) -> _Scan:
        self._store._check(self._epoch)
        return _Scan(self._store, self._epoch, self._snapshot.iterator(start=start, stop=stop, verify_checksums=True))

    def close(self) -> None:
        if self._epoch == self._store._epoch:
            self._snapshot.close()


class _Scan:
    __slots__ = ("_epoch", "_iterator", "_store")

    def __init__(self, store: LevelDBStore, epoch: int, iterator: Any) -> None:
        self._store = store
        self._epoch = epoch
        self._iterator = iterator

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self._epoch != self._store._epoch:
            self._store._check(self._epoch)
        try:
            return next(self._iterator)  # type: ignore[no-any-return]  # plyvel has no types
        except plyvel.Error as error:
            raise DataLoss(f"scan: {error}") from error

    def close(self) -> None:
        if self._epoch == self._store._epoch:
            self._iterator.close()


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error) or "quota" in str(error).lower()
