"""The typed interface of a store: the same whether it lives in this process or behind a socket.

`Store` groups the resources; each method is one line of the table of methods. What a call raises is the same
either way too: the classes of `orlop.protocol.errors`.

Cancellation, unless a method says otherwise: a read leaves nothing behind; a write that was cancelled may or
may not have happened. Durability: a write that returned survives a power cut.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from . import messages as m
from . import methods as t
from .errors import DataLoss
from .identifiers import DEFAULT_NAMESPACE
from .messages import Context
from .methods import Method
from .records import ContentInfo, Descriptor, Event, Image, IngestStatus, Lease, LeaseResource, Namespace

__all__ = ["BlobReader", "Caller", "IngestWriter", "Store"]

Q = TypeVar("Q", bound=msgspec.Struct)
A = TypeVar("A")


class BlobReader(Protocol):
    """A blob open for reading. It keeps reading also when the blob is deleted meanwhile."""

    size: int

    def fileno(self) -> int | None:
        """The blob's own file descriptor, read-only, where it is in reach: over a unix socket, unless the blob
        is small. It may be read with any system call, and is closed with the reader."""

    async def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer at the end, none past it."""


class Caller(Protocol):
    """How a call reaches the store."""

    async def call(self, method: Method[Q, Any], request: Q, context: Context) -> Any: ...

    def stream(
        self, method: Method[Q, Any], request: Q, context: Context
    ) -> AbstractAsyncContextManager[StreamReader]: ...

    def open_blob(self, digest: str, context: Context) -> AbstractAsyncContextManager[BlobReader]: ...

    def welcome(self) -> m.Welcome: ...


class StreamReader(Protocol):
    """Chunks as they come; after the last one, `result` is the stream's answer."""

    result: Any

    def __aiter__(self) -> AsyncIterator[Any]: ...


class Store:
    """A store as one namespace sees it. `in_namespace` gives the same store as another sees it."""

    def __init__(self, caller: Caller, context: Context | None = None) -> None:
        self._caller = caller
        self.context = context or Context(namespace=DEFAULT_NAMESPACE)
        self.namespaces = Namespaces(caller, self.context)
        self.images = Images(caller, self.context)
        self.content = Content(caller, self.context)
        self.leases = Leases(caller, self.context)
        self.events = Events(caller, self.context)

    @property
    def namespace(self) -> str:
        return self.context.namespace or ""

    def in_namespace(self, name: str) -> Store:
        return Store(self._caller, msgspec.structs.replace(self.context, namespace=name))

    def with_lease(self, lease: str) -> Store:
        """The same store; what its calls create joins the lease."""
        return Store(self._caller, msgspec.structs.replace(self.context, lease=lease))

    def welcome(self) -> m.Welcome:
        """Versions, capabilities and limits of the store."""
        return self._caller.welcome()

    async def collect(self) -> m.Collection:
        """Run a garbage collection that begins now; returns what it removed, in all namespaces."""
        result: m.Collection = await self._caller.call(t.GC_COLLECT, m.Collect(), self.context)
        return result

    async def pull(self, request: m.PullImage, progress: Callable[[m.PullProgress], None] | None = None) -> Image:
        """Bring an image from its registry and record it. See PullImage for the options.

        Raises NotFound, Unauthenticated, PermissionDenied, FailedPrecondition (wrong bytes), Unavailable.
        Cancellation: no image; what has come shortens the next pull.
        """
        async with self._caller.stream(t.TRANSFER_PULL, request, self.context) as stream:
            async for item in stream:
                if progress is not None:
                    progress(item)
            image: Image = stream.result
        return image


class _Resource:
    def __init__(self, caller: Caller, context: Context) -> None:
        self._caller = caller
        self._context = context

    async def _call(self, method: Method[Q, A], request: Q) -> Any:
        return await self._caller.call(method, request, self._context)

    async def _pages(self, method: Method[Q, Any], request: Q) -> AsyncIterator[Any]:
        """Every item of a list, page by page: each that exists throughout once, none twice."""
        while True:
            page = await self._call(method, request)
            for item in page.items:
                yield item
            if not page.next:
                return
            request = msgspec.structs.replace(request, after=page.next)


