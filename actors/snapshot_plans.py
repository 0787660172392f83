"""Snapshots: what is decided about them, transaction by transaction. Source: spec snapshots 2, 6 and 7."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from ..protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ..protocol.identifiers import check_name, quote
from ..protocol.labels import SNAPSHOT_REF, check_mask, merge_map, stored_labels
from ..protocol.messages import (
    CommitSnapshot,
    Context,
    DeleteSnapshot,
    Empty,
    PrepareSnapshot,
    UpdateSnapshot,
    ViewSnapshot,
)
from ..protocol.records import (
    LeaseResource,
    SnapshotCommit,
    SnapshotInfo,
    SnapshotKind,
    SnapshotPrepare,
    Usage,
)
from ..storage import snapshots
from ..storage.collection.changes import bury_if_dead
from ..storage.collection.objects import drop_snapshot
from ..storage.engine import Reader, Transaction
from ..storage.lease_entries import join_lease, leave_lease
from ..storage.tables import LEASES, SNAPSHOTS, append_event
from .actor import Plan
from .storage import Rejected

__all__ = ["PLANS", "Announced", "announce", "commit", "insert", "keep", "record", "record_name"]


class Announced(NamedTuple):
    """What is about to be made: its id, and that of its parent."""

    id: int
    parent: int


_KINDS: Final = {PrepareSnapshot: SnapshotKind.ACTIVE, ViewSnapshot: SnapshotKind.VIEW}


_MOST_CHILDREN: Final = 100


def record_name(snapshotter: str, key: str) -> str:
    return f"{snapshotter}/{key}"


def _resource(snapshotter: str, key: str) -> LeaseResource:
    return LeaseResource(key, f"snapshots/{snapshotter}")


async def keep(txn: Transaction, context: Context, snapshotter: str, key: str) -> None:
    """The request's lease holds it."""
    await join_lease(txn, context.namespace or "", context.lease, _resource(snapshotter, key))


async def announce(txn: Transaction, request: PrepareSnapshot | ViewSnapshot, context: Context) -> Announced | Rejected:
    """Everything that can refuse a new snapshot, before anything is on disk. Source: spec snapshots 6.1."""
    stored_labels(request.labels)
    namespace, snapshotter = context.namespace or "", request.snapshotter
    taken = await _taken(txn, request, context)
    if taken is not None:
        return taken
    if context.lease is not None:
        await LEASES.get(txn, namespace, context.lease)
    parent = await _parent(txn, namespace, snapshotter, request.parent)
    return Announced(await snapshots.announce(txn, snapshotter, parent), parent)


async def record(
    txn: Transaction, request: PrepareSnapshot | ViewSnapshot, context: Context, announced: Announced, own_folder: bool
) -> SnapshotInfo | Rejected:
    """Its folder stands: record it, if nothing came in between."""
    namespace, snapshotter = context.namespace or "", request.snapshotter
    taken = await _taken(txn, request, context)
    if taken is not None:
        await snapshots.abandon(txn, announced.id)
        return taken
    if await _parent(txn, namespace, snapshotter, request.parent) != announced.parent:
        raise InvalidArgument(f"parent snapshot {quote(request.parent)} was replaced meanwhile")
    await keep(txn, context, snapshotter, request.key)
    kind = _KINDS[type(request)]
    info = SnapshotInfo(
        snapshotter=snapshotter,
        name=request.key,
        kind=kind,
        parent=request.parent,
        labels=stored_labels(request.labels),
        created_at=txn.now_ns,
        updated_at=txn.now_ns,
    )
    backend = snapshots.BackendSnapshot(snapshotter, announced.parent, holders=1, own_folder=own_folder)
    await snapshots.finish(txn, namespace, announced.id, backend)
    await insert(txn, namespace, info, announced.id)
    if kind is SnapshotKind.ACTIVE:
        await append_event(txn, namespace, SnapshotPrepare(request.key, request.parent, snapshotter))
    return info


async def _taken(txn: Transaction, request: PrepareSnapshot | ViewSnapshot, context: Context) -> Rejected | None:
    """The label's target first, then the key: either is leased to the caller. Source: spec snapshots 6.1, 7.1."""
    namespace, snapshotter = context.namespace or "", request.snapshotter
    for name in (request.labels.get(SNAPSHOT_REF, ""), request.key):
        full = record_name(snapshotter, name)
        if not name or await SNAPSHOTS.find(txn, namespace, full) is None:
            continue
        if name != request.key or not await bury_if_dead(txn, namespace, SNAPSHOTS.node, full):
            await keep(txn, context, snapshotter, name)
            return Rejected(AlreadyExists(f"snapshot {quote(name)}"))
    return None


async def _parent(reader: Reader, namespace: str, snapshotter: str, parent: str) -> int:
    if not parent:
        return 0
    found = await SNAPSHOTS.find(reader, namespace, record_name(snapshotter, parent))
    if found is None:
        raise NotFound(f"parent snapshot {quote(parent)}")
    if found.kind is not SnapshotKind.COMMITTED:
        raise InvalidArgument(f"parent snapshot {quote(parent)} is {found.kind.value}, not committed")
    return await snapshots.id_of(reader, namespace, record_name(snapshotter, parent))


