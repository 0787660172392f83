"""Namespaces over one backend: adopting what another has, and isolation. Source: spec content 6, 13.2, 13.3, 14."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

import orlop
from orlop.actors.config import StoreConfig
from orlop.bin.daemon import read_config
from orlop.bin.embed import open_store
from orlop.protocol import errors
from orlop.storage.blobs.sharing import sharing_policy

ROOT = {"containerd.io/gc.root": "test"}
SIZES = [1000, 40_000]  # in the engine, and a file


def blob(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def bring(store: orlop.Store, data: bytes, **labels: str) -> str:
    async with store.content.ingest("bring") as writer:
        await writer.write(data)
        return (await writer.commit(labels={**ROOT, **labels})).digest


@pytest.mark.parametrize("size", SIZES)
async def test_what_another_namespace_has_is_adopted_without_a_byte(store: orlop.Store, size: int) -> None:
    """spec content 13.2, CrossNamespaceShare"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    data = blob(1, size)
    digest = await bring(one, data, mine="1")
    async with two.content.ingest("ref", size=size, expected=digest) as writer:
        status = writer.status
        assert (status.offset, status.total, status.expected) == (size, size, digest)
        assert status.started_at == status.updated_at > (await one.content.info(digest)).created_at
        info = await writer.commit(size=size, expected=digest, labels={"yours": "2"})
    assert (info.digest, info.size, info.labels) == (digest, size, {"yours": "2"})
    assert await two.content.read(digest) == await one.content.read(digest) == data
    assert (await one.content.info(digest)).labels == {**ROOT, "mine": "1"}


@pytest.mark.parametrize("size", SIZES)
async def test_writing_to_it_makes_a_blob_of_its_own(store: orlop.Store, size: int) -> None:
    """spec content 13.2, CrossNamespaceAppend"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    data = blob(2, size)
    longer = data + b" and 13 more."
    digest = await bring(one, data)
    async with two.content.ingest("ref", size=size, expected=digest) as writer:
        await writer.write(b"")
        await writer.write(longer[size:])
        assert (await two.content.status("ref")).offset == len(longer)
        info = await writer.commit(size=len(longer), expected=digest_of(longer), labels=ROOT)
    assert await two.content.read(info.digest) == longer
    assert await one.content.read(digest) == data
    with pytest.raises(errors.NotFound):
        await two.content.info(digest)


async def test_a_part_of_it_can_be_kept(store: orlop.Store) -> None:
    """spec content 14, row 22"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(3, 40_000))
    async with two.content.ingest("ref", expected=digest) as writer:
        with pytest.raises(errors.InvalidArgument):
            await writer.truncate(40_001)
        await writer.truncate(4)
        await writer.write(b"xy")
        info = await writer.commit(labels=ROOT)
    assert info.size == 6
    assert await two.content.read(info.digest) == blob(3, 40_000)[:4] + b"xy"
    assert len(await one.content.read(digest)) == 40_000


async def test_what_adopts_is_no_ingest_to_be_seen(store: orlop.Store) -> None:
    """spec content 14, row 23"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, b"x")
    async with two.content.ingest("ref", expected=digest):
        with pytest.raises(errors.NotFound):
            await two.content.status("ref")
        assert [status async for status in two.content.ingests()] == []
    await two.content.abort("ref")
    with pytest.raises(errors.NotFound):
        await two.content.abort("ref")


async def test_two_that_adopt_under_one_ref_do_not_lock_each_other(store: orlop.Store) -> None:
    """spec content 14, row 24"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(4, 40_000))
    async with (
        two.content.ingest("ref", expected=digest) as first,
        two.content.ingest("ref", expected=digest) as second,
    ):
        await first.commit(labels=ROOT)
        with pytest.raises(errors.AlreadyExists):
            await second.commit()
    assert len(await two.content.read(digest)) == 40_000


async def test_the_second_that_begins_to_write_finds_the_ref_locked(store: orlop.Store) -> None:
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(4, 40_000))
    async with (
        two.content.ingest("ref", expected=digest) as first,
        two.content.ingest("ref", expected=digest) as second,
    ):
        await first.write(b"mine")
        with pytest.raises(errors.Unavailable):
            await second.write(b"me too")


async def test_it_outlives_the_last_other_holder_and_a_collection(store: orlop.Store) -> None:
    """spec content 14, row 25"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(5, 40_000))
    async with two.content.ingest("ref", expected=digest) as writer:
        await one.content.delete(digest)
        await store.collect()
        await writer.commit(labels=ROOT)
    assert await two.content.read(digest) == blob(5, 40_000)


async def test_without_protection_the_commit_finds_that_it_is_gone(store: orlop.Store) -> None:
    """spec content 14, row 26"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(6, 40_000))
    lease = await two.leases.create()
    leased = two.with_lease(lease.id)
    async with leased.content.ingest("ref", expected=digest) as writer:
        await one.content.delete(digest)
        await two.leases.delete(lease.id)
        await store.collect()
        with pytest.raises(errors.NotFound):
            await two.content.info(digest)
        with pytest.raises(errors.NotFound):
            await writer.commit()
    with pytest.raises(errors.NotFound):
        await two.content.info(digest)


