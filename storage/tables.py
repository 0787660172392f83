"""Typed tables over the engine: the only way by which the rooms above read and write records.

A table keeps, in the same transaction as the record: the namespace's being, the count of records of its kind, the
references that follow from it and what of them becomes dirty. What a collection has sealed is not found any more. Names
come back in the order of their UTF-8 bytes.
"""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar
from zlib import crc32

import msgspec

from ..protocol.errors import AlreadyExists, NotFound, OutOfRange
from ..protocol.identifiers import quote
from ..protocol.labels import SHAREABLE
from ..protocol.records import (
    TOPICS,
    Container,
    ContentInfo,
    Event,
    EventPayload,
    Image,
    Lease,
    Namespace,
    Sandbox,
    SnapshotInfo,
)
from . import keys
from .codec import (
    HEADER_BYTES,
    SCHEMA_BYTE,
    decoder,
    delete_parts,
    delete_record,
    encode,
    put_record,
    read_record,
)
from .collection.alive import is_gone, sealed_rounds
from .collection.changes import make_way, record_changed
from .engine import Kind, Reader, Transaction
from .ingests import IngestRecord
from .keys import RecordKind
from .usage import forget_usage

__all__ = [
    "CONTAINERS",
    "CONTENT",
    "IMAGES",
    "INGESTS",
    "LEASES",
    "SANDBOXES",
    "SNAPSHOTS",
    "IngestRecord",
    "Table",
    "append_event",
    "ensure_namespace",
    "next_generation",
]

R = TypeVar("R", bound=msgspec.Struct)


PAGE_BYTES: Final = 1024 * 1024  # of records; one more may end a page


class Slice(NamedTuple):
    """Records as they travel, each with the bytes of its name; `next` is where to go on, empty at the end."""

    rows: list[tuple[bytes, bytes]]
    next: str

    @property
    def names(self) -> list[str]:
        return [name.decode() for name, _ in self.rows]


