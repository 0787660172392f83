"""Containers changed by a mask, or as a whole. Source: spec metadata 1.3 to 1.7, 2, 4, 8, 10, 14.3, 17."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

import orlop
from orlop.protocol import errors
from orlop.protocol.errors import InvalidArgument, NotFound
from tests.support.containers import BASE, LEAST, OTHER, at, typed
from tests.support.vectors import MASKS


async def test_update_without_a_mask_replaces_what_can_change(store: orlop.Store) -> None:
    created = await store.containers.create(BASE)
    for mask in (None, []):
        updated = await store.containers.update(OTHER, mask)
        # Runtime options and sandbox are kept without a word.
        assert updated == at(replace(OTHER, runtime=BASE.runtime, sandbox=BASE.sandbox), updated)
        assert updated.created_at == created.created_at
        assert await store.containers.get("c") == updated
        least = replace(LEAST, runtime=orlop.Runtime("io.example.v1"), snapshotter="native")
        updated = await store.containers.update(least, mask)
        assert updated == at(replace(least, runtime=BASE.runtime, sandbox=BASE.sandbox), updated)
        assert await store.containers.get("c") == updated


async def test_update_without_a_mask_refuses_another_snapshotter_then_another_runtime(one: orlop.Store) -> None:
    created = await one.containers.create(BASE)
    runtime = orlop.Runtime("io.example.v2")
    for field, given in [
        ("snapshotter", {"snapshotter": "other", "runtime": runtime, "spec": None}),
        ("snapshotter", {"snapshotter": ""}),
        (r"runtime\.name", {"runtime": runtime, "spec": None}),
        (r"runtime\.name", {"runtime": orlop.Runtime("", typed("options"))}),
        (r"\bspec\b", {"spec": None}),
        ("extension", {"extensions": {"": typed("x")}}),
        ('label "k"', {"labels": {"k": "é" * 2048}}),
    ]:
        with pytest.raises(InvalidArgument, match=field):
            await one.containers.update(replace(OTHER, **given))
    assert await one.containers.get("c") == created


async def test_update_takes_the_paths_of_the_table_and_names_the_others(one: orlop.Store) -> None:
    await one.containers.create(BASE)
    for row in MASKS:
        before = await one.containers.update(BASE)
        if row["container"] == "ok":
            await one.containers.update(OTHER, ["labels.new", row["path"]])
            continue
        with pytest.raises(getattr(errors, row["container"])) as refused:
            await one.containers.update(OTHER, ["labels.new", row["path"]])
        assert row["path"].removesuffix("s.") in str(refused.value)
        assert await one.containers.get("c") == before, row["path"]


async def test_a_path_changes_just_what_it_names(one: orlop.Store) -> None:
    await one.containers.create(BASE)
    for path, expected in [
        ("labels", {"labels": OTHER.labels}),
        ("labels.a", {"labels": {"a": "2"}}),
        ("labels.new", {"labels": {"a": "1", "new": "2"}}),
        ("extensions", {"extensions": OTHER.extensions}),
        ("extensions.e2", {"extensions": {"e1": typed("one"), "e2": typed("other")}}),
        ("spec", {"spec": OTHER.spec}),
        ("image", {"image": OTHER.image}),
        ("snapshotkey", {"snapshot_key": OTHER.snapshot_key}),
    ]:
        await one.containers.update(BASE)
        updated = await one.containers.update(OTHER, [path])
        assert updated == at(replace(BASE, **expected), updated), path
        assert await one.containers.get("c") == updated, path


async def test_label_paths_set_and_remove_single_labels(one: orlop.Store) -> None:
    await one.containers.create(replace(BASE, labels={"keep": "1", "gone": "2", "emptied": "3"}))
    given = replace(LEAST, labels={"x.y.z/w": "new", "emptied": "", "unselected": "9"})
    paths = ["labels.x.y.z/w", "labels.gone", "labels.emptied", "labels.never", "labels.gone"]
    updated = await one.containers.update(given, paths)
    expected = {"keep": "1", "x.y.z/w": "new"}
    assert updated == at(replace(BASE, labels=expected), updated)
    assert await one.containers.get("c") == updated
    assert (await one.containers.update(LEAST, ["labels."])).labels == expected
    overlapping = await one.containers.update(OTHER, ["labels.a", "labels", "labels.a"])
    assert overlapping.labels == OTHER.labels
    assert (await one.containers.update(LEAST, ["labels"])).labels == {}


async def test_extensions_that_are_left_out_are_really_gone(store: orlop.Store) -> None:
    await store.containers.create(BASE)
    only = replace(BASE, extensions={"e3": typed("three")})
    for mask in (None, ["extensions"], ["extensions.e9", "extensions"]):
        await store.containers.update(BASE)
        assert (await store.containers.update(only, mask)).extensions == only.extensions, mask
        assert (await store.containers.get("c")).extensions == only.extensions, mask
    await store.containers.update(BASE)
    updated = await store.containers.update(only, ["extensions.e1", "extensions.e3", "extensions.never"])
    assert updated.extensions == {"e2": typed("two"), "e3": typed("three")}
    assert await store.containers.get("c") == updated
    assert (await store.containers.update(LEAST, ["extensions"])).extensions == {}
    assert (await store.containers.get("c")).extensions == {}


async def test_all_behind_the_first_dot_is_the_extensions_key(one: orlop.Store) -> None:
    await one.containers.create(LEAST)
    given = replace(LEAST, extensions={"a.b/c": typed("x"), "empty": orlop.Any("", b"")})
    updated = await one.containers.update(given, ["extensions.a.b/c", "extensions.empty"])
    assert updated.extensions == given.extensions
    assert await one.containers.get("c") == updated


async def test_an_extension_without_a_key_is_refused(one: orlop.Store) -> None:
    created = await one.containers.create(BASE)
    nameless = replace(BASE, extensions={"": typed("x")})
    for given, mask in [(BASE, ["extensions."]), (nameless, ["extensions."]), (nameless, ["extensions"])]:
        with pytest.raises(InvalidArgument, match="extension"):
            await one.containers.update(given, ["labels", *mask])
    assert await one.containers.get("c") == created


async def test_a_spec_can_not_be_cleared_image_and_snapshot_key_can(store: orlop.Store) -> None:
    created = await store.containers.create(BASE)
    with pytest.raises(InvalidArgument, match=r"\bspec\b"):
        await store.containers.update(replace(OTHER, spec=None), ["image", "spec"])
    assert await store.containers.get("c") == created
    updated = await store.containers.update(orlop.Container("c"), ["image", "snapshotkey"])
    assert updated == at(replace(BASE, image="", snapshot_key=""), updated)
    assert await store.containers.get("c") == updated


async def test_a_snapshot_key_in_an_update_needs_the_stored_snapshotter(one: orlop.Store) -> None:
    created = await one.containers.create(LEAST)
    with pytest.raises(InvalidArgument, match="snapshotter"):
        await one.containers.update(replace(LEAST, snapshotter="native", snapshot_key="key"), ["snapshotkey"])
    with pytest.raises(InvalidArgument, match="snapshotter"):
        await one.containers.update(replace(LEAST, snapshot_key="key"))
    assert await one.containers.get("c") == created


async def test_update_looks_for_the_record_before_anything_in_the_request(one: orlop.Store) -> None:
    for given, mask in [
        (LEAST, ["no.such.path"]),
        (orlop.Container("c", snapshotter="other"), None),
        (replace(LEAST, id="no identifier"), ["labels"]),
        (replace(LEAST, labels={"k": "x" * 4096}), ["labels"]),
    ]:
        with pytest.raises(NotFound):
            await one.containers.update(given, mask)


async def test_a_refused_path_names_the_record_and_undoes_those_before_it(one: orlop.Store) -> None:
    created = await one.containers.create(BASE)
    with pytest.raises(InvalidArgument, match=r"(?=.*snapshot_key)(?=.*\"c\")"):
        await one.containers.update(OTHER, ["labels", "extensions", "spec", "image", "snapshotkey", "snapshot_key"])
    assert await one.containers.get("c") == created


async def test_what_the_mask_does_not_select_is_not_looked_at(one: orlop.Store) -> None:
    await one.containers.create(BASE)
    given = orlop.Container(
        "c", {"k": "é" * 2048, "": "x"}, "image two", snapshotter="other", extensions={"": typed("x")}
    )
    updated = await one.containers.update(given, ["image"])
    assert updated == at(replace(BASE, image="image two"), updated)
    for path in ("labels", "labels.k", "labels."):
        with pytest.raises(InvalidArgument, match="label"):
            await one.containers.update(given, [path])
    assert await one.containers.get("c") == updated


async def test_every_successful_update_moves_updated_at_and_no_failed_one(store: orlop.Store) -> None:
    created = last = await store.containers.create(BASE)
    for mask in (None, ["labels"], ["labels.a"], ["labels."], ["extensions.e1"], ["spec"], ["image"], ["snapshotkey"]):
        updated = await store.containers.update(BASE, mask)
        assert updated.updated_at > last.updated_at, mask
        assert updated.created_at == created.created_at, mask
        assert updated == at(BASE, updated), mask
        last = updated
    with pytest.raises(InvalidArgument):
        await store.containers.update(BASE, ["id"])
    assert await store.containers.get("c") == last


async def test_concurrent_updates_of_different_labels_all_hold(one: orlop.Store) -> None:
    await one.containers.create(LEAST)

    async def update(number: int) -> None:
        key = f"k{number}"
        await one.containers.update(replace(LEAST, labels={key: str(number)}), [f"labels.{key}"])

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(update, number)
    assert (await one.containers.get("c")).labels == {f"k{n}": str(n) for n in range(32)}
