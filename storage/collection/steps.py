"""The collector's steps: who lost his witness looks for another, who is found again is rescued, the rest is swept.

Each function does some of one vertex's work and leaves a durable cursor when its budget is spent. Source:
gc-algorithm 5.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from ...protocol.records import Lease
from .. import keys
from ..engine import Kind
from ..lease_entries import page_targets
from ..references import FLAT_KINDS, EdgeKind, edges, is_root
from .forest import Forest, InEdge, new_item
from .kinds import LETTERS
from .removing import bury, bury_gone, remove_object
from .state import IDLE, ROOT, Climb, Item, Link, Mode, Phase, State, Vertex

__all__ = ["examine", "push", "recheck", "sweep"]

_DEEPEST: Final = 4
_AT_ONCE: Final = 16
_ENTRY: Final = EdgeKind.ENTRY.value
_BUILT_IN: Final = EdgeKind.BUILT_IN.value
_BACK: Final = EdgeKind.BACK.value
_CONDITION: Final = EdgeKind.CONDITION.value


class _Reached(Enum):
    ROOT = "root"
    SUSPECT = "suspect"
    NOTHING = "nothing"
    LATER = "later"


# suspects ---------------------------------------------------------------------------------------------------


async def examine(forest: Forest, vertex: Vertex, state: State, item: Item, asking: tuple[Vertex, ...] = ()) -> None:
    """Find another witness for a suspect, or take it off its old one. `asking`: whose answers wait for this one."""
    if item.mode == Mode.DETACH:
        await _detach(forest, vertex, state, item)
        return
    record = None if vertex.flat else await forest.record(vertex)
    if is_root(record, forest.clock.time):
        await _clear_climb(forest, vertex)
        await forest.anchor(vertex, state, ROOT)
        return
    resumed = bool(item.cursor) or item.saw
    saw = item.saw
    climb = forest.clock.climb
    if climb is not None and (climb.namespace, climb.kind, climb.name, climb.flat) == tuple(vertex):
        forest.set_clock(climb=None)
        resumed = True
        edge = await forest.conducts(vertex, climb.edge, record)
        if edge is not None:
            at = Vertex(vertex.namespace, Kind(climb.at_kind), climb.at_name, climb.at_flat)
            reached, _ = await _climb(forest, vertex, edge, at)
            if reached is _Reached.LATER:
                return
            if reached is _Reached.ROOT:
                await forest.anchor(vertex, state, edge.link)
                return
            saw = True
        item = msgspec.structs.replace(item, hint=None, saw=saw)
    if item.hint is not None and not item.cursor:
        edge = await forest.conducts(vertex, item.hint, record)
        item = msgspec.structs.replace(item, hint=None)
        if edge is not None:
            reached, _ = await _climb(forest, vertex, edge, edge.source)
            if reached is _Reached.ROOT:
                await forest.anchor(vertex, state, edge.link)
                return
            if reached is _Reached.LATER:
                forest.rewrite(state, msgspec.structs.replace(item, saw=saw))
                return
            saw = True
    cursor = item.cursor
    found = forest.in_edges(vertex, cursor, record)
    try:
        async for edge in found:
            reached, other = await _climb(forest, vertex, edge, edge.source)
            if reached is _Reached.SUSPECT:
                assert other is not None
                saw = True
                ask = len(asking) < _DEEPEST and not resumed and other != vertex and not forest.spent
                if ask and await _examine_other(forest, other, (*asking, vertex)):
                    state = await forest.state(vertex)
                    reached, _ = await _climb(forest, vertex, edge, edge.source)
            if reached is _Reached.ROOT:
                await forest.anchor(vertex, state, edge.link)
                return
            if reached is _Reached.LATER:
                # The climb goes on with the next step; when it has failed, the look goes on behind this edge.
                forest.rewrite(state, msgspec.structs.replace(item, cursor=edge.cursor, saw=True))
                return
            if not saw and (await forest.state(edge.source)).witness is not None:
                saw = True
            if forest.spent:
                forest.rewrite(state, msgspec.structs.replace(item, cursor=edge.cursor, saw=saw))
                return
    finally:
        await found.aclose()
    lost = state.witness
    detaching = State(
        None, state.round, state.phase, state.sequence, state.push_round, state.push, lost, forest.txn.now_ns
    )
    await forest.put_state(vertex, detaching)
    left = Item(item.namespace, item.kind, item.name, item.flat, Mode.DETACH, None, b"", saw)
    forest.rewrite(detaching, left)
    if not forest.spent:
        await _detach(forest, vertex, detaching, left)


async def _examine_other(forest: Forest, other: Vertex, asking: tuple[Vertex, ...]) -> bool:
    """A suspect on the way up: its answer first. False: it is not to be had in this step."""
    state = await forest.state(other)
    if not state.suspect:
        return True
    if other in asking or state.round != forest.clock.current:
        return False  # it waits for us, or it is not this round's to find out
    item = await forest.item(state)
    if item.mode != Mode.SUSPECT or item.cursor or forest.clock.climb is not None:
        return False
    await examine(forest, other, state, item, asking)
    return forest.clock.climb is None


async def _climb(forest: Forest, vertex: Vertex, edge: InEdge, at: Vertex) -> tuple[_Reached, Vertex | None]:
    """Follow the witnesses up to a root, or to whatever is in question."""
    while True:
        state = await forest.state(at)
        if state.witness is None:
            return _Reached.NOTHING, None
        if state.phase:
            return (_Reached.SUSPECT, at) if state.suspect else (_Reached.NOTHING, None)
        if state.witness == ROOT:
            return _Reached.ROOT, None
        above = _source(at, state.witness)
        if forest.spent:
            forest.set_clock(climb=Climb(*vertex, edge.link, above.kind, above.name, above.flat))
            return _Reached.LATER, None
        at = above


async def _clear_climb(forest: Forest, vertex: Vertex) -> None:
    climb = forest.clock.climb
    if climb is not None and (climb.namespace, climb.kind, climb.name, climb.flat) == tuple(vertex):
        forest.set_clock(climb=None)


def _source(vertex: Vertex, witness: Link) -> Vertex:
    flat = vertex.flat and witness.edge == _BUILT_IN
    return Vertex(vertex.namespace, Kind(witness.kind), witness.name, flat)


async def _detach(forest: Forest, vertex: Vertex, state: State, item: Item) -> None:
    """Whose witness it was becomes a suspect; then it waits for a rescue, or is condemned."""
    cursor = item.cursor
    rushed = forest.clock.current in forest.clock.rushed  # somebody waits for all that this releases
    while True:
        page = await _successors(forest, vertex, cursor)
        for cursor, link, target in page:
            theirs = await forest.state(target)
            if theirs.anchored and theirs.witness == link:
                await forest.suspect(target, theirs)
            elif theirs.suspect and rushed and theirs.round == forest.clock.open:
                await forest.enqueue(target, theirs, Phase.SUSPECTS, new_item(target, Mode.SUSPECT))
            if forest.spent:
                forest.rewrite(state, msgspec.structs.replace(item, cursor=cursor))
                return
        if not page:
            break
    if item.saw:
        await forest.enqueue(vertex, state, Phase.RESCUES, new_item(vertex, Mode.RECHECK, item.hint))
    else:
        await _found_dead(forest, vertex, state)


async def _found_dead(forest: Forest, vertex: Vertex, state: State) -> None:
    """Of what is absent only the knowledge goes, at once; should something that lives refer to it, that will tell."""
    if state.push or await forest.record(vertex) is not None:
        await forest.condemn(vertex, state, state.lost)
    else:
        await forest.drop_place(state)
        await forest.put_state(vertex, IDLE)


async def _successors(forest: Forest, vertex: Vertex, cursor: bytes) -> list[tuple[bytes, Link, Vertex]]:
    """Some of those that it refers to or keeps, with the edge and a cursor each; none: that was all."""
    namespace, kind, name, flat = vertex
    if flat and kind not in FLAT_KINDS:
        return []
    link: Link
    found: list[tuple[bytes, Link, Vertex]] = []
    if not cursor.startswith((b"f", b"z")):
        record = await forest.record(vertex)
        for out in edges(record) if record is not None else ():
            at = b"a%b%b%b" % (out.edge.encode(), LETTERS[out.kind], out.name.encode())
            if at > cursor and out.edge != _BACK and (not flat or (out.edge == _BUILT_IN and kind in FLAT_KINDS)):
                found.append((at, Link(out.edge, kind, name), Vertex(namespace, out.kind, out.name, flat)))
        if found:
            forest.reads += 1
            return sorted(found)
        if isinstance(record, Lease):
            cursor = b"z"
    if cursor.startswith(b"z"):
        lease = await forest.record(vertex)
        if isinstance(lease, Lease):
            forest.reads += 1
            link = Link(_ENTRY, Kind.LEASE, name)
            for after, target_kind, target, is_flat in await page_targets(
                forest.txn, namespace, lease, cursor[1:], _AT_ONCE
            ):
                found.append((b"z" + after, link, Vertex(namespace, target_kind, target, is_flat)))
        return found
    if flat:
        return []
    link = Link(_BACK, kind, name)
    told = cursor[1:] if cursor.startswith(b"f") else b""
    found += [(b"f" + at, link, back) for at, back in await forest.back_referrers(vertex, told, _AT_ONCE)]
    return found


# rescues ----------------------------------------------------------------------------------------------------


async def recheck(forest: Forest, vertex: Vertex, state: State, item: Item) -> None:
    """Does anything that lives refer to it after all? Nothing hangs on it, so no climb is needed."""
    record = None if vertex.flat else await forest.record(vertex)
    if is_root(record, forest.clock.time):
        await _rescue(forest, vertex, state, ROOT)
        return
    if item.hint is not None:
        edge = await forest.conducts(vertex, item.hint, record)
        if edge is not None and (await forest.state(edge.source)).witness is not None:
            await _rescue(forest, vertex, state, edge.link)
            return
    found = forest.in_edges(vertex, item.cursor, record)
    try:
        async for edge in found:
            if (await forest.state(edge.source)).witness is not None:
                await _rescue(forest, vertex, state, edge.link)
                return
            if forest.spent:
                forest.rewrite(state, msgspec.structs.replace(item, cursor=edge.cursor, hint=None))
                return
    finally:
        await found.aclose()
    await _found_dead(forest, vertex, state)


async def _rescue(forest: Forest, vertex: Vertex, state: State, witness: Link) -> None:
    anchored = await forest.anchor(vertex, state, witness)
    await forest.ask_for_push(vertex, anchored)


async def push(forest: Forest, vertex: Vertex, state: State, sequence: int, item: Item) -> None:
    """Tell those that it refers to that it lives."""
    cursor = item.cursor
    place = keys.queued(state.push_round, Phase.RESCUES, sequence)
    while state.witness is not None:
        page = await _successors(forest, vertex, cursor)
        for cursor, link, target in page:
            theirs = await forest.state(target)
            if theirs.witness is None and await _conducts(forest, target, link):
                if await bury_gone(forest, target):
                    theirs = IDLE
                elif forest.is_doomed(theirs):
                    theirs = await bury(forest, target, theirs)
                await forest.wake(target, theirs, link)
            if forest.spent:
                forest.write(place, msgspec.msgpack.encode(msgspec.structs.replace(item, cursor=cursor)))
                return
        if not page:
            break
    await forest.drop_entry(state.push_round, Phase.RESCUES, sequence)
    state = await forest.state(vertex)
    done = State(state.witness, state.round, state.phase, state.sequence, 0, 0, state.lost, state.since)
    await forest.put_state(vertex, done)


async def _conducts(forest: Forest, target: Vertex, link: Link) -> bool:
    if link.edge != _CONDITION:
        return True
    return await forest.conducts(target, link, await forest.record(target)) is not None


# sweep ------------------------------------------------------------------------------------------------------


async def sweep(forest: Forest, vertex: Vertex, state: State) -> bool:
    """It is dead for good. Whether this took a record away."""
    await forest.forget(state)
    await forest.put_state(vertex, IDLE)
    if (await forest.states(vertex))[not vertex.flat] != IDLE:
        return False
    return await remove_object(forest, vertex)
