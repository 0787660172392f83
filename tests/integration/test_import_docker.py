"""Docker's archives: as skopeo writes them, and by hand what older dockers wrote. Source: spec registry 11.1; the
numbers in comments are those of its section 14."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol.errors import InvalidArgument, NotFound
from tests.support.archive_stores import brought, here, nothing_came, opened, recorded, refused, written
from tests.support.archives import (
    IMAGE_NAME,
    Files,
    LinkTo,
    docker_files,
    layout_files,
    named,
    old_docker_files,
    raw_of,
    simple,
    squeezed,
)
from tests.support.images import Blob, MadeImage, image, write_layout
from tests.support.layers import brief, digest_of, file, layer, names_of, read_tree

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
NAME = "docker.io/library/app:1"
skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


async def document(store: orlop.Store, name: str) -> Any:
    target = (await store.images.get(name)).target
    assert target.media_type == MANIFEST
    return json.loads(await store.content.read(target.digest))


async def stands_for(store: orlop.Store, name: str, made: MadeImage, packing: str = "") -> None:
    """The record's manifest has this config and these layers, and keeps them."""
    assert [lease async for lease in store.leases.list()] == []
    await store.collect()
    found = await document(store, name)
    assert (found["schemaVersion"], found["mediaType"]) == (2, MANIFEST)
    assert found["config"] == {"mediaType": CONFIG, "size": len(made.config), "digest": made.config_digest}
    assert await store.content.read(made.config_digest) == made.config
    layers = [squeezed(raw_of(blob.data), packing) for blob in made.layers]
    media_type = f"{LAYER}.{packing}" if packing else LAYER
    assert found["layers"] == [
        {"mediaType": media_type, "size": len(data), "digest": digest_of(data)} for data in layers
    ]
    for data in layers:
        assert await store.content.read(digest_of(data)) == data


@skopeo
@pytest.mark.parametrize("unpack", [False, True], ids=["packed", "unpacked"])
async def test_what_skopeo_writes_is_brought(store: orlop.Store, tmp_path: Path, unpack: bool) -> None:
    made = simple()
    layout, path = write_layout(tmp_path / "layout", made), tmp_path / "x.tar"
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:latest", f"docker-archive:{path}:app:1"]
    await trio.run_process(copy)
    assert list(await brought(store, path, unpack_for=[orlop.host_platform()] if unpack else [])) == [NAME]
    await stands_for(store, NAME, made)
    assert await names_of(store, "") == (set(made.chain) if unpack else set())


@pytest.mark.parametrize("packing", ["", "gzip", "zstd"])
async def test_layers_are_what_their_first_bytes_say(store: orlop.Store, tmp_path: Path, packing: str) -> None:
    made = simple()
    await brought(store, written(tmp_path, docker_files([(made, ["app:1"])], packing=packing)))
    await stands_for(store, NAME, made, packing)


@pytest.mark.parametrize("form", ["folder", "tar", "tar.gz"])
async def test_layers_may_be_links_to_others(store: orlop.Store, tmp_path: Path, form: str) -> None:
    twice = layer(file("a", "x" * 30_000))
    made = image([twice, layer(file("b", "2")), twice])
    files = old_docker_files(made, ["app:1"])
    assert any(isinstance(data, LinkTo) for data in files.values())
    await brought(store, written(tmp_path, files, form))
    await stands_for(store, NAME, made)


async def test_links_may_be_followed_from_link_to_link(store: orlop.Store, tmp_path: Path) -> None:
    made = image([layer(file("a", "1"))])
    (raw,) = (raw_of(blob.data) for blob in made.layers)
    files: Files = {
        "manifest.json": json.dumps(
            [{"Config": "./c.json", "RepoTags": ["app:1"], "Layers": ["one/layer.tar"]}]
        ).encode(),
        "one/layer.tar": LinkTo("../two/layer.tar"),
        "two/layer.tar": LinkTo("/three/layer.tar"),
        "three/layer.tar": LinkTo("../some/four.tar"),
        "some/four.tar": raw,
        "c.json": made.config,
    }
    await brought(store, written(tmp_path, files))
    await stands_for(store, NAME, made)


