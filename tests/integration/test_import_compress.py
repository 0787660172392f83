"""Imports that compress layers which are plain tars: what changes, and what does not. Source: spec registry 11.1,
cli 3 (`--compress-blobs`)."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import DataLoss, NotFound, OrlopError
from orlop.protocol.registry.platforms import parse_platform
from tests.support.archive_stores import TIMEOUT_S, here, nothing_came, opened, recorded, written
from tests.support.archives import HOST, OTHER, blob_path, docker_files, for_other, layout_files, named, raw_of, simple
from tests.support.images import Blob, MadeImage, image
from tests.support.layers import GZIP, TAR, ZSTD, digest_of, file, layer, names_of, put_blob
from tests.support.shell import Shell

NAME = "quay.io/a/b:1"
UNCOMPRESSED = "containerd.io/uncompressed"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
PLAIN = simple("plain", media_type=TAR)
BOTH: Mapping[str, MadeImage] = {HOST: PLAIN, OTHER: for_other("plain", media_type=TAR)}


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


async def compressed(store: orlop.Store, path: Path, **options: Any) -> dict[str, str]:
    """Names and digests that were recorded; and a collection has taken what nothing refers to."""
    more = {key: options.pop(key) for key in ("unpack_for", "told") if key in options}
    with trio.fail_after(TIMEOUT_S):
        images = await orlop.import_archive(store, path, orlop.ImportOptions(**options), compress_blobs=True, **more)
    assert {each.name: each.target.digest for each in images} == await recorded(store)
    assert [lease async for lease in store.leases.list()] == []
    await store.collect()
    return {each.name: each.target.digest for each in images}


async def refused(store: orlop.Store, path: Path, kind: type[OrlopError], **options: Any) -> OrlopError:
    with trio.fail_after(TIMEOUT_S), pytest.raises(kind) as caught:
        await orlop.import_archive(store, path, orlop.ImportOptions(**options), compress_blobs=True)
    for ingest in [each async for each in store.content.ingests()]:
        await store.content.abort(ingest.ref)
    await nothing_came(store)
    return caught.value


async def document(store: orlop.Store, digest: str) -> Any:
    data = await store.content.read(digest)
    assert digest_of(data) == digest
    return json.loads(data)


async def is_compressed(store: orlop.Store, digest: str, made: MadeImage, media_type: str = GZIP) -> list[str]:
    """A manifest of the same config, whose layers are gzip of what they were; the layers' digests."""
    manifest = await document(store, digest)
    assert manifest["config"]["digest"] == made.config_digest
    assert await store.content.read(made.config_digest) == made.config
    found = []
    for entry, diff_id in zip(manifest["layers"], made.diff_ids, strict=True):
        data = await store.content.read(entry["digest"])
        assert (entry["mediaType"], entry["size"], entry["digest"]) == (media_type, len(data), digest_of(data))
        assert digest_of(gzip.decompress(data)) == diff_id
        assert data[4:8] == bytes(4)  # no time in it
        assert (await store.content.info(entry["digest"])).labels == {UNCOMPRESSED: diff_id}
        found.append(entry["digest"])
    return found


# What changes


async def test_plain_layers_become_gzip_and_the_manifest_says_so(store: orlop.Store, tmp_path: Path) -> None:
    images = await compressed(store, written(tmp_path, layout_files([(PLAIN, named(NAME))])))
    assert images[NAME] != PLAIN.target.digest
    layers = await is_compressed(store, images[NAME], PLAIN)
    assert await here(store) == {images[NAME], PLAIN.config_digest, *layers}
    before, after = json.loads(PLAIN.manifest), await document(store, images[NAME])
    assert {key: value for key, value in after.items() if key != "layers"} == {
        key: value for key, value in before.items() if key != "layers"
    }


async def test_the_same_archive_makes_the_same_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(BOTH, named(NAME))]))
    found = []
    for number in range(2):
        async with opened(tmp_path / str(number)) as store:
            found.append(await compressed(store, path))
            assert await compressed(store, path) == found[0]
    assert found[0] == found[1]


@pytest.mark.parametrize("packing", ["", "gzip", "zstd"])
async def test_a_docker_archives_plain_layers_become_gzip(store: orlop.Store, tmp_path: Path, packing: str) -> None:
    made = simple()
    path = written(tmp_path, docker_files([(made, ["quay.io/a/b:1"])], packing=packing))
    digest = (await compressed(store, path))[NAME]
    if packing == "zstd":
        types = [entry["mediaType"] for entry in (await document(store, digest))["layers"]]
        assert types == [f"{DOCKER_LAYER}.zstd"] * 2
        return
    manifest = await document(store, digest)
    assert [entry["mediaType"] for entry in manifest["layers"]] == [f"{DOCKER_LAYER}.gzip"] * 2
    for entry, diff_id in zip(manifest["layers"], made.diff_ids, strict=True):
        assert digest_of(gzip.decompress(await store.content.read(entry["digest"]))) == diff_id


