"""Owed work is done: one piece in each step. See `owed`."""

from __future__ import annotations

from typing import Final

import msgspec

from ...protocol.records import Lease
from .. import keys
from ..engine import Kind, Transaction
from ..lease_entries import belongs_to, entry_of, entry_present
from ..references import Out, edges, is_flat, resource_target, used_at
from .changes import edge_added, edge_removed, entry_added, entry_removed, set_windows
from .forest import Forest, edge_key
from .kinds import find_record
from .owed import Owed, OwedEdges, OwedEntries, first_owed, put_back, strike
from .state import Vertex

__all__ = ["settle_some"]

ENTRIES_AT_ONCE: Final = 40
_WINDOWS_AT_ONCE: Final = 100


async def settle_some(txn: Transaction) -> bool:
    """Do a piece of what is owed longest. False: nothing is owed."""
    found = await first_owed(txn)
    if found is None:
        return False
    position, owed = found
    forest = await Forest.load(txn)
    forest.urgent = owed.urgent
    rest = await _settle(forest, owed)
    if rest is None:
        strike(txn, position)
    else:
        put_back(txn, position, rest)
    forest.save()
    return True


async def _settle(forest: Forest, owed: Owed) -> Owed | None:
    if isinstance(owed, OwedEdges):
        await _edges(forest, owed)
        return None
    if isinstance(owed, OwedEntries):
        return await _entries(forest, owed)
    snapshot = Vertex(owed.namespace, Kind.SNAPSHOT, owed.name)
    used = used_at(await forest.record(snapshot))
    cursor = await set_windows(forest, snapshot, used, owed.cursor, _WINDOWS_AT_ONCE)
    return msgspec.structs.replace(owed, cursor=cursor) if cursor else None


async def _edges(forest: Forest, owed: OwedEdges) -> None:
    owner = Vertex(owed.namespace, Kind(owed.kind), owed.name)
    record = await forest.record(owner)
    implied = {(out.edge, out.kind, out.name): out for out in edges(record)} if record is not None else {}
    for edge, kind, name, value in owed.edges:
        was = Out(edge, Kind(kind), name, value)
        now = implied.get((edge, was.kind, name))
        key, _ = edge_key(owner.namespace, owner.kind, owner.name, was)
        present = await forest.txn.get(key)
        changed = now is None or present != edge_key(owner.namespace, owner.kind, owner.name, now)[1]
        if present is not None and changed:
            await edge_removed(forest, owner, was)
        if now is not None:
            await edge_added(forest, owner, now)


async def _entries(forest: Forest, owed: OwedEntries) -> OwedEntries | None:
    """Entries of a life that ended go; those of the present one get the lease's flatness."""
    namespace, prefix = owed.namespace, owed.prefix
    vertex = Vertex(namespace, Kind.LEASE, owed.lease)
    lease = await find_record(forest.txn, namespace, Kind.LEASE, owed.lease)
    if not isinstance(lease, Lease):
        lease = None
    ended = lease is None or not belongs_to(namespace, lease, prefix)
    found = await forest.txn.scan(prefix + owed.cursor, keys.prefix_end(prefix), ENTRIES_AT_ONCE)
    for key, value in found:
        resource = entry_of(key[len(prefix) :], value, key)
        if ended:
            forest.write(key, None)
        target = resource_target(resource.type, resource.id)
        if target is None:
            continue
        if lease is not None and await entry_present(forest.txn, namespace, lease, resource):
            await entry_added(forest, vertex, *target, flat=is_flat(lease))
        else:
            await entry_removed(forest, vertex, *target)
    if len(found) < ENTRIES_AT_ONCE:
        return None
    return msgspec.structs.replace(owed, cursor=found[-1][0][len(prefix) :] + b"\x00")
