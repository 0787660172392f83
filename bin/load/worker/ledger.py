"""What was acknowledged, to compare it with what is there.

Each thing belongs to one client, whose operations come one after another: what it must be is known at every moment,
except after a write whose answer was lost, when it may be one of several. Nothing here is shared between workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ....protocol.errors import DeadlineExceeded, OrlopError, Unknown
from ..result import Discrepancy, Verification

__all__ = ["ABSENT", "HERE", "Ledger", "Thing"]

ABSENT = ""
HERE = "here"
_MOST_TOLD = 100


class Thing(NamedTuple):
    """`kind`: image, blob or snapshot. `size`: of a blob."""

    kind: str
    namespace: str
    name: str
    size: int = 0


class Ledger:
    def __init__(self) -> None:
        self._certain: dict[Thing, str] = {}
        self._possible: dict[Thing, set[str]] = {}
        self._reading: dict[Thing, list[set[str]]] = {}  # what each read under way may find
        self._wrong: list[Discrepancy] = []
        self.reads = self.writes = self.wrong = 0

    @contextmanager
    def writing(self, thing: Thing, value: str, *, fresh: bool = False) -> Iterator[None]:
        """Around a write. An answer that was lost, or is not waited for, leaves both values possible. `fresh`: no
        other run has a thing of that name."""
        if fresh:
            self._certain.setdefault(thing, ABSENT)
        self._possible.setdefault(thing, set()).add(value)
        for allowed in self._reading.get(thing, ()):
            allowed.add(value)
        try:
            yield
        except OrlopError as error:
            if not isinstance(error, Unknown | DeadlineExceeded):
                self._settle_failed(thing, value)
            raise
        self.is_now(thing, value)
        self.writes += 1

    def is_now(self, thing: Thing, value: str) -> None:
        """Somebody has seen it, or was answered."""
        self._certain[thing] = value
        self._possible.pop(thing, None)

    @contextmanager
    def reading(self, thing: Thing) -> Iterator[Callable[[str], None]]:
        """Around a read, which says what it found: is that what it was at any moment since? Of what nobody here has
        written nothing is known."""
        allowed = {self._certain[thing], *self._possible.get(thing, ())} if thing in self._certain else None
        if allowed is not None:
            self._reading.setdefault(thing, []).append(allowed)
        try:
            yield lambda found: self._check(thing, found, allowed)
        finally:
            if allowed is not None:
                readers = self._reading[thing]
                readers[:] = [each for each in readers if each is not allowed]
                if not readers:
                    del self._reading[thing]

    def _check(self, thing: Thing, found: str, allowed: set[str] | None) -> None:
        self.reads += 1
        if allowed is not None and found not in allowed:
            self.differs(thing, " or ".join(sorted(each or "nothing" for each in allowed)), found or "nothing")

    def differs(self, thing: Thing, expected: str, found: str) -> None:
        self.wrong += 1
        if len(self._wrong) < _MOST_TOLD:
            self._wrong.append(Discrepancy(thing.namespace, f"{thing.kind} {thing.name}", expected, found))

    def things(self) -> list[Thing]:
        """All of which something is known."""
        return list(self._certain)

    def outcome(self) -> Verification:
        return Verification(self.reads, self.writes, len(self._possible), 0, self.wrong, list(self._wrong))

    def _settle_failed(self, thing: Thing, value: str) -> None:
        possible = self._possible[thing]
        possible.discard(value)
        if not possible:
            del self._possible[thing]
