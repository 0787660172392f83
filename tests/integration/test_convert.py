"""Images in another packing: what changes, what does not, and who reads the result. Source: spec cli 3, `images
convert`; registry 8.2."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import DataLoss, FailedPrecondition, NotFound, OrlopError
from orlop.protocol.registry.platforms import parse_platform
from tests.support.archive_stores import TIMEOUT_S, has, here, opened, recorded, stored
from tests.support.archives import HOST, OTHER, for_other, raw_of, simple, squeezed
from tests.support.images import CONFIG, INDEX, MANIFEST, Blob, MadeImage, image, index_of
from tests.support.layers import (
    GZIP,
    TAR,
    ZSTD,
    digest_of,
    file,
    folder,
    hardlink,
    layer,
    names_of,
    put_blob,
    read_tree,
    symlink,
)

NAME, TO = "quay.io/a/b:1", "quay.io/a/b:2"
DOCKER = "application/vnd.docker."
DOCKER_MANIFEST = f"{DOCKER}distribution.manifest.v2+json"
DOCKER_LIST = f"{DOCKER}distribution.manifest.list.v2+json"
DOCKER_CONFIG = f"{DOCKER}container.image.v1+json"
DOCKER_LAYER = f"{DOCKER}image.rootfs.diff.tar"
FOREIGN = f"{DOCKER}image.rootfs.foreign.diff.tar.gzip"
BOTH: Mapping[str, MadeImage] = {HOST: simple(), OTHER: for_other()}
TREE = [
    layer(folder("d"), file("d/a", b"1" * 100_000), file("b", "1"), symlink("s", "d/a"), hardlink("h", "b")),
    layer(file("d/.wh.a"), file("c", "2", mode=0o4755, uid=7, gid=8)),
]
PACKED = {orlop.Compression.NONE: TAR, orlop.Compression.GZIP: GZIP, orlop.Compression.ZSTD: ZSTD}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts need root")


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


async def convert(
    store: orlop.Store,
    layers: orlop.Compression | None = None,
    *,
    source: str = NAME,
    target: str = TO,
    platforms: Sequence[str] = (),
    **options: bool,
) -> str:
    """The digest of what came of it, which is recorded, whole, and kept by its own labels."""
    wanted = [parse_platform(text, host_platform()) for text in platforms]
    with trio.fail_after(TIMEOUT_S):
        conversion = orlop.Conversion(layers, platforms=wanted, **options)
        made = await orlop.convert_image(store, source, target, conversion, host_platform())
    assert await store.images.get(target) == made
    assert [lease async for lease in store.leases.list()] == []
    await store.collect()
    await whole(store, made.target.digest, made.target.media_type)
    return made.target.digest


async def whole(store: orlop.Store, digest: str, media_type: str) -> None:
    data = await store.content.read(digest)
    assert digest_of(data) == digest
    if media_type.endswith(("manifest.v1+json", "manifest.v2+json", "index.v1+json", "list.v2+json")):
        found = json.loads(data)
        children = [
            *found.get("manifests", []),
            *found.get("layers", []),
            *([found["config"]] if "config" in found else []),
        ]
        labels = (await store.content.info(digest)).labels
        kept = [value for key, value in labels.items() if key.startswith("containerd.io/gc.ref.content.")]
        assert sorted(kept) == sorted(each["digest"] for each in children)
        for each in children:
            await whole(store, each["digest"], each["mediaType"])
            assert (await store.content.info(each["digest"])).size == each["size"]


async def document(store: orlop.Store, digest: str) -> Any:
    return json.loads(await store.content.read(digest))


async def refused(store: orlop.Store, kind: type[OrlopError], *arguments: Any, **more: Any) -> OrlopError:
    """It fails so, nothing is recorded, and what was made of it goes with the next collection."""
    await store.collect()
    images, content = await recorded(store), await here(store)
    with pytest.raises(kind) as caught:
        await convert(store, *arguments, **more)
    assert "\n" not in str(caught.value)
    assert await recorded(store) == images
    assert [lease async for lease in store.leases.list()] == []
    for ingest in [each async for each in store.content.ingests()]:
        await store.content.abort(ingest.ref)
    await store.collect()
    assert await here(store) == content
    return caught.value


# Layers


async def test_layers_go_from_packing_to_packing_and_stay_what_they_are(store: orlop.Store) -> None:
    made = image(TREE)
    await stored(store, made, NAME)
    before = NAME
    for number, packing in enumerate(
        (orlop.Compression.ZSTD, orlop.Compression.GZIP, orlop.Compression.NONE, orlop.Compression.ZSTD)
    ):
        digest = await convert(store, packing, source=before, target=f"quay.io/a/b:to-{number}")
        found = await document(store, digest)
        assert found["mediaType"] == MANIFEST
        assert found["config"] == {"mediaType": CONFIG, "digest": made.config_digest, "size": len(made.config)}
        assert [each["mediaType"] for each in found["layers"]] == [PACKED[packing]] * 2
        blobs = [await store.content.read(each["digest"]) for each in found["layers"]]
        assert [digest_of(unpacked(data)) for data in blobs] == made.diff_ids
        if packing is not orlop.Compression.NONE:
            assert {data[:2] for data in blobs} == {b"\x1f\x8b" if packing is orlop.Compression.GZIP else b"\x28\xb5"}
        for each, diff_id in zip(found["layers"], made.diff_ids, strict=True):
            if packing is not orlop.Compression.NONE:
                labels = (await store.content.info(each["digest"])).labels
                assert labels["containerd.io/uncompressed"] == diff_id
        before = f"quay.io/a/b:to-{number}"
    assert (await store.images.get("quay.io/a/b:to-0")).target == (await store.images.get("quay.io/a/b:to-3")).target
    await has(store, made)


def unpacked(data: bytes) -> bytes:
    import zstandard

    return zstandard.decompress(data, 1 << 24) if data.startswith(b"\x28\xb5\x2f\xfd") else raw_of(data)


@needs_root
@pytest.mark.parametrize("packing", PACKED, ids=lambda packing: packing.value)
async def test_file_systems_stay_what_they_are(tmp_path: Path, packing: orlop.Compression) -> None:
    made = image(TREE)
    async with opened(tmp_path / "store") as store:
        await stored(store, made, NAME)
        await convert(store, packing, all_platforms=True)
        await store.images.unpack(NAME, snapshotter="overlayfs")
        await store.images.unpack(TO, snapshotter="native")
        trees = []
        for snapshotter in ("overlayfs", "native"):
            assert await names_of(store, snapshotter) == set(made.chain)
            async with store.lease() as leased:
                snapshots = leased.snapshots.using(snapshotter)
                async with orlop.mounted(await snapshots.view("look", made.chain[-1])) as root:
                    trees.append(read_tree(root))
        for tree in trees:
            del tree["."]  # its times are nobody's
        assert set(trees[0]) == {"d", "b", "s", "h", "c"}
        assert trees[0] == trees[1]


async def test_the_same_image_makes_the_same_digests(tmp_path: Path) -> None:
    found: dict[orlop.Compression, set[str]] = {packing: set() for packing in PACKED}
    for number in (1, 2):
        async with opened(tmp_path / f"store-{number}") as store:
            await stored(store, BOTH, NAME)
            for packing in PACKED:
                for target in (TO, f"{TO}-again"):
                    found[packing].add(await convert(store, packing, target=target, all_platforms=True))
    assert {len(digests) for digests in found.values()} == {1}
    assert len(set.union(*found.values())) == len(PACKED)


async def test_what_is_as_it_should_be_is_not_made_again(store: orlop.Store) -> None:
    """Not even where its document is written in another way than ours would be."""
    made = simple()
    made = dataclasses.replace(made, manifest=json.dumps(json.loads(made.manifest), indent=3).encode())
    await stored(store, made, NAME)
    assert await convert(store, orlop.Compression.GZIP, oci=True) == made.target.digest
    assert await convert(store, target="quay.io/a/b:3") == made.target.digest


async def test_what_documents_and_entries_say_besides_is_kept(store: orlop.Store) -> None:
    raw = layer(file("a", "1"))
    made = image([Blob(squeezed(raw, "gzip"), GZIP, digest_of(raw), {"of": "the layer"})])
    manifest = json.loads(made.manifest) | {"annotations": {"of": "the manifest"}}
    made = dataclasses.replace(made, manifest=json.dumps(manifest).encode())
    await stored(store, made, NAME)
    found = await document(store, await convert(store, orlop.Compression.ZSTD))
    assert found["annotations"] == {"of": "the manifest"}
    assert [each["annotations"] for each in found["layers"]] == [{"of": "the layer"}]


async def test_labels_of_the_record_are_those_of_the_source(store: orlop.Store) -> None:
    await stored(store, simple(), NAME)
    await store.images.update(NAME, labels={"mine": "yes"}, mask=["labels"])
    await convert(store, orlop.Compression.ZSTD)
    assert (await store.images.get(TO)).labels == {"mine": "yes"}


# Media types


def docker_image(made: MadeImage) -> MadeImage:
    manifest = json.loads(made.manifest)
    manifest["mediaType"] = DOCKER_MANIFEST
    manifest["config"]["mediaType"] = DOCKER_CONFIG
    for each in manifest["layers"]:
        each["mediaType"] = DOCKER_LAYER + each["mediaType"].replace(TAR, "").replace("+", ".")
    return dataclasses.replace(made, manifest=json.dumps(manifest).encode())


async def stored_docker(store: orlop.Store, images: Mapping[str, MadeImage]) -> None:
    """A list of docker's, by platform; or an image."""
    async with store.lease() as leased:
        for made in images.values():
            await stored(leased, made)
        if "" in images:
            data, media_type = images[""].manifest, DOCKER_MANIFEST
        else:
            found = json.loads(index_of(images)) | {"mediaType": DOCKER_LIST}
            for each in found["manifests"]:
                each["mediaType"] = DOCKER_MANIFEST
            data, media_type = json.dumps(found).encode(), DOCKER_LIST
            children = [made.target.digest for made in images.values()]
            labels = {f"containerd.io/gc.ref.content.m.{n}": digest for n, digest in enumerate(children)}
            await put_blob(leased, data, labels=labels)
        await leased.images.create(NAME, orlop.Descriptor(media_type, digest_of(data), len(data)))


