"""Lists: pages and streams without gap or repeat, beside writers, at any size. Source: DESIGN 9; spec metadata 1.4."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t

from ..conftest import StoreMaker

TARGET = orlop.Descriptor("type", "sha256:" + "a" * 64, 7)
SPEC = orlop.Any("types/spec", b"x" * 20_000)
NAMES = [f"image {number:03}" for number in range(250)]


async def create_images(store: orlop.Store, names: list[str]) -> None:
    async with store.transaction() as tx:
        for number, name in enumerate(names):
            tx.images.create(name, TARGET, {"half": "ab"[number % 2]})


async def page(store: orlop.Store, after: str = "", limit: int = 100, *filters: str) -> Any:
    return await store.images._call(t.IMAGES_LIST, m.ListImages(list(filters), after, limit))


@pytest.mark.parametrize("limit", [1, 7, 250, m.PAGE_LIMIT_MAX])
async def test_pages_follow_each_other_without_gap_or_repeat(store: orlop.Store, limit: int) -> None:
    await create_images(store, NAMES)
    found, after = [], ""
    while True:
        got = await page(store, after, limit)
        assert len(got.items) <= limit
        found += [image.name for image in got.items]
        after = got.next
        if not after:
            break
    assert found == NAMES


async def test_pages_of_a_filter_are_as_complete(store: orlop.Store) -> None:
    await create_images(store, NAMES)
    found, after = [], ""
    while True:
        got = await page(store, after, 10, "labels.half==b")
        found += [image.name for image in got.items]
        after = got.next
        if not after:
            break
    assert found == NAMES[1::2]


async def test_a_cursor_holds_when_its_record_is_deleted(store: orlop.Store) -> None:
    await create_images(store, NAMES)
    first = await page(store, "", 10)
    await store.images.delete(first.items[-1].name)
    second = await page(store, first.next, 10)
    assert [image.name for image in second.items] == NAMES[10:20]


@pytest.mark.parametrize("limit", [0, -1, m.PAGE_LIMIT_MAX + 1, 2**63])
async def test_a_limit_that_is_none_is_refused(store: orlop.Store, limit: int) -> None:
    with pytest.raises(errors.InvalidArgument):
        await page(store, "", limit)


async def test_any_text_may_be_where_a_list_goes_on(store: orlop.Store) -> None:
    await create_images(store, NAMES)
    assert len((await page(store, "image 24", 100)).items) == 10
    assert (await page(store, "\U0010ffff" * 100)).items == []
    assert len((await page(store, "\x00", 100)).items) == 100


async def test_what_was_there_all_the_time_is_streamed_once(store: orlop.Store) -> None:
    """While others come and go beside it."""
    await create_images(store, NAMES)

    numbers = count()

    async def churn() -> None:
        for number in numbers:
            name = f"image {number % 250:03} passing {number}"
            await store.images.create(name, TARGET)
            await store.images.delete(name)

    for listed in (store.images.stream, pages_of(store)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(churn)
            found = []
            async with listed() as images:
                async for image in images:
                    found.append(image.name)
                    if len(found) % 50 == 0:
                        await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        assert [name for name in found if "passing" not in name] == NAMES


def pages_of(store: orlop.Store) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """The list by pages, as the stream is used."""

    class Pages:
        async def __aenter__(self) -> Any:
            return store.images.list()

        async def __aexit__(self, *_: object) -> None: ...

    return Pages


@pytest.mark.slow
async def test_no_answer_is_limited_by_a_frame(store: orlop.Store) -> None:
    """40 MiB of records."""
    names = [f"c{number:04}" for number in range(2_000)]
    for at in range(0, len(names), 40):
        async with store.transaction() as tx:
            for name in names[at : at + 40]:
                tx.containers.create(orlop.Container(name, runtime=orlop.Runtime("r"), spec=SPEC))
    assert [each.id async for each in store.containers.list()] == names
    async with store.containers.stream() as containers:
        assert [(each.id, each.spec) async for each in containers] == [(name, SPEC) for name in names]
    lean = [each async for each in store.containers.list(fields=["labels"])]
    assert [each.id for each in lean] == names
    assert all(each.spec is None or not each.spec.value for each in lean)


async def test_a_stream_may_be_left_and_the_connection_goes_on(store: orlop.Store) -> None:
    await create_images(store, NAMES)
    for _ in range(20):
        async with store.images.stream() as images:
            async for image in images:
                assert image.name == NAMES[0]
                break
    assert len([image async for image in store.images.list()]) == len(NAMES)


async def test_a_stream_goes_on_where_it_is_told(store: orlop.Store) -> None:
    await create_images(store, NAMES)
    async with store.images.stream(["labels.half==a"], after=NAMES[99]) as images:
        assert [image.name async for image in images] == NAMES[100::2]


async def test_every_namespace_has_a_list_of_its_own(stores: StoreMaker) -> None:
    async with stores.open() as store:
        for name in ("a", "aa", "b"):
            await create_images(store.in_namespace(name), [f"{name} {number}" for number in range(5)])
        for name in ("a", "aa", "b"):
            found = [image.name async for image in store.in_namespace(name).images.list()]
            assert found == [f"{name} {number}" for number in range(5)]
        assert [image async for image in store.in_namespace("c").images.list()] == []
