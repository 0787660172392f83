"""The kinds of resources that are collected, and where a further one is added.

A kind has records under a letter of its own (`keys`), says what they refer to (`references.edges`) and when they are
roots, and how one is taken away with all that belongs to it. Streams and mounts are numbered and kept by no part of
orlop: whoever keeps them calls `register`, and writes their records through a `Table` of that kind. Source: spec gc 11.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec

from .. import keys
from ..codec import decoder, read_record
from ..engine import Kind, Reader, Transaction
from ..references import LABELLED_KINDS

__all__ = ["KIND_OF", "LETTERS", "Remove", "decode_record", "find_record", "register", "remover", "size_of"]


Remove = Callable[[Transaction, str, str], Awaitable[None]]


Size = Callable[[Reader, str, str], Awaitable[int]]


class _Rules(NamedTuple):
    letter: bytes
    decode: Callable[[bytes], msgspec.Struct]
    remove: Remove
    size: Size | None


_RULES: Final[dict[Kind, _Rules]] = {}
LETTERS: Final[dict[Kind, bytes]] = {
    Kind.CONTENT: keys.RecordKind.CONTENT.value,
    Kind.SNAPSHOT: keys.RecordKind.SNAPSHOT.value,
    Kind.CONTAINER: keys.RecordKind.CONTAINER.value,
    Kind.IMAGE: keys.RecordKind.IMAGE.value,
    Kind.LEASE: keys.RecordKind.LEASE.value,
    Kind.INGEST: keys.RecordKind.INGEST.value,
    Kind.STREAM: keys.RecordKind.STREAM.value,
    Kind.MOUNT: keys.RecordKind.MOUNT.value,
    Kind.SANDBOX: keys.RecordKind.SANDBOX.value,
}
KIND_OF: Final = {letter: kind for kind, letter in LETTERS.items()}


def register(
    kind: Kind, record: type[msgspec.Struct], remove: Remove, label: str = "", size: Size | None = None
) -> None:
    """Make a kind known. `label`: the word by which `containerd.io/gc.ref.<label>` refers to it; empty: none does.
    `size`: how many bytes an object has, 0 if there is none by that name."""
    _RULES[kind] = _Rules(LETTERS[kind], decoder(record).decode, remove, size)
    if label:
        LABELLED_KINDS[label] = kind


def remover(kind: Kind) -> Remove:
    return _RULES[kind].remove


def size_of(kind: Kind) -> Size | None:
    rules = _RULES.get(kind)
    return None if rules is None else rules.size


def decode_record(kind: Kind, payload: bytes) -> msgspec.Struct | None:
    """None: nobody who runs here knows records of this kind."""
    rules = _RULES.get(kind)
    return None if rules is None else rules.decode(payload)


async def find_record(reader: Reader, namespace: str, kind: Kind, name: str) -> msgspec.Struct | None:
    """An object's record, also one that is being swept."""
    rules = _RULES.get(kind)
    if rules is None:
        return None
    key = keys.records(namespace, rules.letter) + name.encode()
    value = await reader.get(key)
    return None if value is None else rules.decode(await read_record(reader, key, value))
