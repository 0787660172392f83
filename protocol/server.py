"""Serving a store over a stream of bytes: one reader and one writer task per connection.

The frames of one read are served together, until 2 ms or 256 KiB of answers; then the answers leave in one
write and the loop gets its turn. While the peer does not take its answers, nothing more is read from it. Unary
answers go before chunks of streams; chunks go round-robin, each stream within its receiver's credit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import trio

from .calls import decode_call
from .errors import (
    Canceled,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    OrlopError,
    ResourceExhausted,
    WireError,
    error_to_wire,
)
from .errors import NotImplemented as UnknownMethod
from .identifiers import check_request_namespace
from .messages import Context, Hello, Limits
from .methods import HELLO, METHODS, Access, Method
from .outbox import Budget, Outbox
from .service import Ordered, PointRead, Reply, Service, Stream, Submit, Task
from .version import PROTOCOL_VERSION
from .wire import (
    HELLO_FRAME_BYTES,
    MAX_FRAME_BYTES,
    Cancel,
    Credit,
    FrameReader,
    RemoteProtocolError,
    Request,
    encode_chunk,
    encode_closing,
    encode_error,
    encode_result,
)
from .world import Clock, Listener, Transport

__all__ = ["serve_connection", "serve_listener"]

log = structlog.get_logger("orlop.server")

_TIMED_READS = 16  # one of so many point reads
BATCH_NS = 2_000_000
HELLO_TIMEOUT_S = 30.0
FAREWELL_S = 1.0  # how long a peer has to take what it was answered, when its connection ends
MAX_CONNECTIONS = 1024
READS_AT_ONCE = 4


async def serve_listener(listener: Listener, service: Service, clock: Clock, budget: Budget | None = None) -> None:
    """Accept and serve connections until cancelled; each lives in this call's nursery."""
    budget = budget or Budget()
    slots = trio.Semaphore(MAX_CONNECTIONS)
    async with trio.open_nursery() as nursery:
        while True:
            await slots.acquire()
            try:
                transport = await listener.accept()
            except OSError as error:  # too many open files: others may close theirs
                slots.release()
                log.error("cannot accept", error=str(error))
                await trio.sleep(0.1)
                continue
            nursery.start_soon(_serve_one, transport, service, clock, budget, slots)


async def _serve_one(
    transport: Transport, service: Service, clock: Clock, budget: Budget, slots: trio.Semaphore
) -> None:
    try:
        await serve_connection(transport, service, clock, budget)
    finally:
        slots.release()


async def serve_connection(transport: Transport, service: Service, clock: Clock, budget: Budget) -> None:
    """Serve one peer until it goes. Whatever it breaks is its own connection."""
    connection = _Connection(transport, service, clock, budget)
    service.meter.connections += 1
    try:
        await connection.run()
    except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it went
    finally:
        service.meter.connections -= 1
        with trio.CancelScope(shield=True):  # closing a writer ends when the disk does
            await connection.close()


class _Call:
    """A call under way; the Answer of submitted ones. Its outcome becomes one frame."""

    __slots__ = (
        "_connection",
        "began_ns",
        "credit",
        "deadline",
        "done",
        "id",
        "meter",
        "method",
        "more_credit",
        "scope",
        "streaming",
        "withdrawn",
    )

    def __init__(
        self, connection: _Connection, frame_id: int, method: Method[Any, Any], context: Context, began_ns: int
    ) -> None:
        self._connection = connection
        self.id = frame_id
        self.method = method
        self.began_ns = began_ns
        self.meter = connection.meter.of(method.name)
        self.meter.under_way += 1
        self.deadline = float("inf")
        if context.timeout_ms is not None:
            self.deadline = trio.current_time() + max(0, context.timeout_ms) / 1000
        self.withdrawn = False
        self.done = False
        self.streaming = False
        self.scope: trio.CancelScope | None = None
        self.credit = context.credit
        self.more_credit: trio.Event | None = None

    def succeed(self, value: Any) -> None:
        self._finish(encode_result(self.id, value))

    def fail(self, error: BaseException) -> None:
        if isinstance(error, OrlopError):
            self.meter.failed(error)
        self._finish(encode_error(self.id, error_to_wire(error)))

    def _finish(self, frame: bytes) -> None:
        connection = self._connection
        connection.end_call(self)
        if self.streaming:
            connection.outbox.queue_chunk(frame)  # a stream's answer says that its chunks have come: it goes after them
        else:
            connection.outbox.answer(frame)
        connection.room.set()