async def test_another_announced_size_is_an_ordinary_ingest(store: orlop.Store) -> None:
    """spec content 14, row 27"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(7, 1000))
    async with two.content.ingest("ref", size=999, expected=digest) as writer:
        assert writer.offset == 0
        assert (await two.content.status("ref")).offset == 0


async def test_what_waits_for_its_collection_can_still_be_adopted(tmp_path: Path) -> None:
    """spec content 14, row 29: in one transaction, so that no collection can come in between"""
    async with open_store(str(tmp_path / "store")) as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        digest = await bring(one, blob(8, 40_000))
        async with two.content.ingest("hold", expected=digest):
            await one.content.delete(digest)
            async with store.in_namespace("three").content.ingest("ref", expected=digest) as writer:
                assert writer.offset == 40_000
                await writer.commit(labels=ROOT)


async def test_wrong_expectations_of_a_commit_that_adopts_are_refused(store: orlop.Store) -> None:
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, b"data")
    for wrong in ({"size": 5}, {"expected": digest_of(b"other")}):
        async with two.content.ingest("ref", expected=digest) as writer:
            with pytest.raises(errors.FailedPrecondition):
                await writer.commit(**wrong)
    async with two.content.ingest("ref", expected=digest) as writer:
        with pytest.raises(errors.InvalidArgument):
            await writer.commit(labels={"k": "v" * 4097})
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit()
    with pytest.raises(errors.NotFound):
        await two.content.info(digest)


async def test_an_ingest_with_bytes_of_its_own_goes_on_with_them(store: orlop.Store) -> None:
    one, two = store.in_namespace("one"), store.in_namespace("two")
    data = blob(9, 40_000)
    async with two.content.ingest("ref") as writer:
        await writer.write(data[:100])
    digest = await bring(one, data)
    async with two.content.ingest("ref", expected=digest) as writer:
        assert writer.offset == 100
        await writer.write(data[100:])
        await writer.commit(labels=ROOT)


async def test_leases_and_commits_that_adopt(store: orlop.Store) -> None:
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(10, 40_000))
    lease = await two.leases.create()
    leased = two.with_lease(lease.id)
    async with leased.content.ingest("ref", expected=digest) as writer:
        assert [r.type async for r in two.leases.resources(lease.id)] == ["ingests"]
        await writer.commit()
    assert [(r.type, r.id) async for r in two.leases.resources(lease.id)] == [("content", digest)]
    with pytest.raises(errors.NotFound):
        async with two.with_lease("none").content.ingest("other", expected=await bring(one, b"z")):
            pass


# isolated ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def isolated(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    config = replace(StoreConfig(str(tmp_path / "isolated")), content_sharing_policy="isolated")
    async with trio.open_nursery() as nursery:
        running = await nursery.start(orlop.serve, config)
        yield running.store
        nursery.cancel_scope.cancel()


async def test_in_isolation_bytes_are_to_be_sent(tmp_path: Path) -> None:
    """spec content 13.3, CrossNamespaceIsolate"""
    async with isolated(tmp_path) as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        data = blob(11, 40_000)
        digest = await bring(one, data)
        async with two.content.ingest("ref", size=40_000, expected=digest) as writer:
            assert (writer.offset, writer.status.total) == (0, 40_000)
            await writer.write(data)
            await writer.commit(labels=ROOT)
        assert await two.content.read(digest) == data
        await one.content.delete(digest)
        await store.collect()
        assert await two.content.read(digest) == data


@pytest.mark.parametrize("value, adopts", [("true", True), ("True", False), ("1", False), ("", False)])
async def test_in_isolation_shareable_namespaces_share(tmp_path: Path, value: str, adopts: bool) -> None:
    """spec content 13.3, SharedNamespaceIsolate, and 14, row 28"""
    async with isolated(tmp_path) as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        await store.namespaces.create("one", {"containerd.io/namespace.shareable": value})
        digest = await bring(one, blob(12, 1000))
        async with two.content.ingest("ref", size=1000, expected=digest) as writer:
            assert writer.offset == (1000 if adopts else 0)
        await store.namespaces.update("one", {}, ["labels.containerd.io/namespace.shareable"])
        async with two.content.ingest("other", size=1000, expected=digest) as writer:
            assert writer.offset == 0


async def test_a_shareable_namespace_without_the_blob_shares_nothing(tmp_path: Path) -> None:
    async with isolated(tmp_path) as store:
        await store.namespaces.create("empty", {"containerd.io/namespace.shareable": "true"})
        digest = await bring(store.in_namespace("one"), b"data")
        async with store.in_namespace("two").content.ingest("ref", expected=digest) as writer:
            assert writer.offset == 0


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "orlop.toml").write_text('content_sharing_policy = "sometimes"')
    with pytest.raises(errors.InvalidArgument, match="content_sharing_policy"):
        read_config(str(tmp_path), (), str(tmp_path / "orlop.toml"))
    with pytest.raises(errors.InvalidArgument, match="sometimes"):
        sharing_policy("sometimes")