async def test_an_index_leads_to_what_was_made(store: orlop.Store, tmp_path: Path) -> None:
    digest = (await compressed(store, written(tmp_path, layout_files([(BOTH, named(NAME))]))))[NAME]
    entries = (await document(store, digest))["manifests"]
    assert [f"{each['platform']['os']}/{each['platform']['architecture']}" for each in entries] == [HOST, OTHER]
    for entry, made in zip(entries, BOTH.values(), strict=True):
        await is_compressed(store, entry["digest"], made)
        assert entry["size"] == len(await store.content.read(entry["digest"]))


async def test_names_that_say_a_digest_say_the_new_one(store: orlop.Store, tmp_path: Path) -> None:
    old = PLAIN.target.digest
    files = layout_files([(PLAIN, named(f"quay.io/a/b:1@{old}")), (PLAIN, named("quay.io/a/c:1"))])
    images = await compressed(store, written(tmp_path, files), naming=orlop.Naming("quay.io/a", digests=True))
    new = images["quay.io/a/c:1"]
    assert set(images) == {f"quay.io/a/b:1@{new}", "quay.io/a/c:1", f"quay.io/a@{new}"}
    assert set(images.values()) == {new}
    assert new != old


async def test_a_name_for_the_whole_index_leads_to_what_was_made(store: orlop.Store, tmp_path: Path) -> None:
    files = layout_files([(BOTH, named(NAME)), (PLAIN, named("quay.io/a/c:1"))])
    images = await compressed(store, written(tmp_path, files), naming=orlop.Naming(index="quay.io/all:1"))
    entries = (await document(store, images["quay.io/all:1"]))["manifests"]
    assert [each["digest"] for each in entries] == [images[NAME], images["quay.io/a/c:1"]]
    assert [each["annotations"]["io.containerd.image.name"] for each in entries] == [NAME, "quay.io/a/c:1"]


async def test_bytes_that_a_document_holds_itself_are_not_the_new_ones(store: orlop.Store, tmp_path: Path) -> None:
    manifest = json.loads(PLAIN.manifest)
    manifest["layers"][1]["data"] = base64.b64encode(PLAIN.layers[1].data).decode()
    manifest["layers"][1]["annotations"] = {"kept": "yes"}
    made = dataclasses.replace(PLAIN, manifest=json.dumps(manifest).encode())
    digest = (await compressed(store, written(tmp_path, layout_files([(made, named(NAME))]))))[NAME]
    found = (await document(store, digest))["layers"][1]
    assert "data" not in found
    assert found["annotations"] == {"kept": "yes"}


async def test_what_two_images_share_is_compressed_once(store: orlop.Store, tmp_path: Path) -> None:
    shared = [layer(file("a", "1")), layer(file("b", "2"))]
    one, two = image(shared, media_type=TAR), image([*shared, layer(file("c", "3"))], media_type=TAR)
    ended: list[str] = []

    def told(step: orlop.TransferProgress) -> None:
        if step.state is orlop.TransferState.CONVERTING and step.offset == step.total:
            ended.append(step.digest)

    files = layout_files([(one, named(NAME)), (two, named("quay.io/a/c:1"))])
    images = await compressed(store, written(tmp_path, files), told=told)
    assert len(set(ended)) == len(two.layers)
    first, second = [await is_compressed(store, images[n], made) for n, made in ((NAME, one), ("quay.io/a/c:1", two))]
    assert second[:2] == first


# What does not


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
async def test_an_image_without_plain_layers_stays_as_it_is(
    store: orlop.Store, tmp_path: Path, media_type: str
) -> None:
    made = simple(media_type=media_type)
    images = await compressed(store, written(tmp_path, layout_files([(made, named(NAME))])))
    assert images == {NAME: made.target.digest}
    assert await here(store) == set(made.blobs)


def custom(*layers: Blob) -> MadeImage:
    return image(layers)


async def test_of_several_layers_only_the_plain_ones_change(store: orlop.Store, tmp_path: Path) -> None:
    raw = [layer(file(name, name)) for name in "abc"]
    blobs = [Blob(raw[0], TAR, digest_of(raw[0])), *image([raw[1]], media_type=ZSTD).layers, *image([raw[2]]).layers]
    made = custom(*blobs)
    digest = (await compressed(store, written(tmp_path, layout_files([(made, named(NAME))]))))[NAME]
    found = (await document(store, digest))["layers"]
    assert [each["mediaType"] for each in found] == [GZIP, ZSTD, GZIP]
    assert [each["digest"] for each in found[1:]] == [blob.digest for blob in blobs[1:]]


