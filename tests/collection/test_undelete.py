"""What was deleted or found dead comes back while it waits in the bin. Source: DESIGN 8, messages (Undelete)."""

from __future__ import annotations

from pathlib import Path

import pytest

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from tests.support.outcomes import outcome

from ..support.calm import (
    EXPIRE,
    HOUR_S,
    LARGE,
    REF,
    ROOT,
    ROOTED,
    SMALL,
    Calm,
    CalmMaker,
    Shape,
    ShiftedClock,
    data_of,
    labels_to,
    make_image,
    make_snapshot,
    put,
    seen,
)  # fmt: skip
from ..support.layers import digest_of
from ..support.snapshotters import held, journal

BACK_WITH_ROOT = f"label {ROOT}"


async def made(store: orlop.Store, name: str = "app") -> Shape:
    """An image with a large and a small blob below, and two snapshots, that nothing else keeps."""
    await make_snapshot(store, f"{name} base")
    await make_snapshot(store, f"{name} top", f"{name} base")
    return await make_image(store, name, [f"{name} layer"], snapshot=f"{name} top")


async def is_whole(store: orlop.Store, shape: Shape) -> None:
    """All that `made` made can be read and mounted."""
    for blob in (shape.manifest, *shape.parts):
        assert digest_of(await store.content.read(blob.digest)) == blob.digest
    await store.leases.create("view")
    snapshots = store.with_lease("view").snapshots.using("native")
    (mount,) = await snapshots.view("v", f"{shape.name} top")
    for name in ("base", "top"):
        assert Path(mount.source, f"{shape.name} {name}").read_bytes() == bytes(5000)
    await snapshots.remove("v")
    await store.leases.delete("view")


async def emptied(store: orlop.Store) -> m.Collection:
    return await store.collect(empty_bin=True)


# it comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collections", [0, 1, 2])
async def test_a_deleted_image_comes_back_as_it_was_with_all_below(binned: Calm, collections: int) -> None:
    store = binned.store
    shape = await made(store)
    before, names = await store.images.get("app"), await seen(store)
    await store.images.delete("app")
    for _ in range(collections):
        await store.collect()
    assert await store.undelete("app") == m.Undeleted("image", "app", "itself")
    assert await store.images.get("app") == before
    await emptied(store)
    assert await seen(store) == names
    await is_whole(store, shape)
    assert (await store.collect(full=True)).differed == 0


async def test_while_it_waits_what_it_refers_to_can_be_read(binned: Calm) -> None:
    shape = await made(binned.store)
    await binned.store.images.delete("app")
    await binned.store.collect()
    await is_whole(binned.store, shape)
    assert await outcome(binned.store.images.get("app")) == "NotFound"


async def test_an_image_that_comes_back_is_told(binned: Calm) -> None:
    await made(binned.store)
    await binned.store.images.delete("app")
    await binned.store.undelete("app")
    assert [event.topic for event in await journal(binned.store, "/images/")] == [
        "/images/create", "/images/delete", "/images/create",
    ]  # fmt: skip


async def test_condemned_content_comes_back_with_a_root_and_what_it_refers_to(binned: Calm) -> None:
    store = binned.store
    shape = await made(store)
    await store.images.delete("app")
    await store.collect()
    assert await store.undelete(shape.manifest.digest) == m.Undeleted("content", shape.manifest.digest, BACK_WITH_ROOT)
    await emptied(store)
    info = await store.content.info(shape.manifest.digest)
    assert info.labels.pop(ROOT)
    assert info.labels == labels_to(*shape.parts)
    await is_whole(store, shape)
    assert [image.name async for image in store.images.list()] == []


async def test_a_condemned_snapshot_comes_back_with_a_root_and_its_parents(binned: Calm) -> None:
    store = binned.store
    await made(store)
    await store.images.delete("app")
    await store.collect()
    assert await store.undelete("native/app top") == m.Undeleted("snapshot", "native/app top", BACK_WITH_ROOT)
    await emptied(store)
    assert await seen(store) == {"app top", "app base"}
    assert (await store.snapshots.using("native").get("app top")).labels[ROOT]
    (mount,) = await store.snapshots.using("native").view("v", "app top")
    assert {path.name for path in Path(mount.source).iterdir()} == {"app top", "app base"}


async def test_only_what_is_asked_for_comes_back(binned: Calm) -> None:
    store = binned.store
    shape = await made(store)
    await store.images.delete("app")
    await store.collect()
    layer = shape.parts[1].digest
    await store.undelete(layer)
    await emptied(store)
    assert await seen(store) == {layer}


