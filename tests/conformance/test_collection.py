"""What lives and what goes: roots, references, leases, expiry. Source: spec gc 3 to 6, 15, 17."""

from __future__ import annotations

import os

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from tests.conftest import StoreMaker
from tests.support.collections import BREF, EXPIRE, PAST, REF, ROOT, Graph, after_seconds, digests, keep, named
from tests.support.content import blob


@pytest.fixture
async def graph(store: orlop.Store) -> Graph:
    await store.leases.create("scaffold")
    return Graph(store)


async def test_nothing_to_collect_is_no_error_and_no_event(store: orlop.Store) -> None:
    removed = await store.collect()
    assert (removed.leases, removed.images, removed.ingests, removed.content, removed.blobs) == (0, 0, 0, 0, 0)
    assert (await store.events.page()).items == []


async def test_a_blob_that_nobody_wants_goes(store: orlop.Store) -> None:
    await keep(store, b"small")
    await keep(store, blob(1, 50_000))
    await store.collect()
    assert await digests(store) == []


async def test_a_lease_keeps_what_was_committed_under_it(store: orlop.Store) -> None:
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    kept = sorted([await keep(leased, b"small"), await keep(leased, blob(2, 50_000))])
    await store.collect()
    assert await digests(store) == kept
    await store.leases.delete("lease")
    await store.collect()
    assert await digests(store) == []


async def test_a_blob_committed_without_the_lease_of_its_open_goes(store: orlop.Store) -> None:
    await store.leases.create("lease")
    request = m.OpenIngest("ref")
    opened = await store.with_lease("lease").content._call(t.INGESTS_OPEN, request)
    await store.content._call(t.INGESTS_WRITE, m.WriteIngest(opened.writer, 0, b"bytes"))
    await store.content._call(t.INGESTS_COMMIT, m.CommitIngest(opened.writer))
    await store.collect()
    assert await digests(store) == []
    assert [(r.type, r.id) async for r in store.leases.resources("lease")] == [("ingests", "ref")]


async def test_a_lease_deleted_with_sync_takes_what_only_it_held(stores: StoreMaker) -> None:
    async with stores.open() as store:
        await store.leases.create("lease")
        await keep(store.with_lease("lease"), blob(3, 50_000))
        await store.leases.delete("lease", sync=True)
        assert await digests(store) == []
        assert os.listdir(stores.folder / "store" / "blobs" / "sha256") == []


async def test_an_image_that_no_longer_expires_is_a_root_again(graph: Graph) -> None:
    await graph.blobs("x", "y")
    await graph.image("a", "x", {EXPIRE: PAST})
    await graph.image("b", "y", {EXPIRE: PAST})
    await graph.store.images.update("a", labels={}, mask=[f"labels.{EXPIRE}"])
    assert await graph.survivors() == {"i:a", "c:x"}


async def test_a_retargeted_image_lets_its_old_target_go(graph: Graph) -> None:
    await graph.blobs("old layer", "new layer", old={REF: "old layer"}, new={REF: "new layer"})
    await graph.image("app", "old")
    assert await graph.survivors() == {"i:app", "c:old", "c:old layer"}
    store = graph.store
    await store.leases.create("scaffold")
    await graph.blobs("new layer", new={REF: "new layer"})
    await store.images.update("app", target=orlop.Descriptor("t", named("new"), 3), mask=["target"])
    assert await graph.survivors() == {"i:app", "c:new", "c:new layer"}


async def test_a_replaced_reference_label_lets_the_old_blob_go(graph: Graph) -> None:
    await graph.blobs("l0", "l1", man={f"{REF}.l.0": "l0"})
    await graph.image("app", "man")
    await graph.store.content.update(named("man"), {f"{REF}.l.0": named("l1")}, [f"labels.{REF}.l.0"])
    assert await graph.survivors() == {"i:app", "c:man", "c:l1"}


async def test_a_blob_loses_its_root_with_its_label(graph: Graph) -> None:
    await graph.blobs("child", parent={ROOT: "r", REF: "child"})
    assert await graph.survivors() == {"c:parent", "c:child"}
    await graph.store.content.update(named("parent"), {}, [f"labels.{ROOT}"])
    assert await graph.collected() == set()


async def test_a_reference_may_come_before_its_target(graph: Graph) -> None:
    await graph.blobs(man={f"{REF}.l.0": "late"})
    await graph.image("app", "man")
    assert await graph.survivors() == {"i:app", "c:man"}
    graph._names[named("late")] = "late"
    await graph.store.content.put(b"late")  # no lease: the edge is there already
    assert await graph.collected() == {"i:app", "c:man", "c:late"}


async def test_two_holders_of_one_blob_must_both_let_go(graph: Graph) -> None:
    await graph.blobs("base", a={REF: "base"}, b={REF: "base"})
    await graph.image("one", "a")
    await graph.image("two", "b")
    assert await graph.survivors() == {"i:one", "i:two", "c:a", "c:b", "c:base"}
    await graph.store.images.delete("one", sync=True)
    assert await graph.collected() == {"i:two", "c:b", "c:base"}
    await graph.store.images.delete("two", sync=True)
    assert await graph.collected() == set()


async def test_a_cycle_hanging_on_an_image_goes_with_it(graph: Graph) -> None:
    await graph.blobs(a={REF: "b"}, b={REF: "c"}, c={REF: "a"}, d={BREF: "c"})
    await graph.image("app", "b")
    assert await graph.survivors() == {"i:app", "c:a", "c:b", "c:c", "c:d"}
    await graph.store.images.delete("app")
    assert await graph.collected() == set()


