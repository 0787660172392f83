"""What a change makes dirty: the rules that every write of a record follows, in the same transaction.

Nothing that loses a reference which was not its witness costs more than a read. Source: gc-algorithm 4.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ...protocol.records import Lease
from .. import keys
from ..engine import Kind, Transaction
from ..references import FLAT_KINDS, EdgeKind, Out, edges, expires_at, holds, is_root, switches_at, used_at
from .forest import Forest, condition_of, edge_key
from .kinds import LETTERS
from .owed import owe_edges, owe_windows
from .removing import bury, bury_both, bury_gone
from .state import IDLE, ROOT, Link, State, Vertex

__all__ = [
    "bury_if_dead",
    "edge_added",
    "edge_removed",
    "entry_added",
    "entry_removed",
    "make_way",
    "record_changed",
    "set_windows",
]

INLINE_EDGES: Final = 40
"""So many edges of a record change with it; what is more is owed, and done in steps before the collector goes on."""
_MOST_WINDOWS: Final = 50
_BACK: Final = EdgeKind.BACK.value
_BUILT_IN: Final = EdgeKind.BUILT_IN.value
_CONDITION: Final = EdgeKind.CONDITION.value
_ENTRY: Final = EdgeKind.ENTRY.value


async def record_changed(
    txn: Transaction,
    namespace: str,
    kind: Kind,
    name: str,
    before: msgspec.Struct | None,
    after: msgspec.Struct | None,
) -> None:
    """A record is born (`before` None), replaced, or deleted (`after` None).

    Only what takes a reference or a root reason away from a record that stays wakes the collector here: who deletes one
    knows whether that was to make garbage, or to put another in its place.
    """
    forest = await Forest.load(txn)
    vertex = Vertex(namespace, kind, name)
    _set_alarm(forest, vertex, before, after)
    old, new = edges(before) if before is not None else [], edges(after) if after is not None else []
    if old == new:
        removed: list[Out] = []
        added: list[Out] = []
    else:
        had, has = set(old), set(new)
        removed, added = [each for each in old if each not in has], [each for each in new if each not in had]
    anchored = True
    later = len(removed) + len(added) > INLINE_EDGES
    if later:
        await owe_edges(forest, vertex, removed + added)
    else:
        for out in removed:
            await edge_removed(forest, vertex, out)
    if before is None:
        assert after is not None
        anchored = await _born(forest, vertex, after)
    elif after is None:
        await _deleted(forest, vertex)
    else:
        await _root_reason(forest, vertex, after)
        if removed:
            txn.made_garbage()
    if not later:
        for out in added:
            await edge_added(forest, vertex, out)
    if before is None and not anchored:
        await _settle_newborn(forest, vertex)
    if kind is Kind.SNAPSHOT and used_at(before) != used_at(after):
        await _window_moved(forest, vertex, after)
    forest.save()


async def make_way(txn: Transaction, namespace: str, kind: Kind, name: str) -> bool:
    """A record is in the way of a new one: it goes at once if it was condemned and its round is sealed, or waits in the
    bin. False: it is alive. Content is the same whoever makes it, so what waits in the bin is found there."""
    if kind is Kind.CONTENT:
        forest = await Forest.load(txn)
        gone = await bury_gone(forest, Vertex(namespace, kind, name))
        forest.save()
        return gone
    return await bury_if_dead(txn, namespace, kind, name)


async def bury_if_dead(txn: Transaction, namespace: str, kind: Kind, name: str) -> bool:
    """It goes at once if it was condemned and its round is sealed or waits in the bin. False: it may live."""
    forest = await Forest.load(txn)
    vertex = Vertex(namespace, kind, name)
    states = [state for state in await forest.states(vertex) if state != IDLE]
    for state in states:
        in_bin = state.condemned and await txn.get(keys.bin_round(state.round)) is not None
        if not forest.is_doomed(state) and not in_bin:
            return False
    if states:
        await bury_both(forest, vertex)
        forest.save()
    return bool(states)


async def _born(forest: Forest, vertex: Vertex, record: msgspec.Struct) -> bool:
    """Its own root reason; what refers to it already is looked at by `_settle_newborn`. What was condemned while it was
    absent is in question again: the record that is born now is not the dead one's. Returns whether it is known to
    live."""
    for variant in (vertex, Vertex(vertex.namespace, vertex.kind, vertex.name, True)):
        if forest.is_doomed(sealed := await forest.state(variant)):
            await forest.forget(sealed)
            await forest.put_state(variant, IDLE)
    state, flat = await forest.states(vertex)
    if flat.condemned:
        await forest.wake(vertex._replace(flat=True), flat)
    if state.anchored:
        return True
    if state.witness is not None:
        await forest.look_again(state)
    elif is_root(record, forest.clock.time):
        if state == IDLE and not await forest.back_referrers(vertex, b"", 1):
            await forest.put_state(vertex, State(ROOT))
            return True
        await forest.wake(vertex, state)
    elif state.phase:
        await forest.wake(vertex, state)
    return False


async def _settle_newborn(forest: Forest, vertex: Vertex) -> None:
    """A record that nothing anchored: something that refers to it may yet live; else it is found dead as it is."""
    normal, flat = await forest.states(vertex)
    if normal != IDLE or flat != IDLE:
        return
    if await forest.has_in_edges(vertex):
        await forest.wake(vertex, normal)
    else:
        await forest.condemn(vertex, normal)


async def _deleted(forest: Forest, vertex: Vertex) -> None:
    """What is absent lives on while something refers to it: others may refer back to it."""
    await forest.uncount(vertex)
    state = await forest.state(vertex)
    if state.anchored and state.witness == ROOT:
        await forest.suspect(vertex, state)


async def _root_reason(forest: Forest, vertex: Vertex, record: msgspec.Struct) -> None:
    """Whether it protects itself now, whatever it did before: the clock may be on its way, and what it was to find at
    the old instant is found at another one."""
    state = await forest.state(vertex)
    if not is_root(record, forest.clock.time):
        if state.anchored and state.witness == ROOT:
            await forest.suspect(vertex, state)
            forest.txn.made_garbage()
    elif state.witness is None:
        if await _is_plain(forest, vertex):
            await forest.anchor(vertex, state, ROOT)
        else:
            await forest.wake(vertex, state)
    elif state.phase:
        await forest.look_again(state)


# edges ------------------------------------------------------------------------------------------------------


async def edge_added(forest: Forest, owner: Vertex, out: Out) -> None:
    """An edge of this owner's record is there from now on."""
    await forest.put_edge(owner, out)
    if out.edge == _BACK:
        await _conducts(forest, Vertex(owner.namespace, out.kind, out.name), owner, Link(_BACK, out.kind, out.name))
        return
    target, link = Vertex(owner.namespace, out.kind, out.name), Link(out.edge, owner.kind, owner.name)
    if out.edge == _CONDITION:
        await bury_gone(forest, target)
        used = used_at(await forest.record(target))
        if used is None:
            return
        for at in switches_at(out.value, used):
            set_window(forest, target, at)
        if not holds(out.value, used, forest.clock.time):
            return
    if out.edge == _ENTRY:
        await _conducts(forest, owner, target._replace(flat=out.value == b"F"), link)
        return
    await _conducts(forest, owner, target, link)
    if out.edge == _BUILT_IN and owner.kind in FLAT_KINDS:
        above = Vertex(owner.namespace, owner.kind, owner.name, True)
        await _conducts(forest, above, Vertex(target.namespace, target.kind, target.name, True), link)


