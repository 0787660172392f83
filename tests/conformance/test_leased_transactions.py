"""Transactions and leases: what joins one, leases made and ended inside, and content that is put or committed there.

Source: spec metadata 12; spec content 5.
"""

from __future__ import annotations

import pytest

import orlop
from orlop.protocol import methods as t
from orlop.protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.protocol.messages import Batch, Operation
from orlop.protocol.records import ContentCreate, ImageCreate

from ..support.changes import (
    EXPIRE,
    FINE,
    FUTURE,
    LARGE,
    MANIFEST,
    ROOT,
    A,
    container,
    digest_of,
    digests,
    everything,
    held,
    journal,
    lease_ids,
    names,
    raw,
    resource,
    sandbox,
)

LONG = b"x" * 20_000


# transactions in a lease ----------------------------------------------------------------------------------


async def test_what_a_transaction_makes_joins_the_lease(store: orlop.Store) -> None:
    await store.leases.create("l")
    async with store.with_lease("l").transaction() as tx:
        tx.content.put(b"data")
        tx.images.create("plain", A)
        tx.images.create("expiring", A, {EXPIRE: FUTURE})
        tx.containers.create(container("c"))
        tx.sandboxes.create(sandbox("s"))
    assert await held(store, "l") == [("content", digest_of(b"data")), ("images", "expiring")]
    await store.collect()
    assert await digests(store) == {digest_of(b"data")}
    async with store.with_lease("l").transaction() as tx:
        tx.content.delete(digest_of(b"data"))
        tx.images.delete("expiring")
    assert await held(store, "l") == []


async def test_a_lease_of_the_same_transaction_is_joined(store: orlop.Store) -> None:
    async with store.with_lease("l").transaction() as tx:
        tx.leases.create("l")
        tx.content.put(b"data")
    assert await held(store, "l") == [("content", digest_of(b"data"))]
    with pytest.raises(NotFound):
        async with store.with_lease("l").transaction() as tx:
            tx.leases.delete("l")
            tx.content.put(b"other")
    assert await lease_ids(store) == ["l"]
    assert await digests(store) == {digest_of(b"data")}


async def test_a_missing_lease_refuses_only_what_would_join_it(store: orlop.Store) -> None:
    gone = store.with_lease("gone")
    before = await everything(store)
    for join in (lambda tx: tx.content.put(b"data"), lambda tx: tx.images.create("i", A, {EXPIRE: FUTURE})):
        with pytest.raises(NotFound):
            async with gone.transaction() as tx:
                tx.images.create("plain", A)
                join(tx)
        assert await everything(store) == before
    async with gone.transaction() as tx:
        tx.images.create("plain", A)
        tx.containers.create(container("c"))
    assert await names(store) == ["plain"]


async def test_an_update_that_gives_an_empty_expiry_joins_the_lease(store: orlop.Store) -> None:
    """As a create does: the labels as given decide. Source: spec metadata 12.6."""
    await store.leases.create("l")
    for name in ("alone", "together"):
        await store.images.create(name, A)
    leased = store.with_lease("l")
    await leased.images.update("alone", target=A, labels={EXPIRE: ""})
    async with leased.transaction() as tx:
        tx.images.update("together", labels={EXPIRE: ""}, mask=["labels"])
    assert await held(store, "l") == [("images", "alone"), ("images", "together")]


# leases made in transactions ------------------------------------------------------------------------------


async def test_a_lease_made_again_inherits_nothing(store: orlop.Store) -> None:
    await store.leases.create("l")
    for part in range(3):
        async with store.transaction() as tx:
            for number in range(200):
                tx.leases.add("l", resource(f"{part} {number}"))
    async with store.transaction() as tx:
        tx.leases.delete("l")
        tx.leases.create("l")
        tx.leases.add("l", resource("i"))
    assert await held(store, "l") == [("images", "i")]
    async with store.transaction() as tx:
        for number in range(200):
            tx.leases.add("l", resource(f"{number:03}"))
        tx.leases.delete("l")
        tx.leases.create("l")
        tx.leases.add("l", resource("j"))
    await store.collect()
    assert await held(store, "l") == [("images", "j")]


async def test_a_lease_made_twice_in_one_transaction_keeps_its_own_entries(store: orlop.Store) -> None:
    """One life of a lease ends and the next begins at the same instant."""
    async with store.transaction() as tx:
        tx.leases.create("l")
        tx.leases.add("l", resource("first"))
        tx.leases.delete("l")
        tx.leases.create("l")
        tx.leases.add("l", resource("second"))
    await store.collect()
    assert await held(store, "l") == [("images", "second")]


# content --------------------------------------------------------------------------------------------------


async def test_a_put_of_what_is_here_succeeds_with_the_record_that_is_here(store: orlop.Store) -> None:
    """Alone it is refused; in a transaction that would undo the rest, though all that was asked for is the case."""
    await store.leases.create("l")
    first = await store.content.put(b"data", labels=ROOT)
    before = len(await journal(store))
    with pytest.raises(AlreadyExists):
        await store.content.put(b"data", labels={"other": "1"})
    async with store.with_lease("l").transaction() as tx:
        again = tx.content.put(b"data", labels={"other": "1"})
        tx.images.create("i", A)
    assert await again == first == await store.content.info(digest_of(b"data"))
    assert await held(store, "l") == [("content", digest_of(b"data"))]
    assert [event.event for event in (await journal(store))[before:]] == [ImageCreate("i", {})]


