"""Records and what follows from them: edges, instants, what the collector knows. Source: gc-algorithm 7."""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from ...protocol.errors import OrlopError
from ...protocol.messages import Problem
from ...protocol.records import Lease, LeaseResource
from .. import keys
from ..codec import read_record
from ..collection.changes import edge_added, edge_removed
from ..collection.forest import Forest, edge_key, parse_owner
from ..collection.kinds import KIND_OF, LETTERS, decode_record, find_record
from ..collection.state import Vertex
from ..engine import Kind, Reader, Transaction
from ..lease_entries import entry_present, page_targets
from ..references import EdgeKind, Out, edges, expires_at
from .flaw import Flaw, Page

__all__ = ["audit_edges", "audit_records", "suspect_again", "wake_again"]

_AT_ONCE: Final = 100
_ENTRIES_AT_ONCE: Final = 1000
_ENTRY: Final = EdgeKind.ENTRY.value


async def audit_records(reader: Reader, after: bytes) -> Page:
    """Every record decodes, its edges stand at their other ends, and the collector knows of it."""
    page = await reader.scan(after or keys.RECORDS, keys.prefix_end(keys.RECORDS), _AT_ONCE)
    flaws: list[Flaw] = []
    for key, value in page:
        space, _, rest = key[len(keys.RECORDS) :].partition(b"\x00")
        namespace, kind, name = space.decode(), KIND_OF[rest[:1]], rest[1:].decode()
        try:
            record = decode_record(kind, await read_record(reader, key, value))
        except (OrlopError, msgspec.MsgspecError) as error:
            flaws.append(Flaw(Problem.RECORD, namespace, _word(kind), name, str(error)))
            continue
        if record is not None:
            flaws += await _audit_record(reader, Vertex(namespace, kind, name), record)
    return Page(flaws, len(page), page[-1][0] + b"\x00" if len(page) == _AT_ONCE else b"")


async def _audit_record(reader: Reader, vertex: Vertex, record: msgspec.Struct) -> list[Flaw]:
    namespace, kind, name, _ = vertex
    outs = edges(record)
    if isinstance(record, Lease):
        for _, target, target_name, flat in await page_targets(reader, namespace, record, b"", _ENTRIES_AT_ONCE):
            outs.append(Out(_ENTRY, target, target_name, b"F" if flat else b"N"))
    flaws = []
    for out in outs:
        key, value = edge_key(namespace, kind, name, out)
        if await reader.get(key) != value:
            mend = partial(_put_edge, vertex=vertex, out=out)
            detail = f"to {_word(out.kind)} {out.name} is missing"
            flaws.append(Flaw(Problem.REFERENCE, namespace, _word(kind), name, detail, mend))
    expires = expires_at(record)
    if expires is not None:
        key = keys.instant_of(expires + 1, namespace, LETTERS[kind], name)
        if await reader.get(key) is None:
            mend_alarm = partial(_put_alarm, vertex=vertex)
            flaws.append(Flaw(Problem.REFERENCE, namespace, _word(kind), name, "no alarm at its end", mend_alarm))
    if await reader.get(keys.state(namespace, LETTERS[kind], name)) is None:
        mend_state = partial(wake_again, vertex=vertex)
        flaws.append(Flaw(Problem.STATE, namespace, _word(kind), name, "nothing is known of it", mend_state))
    return flaws


