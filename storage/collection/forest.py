"""The witness forest and its queue, within one transaction.

Reads and writes are counted, so that a step knows when it has done enough.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

import msgspec

from .. import keys
from ..codec import encode
from ..engine import Kind, Reader, Transaction
from ..references import FLAT_KINDS, EdgeKind, Out, edges, holds, used_at
from ..usage import Unit, add_bytes
from .kinds import KIND_OF, LETTERS, find_record, size_of
from .state import (
    Clock,
    Extent,
    Item,
    Link,
    Mode,
    Phase,
    State,
    Vertex,
    decode_clock,
    decode_counted,
    decode_extent,
    decode_item,
    decode_states,
    encode_states,
    is_dead,
)

__all__ = ["Forest", "InEdge", "back_referrers"]

_SCAN_AT_ONCE: Final = 16
_MOST_BYTES: Final = 256 * 1024  # of what one slice writes: names may be long
_ENTRY: Final = EdgeKind.ENTRY.value
_BUILT_IN: Final = EdgeKind.BUILT_IN.value
_BACK: Final = EdgeKind.BACK.value
_CONDITION: Final = EdgeKind.CONDITION.value


class InEdge(NamedTuple):
    """An edge that leads to a vertex. `cursor`: where to go on behind it. `conducts`: None where that hangs on a
    condition."""

    link: Link
    source: Vertex
    cursor: bytes
    value: bytes


class Forest:
    """One transaction's view of the forest. `collector`: whether the collector speaks, whose suspicions belong to the
    current round; those of clients wait for a later one."""

    def __init__(self, txn: Transaction, clock: Clock, *, collector: bool = False, budget: float = math.inf) -> None:
        self.txn = txn
        self.clock = clock
        self.collector = collector
        self.urgent = txn.urgent
        self.budget = budget
        self.reads = 0
        self.writes = 0
        self._saved = clock
        self._known: dict[bytes, bytes | None] = {}  # states that were read or written here

    @classmethod
    async def load(cls, txn: Transaction, *, collector: bool = False, budget: float = math.inf) -> Forest:
        return cls(txn, decode_clock(await txn.get(keys.CLOCK)), collector=collector, budget=budget)

    async def reload(self) -> None:
        """After others wrote in this transaction."""
        self.clock = self._saved = decode_clock(await self.txn.get(keys.CLOCK))
        self._known.clear()

    def save(self) -> None:
        """Write the clock, if anything of it changed. Every use of a forest ends with this."""
        if self.clock != self._saved:
            self.txn.index(keys.CLOCK, encode(self.clock))
            self._saved = self.clock

    @property
    def spent(self) -> bool:
        return self.reads + self.writes >= self.budget or self.txn.byte_count >= _MOST_BYTES

    def set_clock(self, **changes: object) -> None:
        self.clock = msgspec.structs.replace(self.clock, **changes)

    def write(self, key: bytes, value: bytes | None) -> None:
        self.writes += 1
        self.txn.index(key, value)

    # objects ------------------------------------------------------------------------------------------------

    async def states(self, vertex: Vertex) -> tuple[State, State]:
        self.reads += 1
        return decode_states(await self._stored(_state_key(vertex)))

    async def _stored(self, key: bytes) -> bytes | None:
        if key in self._known:
            return self._known[key]
        value = self._known[key] = await self.txn.get(key)
        return value

    def _store(self, key: bytes, value: bytes | None) -> None:
        self._known[key] = value
        self.write(key, value)

    async def state(self, vertex: Vertex) -> State:
        return (await self.states(vertex))[vertex.flat]

    async def put_state(self, vertex: Vertex, state: State) -> None:
        key = _state_key(vertex)
        value = await self._stored(key)
        normal, flat = decode_states(value)
        if vertex.flat:
            flat = state
        else:
            normal = state
        counted = decode_counted(value)
        if not is_dead(normal, flat):
            counted = await self._count(vertex, -counted) if counted else 0
        elif not counted and (size := size_of(vertex.kind)) is not None:
            counted = await self._count(vertex, await size(self.txn, vertex.namespace, vertex.name))
        self._store(key, encode_states(normal, flat, counted, vertex.name))

    async def _count(self, vertex: Vertex, size: int) -> int:
        """So many bytes more are reclaimable, or fewer; returns for how many the object counts from now on."""
        await add_bytes(self.txn, vertex.namespace, Unit.RECLAIMABLE, size)
        return max(size, 0)

    async def counted(self, vertex: Vertex) -> int:
        """The bytes for which it counts as reclaimable."""
        return decode_counted(await self._stored(_state_key(vertex)))

    async def uncount(self, vertex: Vertex) -> None:
        """Its record is gone, by another's hand than the collector's."""
        value = await self._stored(_state_key(vertex))
        if counted := decode_counted(value):
            await self._count(vertex, -counted)
            self._store(_state_key(vertex), encode_states(*decode_states(value), 0, vertex.name))

    async def record(self, vertex: Vertex) -> msgspec.Struct | None:
        self.reads += 1
        return await find_record(self.txn, vertex.namespace, vertex.kind, vertex.name)

    def is_doomed(self, state: State) -> bool:
        """Whether it was condemned in a round that is sealed: it is no more, though it still has to be swept."""
        return state.phase == Phase.SWEEP and state.round in self.clock.sealed

    # the queue ----------------------------------------------------------------------------------------------

    def next_sequence(self) -> int:
        self.set_clock(sequence=self.clock.sequence + 1)
        return self.clock.sequence

    def new_round(self) -> int:
        self.set_clock(last=self.clock.last + 1)
        return self.clock.last

    def current_round(self) -> int:
        """Rescues always belong to the round that is worked on, so no delete ever overtakes one."""
        if not self.clock.current:
            self.set_clock(current=self.new_round())
        return self.clock.current

    def suspicion_round(self) -> int:
        """The collector's suspicions belong to its round, those of clients to a later one: so a round ends although
        clients keep writing."""
        if self.collector:
            return self.current_round()
        if not self.urgent:
            return self.clock.open
        if not self.clock.urgent:
            urgent = self.new_round()
            self.set_clock(urgent=urgent, rushed=(*self.clock.rushed, urgent))
        return self.clock.urgent

    async def enqueue(self, vertex: Vertex, state: State, phase: Phase, item: Item) -> State:
        """Give it a place at the end of a phase; the one that it had goes."""
        round_ = self.suspicion_round() if phase is Phase.SUSPECTS else self.current_round()
        return await self.place(vertex, state, round_, phase, self.next_sequence(), item)

    async def place(self, vertex: Vertex, state: State, round_: int, phase: Phase, sequence: int, item: Item) -> State:
        await self.drop_place(state)
        await self._extend(round_, phase, sequence)
        self.write(keys.queued(round_, phase, sequence), encode(item))
        placed = State(state.witness, round_, phase, sequence, state.push_round, state.push, state.lost, state.since)
        await self.put_state(vertex, placed)
        return placed

    def rewrite(self, state: State, item: Item) -> None:
        """Change the entry that it has, at its place."""
        self.write(keys.queued(state.round, state.phase, state.sequence), encode(item))

    async def drop_place(self, state: State) -> None:
        if state.phase:
            await self.drop_entry(state.round, state.phase, state.sequence)

    async def drop_entry(self, round_: int, phase: int, sequence: int) -> None:
        self.write(keys.queued(round_, phase, sequence), None)
        extent = await self.extent(round_, phase)
        first = max(extent.first, sequence + 1) if sequence == extent.first else extent.first
        left = Extent(extent.count - 1, first)
        self.write(keys.queue_extent(round_, phase), encode(left) if left.count else None)

    async def _extend(self, round_: int, phase: int, sequence: int) -> None:
        extent = await self.extent(round_, phase)
        first = extent.first if extent.count else sequence
        self.write(keys.queue_extent(round_, phase), encode(Extent(extent.count + 1, first)))

    async def extent(self, round_: int, phase: int) -> Extent:
        return decode_extent(await self.txn.get(keys.queue_extent(round_, phase)))

    async def forget(self, state: State) -> None:
        """All its places in the queue go."""
        await self.drop_place(state)
        if state.push:
            await self.drop_entry(state.push_round, Phase.RESCUES, state.push)

    async def item(self, state: State) -> Item:
        self.reads += 1
        value = await self.txn.get(keys.queued(state.round, state.phase, state.sequence))
        assert value is not None, "a queued object has no entry in the queue"
        return decode_item(value)

    async def entries(self, round_: int, phase: int, limit: int) -> list[tuple[int, Item]]:
        """The first entries of a phase, each with its number."""
        extent = await self.extent(round_, phase)
        if not extent.count:
            return []
        self.reads += 1
        prefix = keys.queue_phase(round_, phase)
        found = await self.txn.scan(prefix + keys.number(extent.first), keys.queue_phase(round_, phase + 1), limit)
        entries = [(int.from_bytes(key[len(prefix) :], "big"), decode_item(value)) for key, value in found]
        if entries and entries[0][0] != extent.first:
            self.write(keys.queue_extent(round_, phase), encode(Extent(extent.count, entries[0][0])))
        return entries

    # what happens to a vertex -------------------------------------------------------------------------------

    async def anchor(self, vertex: Vertex, state: State, witness: Link) -> State:
        """It lives, and this is why. It leaves the queue."""
        await self.drop_place(state)
        anchored = State(witness, 0, 0, 0, state.push_round, state.push)
        await self.put_state(vertex, anchored)
        return anchored

    async def suspect(self, vertex: Vertex, state: State) -> None:
        """Its witness is gone: another one has to be found."""
        if state.phase:
            if state.suspect and self.urgent and state.round == self.clock.open:
                await self.enqueue(vertex, state, Phase.SUSPECTS, new_item(vertex, Mode.SUSPECT))
            return
        await self.enqueue(vertex, state, Phase.SUSPECTS, new_item(vertex, Mode.SUSPECT))

    async def look_again(self, state: State, hint: Link | None = None) -> None:
        """An edge may conduct that a look in progress has passed."""
        item = await self.item(state)
        if item.mode == Mode.DETACH:
            self.rewrite(state, msgspec.structs.replace(item, saw=True, hint=hint or item.hint))
        elif item.cursor or (hint is not None and item.hint is None):
            self.rewrite(state, msgspec.structs.replace(item, cursor=b"", hint=hint or item.hint))

    async def wake(self, vertex: Vertex, state: State, hint: Link | None = None) -> None:
        """It is not anchored, and perhaps something that lives refers to it now."""
        if state.phase in (Phase.SUSPECTS, Phase.RESCUES):
            await self.look_again(state, hint)
            return
        await self.enqueue(vertex, state, Phase.RESCUES, new_item(vertex, Mode.RECHECK, hint))

    async def condemn(self, vertex: Vertex, state: State, lost: Link | None = None) -> State:
        """It was found dead. It goes when its round is swept, if nothing refers to it before."""
        dead = State(
            None, state.round, state.phase, state.sequence, state.push_round, state.push, lost, self.txn.now_ns
        )
        return await self.enqueue(vertex, dead, Phase.SWEEP, new_item(vertex, Mode.SWEEP))

    async def ask_for_push(self, vertex: Vertex, state: State) -> State:
        """Those that it refers to will be told that it lives."""
        if state.push:
            item = decode_item(await self.txn.get(keys.queued(state.push_round, Phase.RESCUES, state.push)) or b"")
            if item.cursor:
                key = keys.queued(state.push_round, Phase.RESCUES, state.push)
                self.write(key, encode(msgspec.structs.replace(item, cursor=b"")))
            return state
        round_, sequence = self.current_round(), self.next_sequence()
        await self._extend(round_, Phase.RESCUES, sequence)
        self.write(keys.queued(round_, Phase.RESCUES, sequence), encode(new_item(vertex, Mode.PUSH)))
        pushed = State(
            state.witness, state.round, state.phase, state.sequence, round_, sequence, state.lost, state.since
        )
        await self.put_state(vertex, pushed)
        return pushed

    # edges --------------------------------------------------------------------------------------------------

    async def in_edges(
        self, vertex: Vertex, cursor: bytes, record: msgspec.Struct | None
    ) -> AsyncGenerator[InEdge, None]:
        """The edges that could keep a vertex, from a cursor on, those that conduct at the clock's time only. Of its own
        record: back references. Reads in pieces, so that whoever has seen enough stops."""
        namespace, kind, name, flat = vertex
        if not flat and not cursor.startswith(b"e"):
            backs = [(b"b%b%b" % (LETTERS[out.kind], out.name.encode()), out) for out in _back_references(record)]
            for at, out in sorted(backs):
                if at > cursor:
                    yield InEdge(Link(_BACK, out.kind, out.name), Vertex(namespace, out.kind, out.name), at, b"")
        prefix = keys.edges_to(namespace, LETTERS[kind], name)
        after = cursor[1:] if cursor.startswith(b"e") else b""
        used = used_at(record)
        while True:
            self.reads += 1
            found = await self.txn.scan(prefix + after, keys.prefix_end(prefix + b"z"), _SCAN_AT_ONCE)
            for key, value in found:
                self.reads += 1
                rest = key[len(prefix) :]
                after = rest + b"\x00"
                edge, owner_kind, owner = parse_owner(rest, value)
                if edge == _CONDITION and (flat or not holds(condition_of(rest, value), used, self.clock.time)):
                    continue
                if flat != (edge == _ENTRY and value[:1] == b"F") and not (
                    flat and edge == _BUILT_IN and owner_kind in FLAT_KINDS
                ):
                    continue
                source = Vertex(namespace, owner_kind, owner, flat and edge == _BUILT_IN)
                yield InEdge(Link(edge, owner_kind, owner), source, b"e" + after, value)
            if len(found) < _SCAN_AT_ONCE:
                return
            if flat and after[:1] < b"z" and after[:1] > b"a":
                after = b"z"  # of the many kinds of edges only two keep it

    async def has_in_edges(self, vertex: Vertex) -> bool:
        self.reads += 1
        prefix = keys.edges_to(vertex.namespace, LETTERS[vertex.kind], vertex.name)
        return bool(await self.txn.scan(prefix, keys.prefix_end(prefix + b"z"), 1))

    async def back_referrers(self, vertex: Vertex, after: bytes, limit: int) -> list[tuple[bytes, Vertex]]:
        """Objects whose label says that this one keeps them, each with its cursor."""
        if not await self.txn.get(keys.back_count(vertex.namespace)):
            return []  # back references are rare, and most namespaces have none
        self.reads += 1
        return await back_referrers(self.txn, vertex, after, limit)

    async def conducts(self, vertex: Vertex, link: Link, record: msgspec.Struct | None) -> InEdge | None:
        """The edge that a link names, if it is there and conducts to this vertex now."""
        namespace, kind, name, flat = vertex
        source_kind = Kind(link.kind) if link.kind else Kind.CONTENT
        if link.edge == _BACK:
            outs = edges(record) if record is not None and not flat else []
            if not any(out.edge == _BACK and (out.kind, out.name) == (link.kind, link.name) for out in outs):
                return None
            return InEdge(link, Vertex(namespace, source_kind, link.name), b"", b"")
        self.reads += 1
        end, _ = keys.owner(LETTERS[source_kind], link.name)
        suffix = link.edge.encode() + end
        value = await self.txn.get(keys.edges_to(namespace, LETTERS[kind], name) + suffix)
        if value is None:
            return None
        if link.edge == _CONDITION and (
            flat or not holds(condition_of(suffix, value), used_at(record), self.clock.time)
        ):
            return None
        flat_edge = flat and link.edge == _BUILT_IN and source_kind in FLAT_KINDS
        if flat != (link.edge == _ENTRY and value[:1] == b"F") and not flat_edge:
            return None
        return InEdge(link, Vertex(namespace, source_kind, link.name, flat_edge), b"", value)

    async def put_edge(self, owner: Vertex, out: Out) -> None:
        key, value = edge_key(owner.namespace, owner.kind, owner.name, out)
        if out.edge == _BACK:
            await self._count_back(owner.namespace, key, 1)
        self.write(key, value)

    async def delete_edge(self, owner: Vertex, out: Out) -> None:
        key, _ = edge_key(owner.namespace, owner.kind, owner.name, out)
        if out.edge == _BACK:
            await self._count_back(owner.namespace, key, -1)
        self.write(key, None)

    async def _count_back(self, namespace: str, key: bytes, by: int) -> None:
        if (await self.txn.get(key) is not None) == (by > 0):
            return  # nothing changes
        counter = keys.back_count(namespace)
        count = int.from_bytes(await self.txn.get(counter) or b"", "big") + by
        self.write(counter, keys.number(count) if count else None)


async def back_referrers(reader: Reader, vertex: Vertex, after: bytes, limit: int) -> list[tuple[bytes, Vertex]]:
    """Objects whose label says that this one keeps them, as those do that describe it; each with its cursor."""
    prefix = keys.back_edges_from(vertex.namespace, LETTERS[vertex.kind], vertex.name)
    found = await reader.scan(prefix + after, _end(prefix), limit)
    result = []
    for key, value in found:
        rest = key[len(prefix) :]
        kind, name = _parse_end(rest, value)
        result.append((rest + b"\x00", Vertex(vertex.namespace, kind, name)))
    return result


def edge_key(namespace: str, owner_kind: Kind, owner: str, out: Out) -> tuple[bytes, bytes]:
    """Key and value under which an edge of a record stands, at the other end."""
    end, long_name = keys.owner(LETTERS[owner_kind], owner)
    if out.edge == _BACK:
        return keys.back_edges_from(namespace, LETTERS[out.kind], out.name) + end, long_name
    value = encode((out.value, long_name)) if long_name else out.value
    return keys.edges_to(namespace, LETTERS[out.kind], out.name) + out.edge.encode() + end, value


def new_item(vertex: Vertex, mode: Mode, hint: Link | None = None, *, saw: bool = False) -> Item:
    return Item(vertex.namespace, vertex.kind, vertex.name, vertex.flat, mode, hint, b"", saw)


def _back_references(record: msgspec.Struct | None) -> list[Out]:
    return [out for out in edges(record) if out.edge == _BACK] if record is not None else []


def _state_key(vertex: Vertex) -> bytes:
    return keys.state(vertex.namespace, LETTERS[vertex.kind], vertex.name)


_LONG = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode


def parse_owner(rest: bytes, value: bytes) -> tuple[str, Kind, str]:
    """Edge and owner of what follows the target in an edge's key."""
    kind = KIND_OF[rest[1:2]]
    if rest[2:3] == b"\x01":
        return chr(rest[0]), kind, rest[3:].decode()
    return chr(rest[0]), kind, _LONG(value)[1].decode()


def condition_of(rest: bytes, value: bytes) -> bytes:
    return value if rest[2:3] == b"\x01" else _LONG(value)[0]


def _parse_end(rest: bytes, value: bytes) -> tuple[Kind, str]:
    name = rest[2:] if rest[1:2] == b"\x01" else value
    return KIND_OF[rest[:1]], name.decode()


def _end(prefix: bytes) -> bytes:
    """After everything that follows this prefix: what follows begins with a kind's letter."""
    return prefix + b"\x7f"
