"""Who keeps whom alive: roots, references and expiry, read off the records.

One place for what labels and built-in fields mean to the collector. Source: spec gc 3 and 4, gc-algorithm 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from ..protocol.durations import parse_duration
from ..protocol.labels import GC_EXPIRE, GC_FLAT, GC_ROOT
from ..protocol.records import Container, ContentInfo, Image, Lease, Sandbox, SnapshotInfo
from .engine import Kind
from .ingests import IngestRecord

__all__ = [
    "FLAT_KINDS",
    "LABELLED_KINDS",
    "Bound",
    "EdgeKind",
    "Out",
    "edges",
    "expires_at",
    "holds",
    "is_flat",
    "is_root",
    "resource_target",
    "switches_at",
    "used_at",
]

_PREFIX: Final = "containerd.io/gc."
_REF: Final = "containerd.io/gc.ref."
_BACK: Final = "containerd.io/gc.bref."
_CONDITION: Final = "containerd.io/gc.cond.snapshot"
_USED_AT: Final = "containerd.io/gc.cond.value-usedat"
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LABELLED_KINDS: Final[dict[str, Kind]] = {"content": Kind.CONTENT, "image": Kind.IMAGE, "container": Kind.CONTAINER}
"""The word by which a label names what it refers to; a further kind of resource adds its own."""

FLAT_KINDS: Final = frozenset((Kind.CONTENT, Kind.SNAPSHOT, Kind.IMAGE))
"""Kinds that a flat lease keeps without what they refer to."""


class EdgeKind(Enum):
    """How one object keeps another. In the order in which the collector looks: lasting reasons before leases.

    BUILT_IN: an image's target, a snapshot's parent, a container's snapshot, what an ingest adopts. CONTAINER: a label
    of a container or sandbox. CONDITION: a label whose condition must hold. LABEL: a reference label. ENTRY: an entry
    of a lease. BACK: a label of the object itself that names who keeps it.
    """

    BUILT_IN = "a"
    BACK = "b"
    CONTAINER = "c"
    CONDITION = "q"
    LABEL = "r"
    ENTRY = "z"


class Out(NamedTuple):
    """One edge that a record implies. `kind` and `name`: the object at its other end, which is the target, or of a
    BACK edge the source. `value`: of a CONDITION its bounds."""

    edge: str
    kind: Kind
    name: str
    value: bytes = b""


class Bound(NamedTuple):
    """`usedat<2h` or `usedat>2h`, in nanoseconds."""

    below: bool
    duration: int


def edges(record: msgspec.Struct) -> list[Out]:
    """Every edge that a record implies, sorted, each once."""
    labels: Mapping[str, str] = getattr(record, "labels", None) or {}
    if not labels or isinstance(record, Lease):
        return list(_built_in(record))
    found = {(out.edge, out.kind, out.name): out for out in _built_in(record)}
    keeps = EdgeKind.CONTAINER.value if isinstance(record, Container | Sandbox) else EdgeKind.LABEL.value
    conditions: dict[str, set[Bound]] = {}
    for key, value in labels.items():
        if not key.startswith(_PREFIX):
            continue
        if key.startswith(_REF):
            for kind, name in _named(key[len(_REF) :], value):
                if kind is not Kind.CONTAINER:
                    found[(keeps, kind, name)] = Out(keeps, kind, name)
        elif key.startswith(_BACK) and isinstance(record, Image | ContentInfo | SnapshotInfo):
            for kind, name in _named(key[len(_BACK) :], value):
                found[("b", kind, name)] = Out("b", kind, name)
        elif key.startswith(_CONDITION) and isinstance(record, Image | ContentInfo):
            name, bounds = _condition(key[len(_CONDITION) :], value)
            if bounds:
                conditions.setdefault(name, set()).update(bounds)
    for name, together in conditions.items():
        found[("q", Kind.SNAPSHOT, name)] = Out("q", Kind.SNAPSHOT, name, _encode_bounds(together))
    return sorted(found.values())


def _built_in(record: msgspec.Struct) -> Iterator[Out]:
    if isinstance(record, Image):
        yield Out("a", Kind.CONTENT, record.target.digest)
    elif isinstance(record, Container):
        if record.snapshotter:
            yield Out("a", Kind.SNAPSHOT, f"{record.snapshotter}/{record.snapshot_key}")
    elif isinstance(record, SnapshotInfo):
        if record.parent:
            yield Out("a", Kind.SNAPSHOT, f"{record.snapshotter}/{record.parent}")
    elif isinstance(record, IngestRecord) and record.adopting and record.held:
        yield Out("a", Kind.CONTENT, record.held)


def _named(rest: str, value: str) -> Iterator[tuple[Kind, str]]:
    """What follows `gc.ref.` or `gc.bref.` and the label's value. Source: spec gc 4.1."""
    if rest.startswith("snapshot."):
        # A dot belongs to the snapshotter's name; only a slash begins a free one.
        yield Kind.SNAPSHOT, f"{rest[9:].partition('/')[0]}/{value}"
        return
    kind = LABELLED_KINDS.get(re.split(r"[./]", rest, maxsplit=1)[0])
    if kind is not None:
        yield kind, value


