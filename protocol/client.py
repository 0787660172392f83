"""The client of a store behind a socket: the same typed interface as the store in process.

One task reads. A call appends its frame and either sends at once, when it is the only one under way, or leaves
it to the writer task, which gathers what all tasks of this step of the loop have to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import trio

from .api import BlobReader, Store
from .calls import encode_call
from .errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    OrlopError,
    Unavailable,
    Unknown,
    error_from_wire,
)
from .messages import (
    CloseContent,
    CloseIngest,
    Context,
    Hello,
    OpenContent,
    OpenedContent,
    OpenedIngest,
    ReadContent,
    Welcome,
)
from .methods import (
    CONTENT_CLOSE,
    CONTENT_OPEN,
    CONTENT_READ,
    HELLO,
    INGESTS_CLOSE,
    INGESTS_OPEN,
    METHODS,
    Access,
    Method,
)
from .version import PROTOCOL_VERSION, __version__
from .wire import (
    MAX_RESPONSE_BYTES,
    Chunk,
    Closing,
    FrameReader,
    RemoteProtocolError,
    Response,
    encode_cancel,
    encode_credit,
)
from .world import Address, Transport, Work, World

__all__ = ["Client", "connect_store"]

Q = TypeVar("Q", bound=msgspec.Struct)
CONNECT_TIMEOUT_S = 10.0
CREDIT = 16

_RESPONSES = {name: msgspec.msgpack.Decoder(method.response) for name, method in METHODS.items()}
_ITEMS = {name: msgspec.msgpack.Decoder(method.item) for name, method in METHODS.items() if method.item}


class _Pending:
    """A call that waits for its answer; streams also gather chunks."""

    __slots__ = ("chunks", "descriptor", "error", "method", "news", "ordinal", "response", "unwanted")

    def __init__(self, method: Method[Any, Any]) -> None:
        self.method = method
        self.response: Response | None = None
        self.error: OrlopError | None = None
        self.chunks: deque[msgspec.Raw] = deque()
        self.news = trio.Event()
        self.descriptor = -1
        self.ordinal = 0
        self.unwanted = False  # nobody waits any more: what the answer opens must be closed


class Client:
    """One connection. Use `orlop.connect`, which also runs its tasks."""

    def __init__(self, transport: Transport, world: World) -> None:
        self._transport = transport
        self._world = world
        self._reader = FrameReader(MAX_RESPONSE_BYTES)
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1
        self._asked = 0
        self._out: list[bytes] = []
        self._wake = trio.Event()
        self._sending = False
        self._descriptors: deque[int] = deque()
        self._gone: OrlopError | None = None
        self._welcome: Welcome | None = None
        self._slots = trio.Semaphore(512)

    def welcome(self) -> Welcome:
        assert self._welcome is not None
        return self._welcome

    async def run(self) -> None:
        """Read and write until the peer goes; then every call under way fails."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_forever)
                await self._read_forever()
                nursery.cancel_scope.cancel()
        except* (OSError, trio.ClosedResourceError, trio.BrokenResourceError, RemoteProtocolError) as group:
            self._lose(f"the connection broke: {group.exceptions[0]}")
        finally:
            self._lose("the server closed the connection")

    async def greet(self) -> None:
        hello = Hello([PROTOCOL_VERSION], f"orlop/{__version__}")
        self._welcome = await self.call(HELLO, hello, Context())
        # As many as the server takes, less a few for credits and cancellations of its own accord.
        self._slots = trio.Semaphore(max(1, self._welcome.limits.requests_in_flight - 8))

    async def call(self, method: Method[Q, Any], request: Q, context: Context) -> Any:
        """Raises what the server raised; Unavailable or Unknown when the connection went first.

        Cancellation: the server is told; a write may or may not have happened.
        """
        answer = (await self._ask(method, request, context)).response
        assert answer is not None
        if answer.error is not None:
            raise error_from_wire(answer.error)
        return _decode(_RESPONSES[method.name], answer.result, method)

    async def call_many(
        self, method: Method[Q, Any], requests: Sequence[Q], context: Context
    ) -> list[Any | OrlopError]:
        """Many calls in flight from one task: results, or errors, in the order of the requests.

        For reading thousands of records: no task per call is made. Cancellation: like `call`.
        """
        results: list[Any | OrlopError] = []
        window: deque[tuple[int, _Pending]] = deque()
        try:
            for request in requests:
                if len(window) >= 128:
                    results.append(await self._collect(window[0][1]))
                    window.popleft()
                window.append(self._send_request(method, request, context))
            while window:
                results.append(await self._collect(window[0][1]))
                window.popleft()
        finally:
            for frame_id, pending in window:
                self._abandon(frame_id, pending)
        return results

    @asynccontextmanager
    async def stream(self, method: Method[Q, Any], request: Q, context: Context) -> AsyncIterator[_Chunks]:
        context = msgspec.structs.replace(context, credit=CREDIT)
        await self._slots.acquire()
        try:
            frame_id, pending = self._send_request(method, request, context)
            try:
                yield _Chunks(self, frame_id, pending)
            finally:
                self._abandon(frame_id, pending)
        finally:
            self._slots.release()

    @asynccontextmanager
    async def open_blob(self, digest: str, context: Context) -> AsyncIterator[BlobReader]:
        passing = "descriptors" in self.welcome().capabilities
        pending = await self._ask(CONTENT_OPEN, OpenContent(digest, passing), context)
        assert pending.response is not None
        if pending.response.error is not None:
            raise error_from_wire(pending.response.error)
        opened: OpenedContent = _decode(_RESPONSES[CONTENT_OPEN.name], pending.response.result, CONTENT_OPEN)
        if opened.descriptor:
            if pending.descriptor < 0:
                raise FailedPrecondition("the server's file descriptor did not arrive")
            try:
                yield _LocalBlob(self._world, pending.descriptor, opened.size)
            finally:
                self._world.files.close(pending.descriptor)
        elif opened.reader:
            try:
                yield _StreamedBlob(self, opened.reader, opened.size, context)
            finally:
                self._tell(CONTENT_CLOSE, CloseContent(opened.reader), context)
        else:
            yield _HeldBlob(opened.data or b"")

    def close_descriptors(self) -> None:
        while self._descriptors:
            self._transport.close_descriptor(self._descriptors.popleft())

    # sending

    async def _ask(self, method: Method[Any, Any], request: Any, context: Context) -> _Pending:
        if self._slots.value and self._gone is None:  # what is cancelled with its connection hears of the cancellation
            self._slots.acquire_nowait()
        else:
            await self._slots.acquire()
        try:
            frame_id, pending = self._send_request(method, request, context)
            try:
                if context.timeout_ms is None:
                    await self._wait(pending)
                else:
                    # The server's own deadline is the better answer; ours is for one that does not answer.
                    with trio.move_on_after(context.timeout_ms / 1000 + 1) as late:
                        await self._wait(pending)
                    if late.cancelled_caught:
                        raise DeadlineExceeded(method.name)
            except BaseException:
                self._abandon(frame_id, pending)
                raise
        finally:
            self._slots.release()
        return pending

    def _send_request(self, method: Method[Any, Any], request: Any, context: Context) -> tuple[int, _Pending]:
        """Queue a frame; never waits, so frames leave in the order of the calls."""
        if self._gone is not None:
            raise self._gone
        frame_id = self._next_id
        self._next_id = frame_id + 1 if frame_id < 2**32 - 1 else 1
        pending = _Pending(method)
        frame = encode_call(frame_id, method, request, context)
        if not self._pending and not self._out and not self._sending:
            try:
                frame = frame[self._transport.send_nowait(frame) :]
            except OSError as error:  # what came before may still be answered: the reader finds the end
                raise Unavailable(f"{method.name}: the connection broke: {error}") from error
        self._asked += 1
        pending.ordinal = self._asked
        self._pending[frame_id] = pending
        if frame:
            self._post(frame)
        return frame_id, pending

    def _post(self, frame: bytes) -> None:
        self._out.append(frame)
        self._wake.set()

    async def _wait(self, pending: _Pending) -> None:
        while pending.response is None:
            if pending.error is not None:
                await trio.lowlevel.checkpoint()
                raise pending.error
            await pending.news.wait()

    async def _collect(self, pending: _Pending) -> Any | OrlopError:
        await self._wait(pending)
        assert pending.response is not None
        if pending.response.error is not None:
            return error_from_wire(pending.response.error)
        return _decode(_RESPONSES[pending.method.name], pending.response.result, pending.method)

    def _abandon(self, frame_id: int, pending: _Pending) -> None:
        """Nobody waits any more: cancel what has not come, and close what an answer opened."""
        if pending.response is not None:
            self._close_unwanted(pending, pending.response)
        elif pending.error is None:
            pending.unwanted = True
            if self._gone is None:
                self._post(encode_cancel(frame_id))

    def _tell(self, method: Method[Any, Any], request: Any, context: Context) -> None:
        """Send a request whose answer nobody waits for."""
        if self._gone is None:
            _, pending = self._send_request(method, request, context)
            pending.unwanted = True

    async def _write_forever(self) -> None:
        """Until the server takes nothing more. What it took is still answered: the reader finds the end."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._out:
                out, self._out = self._out, []
                self._sending = True
                try:
                    await self._transport.send(b"".join(out) if len(out) > 1 else out[0])
                except OSError:
                    return
                self._sending = False

    # receiving

    async def _read_forever(self) -> None:
        while True:
            data, descriptors = await self._transport.receive()
            self._descriptors.extend(descriptors)
            if not data:
                return
            self._reader.receive(data)
            while (frame := self._reader.next_frame()) is not None:
                self._handle(frame)

    def _handle(self, frame: object) -> None:
        if isinstance(frame, Response):
            pending = self._pending.pop(frame.id, None)
            if pending is None:
                return
            pending.response = frame
            if pending.method is CONTENT_OPEN and frame.error is None:
                # Descriptors come in the order of the answers that bring them.
                opened: OpenedContent = _decode(_RESPONSES[CONTENT_OPEN.name], frame.result, CONTENT_OPEN)
                if opened.descriptor and self._descriptors:
                    pending.descriptor = self._descriptors.popleft()
            if pending.unwanted:
                self._close_unwanted(pending, frame)
            pending.news.set()
        elif isinstance(frame, Closing):
            self._closing(frame.taken)
        elif isinstance(frame, Chunk):
            pending = self._pending.get(frame.id)
            if pending is not None:
                pending.chunks.append(frame.data)
                pending.news.set()
        else:
            raise RemoteProtocolError("a server sends responses, chunks and its farewell only")

    def _close_unwanted(self, pending: _Pending, frame: Response) -> None:
        """The caller was cancelled while the answer was on its way."""
        if frame.error is not None:
            return
        if pending.descriptor >= 0:
            self._transport.close_descriptor(pending.descriptor)
        elif pending.method is CONTENT_OPEN:
            content: OpenedContent = _decode(_RESPONSES[CONTENT_OPEN.name], frame.result, CONTENT_OPEN)
            if content.reader:
                self._tell(CONTENT_CLOSE, CloseContent(content.reader), Context())
        elif pending.method is INGESTS_OPEN:
            ingest: OpenedIngest = _decode(_RESPONSES[INGESTS_OPEN.name], frame.result, INGESTS_OPEN)
            self._tell(INGESTS_CLOSE, CloseIngest(ingest.writer), Context())

    def _closing(self, taken: int) -> None:
        """The server ends; what it had not read is certainly not done."""
        for frame_id, pending in list(self._pending.items()):
            if pending.ordinal > taken:
                del self._pending[frame_id]
                pending.error = Unavailable(f"{pending.method.name}: the server is closing")
                pending.news.set()

    def _lose(self, why: str) -> None:
        if self._gone is not None:
            return
        self._gone = Unavailable(why)
        for pending in self._pending.values():
            write = pending.method.access is Access.WRITE
            pending.error = Unknown(f"{pending.method.name}: {why}") if write else Unavailable(why)
            pending.news.set()
        self._pending.clear()


class _Chunks:
    """A stream's items; `result` is its answer once the iteration has ended."""

    def __init__(self, client: Client, frame_id: int, pending: _Pending) -> None:
        self._client = client
        self._id = frame_id
        self._pending = pending
        self._owed = 0
        self.result: Any = None

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> Any:
        pending = self._pending
        while not pending.chunks:
            if pending.response is not None:
                if pending.response.error is not None:
                    raise error_from_wire(pending.response.error)
                self.result = _decode(_RESPONSES[pending.method.name], pending.response.result, pending.method)
                raise StopAsyncIteration
            if pending.error is not None:
                raise pending.error
            pending.news = trio.Event()
            await pending.news.wait()
        raw = pending.chunks.popleft()
        self._owed += 1
        if self._owed >= CREDIT // 2 and pending.response is None:
            self._client._post(encode_credit(self._id, self._owed))
            self._owed = 0
        return _decode(_ITEMS[pending.method.name], raw, pending.method)