async def edge_removed(forest: Forest, owner: Vertex, out: Out) -> None:
    """An edge of this owner's record is there no more: whose witness it was becomes a suspect."""
    await forest.delete_edge(owner, out)
    if out.edge == _BACK:
        await _lost(forest, owner, Link(_BACK, out.kind, out.name))
        return
    target, link = Vertex(owner.namespace, out.kind, out.name), Link(out.edge, owner.kind, owner.name)
    if out.edge == _ENTRY:
        await _lost(forest, target._replace(flat=out.value == b"F"), link)
        return
    await _lost(forest, target, link)
    if out.edge == _BUILT_IN and owner.kind in FLAT_KINDS:
        await _lost(forest, target._replace(flat=True), link)


async def _conducts(forest: Forest, source: Vertex, target: Vertex, link: Link) -> None:
    if (await forest.state(source)).witness is None:
        return  # when that lives, it will tell
    state = await forest.state(target)
    if state.anchored:
        return
    if state.witness is not None:
        await forest.look_again(state)
        return
    if await bury_gone(forest, target):
        state = IDLE
    elif forest.is_doomed(state):
        state = await bury(forest, target, state)
    if await _is_plain(forest, target):
        await forest.anchor(target, state, link)
    else:
        await forest.wake(target, state, link)


