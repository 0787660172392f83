"""Containers: records of what runs somewhere, with their validation, masks, events and sizes.

Source: spec metadata 1.3 to 1.7, 2, 4, 8, 10, 14.3, 17; tests/vectors: identifiers, label_sizes, masks.
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
from orlop.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    ResourceExhausted,
)
from orlop.protocol.records import ContainerCreate, ContainerDelete, ContainerUpdate

from ..conftest import StoreMaker

VECTORS = Path(__file__).parent.parent / "vectors"
IDENTIFIERS = json.loads((VECTORS / "identifiers.json").read_text())
SIZES = json.loads((VECTORS / "label_sizes.json").read_text())
MASKS = json.loads((VECTORS / "masks.json").read_text())
REF = "containerd.io/gc.ref.content"
BREF = "containerd.io/gc.bref.container"


def typed(text: str) -> orlop.Any:
    return orlop.Any(f"types.example/{text}", text.encode())


BASE = orlop.Container(
    "c",
    labels={"a": "1"},
    image="image one",
    runtime=orlop.Runtime("io.example.v1", typed("options")),
    spec=typed("spec"),
    snapshotter="native",
    snapshot_key="key one",
    extensions={"e1": typed("one"), "e2": typed("two")},
    sandbox="sandbox one",
)
OTHER = orlop.Container(
    "c",
    labels={"a": "2", "new": "2"},
    image="image two",
    runtime=orlop.Runtime("io.example.v1", typed("other options")),
    spec=typed("other spec"),
    snapshotter="native",
    snapshot_key="key two",
    extensions={"e2": typed("other"), "e3": typed("three")},
    sandbox="sandbox two",
)
LEAST = orlop.Container("c", runtime=orlop.Runtime("r"), spec=typed("spec"))


def at(container: orlop.Container, other: orlop.Container) -> orlop.Container:
    """`container` with the times of `other`."""
    return replace(container, created_at=other.created_at, updated_at=other.updated_at)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    """A store behind a socket and over LevelDB, for rules that no way in changes."""
    async with StoreMaker("unix", "leveldb", tmp_path).open() as opened:
        yield opened


async def ids(store: orlop.Store, *filters: str) -> list[str]:
    return [container.id async for container in store.containers.list(filters)]


async def streamed(store: orlop.Store, *filters: str) -> list[orlop.Container]:
    async with store.containers.stream(filters) as found:
        return [container async for container in found]


async def said(store: orlop.Store) -> list[tuple[str, object]]:
    return [(event.namespace, event.event) for event in (await store.events.page()).items]


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


async def test_a_created_container_is_got_as_it_was_given(store: orlop.Store) -> None:
    before = time.time_ns()
    created = await store.containers.create(replace(BASE, labels={"a": "1", "empty": ""}))
    after = time.time_ns()
    assert created == at(BASE, created)
    assert before <= created.created_at <= after
    assert created.updated_at == created.created_at
    assert await store.containers.get("c") == created
    assert [container async for container in store.containers.list()] == [created]
    assert await streamed(store) == [created]


async def test_a_container_needs_an_id_a_runtime_and_a_spec_and_no_more(store: orlop.Store) -> None:
    created = await store.containers.create(LEAST)
    assert created == at(LEAST, created)
    assert await store.containers.get("c") == created


async def test_the_times_of_the_caller_are_ignored(one: orlop.Store) -> None:
    given = replace(BASE, created_at=12345, updated_at=67890)
    created = await one.containers.create(given)
    assert created.created_at > 10**18
    assert created.updated_at == created.created_at
    updated = await one.containers.update(given)
    assert updated.created_at == created.created_at
    assert updated.updated_at > created.updated_at


async def test_typed_values_are_kept_as_they_are(store: orlop.Store) -> None:
    odd = orlop.Any("", bytes(range(256)))
    urls = {"": b"", "type.googleapis.com/a.B": b"\x00", "牛 / path": b"{}"}
    extensions = {f"key {number}/牛": orlop.Any(url, value) for number, (url, value) in enumerate(urls.items())}
    given = replace(LEAST, spec=odd, runtime=orlop.Runtime("r / 1", odd), extensions=extensions)
    created = await store.containers.create(given)
    assert created == at(given, created)
    assert await store.containers.get("c") == created


async def test_an_id_is_an_identifier(one: orlop.Store) -> None:
    for id_ in IDENTIFIERS["invalid"]:
        with pytest.raises(InvalidArgument, match=r"\bid\b"):
            await one.containers.create(replace(LEAST, id=id_))
    for id_ in IDENTIFIERS["valid"]:
        await one.containers.create(replace(LEAST, id=id_))
        assert (await one.containers.get(id_)).id == id_
    assert await ids(one) == sorted(IDENTIFIERS["valid"])


async def test_create_checks_in_order_and_names_the_field(store: orlop.Store) -> None:
    given = orlop.Container(
        "bad id", labels={"k": "x" * 4096}, snapshot_key="key", extensions={"": typed("x"), "e": typed("x")}
    )
    for field, repaired in [
        (r"\bid\b.*bad id", {"id": "c"}),
        ("extension", {"extensions": {"e": typed("x")}}),
        ('label "k"', {"labels": {}}),
        (r"runtime\.name", {"runtime": orlop.Runtime("r", typed("options"))}),
        (r"\bspec\b", {"spec": typed("spec")}),
        (r"\bsnapshotter\b", {"snapshotter": "native"}),
    ]:
        with pytest.raises(InvalidArgument, match=field):
            await store.containers.create(given)
        given = replace(given, **repaired)
    assert (await store.containers.create(given)).snapshotter == "native"


async def test_only_a_snapshot_key_needs_a_snapshotter(one: orlop.Store) -> None:
    await one.containers.create(replace(LEAST, id="neither"))
    await one.containers.create(replace(LEAST, id="snapshotter-alone", snapshotter="any / text 牛"))
    with pytest.raises(InvalidArgument, match="snapshotter"):
        await one.containers.create(replace(LEAST, id="key-alone", snapshot_key="key"))
    assert await ids(one) == ["neither", "snapshotter-alone"]


async def test_label_sizes_count_bytes_of_key_and_value(one: orlop.Store) -> None:
    for number, row in enumerate(SIZES):
        labels = {"k" * row["key_bytes"]: row["value_fill"] * row["value_repeat"]}
        given = replace(LEAST, id=f"n{number}", labels=labels)
        # A value without a key is refused, whatever its size.
        if row["ok"] and row["key_bytes"] > 0:
            created = await one.containers.create(given)
            assert created.labels == {key: value for key, value in labels.items() if value}, row
        else:
            with pytest.raises(InvalidArgument, match="label"):
                await one.containers.create(given)
    assert (await one.containers.create(replace(LEAST, labels={"": ""}))).labels == {}


async def test_the_refusal_of_a_label_tells_its_size_the_limit_and_how_its_key_begins(one: orlop.Store) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await one.containers.create(replace(LEAST, labels={"é" * 50: "x" * 4000}))
    text = str(refused.value)
    assert "4100" in text
    assert "4096" in text
    assert "é" * 32 in text
    assert "é" * 33 not in text


async def test_create_of_a_taken_id_is_refused_and_changes_nothing(one: orlop.Store) -> None:
    created = await one.containers.create(BASE)
    with pytest.raises(AlreadyExists, match=r'container "c"'):
        await one.containers.create(OTHER)
    with pytest.raises(InvalidArgument, match="spec"):
        await one.containers.create(replace(OTHER, spec=None))
    assert await one.containers.get("c") == created


async def test_of_32_concurrent_creates_one_succeeds(store: orlop.Store) -> None:
    won: list[orlop.Container] = []
    refused: list[AlreadyExists] = []

    async def create(number: int) -> None:
        try:
            won.append(await store.containers.create(replace(LEAST, image=str(number))))
        except AlreadyExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(create, number)
    assert (len(won), len(refused)) == (1, 31)
    assert [container async for container in store.containers.list()] == won


async def test_an_absent_container_is_not_found(store: orlop.Store) -> None:
    await store.in_namespace("other").containers.create(replace(LEAST, id="absent"))
    for id_ in ("absent", "", "no/identifier", "absent\x00", "a" * 5000):
        with pytest.raises(NotFound):
            await store.containers.get(id_)
        with pytest.raises(NotFound):
            await store.containers.delete(id_)
        if id_:
            with pytest.raises(NotFound):
                await store.containers.update(replace(LEAST, id=id_))
    assert await ids(store.in_namespace("other")) == ["absent"]


async def test_containers_of_two_namespaces_are_strangers(one: orlop.Store) -> None:
    there = one.in_namespace("other")
    here = await one.containers.create(BASE)
    await there.containers.create(replace(LEAST, labels={"in": "other"}))
    await there.containers.update(replace(LEAST, labels={"in": "still"}))
    assert await one.containers.get("c") == here
    await one.containers.delete("c")
    assert (await there.containers.get("c")).labels == {"in": "still"}


# namespaces and leases -----------------------------------------------------------------------------------


async def test_the_first_container_makes_the_namespace_silently_and_the_last_leaves_it(one: orlop.Store) -> None:
    there = one.in_namespace("tenant")
    for call in (
        lambda: there.containers.create(replace(LEAST, id="bad id")),
        lambda: there.containers.create(replace(LEAST, spec=None)),
        lambda: there.containers.get("c"),
        lambda: there.containers.update(LEAST),
        lambda: there.containers.update(LEAST, ["labels"]),
        lambda: there.containers.delete("c"),
    ):
        with pytest.raises(OrlopError):
            await call()
    assert await ids(there) == []
    assert await streamed(there) == []
    assert [namespace async for namespace in one.namespaces.list()] == []
    await there.containers.create(LEAST)
    await there.containers.delete("c")
    assert [namespace async for namespace in one.namespaces.list()] == [orlop.Namespace("tenant")]
    assert await said(one) == [
        ("tenant", ContainerCreate("c", "", LEAST.runtime)),
        ("tenant", ContainerDelete("c")),
    ]


async def test_a_container_keeps_its_namespace_from_being_deleted(one: orlop.Store) -> None:
    there = one.in_namespace("tenant")
    await there.containers.create(LEAST)
    with pytest.raises(FailedPrecondition, match=r"tenant.*\bcontainers\b"):
        await one.namespaces.delete("tenant")
    assert await ids(there) == ["c"]
    await there.containers.delete("c")
    await one.namespaces.delete("tenant")


async def test_the_namespace_is_looked_at_first(store: orlop.Store) -> None:
    nowhere = orlop.Store(store._caller, orlop.Context(namespace=None))
    for there, expected in (
        (nowhere, "FailedPrecondition"),
        (store.in_namespace(""), "FailedPrecondition"),
        (store.in_namespace("bad/ns"), "InvalidArgument"),
    ):
        assert await outcome(there.containers.create(replace(LEAST, id="bad id"))) == expected
        assert await outcome(there.containers.create(LEAST)) == expected
        assert await outcome(there.containers.get("absent")) == expected
        assert await outcome(there.containers.delete("absent")) == expected
        assert await outcome(there.containers.update(LEAST, ["no.such.path"])) == expected
        assert await outcome(ids(there, "id=")) == expected
        assert await outcome(streamed(there, "id=")) == expected


async def test_update_looks_at_the_id_even_before_the_namespace(store: orlop.Store) -> None:
    nowhere = orlop.Store(store._caller, orlop.Context(namespace=None))
    for there in (nowhere, store.in_namespace("bad/ns"), store):
        with pytest.raises(InvalidArgument, match=r"\bid\b"):
            await there.containers.update(replace(LEAST, id=""), ["no.such.path"])


async def test_containers_ignore_the_lease_of_the_request(one: orlop.Store) -> None:
    await one.leases.create("l")
    await one.with_lease("l").containers.create(LEAST)
    await one.with_lease("l").containers.update(LEAST)
    assert [entry async for entry in one.leases.resources("l")] == []
    for lease in ("absent", ""):
        await one.with_lease(lease).containers.create(replace(LEAST, id="d"))
        await one.with_lease(lease).containers.update(replace(LEAST, id="d"), ["labels"])
        await one.with_lease(lease).containers.delete("d")


# update --------------------------------------------------------------------------------------------------


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
