"""Which actor answers which method: the routes that the server and the in-process store are driven by."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import msgspec
import trio

from ..protocol import messages as m
from ..protocol import methods as t
from ..protocol.errors import (
    FailedPrecondition,
    InvalidArgument,
    OrlopError,
    OutOfRange,
    Unavailable,
    Unknown,
    prefixed,
)
from ..protocol.messages import Context, Empty, Limits, Welcome
from ..protocol.meter import Meter
from ..protocol.methods import Method
from ..protocol.service import Answer, Ordered, PointRead, Reply, Route, Session, Stream, Task
from ..protocol.version import PROTOCOL_VERSION, STORE_FORMAT, __version__
from ..protocol.world import World
from ..storage.engine import (
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_OPERATIONS,
    MAX_TRANSACTION_WRITES,
    Reopened,
)
from . import batch, containers, content, images, leases, listing, namespaces, sandboxes
from .actor import Result
from .adopting import AdoptingWriter
from .checking import Checker
from .collection_plan import CollectionPlanner
from .content_actor import ContentActor, PreparedCommit
from .disk_usage import disk_usage
from .events import EventsActor
from .explaining import Explainer
from .gc import Collector
from .image_unpack import ImageUnpacks
from .ingest import Writer
from .introspection import Introspection
from .layers import LayerActor
from .metrics import StoreMetrics
from .planning import Plans
from .pulling import Puller
from .pushing import Pusher
from .reading import OpenReader
from .snapshots import SnapshotActor
from .storage import StorageActor
from .verification import Verifier

__all__ = ["StoreService", "StoreSession"]

AnyWriter = Writer | AdoptingWriter

MAX_OPEN = 256  # writers and readers on one connection
_READ_CHUNK = m.MAX_CHUNK_BYTES


class StoreSession:
    """The writers and readers that one connection has open."""

    def __init__(self) -> None:
        self._writers: dict[int, AnyWriter] = {}
        self._readers: dict[int, OpenReader] = {}
        self._next = 1

    def add(self, writer: AnyWriter) -> int:
        handle, self._next = self._next, self._next + 1
        self._writers[handle] = writer
        return handle

    def full(self) -> bool:
        return len(self._writers) + len(self._readers) >= MAX_OPEN

    def writer(self, handle: int) -> AnyWriter:
        try:
            return self._writers[handle]
        except KeyError:
            raise FailedPrecondition(f"writer {handle} of this connection is closed") from None

    def take(self, handle: int) -> AnyWriter:
        writer = self.writer(handle)
        del self._writers[handle]
        return writer

    def add_reader(self, reader: OpenReader) -> int:
        handle, self._next = self._next, self._next + 1
        self._readers[handle] = reader
        return handle

    def reader(self, handle: int) -> OpenReader:
        try:
            return self._readers[handle]
        except KeyError:
            raise FailedPrecondition(f"reader {handle} of this connection is closed") from None

    def close_reader(self, handle: int) -> None:
        self.reader(handle).close()
        del self._readers[handle]

    async def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        writers, self._writers = list(self._writers.values()), {}
        for writer in writers:
            await writer.finish(keep=True)


class StoreService:
    """Everything a store answers, by method."""

    def __init__(
        self,
        *,
        store_id: str,
        storage: StorageActor,
        plans: Plans,
        content_actor: ContentActor,
        events: EventsActor,
        collector: Collector,
        collection_planner: CollectionPlanner,
        snapshots: SnapshotActor,
        layers: LayerActor,
        image_unpacks: ImageUnpacks,
        puller: Puller,
        pusher: Pusher,
        verifier: Verifier,
        explainer: Explainer,
        checker: Checker,
        introspection: Introspection,
        metrics: StoreMetrics,
        meter: Meter,
        world: World,
    ) -> None:
        self.meter = meter
        self._store_id = store_id
        self._plans = plans
        self._content = content_actor
        self._verifier = verifier
        self._collector = collector
        self._checker = checker
        self._storage = storage
        self._world = world
        self._draining = False
        self._busy = 0
        self._quiet = trio.Event()

        def read(fn: Any) -> PointRead:
            async def answer(request: Any, context: Context) -> Any:
                try:
                    return await fn(storage, request, context)
                except Reopened as error:  # a write failed meanwhile, on a full disk say: the read is as good as before
                    await storage.read_again(error)
                    return await fn(storage, request, context)

            return PointRead(answer)

        def task(fn: Any) -> Task:
            return Task(lambda request, context, _: fn(storage, request, context))

        def page(of: listing.Listing) -> Task:
            return Task(lambda request, context, _: of.page(storage, world.workers, request, context))

        def stream(of: listing.Listing) -> Stream:
            return Stream(lambda request, context, _, emit: of.stream(storage, world.workers, request, context, emit))

        def simple(fn: Any) -> Task:
            return Task(lambda request, context, _: fn(request, context))

        self.routes: Mapping[Method[Any, Any], Route] = {
            t.NAMESPACES_CREATE: plans.namespaces.route,
            t.NAMESPACES_GET: read(namespaces.get),
            t.NAMESPACES_LIST: task(namespaces.list_page),
            t.NAMESPACES_UPDATE: plans.namespaces.route,
            t.NAMESPACES_DELETE: plans.namespaces.route,
            t.IMAGES_CREATE: plans.images.route,
            t.IMAGES_GET: read(images.get),
            t.IMAGES_LIST: page(listing.IMAGES),
            t.IMAGES_UPDATE: plans.images.route,
            t.IMAGES_DELETE: Task(self._delete_image),
            t.IMAGES_STREAM: stream(listing.IMAGES),
            t.CONTAINERS_CREATE: plans.containers.route,
            t.CONTAINERS_GET: read(containers.get),
            t.CONTAINERS_LIST: page(listing.CONTAINERS),
            t.CONTAINERS_STREAM: stream(listing.CONTAINERS),
            t.CONTAINERS_UPDATE: plans.containers.route,
            t.CONTAINERS_DELETE: plans.containers.route,
            t.SANDBOXES_CREATE: plans.sandboxes.route,
            t.SANDBOXES_GET: read(sandboxes.get),
            t.SANDBOXES_LIST: page(listing.SANDBOXES),
            t.SANDBOXES_STREAM: stream(listing.SANDBOXES),
            t.SANDBOXES_UPDATE: plans.sandboxes.route,
            t.SANDBOXES_DELETE: plans.sandboxes.route,
            t.CONTENT_INFO: read(content.get_info),
            t.CONTENT_LIST: page(listing.CONTENT_INFOS),
            t.CONTENT_STREAM: stream(listing.CONTENT_INFOS),
            t.CONTENT_UPDATE: plans.content.route,
            t.CONTENT_DELETE: plans.content.route,
            t.CONTENT_PUT: plans.content.route,
            t.CONTENT_OPEN: Task(self._open_content),
            t.CONTENT_READ: Stream(self._read_content),
            t.CONTENT_VERIFY: Stream(verifier.verify),
            t.CONTENT_CLOSE: Task(self._close_content),
            t.INGESTS_OPEN: Task(self._open_ingest),
            t.INGESTS_WRITE: Ordered(self._write_ingest),
            t.INGESTS_TRUNCATE: Task(self._truncate_ingest),
            t.INGESTS_COMMIT: Task(self._commit_ingest),
            t.INGESTS_CLOSE: Task(self._close_ingest),
            t.INGESTS_GET: simple(content_actor.ingest_status),
            t.INGESTS_LIST: simple(content_actor.ingests_page),
            t.INGESTS_ABORT: plans.content.route,
            t.LEASES_CREATE: Task(self._create_lease),
            t.LEASES_GET: read(leases.get),
            t.LEASES_LIST: page(listing.LEASES),
            t.LEASES_STREAM: stream(listing.LEASES),
            t.LEASES_UPDATE: plans.leases.route,
            t.LEASES_DELETE: Task(self._delete_lease),
            t.LEASES_ADD: plans.leases.route,
            t.LEASES_REMOVE: plans.leases.route,
            t.LEASES_RESOURCES: task(leases.resources_page),
            t.SNAPSHOTS_PREPARE: Task(snapshots.prepare),
            t.SNAPSHOTS_VIEW: Task(snapshots.prepare),
            t.SNAPSHOTS_COMMIT: Task(snapshots.commit),
            t.SNAPSHOTS_MOUNTS: Task(snapshots.mounts),
            t.SNAPSHOTS_GET: Task(snapshots.get),
            t.SNAPSHOTS_LIST: Task(snapshots.list_page),
            t.SNAPSHOTS_STREAM: Stream(snapshots.list_stream),
            t.SNAPSHOTS_UPDATE: Task(snapshots.update),
            t.SNAPSHOTS_USAGE: Task(snapshots.usage),
            t.SNAPSHOTS_DELETE: Task(snapshots.remove),
            t.SNAPSHOTS_CLEANUP: Task(snapshots.cleanup),
            t.SNAPSHOTS_APPLY: Task(layers.apply),
            t.SNAPSHOTS_DIFF: Task(layers.diff),
            t.EVENTS_LIST: simple(events.list_page),
            t.EVENTS_SUBSCRIBE: Stream(events.subscribe),
            t.EVENTS_PUBLISH: plans.events.route,
            t.EVENTS_FORWARD: plans.events.route,
            t.BATCH: Task(self._batch),
            t.INTROSPECTION_SERVER: simple(introspection.server),
            t.INTROSPECTION_PLUGINS: simple(introspection.plugins),
            t.INTROSPECTION_METRICS: simple(metrics.get),
            t.GC_COLLECT: Task(self._collect),
            t.GC_STATUS: Task(self._collector_status),
            t.GC_PLAN: Stream(collection_planner.plan),
            t.GC_EXPLAIN: Task(explainer.explain),
            t.GC_UNDELETE: plans.collection.route,
            t.USAGE_GET: Task(self._disk_usage),
            t.CHECK_RUN: Stream(checker.check),
            t.TRANSFER_PULL: Stream(puller.pull),
            t.TRANSFER_RESOLVE: Task(puller.resolve),
            t.TRANSFER_FETCH: Stream(puller.fetch),
            t.TRANSFER_PUSH: Stream(pusher.push),
            t.TRANSFER_COPY: Stream(pusher.copy),
            t.TRANSFER_REFERRERS: Task(pusher.referrers),
            t.TRANSFER_UNPACK: Stream(image_unpacks.unpack),
        }

    def welcome(self) -> Welcome:
        return Welcome(
            protocol=PROTOCOL_VERSION,
            server=f"orlop/{__version__}",
            store=self._store_id,
            store_format=STORE_FORMAT,
            pid=self._world.pid,
            capabilities=["descriptors"],
            limits=Limits(
                transaction_operations=MAX_TRANSACTION_OPERATIONS,
                transaction_writes=MAX_TRANSACTION_WRITES,
                transaction_bytes=MAX_TRANSACTION_BYTES,
            ),
        )

    def open_session(self) -> StoreSession:
        return StoreSession()

    def check_open(self) -> None:
        if self._draining:
            raise Unavailable("the store is shutting down")

    def drain(self) -> None:
        """From now on every new call is refused."""
        self._draining = True

    async def wait_quiet(self) -> None:
        """Until the calls that came over connections are answered. Cancellation: safe."""
        while self._busy:
            self._quiet = trio.Event()
            await self._quiet.wait()

    def call_began(self, method: Method[Any, Any]) -> None:
        if method is not t.EVENTS_SUBSCRIBE:  # that one has no end of its own
            self._busy += 1

    def call_ended(self, method: Method[Any, Any]) -> None:
        if method is not t.EVENTS_SUBSCRIBE:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    def reading(self, digest: str, context: Context) -> AbstractAsyncContextManager[tuple[int, Any]]:
        """A blob open for reading in this process. See BlobReads.reading."""
        return self._content.reads.reading(digest, context)

    # images and leases

    async def _delete_image(self, request: m.DeleteImage, context: Context, _: Session) -> Result:
        done = await self._plans.images.ask(request, context)
        if request.sync:
            await self._collector.collect_urgent()
        return done

    async def _create_lease(self, request: m.CreateLease, context: Context, _: Session) -> Result:
        if not request.id:
            made_up = leases.lease_id(self._world.clock.now_ns(), self._world.random.token(3))
            request = msgspec.structs.replace(request, id=made_up)
        return await self._plans.leases.ask(request, context)

    async def _delete_lease(self, request: m.DeleteLease, context: Context, _: Session) -> Result:
        done = await self._plans.leases.ask(request, context)
        if request.sync:
            await self._collector.collect_urgent()
        return done

    async def _batch(self, request: m.Batch, context: Context, session: Session) -> Result:
        """Bytes of commits are made ready first; whatever comes of the batch, their writers end with it."""
        assert isinstance(session, StoreSession)
        prepared = batch.prepare(request, self._plans.batchable, self._world)
        commits: list[PreparedCommit] = []
        async with AsyncExitStack() as stack:
            for index, (method, wanted) in enumerate(prepared.operations):
                if not isinstance(wanted, m.CommitIngest):
                    continue
                try:
                    writer = session.take(wanted.writer)
                    committing = self._content.committing(writer, wanted.size, wanted.expected, wanted.labels)
                    commits.append(await stack.enter_async_context(committing))
                except OrlopError as error:
                    _settle(commits, recorded=False)
                    raise prefixed(batch.place(index, method), error) from None
                prepared.operations[index] = (method, commits[-1])
            try:
                result = await self._plans.batches.ask(prepared, context)
            except Unknown:
                raise
            except OrlopError:
                _settle(commits, recorded=False)
                raise
            _settle(commits, recorded=True)
            return result

    async def _collect(self, request: m.Collect, __: Context, ___: Session) -> Result:
        done = await self._collector.collect(empty_bin=request.empty_bin)
        return msgspec.structs.replace(done, differed=await self._checker.compare()) if request.full else done

    async def _collector_status(self, _: m.GetCollector, __: Context, ___: Session) -> Result:
        return await self._collector.status()

    async def _disk_usage(self, _: m.GetDiskUsage, __: Context, ___: Session) -> Result:
        return await disk_usage(self._storage)

    # content

    async def _read_content(self, request: m.ReadContent, context: Context, session: Session, emit: Any) -> Empty:
        if request.verify:
            if request.reader or request.offset or request.length:
                raise InvalidArgument("only a whole blob, by its digest, can be verified as it is read")
            await self._verifier.emit_verified(request.digest, context, emit)
            return Empty()
        if request.reader:
            assert isinstance(session, StoreSession)
            reader = session.reader(request.reader)
            with reader.in_use():
                await _emit_range(request, reader.size, reader.read, emit)
            return Empty()
        async with self._content.reads.reading(request.digest, context) as (size, read):
            await _emit_range(request, size, read, emit)
        return Empty()

    async def _open_content(self, request: m.OpenContent, context: Context, session: Session) -> Result | Reply:
        assert isinstance(session, StoreSession)
        if session.full():
            raise FailedPrecondition(f"more than {MAX_OPEN} writers and readers open on one connection")
        opened = await self._content.reads.open(request, context)
        if request.descriptor or not isinstance(opened, Reply):
            return opened
        assert isinstance(opened.result, m.OpenedContent)
        reader = self._content.reads.open_reader(opened.descriptor, opened.result.size)
        return m.OpenedContent(reader.size, reader=session.add_reader(reader))

    async def _close_content(self, request: m.CloseContent, _: Context, session: Session) -> Result:
        assert isinstance(session, StoreSession)
        session.close_reader(request.reader)
        return Empty()

    async def _open_ingest(self, request: m.OpenIngest, context: Context, session: Session) -> Result:
        assert isinstance(session, StoreSession)
        if session.full():
            raise FailedPrecondition(f"more than {MAX_OPEN} writers and readers open on one connection")
        writer = await self._content.open_ingest(request, context)
        return m.OpenedIngest(session.add(writer), writer.status())

    async def _write_ingest(
        self, request: m.WriteIngest, _: Context, session: Session, answer: Answer[m.WrittenIngest]
    ) -> None:
        assert isinstance(session, StoreSession)
        await session.writer(request.writer).write_answered(request.data, request.offset, answer)

    async def _truncate_ingest(self, request: m.TruncateIngest, _: Context, session: Session) -> Result:
        assert isinstance(session, StoreSession)
        writer = session.writer(request.writer)
        await writer.truncate(request.size)
        return m.WrittenIngest(writer.offset)

    async def _commit_ingest(self, request: m.CommitIngest, context: Context, session: Session) -> Result:
        assert isinstance(session, StoreSession)
        writer = session.take(request.writer)
        return await self._content.commit(writer, context, request.size, request.expected, request.labels)

    async def _close_ingest(self, request: m.CloseIngest, _: Context, session: Session) -> Result:
        assert isinstance(session, StoreSession)
        await session.take(request.writer).finish(keep=True)
        return Empty()


def _settle(commits: list[PreparedCommit], *, recorded: bool) -> None:
    for commit in commits:
        commit.recorded = recorded


async def _emit_range(request: m.ReadContent, size: int, read: Any, emit: Any) -> None:
    if request.offset > size:
        raise OutOfRange(f"read at {request.offset}: the blob has {size} bytes")
    end = size if not request.length else min(size, request.offset + request.length)
    at = request.offset
    while at < end:
        piece = await read(at, min(_READ_CHUNK, end - at))
        await emit(piece)
        at += len(piece)