async def test_what_dockers_plain_type_says_of_packed_bytes_is_no_reason_to_pack_them_again(
    store: orlop.Store, tmp_path: Path
) -> None:
    raw = layer(file("a", "1"))
    made = custom(Blob(gzip.compress(raw, mtime=0), DOCKER_LAYER, digest_of(raw)))
    images = await compressed(store, written(tmp_path, layout_files([(made, named(NAME))])))
    assert images == {NAME: made.target.digest}


async def test_what_is_not_to_be_passed_on_stays_as_its_maker_packed_it(store: orlop.Store, tmp_path: Path) -> None:
    raw = layer(file("a", "1"))
    made = custom(Blob(raw, TAR.replace("layer.v1", "layer.nondistributable.v1"), digest_of(raw)))
    images = await compressed(store, written(tmp_path, layout_files([(made, named(NAME))])))
    assert images == {NAME: made.target.digest}


async def test_entries_of_an_index_that_are_not_in_the_archive_stay(store: orlop.Store, tmp_path: Path) -> None:
    files = layout_files([(BOTH, named(NAME))])
    for digest in BOTH[OTHER].blobs:
        files.pop(blob_path(digest), None)
    digest = (await compressed(store, written(tmp_path, files)))[NAME]
    ours, theirs = (await document(store, digest))["manifests"]
    await is_compressed(store, ours["digest"], BOTH[HOST])
    assert (theirs["digest"], theirs["size"]) == (BOTH[OTHER].target.digest, len(BOTH[OTHER].manifest))


async def test_platforms_that_were_not_asked_for_stay(store: orlop.Store, tmp_path: Path) -> None:
    """Their layers may be missing."""
    files = layout_files([(BOTH, named(NAME))])
    files.pop(blob_path(BOTH[OTHER].layers[0].digest))
    wanted = [parse_platform(HOST, host_platform())]
    digest = (await compressed(store, written(tmp_path, files), platforms=wanted))[NAME]
    ours, theirs = (await document(store, digest))["manifests"]
    await is_compressed(store, ours["digest"], BOTH[HOST])
    assert theirs["digest"] == BOTH[OTHER].target.digest


async def test_the_file_system_stays_what_it_is(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(PLAIN, named(NAME))]))
    await compressed(store, path, unpack_for=[host_platform()], discard_layers=True)
    assert await names_of(store, "") == set(PLAIN.chain)
    assert (await store.images.unpack(NAME)).chain_id == PLAIN.chain[-1]


async def test_a_layer_that_is_here_already_is_labelled(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(PLAIN, named(NAME))]))
    async with opened(tmp_path / "other") as other:
        layers = await is_compressed(other, (await compressed(other, path))[NAME], PLAIN)
        data = [await other.content.read(digest) for digest in layers]
    for each in data:
        await put_blob(store, each, labels={"mine": "yes"})
    digest = (await compressed(store, path))[NAME]
    for entry, diff_id in zip((await document(store, digest))["layers"], PLAIN.diff_ids, strict=True):
        assert (await store.content.info(entry["digest"])).labels == {"mine": "yes", UNCOMPRESSED: diff_id}


# What goes wrong


async def test_a_layer_that_is_not_what_its_config_says_is_not_brought(store: orlop.Store, tmp_path: Path) -> None:
    made = simple(media_type=TAR, diff_ids=[PLAIN.diff_ids[0], digest_of(b"other")])
    error = await refused(store, written(tmp_path, layout_files([(made, named(NAME))])), DataLoss)
    assert "its config says" in str(error)


async def test_a_layer_that_is_not_in_the_archive_is_named_as_ever(store: orlop.Store, tmp_path: Path) -> None:
    files = layout_files([(PLAIN, named(NAME))])
    files.pop(blob_path(PLAIN.layers[1].digest))
    error = await refused(store, written(tmp_path, files), NotFound)
    assert f"layer {PLAIN.layers[1].digest} in the archive" in str(error)


async def test_without_being_asked_nothing_is_compressed(store: orlop.Store, tmp_path: Path) -> None:
    images = await orlop.import_archive(store, written(tmp_path, layout_files([(PLAIN, named(NAME))])))
    assert [each.target.digest for each in images] == [PLAIN.target.digest]


# At a shell


def test_at_a_shell(tmp_path: Path) -> None:
    shell = Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "own"))
    path = written(tmp_path, layout_files([(PLAIN, named(NAME))]))
    name, digest = shell.out("images", "import", "-q", "--compress-blobs", "--no-unpack", str(path)).split()
    assert name == NAME
    found = json.loads(shell.out("content", "get", digest))
    assert {each["mediaType"] for each in found["layers"]} == {GZIP}
    blobs = [shell.run("content", "get", each["digest"]).raw for each in found["layers"]]
    assert [digest_of(raw_of(data)) for data in blobs] == PLAIN.diff_ids
    exported = tmp_path / "x.tar"
    shell.out("images", "export", "-q", str(exported), NAME)
    assert shell.out("images", "import", "-q", "--compress-blobs", "--no-unpack", str(exported)).split()[1] == digest