async def test_docker_s_types_become_oci_s(store: orlop.Store) -> None:
    made = docker_image(simple())
    await stored_docker(store, {"": made})
    found = await document(store, await convert(store, oci=True))
    assert (await store.images.get(TO)).target.media_type == found["mediaType"] == MANIFEST
    assert found["config"] == {"mediaType": CONFIG, "digest": made.config_digest, "size": len(made.config)}
    assert [each["mediaType"] for each in found["layers"]] == [GZIP, GZIP]
    assert [each["digest"] for each in found["layers"]] == [blob.digest for blob in made.layers]


@pytest.mark.parametrize(
    "packing, layers, manifest",
    [
        (orlop.Compression.NONE, DOCKER_LAYER, DOCKER_MANIFEST),
        (orlop.Compression.GZIP, f"{DOCKER_LAYER}.gzip", DOCKER_MANIFEST),
        (orlop.Compression.ZSTD, ZSTD, MANIFEST),  # docker has no type for it
    ],
    ids=["none", "gzip", "zstd"],
)
async def test_docker_s_types_stay_where_they_can(
    store: orlop.Store, packing: orlop.Compression, layers: str, manifest: str
) -> None:
    await stored_docker(store, {"": docker_image(simple())})
    found = await document(store, await convert(store, packing))
    assert found["mediaType"] == manifest
    assert {each["mediaType"] for each in found["layers"]} == {layers}


