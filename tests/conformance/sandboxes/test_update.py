"""Sandboxes changed by a mask, or as a whole, and deleted. Source: spec metadata 1.3 to 1.7, 2, 4, 8, 13, 17."""

from __future__ import annotations

import hashlib

import pytest
import trio
from msgspec.structs import replace

import orlop
from orlop.protocol.errors import InvalidArgument, NotFound
from tests.support.outcomes import until_gone
from tests.support.sandboxes import BASE, LEAST, OTHER, REF, at, ids, typed
from tests.support.vectors import MASKS

# update --------------------------------------------------------------------------------------------------


async def test_update_without_a_mask_replaces_what_can_change(store: orlop.Store) -> None:
    created = await store.sandboxes.create(BASE)
    for mask in (None, []):
        updated = await store.sandboxes.update(OTHER, mask)
        # The sandboxer is kept without a word.
        assert updated == at(replace(OTHER, sandboxer="podsandbox"), updated)
        assert updated.created_at == created.created_at
        assert await store.sandboxes.get("s") == updated


async def test_what_an_update_clears_stays_cleared(store: orlop.Store) -> None:
    await store.sandboxes.create(BASE)
    least = replace(LEAST, runtime=orlop.Runtime("io.example.v1"))
    updated = await store.sandboxes.update(least)
    assert updated == at(replace(least, sandboxer="podsandbox"), updated)
    assert await store.sandboxes.get("s") == updated
    for mask, cleared in [
        (["spec"], {"spec": None}),
        (["extensions"], {"extensions": {}}),
        (["labels"], {"labels": {}}),
        (["runtime"], {"runtime": orlop.Runtime("")}),
    ]:
        await store.sandboxes.update(BASE, ["labels", "extensions", "spec", "runtime"])
        updated = await store.sandboxes.update(LEAST, mask)
        assert updated == at(replace(BASE, **cleared), updated), mask
        assert await store.sandboxes.get("s") == updated, mask


async def test_only_the_path_runtime_changes_its_name(store: orlop.Store) -> None:
    created = await store.sandboxes.create(BASE)
    for name in ("io.example.v2", ""):
        given = replace(OTHER, runtime=orlop.Runtime(name, typed("other options")))
        with pytest.raises(InvalidArgument, match=r"runtime\.name"):
            await store.sandboxes.update(given)
        assert (await store.sandboxes.get("s")).runtime == created.runtime
        assert (await store.sandboxes.update(given, ["labels"])).runtime == created.runtime
        assert (await store.sandboxes.update(given, ["runtime"])).runtime == given.runtime
        assert (await store.sandboxes.get("s")).runtime == given.runtime
        await store.sandboxes.update(BASE, ["runtime"])


async def test_update_takes_the_paths_of_the_table_and_names_the_others(one: orlop.Store) -> None:
    await one.sandboxes.create(BASE)
    for row in MASKS:
        before = await one.sandboxes.update(BASE)
        if row["sandbox"] == "ok":
            await one.sandboxes.update(OTHER, ["labels.new", row["path"]])
            continue
        with pytest.raises(InvalidArgument) as refused:  # Unknown in the table, for `extensions.`
            await one.sandboxes.update(OTHER, ["labels.new", row["path"]])
        assert row["path"].removesuffix("s.") in str(refused.value)
        assert await one.sandboxes.get("s") == before, row["path"]


async def test_a_path_changes_just_what_it_names(one: orlop.Store) -> None:
    await one.sandboxes.create(BASE)
    for path, expected in [
        ("labels", {"labels": OTHER.labels}),
        ("labels.a", {"labels": {"a": "2"}}),
        ("labels.new", {"labels": {"a": "1", "new": "2"}}),
        ("labels.", {}),
        ("extensions", {"extensions": OTHER.extensions}),
        ("extensions.e2", {"extensions": {"e1": typed("one"), "e2": typed("other")}}),
        ("extensions.e1", {"extensions": {"e2": typed("two")}}),
        ("extensions.never", {}),
        ("spec", {"spec": OTHER.spec}),
        ("runtime", {"runtime": OTHER.runtime}),
    ]:
        await one.sandboxes.update(BASE)
        updated = await one.sandboxes.update(OTHER, [path])
        assert updated == at(replace(BASE, **expected), updated), path
        assert await one.sandboxes.get("s") == updated, path


async def test_label_and_extension_paths_take_all_behind_the_first_dot(one: orlop.Store) -> None:
    await one.sandboxes.create(replace(BASE, labels={"keep": "1", "gone": "2", "emptied": "3"}))
    given = replace(
        LEAST,
        labels={"x.y.z/w": "new", "emptied": "", "unselected": "9"},
        extensions={"a.b/c": typed("x"), "unselected": typed("x")},
    )
    paths = ["labels.x.y.z/w", "labels.gone", "labels.emptied", "labels.gone", "extensions.a.b/c", "extensions.e1"]
    updated = await one.sandboxes.update(given, paths)
    expected = {"keep": "1", "x.y.z/w": "new"}
    extensions = {"e2": typed("two"), "a.b/c": typed("x")}
    assert updated == at(replace(BASE, labels=expected, extensions=extensions), updated)
    assert await one.sandboxes.get("s") == updated


