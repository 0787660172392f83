"""Copies from one registry to another, or within one: what goes through the store, and that nothing stays in it.

Source: spec registry 10; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.actors.config import RegistryConfig
from orlop.protocol.errors import FailedPrecondition, NotFound, OrlopError, Unauthenticated
from orlop.protocol.messages import TransferProgress, TransferState
from tests.support.faulty_registry import BreakAfter, FaultyRegistry, Stall, Status, TakeOnly, WrongBytes
from tests.support.images import MadeImage, image, write_layout
from tests.support.registries import DockerRegistry
from tests.support.transfers import (
    PLAIN,
    STALL_S,
    TIMEOUT_S,
    digests,
    has,
    lines,
    opened,
    pull,
    push,
    random_image,
    refuses,
    stored,
)
from tests.support.writable_registry import WritableRegistry

REPOSITORY = "lib/app"
TAR = "application/vnd.oci.image.layer.v1.tar"
real_registry = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("copy")


@pytest.fixture(scope="module")
def several() -> dict[str, MadeImage]:
    return {
        f"linux/{name}": image([name.encode().ljust(20_000)], media_type=TAR, config={"architecture": name})
        for name in ("amd64", "arm64", "s390x")
    }


@pytest.fixture(scope="module")
def layouts(
    made: MadeImage, several: dict[str, MadeImage], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("copy")
    return {
        "lib/one": write_layout(folder / "one", made),
        "lib/index": write_layout(folder / "index", several),
    }


@pytest.fixture
def source(layouts: dict[str, Path]) -> Iterator[FaultyRegistry]:
    with FaultyRegistry(layouts) as registry:
        yield registry


@pytest.fixture
def target() -> Iterator[WritableRegistry]:
    with WritableRegistry() as registry:
        yield registry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store") as store:
        yield store
        assert [found async for found in store.images.list()] == []
        assert await digests(store) == set()
        assert [found async for found in store.content.ingests()] == []
        assert [found async for found in store.leases.list()] == []


def at(registry: FaultyRegistry | DockerRegistry, repository: str = REPOSITORY, tail: str = ":latest") -> str:
    return f"{registry.address}/{repository}{tail}"


async def copy(store: orlop.Store, source: str, target: str, **options: Any) -> orlop.Pushed:
    options = {"source_access": PLAIN, "target_access": PLAIN, **options}
    progress = options.pop("progress", None)
    with trio.fail_after(TIMEOUT_S):
        return await store.copy(orlop.CopyImage(source, target, **options), progress)


@real_registry
async def test_an_image_is_copied_from_one_real_registry_to_another(
    store: orlop.Store, tmp_path: Path, several: dict[str, MadeImage]
) -> None:
    with DockerRegistry(tmp_path / "one") as one, DockerRegistry(tmp_path / "two") as two:
        async with opened(tmp_path / "first") as first:
            await stored(first, "index", several)
            pushed = await push(first, at(one), "index")
        seen: list[TransferProgress] = []
        copied = await copy(store, at(one), at(two), progress=seen.append)
        assert copied.target.digest == pushed.target.digest
        assert seen[0].state is TransferState.RESOLVING
        assert (seen[-1].state, seen[-1].digest) == (TransferState.PUSHED, pushed.target.digest)
        two.clear()
        assert (await copy(store, at(one), at(two))).sent == 0
        assert two.requests() == [("HEAD", f"/v2/{REPOSITORY}/manifests/latest")]
        async with opened(tmp_path / "last") as last:
            await pull(last, at(two), all_platforms=True)
            for made in several.values():
                await has(last, made)


@real_registry
async def test_within_a_real_registry_blobs_are_mounted(store: orlop.Store, tmp_path: Path, made: MadeImage) -> None:
    with DockerRegistry(tmp_path / "one") as registry:
        async with opened(tmp_path / "first") as first:
            await stored(first, "one", made)
            await push(first, at(registry, "lib/source"), "one")
        registry.clear()
        copied = await copy(store, at(registry, "lib/source"), at(registry))
        assert copied.sent == made.target.size
        asked = registry.requests()
        assert [path for method, path in asked if method == "GET" and "/blobs/" in path] == []
        assert [path for method, path in asked if method == "PUT"] == [f"/v2/{REPOSITORY}/manifests/latest"]
        async with opened(tmp_path / "last") as last:
            await pull(last, at(registry))
            await has(last, made)


async def test_from_another_repository_of_the_target_that_has_it_nothing_is_read(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage
) -> None:
    await copy(store, at(source, "lib/one"), at(target, tail=":old"))
    source.clear()
    copied = await copy(store, at(source, "lib/one"), at(target, tail=":new"))
    assert copied.sent == made.target.size
    assert [line for line in lines(source) if line.startswith("GET") and "/blobs/" in line] == []
    assert target.held[REPOSITORY].tags == dict.fromkeys(("old", "new"), made.target.digest)


@pytest.mark.parametrize("tail", ["@{root}", ":latest@{root}"])
async def test_a_digest_is_copied(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage, tail: str
) -> None:
    root = made.target.digest
    await copy(store, at(source, "lib/one", tail.format(root=root)), at(target, tail=tail.format(root=root)))
    assert root in target.held[REPOSITORY].manifests


async def test_a_target_that_names_another_digest_is_refused(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry
) -> None:  # 44
    async with refuses(FailedPrecondition):
        await copy(store, at(source, "lib/one"), at(target, tail=f":v1@sha256:{'0' * 64}"))
    assert target.requests == []


async def test_platforms_are_chosen(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, several: dict[str, MadeImage]
) -> None:
    arm, z = several["linux/arm64"], several["linux/s390x"]
    await copy(store, at(source, "lib/index"), at(target, tail=":arm"), platforms=["linux/arm64"])
    assert target.held[REPOSITORY].tags["arm"] == arm.target.digest
    assert target.held[REPOSITORY].digests == set(arm.blobs)
    await copy(store, at(source, "lib/index"), at(target, tail=":two"), platforms=["linux/s390x", "linux/arm64"])
    listed = [each["digest"] for each in target.held[REPOSITORY].manifest("two")["manifests"]]
    assert listed == [arm.target.digest, z.target.digest]


async def test_what_the_source_has_not_is_not_found_and_no_tag_is_set(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage
) -> None:
    async with refuses(NotFound):
        await copy(store, at(source, "lib/none"), at(target))
    source.fault(made.layers[0].digest, Status(404), times=None)
    async with refuses(NotFound) as caught:
        await copy(store, at(source, "lib/one"), at(target))
    assert made.layers[0].digest in str(caught[0])
    assert target.held[REPOSITORY].tags == {}


async def test_a_source_that_breaks_off_is_asked_for_the_rest(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage
) -> None:
    layer = made.layers[0].digest
    source.fault(f"GET /v2/lib/one/blobs/{layer}", BreakAfter(20_000))
    await copy(store, at(source, "lib/one"), at(target))
    asked = [seen.headers.get("range") for seen in source.requests if seen.method == "GET" and layer in seen.path]
    assert asked == [None, "bytes=20000-"]
    assert target.held[REPOSITORY].digests == set(made.blobs)


async def test_an_upload_that_breaks_off_reads_only_the_rest(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage
) -> None:
    layer = made.layers[0]
    # The config and the small layer are there.
    target.held[REPOSITORY].blobs |= {made.config_digest: made.config, made.layers[1].digest: made.layers[1].data}
    target.fault("PUT /v2/lib/app/blobs/uploads/", TakeOnly(20_000))
    await copy(store, at(source, "lib/one"), at(target))
    asked = [
        seen.headers.get("range") for seen in source.requests if seen.method == "GET" and layer.digest in seen.path
    ]
    assert asked == [None, "bytes=20000-"]
    assert target.held[REPOSITORY].digests == set(made.blobs)


@pytest.mark.parametrize("what", ["layer", "manifest"])
async def test_wrong_bytes_are_not_passed_on(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage, what: str
) -> None:
    digest = made.layers[0].digest if what == "layer" else made.target.digest
    source.fault(f"GET /v2/lib/one/{'blobs' if what == 'layer' else 'manifests'}/{digest}", WrongBytes(), times=None)
    async with refuses(OrlopError):
        await copy(store, at(source, "lib/one"), at(target))
    assert target.held[REPOSITORY].tags == {}
    assert digest not in target.held[REPOSITORY].digests


async def test_each_registry_gets_its_own_credentials(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage
) -> None:
    source.require_basic("ann", "secret")
    target.require_bearer(user="bob", password="hidden")
    ann = orlop.RegistryAccess(plain_http=True, credentials=orlop.Credentials("ann", "secret"))
    bob = orlop.RegistryAccess(plain_http=True, credentials=orlop.Credentials("bob", "hidden"))
    async with refuses(Unauthenticated):
        await copy(store, at(source, "lib/one"), at(target), source_access=bob, target_access=ann)
    await copy(store, at(source, "lib/one"), at(target), source_access=ann, target_access=bob)
    assert target.held[REPOSITORY].tags == {"latest": made.target.digest}


@pytest.mark.parametrize("connections", [1, 2])
async def test_a_copy_within_one_host_ends_however_few_connections_it_may_have(
    tmp_path: Path, connections: int
) -> None:
    """Each upload holds one while it waits for another to read from."""
    made = random_image("narrow", [30_000] * 6)
    config = RegistryConfig(connections_per_host=connections)
    async with opened(tmp_path / "narrow", registry=config) as store:
        with WritableRegistry(mounts=False) as registry:
            await stored(store, "one", made)
            await push(store, at(registry, "lib/source"), "one")
            await copy(store, at(registry, "lib/source"), at(registry), max_concurrent_uploads=8)
            assert registry.held[REPOSITORY].digests == set(made.blobs)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_cancelled_copy_sets_no_tag_and_the_next_one_is_whole(
    store: orlop.Store, source: FaultyRegistry, target: WritableRegistry, made: MadeImage, side: str
) -> None:
    match = "GET /v2/lib/one/blobs/" if side == "source" else "PUT /v2/lib/app/blobs/"
    fault = (source if side == "source" else target).fault(match, Stall(None, 10 * STALL_S), times=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, store, at(source, "lib/one"), at(target))
        with trio.fail_after(TIMEOUT_S):
            while not fault.applied:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert target.held[REPOSITORY].tags == {}
    (source if side == "source" else target).heal()
    await copy(store, at(source, "lib/one"), at(target))
    assert target.held[REPOSITORY].digests == set(made.blobs)
