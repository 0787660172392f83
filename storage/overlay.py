"""What is planned but not yet durable, laid over the last durable state, and the transactions that read both.

An entry belongs to the last group that wrote its key. It goes when that group is durable and the view below
has moved past it; so at every instant view plus overlay is the state that the next transaction must see.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Protocol

from ..protocol.errors import InvalidArgument, ResourceExhausted
from . import keys
from .engine import (
    MAX_KEY_BYTES,
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_WRITES,
    MAX_VALUE_BYTES,
    Snapshot,
)

__all__ = ["Overlay", "OverlayTransaction"]

_MOST_HOT = 4096
_FEW = 64  # keys that are put in one by one instead of sorting them all


class Overlay:
    """Keys with the number of the group that wrote them last, and their value (None: deleted).

    `hot` remembers what stands durably under the few keys that nearly every transaction reads: a read of the
    store gives up the interpreter to the thread that is writing, which costs more than the read.
    """

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[int, bytes | None]] = {}
        self.hot: dict[bytes, bytes | None] = {}
        self._regions: dict[bytes, _Region] = {}

    def add(self, group: int, writes: dict[bytes, bytes | None]) -> None:
        entries, regions = self.entries, self._regions
        for key, value in writes.items():
            if key not in entries:
                region = regions.get(key[1:2])
                if region is not None:
                    region.fresh.append(key)
            entries[key] = (group, value)

    def settle(self, group: int, written: Iterable[bytes]) -> None:
        """Group `group` is durable: what it wrote last is in the view now."""
        entries, hot = self.entries, self.hot
        for key in written:
            if entries[key][0] == group:
                value = entries.pop(key)[1]
                if key in hot:
                    hot[key] = value

    def clear(self) -> None:
        self.entries.clear()
        self.hot.clear()
        self._regions.clear()

    def read(self, base: Snapshot, key: bytes) -> bytes | None:
        """What the next transaction finds under `key`."""
        entry = self.entries.get(key)
        if entry is not None:
            return entry[1]
        if key[1:2] not in keys.HOT_REGIONS:
            return base.get(key)
        if key in self.hot:
            return self.hot[key]
        if len(self.hot) >= _MOST_HOT:
            self.hot.clear()
        value = self.hot[key] = base.get(key)
        return value

    def keys_between(self, start: bytes, stop: bytes) -> list[bytes]:
        """Sorted by region, and only where somebody scans: point reads and writes never pay for the order."""
        if not _one_region(start, stop):
            return sorted(key for key in self.entries if start <= key < stop)
        region = self._regions.get(start[1:2])
        if region is None:
            region = self._regions[start[1:2]] = _Region([key for key in self.entries if key[1:2] == start[1:2]])
        return region.between(start, stop, self.entries)


class _Region:
    """The planned keys of one region in their order; those that are durable by now are left out when it is read."""

    __slots__ = ("_sorted", "fresh")

    def __init__(self, keys_: list[bytes]) -> None:
        self._sorted: list[bytes] = []
        self.fresh = keys_

    def between(self, start: bytes, stop: bytes, entries: dict[bytes, tuple[int, bytes | None]]) -> list[bytes]:
        if self.fresh:
            self._merge(entries)
        ordered = self._sorted
        return [key for key in ordered[bisect_left(ordered, start) : bisect_left(ordered, stop)] if key in entries]

    def _merge(self, entries: dict[bytes, tuple[int, bytes | None]]) -> None:
        if len(self.fresh) > _FEW or len(self._sorted) > 2 * len(entries) + _FEW:
            self._sorted = sorted({key for key in (*self._sorted, *self.fresh) if key in entries})
        else:
            for key in self.fresh:
                at = bisect_left(self._sorted, key)
                if at == len(self._sorted) or self._sorted[at] != key:
                    self._sorted.insert(at, key)
        self.fresh = []


class OverlayTransaction:
    """A transaction over a snapshot and an overlay. It is run to its end without a checkpoint."""

    __slots__ = (
        "_base",
        "_bytes",
        "_indexed",
        "_regions",
        "_overlay",
        "dirty",
        "expiry_ns",
        "now_ns",
        "number",
        "quiet",
        "removals",
        "urgent",
        "writes",
    )

    def __init__(self, base: Snapshot, overlay: Overlay, now_ns: int, number: int) -> None:
        self._base = base
        self._overlay = overlay
        self._bytes = 0
        self._indexed = 0
        self._regions: dict[bytes, list[bytes]] = {}
        self.now_ns = now_ns
        self.number = number
        self.writes: dict[bytes, bytes | None] = {}
        self.expiry_ns: int | None = None
        self.dirty = False
        self.removals = False
        self.urgent = False
        self.quiet = False

    @property
    def byte_count(self) -> int:
        return self._bytes

    @property
    def write_count(self) -> int:
        return len(self.writes)

    async def get(self, key: bytes) -> bytes | None:
        if key in self.writes:
            return self.writes[key]
        return self._overlay.read(self._base, key)

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        planned = self._overlay.keys_between(start, stop)
        own = [key for key in self._own(start, stop) if start <= key < stop]
        if own:
            planned = sorted({*planned, *own})
        found: list[tuple[bytes, bytes]] = []
        below = self._base.scan(start, stop)
        try:
            for key, value in _merge(below, planned, self._planned_value):
                if len(found) == limit:
                    break
                found.append((key, value))
        finally:
            below.close()
        return found

    def _own(self, start: bytes, stop: bytes) -> Iterable[bytes]:
        return self._regions.get(start[1:2], ()) if _one_region(start, stop) else self.writes

    def tick(self) -> None:
        self.now_ns += 1

    def put(self, key: bytes, value: bytes) -> None:
        if len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
            raise InvalidArgument(
                f"a key of {len(key)} bytes with a value of {len(value)}: the limits are {MAX_KEY_BYTES} and "
                f"{MAX_VALUE_BYTES}"
            )
        self._write(key, value, len(key) + len(value))

    def delete(self, key: bytes) -> None:
        self._write(key, None, len(key))

    def index(self, key: bytes, value: bytes | None) -> None:
        if key not in self.writes:
            self._indexed += 1
        self._write(key, value, len(key) + len(value or b""))

    def expires(self, at_ns: int) -> None:
        if self.expiry_ns is None or at_ns < self.expiry_ns:
            self.expiry_ns = at_ns

    def queued_removal(self) -> None:
        self.removals = True

    def made_garbage(self) -> None:
        self.dirty = True

    def _write(self, key: bytes, value: bytes | None, size: int) -> None:
        if key not in self.writes:
            self._regions.setdefault(key[1:2], []).append(key)
        self.writes[key] = value
        self._bytes += size
        if len(self.writes) - self._indexed > MAX_TRANSACTION_WRITES or self._bytes > MAX_TRANSACTION_BYTES:
            raise ResourceExhausted(
                f"a transaction of more than {MAX_TRANSACTION_WRITES} writes or {MAX_TRANSACTION_BYTES} bytes"
            )

    def _planned_value(self, key: bytes) -> bytes | None:
        if key in self.writes:
            return self.writes[key]
        return self._overlay.entries[key][1]


def _one_region(start: bytes, stop: bytes) -> bool:
    """Whether a range lies within one region; all do but those of tests."""
    return len(start) > 1 and (stop[:2] == start[:2] or stop == bytes((start[0], start[1] + 1)))


def _merge(
    below: Iterator[tuple[bytes, bytes]], planned: list[bytes], value_of: _ValueOf
) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of `below` with the planned keys put in, put over, or taken away."""
    at = 0
    for key, value in below:
        while at < len(planned) and planned[at] < key:
            new = value_of(planned[at])
            if new is not None:
                yield planned[at], new
            at += 1
        if at < len(planned) and planned[at] == key:
            over = value_of(key)
            at += 1
            if over is not None:
                yield key, over
        else:
            yield key, value
    for key in planned[at:]:
        new = value_of(key)
        if new is not None:
            yield key, new


class _ValueOf(Protocol):
    def __call__(self, key: bytes) -> bytes | None: ...