async def test_references_do_not_cross_namespaces(store: orlop.Store) -> None:
    other = store.in_namespace("other")
    await store.leases.create("lease")
    await store.with_lease("lease").content.put(b"target")
    await other.content.put(b"root", labels={ROOT: "r", REF: named("target")})
    await other.images.create("app", orlop.Descriptor("t", named("target"), 6))
    await store.leases.delete("lease")
    await store.collect()
    assert await digests(store) == []
    assert await digests(other) == [named("root")]


async def put_linked(store: orlop.Store, names: list[str], following: list[str]) -> None:
    """Each blob refers to the one that follows; all are held by leases of 100 until they hang together."""

    async def put(lease: str, first: int) -> None:
        await store.leases.create(lease)
        for n in range(first, min(first + 100, len(names))):
            labels = {REF: named(following[n])}
            await store.with_lease(lease).content.put(names[n].encode(), labels=labels)

    leases = [f"lease {first}" for first in range(0, len(names), 100)]
    async with trio.open_nursery() as nursery:
        for n, lease in enumerate(leases):
            nursery.start_soon(put, lease, n * 100)
    await store.images.create("app", orlop.Descriptor("t", named(names[0]), 1))
    for lease in leases:
        await store.leases.delete(lease)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cycle", "chain"])
async def test_no_chain_is_too_long_and_no_cycle_too_large(store: orlop.Store, shape: str) -> None:
    names = [f"node {n}" for n in range(1500)]
    await put_linked(store, names, names[1:] + (names[:1] if shape == "cycle" else ["absent"]))
    await store.collect()
    assert len(await digests(store)) == len(names)
    await store.images.delete("app", sync=True)
    assert await digests(store) == []


@pytest.mark.slow
async def test_a_lease_may_hold_much_and_still_be_deleted(store: orlop.Store) -> None:
    count = 1100
    await store.leases.create("lease")
    leased = store.with_lease("lease")

    async def put(numbers: range) -> None:
        for n in numbers:
            await leased.content.put(f"blob {n}".encode())

    async with trio.open_nursery() as nursery:
        for first in range(0, count, 100):
            nursery.start_soon(put, range(first, first + 100))
    assert len([r async for r in store.leases.resources("lease")]) == count
    await store.collect()
    assert len(await digests(store)) == count
    await store.leases.delete("lease", sync=True)
    assert await digests(store) == []


@pytest.mark.slow
async def test_a_lease_that_holds_much_expires_too(store: orlop.Store) -> None:
    count = 1100
    await store.leases.create("lease", {EXPIRE: after_seconds(3)})
    leased = store.with_lease("lease")

    async def put(numbers: range) -> None:
        for n in numbers:
            await leased.content.put(f"blob {n}".encode())

    async with trio.open_nursery() as nursery:
        for first in range(0, count, 100):
            nursery.start_soon(put, range(first, first + 100))
    await trio.sleep(3)
    await store.collect()
    assert await digests(store) == []
    assert [lease.id async for lease in store.leases.list()] == []


async def test_a_dangling_lease_entry_protects_what_comes_later(store: orlop.Store) -> None:
    await store.leases.create("lease")
    await store.with_lease("lease").content.put(b"x")
    await store.content.delete(named("x"))
    await store.collect()
    await store.content.put(b"x")
    await store.collect()
    assert await digests(store) == [named("x")]
    await store.leases.remove("lease", orlop.LeaseResource(named("x"), "content"))
    await store.collect()
    assert await digests(store) == []
    await store.leases.remove("lease", orlop.LeaseResource(named("x"), "content"))  # absent is fine


async def test_an_expired_lease_protects_nothing(store: orlop.Store) -> None:
    await store.leases.create("lease", {EXPIRE: after_seconds(0.2), ROOT: "means nothing here"})
    await store.with_lease("lease").content.put(b"x")
    await trio.sleep(0.25)
    await store.collect()
    assert await digests(store) == []
    assert [lease async for lease in store.leases.list()] == []


async def test_expiry_needs_nobody_to_ask_for_a_collection(store: orlop.Store) -> None:
    info = await store.content.put(b"x", labels={ROOT: "r"})
    async with store.events.subscribe() as events:
        descriptor = orlop.Descriptor("t", info.digest, 1)
        await store.images.create("short-lived", descriptor, {EXPIRE: after_seconds(0.3)})
        with trio.fail_after(10):
            async for event in events:
                if event.topic == "/images/delete":
                    break
    with pytest.raises(errors.NotFound):
        await store.images.get("short-lived")


async def test_a_deletion_is_followed_by_a_collection_without_being_asked(store: orlop.Store) -> None:
    await store.leases.create("lease")
    await store.with_lease("lease").content.put(b"x")
    await store.images.create("app", orlop.Descriptor("t", named("x"), 1))
    await store.leases.delete("lease")
    assert await digests(store) == [named("x")]
    await store.images.delete("app")
    with trio.fail_after(10):
        while await digests(store):
            await trio.sleep(0.01)


async def test_a_collection_tells_what_it_removed(store: orlop.Store) -> None:
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    await keep(leased, blob(4, 50_000))
    await keep(leased, b"small")
    await store.leases.delete("lease", sync=True)
    events = [event.topic for event in (await store.events.page()).items]
    assert "/content/delete" not in events  # only deletes by hand are told
