"""Is a history of concurrent calls one that calls done one after the other could have had?

The search of Wing and Gong with Lowe's memo: try every call that may have been first, go on from the state it
leaves, and never look twice at the same state with the same calls done. Calls whose outcome is not known may have
happened at any time after they were made, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any, Final

__all__ = ["UNKNOWN", "Call", "Recorder", "Undecided", "linearization"]

UNKNOWN: Final = object()
"""The result of a call that nobody waited for."""

Apply = Callable[[Any, Any], tuple[Hashable, Any]]
"""The model: from a state and what is asked, the state afterwards and the answer."""


class Undecided(Exception):
    """The search was given up; that counts as a failure."""


@dataclass(frozen=True)
class Call:
    asked: Any
    result: Any
    called: float
    returned: float = inf


class Recorder:
    """Calls with the order of their beginnings and ends, by a counter that only grows."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._clock = count()

    def now(self) -> int:
        return next(self._clock)

    def done(self, asked: Any, result: Any, called: int) -> None:
        returned = inf if result is UNKNOWN else self.now()
        self.calls.append(Call(asked, result, called, returned))


def linearization(history: Sequence[Call], initial: Hashable, apply: Apply, most: int = 500_000) -> list[Call] | None:
    """The calls in an order that explains all results, without those that never happened; None: there is no such
    order. Raises Undecided after looking at `most` states."""
    calls = sorted(history, key=lambda call: call.called)
    must = sum(1 << index for index, call in enumerate(calls) if call.result is not UNKNOWN)
    seen: set[tuple[int, Hashable]] = set()
    done, state = 0, initial
    path: list[tuple[int, Hashable, int]] = []  # what was done before, the state then, and which call was taken
    start = 0  # of the candidates not yet tried from here
    while done & must != must:
        step = _next(calls, done, state, start, apply, seen)
        if step is not None:
            index, after = step
            path.append((done, state, index))
            done, state, start = done | 1 << index, after, 0
            if len(seen) > most:
                raise Undecided(f"{len(calls)} calls, {most} states")
        elif path:
            done, state, index = path.pop()
            start = index + 1
        else:
            return None
    return [calls[index] for _, _, index in path]


def _next(
    calls: list[Call], done: int, state: Any, start: int, apply: Apply, seen: set[tuple[int, Hashable]]
) -> tuple[int, Hashable] | None:
    """The next call that may come first of those left, from `start` on, and the state it leads to."""
    first_return = inf
    for index in range((~done & (done + 1)).bit_length() - 1, len(calls)):
        if done >> index & 1:
            continue
        call = calls[index]
        if call.called > first_return:
            return None
        first_return = min(first_return, call.returned)
        if index < start:
            continue
        after, result = apply(state, call.asked)
        if call.result is UNKNOWN or result == call.result:
            key = (done | 1 << index, after)
            if key not in seen:
                seen.add(key)
                return index, after
    return None
