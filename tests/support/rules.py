"""The collector's rules, and how each of them is switched off: a line of one function is another one.

An edit names the function and a text that stands in it just once, so a rule that is written otherwise one day is missed
loudly. Source: gc-algorithm 3 to 6, 9 and 10.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any, NamedTuple

import pytest

from orlop.storage import lease_entries
from orlop.storage.collection import alive, changes, clock, collector, removing, settling, steps
from orlop.storage.collection.forest import Forest

__all__ = ["RULES", "switch_off"]


class Edit(NamedTuple):
    """`old` becomes `new` in the source of `name`, which belongs to a module or to `Forest`."""

    owner: Any
    name: str
    old: str
    new: str


def switch_off(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    sources: dict[tuple[Any, str], str] = {}
    for owner, name, old, new in RULES[rule]:
        source = sources.get((owner, name)) or textwrap.dedent(inspect.getsource(getattr(owner, name)))
        assert source.count(old) == 1, f"{rule}: {name} does not say just once: {old}"
        sources[owner, name] = source.replace(old, new)
    for (owner, name), source in sources.items():
        original = getattr(owner, name)
        made: dict[str, Any] = {}
        exec(compile(source, f"<{name} without: {rule}>", "exec"), original.__globals__, made)
        if inspect.isclass(owner):
            monkeypatch.setattr(owner, name, made[name])
            continue
        for module in [each for at, each in sys.modules.items() if at.startswith("orlop.")]:
            if getattr(module, name, None) is original:
                monkeypatch.setattr(module, name, made[name])


RULES: dict[str, list[Edit]] = {
    # edges that come and go
    "a new edge wakes its target": [Edit(changes, "_conducts", "await forest.wake(target, state, link)", "pass")],
    "a new edge anchors what refers to nothing": [
        Edit(changes, "_conducts", "await forest.anchor(target, state, link)", "pass")
    ],
    "what is dead keeps nothing": [
        Edit(changes, "_conducts", "if (await forest.state(source)).witness is None:", "if False:")
    ],
    "who refers to something is woken": [
        Edit(
            changes,
            "_is_plain",
            "if record is not None and any(out.edge != _BACK for out in edges(record)):",
            "if False:",
        )
    ],
    "who is referred back to is woken": [
        Edit(
            changes,
            "_is_plain",
            '(isinstance(record, Lease) or await forest.back_referrers(target, b"", 1))',
            "isinstance(record, Lease)",
        )
    ],
    "a lease is woken": [Edit(changes, "_is_plain", "isinstance(record, Lease) or ", "")],
    "a new edge lets a suspect look again": [
        Edit(changes, "_conducts", "await forest.look_again(state)\n        return", "return")
    ],
    "who loses his witness is a suspect": [Edit(changes, "_lost", "await forest.suspect(target, state)", "pass")],
    "a flat edge that goes is lost": [
        Edit(changes, "edge_removed", "await _lost(forest, target._replace(flat=True), link)", "pass")
    ],
    "a flat edge that comes conducts": [
        Edit(
            changes,
            "edge_added",
            "await _conducts(forest, above, Vertex(target.namespace, target.kind, target.name, True), link)",
            "pass",
        )
    ],
    "a back reference that goes is lost": [
        Edit(changes, "edge_removed", "await _lost(forest, owner, Link(_BACK, out.kind, out.name))", "pass")
    ],
    "a back reference that comes conducts": [
        Edit(
            changes,
            "edge_added",
            "await _conducts(forest, Vertex(owner.namespace, out.kind, out.name), owner, Link(_BACK",
            "(lambda *_: None)(Link(_BACK",
        )
    ],
    "an entry that goes is lost": [
        Edit(changes, "edge_removed", 'await _lost(forest, target._replace(flat=out.value == b"F"), link)', "pass")
    ],
    "an entry that comes conducts": [
        Edit(
            changes,
            "edge_added",
            'await _conducts(forest, owner, target._replace(flat=out.value == b"F"), link)',
            "pass",
        )
    ],
    "an entry of another flatness replaces": [
        Edit(changes, "entry_added", "if present is not None and present != out.value:", "if False:")
    ],
    "a condition that changed is another edge": [
        Edit(changes, "record_changed", "set(old), set(new)", "{each[:3] for each in old}, {each[:3] for each in new}"),
        Edit(changes, "record_changed", "for each in old if each not in has", "for each in old if each[:3] not in has"),
        Edit(changes, "record_changed", "for each in new if each not in had", "for each in new if each[:3] not in had"),
    ],
    # records that come and go
    "a root that is born is anchored": [Edit(changes, "_born", "await forest.put_state(vertex, State(ROOT))", "pass")],
    "a root that is born tells those that refer back to it": [
        Edit(
            changes,
            "_born",
            'if state == IDLE and not await forest.back_referrers(vertex, b"", 1):',
            "if state == IDLE:",
        )
    ],
    "a root that is born is rescued when it was condemned": [
        Edit(changes, "_born", "return True\n        await forest.wake(vertex, state)", "return True\n        pass")
    ],
    "what was condemned flat and is born is in question": [
        Edit(changes, "_born", "await forest.wake(vertex._replace(flat=True), flat)", "pass")
    ],
    "what is condemned and born is in question": [
        Edit(
            changes,
            "_born",
            "elif state.phase:\n        await forest.wake(vertex, state)",
            "elif state.phase:\n        pass",
        )
    ],
    "what is born is looked at, if something refers to it": [
        Edit(changes, "_settle_newborn", "await forest.wake(vertex, normal)", "pass")
    ],
    "what is born is found dead, if nothing refers to it": [
        Edit(changes, "_settle_newborn", "await forest.condemn(vertex, normal)", "pass")
    ],
    "a root that is deleted is a suspect": [Edit(changes, "_deleted", "await forest.suspect(vertex, state)", "pass")],
    "who loses his root reason is a suspect": [
        Edit(changes, "_root_reason", "await forest.suspect(vertex, state)", "pass")
    ],
    "who gains a root reason is woken": [Edit(changes, "_root_reason", "await forest.wake(vertex, state)", "pass")],
    "who gains a root reason and refers to nothing is anchored": [
        Edit(changes, "_root_reason", "await forest.anchor(vertex, state, ROOT)", "pass")
    ],
    # conditions and time
    "a window that moved makes a suspect": [
        Edit(changes, "_window_moved", "await forest.suspect(snapshot, state)", "pass")
    ],
    "a window that moved lets a suspect look again": [
        Edit(changes, "_window_moved", "await forest.look_again(state)", "pass")
    ],
    "a window that moved wakes": [Edit(changes, "_window_moved", "await forest.wake(snapshot, state)", "pass")],
    "a window that moved switches at other instants": [
        Edit(
            changes,
            "_window_moved",
            'if await set_windows(forest, snapshot, used_at(record), b"", _MOST_WINDOWS):',
            "if 0:",
        )
    ],
    "a condition has its instants": [Edit(changes, "edge_added", "set_window(forest, target, at)", "pass")],
    "an expiry has its instant": [Edit(changes, "_set_alarm", "if new is not None:", "if False:")],
    "an expiry that goes takes its instant along": [Edit(changes, "_set_alarm", "if old is not None:", "if False:")],
    "an instant makes a suspect": [Edit(clock, "_switched", "await forest.suspect(vertex, state)", "pass")],
    "an instant lets a suspect look again": [Edit(clock, "_switched", "await forest.look_again(state)", "pass")],
    "an instant wakes": [Edit(clock, "_switched", "await forest.wake(vertex, state)", "pass")],
    "instants are not consumed": [
        Edit(
            clock,
            "_switched",
            "if vertex.kind is Kind.SNAPSHOT and not await _is_bound(forest, vertex, at):",
            "if True:",
        )
    ],
    "a clock that is set back crosses instants": [
        Edit(clock, "tick", "sorted((forest.clock.time, now))", "(forest.clock.time, max(now, forest.clock.time))")
    ],
    "the clock moves before what it crosses is looked at": [
        Edit(clock, "tick", "forest.set_clock(time=now, ticking=ticking)", "forest.set_clock(ticking=ticking)"),
        Edit(
            clock,
            "tick",
            "ticking = None if done else (start, stop)",
            "ticking = None if done else (start, stop)\n        forest.set_clock(**({'time': now} if done else {}))",
        ),
    ],
    "nothing else is done before the clock has moved": [
        Edit(
            collector,
            "_step",
            "if forest.clock.ticking is not None:\n            return True",
            "if forest.clock.ticking is not None:\n            pass",
        )
    ],
    # owed work
    "a large record's edges follow": [
        Edit(changes, "record_changed", "await owe_edges(forest, vertex, removed + added)", "pass")
    ],
    "what is owed is done before anything else": [
        Edit(
            collector,
            "_step",
            "if await settle_some(forest.txn):",
            "if not (forest.clock.current or forest.clock.sealed) and await settle_some(forest.txn):",
        )
    ],
    "owed edges are those of the present record": [
        Edit(settling, "_edges", "now = implied.get((edge, was.kind, name))", "now = was")
    ],
    "owed entries are those of the present life": [
        Edit(
            settling,
            "_entries",
            "if lease is not None and await entry_present(forest.txn, namespace, lease, resource):",
            "if lease is not None and not ended:",
        )
    ],
    "owed entries get the present flatness": [
        Edit(settling, "_entries", "flat=is_flat(lease)", "flat=False"),
    ],
    "a lease takes its entries along": [
        Edit(lease_entries, "end_lease", "await entry_removed(forest, vertex, *target)", "pass")
    ],
    "a large lease's entries follow": [
        Edit(
            lease_entries,
            "end_lease",
            "await owe(txn, OwedEntries(namespace, lease_id, prefix, urgent=txn.urgent))",
            "pass",
        )
    ],
    "a lease's flatness is that of its entries": [
        Edit(
            lease_entries,
            "flatness_changed",
            "await owe(txn, OwedEntries(namespace, lease.id, entries_prefix(namespace, lease)))",
            "pass",
        )
    ],
    # suspects
    "a root is its own witness": [
        Edit(steps, "examine", "if is_root(record, forest.clock.time):", "if False:"),
    ],
    "a witness is climbed from": [Edit(steps, "_climb", "if state.witness == ROOT:", "if True:")],
    "a climb ends at what is queued": [Edit(steps, "_climb", "if state.phase:", "if False:")],
    "a suspect on the way is seen": [
        Edit(steps, "examine", "assert other is not None\n                saw = True", "assert other is not None"),
        Edit(steps, "examine", "if not saw and (await forest.state(edge.source)).witness is not None:", "if False:"),
    ],
    "who saw something is looked at again": [Edit(steps, "_detach", "if item.saw:", "if False:")],
    "who saw nothing is condemned, the others wait": [Edit(steps, "_detach", "if item.saw:", "if not item.saw:")],
    "of what is absent and dead nothing is kept": [
        Edit(steps, "_found_dead", "state.push or await forest.record(vertex) is not None", "True")
    ],
    "what still tells others is condemned, though it is absent": [
        Edit(steps, "_found_dead", "state.push or await forest.record(vertex)", "await forest.record(vertex)")
    ],
    "who waits for an answer is not asked": [Edit(steps, "_examine_other", "other in asking or ", "")],
    "only suspects of this round are asked": [
        Edit(steps, "_examine_other", " or state.round != forest.clock.current", "")
    ],
    "who is detached makes suspects of his children": [
        Edit(steps, "_detach", "await forest.suspect(target, theirs)", "pass")
    ],
    "what an urgent round releases is pulled into it": [
        Edit(steps, "_detach", "elif theirs.suspect and rushed and theirs.round == forest.clock.open:", "elif False:")
    ],
    "who is let go urgently is pulled into the urgent round": [
        Edit(changes, "_lost", " or (state.suspect and forest.urgent)", "")
    ],
    "a suspect is taken over by the urgent round": [
        Edit(Forest, "suspect", "if state.suspect and self.urgent and state.round == self.clock.open:", "if False:")
    ],
    "behind a long climb the look goes on": [
        Edit(steps, "examine", "cursor=edge.cursor, saw=True", "cursor=item.cursor, saw=True"),
    ],
    "a look in parts remembers what it saw": [
        Edit(
            steps,
            "examine",
            "cursor=edge.cursor, saw=saw",
            "cursor=edge.cursor",
        )
    ],
    "a suspect whose look has gone on is reset": [
        Edit(
            Forest,
            "look_again",
            'self.rewrite(state, msgspec.structs.replace(item, cursor=b"", hint=hint or item.hint))',
            "pass",
        )
    ],
    "who is being detached has seen what comes": [
        Edit(
            Forest,
            "look_again",
            "self.rewrite(state, msgspec.structs.replace(item, saw=True, hint=hint or item.hint))",
            "pass",
        )
    ],
    # rescues
    "a root is rescued": [Edit(steps, "recheck", "if is_root(record, forest.clock.time):", "if False:")],
    "only what lives rescues": [
        Edit(
            steps,
            "recheck",
            "async for edge in found:\n            if (await forest.state(edge.source)).witness is not None:",
            "async for edge in found:\n            if True:",
        )
    ],
    "who is rescued tells others": [Edit(steps, "_rescue", "await forest.ask_for_push(vertex, anchored)", "pass")],
    "others are those that refer back, too": [
        Edit(steps, "_successors", 'found += [(b"f" + at, link, back)', '[(b"f" + at, link, back)')
    ],
    "others are entries of leases, too": [
        Edit(steps, "_successors", 'if isinstance(record, Lease):\n            cursor = b"z"', "pass")
    ],
    "others are flat, too": [
        Edit(steps, "_successors", "(not flat or (out.edge == _BUILT_IN and kind in FLAT_KINDS))", "not flat")
    ],
    "a rescue is of the current round": [
        Edit(
            Forest,
            "enqueue",
            "self.suspicion_round() if phase is Phase.SUSPECTS else self.current_round()",
            "self.current_round() if phase is Phase.SWEEP else self.suspicion_round()",
        )
    ],
    "the collector's suspicions are of the current round": [
        Edit(Forest, "suspicion_round", "return self.current_round()", "return self.clock.open")
    ],
    "suspects come before rescues": [
        Edit(collector, "_step", "(Phase.SUSPECTS, Phase.RESCUES)", "(Phase.RESCUES, Phase.SUSPECTS)")
    ],
    "rescues come before a round is closed": [
        Edit(collector, "_step", "(Phase.SUSPECTS, Phase.RESCUES)", "(Phase.SUSPECTS,)")
    ],
    "a round that was begun with is work": [Edit(collector, "has_work", "clock.working or ", "")],
    "a round with work left is begun with": [
        Edit(collector, "_work", "forest.set_clock(working=forest.clock.working or phase is not Phase.SWEEP)", "pass"),
        Edit(
            collector,
            "_step",
            "forest.set_clock(current=clock.open, working=True)",
            "forest.set_clock(current=clock.open)",
        ),
    ],
    "an urgent round does not wait in the bin": [
        Edit(collector, "_close", "elif grace_ns and round_ not in forest.clock.rushed:", "elif grace_ns:")
    ],
    "an empty round is not sealed": [
        Edit(collector, "_close", "if not (await forest.extent(round_, Phase.SWEEP)).count:", "if False:")
    ],
    # what is counted
    "an entry of the queue counts": [Edit(Forest, "_extend", "extent.count + 1", "extent.count or 1")],
    "an entry that goes counts no more": [Edit(Forest, "drop_entry", "extent.count - 1", "extent.count")],
    "an extent begins with its first entry": [
        Edit(Forest, "_extend", "extent.first if extent.count else sequence", "sequence")
    ],
    "an extent of nothing goes": [Edit(Forest, "drop_entry", "encode(left) if left.count else None", "encode(left)")],
    "back references count": [Edit(Forest, "put_edge", "await self._count_back(owner.namespace, key, 1)", "pass")],
    "a back reference that goes counts no more": [
        Edit(Forest, "delete_edge", "await self._count_back(owner.namespace, key, -1)", "pass")
    ],
    "a back reference counts once": [
        Edit(Forest, "_count_back", "if (await self.txn.get(key) is not None) == (by > 0):", "if False:")
    ],
    "a dead object counts until its record goes": [Edit(changes, "_deleted", "await forest.uncount(vertex)", "pass")],
    # edges as they are read
    "a condition has to hold": [
        Edit(Forest, "in_edges", "if edge == _CONDITION and (flat or not holds(", "if False and (flat or not holds(")
    ],
    "a hint has to conduct": [Edit(Forest, "conducts", "if link.edge == _CONDITION and (", "if False and (")],
    "normal edges keep nothing flat": [
        Edit(
            Forest,
            "in_edges",
            'if flat != (edge == _ENTRY and value[:1] == b"F") and not (',
            'if not flat and (edge == _ENTRY and value[:1] == b"F") and not (',
        )
    ],
    "flat entries keep nothing else": [
        Edit(
            Forest,
            "in_edges",
            'if flat != (edge == _ENTRY and value[:1] == b"F") and not (',
            'if flat and not (edge == _ENTRY and value[:1] == b"F") and not (',
        )
    ],
    # the sweep, and what is sealed
    "a record goes with its last variant": [
        Edit(steps, "sweep", "if (await forest.states(vertex))[not vertex.flat] != IDLE:", "if False:")
    ],
    "what is sealed is no more": [
        Edit(
            Forest,
            "is_doomed",
            "return state.phase == Phase.SWEEP and state.round in self.clock.sealed",
            "return False",
        )
    ],
    "a new edge buries what is no more": [
        Edit(changes, "_conducts", "if await bury_gone(forest, target):", "if False:")
    ],
    "a condition buries what is no more": [Edit(changes, "edge_added", "await bury_gone(forest, target)", "pass")],
    "a rescue buries what is sealed": [
        Edit(steps, "push", "if await bury_gone(forest, target):", "if False:"),
        Edit(steps, "push", "elif forest.is_doomed(theirs):", "elif False:"),
    ],
    "an instant buries what is sealed": [
        Edit(clock, "_switched", " and not await bury_gone(forest, vertex)", ""),
        Edit(clock, "_switched", "if forest.is_doomed(state):", "if False:"),
    ],
    "both variants are buried": [
        Edit(removing, "bury_both", "for flat in (False, True):", "for flat in (vertex.flat,):")
    ],
    "only what is no more is buried": [
        Edit(
            removing, "bury_gone", "if not all(each == IDLE or forest.is_doomed(each) for each in states):", "if False:"
        )
    ],
    "what is buried leaves no record": [Edit(removing, "bury_both", "await remove_object(forest, vertex)", "pass")],
    "what lives by its other variant is not buried": [Edit(removing, "bury", "if other == IDLE:", "if True:")],
    "what is in the way of a new record is buried": [
        Edit(changes, "bury_if_dead", "await bury_both(forest, vertex)", "pass")
    ],
    "content that is in the way and no more is buried": [
        Edit(changes, "make_way", "await bury_gone(forest, Vertex(namespace, kind, name))", "False")
    ],
    "what waits in the bin makes way": [Edit(changes, "bury_if_dead", " and not in_bin", "")],
    "what is alive does not make way": [
        Edit(changes, "bury_if_dead", "if not forest.is_doomed(state) and not in_bin:", "if False:")
    ],
    "what is sealed is not found": [
        Edit(alive, "is_gone", "return _gone(normal, sealed) and _gone(flat, sealed) and", "return False and")
    ],
}
