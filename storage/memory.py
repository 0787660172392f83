"""An ordered key-value store in memory: the model that LevelDB is compared with, and the disk of simulations.

Every key keeps its values with the number of the write that made them, so a snapshot is only a number.
`power_cut` gives what a disk would still hold: everything whose write had returned, nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from itertools import islice

from .engine import Reopened, WriteFailed

__all__ = ["MemoryStore"]


class MemoryStore:
    """`fail_next` makes the next write fail, `torn` says whether its bytes are there after `recover`."""

    def __init__(self) -> None:
        self._cells: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self._keys: list[bytes] = []
        self._version = 0
        self._live: dict[int, int] = {}  # snapshot's version -> how many hold it
        self._epoch = 0
        self.fail_next: WriteFailed | None = None
        self.torn = False

    def snapshot(self) -> _MemorySnapshot:
        self._live[self._version] = self._live.get(self._version, 0) + 1
        return _MemorySnapshot(self, self._version, self._epoch)

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        failure, self.fail_next = self.fail_next, None
        if failure is None or self.torn:
            self._apply(batch)
        if failure is not None:
            raise failure

    def invalidate(self) -> None:
        self._epoch += 1
        self._live.clear()

    def recover(self) -> None:
        """Nothing to reopen: what `write` applied is what a disk would hold."""

    def close(self) -> None:
        self._epoch += 1
        self._live.clear()

    def power_cut(self) -> MemoryStore:
        """Another store with the durable state, as after a restart."""
        copy = MemoryStore()
        copy._apply({key: value for key in self._keys if (value := self._value(key, self._version)) is not None})
        return copy

    def _apply(self, batch: Mapping[bytes, bytes | None]) -> None:
        self._version += 1
        oldest = min(list(self._live), default=self._version)
        # Readers are in another thread: they see a list as it was or as it will be.
        ordered = list(self._keys)
        for key, value in batch.items():
            cells = self._cells.get(key)
            if cells is None:
                self._cells[key] = [(self._version, value)]
                insort(ordered, key)
                continue
            keep = max(0, next((i for i in range(len(cells) - 1, -1, -1) if cells[i][0] <= oldest), 0))
            self._cells[key] = [*cells[keep:], (self._version, value)]
        self._keys = ordered

    def _value(self, key: bytes, version: int) -> bytes | None:
        for written, value in reversed(self._cells.get(key, ())):
            if written <= version:
                return value
        return None

    def _next(self, start: bytes, stop: bytes, version: int) -> tuple[bytes, bytes] | None:
        ordered = self._keys
        for at in range(bisect_left(ordered, start), len(ordered)):
            key = ordered[at]
            if key >= stop:
                return None
            value = self._value(key, version)
            if value is not None:
                return key, value
        return None

    def _release(self, version: int, epoch: int) -> None:
        if epoch == self._epoch:
            self._live[version] -= 1
            if not self._live[version]:
                del self._live[version]


class _MemorySnapshot:
    def __init__(self, store: MemoryStore, version: int, epoch: int) -> None:
        self._store = store
        self._version = version
        self._epoch = epoch
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        self._check()
        return self._store._value(key, self._version)

    def read(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return list(islice(self.scan(start, stop), limit))

    def scan(self, start: bytes, stop: bytes) -> _MemoryScan:
        self._check()
        return _MemoryScan(self, start, stop)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._store._release(self._version, self._epoch)

    def _check(self) -> None:
        if self._closed or self._epoch != self._store._epoch:
            raise Reopened("the store was reopened; read again")


class _MemoryScan:
    def __init__(self, snapshot: _MemorySnapshot, start: bytes, stop: bytes) -> None:
        self._snapshot = snapshot
        self._at = start
        self._stop = stop

    def __iter__(self) -> _MemoryScan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        self._snapshot._check()
        pair = self._snapshot._store._next(self._at, self._stop, self._snapshot._version)
        if pair is None:
            raise StopIteration
        self._at = pair[0] + b"\x00"
        return pair

    def close(self) -> None:
        self._at = self._stop
