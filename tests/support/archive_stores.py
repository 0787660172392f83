"""Stores that archives are imported into, and what is looked at after an import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import OrlopError
from orlop.protocol.registry.platforms import Platform
from orlop.protocol.world import Address
from orlop.storage.memory import MemoryStore

from .archives import Files, squeezed, tar_of, write_folder
from .images import INDEX, MadeImage, index_of
from .layers import digest_of, put_blob

__all__ = ["TIMEOUT_S", "brought", "has", "here", "nothing_came", "opened", "recorded", "refused", "stored", "written"]

TIMEOUT_S = 20.0
_REFERENCE = "containerd.io/gc.ref.content"


@asynccontextmanager
async def opened(folder: Path, way: str = "embedded") -> AsyncIterator[orlop.Store]:
    """Over the memory engine, which does not wait for the disk."""
    config = StoreConfig(str(folder))
    listen = [Address(path=f"{folder}/socket")] if way == "unix" else []
    async with run_store(config, real_world(), host_platform(), listen, MemoryStore()) as running:
        if way == "embedded":
            yield running.store
            return
        async with orlop.connect(running.addresses[0]) as store:
            yield store


def written(tmp_path: Path, files: Files | bytes, form: str = "tar") -> Path:
    """The archive as a file or folder; another with each call."""
    path = tmp_path / f"archive-{len(list(tmp_path.iterdir()))}.{form}"
    if form == "folder":
        assert not isinstance(files, bytes)
        return write_folder(path, files)
    data = files if isinstance(files, bytes) else tar_of(files)
    path.write_bytes(squeezed(data, {"tar.gz": "gzip", "tar.zst": "zstd"}.get(form, "")))
    return path


async def brought(
    store: orlop.Store, path: Path | str, *, unpack_for: Sequence[Platform] = (), **options: Any
) -> dict[str, str]:
    """What the import says it recorded: names and digests, in its order. It must be what is in the store."""
    with trio.fail_after(TIMEOUT_S):
        images = await orlop.import_archive(store, path, orlop.ImportOptions(**options), unpack_for=unpack_for)
    for each in images:
        assert await store.images.get(each.name) == each
    return {each.name: each.target.digest for each in images}


async def stored(
    store: orlop.Store, made: MadeImage | Mapping[str, MadeImage], *names: str, without: Sequence[str] = ()
) -> str:
    """Put an image, or an index of images by platform, into the store as a pull leaves it, but for the blobs in
    `without`; its digest. Names may be given later."""
    several = {"": made} if isinstance(made, MadeImage) else made
    async with store.lease() as leased:
        for one in several.values():
            for digest, data in one.blobs.items():
                if digest not in without:
                    children = [
                        ("config", one.config_digest),
                        *((f"l.{n}", b.digest) for n, b in enumerate(one.layers)),
                    ]
                    labels = {f"{_REFERENCE}.{key}": child for key, child in children}
                    await put_blob(leased, data, labels=labels if digest == one.target.digest else {})
        if isinstance(made, MadeImage):
            target = made.target
        else:
            root = index_of(made)
            target = orlop.Descriptor(INDEX, digest_of(root), len(root))
            labels = {f"{_REFERENCE}.m.{n}": each.target.digest for n, each in enumerate(made.values())}
            await put_blob(leased, root, labels=labels)
        for name in names:
            await leased.images.create(name, target)
    return target.digest


async def recorded(store: orlop.Store) -> dict[str, str]:
    return {each.name: each.target.digest async for each in store.images.list()}


async def here(store: orlop.Store) -> set[str]:
    return {info.digest async for info in store.content.list()}


async def has(store: orlop.Store, *made: MadeImage) -> None:
    """They are here whole, after a collection, too; and no lease is left that would keep them."""
    assert [lease async for lease in store.leases.list()] == []
    await store.collect()
    for one in made:
        for digest, data in one.blobs.items():
            assert await store.content.read(digest) == data


async def nothing_came(store: orlop.Store) -> None:
    """No image; and what came of the archive goes with the next collection."""
    assert await recorded(store) == {}
    assert [lease async for lease in store.leases.list()] == []
    await store.collect()
    assert await here(store) == set()


async def refused(store: orlop.Store, path: Path, kind: type[OrlopError], **options: Any) -> OrlopError:
    with trio.fail_after(TIMEOUT_S), pytest.raises(kind) as caught:
        await orlop.import_archive(store, path, orlop.ImportOptions(**options))
    assert "\n" not in str(caught.value)
    await nothing_came(store)
    return caught.value
