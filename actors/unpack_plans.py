"""Unpacked layers become snapshots: what is decided in one transaction. Source: spec unpack 2.3, DESIGN 7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from ..protocol.errors import FailedPrecondition, NotFound, Unavailable
from ..protocol.identifiers import quote
from ..protocol.labels import SNAPSHOT_REF, UNCOMPRESSED, check_labels
from ..protocol.messages import Context
from ..protocol.records import SnapshotCommit, SnapshotInfo, SnapshotKind, SnapshotPrepare, Usage
from ..protocol.registry.rootfs import Layer
from ..storage import snapshots
from ..storage.engine import Reader, Transaction
from ..storage.tables import CONTENT, SNAPSHOTS, append_event
from .snapshot_plans import insert, keep, record_name

__all__ = ["Finished", "find_shared", "holds_all", "present", "record_layers"]

_INHERITED: Final = "containerd.io/snapshot/"


class Finished(NamedTuple):
    """A layer that lies unpacked under an id, made on another (0: on nothing); `usage` None: it is one that another
    unpack recorded before."""

    position: int
    id: int
    below: int
    usage: Usage | None


async def present(reader: Reader, namespace: str, snapshotter: str, layers: Sequence[Layer]) -> int:
    """How many of the layers, from the bottom, are snapshots of this namespace: the topmost that is says it."""
    for index in range(len(layers) - 1, -1, -1):
        found = await SNAPSHOTS.find(reader, namespace, record_name(snapshotter, layers[index].chain_id))
        if found is not None and found.kind is SnapshotKind.COMMITTED:
            return index + 1
    return 0


async def holds_all(reader: Reader, namespace: str, layers: Sequence[Layer]) -> bool:
    """Whether the namespace has every one of the blobs that a snapshot was made of."""
    for layer in layers:
        if await CONTENT.find(reader, namespace, layer.descriptor.digest) is None:
            return False
    return True


async def find_shared(reader: Reader, namespace: str, made_of: bytes, layers: Sequence[Layer]) -> int:
    """The id of a snapshot that orlop unpacked from just these blobs, for a namespace that has them all; else 0."""
    found = await snapshots.find_unpacked(reader, made_of)
    return found if found and await holds_all(reader, namespace, layers) else 0


async def record_layers(
    txn: Transaction,
    context: Context,
    snapshotter: str,
    layers: Sequence[Layer],
    origins: Sequence[bytes],
    finished: Sequence[Finished],
) -> None:
    """Record layers, the lowest first; their folders are durable. Raises NotFound when a shared one may not be taken
    any more."""
    namespace = context.namespace or ""
    taken = [each.position for each in finished if each.usage is None]
    if taken and not await holds_all(txn, namespace, layers[: taken[-1] + 1]):
        raise NotFound("a layer of the image", hint="it was removed meanwhile; pull again")
    for each in finished:
        if await _exists(txn, context, snapshotter, layers[each.position].chain_id):
            await snapshots.abandon(txn, each.id)
            continue
        parent, verified = await _below(txn, namespace, snapshotter, layers, origins, each.position)
        shared = await snapshots.find_backend(txn, each.id) if each.usage is None else None
        if parent != each.below or (each.usage is None and (shared is None or shared.parent != parent)):
            raise Unavailable("a layer of the image was removed or made anew meanwhile", hint="try again")
        if each.usage is None:
            await snapshots.hold(txn, namespace, each.id)
        else:
            made_of = origins[each.position] if verified else b""
            backend = snapshots.BackendSnapshot(
                snapshotter, parent, 1, size=each.usage.size, inodes=each.usage.inodes, origin=made_of
            )
            await snapshots.finish(txn, namespace, each.id, backend)
            await _label_blob(txn, namespace, layers[each.position])
        await _record(txn, context, snapshotter, layers, each)


async def _exists(txn: Transaction, context: Context, snapshotter: str, chain_id: str) -> bool:
    found = await SNAPSHOTS.find(txn, context.namespace or "", record_name(snapshotter, chain_id))
    if found is None:
        return False
    if found.kind is not SnapshotKind.COMMITTED:
        raise FailedPrecondition(f"snapshot {quote(chain_id)} is {found.kind.value}, not a layer of an image")
    await keep(txn, context, snapshotter, chain_id)
    return True


async def _below(
    txn: Transaction,
    namespace: str,
    snapshotter: str,
    layers: Sequence[Layer],
    origins: Sequence[bytes],
    index: int,
) -> tuple[int, bool]:
    """The id of a layer's parent (-1: it is gone), and whether orlop itself unpacked that from these blobs: only then
    may what stands on it be shared, for a client may have committed anything under its name."""
    if not index:
        return 0, True
    name = record_name(snapshotter, layers[index - 1].chain_id)
    if await SNAPSHOTS.find(txn, namespace, name) is None:
        return -1, False
    below = await snapshots.id_of(txn, namespace, name)
    backend = await snapshots.find_backend(txn, below)
    return below, backend is not None and backend.origin == origins[index - 1]


async def _label_blob(txn: Transaction, namespace: str, layer: Layer) -> None:
    """Later unpacks know what it is without looking. Source: spec unpack 2.3, step 9."""
    info = await CONTENT.find(txn, namespace, layer.descriptor.digest)
    if info is not None and info.labels.get(UNCOMPRESSED) != layer.diff_id:
        labels = {**info.labels, UNCOMPRESSED: layer.diff_id}
        labelled = msgspec.structs.replace(info, labels=labels, updated_at=txn.now_ns)
        await CONTENT.replace(txn, namespace, info.digest, labelled)


async def _record(
    txn: Transaction,
    context: Context,
    snapshotter: str,
    layers: Sequence[Layer],
    finished: Finished,
) -> None:
    namespace, layer = context.namespace or "", layers[finished.position]
    parent = layers[finished.position - 1].chain_id if finished.position else ""
    await keep(txn, context, snapshotter, layer.chain_id)
    info = SnapshotInfo(
        snapshotter=snapshotter,
        name=layer.chain_id,
        kind=SnapshotKind.COMMITTED,
        parent=parent,
        labels=_labels(layer, parent),
        created_at=txn.now_ns,
        updated_at=txn.now_ns,
    )
    await insert(txn, namespace, info, finished.id)
    key = f"extract-{finished.id} {layer.chain_id}"
    await append_event(txn, namespace, SnapshotPrepare(key, parent, snapshotter))
    await append_event(txn, namespace, SnapshotCommit(key, layer.chain_id, snapshotter))


def _labels(layer: Layer, parent: str) -> dict[str, str]:
    """Source: spec unpack 2.3, step 2."""
    labels = {
        key: value
        for key, value in layer.descriptor.annotations.items()
        if value and (key.startswith(_INHERITED) or key == SNAPSHOT_REF)
    }
    labels[SNAPSHOT_REF] = layer.chain_id
    labels[f"{_INHERITED}diff-id"] = layer.diff_id
    if parent:
        labels[f"{_INHERITED}parent-chain-id"] = parent
    check_labels(labels)
    return labels