async def _is_plain(forest: Forest, target: Vertex) -> bool:
    """It refers to nothing, so nothing would have to be told that it lives."""
    record = await forest.record(target)
    if record is not None and any(out.edge != _BACK for out in edges(record)):
        return False
    return target.flat or not (isinstance(record, Lease) or await forest.back_referrers(target, b"", 1))


async def _lost(forest: Forest, target: Vertex, link: Link) -> None:
    state = await forest.state(target)
    if (state.anchored and state.witness == link) or (state.suspect and forest.urgent):
        await forest.suspect(target, state)


# entries of leases ------------------------------------------------------------------------------------------


def _entry(kind: Kind, name: str, *, flat: bool) -> Out:
    return Out(_ENTRY, kind, name, b"F" if flat and kind in FLAT_KINDS else b"N")


async def entry_added(forest: Forest, lease: Vertex, kind: Kind, name: str, *, flat: bool) -> None:
    out = _entry(kind, name, flat=flat)
    key, _ = edge_key(lease.namespace, lease.kind, lease.name, out)
    present = await forest.txn.get(key)
    if present is not None and present != out.value:
        await edge_removed(forest, lease, out._replace(value=present))
    await edge_added(forest, lease, out)


async def entry_removed(forest: Forest, lease: Vertex, kind: Kind, name: str) -> None:
    out = _entry(kind, name, flat=False)
    key, _ = edge_key(lease.namespace, lease.kind, lease.name, out)
    present = await forest.txn.get(key)
    if present is not None:
        await edge_removed(forest, lease, out._replace(value=present))


# time -------------------------------------------------------------------------------------------------------


def _set_alarm(forest: Forest, vertex: Vertex, before: msgspec.Struct | None, after: msgspec.Struct | None) -> None:
    """The first instant at which it counts as expired stands in the index of time."""
    old, new = expires_at(before), expires_at(after)
    if old == new:
        return
    letter = LETTERS[vertex.kind]
    if old is not None:
        forest.write(keys.instant_of(old + 1, vertex.namespace, letter, vertex.name), None)
    if new is not None:
        forest.write(keys.instant_of(new + 1, vertex.namespace, letter, vertex.name), b"")
        forest.txn.expires(new + 1)


def set_window(forest: Forest, snapshot: Vertex, at: int) -> None:
    forest.write(keys.instant_of(at, snapshot.namespace, LETTERS[snapshot.kind], snapshot.name), b"")
    forest.txn.expires(at)


async def _window_moved(forest: Forest, snapshot: Vertex, record: msgspec.Struct | None) -> None:
    """The value that conditions on it are compared with is another one."""
    if await set_windows(forest, snapshot, used_at(record), b"", _MOST_WINDOWS):
        await owe_windows(forest, snapshot)
    state = await forest.state(snapshot)
    if state.anchored:
        if state.witness is not None and state.witness.edge == _CONDITION:
            await forest.suspect(snapshot, state)
    elif record is None:
        pass  # nothing conducts that did not before
    elif state.witness is not None:
        await forest.look_again(state)
    else:
        await forest.wake(snapshot, state)


async def set_windows(forest: Forest, snapshot: Vertex, used: int | None, after: bytes, limit: int) -> bytes:
    """Set the instants of conditions on a snapshot, up to `limit` of them; returns where to go on, or nothing."""
    if used is None:
        return b""
    prefix = keys.edges_to(snapshot.namespace, LETTERS[snapshot.kind], snapshot.name) + _CONDITION.encode()
    found = await forest.txn.scan(prefix + after, keys.prefix_end(prefix), limit)
    for key, value in found:
        rest = key[len(prefix) - 1 :]
        for at in switches_at(condition_of(rest, value), used):
            set_window(forest, snapshot, at)
    return found[-1][0][len(prefix) :] + b"\x00" if len(found) == limit else b""