# roots and time ---------------------------------------------------------------------------------------------


def is_root(record: msgspec.Struct | None, now_ns: int) -> bool:
    """Whether the object protects itself at that time. Entries of leases are edges. Source: spec gc 3."""
    if isinstance(record, Container | Sandbox):
        return True
    if isinstance(record, Image | Lease):
        return (expires := expires_at(record)) is None or now_ns <= expires
    if isinstance(record, IngestRecord):
        return record.expires_at is not None and now_ns <= record.expires_at
    if isinstance(record, ContentInfo | SnapshotInfo):
        return any(key.startswith(GC_ROOT) for key in record.labels)
    return bool(getattr(record, "active", False))  # a further kind of resource says so itself


def expires_at(record: msgspec.Struct | None) -> int | None:
    """The last instant at which a lease, image or ingest protects itself. None: always (or, an ingest, never)."""
    if isinstance(record, IngestRecord):
        return record.expires_at
    if not isinstance(record, Image | Lease) or not record.labels:
        return None
    text = record.labels.get(GC_EXPIRE)
    return None if text is None else rfc3339_ns(text)


def rfc3339_ns(text: str) -> int | None:
    """Nanoseconds since the epoch; None for what is no RFC 3339 time."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    fraction = match.group(1) or ""
    try:
        moment = datetime.fromisoformat(text.replace(fraction, "", 1))
    except ValueError:
        return None
    since = moment - _EPOCH
    nanoseconds = int((fraction[1:] + "0" * 9)[:9])
    return (since.days * 86400 + since.seconds) * 1_000_000_000 + nanoseconds


def is_flat(lease: Lease) -> bool:
    return GC_FLAT in lease.labels


# conditions -------------------------------------------------------------------------------------------------


def used_at(record: msgspec.Struct | None) -> int | None:
    """The value that conditions on this snapshot are compared with."""
    if not isinstance(record, SnapshotInfo):
        return None
    for key in sorted(record.labels):
        if key.startswith(_USED_AT):
            return rfc3339_ns(record.labels[key])
    return None


def holds(value: bytes, used: int | None, now_ns: int) -> bool:
    """Whether one of the bounds of a CONDITION edge is met. Without a value none is. Source: spec gc 4.2."""
    if used is None:
        return False
    age = now_ns - used
    return any(age < each.duration if each.below else age > each.duration for each in _decode_bounds(value))


def switches_at(value: bytes, used: int) -> set[int]:
    """The instants at which a CONDITION edge begins or ceases to conduct."""
    return {used + each.duration + (not each.below) for each in _decode_bounds(value)}


def _condition(rest: str, value: str) -> tuple[str, set[Bound]]:
    snapshotter = rest.lstrip("./").partition("/")[0]
    conditions, bar, key = value.partition("|")
    bounds = set()
    for text in conditions.split(",") if bar else ():
        name, operator, operand = _split_condition(text)
        if name == "usedat" and operator in ("<", ">") and (duration := parse_duration(operand)) is not None:
            bounds.add(Bound(operator == "<", duration))
    return f"{snapshotter}/{key}", bounds


def _split_condition(text: str) -> tuple[str, str, str]:
    match = re.match(r"([^=!<>]*)(==|!=|<=|>=|=|<|>)(.*)", text, re.DOTALL)
    return ("", "", "") if match is None else (match.group(1).strip(), match.group(2), match.group(3).strip())


def _encode_bounds(bounds: set[Bound]) -> bytes:
    return b",".join(b"%c%d" % (b"<>"[not each.below], each.duration) for each in sorted(bounds))


def _decode_bounds(value: bytes) -> Iterator[Bound]:
    for part in value.split(b","):
        yield Bound(part[:1] == b"<", int(part[1:]))


# leases -----------------------------------------------------------------------------------------------------


def resource_target(resource_type: str, resource_id: str) -> tuple[Kind, str] | None:
    """The object that a lease's entry names. Source: spec metadata 12.5."""
    if resource_type == "content":
        return Kind.CONTENT, resource_id
    if resource_type == "images":
        return Kind.IMAGE, resource_id
    if resource_type == "ingests":
        return Kind.INGEST, resource_id
    if resource_type.startswith("snapshots/"):
        return Kind.SNAPSHOT, f"{resource_type.partition('/')[2]}/{resource_id}"
    return None
