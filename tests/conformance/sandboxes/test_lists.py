"""Sandboxes listed; large ones. Source: spec metadata 1.3 to 1.7, 2, 4, 8, 13, 17."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

import orlop
from orlop.protocol.errors import InvalidArgument, NotFound, ResourceExhausted
from tests.conftest import StoreMaker
from tests.support.sandboxes import BASE, LEAST, OTHER, at, ids, large, streamed, typed

# lists ---------------------------------------------------------------------------------------------------


async def test_sandboxes_are_listed_and_streamed_in_byte_order(store: orlop.Store) -> None:
    expected = ["0", "B", "a", "a-b", "a.b", "a10", "a9", "a_1", "aa", "c1", "z"]
    for id_ in expected[::2] + expected[1::2]:
        await store.sandboxes.create(replace(LEAST, sandbox_id=id_))
    await store.in_namespace("other").sandboxes.create(replace(LEAST, sandbox_id="b"))
    assert await ids(store) == expected
    assert [sandbox.sandbox_id for sandbox in await streamed(store)] == expected


async def test_filters_find_sandboxes_by_id_and_label_alone(one: orlop.Store) -> None:
    await one.sandboxes.create(replace(BASE, sandbox_id="full", labels={"k": "v", "example.com/x": "1"}))
    await one.sandboxes.create(replace(LEAST, sandbox_id="least"))
    for filters, expected in [
        ([], ["full", "least"]),
        (["id"], ["full", "least"]),
        (["id==full"], ["full"]),
        (["id!=full"], ["least"]),
        (["labels.k==v", "id==full"], ["full"]),
        (['labels."example.com/x"==1'], ["full"]),
        (["id==full,labels.k==w"], []),
        (["sandbox_id", "sandboxer", "runtime.name", "spec", "extensions.e1", "created_at"], []),
        (["sandboxer!=podsandbox"], ["full", "least"]),
        (["id==absent", ""], ["full", "least"]),
    ]:
        assert await ids(one, *filters) == expected, filters
        assert [sandbox.sandbox_id for sandbox in await streamed(one, *filters)] == expected, filters


async def test_one_bad_filter_refuses_the_list(store: orlop.Store) -> None:
    await store.sandboxes.create(BASE)
    for filters in (["id="], ["", "labels.k~=.*"], ["id==s "], [" "]):
        with pytest.raises(InvalidArgument):
            await ids(store, *filters)
        with pytest.raises(InvalidArgument):
            await streamed(store, *filters)


async def test_a_list_of_some_fields_leaves_out_the_others(one: orlop.Store) -> None:
    await one.sandboxes.create(BASE)
    expected = [orlop.Sandbox("s", labels={"a": "1"}, sandboxer="podsandbox")]
    assert [sandbox async for sandbox in one.sandboxes.list(["id"], fields=["labels", "sandboxer"])] == expected
    async with one.sandboxes.stream(fields=["labels", "sandboxer"]) as found:
        assert [sandbox async for sandbox in found] == expected


# large records -------------------------------------------------------------------------------------------


async def test_a_large_sandbox_survives_updates_and_leaves_nothing(store: orlop.Store) -> None:
    created = await store.sandboxes.create(replace(BASE, spec=large(1)))
    assert created == at(replace(BASE, spec=large(1)), created)
    assert await store.sandboxes.get("s") == created
    updated = await store.sandboxes.update(OTHER, ["labels"])
    assert updated == at(replace(BASE, spec=large(1), labels=OTHER.labels), updated)
    for spec in (large(2, 100), typed("small"), large(3, 300), None, large(4)):
        updated = await store.sandboxes.update(replace(BASE, spec=spec), ["spec"])
        assert updated.spec == spec
        assert await store.sandboxes.get("s") == updated
    await store.sandboxes.delete("s")
    with pytest.raises(NotFound):
        await store.sandboxes.get("s")
    await store.sandboxes.create(LEAST)
    assert (await store.sandboxes.get("s")).spec is None


async def test_a_large_sandbox_survives_a_restart(stores: StoreMaker) -> None:
    if stores.engine == "memory":
        pytest.skip("what memory holds ends with its store")
    async with stores.open() as store:
        await store.sandboxes.create(replace(BASE, sandbox_id="kept", spec=large(1)))
        await store.sandboxes.create(replace(BASE, sandbox_id="deleted", spec=large(2)))
        await store.sandboxes.delete("deleted")
        before = [sandbox async for sandbox in store.sandboxes.list()]
    async with stores.open() as store:
        assert [sandbox async for sandbox in store.sandboxes.list()] == before
        assert [sandbox.spec for sandbox in before] == [large(1)]
        updated = await store.sandboxes.update(replace(OTHER, sandbox_id="kept"), ["labels"])
        assert updated.spec == large(1)
        await store.sandboxes.delete("kept")
        with pytest.raises(NotFound):
            await store.sandboxes.get("deleted")


async def test_any_part_of_a_sandbox_may_be_large(one: orlop.Store) -> None:
    for number, part in enumerate(
        (
            {"labels": {f"k{number}": "x" * 4000 for number in range(50)}},
            {"runtime": orlop.Runtime("x" * 100 * 1024, large(1, 100))},
            {"extensions": {"e": large(2, 100), "x" * 100 * 1024: typed("x")}},
            {"sandboxer": "x" * 200 * 1024},
        )
    ):
        given = replace(BASE, sandbox_id=f"s{number}", **part)
        created = await one.sandboxes.create(given)
        assert created == at(given, created)
        updated = await one.sandboxes.update(given)
        assert updated == at(given, updated)
    assert len([sandbox async for sandbox in one.sandboxes.list()]) == 4


async def test_a_record_has_at_most_512_kib(store: orlop.Store) -> None:
    await store.sandboxes.create(replace(LEAST, sandbox_id="fits", spec=large(1, 511)))
    there = store.in_namespace("tenant")
    for kib in (512, 700):
        with pytest.raises(ResourceExhausted, match="record"):
            await there.sandboxes.create(replace(LEAST, spec=large(1, kib)))
    assert [namespace.name async for namespace in store.namespaces.list()] == ["default"]
    before = await store.sandboxes.create(replace(LEAST, spec=large(1, 300)))
    with pytest.raises(ResourceExhausted, match="record"):
        await store.sandboxes.update(replace(LEAST, extensions={"e": large(2, 300)}), ["labels", "extensions.e"])
    assert await store.sandboxes.get("s") == before
