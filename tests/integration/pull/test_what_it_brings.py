"""What a pull brings: all of the image, for the platforms that were asked for. Source: spec registry 7 and 14."""

from __future__ import annotations

from pathlib import Path

import orlop
from orlop.protocol.errors import InvalidArgument, NotFound
from orlop.protocol.messages import PullImage, RegistryAccess, TransferProgress, TransferState
from tests.support.faulty_registry import FaultyRegistry
from tests.support.layout_registry import LayoutRegistry
from tests.support.pulls import (
    REPOSITORY,
    SOURCE_LABEL,
    Layout,
    asked,
    digests,
    is_complete,
    lines,
    name_at,
    pull,
    real_registry,
    refused,
    replace_reference,
)
from tests.support.registries import DockerRegistry, make_layout, push_layout

# What a pull brings


async def brings_the_image(store: orlop.Store, image: Layout, registry: LayoutRegistry | DockerRegistry) -> None:
    pulled = await pull(store, asked(registry, labels={"mine": "yes"}))
    assert pulled.name == name_at(registry)
    assert (pulled.target.digest, pulled.target.media_type) == (image.root, image.made["media_type"])
    assert pulled.target.size == len(image.blob(image.root))
    assert pulled.labels == {"mine": "yes"}
    assert await store.images.get(pulled.name) == pulled
    await is_complete(store, image)