async def test_layers_not_to_be_passed_on_stay_so(store: orlop.Store) -> None:
    raw = layer(file("theirs", "1"))
    made = docker_image(image([layer(file("ours", "1")), layer(file("theirs", "1"))]))
    manifest = json.loads(made.manifest)
    manifest["layers"][1]["mediaType"] = FOREIGN
    made = dataclasses.replace(made, manifest=json.dumps(manifest).encode())
    await stored_docker(store, {"": made})
    found = await document(store, await convert(store, oci=True, layers=orlop.Compression.ZSTD))
    nondistributable = ZSTD.replace("layer.v1", "layer.nondistributable.v1")
    assert [each["mediaType"] for each in found["layers"]] == [ZSTD, nondistributable]
    assert digest_of(unpacked(await store.content.read(found["layers"][1]["digest"]))) == digest_of(raw)


# Platforms


async def test_an_index_becomes_the_image_for_this_machine(store: orlop.Store) -> None:
    await stored(store, BOTH, NAME)
    found = await document(store, await convert(store, orlop.Compression.ZSTD))
    assert found["config"]["digest"] == BOTH[HOST].config_digest


async def test_an_index_becomes_the_image_for_another_machine(store: orlop.Store) -> None:
    await stored(store, BOTH, NAME)
    found = await document(store, await convert(store, orlop.Compression.ZSTD, platforms=[OTHER]))
    assert found["config"]["digest"] == BOTH[OTHER].config_digest