async def test_a_second_put_in_a_transaction_answers_what_the_first_made(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        first = tx.content.put(b"data", labels=ROOT)
        again = tx.content.put(b"data", labels={"other": "1"})
    assert await again == await first == await store.content.info(digest_of(b"data"))
    assert (await first).labels == ROOT
    assert [type(event.event) for event in await journal(store)] == [ContentCreate]


async def test_a_put_of_what_is_here_is_checked_all_the_same(store: orlop.Store) -> None:
    await store.content.put(b"data", labels=ROOT)
    before = await everything(store)
    for refused, put in (
        (FailedPrecondition, lambda tx: tx.content.put(b"data", expected=A.digest)),
        (InvalidArgument, lambda tx: tx.content.put(b"data", labels={"k": LARGE})),
        (NotFound, lambda tx: tx.content.put(b"data")),  # the lease
    ):
        with pytest.raises(refused):
            async with store.with_lease("gone").transaction() as tx:
                tx.images.create("i", A)
                put(tx)
        assert await everything(store) == before, refused


async def test_a_transaction_that_fails_leaves_no_content_in_the_lease(store: orlop.Store) -> None:
    await store.leases.create("l")
    await store.content.put(b"here", labels=ROOT)
    async with store.content.ingest("long") as writer:
        await writer.write(LONG)
        await writer.commit(labels=ROOT)
    leased = store.with_lease("l")
    before = await everything(store)
    for data in (b"here", b"new"):
        with pytest.raises(NotFound):
            async with leased.transaction() as tx:
                tx.content.put(data)
                tx.images.delete("absent")
        assert await everything(store) == before, data
    for data in (b"here", LONG, b"new", b"new" + LONG):
        ref = digest_of(data)
        async with leased.content.ingest(ref) as writer:
            await writer.write(data)
            before = await everything(store)
            with pytest.raises(NotFound):
                async with leased.transaction() as tx:
                    tx.commit(writer)
                    tx.images.delete("absent")
        assert await everything(store) == before, ref
        assert ("content", ref) not in await held(store, "l")
        assert (await store.content.status(ref)).offset == len(data)


async def test_a_commit_goes_with_the_rest(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    for data in (b"short", LONG):
        async with leased.content.ingest(f"{len(data)}") as writer:
            await writer.write(data)
            async with leased.transaction() as tx:
                info = tx.commit(writer, size=len(data), expected=digest_of(data), labels={"a": "1", "e": ""})
                tx.content.update(digest_of(data), {"b": "2"}, ["labels.b"])
                tx.images.create(f"{len(data)}", orlop.Descriptor(MANIFEST, digest_of(data), len(data)))
        assert ((await info).digest, (await info).size, (await info).labels) == (digest_of(data), len(data), {"a": "1"})
        assert (await store.content.info(digest_of(data))).labels == {"a": "1", "b": "2"}
        assert await store.content.read(digest_of(data)) == data
    assert await held(store, "l") == sorted(("content", digest_of(data)) for data in (b"short", LONG))
    assert [ingest async for ingest in store.content.ingests()] == []
    assert [type(event.event) for event in await journal(store)] == [ContentCreate, ImageCreate] * 2


async def test_a_commit_that_is_undone_keeps_the_bytes_for_a_resume(store: orlop.Store) -> None:
    for data in (b"short", LONG):
        async with store.content.ingest("r") as writer:
            await writer.write(data)
            before = await everything(store)
            with pytest.raises(NotFound):
                async with store.transaction() as tx:
                    tx.commit(writer, labels=ROOT)
                    tx.images.delete("absent")
        assert await everything(store) == before
        assert (await store.content.status("r")).offset == len(data)
        async with store.content.ingest("r") as writer:
            assert writer.offset == len(data)
            async with store.transaction() as tx:
                tx.commit(writer, labels=ROOT)
        assert await store.content.read(digest_of(data)) == data


async def test_a_commit_of_other_bytes_than_expected_undoes_the_rest(store: orlop.Store) -> None:
    before = await everything(store)
    for data in (b"short", LONG):
        for expected, size in ((A.digest, 0), ("", 7)):
            async with store.content.ingest(f"{len(data)} {size}") as writer:
                await writer.write(data)
                with pytest.raises(FailedPrecondition):
                    async with store.transaction() as tx:
                        tx.images.create("i", A)
                        tx.commit(writer, size=size, expected=expected, labels=ROOT)
            assert (await store.content.status(f"{len(data)} {size}")).offset == len(data)
    after = await everything(store)
    assert (after["default"], after["events"]) == (before["default"], before["events"])


async def test_a_commit_of_what_is_here_succeeds_with_the_record_that_is_here(store: orlop.Store) -> None:
    await store.leases.create("l")
    for data in (b"short", LONG):
        async with store.content.ingest("first") as writer:
            await writer.write(data)
            first = await writer.commit(labels=ROOT)
        async with store.content.ingest("alone") as writer:
            await writer.write(data)
            with pytest.raises(AlreadyExists):
                await writer.commit()
        async with store.with_lease("l").content.ingest("r") as writer:
            await writer.write(data)
            async with store.with_lease("l").transaction() as tx:
                again = tx.commit(writer, labels={"other": "1"})
                tx.images.create(f"{len(data)}", A)
        assert await again == first == await store.content.info(digest_of(data))
        assert [ingest async for ingest in store.content.ingests()] == []
    assert await held(store, "l") == sorted(("content", digest_of(data)) for data in (b"short", LONG))
    assert len(await names(store)) == 2


async def test_a_commit_needs_an_open_writer(store: orlop.Store) -> None:
    before = await everything(store)
    closed = Batch([FINE, Operation("ingests.commit", raw({"writer": 4_000_000}))])
    with pytest.raises(FailedPrecondition, match=r"2.*ingests\.commit"):
        await store._caller.call(t.BATCH, closed, store.context)
    assert await everything(store) == before
