"""What the collector knows of an object, and its queue, as they are stored. Source: gc-algorithm 2 and 3."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from .. import keys
from ..codec import decoder, encode
from ..engine import Kind
from .kinds import KIND_OF

__all__ = ["IDLE", "ROOT", "Clock", "Climb", "Extent", "Item", "Link", "Mode", "Phase", "State", "Vertex"]


class Vertex(NamedTuple):
    """An object of a namespace, kept with what it refers to or, `flat`, without. Objects that are absent count."""

    namespace: str
    kind: Kind
    name: str
    flat: bool = False


class Link(msgspec.Struct, frozen=True, array_like=True):
    """One edge, seen from its target: its kind, and who refers. `ROOT`: the object protects itself."""

    edge: str
    kind: int = 0
    name: str = ""


ROOT: Final = Link("R")


class Phase(IntEnum):
    """SUSPECTS: who lost his place. RESCUES: who still has one. SWEEP: who has none."""

    SUSPECTS = 1
    RESCUES = 2
    SWEEP = 3


class State(msgspec.Struct, frozen=True, array_like=True):
    """One variant of an object. `witness`: the edge by which a root reaches it. `phase` 0: not queued. `push`: the
    place in RESCUES where those are told that it refers to. `lost`, `since`: the witness that it had last, and when
    it was found dead."""

    witness: Link | None = None
    round: int = 0
    phase: int = 0
    sequence: int = 0
    push_round: int = 0
    push: int = 0
    lost: Link | None = None
    since: int = 0

    @property
    def anchored(self) -> bool:
        return self.witness is not None and not self.phase

    @property
    def suspect(self) -> bool:
        return self.witness is not None and self.phase == Phase.SUSPECTS

    @property
    def condemned(self) -> bool:
        return self.phase == Phase.SWEEP

    def unqueued(self) -> State:
        return State(self.witness, 0, 0, 0, self.push_round, self.push, self.lost, self.since)


IDLE: Final = State()
"""Nothing is known: the object is dead or was never reached; a record, if there is one, lives by its other variant."""


class Mode(IntEnum):
    SUSPECT = 0
    DETACH = 1
    RECHECK = 2
    PUSH = 3
    SWEEP = 4


class Item(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the queue. `hint`: an edge to try first. `cursor`: where the work goes on. `saw`: an edge was passed
    over that may conduct after all."""

    namespace: str
    kind: int
    name: str
    flat: bool
    mode: int
    hint: Link | None = None
    cursor: bytes = b""
    saw: bool = False
    lost: Link | None = None

    @property
    def vertex(self) -> Vertex:
        return Vertex(self.namespace, Kind(self.kind), self.name, self.flat)


class Climb(msgspec.Struct, frozen=True, array_like=True):
    """A long climb that goes on with the next step: for which vertex, along which of its edges, and where it is."""

    namespace: str
    kind: int
    name: str
    flat: bool
    edge: Link
    at_kind: int
    at_name: str
    at_flat: bool


class Clock(msgspec.Struct, frozen=True, array_like=True):
    """The collector's own state. `current`: the round whose suspects and rescues are worked off; 0: none. `open` takes
    the suspicions of clients, `urgent` those for which somebody waits (0: none yet). `sealed`: rounds whose condemned
    are no more, though not all are swept. `rushed`: rounds that were urgent and are not swept. `time`: the instant
    against which expiry and conditions are judged; `ticking`: what has switched between two instants is still to be
    looked at, before anything else. `working`: whether the collector has begun with the current round; else it holds
    only what was born dead."""

    current: int = 0
    open: int = 1
    urgent: int = 0
    last: int = 1
    sequence: int = 0
    time: int = 0
    sealed: tuple[int, ...] = ()
    rushed: tuple[int, ...] = ()
    climb: Climb | None = None
    ticking: tuple[bytes, bytes] | None = None
    working: bool = False


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """`name`: where the key tells its hash only."""

    normal: State | None
    flat: State | None
    counted: int
    name: str = ""


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """Of a phase of a round: how many entries it has, and a number before which there is none. So nobody looks for what
    is not there, nor from the beginning: finding the first key of a range that was worked off is slow."""

    count: int = 0
    first: int = 0


_CLOCK = decoder(Clock).decode
_EXTENT = decoder(Extent).decode
_STATES = decoder(_Known).decode
_ITEM = decoder(Item).decode
_FRESH: Final = Clock()


def decode_clock(value: bytes | None) -> Clock:
    return _FRESH if value is None else _CLOCK(value)


def decode_extent(value: bytes | None) -> Extent:
    return Extent() if value is None else _EXTENT(value)


def decode_states(value: bytes | None) -> tuple[State, State]:
    """Of an object, kept normally and flat."""
    if value is None:
        return IDLE, IDLE
    known = _STATES(value)
    return known.normal or IDLE, known.flat or IDLE


def decode_counted(value: bytes | None) -> int:
    """The bytes for which an object counts as reclaimable."""
    return 0 if value is None else _STATES(value).counted


def encode_states(normal: State, flat: State, counted: int, name: str) -> bytes | None:
    if normal == IDLE and flat == IDLE:
        return None
    return encode(
        _Known(
            None if normal == IDLE else normal,
            None if flat == IDLE else flat,
            counted,
            name if keys.is_hashed(name) else "",
        )
    )


def parse_state(key: bytes, value: bytes) -> Vertex | None:
    """The object whose state stands under a key of the region of edges; None: it is an edge. Raises ValueError,
    KeyError, IndexError, msgspec.MsgspecError for what is neither."""
    namespace, letter, name, end = keys.about(key)
    if end != keys.STATE_MARK:
        return None
    return Vertex(namespace, KIND_OF[letter], _STATES(value).name if name is None else name)


def is_dead(normal: State, flat: State) -> bool:
    """Whether an object was found dead, by every way in which it could be kept."""
    return (normal.condemned or flat.condemned) and not (
        (normal != IDLE and not normal.condemned) or (flat != IDLE and not flat.condemned)
    )


decode_item = _ITEM
