"""What the collector knows, against its queue and the edges that it relies on. Source: gc-algorithm 3 and 7."""

from __future__ import annotations

from functools import partial
from typing import Final, cast

import msgspec

from ...protocol.errors import OrlopError
from ...protocol.messages import Problem
from .. import keys
from ..codec import encode
from ..collection.forest import Forest, new_item
from ..collection.kinds import KIND_OF, LETTERS, find_record, size_of
from ..collection.mark import Node, Pause
from ..collection.owed import first_owed
from ..collection.state import (
    IDLE,
    ROOT,
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
    parse_state,
)
from ..engine import Kind, Reader, Transaction
from ..references import is_root
from .flaw import Flaw, Mend, Page, delete_key, page_of

__all__ = [
    "anchored",
    "audit_extents",
    "audit_queue",
    "audit_states",
    "loops",
    "suspect_again",
    "unaware",
    "wake_again",
]

_AT_ONCE: Final = 200
_PLACE_BYTES: Final = 17


async def audit_extents(reader: Reader) -> list[Flaw]:
    """Of every phase it is known how many entries it has, and where they begin. All on one view."""
    there: dict[bytes, Extent] = {}
    after = keys.QUEUE
    while True:
        page = await reader.scan(after, keys.prefix_end(keys.QUEUE), _AT_ONCE)
        for key, _ in page:
            if len(key) == len(keys.QUEUE) + _PLACE_BYTES:
                round_, phase, sequence = _place(key)
                extent = there.get(_extent(round_, phase), Extent(0, sequence))
                there[_extent(round_, phase)] = Extent(extent.count + 1, extent.first)
        if len(page) < _AT_ONCE:
            break
        after = page[-1][0] + b"\x00"
    known = dict(await reader.scan(keys.QUEUE_EXTENTS, keys.prefix_end(keys.QUEUE_EXTENTS), 100_000))
    flaws = []
    for key in sorted({*known, *there}):
        wanted = there.get(key, Extent())
        try:
            extent = decode_extent(known.get(key))
        except msgspec.MsgspecError:
            extent = Extent(-1)
        if extent.count != wanted.count or extent.first > wanted.first or (key in known and not wanted.count):
            detail = f"{extent.count} entries from {extent.first} known, {wanted.count} from {wanted.first} there"
            flaws.append(Flaw(Problem.STATE, "", "queue", key.hex(), detail, partial(_measure, key=key)))
    return flaws


def _extent(round_: int, phase: int) -> bytes:
    return keys.queue_extent(round_, phase)


async def audit_queue(reader: Reader, after: bytes) -> Page:
    """Every entry of the queue is one that its object has, and lies where the collector looks."""
    page, following = await page_of(reader, keys.QUEUE, after, _AT_ONCE)
    clock = decode_clock(await reader.get(keys.CLOCK))
    bins = await _bins(reader)
    flaws: list[Flaw] = []
    behind = False
    for key, value in page:
        delete = partial(_delete_place, key=key)
        item, place = _decode(value), key[len(keys.QUEUE) :]
        if item is None or len(place) != _PLACE_BYTES:
            flaws.append(Flaw(Problem.STATE, "", "queue", key.hex(), "an entry that says nothing", delete))
            continue
        round_, phase, sequence = _place(key)
        state = await _state(reader, item.vertex)
        if state is None or not _points(state, key, item):
            flaws.append(_flaw(item.vertex, "a stray entry in the queue", delete))
        elif not _is_worked(clock, bins, round_, phase):
            again = partial(_push_again if item.mode == Mode.PUSH else _queue_again, vertex=item.vertex)
            flaws.append(_flaw(item.vertex, "it waits in the queue where nobody looks", again))
        behind |= sequence > clock.sequence or round_ > clock.last
    if behind:
        detail = "numbers of the queue are later than its last"
        flaws.insert(0, Flaw(Problem.STATE, "", "queue", "the collector's clock", detail, _wind_clock))
    return Page(flaws, len(page), following)


