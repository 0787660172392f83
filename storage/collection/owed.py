"""Work that is too much for the transaction that caused it: edges of large records, entries of large leases.

What is owed is done before the collector goes on, so whatever the collector looks at is as the records say. Each piece
makes an edge present exactly if the owner's present record implies it, so pieces may be done twice, and the record may
change meanwhile. Source: gc-algorithm 4, DESIGN 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from .. import keys
from ..codec import encode, open_value, seal
from ..engine import Reader, Transaction
from ..references import Out
from .forest import Forest
from .state import Vertex

__all__ = ["OwedEdges", "OwedEntries", "OwedWindows", "Owed", "first_owed", "owe", "owe_edges", "owe_windows", "strike"]

EDGES_AT_ONCE: Final = 40


class OwedEdges(msgspec.Struct, frozen=True, tag="edges"):
    """Edges of one record that may have come or gone: (edge, kind, name, value) of each."""

    namespace: str
    kind: int
    name: str
    edges: list[tuple[str, int, str, bytes]]
    urgent: bool = False


class OwedEntries(msgspec.Struct, frozen=True, tag="entries"):
    """Entries of one life of a lease, from a cursor on: `prefix` is where their keys begin."""

    namespace: str
    lease: str
    prefix: bytes
    cursor: bytes = b""
    urgent: bool = False


class OwedWindows(msgspec.Struct, frozen=True, tag="windows"):
    """Instants at which conditions on a snapshot switch, from a cursor on."""

    namespace: str
    name: str
    cursor: bytes = b""
    urgent: bool = False


Owed = OwedEdges | OwedEntries | OwedWindows
_OWED: Final[msgspec.msgpack.Decoder[Owed]] = msgspec.msgpack.Decoder(OwedEdges | OwedEntries | OwedWindows)


async def owe(txn: Transaction, what: Owed) -> None:
    position = int.from_bytes(await txn.get(keys.OWED_HEAD) or b"", "big") + 1
    txn.index(keys.OWED_HEAD, keys.number(position))
    txn.index(keys.owed(position), seal(encode(what)))


async def owe_edges(forest: Forest, owner: Vertex, outs: Sequence[Out]) -> None:
    for at in range(0, len(outs), EDGES_AT_ONCE):
        piece = [(out.edge, int(out.kind), out.name, out.value) for out in outs[at : at + EDGES_AT_ONCE]]
        await owe(forest.txn, OwedEdges(owner.namespace, owner.kind, owner.name, piece, forest.urgent))


async def owe_windows(forest: Forest, snapshot: Vertex) -> None:
    await owe(forest.txn, OwedWindows(snapshot.namespace, snapshot.name))


async def first_owed(reader: Reader) -> tuple[int, Owed] | None:
    """What is owed longest, and its place."""
    floor = int.from_bytes(await reader.get(keys.OWED_FLOOR) or b"", "big")
    head = int.from_bytes(await reader.get(keys.OWED_HEAD) or b"", "big")
    if floor == head:
        return None
    found = await reader.scan(keys.owed(floor + 1), keys.prefix_end(keys.OWED), 1)
    if not found:
        return None
    key, value = found[0]
    return int.from_bytes(key[len(keys.OWED) :], "big"), _OWED.decode(open_value(value, key)[1])


def strike(txn: Transaction, position: int) -> None:
    txn.index(keys.owed(position), None)
    txn.index(keys.OWED_FLOOR, keys.number(position))


def put_back(txn: Transaction, position: int, what: Owed) -> None:
    """The rest of it, at the same place."""
    txn.index(keys.owed(position), seal(encode(what)))
