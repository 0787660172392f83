"""Images become snapshots: names, labels, what is left when it fails, and that nothing is done twice.

Source: spec unpack 1, 2, 8; a number such as 9.3 is that of its list of edge cases. An unfinished unpack shows in no
list. How a layer is laid: test_apply.py; images from registries, and kills: test_unpack_pulled.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplemented,  # noqa: A004  the field's name for it
    OrlopError,
    ResourceExhausted,
)

from ..support.images import Blob, MadeImage, chain_ids, image, packed
from ..support.layers import (
    GZIP,
    TAR,
    ZSTD,
    Stack,
    block,
    brief,
    digest_of,
    file,
    folder,
    layer,
    names_of,
    quick_store,
    zstd_repeated,
)

NAME = "docker.io/library/app:1"
SNAPSHOT = "containerd.io/snapshot"
UNCOMPRESSED = "containerd.io/uncompressed"
LAYERS = [
    layer(folder("etc"), file("etc/a", "1"), file("gone", "x")),
    layer(file("etc/b", "2"), file(".wh.gone")),
    layer(file("etc/a", "3")),
]
MERGED = {"etc": "dir", "etc/a": "file:3", "etc/b": "file:2"}
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


async def infos(store: orlop.Store, snapshotter: str) -> dict[str, Any]:
    return {info.name: info async for info in store.snapshots.using(snapshotter).list()}


async def unpacked(store: orlop.Store, snapshotter: str, made: MadeImage, name: str = NAME) -> orlop.Unpacked:
    return await store.images.unpack(await made.stored(store, name), snapshotter=snapshotter)


async def tree(store: orlop.Store, snapshotter: str, name: str) -> dict[str, str]:
    return brief(await Stack(store, snapshotter).tree(name))


async def fails(
    store: orlop.Store,
    snapshotter: str,
    made: MadeImage,
    kinds: type[OrlopError] | tuple[type[OrlopError], ...],
    left: int = 0,
) -> str:
    """The unpack fails so, and the first `left` layers are all that it leaves; what it says."""
    with pytest.raises(kinds) as caught:
        await unpacked(store, snapshotter, made)
    assert await names_of(store, snapshotter) == set(made.chain[:left])
    labels = (await store.content.info(made.config_digest)).labels
    assert not [key for key in labels if key.startswith("containerd.io/gc.ref.snapshot")]
    return str(caught.value)


# Identifiers (1)


def test_chain_ids_are_those_of_the_worked_example() -> None:
    three = [digest_of(text) for text in (b"layer one\n", b"layer two\n", b"layer three\n")]
    assert chain_ids(three) == [
        "sha256:28791cd3683215b645245f3832c8085fb096a7fefc04b63bb66483ad491007c4",
        "sha256:2970b4f7cf5e10b80fdaeb7dd078360fc73f2344644fd53f8c37abc07d0dd2f6",
        "sha256:15648c6cc7b2b0dfe9b7e79bb93e950c41d155599921a9134934248010b4866e",
    ]
    two = [
        "sha256:b4496c5c777e8caba295c54bb77c6a4c0d11b4bc35937522bdef7dcba4c7a044",
        "sha256:d0aa640212a45f4620567768402cc5566dac608661083d0688ef250bc7015d98",
    ]
    assert chain_ids(two)[-1] == "sha256:7c640b14d3c8a8b84d273ff0a2f0a72c6fb12b39a6b94704e94cc8ab1699f08a"


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD])
async def test_snapshots_are_named_by_their_chain_whatever_packs_the_layers(
    leased: orlop.Store, snapshotter: str, media_type: str
) -> None:
    made = image(LAYERS, media_type=media_type)
    got = await unpacked(leased, snapshotter, made)
    assert (got.chain_id, got.snapshotter) == (made.chain[-1], snapshotter)
    assert made.chain == chain_ids([digest_of(raw) for raw in LAYERS])
    found = await infos(leased, snapshotter)
    assert {name: info.parent for name, info in found.items()} == dict(
        zip(made.chain, ["", *made.chain[:-1]], strict=True)
    )
    assert await tree(leased, snapshotter, got.chain_id) == MERGED


async def test_an_empty_stream_is_a_layer(leased: orlop.Store, snapshotter: str) -> None:
    made = image([b"", LAYERS[0]], media_type=TAR)
    assert made.chain[0] == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    await unpacked(leased, snapshotter, made)
    assert await tree(leased, snapshotter, made.chain[0]) == {}
    assert set(await tree(leased, snapshotter, made.chain[1])) == {"etc", "etc/a", "gone"}


# Labels (2.3)


async def test_snapshots_content_and_config_are_labelled(leased: orlop.Store, snapshotter: str) -> None:
    annotations = {
        f"{SNAPSHOT}/mine": "1",
        f"{SNAPSHOT}.ref": "not this",
        "org.example/other": "2",
        f"{SNAPSHOT}/diff-id": "not this",
    }
    first = packed(LAYERS[0], annotations=annotations)
    made = image([first, packed(LAYERS[1], TAR), LAYERS[2]])
    await unpacked(leased, snapshotter, made)
    one, two, three = made.chain
    found = await infos(leased, snapshotter)
    assert found[one].labels == {
        f"{SNAPSHOT}/mine": "1",
        f"{SNAPSHOT}.ref": one,
        f"{SNAPSHOT}/diff-id": made.diff_ids[0],
    }
    for name, above, diff_id in ((two, one, made.diff_ids[1]), (three, two, made.diff_ids[2])):
        assert found[name].labels == {
            f"{SNAPSHOT}.ref": name,
            f"{SNAPSHOT}/diff-id": diff_id,
            f"{SNAPSHOT}/parent-chain-id": above,
        }
    for blob in made.layers:
        assert (await leased.content.info(blob.digest)).labels == {UNCOMPRESSED: blob.diff_id}
    labels = (await leased.content.info(made.config_digest)).labels
    assert labels == {f"containerd.io/gc.ref.snapshot.{snapshotter}": three}


async def test_both_snapshotters_hold_the_same_image(leased: orlop.Store) -> None:
    made = image(LAYERS)
    await made.stored(leased, NAME)
    for snapshotter in ("overlayfs", "native"):
        got = await leased.images.unpack(NAME, snapshotter=snapshotter)
        assert await tree(leased, snapshotter, got.chain_id) == MERGED
    assert (await leased.content.info(made.config_digest)).labels == {
        "containerd.io/gc.ref.snapshot.native": made.chain[-1],
        "containerd.io/gc.ref.snapshot.overlayfs": made.chain[-1],
    }


async def test_a_snapshotter_need_not_be_named(leased: orlop.Store) -> None:
    got = await unpacked(leased, "", image(LAYERS))
    assert await tree(leased, got.snapshotter, got.chain_id) == MERGED


async def test_what_cannot_be_found_is_not_found(leased: orlop.Store, snapshotter: str) -> None:
    with pytest.raises(NotFound, match="absent"):
        await leased.images.unpack("absent", snapshotter=snapshotter)
    await image(LAYERS).stored(leased, NAME)
    with pytest.raises((NotFound, InvalidArgument), match="bogus"):
        await leased.images.unpack(NAME, snapshotter="bogus")


async def test_every_way_in_unpacks_alike(mounts: None, store: orlop.Store) -> None:
    made = image(LAYERS)
    async with store.lease() as leased:
        await made.stored(leased, NAME)
    for snapshotter in ("overlayfs", "native"):
        got = await store.images.unpack(NAME, snapshotter=snapshotter)
        await store.collect()
        assert await tree(store, snapshotter, got.chain_id) == MERGED
    await store.images.delete(NAME, sync=True)
    for snapshotter in ("overlayfs", "native"):
        assert await names_of(store, snapshotter) == set()


# Which image (2.2)


async def test_as_many_layers_as_diff_ids(leased: orlop.Store, snapshotter: str) -> None:  # 9.1
    made = image(LAYERS[:2], diff_ids=[digest_of(raw) for raw in LAYERS])
    said = await fails(leased, snapshotter, made, OrlopError)
    assert "2" in said
    assert "3" in said


async def test_a_layer_of_an_unknown_type_is_not_counted(leased: orlop.Store, snapshotter: str) -> None:  # 9.15
    strange = packed(LAYERS[1], "application/vnd.example.layer+gzip")
    said = await fails(leased, snapshotter, image([LAYERS[0], strange]), OrlopError)
    assert "application/vnd.example.layer+gzip" in said


@pytest.mark.parametrize("media_type", [TAR + "+encrypted", GZIP + "+encrypted", TAR + "+lz4"])
async def test_a_layer_that_nothing_reads_is_not_implemented(
    leased: orlop.Store, snapshotter: str, media_type: str
) -> None:
    made = image([LAYERS[0], Blob(b"?", media_type, digest_of(b"?"))])
    with pytest.raises(NotImplemented, match=media_type.rpartition("+")[2]):
        await unpacked(leased, snapshotter, made)
    assert made.chain[1] not in await names_of(leased, snapshotter)


@pytest.mark.parametrize("config", [b"no json", b"[]", b"{}", b'{"rootfs": 5}'])
async def test_a_config_that_is_none_is_refused(leased: orlop.Store, snapshotter: str, config: bytes) -> None:
    await fails(leased, snapshotter, image(LAYERS, config=config), OrlopError)


async def test_rootfs_need_not_say_its_type(leased: orlop.Store, snapshotter: str) -> None:
    diff_ids = [digest_of(raw) for raw in LAYERS]
    for number, rootfs in enumerate(({"type": "", "diff_ids": diff_ids}, {"diff_ids": diff_ids})):
        made = image(LAYERS, config={"rootfs": rootfs})
        await unpacked(leased, snapshotter, made, f"{NAME}{number}")
    assert await names_of(leased, snapshotter) == set(made.chain)


async def test_dockers_types_are_unpacked(leased: orlop.Store, snapshotter: str) -> None:
    docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    made = image(LAYERS, media_type=docker, config_type="application/vnd.docker.container.image.v1+json")
    got = await unpacked(leased, snapshotter, made)
    assert await tree(leased, snapshotter, got.chain_id) == MERGED


async def test_a_platform_can_be_asked_for(leased: orlop.Store, snapshotter: str) -> None:
    other = "arm64" if host_platform().architecture != "arm64" else "amd64"
    made = image(LAYERS, config={"architecture": other})
    await made.stored(leased, NAME)
    got = await leased.images.unpack(NAME, snapshotter=snapshotter, platform=f"linux/{other}")
    assert await tree(leased, snapshotter, got.chain_id) == MERGED


async def test_an_image_without_layers_has_no_snapshot(leased: orlop.Store, snapshotter: str) -> None:  # 9.8
    made = image([])
    got = await unpacked(leased, snapshotter, made)
    assert got.chain_id == ""
    assert await names_of(leased, snapshotter) == set()
    assert (await leased.content.info(made.config_digest)).labels == {}


async def test_a_layer_that_others_may_not_pass_on_is_applied(leased: orlop.Store, snapshotter: str) -> None:  # 9.14
    made = image([packed(LAYERS[0], FOREIGN), *LAYERS[1:]])
    got = await unpacked(leased, snapshotter, made)
    assert await tree(leased, snapshotter, got.chain_id) == MERGED


# What is checked, and what is left (2.3, 8)


async def test_a_wrong_diff_id_ends_it_there(leased: orlop.Store, snapshotter: str) -> None:  # 9.2
    wanted = digest_of(b"something else")
    right = [digest_of(raw) for raw in LAYERS]
    made = image(LAYERS, diff_ids=[right[0], wanted, right[2]])
    said = await fails(leased, snapshotter, made, FailedPrecondition, left=1)
    assert "wrong diff id" in said
    for text in (right[1], wanted):
        assert text in said


async def test_the_byte_behind_the_end_is_part_of_the_diff_id(leased: orlop.Store, snapshotter: str) -> None:  # 9.10
    longer = LAYERS[0] + b"x"
    for media_type in (TAR, GZIP, ZSTD):
        blob = packed(longer, media_type)
        without = image([Blob(blob.data, media_type, digest_of(LAYERS[0]))])
        await fails(leased, snapshotter, without, FailedPrecondition)
        await leased.images.delete(NAME)
        got = await unpacked(leased, snapshotter, image([blob]))
        await leased.images.delete(NAME)
        await leased.snapshots.using(snapshotter).remove(got.chain_id)


CUT = packed(LAYERS[1]).data[:-12]


@pytest.mark.parametrize(
    "blob, kinds",
    [
        (Blob(CUT, GZIP, digest_of(LAYERS[1])), (DataLoss, InvalidArgument)),  # 9.13
        (packed(layer(file("a", "x"), file("a/b", "x"))), InvalidArgument),
        (packed(layer(file("etc/c", "x")) + b"garbage", TAR), FailedPrecondition),
        (packed(LAYERS[1]), FailedPrecondition),
    ],
    ids=["truncated", "refused", "another diff id", "another diff id, packed"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_bad_layer_leaves_those_before_it(
    leased: orlop.Store, snapshotter: str, blob: Blob, kinds: type[OrlopError], place: int
) -> None:  # 9.45, one layer after the other
    layers: list[Any] = [layer(file(f"f{number}")) for number in range(4)]
    layers[place] = blob
    made = image(layers)
    if kinds is FailedPrecondition:
        made = image(layers, diff_ids=[digest_of(b"x") if one is blob else digest_of(one) for one in layers])
    await fails(leased, snapshotter, made, kinds, left=place)


async def test_a_missing_blob_is_not_found(leased: orlop.Store, snapshotter: str) -> None:  # 9.42
    made = image(LAYERS)
    await made.stored(leased, NAME, without=[made.layers[1].digest])
    with pytest.raises(NotFound, match=made.layers[1].digest):
        await leased.images.unpack(NAME, snapshotter=snapshotter)
    assert await names_of(leased, snapshotter) <= {made.chain[0]}
    await leased.content.put(made.layers[1].data)
    got = await leased.images.unpack(NAME, snapshotter=snapshotter)
    assert await tree(leased, snapshotter, got.chain_id) == MERGED


async def test_a_snapshot_of_the_right_name_is_trusted(leased: orlop.Store, snapshotter: str) -> None:
    made = image(LAYERS)
    snapshots = leased.snapshots.using(snapshotter)
    await snapshots.prepare("by hand")
    await snapshots.commit(made.chain[1], "by hand")
    got = await unpacked(leased, snapshotter, made)
    assert await tree(leased, snapshotter, got.chain_id) == {"etc": "dir", "etc/a": "file:3"}
    assert (await infos(leased, snapshotter))[made.chain[1]].parent == ""


async def test_a_limit_holds_for_images_too(tmp_path: Path, snapshotter: str) -> None:
    async with quick_store(tmp_path / "store", unpack=orlop.UnpackConfig(max_entries=3)) as store:
        made = image([LAYERS[0], layer(*(file(f"f{number}") for number in range(4)))])
        await fails(store, snapshotter, made, ResourceExhausted, left=1)


async def test_a_cancelled_unpack_leaves_nothing(tmp_path: Path, snapshotter: str) -> None:  # 9.28
    large = Blob(zstd_repeated(block("big", size=1 << 30), 1 << 30), ZSTD, digest_of(b"never known"))
    async with quick_store(tmp_path / "store", unpack=orlop.UnpackConfig(max_ratio=10**6)) as store:
        made = image([LAYERS[0], large])
        await made.stored(store, NAME)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(unpack_named, store, snapshotter)
                await eventually(lambda: written(tmp_path, "big") > 0)
                began = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - began < 5
            assert await names_of(store, snapshotter) == {made.chain[0]}
            await store.collect()
            await eventually(lambda: not list(tmp_path.rglob("big")))


async def unpack_named(store: orlop.Store, snapshotter: str) -> None:
    await store.images.unpack(NAME, snapshotter=snapshotter)


def written(below: Path, name: str) -> int:
    """The bytes of files of that name, wherever a snapshotter has them."""
    total = 0
    for path in below.rglob(name):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # on its way out
            pass
    return total


async def eventually(check: Callable[[], bool]) -> None:
    """What another task does to the disk is seen there alone."""
    while not check():
        await trio.sleep(0.002)


# Again, and at once (2.6)


async def test_a_second_unpack_changes_nothing(leased: orlop.Store, snapshotter: str) -> None:  # 9.3
    made = image(LAYERS)
    first = await unpacked(leased, snapshotter, made)
    before = await infos(leased, snapshotter)
    await leased.content.update(made.config_digest, {})
    assert await leased.images.unpack(NAME, snapshotter=snapshotter) == first
    assert await infos(leased, snapshotter) == before
    labels = (await leased.content.info(made.config_digest)).labels
    assert labels == {f"containerd.io/gc.ref.snapshot.{snapshotter}": made.chain[-1]}


async def test_a_second_unpack_needs_no_layer(leased: orlop.Store, snapshotter: str) -> None:
    made = image(LAYERS)
    first = await unpacked(leased, snapshotter, made)
    for blob in made.layers:
        await leased.content.delete(blob.digest)
    assert await leased.images.unpack(NAME, snapshotter=snapshotter) == first


async def test_shared_layers_are_applied_once(leased: orlop.Store, snapshotter: str) -> None:
    await unpacked(leased, snapshotter, image(LAYERS[:2]), "a")
    before = await infos(leased, snapshotter)
    made = image([*LAYERS[:2], layer(file("other", "x"))], media_type=ZSTD)
    got = await unpacked(leased, snapshotter, made, "b")
    after = await infos(leased, snapshotter)
    assert set(after) == {*before, got.chain_id}
    assert {name: after[name] for name in before} == before
    assert await tree(leased, snapshotter, got.chain_id) == {
        "etc": "dir", "etc/a": "file:1", "etc/b": "file:2", "other": "file:x",
    }  # fmt: skip


async def test_what_failed_is_gone_on_from_where_it_ended(leased: orlop.Store, snapshotter: str) -> None:
    bad = image(LAYERS, diff_ids=[*(digest_of(raw) for raw in LAYERS[:2]), digest_of(b"x")])
    await fails(leased, snapshotter, bad, FailedPrecondition, left=2)
    before = await infos(leased, snapshotter)
    await unpacked(leased, snapshotter, image(LAYERS), "good")
    after = await infos(leased, snapshotter)
    assert {name: after[name] for name in before} == before


async def test_one_layer_twice_is_two_snapshots(leased: orlop.Store, snapshotter: str) -> None:  # 9.9
    twice = layer(file("f", "x"), file(".wh.g"))
    made = image([twice, layer(file("g", "x")), twice])
    got = await unpacked(leased, snapshotter, made)
    assert await names_of(leased, snapshotter) == set(made.chain)
    assert len(set(made.chain)) == 3
    assert await tree(leased, snapshotter, got.chain_id) == {"f": "file:x"}


async def test_many_unpacks_at_once_make_one_snapshot_each(leased: orlop.Store, snapshotter: str) -> None:  # 9.7
    made = image([*LAYERS, *(layer(file(f"f{number}", "x" * 5000)) for number in range(5))])
    await made.stored(leased, NAME)
    got: list[orlop.Unpacked] = []

    async def one() -> None:
        got.append(await leased.images.unpack(NAME, snapshotter=snapshotter))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(one)
    assert {unpack.chain_id for unpack in got} == {made.chain[-1]}
    assert await names_of(leased, snapshotter) == set(made.chain)
    assert len(await tree(leased, snapshotter, made.chain[-1])) == 8


@pytest.mark.slow
async def test_128_layers_can_be_mounted(leased: orlop.Store, snapshotter: str) -> None:  # 9.43
    made = image(
        [
            layer(file("over", str(number)), file(f"d/f{number}", "x"), file(f"d/.wh.f{number - 2}"))
            for number in range(128)
        ]
    )
    got = await unpacked(leased, snapshotter, made)
    assert await tree(leased, snapshotter, got.chain_id) == {
        "d": "dir", "d/f126": "file:x", "d/f127": "file:x", "over": "file:127",
    }  # fmt: skip


async def test_whiteouts_above_hide_what_is_below(leased: orlop.Store, snapshotter: str) -> None:  # 9.44
    made = image(
        [
            layer(file("a/x", "1"), file("b/x", "1"), file("c", "1")),
            layer(file("a/y", "2"), file("b/y", "2")),
            layer(file("a/.wh.x"), file("b/.wh..wh..opq"), file("b/z", "3"), file(".wh.c")),
            layer(file("c/d", "4")),
        ]
    )
    got = await unpacked(leased, snapshotter, made)
    assert await tree(leased, snapshotter, got.chain_id) == {
        "a": "dir", "a/y": "file:2", "b": "dir", "b/z": "file:3", "c": "dir", "c/d": "file:4",
    }  # fmt: skip
