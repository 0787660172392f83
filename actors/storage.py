"""The storage actor: one order for every change, and group commit.

How it works. A transaction is *planned*: its function runs to its end, without a checkpoint, over the durable
view and the overlay of what is planned already. Planned transactions gather in the open group. The committer
takes the open group when the sync before it has ended, writes it as **one** synced batch in a thread, and then
in one step, without a checkpoint: the view moves on, completions run, callers are answered, listeners hear of
it. Meanwhile the next group is planned. No timer waits for company: a group is what queued up during the
previous sync.

Whatever ran is answered with its group, also when it wrote nothing or was refused, for it has read the overlay
and must not speak of a state that may never be durable. If a group's write fails, its callers get Unknown,
everything planned on top gets Unavailable, and the overlay goes as a whole; the handle is thrown away and the
data opened afresh. It must then hold at least what was ever acknowledged, else the actor ends with DataLoss.

Rejected: writing each transaction unsynced and syncing later. LevelDB closes a full log unsynced, so a later
sync does not cover it, and acknowledged writes are lost (docs/durability.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

import structlog
import trio

from ..protocol.errors import (
    Canceled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    OrlopError,
    Unavailable,
    Unknown,
)
from ..protocol.meter import LATENCIES_S, Histogram
from ..protocol.service import Answer
from ..protocol.version import STORE_FORMAT
from ..protocol.world import Work, World
from ..storage import keys
from ..storage.collection.rebuild import begin_rebuild, is_readable, rebuild_some
from ..storage.engine import KeyValue, Reopened, Snapshot, Transaction, WriteFailed
from ..storage.overlay import Overlay, OverlayTransaction
from .driving import drive
from .promise import Promise

__all__ = ["Durable", "DurableView", "Rejected", "StorageActor", "StorageStatistics", "Submission"]

T = TypeVar("T")
log = structlog.get_logger("orlop.storage")

GROUP_TRANSACTIONS = 256
GROUP_WRITES = 4096
GROUP_BYTES = 1024 * 1024
PLAN_SLICE_NS = 2_000_000  # then the loop gets its turn
MAILBOX_SIZE = 1024
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
REOPEN_S = 5.0  # that a read waits for a store that is being reopened
RETRY_S = 1.0  # between attempts to open the data again, say on a full disk
CLOCK_STEP_NS = 1_000_000_000  # a clock that stands or stumbles is bumped; one that was set back is believed


class Rejected:
    """What a plan returns to be refused and yet keep its writes. Source: spec metadata 12.6.

    `existing` is the record because of which it is refused: a batch goes on with it.
    """

    __slots__ = ("error", "existing")

    def __init__(self, error: OrlopError, existing: object = None) -> None:
        self.error = error
        self.existing = existing


class Submission(Generic[T]):
    """A transaction to plan, where to answer, and a completion that runs before the answer.

    The completion is a plain function; it may neither await nor send. It gets True when the transaction is
    durable, False when it is not, None when that is not known.
    """

    __slots__ = ("answer", "completion", "plan")

    def __init__(
        self,
        plan: Callable[[Transaction], Awaitable[T | Rejected]],
        answer: Answer[T],
        completion: Callable[[bool | None], None] | None = None,
    ) -> None:
        self.plan = plan
        self.answer = answer
        self.completion = completion


class _Planned:
    __slots__ = ("error", "result", "submission")

    def __init__(self, submission: Submission[Any], result: object, error: BaseException | None) -> None:
        self.submission = submission
        self.result = result
        self.error = error


@dataclass
class _Group:
    number: int
    last_commit: int
    writes: dict[bytes, bytes | None] = field(default_factory=dict)
    byte_count: int = 0
    planned: list[_Planned] = field(default_factory=list)
    dirty: bool = False
    changes: int = 0
    removals: bool = False
    expiry_ns: int | None = None

    def full(self) -> bool:
        return (
            len(self.planned) >= GROUP_TRANSACTIONS
            or len(self.writes) >= GROUP_WRITES
            or self.byte_count >= GROUP_BYTES
        )


@dataclass(frozen=True)
class Durable:
    """What listeners hear when a group is durable."""

    commit: int
    events: bool
    dirty: bool
    removals: bool
    expiry_ns: int | None
    changes: int
    """Transactions that wrote something, those of the store's own left out."""


