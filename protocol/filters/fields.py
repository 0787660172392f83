"""Which fields of each resource a filter can ask for, and when each is present.

A path's first part names a field here. Behind a map the remaining parts, joined by dots, are the key; behind a
leaf they are ignored. What is not named here is absent, never an error. Source: spec metadata 7.3 and 14.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec

from ..records import Any_, Container, ContentInfo, Event, Image, Lease, Opaque, Sandbox, SnapshotInfo

__all__ = [
    "CONTAINER",
    "CONTENT",
    "EVENT",
    "IMAGE",
    "INGEST",
    "LEASE",
    "PLUGIN",
    "SANDBOX",
    "SNAPSHOT",
    "Filterable",
    "Getter",
]

Getter = Callable[[Any], str | None]
"""The value of a field of a record, None where it is absent."""


@dataclass(frozen=True)
class Leaf:
    """A text; absent when it is empty, unless it is `always` there."""

    attribute: str
    always: bool = False

    def getter(self, _: tuple[str, ...]) -> Getter:
        read = attrgetter(self.attribute)
        return read if self.always else lambda record: read(record) or None


@dataclass(frozen=True)
class Keyed:
    """A map from text to text; present is a key that is in it."""

    attribute: str

    def getter(self, rest: tuple[str, ...]) -> Getter:
        read, key = attrgetter(self.attribute), ".".join(rest)
        return lambda record: read(record).get(key)


@dataclass(frozen=True)
class Group:
    """Named leaves under one name, which alone is absent."""

    attribute: str
    leaves: Mapping[str, Leaf]

    def getter(self, rest: tuple[str, ...]) -> Getter:
        leaf = self.leaves.get(rest[0]) if rest else None
        return _absent if leaf is None else leaf.getter(rest[1:])


@dataclass(frozen=True)
class Payload:
    """An event's payload: its texts, its maps, and what lies in its structures, by the names on the wire."""

    attribute: str

    def getter(self, rest: tuple[str, ...]) -> Getter:
        read = attrgetter(self.attribute)
        return lambda record: _inside(read(record), rest)


@dataclass(frozen=True)
class Filterable:
    """What a filter can ask of one resource. `types` gives the type of an attribute where the record's own is
    not what a filter compares."""

    record: type[msgspec.Struct]
    fields: Mapping[str, Leaf | Keyed | Group | Payload]
    types: Mapping[str, type] | None = None

    def getter(self, path: tuple[str, ...]) -> tuple[Getter, str | None]:
        """How to read the field of a path, and which attribute of the record that needs."""
        field = self.fields.get(path[0])
        if field is None:
            return _absent, None
        return field.getter(path[1:]), field.attribute.partition(".")[0]


class _Reference(msgspec.Struct, frozen=True):
    ref: str


class _Plugin(msgspec.Struct, frozen=True):
    type: str
    id: str


_LABELS = {"labels": Keyed("labels")}

CONTAINER = Filterable(
    Container,
    {
        "id": Leaf("id"),
        "image": Leaf("image"),
        "runtime": Group("runtime", {"name": Leaf("runtime.name")}),
        **_LABELS,
    },
)
IMAGE = Filterable(
    Image,
    {
        "name": Leaf("name"),
        "target": Group("target", {"digest": Leaf("target.digest"), "mediatype": Leaf("target.media_type")}),
        "annotations": Keyed("target.annotations"),
        **_LABELS,
    },
)
LEASE = Filterable(Lease, {"id": Leaf("id"), **_LABELS})
SANDBOX = Filterable(Sandbox, {"id": Leaf("sandbox_id", always=True), **_LABELS})
CONTENT = Filterable(ContentInfo, {"digest": Leaf("digest", always=True), **_LABELS})
INGEST = Filterable(_Reference, {"ref": Leaf("ref", always=True)})
SNAPSHOT = Filterable(
    SnapshotInfo,
    {"kind": Leaf("kind"), "name": Leaf("name", always=True), "parent": Leaf("parent", always=True), **_LABELS},
    types={"kind": str},
)
PLUGIN = Filterable(_Plugin, {"type": Leaf("type"), "id": Leaf("id")})
EVENT = Filterable(Event, {"namespace": Leaf("namespace"), "topic": Leaf("topic"), "event": Payload("event")})


def _absent(_: object) -> str | None:
    return None


def _inside(value: Any, path: tuple[str, ...]) -> str | None:
    while isinstance(value, msgspec.Struct) and not isinstance(value, Opaque | Any_):
        if not path:
            return None
        value, path = getattr(value, _attributes(type(value)).get(path[0], ""), None), path[1:]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        value = value.get(".".join(path))
        return value if isinstance(value, str) else None
    return (value or None) if isinstance(value, str) else None


def _attributes(kind: type[msgspec.Struct]) -> dict[str, str]:
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    return found


_known: dict[type[msgspec.Struct], dict[str, str]] = {}
