"""Pulls from registries on loopback, good and bad ones, embedded and through a unix socket.

Registries bind port 0; whoever is to stall, break or lie does it because the test said so. Source: spec registry
3 to 9; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.actors.config import StoreConfig, TransferConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from orlop.protocol.messages import Credentials, PullImage, RegistryAccess, TransferProgress, TransferState
from orlop.protocol.world import Address
from orlop.storage.engine import KeyValue
from orlop.storage.memory import MemoryStore
from tests.support.faulty_registry import (
    BreakAfter,
    FaultyRegistry,
    IgnoreRange,
    Lie,
    Redirect,
    Stall,
    Status,
    WrongBytes,
)
from tests.support.layout_registry import LayoutRegistry, Reply, Seen
from tests.support.registries import DockerRegistry, MadeImage, make_layout, push_layout

TIMEOUT_S = 10.0
STALL_S = 0.4
REPOSITORY = "library/app"
SOURCE_LABEL = "containerd.io/distribution.source.127.0.0.1"
AT_ONCE = {"Retry-After": "0"}  # retries without their pauses
ANY_BLOB = f"GET /v2/{REPOSITORY}/blobs/"
real_registry = pytest.mark.skipif(
    not DockerRegistry.available() or shutil.which("skopeo") is None, reason="needs docker-registry and skopeo"
)


@dataclass(frozen=True)
class Layout:
    """An image layout on disk, as read by json alone."""

    folder: Path
    made: MadeImage

    def blob(self, digest: str) -> bytes:
        return (self.folder / "blobs" / digest.replace(":", "/")).read_bytes()

    def document(self, digest: str) -> Any:
        return json.loads(self.blob(digest))

    @property
    def root(self) -> str:
        return self.made["digest"]

    @property
    def manifests(self) -> dict[str, str]:
        """Platform -> digest, of an index."""
        found = {}
        for entry in self.document(self.root)["manifests"]:
            platform = entry["platform"]
            found[f"{platform['os']}/{platform['architecture']}"] = entry["digest"]
        return found

    def layers(self, platform: str = "linux/amd64") -> list[str]:
        return [layer["digest"] for layer in self.made["layers"] if layer["platform"] == platform]

    @property
    def layer(self) -> str:
        """The first layer; some 200 kB, so it goes through an ingest."""
        return self.layers()[0]

    @property
    def config(self) -> str:
        digest: str = self.document(self.manifests["linux/amd64"])["config"]["digest"]
        return digest

    @property
    def needed(self) -> set[str]:
        """What a pull for linux/amd64 cannot do without."""
        return {self.root, self.manifests["linux/amd64"], self.config, *self.layers()}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("image") / "layout"
    options = ["--layers", "2", "--files", "8", "--size", "500K", "--noise", "0.9", "--platforms"]
    return Layout(folder, make_layout(folder, *options, "linux/amd64,linux/arm64"))


@pytest.fixture
def registry(image: Layout) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: image.folder}) as registry:
        yield registry


@dataclass(frozen=True)
class Opener:
    way: str
    folder: Path

    @property
    def blobs(self) -> Path:
        return self.folder / "store" / "blobs"

    @asynccontextmanager
    async def open(self, engine: KeyValue | None = None, **settings: Any) -> AsyncIterator[orlop.Store]:
        """Over LevelDB, unless another engine is given."""
        config = StoreConfig(str(self.folder / "store"), transfer=TransferConfig(stall_s=STALL_S), **settings)
        listen = [Address(path=f"{config.root}/socket")] if self.way == "unix" else []
        async with run_store(config, real_world(), host_platform(), listen, engine) as running:
            if self.way == "embedded":
                yield running.store
                return
            async with orlop.connect(running.addresses[0]) as store:
                yield store


@pytest.fixture(params=["embedded", "unix"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return Opener(request.param, tmp_path)


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[orlop.Store]:
    """Over the memory engine, which is held to the same suite as LevelDB and does not wait for the disk."""
    async with opener.open(MemoryStore()) as store:
        yield store


def asked(
    registry: LayoutRegistry | DockerRegistry, credentials: Credentials | None = None, **options: Any
) -> PullImage:
    options.setdefault("platforms", ["linux/amd64"])
    return PullImage(name_at(registry), access=RegistryAccess(plain_http=True, credentials=credentials), **options)


def name_at(registry: LayoutRegistry | DockerRegistry) -> str:
    return f"{registry.address}/{REPOSITORY}:latest"


async def pull(store: orlop.Store, request: PullImage, **more: Any) -> orlop.Image:
    with trio.fail_after(TIMEOUT_S):
        return await store.pull(request, **more)


async def refused(
    store: orlop.Store, request: PullImage, kind: type[OrlopError] | tuple[type[OrlopError], ...]
) -> OrlopError:
    """The pull fails so, says it in one line, and records nothing."""
    with pytest.raises(kind) as caught:
        await pull(store, request)
    assert "\n" not in str(caught.value)
    assert [i async for i in store.images.list()] == []
    async for lease in store.leases.list():  # what came with a pull that failed is held for the next attempt
        assert [resource async for resource in store.leases.resources(lease.id)]
        assert "containerd.io/gc.expire" in lease.labels
    return caught.value


async def digests(store: orlop.Store) -> set[str]:
    return {info.digest async for info in store.content.list()}


async def is_complete(store: orlop.Store, image: Layout) -> None:
    for digest in image.needed:
        assert await store.content.read(digest) == image.blob(digest)


def lines(registry: LayoutRegistry, part: str = "") -> list[str]:
    return [seen.line for seen in registry.requests if part in seen.line]


def blob_path(digest: str) -> str:
    return f"GET /v2/{REPOSITORY}/blobs/{digest}"


def ranges(registry: LayoutRegistry, digest: str) -> list[str | None]:
    return [seen.headers.get("range") for seen in registry.requests if seen.line == blob_path(digest)]


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """A cancelled call over a socket ends at the server a moment later; nothing we hold says when that was."""
    with trio.fail_after(TIMEOUT_S):
        while not await check():
            await trio.sleep(0.005)


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


def replace_reference(request: PullImage, reference: str) -> PullImage:
    return PullImage(reference, platforms=request.platforms, access=RegistryAccess(plain_http=True))


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


# What is here already


async def test_a_second_pull_is_one_head(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    await pull(store, asked(registry))
    registry.clear()
    pulled = await pull(store, asked(registry))
    assert pulled.target.digest == image.root
    assert lines(registry) == [f"HEAD /v2/{REPOSITORY}/manifests/latest"]


async def test_a_second_namespace_downloads_nothing(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 36
    await pull(store, asked(registry))
    registry.clear()
    other = store.in_namespace("other")
    await pull(other, asked(registry))
    assert lines(registry) == [f"HEAD /v2/{REPOSITORY}/manifests/latest"]
    await is_complete(other, image)
    for digest in image.needed:
        assert (await other.content.info(digest)).labels == (await store.content.info(digest)).labels


async def test_in_isolation_a_second_namespace_asks_whether_it_may_have_each_blob(
    opener: Opener, image: Layout, registry: FaultyRegistry
) -> None:
    """DESIGN 6: bytes are shared only after the second's own credentials got the registry's yes."""
    async with opener.open(MemoryStore(), content_sharing_policy="isolated") as store:
        await pull(store, asked(registry))
        registry.clear()
        other = store.in_namespace("other")
        await pull(other, asked(registry))
        assert all(line.startswith("HEAD ") for line in lines(registry))
        assert {line.rpartition("/")[2] for line in lines(registry)} >= image.needed - {image.root}
        await is_complete(other, image)
        registry.fault(blob_path(image.layer).replace("GET", "HEAD"), Status(403))
        registry.fault(blob_path(image.layer), Status(403))
        third = store.in_namespace("third")
        with pytest.raises(PermissionDenied):
            await pull(third, asked(registry))
        with pytest.raises(NotFound):
            await third.content.info(image.layer)


@pytest.mark.parametrize("second", ["default", "other"])
async def test_two_pulls_at_once_share_every_download(
    store: orlop.Store, image: Layout, registry: FaultyRegistry, second: str
) -> None:  # 55
    for digest in (image.config, *image.layers()):
        registry.fault(blob_path(digest), Stall(100, STALL_S / 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, store, asked(registry))
        nursery.start_soon(pull, store.in_namespace(second), asked(registry))
    counts = {digest: len(ranges(registry, digest)) for digest in (image.config, *image.layers())}
    assert set(counts.values()) == {1}
    await is_complete(store, image)
    await is_complete(store.in_namespace(second), image)


async def test_when_the_first_of_two_pulls_is_cancelled_the_second_takes_over(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    layer, size = image.layer, len(image.blob(image.layer))
    registry.fault(blob_path(layer), Stall(size // 2, None))
    other = store.in_namespace("other")
    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()
        begun = trio.Event()

        async def lead() -> None:
            with first:
                await pull(store, asked(registry), progress=begins(begun, layer))

        nursery.start_soon(lead)
        with trio.fail_after(TIMEOUT_S):
            await begun.wait()
        nursery.start_soon(pull, other, asked(registry))
        await eventually(lambda: heads(registry, 2))
        first.cancel()
    await is_complete(other, image)
    assert [i async for i in store.images.list()] == []


async def heads(registry: LayoutRegistry, count: int) -> bool:
    return len(lines(registry, "HEAD ")) >= count


def begins(event: trio.Event, digest: str) -> Callable[[TransferProgress], None]:
    def show(item: TransferProgress) -> None:
        if item.digest == digest and item.state is TransferState.DOWNLOADING:
            event.set()

    return show


class Counting(LayoutRegistry):
    """Remembers how many blobs it sent at once, at most."""

    def __init__(self, layouts: dict[str, Path]) -> None:
        super().__init__(layouts)
        self._guard = threading.Lock()
        self._now = 0
        self.most = 0

    def answer(self, seen: Seen) -> Reply:
        reply = super().answer(seen)
        return replace(reply, parts=self._counted(reply.parts)) if "/blobs/" in seen.path else reply

    def _counted(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        with self._guard:
            self._now += 1
            self.most = max(self.most, self._now)
        self.closing.wait(0.03)  # so that those allowed at once meet
        yield from parts
        with self._guard:
            self._now -= 1


async def test_no_more_blobs_at_once_than_was_said(store: orlop.Store, tmp_path: Path) -> None:  # 59
    folder = tmp_path / "many"
    make_layout(folder, "--layers", "11", "--files", "11", "--size", "40K")
    with Counting({REPOSITORY: folder}) as registry:
        await pull(store, asked(registry, max_concurrent_downloads=3))
    assert registry.most == 3


# Credentials


async def test_one_token_serves_the_whole_pull(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.require_bearer(user="ann", password="secret")
    await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
    assert registry.token_requests == 1  # 16
    (token,) = (seen for seen in registry.requests if seen.path.startswith("/token"))
    assert b"scope=repository%3Alibrary%2Fapp%3Apull" in token.body
    await is_complete(store, image)


async def test_a_token_for_anybody_needs_no_credentials(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.require_bearer()
    await pull(store, asked(registry))
    assert lines(registry, "/token") == ["GET /token?service=test&scope=repository%3Alibrary%2Fapp%3Apull"]
    await is_complete(store, image)


async def test_an_identity_token_gets_a_token(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.require_bearer(user="ann", password="identity")
    await pull(store, asked(registry, credentials=Credentials("", "identity")))
    await is_complete(store, image)


async def test_a_token_server_that_takes_no_post_is_asked_with_get(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 17
    registry.require_bearer(user="ann", password="secret")
    registry.fault("POST /token", Status(404), times=None)
    await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
    await is_complete(store, image)


class Forgetful(FaultyRegistry):
    """Revokes all tokens when the first blob is asked for."""

    forgot = False

    def answer(self, seen: Seen) -> Reply:
        if "/blobs/" in seen.path and not self.forgot:
            self.forgot = True
            self.revoke_tokens()
        return super().answer(seen)


async def test_a_token_that_the_registry_forgot_is_fetched_anew(store: orlop.Store, image: Layout) -> None:
    """Spec registry 3: only a challenge with an error that comes twice for one request is the end."""
    with Forgetful({REPOSITORY: image.folder}) as registry:
        registry.require_bearer()
        await pull(store, asked(registry))
        assert registry.token_requests == 2
    await is_complete(store, image)


async def test_an_answer_of_the_token_server_without_token_is_said_clearly(
    store: orlop.Store, registry: FaultyRegistry
) -> None:  # 18
    registry.require_bearer()
    registry.fault("/token", Status(200, {"Content-Type": "application/json"}, b"{}"))
    error = await refused(store, asked(registry), Unauthenticated)
    assert "token" in str(error)


async def test_basic_credentials_are_sent(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.require_basic("ann", "secret")
    await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
    await is_complete(store, image)


async def test_wrong_basic_credentials_are_tried_once(store: orlop.Store, registry: FaultyRegistry) -> None:  # 20
    registry.require_basic("ann", "secret")
    error = await refused(store, asked(registry, credentials=Credentials("ann", "wrong")), Unauthenticated)
    assert "wrong" not in str(error)
    assert sum("authorization" in seen.headers for seen in registry.requests) == 1


async def test_wrong_credentials_for_a_token_are_unauthenticated(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.require_bearer(user="ann", password="secret")
    error = await refused(store, asked(registry, credentials=Credentials("ann", "wrong")), Unauthenticated)
    assert "wrong" not in str(error)
    assert registry.token_requests <= 2


async def test_no_credentials_where_some_are_needed_ends_after_one_request(
    store: orlop.Store, registry: FaultyRegistry
) -> None:  # 19
    registry.require_basic("ann", "secret")
    await refused(store, asked(registry), Unauthenticated)
    assert len(registry.requests) == 1


async def test_a_redirect_to_another_host_carries_no_credentials(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 21
    registry.require_basic("ann", "secret")
    with FaultyRegistry({REPOSITORY: image.folder}) as elsewhere:
        registry.fault(ANY_BLOB, Redirect(elsewhere.url), times=None)
        elsewhere.fault(blob_path(image.layer), BreakAfter(60_000))
        await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
        assert len(elsewhere.requests) == 5  # two layers, two configs, and one layer's rest
        assert not any("authorization" in seen.headers for seen in elsewhere.requests)
        assert ranges(elsewhere, image.layer)[0] is None
        assert re.fullmatch(r"bytes=\d+-", ranges(elsewhere, image.layer)[1] or "")
    await is_complete(store, image)


async def test_redirects_in_a_ring_end(store: orlop.Store, registry: FaultyRegistry) -> None:  # 22
    registry.fault(ANY_BLOB, Redirect(registry.url), times=None)
    error = await refused(store, asked(registry, max_concurrent_downloads=1), OrlopError)
    assert not isinstance(error, Internal)
    assert "redirect" in str(error)
    assert len(lines(registry, "/blobs/")) <= 3 * 11


# Answers that are no success


async def test_a_missing_tag_is_not_found(store: orlop.Store, registry: FaultyRegistry) -> None:
    error = await refused(store, replace_reference(asked(registry), f"{registry.address}/{REPOSITORY}:none"), NotFound)
    assert f"{REPOSITORY}:none" in str(error)


async def test_a_missing_blob_is_not_found_by_name(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.fault(blob_path(image.layer), Status(404), times=None)
    error = await refused(store, asked(registry), NotFound)
    assert image.layer in str(error)


async def test_403_is_permission_denied_and_is_not_tried_again(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"pay first"}]}'
    registry.fault(blob_path(image.layer), Status(403, {"Content-Type": "application/json"}, body), times=None)
    error = await refused(store, asked(registry), PermissionDenied)
    assert image.layer in str(error)
    assert "pay first" in str(error)
    assert len(ranges(registry, image.layer)) == 1


async def test_403_to_the_head_gives_the_registrys_words(store: orlop.Store, registry: FaultyRegistry) -> None:
    """Spec registry 5: a 403 to HEAD triggers one GET to obtain the error text."""
    body = b'{"errors":[{"code":"DENIED","message":"pay first"}]}'
    registry.fault("/manifests/latest", Status(403, {"Content-Type": "application/json"}, body), times=None)
    error = await refused(store, asked(registry), PermissionDenied)
    assert "pay first" in str(error)


async def test_retry_after_is_waited_for(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:  # 14
    registry.fault("HEAD ", Status(429, {"Retry-After": "1"}))
    began = trio.current_time()
    await pull(store, asked(registry))
    assert trio.current_time() - began >= 1.0
    await is_complete(store, image)


async def test_429_four_times_is_survived(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:  # 13
    registry.fault(blob_path(image.layer), Status(429, AT_ONCE), times=4)
    await pull(store, asked(registry))
    assert len(ranges(registry, image.layer)) == 5


async def test_429_without_end_is_resource_exhausted_after_five_requests(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault("HEAD ", Status(429, AT_ONCE), times=None)
    await refused(store, asked(registry), ResourceExhausted)
    assert len(registry.requests) == 5


async def test_server_errors_are_tried_again(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:  # 15
    for match, code in (("HEAD ", 500), ("/manifests/sha256", 502), (blob_path(image.layer), 503), (ANY_BLOB, 504)):
        registry.fault(match, Status(code, AT_ONCE))
    await pull(store, asked(registry))
    await is_complete(store, image)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_the_same_server_error_twice_is_unavailable_and_names_the_blob(
    store: orlop.Store, image: Layout, registry: FaultyRegistry, code: int
) -> None:  # 15
    """Spec registry 4: not tried again if the previous answer was the same status."""
    headers = {} if code == 503 else AT_ONCE
    registry.fault(blob_path(image.layer), Status(code, headers), times=2)
    error = await refused(store, asked(registry), Unavailable)
    assert image.layer in str(error)
    assert str(code) in str(error)
    assert len(ranges(registry, image.layer)) == 2
    await pull(store, asked(registry))
    await is_complete(store, image)


async def test_server_errors_that_differ_are_each_tried_again(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    for code in (500, 504, 500, 502):
        registry.fault(blob_path(image.layer), Status(code, AT_ONCE))
    await pull(store, asked(registry))
    assert len(ranges(registry, image.layer)) == 5
    await is_complete(store, image)


async def test_a_registry_that_says_when_to_come_again_is_asked_up_to_five_times(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault(blob_path(image.layer), Status(503, AT_ONCE), times=None)
    await refused(store, asked(registry), Unavailable)
    assert len(ranges(registry, image.layer)) == 5
    registry.heal()
    registry.clear()
    registry.fault(blob_path(image.layer), Status(503, AT_ONCE), times=4)
    await pull(store, asked(registry))
    assert len(ranges(registry, image.layer)) == 5


async def test_a_registry_that_is_not_there_is_unavailable(store: orlop.Store, image: Layout) -> None:
    with LayoutRegistry({REPOSITORY: image.folder}) as registry:
        request = asked(registry)
    error = await refused(store, request, Unavailable)
    assert request.reference.partition("/")[0] in str(error)


async def test_head_that_is_not_allowed_becomes_get(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 4
    registry.fault("HEAD ", Status(405), times=None)
    await pull(store, asked(registry))
    await is_complete(store, image)


async def test_head_without_a_digest_is_followed_by_get(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 3
    registry.fault("HEAD ", Lie(digest=""), times=None)
    assert (await pull(store, asked(registry))).target.digest == image.root


async def test_a_digest_that_is_none_is_refused_by_its_value(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("HEAD ", Lie(digest="sha256:zz"), times=None)
    assert "sha256:zz" in str(await refused(store, asked(registry), OrlopError))  # 5


async def test_schema_1_is_refused(store: orlop.Store, registry: FaultyRegistry) -> None:  # 30
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    registry.fault("/manifests/", Lie(content_type=kind), times=None)
    assert "schema 1" in str(await refused(store, asked(registry), InvalidArgument))


async def test_a_type_that_says_nothing_is_found_out(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault("/manifests/", Lie(content_type="application/json"), times=None)
    pulled = await pull(store, asked(registry))
    assert pulled.target.media_type == image.made["media_type"]
    await is_complete(store, image)


async def test_a_manifest_over_the_limit_is_refused(store: orlop.Store, registry: FaultyRegistry) -> None:  # 31
    registry.fault("/manifests/", Lie(content_length_delta=4_393_217), times=None)
    await refused(store, asked(registry), OrlopError)


async def test_an_encoded_manifest_is_decoded(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    packed = gzip.compress(image.blob(image.root))
    headers = {"Content-Encoding": "gzip", "Content-Type": image.made["media_type"]}
    registry.fault(f"GET /v2/{REPOSITORY}/manifests/{image.root}", Status(200, headers, packed))
    await pull(store, asked(registry))
    await is_complete(store, image)


# Wrong bytes


async def is_not_here(store: orlop.Store, digest: str) -> None:
    with pytest.raises(NotFound):
        await store.content.info(digest)


@pytest.mark.parametrize("what", ["layer", "config"])
async def test_a_wrong_digest_is_never_committed_and_poisons_nothing(
    store: orlop.Store, image: Layout, registry: FaultyRegistry, what: str
) -> None:  # 7
    digest = image.layer if what == "layer" else image.config
    registry.fault(blob_path(digest), WrongBytes(), times=None)
    error = await refused(store, asked(registry), FailedPrecondition)
    assert digest in str(error)
    await is_not_here(store, digest)
    assert [i.ref async for i in store.content.ingests() if digest in i.ref] == []
    registry.heal()
    await pull(store, asked(registry))
    await is_complete(store, image)


async def test_a_manifest_with_a_wrong_digest_is_never_committed(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    digest = image.manifests["linux/amd64"]
    registry.fault(f"/manifests/{digest}", WrongBytes(), times=None)
    error = await refused(store, asked(registry), FailedPrecondition)
    assert digest in str(error)
    await is_not_here(store, digest)


@pytest.mark.parametrize("what", ["layer", "config"])
@pytest.mark.parametrize("delta", [-10, 10])
async def test_a_wrong_size_is_never_committed(
    store: orlop.Store, image: Layout, registry: FaultyRegistry, what: str, delta: int
) -> None:  # 8
    digest = image.layer if what == "layer" else image.config
    registry.fault(blob_path(digest), Lie(content_length_delta=delta), times=None)
    error = await refused(store, asked(registry), (FailedPrecondition, Unavailable))
    assert digest in str(error)
    await is_not_here(store, digest)
    registry.heal()
    await pull(store, asked(registry))
    await is_complete(store, image)


# Lost connections


async def test_a_layer_that_breaks_goes_on_where_it_broke(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 9
    registry.fault(blob_path(image.layer), BreakAfter(60_000), times=2)
    await pull(store, asked(registry))
    assert ranges(registry, image.layer) == [None, "bytes=60000-", "bytes=120000-"]
    await is_complete(store, image)


async def test_a_small_blob_that_breaks_is_completed(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault(blob_path(image.config), BreakAfter(100))
    await pull(store, asked(registry))
    await is_complete(store, image)


async def test_a_manifest_that_breaks_is_read_again(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault("GET ", BreakAfter(100))
    registry.fault("HEAD ", BreakAfter(None))
    await pull(store, asked(registry))
    await is_complete(store, image)


async def test_a_registry_without_ranges_sends_the_layer_again(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 10
    registry.fault(blob_path(image.layer), BreakAfter(60_000))
    registry.fault(blob_path(image.layer), IgnoreRange(), times=None)
    await pull(store, asked(registry))
    assert ranges(registry, image.layer) == [None, "bytes=60000-"]
    await is_complete(store, image)


async def test_a_range_that_begins_elsewhere_is_an_error(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 12
    data = image.blob(image.layer)
    elsewhere = Status(206, {"Content-Range": f"bytes 50000-{len(data) - 1}/{len(data)}"}, data[50_000:])
    registry.fault(blob_path(image.layer), BreakAfter(60_000))
    registry.fault(blob_path(image.layer), elsewhere, times=None)
    error = await refused(store, asked(registry), OrlopError)
    assert image.layer in str(error)
    await is_not_here(store, image.layer)


async def test_breaking_without_end_fails_and_the_next_pull_goes_on_from_there(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 11
    registry.fault(blob_path(image.layer), BreakAfter(60_000))
    registry.fault(blob_path(image.layer), BreakAfter(0), times=None)
    error = await refused(store, asked(registry), Unavailable)
    assert image.layer in str(error)
    assert "60000" in str(error)
    # The first, and three reopenings without progress.
    assert ranges(registry, image.layer) == [None, *["bytes=60000-"] * 3]
    registry.heal()
    registry.clear()
    await pull(store, asked(registry))
    assert ranges(registry, image.layer) == ["bytes=60000-"]
    await is_complete(store, image)


async def test_an_interrupted_layer_goes_on_after_a_restart(
    opener: Opener, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault(blob_path(image.layer), BreakAfter(60_000))
    registry.fault(blob_path(image.layer), BreakAfter(0), times=None)
    async with opener.open() as store:
        await refused(store, asked(registry), Unavailable)
    registry.heal()
    registry.clear()
    async with opener.open() as store:
        await pull(store, asked(registry))
        assert ranges(registry, image.layer) == ["bytes=60000-"]
        await is_complete(store, image)


async def test_a_stalled_layer_is_asked_for_again(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.fault(blob_path(image.layer), Stall(60_000, None))
    began = trio.current_time()
    await pull(store, asked(registry))
    assert trio.current_time() - began < 10 * STALL_S
    assert ranges(registry, image.layer) == [None, "bytes=60000-"]
    await is_complete(store, image)


async def test_a_registry_that_only_stalls_is_unavailable(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault(blob_path(image.layer), Stall(0, None), times=None)
    error = await refused(store, asked(registry), Unavailable)
    assert image.layer in str(error)


# Cancellation, and what is left


async def test_a_cancelled_pull_leaves_no_image_and_the_next_one_ends_its_lease(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault(blob_path(image.layer), Stall(60_000, None))
    begun = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ignored, store, asked(registry), begins(begun, image.layer))
        with trio.fail_after(TIMEOUT_S):
            await begun.wait()
        nursery.cancel_scope.cancel()

    await eventually(lambda: _held_for_a_while(store))
    assert [i async for i in store.images.list()] == []
    registry.heal()
    await pull(store, asked(registry))
    await is_complete(store, image)
    assert [lease async for lease in store.leases.list()] == []


async def _held_for_a_while(store: orlop.Store) -> bool:
    """What has come is held for the next attempt, but not for ever."""
    left = [lease async for lease in store.leases.list()]
    return len(left) == 1 and "containerd.io/gc.expire" in left[0].labels


async def _ignored(store: orlop.Store, request: PullImage, progress: Callable[[TransferProgress], None]) -> None:
    await store.pull(request, progress)


@pytest.mark.parametrize("match", ["HEAD ", "GET ", "/token", ANY_BLOB])
async def test_a_pull_can_be_cancelled_at_every_stage(
    store: orlop.Store, image: Layout, registry: FaultyRegistry, match: str
) -> None:
    registry.require_bearer()
    fault = registry.fault(match, Stall(None, None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.pull, asked(registry))
        with trio.fail_after(TIMEOUT_S):
            while not fault.applied:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    registry.heal()
    await pull(store, asked(registry))
    await is_complete(store, image)
    assert [lease async for lease in store.leases.list()] == []


async def test_a_store_that_is_cancelled_with_its_pull_ends_at_once(
    image: Layout, registry: FaultyRegistry, tmp_path: Path
) -> None:
    """What Ctrl-C and a time-out do to a command on an own store."""
    registry.fault(blob_path(image.layer), Stall(None, None))
    began = trio.current_time()
    with trio.move_on_after(STALL_S):
        async with orlop.open_store(tmp_path / "store", serve_socket=False) as store:
            await store.pull(asked(registry))
    assert trio.current_time() - began < 4
    async with orlop.open_store(tmp_path / "store", serve_socket=False) as store:
        assert [i async for i in store.images.list()] == []


async def test_a_lease_of_the_callers_holds_what_the_pull_brings(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    lease = await store.leases.create("mine")
    pulled = await pull(store.with_lease(lease.id), asked(registry))
    held = {resource.id async for resource in store.leases.resources("mine") if resource.type == "content"}
    assert image.needed <= held
    await store.images.delete(pulled.name, sync=True)
    await is_complete(store, image)
    await store.leases.delete("mine", sync=True)
    assert await digests(store) == set()


async def test_nothing_is_left_on_disk_once_the_image_is_deleted(
    store: orlop.Store, opener: Opener, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault(blob_path(image.layer), BreakAfter(60_000))
    registry.fault(blob_path(image.layers()[1]), WrongBytes())
    pulled = await pull(store, asked(registry))
    assert files_below(opener.blobs) >= 2
    other = store.in_namespace("other")
    await pull(other, asked(registry))
    await store.images.delete(pulled.name, sync=True)
    assert await digests(store) == set()
    await is_complete(other, image)
    await other.images.delete(pulled.name, sync=True)
    assert await digests(other) == set()
    assert files_below(opener.blobs) == 0


def files_below(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