class Namespaces(_Resource):
    async def create(self, name: str, labels: Mapping[str, str] | None = None) -> Namespace:
        """Raises AlreadyExists, InvalidArgument."""
        result: Namespace = await self._call(t.NAMESPACES_CREATE, m.CreateNamespace(name, dict(labels or {})))
        return result

    async def get(self, name: str) -> Namespace:
        """Raises NotFound."""
        result: Namespace = await self._call(t.NAMESPACES_GET, m.GetNamespace(name))
        return result

    def list(self) -> AsyncIterator[Namespace]:
        """In the order of their names' bytes."""
        return self._pages(t.NAMESPACES_LIST, m.ListNamespaces(limit=m.PAGE_LIMIT_MAX))

    async def update(self, name: str, labels: Mapping[str, str], mask: Sequence[str] | None = None) -> Namespace:
        """Without a mask all labels are replaced; with paths `labels.<key>` just those. Raises NotFound."""
        request = m.UpdateNamespace(name, dict(labels), None if mask is None else list(mask))
        result: Namespace = await self._call(t.NAMESPACES_UPDATE, request)
        return result

    async def delete(self, name: str) -> None:
        """Raises FailedPrecondition naming what is left in it, NotFound."""
        await self._call(t.NAMESPACES_DELETE, m.DeleteNamespace(name))


