"""Large blobs come in several ranges at once, where the registry serves ranges, and are right whatever breaks.

Source: spec registry 6; DESIGN, transfer.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import orlop
from orlop.actors.config import RegistryConfig, TransferConfig
from orlop.protocol.errors import FailedPrecondition, NotFound, OrlopError, Unavailable
from orlop.protocol.messages import TransferProgress, TransferState
from tests.support.faulty_registry import BreakAfter, FaultyRegistry, IgnoreRange, Stall, Status, WrongBytes
from tests.support.images import MadeImage, write_layout
from tests.support.layout_registry import Reply, Seen
from tests.support.transfers import (
    AT_ONCE,
    PLAIN,
    STALL_S,
    TIMEOUT_S,
    has,
    is_absent,
    opened,
    pull,
    random_image,
    refuses,
)

REPOSITORY = "lib/app"
PART = 64 * 1024
SIZE = 5 * PART - 1000
PARTS = ["bytes=0-65535", "bytes=65536-131071", "bytes=131072-196607", "bytes=196608-262143", "bytes=262144-326679"]
TRANSFER = TransferConfig(stall_s=STALL_S, ranges=3, range_bytes=PART, range_below=math.inf)


@pytest.fixture(scope="module")
def made() -> MadeImage:
    """A layer of five parts, and one that is just not worth it."""
    return random_image("parts", (SIZE, 2 * PART))


@pytest.fixture(scope="module")
def layout(made: MadeImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("parts") / "layout", made)


@pytest.fixture
def registry(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: layout}) as registry:
        yield registry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", transfer=TRANSFER) as store:
        yield store


def at(registry: FaultyRegistry) -> str:
    return f"{registry.address}/{REPOSITORY}:latest"


def ranges(registry: FaultyRegistry, digest: str) -> list[str | None]:
    return [seen.headers.get("range") for seen in registry.requests if digest in seen.path]


async def test_a_large_blob_comes_in_parts_and_a_small_one_in_one_piece(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage
) -> None:
    seen: list[TransferProgress] = []
    await store.pull(orlop.PullImage(at(registry), access=PLAIN), seen.append)
    await has(store, made)
    large, small = (blob.digest for blob in made.layers)
    assert sorted(map(str, ranges(registry, large))) == sorted(PARTS)
    assert ranges(registry, small) == [None]
    last = {step.digest: step for step in seen if step.kind}[large]
    assert (last.state, last.transferred) == (TransferState.COMPLETE, SIZE)


async def test_with_one_range_at_once_nothing_comes_in_parts(
    tmp_path: Path, registry: FaultyRegistry, made: MadeImage
) -> None:
    async with opened(tmp_path / "plain", transfer=TransferConfig(ranges=1, range_bytes=PART)) as store:
        await pull(store, at(registry))
        await has(store, made)
    assert ranges(registry, made.layers[0].digest) == [None]


async def test_a_connection_that_is_fast_enough_is_left_alone(
    tmp_path: Path, registry: FaultyRegistry, made: MadeImage
) -> None:
    transfer = TransferConfig(ranges=3, range_bytes=PART, range_below=0)
    async with opened(tmp_path / "fast", transfer=transfer) as store:
        await pull(store, at(registry))
        await has(store, made)
    assert ranges(registry, made.layers[0].digest) == [None]


@pytest.mark.parametrize("has_ranges", [True, False])
async def test_a_connection_that_is_too_slow_is_left_for_parts(
    tmp_path: Path, registry: FaultyRegistry, made: MadeImage, has_ranges: bool
) -> None:
    """Any is, for this store; what came by then is kept."""
    if not has_ranges:
        registry.fault("GET ", IgnoreRange(), times=None)
    transfer = TransferConfig(ranges=3, range_bytes=PART, range_below=1e15)
    async with opened(tmp_path / "slow", transfer=transfer) as store:
        await pull(store, at(registry))
        await has(store, made)
    first, *later = ranges(registry, made.layers[0].digest)
    assert first is None
    assert later
    assert all(each is not None for each in later)
    begins = [int(str(each).partition("=")[2].partition("-")[0]) for each in later]
    assert min(begins) >= 2 * PART


class Counting(FaultyRegistry):
    """Remembers how many answers it gave at once, at most."""

    def __init__(self, layouts: dict[str, Path]) -> None:
        super().__init__(layouts)
        self._of_count = threading.Lock()
        self._now = self.most = 0

    def answer(self, seen: Seen) -> Reply:
        reply = super().answer(seen)
        return replace(reply, parts=self._counted(reply.parts)) if "/blobs/" in seen.path else reply

    def _counted(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        with self._of_count:
            self._now += 1
            self.most = max(self.most, self._now)
        self.closing.wait(0.05)  # so that those allowed at once meet
        yield from parts
        with self._of_count:
            self._now -= 1


async def test_no_more_parts_at_once_than_was_said(store: orlop.Store, layout: Path, made: MadeImage) -> None:
    with Counting({REPOSITORY: layout}) as registry:
        await pull(store, at(registry), max_concurrent_downloads=1)
        assert registry.most == 3
    await has(store, made)


@pytest.mark.parametrize("connections", [1, 2])
async def test_all_pulls_together_ask_no_more_of_a_host_than_it_may_be_asked(
    tmp_path: Path, layout: Path, made: MadeImage, connections: int
) -> None:
    config = RegistryConfig(connections_per_host=connections)
    async with opened(tmp_path / "narrow", transfer=TRANSFER, registry=config) as store:
        with Counting({REPOSITORY: layout}) as registry:
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(pull, store.in_namespace(f"n{number}"), at(registry))
            assert 1 <= registry.most <= connections
        for number in range(3):
            await has(store.in_namespace(f"n{number}"), made)


async def test_a_registry_without_ranges_sends_it_in_one_piece(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage
) -> None:
    registry.fault("/blobs/", IgnoreRange(), times=None)
    await pull(store, at(registry))
    await has(store, made)
    assert ranges(registry, made.layers[0].digest).count(None) == 1


async def test_a_part_that_breaks_is_asked_for_from_there(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage
) -> None:
    registry.fault(made.layers[0].digest, BreakAfter(10_000))
    await pull(store, at(registry))
    await has(store, made)
    asked = ranges(registry, made.layers[0].digest)
    (rest,) = set(map(str, asked)) - set(PARTS)
    begin, end = map(int, re.findall(r"\d+", rest))
    assert (begin % PART, end) == (10_000, min(SIZE, begin - 10_000 + PART) - 1)


@pytest.mark.parametrize("action", [Status(503, AT_ONCE), BreakAfter(None), Stall(5000, None), WrongBytes()])
async def test_what_goes_wrong_with_a_part_once_is_mended(
    store: orlop.Store,
    registry: FaultyRegistry,
    made: MadeImage,
    action: Status | BreakAfter | Stall | WrongBytes,
) -> None:
    registry.fault(made.layers[0].digest, action)
    await pull(store, at(registry))
    await has(store, made)


@pytest.mark.parametrize(
    "action, kind",
    [
        (Status(404), NotFound),
        (Status(503, AT_ONCE), Unavailable),
        (BreakAfter(0), Unavailable),
        (WrongBytes(), FailedPrecondition),
        (Status(206, {"Content-Range": f"bytes 1-{PART}/{SIZE}"}, bytes(PART)), FailedPrecondition),
        (Status(206, {"Content-Range": f"bytes 0-{PART + 9}/{SIZE}"}, bytes(PART + 10)), OrlopError),
    ],
)
async def test_what_goes_wrong_always_is_one_clear_error_and_no_wrong_bytes_stay(
    store: orlop.Store,
    registry: FaultyRegistry,
    made: MadeImage,
    action: Status | BreakAfter | WrongBytes,
    kind: type[OrlopError],
) -> None:
    layer = made.layers[0].digest
    registry.fault(layer, action, times=None)
    async with refuses(kind) as caught:
        await pull(store, at(registry))
    assert layer in str(caught[0])
    assert await is_absent(store, layer)
    registry.heal()
    await pull(store, at(registry))
    await has(store, made)


@pytest.mark.parametrize("breaks", [3, None])
async def test_four_attempts_without_progress_are_made(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage, breaks: int | None
) -> None:
    """Spec registry 6.1: three reopenings without progress; 14, number 11."""
    digest = made.layers[1].digest
    registry.fault(digest, BreakAfter(0), times=breaks)
    if breaks is None:
        async with refuses(Unavailable):
            await pull(store, at(registry))
    else:
        await pull(store, at(registry))
        await has(store, made)
    assert ranges(registry, digest) == [None] * 4


class Halting(FaultyRegistry):
    """Serves nothing of a blob from the third part on until it may go on."""

    def __init__(self, layouts: dict[str, Path]) -> None:
        super().__init__(layouts)
        self.go_on = threading.Event()

    def answer(self, seen: Seen) -> Reply:
        asked = re.match(r"bytes=(\d+)-", seen.headers.get("range", ""))
        while asked and int(asked[1]) >= 2 * PART and not self.go_on.is_set() and not self.closing.wait(0.01):
            pass
        return super().answer(seen)


async def test_what_came_of_a_pull_that_was_cancelled_is_not_asked_for_again(
    tmp_path: Path, layout: Path, made: MadeImage
) -> None:
    layer = made.layers[0].digest
    come = trio.Event()

    def watch(step: TransferProgress) -> None:
        if step.digest == layer and step.offset >= 2 * PART:
            come.set()

    async with opened(
        tmp_path / "patient", transfer=TransferConfig(ranges=3, range_bytes=PART, range_below=math.inf)
    ) as store:
        with Halting({REPOSITORY: layout}) as registry:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.pull, orlop.PullImage(at(registry), access=PLAIN), watch)
                with trio.fail_after(TIMEOUT_S):
                    await come.wait()
                nursery.cancel_scope.cancel()
            registry.go_on.set()
            registry.clear()
            await pull(store, at(registry))
            await has(store, made)
            assert sorted(map(str, ranges(registry, layer))) == sorted(PARTS[2:])