@pytest.mark.parametrize("options", [{"all_platforms": True}, {"platforms": [OTHER, HOST]}], ids=["all", "two"])
async def test_an_index_stays_one_of_several_platforms(store: orlop.Store, options: dict[str, Any]) -> None:
    await stored_docker(store, {platform: docker_image(made) for platform, made in BOTH.items()})
    digest = await convert(store, orlop.Compression.ZSTD, **options)
    found = await document(store, digest)
    assert (await store.images.get(TO)).target.media_type == found["mediaType"] == INDEX
    assert {each["mediaType"] for each in found["manifests"]} == {MANIFEST}
    assert {f"{each['platform']['os']}/{each['platform']['architecture']}" for each in found["manifests"]} == {
        HOST,
        OTHER,
    }
    for each in found["manifests"]:
        made = BOTH[f"{each['platform']['os']}/{each['platform']['architecture']}"]
        manifest = await document(store, each["digest"])
        assert manifest["config"]["digest"] == made.config_digest
        layers = [await store.content.read(one["digest"]) for one in manifest["layers"]]
        assert [digest_of(unpacked(data)) for data in layers] == made.diff_ids


@pytest.mark.parametrize("kind", ["index", "manifest"])
async def test_a_platform_that_an_image_is_not_for_is_not_found(store: orlop.Store, kind: str) -> None:
    await stored(store, BOTH if kind == "index" else BOTH[HOST], NAME)
    error = await refused(store, NotFound, orlop.Compression.ZSTD, platforms=["linux/s390x"])
    assert "linux/s390x" in str(error)


# What goes wrong


@pytest.mark.parametrize("packing", [orlop.Compression.NONE, orlop.Compression.ZSTD])
async def test_a_layer_that_is_not_what_its_config_says_is_refused(
    store: orlop.Store, packing: orlop.Compression
) -> None:
    right = simple()
    made = simple(diff_ids=[right.diff_ids[0], digest_of(b"another")])
    await stored(store, made, NAME)
    error = await refused(store, DataLoss, packing)
    assert made.layers[1].digest in str(error)
    assert digest_of(b"another") in str(error)


async def test_a_layer_that_cannot_be_unpacked_is_refused(store: orlop.Store) -> None:
    raw = layer(file("a", "1" * 1000))
    made = image([Blob(squeezed(raw, "gzip")[:-9], GZIP, digest_of(raw))])
    await stored(store, made, NAME)
    await refused(store, DataLoss, orlop.Compression.ZSTD)


