"""What describes an image goes with it, and is found at the registry: by its API, or by the tag that stands in for it.

Source: OCI distribution-spec, pushing manifests with subject, and listing referrers; spec registry 7 and 10.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition
from tests.support.faulty_registry import BreakAfter, FaultyRegistry, Status
from tests.support.images import INDEX, MANIFEST, MadeImage
from tests.support.layers import digest_of, put_blob
from tests.support.registries import DockerRegistry
from tests.support.transfers import PLAIN, TIMEOUT_S, lines, push, random_image, refuses, stored
from tests.support.writable_registry import WritableRegistry

REPOSITORY = "lib/app"
EMPTY = "application/vnd.oci.empty.v1+json"
SBOM = "application/spdx+json"
SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
real_registry = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("described", (500,))


def at(registry: FaultyRegistry | DockerRegistry, tail: str = ":v1") -> str:
    return f"{registry.address}/{REPOSITORY}{tail}"


def fallback(digest: str) -> str:
    return digest.replace(":", "-")


async def describe(
    store: orlop.Store,
    subject: orlop.Descriptor,
    kind: str = SBOM,
    annotations: Mapping[str, str] | None = None,
    *,
    by_config: bool = False,
) -> orlop.Descriptor:
    """A manifest that describes another one, with a blob of its own, stored as a pull of it would."""
    payload = f"{kind} of {subject.digest} {dict(annotations or {})}".encode()
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": kind if by_config else EMPTY, "digest": digest_of(b"{}"), "size": 2},
        "layers": [{"mediaType": kind, "digest": digest_of(payload), "size": len(payload)}],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size},
    }
    if not by_config:
        document["artifactType"] = kind
    if annotations:
        document["annotations"] = dict(annotations)
    data = json.dumps(document).encode()
    labels = {
        "containerd.io/gc.bref.content.subject": subject.digest,
        "containerd.io/gc.ref.content.config": digest_of(b"{}"),
        "containerd.io/gc.ref.content.l.0": digest_of(payload),
    }
    async with store.lease() as leased:
        await put_blob(leased, b"{}")
        await put_blob(leased, payload)
        return await put_blob(leased, data, MANIFEST, labels)


async def listed(store: orlop.Store, reference: str, kind: str = "") -> dict[str, str]:
    """Digest -> artifact type, of what the registry says describes it."""
    with trio.fail_after(TIMEOUT_S):
        found = await store.referrers(orlop.ListReferrers(reference, kind, PLAIN))
    return {each.descriptor.digest: each.artifact_type for each in found.items}


def entry(described: orlop.Descriptor, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "mediaType": MANIFEST,
        "digest": described.digest,
        "size": described.size,
        "artifactType": kind,
        **more,
    }


@real_registry
async def test_at_a_registry_without_the_api_a_tag_lists_what_describes_an_image(
    store: orlop.Store, tmp_path: Path, made: MadeImage
) -> None:
    sbom = await describe(store, made.target)
    signature = await describe(store, made.target, SIGNATURE, by_config=True)
    with DockerRegistry(tmp_path / "registry") as registry:
        await push(store, at(registry), "one", referrers=True)
        both = {sbom.digest: SBOM, signature.digest: SIGNATURE}
        assert await listed(store, at(registry)) == both
        assert await listed(store, at(registry, f"@{made.target.digest}")) == both
        assert await listed(store, at(registry), SIGNATURE) == {signature.digest: SIGNATURE}
        assert await listed(store, at(registry), "application/none") == {}
        registry.clear()
        await push(store, at(registry), "one", referrers=True)
        assert [line for line in registry.requests() if line[0] not in ("HEAD", "GET")] == []


@pytest.mark.parametrize("annotations", [{}, {"org.example.a": "1", "org.example.b": "2"}])
@pytest.mark.parametrize("by_config", [False, True])
async def test_the_tags_index_says_what_the_specification_wants(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, annotations: dict[str, str], by_config: bool
) -> None:
    described = await describe(store, made.target, SBOM, annotations, by_config=by_config)
    await push(store, at(registry), "one", referrers=True)
    held = registry.held[REPOSITORY]
    assert set(held.tags) == {"v1", fallback(made.target.digest)}
    more = {"annotations": annotations} if annotations else {}
    expected = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(described, SBOM, **more)]}
    assert held.manifest(fallback(made.target.digest)) == expected
    assert held.manifests[held.tags[fallback(made.target.digest)]][0] == INDEX


async def test_an_index_that_describes_something_has_no_type_of_its_own(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    """Source: as above: an index without artifactType is listed without."""
    subject = {"mediaType": MANIFEST, "digest": made.target.digest, "size": made.target.size}
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject}).encode()
    await put_blob(store, data, INDEX, {"containerd.io/gc.bref.content.subject": made.target.digest})
    await push(store, at(registry), "one", referrers=True)
    (found,) = registry.held[REPOSITORY].manifest(fallback(made.target.digest))["manifests"]
    assert found == {"mediaType": INDEX, "digest": digest_of(data), "size": len(data)}


async def test_at_a_registry_with_the_api_there_is_no_such_tag(store: orlop.Store, made: MadeImage) -> None:
    described = await describe(store, made.target)
    with WritableRegistry(referrers=True) as registry:
        await push(store, at(registry), "one", referrers=True)
        assert set(registry.held[REPOSITORY].tags) == {"v1"}
        assert await listed(store, at(registry)) == {described.digest: SBOM}
        registry.clear()
        await push(store, at(registry), "one", referrers=True)
        assert lines(registry, "PUT ") == []


async def test_without_the_flag_what_describes_an_image_stays_here(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    await describe(store, made.target)
    await push(store, at(registry), "one")
    assert registry.held[REPOSITORY].digests == set(made.blobs)
    assert await listed(store, at(registry)) == {}


async def test_what_describes_it_comes_after_it_and_what_describes_that_after_both(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    sbom = await describe(store, made.target)
    signature = await describe(store, sbom, SIGNATURE)
    await push(store, at(registry), "one", referrers=True)
    order = [name for name in registry.stored if name in (made.target.digest, sbom.digest, signature.digest)]
    assert order == [made.target.digest, sbom.digest, signature.digest]
    assert await listed(store, at(registry, f"@{sbom.digest}")) == {signature.digest: SIGNATURE}


async def test_what_others_wrote_into_the_tag_stays(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    first = await describe(store, made.target)
    await push(store, at(registry), "one", referrers=True)
    second = await describe(store, made.target, SIGNATURE)
    await push(store, at(registry), "one", referrers=True)
    found = registry.held[REPOSITORY].manifest(fallback(made.target.digest))["manifests"]
    assert found == [entry(first, SBOM), entry(second, SIGNATURE)]


async def test_two_pushes_at_once_lose_no_entry(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, tmp_path: Path
) -> None:
    await push(store, at(registry), "one")
    described = [await describe(store, made.target, f"application/kind-{number}") for number in range(6)]
    async with trio.open_nursery() as nursery:
        for each in described:
            nursery.start_soon(push_by_digest, store, registry, each)
    assert set(await listed(store, at(registry))) == {each.digest for each in described}


async def push_by_digest(store: orlop.Store, registry: WritableRegistry, what: orlop.Descriptor) -> None:
    await push(store, at(registry, ""), target=what.digest)


async def test_what_is_pushed_itself_and_describes_something_is_listed_too(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    described = await describe(store, made.target)
    await store.images.create("signature", described)
    await push(store, at(registry, ":sig"), "signature")
    assert set(registry.held[REPOSITORY].tags) == {"sig", fallback(made.target.digest)}
    await push(store, at(registry), "one")
    assert await listed(store, at(registry)) == {described.digest: SBOM}


@pytest.mark.parametrize("fault", [Status(403), BreakAfter(None)])
async def test_a_push_that_ended_before_the_list_was_written_is_mended_by_the_next(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, fault: Status | BreakAfter
) -> None:
    described = await describe(store, made.target)
    registry.fault(f"PUT /v2/{REPOSITORY}/manifests/{fallback(made.target.digest)}", fault, times=None)
    async with refuses():
        await push(store, at(registry), "one", referrers=True)
    assert described.digest in registry.held[REPOSITORY].manifests
    registry.heal()
    await push(store, at(registry), "one", referrers=True)
    assert await listed(store, at(registry)) == {described.digest: SBOM}


async def test_a_tag_that_is_no_list_is_left_alone(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    """Source: as above: what is not the expected index is a failure."""
    other = random_image("other", (100,))
    await stored(store, "other", other)
    await push(store, at(registry, f":{fallback(made.target.digest)}"), "other")
    await describe(store, made.target)
    async with refuses(FailedPrecondition):
        await push(store, at(registry), "one", referrers=True)
    assert registry.held[REPOSITORY].tags[fallback(made.target.digest)] == other.target.digest


async def test_a_part_of_an_index_that_describes_another_part_comes_before_the_index(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    described = await describe(store, made.target)
    entries = [{"mediaType": MANIFEST, "digest": d.digest, "size": d.size} for d in (made.target, described)]
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    root = await put_blob(store, data, INDEX, {"containerd.io/gc.root": "test"})
    await store.images.create("both", root)
    await push(store, at(registry), "both")
    assert registry.held[REPOSITORY].tags["v1"] == root.digest
    assert await listed(store, at(registry, f"@{made.target.digest}")) == {described.digest: SBOM}


@pytest.mark.parametrize("api", [False, True])
async def test_a_copy_takes_along_what_describes_an_image(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, api: bool
) -> None:
    described = await describe(store, made.target, annotations={"org.example.a": "1"})
    with WritableRegistry(referrers=api) as source:
        await push(store, at(source), "one", referrers=True)
        request = orlop.CopyImage(at(source), at(registry), source_access=PLAIN, target_access=PLAIN, referrers=True)
        with trio.fail_after(TIMEOUT_S):
            await store.copy(request)
    assert await listed(store, at(registry)) == {described.digest: SBOM}
    found = registry.held[REPOSITORY].manifest(fallback(made.target.digest))["manifests"]
    assert found == [entry(described, SBOM, annotations={"org.example.a": "1"})]


async def test_where_nothing_describes_it_the_list_is_empty(store: orlop.Store, registry: WritableRegistry) -> None:
    await push(store, at(registry), "one", referrers=True)  # 48
    assert await listed(store, at(registry)) == {}
    assert set(registry.held[REPOSITORY].tags) == {"v1"}
