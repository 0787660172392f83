"""What the collector says of itself, and the full mark. Source: messages/collection.py (CollectorStatus, Collect)."""

from __future__ import annotations

import time

import trio

import orlop
from orlop.protocol.messages import Collection
from orlop.storage.collection.forest import Forest
from orlop.storage.collection.state import State, Vertex
from orlop.storage.engine import Kind, Transaction

from ..support.calm import EXPIRE, HOUR_S, LARGE, ROOTED, SMALL, Calm, CalmMaker, make_image, make_snapshot, put

HOUR_NS = HOUR_S * 10**9


async def test_a_new_collector_has_done_nothing_and_waits_for_nothing(calm: Calm) -> None:
    found = await calm.store.collector()
    assert (found.collecting, found.runs, found.failures, found.removed) == (False, 0, 0, Collection())
    assert (found.suspects, found.owed, found.sweeping, found.removals) == (False, False, False, 0)
    assert (found.grace_s, found.bin, found.next_at, found.longest_ns) == (0.0, [], None, 0)


async def test_what_collections_removed_adds_up(calm: Calm) -> None:
    for number in range(2):
        await make_image(calm.store, f"a{number}", [f"l{number}"])
        await calm.store.images.delete(f"a{number}")
        await calm.store.collect()
    await make_snapshot(calm.store, "s")
    done = await calm.store.collect()
    found = await calm.store.collector()
    assert (found.runs, found.failures, found.collecting) == (3, 0, False)
    assert (found.removed.content, found.removed.blobs, found.removed.snapshots) == (6, 6, 1)
    assert found.removed.freed == 2 * (2 * SMALL + LARGE) + done.freed
    assert found.longest_ns > 0


async def test_what_is_to_be_looked_at_is_said(calm: Calm) -> None:
    await make_image(calm.store, "a", ["l"])
    await calm.store.collect()
    assert not (await calm.store.collector()).suspects
    await calm.store.images.delete("a")
    assert (await calm.store.collector()).suspects
    await calm.store.collect()
    found = await calm.store.collector()
    assert (found.suspects, found.owed, found.sweeping, found.removals) == (False, False, False, 0)


async def test_the_next_expiry_is_told(calm: Calm) -> None:
    for hours in (3, 1, 2):
        await calm.store.leases.create(f"in {hours}", {EXPIRE: calm.clock.after(hours * HOUR_S)})
    found = (await calm.store.collector()).next_at
    assert found is not None
    assert abs(found - time.time_ns() - HOUR_NS) < HOUR_NS // 10
    calm.clock.shift_s = HOUR_S + 60
    assert (await calm.store.collect()).leases == 1
    found = (await calm.store.collector()).next_at
    assert found is not None
    assert abs(found - time.time_ns() - 2 * HOUR_NS) < HOUR_NS // 10


async def test_the_rounds_in_the_bin_are_told_the_oldest_first(binned: Calm) -> None:
    for number in range(3):
        await make_image(binned.store, f"a{number}", [f"l{number}"])
        await binned.store.images.delete(f"a{number}")
        await binned.store.collect()
        binned.clock.shift_s += 60
    found = await binned.store.collector()
    assert found.grace_s == HOUR_S
    assert [each.due_at - each.condemned_at for each in found.bin] == [HOUR_NS] * 3
    assert sorted(found.bin, key=lambda each: each.condemned_at) == found.bin
    assert found.next_at == found.bin[0].due_at
    assert found.removed.content == 0
    await binned.store.collect(empty_bin=True)
    found = await binned.store.collector()
    assert (found.bin, found.removed.content, found.next_at) == ([], 9, None)


async def test_a_restart_counts_from_nought_and_keeps_the_bin(lasting: CalmMaker) -> None:
    async with lasting.open(grace_s=HOUR_S) as calm:
        await make_image(calm.store, "a", ["l"])
        await calm.store.images.delete("a")
        await calm.store.collect()
        before = await calm.store.collector()
    async with lasting.open(grace_s=HOUR_S) as calm:
        found = await calm.store.collector()
        assert (found.runs, found.removed, found.bin) == (0, Collection(), before.bin)
        with trio.fail_after(5):
            while (await calm.store.collector()).next_at != before.next_at:
                await trio.sleep(0.001)


# the full mark -----------------------------------------------------------------------------------------------


async def graph(store: orlop.Store) -> None:
    await make_snapshot(store, "s")
    await make_image(store, "a", ["base", "a"], snapshot="s")
    await make_image(store, "b", ["base", "b"])
    await put(store.in_namespace("other"), "base", LARGE, ROOTED)
    await store.leases.create("l", {"containerd.io/gc.flat": "1"})
    await store.leases.add("l", orlop.LeaseResource("s", "snapshots/native"))


async def test_the_full_mark_agrees(calm: Calm) -> None:
    await graph(calm.store)
    assert (await calm.store.collect(full=True)).differed == 0
    await calm.store.images.delete("a")
    done = await calm.store.collect(full=True)
    assert (done.content, done.snapshots, done.differed) == (3, 0, 0)


async def test_the_full_mark_agrees_with_what_waits_in_the_bin(binned: Calm) -> None:
    await graph(binned.store)
    await binned.store.images.delete("a")
    for _ in range(2):
        assert (await binned.store.collect(full=True)).differed == 0
    await binned.store.undelete("a")
    assert (await binned.store.collect(full=True)).differed == 0
    assert (await binned.store.collect(full=True, empty_bin=True)).differed == 0


async def test_what_the_full_mark_finds_wrong_is_looked_at_again(calm: Calm) -> None:
    """A witness that no longer is one: nothing that lives refers to the blob, and the collector does not know."""
    await graph(calm.store)
    shape = await make_image(calm.store, "c", ["c"])
    await calm.store.collect()
    await lose_track(calm, shape.parts[1].digest)
    assert (await calm.store.collect(full=True)).differed == 1
    await calm.store.collect()
    assert (await calm.store.collect(full=True)).differed == 0
    assert len(await calm.store.content.read(shape.parts[1].digest)) == LARGE


async def lose_track(calm: Calm, digest: str) -> None:
    """As if a defect of the collector had lost what it knows of a blob."""

    async def lose(txn: Transaction) -> None:
        forest = await Forest.load(txn)
        await forest.put_state(Vertex("default", Kind.CONTENT, digest), State())
        forest.save()

    await calm.running.storage.transact(lose)
