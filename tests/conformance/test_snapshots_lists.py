"""Which snapshotter is asked, what lists tell of it, and what events do. Source: spec snapshots 2.7, 2.12, 13.

All is made under a lease: no collection takes any.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol.errors import InvalidArgument, NotFound
from tests.support.outcomes import outcome

from ..support.snapshotters import Snapshots, Subject, journal, kinds
from .test_snapshots_edges import REF, commit_one

# which snapshotter ------------------------------------------------------------------------------------------


async def test_a_snapshotter_that_is_not_there_is_refused(subject: Subject) -> None:
    """49"""
    for name in ("nope", "Native", "native ", "../native", "zfs"):
        calls: list[Callable[[Any], Awaitable[object]]] = [
            lambda it: it.prepare("a"),
            lambda it: it.view("a"),
            lambda it: it.commit("c", "a"),
            lambda it: it.mounts("a"),
            lambda it: it.get("a"),
            lambda it: it.update("a", {}),
            lambda it: it.usage("a"),
            lambda it: it.remove("a"),
            lambda it: it.cleanup(),
            listed,
            streamed,
        ]
        for call in calls:
            with pytest.raises(InvalidArgument):
                await call(subject.store.snapshots.using(name))


async def listed(snapshots: Snapshots) -> list[orlop.SnapshotInfo]:
    return [info async for info in snapshots.list()]


async def streamed(snapshots: Snapshots, *filters: str) -> list[orlop.SnapshotInfo]:
    async with snapshots.stream(filters) as found:
        return [info async for info in found]


async def test_an_empty_snapshotter_name_is_the_default(subject: Subject) -> None:
    default = subject.store.snapshots
    await default.prepare("a", labels={"containerd.io/gc.root": "test"})
    info = await default.get("a")
    assert info.snapshotter in ("overlayfs", "native", "btrfs")
    assert await subject.store.snapshots.using("").get("a") == info
    assert await subject.store.snapshots.using(info.snapshotter).get("a") == info
    assert await outcome(default.using("").prepare("a")) == "AlreadyExists"


async def test_snapshotters_do_not_see_each_others_snapshots(subject: Subject) -> None:
    one, two = (subject.store.snapshots.using(name) for name in ("overlayfs", "native"))
    root = {"containerd.io/gc.root": "test"}
    await one.prepare("a", "", root)
    await two.prepare("b", "", root)
    await two.commit("a", "b", root)
    assert await kinds(one) == {"a": "ACTIVE"}
    assert await kinds(two) == {"a": "COMMITTED"}
    with pytest.raises(InvalidArgument):
        await one.prepare("x", "a")
    await one.remove("a")
    with pytest.raises(NotFound):
        await one.prepare("x", "a")
    await two.prepare("x", "a")


@pytest.mark.parametrize("namespace,error", [("", "FailedPrecondition"), ("not a namespace", "InvalidArgument")])
async def test_a_request_needs_a_sound_namespace(subject: Subject, namespace: str, error: str) -> None:
    there = subject.store.in_namespace(namespace).snapshots.using(subject.name)
    for call in (
        there.prepare("a"),
        there.view("a"),
        there.commit("c", "a"),
        there.mounts("a"),
        there.get("a"),
        there.update("a", {}),
        there.usage("a"),
        there.remove("a"),
        listed(there),
        streamed(there),
    ):
        assert await outcome(call) == error


# lists ------------------------------------------------------------------------------------------------------


async def make_many(snapshots: Snapshots, count: int) -> set[str]:
    made = {f"{'av'[number % 2]}{number:03}" for number in range(count)}
    limit = trio.CapacityLimiter(32)

    async def make(name: str) -> None:
        async with limit:
            await (snapshots.prepare if name[0] == "a" else snapshots.view)(name)

    async with trio.open_nursery() as nursery:
        for name in made:
            nursery.start_soon(make, name)
    return made


async def test_a_long_list_tells_of_each_once(snapshots: Snapshots) -> None:
    """31"""
    made = await make_many(snapshots, 250)
    for found in (await listed(snapshots), await streamed(snapshots)):
        assert sorted(info.name for info in found) == sorted(made)
    found = await streamed(snapshots, "kind==view")
    assert sorted(info.name for info in found) == sorted(name for name in made if name[0] == "v")


async def test_what_is_walked_over_may_be_removed(snapshots: Snapshots) -> None:
    """32"""
    for way in ("list", "stream"):
        made = await make_many(snapshots, 120)
        seen = []
        with trio.fail_after(20):
            if way == "list":
                async for info in snapshots.list():
                    await snapshots.remove(info.name)
                    seen.append(info.name)
            else:
                async with snapshots.stream([]) as found:
                    async for info in found:
                        await snapshots.remove(info.name)
                        seen.append(info.name)
        assert sorted(seen) == sorted(made)
        assert await listed(snapshots) == []


async def test_a_filter_that_is_none_is_refused(snapshots: Snapshots) -> None:
    """33"""
    await snapshots.prepare("a")
    for text in ("kind=active", "kind==", "==", "labels.(", "kind==active,,"):
        with pytest.raises(InvalidArgument):
            await streamed(snapshots, text)
        with pytest.raises(InvalidArgument):
            [info async for info in snapshots.list([text])]


async def test_a_filter_on_the_kind_is_in_lower_case(snapshots: Snapshots) -> None:
    await commit_one(snapshots, "c")
    await snapshots.prepare("a", "c")
    await snapshots.view("v")
    for text, expected in [
        ("kind==active", ["a"]), ("kind==view", ["v"]), ("kind==committed", ["c"]), ("kind==Active", []),
        ("kind!=active", ["c", "v"]), ("kind~=^(active|view)$", ["a", "v"]), ("kind", ["a", "c", "v"]),
        ('parent==""', ["c", "v"]), ('parent!=""', ["a"]), ("parent", ["a", "c", "v"]), ("bogus==x", []),
    ]:  # fmt: skip
        assert sorted([info.name async for info in snapshots.list([text])]) == expected, text


# events -----------------------------------------------------------------------------------------------------


async def test_changes_are_told_and_failures_are_not(snapshots: Snapshots, subject: Subject) -> None:
    await snapshots.prepare("k1")
    await snapshots.commit("c", "k1")
    await snapshots.prepare("k2", "c", {"not": "told"})
    await snapshots.update("k2", {"not": "told"})
    for refused in (
        snapshots.prepare("k2"),
        snapshots.prepare("k3", "c", {REF: "c"}),
        snapshots.prepare("k3", "not-there"),
        snapshots.commit("c", "k2"),
        snapshots.remove("c"),
    ):
        assert await outcome(refused) != "ok"
    await snapshots.remove("k2")
    await snapshots.remove("c")
    events = await journal(subject.store)
    assert {(event.namespace, event.event.snapshotter) for event in events} == {("default", subject.name)}
    told = [(event.topic, event.event.key) for event in events]
    assert told == [
        ("/snapshot/prepare", "k1"),
        ("/snapshot/commit", "k1"),
        ("/snapshot/prepare", "k2"),
        ("/snapshot/remove", "k2"),
        ("/snapshot/remove", "c"),
    ]
    assert [event.event.parent for event in events if event.topic == "/snapshot/prepare"] == ["", "c"]
    assert [event.event.name for event in events if event.topic == "/snapshot/commit"] == ["c"]


async def test_a_view_is_not_told_as_prepared(snapshots: Snapshots, subject: Subject) -> None:
    await snapshots.view("v")
    await snapshots.remove("v")
    told = [event.topic for event in await journal(subject.store) if event.topic != "/snapshot/view"]
    assert told == ["/snapshot/remove"]
