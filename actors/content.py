"""Content: blobs by digest, and the ingests that make them.

The actor owns what transactions cannot: which refs are being written (their locks), the open writers, and the
files. A commit's order is: bytes synced, renamed to `<digest>.<generation>`, folder synced, and only then the
transaction that records them. That transaction decides: it joins a live file of the same digest and queues
its own for removal, or its own becomes the file. Source: DESIGN 6, spec content.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import structlog
import trio

from ..protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
)
from ..protocol.identifiers import check_digest, check_name, check_request_namespace, quote, split_digest
from ..protocol.labels import check_labels, check_mask, merge_map, stored_labels
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    AbortIngest,
    Context,
    DeleteContent,
    Empty,
    GetContent,
    GetIngest,
    ListContent,
    ListIngests,
    OpenContent,
    OpenedContent,
    OpenIngest,
    Page,
    PutContent,
    UpdateContent,
)
from ..protocol.records import ContentCreate, ContentDelete, ContentInfo, IngestStatus, LeaseResource
from ..protocol.service import Reply
from ..protocol.world import Work, World
from ..storage.blobs import ledger
from ..storage.blobs.local import IngestFile, LocalBlobs, disk_error
from ..storage.engine import Engine, Kind, Node, Transaction
from ..storage.lease_entries import join_lease, leave_lease
from ..storage.references import may_free
from ..storage.tables import (
    CONTENT,
    INGESTS,
    IngestRecord,
    append_event,
    ensure_namespace,
    next_generation,
)
from .actor import Plan
from .filtering import refuse_filters
from .ingest import Writer
from .storage import Durable, Rejected, StorageActor

__all__ = ["PLANS", "ContentActor", "adopt", "get_info", "list_page"]

log = structlog.get_logger("orlop.content")

INGEST_LIFE_NS = 24 * 3600 * 1_000_000_000  # of an ingest that no lease protects, from its last open
_REMOVALS_AT_ONCE = 256


# plans ------------------------------------------------------------------------------------------------------


async def update(txn: Transaction, request: UpdateContent, context: Context) -> msgspec.Raw:
    check_digest(request.digest)
    namespace = context.namespace or ""
    before = await CONTENT.get(txn, namespace, request.digest)
    check_mask(request.mask, ("labels",), ("labels",), f"content {request.digest}")
    labels = merge_map(before.labels, request.labels, request.mask, "labels")
    check_labels(labels)
    after = msgspec.structs.replace(before, labels=labels, updated_at=txn.now_ns)
    if may_free(namespace, before, after):
        txn.made_garbage()
    return await CONTENT.replace(txn, namespace, request.digest, after)


async def delete(txn: Transaction, request: DeleteContent, context: Context) -> Empty:
    check_digest(request.digest)
    namespace = context.namespace or ""
    await drop_content(txn, namespace, request.digest)
    await leave_lease(txn, namespace, context.lease, LeaseResource(request.digest, "content"))
    txn.made_garbage()
    await append_event(txn, namespace, ContentDelete(request.digest))
    return Empty()


async def drop_content(txn: Transaction, namespace: str, digest: str) -> None:
    """Take the namespace's record away; the bytes are the collector's."""
    await CONTENT.remove(txn, namespace, digest)
    await ledger.release(txn, digest)


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
        raise _wrong_digest(digest, request.expected)
    blob = await ledger.record_small(txn, digest, request.data)
    return await _record(txn, context, digest, blob, request.labels, request.media_type)


async def adopt(
    txn: Transaction, context: Context, digest: str, size: int, labels: Mapping[str, str], media_type: str
) -> ContentInfo | Rejected:
    """Give this namespace a record of bytes that the backend has. Raises NotFound when it has not."""
    blob = await ledger.find_blob(txn, digest)
    if blob is None or (size and blob.size != size):
        raise NotFound(f"content {digest}")
    return await _record(txn, context, digest, blob, labels, media_type)


async def _record(
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
    if await CONTENT.find(txn, namespace, digest) is not None:
        return Rejected(AlreadyExists(f"content {digest}"))
    info = ContentInfo(digest, blob.size, labels, txn.now_ns, txn.now_ns)
    await CONTENT.insert(txn, namespace, digest, info)
    await ledger.hold(txn, digest, blob)
    await append_event(txn, namespace, ContentCreate(digest, blob.size, media_type))
    return info


async def abort(txn: Transaction, request: AbortIngest, context: Context) -> Empty:
    namespace = context.namespace or ""
    record = await INGESTS.remove(txn, namespace, request.ref)
    await leave_lease(txn, namespace, context.lease, LeaseResource(request.ref, "ingests"))
    await ledger.drop_ingest_files(txn, record)
    return Empty()


PLANS: Mapping[type[msgspec.Struct], Plan] = {
    UpdateContent: update,
    DeleteContent: delete,
    PutContent: put,
    AbortIngest: abort,
}


# reads ------------------------------------------------------------------------------------------------------


async def get_info(engine: Engine, request: GetContent, context: Context) -> msgspec.Raw:
    check_digest(request.digest)
    with engine.view() as view:
        return await CONTENT.encoded(view, context.namespace or "", request.digest)


async def list_page(engine: Engine, request: ListContent, context: Context) -> msgspec.Struct:
    refuse_filters(request.filters)
    with engine.view() as view:
        found = await CONTENT.page(view, context.namespace or "", request.after, request.limit)
    return Page([raw for _, raw in found.items], found.next)


class OpenReader:
    """A blob held open for a connection. Closing waits for a read under way to end."""

    def __init__(self, blobs: LocalBlobs, world: World, fd: int, size: int) -> None:
        self.size = size
        self._blobs = blobs
        self._world = world
        self._fd = fd
        self._users = 0
        self._closed = False

    async def read(self, offset: int, count: int) -> bytes:
        return await self._world.workers.run(Work.BYTES, self._blobs.read, self._fd, offset, count)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._closed and not self._users:
                self._blobs.close(self._fd)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._users:
                self._blobs.close(self._fd)


# the actor --------------------------------------------------------------------------------------------------


class ContentActor:
    def __init__(self, storage: StorageActor, blobs: LocalBlobs, world: World) -> None:
        self._storage = storage
        self._blobs = blobs
        self._world = world
        self._locks: dict[tuple[str, str], int] = {}  # (namespace, ref) -> since when, in nanoseconds
        self._writers: dict[tuple[str, str], Writer] = {}
        self._nursery: trio.Nursery | None = None
        self._removals_due = trio.Event()
        self._removed_up_to = 0
        self._removed = trio.Condition()
        storage.listen(self._hear)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the writers' tasks and the removal of files. Started when ingests can be opened; ends when
        cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            with self._storage.view() as view:
                self._removed_up_to = await ledger.first_removal(view)
            self._removals_due.set()  # what an earlier run left behind
            nursery.start_soon(self._remove_forever)
            task_status.started()

    def is_open(self, namespace: str, ref: str) -> bool:
        """Whether somebody is writing this ingest now."""
        return (namespace, ref) in self._locks

    async def close_writers(self) -> None:
        """End every open writer; their bytes stay for a resume."""
        for writer in list(self._writers.values()):
            await writer.finish(keep=True)

    # ingests

    async def open_ingest(self, request: OpenIngest, context: Context) -> Writer:
        """Open or resume a writer. Source: spec content 3.9.

        Raises InvalidArgument, AlreadyExists (the digest is here; a lease in the context has it now),
        Unavailable (another writer has the ref), NotFound (the lease).
        Cancellation: the ref is free again; the ingest may have been made.
        """
        check_name(request.ref, "ref")  # even before the namespace: spec content 3.9
        namespace = check_request_namespace(context.namespace)
        if request.expected:
            check_digest(request.expected, "expected digest")
        if self._nursery is None:
            raise Unavailable("the content store is not running")
        lock = (namespace, request.ref)
        self._take_lock(lock)
        try:
            record, fresh = await self._storage.transact(lambda txn: _open_plan(txn, request, context))
            algorithm = split_digest(record.expected)[0] if record.expected else "sha256"
            # One step, and no checkpoint after it: a cancelled open leaves neither a file nor a lock.
            file, updated_at = await self._world.workers.run(Work.BYTES, self._open_file, record, algorithm, fresh)
        except OSError as error:
            del self._locks[lock]
            raise disk_error(error, f"ingest {quote(request.ref)}") from error
        except BaseException:
            del self._locks[lock]
            raise
        record = msgspec.structs.replace(record, updated_at=updated_at)

        def ended() -> None:
            del self._locks[lock]
            del self._writers[lock]

        writer = Writer(namespace, record, file, self._world, ended)
        self._writers[lock] = writer
        self._nursery.start_soon(writer.run)
        return writer

    async def commit(
        self,
        writer: Writer,
        context: Context,
        size: int = 0,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> ContentInfo:
        """Make the ingest's bytes a blob of this namespace. The writer ends, whatever comes of it.

        `expected` empty: what the open announced, else not checked. Source: spec content 5.
        Raises FailedPrecondition (size, digest; the bytes are kept), InvalidArgument (labels, digest; kept),
        AlreadyExists (it is here and leased for you; existing labels stay), NotFound (aborted meanwhile).
        Cancellation: may have happened. Durability: with the return.
        """
        committed = False
        try:
            info = await self._commit(writer, context, size, expected, labels or {})
            committed = True
        except AlreadyExists:
            committed = True
            raise
        except OSError as error:
            raise disk_error(error, f"commit of {quote(writer.record.ref)}") from error
        finally:
            await writer.finish(keep=not committed)
        return info

    async def _commit(
        self, writer: Writer, context: Context, size: int, expected: str, labels: Mapping[str, str]
    ) -> ContentInfo:
        record, file, run = writer.record, writer.file, self._world.workers.run
        ref = quote(record.ref)
        if not writer.open:
            raise FailedPrecondition(f"writer of {ref} is closed")
        if expected:
            check_digest(expected, "expected digest")
        expected = expected or record.expected
        check_labels(labels)
        await writer.flush()
        if size and size != writer.offset:
            raise FailedPrecondition(f"failed size validation of {ref}: {writer.offset} != {size}")
        digest = file.digest()
        if expected and split_digest(expected)[0] != file.algorithm:
            digest = await run(Work.BYTES, file.digest_with, split_digest(expected)[0])
        if expected and digest != expected:
            raise _wrong_digest(digest, expected)
        context = msgspec.structs.replace(context, namespace=writer.namespace)
        if writer.offset <= MAX_INLINE_BYTES:
            data = await run(Work.BYTES, file.contents)
            return await self._storage.transact(
                lambda txn: _commit_small_plan(txn, record, context, digest, data, labels)
            )
        await run(Work.BYTES, file.sync)
        if record.sealed != digest:
            record = await self._storage.transact(lambda txn: _announce_plan(txn, writer.namespace, record, digest))
        try:
            await run(Work.FILES, self._blobs.seal, record.generation, digest)
        except FileNotFoundError:
            raise NotFound(f"ingest {ref} was aborted") from None
        length = writer.offset
        lost = await self._lost_generation(digest)
        try:
            return await self._storage.transact(
                lambda txn: _commit_file_plan(txn, record, context, digest, length, labels, lost)
            )
        except (InvalidArgument, NotFound, Unavailable):
            # Certainly not recorded: the bytes go back to where a resume finds them.
            with trio.CancelScope(shield=True):
                await run(Work.FILES, self._blobs.unseal, record.generation, digest)
            raise

    async def _lost_generation(self, digest: str) -> int:
        """The generation recorded for a digest whose file has vanished from the disk; 0 if all is well."""
        with self._storage.view() as view:
            blob = await ledger.find_blob(view, digest)
        if blob is None or not blob.generation:
            return 0
        there = await self._world.workers.run(Work.FILES, self._blobs.exists, digest, blob.generation)
        return 0 if there else blob.generation

    async def ingest_status(self, request: GetIngest, context: Context) -> IngestStatus:
        namespace = context.namespace or ""
        writer = self._writers.get((namespace, request.ref))
        if writer is not None:
            return writer.status()
        with self._storage.view() as view:
            record = await INGESTS.get(view, namespace, request.ref)
        return await self._status(record)

    async def ingests_page(self, request: ListIngests, context: Context) -> msgspec.Struct:
        refuse_filters(request.filters)
        namespace = context.namespace or ""
        with self._storage.view() as view:
            found = await INGESTS.page(view, namespace, request.after, request.limit)
        items = []
        for ref, raw in found.items:
            writer = self._writers.get((namespace, ref))
            items.append(writer.status() if writer else await self._status(INGESTS.decode(raw)))
        return Page(items, found.next)

    # reading

    async def open_content(self, request: OpenContent, context: Context) -> OpenedContent | Reply:
        """The bytes of a small blob, or a fresh descriptor of a file. Raises NotFound.

        Cancellation: no descriptor is left behind.
        """
        check_digest(request.digest)
        with self._storage.view() as view:
            await CONTENT.encoded(view, context.namespace or "", request.digest)
            blob = await ledger.find_blob(view, request.digest)
            if blob is None:
                raise NotFound(f"bytes of content {request.digest}")
            if not blob.generation:
                return OpenedContent(blob.size, await ledger.small_bytes(view, request.digest))
        try:
            fd = await self._world.workers.run(Work.FILES, self._blobs.open_blob, request.digest, blob.generation)
        except OSError as error:
            raise disk_error(error, f"content {request.digest}") from error
        return Reply(OpenedContent(blob.size, descriptor=True), fd)

    @asynccontextmanager
    async def reading(self, digest: str, context: Context) -> AsyncIterator[tuple[int, Any]]:
        """(size, `read(offset, count)`) of a blob, while the block runs."""
        opened = await self.open_content(OpenContent(digest), context)
        if isinstance(opened, OpenedContent):
            data = opened.data or b""

            async def slice_(offset: int, count: int) -> bytes:
                return data[offset : offset + count]

            yield opened.size, slice_
            return
        fd = opened.descriptor
        assert isinstance(opened.result, OpenedContent)

        async def read(offset: int, count: int) -> bytes:
            return await self._world.workers.run(Work.BYTES, self._blobs.read, fd, offset, count)

        try:
            yield opened.result.size, read
        finally:
            self._blobs.close(fd)

    def open_reader(self, fd: int, size: int) -> OpenReader:
        """A blob that stays open between calls; it closes the descriptor."""
        return OpenReader(self._blobs, self._world, fd, size)

    # removal of files

    async def removals_done(self) -> None:
        """Wait until every removal queued so far has been carried out."""
        with self._storage.view() as view:
            pending = await ledger.last_removal(view)
        self._removals_due.set()
        async with self._removed:
            while self._removed_up_to < pending:
                await self._removed.wait()

    async def _remove_forever(self) -> None:
        while True:
            await self._removals_due.wait()
            self._removals_due = trio.Event()
            while await self._remove_some():
                pass

    async def _remove_some(self) -> bool:
        """Unlink files of the queue, then strike them off; a crash in between unlinks again, harmlessly."""
        with self._storage.view() as view:
            head = await ledger.last_removal(view)
            page = await ledger.page_removals(view, self._removed_up_to, _REMOVALS_AT_ONCE)
        if page:
            try:
                await self._world.workers.run(Work.FILES, self._blobs.remove, [removal.path for _, removal in page])
            except OSError as error:
                log.error("files could not be removed; trying again later", error=str(error))
                await trio.sleep(1)
                return True

            async def strike(txn: Transaction) -> None:
                ledger.strike_removals(txn, [position for position, _ in page])

            try:
                await self._storage.transact(strike)
            except OrlopError as error:
                log.warning("removed files are still queued", error=str(error))
                await trio.sleep(1)
                return True
        async with self._removed:
            self._removed_up_to = page[-1][0] if len(page) == _REMOVALS_AT_ONCE else max(head, self._removed_up_to)
            self._removed.notify_all()
        return len(page) == _REMOVALS_AT_ONCE

    def _hear(self, news: Durable) -> None:
        if news.removals:
            self._removals_due.set()

    def _take_lock(self, lock: tuple[str, str]) -> None:
        since = self._locks.get(lock)
        now = self._world.clock.now_ns()
        if since is not None:
            raise Unavailable(f"ref {quote(lock[1])} has been locked by another writer for {(now - since) / 1e9:.1f} s")
        self._locks[lock] = now

    def _open_file(self, record: IngestRecord, algorithm: str, fresh: bool) -> tuple[IngestFile, int]:
        """The file, and when it was last written to."""
        if record.sealed and not fresh:
            self._blobs.unseal(record.generation, record.sealed)
        status = self._blobs.ingest_status(record.generation, record.sealed)
        file = self._blobs.open_ingest(record.generation, algorithm, resume=not fresh)
        modified = status[1] if status is not None and file.offset else 0
        return file, max(record.updated_at, modified)

    async def _status(self, record: IngestRecord) -> IngestStatus:
        found = await self._world.workers.run(Work.FILES, self._blobs.ingest_status, record.generation, record.sealed)
        size, modified = found or (0, 0)
        return IngestStatus(
            ref=record.ref,
            offset=size,
            total=record.total,
            expected=record.expected,
            started_at=record.started_at,
            updated_at=max(record.updated_at, modified if size else 0),
        )


async def _open_plan(txn: Transaction, request: OpenIngest, context: Context) -> tuple[IngestRecord, bool] | Rejected:
    """The ingest's record, and whether it starts from nothing."""
    namespace = context.namespace or ""
    if request.expected and await CONTENT.find(txn, namespace, request.expected) is not None:
        await join_lease(txn, namespace, context.lease, LeaseResource(request.expected, "content"))
        return Rejected(AlreadyExists(f"content {request.expected}"))
    expires = None if context.lease is not None else txn.now_ns + INGEST_LIFE_NS
    await join_lease(txn, namespace, context.lease, LeaseResource(request.ref, "ingests"))
    if expires is not None:
        txn.expires(expires)
    found = await INGESTS.find(txn, namespace, request.ref)
    fresh = found is None or bool(request.size and found.total and request.size != found.total)
    if found is None:
        await ensure_namespace(txn, namespace)
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
    txn.gained(Node(Kind.INGEST, namespace, request.ref))
    return record, True


