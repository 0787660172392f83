"""Preconditions of transactions: records that must exist, be absent, or be as they were read.

Source: spec metadata 1.3, 1.6.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import orlop
from orlop.protocol.errors import AlreadyExists, Conflict, NotFound
from orlop.protocol.messages import Resource

from ..support.changes import (
    ROOT,
    A,
    B,
    container,
    create_all,
    delete_all,
    digest_of,
    everything,
    names,
    records,
    sandbox,
)

KINDS = {
    Resource.NAMESPACE: ("x-n", lambda tx: tx.namespaces.update("x-n", {"a": "3"})),
    Resource.IMAGE: ("x-i", lambda tx: tx.images.update("x-i", target=A, labels={"a": "3"})),
    Resource.CONTAINER: ("x-c", lambda tx: tx.containers.update(container("x-c", labels={"a": "3"}))),
    Resource.SANDBOX: ("x-s", lambda tx: tx.sandboxes.update(sandbox("x-s", labels={"a": "3"}))),
    Resource.LEASE: ("x-l", lambda tx: tx.leases.update("x-l", {"a": "3"})),
    Resource.CONTENT: (digest_of(b"x"), lambda tx: tx.content.update(digest_of(b"x"), {"a": "3", **ROOT})),
}
ABSENT = {kind: name.replace("x-", "y-") if "-" in name else A.digest for kind, (name, _) in KINDS.items()}


async def made(store: orlop.Store) -> dict[Resource, Any]:
    """A record of each kind."""
    async with store.transaction() as tx:
        create_all(tx, "x")
    order = ("NAMESPACE", "IMAGE", "CONTAINER", "SANDBOX", "LEASE", "CONTENT")
    return {Resource[kind]: record for kind, record in zip(order, await records(store, "x"), strict=True)}


async def counters(store: orlop.Store) -> tuple[int, int]:
    """The numbers in the labels of an image and of a container."""
    image, record = await store.images.get("i"), await store.containers.get("c")
    return int(image.labels["n"]), int(record.labels["n"])


async def test_preconditions_that_hold_let_it_happen(store: orlop.Store) -> None:
    found = await made(store)
    for kind, (name, _) in KINDS.items():
        async with store.transaction() as tx:
            tx.exists(kind, name)
            tx.absent(kind, ABSENT[kind])
            tx.unchanged(found[kind])
            tx.images.create(kind.value, A)
    assert await names(store) == sorted([*(kind.value for kind in KINDS), "x-i"])
    async with store.transaction() as tx:
        for kind, (name, change) in KINDS.items():
            tx.exists(kind, name)
            tx.unchanged(found[kind])
            change(tx)
    assert [record.labels["a"] for record in await records(store, "x")] == ["3"] * 6


async def test_a_record_that_must_exist_and_does_not_is_not_found(store: orlop.Store) -> None:
    await made(store)
    before = await everything(store)
    for kind, name in ABSENT.items():
        with pytest.raises(NotFound, match=f"{kind.value}.*{name}"):
            async with store.transaction() as tx:
                tx.images.create("new", A)
                tx.exists(kind, name)
        with pytest.raises(NotFound, match=f"{kind.value}.*{name}"):
            async with store.transaction() as tx:
                tx.exists(kind, name)
    for kind in KINDS:
        if kind is not Resource.NAMESPACE:
            with pytest.raises(NotFound):
                async with store.in_namespace("fresh").transaction() as tx:
                    tx.exists(kind, KINDS[kind][0])
                    tx.images.create("new", A)
    assert await everything(store) == before


async def test_a_record_that_must_be_absent_and_is_not_already_exists(store: orlop.Store) -> None:
    await made(store)
    before = await everything(store)
    for kind, (name, _) in KINDS.items():
        with pytest.raises(AlreadyExists, match=f"{kind.value}.*{name}"):
            async with store.transaction() as tx:
                tx.images.create("new", A)
                tx.absent(kind, name)
    assert await everything(store) == before


async def test_a_record_that_is_not_as_it_was_read_is_a_conflict(store: orlop.Store) -> None:
    found = await made(store)
    async with store.transaction() as tx:
        for _, change in KINDS.values():
            change(tx)
    before = await everything(store)
    for kind, (name, change) in KINDS.items():
        with pytest.raises(Conflict, match=f"{kind.value}.*{name}.*: conflict$"):
            async with store.transaction() as tx:
                tx.unchanged(found[kind])
                change(tx)
        assert await everything(store) == before, kind
    async with store.transaction() as tx:
        delete_all(tx, "x")
    before = await everything(store)
    for kind, (name, _) in KINDS.items():
        with pytest.raises(Conflict, match=f"{kind.value}.*{name}.*: conflict$"):
            async with store.transaction() as tx:
                tx.unchanged(found[kind])
                tx.images.create("new", A)
        assert await everything(store) == before, kind


async def test_preconditions_speak_of_the_state_before_the_first_operation(store: orlop.Store) -> None:
    read = await store.images.create("i", A)
    async with store.transaction() as tx:
        tx.images.update("i", target=B)
        tx.unchanged(read)
        tx.images.create("j", A)
        tx.absent(Resource.IMAGE, "j")
    assert await names(store) == ["i", "j"]


async def test_a_record_made_anew_is_not_the_one_that_was_read(store: orlop.Store) -> None:
    read = await store.images.create("i", A)
    await store.images.delete("i")
    await store.images.create("i", A)
    with pytest.raises(Conflict):
        async with store.transaction() as tx:
            tx.unchanged(read)
            tx.images.delete("i")
    assert await names(store) == ["i"]


async def test_of_two_that_saw_the_same_record_one_wins(store: orlop.Store) -> None:
    await store.images.create("i", A)
    for round_ in range(25):
        read = await store.images.get("i")
        outcomes: dict[str, str] = {}

        async def change(who: str, read: orlop.Image = read, outcomes: dict[str, str] = outcomes) -> None:
            try:
                async with store.transaction() as tx:
                    tx.unchanged(read)
                    tx.images.update("i", target=A, labels={"by": who})
                outcomes[who] = "won"
            except Conflict:
                outcomes[who] = "lost"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(change, f"{round_} one")
            nursery.start_soon(change, f"{round_} two")
        assert sorted(outcomes.values()) == ["lost", "won"], round_
        (winner,) = [who for who, outcome in outcomes.items() if outcome == "won"]
        assert (await store.images.get("i")).labels == {"by": winner}


async def test_counters_of_32_tasks_lose_no_update(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        tx.images.create("i", A, {"n": "0"})
        tx.containers.create(container("c", labels={"n": "0"}))

    async def count() -> None:
        while True:
            image, record = await store.images.get("i"), await store.containers.get("c")
            up = {"n": str(int(image.labels["n"]) + 1)}
            down = container("c", labels={"n": str(int(record.labels["n"]) - 1)})
            try:
                async with store.transaction() as tx:
                    tx.unchanged(image)
                    tx.unchanged(record)
                    tx.images.update("i", labels=up, mask=["labels.n"])
                    tx.containers.update(down, ["labels.n"])
                return
            except Conflict:
                pass

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(count)
    assert await counters(store) == (32, -32)
