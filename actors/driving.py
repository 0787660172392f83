"""How a plan is run: to its end, without the loop's turn in between."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import TypeVar

__all__ = ["drive"]

T = TypeVar("T")


def drive(running: Awaitable[T]) -> T:
    """Run a plan to its end in one step: a yield would let another plan in between."""
    assert isinstance(running, Coroutine)
    try:
        running.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
    running.close()
    raise RuntimeError("a transaction awaited something other than its transaction")