@dataclass(frozen=True)
class StorageStatistics:
    """`commit`: number of the last durable transaction; `groups`, `transactions`, `writes`: since the start."""

    commit: int
    groups: int
    transactions: int
    writes: int
    queued: int
    overlay_keys: int
    longest_commit_ns: int
    recoveries: int


class DurableView:
    """The durable view, shared by all who read it now; it goes when it is superseded and nobody holds it."""

    __slots__ = ("_clock", "_holders", "_knows_clock", "_snapshot", "number", "stale")

    def __init__(self, snapshot: Snapshot, number: int) -> None:
        self._snapshot = snapshot
        self._holders = 0
        self._clock: bytes | None = None
        self._knows_clock = False
        self.number = number
        self.stale = False

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    async def get(self, key: bytes) -> bytes | None:
        if key != keys.CLOCK:
            return self._snapshot.get(key)
        if not self._knows_clock:  # nearly every read asks for it
            self._clock, self._knows_clock = self._snapshot.get(key), True
        return self._clock

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return self._snapshot.read(start, stop, limit)

    def __enter__(self) -> Self:
        self._holders += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._holders -= 1
        if self.stale and not self._holders:
            self._snapshot.close()

    def retire(self) -> None:
        self.stale = True
        if not self._holders:
            self._snapshot.close()