class _LocalBlob:
    """A blob read through its own file descriptor: what the page cache costs, and nothing more."""

    def __init__(self, world: World, fd: int, size: int) -> None:
        self._world = world
        self._fd = fd
        self.size = size

    def fileno(self) -> int | None:
        return self._fd

    async def read_at(self, offset: int, count: int) -> bytes:
        count = min(count, max(0, self.size - offset))
        try:
            return await self._world.workers.run(Work.BYTES, self._world.files.pread, self._fd, count, offset)
        except OSError as error:
            raise Unavailable(f"reading {count} bytes at {offset}: {error.strerror}") from error


class _HeldBlob:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def fileno(self) -> int | None:
        return None

    async def read_at(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._data[offset : offset + count]


class _StreamedBlob:
    """A blob read over a stream, where descriptors do not pass."""

    def __init__(self, client: Client, reader: int, size: int, context: Context) -> None:
        self._client = client
        self._reader = reader
        self._context = context
        self.size = size

    def fileno(self) -> int | None:
        return None

    async def read_at(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        if count <= 0:
            await trio.lowlevel.checkpoint()
            return b""
        data = bytearray()
        request = ReadContent(offset=offset, length=count, reader=self._reader)
        async with self._client.stream(CONTENT_READ, request, self._context) as chunks:
            async for chunk in chunks:
                data += chunk
        return bytes(data)


@asynccontextmanager
async def connect_store(address: Address, world: World, namespace: str) -> AsyncIterator[Store]:
    """A store behind a socket, for the length of the block. Raises Unavailable when nobody answers there."""
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            transport = await world.network.connect(address)
    except (OSError, trio.TooSlowError) as error:
        raise Unavailable(f"no server answers at {address}", hint="is orlopd running there?") from error
    client = Client(transport, world)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            try:
                with trio.move_on_after(CONNECT_TIMEOUT_S) as patience:
                    await client.greet()
                if patience.cancelled_caught:
                    raise Unavailable(f"nobody answers at {address} within {CONNECT_TIMEOUT_S:g} s")
                yield Store(client, Context(namespace=namespace))
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The body's own exception leaves as itself; ours never leave `client.run`.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    finally:
        client.close_descriptors()
        with trio.CancelScope(shield=True):  # closing a socket does not wait
            await transport.close()


def _decode(decoder: msgspec.msgpack.Decoder[Any], raw: msgspec.Raw, method: Method[Any, Any]) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise DataLoss(f"{method.name}: the server's answer cannot be read: {error}") from None
