"""Sandboxes: records of environments that containers share, without events of their own.

Source: spec metadata 1.3 to 1.7, 2, 4, 8, 13, 17; tests/vectors: identifiers, label_sizes, masks.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

import orlop
from orlop.protocol import errors
from orlop.protocol.errors import AlreadyExists, InvalidArgument, NotFound, OrlopError, ResourceExhausted

from ..conftest import StoreMaker

VECTORS = Path(__file__).parent.parent / "vectors"
IDENTIFIERS = json.loads((VECTORS / "identifiers.json").read_text())
SIZES = json.loads((VECTORS / "label_sizes.json").read_text())
MASKS = json.loads((VECTORS / "masks.json").read_text())
REF = "containerd.io/gc.ref.content"


def typed(text: str) -> orlop.Any:
    return orlop.Any(f"types.example/{text}", text.encode())


def large(seed: int, kib: int = 200) -> orlop.Any:
    """A typed value of incompressible bytes."""
    return orlop.Any("types.example/large", hashlib.shake_256(b"%d" % seed).digest(kib * 1024))


BASE = orlop.Sandbox(
    "s",
    runtime=orlop.Runtime("io.example.v1", typed("options")),
    spec=typed("spec"),
    labels={"a": "1"},
    extensions={"e1": typed("one"), "e2": typed("two")},
    sandboxer="podsandbox",
)
OTHER = orlop.Sandbox(
    "s",
    runtime=orlop.Runtime("io.example.v1", typed("other options")),
    spec=typed("other spec"),
    labels={"a": "2", "new": "2"},
    extensions={"e2": typed("other"), "e3": typed("three")},
    sandboxer="other",
)
LEAST = orlop.Sandbox("s")


def at(sandbox: orlop.Sandbox, other: orlop.Sandbox) -> orlop.Sandbox:
    """`sandbox` with the times of `other`."""
    return replace(sandbox, created_at=other.created_at, updated_at=other.updated_at)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    """A store behind a socket and over LevelDB, for rules that no way in changes."""
    async with StoreMaker("unix", "leveldb", tmp_path).open() as opened:
        yield opened


async def ids(store: orlop.Store, *filters: str) -> list[str]:
    return [sandbox.sandbox_id async for sandbox in store.sandboxes.list(filters)]


async def streamed(store: orlop.Store, *filters: str) -> list[orlop.Sandbox]:
    async with store.sandboxes.stream(filters) as found:
        return [sandbox async for sandbox in found]


async def outcome(call: Awaitable[object]) -> str:
    """`ok`, or the class of the error."""
    try:
        await call
    except errors.OrlopError as error:
        return type(error).__name__
    return "ok"


async def until_gone(store: orlop.Store, digest: str) -> None:
    """Collections of content publish nothing, so that one can only be waited for by looking."""
    with trio.fail_after(10):
        while await outcome(store.content.info(digest)) == "ok":
            await trio.sleep(0.002)


# create and get ------------------------------------------------------------------------------------------


async def test_a_created_sandbox_is_got_as_it_was_given(store: orlop.Store) -> None:
    before = time.time_ns()
    created = await store.sandboxes.create(replace(BASE, labels={"a": "1", "empty": ""}, created_at=12, updated_at=34))
    after = time.time_ns()
    assert created == at(BASE, created)
    assert before <= created.created_at <= after
    assert created.updated_at == created.created_at
    assert await store.sandboxes.get("s") == created
    assert [sandbox async for sandbox in store.sandboxes.list()] == [created]
    assert await streamed(store) == [created]


async def test_a_sandbox_needs_only_an_id(store: orlop.Store) -> None:
    created = await store.sandboxes.create(LEAST)
    assert created == at(LEAST, created)
    assert created.runtime.name == ""
    assert await store.sandboxes.get("s") == created


async def test_typed_values_are_kept_as_they_are(one: orlop.Store) -> None:
    odd = orlop.Any("", bytes(range(256)))
    extensions = {"empty": orlop.Any("", b""), "key / 牛": orlop.Any("type.googleapis.com/a.B", b"\x00")}
    given = replace(LEAST, spec=odd, runtime=orlop.Runtime("", odd), extensions=extensions)
    created = await one.sandboxes.create(given)
    assert created == at(given, created)
    assert await one.sandboxes.get("s") == created


async def test_an_id_is_an_identifier(one: orlop.Store) -> None:
    for id_ in IDENTIFIERS["invalid"]:
        with pytest.raises(InvalidArgument, match=r"\bid\b"):
            await one.sandboxes.create(replace(LEAST, sandbox_id=id_))
    for id_ in IDENTIFIERS["valid"]:
        await one.sandboxes.create(replace(LEAST, sandbox_id=id_))
        assert (await one.sandboxes.get(id_)).sandbox_id == id_
    assert await ids(one) == sorted(IDENTIFIERS["valid"])


async def test_labels_of_sandboxes_are_checked_as_everywhere(one: orlop.Store) -> None:
    for number, row in enumerate(SIZES):
        labels = {"k" * row["key_bytes"]: row["value_fill"] * row["value_repeat"]}
        given = replace(LEAST, sandbox_id=f"n{number}", labels=labels)
        # A value without a key is refused, whatever its size.
        if row["ok"] and row["key_bytes"] > 0:
            created = await one.sandboxes.create(given)
            assert created.labels == {key: value for key, value in labels.items() if value}, row
        else:
            with pytest.raises(InvalidArgument, match="label"):
                await one.sandboxes.create(given)
    assert (await one.sandboxes.create(replace(LEAST, labels={"": ""}))).labels == {}


async def test_create_checks_the_id_then_what_it_holds_then_whether_it_is_taken(store: orlop.Store) -> None:
    created = await store.sandboxes.create(BASE)
    nameless = {"": typed("x")}
    for field, given in [
        (r"\bid\b", replace(OTHER, sandbox_id="bad id", extensions=nameless, labels={"k": "x" * 4096})),
        ("extension", replace(OTHER, extensions=nameless)),
        ('label "k"', replace(OTHER, labels={"k": "x" * 4096})),
    ]:
        with pytest.raises(InvalidArgument, match=field):
            await store.sandboxes.create(given)
    with pytest.raises(AlreadyExists, match=r'sandbox "s"'):
        await store.sandboxes.create(OTHER)
    assert await store.sandboxes.get("s") == created


async def test_of_32_concurrent_creates_one_succeeds(one: orlop.Store) -> None:
    won: list[orlop.Sandbox] = []
    refused: list[AlreadyExists] = []

    async def create(number: int) -> None:
        try:
            won.append(await one.sandboxes.create(replace(LEAST, sandboxer=str(number))))
        except AlreadyExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(create, number)
    assert (len(won), len(refused)) == (1, 31)
    assert [sandbox async for sandbox in one.sandboxes.list()] == won


async def test_an_absent_sandbox_is_not_found(store: orlop.Store) -> None:
    await store.in_namespace("other").sandboxes.create(replace(LEAST, sandbox_id="absent"))
    for id_ in ("absent", "", "no/identifier", "absent\x00", "a" * 5000):
        with pytest.raises(NotFound):
            await store.sandboxes.get(id_)
        with pytest.raises(NotFound):
            await store.sandboxes.delete(id_)
        for mask in (None, ["labels"], ["no.such.path"]):
            with pytest.raises(NotFound):
                await store.sandboxes.update(replace(LEAST, sandbox_id=id_), mask)
    assert await ids(store.in_namespace("other")) == ["absent"]


# namespaces and leases -----------------------------------------------------------------------------------


async def test_the_first_sandbox_makes_the_namespace_and_the_last_leaves_it(one: orlop.Store) -> None:
    there = one.in_namespace("tenant")
    for call in (
        lambda: there.sandboxes.create(replace(LEAST, sandbox_id="bad id")),
        lambda: there.sandboxes.get("s"),
        lambda: there.sandboxes.update(LEAST),
        lambda: there.sandboxes.update(LEAST, ["labels"]),
        lambda: there.sandboxes.delete("s"),
    ):
        with pytest.raises(OrlopError):
            await call()
    assert await ids(there) == []
    assert await streamed(there) == []
    assert [namespace async for namespace in one.namespaces.list()] == []
    await there.sandboxes.create(LEAST)
    await there.sandboxes.delete("s")
    assert [namespace async for namespace in one.namespaces.list()] == [orlop.Namespace("tenant")]


async def test_sandboxes_go_with_their_namespace(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    for number in range(3):
        await there.sandboxes.create(replace(BASE, sandbox_id=f"s{number}", spec=large(number)))
    neighbour = await store.in_namespace("tenant-1").sandboxes.create(BASE)
    await store.namespaces.delete("tenant")
    assert await ids(there) == []
    assert await store.in_namespace("tenant-1").sandboxes.get("s") == neighbour
    created = await there.sandboxes.create(replace(LEAST, sandbox_id="s1", spec=large(9)))
    assert [sandbox async for sandbox in there.sandboxes.list()] == [created]


async def test_the_namespace_is_looked_at_first(store: orlop.Store) -> None:
    nowhere = orlop.Store(store._caller, orlop.Context(namespace=None))
    for there, expected in (
        (nowhere, "FailedPrecondition"),
        (store.in_namespace(""), "FailedPrecondition"),
        (store.in_namespace("bad/ns"), "InvalidArgument"),
    ):
        assert await outcome(there.sandboxes.create(replace(LEAST, sandbox_id="bad id"))) == expected
        assert await outcome(there.sandboxes.create(LEAST)) == expected
        assert await outcome(there.sandboxes.get("absent")) == expected
        assert await outcome(there.sandboxes.delete("absent")) == expected
        assert await outcome(there.sandboxes.update(LEAST, ["no.such.path"])) == expected
        assert await outcome(there.sandboxes.update(replace(LEAST, sandbox_id=""))) == expected
        assert await outcome(ids(there, "id=")) == expected
        assert await outcome(streamed(there, "id=")) == expected


async def test_sandboxes_ignore_the_lease_of_the_request(one: orlop.Store) -> None:
    await one.leases.create("l")
    await one.with_lease("l").sandboxes.create(LEAST)
    await one.with_lease("l").sandboxes.update(LEAST)
    assert [entry async for entry in one.leases.resources("l")] == []
    for lease in ("absent", ""):
        await one.with_lease(lease).sandboxes.create(replace(LEAST, sandbox_id="d"))
        await one.with_lease(lease).sandboxes.update(replace(LEAST, sandbox_id="d"), ["labels"])
        await one.with_lease(lease).sandboxes.delete("d")


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