class Table(Generic[R]):
    """Records of one kind, by namespace and name."""

    def __init__(self, kind: RecordKind, record: type[R], node: Kind, what: str) -> None:
        self.kind = kind
        self._kind = kind.value  # an enum's value is a slow look-up
        self.node = node
        self.what = what
        self._decode = decoder(record).decode

    async def encoded(self, reader: Reader, namespace: str, name: str) -> msgspec.Raw:
        """The record as it travels. Raises NotFound."""
        key = self._key(namespace, name)
        value = await self._read(reader, key, namespace, name)
        if value is None:
            raise self.missing(name)
        return msgspec.Raw(await read_record(reader, key, value))

    async def find(self, reader: Reader, namespace: str, name: str) -> R | None:
        key = self._key(namespace, name)
        value = await self._read(reader, key, namespace, name)
        return None if value is None else self._decode(await read_record(reader, key, value))

    async def get(self, reader: Reader, namespace: str, name: str) -> R:
        record = await self.find(reader, namespace, name)
        if record is None:
            raise self.missing(name)
        return record

    async def insert(self, txn: Transaction, namespace: str, name: str, record: R) -> msgspec.Raw:
        """Raises AlreadyExists. The namespace comes into being with its first record."""
        await self.make_room(txn, namespace, name)
        key = self._key(namespace, name)
        await ensure_namespace(txn, namespace)
        await _count(txn, namespace, self._kind, 1)
        payload = encode(record)
        put_record(txn, key, payload)
        await record_changed(txn, namespace, self.node, name, None, record)
        return msgspec.Raw(payload)

    async def make_room(self, txn: Transaction, namespace: str, name: str) -> None:
        """Nothing stands under this name afterwards, not even what is dead and not swept. Raises AlreadyExists."""
        key = self._key(namespace, name)
        if await txn.get(key) is not None and not await make_way(txn, namespace, self.node, name):
            raise AlreadyExists(f"{self.what} {quote(name)}")

    async def replace(self, txn: Transaction, namespace: str, name: str, record: R) -> msgspec.Raw:
        """Write over a record that is there. Raises NotFound."""
        key = self._key(namespace, name)
        value = await self._read(txn, key, namespace, name)
        if value is None:
            raise self.missing(name)
        before = self._decode(await read_record(txn, key, value))
        delete_parts(txn, key, value)
        payload = encode(record)
        put_record(txn, key, payload)
        await record_changed(txn, namespace, self.node, name, before, record)
        return msgspec.Raw(payload)

    async def remove(self, txn: Transaction, namespace: str, name: str) -> R:
        """Take a record away and return it. Raises NotFound."""
        key = self._key(namespace, name)
        value = await self._read(txn, key, namespace, name)
        if value is None:
            raise self.missing(name)
        record = self._decode(await read_record(txn, key, value))
        delete_record(txn, key, value)
        await _count(txn, namespace, self._kind, -1)
        await record_changed(txn, namespace, self.node, name, record, None)
        return record

    async def _read(self, reader: Reader, key: bytes, namespace: str, name: str) -> bytes | None:
        value = await reader.get(key)
        if (
            value is not None
            and (sealed := await sealed_rounds(reader))
            and await self._is_gone(reader, sealed, namespace, name.encode())
        ):
            return None
        return value

    async def _is_gone(self, reader: Reader, sealed: tuple[int, ...], namespace: str, name: bytes) -> bool:
        return await is_gone(reader, sealed, keys.state(namespace, self._kind, name.decode()))

    async def page(
        self, reader: Reader, namespace: str, after: str, limit: int, most_bytes: int = PAGE_BYTES, within: str = ""
    ) -> Slice:
        """Up to `limit` records whose names come after `after`, as they travel; fewer when they are large. `within`:
        only those whose names begin so; it ends in a character that is not the last of all."""
        prefix = keys.records(namespace, self.kind.value)
        # The smallest key after a name is that name with a NUL.
        inside = prefix + within.encode()
        start = max(prefix + after.encode() + b"\x00", inside) if after else inside
        pairs = await reader.scan(start, keys.prefix_end(inside), limit)
        skip = len(prefix)
        rows: list[tuple[bytes, bytes]] = []
        held = read = 0
        sealed = await sealed_rounds(reader)
        for key, value in pairs:
            read += 1
            if sealed and await self._is_gone(reader, sealed, namespace, key[skip:]):
                continue
            payload = value[HEADER_BYTES:]
            # Spelled out: this loop is what a list costs. Whatever is out of the ordinary goes the long way.
            if value[:1] != SCHEMA_BYTE or crc32(payload) != int.from_bytes(value[1:HEADER_BYTES], "big"):
                payload = await read_record(reader, key, value)
            rows.append((key[skip:], payload))
            held += len(payload)
            if held > most_bytes:
                break
        more = read < len(pairs) or len(pairs) == limit
        return Slice(rows, pairs[read - 1][0][skip:].decode() if more else "")

    def decode(self, raw: msgspec.Raw | bytes) -> R:
        return self._decode(raw)

    def missing(self, name: str) -> NotFound:
        return NotFound(f"{self.what} {quote(name)}")

    async def count(self, reader: Reader, namespace: str) -> int:
        return _number(await reader.get(keys.count(namespace, self.kind.value)))

    def _key(self, namespace: str, name: str) -> bytes:
        return keys.records(namespace, self._kind) + name.encode()


IMAGES: Final = Table(RecordKind.IMAGE, Image, Kind.IMAGE, "image")
CONTENT: Final = Table(RecordKind.CONTENT, ContentInfo, Kind.CONTENT, "content")
CONTAINERS: Final = Table(RecordKind.CONTAINER, Container, Kind.CONTAINER, "container")
SANDBOXES: Final = Table(RecordKind.SANDBOX, Sandbox, Kind.SANDBOX, "sandbox")
LEASES: Final = Table(RecordKind.LEASE, Lease, Kind.LEASE, "lease")
SNAPSHOTS: Final = Table(RecordKind.SNAPSHOT, SnapshotInfo, Kind.SNAPSHOT, "snapshot")
"""By `snapshotter/key`."""
INGESTS: Final = Table(RecordKind.INGEST, IngestRecord, Kind.INGEST, "ingest")


# namespaces -------------------------------------------------------------------------------------------------

_NAMESPACE = decoder(Namespace)


async def ensure_namespace(txn: Transaction, name: str) -> None:
    """Bring the namespace into being if it is not there; no event tells of it."""
    key = keys.namespace(name)
    if await txn.get(key) is None:
        put_record(txn, key, encode(Namespace(name)))


async def find_namespace(reader: Reader, name: str) -> Namespace | None:
    key = keys.namespace(name)
    value = await reader.get(key)
    return None if value is None else _NAMESPACE.decode(await read_record(reader, key, value))