async def insert(txn: Transaction, namespace: str, info: SnapshotInfo, snapshot_id: int) -> None:
    name = record_name(info.snapshotter, info.name)
    await SNAPSHOTS.make_room(txn, namespace, name)
    snapshots.set_id(txn, namespace, name, snapshot_id)  # before the record: whoever finds that measures it
    await SNAPSHOTS.insert(txn, namespace, name, info)
    if info.parent:
        snapshots.link_child(txn, namespace, record_name(info.snapshotter, info.parent), name)


async def _remove(txn: Transaction, namespace: str, info: SnapshotInfo) -> int:
    """Returns the id that it had."""
    name = record_name(info.snapshotter, info.name)
    snapshot_id = await snapshots.id_of(txn, namespace, name)
    await SNAPSHOTS.remove(txn, namespace, name)
    snapshots.drop_id(txn, namespace, name)
    if info.parent:
        snapshots.unlink_child(txn, namespace, record_name(info.snapshotter, info.parent), name)
    return snapshot_id


async def commit(
    txn: Transaction, request: CommitSnapshot, context: Context, usage: Usage, *, rebase: bool
) -> SnapshotInfo | Rejected:
    """Source: spec snapshots 2.2 and 6.2. `usage` was counted before; its files are durable."""
    labels = stored_labels(request.labels)
    namespace, snapshotter = context.namespace or "", request.snapshotter
    if await SNAPSHOTS.find(txn, namespace, record_name(snapshotter, request.name)) is not None:
        await keep(txn, context, snapshotter, request.name)
        return Rejected(AlreadyExists(f"snapshot {quote(request.name)}"))
    check_name(request.key, "key")
    active = await SNAPSHOTS.get(txn, namespace, record_name(snapshotter, request.key))
    if active.kind is not SnapshotKind.ACTIVE:
        raise FailedPrecondition(f"snapshot {quote(request.key)} is {active.kind.value}, not active")
    parent = await _new_parent(txn, namespace, request, active, rebase)
    snapshot_id = await _remove(txn, namespace, active)
    await leave_lease(txn, namespace, context.lease, _resource(snapshotter, request.key))
    await keep(txn, context, snapshotter, request.name)
    info = SnapshotInfo(
        snapshotter=snapshotter,
        name=request.name,
        kind=SnapshotKind.COMMITTED,
        parent=request.parent or active.parent,
        labels=labels,
        created_at=txn.now_ns,
        updated_at=txn.now_ns,
    )
    await snapshots.rebase(txn, namespace, snapshot_id, parent, usage.size, usage.inodes)
    await insert(txn, namespace, info, snapshot_id)
    await append_event(txn, namespace, SnapshotCommit(request.key, request.name, snapshotter))
    return info


async def _new_parent(
    txn: Transaction, namespace: str, request: CommitSnapshot, active: SnapshotInfo, rebase: bool
) -> int:
    """The id of the parent that it gets. Source: spec snapshots 2.2, rebase."""
    wanted = request.parent
    if not wanted or wanted == active.parent:
        key = record_name(request.snapshotter, request.key)
        backend = await snapshots.find_backend(txn, await snapshots.id_of(txn, namespace, key))
        return backend.parent if backend is not None else 0
    if active.parent:
        raise InvalidArgument(f"snapshot {quote(request.key)} stands on {quote(active.parent)}, not {quote(wanted)}")
    if not rebase:
        raise FailedPrecondition(f"{request.snapshotter} cannot give a snapshot another parent at its commit")
    found = await SNAPSHOTS.find(txn, namespace, record_name(request.snapshotter, wanted))
    if found is None:
        raise NotFound(f"parent snapshot {quote(wanted)}")
    if found.kind is not SnapshotKind.COMMITTED:
        raise FailedPrecondition(f"parent snapshot {quote(wanted)} is {found.kind.value}, not committed")
    return await snapshots.id_of(txn, namespace, record_name(request.snapshotter, wanted))


async def update(txn: Transaction, request: UpdateSnapshot, context: Context) -> msgspec.Raw:
    namespace, name = context.namespace or "", record_name(request.snapshotter, request.key)
    before = await SNAPSHOTS.get(txn, namespace, name)
    check_mask(request.mask, ("labels",), ("labels",), f"snapshot {quote(request.key)}")
    labels = stored_labels(merge_map(before.labels, request.labels, request.mask, "labels"))
    after = msgspec.structs.replace(before, labels=labels, updated_at=txn.now_ns)
    return await SNAPSHOTS.replace(txn, namespace, name, after)


async def delete(txn: Transaction, request: DeleteSnapshot, context: Context) -> Empty:
    """The files are the collector's. Source: spec snapshots 2.8 and 6.6."""
    namespace, name = context.namespace or "", record_name(request.snapshotter, request.key)
    await SNAPSHOTS.get(txn, namespace, name)
    for each in await snapshots.children(txn, namespace, name, _MOST_CHILDREN):
        if await SNAPSHOTS.find(txn, namespace, each) is None:
            continue  # it is no more, only not swept
        child = each.partition("/")[2]
        raise FailedPrecondition(
            f"cannot remove snapshot {quote(request.key)}: {quote(child)} stands on it", hint="remove that first"
        )
    await drop_snapshot(txn, namespace, name)
    await leave_lease(txn, namespace, context.lease, _resource(request.snapshotter, request.key))
    txn.made_garbage()
    return Empty()


PLANS: Mapping[type[msgspec.Struct], Plan] = {UpdateSnapshot: update, DeleteSnapshot: delete}