@pytest.mark.parametrize("target", ["layer.tar", "../one/layer.tar", "../../outside/layer.tar", "/none.tar"])
async def test_links_that_lead_nowhere_are_an_error(store: orlop.Store, tmp_path: Path, target: str) -> None:
    entry = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["one/layer.tar"]}
    files: Files = {"c.json": b"{}", "one/layer.tar": LinkTo(target), "manifest.json": json.dumps([entry]).encode()}
    files["../outside/layer.tar"] = b"x"
    assert "one/layer.tar" in str(await refused(store, written(tmp_path, files), NotFound))


@pytest.mark.parametrize(
    "tags, names",
    [
        (["busybox:1"], ["docker.io/library/busybox:1"]),
        (["busybox"], ["docker.io/library/busybox:latest"]),
        (["foo/bar:x", "localhost:5000/y:z"], ["docker.io/foo/bar:x", "localhost:5000/y:z"]),
        (["quay.io/q/w"], ["quay.io/q/w:latest"]),
    ],
)
async def test_tags_become_names(store: orlop.Store, tmp_path: Path, tags: list[str], names: list[str]) -> None:
    made = simple()
    found = await brought(store, written(tmp_path, docker_files([(made, tags)])))
    assert list(found) == names
    for name in names:
        await stands_for(store, name, made)


async def test_several_images_have_names_of_their_own(store: orlop.Store, tmp_path: Path) -> None:
    one, two = simple("1"), simple("2")
    path = written(tmp_path, docker_files([(one, ["app:1", "app:one"]), (two, ["quay.io/q/w"])]))
    found = await brought(store, path)
    assert list(found) == ["docker.io/library/app:1", "docker.io/library/app:one", "quay.io/q/w:latest"]
    await stands_for(store, NAME, one)
    await stands_for(store, "quay.io/q/w:latest", two)


async def test_a_tag_that_is_none_lets_nothing_in(store: orlop.Store, tmp_path: Path) -> None:  # 49
    path = written(tmp_path, docker_files([(simple("1"), ["app:1"]), (simple("2"), ["BAD:x"])]))
    assert "BAD:x" in str(await refused(store, path, InvalidArgument))


@pytest.mark.parametrize("tags", [None, []])
async def test_without_tags_an_image_can_be_named_by_its_digest(
    store: orlop.Store, tmp_path: Path, tags: list[str] | None
) -> None:
    made = simple()
    path = written(tmp_path, docker_files([(made, tags)]))
    error = await refused(store, path, InvalidArgument)
    assert "--digests" in error.hint
    found = await brought(store, path, naming=orlop.Naming("foo.io/x", digests=True))
    assert found == {f"foo.io/x@{digest}": digest for digest in found.values()}
    assert len(found) == 1
    await stands_for(store, next(iter(found)), made)


async def test_digests_of_those_with_a_name_can_be_skipped(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, docker_files([(simple("1"), ["app:1"]), (simple("2"), None)]))
    found = await brought(store, path, naming=orlop.Naming(digests=True, skip_named=True))
    first, second = found
    assert first == NAME
    assert second.partition("@")[2] == found[second] != found[NAME]


async def test_a_base_is_for_tags_too(store: orlop.Store, tmp_path: Path) -> None:
    """A tag is a full name, and one rule holds for all of them. Spec registry 11.1, 11.2."""
    path = written(
        tmp_path, docker_files([(simple("1"), ["quay.io/a/b:1", "app:1"]), (simple("2"), ["quay.io/a/bc:1"])])
    )
    assert list(await brought(store, path, naming=orlop.Naming("quay.io/a/b"))) == ["quay.io/a/b:1"]


