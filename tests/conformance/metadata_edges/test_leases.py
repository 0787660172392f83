"""The numbered edge cases of leases; the number is the case's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

import orlop
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import errors
from orlop.protocol.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.storage.memory import MemoryStore
from tests.support.metadata_edges import EXPIRE, FUTURE, A, C, digest_of, held, images, opened
from tests.support.outcomes import outcome

# leases --------------------------------------------------------------------------------------------------


async def test_34_an_image_joins_the_lease_only_with_the_expire_label(store: orlop.Store) -> None:
    await store.leases.create("l")
    await store.with_lease("l").images.create("plain", A)
    await store.with_lease("l").images.create("expiring", A, {EXPIRE: FUTURE})
    assert await held(store, "l") == [("images", "expiring")]


async def test_35_a_missing_lease_matters_only_to_what_would_join_it(store: orlop.Store) -> None:
    leased = store.with_lease("absent")
    await leased.containers.create(C)
    await leased.images.create("plain", A)
    with pytest.raises(NotFound):
        await opened(leased, "r")
    with pytest.raises(NotFound):
        await leased.images.create("expiring", A, {EXPIRE: FUTURE})
    assert await images(store) == ["plain"]
    assert [ingest async for ingest in store.content.ingests()] == []


async def test_36_a_missing_lease_is_seen_before_a_taken_name(store: orlop.Store) -> None:
    await store.images.create("taken", A)
    with pytest.raises(NotFound):
        await store.with_lease("absent").images.create("taken", A, {EXPIRE: FUTURE})


async def test_37_content_that_is_here_joins_the_lease_of_who_wants_to_write_it(store: orlop.Store) -> None:
    await store.leases.create("holds")
    await store.with_lease("holds").content.put(b"data")
    await store.leases.create("l")
    with pytest.raises(AlreadyExists):
        await opened(store.with_lease("l"), "r", digest_of(b"data"))
    assert await held(store, "l") == [("content", digest_of(b"data"))]


async def test_39_a_lease_of_another_namespace_does_not_exist(store: orlop.Store) -> None:
    await store.in_namespace("other").leases.create("l")
    with pytest.raises(NotFound):
        await opened(store.with_lease("l"), "r")
    with pytest.raises(NotFound):
        await store.with_lease("l").content.put(b"data")


async def test_41_the_lease_is_looked_for_before_the_type_of_the_resource(store: orlop.Store) -> None:
    bogus = orlop.LeaseResource("x", "bogus")
    with pytest.raises(NotFound):
        await store.leases.add("l", bogus)
    await store.leases.create("l")
    with pytest.raises(errors.NotImplemented):
        await store.leases.add("l", bogus)
    with pytest.raises(InvalidArgument):
        await store.leases.add("l", orlop.LeaseResource("x", "snapshots"))


async def test_42_removing_a_resource_that_was_never_added_brings_a_collection(store: orlop.Store) -> None:
    await store.leases.create("l")
    info = await store.content.put(b"nobody wants this")
    await store.leases.remove("l", orlop.LeaseResource("never", "images"))
    with trio.fail_after(10):
        while await outcome(store.content.info(info.digest)) == "ok":
            await trio.sleep(0.002)


class ShiftedClock:
    """The real clock, and how far the test has moved it."""

    shift_s = 0

    def now_ns(self) -> int:
        return time.time_ns() + self.shift_s * 1_000_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


@asynccontextmanager
async def shifted_store(folder: Path) -> AsyncIterator[tuple[orlop.Store, ShiftedClock]]:
    clock = ShiftedClock()
    world = dataclasses.replace(real_world(), clock=clock)
    async with run_store(orlop.StoreConfig(str(folder)), world, host_platform(), [], MemoryStore()) as running:
        yield running.store, clock


async def test_43_an_expired_lease_is_listed_until_it_is_collected(tmp_path: Path) -> None:
    async with shifted_store(tmp_path) as (store, clock):
        in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        await store.leases.create("expires", {EXPIRE: in_an_hour})
        await store.leases.create("stays", {EXPIRE: "never"})
        clock.shift_s = 2 * 3600
        assert [lease.id async for lease in store.leases.list()] == ["expires", "stays"]
        await store.collect()
        assert [lease.id async for lease in store.leases.list()] == ["stays"]


async def test_44_a_leases_id_is_any_text(store: orlop.Store) -> None:
    assert (await store.leases.create("any / thing 牛")).id == "any / thing 牛"
    assert (await store.leases.get("any / thing 牛")).id == "any / thing 牛"


# at once, and more of leases -----------------------------------------------------------------------------


async def test_68_of_32_concurrent_creates_of_one_id_one_succeeds(store: orlop.Store) -> None:
    outcomes: list[str] = []

    async def create() -> None:
        outcomes.append(await outcome(store.containers.create(C)))

    async with trio.open_nursery() as nursery:
        for _ in range(32):
            nursery.start_soon(create)
    assert sorted(outcomes) == ["AlreadyExists"] * 31 + ["ok"]


async def test_69_a_commit_of_what_is_here_puts_the_digest_in_the_lease_for_the_ingest(store: orlop.Store) -> None:
    await store.leases.create("holds")
    await store.with_lease("holds").content.put(b"data")
    await store.leases.create("l")
    async with store.with_lease("l").content.ingest("r") as writer:
        await writer.write(b"data")
        assert await held(store, "l") == [("ingests", "r")]
        with pytest.raises(AlreadyExists):
            await writer.commit()
    assert await held(store, "l") == [("content", digest_of(b"data"))]


async def test_70_an_image_joins_with_the_expire_label_and_stays_without_it(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    await leased.images.create("i", A)
    await leased.images.update("i", labels={EXPIRE: FUTURE}, mask=["labels"])
    assert await held(store, "l") == [("images", "i")]
    await leased.images.update("i", mask=["labels"])
    assert (await store.images.get("i")).labels == {}
    assert await held(store, "l") == [("images", "i")]


async def test_71_deletes_ignore_a_missing_lease(store: orlop.Store) -> None:
    await store.leases.create("holds")
    info = await store.with_lease("holds").content.put(b"data")
    await store.images.create("i", A)
    await store.with_lease("absent").content.delete(info.digest)
    await store.with_lease("absent").images.delete("i")
    assert await images(store) == []
    with pytest.raises(NotFound):
        await store.content.info(info.digest)


async def test_72_an_empty_expire_label_joins_the_image_and_is_dropped(store: orlop.Store) -> None:
    await store.leases.create("l")
    created = await store.with_lease("l").images.create("i", A, {EXPIRE: ""})
    assert created.labels == {}
    assert await held(store, "l") == [("images", "i")]