async def test_an_image_that_expired_comes_back_and_expires_no_more(binned: Calm) -> None:
    store = binned.store
    await make_image(store, "app", ["layer"], labels={EXPIRE: binned.clock.after(60), "k": "v"})
    names = await seen(store)
    binned.clock.shift_s = 120
    await store.collect()
    done = await store.undelete("app")
    assert (done.kind, done.name) == ("image", "app")
    assert (await store.images.get("app")).labels == {"k": "v"}
    await emptied(store)
    assert await seen(store) == names


async def test_of_two_of_one_name_the_last_comes_back(binned: Calm) -> None:
    store = binned.store
    for number in range(2):
        shape = await make_image(store, "app", [f"layer {number}"], labels={"number": str(number)})
        await store.images.delete("app")
        await put(store, f"between {number}")
        await make_image(store, f"other {number}", labels={})
        await store.content.update(shape.manifest.digest, {"seen": str(number)}, ["labels.seen"])
    await store.undelete("app")
    assert (await store.images.get("app")).labels == {"number": "1"}


async def test_it_comes_back_in_its_own_namespace(binned: Calm) -> None:
    other = binned.store.in_namespace("other")
    await made(other)
    await other.images.delete("app")
    await binned.store.collect()
    with pytest.raises(errors.NotFound):
        await binned.store.undelete("app")
    await other.undelete("app")
    assert (await other.images.get("app")).name == "app"


# it does not -------------------------------------------------------------------------------------------------


async def test_what_is_alive_is_not_brought_back(binned: Calm) -> None:
    shape = await made(binned.store)
    for name in ("app", shape.manifest.digest, shape.parts[1].digest, "native/app top", "native/app base"):
        with pytest.raises(errors.FailedPrecondition) as error:
            await binned.store.undelete(name)
        assert error.value.hint == f"see: orlop why {name}"


async def test_what_was_brought_back_is_alive(binned: Calm) -> None:
    shape = await made(binned.store)
    await binned.store.images.delete("app")
    await binned.store.collect()
    await binned.store.undelete(shape.manifest.digest)
    await binned.store.undelete("app")
    for name in ("app", shape.manifest.digest):
        with pytest.raises(errors.FailedPrecondition):
            await binned.store.undelete(name)


async def test_what_was_brought_back_no_longer_waits(binned: Calm) -> None:
    await made(binned.store)
    await binned.store.images.delete("app")
    await binned.store.undelete("app")
    await binned.store.images.delete("app", sync=True)
    with pytest.raises(errors.NotFound):
        await binned.store.undelete("app")


@pytest.mark.parametrize("name", ["none", "native/none", "sha256:" + "0" * 64, ""])
async def test_what_never_was_is_not_found(binned: Calm, name: str) -> None:
    with pytest.raises(errors.NotFound) as error:
        await binned.store.undelete(name)
    assert "gc.grace_s" in error.value.hint


async def test_without_a_grace_period_nothing_is_kept(calm: Calm) -> None:
    await made(calm.store)
    await calm.store.images.delete("app")
    with pytest.raises(errors.NotFound):
        await calm.store.undelete("app")
    await calm.store.collect()
    assert await seen(calm.store) == set()


async def test_an_image_whose_name_is_taken_does_not_come_back(binned: Calm) -> None:
    store = binned.store
    await make_image(store, "app", ["old"])
    await store.images.delete("app")
    new = await make_image(store, "app", ["new"], labels={"which": "new"})
    with pytest.raises(errors.AlreadyExists):
        await store.undelete("app")
    assert (await store.images.get("app")).target.digest == new.manifest.digest
    await store.images.delete("app", sync=True)
    await store.undelete("app")
    assert (await store.images.get("app")).labels == {}


async def test_an_image_whose_content_is_gone_does_not_come_back(binned: Calm) -> None:
    shape = await made(binned.store)
    await binned.store.images.delete("app")
    await binned.store.content.delete(shape.manifest.digest)
    with pytest.raises(errors.FailedPrecondition) as error:
        await binned.store.undelete("app")
    assert error.value.hint == "pull it again"
    assert await outcome(binned.store.images.get("app")) == "NotFound"


async def test_what_is_deleted_with_sync_is_not_kept(binned: Calm) -> None:
    shape = await made(binned.store)
    await binned.store.collect()
    await binned.store.images.delete("app", sync=True)
    assert await seen(binned.store) == set()
    for name in ("app", shape.manifest.digest, "native/app top"):
        assert await outcome(binned.store.undelete(name)) == "NotFound"
    assert binned.on_disk() == 0


async def test_what_is_in_question_and_deleted_with_sync_is_not_kept(binned: Calm) -> None:
    """The lease of the pull has just ended, and the collector has not looked yet."""
    await made(binned.store)
    await binned.store.images.delete("app", sync=True)
    assert await seen(binned.store) == set()


