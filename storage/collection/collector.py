"""One slice of a collection: a bounded number of steps, as one transaction.

What comes first: owed work and the clock, then the suspects and rescues of the current round, then the sweep of rounds
that are sealed, then the next round. A round is *sealed* when nothing of it is in question any more: from that
transaction on its condemned are no more, for everybody and all at once, however long the sweep takes. With a grace
period a round waits in the bin first. Source: gc-algorithm 3 and 5; docs/collection.md.
"""

from __future__ import annotations

from typing import Final

from .. import keys, snapshots
from ..blobs import ledger
from ..engine import Kind, Reader, Transaction
from . import objects  # noqa: F401 - it makes the kinds known
from .clock import tick
from .deleted import drop_expired
from .forest import Forest
from .owed import first_owed
from .settling import settle_some
from .state import Mode, Phase, Vertex, decode_clock, decode_extent
from .steps import examine, push, recheck, sweep

__all__ = ["Places", "Slice", "bin_rounds", "collect_some", "drop_unheld_some", "has_suspects", "has_work", "next_due"]

SLICE_BUDGET: Final = 128
"""Reads and writes of one slice; one or two milliseconds."""
_AT_ONCE: Final = 16
_OWED_COST: Final = 100
_UNHELD_COST: Final = 8


class Places:
    """Where the search for what nobody holds goes on: LevelDB finds the first key of a long-used range slowly. `swept`:
    blobs of which it is known, without a search, that nobody may hold them."""

    def __init__(self) -> None:
        self.blob = ""
        self.snapshot = 0
        self.deleted = b""
        self.swept: list[str] = []

    def clear(self) -> None:
        self.blob, self.snapshot, self.deleted = "", 0, b""
        self.swept.clear()


class Slice:
    """What one slice did. `more`: there is more to do now. `urgent`: somebody's urgent work is not done yet."""

    def __init__(self) -> None:
        self.more = True
        self.urgent = False
        self.removed: dict[Kind, int] = {}
        self.blobs = 0
        self.freed = 0
        self.objects: list[tuple[Vertex, int]] = []
        self.steps = 0
        self.cost = 0
        self.took_ns = 0

    def count(self, vertex: Vertex, size: int) -> None:
        self.removed[vertex.kind] = self.removed.get(vertex.kind, 0) + 1
        self.objects.append((vertex, size))


async def collect_some(
    txn: Transaction, places: Places, *, budget: int = SLICE_BUDGET, grace_ns: int = 0, most_steps: int = 0
) -> Slice:
    """Do some of what is to be done. `grace_ns`: how long a round waits in the bin. `most_steps` 0: as the
    budget says."""
    forest = await Forest.load(txn, collector=True, budget=budget)
    forest.urgent = False
    slice_ = Slice()
    while not forest.spent and not (most_steps and slice_.steps >= most_steps):
        slice_.steps += 1
        if not await _step(forest, slice_, places, grace_ns):
            slice_.more = False
            break
    slice_.urgent = bool(forest.clock.rushed) or await first_owed(txn) is not None
    slice_.cost = forest.reads + forest.writes
    forest.save()
    return slice_


async def _step(forest: Forest, slice_: Slice, places: Places, grace_ns: int) -> bool:
    """False: there is nothing to do."""
    forest.save()
    if await settle_some(forest.txn):
        await forest.reload()
        forest.writes += _OWED_COST
        return True
    clock = forest.clock
    if clock.ticking is not None or clock.time != forest.txn.now_ns:
        await tick(forest)
        if forest.clock.ticking is not None:
            return True
        clock = forest.clock
    if clock.climb is not None:
        vertex = Vertex(clock.climb.namespace, Kind(clock.climb.kind), clock.climb.name, clock.climb.flat)
        state = await forest.state(vertex)
        if not state.suspect:
            forest.set_clock(climb=None)
        else:
            await examine(forest, vertex, state, await forest.item(state))
        return True
    if clock.current:
        for phase in (Phase.SUSPECTS, Phase.RESCUES):
            if await _work(forest, slice_, places, clock.current, phase):
                return True
        await _close(forest, grace_ns)
        return True
    if clock.urgent:
        forest.set_clock(current=clock.urgent, urgent=0, working=True)
        return True
    if clock.sealed:
        round_ = next((each for each in clock.sealed if each in clock.rushed), clock.sealed[0])
        if not await _work(forest, slice_, places, round_, Phase.SWEEP):
            _end(forest, round_)
        return True
    if (await forest.extent(clock.open, Phase.SUSPECTS)).count:
        forest.set_clock(current=clock.open, working=True)
        forest.set_clock(open=forest.new_round())
        return True
    more, places.deleted = await drop_expired(forest.txn, grace_ns, places.deleted, _AT_ONCE)
    if more:
        forest.writes += _AT_ONCE
        return True
    return await _seal_what_is_due(forest, grace_ns) or await _drop_unheld(forest, slice_, places)