async def audit_edges(reader: Reader, region: bytes, after: bytes) -> Page:
    """Every edge is implied by the record of its owner."""
    page = await reader.scan(after or region, keys.prefix_end(region), _AT_ONCE)
    flaws: list[Flaw] = []
    known: dict[Vertex, dict[tuple[str, Kind, str], Out]] = {}
    for key, value in page:
        parsed = _parse(region, key, value)
        if parsed is None:
            continue  # a name so long that only its hash stands there; its owner's record was looked at
        owner, out = parsed
        if out.edge == _ENTRY:
            implied = await _entry_implied(reader, owner, out)
        else:
            if owner not in known:
                record = await find_record(reader, owner.namespace, owner.kind, owner.name)
                known[owner] = {(o.edge, o.kind, o.name): o for o in edges(record)} if record is not None else {}
            implied = (out.edge, out.kind, out.name) in known[owner]
        if not implied:
            mend = partial(_delete_edge, owner=owner, out=out)
            detail = f"a stray one to {_word(out.kind)} {out.name}"
            flaws.append(Flaw(Problem.REFERENCE, owner.namespace, _word(owner.kind), owner.name, detail, mend))
    return Page(flaws, len(page), page[-1][0] + b"\x00" if len(page) == _AT_ONCE else b"")


def _parse(region: bytes, key: bytes, value: bytes) -> tuple[Vertex, Out] | None:
    space, _, rest = key[len(region) :].partition(b"\x00")
    kind, rest = KIND_OF[rest[:1]], rest[1:]
    if rest.startswith(b"\x00\x02"):
        return None
    name, end = keys.unescape(rest)
    edge_end = end if region == keys.EDGES else b"b" + end
    edge, owner_kind, owner = parse_owner(edge_end, value if region == keys.EDGES else b"")
    return Vertex(space.decode(), owner_kind, owner), Out(edge, kind, name, value if edge == _ENTRY else b"")


async def _entry_implied(reader: Reader, owner: Vertex, out: Out) -> bool:
    lease = await find_record(reader, owner.namespace, Kind.LEASE, owner.name)
    if not isinstance(lease, Lease):
        return False
    return await entry_present(reader, owner.namespace, lease, _resource(out))


def _resource(out: Out) -> LeaseResource:
    if out.kind is Kind.SNAPSHOT:
        snapshotter, _, key = out.name.partition("/")
        return LeaseResource(key, f"snapshots/{snapshotter}")
    return LeaseResource(out.name, {Kind.CONTENT: "content", Kind.IMAGE: "images", Kind.INGEST: "ingests"}[out.kind])


# mending ----------------------------------------------------------------------------------------------------


async def _put_edge(txn: Transaction, vertex: Vertex, out: Out) -> None:
    forest = await Forest.load(txn)
    record = await forest.record(vertex)
    if out.edge == _ENTRY:
        implied = await _entry_implied(txn, vertex, out)
    else:
        implied = record is not None and out in edges(record)
    if implied:
        await edge_added(forest, vertex, out)
    forest.save()


async def _delete_edge(txn: Transaction, owner: Vertex, out: Out) -> None:
    forest = await Forest.load(txn)
    record = await forest.record(owner)
    if out.edge == _ENTRY:
        implied = await _entry_implied(txn, owner, out)
    else:
        implied = record is not None and any((o.edge, o.kind, o.name) == out[:3] for o in edges(record))
    if not implied:
        await edge_removed(forest, owner, out)
    forest.save()


async def _put_alarm(txn: Transaction, vertex: Vertex) -> None:
    forest = await Forest.load(txn)
    expires = expires_at(await forest.record(vertex))
    if expires is not None:
        forest.write(keys.instant_of(expires + 1, vertex.namespace, LETTERS[vertex.kind], vertex.name), b"")
        txn.expires(expires + 1)


async def wake_again(txn: Transaction, vertex: Vertex) -> None:
    """Let the collector look whether it is alive. Always safe."""
    forest = await Forest.load(txn)
    state = await forest.state(vertex)
    if state.witness is None and not forest.is_doomed(state):
        await forest.wake(vertex, state)
        txn.made_garbage()
    forest.save()


async def suspect_again(txn: Transaction, vertex: Vertex) -> None:
    """Let the collector look whether it is dead. Always safe."""
    forest = await Forest.load(txn)
    state = await forest.state(vertex)
    if state.anchored:
        await forest.suspect(vertex, state)
        txn.made_garbage()
    forest.save()


def _word(kind: Kind) -> str:
    return kind.name.lower()
