"""The GC actor: when a collection runs, slice by slice, and who waits for it.

Each slice is one transaction of the single order that serves every caller, so callers and collector never need a lock
between them. What a slice does is `storage.collection`'s. Source: spec gc 12 to 14, gc-algorithm, DESIGN 8.
"""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

from ..protocol.errors import OrlopError, Unavailable
from ..protocol.messages import BinRound, Collection, CollectorStatus
from ..protocol.world import World
from ..storage import keys
from ..storage.blobs import ledger
from ..storage.collection.alive import sealed_rounds
from ..storage.collection.clock import next_instant
from ..storage.collection.collector import (
    SLICE_BUDGET,
    Places,
    Slice,
    bin_rounds,
    collect_some,
    drop_unheld_some,
    has_suspects,
    has_work,
    next_due,
)
from ..storage.collection.deleted import grace_ns as known_grace_ns
from ..storage.collection.owed import first_owed
from ..storage.engine import Kind, Transaction
from .config import CollectorConfig
from .promise import Promise
from .removals import RemovalActor
from .storage import Durable, StorageActor, Submission

__all__ = ["Collector"]

log = structlog.get_logger("orlop.gc")

_SLICES_TOGETHER: Final = 3
_LONG_NS: Final = 3_000_000  # for a slice
_LEAST_BUDGET: Final = 16
_MOST_ROUNDS: Final = 1000
RETRY_S: Final = 5.0  # after a slice that failed


class _Waiting:
    """Somebody who waits: for all that there is to do, or for what is urgent only."""

    def __init__(self, *, urgent: bool, empty_bin: bool = False) -> None:
        self.urgent = urgent
        self.empty_bin = empty_bin
        self.promise: Promise[Collection] = Promise()