async def audit_states(reader: Reader, after: bytes) -> Page:
    """Who waits has an entry in the queue, and what is anchored is so by an edge that is there. Whether that edge leads
    to a root, the comparison with the full mark tells."""
    page, following = await page_of(reader, keys.EDGES, after, _AT_ONCE)
    clock = decode_clock(await reader.get(keys.CLOCK))
    settled = clock.ticking is None and await first_owed(reader) is None
    flaws: list[Flaw] = []
    for key, value in page:
        try:
            namespace, letter, name, end = keys.about(key)
            if end != keys.STATE_MARK:
                continue  # an edge
            vertex = Vertex(namespace, KIND_OF[letter], name or "")
        except (KeyError, ValueError, IndexError):
            continue  # said where edges are looked at
        try:
            both = decode_states(value)
            parsed = parse_state(key, value)
            assert parsed is not None
            vertex = parsed
        except msgspec.MsgspecError as error:
            mend = partial(delete_key, key=key) if name is None else partial(_forget, key=key, vertex=vertex)
            flaws.append(_flaw(vertex, f"what is known of it cannot be read: {error}", mend))
            continue
        if decode_counted(value) != await _counts_for(reader, vertex, both):
            detail = f"{decode_counted(value)} bytes of it are counted as reclaimable"
            flaws.append(_flaw(vertex, detail, partial(_count_again, key=key, vertex=vertex)))
        for flat, state in enumerate(both):
            if state != IDLE:
                flaws += await _audit_state(reader, clock, vertex._replace(flat=bool(flat)), state, settled=settled)
    return Page(flaws, len(page), following)


async def _counts_for(reader: Reader, vertex: Vertex, both: tuple[State, State]) -> int:
    """The bytes for which an object counts as reclaimable: all of a dead one's."""
    measure = size_of(vertex.kind)
    if measure is None or not is_dead(*both):
        return 0
    try:
        return await measure(reader, vertex.namespace, vertex.name)
    except (OrlopError, msgspec.MsgspecError):
        return decode_counted(await reader.get(keys.state(vertex.namespace, LETTERS[vertex.kind], vertex.name)))


async def _audit_state(reader: Reader, clock: Clock, vertex: Vertex, state: State, *, settled: bool) -> list[Flaw]:
    flaws = []
    if state.phase:
        key = keys.queued(state.round, state.phase, state.sequence)
        if not await _is_at(reader, key, vertex, push=False):
            flaws.append(_flaw(vertex, "it waits, and is not in the queue", partial(_queue_again, vertex=vertex)))
    if state.push:
        key = keys.queued(state.push_round, Phase.RESCUES, state.push)
        if not await _is_at(reader, key, vertex, push=True):
            flaws.append(
                _flaw(vertex, "it is to tell others, and is not in the queue", partial(_push_again, vertex=vertex))
            )
    if settled and state.anchored and not await _is_witnessed(reader, clock, vertex, state):
        mend = partial(suspect_again, vertex=vertex)
        flaws.append(_flaw(vertex, "what is said to keep it does not", mend))
    return flaws


async def _is_witnessed(reader: Reader, clock: Clock, vertex: Vertex, state: State) -> bool:
    """A record that cannot be read is reported itself."""
    assert state.witness is not None
    try:
        record = None if vertex.flat else await find_record(reader, vertex.namespace, vertex.kind, vertex.name)
        if state.witness == ROOT:
            return is_root(record, clock.time)
        forest = Forest(cast("Transaction", _Look(reader)), clock)
        edge = await forest.conducts(vertex, state.witness, record)
        if edge is None:
            return False
        above = await forest.state(edge.source)
    except (OrlopError, msgspec.MsgspecError):
        return True
    except (ValueError, AttributeError):  # a witness of a kind that there is not
        return False
    return above.anchored or above.phase == Phase.SUSPECTS


class _Look:
    """Reads as a transaction does; nothing is written through it."""

    urgent = False

    def __init__(self, reader: Reader) -> None:
        self.get = reader.get
        self.scan = reader.scan


