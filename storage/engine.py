"""The contract that carries everything above `storage`: `view()` and `transact(fn)`.

An engine may be one of ours (the storage actor over LevelDB or memory) or, later, a distributed system. So
no code above it may assume that it holds the only handle to the data, and reads are awaited even where the
answer is at hand.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Protocol, TypeVar

from ..protocol.errors import Unavailable

__all__ = [
    "MAX_KEY_BYTES",
    "MAX_TRANSACTION_BYTES",
    "MAX_TRANSACTION_OPERATIONS",
    "MAX_TRANSACTION_WRITES",
    "MAX_VALUE_BYTES",
    "Engine",
    "KeyValue",
    "Kind",
    "Reader",
    "Reopened",
    "Snapshot",
    "Transaction",
    "View",
    "WriteFailed",
]

MAX_KEY_BYTES = 1024
MAX_VALUE_BYTES = 64 * 1024
MAX_TRANSACTION_WRITES = 1000
MAX_TRANSACTION_OPERATIONS = 250
"""Of a client's batch: it is planned in one step, which must not hold up the loop."""
MAX_TRANSACTION_BYTES = 1024 * 1024

T = TypeVar("T")


class Kind(IntEnum):
    """What an object is. The numbers are containerd's, which has none for a sandbox. Streams and
    mounts are kept by no part of orlop itself: see `collection.kinds`. Source: spec gc 2."""

    CONTENT = 1
    SNAPSHOT = 2
    CONTAINER = 3
    IMAGE = 5
    LEASE = 6
    INGEST = 7
    STREAM = 9
    MOUNT = 10
    SANDBOX = 64


class Reader(Protocol):
    async def get(self, key: bytes) -> bytes | None:
        """The value, or None. Raises DataLoss if the stored bytes fail their checksum."""

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs with start <= key < stop, in the order of the raw bytes."""


class View(Reader, Protocol):
    """A consistent read of one durable state. Not held for longer than a second by lists; see DESIGN 4."""

    number: int
    """The commit number of the state seen."""


class Transaction(Reader, Protocol):
    """Reads see everything planned before, and this transaction's own writes."""

    now_ns: int
    """The engine's clock: later than in the transaction before, unless the wall clock was set back by more
    than a second. It is what stands in records."""
    number: int
    """The commit number that this transaction has if it writes anything."""

    def tick(self) -> None:
        """The next instant, for changes that follow each other in one transaction."""

    def put(self, key: bytes, value: bytes) -> None:
        """Raises InvalidArgument beyond the limits on keys and values, ResourceExhausted beyond those of a
        transaction; nothing of the transaction is done then."""

    def delete(self, key: bytes) -> None: ...

    urgent: bool
    """What this transaction releases is collected before anything else: somebody waits for it."""

    @property
    def byte_count(self) -> int:
        """Bytes that it has written so far."""

    @property
    def write_count(self) -> int:
        """Keys that it has written so far."""

    quiet: bool
    """A transaction of the store's own, which counts for none of the collector's thresholds."""

    def index(self, key: bytes, value: bytes | None) -> None:
        """Write (None: delete) what follows from records: it counts for the bytes of a transaction only."""

    def expires(self, at_ns: int) -> None:
        """Something switches at that time: the collector wants to be awake then."""

    def queued_removal(self) -> None:
        """Files wait in the removal queue."""

    def made_garbage(self) -> None:
        """Something may have lost its last reference: the collector is woken when this is durable."""


class Engine(Protocol):
    def view(self) -> AbstractContextManager[View]:
        """The last durable state. Never waits for a writer."""

    async def transact(self, fn: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `fn` with serializable isolation and return its result once that is durable.

        `fn` touches nothing but its transaction, may be run again, and returns values that outlive it.
        Raises what `fn` raises (nothing is done then), Unknown when the write failed half-way, Unavailable
        when it was certainly not done.
        Cancellation: withdrawn if not yet planned; later the outcome is unknown to the caller.
        """


class Snapshot(Protocol):
    """A frozen state of a key-value store, used on the loop's thread only."""

    def get(self, key: bytes) -> bytes | None: ...
    def read(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs at once: what lists are made of."""

    def scan(self, start: bytes, stop: bytes) -> Scan: ...
    def close(self) -> None: ...


class Scan(Protocol):
    def __iter__(self) -> Scan: ...
    def __next__(self) -> tuple[bytes, bytes]: ...
    def close(self) -> None: ...


class KeyValue(Protocol):
    """What the storage actor needs of LevelDB, and what memory imitates."""

    def snapshot(self) -> Snapshot:
        """The state after the last write that returned. Called on the loop's thread."""

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        """All of it, durably, or WriteFailed. None deletes. Called in a thread, one call at a time."""

    def invalidate(self) -> None:
        """Every snapshot there is raises Unavailable from here on. Called on the loop's thread, so that no
        reader is inside when the handle goes."""

    def recover(self) -> None:
        """After WriteFailed and `invalidate`: throw the handle away and open the data afresh. In a thread."""

    def close(self) -> None:
        """Called when no write is under way. Snapshots are dead from here on."""


class Reopened(Unavailable):
    """A read of a state that went with the handle; the same read of the present state succeeds."""


class WriteFailed(Exception):
    """The write may or may not be there after `recover`. `full`: for want of space."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full
