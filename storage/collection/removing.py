"""How a dead object goes: its record, its edges and its hold on bytes, in one transaction."""

from __future__ import annotations

from .forest import Forest
from .kinds import remover
from .state import IDLE, State, Vertex

__all__ = ["bury", "bury_both", "bury_gone", "remove_object"]


async def remove_object(forest: Forest, vertex: Vertex) -> bool:
    """Take the record away with all that belongs to it. False: there was no record."""
    if await forest.record(vertex) is None:
        return False
    forest.save()
    before = forest.txn.write_count
    await remover(vertex.kind)(forest.txn, vertex.namespace, vertex.name)
    forest.writes += forest.txn.write_count - before
    await forest.reload()
    return True


async def bury(forest: Forest, vertex: Vertex, state: State) -> State:
    """Something refers to what was condemned in a round that is sealed already, so what it refers to may be gone: it is
    not brought back, but goes now. What refers to it refers to something absent."""
    other = (await forest.states(vertex))[not vertex.flat]
    await forest.forget(state)
    await forest.put_state(vertex, IDLE)
    if forest.is_doomed(other):
        await forest.forget(other)
        await forest.put_state(vertex._replace(flat=not vertex.flat), IDLE)
        other = IDLE
    if other == IDLE:
        await remove_object(forest, vertex)
    return IDLE


async def bury_gone(forest: Forest, vertex: Vertex) -> bool:
    """It goes now, if it is no more: it is not kept in either way, and in one it was sealed."""
    states = await forest.states(vertex)
    if not any(forest.is_doomed(each) for each in states):
        return False
    if not all(each == IDLE or forest.is_doomed(each) for each in states):
        return False
    await bury_both(forest, vertex)
    return True


async def bury_both(forest: Forest, vertex: Vertex) -> None:
    """Neither variant of it is alive: it goes now."""
    for flat in (False, True):
        variant = vertex._replace(flat=flat)
        await forest.forget(await forest.state(variant))
        await forest.put_state(variant, IDLE)
    await remove_object(forest, vertex)