async def test_an_extension_without_a_key_is_refused(one: orlop.Store) -> None:
    created = await one.sandboxes.create(BASE)
    nameless = replace(BASE, extensions={"": typed("x")})
    for given, mask in [
        (BASE, ["labels", "extensions."]),
        (nameless, ["labels", "extensions."]),
        (nameless, ["extensions"]),
        (nameless, None),
    ]:
        with pytest.raises(InvalidArgument, match="extension"):
            await one.sandboxes.update(given, mask)
    assert await one.sandboxes.get("s") == created


async def test_a_refused_path_names_the_record_and_undoes_those_before_it(one: orlop.Store) -> None:
    created = await one.sandboxes.create(BASE)
    with pytest.raises(InvalidArgument, match=r"(?=.*sandboxer)(?=.*\"s\")"):
        await one.sandboxes.update(OTHER, ["labels", "extensions", "spec", "runtime", "sandboxer"])
    assert await one.sandboxes.get("s") == created


async def test_what_the_mask_does_not_select_is_not_looked_at(one: orlop.Store) -> None:
    await one.sandboxes.create(BASE)
    runtime = orlop.Runtime("io.example.v2")
    given = orlop.Sandbox("s", runtime, typed("new"), {"k": "é" * 2048, "": "x"}, extensions={"": typed("x")})
    updated = await one.sandboxes.update(given, ["spec"])
    assert updated == at(replace(BASE, spec=typed("new")), updated)
    for path in ("labels", "labels.k", "labels."):
        with pytest.raises(InvalidArgument, match="label"):
            await one.sandboxes.update(given, [path])
    assert await one.sandboxes.get("s") == updated


async def test_every_successful_update_moves_updated_at_and_no_failed_one(store: orlop.Store) -> None:
    created = last = await store.sandboxes.create(BASE)
    given = replace(BASE, created_at=12, updated_at=34)
    for mask in (None, ["labels"], ["labels.a"], ["labels."], ["extensions.e1"], ["spec"], ["runtime"]):
        updated = await store.sandboxes.update(given, mask)
        assert updated.updated_at > last.updated_at, mask
        assert updated == at(BASE, updated), mask
        assert updated.created_at == created.created_at, mask
        last = updated
    with pytest.raises(InvalidArgument):
        await store.sandboxes.update(BASE, ["id"])
    assert await store.sandboxes.get("s") == last


async def test_concurrent_updates_of_different_labels_all_hold(one: orlop.Store) -> None:
    await one.sandboxes.create(LEAST)

    async def update(number: int) -> None:
        key = f"k{number}"
        await one.sandboxes.update(replace(LEAST, labels={key: str(number)}), [f"labels.{key}"])

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(update, number)
    assert (await one.sandboxes.get("s")).labels == {f"k{n}": str(n) for n in range(32)}


# delete, and what sandboxes keep alive -------------------------------------------------------------------


async def test_a_deleted_id_can_be_taken_again_and_has_nothing_of_before(one: orlop.Store) -> None:
    first = await one.sandboxes.create(BASE)
    await one.sandboxes.delete("s")
    with pytest.raises(NotFound):
        await one.sandboxes.get("s")
    with pytest.raises(NotFound):
        await one.sandboxes.delete("s")
    assert await ids(one) == []
    second = await one.sandboxes.create(LEAST)
    assert second == at(LEAST, second)
    assert second.created_at > first.created_at


async def test_what_a_sandbox_refers_to_lives_until_it_lets_go(store: orlop.Store) -> None:
    labels = {f"{REF}.{name}": "sha256:" + hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two")}
    one, two = labels.values()
    await store.sandboxes.create(replace(LEAST, labels=labels))
    await store.content.put(b"one")
    await store.content.put(b"two")
    await store.collect()
    assert {info.digest async for info in store.content.list()} == {one, two}
    # Nobody asks for the collections that follow.
    await store.sandboxes.update(LEAST, [f"labels.{REF}.one"])
    await until_gone(store, one)
    assert await store.content.read(two) == b"two"
    await store.sandboxes.delete("s")
    await until_gone(store, two)


async def test_nothing_is_published_about_sandboxes(store: orlop.Store) -> None:
    await store.sandboxes.create(BASE)
    await store.sandboxes.update(OTHER)
    await store.sandboxes.update(OTHER, ["runtime"])
    await store.sandboxes.delete("s")
    assert (await store.events.page()).items == []
