"""What is here is not fetched again, and what many want is fetched once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import NotFound, PermissionDenied
from orlop.storage.memory import MemoryStore
from tests.support.faulty_registry import FaultyRegistry, Stall, Status
from tests.support.layout_registry import LayoutRegistry, Reply, Seen
from tests.support.pulls import (
    REPOSITORY,
    STALL_S,
    TIMEOUT_S,
    Layout,
    Opener,
    asked,
    begins,
    blob_path,
    eventually,
    is_complete,
    lines,
    pull,
    ranges,
)
from tests.support.registries import make_layout


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
