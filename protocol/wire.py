"""MessagePack-RPC without I/O: bytes in, frames out, and frames into bytes.

A frame is one msgpack array on a stream of them:

    request       [0, id, method, [arguments, context]]
    response      [1, id, error, result]              error is nil or {code, message, details, hint}
    notification  [2, method, params]                 chunk [id, data] · credit [id, count] · cancel [id]
                                                      closing [count of requests taken]

Theory of operation. `receive` only stores bytes; `next_frame` finds the end of the next frame with msgpack's
`skip` (which builds nothing), checks its length, and decodes its head with a typed decoder; arguments and
results stay raw until the method is known. So no untyped tree of foreign data ever exists, and nothing is
allocated beyond the bytes that arrived. After an error the connection is dead: `next_frame` raises
RemoteProtocolError again and again. Any other exception out of this module is a defect of it.

Source: the public MessagePack-RPC specification; limits: docs/protocol.md.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgpack
import msgspec

from .errors import WireError
from .messages import Context

__all__ = [
    "HELLO_FRAME_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_RESPONSE_BYTES",
    "Cancel",
    "Chunk",
    "Closing",
    "Credit",
    "Frame",
    "FrameReader",
    "RemoteProtocolError",
    "Request",
    "Response",
    "encode_cancel",
    "encode_chunk",
    "encode_closing",
    "encode_credit",
    "encode_error",
    "encode_request",
    "encode_result",
]

HELLO_FRAME_BYTES: Final = 64 * 1024  # whoever has not said hello gets no more of our memory
MAX_FRAME_BYTES: Final = 1024 * 1024 + 4096  # a 1 MiB write with its head
MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024  # what a client takes: a page of 1,000 large records

_THREE, _FOUR = 0x93, 0x94  # heads of arrays with so many elements

FrameId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class RemoteProtocolError(Exception):
    """The peer broke the protocol. `frame_id` is the request's id where it could still be read."""

    def __init__(self, message: str, frame_id: int | None = None) -> None:
        super().__init__(message)
        self.frame_id = frame_id


