"""Records and what follows from them: edges, instants, holders. Source: gc-algorithm 7."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

import msgspec

from ...protocol.errors import OrlopError
from ...protocol.messages import Problem
from ...protocol.records import ContentInfo, Lease, LeaseResource, SnapshotInfo
from .. import keys
from ..codec import open_value, read_record
from ..collection.changes import edge_added, edge_removed, set_window
from ..collection.forest import Forest, edge_key, parse_owner
from ..collection.kinds import KIND_OF, LETTERS, decode_record, find_record
from ..collection.owed import OwedEdges, OwedEntries, OwedWindows
from ..collection.state import Vertex
from ..engine import Kind, Reader, Transaction
from ..lease_entries import entry_present, page_targets
from ..references import EdgeKind, Out, edges, expires_at, switches_at, used_at
from ..tables import ensure_namespace
from .flaw import Flaw, Page, delete_key, page_of
from .folders import audit_record_of_snapshot
from .states import wake_again

__all__ = ["audit_edges", "audit_instants", "audit_records"]

_AT_ONCE: Final = 100
_ENTRIES_AT_ONCE: Final = 1000
_ENTRY: Final = EdgeKind.ENTRY.value
_CONDITION: Final = EdgeKind.CONDITION.value
_OWED: Final[msgspec.msgpack.Decoder[OwedEdges | OwedEntries | OwedWindows]] = msgspec.msgpack.Decoder(
    OwedEdges | OwedEntries | OwedWindows
)
_UNREADABLE: Final = (OrlopError, msgspec.MsgspecError)


async def audit_records(reader: Reader, after: bytes) -> Page:
    """Every record decodes, its edges stand at their other ends, and the collector knows of it."""
    page, following = await page_of(reader, keys.RECORDS, after, _AT_ONCE)
    flaws: list[Flaw] = []
    spaces: set[str] = set()
    for key, value in page:
        space, _, rest = key[len(keys.RECORDS) :].partition(b"\x00")
        try:
            namespace, kind, name = space.decode(), KIND_OF[rest[:1]], rest[1:].decode()
        except (KeyError, UnicodeDecodeError):
            flaws.append(Flaw(Problem.RECORD, "", "key", key.hex(), "its key says nothing"))
            continue
        if namespace not in spaces:
            spaces.add(namespace)
            if await reader.get(keys.namespace(namespace)) is None:
                mend = partial(_bring_back_namespace, namespace=namespace)
                detail = "it has records, and is not there; its labels are lost"
                flaws.append(Flaw(Problem.REFERENCE, namespace, "namespace", namespace, detail, mend))
        try:
            record = decode_record(kind, await read_record(reader, key, value))
        except _UNREADABLE as error:
            flaws.append(Flaw(Problem.RECORD, namespace, _word(kind), name, str(error)))
            continue
        if record is not None:
            flaws += await _audit_record(reader, Vertex(namespace, kind, name), record)
    return Page(await _without_owed(reader, flaws), len(page), following)


async def _audit_record(reader: Reader, vertex: Vertex, record: msgspec.Struct) -> list[Flaw]:
    namespace, kind, name, _ = vertex
    outs = edges(record)
    if isinstance(record, Lease):
        outs += await _entries(reader, namespace, record)
    flaws = []
    for out in outs:
        key, value = edge_key(namespace, kind, name, out)
        if await reader.get(key) != value:
            mend = partial(_put_edge, vertex=vertex, out=out)
            detail = f"to {_word(out.kind)} {out.name} is missing"
            flaws.append(Flaw(Problem.REFERENCE, namespace, _word(kind), name, detail, mend))
        elif out.edge == _CONDITION:
            flaws += await _audit_windows(reader, namespace, out)
    expires = expires_at(record)
    if expires is not None:
        key = keys.instant_of(expires + 1, namespace, LETTERS[kind], name)
        if await reader.get(key) is None:
            mend_alarm = partial(_put_alarm, vertex=vertex)
            flaws.append(Flaw(Problem.REFERENCE, namespace, _word(kind), name, "no alarm at its end", mend_alarm))
    if await reader.get(keys.state(namespace, LETTERS[kind], name)) is None:
        mend_state = partial(wake_again, vertex=vertex)
        flaws.append(Flaw(Problem.STATE, namespace, _word(kind), name, "nothing is known of it", mend_state))
    if isinstance(record, ContentInfo):
        key = keys.blob_holders(name) + namespace.encode()
        if await reader.get(key) is None:
            mend_holder = partial(_put_holder, vertex=vertex)
            flaws.append(Flaw(Problem.HOLDERS, namespace, "content", name, "is not said to hold it", mend_holder))
    elif isinstance(record, SnapshotInfo):
        flaws += await audit_record_of_snapshot(reader, namespace, name, record)
    return flaws


async def _entries(reader: Reader, namespace: str, lease: Lease) -> list[Out]:
    found: list[Out] = []
    after = b""
    while True:
        page = await page_targets(reader, namespace, lease, after, _ENTRIES_AT_ONCE)
        found += [Out(_ENTRY, kind, name, b"F" if flat else b"N") for _, kind, name, flat in page]
        if len(page) < _ENTRIES_AT_ONCE:
            return found
        after = page[-1][0]


async def _audit_windows(reader: Reader, namespace: str, out: Out) -> list[Flaw]:
    """The collector will hear of the instants at which a condition switches."""
    try:
        used = used_at(await find_record(reader, namespace, out.kind, out.name))
    except _UNREADABLE:
        return []
    flaws = []
    for at in switches_at(out.value, used) if used is not None else ():
        if await reader.get(keys.instant_of(at, namespace, LETTERS[out.kind], out.name)) is None:
            mend = partial(_put_window, snapshot=Vertex(namespace, out.kind, out.name), out=out)
            detail = "no alarm where a condition on it switches"
            flaws.append(Flaw(Problem.REFERENCE, namespace, "snapshot", out.name, detail, mend))
    return flaws


async def _without_owed(reader: Reader, flaws: list[Flaw]) -> list[Flaw]:
    """Edges and alarms that are owed are put right before the collector goes on."""
    if not any(flaw.problem is Problem.REFERENCE for flaw in flaws):
        return flaws
    owed: set[tuple[str, str, str]] = set()
    for key, value in await reader.scan(keys.OWED, keys.prefix_end(keys.OWED), 1_000_000):
        try:
            what = _OWED.decode(open_value(value, key)[1])
        except _UNREADABLE:
            continue
        if isinstance(what, OwedEdges):
            owed.add((what.namespace, _word(Kind(what.kind)), what.name))
        elif isinstance(what, OwedEntries):
            owed.add((what.namespace, "lease", what.lease))
        else:
            owed.add((what.namespace, "snapshot", what.name))
    return [
        flaw
        for flaw in flaws
        if flaw.problem is not Problem.REFERENCE or (flaw.namespace, flaw.kind, flaw.name) not in owed
    ]


# edges and instants, from their own side --------------------------------------------------------------------


class _Edge(NamedTuple):
    """`out` None: the other end has a name so long that only its hash stands there."""

    owner: Vertex
    edge: str
    out: Out | None


async def audit_edges(reader: Reader, after: bytes, region: bytes) -> Page:
    """Every edge is implied by the record of its owner."""
    page, following = await page_of(reader, region, after, _AT_ONCE)
    flaws: list[Flaw] = []
    known: dict[Vertex, set[bytes] | None] = {}
    for key, value in page:
        delete = partial(_delete_unnamed, key=key)
        try:
            space, letter, name, end = keys.about(key)
            if end == keys.STATE_MARK and region == keys.EDGES:
                continue  # looked at among the states
            owner, edge, out = _parse(region, space, KIND_OF[letter], name, end, value)
        except (KeyError, ValueError, IndexError, msgspec.MsgspecError):
            flaws.append(Flaw(Problem.REFERENCE, "", "key", key.hex(), "a reference that says nothing", delete))
            continue
        try:
            implied = await _implied(reader, key, owner, edge, out, known)
        except _UNREADABLE:
            continue  # of a record that is reported itself
        if not implied:
            mend = partial(_delete_edge, owner=owner, out=out) if out is not None else delete
            detail = f"a stray one to {_word(out.kind)} {out.name}" if out is not None else "a stray one to a long name"
            flaws.append(Flaw(Problem.REFERENCE, owner.namespace, _word(owner.kind), owner.name, detail, mend))
    return Page(await _without_owed(reader, flaws), len(page), following)


def _parse(region: bytes, namespace: str, kind: Kind, name: str | None, end: bytes, value: bytes) -> _Edge:
    if region == keys.EDGES:
        edge, owner_kind, owner = parse_owner(end, value)
    else:
        edge, owner_kind, owner = parse_owner(b"b" + end, b"" if end[1:2] == b"\x01" else _long(value))
    source = Vertex(namespace, owner_kind, owner)
    return _Edge(source, edge, None if name is None else Out(edge, kind, name, value if edge == _ENTRY else b""))


def _long(name: bytes) -> bytes:
    return msgspec.msgpack.encode((b"", name))


async def _implied(
    reader: Reader, key: bytes, owner: Vertex, edge: str, out: Out | None, known: dict[Vertex, set[bytes] | None]
) -> bool:
    if edge == _ENTRY and out is not None:
        return await _entry_implied(reader, owner, out)
    if owner not in known:
        record = await find_record(reader, owner.namespace, owner.kind, owner.name)
        outs = edges(record) if record is not None else []
        if isinstance(record, Lease):
            outs += await _entries(reader, owner.namespace, record)
        known[owner] = {edge_key(owner.namespace, owner.kind, owner.name, each)[0] for each in outs}
    return key in (known[owner] or ())


async def _entry_implied(reader: Reader, owner: Vertex, out: Out) -> bool:
    lease = await find_record(reader, owner.namespace, Kind.LEASE, owner.name)
    resource = _resource(out)
    if not isinstance(lease, Lease) or resource is None:
        return False
    return await entry_present(reader, owner.namespace, lease, resource)


def _resource(out: Out) -> LeaseResource | None:
    if out.kind is Kind.SNAPSHOT:
        snapshotter, _, key = out.name.partition("/")
        return LeaseResource(key, f"snapshots/{snapshotter}")
    kind = {Kind.CONTENT: "content", Kind.IMAGE: "images", Kind.INGEST: "ingests"}.get(out.kind)
    return None if kind is None else LeaseResource(out.name, kind)


async def audit_instants(reader: Reader, after: bytes) -> Page:
    """Every alarm is that of a record; those of snapshots go by themselves when they ring."""
    page, following = await page_of(reader, keys.TIMES, after, _AT_ONCE)
    flaws: list[Flaw] = []
    for key, _ in page:
        at, rest = int.from_bytes(key[len(keys.TIMES) :][:8], "big"), key[len(keys.TIMES) + 8 :]
        space, _, end = rest.partition(b"\x00")
        mend = partial(delete_key, key=key)
        try:
            namespace, kind, name = space.decode(), KIND_OF[end[:1]], end[1:].decode()
        except (KeyError, UnicodeDecodeError):
            flaws.append(Flaw(Problem.REFERENCE, "", "key", key.hex(), "an alarm that says nothing", mend))
            continue
        if kind is Kind.SNAPSHOT:
            continue
        try:
            expires = expires_at(await find_record(reader, namespace, kind, name))
        except _UNREADABLE:
            continue
        if expires is None or keys.instant(expires + 1) != keys.instant(at):
            flaws.append(Flaw(Problem.REFERENCE, namespace, _word(kind), name, "a stray alarm", mend))
    return Page(flaws, len(page), following)


# mending ----------------------------------------------------------------------------------------------------


async def _put_edge(txn: Transaction, vertex: Vertex, out: Out) -> None:
    forest = await Forest.load(txn)
    record = await forest.record(vertex)
    if out.edge == _ENTRY:
        implied = await _entry_implied(txn, vertex, out)
    else:
        implied = record is not None and out in edges(record)
    key, value = edge_key(vertex.namespace, vertex.kind, vertex.name, out)
    present = await txn.get(key)
    if implied and present != value:
        if present is not None:
            await edge_removed(forest, vertex, out._replace(value=present))
        await edge_added(forest, vertex, out)
        txn.made_garbage()
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
        txn.made_garbage()
    forest.save()


async def _delete_unnamed(txn: Transaction, key: bytes) -> None:
    """An edge of which it is not known where it leads."""
    space, _, _ = key[len(keys.BACK_EDGES) :].partition(b"\x00")
    if key.startswith(keys.BACK_EDGES) and await txn.get(key) is not None:
        counter = keys.back_count(space.decode("utf-8", "replace"))
        left = int.from_bytes(await txn.get(counter) or b"", "big") - 1
        txn.index(counter, keys.number(left) if left > 0 else None)
    txn.index(key, None)


async def _put_alarm(txn: Transaction, vertex: Vertex) -> None:
    forest = await Forest.load(txn)
    expires = expires_at(await forest.record(vertex))
    if expires is not None:
        forest.write(keys.instant_of(expires + 1, vertex.namespace, LETTERS[vertex.kind], vertex.name), b"")
        txn.expires(expires + 1)
        # It may have rung meanwhile.
        state = await forest.state(vertex)
        if state.anchored and expires < txn.now_ns:
            await forest.suspect(vertex, state)
            txn.made_garbage()
    forest.save()


async def _put_window(txn: Transaction, snapshot: Vertex, out: Out) -> None:
    forest = await Forest.load(txn)
    used = used_at(await forest.record(snapshot))
    for at in switches_at(out.value, used) if used is not None else ():
        set_window(forest, snapshot, at)
    state = await forest.state(snapshot)
    if state.anchored:
        await forest.suspect(snapshot, state)
    elif state.witness is None and not forest.is_doomed(state):
        await forest.wake(snapshot, state)
    txn.made_garbage()
    forest.save()


async def _put_holder(txn: Transaction, vertex: Vertex) -> None:
    if await find_record(txn, vertex.namespace, vertex.kind, vertex.name) is not None:
        txn.index(keys.blob_holders(vertex.name) + vertex.namespace.encode(), b"")


async def _bring_back_namespace(txn: Transaction, namespace: str) -> None:
    await ensure_namespace(txn, namespace)


def _word(kind: Kind) -> str:
    return kind.name.lower()
