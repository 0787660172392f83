"""What a server needs to know of the store behind it: for each method a route, and a session per connection.

The server and the in-process store are both driven by these routes, so a method behaves the same either way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from .messages import Context, Welcome
from .meter import Meter
from .methods import Method

__all__ = [
    "Answer",
    "Ordered",
    "PointRead",
    "Reply",
    "Route",
    "Service",
    "Session",
    "Stream",
    "Submit",
    "Task",
]

T_contra = TypeVar("T_contra", contravariant=True)

Result = msgspec.Raw | msgspec.Struct
Request = Any  # each route gets the request type of its own method; the table pairs them


class Answer(Protocol[T_contra]):
    """Where the outcome of a submitted write goes. Called exactly once, on the loop, never awaited."""

    withdrawn: bool
    """The caller has gone: what is not planned yet need not be."""
    deadline: float
    """In trio's time: what is not planned by then is DeadlineExceeded."""

    def succeed(self, value: T_contra) -> None: ...
    def fail(self, error: BaseException) -> None: ...


class Session(Protocol):
    """What one connection holds open: its writers. Closing frees their locks and keeps their bytes."""

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Reply:
    """A result that brings a file descriptor, which whoever takes the reply closes."""

    result: Result
    descriptor: int


@dataclass(frozen=True)
class PointRead:
    """Answered at once from the view, in the connection's reader."""

    run: Callable[[Request, Context], Awaitable[Result]]


@dataclass(frozen=True)
class Submit:
    """Handed to the actor that owns the resource; answered when it is durable.

    `submit` raises trio.WouldBlock when the actor's mailbox is full; `submit_later` waits for room in it.
    """

    submit: Callable[[Request, Context, Answer[Result]], None]
    submit_later: Callable[[Request, Context, Answer[Result]], Awaitable[None]]


@dataclass(frozen=True)
class Ordered:
    """Taken in the order in which a connection sent it; waiting for room is what slows the sender down."""

    run: Callable[[Request, Context, Session, Answer[Any]], Awaitable[None]]


@dataclass(frozen=True)
class Task:
    """Runs in a task of its own."""

    run: Callable[[Request, Context, Session], Awaitable[Result | Reply]]


@dataclass(frozen=True)
class Stream:
    """Runs in a task of its own and emits chunks; `emit` waits for the receiver's credit."""

    run: Callable[[Request, Context, Session, Callable[[object], Awaitable[None]]], Awaitable[Result]]


Route = PointRead | Submit | Ordered | Task | Stream


class Service(Protocol):
    routes: Mapping[Method[Any, Any], Route]
    meter: Meter

    def welcome(self) -> Welcome: ...
    def open_session(self) -> Session: ...
    def call_began(self, method: Method[Any, Any]) -> None:
        """A call that is not answered at once was taken; a store that drains waits for it."""

    def call_ended(self, method: Method[Any, Any]) -> None: ...

    def check_open(self) -> None:
        """Raises Unavailable while the store drains."""