async def test_all_of_them_may_have_a_name_that_takes_them_with_it(store: orlop.Store, tmp_path: Path) -> None:
    """Several images are an index of them. Spec registry 11.1."""
    one, two = simple("1"), simple("2")
    path = written(tmp_path, docker_files([(one, ["app:1", "app:one"]), (two, None)]))
    found = await brought(store, path, naming=orlop.Naming(index="idx.io/a:b"))
    assert list(found) == ["idx.io/a:b", "docker.io/library/app:1", "docker.io/library/app:one"]
    await store.collect()
    assert await recorded(store) == found
    assert {blob.diff_id for made in (one, two) for blob in made.layers} <= await here(store)
    entries = json.loads(await store.content.read(found["idx.io/a:b"]))["manifests"]
    said = [each.get("annotations", {}).get(IMAGE_NAME) for each in entries]
    assert said == ["docker.io/library/app:1", "docker.io/library/app:one", None]
    assert (await store.images.get(NAME)).labels["containerd.io/gc.bref.image"] == "idx.io/a:b"
    await store.images.delete("idx.io/a:b", sync=True)
    await nothing_came(store)


async def test_a_layout_goes_before_manifest_json(store: orlop.Store, tmp_path: Path) -> None:
    """Newer dockers write both; then the layout's own manifests and digests hold."""
    made = simple()
    files = layout_files([(made, named(NAME))])
    entry = {"Config": "none.json", "RepoTags": ["other:1"], "Layers": []}
    files["manifest.json"] = json.dumps([entry]).encode()
    assert await brought(store, written(tmp_path, files)) == {NAME: made.target.digest}


async def test_paths_of_manifest_json_may_be_those_of_blobs(store: orlop.Store, tmp_path: Path) -> None:
    made = image([Blob(raw, LAYER, digest_of(raw)) for raw in (layer(file("a", "1")), layer(file("b", "2")))])
    files = layout_files([(made, {})])
    del files["oci-layout"]
    paths = [f"blobs/sha256/{digest.partition(':')[2]}" for digest in (made.config_digest, *made.diff_ids)]
    entry = {"Config": paths[0], "RepoTags": ["app:1"], "Layers": paths[1:]}
    files["manifest.json"] = json.dumps([entry]).encode()
    await brought(store, written(tmp_path, files))
    await stands_for(store, NAME, made)


@pytest.mark.parametrize("which", ["config", "layer"])
async def test_what_manifest_json_names_must_be_there(store: orlop.Store, tmp_path: Path, which: str) -> None:
    files = docker_files([(simple(), ["app:1"])])
    gone = next(name for name in files if name.endswith(".json" if which == "config" else ".tar"))
    del files[gone]
    assert gone in str(await refused(store, written(tmp_path, files), NotFound))


async def test_a_manifest_json_that_is_none_is_refused(store: orlop.Store, tmp_path: Path) -> None:
    await refused(store, written(tmp_path, {"manifest.json": b"{}"}), InvalidArgument)


async def test_an_image_without_layers_is_brought(store: orlop.Store, tmp_path: Path) -> None:
    made = image([])
    entry = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": None}
    files: Files = {"c.json": made.config, "manifest.json": json.dumps([entry]).encode()}
    await brought(store, written(tmp_path, files))
    await stands_for(store, NAME, made)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
async def test_an_old_archive_is_unpacked_as_its_layers_say(tmp_path: Path) -> None:
    made = image([layer(file("a", "1"), file("b", "1")), layer(file(".wh.b"), file("c", "2"))])
    async with opened(tmp_path / "store") as store:
        path = written(tmp_path, old_docker_files(made, ["app:1"]))
        await brought(store, path, unpack_for=[orlop.host_platform()])
        await store.collect()
        async with store.lease() as leased, orlop.mounted(await leased.snapshots.view("look", made.chain[-1])) as root:
            assert brief(read_tree(root)) == {"a": "file:1", "c": "file:2"}
