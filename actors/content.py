"""Blobs: what is decided about them, transaction by transaction, and what is read of them.

Bytes, locks and open writers are the content actor's (`content_actor`). Source: DESIGN 6, spec content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from ..protocol.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from ..protocol.identifiers import check_digest, split_digest
from ..protocol.labels import check_labels, check_mask, merge_map, sources, stored_labels
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    Context,
    DeleteContent,
    Empty,
    GetContent,
    PutContent,
    UpdateContent,
)
from ..protocol.records import ContentCreate, ContentDelete, ContentInfo, Descriptor, LeaseResource
from ..storage.blobs import ledger
from ..storage.collection.objects import drop_content
from ..storage.engine import Engine, Reader, Transaction
from ..storage.lease_entries import join_lease, leave_lease
from ..storage.tables import CONTENT, append_event
from ..storage.usage import content_held
from .actor import Plan
from .storage import Rejected

__all__ = ["PLANS", "adopt", "damaged", "get_info", "has_intact", "record_blob", "wrong_digest"]


async def update(txn: Transaction, request: UpdateContent, context: Context) -> msgspec.Raw:
    check_digest(request.digest)
    namespace = context.namespace or ""
    before = await CONTENT.get(txn, namespace, request.digest)
    check_mask(request.mask, ("labels",), ("labels",), f"content {request.digest}")
    labels = merge_map(before.labels, request.labels, request.mask, "labels")
    check_labels(labels)
    after = msgspec.structs.replace(before, labels=labels, updated_at=txn.now_ns)
    return await CONTENT.replace(txn, namespace, request.digest, after)


async def delete(txn: Transaction, request: DeleteContent, context: Context) -> Empty:
    check_digest(request.digest)
    namespace = context.namespace or ""
    await drop_content(txn, namespace, request.digest)
    await leave_lease(txn, namespace, context.lease, LeaseResource(request.digest, "content"))
    txn.made_garbage()
    await append_event(txn, namespace, ContentDelete(request.digest))
    return Empty()


async def put(txn: Transaction, request: PutContent, context: Context) -> ContentInfo | Rejected:
    """A whole small blob: bytes, record, labels and lease entry in one transaction."""
    if len(request.data) > MAX_INLINE_BYTES:
        raise InvalidArgument(
            f"content.put takes up to {MAX_INLINE_BYTES} bytes, not {len(request.data)}",
            hint="open an ingest",
        )
    algorithm = "sha256"
    if request.expected:
        check_digest(request.expected, "expected digest")
        algorithm = split_digest(request.expected)[0]
    digest = f"{algorithm}:{hashlib.new(algorithm, request.data).hexdigest()}"
    if request.expected and digest != request.expected:
        raise wrong_digest(digest, request.expected)
    blob = await ledger.record_small(txn, digest, request.data)
    return await record_blob(txn, context, digest, blob, request.labels, request.media_type)


async def adopt(
    txn: Transaction, context: Context, descriptor: Descriptor, labels: Mapping[str, str]
) -> ContentInfo | Rejected:
    """Give this namespace a record of bytes that the backend has. Raises NotFound when it has not."""
    blob = await ledger.find_blob(txn, descriptor.digest)
    if blob is None or blob.damaged or (descriptor.size and blob.size != descriptor.size):
        raise NotFound(f"content {descriptor.digest}")
    return await record_blob(txn, context, descriptor.digest, blob, labels, descriptor.media_type)


async def record_blob(
    txn: Transaction,
    context: Context,
    digest: str,
    blob: ledger.Blob,
    labels: Mapping[str, str],
    media_type: str,
) -> ContentInfo | Rejected:
    """The namespace's record of a live blob. One that is there keeps its labels, and the lease gets its entry."""
    namespace = context.namespace or ""
    labels = stored_labels(labels)
    await join_lease(txn, namespace, context.lease, LeaseResource(digest, "content"))
    existing = await CONTENT.find(txn, namespace, digest)
    if existing is not None:
        if not blob.holders:  # its bytes were lost, and come back
            await ledger.hold(txn, digest, blob)
        return Rejected(AlreadyExists(f"content {digest}"), existing)
    info = ContentInfo(digest, blob.size, labels, txn.now_ns, txn.now_ns)
    await CONTENT.insert(txn, namespace, digest, info)
    await content_held(txn, namespace, digest, blob.size, alone=not blob.holders)
    await ledger.hold(txn, digest, blob)
    await append_event(txn, namespace, ContentCreate(digest, blob.size, media_type))
    return info


async def has_intact(reader: Reader, namespace: str, digest: str) -> bool:
    """Whether the namespace has this content, and nobody found its bytes damaged."""
    if await CONTENT.find(reader, namespace, digest) is None:
        return False
    blob = await ledger.find_blob(reader, digest)
    return blob is None or not blob.damaged


async def get_info(engine: Engine, request: GetContent, context: Context) -> msgspec.Raw:
    check_digest(request.digest)
    with engine.view() as view:
        return await CONTENT.encoded(view, context.namespace or "", request.digest)


def damaged(info: ContentInfo) -> DataLoss:
    """Says from where it can be had again, as far as its labels tell."""
    known = [f"{host}/{name}" for host, names in sources(info.labels).items() for name in names.split(",")]
    where = f"pull it again from {', '.join(known)}" if known else "ingest it again"
    return DataLoss(f"content {info.digest} is damaged", hint=where)


def wrong_digest(found: str, expected: str) -> FailedPrecondition:
    return FailedPrecondition(f"unexpected commit digest {found}, expected {expected}")


PLANS: Mapping[type[msgspec.Struct], Plan] = {
    UpdateContent: update,
    DeleteContent: delete,
    PutContent: put,
}
