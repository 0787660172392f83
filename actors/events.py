"""Events: readers of the journal, and its trimming.

A subscriber holds nothing but a position in the journal; it reads on when a group that wrote events is durable.
So it can never miss one, see one twice, see one that a power cut could take back, or make the store's memory
grow. What it did not read before it was trimmed is `out_of_range`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
import structlog
import trio

from ..protocol.errors import InvalidArgument, OrlopError
from ..protocol.filters.fields import EVENT
from ..protocol.filters.matching import Matcher, compile_filters
from ..protocol.identifiers import check_identifier, check_topic
from ..protocol.messages import Context, Empty, ForwardEvent, ListEvents, Published, PublishEvent, SubscribeEvents
from ..protocol.service import Session
from ..protocol.world import Work, World
from ..storage import tables
from ..storage.codec import join_records
from ..storage.engine import Transaction
from .actor import Plan
from .listing import RawPage
from .storage import Durable, StorageActor

__all__ = ["PLANS", "EventsActor", "JournalLimits"]

log = structlog.get_logger("orlop.events")

_TRIM_AT_ONCE = 500
_READ_AT_ONCE = 200
_TRIM_EVERY_S = 60.0
_PAGE_SCANS = 40


@dataclass(frozen=True)
class JournalLimits:
    """The journal keeps the newest `events`, and of those none older than `age_s`."""

    events: int = 1_000_000
    age_s: float = 7 * 24 * 3600


class EventsActor:
    def __init__(self, storage: StorageActor, limits: JournalLimits, world: World) -> None:
        self._storage = storage
        self._limits = limits
        self._world = world
        self._news = trio.Event()
        storage.listen(self._hear)

    async def run(self) -> None:
        """Trims the journal now and then. Ends when cancelled."""
        while True:
            try:
                await self.trim()
            except OrlopError as error:
                log.warning("the journal was not trimmed", error=str(error))
            await trio.sleep(_TRIM_EVERY_S)

    async def trim(self) -> int:
        """Bring the journal within its limits; returns how many events went."""
        with self._storage.view() as view:
            floor, head = await tables.journal_bounds(view)
        keep_after = max(floor, head - self._limits.events)
        older = self._world.clock.now_ns() - int(self._limits.age_s * 1e9)
        trimmed = 0

        async def trim(txn: Transaction) -> int:
            return await tables.trim_events(txn, keep_after, older, _TRIM_AT_ONCE)

        while True:
            count = await self._storage.transact(trim) if head > floor else 0
            trimmed += count
            if count < _TRIM_AT_ONCE:
                return trimmed

    async def list_page(self, request: ListEvents, _: Context) -> msgspec.Struct:
        """Raises OutOfRange when events after `after` were trimmed; 0 means from the oldest that is kept.

        With filters a page may be short, or empty, and yet not the last: it is when `next` is what was given.
        """
        matcher = compile_filters(EVENT, request.filters)
        with self._storage.view() as view:
            floor, _head = await tables.journal_bounds(view)
        after = request.after or floor
        found: list[bytes] = []
        for scans in range(_PAGE_SCANS):
            if scans:
                await trio.lowlevel.checkpoint()
            wanted = min(_READ_AT_ONCE, request.limit - len(found))
            with self._storage.view() as view:
                events = await tables.read_events(view, after, wanted)
            found += await self._passing(matcher, events)
            after += len(events)  # the journal has no gaps: numbers are given in the transactions that write them
            if not events or len(found) == request.limit:
                break
        return RawPage(join_records(found), after)

    async def subscribe(
        self,
        request: SubscribeEvents,
        _: Context,
        __: Session,
        emit: Callable[[object], Awaitable[None]],
    ) -> Empty:
        """Emit events as they become durable, without gap or repeat, until cancelled.

        Raises InvalidArgument (filters), OutOfRange.
        """
        matcher = compile_filters(EVENT, request.filters)
        with self._storage.view() as view:
            floor, head = await tables.journal_bounds(view)
        position = head if request.after is None else (request.after or floor)
        while True:
            news = self._news
            with self._storage.view() as view:
                events = await tables.read_events(view, position, _READ_AT_ONCE)
            for event in await self._passing(matcher, events):
                await emit(msgspec.Raw(event))
            position += len(events)
            if not events:
                await news.wait()

    async def _passing(self, matcher: Matcher | None, events: list[bytes]) -> list[bytes]:
        if matcher is None:
            return events
        if matcher.heavy:
            return await self._world.workers.run(Work.BYTES, _filtered, matcher, events)
        return _filtered(matcher, events)

    def _hear(self, durable: Durable) -> None:
        if durable.events:
            self._news.set()
            self._news = trio.Event()


def _filtered(matcher: Matcher, events: list[bytes]) -> list[bytes]:
    return [event for event in events if matcher.accepts(event)]


async def publish(txn: Transaction, request: PublishEvent, context: Context) -> Published:
    """An event of a caller's own. Source: spec metadata 14.5."""
    check_topic(request.topic)
    sequence = await tables.append_event(txn, context.namespace or "", request.event, topic=request.topic)
    return Published(sequence)


async def forward(txn: Transaction, request: ForwardEvent, _: Context) -> Published:
    check_identifier(request.namespace, "namespace")
    check_topic(request.topic)
    if request.timestamp <= 0:
        raise InvalidArgument("an event that is forwarded needs its time")
    sequence = await tables.append_event(
        txn, request.namespace, request.event, topic=request.topic, timestamp=request.timestamp
    )
    return Published(sequence)


PLANS: Mapping[type[msgspec.Struct], Plan] = {PublishEvent: publish, ForwardEvent: forward}