async def anchored(reader: Reader, namespace: str) -> dict[Node, Node | None]:
    """All that the collector takes for alive, each with the object that keeps it; None: it keeps itself."""
    found: dict[Node, Node | None] = {}
    prefix = keys.edges_in(namespace)
    after = prefix
    while True:
        page = await reader.scan(after, prefix + b"\x7f", _AT_ONCE)
        for key, value in page:
            vertex = parse_state(key, value)
            for flat, state in enumerate(decode_states(value) if vertex is not None else ()):
                if vertex is not None and state.anchored and state.witness is not None:
                    found[Node(vertex.kind, vertex.name, bool(flat))] = _above(state.witness, flat=bool(flat))
        if len(page) < _AT_ONCE:
            return found
        after = page[-1][0] + b"\x00"


async def unaware(reader: Reader, namespace: str, alive: set[Node]) -> list[Node]:
    """Those that live, and of which the collector neither knows that nor is about to find out."""
    found = []
    for node in alive:
        state = await _state(reader, Vertex(namespace, *node))
        if state is not None and state.witness is None and state.phase not in (Phase.SUSPECTS, Phase.RESCUES):
            found.append(node)
    return found


def _above(witness: Link, *, flat: bool) -> Node | None:
    return None if witness == ROOT else Node(Kind(witness.kind), witness.name, flat and witness.edge == "a")


async def loops(above: dict[Node, Node | None], pause: Pause) -> list[Node]:
    """One of each circle of objects that keep only each other."""
    found: list[Node] = []
    seen: set[Node] = set()
    for count, node in enumerate(above, 1):
        if count % _AT_ONCE == 0:
            await pause()
        path: set[Node] = set()
        at: Node | None = node
        while at is not None and at not in seen:
            seen.add(at)
            path.add(at)
            at = above.get(at)
        if at in path and at is not None:
            found.append(at)
    return found


def _points(state: State, key: bytes, item: Item) -> bool:
    round_, phase, sequence = _place(key)
    if item.mode == Mode.PUSH:
        return phase == Phase.RESCUES and (state.push_round, state.push) == (round_, sequence)
    return (state.round, state.phase, state.sequence) == (round_, phase, sequence)


async def _is_at(reader: Reader, key: bytes, vertex: Vertex, *, push: bool) -> bool:
    value = await reader.get(key)
    item = None if value is None else _decode(value)
    return item is not None and item.vertex == vertex and (item.mode == Mode.PUSH) == push


def _decode(value: bytes) -> Item | None:
    try:
        item = decode_item(value)
        Kind(item.kind)
    except (ValueError, msgspec.MsgspecError):
        return None
    return item


def _place(key: bytes) -> tuple[int, int, int]:
    rest = key[len(keys.QUEUE) :]
    return int.from_bytes(rest[:8], "big"), rest[8], int.from_bytes(rest[9:], "big")


async def _state(reader: Reader, vertex: Vertex) -> State | None:
    """None: it cannot be read."""
    try:
        return await Forest(cast("Transaction", _Look(reader)), Clock()).state(vertex)
    except msgspec.MsgspecError:
        return None


async def _bins(reader: Reader) -> set[int]:
    pairs = await reader.scan(keys.BINS, keys.prefix_end(keys.BINS), 100_000)
    return {int.from_bytes(key[len(keys.BINS) :], "big") for key, _ in pairs}


def _is_worked(clock: Clock, bins: set[int], round_: int, phase: int) -> bool:
    if phase == Phase.SUSPECTS:
        return round_ in (clock.open, clock.urgent, clock.current)
    if phase == Phase.RESCUES:
        return round_ == clock.current
    return round_ == clock.current or round_ in clock.sealed or round_ in bins


def _flaw(vertex: Vertex, detail: str, mend: Mend) -> Flaw:
    detail += " (kept flat)" if vertex.flat else ""
    return Flaw(Problem.STATE, vertex.namespace, vertex.kind.name.lower(), vertex.name, detail, mend)


# mending ----------------------------------------------------------------------------------------------------


