"""The engine's contract, over LevelDB and memory alike: isolation, durability, limits, and the poison rule."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.actors.promise import Promise
from orlop.actors.storage import Rejected, StorageActor, Submission
from orlop.bin.world import real_world
from orlop.protocol.errors import (
    AlreadyExists,
    DataLoss,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    Unknown,
)
from orlop.storage import keys
from orlop.storage.engine import (
    MAX_KEY_BYTES,
    MAX_TRANSACTION_WRITES,
    MAX_VALUE_BYTES,
    KeyValue,
    Transaction,
    WriteFailed,
)
from orlop.storage.leveldb import LevelDBStore
from orlop.storage.memory import MemoryStore

WORLD = real_world()


@pytest.fixture(params=["leveldb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryStore()
        return
    (tmp_path / "db").mkdir()
    opened = LevelDBStore.open(str(tmp_path / "db"), WORLD.files)
    yield opened
    opened.close()


@pytest.fixture
async def engine(store: KeyValue) -> AsyncIterator[StorageActor]:
    async with running(store) as actor:
        yield actor


class running:
    """A storage actor for the length of a block."""

    def __init__(self, store: KeyValue) -> None:
        self.actor = StorageActor(store, WORLD)

    async def __aenter__(self) -> StorageActor:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self.actor.run)
        return self.actor

    async def __aexit__(self, *exc: object) -> None:
        await self.actor.wait_idle()
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)
        self.actor.close()


def put(key: bytes, value: bytes) -> Callable[[Transaction], Awaitable[None]]:
    async def plan(txn: Transaction) -> None:
        txn.put(key, value)

    return plan


async def test_a_write_is_seen_by_views_after_it_returned(engine: StorageActor) -> None:
    with engine.view() as before:
        await engine.transact(put(b"\x01k", b"v"))
        assert await before.get(b"\x01k") is None, "a view never changes"
        with engine.view() as after:
            assert await after.get(b"\x01k") == b"v"
            assert after.number == before.number + 1


async def test_a_failing_transaction_leaves_nothing(engine: StorageActor) -> None:
    async def plan(txn: Transaction) -> None:
        txn.put(b"\x01k", b"v")
        raise AlreadyExists("it")

    with pytest.raises(AlreadyExists):
        await engine.transact(plan)
    with engine.view() as view:
        assert await view.get(b"\x01k") is None


async def test_a_rejected_transaction_keeps_its_writes(engine: StorageActor) -> None:
    async def plan(txn: Transaction) -> Rejected:
        txn.put(b"\x01k", b"v")
        return Rejected(AlreadyExists("it"))

    with pytest.raises(AlreadyExists):
        await engine.transact(plan)
    with engine.view() as view:
        assert await view.get(b"\x01k") == b"v"


async def test_a_defect_in_a_plan_is_an_answer(engine: StorageActor) -> None:
    async def plan(txn: Transaction) -> None:
        raise ZeroDivisionError

    with pytest.raises(Internal):
        await engine.transact(plan)
    await engine.transact(put(b"\x01k", b"v"))


async def test_a_plan_that_waits_for_the_world_is_a_defect(engine: StorageActor) -> None:
    async def plan(txn: Transaction) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(Internal):
        await engine.transact(plan)


async def test_increments_from_many_tasks_are_all_counted(engine: StorageActor) -> None:
    async def increment(txn: Transaction) -> None:
        txn.put(b"\x01n", keys.number(int.from_bytes(await txn.get(b"\x01n") or b"", "big") + 1))

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(engine.transact, increment)
    with engine.view() as view:
        assert int.from_bytes(await view.get(b"\x01n") or b"", "big") == 500
    assert engine.statistics().groups < 500, "waiting transactions share a sync"


async def test_commit_numbers_are_consecutive_over_a_restart(store: KeyValue) -> None:
    async with running(store) as engine:
        for at in range(5):
            await engine.transact(put(b"\x01k%d" % at, b""))
        assert engine.statistics().commit == 5
    async with running(store) as engine:
        assert engine.statistics().commit == 5
        await engine.transact(put(b"\x01more", b""))
        assert engine.statistics().commit == 6


async def test_limits_refuse_the_whole_transaction(engine: StorageActor) -> None:
    async def many(txn: Transaction) -> None:
        for at in range(MAX_TRANSACTION_WRITES + 1):
            txn.put(b"\x01%d" % at, b"")

    with pytest.raises(ResourceExhausted):
        await engine.transact(many)
    with pytest.raises(InvalidArgument):
        await engine.transact(put(b"\x01" * (MAX_KEY_BYTES + 1), b""))
    with pytest.raises(InvalidArgument):
        await engine.transact(put(b"\x01", bytes(MAX_VALUE_BYTES + 1)))
    with engine.view() as view:
        assert await view.scan(b"\x01", b"\x02", 10) == []


async def test_a_withdrawn_submission_is_not_planned(engine: StorageActor) -> None:
    planned = []

    async def plan(txn: Transaction) -> None:
        planned.append(True)

    with trio.CancelScope() as scope:
        scope.cancel()
        await engine.transact(plan)
    await engine.wait_idle()
    assert not planned


async def test_answers_come_after_completions_and_after_the_view_moved(engine: StorageActor) -> None:
    order: list[str] = []

    class Answer:
        withdrawn = False
        deadline = float("inf")

        def succeed(self, value: object) -> None:
            order.append("answer")

        def fail(self, error: BaseException) -> None:
            order.append("error")

    def completion(done: bool | None) -> None:
        order.append(f"completion {done} at {engine.view().number}")

    await engine.submit(Submission(put(b"\x01k", b"v"), Answer(), completion))
    await engine.wait_idle()
    assert order == ["completion True at 1", "answer"]


@pytest.mark.parametrize("torn", [False, True])
async def test_after_a_failed_write_the_outcome_is_unknown_and_the_store_goes_on(torn: bool) -> None:
    store = MemoryStore()
    async with running(store) as engine:
        await engine.transact(put(b"\x01a", b"1"))
        store.fail_next, store.torn = WriteFailed("no space", full=True), torn
        outcomes: dict[str, BaseException | None] = {}

        async def attempt(name: str) -> None:
            try:
                await engine.transact(put(b"\x01" + name.encode(), b"1"))
                outcomes[name] = None
            except (Unknown, Unavailable) as error:
                outcomes[name] = error

        async with trio.open_nursery() as nursery:
            for name in ("b", "c", "d"):
                nursery.start_soon(attempt, name)
        await engine.wait_idle()
        assert all(isinstance(error, Unknown) for error in outcomes.values()), outcomes
        with engine.view() as view:
            assert await view.get(b"\x01a") == b"1", "what was acknowledged stays"
            present = [await view.get(b"\x01" + name.encode()) is not None for name in "bcd"]
            assert present == [torn] * 3, "all of the failed group or nothing of it"
        await engine.transact(put(b"\x01e", b"1"))
        assert engine.statistics().recoveries == 1


async def test_a_store_that_lost_an_acknowledged_commit_refuses_to_serve() -> None:
    class Forgetful(MemoryStore):
        def recover(self) -> None:
            self._cells.clear()
            self._keys.clear()

    store = Forgetful()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            engine = StorageActor(store, WORLD)
            nursery.start_soon(engine.run)
            await engine.transact(put(b"\x01a", b"1"))
            store.fail_next = WriteFailed("EIO")
            with pytest.raises(Unknown):
                await engine.transact(put(b"\x01b", b"1"))
            await trio.sleep(5)
    assert caught.group_contains(DataLoss)


async def test_leveldb_reopens_after_a_failed_write(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    store = LevelDBStore.open(str(tmp_path / "db"), WORLD.files)
    real, failures = store.write, itertools.count()

    def failing(batch: Any) -> None:
        if next(failures) == 1:
            raise WriteFailed("LevelDB: injected")
        real(batch)

    store.write = failing  # type: ignore[method-assign]
    try:
        async with running(store) as engine:
            await engine.transact(put(b"\x01a", b"1"))
            with pytest.raises(Unknown):
                await engine.transact(put(b"\x01b", b"1"))
            await engine.wait_idle()
            await engine.transact(put(b"\x01c", b"1"))
            with engine.view() as view:
                assert [await view.get(b"\x01" + k) for k in (b"a", b"b", b"c")] == [b"1", None, b"1"]
    finally:
        store.close()


def test_a_database_whose_creation_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "db"
    (root / "metadata").mkdir(parents=True)
    (root / "metadata" / "CURRENT").write_text("MANIFEST-000001\n")  # as a power cut leaves it
    store = LevelDBStore.open(str(root), WORLD.files)
    store.write({b"\x01k": b"v"})
    store.close()
    again = LevelDBStore.open(str(root), WORLD.files)
    snapshot = again.snapshot()
    assert snapshot.get(b"\x01k") == b"v"
    snapshot.close()
    again.close()


def test_a_flipped_bit_in_a_table_file_is_data_loss_not_a_value(tmp_path: Path) -> None:
    root = tmp_path / "db"
    root.mkdir()
    store = LevelDBStore.open(str(root), WORLD.files)
    store.write({b"\x01k%03d" % at: bytes([at % 256]) * 50 for at in range(500)})
    store.compact(b"\x01", b"\x02")
    store.close()
    table = max((root / "metadata").glob("*.ldb"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 4] ^= 0x10
    table.write_bytes(data)
    damaged = LevelDBStore.open(str(root), WORLD.files)
    snapshot = damaged.snapshot()
    with pytest.raises(DataLoss):
        for at in range(500):
            assert snapshot.get(b"\x01k%03d" % at) == bytes([at % 256]) * 50
    snapshot.close()
    damaged.close()


KEYS = st.sampled_from([b"\x05a", b"\x05b", b"\x05b\x00", b"\x05c", b"\x05\xff", b"\x06"])
STEPS = st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=4), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, limit=st.integers(1, 8))
def test_scans_of_overlay_and_view_equal_a_dict(steps: list[list[tuple[bytes, bytes | None]]], limit: int) -> None:
    """Every transaction sees exactly what those before it wrote, durable or not, in the order of the bytes."""
    model: dict[bytes, bytes] = {}
    seen: list[list[tuple[bytes, bytes]]] = []
    expected: list[list[tuple[bytes, bytes]]] = []

    async def apply(step: list[tuple[bytes, bytes | None]], txn: Transaction) -> None:
        seen.append(await txn.scan(b"\x05", b"\x07", limit))
        for key, value in step:
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value)
        seen.append(await txn.scan(b"\x05", b"\x07", limit))

    async def main() -> None:
        async with running(MemoryStore()) as engine:
            promises: list[Promise[None]] = []
            for step in steps:  # all at once: most of them see others that are not durable yet
                expected.append(sorted(model.items())[:limit])
                for key, value in step:
                    if value is None:
                        model.pop(key, None)
                    else:
                        model[key] = value
                expected.append(sorted(model.items())[:limit])
                promises.append(Promise())
                await engine.submit(Submission(partial(apply, step), promises[-1]))
            for promise in promises:
                await promise.wait()
            with engine.view() as view:
                assert await view.scan(b"\x05", b"\x07", 100) == sorted(model.items())

    trio.run(main)
    assert seen == expected