async def _work(forest: Forest, slice_: Slice, places: Places, round_: int, phase: Phase) -> bool:
    """Some of a phase; False: nothing is left of it."""
    found = await forest.entries(round_, phase, _AT_ONCE)
    if not found:
        return False
    forest.set_clock(working=forest.clock.working or phase is not Phase.SWEEP)
    for sequence, item in found:
        vertex = item.vertex
        state = await forest.state(vertex)
        if item.mode == Mode.PUSH:
            await push(forest, vertex, state, sequence, item)
        elif (state.round, state.phase, state.sequence) != (round_, phase, sequence):
            continue  # a step before, in this very slice, has seen to it
        elif phase is Phase.SUSPECTS:
            await examine(forest, vertex, state, await forest.item(state))
        elif phase is Phase.RESCUES:
            await recheck(forest, vertex, state, await forest.item(state))
        else:
            size = await forest.counted(vertex)
            if await sweep(forest, vertex, state):
                slice_.count(vertex, size)
                if vertex.kind is Kind.CONTENT:
                    places.swept.append(vertex.name)
        if forest.spent or forest.clock.climb is not None:
            break
    return True


async def _close(forest: Forest, grace_ns: int) -> None:
    """Nothing of the current round is in question any more."""
    round_ = forest.clock.current
    forest.set_clock(current=0, working=False)
    if not (await forest.extent(round_, Phase.SWEEP)).count:
        _end(forest, round_)
    elif grace_ns and round_ not in forest.clock.rushed:
        forest.write(keys.bin_round(round_), keys.number(forest.txn.now_ns))
    else:
        forest.set_clock(sealed=(*forest.clock.sealed, round_))


def _end(forest: Forest, round_: int) -> None:
    clock = forest.clock
    forest.set_clock(
        sealed=tuple(each for each in clock.sealed if each != round_),
        rushed=tuple(each for each in clock.rushed if each != round_),
    )


async def _seal_what_is_due(forest: Forest, grace_ns: int) -> bool:
    found = await forest.txn.scan(keys.BINS, keys.prefix_end(keys.BINS), 1)
    if not found:
        return False
    key, value = found[0]
    if int.from_bytes(value, "big") + grace_ns > forest.txn.now_ns:
        return False
    forest.write(key, None)
    forest.set_clock(sealed=(*forest.clock.sealed, int.from_bytes(key[len(keys.BINS) :], "big")))
    return True


async def drop_unheld_some(txn: Transaction, places: Places, *, budget: int = SLICE_BUDGET) -> Slice:
    """Only that part of a collection that takes what no namespace holds any more from the backends."""
    txn.quiet = True
    forest = await Forest.load(txn, collector=True, budget=budget)
    slice_ = Slice()
    slice_.more = await _drop_unheld(forest, slice_, places)
    forest.save()
    return slice_


async def _drop_unheld(forest: Forest, slice_: Slice, places: Places) -> bool:
    """Blobs and folders that no namespace holds are no longer live, and are queued for removal; of snapshots those on
    which nothing stands, whose parents may be next. From where it was left, then once more from the beginning."""
    txn = forest.txn
    forest.reads += 2
    unheld = await ledger.count_unheld(txn)
    limit = max(1, int(min(_AT_ONCE * _UNHELD_COST, forest.budget)) // _UNHELD_COST)
    swept, places.swept = places.swept[:limit], places.swept[limit:]
    blobs = swept
    if unheld and not swept:
        blobs = await ledger.page_unheld(txn, places.blob, limit)
    folders = await snapshots.page_unheld_snapshots(txn, places.snapshot, limit)
    again = bool((unheld and places.blob) or places.snapshot)
    places.blob = blobs[-1] if blobs and not swept else ""
    places.snapshot = folders[-1] if folders else 0
    for digest in blobs:
        freed = await ledger.forget_unheld(txn, digest)
        forest.writes += 4
        if freed is not None:
            slice_.blobs += 1
            slice_.freed += freed
    for snapshot in reversed(folders):
        slice_.freed += await snapshots.forget_unheld_snapshot(txn, snapshot) or 0
        forest.writes += 4
    return bool(blobs or folders) or again


async def next_due(reader: Reader, grace_ns: int) -> int | None:
    """When the oldest round in the bin is to go."""
    found = await reader.scan(keys.BINS, keys.prefix_end(keys.BINS), 1)
    return None if not found else int.from_bytes(found[0][1], "big") + grace_ns


async def bin_rounds(reader: Reader, limit: int) -> list[int]:
    """When each round in the bin was condemned, the oldest first."""
    found = await reader.scan(keys.BINS, keys.prefix_end(keys.BINS), limit)
    return [int.from_bytes(value, "big") for _, value in found]


async def has_suspects(reader: Reader) -> bool:
    """Whether anything is in question."""
    clock = decode_clock(await reader.get(keys.CLOCK))
    phases = [(clock.open, Phase.SUSPECTS), (clock.urgent, Phase.SUSPECTS)]
    phases += [(clock.current, Phase.SUSPECTS), (clock.current, Phase.RESCUES)]
    for round_, phase in phases:
        if decode_extent(await reader.get(keys.queue_extent(round_, phase))).count:
            return True
    return bool(clock.ticking or clock.climb)


async def has_work(reader: Reader) -> bool:
    """Whether an earlier run of the store left something to do."""
    clock = decode_clock(await reader.get(keys.CLOCK))
    if clock.working or clock.sealed or await has_suspects(reader) or await first_owed(reader) is not None:
        return True
    return bool(await ledger.count_unheld(reader) or await snapshots.page_unheld_snapshots(reader, 0, 1))
