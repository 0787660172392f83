"""Blobs and the ingests that make them, as a caller sees them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import trio

from .. import messages as m
from .. import methods as t
from ..errors import AlreadyExists, DataLoss, FailedPrecondition, NotFound, Unavailable
from ..messages import Context
from ..records import ContentInfo, IngestStatus
from .caller import BlobReader, Caller
from .resources import Resource

__all__ = ["Content", "IngestWriter"]

_RETRY_S = 0.016
_RETRY_MOST_S = 5.0


class Content(Resource):
    def info(self, digest: str) -> Awaitable[ContentInfo]:
        """Raises NotFound when this namespace does not have it."""
        return self._call(t.CONTENT_INFO, m.GetContent(digest))

    def list(self, filters: Sequence[str] = (), *, fields: Sequence[str] = ()) -> AsyncIterator[ContentInfo]:
        """See Images.list."""
        return self._pages(t.CONTENT_LIST, m.ListContent(list(filters), "", m.PAGE_LIMIT_MAX, list(fields)))

    def stream(
        self, filters: Sequence[str] = (), *, fields: Sequence[str] = (), after: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[ContentInfo]]:
        """See Images.stream."""
        return self._streamed(t.CONTENT_STREAM, m.ListContent(list(filters), after, m.PAGE_LIMIT_MAX, list(fields)))

    def update(
        self, digest: str, labels: Mapping[str, str], mask: Sequence[str] | None = None
    ) -> Awaitable[ContentInfo]:
        """Only labels can change. Raises NotFound, InvalidArgument."""
        request = m.UpdateContent(digest, dict(labels), None if mask is None else list(mask))
        return self._call(t.CONTENT_UPDATE, request)

    def delete(self, digest: str) -> Awaitable[None]:
        """Take this namespace's record away, whoever refers to it. Open readers go on. Raises NotFound."""
        return self._call(t.CONTENT_DELETE, m.DeleteContent(digest))

    def put(
        self,
        data: bytes,
        *,
        expected: str = "",
        media_type: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Awaitable[ContentInfo]:
        """A blob of up to 16 KiB in one call. Raises AlreadyExists, FailedPrecondition (digest)."""
        return self._call(t.CONTENT_PUT, m.PutContent(data, expected, media_type, dict(labels or {})))

    async def has(self, digest: str) -> bool:
        """Whether this namespace has it."""
        try:
            await self.info(digest)
        except NotFound:
            return False
        return True

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
    async def chunks(self, digest: str, *, verify: bool = False) -> AsyncIterator[AsyncIterator[bytes]]:
        """`async with content.chunks(digest) as pieces: async for piece in pieces`: a whole blob as a stream.

        `verify`: the store hashes the bytes on their way, and wrong ones end in DataLoss before the last piece
        has come. Raises NotFound, DataLoss.
        """
        request = m.ReadContent(digest, verify=verify)
        async with self._caller.stream(t.CONTENT_READ, request, self._context) as stream:
            yield stream.__aiter__()

    async def verify(
        self,
        digests: Sequence[str] = (),
        *,
        bytes_per_s: int | None = None,
        progress: Callable[[m.VerifyProgress], None] | None = None,
    ) -> m.Verified:
        """Hash blobs of this namespace again (none named: all of them), and mark what is damaged: reads then raise
        DataLoss until a new ingest or a pull brings fresh bytes. `progress` also tells the outcome of each.

        Raises InvalidArgument.
        """
        request = m.VerifyContent(list(digests), bytes_per_s)
        async with self._caller.stream(t.CONTENT_VERIFY, request, self._context) as stream:
            async for step in stream:
                if progress is not None:
                    progress(step)
            result: m.Verified = stream.result
        return result

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

    async def write(
        self,
        ref: str,
        data: Any,
        *,
        size: int = 0,
        expected: str = "",
        media_type: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> ContentInfo:
        """Bring a blob, whatever is here already: another writer of the ref is waited for, what an earlier attempt
        left is gone on from, and content that is here is as good as written.

        `data`: all of its bytes, or pieces of them from an iterable or async iterable. `expected`, where it is
        known, saves the bytes that are here. Raises FailedPrecondition (size, digest; the bytes are thrown away, so
        that the next attempt begins afresh), AlreadyExists (only without `expected`), and what writing raises.
        Cancellation: what came is kept for the next attempt. Durability: with the return.
        """
        try:
            async with AsyncExitStack() as stack:
                writer = await self._opened(stack, ref, size, expected, media_type)
                try:
                    await writer.write_many(_after(_pieces(data), writer.offset))
                    return await writer.commit(size=size, expected=expected, labels=labels)
                except FailedPrecondition:
                    await writer.close()
                    await self.abort(ref)
                    raise
        except AlreadyExists:
            if not expected:
                raise
            return await self.info(expected)

    async def _opened(self, stack: AsyncExitStack, ref: str, size: int, expected: str, media_type: str) -> IngestWriter:
        """A writer, once others have let go of the ref."""
        pause = _RETRY_S
        while True:
            try:
                opening = self.ingest(ref, size=size, expected=expected, media_type=media_type)
                return await stack.enter_async_context(opening)
            except Unavailable:
                if pause > _RETRY_MOST_S:
                    raise
            await trio.sleep(pause)
            pause *= 2

    def status(self, ref: str) -> Awaitable[IngestStatus]:
        """Raises NotFound."""
        return self._call(t.INGESTS_GET, m.GetIngest(ref))

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
        self.handle = opened.writer
        """Names this writer on its connection."""
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

    async def truncate(self, size: int = 0) -> None:
        """Back to zero bytes; an ingest that adopts shared bytes may also keep the first `size` of them.

        Raises InvalidArgument.
        """
        request = m.TruncateIngest(self.handle, size)
        written: m.WrittenIngest = await self._caller.call(t.INGESTS_TRUNCATE, request, self._context)
        self.offset = written.offset

    async def commit(
        self, *, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None
    ) -> ContentInfo:
        """Make it a blob, durably. The writer ends, whatever comes of it.

        Raises AlreadyExists (it is here, and in the lease), FailedPrecondition (size or digest; bytes are
        kept), InvalidArgument, NotFound (aborted, or the lease).
        """
        self._open = False
        request = m.CommitIngest(self.handle, size, expected, dict(labels or {}))
        result: ContentInfo = await self._caller.call(t.INGESTS_COMMIT, request, self._context)
        return result

    async def close(self) -> None:
        """Free the ref and keep the bytes. Idempotent. Cancellation: shielded for up to 10 s."""
        if self._open:
            self._open = False
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                try:
                    await self._caller.call(t.INGESTS_CLOSE, m.CloseIngest(self.handle), self._context)
                except FailedPrecondition:  # a transaction that failed has ended it
                    pass

    def ended(self) -> None:
        """A transaction has committed it: there is nothing to close."""
        self._open = False

    async def _write_then(self, data: bytes, offset: int, limiter: trio.CapacityLimiter, token: object) -> None:
        try:
            await self._caller.call(t.INGESTS_WRITE, m.WriteIngest(self.handle, offset, data), self._context)
        finally:
            limiter.release_on_behalf_of(token)

    async def _write_piece(self, data: bytes, offset: int) -> None:
        request = m.WriteIngest(self.handle, offset, data)
        written = await self._caller.call(t.INGESTS_WRITE, request, self._context)
        self.offset = written.offset


def _pieces(data: Any) -> Any:
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data).cast("B")
        return (bytes(view[at : at + m.MAX_WRITE_BYTES]) for at in range(0, len(view), m.MAX_WRITE_BYTES))
    return data


async def _after(pieces: Any, offset: int) -> AsyncGenerator[bytes, None]:
    """The pieces without their first `offset` bytes."""
    async with aclosing(_each(pieces)) as each:
        async for piece in each:
            if offset < len(piece):
                yield piece[offset:]
            offset = max(0, offset - len(piece))


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
