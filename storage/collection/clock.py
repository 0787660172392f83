"""Time: expiry of leases, images and ingests, and conditions that begin or cease to hold.

The collector's clock moves in a transaction of its own kind; what switched between the old time and the new, in either
direction, is looked at before anything else is done. Source: gc-algorithm 6.
"""

from __future__ import annotations

from typing import Final

from .. import keys
from ..engine import Kind, Reader
from ..references import EdgeKind, switches_at, used_at
from .forest import Forest, condition_of
from .kinds import KIND_OF, LETTERS
from .removing import bury, bury_gone
from .state import ROOT, Vertex, decode_clock

__all__ = ["next_instant", "tick"]

_AT_ONCE: Final = 16
_MOST_BOUNDS: Final = 64
_CONDITION: Final = EdgeKind.CONDITION.value


async def tick(forest: Forest) -> None:
    """Move the clock to now, and look at what switched. When the budget is spent, a later call goes on."""
    now, ticking = forest.txn.now_ns, forest.clock.ticking
    if ticking is None and forest.clock.time != now:
        low, high = sorted((forest.clock.time, now))
        ticking = (keys.instant(low + 1), keys.instant(high + 1))
        forest.set_clock(time=now, ticking=ticking)
    while ticking is not None:
        start, stop = ticking
        forest.reads += 1
        found = await forest.txn.scan(start, stop, _AT_ONCE)
        for key, _ in found:
            await _switched(forest, key)
            start = key + b"\x00"
            if forest.spent:
                break
        done = len(found) < _AT_ONCE and (not found or start == found[-1][0] + b"\x00")
        ticking = None if done else (start, stop)
        forest.set_clock(ticking=ticking)
        if forest.spent:
            return


async def _switched(forest: Forest, key: bytes) -> None:
    vertex, at = _parse(key)
    state = await forest.state(vertex)
    if state.anchored:
        if state.witness == ROOT or (state.witness is not None and state.witness.edge == _CONDITION):
            await forest.suspect(vertex, state)
    elif state.witness is not None:
        await forest.look_again(state)
    elif await forest.record(vertex) is not None and not await bury_gone(forest, vertex):
        if forest.is_doomed(state):
            state = await bury(forest, vertex, state)
        await forest.wake(vertex, state)
    if vertex.kind is Kind.SNAPSHOT and not await _is_bound(forest, vertex, at):
        forest.write(key, None)


async def _is_bound(forest: Forest, snapshot: Vertex, at: int) -> bool:
    """Whether a condition on this snapshot switches then. Where there are very many, it is believed."""
    used = used_at(await forest.record(snapshot))
    if used is None:
        return False
    prefix = keys.edges_to(snapshot.namespace, LETTERS[snapshot.kind], snapshot.name) + _CONDITION.encode()
    found = await forest.txn.scan(prefix, keys.prefix_end(prefix), _MOST_BOUNDS)
    if len(found) == _MOST_BOUNDS:
        return True
    return any(at in switches_at(condition_of(key[len(prefix) - 1 :], value), used) for key, value in found)


def _parse(key: bytes) -> tuple[Vertex, int]:
    rest = key[len(keys.TIMES) :]
    namespace, _, end = rest[8:].partition(b"\x00")
    return Vertex(namespace.decode(), KIND_OF[end[:1]], end[1:].decode()), int.from_bytes(rest[:8], "big")


async def next_instant(reader: Reader) -> int | None:
    """When something switches next, after the time that the collector knows."""
    clock = decode_clock(await reader.get(keys.CLOCK))
    if clock.ticking is not None:
        return clock.time
    found = await reader.scan(keys.instant(clock.time + 1), keys.prefix_end(keys.TIMES), 1)
    return None if not found else _parse(found[0][0])[1]
