"""A store that an earlier release wrote opens, keeps what it kept, and is collected as it would have been."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import orlop

STORES = sorted(Path(__file__).parent.glob("*/store.tar.gz"))


@pytest.fixture(params=STORES, ids=lambda path: path.parent.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path / "store", filter="tar")
    return tmp_path / "store"


async def contents(store: orlop.Store) -> set[bytes]:
    return {(await store.content.read(info.digest))[:40] async for info in store.content.list()}


async def test_a_store_of_before_keeps_what_it_kept(folder: Path) -> None:
    image = {b"layer", b"config", b"manifest", bytes(40)}
    async with orlop.open_store(folder) as store:
        await store.collect()
        assert await contents(store) == {*image, b"held by the lease alone"}
        assert await contents(store.in_namespace("other")) == {b"root"}
        assert [lease.id async for lease in store.leases.list()] == ["all", "many"]
        assert [each.id async for each in store.leases.resources("many")] == ["image 0", "image 1", "image 2"]
        await store.leases.delete("all", sync=True)
    async with orlop.open_store(folder) as store:
        assert await contents(store) == image
        snapshots = store.snapshots.using("native")
        assert [info.name async for info in snapshots.list()] == ["base", "top"]
        await store.images.delete("app", sync=True)
        assert await contents(store) == set()
        assert [info.name async for info in snapshots.list()] == []
        assert await contents(store.in_namespace("other")) == {b"root"}
