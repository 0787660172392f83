"""Arguments of calls, checked alike by every way in: what a message cannot say, and what its types refuse."""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import InvalidArgument, ResourceExhausted
from .messages import Context, Limits
from .methods import METHODS, Method
from .wire import encode_request

__all__ = ["check_call", "decode_call", "encode_call"]

_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(tuple[method.request, Context])  # type: ignore[name-defined]  # made at run time
    for name, method in METHODS.items()
}
_LIMITS = Limits()
_HEAD_BYTES = 64  # of a frame, beside its arguments and context
_ENCODE = msgspec.msgpack.Encoder().encode


def encode_call(frame_id: int, method: Method[Any, Any], request: Any, context: Context) -> bytes:
    """The frame of a call. Raises InvalidArgument for what no message can say, ResourceExhausted for what is too
    much for one."""
    try:
        frame = encode_request(frame_id, method.name, request, context)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError) as error:
        raise _unsayable(method, error) from None
    _check_size(method, len(frame) - _HEAD_BYTES)
    return frame


def decode_call(method: Method[Any, Any], params: msgspec.Raw | bytes) -> tuple[Any, Context]:
    """Typed arguments and context. Raises InvalidArgument with the path of the fault."""
    try:
        request, context = _DECODERS[method.name].decode(params)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{method.name}: {error}") from None
    return request, context


def check_call(method: Method[Any, Any], request: Any, context: Context) -> tuple[Any, Context]:
    """What a call in this process would be if it had come over a socket; the bytes of a write are left alone."""
    if method.bulk:
        return request, context
    try:
        params = _ENCODE((request, context))
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError) as error:
        raise _unsayable(method, error) from None
    _check_size(method, len(params))
    return decode_call(method, params)


def _check_size(method: Method[Any, Any], size: int) -> None:
    most = _LIMITS.large_request_bytes if method.large else _LIMITS.request_bytes
    if size > most:
        raise ResourceExhausted(f"{method.name}: a request of {size} bytes; the limit is {most}")


def _unsayable(method: Method[Any, Any], error: Exception) -> InvalidArgument:
    return InvalidArgument(f"{method.name}: a value that no message can carry: {type(error).__name__}")
