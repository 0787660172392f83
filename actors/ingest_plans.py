"""Ingests: what is decided about them, transaction by transaction. Source: DESIGN 6, spec content 3 and 5."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..protocol.errors import AlreadyExists, FailedPrecondition, NotFound
from ..protocol.identifiers import quote
from ..protocol.messages import AbortIngest, Context, Empty, OpenIngest
from ..protocol.records import ContentInfo, LeaseResource
from ..storage.blobs import ledger
from ..storage.blobs.sharing import Sharing, adoptable
from ..storage.engine import Transaction
from ..storage.ingests import IngestRecord
from ..storage.lease_entries import join_lease, leave_lease
from ..storage.tables import INGESTS, ensure_namespace, next_generation
from .actor import Plan
from .content import has_intact, record_blob
from .storage import Rejected

__all__ = [
    "INGEST_LIFE_NS",
    "PLANS",
    "adopt_ingest",
    "announce_ingest",
    "commit_file",
    "commit_small",
    "open_adopting",
    "open_ingest",
    "renew_ingest",
    "unshare_ingest",
]

INGEST_LIFE_NS = 24 * 3600 * 1_000_000_000  # of an ingest that no lease protects, from its last open


async def abort(txn: Transaction, request: AbortIngest, context: Context) -> Empty:
    namespace = context.namespace or ""
    record = await INGESTS.remove(txn, namespace, request.ref)
    await leave_lease(txn, namespace, context.lease, LeaseResource(request.ref, "ingests"))
    await ledger.drop_ingest_files(txn, record)
    txn.made_garbage()
    return Empty()


async def open_ingest(txn: Transaction, request: OpenIngest, context: Context) -> tuple[IngestRecord, bool] | Rejected:
    """The ingest's record, and whether it starts from nothing."""
    namespace = context.namespace or ""
    if request.expected and await has_intact(txn, namespace, request.expected):
        await join_lease(txn, namespace, context.lease, LeaseResource(request.expected, "content"))
        return Rejected(AlreadyExists(f"content {request.expected}"))
    expires = None if context.lease is not None else txn.now_ns + INGEST_LIFE_NS
    await join_lease(txn, namespace, context.lease, LeaseResource(request.ref, "ingests"))
    found = await INGESTS.find(txn, namespace, request.ref)
    fresh = found is None or bool(request.size and found.total and request.size != found.total)
    if found is None:
        await ensure_namespace(txn, namespace)
    if found is not None and found.adopting:
        fresh = True  # it has no bytes of its own
    if found is not None and not fresh:
        # Opened without a lease before: that protection stays beside the new one.
        record = msgspec.structs.replace(
            found,
            expires_at=expires or found.expires_at,
            expected=request.expected or found.expected,
            sealed=found.sealed or request.expected,
        )
        await INGESTS.replace(txn, namespace, request.ref, record)
        return record, False
    if found is not None:
        await ledger.drop_ingest_files(txn, found)
    record = IngestRecord(
        ref=request.ref,
        generation=await next_generation(txn),
        total=request.size,
        expected=request.expected,
        media_type=request.media_type,
        started_at=txn.now_ns,
        updated_at=txn.now_ns,
        expires_at=expires,
        sealed=request.expected,
    )
    if found is None:
        await INGESTS.insert(txn, namespace, request.ref, record)
    else:
        await INGESTS.replace(txn, namespace, request.ref, record)
    return record, True


async def open_adopting(
    txn: Transaction, request: OpenIngest, context: Context, policy: Sharing
) -> tuple[IngestRecord, int] | Rejected | None:
    """The record of an ingest that adopts what another namespace has, and how long that is. None: it may not, or
    the ref has bytes of its own."""
    namespace, digest = context.namespace or "", request.expected
    if await has_intact(txn, namespace, digest):
        await join_lease(txn, namespace, context.lease, LeaseResource(digest, "content"))
        return Rejected(AlreadyExists(f"content {digest}"))
    blob = await adoptable(txn, digest, request.size, policy)
    found = await INGESTS.find(txn, namespace, request.ref)
    if blob is None or (found is not None and not (found.adopting and found.held == digest)):
        return None
    expires = None if context.lease is not None else txn.now_ns + INGEST_LIFE_NS
    await join_lease(txn, namespace, context.lease, LeaseResource(request.ref, "ingests"))
    if found is not None:
        record = msgspec.structs.replace(found, expires_at=expires or found.expires_at)
        await INGESTS.replace(txn, namespace, request.ref, record)
        return record, blob.size
    await ensure_namespace(txn, namespace)
    record = IngestRecord(
        ref=request.ref,
        generation=await next_generation(txn),
        total=blob.size,
        expected=digest,
        media_type=request.media_type,
        started_at=txn.now_ns,
        updated_at=txn.now_ns,
        expires_at=expires,
        held=digest,
        adopting=True,
    )
    await INGESTS.insert(txn, namespace, request.ref, record)
    await ledger.hold(txn, digest, blob)
    return record, blob.size


