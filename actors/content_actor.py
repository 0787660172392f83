"""The content actor: what transactions cannot hold of blobs and ingests.

Which refs are being written (their locks), the open writers, and the files. A commit's order is: bytes synced,
renamed to `<digest>.<generation>`, folder synced, and only then the transaction that records them. That
transaction decides: it joins a live file of the same digest and queues its own for removal, or its own becomes
the file. Source: DESIGN 6, spec content.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial

import msgspec
import structlog
import trio

from ..protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OrlopError, Unavailable
from ..protocol.identifiers import check_digest, check_name, check_request_namespace, quote, split_digest
from ..protocol.labels import check_labels
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    Context,
    GetIngest,
    ListIngests,
    ListRecords,
    OpenIngest,
    Page,
)
from ..protocol.records import ContentInfo, IngestStatus
from ..protocol.world import Work, World
from ..storage.blobs import ledger
from ..storage.blobs.local import IngestFile, LocalBlobs, Progress, disk_error, disk_errors
from ..storage.blobs.sharing import Sharing
from ..storage.engine import Engine, Transaction
from ..storage.tables import INGESTS, PAGE_BYTES, IngestRecord, page_namespaces
from . import ingest_plans as plans
from .adopting import AdoptingWriter
from .content import wrong_digest
from .ingest import Writer
from .listing import INGEST_RECORDS
from .reading import BlobReads
from .storage import Rejected, StorageActor

__all__ = ["ContentActor", "PreparedCommit"]

log = structlog.get_logger("orlop.content")

_PAGE = 200
_MOST_HASHED = 256


class PreparedCommit:
    """Bytes that stand ready, and the plan that records them. Whoever ran it says in `recorded` what came of it:
    None is "not known", say when the caller was cancelled."""

    def __init__(
        self,
        namespace: str,
        plan: Callable[[Transaction, Context], Awaitable[ContentInfo | Rejected]],
        sealed: str = "",
    ) -> None:
        self._namespace = namespace
        self._plan = plan
        self.sealed = sealed
        self.recorded: bool | None = None

    def plan(self, txn: Transaction, context: Context) -> Awaitable[ContentInfo | Rejected]:
        """In the namespace of the open, with the lease of the commit. Source: spec content 5.4."""
        return self._plan(txn, msgspec.structs.replace(context, namespace=self._namespace))


class ContentActor:
    def __init__(self, storage: StorageActor, blobs: LocalBlobs, world: World, policy: Sharing) -> None:
        self._storage = storage
        self._blobs = blobs
        self._world = world
        self._policy = policy
        self.reads = BlobReads(storage, blobs, world)
        self._locks: dict[tuple[str, str], int] = {}  # (namespace, ref) -> since when, in nanoseconds
        self._writers: dict[tuple[str, str], Writer] = {}
        self._nursery: trio.Nursery | None = None
        self._hashed: OrderedDict[int, Progress] = OrderedDict()  # of ingests that were kept, by generation
        self._taken_back: dict[tuple[str, str], trio.Event] = {}  # locked by us, for as long as a rename takes

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the writers' tasks. Started when ingests can be opened; ends when cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._settle_what_a_crash_left()
            await trio.sleep_forever()

    async def _settle_what_a_crash_left(self) -> None:
        """Beside whatever else goes on. Between a rename and its transaction: the file gets its ingest's name again
        (an ingest that is open is left to its writer). A file whose ingest ended: it is removed. One that has a
        record had it before its file, so what is listed first and then not found has ended.
        """
        try:
            unknown = set(await self._world.workers.run(Work.FILES, self._blobs.ingest_files))
        except OSError as error:
            log.error("the folder of ingests cannot be read", error=str(error))
            unknown = set()
        try:
            async with aclosing(_ingests(self._storage)) as found:
                async for namespace, record in found:
                    unknown.discard(ledger.ingest_path(record.generation))
                    await self._take_back(namespace, record)
            if unknown:
                log.warning("files of ingests that ended were left by a crash, and are removed", count=len(unknown))
                await self._remove_leftovers(sorted(unknown))
        except OrlopError as error:
            log.error("what a crash left stays until the next start", error=str(error))

    async def _remove_leftovers(self, paths: list[str]) -> None:
        """One by one: what somebody else put there may not be a file, and is in nobody's way."""
        for path in paths:
            try:
                await self._world.workers.run(Work.FILES, self._blobs.remove, [path])
            except OSError as error:
                log.error("a file that a crash left stays until the next start", path=path, error=str(error))

    async def _take_back(self, namespace: str, record: IngestRecord) -> None:
        lock = (namespace, record.ref)
        if not record.sealed or lock in self._locks:
            return
        with self._storage.view() as view:
            live = await ledger.find_blob(view, record.sealed)
        if live is not None and live.generation == record.generation:
            return
        self._take_lock(*lock)
        self._taken_back[lock] = trio.Event()
        try:
            if await self._is_current(namespace, record) and await self._world.workers.run(
                Work.FILES, self._blobs.unseal, record.generation, record.sealed
            ):
                log.warning("a commit that a crash cut short was taken back", namespace=namespace, ref=record.ref)
        except OSError as error:  # the next open tries again
            log.error("an unfinished commit is left as it is", ref=record.ref, error=str(error))
        finally:
            del self._locks[lock]
            self._taken_back.pop(lock).set()

    def is_open(self, namespace: str, ref: str) -> bool:
        """Whether somebody is writing this ingest now."""
        return (namespace, ref) in self._locks

    async def close_writers(self) -> None:
        """End every open writer; their bytes stay for a resume."""
        for writer in list(self._writers.values()):
            await writer.finish(keep=True)

    # ingests

    async def open_ingest(self, request: OpenIngest, context: Context) -> Writer | AdoptingWriter:
        """Open or resume a writer, or one that adopts what another namespace has. Source: spec content 3.9.

        Raises InvalidArgument, AlreadyExists (the digest is here; a lease in the context has it now),
        Unavailable (another writer has the ref), NotFound (the lease).
        Cancellation: the ref is free again; the ingest may have been made.
        """
        check_name(request.ref, "ref")  # even before the namespace: spec content 3.9
        namespace = check_request_namespace(context.namespace)
        if request.expected:
            check_digest(request.expected, "expected digest")
            adopting = await self._open_adopting(request, context)
            if adopting is not None:
                return adopting
        if (being := self._taken_back.get((namespace, request.ref))) is not None:
            await being.wait()
        lock = self._take_lock(namespace, request.ref)
        try:
            record, fresh = await self._storage.transact(lambda txn: plans.open_ingest(txn, request, context))
            # One step, and no checkpoint after it: a cancelled open leaves neither a file nor a lock.
            if fresh:
                file, updated_at = self._blobs.new_ingest(record.generation, _algorithm(record)), record.updated_at
            else:
                known = self._hashed.pop(record.generation, None)
                file, updated_at = await self._world.workers.run(Work.BYTES, self._resumed, record, known)
        except OSError as error:
            del self._locks[lock]
            raise disk_error(error, f"ingest {quote(request.ref)}") from error
        except BaseException:
            del self._locks[lock]
            raise
        return self._started(lock, msgspec.structs.replace(record, updated_at=updated_at), file)

    async def _open_adopting(self, request: OpenIngest, context: Context) -> AdoptingWriter | None:
        """Looked up on the view first: most blobs that are announced are not here yet."""
        with self._storage.view() as view:
            if await ledger.find_blob(view, request.expected) is None:
                return None
        opened = await self._storage.transact(lambda txn: plans.open_adopting(txn, request, context, self._policy))
        if opened is None:
            return None
        record, size = opened
        return AdoptingWriter(context.namespace or "", record, size, self._unshare)

    async def _unshare(self, adopting: AdoptingWriter, kept: int) -> Writer:
        """An ordinary writer over the first `kept` bytes of what would have been adopted.

        Raises Unavailable (another writer has the ref), FailedPrecondition (another has written to it), NotFound
        (aborted meanwhile). Cancellation: the ref is free; the ingest starts from nothing when it is opened again.
        """
        namespace, record = adopting.namespace, adopting.record
        lock = self._take_lock(namespace, record.ref)
        try:
            record = await self._storage.transact(lambda txn: plans.unshare_ingest(txn, namespace, adopting.record))
            with self._storage.view() as view:
                blob = await ledger.find_blob(view, record.held)
                data = await ledger.small_bytes(view, record.held)
            if blob is None:
                raise NotFound(f"bytes of content {record.held}")
            file = await self._world.workers.run(Work.BYTES, self._copied, record, blob, data, kept)
        except OSError as error:
            del self._locks[lock]
            raise disk_error(error, f"ingest {quote(record.ref)}") from error
        except BaseException:
            del self._locks[lock]
            raise
        return self._started(lock, record, file)

    def _started(self, lock: tuple[str, str], record: IngestRecord, file: IngestFile) -> Writer:
        """The writer's task runs in this actor; its lock goes when it ends."""

        def ended() -> None:
            del self._locks[lock]
            del self._writers[lock]
            self._hashed[record.generation] = file.progress()
            if len(self._hashed) > _MOST_HASHED:
                self._hashed.popitem(last=False)

        assert self._nursery is not None
        writer = Writer(lock[0], record, file, self._world, ended, self._is_current, self._renew)
        self._writers[lock] = writer
        self._nursery.start_soon(writer.run)
        return writer

    async def commit(
        self,
        writer: Writer | AdoptingWriter,
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
        async with self.committing(writer, size, expected, labels or {}) as commit:
            try:
                info = await self._storage.transact(lambda txn: commit.plan(txn, context))
            except AlreadyExists:  # the ingest is gone, and the lease has its entry
                commit.recorded = True
                raise
            except (InvalidArgument, NotFound, Unavailable):
                commit.recorded = False
                raise
            commit.recorded = True
            return info

    @asynccontextmanager
    async def committing(
        self, writer: Writer | AdoptingWriter, size: int, expected: str, labels: Mapping[str, str]
    ) -> AsyncIterator[PreparedCommit]:
        """The bytes are made ready, durably, and the block runs the transaction that records them and says what
        came of it. The writer ends with the block. Raises like `commit`.
        """
        if isinstance(writer, AdoptingWriter) and writer.backed is not None:
            writer = writer.backed
        commit: PreparedCommit | None = None
        try:
            if isinstance(writer, AdoptingWriter):
                commit = self._prepare_adoption(writer, size, expected, labels)
            else:
                commit = await self._prepare(writer, size, expected, labels)
            yield commit
        except OSError as error:
            raise disk_error(error, f"commit of {quote(writer.record.ref)}") from error
        finally:
            if commit is not None and commit.recorded is False and commit.sealed:
                # Certainly not recorded: the bytes go back to where a resume finds them.
                with trio.CancelScope(shield=True), suppress(OSError):  # else the next open does it
                    await self._world.workers.run(
                        Work.FILES, self._blobs.unseal, writer.record.generation, commit.sealed
                    )
            await writer.finish(keep=commit is None or not commit.recorded)

    def _prepare_adoption(
        self, writer: AdoptingWriter, size: int, expected: str, labels: Mapping[str, str]
    ) -> PreparedCommit:
        record = writer.record
        if not writer.open:
            raise FailedPrecondition(f"writer of {quote(record.ref)} is closed")
        if expected and check_digest(expected, "expected digest") != record.held:
            raise wrong_digest(record.held, expected)
        check_labels(labels)
        if size and size != writer.size:
            raise _wrong_size(record.ref, writer.size, size)
        return PreparedCommit(writer.namespace, lambda txn, context: plans.adopt_ingest(txn, record, context, labels))

    async def _prepare(self, writer: Writer, size: int, expected: str, labels: Mapping[str, str]) -> PreparedCommit:
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
            raise _wrong_size(record.ref, writer.offset, size)
        digest = file.digest()
        if expected and split_digest(expected)[0] != file.algorithm:
            digest = await run(Work.BYTES, file.digest_with, split_digest(expected)[0])
        if expected and digest != expected:
            raise wrong_digest(digest, expected)
        if writer.offset <= MAX_INLINE_BYTES:
            on_disk = file.on_disk
            data = await run(Work.BYTES, file.contents) if on_disk else file.contents()
            return PreparedCommit(
                writer.namespace,
                lambda txn, context: plans.commit_small(txn, record, context, digest, data, labels, on_disk=on_disk),
            )
        await run(Work.BYTES, file.sync)
        if record.sealed != digest:
            announce = partial(plans.announce_ingest, namespace=writer.namespace, record=record, digest=digest)
            record = await self._storage.transact(announce)
        try:
            await run(Work.FILES, self._blobs.seal, record.generation, digest)
        except FileNotFoundError:
            raise NotFound(f"ingest {ref} was aborted") from None
        length = writer.offset
        lost = await self._lost_generation(digest)
        sealed = record
        return PreparedCommit(
            writer.namespace,
            lambda txn, context: plans.commit_file(txn, sealed, context, digest, length, labels, lost),
            digest,
        )

    async def _is_current(self, namespace: str, record: IngestRecord) -> bool:
        """Whether the ingest is still there, and nobody aborted it."""
        with self._storage.view() as view:
            found = await INGESTS.find(view, namespace, record.ref)
        return found is not None and found.generation == record.generation

    async def _renew(self, namespace: str, record: IngestRecord) -> IngestRecord:
        return await self._storage.transact(partial(plans.renew_ingest, namespace=namespace, record=record))

    async def _lost_generation(self, digest: str) -> int:
        """The generation recorded for a digest whose file has vanished from the disk; 0 if all is well."""
        with self._storage.view() as view:
            blob = await ledger.find_blob(view, digest)
        if blob is None or not blob.generation:
            return 0
        there = await self._world.workers.run(Work.FILES, self._blobs.exists, digest, blob.generation)
        return 0 if there else blob.generation

    async def ingest_status(self, request: GetIngest, context: Context) -> IngestStatus:
        """Raises NotFound, also for an ingest that adopts: it has no bytes of its own."""
        namespace = context.namespace or ""
        writer = self._writers.get((namespace, request.ref))
        if writer is not None:
            return writer.status()
        with self._storage.view() as view:
            record = await INGESTS.get(view, namespace, request.ref)
        if record.adopting:
            raise INGESTS.missing(request.ref)
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
            record = INGESTS.decode(raw)
            if writer is not None:
                items.append(writer.status())
            elif not record.adopting:
                items.append(await self._status(record))
        return Page(items, following)

    def _take_lock(self, namespace: str, ref: str) -> tuple[str, str]:
        if self._nursery is None:
            raise Unavailable("the content store is not running")
        lock = (namespace, ref)
        since = self._locks.get(lock)
        now = self._world.clock.now_ns()
        if since is not None:
            raise Unavailable(f"ref {quote(ref)} has been locked by another writer for {(now - since) / 1e9:.1f} s")
        self._locks[lock] = now
        return lock

    def _resumed(self, record: IngestRecord, known: Progress | None) -> tuple[IngestFile, int]:
        """The file, and when it was last written to."""
        if record.sealed:
            self._blobs.unseal(record.generation, record.sealed)
        status = self._blobs.ingest_status(record.generation, record.sealed)
        file = self._blobs.resume_ingest(record.generation, _algorithm(record), known)
        modified = status[1] if status is not None and file.offset else 0
        return file, max(record.updated_at, modified)

    def _copied(self, record: IngestRecord, blob: ledger.Blob, data: bytes | None, kept: int) -> IngestFile:
        """A fresh file with the first bytes of a blob."""
        file = self._blobs.new_ingest(record.generation, _algorithm(record))
        try:
            if data is not None:
                file.append([data[:kept]])
            else:
                self._blobs.copy(record.held, blob.generation, kept, file)
        except BaseException:
            file.close()
            raise
        return file

    async def _status(self, record: IngestRecord) -> IngestStatus:
        with disk_errors(f"ingest {quote(record.ref)}"):
            found = await self._world.workers.run(
                Work.FILES, self._blobs.ingest_status, record.generation, record.sealed
            )
        size, modified = found or (0, 0)
        return IngestStatus(
            ref=record.ref,
            offset=size,
            total=record.total,
            expected=record.expected,
            started_at=record.started_at,
            updated_at=max(record.updated_at, modified if size else 0),
        )


def _algorithm(record: IngestRecord) -> str:
    return split_digest(record.expected)[0] if record.expected else "sha256"


def _wrong_size(ref: str, found: int, expected: int) -> FailedPrecondition:
    return FailedPrecondition(f"failed size validation of {quote(ref)}: {found} != {expected}")


async def _ingests(engine: Engine) -> AsyncGenerator[tuple[str, IngestRecord], None]:
    """Every ingest there is, by namespace."""
    after = ""
    while True:
        with engine.view() as view:
            namespaces = await page_namespaces(view, after, _PAGE)
        for namespace in namespaces:
            at = ""
            while True:
                with engine.view() as view:
                    page = await INGESTS.page(view, namespace.name, at, _PAGE)
                for _, payload in page.rows:
                    yield namespace.name, INGESTS.decode(payload)
                await trio.lowlevel.checkpoint()
                if not page.next:
                    break
                at = page.next
        if len(namespaces) < _PAGE:
            return
        after = namespaces[-1].name
