"""What must hold of the witness forest: after every transaction, when a round is sealed, and at rest.

Source: gc-algorithm 7 and 10.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from orlop.protocol.records import Lease
from orlop.storage import keys
from orlop.storage.collection.forest import edge_key
from orlop.storage.collection.kinds import KIND_OF, LETTERS, decode_record
from orlop.storage.collection.mark import Graph, Node, mark, read_graph
from orlop.storage.collection.owed import first_owed
from orlop.storage.collection.state import (
    IDLE,
    ROOT,
    Clock,
    Mode,
    Phase,
    State,
    Vertex,
    decode_clock,
    decode_extent,
    decode_item,
    decode_states,
    parse_state,
)
from orlop.storage.collection.walk import walk_usage
from orlop.storage.engine import Kind, Transaction
from orlop.storage.lease_entries import page_targets
from orlop.storage.references import FLAT_KINDS, edges, expires_at, holds, used_at
from orlop.storage.usage import BytesHeld, read_usage
from tests.support.histories import World

FAR = 10_000


async def _nothing() -> None:
    pass


class Seen:
    """Everything of one state of the store that the checks look at."""

    def __init__(self, world: World) -> None:
        world.read(self._read)

    async def _read(self, txn: Transaction) -> None:
        self.clock: Clock = decode_clock(await txn.get(keys.CLOCK))
        self.owed = await first_owed(txn) is not None
        self.states: dict[Vertex, State] = {}
        edges = []
        for key, value in await _region(txn, keys.EDGES):
            vertex = parse_state(key, value)
            if vertex is None:
                edges.append((key, value))
                continue
            for flat, state in enumerate(decode_states(value)):
                if state != IDLE:
                    self.states[vertex._replace(flat=bool(flat))] = state
        self.queue = {key: decode_item(value) for key, value in await _region(txn, keys.QUEUE)}
        extents = await _region(txn, keys.QUEUE_EXTENTS)
        self.extents = {key[3:]: decode_extent(value) for key, value in extents}
        back_edges = await _region(txn, keys.BACK_EDGES)
        self.edge_keys = {*edges, *back_edges}
        self.instants = {key for key, _ in await _region(txn, keys.TIMES)}
        self.records: dict[Vertex, msgspec.Struct] = {}
        self.entries: dict[Vertex, list[tuple[Kind, str, bool]]] = {}
        self.graphs: dict[str, Graph] = {}
        self.marked: dict[str, set[Node]] = {}
        namespaces = {_split(key)[0] for key, _ in await _region(txn, keys.NAMESPACES[:1] + b"r")}
        for key, value in await _region(txn, keys.NAMESPACES[:1] + b"r"):
            namespace, rest = _split(key)
            kind = KIND_OF[rest[:1]]
            vertex = Vertex(namespace, kind, rest[1:].decode())
            record = decode_record(kind, value[5:])
            assert record is not None
            self.records[vertex] = record
            if isinstance(record, Lease):
                page = await page_targets(txn, namespace, record, b"", FAR)
                self.entries[vertex] = [(kind, name, flat) for _, kind, name, flat in page]
        self.backs = Counter(_split(key)[0] for key, _ in back_edges)
        self.counted_backs = {
            namespace: int.from_bytes(await txn.get(keys.back_count(namespace)) or b"", "big")
            for namespace in namespaces | set(self.backs)
        }
        for namespace in namespaces | {vertex.namespace for vertex in self.states}:
            graph = await read_graph(txn, namespace, self.clock.time, _nothing)
            self.graphs[namespace] = graph
            self.marked[namespace] = await mark(graph, self.clock.time, _nothing)

    def doomed(self, vertex: Vertex) -> bool:
        state = self.states.get(vertex, IDLE)
        return state.phase == Phase.SWEEP and state.round in self.clock.sealed

    def gone(self, vertex: Vertex) -> bool:
        """Its round is sealed, so it is no more, though its record still is."""
        variants = [vertex._replace(flat=flat) for flat in (False, True)]
        known = [each for each in variants if each in self.states]
        return bool(known) and all(self.doomed(each) for each in known)

    def marks(self, vertex: Vertex) -> bool:
        return Node(vertex.kind, vertex.name, vertex.flat) in self.marked.get(vertex.namespace, set())


async def _region(txn: Transaction, prefix: bytes) -> list[tuple[bytes, bytes]]:
    return await txn.scan(prefix, keys.prefix_end(prefix), 10**6)


def _split(key: bytes) -> tuple[str, bytes]:
    namespace, _, rest = key[2:].partition(b"\x00")
    return namespace.decode(), rest


def check_always(seen: Seen) -> None:
    check_pointers(seen)
    if not seen.owed:
        check_keys(seen)
        if seen.clock.ticking is None:
            check_witnesses(seen)
            check_reached(seen)
    check_tracked(seen)


def check_pointers(seen: Seen) -> None:
    """States and queue point at each other."""
    expected = {}
    for vertex, state in seen.states.items():
        if state.phase:
            expected[keys.queued(state.round, state.phase, state.sequence)] = vertex
        if state.push:
            expected[keys.queued(state.push_round, Phase.RESCUES, state.push)] = vertex
    assert {key: item.vertex for key, item in seen.queue.items()} == expected
    counts: dict[bytes, list[int]] = {}
    for key in seen.queue:
        counts.setdefault(key[2:11], []).append(int.from_bytes(key[11:], "big"))
    assert {phase: extent.count for phase, extent in seen.extents.items()} == {k: len(v) for k, v in counts.items()}
    for phase, numbers in counts.items():
        assert seen.extents[phase].first <= min(numbers)


def check_keys(seen: Seen) -> None:
    """Edges and instants are what the records say, and back references are counted."""
    assert all(seen.backs[namespace] == count for namespace, count in seen.counted_backs.items())
    expected: set[tuple[bytes, bytes]] = set()
    instants: set[bytes] = set()
    for vertex, record in seen.records.items():
        for out in edges(record):
            expected.add(edge_key(vertex.namespace, vertex.kind, vertex.name, out))
        if (expires := expires_at(record)) is not None:
            instants.add(keys.instant_of(expires + 1, vertex.namespace, LETTERS[vertex.kind], vertex.name))
    for lease, targets in seen.entries.items():
        for kind, name, flat in targets:
            key = keys.edges_to(lease.namespace, LETTERS[kind], name) + b"z" + keys.owner(b"l", lease.name)[0]
            expected.add((key, b"F" if flat else b"N"))
    assert seen.edge_keys == expected, (seen.edge_keys - expected, expected - seen.edge_keys)
    letter = LETTERS[Kind.SNAPSHOT]
    of_records = {key for key in seen.instants if key[10:].partition(b"\x00")[2][:1] != letter}
    assert of_records == instants


def _sources(seen: Seen, vertex: Vertex) -> list[tuple[Any, Vertex]]:
    """Edges that conduct to a vertex now, each with its source, off the records."""
    found = []
    for target, links in _edge_index(seen).items():
        if target == vertex:
            found += links
    return found


def _edge_index(seen: Seen) -> dict[Vertex, list[tuple[tuple[str, int, str], Vertex]]]:
    cached = getattr(seen, "_index", None)
    if cached is not None:
        return cached
    index: dict[Vertex, list[tuple[tuple[str, int, str], Vertex]]] = {}

    def add(edge: str, source: Vertex, target: Vertex) -> None:
        index.setdefault(target, []).append(((edge, int(source.kind), source.name), source))

    for vertex, record in seen.records.items():
        for out in edges(record):
            other = Vertex(vertex.namespace, out.kind, out.name)
            if out.edge == "b":
                add("b", other, vertex)
                continue
            if out.edge == "q":
                target = seen.records.get(other)
                if target is None or seen.gone(other) or not holds(out.value, used_at(target), seen.clock.time):
                    continue
            add(out.edge, vertex, other)
            if out.edge == "a" and vertex.kind in FLAT_KINDS:
                add("a", vertex._replace(flat=True), other._replace(flat=True))
    for lease, targets in seen.entries.items():
        for kind, name, flat in targets:
            add("z", lease, Vertex(lease.namespace, kind, name, flat))
    seen._index = index  # type: ignore[attr-defined]
    return index


def check_witnesses(seen: Seen) -> None:
    """W: the witnesses of an anchored vertex lead to a root or to a queued vertex, and each of them conducts."""
    index = _edge_index(seen)
    for vertex, state in seen.states.items():
        if not state.anchored:
            continue
        at, walked = vertex, 0
        while True:
            here = seen.states[at]
            assert here.witness is not None
            if here.phase:
                break
            if here.witness == ROOT:
                record = seen.records.get(at)
                assert record is not None, at
                assert Node(at.kind, at.name) in seen.graphs[at.namespace].roots, at
                break
            link = (here.witness.edge, here.witness.kind, here.witness.name)
            above = [source for known, source in index.get(at, []) if known == link]
            assert above, f"{at}: its witness {link} is not there"
            at, walked = above[0], walked + 1
            assert at in seen.states, f"{vertex}: its witnesses lead to {at}, of which nothing is known"
            if seen.states[at].phase == Phase.SUSPECTS:
                break
            assert seen.states[at].anchored, f"{vertex}: its witnesses lead to {at}, which is {seen.states[at]}"
            assert walked < FAR, f"{vertex}: its witnesses lead round and round"


def check_reached(seen: Seen) -> None:
    """R: whatever a vertex with a witness refers to has a witness, or will still be told."""
    for target, links in _edge_index(seen).items():
        state = seen.states.get(target, IDLE)
        if state.witness is not None or state.phase == Phase.RESCUES:
            continue
        detaching = state.phase == Phase.SUSPECTS and seen.queue[_place(state)].mode == Mode.DETACH
        for link, source in links:
            above = seen.states.get(source, IDLE)
            if above.witness is None or above.push:
                continue
            saw = detaching and seen.queue[_place(state)].saw
            assert saw, f"{target} ({state}) is not reached from {source} ({above}) by {link}"


def check_tracked(seen: Seen) -> None:
    """Of every record something is known: otherwise it would stay for ever."""
    for vertex in seen.records:
        assert vertex in seen.states or vertex._replace(flat=True) in seen.states, vertex


def _place(state: State) -> bytes:
    return keys.queued(state.round, state.phase, state.sequence)


def check_seal(before: Seen, after: Seen) -> None:
    """What is no more from now on is what the full mark does not reach."""
    for vertex in before.records:
        if not before.gone(vertex) and (vertex not in after.records or after.gone(vertex)):
            for flat in (False, True):
                assert not after.marks(vertex._replace(flat=flat)), f"{vertex} was alive"


def check_rest(seen: Seen) -> None:
    """Nothing is left to do: what is there is what the full mark reaches, and so is what is anchored."""
    alive = {vertex for vertex in seen.records if seen.marks(vertex) or seen.marks(vertex._replace(flat=True))}
    binned = {vertex for vertex, state in seen.states.items() if state.condemned}
    assert not (alive - set(seen.records))
    dead = set(seen.records) - alive
    assert all(vertex in binned or vertex._replace(flat=True) in binned for vertex in dead), dead
    anchored = {vertex for vertex, state in seen.states.items() if state.anchored}
    marked = {Vertex(namespace, *node) for namespace, nodes in seen.marked.items() for node in nodes}
    assert anchored == marked, (anchored - marked, marked - anchored)


def check_usage(world: World) -> None:
    """The counters of bytes are what a walk over everything says."""
    counted, walked = world.read(_counted_and_walked)
    assert counted == walked, (counted, walked)


async def _counted_and_walked(txn: Transaction) -> tuple[dict[str, BytesHeld], dict[str, BytesHeld]]:
    walked = await walk_usage(txn)
    return {name: await read_usage(txn, name) for name in walked}, walked
