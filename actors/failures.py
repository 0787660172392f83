"""One failure out of the several that a nursery raises together."""

from __future__ import annotations

import trio

from ..protocol.errors import OrlopError

__all__ = ["first_of"]


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to be told: the others were cancelled by it, or say the same. What is no OrlopError is a fault of
    ours, and goes first."""
    leaves = list(_leaves(group))
    return next((each for each in leaves if not isinstance(each, OrlopError | trio.Cancelled)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