async def unshare_ingest(txn: Transaction, namespace: str, record: IngestRecord) -> IngestRecord:
    """An adopting ingest gets a file of its own; what it would have adopted stays kept until it ends."""
    found = await _same_ingest(txn, namespace, record)
    if not found.adopting:
        raise FailedPrecondition(f"ingest {quote(record.ref)} has bytes of another writer", hint="open it again")
    backed = msgspec.structs.replace(record, adopting=False, expected="", total=0)
    await INGESTS.replace(txn, namespace, record.ref, backed)
    return backed


async def adopt_ingest(
    txn: Transaction, record: IngestRecord, context: Context, labels: Mapping[str, str]
) -> ContentInfo | Rejected:
    """Whether the bytes are still there is decided here, and nowhere before."""
    namespace = context.namespace or ""
    blob = await ledger.find_blob(txn, record.held)
    if blob is None or blob.damaged:
        raise NotFound(f"bytes of content {record.held}", hint="open the ingest again, and send them")
    info = await record_blob(txn, context, record.held, blob, labels, record.media_type)
    found = await INGESTS.find(txn, namespace, record.ref)
    # It may have bytes of another writer by now: they hold no lock, and the first to write turns it into its own.
    if found is not None and found.generation == record.generation and found.adopting:
        await _end_ingest(txn, record, context)
    return info


async def renew_ingest(txn: Transaction, namespace: str, record: IngestRecord) -> IngestRecord:
    """Its time begins anew. Raises NotFound (aborted)."""
    found = await _same_ingest(txn, namespace, record)
    renewed = msgspec.structs.replace(found, expires_at=txn.now_ns + INGEST_LIFE_NS)
    await INGESTS.replace(txn, namespace, record.ref, renewed)
    return renewed


async def announce_ingest(txn: Transaction, namespace: str, record: IngestRecord, digest: str) -> IngestRecord:
    """Say under which name the file will stand before it is renamed, so that nothing is ever unaccounted for."""
    await _same_ingest(txn, namespace, record)
    announced = msgspec.structs.replace(record, sealed=digest)
    await INGESTS.replace(txn, namespace, record.ref, announced)
    return announced


async def commit_small(
    txn: Transaction,
    record: IngestRecord,
    context: Context,
    digest: str,
    data: bytes,
    labels: Mapping[str, str],
    *,
    on_disk: bool,
) -> ContentInfo | Rejected:
    await _end_ingest(txn, record, context)
    if on_disk:
        await ledger.queue_removal(txn, ledger.ingest_path(record.generation))
    blob = await ledger.record_small(txn, digest, data)
    return await record_blob(txn, context, digest, blob, labels, record.media_type)


async def commit_file(
    txn: Transaction,
    record: IngestRecord,
    context: Context,
    digest: str,
    size: int,
    labels: Mapping[str, str],
    lost: int,
) -> ContentInfo | Rejected:
    await _end_ingest(txn, record, context)
    if lost:
        await ledger.replace_lost(txn, digest, lost, record.generation)
    blob = await ledger.record_file(txn, digest, size, record.generation)
    return await record_blob(txn, context, digest, blob, labels, record.media_type)


async def _same_ingest(txn: Transaction, namespace: str, record: IngestRecord) -> IngestRecord:
    found = await INGESTS.find(txn, namespace, record.ref)
    if found is None or found.generation != record.generation:
        raise NotFound(f"ingest {quote(record.ref)} was aborted")
    return found


async def _end_ingest(txn: Transaction, record: IngestRecord, context: Context) -> None:
    namespace = context.namespace or ""
    await _same_ingest(txn, namespace, record)
    await INGESTS.remove(txn, namespace, record.ref)
    await leave_lease(txn, namespace, context.lease, LeaseResource(record.ref, "ingests"))
    if record.held:
        await ledger.release(txn, record.held)


PLANS: Mapping[type[msgspec.Struct], Plan] = {AbortIngest: abort}