async def test_a_config_of_other_layers_is_refused(store: orlop.Store) -> None:
    await stored(store, simple(diff_ids=[digest_of(b"1")]), NAME)
    await refused(store, FailedPrecondition, orlop.Compression.ZSTD)


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
async def test_what_is_missing_is_not_found(store: orlop.Store, which: str) -> None:
    made = BOTH[OTHER]
    digest = {"manifest": made.target.digest, "config": made.config_digest, "layer": made.layers[0].digest}[which]
    await stored(store, BOTH, NAME, without=[digest])
    assert digest in str(await refused(store, NotFound, orlop.Compression.ZSTD, all_platforms=True))
    await convert(store, orlop.Compression.ZSTD)


async def test_what_is_no_image_is_refused(store: orlop.Store) -> None:
    await store.content.put(b"text", labels={"containerd.io/gc.root": "x"})
    await store.images.create(NAME, orlop.Descriptor("text/plain", digest_of(b"text"), 4))
    await refused(store, FailedPrecondition, orlop.Compression.ZSTD)
    await refused(store, NotFound, orlop.Compression.ZSTD, source="quay.io/none:1")


async def test_a_target_that_exists_is_moved_at_the_end(store: orlop.Store) -> None:
    await stored(store, simple("old"), TO)
    await stored(store, simple(), NAME)
    assert await convert(store, orlop.Compression.ZSTD) != simple("old").target.digest
    assert not set(simple("old").blobs) & await here(store)
    assert await convert(store, orlop.Compression.NONE, target=NAME) == (await recorded(store))[NAME]


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_conversion_that_is_cancelled_leaves_no_image(store: orlop.Store, step: int) -> None:
    made = simple(layers=3)
    await stored(store, made, NAME)
    steps = 0
    with trio.CancelScope() as scope:

        def told(_: orlop.TransferProgress) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                scope.cancel()

        conversion = orlop.Conversion(orlop.Compression.ZSTD)
        await orlop.convert_image(store, NAME, TO, conversion, host_platform(), told)
    assert scope.cancelled_caught
    assert list(await recorded(store)) == [NAME]
    for ingest in [each async for each in store.content.ingests()]:
        await store.content.abort(ingest.ref)
    await store.collect()
    assert await here(store) == set(made.blobs)


# Who reads it


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
@pytest.mark.parametrize("packing", PACKED, ids=lambda packing: packing.value)
async def test_skopeo_unpacks_what_came_of_it(tmp_path: Path, packing: orlop.Compression) -> None:
    made = image(TREE)
    async with opened(tmp_path / "store") as store:
        await stored(store, made, NAME)
        await convert(store, packing)
        await orlop.export_archive(store, [TO], tmp_path / "x.tar", orlop.ExportOptions(host_platform()))
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-decompress", f"oci-archive:{tmp_path}/x.tar:2"]
    await trio.run_process([*copy, f"dir:{tmp_path}/copied"])
    found = json.loads((tmp_path / "copied" / "manifest.json").read_text())
    assert found["config"]["digest"] == made.config_digest
    assert [each["digest"] for each in found["layers"]] == made.diff_ids
    for diff_id in made.diff_ids:
        assert digest_of((tmp_path / "copied" / diff_id.partition(":")[2]).read_bytes()) == diff_id


@needs_root
@pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")
@pytest.mark.parametrize("packing", [orlop.Compression.NONE, orlop.Compression.GZIP], ids=lambda packing: packing.value)
async def test_umoci_unpacks_what_came_of_it(tmp_path: Path, packing: orlop.Compression) -> None:
    """It compares diff IDs; zstd it does not know."""
    plain = Blob(squeezed(TREE[0], "zstd"), ZSTD, digest_of(TREE[0]))
    async with opened(tmp_path / "store") as store:
        await stored(store, image([plain, TREE[1]]), NAME)
        await convert(store, packing)
        await orlop.export_archive(store, [TO], f"{tmp_path}/x/", orlop.ExportOptions(host_platform()))
    await trio.run_process(["umoci", "unpack", "--image", f"{tmp_path}/x:2", tmp_path / "bundle"], capture_stderr=True)
    found = read_tree(tmp_path / "bundle" / "rootfs")
    assert set(found) - {"."} == {"d", "b", "s", "h", "c"}
