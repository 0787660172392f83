"""What leases name: entries under a key of their own, one each, and what is owed when a lease ends.

A lease may have any number of entries. Ending it is one deciding transaction: its record goes, and with it
every meaning of its entries; those that do not fit are *owed*, and go before the collector goes on. An entry
belongs to one life of a lease (its time of creation), so a lease made anew under the same id never inherits any.
"""

from __future__ import annotations

from typing import Final

from ..protocol.records import Lease, LeaseResource
from . import keys
from .codec import open_value, seal
from .collection.changes import entry_added, entry_removed
from .collection.forest import Forest
from .collection.owed import OwedEntries, owe
from .collection.state import Vertex
from .engine import MAX_KEY_BYTES, Kind, Reader, Transaction
from .references import FLAT_KINDS, is_flat, resource_target
from .tables import LEASES

__all__ = [
    "belongs_to",
    "end_lease",
    "entries_prefix",
    "entry_of",
    "entry_present",
    "flatness_changed",
    "join_lease",
    "leave_lease",
    "page_entries",
    "page_targets",
]

INLINE_ENTRIES: Final = 40  # that go with their lease in one transaction


async def join_lease(txn: Transaction, namespace: str, lease_id: str | None, resource: LeaseResource) -> None:
    """Add an entry, if a lease was named. Raises NotFound when this namespace does not have it.

    Source: spec metadata 12.6.
    """
    if lease_id is None:
        return
    lease = await LEASES.get(txn, namespace, lease_id)
    key = _key(namespace, lease, resource)
    txn.put(key, b"" if key.endswith(resource.id.encode()) else seal(resource.id.encode()))
    target = resource_target(resource.type, resource.id)
    if target is not None:
        forest = await Forest.load(txn)
        await entry_added(forest, Vertex(namespace, Kind.LEASE, lease.id), *target, flat=is_flat(lease))
        forest.save()


async def leave_lease(txn: Transaction, namespace: str, lease_id: str | None, resource: LeaseResource) -> None:
    """Remove an entry. A missing lease or entry is no error."""
    lease = None if lease_id is None else await LEASES.find(txn, namespace, lease_id)
    if lease is None:
        return
    key = _key(namespace, lease, resource)
    if await txn.get(key) is None:
        return
    txn.delete(key)
    target = resource_target(resource.type, resource.id)
    if target is not None:
        forest = await Forest.load(txn)
        await entry_removed(forest, Vertex(namespace, Kind.LEASE, lease.id), *target)
        forest.save()


async def end_lease(txn: Transaction, namespace: str, lease_id: str, inline: int = INLINE_ENTRIES) -> None:
    """Take a lease and its entries away. Raises NotFound."""
    lease = await LEASES.remove(txn, namespace, lease_id)
    prefix = entries_prefix(namespace, lease)
    entries = await txn.scan(prefix, keys.prefix_end(prefix), inline + 1)
    if len(entries) > inline:
        await owe(txn, OwedEntries(namespace, lease_id, prefix, urgent=txn.urgent))
    else:
        forest = await Forest.load(txn)
        vertex = Vertex(namespace, Kind.LEASE, lease.id)
        for key, value in entries:
            txn.delete(key)
            resource = entry_of(key[len(prefix) :], value, key)
            target = resource_target(resource.type, resource.id)
            if target is not None:
                await entry_removed(forest, vertex, *target)
        forest.save()
    txn.made_garbage()


async def flatness_changed(txn: Transaction, namespace: str, lease: Lease) -> None:
    """A lease keeps its entries otherwise than before."""
    await owe(txn, OwedEntries(namespace, lease.id, entries_prefix(namespace, lease)))
    txn.made_garbage()


async def page_entries(
    reader: Reader, namespace: str, lease: Lease, after: bytes, limit: int
) -> list[tuple[bytes, LeaseResource]]:
    """Entries with a cursor each. Content, images, ingests, then snapshots: the order of their types' names."""
    prefix = entries_prefix(namespace, lease)
    pairs = await reader.scan(prefix + after, keys.prefix_end(prefix), limit)
    return [(key[len(prefix) :] + b"\x00", entry_of(key[len(prefix) :], value, key)) for key, value in pairs]


async def page_targets(
    reader: Reader, namespace: str, lease: Lease, after: bytes, limit: int
) -> list[tuple[bytes, Kind, str, bool]]:
    """What a lease's entries keep: cursor, kind, name, and whether flat."""
    found = []
    for cursor, resource in await page_entries(reader, namespace, lease, after, limit):
        target = resource_target(resource.type, resource.id)
        if target is not None:
            kind, name = target
            found.append((cursor, kind, name, is_flat(lease) and kind in FLAT_KINDS))
    return found


def entry_of(rest: bytes, value: bytes, key: bytes) -> LeaseResource:
    """The resource that an entry names, from what follows the prefix in its key."""
    resource_type, name = keys.unescape(rest)
    if value:
        name = open_value(value, key)[1]
    return LeaseResource(name.decode(), resource_type)


async def entry_present(reader: Reader, namespace: str, lease: Lease, resource: LeaseResource) -> bool:
    return await reader.get(_key(namespace, lease, resource)) is not None


def belongs_to(namespace: str, lease: Lease, prefix: bytes) -> bool:
    """Whether entries with this prefix are those of the lease's present life."""
    return prefix == entries_prefix(namespace, lease)


def _key(namespace: str, lease: Lease, resource: LeaseResource) -> bytes:
    prefix = entries_prefix(namespace, lease)
    key = prefix + keys.lease_entry(resource.type, resource.id)
    return key if len(key) <= MAX_KEY_BYTES else prefix + keys.long_lease_entry(resource.type, resource.id)


def entries_prefix(namespace: str, lease: Lease) -> bytes:
    return keys.lease_entries(namespace, lease.id, lease.created_at)
