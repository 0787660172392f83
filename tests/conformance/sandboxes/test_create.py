"""Sandboxes as they are created, and the namespaces they are in. Source: spec metadata 1.3 to 1.7, 2, 4, 8, 13, 17."""

from __future__ import annotations

import time

import pytest
import trio
from msgspec.structs import replace

import orlop
from orlop.protocol.errors import AlreadyExists, InvalidArgument, NotFound, OrlopError
from tests.support.outcomes import outcome
from tests.support.sandboxes import BASE, LEAST, OTHER, at, ids, large, streamed, typed
from tests.support.vectors import IDENTIFIERS, SIZES

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