class _Connection:
    def __init__(self, transport: Transport, service: Service, clock: Clock, budget: Budget) -> None:
        self._transport = transport
        self._service = service
        self.meter = service.meter
        self._clock = clock
        self._budget = budget
        self._limits: Limits = service.welcome().limits
        self._reader = FrameReader(HELLO_FRAME_BYTES)
        self._session = service.open_session()
        self._greeted = False
        self._broken = False
        self.calls: dict[int, _Call] = {}
        self._streams = 0
        self.outbox = Outbox(transport, self._count)
        self.room = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._counted = 0
        self._taken = 0
        self._reads = trio.Semaphore(READS_AT_ONCE)

    async def run(self) -> None:
        """Until the peer goes, breaks the protocol, or the server ends; what is answered by then is still sent."""
        writer = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._write_forever, writer)
            try:
                await self._read_forever()
            except RemoteProtocolError as error:
                self._broken = True
                self._say_goodbye(error)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL_S):
                    await self.outbox.sent()
                writer.cancel()
                nursery.cancel_scope.cancel()

    async def _write_forever(self, scope: trio.CancelScope) -> None:
        with scope:
            await self.outbox.run()

    async def close(self) -> None:
        for call in list(self.calls.values()):
            call.withdrawn = True
            if call.scope is not None:
                self.end_call(call)  # its task was cancelled; what was submitted still answers
        self._budget.used -= self._counted
        self._counted = 0
        self.outbox.drop()
        if self._greeted and not self._broken and not self.outbox.sending:
            # Nothing is half sent: the peer can be told what was not even read.
            try:
                self._transport.send_nowait(encode_closing(self._taken))
            except OSError:
                pass
        try:
            await self._session.close()
        finally:
            await self._transport.close()

    def end_call(self, call: _Call) -> None:
        """Its answer is known. Called once for every call, also when nobody is there to hear it."""
        call.done = True
        call.meter.under_way -= 1
        call.meter.seconds.add((self._clock.monotonic_ns() - call.began_ns) / 1e9)
        self.calls.pop(call.id, None)
        self._service.call_ended(call.method)

    # reading

    async def _read_forever(self) -> None:
        with trio.move_on_after(HELLO_TIMEOUT_S) as greeting:
            while not self._greeted:
                if not await self._read_once():
                    return
        if greeting.cancelled_caught:
            return
        while await self._read_once():
            pass

    async def _read_once(self) -> bool:
        data, descriptors = await self._transport.receive()
        for fd in descriptors:  # no method takes any
            self._close_descriptor(fd)
        if not data:
            return False
        self._reader.receive(data)
        self._count()
        if self._budget.exhausted() and self._reader.buffered:
            raise RemoteProtocolError("the server holds too many bytes of all its clients")
        began = self._clock.monotonic_ns()
        served = 0
        while (frame := self._reader.next_frame()) is not None:
            if type(frame) is Request:
                await self._serve(frame)
            elif type(frame) is Credit:
                self._grant(frame)
            elif type(frame) is Cancel:
                self._cancel(frame.id)
            else:
                raise RemoteProtocolError("a client sends requests, credits and cancellations only")
            served += 1
            late = served % 16 == 0 and self._clock.monotonic_ns() - began > BATCH_NS
            if late or self.outbox.behind():
                await self.outbox.flush()
                await trio.lowlevel.checkpoint()
                began = self._clock.monotonic_ns()
        await self.outbox.flush()
        return True

    async def _serve(self, frame: Request) -> None:
        self._taken += 1
        method = METHODS.get(frame.method)
        if method is None:
            self._refuse(frame.id, UnknownMethod(f"method {frame.method[:80]!r}"))
            return
        if len(frame.params) > self._limits.request_bytes and not method.large:
            raise RemoteProtocolError(f"{method.name}: a request of {len(frame.params)} bytes", frame.id)
        meter = self.meter.of(method.name)
        meter.calls += 1
        try:
            request, context = decode_call(method, frame.params)
            if method is HELLO or not self._greeted:
                self._greet(frame.id, method, request)
                return
            self._service.check_open()
            if method.namespaced:
                check_request_namespace(context.namespace)
            await self._dispatch(frame.id, method, request, context)
        except OrlopError as error:
            meter.failed(error)
            self._refuse(frame.id, error)

    async def _dispatch(self, frame_id: int, method: Method[Any, Any], request: Any, context: Context) -> None:
        route = self._service.routes[method]
        if type(route) is PointRead:
            timed = self._taken % _TIMED_READS == 0
            began = self._clock.monotonic_ns() if timed else 0
            try:
                # No wake-up of the writer: the end of this read sends it.
                self.outbox.answer_quietly(encode_result(frame_id, await route.run(request, context)))
                if timed:
                    self.meter.of(method.name).seconds.add((self._clock.monotonic_ns() - began) / 1e9)
            except OrlopError:
                raise
            except Exception as defect:  # noqa: BLE001 - a defect is an answer
                self._refuse(frame_id, _internal(method, defect))
            return
        if frame_id in self.calls:
            raise RemoteProtocolError(f"request id {frame_id} is in use")
        while len(self.calls) >= self._limits.requests_in_flight:
            await self.outbox.flush()
            self.room = trio.Event()
            await self.room.wait()
        call = _Call(self, frame_id, method, context, self._clock.monotonic_ns())
        self.calls[frame_id] = call
        self._service.call_began(method)
        if type(route) is Submit:
            try:
                route.submit(request, context, call)
            except trio.WouldBlock:
                await route.submit_later(request, context, call)
        elif type(route) is Ordered:
            try:
                await route.run(request, context, self._session, call)
            except OrlopError as error:
                call.fail(error)
        else:
            assert self._nursery is not None
            if isinstance(route, Stream):
                if self._streams >= self._limits.streams:
                    call.fail(ResourceExhausted(f"more than {self._limits.streams} streams on one connection"))
                    return
                self._streams += 1
                call.streaming = True
            assert isinstance(route, Task | Stream)
            self._nursery.start_soon(self._run_task, call, method, route, request, context)

    async def _run_task(
        self, call: _Call, method: Method[Any, Any], route: Task | Stream, request: Any, context: Context
    ) -> None:
        call.scope = trio.CancelScope(deadline=call.deadline)
        reply: Any = None
        error: OrlopError | None = None
        try:
            with call.scope:
                if call.withdrawn:
                    call.scope.cancel()
                if isinstance(route, Task) and method.access is Access.READ:
                    reply = await self._read_in_turn(route, request, context)
                elif isinstance(route, Task):
                    reply = await route.run(request, context, self._session)
                else:
                    reply = await route.run(request, context, self._session, self._emitter(call))
        except OrlopError as refused:
            error = refused
        except Exception as defect:  # noqa: BLE001 - a defect is an answer
            error = _internal(method, defect)
        finally:
            if isinstance(route, Stream):
                self._streams -= 1
        if error is None and call.scope.cancelled_caught:
            error = Canceled() if call.withdrawn else DeadlineExceeded()
        if error is not None:
            call.fail(error)
        elif isinstance(reply, Reply):
            self._answer_with_descriptor(call, reply)
        else:
            call.succeed(reply)

    async def _read_in_turn(self, route: Task, request: Any, context: Context) -> Any:
        """Lists and their like make large answers: few at a time, and none while the peer takes none."""
        async with self._reads:
            while self.outbox.behind() or self._budget.exhausted():
                if self.outbox.behind():
                    await self.outbox.caught_up()
                else:
                    await trio.sleep(0.05)  # others hold the bytes; they take or go
            reply = await route.run(request, context, self._session)
        self._count()
        return reply

    def _answer_with_descriptor(self, call: _Call, reply: Reply) -> None:
        if not self._transport.descriptors:
            self._close_descriptor(reply.descriptor)
            call.fail(FailedPrecondition("file descriptors only pass over unix sockets", hint="use content.read"))
            return
        self.end_call(call)
        self.outbox.answer(encode_result(call.id, reply.result), reply.descriptor)
        self.room.set()

    def _emitter(self, call: _Call) -> Callable[[object], Any]:
        async def emit(item: object) -> None:
            while call.credit <= 0:
                call.more_credit = trio.Event()
                await call.more_credit.wait()
            await self.outbox.room_for_chunk()
            call.credit -= 1
            self.outbox.queue_chunk(encode_chunk(call.id, item))
            await trio.lowlevel.checkpoint()

        return emit

    def _grant(self, credit: Credit) -> None:
        call = self.calls.get(credit.id)
        if call is not None:
            call.credit = min(call.credit + credit.count, 1024)
            if call.more_credit is not None:
                call.more_credit.set()

    def _cancel(self, frame_id: int) -> None:
        call = self.calls.get(frame_id)
        if call is not None:
            call.withdrawn = True
            if call.scope is not None:
                call.scope.cancel()

    def _greet(self, frame_id: int, method: Method[Any, Any], request: Any) -> None:
        if method is not HELLO:
            raise FailedPrecondition("the first call must be hello")
        assert isinstance(request, Hello)
        if PROTOCOL_VERSION not in request.protocols:
            raise FailedPrecondition(f"this server speaks protocol {PROTOCOL_VERSION}")
        welcome = self._service.welcome()
        if not self._transport.descriptors:
            capabilities = [name for name in welcome.capabilities if name != "descriptors"]
            welcome = msgspec.structs.replace(welcome, capabilities=capabilities)
        self._greeted = True
        self._reader.limit = MAX_FRAME_BYTES
        self.outbox.answer(encode_result(frame_id, welcome))

    def _refuse(self, frame_id: int, error: BaseException) -> None:
        self.outbox.answer(encode_error(frame_id, error_to_wire(error)))

    def _count(self) -> None:
        """What this connection holds, for the budget of all."""
        held = self._reader.buffered + self.outbox.held
        self._budget.used += held - self._counted
        self._counted = held

    def _close_descriptor(self, fd: int) -> None:
        self._transport.close_descriptor(fd)

    def _say_goodbye(self, error: RemoteProtocolError) -> None:
        """Answer the request whose frame cannot be taken, if its id is known; then the connection ends."""
        log.info("a client broke the protocol", error=str(error))
        if error.frame_id is not None:
            self._refuse(error.frame_id, InvalidArgument(str(error)))
        else:
            self.outbox.answer(encode_error(0, WireError("InvalidArgument", f"{error}: invalid argument")))


def _internal(method: Method[Any, Any], defect: Exception) -> OrlopError:
    log.error("a handler failed", method=method.name, exc_info=defect)
    return Internal(f"{method.name}: {type(defect).__name__}")
