"""Bytes held by each namespace and by the store, as counted and as walked. Source: DESIGN 8, messages (BytesHeld)."""

from __future__ import annotations

from pathlib import Path

import pytest

import orlop
from orlop.protocol.messages import BytesHeld, DiskUsage
from orlop.storage.collection.walk import walk_usage

from ..support.calm import HOUR_S, LARGE, REF, ROOT, ROOTED, SMALL, Calm, CalmMaker, make_image, make_snapshot, put
from ..support.trees import usage

NOTHING = BytesHeld(0, 0, 0, 0, 0)


async def held(calm: Calm) -> DiskUsage:
    """What the store says, which is what a walk finds."""
    told = await calm.store.disk_usage()
    with calm.running.storage.view() as view:
        walked = await walk_usage(view)
    store = walked.pop("")
    found = {
        name: BytesHeld(each.packed, each.unpacked, each.exclusive, each.shared, each.reclaimable)
        for name, each in walked.items()
    }
    assert {name: each for name, each in told.namespaces.items() if each != NOTHING} == {
        name: each for name, each in found.items() if each != NOTHING
    }
    assert (told.total.packed, told.total.unpacked) == (store.packed, store.unpacked)
    assert told.total.exclusive + told.total.shared == told.total.packed + told.total.unpacked
    assert told.total.exclusive == sum(each.exclusive for each in told.namespaces.values())
    assert told.total.reclaimable == sum(each.reclaimable for each in told.namespaces.values())
    return told


def blobs(packed: int, shared: int = 0, reclaimable: int = 0) -> BytesHeld:
    return BytesHeld(packed, 0, packed - shared, shared, reclaimable)


async def test_an_empty_store_holds_nothing(calm: Calm) -> None:
    assert await held(calm) == DiskUsage({}, NOTHING, 0)


async def test_put_and_ingest_count_and_deletes_count_off(calm: Calm) -> None:
    small = await put(calm.store, "small", labels=ROOTED)
    assert (await held(calm)).namespaces == {"default": blobs(SMALL)}
    large = await put(calm.store, "large", LARGE, ROOTED)
    assert (await held(calm)).total == blobs(SMALL + LARGE)
    await put(calm.store, "large", LARGE)
    assert (await held(calm)).total == blobs(SMALL + LARGE)
    await calm.store.content.delete(small.digest)
    assert (await held(calm)).total == blobs(LARGE)
    await calm.store.content.delete(large.digest)
    assert (await held(calm)).total == NOTHING


async def test_an_ingest_counts_when_it_is_committed(calm: Calm) -> None:
    async with calm.store.content.ingest("ref") as writer:
        await writer.write(bytes(LARGE))
        assert (await held(calm)).total == NOTHING
        await writer.commit(labels=ROOTED)
    assert (await held(calm)).total == blobs(LARGE)


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_two_and_three_namespaces_have_is_shared(calm: Calm, size: int) -> None:
    stores = [calm.store.in_namespace(name) for name in ("one", "two", "three")]
    for store in stores:
        blob = await put(store, "both", size, ROOTED)
        await put(store, f"of {store.context.namespace}", SMALL, ROOTED)
    found = await held(calm)
    assert found.namespaces == dict.fromkeys(("one", "two", "three"), blobs(size + SMALL, size))
    assert found.total == blobs(size + 3 * SMALL, size)
    await stores[1].content.delete(blob.digest)
    found = await held(calm)
    assert found.namespaces == {
        "one": blobs(size + SMALL, size), "two": blobs(SMALL), "three": blobs(size + SMALL, size),
    }  # fmt: skip
    await stores[0].content.delete(blob.digest)
    found = await held(calm)
    assert found.namespaces == {"one": blobs(SMALL), "two": blobs(SMALL), "three": blobs(size + SMALL)}
    assert found.total == blobs(size + 3 * SMALL)


async def test_what_waits_for_its_removal_is_nobodys(calm: Calm) -> None:
    """Until somebody has it again."""
    blob = await put(calm.store, "blob", LARGE, ROOTED)
    await calm.store.content.delete(blob.digest)
    assert (await held(calm)).total == NOTHING
    await put(calm.store.in_namespace("other"), "blob", LARGE, ROOTED)
    assert (await held(calm)).namespaces == {"default": NOTHING, "other": blobs(LARGE)}


async def test_committed_snapshots_count_as_they_lie_on_disk(calm: Calm) -> None:
    await make_snapshot(calm.store, "base", labels=ROOTED, size=50_000)
    await make_snapshot(calm.store, "top", "base", ROOTED)
    snapshots = calm.store.snapshots.using("native")
    sizes = [(await snapshots.usage(name)).size for name in ("base", "top")]
    found = await held(calm)
    assert found.namespaces == {"default": BytesHeld(0, sum(sizes), sum(sizes), 0, 0)}
    folders = [usage(path)[0] for path in (calm.folder / "snapshots" / "native").iterdir()]
    assert sorted(folders) == sorted(sizes)
    await snapshots.remove("top")
    assert (await held(calm)).total == BytesHeld(0, sizes[0], sizes[0], 0, 0)