class Images(_Resource):
    async def create(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> Image:
        """Raises AlreadyExists, InvalidArgument. The target's content need not be here."""
        result: Image = await self._call(t.IMAGES_CREATE, m.CreateImage(name, target, dict(labels or {})))
        return result

    async def get(self, name: str) -> Image:
        """Raises NotFound."""
        result: Image = await self._call(t.IMAGES_GET, m.GetImage(name))
        return result

    def list(self, filters: Sequence[str] = ()) -> AsyncIterator[Image]:
        return self._pages(t.IMAGES_LIST, m.ListImages(list(filters), limit=m.PAGE_LIMIT_MAX))

    async def update(
        self,
        name: str,
        *,
        target: Descriptor | None = None,
        labels: Mapping[str, str] | None = None,
        mask: Sequence[str] | None = None,
    ) -> Image:
        """Without a mask target and labels are replaced. Paths: labels, labels.<key>, target, annotations,
        annotations.<key>. Raises NotFound, InvalidArgument."""
        request = m.UpdateImage(name, target, dict(labels or {}), None if mask is None else list(mask))
        result: Image = await self._call(t.IMAGES_UPDATE, request)
        return result

    async def delete(self, name: str, *, target: str = "", sync: bool = False) -> None:
        """`target`: only if the image has this digest. `sync`: wait until what only it held is gone.

        Raises NotFound.
        """
        await self._call(t.IMAGES_DELETE, m.DeleteImage(name, target, sync))


class Content(_Resource):
    async def info(self, digest: str) -> ContentInfo:
        """Raises NotFound when this namespace does not have it."""
        result: ContentInfo = await self._call(t.CONTENT_INFO, m.GetContent(digest))
        return result

    def list(self, filters: Sequence[str] = ()) -> AsyncIterator[ContentInfo]:
        return self._pages(t.CONTENT_LIST, m.ListContent(list(filters), limit=m.PAGE_LIMIT_MAX))

    async def update(self, digest: str, labels: Mapping[str, str], mask: Sequence[str] | None = None) -> ContentInfo:
        """Only labels can change. Raises NotFound, InvalidArgument."""
        request = m.UpdateContent(digest, dict(labels), None if mask is None else list(mask))
        result: ContentInfo = await self._call(t.CONTENT_UPDATE, request)
        return result

    async def delete(self, digest: str) -> None:
        """Take this namespace's record away, whoever refers to it. Open readers go on. Raises NotFound."""
        await self._call(t.CONTENT_DELETE, m.DeleteContent(digest))

    async def put(
        self,
        data: bytes,
        *,
        expected: str = "",
        media_type: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> ContentInfo:
        """A blob of up to 16 KiB in one call. Raises AlreadyExists, FailedPrecondition (digest)."""
        request = m.PutContent(data, expected, media_type, dict(labels or {}))
        result: ContentInfo = await self._call(t.CONTENT_PUT, request)
        return result

    def open(self, digest: str) -> AbstractAsyncContextManager[BlobReader]:
        """`async with content.open(digest) as reader`. Raises NotFound."""
        return self._caller.open_blob(digest, self._context)

    async def read(self, digest: str, *, most: int = 64 * 1024 * 1024) -> bytes:
        """All of a blob's bytes, if there are not more than `most`. Raises NotFound, DataLoss."""
        async with self.open(digest) as reader:
            if reader.size > most:
                raise ValueError(f"{digest} has {reader.size} bytes, more than {most}")
            data = await reader.read_at(0, reader.size)
        if len(data) != reader.size:
            raise DataLoss(f"content {digest}: {len(data)} of {reader.size} bytes")
        return data

    @asynccontextmanager
    async def ingest(
        self, ref: str, *, size: int = 0, expected: str = "", media_type: str = ""
    ) -> AsyncIterator[IngestWriter]:
        """Open or resume a writer; leaving the block closes it, and keeps uncommitted bytes for a resume.

        Raises AlreadyExists (the expected digest is here), Unavailable (another writer has the ref).
        """
        opened = await self._call(t.INGESTS_OPEN, m.OpenIngest(ref, size, expected, media_type))
        writer = IngestWriter(self._caller, self._context, opened)
        try:
            yield writer
        finally:
            await writer.close()

    async def status(self, ref: str) -> IngestStatus:
        """Raises NotFound."""
        result: IngestStatus = await self._call(t.INGESTS_GET, m.GetIngest(ref))
        return result

    def ingests(self, filters: Sequence[str] = ()) -> AsyncIterator[IngestStatus]:
        return self._pages(t.INGESTS_LIST, m.ListIngests(list(filters), limit=m.PAGE_LIMIT_MAX))

    async def abort(self, ref: str) -> None:
        """Throw an ingest's bytes away. Raises NotFound."""
        await self._call(t.INGESTS_ABORT, m.AbortIngest(ref))


class IngestWriter:
    """A writer of one ingest. Several writes are under way at once; one that failed shows at the next call."""

    _WINDOW = 8

    def __init__(self, caller: Caller, context: Context, opened: m.OpenedIngest) -> None:
        self._caller = caller
        self._context = context
        self._handle = opened.writer
        self.status = opened.status
        """As it was when the ingest was opened."""
        self.offset = opened.status.offset
        self._open = True

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes, in pieces of up to 1 MiB. Raises ResourceExhausted (disk full), FailedPrecondition."""
        view = memoryview(data).cast("B")
        if len(view) <= m.MAX_WRITE_BYTES:
            await self._write_piece(bytes(view) if not isinstance(data, bytes) else data, self.offset)
            return
        await self.write_many(bytes(view[at : at + m.MAX_WRITE_BYTES]) for at in range(0, len(view), m.MAX_WRITE_BYTES))

    async def write_many(self, pieces: Any) -> None:
        """Append pieces of up to 1 MiB each from an iterable or async iterable, several at a time under way."""
        limiter = trio.CapacityLimiter(self._WINDOW)
        try:
            async with trio.open_nursery() as nursery, aclosing(_each(pieces)) as each:
                async for piece in each:
                    if not piece:
                        continue
                    token = object()
                    await limiter.acquire_on_behalf_of(token)
                    nursery.start_soon(self._write_then, bytes(piece), self.offset, limiter, token)
                    self.offset += len(piece)
                    await trio.lowlevel.checkpoint()  # its frame leaves before the next one is made
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def truncate(self) -> None:
        """Back to zero bytes."""
        await self._caller.call(t.INGESTS_TRUNCATE, m.TruncateIngest(self._handle), self._context)
        self.offset = 0

    async def commit(
        self, *, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None
    ) -> ContentInfo:
        """Make it a blob, durably. The writer ends, whatever comes of it.

        Raises AlreadyExists (it is here, and in the lease), FailedPrecondition (size or digest; bytes are
        kept), InvalidArgument, NotFound (aborted, or the lease).
        """
        self._open = False
        request = m.CommitIngest(self._handle, size, expected, dict(labels or {}))
        result: ContentInfo = await self._caller.call(t.INGESTS_COMMIT, request, self._context)
        return result

    async def close(self) -> None:
        """Free the ref and keep the bytes. Idempotent. Cancellation: shielded for up to 10 s."""
        if self._open:
            self._open = False
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await self._caller.call(t.INGESTS_CLOSE, m.CloseIngest(self._handle), self._context)

    async def _write_then(self, data: bytes, offset: int, limiter: trio.CapacityLimiter, token: object) -> None:
        try:
            await self._caller.call(t.INGESTS_WRITE, m.WriteIngest(self._handle, offset, data), self._context)
        finally:
            limiter.release_on_behalf_of(token)

    async def _write_piece(self, data: bytes, offset: int) -> None:
        request = m.WriteIngest(self._handle, offset, data)
        written = await self._caller.call(t.INGESTS_WRITE, request, self._context)
        self.offset = written.offset


class Leases(_Resource):
    async def create(self, id: str = "", labels: Mapping[str, str] | None = None) -> Lease:  # noqa: A002
        """An empty id lets the store make one up. Raises AlreadyExists."""
        result: Lease = await self._call(t.LEASES_CREATE, m.CreateLease(id, dict(labels or {})))
        return result

    async def get(self, id: str) -> Lease:  # noqa: A002
        result: Lease = await self._call(t.LEASES_GET, m.GetLease(id))
        return result

    def list(self, filters: Sequence[str] = ()) -> AsyncIterator[Lease]:
        return self._pages(t.LEASES_LIST, m.ListLeases(list(filters), limit=m.PAGE_LIMIT_MAX))

    async def delete(self, id: str, *, sync: bool = False) -> None:  # noqa: A002
        """Raises NotFound. `sync`: wait until what only it held is gone."""
        await self._call(t.LEASES_DELETE, m.DeleteLease(id, sync))

    async def add(self, id: str, resource: LeaseResource) -> None:  # noqa: A002
        await self._call(t.LEASES_ADD, m.AddLeaseResource(id, resource))

    async def remove(self, id: str, resource: LeaseResource) -> None:  # noqa: A002
        await self._call(t.LEASES_REMOVE, m.DeleteLeaseResource(id, resource))

    def resources(self, id: str) -> AsyncIterator[LeaseResource]:  # noqa: A002
        return self._pages(t.LEASES_RESOURCES, m.ListLeaseResources(id, limit=m.PAGE_LIMIT_MAX))


class Events(_Resource):
    async def page(self, after: int = 0, limit: int = m.PAGE_LIMIT_DEFAULT) -> m.EventsPage:
        """Events after a sequence number (0: from the oldest kept). Raises OutOfRange when some are gone."""
        result: m.EventsPage = await self._call(t.EVENTS_LIST, m.ListEvents(after, limit))
        return result

    @asynccontextmanager
    async def subscribe(self, after: int | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        """`async with events.subscribe() as events: async for event in events`. All namespaces.

        From `after` on without gap or repeat, or from now on. Raises OutOfRange when some are gone.
        """
        request = m.SubscribeEvents(after)
        async with self._caller.stream(t.EVENTS_SUBSCRIBE, request, self._context) as stream:
            yield stream.__aiter__()


async def _each(pieces: Any) -> AsyncGenerator[bytes, None]:
    if hasattr(pieces, "aclose"):
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
    elif hasattr(pieces, "__aiter__"):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
