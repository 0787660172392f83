"""The content actor: what transactions cannot hold of blobs and ingests.

Which refs are being written (their locks), the open writers, and the files. A commit's order is: bytes synced,
renamed to `<digest>.<generation>`, folder synced, and only then the transaction that records them. That
transaction decides: it joins a live file of the same digest and queues its own for removal, or its own becomes
the file. Source: DESIGN 6, spec content.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import trio

from ..protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from ..protocol.identifiers import check_digest, check_name, check_request_namespace, quote, split_digest
from ..protocol.labels import check_labels
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    Context,
    GetIngest,
    ListIngests,
    ListRecords,
    OpenContent,
    OpenedContent,
    OpenIngest,
    Page,
)
from ..protocol.records import ContentInfo, IngestStatus
from ..protocol.service import Reply
from ..protocol.world import Work, World
from ..storage.blobs import ledger
from ..storage.blobs.local import IngestFile, LocalBlobs, disk_error
from ..storage.tables import CONTENT, INGESTS, PAGE_BYTES, IngestRecord
from . import ingest_plans as plans
from .content import wrong_digest
from .ingest import Writer
from .listing import INGEST_RECORDS
from .storage import StorageActor

__all__ = ["ContentActor", "OpenReader"]


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


class ContentActor:
    def __init__(self, storage: StorageActor, blobs: LocalBlobs, world: World) -> None:
        self._storage = storage
        self._blobs = blobs
        self._world = world
        self._locks: dict[tuple[str, str], int] = {}  # (namespace, ref) -> since when, in nanoseconds
        self._writers: dict[tuple[str, str], Writer] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the writers' tasks. Started when ingests can be opened; ends when cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

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
            record, fresh = await self._storage.transact(lambda txn: plans.open_ingest(txn, request, context))
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
            raise wrong_digest(digest, expected)
        context = msgspec.structs.replace(context, namespace=writer.namespace)
        if writer.offset <= MAX_INLINE_BYTES:
            data = await run(Work.BYTES, file.contents)
            return await self._storage.transact(
                lambda txn: plans.commit_small(txn, record, context, digest, data, labels)
            )
        await run(Work.BYTES, file.sync)
        if record.sealed != digest:
            record = await self._storage.transact(
                lambda txn: plans.announce_ingest(txn, writer.namespace, record, digest)
            )
        try:
            await run(Work.FILES, self._blobs.seal, record.generation, digest)
        except FileNotFoundError:
            raise NotFound(f"ingest {ref} was aborted") from None
        length = writer.offset
        lost = await self._lost_generation(digest)
        try:
            return await self._storage.transact(
                lambda txn: plans.commit_file(txn, record, context, digest, length, labels, lost)
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
        """Raises InvalidArgument (filters)."""
        namespace = context.namespace or ""
        records = ListRecords(request.filters, request.after, request.limit)
        selection = INGEST_RECORDS.select(records)
        found, following = await INGEST_RECORDS.read(
            self._storage, self._world.workers, records, context, selection, PAGE_BYTES
        )
        items = []
        for ref, raw in found:
            writer = self._writers.get((namespace, ref.decode()))
            items.append(writer.status() if writer else await self._status(INGESTS.decode(raw)))
        return Page(items, following)

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