class StorageActor:
    """Owns the key-value store. It is an Engine: `view()` and `transact(fn)`."""

    def __init__(self, store: KeyValue, world: World) -> None:
        self._store = store
        self._world = world
        self._send, self._receive = trio.open_memory_channel[Submission[Any]](MAILBOX_SIZE)
        self._overlay = Overlay()
        self._view = DurableView(store.snapshot(), 0)
        commit = _number(self._view.snapshot.get(keys.COMMIT))
        self._view.number = commit
        self._durable = commit  # the last number ever acknowledged; what a reopened store must hold
        self._open = _Group(1, commit)
        self._ready = trio.Event()
        self._room = trio.Event()
        self._outstanding = 0  # handed over and not answered
        self._idle = trio.Event()
        self._last_ns = 0
        self.reopening = False  # a write failed, and the data is not open again yet
        self._reopened = trio.Event()
        self._listeners: list[Callable[[Durable], None]] = []
        self.batch_sizes, self.commit_seconds = Histogram(_BATCHES), Histogram(LATENCIES_S)
        self._groups = self._transactions = self._writes = self._longest_ns = self._recoveries = 0

    # the engine ---------------------------------------------------------------------------------------------

    def view(self) -> DurableView:
        return self._view

    async def transact(self, fn: Callable[[Transaction], Awaitable[T | Rejected]]) -> T:
        """See Engine.transact."""
        promise: Promise[T] = Promise()
        await self.submit(Submission(fn, promise))
        return await promise.wait()

    async def submit(self, submission: Submission[Any]) -> None:
        """Hand a transaction over; its answer is called later. Cancellation: not handed over."""
        self._outstanding += 1
        try:
            self._send.send_nowait(submission)
        except trio.WouldBlock:
            try:
                await self._send.send(submission)
            except BaseException:
                self._answered(1)
                raise

    def listen(self, listener: Callable[[Durable], None]) -> None:
        """`listener` is called after each group, when its callers are answered. It may neither await nor send."""
        self._listeners.append(listener)

    def statistics(self) -> StorageStatistics:
        return StorageStatistics(
            commit=self._durable,
            groups=self._groups,
            transactions=self._transactions,
            writes=self._writes,
            queued=self._send.statistics().current_buffer_used + len(self._open.planned),
            overlay_keys=len(self._overlay.entries),
            longest_commit_ns=self._longest_ns,
            recoveries=self._recoveries,
        )

    async def check_format(self) -> str:
        """Mark a new store, refuse one from the future, bring one of an earlier version to today's format; returns the
        store's UUID. Interrupted, it goes on at the next start."""
        token = self._world.random.token(16)

        async def mark(txn: Transaction) -> str:
            txn.quiet = True
            found = await txn.get(keys.FORMAT)
            if found is None:
                txn.put(keys.STORE_ID, _uuid(token).encode())
            elif _number(found) > STORE_FORMAT:
                raise FailedPrecondition(
                    f"the store has format {_number(found)}, this orlop knows {STORE_FORMAT}",
                    hint="use a newer orlop",
                )
            elif _number(found) < 2 or not is_readable(await txn.get(keys.CLOCK)):  # no forest, or one that is lost
                await begin_rebuild(txn)
            txn.put(keys.FORMAT, keys.number(STORE_FORMAT))
            return (await txn.get(keys.STORE_ID) or b"").decode()

        store_id = await self.transact(mark)
        done = 0
        while await self.transact(rebuild_some):
            done += 1
            if done % 1000 == 0:
                log.info("references are brought to the format of this version", transactions=done)
        return store_id

    # the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ends when cancelled, after the write under way, or with DataLoss."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._plan_forever)
            nursery.start_soon(self._commit_forever)

    async def wait_idle(self) -> None:
        """Until everything that was handed over is answered, and the store can be written to."""
        while self._outstanding or self.reopening:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    async def read_again(self, error: Reopened) -> None:
        """Returns when there is a state to read again. Raises the error when that takes too long."""
        with trio.move_on_after(REOPEN_S):
            while self.reopening:
                await self._reopened.wait()
            return
        raise error

    def close(self) -> None:
        """Retire the view; call when `run` has ended. The key-value store is the opener's to close."""
        self._view.retire()

    async def _plan_forever(self) -> None:
        async for first in self._receive:
            submission = first
            began = self._world.clock.monotonic_ns()
            while True:
                while self._open.full():
                    self._room = trio.Event()
                    self._ready.set()
                    await self._room.wait()
                    began = self._world.clock.monotonic_ns()
                self._plan(submission)
                if self._world.clock.monotonic_ns() - began > PLAN_SLICE_NS:
                    self._ready.set()
                    await trio.lowlevel.checkpoint()
                    began = self._world.clock.monotonic_ns()
                try:
                    submission = self._receive.receive_nowait()
                except trio.WouldBlock:
                    break
            self._ready.set()

    def _plan(self, submission: Submission[Any]) -> None:
        answer = submission.answer
        refused: OrlopError | None = None
        if answer.withdrawn:
            refused = Canceled()
        elif answer.deadline < trio.current_time():
            refused = DeadlineExceeded()
        elif self.reopening:
            refused = Unavailable("the store is being reopened after a failed write")
        if refused is not None:
            if submission.completion is not None:
                submission.completion(False)
            answer.fail(refused)
            self._answered(1)
            return
        group = self._open
        txn = OverlayTransaction(self._view.snapshot, self._overlay, self._now_ns(), group.last_commit + 1)
        result: object = None
        error: BaseException | None = None
        try:
            result = drive(submission.plan(txn))
        except OrlopError as refusal:
            error = refusal
        except Exception as defect:
            log.exception("a transaction failed")
            error = Internal(f"{type(defect).__name__}: {defect}")
        else:
            if isinstance(result, Rejected):
                error = result.error
            if txn.writes:
                self._absorb(group, txn)
            group.dirty |= txn.dirty
            group.changes += bool(txn.writes) and not txn.quiet
        if txn.now_ns > self._last_ns:
            self._last_ns = txn.now_ns  # it ticked on
        group.planned.append(_Planned(submission, result, error))

    def _absorb(self, group: _Group, txn: OverlayTransaction) -> None:
        group.last_commit = txn.number
        group.writes.update(txn.writes)
        group.byte_count += txn.byte_count
        self._overlay.add(group.number, txn.writes)
        group.removals |= txn.removals
        if txn.expiry_ns is not None and (group.expiry_ns is None or txn.expiry_ns < group.expiry_ns):
            group.expiry_ns = txn.expiry_ns

    async def _commit_forever(self) -> None:
        while True:
            await self._ready.wait()
            self._ready = trio.Event()
            group = self._open
            if not group.planned:
                continue
            self._open = _Group(group.number + 1, group.last_commit)
            self._room.set()
            if group.writes:
                group.writes[keys.COMMIT] = keys.number(group.last_commit)
                began = self._world.clock.monotonic_ns()
                try:
                    await self._world.workers.run(Work.COMMIT, self._store.write, group.writes)
                except WriteFailed as failure:
                    await self._recover(group, failure)
                    continue
                took_ns = self._world.clock.monotonic_ns() - began
                self._longest_ns = max(self._longest_ns, took_ns)
                self.commit_seconds.add(took_ns / 1e9)
                self.batch_sizes.add(len(group.planned))
                self._move_view(group)
            self._finish(group)

    def _move_view(self, group: _Group) -> None:
        del group.writes[keys.COMMIT]
        old, self._view = self._view, DurableView(self._store.snapshot(), group.last_commit)
        self._durable = group.last_commit
        self._overlay.settle(group.number, group.writes)
        old.retire()

    def _finish(self, group: _Group) -> None:
        """One step: completions, answers, then listeners."""
        for planned in group.planned:
            if planned.submission.completion is not None:
                planned.submission.completion(planned.error is None or isinstance(planned.result, Rejected))
        for planned in group.planned:
            if planned.error is not None:
                planned.submission.answer.fail(planned.error)
            else:
                planned.submission.answer.succeed(planned.result)
        self._groups += 1
        self._transactions += len(group.planned)
        self._writes += len(group.writes)
        if group.writes or group.dirty:
            news = Durable(
                group.last_commit,
                keys.JOURNAL_HEAD in group.writes,
                group.dirty,
                group.removals,
                group.expiry_ns,
                group.changes,
            )
            for listener in self._listeners:
                listener(news)
        self._answered(len(group.planned))

    async def _recover(self, failed: _Group, failure: WriteFailed) -> None:
        """The poison rule: never write again on a handle that failed once."""
        log.error("a write failed; reopening the store", error=str(failure), group=failed.number)
        on_top, self._open = self._open, _Group(self._open.number + 1, self._durable)
        self._overlay.clear()
        self.reopening = True
        self._reopened = trio.Event()
        self._recoveries += 1
        self._room.set()
        self._store.invalidate()
        unknown = Unknown(f"the write failed half-way and may or may not have happened: {failure}")
        self._refuse(failed, None, unknown)
        self._refuse(on_top, False, Unavailable(f"not done: the write before it failed: {failure}"))
        while True:
            try:
                await self._world.workers.run(Work.COMMIT, self._store.recover)
                break
            except (OSError, OrlopError) as error:
                log.error("the store does not reopen yet", error=str(error))
                await trio.sleep(RETRY_S)
        self._view = DurableView(self._store.snapshot(), 0)
        found = _number(self._view.snapshot.get(keys.COMMIT))
        if found < self._durable:
            raise DataLoss(f"the reopened store ends at commit {found}, but {self._durable} was acknowledged")
        self._view.number = self._durable = found
        self._open.last_commit = found
        self.reopening = False
        self._reopened.set()
        self._answered(0)
        log.warning("the store was reopened", commit=found)

    def _refuse(self, group: _Group, done: bool | None, error: OrlopError) -> None:
        for planned in group.planned:
            if planned.submission.completion is not None:
                planned.submission.completion(done)
        for planned in group.planned:
            planned.submission.answer.fail(error)
        self._answered(len(group.planned))

    def _answered(self, count: int) -> None:
        self._outstanding -= count
        if not self._outstanding and not self.reopening:
            self._idle.set()

    def _now_ns(self) -> int:
        now = self._world.clock.now_ns()
        if now <= self._last_ns < now + CLOCK_STEP_NS:
            now = self._last_ns + 1
        self._last_ns = now
        return now


def _number(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value, "big")


def _uuid(token: bytes) -> str:
    """A version 4 UUID of 16 random bytes."""
    digits = bytearray(token)
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
