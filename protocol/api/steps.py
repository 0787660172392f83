"""Transfers that tell what they do, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from ..errors import FailedPrecondition
from ..messages import Context, TransferProgress
from ..methods import Method
from .caller import Caller, StreamReader

__all__ = ["Steps"]

R = TypeVar("R")


class Steps(Generic[R]):
    """A transfer under way, and what it tells of itself: TransferProgress, many of them for each object.

    `async for step in steps` runs it to its end. Who may leave the loop before that uses `async with steps:` around it,
    which ends the transfer with the block; then `result` is there when the loop is through. Raises what the transfer
    raises, from the loop.
    """

    def __init__(self, caller: Caller, method: Method[Any, Any], request: msgspec.Struct, context: Context) -> None:
        self._caller = caller
        self._call = (method, request, context)
        self._context: AbstractAsyncContextManager[StreamReader] | None = None
        self._stream: StreamReader | None = None
        self._result: R | None = None

    @property
    def result(self) -> R:
        """What the transfer answered. Raises FailedPrecondition before its end."""
        if self._result is None:
            raise FailedPrecondition("the transfer is not at its end")
        return self._result

    async def __aenter__(self) -> Self:
        self._context = self._caller.stream(*self._call)
        self._stream = await self._context.__aenter__()
        self._steps = aiter(self._stream)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._context is not None
        self._stream = None
        return await self._context.__aexit__(kind, error, trace)

    def __aiter__(self) -> AsyncIterator[TransferProgress]:
        return self._whole() if self._stream is None else self

    async def __anext__(self) -> TransferProgress:
        assert self._stream is not None
        try:
            step: TransferProgress = await anext(self._steps)
        except StopAsyncIteration:
            self._result = self._stream.result
            raise
        return step

    async def _whole(self) -> AsyncIterator[TransferProgress]:
        async with self:
            async for step in self:
                yield step
