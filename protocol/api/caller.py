"""How a call reaches the store: what the typed interface stands on, in this process or behind a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import msgspec

from ..messages import Context, Welcome
from ..methods import Method

__all__ = ["BlobReader", "Caller", "StreamReader"]

Q = TypeVar("Q", bound=msgspec.Struct)


class BlobReader(Protocol):
    """A blob open for reading. It keeps reading also when the blob is deleted meanwhile."""

    size: int

    def fileno(self) -> int | None:
        """The blob's own file descriptor, read-only, where it is in reach: over a unix socket, unless the blob
        is small. It may be read with any system call, and is closed with the reader."""

    async def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer at the end, none past it."""


class StreamReader(Protocol):
    """Chunks as they come; after the last one, `result` is the stream's answer."""

    result: Any

    def __aiter__(self) -> AsyncIterator[Any]: ...


class Caller(Protocol):
    def call(self, method: Method[Q, Any], request: Q, context: Context) -> Awaitable[Any]: ...

    def stream(
        self, method: Method[Q, Any], request: Q, context: Context
    ) -> AbstractAsyncContextManager[StreamReader]: ...

    def open_blob(self, digest: str, context: Context) -> AbstractAsyncContextManager[BlobReader]: ...

    def welcome(self) -> Welcome: ...
