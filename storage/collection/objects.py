"""How an object of each kind goes, with its hold on bytes and the event that tells of it. Source: spec gc 6."""

from __future__ import annotations

from ...protocol.records import Container, ContentInfo, Image, ImageDelete, Lease, Sandbox, SnapshotInfo, SnapshotRemove
from .. import snapshots
from ..blobs import ledger
from ..engine import Kind, Transaction
from ..ingests import IngestRecord
from ..lease_entries import end_lease
from ..tables import CONTENT, IMAGES, INGESTS, SNAPSHOTS, append_event
from .kinds import register

__all__ = ["drop_content", "drop_snapshot"]


async def drop_content(txn: Transaction, namespace: str, digest: str) -> None:
    """Take the namespace's record away; bytes that nobody holds are the backend's."""
    await CONTENT.remove(txn, namespace, digest)
    await ledger.release(txn, digest)


async def drop_snapshot(txn: Transaction, namespace: str, name: str) -> None:
    """Take the namespace's record away, and tell. Folders that nobody holds are the backend's."""
    snapshot_id = await snapshots.id_of(txn, namespace, name)
    info = await SNAPSHOTS.remove(txn, namespace, name)
    snapshots.drop_id(txn, namespace, name)
    if info.parent:
        snapshots.unlink_child(txn, namespace, f"{info.snapshotter}/{info.parent}", name)
    await snapshots.release(txn, snapshot_id)
    await append_event(txn, namespace, SnapshotRemove(info.name, info.snapshotter))


async def _drop_image(txn: Transaction, namespace: str, name: str) -> None:
    await IMAGES.remove(txn, namespace, name)
    await append_event(txn, namespace, ImageDelete(name))


async def _drop_lease(txn: Transaction, namespace: str, name: str) -> None:
    await end_lease(txn, namespace, name)


async def _drop_ingest(txn: Transaction, namespace: str, ref: str) -> None:
    record = await INGESTS.remove(txn, namespace, ref)
    await ledger.drop_ingest_files(txn, record)


async def _never(_: Transaction, __: str, name: str) -> None:
    raise AssertionError(f"{name} is a root and cannot die")


register(Kind.CONTENT, ContentInfo, drop_content, "content")
register(Kind.IMAGE, Image, _drop_image, "image")
register(Kind.SNAPSHOT, SnapshotInfo, drop_snapshot)
register(Kind.LEASE, Lease, _drop_lease)
register(Kind.INGEST, IngestRecord, _drop_ingest)
register(Kind.CONTAINER, Container, _never, "container")
register(Kind.SANDBOX, Sandbox, _never)
