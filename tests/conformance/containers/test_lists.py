"""Containers deleted, told of, listed; large ones. Source: spec metadata 1.3 to 1.7, 2, 4, 8, 10, 14.3, 17."""

from __future__ import annotations

import hashlib

import pytest
from msgspec.structs import replace

import orlop
from orlop.protocol.errors import InvalidArgument, NotFound, OrlopError, ResourceExhausted
from orlop.protocol.records import ContainerCreate, ContainerDelete, ContainerUpdate
from tests.conftest import StoreMaker
from tests.support.containers import BASE, BREF, LEAST, OTHER, REF, at, ids, said, streamed, typed
from tests.support.outcomes import until_gone

# delete, and what containers keep alive ------------------------------------------------------------------


async def test_a_deleted_id_can_be_taken_again_and_has_nothing_of_before(one: orlop.Store) -> None:
    first = await one.containers.create(BASE)
    await one.containers.delete("c")
    with pytest.raises(NotFound):
        await one.containers.get("c")
    with pytest.raises(NotFound):
        await one.containers.delete("c")
    assert await ids(one) == []
    second = await one.containers.create(LEAST)
    assert second == at(LEAST, second)
    assert second.created_at > first.created_at


async def test_what_a_container_refers_to_lives_until_it_lets_go(store: orlop.Store) -> None:
    labels = {f"{REF}.{name}": "sha256:" + hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two")}
    one, two = labels.values()
    await store.containers.create(replace(LEAST, labels=labels))
    await store.content.put(b"one")
    await store.content.put(b"two")
    await store.collect()
    assert {info.digest async for info in store.content.list()} == {one, two}
    # Nobody asks for the collections that follow.
    await store.containers.update(LEAST, [f"labels.{REF}.one"])
    await until_gone(store, one)
    assert await store.content.read(two) == b"two"
    await store.containers.delete("c")
    await until_gone(store, two)


async def test_what_refers_back_to_a_container_lives_as_long_as_it(one: orlop.Store) -> None:
    await one.containers.create(LEAST)
    kept = await one.content.put(b"kept", labels={BREF: "c"})
    await one.content.put(b"not kept", labels={BREF: "other"})
    await one.collect()
    assert [info.digest async for info in one.content.list()] == [kept.digest]
    await one.containers.delete("c")
    await until_gone(one, kept.digest)


# events --------------------------------------------------------------------------------------------------


async def test_events_tell_of_what_was_stored(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    created = await there.containers.create(replace(BASE, labels={"a": "1", "empty": ""}))
    updated = await there.containers.update(
        replace(OTHER, labels={"new": "2", "unselected": "3"}), ["labels.new", "snapshotkey"]
    )
    await there.containers.update(OTHER)
    await there.containers.delete("c")
    events = (await store.events.page()).items
    assert [(event.topic, event.event) for event in events] == [
        ("/containers/create", ContainerCreate("c", "image one", BASE.runtime)),
        ("/containers/update", ContainerUpdate("c", "image one", {"a": "1", "new": "2"}, "key two")),
        ("/containers/update", ContainerUpdate("c", "image two", OTHER.labels, "key two")),
        ("/containers/delete", ContainerDelete("c")),
    ]
    assert {event.namespace for event in events} == {"tenant"}
    assert [event.timestamp for event in events[:2]] == [created.created_at, updated.updated_at]


async def test_reads_and_failures_publish_nothing(one: orlop.Store) -> None:
    await one.containers.create(BASE)
    before = await said(one)
    for call in (
        lambda: one.containers.create(BASE),
        lambda: one.containers.create(replace(BASE, id="d", spec=None)),
        lambda: one.containers.update(replace(BASE, snapshotter="other")),
        lambda: one.containers.update(OTHER, ["labels", "id"]),
        lambda: one.containers.update(replace(BASE, id="absent")),
        lambda: one.containers.delete("absent"),
        lambda: one.containers.get("absent"),
    ):
        with pytest.raises(OrlopError):
            await call()
    await one.containers.get("c")
    assert await ids(one) == ["c"]
    assert await said(one) == before


# lists ---------------------------------------------------------------------------------------------------


async def test_containers_are_listed_and_streamed_in_byte_order(store: orlop.Store) -> None:
    expected = ["0", "B", "a", "a-b", "a.b", "a10", "a9", "a_1", "aa", "c1", "z"]
    for id_ in expected[::2] + expected[1::2]:
        await store.containers.create(replace(LEAST, id=id_))
    await store.in_namespace("other").containers.create(replace(LEAST, id="b"))
    assert await ids(store) == expected
    assert [container.id for container in await streamed(store)] == expected


async def test_filters_find_containers_by_what_is_filterable(store: orlop.Store) -> None:
    await store.containers.create(replace(BASE, id="full", labels={"k": "v", "example.com/x": "1"}))
    await store.containers.create(replace(LEAST, id="least"))
    for filters, expected in [
        ([], ["full", "least"]),
        (["id==full"], ["full"]),
        (["image"], ["full"]),
        (['image=="image one"'], ["full"]),
        (["runtime.name==r"], ["least"]),
        (["runtime==r"], []),
        (["labels.k==v", "id==full", "image"], ["full"]),
        (['labels."example.com/x"==1'], ["full"]),
        (["id==full,labels.k==w"], []),
        (["snapshotter==native"], []),
        (["snapshot_key", "snapshotkey", "spec", "sandbox", "extensions.e1", "created_at"], []),
        (["id==absent", ""], ["full", "least"]),
    ]:
        assert await ids(store, *filters) == expected, filters
        assert [container.id for container in await streamed(store, *filters)] == expected, filters


async def test_one_bad_filter_refuses_the_list(store: orlop.Store) -> None:
    await store.containers.create(BASE)
    for filters in (["id="], ["", "image~=.*"], ["id==c "], [" "]):
        with pytest.raises(InvalidArgument):
            await ids(store, *filters)
        with pytest.raises(InvalidArgument):
            await streamed(store, *filters)
        with pytest.raises(InvalidArgument):
            await ids(store.in_namespace("unused"), *filters)


async def test_a_list_of_some_fields_leaves_out_the_others(store: orlop.Store) -> None:
    await store.containers.create(BASE)
    expected = [orlop.Container("c", labels={"a": "1"}, image="image one")]
    assert [container async for container in store.containers.list(["image"], fields=["labels", "image"])] == expected
    async with store.containers.stream(fields=["labels", "image"]) as found:
        assert [container async for container in found] == expected


# large records -------------------------------------------------------------------------------------------


def large(seed: int, kib: int = 200) -> orlop.Any:
    """A typed value of incompressible bytes."""
    return orlop.Any("types.example/large", hashlib.shake_256(b"%d" % seed).digest(kib * 1024))


async def test_a_large_container_survives_updates_and_leaves_nothing(store: orlop.Store) -> None:
    created = await store.containers.create(replace(BASE, spec=large(1)))
    assert created == at(replace(BASE, spec=large(1)), created)
    assert await store.containers.get("c") == created
    updated = await store.containers.update(OTHER, ["labels"])
    assert updated == at(replace(BASE, spec=large(1), labels=OTHER.labels), updated)
    for spec in (large(2, 100), typed("small"), large(3, 300), large(4)):
        updated = await store.containers.update(replace(BASE, spec=spec), ["spec"])
        assert updated.spec == spec
        assert await store.containers.get("c") == updated
    await store.containers.delete("c")
    with pytest.raises(NotFound):
        await store.containers.get("c")
    await store.containers.create(LEAST)
    assert (await store.containers.get("c")).spec == LEAST.spec


async def test_a_large_container_survives_a_restart(stores: StoreMaker) -> None:
    if stores.engine == "memory":
        pytest.skip("what memory holds ends with its store")
    async with stores.open() as store:
        await store.containers.create(replace(BASE, id="kept", spec=large(1)))
        await store.containers.create(replace(BASE, id="changed", spec=large(2)))
        await store.containers.create(replace(BASE, id="deleted", spec=large(3)))
        await store.containers.update(replace(BASE, id="changed", spec=large(4, 90)))
        await store.containers.delete("deleted")
        before = [container async for container in store.containers.list()]
    async with stores.open() as store:
        assert [container async for container in store.containers.list()] == before
        assert [container.spec for container in before] == [large(4, 90), large(1)]
        updated = await store.containers.update(replace(OTHER, id="kept"), ["labels", "image"])
        assert (updated.spec, updated.image) == (large(1), "image two")
        await store.containers.delete("changed")
        with pytest.raises(NotFound):
            await store.containers.get("deleted")
    async with stores.open() as store:
        assert [container async for container in store.containers.list()] == [updated]


async def test_large_containers_are_listed_and_streamed(store: orlop.Store) -> None:
    for number in range(6):
        await store.containers.create(replace(LEAST, id=f"c{number}", spec=large(number, 400)))
    expected = [large(number, 400) for number in range(6)]
    assert [container.spec async for container in store.containers.list()] == expected
    assert [container.spec for container in await streamed(store)] == expected
    assert [container.spec async for container in store.containers.list(["id==c4"])] == expected[4:5]
    assert [container.spec async for container in store.containers.list(fields=["image"])] == [None] * 6


LARGE_PARTS = {
    "labels": {f"k{number}": "x" * 4000 for number in range(50)},
    "image": "x" * 200 * 1024,
    "runtime": orlop.Runtime("io.example.v1", large(1)),
    "runtime.name": orlop.Runtime("x" * 200 * 1024),
    "snapshot_key": "x" * 200 * 1024,
    "extensions": {"e": large(2, 100), "x" * 100 * 1024: typed("x")},
    "sandbox": "x" * 200 * 1024,
}


@pytest.mark.parametrize("field", LARGE_PARTS)
async def test_any_part_of_a_container_may_be_large(one: orlop.Store, field: str) -> None:
    given = replace(BASE, **{field.partition(".")[0]: LARGE_PARTS[field]})
    created = await one.containers.create(given)
    assert created == at(given, created)
    updated = await one.containers.update(given)
    assert updated == at(given, updated)
    assert await one.containers.get("c") == updated
    assert await said(one) == [
        ("default", ContainerCreate("c", given.image, given.runtime)),
        ("default", ContainerUpdate("c", given.image, given.labels, given.snapshot_key)),
    ]


async def test_a_record_has_at_most_512_kib(store: orlop.Store) -> None:
    await store.containers.create(replace(LEAST, id="fits", spec=large(1, 511)))
    there = store.in_namespace("tenant")
    for kib in (512, 700):
        with pytest.raises(ResourceExhausted, match="record"):
            await there.containers.create(replace(LEAST, spec=large(1, kib)))
    assert [namespace.name async for namespace in store.namespaces.list()] == ["default"]
    before = await store.containers.create(replace(LEAST, spec=large(1, 300)))
    with pytest.raises(ResourceExhausted, match="record"):
        await store.containers.update(
            replace(LEAST, extensions={"e": large(2, 300)}, labels={"a": "1"}), ["labels", "extensions.e"]
        )
    assert await store.containers.get("c") == before
    assert len(await said(store)) == 2


async def test_a_record_longer_than_a_frame_is_refused_like_any_too_large_one(store: orlop.Store) -> None:
    with pytest.raises(ResourceExhausted):
        await store.containers.create(replace(LEAST, spec=orlop.Any("types.example/large", bytes(2 * 1024 * 1024))))
    await store.containers.create(LEAST)
    assert await ids(store) == ["c"]