async def test_a_pull_brings_the_image(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    await brings_the_image(store, image, registry)


@real_registry
async def test_a_pull_brings_the_image_from_a_real_registry(store: orlop.Store, image: Layout, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry") as registry:
        push_layout(image.folder, registry.address, REPOSITORY)
        registry.clear()
        await brings_the_image(store, image, registry)
        asked_for = [path for method, path in registry.requests() if method == "GET" and "/blobs/" in path]
        configs = {image.document(manifest)["config"]["digest"] for manifest in image.manifests.values()}
        assert sorted(asked_for) == sorted(f"/v2/{REPOSITORY}/blobs/{d}" for d in [*configs, *image.layers()])
        registry.clear()
        await pull(store, asked(registry))
        assert registry.requests() == [("HEAD", f"/v2/{REPOSITORY}/manifests/latest")]
        registry.clear()
        other = store.in_namespace("other")
        await pull(other, asked(registry))
        assert [line for line in registry.requests() if line[0] != "HEAD"] == []
        await is_complete(other, image)


async def test_documents_keep_their_children_by_labels(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    await pull(store, asked(registry))
    assert (await store.content.info(image.root)).labels == {
        "containerd.io/gc.ref.content.m.0": image.manifests["linux/amd64"],
        "containerd.io/gc.ref.content.m.1": image.manifests["linux/arm64"],
        SOURCE_LABEL: REPOSITORY,
    }
    assert (await store.content.info(image.manifests["linux/amd64"])).labels == {
        "containerd.io/gc.ref.content.config": image.config,
        "containerd.io/gc.ref.content.l.0": image.layers()[0],
        "containerd.io/gc.ref.content.l.1": image.layers()[1],
        SOURCE_LABEL: REPOSITORY,
    }
    for digest in (image.config, *image.layers()):
        assert (await store.content.info(digest)).labels == {SOURCE_LABEL: REPOSITORY}


async def test_a_collection_after_the_pull_takes_nothing(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 37
    await pull(store, asked(registry))
    before = await digests(store)
    assert [lease async for lease in store.leases.list()] == []
    await store.collect()
    assert await digests(store) == before
    await is_complete(store, image)


async def test_a_second_repository_joins_the_source_label(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.add("abc/app", image.folder)
    await pull(store, asked(registry))
    await pull(store, replace_reference(asked(registry), f"{registry.address}/abc/app:latest"))
    assert lines(registry, "/abc/app/") == ["HEAD /v2/abc/app/manifests/latest"]
    for digest in image.needed:
        assert (await store.content.info(digest)).labels[SOURCE_LABEL] == f"abc/app,{REPOSITORY}"


async def test_progress_tells_every_object_and_counts_every_byte(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    seen: list[TransferProgress] = []
    await pull(store, asked(registry), progress=seen.append)
    assert seen[0].state is TransferState.RESOLVING
    assert seen[-1].state is TransferState.SAVED
    last = {item.digest: item for item in seen if item.kind}
    assert image.needed <= set(last)
    for digest in image.needed:
        size = len(image.blob(digest))
        assert (last[digest].state, last[digest].total, last[digest].transferred) == (
            TransferState.COMPLETE,
            size,
            size,
        )


async def test_docker_media_types_are_pulled(store: orlop.Store, tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    made = make_layout(folder, "--media-types", "docker", "--layers", "1", "--files", "2", "--size", "60K")
    with LayoutRegistry({REPOSITORY: folder}) as registry:
        pulled = await pull(store, asked(registry))
    assert pulled.target.media_type == "application/vnd.docker.distribution.manifest.v2+json"
    labels = (await store.content.info(made["digest"])).labels
    assert labels["containerd.io/gc.ref.content.l.0"] == made["layers"][0]["digest"]


async def test_a_digest_is_pulled_and_recorded_under_its_full_name(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # row 27 of table 1.3: the record's name keeps both
    reference = f"{registry.address}/{REPOSITORY}:none@{image.root}"
    pulled = await pull(store, replace_reference(asked(registry), reference))
    assert (pulled.name, pulled.target.digest) == (reference, image.root)
    assert lines(registry, "none") == []


async def test_a_moved_tag_moves_the_record(store: orlop.Store, image: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "newer"
    newer = make_layout(folder, "--layers", "1", "--files", "2", "--size", "60K", "--seed", "newer")
    with LayoutRegistry({REPOSITORY: image.folder}) as registry:
        await pull(store, asked(registry))
        registry.add(REPOSITORY, folder)
        pulled = await pull(store, asked(registry))
    assert pulled.target.digest == newer["digest"]
    assert [i.target.digest async for i in store.images.list()] == [newer["digest"]]


# Platforms


async def test_of_other_platforms_come_no_layers(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    await pull(store, asked(registry, platforms=["linux/arm64"]))
    brought = await digests(store)
    assert set(image.layers("linux/arm64")) <= brought
    assert not set(image.layers("linux/amd64")) & brought


async def test_of_other_platforms_come_manifest_and_config(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    """Spec registry 8.4, "what is fetched": with all metadata, which is the default."""
    await pull(store, asked(registry))
    arm = image.manifests["linux/arm64"]
    assert {arm, image.document(arm)["config"]["digest"]} <= await digests(store)


async def test_several_platforms_and_all_platforms(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    both = {*image.layers("linux/amd64"), *image.layers("linux/arm64")}
    await pull(store.in_namespace("two"), asked(registry, platforms=["linux/arm64", "linux/amd64"]))
    assert both <= await digests(store.in_namespace("two"))
    await pull(store.in_namespace("all"), asked(registry, platforms=[], all_platforms=True))
    assert both <= await digests(store.in_namespace("all"))


async def test_a_compatible_platform_is_good_enough(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    await pull(store, asked(registry, platforms=["linux/amd64/v3"]))
    assert image.needed <= await digests(store)


async def test_no_platform_that_suits_is_not_found_and_names_those_there_are(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 35
    error = await refused(store, asked(registry, platforms=["linux/s390x"]), NotFound)
    assert "linux/s390x" in str(error)
    assert "linux/amd64" in error.hint
    assert "linux/arm64" in error.hint
    assert lines(registry, "/blobs/") == []


async def test_one_platform_of_two_that_suits_none_is_not_found(store: orlop.Store, registry: FaultyRegistry) -> None:
    await refused(store, asked(registry, platforms=["linux/amd64", "linux/s390x"]), NotFound)


async def test_what_is_no_platform_is_refused_before_any_request(store: orlop.Store, registry: FaultyRegistry) -> None:
    await refused(store, asked(registry, platforms=["bogus"]), InvalidArgument)
    assert registry.requests == []


async def test_what_is_no_reference_is_refused_before_any_request(store: orlop.Store) -> None:  # 1, 2
    for text in ("busybox", "127.0.0.1:1/a/b", "127.0.0.1:1/a:x@sha256:abc", "http://127.0.0.1:1/a:x"):
        await refused(store, PullImage(text, access=RegistryAccess(plain_http=True)), InvalidArgument)
