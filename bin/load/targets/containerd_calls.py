"""gRPC calls that trio tasks wait for. Needs grpcio.

grpcio answers in threads of its own; what is here brings its answers into trio. Measured for a call with one answer
(Version of a containerd beside it, two busy cores), in calls per second and microseconds of the client's processor
time for each, at depth 1 and at depth 32:

    grpc.aio over trio-asyncio          1,700/s  430 us     2,600/s  280 us
    blocking, in trio's threads         2,100/s  380 us     3,700/s  330 us
    a future whose callback wakes us    1,400/s  470 us     6,200/s  145 us
    the same, with a stream held open   2,650/s  310 us     7,100/s  130 us

The last is used. Held open, as grpcio's thread for a channel ends with the channel's last call, and at depth 1 that was
one thread for each call. For a stream grpcio has no callback at each message: one of trio's threads reads it, without
grpcio's thread between, which halves what it costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import grpc
import grpc.experimental
import outcome
import trio

from ....protocol.errors import CLASSES, DeadlineExceeded, OrlopError, Unavailable, Unknown, WireError, error_from_wire
from .containerd_messages import VERSION, WATCH_HEALTH, Method

__all__ = ["Calls", "error_of_status", "open_calls", "pass_over"]

T = TypeVar("T")

_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024  # containerd's own limit, both ways
_CONNECT_S: Final = 10.0  # a containerd that starts opens its socket before it answers
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process share one connection
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A server that was killed and started is found soon: by itself gRPC waits a second, and then up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
)
_CODES: Final = {kind.code_number: kind.code for kind in CLASSES}
_NOT_SENT: Final = "failed to connect to all addresses"
_UNSURE: Final = ("Unavailable", "Internal", "Canceled")
"""What gRPC itself says when a connection breaks, a stream is reset, or the server stops in the middle."""


@asynccontextmanager
async def open_calls(path: str, *, timeout_s: float = _CONNECT_S) -> AsyncIterator[Calls]:
    """One connection to a UNIX socket, for the length of the block. Raises Unavailable: nobody answers in time."""
    calls = Calls(grpc.insecure_channel(f"unix:{path}", options=_OPTIONS))
    try:
        try:
            await calls.ask(VERSION, {}, timeout_s=timeout_s)
        except DeadlineExceeded:
            raise Unavailable(f"{path} does not answer in {timeout_s} s") from None
        calls.hold()
        yield calls
    finally:
        calls.close()


class Calls:
    """A channel. `open_calls` makes one. Errors are OrlopError: what the server says, Unavailable (certainly not done;
    for what only reads, also a broken connection), Unknown (the connection broke under a write)."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._ways: dict[tuple[str, object], Any] = {}
        self._held: Any = None
        self._closed = False

    async def ask(
        self,
        method: Method,
        request: Mapping[str, object],
        *,
        namespace: str = "",
        lease: str = "",
        timeout_s: float | None = None,
    ) -> Any:
        """The answer. Cancellation: the call is cancelled; it may have been done."""
        await trio.lowlevel.checkpoint_if_cancelled()
        way = self._way(method, self._channel.unary_unary)
        metadata = _metadata(namespace, lease)
        call = way.future(method.request(**request), metadata=metadata, timeout=timeout_s)
        await _ended(call)
        if call.code() is grpc.StatusCode.OK:
            return call.result()
        raise _error_of(call, method)

    async def stream(
        self,
        method: Method,
        request: Mapping[str, object],
        take: Callable[[Iterator[Any]], T],
        *,
        namespace: str,
        lease: str = "",
    ) -> T:
        """What `take`, in a thread, makes of all answers to one request.

        Cancellation: the call is cancelled, and waited for; it may have been done.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        way = self._way(method, self._channel.unary_stream)
        call = way(method.request(**request), metadata=_metadata(namespace, lease))
        return await _taken(call, method, lambda answers: _drained(answers, take))

    async def converse(
        self,
        method: Method,
        requests: Iterable[Mapping[str, object]],
        take: Callable[[Iterator[Any]], T],
        *,
        namespace: str,
        lease: str = "",
    ) -> T:
        """The same for many requests, which are iterated in another thread, as fast as the server reads them."""
        await trio.lowlevel.checkpoint_if_cancelled()
        way = self._way(method, self._channel.stream_stream)
        messages = (method.request(**request) for request in requests)
        return await _taken(way(messages, metadata=_metadata(namespace, lease)), method, take)

    def hold(self) -> None:
        """Keep grpcio's thread for this channel, by a call that has no end. It costs the server nothing."""
        watch = self._way(WATCH_HEALTH, self._channel.stream_stream)  # the other kinds of streams have no such thread
        self._held = watch(iter([WATCH_HEALTH.request()]), wait_for_ready=True)
        self._held.add_done_callback(self._hold_again)

    def _hold_again(self, call: Any) -> None:
        """In grpcio's thread, when the connection broke: wait for the next one."""
        if not self._closed and call.code() is grpc.StatusCode.UNAVAILABLE:
            try:
                self.hold()
            except ValueError:
                pass  # closed meanwhile

    def close(self) -> None:
        """Cancels whatever still waits."""
        self._closed = True
        self._channel.close()

    def _way(self, method: Method, kind: Callable[..., Any]) -> Any:
        found = self._ways.get((method.path, kind))
        if found is None:
            found = self._ways[method.path, kind] = kind(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return found


def pass_over(answers: Iterable[object]) -> None:
    """Until they end."""
    deque(answers, maxlen=0)


def error_of_status(number: int, text: str, *, writes: bool) -> OrlopError:
    """The error for a status that is not OK. `writes`: it matters whether it was done."""
    error = error_from_wire(WireError(_CODES.get(number, Unknown.code), text))
    if error.code not in _UNSURE or text.endswith(f": {Unavailable.class_text}"):  # containerd's own, of a locked ref
        return error
    if text.startswith(_NOT_SENT) or not writes:
        return Unavailable(text=text)
    return Unknown(text=text)


def _error_of(call: Any, method: Method) -> OrlopError:
    number, _ = call.code().value
    return error_of_status(number, call.details() or "", writes=method.writes)


def _metadata(namespace: str, lease: str) -> tuple[tuple[str, str], ...]:
    named = (("containerd-namespace", namespace),) if namespace else ()
    return (*named, ("containerd-lease", lease)) if lease else named


async def _ended(call: Any) -> None:
    """Waits for a future. Cancellation: cancels it and waits no longer."""
    token, task = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()
    waits = True

    def wake() -> None:
        if waits:
            trio.lowlevel.reschedule(task)

    def tell(_call: Any) -> None:  # in grpcio's thread
        try:
            token.run_sync_soon(wake)
        except trio.RunFinishedError:
            pass  # it was cancelled, and all else has ended, too

    def cancel(_raise_cancel: object) -> trio.lowlevel.Abort:
        nonlocal waits
        waits = False
        call.cancel()
        return trio.lowlevel.Abort.SUCCEEDED

    call.add_done_callback(tell)
    await trio.lowlevel.wait_task_rescheduled(cancel)


def _drained(call: Any, take: Callable[[Iterator[Any]], T]) -> T:
    """Nothing is left in the queue of a call that this thread reads: grpcio ends at a cancellation before it has read
    what it asked for, and then the socket stays open for ever. There is no public way to read on (1.60 to 1.85)."""
    try:
        return take(call)
    except BaseException:
        call.cancel()  # `take` itself may have failed
        raise
    finally:
        while call._state.due:
            call._consume_next_event()


async def _taken(call: Any, method: Method, take: Callable[[Iterator[Any]], T]) -> T:
    """`take(call)` in a thread. Cancellation: cancels the call, which ends the thread."""
    token, task = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()
    cancelled: Callable[[], object] | None = None

    def tell(result: outcome.Outcome[T]) -> None:  # in the thread
        token.run_sync_soon(trio.lowlevel.reschedule, task, result)

    def cancel(raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
        nonlocal cancelled
        cancelled = raise_cancel
        call.cancel()
        return trio.lowlevel.Abort.FAILED

    trio.lowlevel.start_thread_soon(lambda: take(call), tell, "gRPC stream")
    try:
        taken: T = await trio.lowlevel.wait_task_rescheduled(cancel)
    except grpc.RpcError:
        if cancelled is not None:
            cancelled()
        raise _error_of(call, method) from None
    return taken
