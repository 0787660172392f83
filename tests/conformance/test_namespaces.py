"""Namespaces: their life, what blocks their end, and what brings them into being.

Source: spec metadata 1.2 to 1.5, 3, 4, 9, 18.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.support.outcomes import outcome

VECTORS = Path(__file__).parent.parent / "vectors"
NAMES = json.loads((VECTORS / "namespaces.json").read_text())
SIZES = json.loads((VECTORS / "label_sizes.json").read_text())
TARGET = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 7)


async def names(store: orlop.Store) -> list[str]:
    return [namespace.name async for namespace in store.namespaces.list()]


def target_of(data: bytes) -> orlop.Descriptor:
    return orlop.Descriptor("application/octet-stream", "sha256:" + hashlib.sha256(data).hexdigest(), len(data))


# create and get ------------------------------------------------------------------------------------------


async def test_a_created_namespace_is_listed_and_got_with_its_labels(store: orlop.Store) -> None:
    assert await names(store) == []
    await store.namespaces.create("tenant", {"a": "1", "b": "2"})
    assert await store.namespaces.get("tenant") == orlop.Namespace("tenant", {"a": "1", "b": "2"})
    assert [n async for n in store.namespaces.list()] == [orlop.Namespace("tenant", {"a": "1", "b": "2"})]


async def test_create_answers_the_labels_as_sent_and_keeps_no_empty_ones(store: orlop.Store) -> None:
    created = await store.namespaces.create("tenant", {"a": "1", "e": ""})
    assert created == orlop.Namespace("tenant", {"a": "1", "e": ""})
    assert await store.namespaces.get("tenant") == orlop.Namespace("tenant", {"a": "1"})


async def test_only_identifiers_can_be_created(store: orlop.Store) -> None:
    for name in [*NAMES["invalid"], "a\n"]:
        with pytest.raises(InvalidArgument):
            await store.namespaces.create(name)
    for name in NAMES["valid"]:
        assert (await store.namespaces.create(name)).name == name
    assert await names(store) == sorted(NAMES["valid"])


async def test_create_checks_name_then_labels_then_existence(store: orlop.Store) -> None:
    await store.namespaces.create("taken", {"a": "1"})
    with pytest.raises(InvalidArgument):
        await store.namespaces.create("taken", {"k": "x" * 4096})
    with pytest.raises(AlreadyExists, match="taken"):
        await store.namespaces.create("taken", {"a": "2"})
    assert (await store.namespaces.get("taken")).labels == {"a": "1"}


async def test_the_name_version_shows_nothing_of_how_it_is_stored(store: orlop.Store) -> None:
    try:
        await store.namespaces.create("version", {"a": "1"})
    except InvalidArgument:
        return
    await store.in_namespace("version").images.create("i", TARGET)
    assert (await store.namespaces.get("version")).labels == {"a": "1"}
    await store.in_namespace("version").images.delete("i")
    await store.namespaces.delete("version")
    assert await names(store) == []


async def test_label_sizes_count_bytes_of_key_and_value(store: orlop.Store) -> None:
    for number, row in enumerate(SIZES):
        labels = {"k" * row["key_bytes"]: row["value_fill"] * row["value_repeat"]}
        # A value without a key is refused, whatever its size.
        fine = row["ok"] and row["key_bytes"] > 0
        if fine:
            await store.namespaces.create(f"n{number}", labels)
            stored = {key: value for key, value in labels.items() if value}
            assert (await store.namespaces.get(f"n{number}")).labels == stored, row
        else:
            assert await outcome(store.namespaces.create(f"n{number}", labels)) == "InvalidArgument", row
            with pytest.raises(NotFound):
                await store.namespaces.get(f"n{number}")


async def test_an_empty_label_without_a_key_is_ignored(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"": ""})
    assert (await store.namespaces.get("tenant")).labels == {}


async def test_a_namespace_that_is_not_there_is_not_found(store: orlop.Store) -> None:
    for name in ("absent", "no/identifier", ""):
        with pytest.raises(NotFound):
            await store.namespaces.get(name)


async def test_of_32_concurrent_creates_one_succeeds(store: orlop.Store) -> None:
    outcomes: list[str] = []

    async def create(number: int) -> None:
        try:
            await store.namespaces.create("one", {"winner": str(number)})
        except AlreadyExists:
            outcomes.append("exists")
        else:
            outcomes.append(f"created {number}")

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(create, number)
    won = [outcome for outcome in outcomes if outcome != "exists"]
    assert len(outcomes) == 32
    assert len(won) == 1
    assert "created " + (await store.namespaces.get("one")).labels["winner"] == won[0]


# order and separation ------------------------------------------------------------------------------------


async def test_namespaces_are_listed_in_byte_order(store: orlop.Store) -> None:
    for name in ("z", "B", "a10", "a9", "a_1", "c1", "a", "a-b", "a.b"):
        await store.namespaces.create(name)
    assert await names(store) == ["B", "a", "a-b", "a.b", "a10", "a9", "a_1", "c1", "z"]


async def test_one_key_lives_in_two_namespaces_with_values_of_its_own(store: orlop.Store) -> None:
    for name in ("a", "a-b", "a.b", "ab"):
        there = store.in_namespace(name)
        await there.images.create("same", TARGET, {"in": name})
        await there.images.create("b", TARGET, {"in": name})
        await there.leases.create("same", {"in": name})
    for name in ("a", "a-b", "a.b", "ab"):
        there = store.in_namespace(name)
        assert [(i.name, i.labels) async for i in there.images.list()] == [
            ("b", {"in": name}),
            ("same", {"in": name}),
        ]
        assert [(lease.id, lease.labels) async for lease in there.leases.list()] == [("same", {"in": name})]
    await store.in_namespace("a").images.delete("same")
    assert (await store.in_namespace("ab").images.get("same")).labels == {"in": "ab"}


# the request namespace -----------------------------------------------------------------------------------


async def test_a_request_needs_a_namespace_that_is_an_identifier(store: orlop.Store) -> None:
    nowhere = orlop.Store(store._caller, orlop.Context(namespace=None))
    for there in (nowhere, store.in_namespace("")):
        with pytest.raises(FailedPrecondition):
            await there.images.get("i")
        with pytest.raises(FailedPrecondition):
            await there.images.create("i", TARGET)
        with pytest.raises(FailedPrecondition):
            await there.leases.create("l")
        with pytest.raises(FailedPrecondition):
            await there.content.put(b"x")
        with pytest.raises(FailedPrecondition):
            _ = [image async for image in there.images.list()]
    for name in [name for name in NAMES["invalid"] if name]:
        assert await outcome(store.in_namespace(name).images.get("i")) == "InvalidArgument", name
    for name in [*NAMES["valid"], "version"]:
        with pytest.raises(NotFound):
            await store.in_namespace(name).images.get("i")


async def test_namespace_operations_ignore_the_request_namespace(store: orlop.Store) -> None:
    for there in (
        orlop.Store(store._caller, orlop.Context(namespace=None)),
        store.in_namespace("bad/ns"),
    ):
        await there.namespaces.create("tenant")
        await there.namespaces.update("tenant", {"a": "1"})
        assert (await there.namespaces.get("tenant")).labels == {"a": "1"}
        assert await names(there) == ["tenant"]
        await there.namespaces.delete("tenant")
        assert (await there.events.page()).next > 0


# coming into being by a write ----------------------------------------------------------------------------


async def test_the_first_write_of_any_record_makes_the_namespace(store: orlop.Store) -> None:
    await store.in_namespace("by-image").images.create("i", TARGET)
    await store.in_namespace("by-lease").leases.create("l")
    async with store.in_namespace("by-ingest").content.ingest("r") as writer:
        await writer.write(b"x")
    leased = store.in_namespace("by-content")
    await leased.images.create("holds", target_of(b"data"))
    await leased.content.put(b"data")
    made = ["by-content", "by-image", "by-ingest", "by-lease"]
    assert [n async for n in store.namespaces.list()] == [orlop.Namespace(name) for name in made]
    with pytest.raises(AlreadyExists):
        await store.namespaces.create("by-image")


async def test_reads_and_failures_make_no_namespace(store: orlop.Store) -> None:
    there = store.in_namespace("unused")
    assert [i async for i in there.images.list()] == []
    assert [i async for i in there.content.list()] == []
    assert [i async for i in there.content.ingests()] == []
    assert [i async for i in there.leases.list()] == []
    for refused, call in [
        (NotFound, lambda: there.images.get("i")),
        (NotFound, lambda: there.images.update("i", labels={"a": "1"}, mask=["labels"])),
        (NotFound, lambda: there.images.delete("i")),
        (NotFound, lambda: there.leases.get("l")),
        (NotFound, lambda: there.leases.delete("l")),
        (NotFound, lambda: there.leases.add("l", orlop.LeaseResource("i", "images"))),
        (NotFound, lambda: there.content.info(TARGET.digest)),
        (NotFound, lambda: there.content.update(TARGET.digest, {"a": "1"})),
        (NotFound, lambda: there.content.delete(TARGET.digest)),
        (NotFound, lambda: there.content.abort("r")),
        (NotFound, lambda: there.with_lease("absent").content.put(b"x")),
        (NotFound, lambda: store.namespaces.update("unused", {"a": "1"})),
        (InvalidArgument, lambda: there.images.create("i", orlop.Descriptor("m", TARGET.digest, 0))),
        (InvalidArgument, lambda: there.images.create("i", TARGET, {"k": "x" * 4096})),
        (InvalidArgument, lambda: there.leases.create("l" * 513)),
    ]:
        with pytest.raises(refused):
            await call()
        assert await names(store) == []


async def test_a_namespace_stays_when_its_last_record_goes(store: orlop.Store) -> None:
    await store.images.create("i", TARGET)
    await store.images.delete("i", sync=True)
    assert await names(store) == ["default"]


# update --------------------------------------------------------------------------------------------------


async def test_update_without_a_mask_replaces_all_labels(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"a": "1", "b": "2"})
    expected = orlop.Namespace("tenant", {"b": "3", "c": "4"})
    assert await store.namespaces.update("tenant", {"b": "3", "c": "4", "e": ""}) == expected
    assert await store.namespaces.get("tenant") == expected
    assert (await store.namespaces.update("tenant", {})).labels == {}


async def test_a_mask_without_paths_means_no_mask(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"a": "1", "b": "2"})
    assert (await store.namespaces.update("tenant", {"c": "3"}, [])).labels == {"c": "3"}


async def test_update_with_label_paths_sets_and_removes_just_those(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"keep": "1", "gone": "2", "emptied": "3"})
    updated = await store.namespaces.update(
        "tenant",
        {"x.y.z/w": "new", "emptied": "", "unselected": "9"},
        ["labels.x.y.z/w", "labels.gone", "labels.emptied", "labels.never", "labels.gone"],
    )
    assert updated == orlop.Namespace("tenant", {"keep": "1", "x.y.z/w": "new"})
    assert await store.namespaces.get("tenant") == updated


async def test_update_refuses_other_paths_and_then_changes_nothing(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"a": "1"})
    for path in ("labels", "name", "*", "", "Labels.q", "label.q", " labels.q", "labels[q]"):
        assert (
            await outcome(store.namespaces.update("tenant", {"q": "2", "a": "2"}, ["labels.q", path]))
            == "InvalidArgument"
        ), path
    with pytest.raises(InvalidArgument):
        await store.namespaces.update("tenant", {"": "value"}, ["labels."])
    with pytest.raises(InvalidArgument):
        await store.namespaces.update("tenant", {"": "value"})
    assert (await store.namespaces.get("tenant")).labels == {"a": "1"}


async def test_update_refuses_a_label_that_is_too_large(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"a": "1"})
    for mask in (None, ["labels.k"]):
        with pytest.raises(InvalidArgument):
            await store.namespaces.update("tenant", {"k": "é" * 2048}, mask)
    assert (await store.namespaces.get("tenant")).labels == {"a": "1"}


async def test_update_of_an_absent_namespace_is_not_found(store: orlop.Store) -> None:
    for mask in (None, ["labels.a"]):
        with pytest.raises(NotFound):
            await store.namespaces.update("absent", {"a": "1"}, mask)
    assert await names(store) == []


# delete --------------------------------------------------------------------------------------------------


async def test_delete_names_what_is_left_and_how_much(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    await there.images.create("one", target_of(b"data"))
    with pytest.raises(FailedPrecondition, match=r"tenant.*\bimages \(1\)"):
        await store.namespaces.delete("tenant")
    await there.images.create("two", target_of(b"data"))
    await there.content.put(b"data")
    with pytest.raises(FailedPrecondition, match=r"tenant.*\bimages \(2\), blobs \(1\)"):
        await store.namespaces.delete("tenant")
    assert len([i async for i in there.images.list()]) == 2


async def test_delete_refuses_for_blobs_alone(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    await there.leases.create("l")
    await there.with_lease("l").content.put(b"data")
    with pytest.raises(FailedPrecondition, match=r"blobs \(1\)") as refused:
        await store.namespaces.delete("tenant")
    assert "images" not in str(refused.value)
    assert "leases" not in str(refused.value)


async def test_delete_takes_leases_ingests_and_labels_with_it(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    await store.namespaces.create("tenant", {"a": "1"})
    await there.leases.create("l")
    await there.leases.add("l", orlop.LeaseResource("i", "images"))
    async with there.content.ingest("upload") as writer:
        await writer.write(b"half of it")
    await store.namespaces.delete("tenant")
    assert await names(store) == []
    for again in (False, True):
        if again:
            await store.namespaces.create("tenant")
            assert (await store.namespaces.get("tenant")).labels == {}
        assert [lease async for lease in there.leases.list()] == []
        assert [ingest async for ingest in there.content.ingests()] == []
        with pytest.raises(NotFound):
            await there.content.status("upload")
    await there.leases.create("l")
    assert [r async for r in there.leases.resources("l")] == []


async def test_delete_takes_any_number_of_leases_with_it(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")

    async def create(share: range) -> None:
        for number in share:
            await there.leases.create(f"l{number}")

    async with trio.open_nursery() as nursery:
        for part in range(32):
            nursery.start_soon(create, range(part, 300, 32))
    await store.namespaces.delete("tenant")
    assert await names(store) == []
    assert [lease async for lease in there.leases.list()] == []


async def test_delete_of_an_emptied_namespace_succeeds(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    await there.images.create("one", target_of(b"data"))
    await there.content.put(b"data")
    await there.images.delete("one", sync=True)
    await store.namespaces.delete("tenant")
    assert await names(store) == []


async def test_delete_of_what_is_not_there_is_not_found(store: orlop.Store) -> None:
    for name in ("absent", "bad/name", ""):
        with pytest.raises(NotFound):
            await store.namespaces.delete(name)