async def _announce_plan(txn: Transaction, namespace: str, record: IngestRecord, digest: str) -> IngestRecord:
    """Say under which name the file will stand before it is renamed, so that nothing is ever unaccounted for."""
    await _same_ingest(txn, namespace, record)
    announced = msgspec.structs.replace(record, sealed=digest)
    await INGESTS.replace(txn, namespace, record.ref, announced)
    return announced


async def _commit_small_plan(
    txn: Transaction,
    record: IngestRecord,
    context: Context,
    digest: str,
    data: bytes,
    labels: Mapping[str, str],
) -> ContentInfo | Rejected:
    await _end_ingest(txn, record, context)
    await ledger.queue_removal(txn, ledger.ingest_path(record.generation))
    blob = await ledger.record_small(txn, digest, data)
    return await _record(txn, context, digest, blob, labels, record.media_type)


async def _commit_file_plan(
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
    return await _record(txn, context, digest, blob, labels, record.media_type)


async def _same_ingest(txn: Transaction, namespace: str, record: IngestRecord) -> None:
    found = await INGESTS.find(txn, namespace, record.ref)
    if found is None or found.generation != record.generation:
        raise NotFound(f"ingest {quote(record.ref)} was aborted")


async def _end_ingest(txn: Transaction, record: IngestRecord, context: Context) -> None:
    namespace = context.namespace or ""
    await _same_ingest(txn, namespace, record)
    await INGESTS.remove(txn, namespace, record.ref)
    await leave_lease(txn, namespace, context.lease, LeaseResource(record.ref, "ingests"))


def _wrong_digest(found: str, expected: str) -> FailedPrecondition:
    return FailedPrecondition(f"unexpected commit digest {found}, expected {expected}")
