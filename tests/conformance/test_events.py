"""The journal: which changes are in it, with which payload, in which order, and how it is read.

Source: spec metadata 9, 11, 14, 18.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import orlop
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import (
    AlreadyExists,
    InvalidArgument,
    OrlopError,
    OutOfRange,
)
from orlop.protocol.records import (
    TOPICS,
    ContentCreate,
    ContentDelete,
    ImageCreate,
    ImageDelete,
    ImageUpdate,
    NamespaceCreate,
    NamespaceDelete,
    NamespaceUpdate,
)

from ..conftest import StoreMaker

A = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 7)
EXPIRE = "containerd.io/gc.expire"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def journal(store: orlop.Store, after: int = 0) -> list[orlop.Event]:
    events: list[orlop.Event] = []
    while True:
        page = await store.events.page(after, limit=1000)
        if not page.items:
            return events
        events += page.items
        after = page.next


async def said(store: orlop.Store) -> list[tuple[str, object]]:
    return [(event.namespace, event.event) for event in await journal(store)]


async def take(events: AsyncIterator[orlop.Event], count: int) -> list[orlop.Event]:
    with trio.fail_after(10):
        return [await anext(events) for _ in range(count)]


# what is published ---------------------------------------------------------------------------------------


async def test_namespace_changes_are_published_with_the_labels_of_the_request(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"a": "1", "e": ""})
    labels = {"b": "2", "unselected": "3", "a": ""}
    await store.namespaces.update("tenant", labels, ["labels.b", "labels.a"])
    await store.namespaces.update("tenant", {"b": "2"})
    await store.namespaces.delete("tenant")
    assert await said(store) == [
        ("tenant", NamespaceCreate("tenant", {"a": "1", "e": ""})),
        ("tenant", NamespaceUpdate("tenant", labels)),
        ("tenant", NamespaceUpdate("tenant", {"b": "2"})),
        ("tenant", NamespaceDelete("tenant")),
    ]


async def test_image_changes_are_published_with_the_labels_as_stored(store: orlop.Store) -> None:
    await store.images.create("i", A, {"a": "1", "e": ""})
    await store.images.update("i", labels={"b": "2", "unselected": "3"}, mask=["labels.b"])
    await store.images.update("i", target=A, mask=["target"])
    await store.images.delete("i")
    assert await said(store) == [
        ("default", ImageCreate("i", {"a": "1"})),
        ("default", ImageUpdate("i", {"a": "1", "b": "2"})),
        ("default", ImageUpdate("i", {"a": "1", "b": "2"})),
        ("default", ImageDelete("i")),
    ]


async def test_content_is_published_when_a_namespace_gets_it_and_by_delete(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    await leased.content.put(b"small", media_type="text/plain")
    async with leased.content.ingest("r", media_type="x/y") as writer:
        await writer.write(b"data")
        await writer.commit()
    async with leased.content.ingest("again") as writer:
        await writer.write(b"data")
        with pytest.raises(AlreadyExists):
            await writer.commit()
    other = store.in_namespace("other")
    await other.leases.create("l")
    await other.with_lease("l").content.put(b"small")
    await store.content.update(digest_of(b"data"), {"a": "1"})
    await store.content.delete(digest_of(b"data"))
    assert await said(store) == [
        ("default", ContentCreate(digest_of(b"small"), 5, "text/plain")),
        ("default", ContentCreate(digest_of(b"data"), 4, "x/y")),
        ("other", ContentCreate(digest_of(b"small"), 5, "")),
        ("default", ContentDelete(digest_of(b"data"))),
    ]


async def test_leases_ingests_and_namespaces_that_come_by_themselves_are_silent(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    await there.leases.create("l")
    await there.leases.add("l", orlop.LeaseResource("i", "images"))
    await there.leases.remove("l", orlop.LeaseResource("i", "images"))
    async with there.content.ingest("r") as writer:
        await writer.write(b"data")
    await there.content.abort("r")
    await there.leases.delete("l", sync=True)
    assert [i async for i in there.images.list()] == []
    assert await journal(store) == []
    await there.images.create("i", A)
    assert await said(store) == [("tenant", ImageCreate("i", {}))]


async def test_failures_publish_nothing(store: orlop.Store) -> None:
    await store.images.create("i", A)
    await store.namespaces.create("tenant")
    before = await journal(store)
    for call in (
        lambda: store.images.create("i", A),
        lambda: store.images.create("", A),
        lambda: store.images.update("i", labels={"a": "1"}, mask=["labels.a", "name"]),
        lambda: store.images.update("absent", target=A),
        lambda: store.images.delete("i", target="sha256:" + "b" * 64),
        lambda: store.images.delete("absent"),
        lambda: store.namespaces.create("tenant"),
        lambda: store.namespaces.create("no/name"),
        lambda: store.namespaces.update("absent", {}),
        lambda: store.namespaces.update("tenant", {"q": "1"}, ["labels.q", "name"]),
        lambda: store.namespaces.delete("default"),
        lambda: store.content.delete(A.digest),
        lambda: store.content.put(b"data", expected=A.digest),
    ):
        with pytest.raises(OrlopError):
            await call()
    assert await journal(store) == before


async def test_a_collection_publishes_the_images_it_removes_and_no_content(store: orlop.Store) -> None:
    other = store.in_namespace("other")
    await other.images.create("i", orlop.Descriptor("x/y", digest_of(b"data"), 4), {EXPIRE: "2001-02-03T04:05:06Z"})
    await store.images.create("j", A, {EXPIRE: "tomorrow"})
    await store.leases.create("l", {EXPIRE: "2001-02-03T04:05:06Z"})
    await store.images.create("k", A)
    await store.images.delete("k", sync=True)
    # The collector may have come before the delete asked for it.
    removed = [(event.namespace, event.event) for event in await journal(store) if "delete" in event.topic]
    assert sorted(removed, key=lambda entry: entry[0]) == [
        ("default", ImageDelete("k")),
        ("other", ImageDelete("i")),
    ]


async def test_a_collection_of_content_is_silent(store: orlop.Store) -> None:
    await store.leases.create("l")
    await store.with_lease("l").content.put(b"data")
    before = await journal(store)
    await store.leases.delete("l", sync=True)
    assert [i async for i in store.content.list()] == []
    assert await journal(store) == before


async def test_every_event_has_the_topic_of_its_payload(store: orlop.Store) -> None:
    await store.namespaces.create("tenant")
    await store.namespaces.update("tenant", {"a": "1"})
    await store.namespaces.delete("tenant")
    await store.images.create("i", orlop.Descriptor("x/y", digest_of(b"data"), 4))
    await store.images.update("i", labels={"a": "1"}, mask=["labels"])
    await store.content.put(b"data")
    await store.content.delete(digest_of(b"data"))
    await store.images.delete("i")
    events = await journal(store)
    assert [event.topic for event in events] == [
        "/namespaces/create",
        "/namespaces/update",
        "/namespaces/delete",
        "/images/create",
        "/images/update",
        "/content/create",
        "/content/delete",
        "/images/delete",
    ]
    assert [TOPICS[type(event.event)] for event in events] == [event.topic for event in events]


async def test_an_event_has_the_time_of_its_change(store: orlop.Store) -> None:
    before = time.time_ns()
    created = await store.images.create("i", A)
    updated = await store.images.update("i", target=A)
    await store.images.delete("i")
    after = time.time_ns()
    events = await journal(store)
    assert [event.timestamp for event in events[:2]] == [created.created_at, updated.updated_at]
    assert before <= events[0].timestamp
    assert updated.updated_at <= events[2].timestamp <= after


# order ---------------------------------------------------------------------------------------------------


async def test_the_journal_is_in_the_order_of_commits(store: orlop.Store) -> None:
    made: list[orlop.Image] = []

    async def live(number: int) -> None:
        name = f"i{number}"
        there = store.in_namespace(f"n{number % 3}")
        made.append(await there.images.create(name, A))
        with pytest.raises(AlreadyExists):
            await there.images.create(name, A)
        made.append(await there.images.update(name, labels={"a": "1"}, mask=["labels"]))
        await there.images.delete(name)

    async with trio.open_nursery() as nursery:
        for number in range(48):
            nursery.start_soon(live, number)
    events = await journal(store)
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    assert len(events) == 3 * 48
    for number in range(48):
        own = [event for event in events if event.event.name == f"i{number}"]
        assert [type(event.event) for event in own] == [ImageCreate, ImageUpdate, ImageDelete]
        assert {event.namespace for event in own} == {f"n{number % 3}"}
    changed_at = {(image.name, image.updated_at) for image in made}
    assert changed_at == {
        (event.event.name, event.timestamp) for event in events if not isinstance(event.event, ImageDelete)
    }


async def test_a_change_is_in_the_journal_when_its_call_returns(store: orlop.Store) -> None:
    after = 0
    for number in range(10):
        await store.images.create(f"i{number}", A)
        page = await store.events.page(after)
        assert [event.event for event in page.items] == [ImageCreate(f"i{number}", {})]
        after = page.next


# pages ---------------------------------------------------------------------------------------------------


async def test_pages_follow_each_other_without_gap_or_repeat(store: orlop.Store) -> None:
    for number in range(7):
        await store.images.create(f"i{number}", A)
    everything = await journal(store)
    read, after = [], 0
    for size in (3, 3, 1, 0):
        page = await store.events.page(after, limit=3)
        assert len(page.items) == size
        read += page.items
        after = page.next
    assert read == everything
    assert after == everything[-1].sequence
    assert (await store.events.page(everything[4].sequence)).items == everything[5:]


async def test_events_of_all_namespaces_are_read_from_any(store: orlop.Store) -> None:
    await store.in_namespace("a").images.create("i", A)
    await store.in_namespace("b").images.create("i", A)
    nowhere = orlop.Store(store._caller, orlop.Context(namespace=None))
    for there in (store, store.in_namespace("a"), nowhere):
        assert [event.namespace for event in (await there.events.page()).items] == ["a", "b"]
        async with there.events.subscribe(after=0) as events:
            assert [event.namespace for event in await take(events, 2)] == ["a", "b"]


async def test_a_page_has_1_to_1000_events(store: orlop.Store) -> None:
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidArgument):
            await store.events.page(0, limit=limit)
    with pytest.raises(InvalidArgument):
        await store.events.page(-1)


# subscriptions -------------------------------------------------------------------------------------------


async def test_a_subscription_gives_what_was_and_then_what_comes(store: orlop.Store) -> None:
    for number in range(5):
        await store.images.create(f"old{number}", A)
    second = (await journal(store))[1].sequence
    async with store.events.subscribe(after=second) as events:
        got = await take(events, 3)
        for number in range(5):
            await store.images.create(f"new{number}", A)
        got += await take(events, 5)
    assert got == await journal(store, second)


async def test_a_subscription_from_now_on_has_no_past_and_no_gap(store: orlop.Store) -> None:
    await store.images.create("past", A)
    past = (await journal(store))[-1].sequence

    async def go_on(scope: trio.CancelScope) -> None:
        with scope:
            for number in range(1000):
                await store.images.create(f"i{number}", A)

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery, store.events.subscribe() as events:
        nursery.start_soon(go_on, scope)
        got = await take(events, 20)
        scope.cancel()
    assert got[0].sequence > past
    assert got == [event for event in await journal(store, past) if event.sequence >= got[0].sequence][:20]


async def test_a_subscriber_that_does_not_read_holds_nobody_up_and_misses_nothing(store: orlop.Store) -> None:
    async def create(share: range) -> None:
        for number in share:
            await store.images.create(f"i{number}", A)

    async with store.events.subscribe(after=0) as slow, store.events.subscribe(after=0) as quick:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for part in range(20):
                    nursery.start_soon(create, range(part, 600, 20))
            first = await take(quick, 600)
            assert await take(slow, 600) == first
    assert first == await journal(store)


async def test_a_subscription_ends_without_an_error_and_others_go_on(store: orlop.Store) -> None:
    async with store.events.subscribe(after=0) as stays:
        for _ in range(3):
            async with store.events.subscribe(after=0):
                pass
            with trio.move_on_after(0.005) as scope:
                async with store.events.subscribe(after=0) as events:
                    _ = [event async for event in events]
            assert scope.cancelled_caught
        await store.images.create("i", A)
        assert [event.event for event in await take(stays, 1)] == [ImageCreate("i", {})]


# what is kept --------------------------------------------------------------------------------------------


async def test_the_journal_goes_on_where_it_was_after_a_restart(stores: StoreMaker) -> None:
    if stores.engine == "memory":
        pytest.skip("what memory holds ends with its store")
    async with stores.open() as store:
        await store.images.create("i", A)
        await store.images.delete("i")
        before = await journal(store)
    async with stores.open() as store:
        assert await journal(store) == before
        await store.images.create("j", A)
        after = await journal(store, before[-1].sequence)
        assert [event.event for event in after] == [ImageCreate("j", {})]
        assert after[0].sequence > before[-1].sequence
        async with store.events.subscribe(after=before[0].sequence) as events:
            assert await take(events, 2) == [before[1], after[0]]


@asynccontextmanager
async def opened_with(stores: StoreMaker, limits: orlop.JournalConfig) -> AsyncIterator[orlop.Store]:
    """The store of `stores` again, with another limit on its journal."""
    root = stores.folder / "store"
    listen = {
        "embedded": [],
        "unix": [orlop.Address(path=str(root / "socket"))],
        "tcp": [orlop.Address(host="127.0.0.1", port=0)],
    }[stores.way]
    config = orlop.StoreConfig(str(root), journal=limits)
    async with run_store(config, real_world(), host_platform(), listen) as running:
        if stores.way == "embedded":
            yield running.store.in_namespace("default")
        else:
            async with orlop.connect(running.addresses[0]) as store:
                yield store


async def until_trimmed(store: orlop.Store, after: int) -> OutOfRange:
    """Trimming publishes nothing, so that it can only be waited for by asking."""
    with trio.fail_after(10):
        while True:
            try:
                await store.events.page(after, limit=1)
            except OutOfRange as error:
                return error
            await trio.sleep(0.002)


async def test_a_journal_over_its_length_loses_its_oldest_events_and_says_so(stores: StoreMaker) -> None:
    if stores.engine == "memory":
        pytest.skip("what memory holds ends with its store")

    async def create(store: orlop.Store, share: range) -> None:
        for number in share:
            await store.images.create(f"i{number}", A)

    async with stores.open() as store:
        async with trio.open_nursery() as nursery:
            for part in range(64):
                nursery.start_soon(create, store, range(part, 1010, 64))
        everything = await journal(store)
    assert len(everything) == 1010
    async with opened_with(stores, orlop.JournalConfig(events=1000)) as store:
        gone = everything[9].sequence
        error = await until_trimmed(store, gone - 1)
        assert error.hint
        for after in (everything[0].sequence, gone - 1):
            with pytest.raises(OutOfRange):
                await store.events.page(after)
            with pytest.raises(OutOfRange):
                async with store.events.subscribe(after) as events:
                    await take(events, 1)
        assert await journal(store, gone) == everything[10:]
        assert await journal(store) == everything[10:]
        async with store.events.subscribe(0) as events:
            assert await take(events, 1000) == everything[10:]


async def test_a_journal_that_aged_away_goes_on_with_its_numbers(stores: StoreMaker) -> None:
    if stores.engine == "memory":
        pytest.skip("what memory holds ends with its store")
    async with stores.open() as store:
        await store.images.create("i", A)
        await store.images.delete("i")
        first, last = await journal(store)
    async with opened_with(stores, orlop.JournalConfig(age_s=1e-6)) as store:
        await until_trimmed(store, first.sequence)
        page = await store.events.page(0)
        assert (page.items, page.next) == ([], last.sequence)
        async with store.events.subscribe(last.sequence) as events:
            await store.images.create("j", A)
            (event,) = await take(events, 1)
    assert event.event == ImageCreate("j", {})
    assert event.sequence > last.sequence