async def test_a_commit_counts_and_a_view_does_not(calm: Calm) -> None:
    snapshots = calm.store.snapshots.using("native")
    (mount,) = await snapshots.prepare("a", labels=ROOTED)
    Path(mount.source, "f").write_bytes(bytes(50_000))
    await held(calm)
    await snapshots.commit("c", "a", ROOTED)
    size = (await held(calm)).total.unpacked
    assert size == usage(Path(mount.source))[0]
    await snapshots.view("v", "c", ROOTED)
    assert (await held(calm)).total.unpacked == size


async def test_snapshots_of_the_same_name_are_each_namespaces_own(calm: Calm) -> None:
    for name in ("one", "two"):
        await make_snapshot(calm.store.in_namespace(name), "base", labels=ROOTED)
    found = await held(calm)
    assert found.namespaces["one"] == found.namespaces["two"]
    assert found.total.shared == 0
    assert found.total.unpacked == 2 * found.namespaces["one"].unpacked


async def test_what_is_found_dead_is_reclaimable_until_it_is_swept(binned: Calm) -> None:
    store = binned.store
    await make_image(store, "a", ["base", "own a"])
    await make_image(store, "b", ["base"])
    await store.collect()
    whole = 4 * SMALL + 2 * LARGE
    assert (await held(binned)).total == blobs(whole)
    await store.images.delete("a")
    await store.collect()
    assert (await held(binned)).namespaces == {"default": blobs(whole, reclaimable=2 * SMALL + LARGE)}
    planned = await store.plan_collection()
    assert planned.freed == (await held(binned)).total.reclaimable
    await store.collect(empty_bin=True)
    assert (await held(binned)).total == blobs(2 * SMALL + LARGE)


async def test_what_is_brought_back_is_not_reclaimable(binned: Calm) -> None:
    store = binned.store
    await make_snapshot(store, "s")
    await make_image(store, "a", ["l"], snapshot="s")
    await store.images.delete("a")
    await store.collect()
    found = (await held(binned)).total
    assert found.reclaimable == found.packed + found.unpacked > 2 * SMALL + LARGE
    await store.undelete("a")
    await store.collect()
    assert (await held(binned)).total == BytesHeld(found.packed, found.unpacked, found.exclusive, 0, 0)


async def test_what_is_removed_from_the_bin_by_hand_is_not_reclaimable(binned: Calm) -> None:
    store = binned.store
    shape = await make_image(store, "a", ["l"])
    await make_snapshot(store, "s")
    await store.images.delete("a")
    await store.collect()
    await store.content.delete(shape.parts[1].digest)
    await store.snapshots.using("native").remove("s")
    assert (await held(binned)).total == blobs(2 * SMALL, reclaimable=2 * SMALL)
    await store.collect(empty_bin=True)
    assert (await held(binned)).total == NOTHING


async def test_what_one_namespace_lets_go_stays_counted_where_it_lives(binned: Calm) -> None:
    other = binned.store.in_namespace("other")
    await make_image(binned.store, "a", ["both"])
    await make_image(other, "b", ["both"])
    await other.images.delete("b")
    await binned.store.collect()
    size = 2 * SMALL + LARGE
    assert (await held(binned)).namespaces == {"default": blobs(size, LARGE), "other": blobs(size, LARGE, size)}
    await binned.store.collect(empty_bin=True)
    assert (await held(binned)).namespaces == {"default": blobs(size), "other": NOTHING}


async def test_bytes_do_not_change_with_labels_and_leases(calm: Calm) -> None:
    blob = await put(calm.store, "blob", LARGE, ROOTED)
    await calm.store.content.update(blob.digest, {REF: blob.digest, "x": "1"}, ["labels.x", f"labels.{REF}"])
    await calm.store.leases.create("l")
    await calm.store.leases.add("l", orlop.LeaseResource(blob.digest, "content"))
    await calm.store.content.update(blob.digest, {}, [f"labels.{ROOT}"])
    await calm.store.collect()
    assert (await held(calm)).total == blobs(LARGE)


async def test_a_namespace_that_is_gone_is_not_told(calm: Calm) -> None:
    other = calm.store.in_namespace("other")
    blob = await put(other, "blob", LARGE, ROOTED)
    await other.content.delete(blob.digest)
    await calm.store.namespaces.delete("other")
    assert (await held(calm)).namespaces == {}
    await put(other, "blob", LARGE, ROOTED)
    assert (await held(calm)).namespaces == {"other": blobs(LARGE)}


async def test_many_namespaces_are_all_told(calm: Calm) -> None:
    names = [f"n{number:03}" for number in range(101)]
    for name in names:
        await put(calm.store.in_namespace(name), "both", labels=ROOTED)
    found = await held(calm)
    assert sorted(found.namespaces) == names
    assert found.total == blobs(SMALL, SMALL)


async def test_bytes_held_outlive_a_restart(lasting: CalmMaker) -> None:
    async with lasting.open(grace_s=HOUR_S) as calm:
        await make_snapshot(calm.store, "s")
        await make_image(calm.store, "a", ["l"], snapshot="s")
        await make_image(calm.store.in_namespace("other"), "b", ["l"])
        await calm.store.images.delete("a")
        await calm.store.collect()
        before = await held(calm)
        assert before.total.reclaimable
    async with lasting.open(grace_s=HOUR_S) as calm:
        assert await held(calm) == before