async def _measure(txn: Transaction, key: bytes) -> None:
    prefix = keys.QUEUE + key[len(keys.QUEUE_EXTENTS) :]
    count, first, after = 0, 0, prefix
    while True:
        page = await txn.scan(after, keys.prefix_end(prefix), 1000)
        count += len(page)
        if page and not first:
            first = _place(page[0][0])[2]
        if len(page) < 1000:
            break
        after = page[-1][0] + b"\x00"
    txn.index(key, encode(Extent(count, first)) if count else None)
    txn.made_garbage()


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


async def _wind_clock(txn: Transaction) -> None:
    """Numbers that were given out are not given out again."""
    forest = await Forest.load(txn)
    after = keys.QUEUE
    while True:
        page = await txn.scan(after, keys.prefix_end(keys.QUEUE), _AT_ONCE)
        for key, _ in page:
            round_, _, sequence = _place(key)
            forest.set_clock(last=max(forest.clock.last, round_), sequence=max(forest.clock.sequence, sequence))
        if len(page) < _AT_ONCE:
            break
        after = page[-1][0] + b"\x00"
    if not forest.clock.open or forest.clock.open in (forest.clock.current, *forest.clock.sealed):
        forest.set_clock(open=forest.new_round())
    forest.save()


async def _delete_place(txn: Transaction, key: bytes) -> None:
    value = await txn.get(key)
    item = None if value is None else _decode(value)
    state = None if item is None else await _state(txn, item.vertex)
    if state is None or item is None or not _points(state, key, item):
        if len(key) == len(keys.QUEUE) + _PLACE_BYTES:
            forest = await Forest.load(txn)
            await forest.drop_entry(*_place(key))
        else:
            txn.index(key, None)


async def _queue_again(txn: Transaction, vertex: Vertex) -> None:
    """A place in the queue, for one that waits and has none or one that is never reached."""
    forest = await Forest.load(txn)
    state = await forest.state(vertex)
    bins = await _bins(txn)
    if state.phase:
        key = keys.queued(state.round, state.phase, state.sequence)
        there = await _is_at(txn, key, vertex, push=False)
        if there and _is_worked(forest.clock, bins, state.round, state.phase):
            return
        if there:
            await forest.drop_place(state)
        loose = state.unqueued()
        if state.phase == Phase.SUSPECTS:
            mode = Mode.DETACH if state.witness is None else Mode.SUSPECT
            await forest.enqueue(vertex, loose, Phase.SUSPECTS, new_item(vertex, mode, saw=mode == Mode.DETACH))
        elif state.condemned and _is_worked(forest.clock, bins, state.round, Phase.SWEEP):
            item = new_item(vertex, Mode.SWEEP)
            await forest.place(vertex, loose, state.round, Phase.SWEEP, forest.next_sequence(), item)
        else:
            await forest.enqueue(vertex, loose, Phase.RESCUES, new_item(vertex, Mode.RECHECK))
        txn.made_garbage()
    forest.save()


async def _push_again(txn: Transaction, vertex: Vertex) -> None:
    forest = await Forest.load(txn)
    state = await forest.state(vertex)
    if state.push:
        key = keys.queued(state.push_round, Phase.RESCUES, state.push)
        if await _is_at(txn, key, vertex, push=True):
            await forest.drop_entry(*_place(key))
        quiet = State(state.witness, state.round, state.phase, state.sequence, 0, 0, state.lost, state.since)
        if state.witness is None:
            await forest.put_state(vertex, quiet)
        else:
            await forest.ask_for_push(vertex, quiet)
        txn.made_garbage()
    forest.save()


async def _count_again(txn: Transaction, key: bytes, vertex: Vertex) -> None:
    """The counter itself is compared with what is there later."""
    both = decode_states(await txn.get(key))
    txn.index(key, encode_states(*both, await _counts_for(txn, vertex, both), vertex.name))


async def _forget(txn: Transaction, key: bytes, vertex: Vertex) -> None:
    """What cannot be read is found out anew."""
    try:
        decode_states(await txn.get(key))
    except msgspec.MsgspecError:
        txn.index(key, None)
        for flat in (False, True):
            await wake_again(txn, vertex._replace(flat=flat))
