"""The store in this process as a Caller: the same routes that the server uses, without bytes in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import trio

from ..protocol.api import BlobReader
from ..protocol.calls import check_call
from ..protocol.errors import DeadlineExceeded, OrlopError
from ..protocol.identifiers import check_request_namespace
from ..protocol.messages import Context, Welcome
from ..protocol.methods import Method
from ..protocol.service import Ordered, PointRead, Reply, Stream, Submit, Task
from ..protocol.world import Clock
from .listing import RawPage
from .promise import Promise
from .service import StoreService, StoreSession

__all__ = ["LocalCaller"]

Q = TypeVar("Q", bound=msgspec.Struct)


class LocalCaller:
    """Calls into a running store. It has one session: its writers are freed when the store closes."""

    def __init__(self, service: StoreService, session: StoreSession, clock: Clock) -> None:
        self._service = service
        self._session = session
        self._clock = clock

    def welcome(self) -> Welcome:
        return self._service.welcome()

    async def call(self, method: Method[Q, Any], request: Q, context: Context) -> Any:
        meter = self._service.meter.of(method.name)
        meter.calls += 1
        meter.under_way += 1
        began_ns = self._clock.monotonic_ns()
        try:
            route, request, context = self._enter(method, request, context)
            if context.timeout_ms is None:
                result = await self._run(route, request, context)
            else:
                with trio.move_on_after(context.timeout_ms / 1000) as deadline:
                    result = await self._run(route, request, context)
                if deadline.cancelled_caught:
                    raise DeadlineExceeded(method.name)
        except OrlopError as error:
            meter.failed(error)
            raise
        finally:
            meter.under_way -= 1
            meter.seconds.add((self._clock.monotonic_ns() - began_ns) / 1e9)
        return _typed(method, result)

    @asynccontextmanager
    async def stream(self, method: Method[Q, Any], request: Q, context: Context) -> AsyncIterator[_LocalStream]:
        route, request, context = self._enter(method, request, context)
        assert isinstance(route, Stream)
        send, receive = trio.open_memory_channel[Any](0)
        stream = _LocalStream(method, receive)

        meter = self._service.meter.of(method.name)
        meter.calls += 1

        async def produce() -> None:
            meter.under_way += 1
            async with send:
                try:
                    stream.result = _typed(method, await route.run(request, context, self._session, send.send))
                except Exception as error:  # noqa: BLE001 - raised where the stream is read
                    stream.error = error
                    if isinstance(error, OrlopError):
                        meter.failed(error)
                finally:
                    meter.under_way -= 1

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(produce)
                try:
                    yield stream
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None  # the body's own exception leaves as itself
            raise

    @asynccontextmanager
    async def open_blob(self, digest: str, context: Context) -> AsyncIterator[BlobReader]:
        self._service.check_open()
        check_request_namespace(context.namespace)
        async with self._service.reading(digest, context) as (size, read):
            yield _LocalBlob(size, read)

    def _enter(self, method: Method[Any, Any], request: Any, context: Context) -> tuple[Any, Any, Context]:
        """The route of a call, and its arguments as they would be had they come over a socket."""
        request, context = check_call(method, request, context)
        self._service.check_open()
        if method.namespaced:
            check_request_namespace(context.namespace)
        return self._service.routes[method], request, context

    async def _run(self, route: Any, request: Any, context: Context) -> Any:
        if isinstance(route, PointRead):
            await trio.lowlevel.checkpoint()
            return await route.run(request, context)
        if isinstance(route, Task):
            return await route.run(request, context, self._session)
        promise: Promise[Any] = Promise()
        if isinstance(route, Submit):
            try:
                route.submit(request, context, promise)
            except trio.WouldBlock:
                await route.submit_later(request, context, promise)
        else:
            assert isinstance(route, Ordered)
            await route.run(request, context, self._session, promise)
        return await promise.wait()


class _LocalStream:
    def __init__(self, method: Method[Any, Any], receive: trio.MemoryReceiveChannel[Any]) -> None:
        self._decoder = msgspec.msgpack.Decoder(method.item)
        self._receive = receive
        self.result: Any = None
        self.error: Exception | None = None

    def __aiter__(self) -> _LocalStream:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await self._receive.receive()
        except trio.EndOfChannel:
            if self.error is not None:
                raise self.error from None
            raise StopAsyncIteration from None
        return self._decoder.decode(item) if isinstance(item, msgspec.Raw) else item


class _LocalBlob:
    def __init__(self, size: int, read: Any) -> None:
        self.size = size
        self._read = read

    def fileno(self) -> int | None:
        return None

    async def read_at(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        if count <= 0:
            await trio.lowlevel.checkpoint()
            return b""
        data: bytes = await self._read(offset, count)
        return data


def _typed(method: Method[Any, Any], result: Any) -> Any:
    """Stored bytes become records; pages of stored bytes become pages of records."""
    assert not isinstance(result, Reply)
    if isinstance(result, msgspec.Raw):
        return msgspec.msgpack.decode(result, type=method.response)
    if isinstance(result, RawPage):
        return msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=method.response)
    return result