async def put_namespace(txn: Transaction, namespace: Namespace) -> None:
    key = keys.namespace(namespace.name)
    value = await txn.get(key)
    if value is not None:
        delete_parts(txn, key, value)
    put_record(txn, key, encode(namespace))
    # An index of its own: whoever opens an ingest in isolation asks for these.
    if namespace.labels.get(SHAREABLE) == "true":
        txn.put(keys.shareable(namespace.name), b"")
    elif value is not None:
        txn.delete(keys.shareable(namespace.name))


async def delete_namespace(txn: Transaction, name: str) -> None:
    """Take away the record and what counted for it. Raises NotFound."""
    key = keys.namespace(name)
    value = await txn.get(key)
    if value is None:
        raise NotFound(f"namespace {quote(name)}")
    delete_record(txn, key, value)
    txn.delete(keys.shareable(name))
    for kind in RecordKind:
        txn.delete(keys.count(name, kind.value))
    forget_usage(txn, name)


async def page_namespaces(reader: Reader, after: str, limit: int) -> list[Namespace]:
    start = keys.namespace(after) + b"\x00" if after else keys.NAMESPACES
    pairs = await reader.scan(start, keys.prefix_end(keys.NAMESPACES), limit)
    return [_NAMESPACE.decode(await read_record(reader, key, value)) for key, value in pairs]


# journal ----------------------------------------------------------------------------------------------------

_EVENT = decoder(Event)


async def append_event(
    txn: Transaction, namespace: str, payload: EventPayload, *, topic: str = "", timestamp: int = 0
) -> int:
    """Write the event of a change in the change's own transaction; returns its sequence number.

    `topic` and `timestamp` are those of an event that somebody else tells of.
    """
    sequence = _number(await txn.get(keys.JOURNAL_HEAD)) + 1
    event = Event(sequence, timestamp or txn.now_ns, namespace, topic or TOPICS[type(payload)], payload)
    put_record(txn, keys.event(sequence), encode(event))
    txn.put(keys.JOURNAL_HEAD, keys.number(sequence))
    return sequence


async def journal_bounds(reader: Reader) -> tuple[int, int]:
    """(last sequence number that was trimmed, last that was written); 0 for none."""
    return _number(await reader.get(keys.JOURNAL_FLOOR)), _number(await reader.get(keys.JOURNAL_HEAD))


async def read_events(reader: Reader, after: int, limit: int) -> list[bytes]:
    """Events after a sequence number, as they travel. Raises OutOfRange when some of them are gone."""
    floor, head = await journal_bounds(reader)
    if after < floor:
        raise OutOfRange(
            f"events after {after} were trimmed; the oldest that is kept is {floor + 1}",
            hint=f"read the state afresh, then go on from {floor} or later",
        )
    if after > head:
        raise OutOfRange(f"there is no event {after} yet; the last one is {head}")
    if after == head:
        return []
    pairs = await reader.scan(keys.event(after + 1), keys.prefix_end(keys.JOURNAL), limit)
    return [await read_record(reader, key, value) for key, value in pairs]


async def trim_events(txn: Transaction, keep_after: int, older_than_ns: int, limit: int) -> int:
    """Delete up to `limit` events from the old end: up to number `keep_after`, or older than a time."""
    floor, head = await journal_bounds(txn)
    pairs = await txn.scan(keys.event(floor + 1), keys.event(head + 1), limit)
    trimmed = 0
    for key, value in pairs:
        event = _EVENT.decode(await read_record(txn, key, value))
        if event.sequence > keep_after and event.timestamp >= older_than_ns:
            break
        delete_record(txn, key, value)
        floor = event.sequence
        trimmed += 1
    if trimmed:
        txn.put(keys.JOURNAL_FLOOR, keys.number(floor))
    return trimmed


# counters ---------------------------------------------------------------------------------------------------


async def next_generation(txn: Transaction) -> int:
    """A number no other file of this store has ever had."""
    generation = _number(await txn.get(keys.GENERATION)) + 1
    txn.put(keys.GENERATION, keys.number(generation))
    return generation


async def _count(txn: Transaction, namespace: str, kind: bytes, change: int) -> None:
    key = keys.count(namespace, kind)
    txn.put(key, keys.number(max(0, _number(await txn.get(key)) + change)))


def _number(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value, "big")


read_number = _number
