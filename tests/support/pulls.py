"""What the tests of pulls share: the image they pull, where it lies, and how they look at what came of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.actors.config import StoreConfig, TransferConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import OrlopError
from orlop.protocol.messages import Credentials, PullImage, RegistryAccess, TransferProgress, TransferState
from orlop.protocol.world import Address
from orlop.storage.engine import KeyValue
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import DockerRegistry, MadeImage

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


def replace_reference(request: PullImage, reference: str) -> PullImage:
    return PullImage(reference, platforms=request.platforms, access=RegistryAccess(plain_http=True))


def begins(event: trio.Event, digest: str) -> Callable[[TransferProgress], None]:
    def show(item: TransferProgress) -> None:
        if item.digest == digest and item.state is TransferState.DOWNLOADING:
            event.set()

    return show
