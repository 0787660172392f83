"""Wrong bytes are never committed, and lost connections are made good."""

from __future__ import annotations

import pytest
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition, NotFound, OrlopError, Unavailable
from tests.support.faulty_registry import BreakAfter, FaultyRegistry, IgnoreRange, Lie, Stall, Status, WrongBytes
from tests.support.pulls import STALL_S, Layout, Opener, asked, blob_path, is_complete, pull, ranges, refused

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
