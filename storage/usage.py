"""Bytes that namespaces hold, counted in the transactions that change them.

Of a namespace: *packed*, its blobs; *unpacked*, what its snapshots added to their parents; *exclusive*, what of both no
other namespace holds, so what is left of their sum is shared; *reclaimable*, what of both the collector has found dead.
Of the store (the namespace with the empty name): packed and unpacked, each blob and snapshot once. An index of who
holds what tells in one short look whether somebody else does.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from . import keys
from .engine import Reader, Transaction

__all__ = [
    "STORE",
    "BytesHeld",
    "Unit",
    "add_bytes",
    "content_held",
    "content_released",
    "forget_usage",
    "read_usage",
    "snapshot_held",
    "snapshot_released",
    "snapshot_resized",
]

STORE: Final = ""


class Unit(Enum):
    PACKED = b"\x01p"
    UNPACKED = b"\x01u"
    EXCLUSIVE = b"\x01e"
    RECLAIMABLE = b"\x01r"


class BytesHeld(msgspec.Struct, frozen=True):
    """Bytes. See the module for what each counts."""

    packed: int = 0
    unpacked: int = 0
    exclusive: int = 0
    reclaimable: int = 0

    @property
    def shared(self) -> int:
        return self.packed + self.unpacked - self.exclusive


async def content_held(txn: Transaction, namespace: str, digest: str, size: int, *, alone: bool) -> None:
    """A namespace has a record of a blob from now on. `alone`: it is known that nobody else has one."""
    await _joined(txn, keys.blob_holders(digest), namespace, Unit.PACKED, size, alone=alone)


async def content_released(txn: Transaction, namespace: str, digest: str, size: int, *, alone: bool) -> None:
    await _left(txn, keys.blob_holders(digest), namespace, Unit.PACKED, size, alone=alone)


async def snapshot_held(txn: Transaction, namespace: str, snapshot_id: int, size: int, *, alone: bool) -> None:
    await _joined(txn, keys.snapshot_holders(snapshot_id), namespace, Unit.UNPACKED, size, alone=alone)


async def snapshot_released(txn: Transaction, namespace: str, snapshot_id: int, size: int, *, alone: bool) -> None:
    await _left(txn, keys.snapshot_holders(snapshot_id), namespace, Unit.UNPACKED, size, alone=alone)


async def snapshot_resized(txn: Transaction, namespace: str, by: int) -> None:
    """A snapshot of one namespace alone has another size."""
    for name, unit in ((namespace, Unit.UNPACKED), (namespace, Unit.EXCLUSIVE), (STORE, Unit.UNPACKED)):
        await add_bytes(txn, name, unit, by)


async def _joined(txn: Transaction, holders: bytes, namespace: str, unit: Unit, size: int, *, alone: bool) -> None:
    others = [] if alone else await _others(txn, holders, namespace)
    txn.index(holders + namespace.encode(), b"")
    await add_bytes(txn, namespace, unit, size)
    if not others:
        await add_bytes(txn, namespace, Unit.EXCLUSIVE, size)
        await add_bytes(txn, STORE, unit, size)
    elif len(others) == 1:
        await add_bytes(txn, others[0], Unit.EXCLUSIVE, -size)


async def _left(txn: Transaction, holders: bytes, namespace: str, unit: Unit, size: int, *, alone: bool) -> None:
    others = [] if alone else await _others(txn, holders, namespace)
    txn.index(holders + namespace.encode(), None)
    await add_bytes(txn, namespace, unit, -size)
    if not others:
        await add_bytes(txn, namespace, Unit.EXCLUSIVE, -size)
        await add_bytes(txn, STORE, unit, -size)
    elif len(others) == 1:
        await add_bytes(txn, others[0], Unit.EXCLUSIVE, size)


async def _others(txn: Transaction, holders: bytes, namespace: str) -> list[str]:
    """Up to two other namespaces."""
    found = await txn.scan(holders, holders + b"\x7f", 3)
    names = [key[len(holders) :].decode() for key, _ in found]
    return [name for name in names if name != namespace][:2]


async def add_bytes(txn: Transaction, namespace: str, unit: Unit, size: int) -> None:
    if not size:
        return
    key = keys.count(namespace, unit.value)
    now = int.from_bytes(await txn.get(key) or b"", "big", signed=True) + size
    txn.index(key, now.to_bytes(8, "big", signed=True))


async def read_usage(reader: Reader, namespace: str) -> BytesHeld:
    async def read(unit: Unit) -> int:
        return int.from_bytes(await reader.get(keys.count(namespace, unit.value)) or b"", "big", signed=True)

    return BytesHeld(*[await read(unit) for unit in Unit])


def forget_usage(txn: Transaction, namespace: str) -> None:
    """The namespace is gone, and holds nothing."""
    for unit in Unit:
        txn.index(keys.count(namespace, unit.value), None)
