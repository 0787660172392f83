"""A cancelled pull, and what is left of pulls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.messages import PullImage, TransferProgress
from tests.support.faulty_registry import BreakAfter, FaultyRegistry, Stall, WrongBytes
from tests.support.pulls import (
    ANY_BLOB,
    STALL_S,
    TIMEOUT_S,
    Layout,
    Opener,
    asked,
    begins,
    blob_path,
    digests,
    eventually,
    is_complete,
    pull,
)


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
