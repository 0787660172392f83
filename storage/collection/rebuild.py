"""The forest of a store that has none: of one that an earlier version wrote, or whose references are mended.

Every record is taken as if it were born now, a few in each transaction; what the collector finds afterwards is what the
full mark finds. It goes on where it was interrupted.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ...protocol.records import ContentInfo, Lease, SnapshotInfo
from .. import keys
from ..codec import encode, open_value, read_record, seal
from ..engine import Transaction
from ..lease_entries import entries_prefix
from ..snapshots import find_backend, find_id
from ..tables import page_namespaces
from ..usage import STORE, content_held, forget_usage, snapshot_held
from .changes import record_changed
from .kinds import KIND_OF, decode_record
from .owed import OwedEntries, owe
from .state import decode_clock

__all__ = ["begin_rebuild", "is_readable", "rebuild_some"]

_RECORDS_AT_ONCE: Final = 20
_KEYS_AT_ONCE: Final = 500
_NAMESPACES_AT_ONCE: Final = 100
_DERIVED: Final = (
    keys.EDGES,
    keys.BACK_EDGES,
    keys.QUEUE,
    keys.QUEUE_EXTENTS,
    keys.BINS,
    keys.TIMES,
    *keys.HOLDERS,
    keys.OWED,
)
_MOST_UNHELD: Final = 1_000_000
_USAGE: Final = b"usage "


class _OwedBefore(msgspec.Struct, frozen=True):
    """How format 1 wrote what a lease's end owes."""

    prefix: bytes


_OWED_BEFORE = msgspec.msgpack.Decoder(_OwedBefore)


def is_readable(clock: bytes | None) -> bool:
    """Whether the collector's own state can be read; else all that it knew is found out anew."""
    try:
        decode_clock(clock)
    except msgspec.MsgspecError:
        return False
    return True


async def begin_rebuild(txn: Transaction) -> None:
    """From now on nothing is known of any object. What leases owe is kept, in today's form."""
    txn.put(keys.REBUILT, b"clear")
    txn.index(keys.CLOCK, None)


async def rebuild_some(txn: Transaction) -> bool:
    """Do some of it; False: it is done, or was not begun."""
    txn.quiet = True
    at = await txn.get(keys.REBUILT)
    if at is None:
        return False
    if at == b"clear":
        if await _clear_some(txn):
            return True
        txn.delete(keys.CLOCK)
        unheld = await txn.scan(keys.UNHELD, keys.prefix_end(keys.UNHELD), _MOST_UNHELD)
        txn.index(keys.UNHELD_COUNT, keys.number(len(unheld)) if unheld else None)
        forget_usage(txn, STORE)
        at = _USAGE
    if at.startswith(_USAGE):
        names = [each.name for each in await page_namespaces(txn, at[len(_USAGE) :].decode(), _NAMESPACES_AT_ONCE)]
        for name in names:
            forget_usage(txn, name)
            txn.delete(keys.back_count(name))
        if len(names) == _NAMESPACES_AT_ONCE:
            txn.put(keys.REBUILT, _USAGE + names[-1].encode())
            return True
        at = keys.RECORDS
    found = await txn.scan(at, keys.prefix_end(keys.RECORDS), _RECORDS_AT_ONCE)
    for key, value in found:
        namespace, _, rest = key[len(keys.RECORDS) :].partition(b"\x00")
        kind = KIND_OF[rest[:1]]
        record = decode_record(kind, await read_record(txn, key, value))
        if record is None:
            continue
        await _held(txn, namespace.decode(), rest[1:].decode(), record)
        await record_changed(txn, namespace.decode(), kind, rest[1:].decode(), None, record)
        if isinstance(record, Lease):
            await owe(txn, OwedEntries(namespace.decode(), record.id, entries_prefix(namespace.decode(), record)))
    if len(found) < _RECORDS_AT_ONCE:
        txn.delete(keys.REBUILT)
        return False
    txn.put(keys.REBUILT, found[-1][0] + b"\x00")
    return True


async def _held(txn: Transaction, namespace: str, name: str, record: msgspec.Struct) -> None:
    if isinstance(record, ContentInfo):
        await content_held(txn, namespace, name, record.size, alone=False)
    elif isinstance(record, SnapshotInfo):
        snapshot_id = await find_id(txn, namespace, name)
        backend = await find_backend(txn, snapshot_id)
        if backend is not None:
            await snapshot_held(txn, namespace, snapshot_id, backend.size, alone=False)


async def _clear_some(txn: Transaction) -> bool:
    for prefix in _DERIVED:
        found = await txn.scan(prefix, keys.prefix_end(prefix), _KEYS_AT_ONCE)
        kept = 0
        for key, value in found:
            if prefix == keys.OWED and (today := _owed_today(key, value)) is not None:
                kept += 1
                if today != value:
                    txn.index(key, today)
            else:
                txn.index(key, None)
        if len(found) > kept:
            return True
    return False


def _owed_today(key: bytes, value: bytes) -> bytes | None:
    """Entries of lives that ended are still owed; what else is owed follows from the records."""
    _, payload = open_value(value, key)
    try:
        owed = msgspec.msgpack.decode(payload, type=OwedEntries)
    except msgspec.MsgspecError:
        try:
            prefix = _OWED_BEFORE.decode(payload).prefix
        except msgspec.MsgspecError:
            return None
        namespace, lease = keys.lease_of(prefix)
        owed = OwedEntries(namespace, lease, prefix)
    return seal(encode(owed))
