"""What was unpacked once is shared by those who hold its blobs, and by nobody else. Source: DESIGN 7.

Whether two namespaces share a snapshot shows in its folder: their mounts name the same one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition, NotFound

from ..support.faulty_registry import FaultyRegistry, Stall
from ..support.images import MadeImage, image, write_layout
from ..support.layers import brief, digest_of, file, folder, hardlink, layer, names_of, quick_store, read_tree

NAME = "example/image:1"
BELOW = layer(folder("etc"), file("etc/a", "1"), file("gone", "x"))
ABOVE = layer(file("etc/b", "2"), file(".wh.gone"))
SEEN = {"etc": "dir", "etc/a": "file:1", "etc/b": "file:2"}
ROOT = {"containerd.io/gc.root": "test"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with quick_store(tmp_path / "store", leased=False) as opened:
        yield opened


@pytest.fixture
def made() -> MadeImage:
    return image([BELOW, ABOVE])


async def unpacked(store: orlop.Store, made: MadeImage, snapshotter: str) -> str:
    """In this namespace, blobs and image included; the top's name."""
    async with store.lease() as leased:
        await made.stored(leased, NAME)
    return (await store.images.unpack(NAME, snapshotter=snapshotter)).chain_id


async def folders(store: orlop.Store, snapshotter: str, name: str) -> list[str]:
    """Where a snapshot and those below it lie."""
    snapshots = store.snapshots.using(snapshotter)
    (mount,) = await snapshots.view("look", name, ROOT)
    await snapshots.remove("look")
    if mount.type == "bind":
        return [mount.source]
    return (
        next(option for option in mount.options if option.startswith("lowerdir=")).removeprefix("lowerdir=").split(":")
    )


async def tree(store: orlop.Store, snapshotter: str, name: str) -> dict[str, str]:
    snapshots = store.snapshots.using(snapshotter)
    async with orlop.mounted(await snapshots.view("look", name, ROOT)) as path:
        seen = brief(read_tree(path))
    await snapshots.remove("look")
    return seen


def on_disk(tmp_path: Path, snapshotter: str) -> set[str]:
    return {path.name for path in (tmp_path / "store" / "snapshots" / snapshotter).iterdir()}


async def test_another_namespace_gets_the_same_folders(
    store: orlop.Store, tmp_path: Path, mounts: None, snapshotter: str, made: MadeImage
) -> None:
    other = store.in_namespace("other")
    top = await unpacked(store, made, snapshotter)
    before = on_disk(tmp_path, snapshotter)
    assert await unpacked(other, made, snapshotter) == top
    assert on_disk(tmp_path, snapshotter) == before
    assert await folders(other, snapshotter, top) == await folders(store, snapshotter, top)
    assert await tree(other, snapshotter, top) == SEEN
    ours, theirs = [await one.snapshots.using(snapshotter).get(top) for one in (store, other)]
    assert (theirs.parent, theirs.labels) == (ours.parent, ours.labels)
    assert await store.snapshots.using(snapshotter).usage(top) == await other.snapshots.using(snapshotter).usage(top)


async def test_what_is_shared_stays_until_the_last_one_lets_go(
    store: orlop.Store, tmp_path: Path, mounts: None, snapshotter: str, made: MadeImage
) -> None:
    other = store.in_namespace("other")
    top = await unpacked(store, made, snapshotter)
    await unpacked(other, made, snapshotter)
    await store.images.delete(NAME, sync=True)
    assert await names_of(store, snapshotter) == set()
    assert await tree(other, snapshotter, top) == SEEN
    await other.images.delete(NAME, sync=True)
    assert on_disk(tmp_path, snapshotter) == set()
    assert await unpacked(other, made, snapshotter) == top
    assert await tree(other, snapshotter, top) == SEEN


async def test_who_lacks_a_blob_gets_nothing(store: orlop.Store, snapshotter: str, made: MadeImage) -> None:
    """A config that claims another's diff IDs is no key to what they made."""
    await unpacked(store, made, snapshotter)
    other = store.in_namespace("other")
    async with other.lease() as leased:
        await made.stored(leased, NAME, without=[made.layers[1].digest])
    with pytest.raises(NotFound):
        await other.images.unpack(NAME, snapshotter=snapshotter)
    assert made.chain[1] not in await names_of(other, snapshotter)


async def test_what_a_client_committed_is_never_shared_nor_what_stands_on_it(
    store: orlop.Store, mounts: None, snapshotter: str, made: MadeImage
) -> None:
    snapshots = store.snapshots.using(snapshotter)
    async with orlop.mounted(await snapshots.prepare("mine", "", ROOT)) as path:
        Path(path, "planted").write_text("evil")
    await snapshots.commit(made.chain[0], "mine", ROOT)
    top = await unpacked(store, made, snapshotter)
    assert "planted" in await tree(store, snapshotter, top)
    other = store.in_namespace("other")
    assert await unpacked(other, made, snapshotter) == top
    assert await tree(other, snapshotter, top) == SEEN