class Collector:
    """Collects when something was deleted, when something expired, and when asked."""

    def __init__(self, storage: StorageActor, removals: RemovalActor, world: World, config: CollectorConfig) -> None:
        self._storage = storage
        self._removals = removals
        self._world = world
        self._config = config
        self._places = Places()
        self._woken = trio.Event()
        self._alarm_ns: int | None = None
        self._changes = self._deletes = 0
        self._waiting: list[_Waiting] = []
        self._grace_ns = int(config.grace_s * 1e9)
        self._collecting = False
        self._budget = SLICE_BUDGET
        self._worked_ns = self._longest_ns = self._uncounted = 0
        self._total = _Total()
        self.runs = self.failures = 0
        self.trouble = ""
        """Why the last collection failed; empty if it did not."""
        storage.listen(self._hear)

    async def collect(self, *, empty_bin: bool = False) -> Collection:
        """Everything that is to be done now, and what that removed; bytes are off the disk. Cancellation: it goes on
        unheard. Raises Unavailable when it failed: nothing alive was touched, and it is tried again."""
        return await self._wait_for(_Waiting(urgent=False, empty_bin=empty_bin))

    async def collect_urgent(self) -> Collection:
        """What transactions that said `urgent` released, before everything else."""
        return await self._wait_for(_Waiting(urgent=True))

    async def _wait_for(self, waiting: _Waiting) -> Collection:
        self._waiting.append(waiting)
        self._woken.set()
        return await waiting.promise.wait()

    async def run(self) -> None:
        """Begins with what an earlier run left behind. Ends when cancelled."""
        await self._remember_grace()
        if not await self._left_over():
            await self._until_there_is_work()
        else:
            await self._pause(self._config.startup_delay_s)
        while True:
            self._changes = self._deletes = 0
            waiting, self._waiting = self._waiting, []
            try:
                self._collecting = True
                result = await self._collect(waiting)
                self._collecting = False
                self._alarm_ns = await self._next_alarm()
            except OrlopError as error:
                log.error("a collection failed; nothing alive was touched", error=str(error))
                self.failures += 1
                self.trouble = error.message
                self._places.clear()
                _fail(waiting, Unavailable(f"the collection failed: {error.message}"))
                await self._pause(RETRY_S)
                continue
            except BaseException:
                _fail(waiting, Unavailable("the collector ended"))
                raise
            self.runs += 1
            self.trouble = ""
            for each in waiting:
                each.promise.succeed(result)
            await self._until_there_is_work()

    async def _left_over(self) -> bool:
        try:
            self._alarm_ns = await self._next_alarm()
            with self._storage.view() as view:
                return await has_work(view)
        except OrlopError:  # not readable: then find out by collecting
            return True

    async def _collect(self, waiting: list[_Waiting]) -> Collection:
        """Slices until nothing is left to do. Those who wait for what is urgent are answered in between."""
        clock = self._world.clock
        began = clock.monotonic_ns()
        total = _Total()
        self._uncounted = self._removals.uncounted_bytes
        first = True
        grace_ns = 0 if any(each.empty_bin for each in waiting) else self._grace_ns
        while True:
            waiting += [each for each in self._waiting if each.urgent]  # whose deletes the next slice finds
            self._waiting = [each for each in self._waiting if not each.urgent]
            parts = await self._slices(1 if first else _SLICES_TOGETHER, grace_ns)
            first = False
            for each_part in parts:
                total.add(each_part)
                self._total.add(each_part)
            part, took_ns = parts[-1], sum(each.took_ns for each in parts)
            self._worked_ns += took_ns
            self._longest_ns = max(self._longest_ns, *(each.took_ns for each in parts))
            if not waiting and not self._waiting:
                await trio.sleep(took_ns / 1e9 * (1 / self._config.share - 1))
            if not part.urgent and any(each.urgent for each in waiting):
                while part.more:
                    part = await self._drop_unheld()
                    total.add(part)
                    self._total.add(part)
                part.more = True
                await self._removed(total)
                for each in [each for each in waiting if each.urgent]:
                    waiting.remove(each)
                    each.promise.succeed(total.collection(clock.monotonic_ns() - began))
            if not part.more:
                break
        await self._removed(total)
        return total.collection(clock.monotonic_ns() - began)

    async def _slices(self, count: int, grace_ns: int) -> list[Slice]:
        """Several slices that share a sync: others are planned after them, a few milliseconds later."""

        async def some(txn: Transaction) -> Slice:
            txn.quiet = True
            began = self._world.clock.monotonic_ns()
            part = await collect_some(txn, self._places, budget=self._budget, grace_ns=grace_ns)
            part.took_ns = self._world.clock.monotonic_ns() - began
            self._adapt(part.took_ns)
            return part

        promises: list[Promise[Slice]] = [Promise() for _ in range(count)]
        for promise in promises:
            await self._storage.submit(Submission(some, promise))
        return [await promise.wait() for promise in promises]

    async def _drop_unheld(self) -> Slice:
        async def some(txn: Transaction) -> Slice:
            began = self._world.clock.monotonic_ns()
            part = await drop_unheld_some(txn, self._places, budget=self._budget)
            self._adapt(self._world.clock.monotonic_ns() - began)
            return part

        return await self._storage.transact(some)

    def _adapt(self, took_ns: int) -> None:
        """Reads of a large store take longer, and a slice holds up everybody: it does less, until it is short again."""
        if took_ns > _LONG_NS:
            self._budget = max(_LEAST_BUDGET, self._budget // 2)
        elif took_ns < _LONG_NS // 3:
            self._budget = min(SLICE_BUDGET, self._budget + _LEAST_BUDGET)

    async def _next_alarm(self) -> int | None:
        with self._storage.view() as view:
            due = [await next_instant(view), await next_due(view, self._grace_ns)]
        return min((each for each in due if each is not None), default=None)

    async def status(self) -> CollectorStatus:
        with self._storage.view() as view:
            return CollectorStatus(
                collecting=self._collecting,
                runs=self.runs,
                failures=self.failures,
                removed=self._total.collection(0),
                worked_ns=self._worked_ns,
                longest_ns=self._longest_ns,
                suspects=await has_suspects(view),
                owed=await first_owed(view) is not None,
                sweeping=bool(await sealed_rounds(view)),
                removals=await ledger.count_removals(view),
                grace_s=self._config.grace_s,
                bin=[BinRound(at, at + self._grace_ns) for at in await bin_rounds(view, _MOST_ROUNDS)],
                next_at=self._alarm_ns,
            )

    async def _remember_grace(self) -> None:
        """Who deletes an image wants to know whether it can be brought back."""

        async def remember(txn: Transaction) -> None:
            txn.quiet = True
            if await known_grace_ns(txn) != self._grace_ns:
                txn.put(keys.GRACE, keys.number(self._grace_ns))

        try:
            await self._storage.transact(remember)
        except OrlopError as error:
            log.error("the grace period is not known to the store", error=str(error))

    # when

    async def _until_there_is_work(self) -> None:
        """At once when asked or when something switches; after a delay when something was deleted, or many changes were
        made. News of a later instant only moves the alarm."""
        while not self._waiting:
            config = self._config
            if config.deletion_threshold and self._deletes >= config.deletion_threshold:
                await self._pause(config.schedule_delay_s)
                return
            if self._deletes or (config.mutation_threshold and self._changes >= config.mutation_threshold):
                await self._pause(config.pause_s + config.schedule_delay_s)
                return
            with trio.move_on_after(self._until_alarm_s()) as alarm:
                await self._woken.wait()
            if alarm.cancelled_caught:
                return
            self._woken = trio.Event()

    async def _pause(self, seconds: float) -> None:
        """For a while, or until somebody asks, or so much was deleted that it is to be now."""
        most = self._config.deletion_threshold
        with trio.move_on_after(seconds):
            while not self._waiting and not 0 < most <= self._deletes:
                self._woken = trio.Event()
                await self._woken.wait()

    def _until_alarm_s(self) -> float:
        if self._alarm_ns is None:
            return math.inf
        return max(0.0, (self._alarm_ns - self._world.clock.now_ns()) / 1e9)

    async def _removed(self, total: _Total) -> None:
        """Until what was queued is off the disk; what lay there uncounted is known only then."""
        await self._removals.done()
        uncounted = self._removals.uncounted_bytes - self._uncounted
        self._uncounted += uncounted
        total.freed += uncounted
        self._total.freed += uncounted

    def _hear(self, news: Durable) -> None:
        self._changes += news.changes
        if news.dirty or self._deletes:  # dirty is what the store stays until the next collection
            self._deletes += max(news.changes, 1)
        if news.expiry_ns is not None and (self._alarm_ns is None or news.expiry_ns < self._alarm_ns):
            self._alarm_ns = news.expiry_ns
        self._woken.set()


class _Total:
    """What a collection removed so far."""

    def __init__(self) -> None:
        self.removed: dict[Kind, int] = {}
        self.blobs = self.freed = 0

    def add(self, part: Slice) -> None:
        for kind, count in part.removed.items():
            self.removed[kind] = self.removed.get(kind, 0) + count
        self.blobs += part.blobs
        self.freed += part.freed

    def collection(self, duration_ns: int) -> Collection:
        count = self.removed.get
        return Collection(
            leases=count(Kind.LEASE, 0),
            images=count(Kind.IMAGE, 0),
            ingests=count(Kind.INGEST, 0),
            content=count(Kind.CONTENT, 0),
            snapshots=count(Kind.SNAPSHOT, 0),
            blobs=self.blobs,
            freed=self.freed,
            duration_ms=duration_ns // 1_000_000,
        )


def _fail(waiting: list[_Waiting], error: OrlopError) -> None:
    for each in waiting:
        each.promise.fail(error)
