"""Rows of the registries' edge cases that no other test shows. tests/test_spec_rows.py says where the others are.

Source: spec registry 14; each test is named after its row.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError
from tests.protocol.test_platforms import SELECTIONS
from tests.support.daemon import GONE, Daemon
from tests.support.faulty_registry import Lie, Stall, Status
from tests.support.images import INDEX, MANIFEST, MadeImage, image
from tests.support.layers import digest_of, file, layer
from tests.support.transfers import PLAIN, TIMEOUT_S, digests, has, lines, opened, pull, push, random_image, refuses
from tests.support.writable_registry import WritableRegistry

REPOSITORY = "team/app"
SOURCE_LABEL = "containerd.io/distribution.source.127.0.0.1"
LARGEST = 4_393_216
Document = dict[str, Any]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store") as store:
        yield store


@pytest.fixture
def registry() -> Iterator[WritableRegistry]:
    with WritableRegistry() as registry:
        yield registry


def at(registry: WritableRegistry, tag: str = "v") -> str:
    return f"{registry.address}/{REPOSITORY}:{tag}"


def entry(media_type: str, data: bytes, **more: Any) -> Document:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def written(document: Document) -> bytes:
    return json.dumps(document).encode()


def index(entries: Sequence[Document]) -> bytes:
    return written({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)})


def serve(registry: WritableRegistry, *made: MadeImage) -> None:
    """The images by their digests, without any tag."""
    held = registry.held[REPOSITORY]
    for one in made:
        held.blobs.update(one.blobs)
        held.manifests[one.target.digest] = (MANIFEST, one.manifest)


def serve_document(registry: WritableRegistry, media_type: str, data: bytes, tag: str = "") -> str:
    """The digest of the document, which has this tag from now on."""
    held = registry.held[REPOSITORY]
    held.manifests[digest_of(data)] = (media_type, data)
    if tag:
        held.tags[tag] = digest_of(data)
    return digest_of(data)


def tagged(registry: WritableRegistry, made: MadeImage, manifest: Document | None = None) -> str:
    """An image under the tag; its manifest may be another."""
    serve(registry, made)
    return serve_document(registry, MANIFEST, made.manifest if manifest is None else written(manifest), "v")


async def nothing_came(store: orlop.Store) -> None:
    """No image, and no half of a blob that would spoil the next attempt."""
    assert [each.name async for each in store.images.list()] == []
    assert [each.ref async for each in store.content.ingests()] == []


@pytest.mark.parametrize("text, words", [("busybox", "object required"), ("a:b", "invalid port")], ids=["1", "2"])
async def test_row_1_and_2_a_name_that_is_no_reference_is_refused(store: orlop.Store, text: str, words: str) -> None:
    async with refuses(InvalidArgument) as caught:
        await pull(store, text)
    assert words in str(caught[0])


async def test_row_6_a_manifest_that_is_not_what_head_said_is_refused_and_poisons_nothing(
    store: orlop.Store, registry: WritableRegistry
) -> None:
    made, said = random_image("right"), digest_of(b"what HEAD says")
    root = tagged(registry, made)
    registry.fault("HEAD ", Lie(digest=said), times=None)
    body = Status(200, {"Content-Type": MANIFEST, "Docker-Content-Digest": said}, made.manifest)
    registry.fault(f"GET /v2/{REPOSITORY}/manifests/{said}", body, times=None)
    async with refuses(FailedPrecondition) as caught:
        await pull(store, at(registry))
    assert said in str(caught[0])
    await nothing_came(store)
    assert await digests(store) == set()
    registry.heal()
    assert (await pull(store, at(registry))).target.digest == root
    await has(store, made)


@pytest.mark.parametrize("size", [LARGEST, LARGEST + 1])
async def test_row_31_a_manifest_of_the_largest_size_is_read_and_none_beyond(
    store: orlop.Store, registry: WritableRegistry, size: int
) -> None:
    made = random_image("large manifest")
    manifest = json.loads(made.manifest) | {"annotations": {"fill": ""}}
    manifest["annotations"]["fill"] = "x" * (size - len(written(manifest)))
    assert len(written(manifest)) == size
    root = tagged(registry, made, manifest)
    if size == LARGEST:
        assert (await pull(store, at(registry))).target.size == size
        assert len(await store.content.read(root)) == size
        return
    async with refuses(FailedPrecondition) as caught:
        await pull(store, at(registry))
    assert str(size) in str(caught[0])
    await nothing_came(store)


async def test_row_32_a_manifest_that_is_an_index_too_is_refused(
    store: orlop.Store, registry: WritableRegistry
) -> None:
    made = random_image("both")
    tagged(registry, made, json.loads(made.manifest) | {"manifests": [entry(MANIFEST, made.manifest)]})
    async with refuses(InvalidArgument):
        await pull(store, at(registry))
    assert lines(registry, "/blobs/") == []
    await nothing_came(store)


async def test_row_33_a_nested_index_is_walked(store: orlop.Store, registry: WritableRegistry) -> None:
    """And labelled as table 8.2 says: manifests and other children are counted apart."""
    outer, inner, deep = (random_image(name) for name in ("outer", "inner", "deep"))
    serve(registry, outer, inner, deep)
    deepest = index([entry(MANIFEST, deep.manifest)])
    nested = index([entry(INDEX, deepest), entry(MANIFEST, inner.manifest)])
    root = index([entry(INDEX, nested), entry(MANIFEST, outer.manifest)])
    for data in (deepest, nested):
        serve_document(registry, INDEX, data)
    serve_document(registry, INDEX, root, "v")
    await pull(store, at(registry), all_platforms=True)
    for made in (outer, inner, deep):
        await has(store, made)
    reference = "containerd.io/gc.ref.content"
    for data, labels in (
        (root, {f"{reference}.0": digest_of(nested), f"{reference}.m.0": outer.target.digest}),
        (nested, {f"{reference}.0": digest_of(deepest), f"{reference}.m.0": inner.target.digest}),
        (deepest, {f"{reference}.m.0": deep.target.digest}),
    ):
        assert (await store.content.info(digest_of(data))).labels == {**labels, SOURCE_LABEL: REPOSITORY}
    await store.collect()
    for made in (outer, inner, deep):
        await has(store, made)


@pytest.mark.parametrize(
    "entries, wanted, taken", [s[1:] for s in SELECTIONS], ids=[f"8.4 row {s[0]}" for s in SELECTIONS]
)
async def test_row_34_of_an_index_the_manifest_that_suits_is_fetched(
    store: orlop.Store, registry: WritableRegistry, entries: str, wanted: str, taken: int | None
) -> None:
    """Table 8.4, column "compatible"; and with row 35 nothing at all, where nothing suits."""
    described, several = [], []
    for number, text in enumerate(entries.split()):
        made = random_image(f"{number} {text}")
        several.append(made)
        more = (
            {}
            if text == "-"
            else {"platform": dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))}
        )
        described.append(entry(MANIFEST, made.manifest, **more))
    serve(registry, *several)
    root = serve_document(registry, INDEX, index(described), "v")
    fetch = partial(pull, store, at(registry), platforms=[wanted], skip_metadata=True)
    if taken is None:
        async with refuses(NotFound) as caught:
            await fetch()
        assert all(text in caught[0].hint for text in entries.split())
        assert lines(registry, "/blobs/") == []
        await nothing_came(store)
        return
    await fetch()
    assert await digests(store) == {root, *several[taken].blobs}


def for_arm(name: str) -> MadeImage:
    return image([layer(file(name, name))], config={"os": "linux", "architecture": "arm64", "variant": ""})


@pytest.mark.parametrize("in_index", [False, True], ids=["8.4 row 17", "8.4 row 14 alone"])
@pytest.mark.parametrize("unpack", [True, False], ids=["unpacked", "packed"])
async def test_row_34_where_no_index_says_what_a_manifest_is_for_its_config_does(
    store: orlop.Store, registry: WritableRegistry, in_index: bool, unpack: bool
) -> None:
    """Only what is unpacked has its config looked at, and only for a platform that somebody named."""
    made = for_arm("one")
    root = tagged(registry, made)
    if in_index:
        root = serve_document(registry, INDEX, index([entry(MANIFEST, made.manifest)]), "v")
    fetch = partial(pull, store, at(registry), unpack=unpack)
    if unpack:
        async with refuses(NotFound) as caught:
            await fetch(platforms=["linux/amd64"])
        assert "linux/amd64" in str(caught[0])
        assert "linux/arm64" in caught[0].hint
        assert lines(registry, made.layers[0].digest) == []
        await nothing_came(store)
    else:
        await fetch(platforms=["linux/amd64"])
    for wanted in ([], ["linux/amd64", "linux/arm64"]):
        assert (await fetch(platforms=wanted)).target.digest == root
    await has(store, made)


@pytest.mark.slow
async def test_row_38_what_a_killed_pull_brought_lives_as_long_as_its_lease(
    tmp_path: Path, registry: WritableRegistry
) -> None:
    made = random_image("killed", sizes=(60_000, 70_000))
    tagged(registry, made)
    stalled = registry.fault(f"GET /v2/{REPOSITORY}/blobs/{made.layers[1].digest}", Stall(0, None), times=None)
    daemon = Daemon(tmp_path / "daemon")
    daemon.folder.mkdir()
    came = set(made.blobs) - {made.layers[1].digest}
    async with daemon.running() as process, trio.open_nursery() as nursery, orlop.connect(daemon.address) as client:
        nursery.start_soon(until_it_is_gone, client, at(registry))
        with trio.fail_after(TIMEOUT_S):
            while not (stalled.applied and came <= await digests(client)):
                await trio.sleep(0.01)
        process.kill()
        await process.wait()
    async with orlop.open_store(daemon.folder / "store") as store:
        await store.collect()
        assert came <= await digests(store)
        (lease,) = [each async for each in store.leases.list()]
        await store.leases.update(lease.id, {"containerd.io/gc.expire": "2001-01-01T00:00:00Z"})
        await store.collect()
        assert await digests(store) == set()
        assert [each.name async for each in store.images.list()] == []


async def until_it_is_gone(store: orlop.Store, reference: str) -> None:
    with pytest.raises(GONE):
        await pull(store, reference)


def without_bytes(made: MadeImage) -> Document:
    """Its manifest, in which the last layer has no size."""
    manifest: Document = json.loads(made.manifest)
    manifest["layers"][-1]["size"] = 0
    return manifest


@pytest.mark.parametrize("unpack", [False, True], ids=["packed", "unpacked"])
async def test_row_57_a_layer_of_no_size_is_refused(
    store: orlop.Store, registry: WritableRegistry, unpack: bool
) -> None:
    made = image([layer(file("a", "1")), layer(file("b", "2"))])
    tagged(registry, made, without_bytes(made))
    async with refuses(InvalidArgument) as caught:
        await pull(store, at(registry), unpack=unpack)
    assert made.layers[-1].digest in str(caught[0])
    assert lines(registry, made.layers[-1].digest) == []
    await nothing_came(store)


def with_data(made: MadeImage, digest: str, data: bytes) -> Document:
    """Its manifest, which holds this one layer itself. Source: OCI image-spec, descriptor, `data`."""
    manifest: Document = json.loads(made.manifest)
    for each in manifest["layers"]:
        if each["digest"] == digest:
            each["data"] = base64.b64encode(data).decode()
    return manifest


@pytest.mark.parametrize("unpack", [False, True], ids=["packed", "unpacked"])
async def test_row_57_what_the_manifest_holds_itself_is_not_asked_for(
    store: orlop.Store, registry: WritableRegistry, unpack: bool
) -> None:
    made = image([layer(file("a", "1")), layer(file("b", "2"))])
    inline = made.layers[1]
    tagged(registry, made, with_data(made, inline.digest, inline.data))
    await pull(store, at(registry), unpack=unpack)
    assert lines(registry, inline.digest) == []
    assert len(lines(registry, made.layers[0].digest)) == 1
    assert await store.content.read(inline.digest) == inline.data
    await store.collect()
    assert await store.content.read(inline.digest) == inline.data


async def test_row_57_wrong_bytes_in_the_manifest_are_refused(store: orlop.Store, registry: WritableRegistry) -> None:
    made = image([layer(file("a", "1")), layer(file("b", "2"))])
    inline = made.layers[1]
    tagged(registry, made, with_data(made, inline.digest, bytes(len(inline.data))))
    async with refuses(FailedPrecondition):
        await pull(store, at(registry))
    assert inline.digest not in await digests(store)
    await nothing_came(store)


SIZES = {"large": 60_000, "small": 500}


@pytest.mark.parametrize("which", SIZES)
async def test_row_58_a_packed_answer_is_unpacked(store: orlop.Store, registry: WritableRegistry, which: str) -> None:
    made = random_image("packed", sizes=(SIZES[which],))
    tagged(registry, made)
    (blob,) = made.layers
    answer = Status(200, {"Content-Encoding": "gzip"}, gzip.compress(blob.data))
    registry.fault(f"GET /v2/{REPOSITORY}/blobs/{blob.digest}", answer)
    await pull(store, at(registry))
    await has(store, made)
    assert len(lines(registry, blob.digest)) == 1


@pytest.mark.parametrize("which", SIZES)
@pytest.mark.parametrize(
    "headers, body",
    [({"Content-Encoding": "compress"}, None), ({"Content-Encoding": "gzip"}, b"this is no gzip")],
    ids=["an unknown encoding", "no gzip"],
)
async def test_row_58_an_answer_that_cannot_be_unpacked_is_an_error(
    store: orlop.Store, registry: WritableRegistry, which: str, headers: Mapping[str, str], body: bytes | None
) -> None:
    made = random_image("encoded", sizes=(SIZES[which],))
    tagged(registry, made)
    (blob,) = made.layers
    answer = Status(200, headers, blob.data if body is None else body)
    registry.fault(f"GET /v2/{REPOSITORY}/blobs/{blob.digest}", answer, times=None)
    async with refuses(OrlopError) as caught:
        await pull(store, at(registry))
    assert "encod" in str(caught[0])
    assert blob.digest not in await digests(store)
    assert [each.name async for each in store.images.list()] == []
    registry.heal()
    await pull(store, at(registry))
    await has(store, made)


async def test_table_8_2_a_push_leaves_the_source_labels_as_they_are(
    store: orlop.Store, registry: WritableRegistry
) -> None:
    made = random_image("pushed")
    tagged(registry, made)
    name = (await pull(store, at(registry))).name
    with WritableRegistry() as other:
        target = f"{other.address}/mirror/app:v"
        await push(store, target, name, PLAIN)
        assert other.held["mirror/app"].digests == set(made.blobs)
    for digest in made.blobs:
        assert (await store.content.info(digest)).labels[SOURCE_LABEL] == REPOSITORY
