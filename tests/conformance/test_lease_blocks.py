"""Leases as blocks: `store.lease()` is renewed while its block runs, and ends with it. And how leases are renewed.

Source: spec metadata 12.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

import pytest
import trio
import trio.testing

import orlop
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound

from ..support.changes import (
    EXPIRE,
    FUTURE,
    LARGE,
    MANIFEST,
    PAST,
    A,
    OfTheBlock,
    digest_of,
    digests,
    everything,
    held,
    journal,
    lease_ids,
    names,
)

once = pytest.mark.parametrize("stores", [("embedded", "memory")], ids="-".join, indirect=True)


# blocks ---------------------------------------------------------------------------------------------------


async def test_what_is_made_in_a_lease_lives_until_its_end(store: orlop.Store) -> None:
    async with store.lease({"a": "1"}) as leased:
        (lease,) = [lease async for lease in store.leases.list()]
        assert leased.context.lease == lease.id
        assert leased.namespace == store.namespace
        assert lease.labels["a"] == "1"
        assert EXPIRE in lease.labels
        await leased.content.put(b"put")
        async with leased.content.ingest("r") as writer:
            await writer.write(b"committed")
            await writer.commit()
        async with leased.transaction() as tx:
            tx.content.put(b"transacted")
        await store.collect()
        assert await digests(store) == {digest_of(b"put"), digest_of(b"committed"), digest_of(b"transacted")}
        await store.images.create("kept", orlop.Descriptor(MANIFEST, digest_of(b"put"), 3))
    assert await lease_ids(store) == []
    await store.collect()
    assert await digests(store) == {digest_of(b"put")}


async def test_leases_of_blocks_side_by_side_are_their_own(store: orlop.Store) -> None:
    async with store.lease() as one:
        async with store.lease() as two:
            assert one.context.lease != two.context.lease
            await one.content.put(b"one")
            await two.content.put(b"two")
            assert len(await lease_ids(store)) == 2
        await store.collect()
        assert await digests(store) == {digest_of(b"one")}
    assert await lease_ids(store) == []


async def test_a_lease_in_a_lease_is_the_same_one(store: orlop.Store) -> None:
    async with store.lease() as outer:
        async with outer.lease({"ignored": "1"}, expires_in_s=1) as inner:
            assert inner.context.lease == outer.context.lease
            assert await lease_ids(store) == [outer.context.lease]
            await inner.content.put(b"data")
        assert await lease_ids(store) == [outer.context.lease]
        await store.collect()
        assert await digests(store) == {digest_of(b"data")}
    assert await lease_ids(store) == []
    await store.leases.create("own")
    async with store.with_lease("own").lease() as leased:
        assert leased.context.lease == "own"
    assert await lease_ids(store) == ["own"]


@once
@pytest.mark.slow
async def test_a_lease_is_renewed_while_its_block_runs(store: orlop.Store) -> None:
    # It is renewed every second and lives for three at least, so a machine that stalls for one ends no lease.
    async with store.lease({"a": "1"}, expires_in_s=3) as leased:
        await leased.content.put(b"data")
        first = await store.leases.get(leased.context.lease or "")
        await trio.sleep(4.5)  # without renewal it would have expired after 4
        await store.collect()
        assert await digests(store) == {digest_of(b"data")}
        renewed = await store.leases.get(first.id)
        assert datetime.fromisoformat(renewed.labels[EXPIRE]) > datetime.fromisoformat(first.labels[EXPIRE])
        assert (renewed.labels["a"], renewed.created_at) == ("1", first.created_at)
    await store.collect()
    assert await digests(store) == set()


async def test_a_lease_ended_by_somebody_else_ends_the_block(store: orlop.Store) -> None:
    with trio.fail_after(10):
        with pytest.raises(FailedPrecondition) as left:
            async with store.lease(expires_in_s=1) as leased:
                ended = leased.context.lease or ""
                await store.leases.delete(ended)
                await trio.sleep_forever()
    assert type(left.value) is FailedPrecondition
    assert ended in str(left.value)


async def test_a_lease_ended_by_somebody_else_is_no_matter_at_the_end(store: orlop.Store) -> None:
    async with store.lease() as leased:
        await store.leases.delete(leased.context.lease or "")
    assert await lease_ids(store) == []


async def test_exceptions_of_a_leased_block_leave_as_themselves(store: orlop.Store) -> None:
    for raised in (OfTheBlock(), NotFound("of the block"), StopAsyncIteration(), KeyboardInterrupt()):
        with pytest.raises(type(raised)) as left:
            async with store.lease() as leased:
                await leased.content.put(repr(raised).encode())
                raise raised
        assert left.value is raised
        assert await lease_ids(store) == []
    for inner in ((OfTheBlock(),), (OfTheBlock(), OfTheBlock())):
        with pytest.raises(ExceptionGroup, match="of the block") as several:
            async with store.lease():
                raise ExceptionGroup("of the block", inner)
        assert several.value.exceptions == inner  # a nursery copies the groups that pass it
        assert await lease_ids(store) == []
    await store.collect()
    assert await digests(store) == set()


async def test_a_cancelled_block_leaves_no_lease(store: orlop.Store) -> None:
    with trio.CancelScope() as scope:
        async with store.lease() as leased:
            await leased.content.put(b"data")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await lease_ids(store) == []


async def test_a_block_cancelled_at_any_step_leaves_no_lease(store: orlop.Store) -> None:
    """Also one that was cancelled while the lease was being made."""

    async def block(done: list[bool]) -> None:
        async with store.lease() as leased:
            await leased.images.create("i", A, {EXPIRE: FUTURE})
            await leased.images.delete("i")
        done.append(True)

    done: list[bool] = []
    for steps in range(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(block, done)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert await lease_ids(store) == [], f"cancelled after {steps} steps"
        if await names(store):
            await store.images.delete("i")
        if done:
            return


# renewals and other updates -------------------------------------------------------------------------------


async def test_an_update_of_a_lease_changes_what_its_mask_names(store: orlop.Store) -> None:
    created = await store.leases.create("l", {"keep": "1", "gone": "2"})
    update = partial(store.leases.update, "l")
    masked = await update({"x.y/z": "new", "unselected": "9"}, ["labels.x.y/z", "labels.gone", "labels.never"])
    assert masked == orlop.Lease("l", created.created_at, {"keep": "1", "x.y/z": "new"})
    assert await store.leases.get("l") == masked
    assert (await update({"b": "2", "e": ""})).labels == {"b": "2"}
    assert (await update({"c": "3", "b": "4"}, [])).labels == {"c": "3", "b": "4"}
    assert (await update({"d": "4"}, ["labels"])).labels == {"d": "4"}
    assert await journal(store) == []  # leases have no events


async def test_an_update_with_a_duration_moves_the_end_of_a_lease(store: orlop.Store) -> None:
    created = await store.leases.create("l", {"d": "4"})
    update = partial(store.leases.update, "l")
    renewed = await update(expires_in_s=1000)
    assert set(renewed.labels) == {"d", EXPIRE}
    lives = datetime.fromisoformat(renewed.labels[EXPIRE]).timestamp() - created.created_at / 1e9
    assert 1000 <= lives < 1000 + 60
    both = await update({"f": "5", EXPIRE: FUTURE}, ["labels.f"], expires_in_s=2000)
    assert (both.labels["d"], both.labels["f"]) == ("4", "5")
    assert renewed.labels[EXPIRE] < both.labels[EXPIRE] < FUTURE
    assert set((await update({"g": "6"}, expires_in_s=1)).labels) == {"g", EXPIRE}


async def test_an_update_that_is_refused_leaves_the_lease_as_it_was(store: orlop.Store) -> None:
    await store.leases.create("l", {"g": "6"})
    update = partial(store.leases.update, "l")
    before = await everything(store)
    for call in (
        lambda: update({"a": "1"}, ["labels.a", "id"]),
        lambda: update({"a": "1"}, ["created_at"]),
        lambda: update({"a": "1"}, ["*"]),
        lambda: update({"a": "1"}, [""]),
        lambda: update({"k": LARGE}),
        lambda: update({"k": "é" * 2048}, ["labels.k"]),
        lambda: update({"": "value"}),
        lambda: update(expires_in_s=0),
        lambda: update(expires_in_s=-1),
    ):
        with pytest.raises(InvalidArgument):
            await call()
    for id_ in ("absent", ""):
        with pytest.raises(NotFound):
            await store.leases.update(id_, {"a": "1"}, ["no such path"])
    with pytest.raises(NotFound):
        await store.in_namespace("other").leases.update("l", {"a": "1"})
    assert await everything(store) == before


async def test_an_update_keeps_what_is_in_the_lease_and_moves_its_end(store: orlop.Store) -> None:
    await store.leases.create("l")
    await store.with_lease("l").content.put(b"data")
    await store.leases.update("l", {"a": "1"})
    await store.leases.update("l", expires_in_s=1000)
    assert await held(store, "l") == [("content", digest_of(b"data"))]
    await store.collect()
    assert await digests(store) == {digest_of(b"data")}
    await store.leases.update("l", {EXPIRE: PAST})
    await store.collect()
    assert (await lease_ids(store), await digests(store)) == ([], set())


async def test_a_lease_that_has_expired_stays_so(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        tx.leases.create("l", {EXPIRE: PAST})
    try:
        await store.leases.update("l", expires_in_s=1000)
    except (FailedPrecondition, NotFound):  # there still, or collected
        pass
    else:
        pytest.fail("an expired lease was renewed")
    await store.collect()
    assert await lease_ids(store) == []
