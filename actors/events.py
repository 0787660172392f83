"""Events: readers of the journal, and its trimming.

A subscriber holds nothing but a position in the journal; it reads on when a group that wrote events is durable.
So it can never miss one, see one twice, see one that a power cut could take back, or make the store's memory
grow. What it did not read before it was trimmed is `out_of_range`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import trio

from ..protocol.messages import Context, Empty, ListEvents, SubscribeEvents
from ..protocol.service import Session
from ..protocol.world import World
from ..storage import tables
from ..storage.engine import Transaction
from .filtering import refuse_filters
from .storage import Durable, StorageActor

__all__ = ["EventsActor", "JournalLimits"]

_TRIM_AT_ONCE = 500
_READ_AT_ONCE = 200
_TRIM_EVERY_S = 60.0


@dataclass(frozen=True)
class JournalLimits:
    """The journal keeps the newest `events`, and of those none older than `age_s`."""

    events: int = 1_000_000
    age_s: float = 7 * 24 * 3600


class _RawPage(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]
    next: int


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
            await self.trim()
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
        """Raises OutOfRange when events after `after` were trimmed; 0 means from the oldest that is kept."""
        refuse_filters(request.filters)
        with self._storage.view() as view:
            floor, _head = await tables.journal_bounds(view)
            after = request.after or floor
            items = await tables.read_events(view, after, request.limit)
        return _RawPage(items, after + len(items))

    async def subscribe(
        self,
        request: SubscribeEvents,
        _: Context,
        __: Session,
        emit: Callable[[object], Awaitable[None]],
    ) -> Empty:
        """Emit events as they become durable, without gap or repeat, until cancelled."""
        refuse_filters(request.filters)
        with self._storage.view() as view:
            floor, head = await tables.journal_bounds(view)
        position = head if request.after is None else (request.after or floor)
        while True:
            news = self._news
            with self._storage.view() as view:
                events = await tables.read_events(view, position, _READ_AT_ONCE)
            for event in events:
                await emit(event)
            # The journal has no gaps: numbers are given in the transactions that write them.
            position += len(events)
            if not events:
                await news.wait()

    def _hear(self, durable: Durable) -> None:
        if durable.events:
            self._news.set()
            self._news = trio.Event()
