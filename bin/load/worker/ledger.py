"""What was acknowledged, to compare it with what is there.

Each thing belongs to one client, whose operations come one after another: what it must be is known at every moment,
except after a write whose answer was lost, when it may be one of several. What was there before the run began must be
there, whatever it says. Nothing here is shared between workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ....protocol.errors import AlreadyExists, DeadlineExceeded, OrlopError, Unknown
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
    """`kept`: False if nobody will compare; then nothing is remembered."""

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._certain: dict[Thing, str] = {}
        self._possible: dict[Thing, set[str]] = {}
        self._reading: dict[Thing, list[set[str]]] = {}  # what each read under way may find
        self._parts: dict[Thing, Sequence[Thing]] = {}
        self._wrong: list[Discrepancy] = []
        self.reads = self.writes = self.wrong = 0

    @contextmanager
    def writing(self, thing: Thing, value: str, *, fresh: bool = False) -> Iterator[None]:
        """Around a write. An answer that was lost, or is not waited for, leaves both values possible. `fresh`: nothing
        has that name yet; if something has, another run made it, and nothing is known of it."""
        if not self._kept:
            yield
            return
        if fresh:
            self._certain.setdefault(thing, ABSENT)
        self._possible.setdefault(thing, set()).add(value)
        for allowed in self._reading.get(thing, ()):
            allowed.add(value)
        try:
            yield
        except AlreadyExists:
            self._settle_failed(thing, value)
            if fresh:
                self.forget(thing)
            raise
        except OrlopError as error:
            if not isinstance(error, Unknown | DeadlineExceeded):
                self._settle_failed(thing, value)
            raise
        self._certain[thing] = value
        self._possible.pop(thing, None)
        self.writes += 1

    def has_parts(self, whole: Thing, parts: Sequence[Thing]) -> None:
        """These are there as long as the whole is."""
        if self._kept:
            self._parts[whole] = parts
            for part in parts:
                self._certain[part] = HERE

    def loses_parts(self, whole: Thing) -> None:
        """It is being deleted: when its parts go is not said."""
        for part in self._parts.pop(whole, ()):
            self.forget(part)

    def forget(self, thing: Thing) -> None:
        """Nothing is known of it any more."""
        self._certain.pop(thing, None)
        self._possible.pop(thing, None)

    @contextmanager
    def reading(self, thing: Thing, *, must_be: bool = False) -> Iterator[Callable[[str], None]]:
        """Around a read, which says what it found: is that what it was at any moment since? `must_be`: it was there
        before the run, and nobody deletes it. Of all else that nobody here has written nothing is known."""
        if thing not in self._certain:
            yield lambda found: self._check_presence(thing, found) if must_be else None
            return
        allowed = {self._certain[thing], *self._possible.get(thing, ())}
        self._reading.setdefault(thing, []).append(allowed)
        try:
            yield lambda found: self._check(thing, found, allowed)
        finally:
            readers = self._reading[thing]
            readers[:] = [each for each in readers if each is not allowed]
            if not readers:
                del self._reading[thing]

    def _check_presence(self, thing: Thing, found: str) -> None:
        self.reads += 1
        if found == ABSENT:
            self.differs(thing, "that it is there", "nothing")

    def _check(self, thing: Thing, found: str, allowed: set[str]) -> None:
        self.reads += 1
        if found not in allowed:
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
