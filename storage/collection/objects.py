"""How an object of each kind goes, with its hold on bytes and the event that tells of it. Source: spec gc 6."""

from __future__ import annotations

from ...protocol.records import Container, ContentInfo, Image, ImageDelete, Lease, Sandbox, SnapshotInfo, SnapshotRemove
from .. import snapshots
from ..blobs import ledger
from ..engine import Kind, Reader, Transaction
from ..ingests import IngestRecord
from ..lease_entries import end_lease
from ..tables import CONTENT, IMAGES, INGESTS, SNAPSHOTS, append_event
from ..usage import content_released
from .kinds import find_record, register

__all__ = ["drop_content", "drop_snapshot"]


async def drop_content(txn: Transaction, namespace: str, digest: str) -> None:
    """Take the namespace's record away; bytes that nobody holds are the backend's."""
    info = await CONTENT.remove(txn, namespace, digest)
    blob = await ledger.find_blob(txn, digest)
    await content_released(txn, namespace, digest, info.size, alone=blob is None or blob.holders <= 1)
    await ledger.release(txn, digest)


async def drop_snapshot(txn: Transaction, namespace: str, name: str) -> None:
    """Take the namespace's record away, and tell. Folders that nobody holds are the backend's."""
    snapshot_id = await snapshots.id_of(txn, namespace, name)
    info = await SNAPSHOTS.remove(txn, namespace, name)
    snapshots.drop_id(txn, namespace, name)
    if info.parent:
        snapshots.unlink_child(txn, namespace, f"{info.snapshotter}/{info.parent}", name)
    await snapshots.release(txn, namespace, snapshot_id)
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


async def _content_size(reader: Reader, namespace: str, digest: str) -> int:
    info = await find_record(reader, namespace, Kind.CONTENT, digest)
    return info.size if isinstance(info, ContentInfo) else 0


async def _snapshot_size(reader: Reader, namespace: str, name: str) -> int:
    if await find_record(reader, namespace, Kind.SNAPSHOT, name) is None:
        return 0
    snapshot_id = await snapshots.find_id(reader, namespace, name)
    backend = await snapshots.find_backend(reader, snapshot_id) if snapshot_id else None
    return 0 if backend is None else backend.size


register(Kind.CONTENT, ContentInfo, drop_content, "content", _content_size)
register(Kind.IMAGE, Image, _drop_image, "image")
register(Kind.SNAPSHOT, SnapshotInfo, drop_snapshot, size=_snapshot_size)
register(Kind.LEASE, Lease, _drop_lease)
register(Kind.INGEST, IngestRecord, _drop_ingest)
register(Kind.CONTAINER, Container, _never, "container")
register(Kind.SANDBOX, Sandbox, _never)