async def test_what_is_in_question_and_deleted_with_sync_is_gone_when_that_answers(calm: Calm) -> None:
    await made(calm.store)
    await calm.store.images.delete("app", sync=True)
    assert await seen(calm.store) == set()


async def test_what_is_removed_by_hand_is_not_kept(binned: Calm) -> None:
    store = binned.store
    blob = await put(store, "blob", labels=ROOTED)
    await make_snapshot(store, "s", labels=ROOTED)
    await store.content.delete(blob.digest)
    await store.snapshots.using("native").remove("s")
    for name in (blob.digest, "native/s"):
        assert await outcome(store.undelete(name)) == "NotFound"


# how long it waits -------------------------------------------------------------------------------------------


async def test_it_waits_for_the_grace_period_and_no_longer(binned: Calm) -> None:
    store = binned.store
    shape = await made(store)
    names = await seen(store) - {"app"}
    await store.images.delete("app")
    await store.collect()
    binned.clock.shift_s = HOUR_S - 60
    await store.collect()
    assert await seen(store) == names
    binned.clock.shift_s = HOUR_S + 60
    done = await store.collect()
    assert (done.content, done.snapshots) == (3, 2)
    for name in ("app", shape.manifest.digest, "native/app top"):
        assert await outcome(store.undelete(name)) == "NotFound"
    assert await seen(store) == set()
    assert binned.on_disk() == 0


async def test_what_came_back_and_is_let_go_again_waits_anew(binned: Calm) -> None:
    store = binned.store
    await made(store)
    for _ in range(3):
        await store.images.delete("app")
        await store.collect()
        binned.clock.shift_s += HOUR_S - 60
        await store.undelete("app")
    await store.collect()
    assert (await store.images.get("app")).name == "app"


async def test_the_bin_can_be_emptied(binned: Calm) -> None:
    store = binned.store
    shape = await made(store)
    await store.images.delete("app")
    await store.collect()
    assert len((await store.collector()).bin) == 1
    done = await emptied(store)
    assert (done.content, done.snapshots, done.blobs) == (3, 2, 3)
    assert (await store.collector()).bin == []
    for name in ("app", shape.manifest.digest, "native/app top"):
        assert await outcome(store.undelete(name)) == "NotFound"
    assert binned.on_disk() == 0


async def test_a_bin_outlives_a_restart(lasting: CalmMaker) -> None:
    async with lasting.open(grace_s=HOUR_S) as calm:
        shape = await made(calm.store)
        before = await calm.store.images.get("app")
        await calm.store.images.delete("app")
        await calm.store.collect()
        waiting = (await calm.store.collector()).bin
    async with lasting.open(grace_s=HOUR_S) as calm:
        assert (await calm.store.collector()).bin == waiting
        await calm.store.collect()
        await calm.store.undelete("app")
        assert await calm.store.images.get("app") == before
        await emptied(calm.store)
        await is_whole(calm.store, shape)


async def test_what_is_due_while_the_store_is_closed_goes_afterwards(lasting: CalmMaker) -> None:
    clock = ShiftedClock()
    async with lasting.open(grace_s=HOUR_S, clock=clock) as calm:
        await made(calm.store)
        await calm.store.images.delete("app")
        await calm.store.collect()
    clock.shift_s = 2 * HOUR_S
    async with lasting.open(grace_s=HOUR_S, clock=clock) as calm:
        await calm.store.collect()
        assert await seen(calm.store) == set()
        assert await outcome(calm.store.undelete("app")) == "NotFound"


async def test_a_store_without_grace_period_empties_the_bin_that_it_finds(lasting: CalmMaker) -> None:
    async with lasting.open(grace_s=HOUR_S) as calm:
        await made(calm.store)
        await calm.store.images.delete("app")
        await calm.store.collect()
    async with lasting.open() as calm:
        await calm.store.collect()
        assert await seen(calm.store) == set()
        assert await outcome(calm.store.undelete("app")) == "NotFound"


# what wakes it -----------------------------------------------------------------------------------------------


@pytest.fixture
async def waiting(binned: Calm) -> Shape:
    """Everything of it is in the bin."""
    shape = await made(binned.store)
    await binned.store.images.delete("app")
    await binned.store.collect()
    return shape


async def test_a_new_image_wakes_what_it_refers_to(binned: Calm, waiting: Shape) -> None:
    await binned.store.images.create("again", waiting.manifest)
    await emptied(binned.store)
    await is_whole(binned.store, waiting)


