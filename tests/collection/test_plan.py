"""What a collection would free, asked before. Source: DESIGN 8, messages/collection.py (PlanCollection)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m

from ..support.calm import (
    EXPIRE,
    FLAT,
    HOUR_S,
    LARGE,
    REF_IMAGE,
    ROOTED,
    SMALL,
    Calm,
    CalmMaker,
    data_of,
    make_image,
    make_snapshot,
    put,
    seen,
)  # fmt: skip
from ..support.layers import digest_of

Prepare = Callable[[Calm], Awaitable[None]]
COLLECTED = ("lease", "image", "ingest", "content", "snapshot")


async def planned(store: orlop.Store, without: list[str] | None = None) -> tuple[m.PlannedCollection, list[m.Planned]]:
    objects: list[m.Planned] = []
    done = await store.plan_collection(without or [], objects.append)
    assert done.objects == len(objects)
    assert len({(each.namespace, each.kind, each.name) for each in objects}) == len(objects)
    return done, objects


async def totals(store: orlop.Store) -> Counter[str]:
    """What collections removed since the start: by kind, blobs and bytes."""
    r = (await store.collector()).removed
    counts = Counter(lease=r.leases, image=r.images, ingest=r.ingests, content=r.content, snapshot=r.snapshots)
    return counts + Counter(blobs=r.blobs, freed=r.freed)


def told(done: m.PlannedCollection, objects: list[m.Planned]) -> Counter[str]:
    return Counter(each.kind for each in objects) + Counter(blobs=done.blobs, freed=done.freed)


# stores in which something is to be collected; small blobs that go, for each ---------------------------------


async def nothing(calm: Calm) -> None:
    await make_image(calm.store, "a", ["l0"])


async def loose_blobs(calm: Calm) -> None:
    for number in range(3):
        await put(calm.store, f"small {number}")
        await put(calm.store, f"large {number}", LARGE + number)
    await put(calm.store, "kept", LARGE, ROOTED)


async def shared_layers(calm: Calm) -> None:
    """a: base, own a. b: base, own b. c: own b, own c."""
    await make_image(calm.store, "a", ["base", "own a"])
    await make_image(calm.store, "b", ["base", "own b"])
    await make_image(calm.store, "c", ["own b", "own c"])


async def deleted_image(calm: Calm) -> None:
    await shared_layers(calm)
    await calm.store.images.delete("b")


async def leases_gone(calm: Calm) -> None:
    for name, labels in (("flat", {FLAT: "true"}), ("normal", {}), ("stays", {})):
        await calm.store.leases.create(name, labels)
        await put(calm.store.with_lease(name), f"of {name}", LARGE)
    await calm.store.leases.add("stays", orlop.LeaseResource(digest_of(data_of("of flat", LARGE)), "content"))
    await calm.store.leases.delete("flat")
    await calm.store.leases.delete("normal")


async def two_namespaces(calm: Calm) -> None:
    other = calm.store.in_namespace("other")
    await make_image(calm.store, "a", ["both", "mine"])
    await make_image(other, "other a", ["both", "theirs"])
    await make_image(other, "b", ["both too"])
    await put(calm.store, "both too", LARGE)  # goes, and frees nothing
    await other.images.delete("other a")


async def snapshots(calm: Calm) -> None:
    await make_snapshot(calm.store, "base")
    await make_snapshot(calm.store, "top", "base")
    await make_snapshot(calm.store, "kept base")
    await make_snapshot(calm.store, "kept", "kept base", ROOTED)
    await make_snapshot(calm.store, "beside", "kept base")
    await make_image(calm.store, "a", ["l0"], snapshot="top")
    await make_snapshot(calm.store.in_namespace("other"), "base")


async def removed_by_hand(calm: Calm) -> None:
    """No object goes, but bytes do."""
    large = await put(calm.store, "large", LARGE, ROOTED)
    small = await put(calm.store, "small", labels=ROOTED)
    await make_snapshot(calm.store, "gone", labels=ROOTED)
    await calm.store.content.delete(large.digest)
    await calm.store.content.delete(small.digest)
    await calm.store.snapshots.using("native").remove("gone")


async def expired(calm: Calm) -> None:
    """A lease, images (one still referred to) and an ingest, once an hour has passed."""
    await make_image(calm.store, "expired", ["l0"], labels={EXPIRE: calm.clock.after(60)})
    await make_image(calm.store, "referred", ["l1"], labels={EXPIRE: calm.clock.after(60)})
    await make_image(calm.store, "refers", ["l2"], labels={REF_IMAGE: "referred"})
    await calm.store.leases.create("expired", {EXPIRE: calm.clock.after(60)})
    await put(calm.store.with_lease("expired"), "leased", LARGE)
    calm.clock.shift_s = HOUR_S


async def half_made(calm: Calm) -> None:
    """What no record counts: ingests that expire, active snapshots that nobody holds or that were removed by hand."""
    for number in range(2):
        async with calm.store.content.ingest(f"left {number}") as writer:
            await writer.write(bytes(LARGE + number))
    native = calm.store.snapshots.using("native")
    for key, labels in (("loose", {}), ("removed", {}), ("kept", ROOTED)):
        [mount] = await native.prepare(key, labels=labels)
        Path(mount.source, "file").write_bytes(bytes(LARGE))
    await native.remove("removed")
    calm.clock.shift_s = 25 * HOUR_S
    async with calm.store.content.ingest("young") as writer:
        await writer.write(bytes(LARGE))


PREPARED = [
    nothing, loose_blobs, shared_layers, deleted_image, leases_gone, two_namespaces, snapshots, removed_by_hand,
    expired, half_made,
]  # fmt: skip


# what holds for each -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", PREPARED, ids=lambda f: f.__name__)
async def test_a_plan_is_what_the_collection_then_removes(calm: Calm, prepare: Prepare) -> None:
    await prepare(calm)
    plan, objects = await planned(calm.store)
    before = await totals(calm.store)
    await calm.store.collect()
    assert await totals(calm.store) - before == told(plan, objects)


@pytest.mark.parametrize("prepare", PREPARED, ids=lambda f: f.__name__)
async def test_a_plan_changes_nothing(calm: Calm, prepare: Prepare) -> None:
    await prepare(calm)
    while (await calm.store.collector()).removals:  # of files that were here already
        await trio.sleep(0.001)
    commit, disk = calm.running.storage.statistics().commit, calm.on_disk()
    plan = await planned(calm.store)
    assert await planned(calm.store) == plan
    assert (calm.running.storage.statistics().commit, calm.on_disk()) == (commit, disk)
    assert (await calm.store.collector()).runs == 0


@pytest.mark.parametrize("name", ["a", "b", "c"])
async def test_a_plan_without_an_image_is_what_deleting_it_frees(calm: Calm, name: str) -> None:
    await shared_layers(calm)
    plan, objects = await planned(calm.store, [name])
    assert plan.objects
    await calm.store.images.delete(name)
    before = await totals(calm.store)
    await calm.store.collect()
    assert await totals(calm.store) - before == told(plan, objects)


@pytest.mark.parametrize("prepare", [two_namespaces, snapshots], ids=lambda f: f.__name__)
async def test_a_plan_without_an_image_holds_over_namespaces_and_snapshots(calm: Calm, prepare: Prepare) -> None:
    await prepare(calm)
    plan, objects = await planned(calm.store, ["a"])
    await calm.store.images.delete("a")
    await calm.store.collect()
    assert await totals(calm.store) == told(plan, objects)


@pytest.mark.parametrize("prepare", PREPARED, ids=lambda f: f.__name__)
async def test_files_and_folders_shrink_by_what_was_planned(calm: Calm, prepare: Prepare) -> None:
    await prepare(calm)
    plan, objects = await planned(calm.store)
    in_engine = sum(each.size for each in objects if each.kind == "content" and each.size <= SMALL)
    if prepare is removed_by_hand:
        in_engine = SMALL  # its record was gone before
    await calm.removals_done()
    before = calm.on_disk()
    await calm.store.collect()
    assert before - calm.on_disk() == plan.freed - in_engine


# what is told of it ------------------------------------------------------------------------------------------


async def test_every_object_that_would_go_is_named_with_its_bytes(calm: Calm) -> None:
    await shared_layers(calm)
    await put(calm.store.in_namespace("other"), "loose", LARGE)
    shape = await make_image(calm.store, "d", ["base", "own d"])
    plan, objects = await planned(calm.store, ["d"])
    own = digest_of(data_of("own d", LARGE))
    assert {(each.namespace, each.kind, each.name, each.size) for each in objects} == {
        ("default", "content", shape.manifest.digest, SMALL),
        ("default", "content", shape.parts[0].digest, SMALL),
        ("default", "content", own, LARGE),
        ("other", "content", digest_of(data_of("loose", LARGE)), LARGE),
    }
    assert (plan.objects, plan.blobs, plan.freed) == (4, 4, 2 * SMALL + 2 * LARGE)


async def test_what_another_namespace_holds_goes_and_frees_nothing(calm: Calm) -> None:
    await put(calm.store, "both", LARGE)
    await put(calm.store.in_namespace("other"), "both", LARGE, ROOTED)
    plan, objects = await planned(calm.store)
    assert [(each.namespace, each.size) for each in objects] == [("default", LARGE)]
    assert (plan.objects, plan.blobs, plan.freed) == (1, 0, 0)


async def test_two_images_left_out_free_what_only_they_share(calm: Calm) -> None:
    await shared_layers(calm)
    alone = [(await planned(calm.store, [name]))[0].freed for name in ("a", "b")]
    both = (await planned(calm.store, ["a", "b"]))[0].freed
    assert alone == [2 * SMALL + LARGE, 2 * SMALL]
    assert both == sum(alone) + LARGE  # the base; c keeps own b


async def test_an_image_left_out_is_one_of_the_callers_namespace(calm: Calm) -> None:
    other = calm.store.in_namespace("other")
    await make_image(other, "theirs", ["l0"])
    with pytest.raises(errors.NotFound):
        await calm.store.plan_collection(["theirs"])
    assert (await other.plan_collection(["theirs"])).freed == 2 * SMALL + LARGE


@pytest.mark.parametrize("without", [["none"], ["a", "none"], ["a", "a"]])
async def test_an_image_left_out_must_be_there(calm: Calm, without: list[str]) -> None:
    await make_image(calm.store, "a", ["l0"])
    with pytest.raises(errors.NotFound):
        await calm.store.plan_collection(without)
    assert (await calm.store.plan_collection()).objects == 0


async def test_an_image_that_a_lease_or_another_image_keeps_frees_nothing(calm: Calm) -> None:
    shape = await make_image(calm.store, "a", ["l0"])
    await calm.store.leases.create("l")
    await calm.store.leases.add("l", orlop.LeaseResource(shape.manifest.digest, "content"))
    plan, _ = await planned(calm.store, ["a"])
    assert (plan.objects, plan.freed) == (0, 0)


async def test_a_plan_is_the_same_however_many_objects_it_has(calm: Calm) -> None:
    """Many slices, and many messages."""
    for first in (0, 150):
        async with calm.store.transaction() as tx:
            for number in range(first, first + 150):
                tx.content.put(data_of(f"blob {number}"))
    plan, _ = await planned(calm.store)
    assert (plan.objects, plan.blobs, plan.freed) == (300, 300, 300 * SMALL)
    done = await calm.store.collect()
    assert (done.content, done.blobs, done.freed) == (300, 300, 300 * SMALL)


async def test_an_ingest_that_expired_is_planned(calm: Calm) -> None:
    async with calm.store.content.ingest("left") as writer:
        await writer.write(bytes(LARGE))
    calm.clock.shift_s = 25 * HOUR_S
    plan, objects = await planned(calm.store)
    assert [(each.kind, each.name, each.size) for each in objects] == [("ingest", "left", LARGE)]
    done = await calm.store.collect()
    assert (done.ingests, done.freed) == (1, plan.freed) == (1, LARGE)


# the bin -----------------------------------------------------------------------------------------------------


async def test_what_waits_in_the_bin_is_planned_as_if_it_were_emptied(binned: Calm) -> None:
    await shared_layers(binned)
    await binned.store.images.delete("a")
    expected = told(*await planned(binned.store))
    assert (await binned.store.collect()).content == 0
    assert told(*await planned(binned.store)) == expected
    await binned.store.collect(empty_bin=True)
    assert await totals(binned.store) == expected


async def test_a_plan_survives_a_restart(lasting: CalmMaker) -> None:
    async with lasting.open() as calm:
        await deleted_image(calm)
        before = await planned(calm.store)
        names = await seen(calm.store)
    async with lasting.open() as calm:
        assert await planned(calm.store) == before
        assert await seen(calm.store) == names


async def test_what_cannot_be_weighed_keeps_nobody_waiting(calm: Calm) -> None:
    """A snapshot's folder that somebody made a file: neither the plan nor the removal of others depends on it."""
    native = calm.store.snapshots.using("native")
    [broken] = await native.prepare("broken")
    Path(broken.source).rmdir()
    Path(broken.source).write_text("no folder")
    await put(calm.store, "loose", LARGE)
    plan, _ = await planned(calm.store)
    assert plan.freed == LARGE
    with trio.fail_after(20):
        done = await calm.store.collect()
    assert (done.snapshots, done.content, done.freed) == (1, 1, LARGE)
