"""What leases name: entries under a key of their own, one each, and what is owed when a lease ends.

A lease may have any number of entries. Ending it is one deciding transaction: its record goes, and with it
every meaning of its entries; those that do not fit are *owed*, and paid in small steps by the collector. An entry
belongs to one life of a lease (its time of creation), so a lease made anew under the same id never inherits any.
"""

from __future__ import annotations

import msgspec

from ..protocol.records import Lease, LeaseResource
from . import keys
from .codec import decoder, encode, open_value, seal
from .engine import MAX_KEY_BYTES, Reader, Transaction
from .references import resource_node
from .tables import LEASES, read_number

__all__ = ["end_lease", "join_lease", "leave_lease", "page_entries", "pay_owed"]

INLINE_ENTRIES = 400  # that go with their lease in one transaction


class Owed(msgspec.Struct, frozen=True):
    """Entries of a lease's life that ended: `prefix` is where their keys begin."""

    prefix: bytes


_OWED = decoder(Owed)


async def join_lease(txn: Transaction, namespace: str, lease_id: str | None, resource: LeaseResource) -> None:
    """Add an entry, if a lease was named. Raises NotFound when this namespace does not have it.

    Source: spec metadata 12.6.
    """
    if lease_id is None:
        return
    lease = await LEASES.get(txn, namespace, lease_id)
    key = _key(namespace, lease, resource)
    txn.put(key, b"" if key.endswith(resource.id.encode()) else seal(resource.id.encode()))
    node = resource_node(namespace, resource.type, resource.id)
    if node is not None:
        txn.gained(node)


async def leave_lease(txn: Transaction, namespace: str, lease_id: str | None, resource: LeaseResource) -> None:
    """Remove an entry. A missing lease or entry is no error."""
    lease = None if lease_id is None else await LEASES.find(txn, namespace, lease_id)
    if lease is None:
        return
    key = _key(namespace, lease, resource)
    if await txn.get(key) is not None:
        txn.delete(key)


async def end_lease(txn: Transaction, namespace: str, lease_id: str, inline: int = INLINE_ENTRIES) -> None:
    """Take a lease and its entries away. Raises NotFound."""
    lease = await LEASES.remove(txn, namespace, lease_id)
    prefix = _prefix(namespace, lease)
    entries = await txn.scan(prefix, keys.prefix_end(prefix), inline + 1)
    for key, _ in entries[:inline]:
        txn.delete(key)
    if len(entries) > inline:
        position = read_number(await txn.get(keys.OWED_HEAD)) + 1
        txn.put(keys.OWED_HEAD, keys.number(position))
        txn.put(keys.owed(position), seal(encode(Owed(prefix))))
    txn.made_garbage()


async def page_entries(
    reader: Reader, namespace: str, lease: Lease, after: bytes, limit: int
) -> list[tuple[bytes, LeaseResource]]:
    """Entries with a cursor each. Content, images, ingests, then snapshots: the order of their types' names."""
    prefix = _prefix(namespace, lease)
    pairs = await reader.scan(prefix + after, keys.prefix_end(prefix), limit)
    found = []
    for key, value in pairs:
        cursor = key[len(prefix) :]
        resource_type, rest = keys.unescape(cursor)
        if value:
            rest = open_value(value, key)[1]
        found.append((cursor + b"\x00", LeaseResource(rest.decode(), resource_type)))
    return found


async def pay_owed(txn: Transaction, most: int) -> bool:
    """Delete up to `most` entries that are owed; True when there is more to pay."""
    owed = await txn.scan(keys.owed(read_number(await txn.get(keys.OWED_FLOOR)) + 1), keys.prefix_end(keys.OWED), 1)
    if not owed:
        return False
    key, value = owed[0]
    prefix = _OWED.decode(open_value(value, key)[1]).prefix
    entries = await txn.scan(prefix, keys.prefix_end(prefix), most)
    for entry, _ in entries:
        txn.delete(entry)
    if len(entries) < most:
        txn.delete(key)
        txn.put(keys.OWED_FLOOR, key[len(keys.OWED) :])
    return True


def _key(namespace: str, lease: Lease, resource: LeaseResource) -> bytes:
    prefix = _prefix(namespace, lease)
    key = prefix + keys.lease_entry(resource.type, resource.id)
    return key if len(key) <= MAX_KEY_BYTES else prefix + keys.long_lease_entry(resource.type, resource.id)


def _prefix(namespace: str, lease: Lease) -> bytes:
    return keys.lease_entries(namespace, lease.id, lease.created_at)