class Request(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    kind: int
    id: FrameId
    method: str
    params: msgspec.Raw


class Response(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    kind: int
    id: FrameId
    error: WireError | None
    result: msgspec.Raw


class Chunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One piece of a stream's data."""

    id: FrameId
    data: msgspec.Raw


class Credit(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The receiver of a stream takes `count` more chunks."""

    id: FrameId
    count: Annotated[int, msgspec.Meta(ge=1, le=256)]


class Cancel(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    id: FrameId


class Closing(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The server ends the connection, having read `taken` requests: later ones are certainly not done."""

    taken: Annotated[int, msgspec.Meta(ge=0)]


class _Notification(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    kind: int
    method: str
    params: msgspec.Raw


Frame = Request | Response | Chunk | Credit | Cancel | Closing

_DECODE_REQUEST = msgspec.msgpack.Decoder(Request).decode
_DECODE_RESPONSE = msgspec.msgpack.Decoder(Response).decode
_DECODE_NOTIFICATION = msgspec.msgpack.Decoder(_Notification).decode
_Notice = (
    msgspec.msgpack.Decoder[Chunk]
    | msgspec.msgpack.Decoder[Credit]
    | msgspec.msgpack.Decoder[Cancel]
    | msgspec.msgpack.Decoder[Closing]
)
_NOTICES: dict[str, _Notice] = {
    "chunk": msgspec.msgpack.Decoder(Chunk),
    "credit": msgspec.msgpack.Decoder(Credit),
    "cancel": msgspec.msgpack.Decoder(Cancel),
    "closing": msgspec.msgpack.Decoder(Closing),
}  # fmt: skip
_ENCODER = msgspec.msgpack.Encoder()
_ENCODE = _ENCODER.encode


class FrameReader:
    """Cuts a stream of bytes into frames. `limit` is the longest frame that is taken; raise it after hello."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._start = 0  # of the first byte not yet handed out, in the buffer
        self._unpacker = self._fresh_unpacker()
        self._begun_at = 0  # where the frame that is being read begins, in the whole stream
        self._error: RemoteProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes held that belong to no finished frame yet."""
        return len(self._buffer) - self._start

    def receive(self, data: bytes) -> None:
        """Store what arrived. The caller reads at most a frame's limit ahead of `next_frame`."""
        if self._error is not None:
            return
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data
        self._unpacker.feed(data)

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None until more bytes come. Raises RemoteProtocolError."""
        if self._error is not None:
            raise self._error
        try:
            # Not a rescan: the unpacker keeps its place within a frame that is not whole yet.
            self._unpacker.skip()
        except msgpack.OutOfData:
            if self.buffered > self.limit:
                raise self._broken(f"a frame is longer than {self.limit} bytes", whole=False) from None
            return None
        except (
            ValueError,
            RecursionError,
        ) as error:  # StackError, FormatError and BufferFull are ValueErrors
            raise self._broken(f"not MessagePack: {type(error).__name__}", whole=False) from None
        end = self._unpacker.tell()
        length, self._begun_at = end - self._begun_at, end
        if length > self.limit:
            raise self._broken(f"a frame of {length} bytes is longer than {self.limit}", whole=False)
        frame = bytes(memoryview(self._buffer)[self._start : self._start + length])
        self._start += length
        try:
            return self._decode(frame)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise self._broken(f"not a MessagePack-RPC frame: {error}", frame=frame) from None

    def _decode(self, frame: bytes) -> Frame:
        # The first byte is the array's length, the second the kind; both are one byte in every valid frame.
        head, kind = (frame[0], frame[1]) if len(frame) > 1 else (0, 0xFF)
        if kind == 0 and head == _FOUR:
            return _DECODE_REQUEST(frame)
        if kind == 1 and head == _FOUR:
            return _DECODE_RESPONSE(frame)
        if kind == 2 and head == _THREE:
            notice = _DECODE_NOTIFICATION(frame)
            decoder = _NOTICES.get(notice.method)
            if decoder is None:
                raise self._broken(f"unknown notification {notice.method[:40]!r}", frame=frame)
            return decoder.decode(notice.params)
        raise self._broken("not a MessagePack-RPC frame: its first element must be 0, 1 or 2", frame=frame)

    def _broken(self, message: str, *, frame: bytes | None = None, whole: bool = True) -> RemoteProtocolError:
        frame_id = None
        head = frame if whole else bytes(self._buffer[self._start : self._start + 16])
        if head:
            frame_id = _id_of(head)
        self._error = RemoteProtocolError(message, frame_id)
        self._buffer.clear()
        self._start = 0
        return self._error

    @staticmethod
    def _fresh_unpacker() -> msgpack.Unpacker:
        # Twice the longest frame, as a frame may end anywhere in what one read brought.
        return msgpack.Unpacker(max_buffer_size=2 * MAX_RESPONSE_BYTES, raw=True)


def _id_of(head: bytes) -> int | None:
    """The id of a request whose rest cannot be read: after `0x94 0x00`, any msgpack unsigned integer."""
    if len(head) < 3 or head[0] != 0x94 or head[1] != 0:
        return None
    unpacker = msgpack.Unpacker()
    unpacker.feed(head[2:7])
    try:
        value = unpacker.unpack()
    except (msgpack.OutOfData, ValueError):
        return None
    return value if type(value) is int and 0 <= value < 2**32 else None


def encode_request(frame_id: int, method: str, arguments: msgspec.Struct, context: Context) -> bytes:
    return _ENCODE((0, frame_id, method, (arguments, context)))


def encode_result(frame_id: int, result: object) -> bytes:
    return _ENCODE((1, frame_id, None, result))


def encode_error(frame_id: int, error: WireError) -> bytes:
    return _ENCODE((1, frame_id, error, None))


def encode_chunk(frame_id: int, data: object) -> bytes:
    return _ENCODE((2, "chunk", (frame_id, data)))


def encode_credit(frame_id: int, count: int) -> bytes:
    return _ENCODE((2, "credit", (frame_id, count)))


def encode_closing(taken: int) -> bytes:
    return _ENCODE((2, "closing", (taken,)))


def encode_cancel(frame_id: int) -> bytes:
    return _ENCODE((2, "cancel", (frame_id,)))
