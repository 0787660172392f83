"""Errors that mean the same on both sides of a socket.

    OrlopError
    +-- Unknown               the outcome is not known: it may or may not have happened
    +-- InvalidArgument       the caller's request can never work
    +-- NotFound
    +-- AlreadyExists
    +-- PermissionDenied
    +-- ResourceExhausted     a limit was reached, or the disk is full
    +-- FailedPrecondition    the state of the store does not allow it
    |   +-- Conflict
    |   +-- NotModified
    +-- Aborted
    +-- OutOfRange
    +-- NotImplemented
    +-- Internal              a defect of orlop
    +-- Unavailable           certainly not done; try again
    +-- DataLoss              stored bytes are not what was stored
    +-- Unauthenticated
    +-- Canceled
    +-- DeadlineExceeded
    StoreFailed               the store itself had to stop (its cause is the exception group)

An error is a context and a class: `NotFound('image "a"')` reads `image "a": not found`. A class whose usual
text does not fit carries its own: `NotFound(text="no such ship")`.

Source: containerd's error classes as measured in tests/vectors/errors.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Canceled",
    "Conflict",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "NotImplemented",
    "NotModified",
    "OrlopError",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "StoreFailed",
    "Unauthenticated",
    "Unavailable",
    "Unknown",
    "WireError",
    "error_from_wire",
    "error_to_wire",
    "prefixed",
]

MAX_MESSAGE_CHARS = 4096  # an error is a sentence, not a document


class OrlopError(Exception):
    """The root. `hint` says what to do about it, for a person; it never decides anything in code."""

    code: ClassVar[str] = "Unknown"
    code_number: ClassVar[int] = 2
    class_text: ClassVar[str] = "unknown"

    def __init__(self, context: str = "", *, text: str | None = None, hint: str = "") -> None:
        usual = self.class_text if text is None else text
        self.message = f"{context}: {usual}" if context else usual
        self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def is_a(self, kind: type[OrlopError]) -> bool:
        """True when `kind` occurs anywhere in the chain of causes."""
        return any(isinstance(link, kind) for link in _chain(self))


class Unknown(OrlopError):
    pass


class InvalidArgument(OrlopError):
    code, code_number, class_text = "InvalidArgument", 3, "invalid argument"


class NotFound(OrlopError):
    code, code_number, class_text = "NotFound", 5, "not found"


class AlreadyExists(OrlopError):
    code, code_number, class_text = "AlreadyExists", 6, "already exists"


class PermissionDenied(OrlopError):
    code, code_number, class_text = "PermissionDenied", 7, "permission denied"


class ResourceExhausted(OrlopError):
    code, code_number, class_text = "ResourceExhausted", 8, "resource exhausted"


class FailedPrecondition(OrlopError):
    code, code_number, class_text = "FailedPrecondition", 9, "failed precondition"


class Conflict(FailedPrecondition):
    class_text = "conflict"


class NotModified(FailedPrecondition):
    class_text = "not modified"


class Aborted(OrlopError):
    code, code_number, class_text = "Aborted", 10, "aborted"


class OutOfRange(OrlopError):
    code, code_number, class_text = "OutOfRange", 11, "out of range"


class NotImplemented(OrlopError):  # noqa: A001 - the field's name for this class; never star-imported
    code, code_number, class_text = "Unimplemented", 12, "not implemented"


class Internal(OrlopError):
    code, code_number, class_text = "Internal", 13, "internal"


class Unavailable(OrlopError):
    code, code_number, class_text = "Unavailable", 14, "unavailable"


class DataLoss(OrlopError):
    code, code_number, class_text = "DataLoss", 15, "data loss"


class Unauthenticated(OrlopError):
    code, code_number, class_text = "Unauthenticated", 16, "unauthorized"


class Canceled(OrlopError):
    code, code_number, class_text = "Canceled", 1, "context canceled"


class DeadlineExceeded(OrlopError):
    code, code_number, class_text = "DeadlineExceeded", 4, "context deadline exceeded"


class StoreFailed(Exception):
    """The store in this process could not go on; its `__cause__` is what happened, as a group."""


CLASSES: tuple[type[OrlopError], ...] = (
    Unknown,
    InvalidArgument,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Conflict,
    NotModified,
    Aborted,
    OutOfRange,
    NotImplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
    Canceled,
    DeadlineExceeded,
)
_BY_CODE = {kind.code: kind for kind in CLASSES if kind not in (Conflict, NotModified)}


class WireError(msgspec.Struct, frozen=True):
    """An error as it travels: the code of its first class, its full text, and the other classes behind it."""

    code: str
    message: str
    details: list[WireError] = []
    hint: str = ""


def error_to_wire(error: BaseException) -> WireError:
    """What a peer is told. An exception without a class travels as Unknown with its text unchanged."""
    links = list(_chain(error))
    first = next((link for link in links if isinstance(link, OrlopError)), None)
    if first is None:
        return WireError("Unknown", _clip(str(error) or type(error).__name__))
    seen = {type(first)}
    details = []
    for link in links:
        if isinstance(link, OrlopError) and type(link) not in seen:
            seen.add(type(link))
            details.append(WireError(link.code, _clip(link.message)))
    return WireError(first.code, _clip(first.message), details, _clip(first.hint))


def error_from_wire(wire: WireError) -> OrlopError:
    """The same class and text as on the other side; further classes become the chain of causes."""
    kind = _BY_CODE.get(wire.code, Unknown)
    if kind is FailedPrecondition:
        for special in (Conflict, NotModified):
            if wire.message == special.class_text or wire.message.endswith(f": {special.class_text}"):
                kind = special
    text = wire.message or kind.class_text
    if kind in (Canceled, DeadlineExceeded) and not text.endswith(kind.class_text):
        text = f"{text}: {kind.class_text}"
    error = kind(text=text, hint=wire.hint)
    link: OrlopError = error
    for detail in wire.details[:16]:
        cause = error_from_wire(detail)
        link.__cause__ = cause
        link = cause
    return error


def prefixed(context: str, error: OrlopError) -> OrlopError:
    """The same class with more context in front."""
    kind = next(kind for kind in type(error).__mro__ if kind in CLASSES)
    inner: OrlopError = kind(text=f"{context}: {error.message}", hint=error.hint)
    return inner


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outside in; the branches of a group from left to right."""
    waiting: list[BaseException] = [error]
    for _ in range(64):  # causes can be made to form a ring
        if not waiting:
            return
        link = waiting.pop()
        yield link
        if link.__cause__ is not None:
            waiting.append(link.__cause__)
        if isinstance(link, BaseExceptionGroup):
            waiting += reversed(link.exceptions)


def _clip(text: str) -> str:
    """An end is kept as well: it may be what tells the class."""
    if len(text) <= MAX_MESSAGE_CHARS:
        return text
    return f"{text[: MAX_MESSAGE_CHARS - 200]} … {text[-200:]}"
