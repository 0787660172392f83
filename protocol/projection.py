"""Decoding only what is asked for of a stored record, and cutting it down to that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from .errors import InvalidArgument
from .identifiers import quote

__all__ = ["cut_down", "part_decoder"]

_ENCODE = msgspec.msgpack.Encoder().encode


def part_decoder(
    record: type[msgspec.Struct], names: Collection[str], types: Mapping[str, Any] | None = None
) -> Callable[[Any], Any]:
    """A decoder of stored records that fills in the attributes in `names` and skips all others. `types` replaces
    an attribute's own type."""
    return _part_decoder(record, frozenset(names), tuple((types or {}).items()))


def cut_down(record: type[msgspec.Struct], fields: Collection[str]) -> Callable[[bytes], bytes] | None:
    """A function from a stored record to one with only `fields` and those that every record has; None when that
    is all of them. Raises InvalidArgument for a name that the record does not have."""
    if not fields:
        return None
    known = {field.name: field for field in msgspec.structs.fields(record)}
    for name in fields:
        if name not in known:
            raise InvalidArgument(
                f"field {quote(name)} of a {record.__name__.lower()}", hint=f"it has: {', '.join(known)}"
            )
    return _cut_down(record, frozenset(fields))


@lru_cache(256)
def _part_decoder(
    record: type[msgspec.Struct], names: frozenset[str], types: tuple[tuple[str, Any], ...]
) -> Callable[[Any], Any]:
    special = dict(types)
    members: list[Any] = []
    for field in msgspec.structs.fields(record):
        if field.name not in names:
            continue
        kind = special.get(field.name, field.type)
        if field.default is not msgspec.NODEFAULT:
            members.append((field.name, kind, field.default))
        elif field.default_factory is not msgspec.NODEFAULT:
            members.append((field.name, kind, msgspec.field(default_factory=field.default_factory)))
        else:
            members.append((field.name, kind))
    members.sort(key=len)  # those without a default first
    return msgspec.msgpack.Decoder(msgspec.defstruct(f"{record.__name__}Part", members)).decode


@lru_cache(256)
def _cut_down(record: type[msgspec.Struct], fields: frozenset[str]) -> Callable[[bytes], bytes]:
    """The values that are kept are copied as they are, undecoded."""
    members: list[Any] = []
    for field in msgspec.structs.fields(record):
        if field.default is not msgspec.NODEFAULT:
            default = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        else:
            members.append((field.name, msgspec.Raw))
            continue
        if field.name in fields:
            members.append((field.name, msgspec.Raw, msgspec.Raw(_ENCODE(default))))
    members.sort(key=len)
    decode = msgspec.msgpack.Decoder(msgspec.defstruct(f"{record.__name__}Part", members)).decode
    return lambda raw: _ENCODE(decode(raw))
