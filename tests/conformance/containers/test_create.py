"""Containers as they are created, and their namespaces. Source: spec metadata 1.3 to 1.7, 2, 4, 8, 10, 14.3, 17."""

from __future__ import annotations

import time

import pytest
import trio
from msgspec.structs import replace

import orlop
from orlop.protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OrlopError
from orlop.protocol.records import ContainerCreate, ContainerDelete
from tests.support.containers import BASE, LEAST, OTHER, at, ids, said, streamed, typed
from tests.support.outcomes import outcome
from tests.support.vectors import IDENTIFIERS, SIZES

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
    assert await said(one) == [("tenant", ContainerCreate("c", "", LEAST.runtime)), ("tenant", ContainerDelete("c"))]


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