async def test_other_blobs_of_the_same_layers_are_unpacked_by_themselves(
    store: orlop.Store, mounts: None, snapshotter: str, made: MadeImage
) -> None:
    """Their diff IDs are what a config says; only the blobs were verified."""
    plain = image([BELOW, ABOVE], media_type="application/vnd.oci.image.layer.v1.tar")
    other = store.in_namespace("other")
    top = await unpacked(store, made, snapshotter)
    assert await unpacked(other, plain, snapshotter) == top
    assert set(await folders(other, snapshotter, top)).isdisjoint(await folders(store, snapshotter, top))
    assert await tree(other, snapshotter, top) == SEEN


async def test_in_isolation_those_who_brought_the_same_blobs_share(
    tmp_path: Path, mounts: None, snapshotter: str, made: MadeImage
) -> None:
    async with quick_store(tmp_path / "store", leased=False, content_sharing_policy="isolated") as store:
        other = store.in_namespace("other")
        top = await unpacked(store, made, snapshotter)
        await unpacked(other, made, snapshotter)
        assert await folders(other, snapshotter, top) == await folders(store, snapshotter, top)


async def test_two_namespaces_at_once_unpack_once(
    store: orlop.Store, tmp_path: Path, snapshotter: str, made: MadeImage
) -> None:
    spaces = [store.in_namespace(f"n{number}") for number in range(4)]
    for space in spaces:
        async with space.lease() as leased:
            await made.stored(leased, NAME)
    async with trio.open_nursery() as nursery:
        for space in spaces:
            nursery.start_soon(lambda at: at.images.unpack(NAME, snapshotter=snapshotter), space)
    assert len(on_disk(tmp_path, snapshotter)) == 2


async def test_layers_are_laid_down_while_others_are_fetched(
    store: orlop.Store, tmp_path: Path, snapshotter: str, made: MadeImage
) -> None:
    with FaultyRegistry({"x": write_layout(tmp_path / "layout", made)}) as registry:
        registry.fault(f"/blobs/{made.layers[1].digest}", Stall(), times=None)
        request = orlop.PullImage(
            f"{registry.address}/x:latest",
            access=orlop.RegistryAccess(plain_http=True),
            unpack=True,
            snapshotter=snapshotter,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.pull, request)
            with trio.fail_after(20):
                while made.chain[0] not in await names_of(store, snapshotter):
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert await names_of(store, snapshotter) == {made.chain[0]}
    assert len(on_disk(tmp_path, snapshotter)) <= 2  # the other's goes as soon as the queue is worked


async def test_a_config_that_lies_about_a_blob_is_refused_though_that_was_unpacked_before(
    store: orlop.Store, mounts: None, snapshotter: str
) -> None:
    """Else the blob's tree would stand under the name of what the config claims."""
    evil, good = layer(file("evil", "1")), layer(file("good", "1"))
    await unpacked(store, image([evil]), snapshotter)
    liar = store.in_namespace("liar")
    with pytest.raises(FailedPrecondition, match="wrong diff id"):
        await unpacked(liar, image([evil], diff_ids=[digest_of(good)]), snapshotter)
    async with liar.lease() as leased:
        await image([good]).stored(leased, "good")
    top = (await liar.images.unpack("good", snapshotter=snapshotter)).chain_id
    assert await tree(liar, snapshotter, top) == {"good": "file:1"}


async def test_what_a_client_committed_does_not_come_into_a_shared_layer_from_below(
    store: orlop.Store, mounts: None, snapshotter: str
) -> None:
    """The layer between is another's, and the one above takes files up from those below."""
    layers = [
        layer(folder("etc"), file("etc/passwd", "root"), file("secret", "x")),
        layer(file("b", "2")),
        layer(hardlink("copy", "etc/passwd"), file(".wh.secret")),
    ]
    whole = image(layers)
    await unpacked(store.in_namespace("first"), image(layers[:2]), snapshotter)
    mallory = store.in_namespace("mallory")
    snapshots = mallory.snapshots.using(snapshotter)
    async with orlop.mounted(await snapshots.prepare("mine", "", ROOT)) as path:
        Path(path, "etc").mkdir()
        Path(path, "etc/passwd").write_text("EVIL")
    await snapshots.commit(whole.chain[0], "mine", ROOT)
    await unpacked(mallory, whole, snapshotter)
    bob = store.in_namespace("bob")
    seen = await tree(bob, snapshotter, await unpacked(bob, whole, snapshotter))
    assert seen["copy"] in ("file:root", "= etc/passwd", "= copy")
    assert seen["etc/passwd"] in ("file:root", "= copy")
    assert "secret" not in seen
    assert "EVIL" not in str(seen)


async def test_cancelled_prepares_leave_nothing_announced(store: orlop.Store, tmp_path: Path, snapshotter: str) -> None:
    """An announcement that nobody takes back would keep its parent for good."""
    snapshots = store.snapshots.using(snapshotter)
    await snapshots.prepare("a", "", ROOT)
    await snapshots.commit("base", "a", ROOT)
    for step in range(30):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(snapshots.prepare, f"k{step}", "base")
                for _ in range(step):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    for name in sorted(await names_of(store, snapshotter) - {"base"}):
        await snapshots.remove(name)
    await snapshots.remove("base")
    await store.collect()
    assert on_disk(tmp_path, snapshotter) == set()
