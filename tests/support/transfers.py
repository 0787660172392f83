"""What tests of pulls and pushes share: stores in this process, images of random bytes, and who was asked what."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

import orlop
from orlop.actors.config import StoreConfig, TransferConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import Internal, NotFound, OrlopError
from orlop.storage.memory import MemoryStore

from .images import INDEX, MadeImage, image, index_of
from .layers import digest_of, put_blob
from .layout_registry import LayoutRegistry

__all__ = [
    "AT_ONCE", "PLAIN", "STALL_S", "TIMEOUT_S", "as_pulled", "digests", "has", "is_absent", "lines", "opened", "pull",
    "push", "random_image", "refuses", "stored", "write_hosts",
]  # fmt: skip

TIMEOUT_S: Final = 20.0
STALL_S: Final = 0.4
_REFERENCE: Final = "containerd.io/gc.ref.content"
AT_ONCE: Final = {"Retry-After": "0"}
"""Retries without their pauses."""
PLAIN: Final = orlop.RegistryAccess(plain_http=True)


@asynccontextmanager
async def opened(
    folder: Path, *, transfer: TransferConfig | None = None, **settings: Any
) -> AsyncIterator[orlop.Store]:
    """Over the memory engine, which does not wait for the disk."""
    config = StoreConfig(str(folder), transfer=transfer or TransferConfig(stall_s=STALL_S), **settings)
    async with run_store(config, real_world(), host_platform(), [], MemoryStore()) as running:
        yield running.store


def random_image(seed: object, sizes: Sequence[int] = (60_000, 500), **more: Any) -> MadeImage:
    """An image of layers of so many random bytes, which nobody unpacks; equal seeds give equal digests."""
    bytes_of = random.Random(str(seed))
    tar = "application/vnd.oci.image.layer.v1.tar"
    return image([bytes_of.randbytes(size) for size in sizes], media_type=tar, **more)


async def stored(
    store: orlop.Store, name: str, made: MadeImage | Mapping[str, MadeImage], *, without: Collection[str] = ()
) -> orlop.Descriptor:
    """Have an image in the store, or an index of several by platform, but for some of its blobs."""
    several = [made] if isinstance(made, MadeImage) else list(made.values())
    async with store.lease() as leased:
        for one in several:
            labels = {f"{_REFERENCE}.l.{number}": blob.digest for number, blob in enumerate(one.layers)}
            labels[f"{_REFERENCE}.config"] = one.config_digest
            for digest, data in one.blobs.items():
                if digest not in without:
                    await put_blob(leased, data, labels=labels if data is one.manifest else None)
        target = several[0].target
        if not isinstance(made, MadeImage):
            data = index_of(made)
            labels = {f"{_REFERENCE}.m.{number}": one.target.digest for number, one in enumerate(several)}
            await put_blob(leased, data, labels=labels)
            target = orlop.Descriptor(INDEX, digest_of(data), len(data))
        await leased.images.create(name, target)
    return target


async def as_pulled(store: orlop.Store, made: MadeImage, host: str, repository: str) -> None:
    """Label what is in the store as if it had come from there."""
    label = {f"containerd.io/distribution.source.{host.partition(':')[0]}": repository}
    for digest in set(made.blobs) & await digests(store):
        await store.content.update(digest, label, [f"labels.{key}" for key in label])


async def pull(store: orlop.Store, reference: str, access: orlop.RegistryAccess = PLAIN, **options: Any) -> orlop.Image:
    with trio.fail_after(TIMEOUT_S):
        return await store.pull(orlop.PullImage(reference, access=access, **options))


async def push(
    store: orlop.Store, reference: str, name: str = "", access: orlop.RegistryAccess = PLAIN, **options: Any
) -> orlop.Pushed:
    with trio.fail_after(TIMEOUT_S):
        return await store.push(orlop.PushImage(reference, name, access=access, **options))


@asynccontextmanager
async def refuses(*kinds: type[OrlopError]) -> AsyncIterator[list[OrlopError]]:
    """The block fails with one of these, said in one line; it is in the list afterwards."""
    caught: list[OrlopError] = []
    with pytest.raises(kinds or OrlopError) as found:
        yield caught
    assert not isinstance(found.value, Internal)
    assert "\n" not in str(found.value)
    caught.append(found.value)


async def digests(store: orlop.Store) -> set[str]:
    return {info.digest async for info in store.content.list()}


async def has(store: orlop.Store, made: MadeImage) -> None:
    """All of the image is there, byte for byte."""
    for digest, data in made.blobs.items():
        assert await store.content.read(digest) == data


async def is_absent(store: orlop.Store, digest: str) -> bool:
    try:
        await store.content.info(digest)
    except NotFound:
        return True
    return False


def lines(registry: LayoutRegistry, part: str = "") -> list[str]:
    """`METHOD path` of the requests that have this in it, in their order."""
    return [seen.line for seen in registry.requests if part in seen.line]


def write_hosts(root: Path, namespace: str, text: str) -> Path:
    """A folder of hosts with a `hosts.toml` for one registry; the folder."""
    folder = root / namespace
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.toml").write_text(text)
    return root