async def test_a_label_wakes_what_it_refers_to(binned: Calm, waiting: Shape) -> None:
    await put(binned.store, "root", labels={ROOT: "r", REF: waiting.manifest.digest})
    await emptied(binned.store)
    await is_whole(binned.store, waiting)


async def test_an_entry_of_a_lease_wakes_what_it_names(binned: Calm, waiting: Shape) -> None:
    await binned.store.leases.create("l")
    await binned.store.leases.add("l", orlop.LeaseResource(waiting.manifest.digest, "content"))
    await emptied(binned.store)
    await is_whole(binned.store, waiting)


@pytest.mark.parametrize("part, size", [("app config", SMALL), ("app layer", LARGE)])
async def test_what_is_brought_again_under_a_lease_is_awake(binned: Calm, waiting: Shape, part: str, size: int) -> None:
    await binned.store.leases.create("l")
    digest = digest_of(data_of(part, size))
    await put(binned.store.with_lease("l"), part, size)
    assert await held(binned.store, "l") == [("content", digest)]
    await emptied(binned.store)
    assert await binned.store.content.read(digest) == data_of(part, size)


async def test_a_snapshot_that_is_committed_again_under_a_lease_is_awake(binned: Calm, waiting: Shape) -> None:
    await binned.store.leases.create("l")
    leased = binned.store.with_lease("l").snapshots.using("native")
    await leased.prepare("a")
    assert await outcome(leased.commit("app top", "a")) in ("ok", "AlreadyExists")
    await emptied(binned.store)
    assert (await binned.store.snapshots.using("native").get("app top")).kind is orlop.SnapshotKind.COMMITTED


async def test_a_child_wakes_its_parents(binned: Calm, waiting: Shape) -> None:
    await binned.store.snapshots.using("native").prepare("child", "app top", ROOTED)
    await emptied(binned.store)
    assert await seen(binned.store) == {"child", "app top", "app base"}


async def test_what_woke_leaves_the_rest_in_the_bin(binned: Calm, waiting: Shape) -> None:
    await put(binned.store, "root", labels={ROOT: "r", REF: waiting.parts[1].digest})
    await binned.store.collect()
    await binned.store.undelete("app")
    await emptied(binned.store)
    await is_whole(binned.store, waiting)


# names -------------------------------------------------------------------------------------------------------


async def test_a_new_image_takes_the_name_of_a_condemned_one(binned: Calm) -> None:
    store = binned.store
    await make_image(store, "app", ["old"], labels={EXPIRE: binned.clock.after(60)})
    binned.clock.shift_s = 120
    await store.collect()
    new = await make_image(store, "app", ["new"])
    assert (await store.images.get("app")).target.digest == new.manifest.digest
    await emptied(store)
    assert await seen(store) == {"app", new.manifest.digest, *(part.digest for part in new.parts)}


async def test_a_new_snapshot_takes_the_name_of_a_condemned_one(binned: Calm, waiting: Shape) -> None:
    snapshots = binned.store.snapshots.using("native")
    (mount,) = await snapshots.prepare("app top", labels=ROOTED)
    assert list(Path(mount.source).iterdir()) == []
    await emptied(binned.store)
    assert await seen(binned.store) == {"app top"}
    assert (await snapshots.get("app top")).kind is orlop.SnapshotKind.ACTIVE
    assert Path(mount.source).is_dir()


async def test_a_new_lease_takes_the_name_of_a_condemned_one(binned: Calm) -> None:
    store = binned.store
    await store.leases.create("l", {EXPIRE: binned.clock.after(60)})
    await put(store.with_lease("l"), "old")
    binned.clock.shift_s = 120
    await store.collect()
    await store.leases.create("l", {"new": "1"})
    assert await held(store, "l") == []
    await emptied(store)
    assert (await store.leases.get("l")).labels == {"new": "1"}
    assert await seen(store) == set()


async def test_a_new_ingest_takes_the_ref_of_a_condemned_one(binned: Calm) -> None:
    store = binned.store
    await store.leases.create("l", {EXPIRE: binned.clock.after(60)})
    async with store.with_lease("l").content.ingest("ref") as writer:
        await writer.write(bytes(100))
    binned.clock.shift_s = 120
    await store.collect()
    async with store.content.ingest("ref") as writer:
        await writer.write(data_of("new", LARGE)[writer.offset :])
        await emptied(store)
        info = await writer.commit(labels=ROOTED)
    assert len(await store.content.read(info.digest)) == LARGE


async def test_a_namespace_in_which_all_waits_in_the_bin_is_empty(binned: Calm) -> None:
    other = binned.store.in_namespace("other")
    await made(other)
    await other.images.delete("app")
    await binned.store.collect()
    await binned.store.namespaces.delete("other")
