"""Transactions: several changes all or nothing.

Source: spec metadata 1.3 to 1.6, 8 to 14, 18.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

import orlop
from orlop.protocol import errors
from orlop.protocol import methods as t
from orlop.protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OrlopError
from orlop.protocol.messages import Batch, BatchResult, Context, Resource
from orlop.protocol.records import (
    ContainerCreate,
    ContainerDelete,
    ContainerUpdate,
    ContentCreate,
    ContentDelete,
    ImageCreate,
    ImageDelete,
    ImageUpdate,
    NamespaceCreate,
    NamespaceDelete,
    NamespaceUpdate,
)

from ..conftest import StoreMaker
from ..support.changes import (
    LARGE,
    MANIFEST,
    ROOT,
    A,
    B,
    OfTheBlock,
    container,
    create_all,
    delete_all,
    digest_of,
    digests,
    everything,
    held,
    journal,
    lease_ids,
    names,
    records,
    resource,
    sandbox,
    update_all,
)

Change = Callable[[orlop.Transaction], object]

durable = pytest.mark.parametrize("stores", [("embedded", "leveldb"), ("unix", "leveldb")], ids="-".join, indirect=True)


# all ------------------------------------------------------------------------------------------------------


async def test_all_kinds_are_created_updated_and_deleted_as_one(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        create_all(tx, "updated")
        create_all(tx, "deleted")
    assert [record.labels["a"] for record in await records(store, "updated")] == ["1"] * 6
    assert [record.labels["a"] for record in await records(store, "deleted")] == ["1"] * 6
    assert await held(store, "updated-l") == [("images", "i")]
    before = await everything(store)
    async with store.transaction() as tx:
        made = create_all(tx, "created")
        changed = update_all(tx, "updated")
        gone = delete_all(tx, "deleted")
        assert await everything(store) == before  # nothing is sent while the block runs
    assert [record.labels["a"] for record in await records(store, "updated")] == ["2"] * 6
    assert await held(store, "updated-l") == []
    assert await held(store, "created-l") == [("images", "i")]
    assert await names(store) == ["created-i", "updated-i"]
    assert [c.id async for c in store.containers.list()] == ["created-c", "updated-c"]
    assert [s.sandbox_id async for s in store.sandboxes.list()] == ["created-s", "updated-s"]
    assert await lease_ids(store) == ["created-l", "updated-l"]
    assert [n.name async for n in store.namespaces.list()] == ["created-n", "default", "updated-n"]
    assert await digests(store) == {digest_of(b"created"), digest_of(b"updated")}
    assert await store.content.read(digest_of(b"created")) == b"created"
    found = await records(store, "created")
    assert [await made[at] for at in (0, 1, 2, 3, 4, 6)] == found
    assert [await changed[at] for at in (0, 1, 2, 3, 4, 6)] == await records(store, "updated")
    for planned in [made[5], changed[5], *gone]:
        await planned


async def test_the_namespace_comes_into_being_with_the_transaction(store: orlop.Store) -> None:
    there = store.in_namespace("fresh")
    async with there.transaction() as tx:
        tx.images.create("i", A)
        tx.namespaces.update("fresh", {"a": "1"})
    assert [n async for n in store.namespaces.list()] == [orlop.Namespace("fresh", {"a": "1"})]
    assert await names(there) == ["i"]


# or nothing -----------------------------------------------------------------------------------------------

# What fails, as the last of a transaction that has done everything else.
FAILING: dict[str, tuple[type[OrlopError], Change]] = {
    "namespace taken": (AlreadyExists, lambda tx: tx.namespaces.create("new-n")),
    "namespace name": (InvalidArgument, lambda tx: tx.namespaces.create("no/name")),
    "namespace update": (NotFound, lambda tx: tx.namespaces.update("absent", {"a": "1"})),
    "namespace path": (InvalidArgument, lambda tx: tx.namespaces.update("new-n", {"q": "1"}, ["labels.q", "labels"])),
    "namespace not empty": (FailedPrecondition, lambda tx: tx.namespaces.delete("fresh")),
    "namespace delete": (NotFound, lambda tx: tx.namespaces.delete("absent")),
    "image taken": (AlreadyExists, lambda tx: tx.images.create("new-i", A)),
    "image target": (InvalidArgument, lambda tx: tx.images.create("i", orlop.Descriptor(MANIFEST, A.digest, 0))),
    "image update": (NotFound, lambda tx: tx.images.update("absent", target=A)),
    "image path": (InvalidArgument, lambda tx: tx.images.update("new-i", target=B, mask=["labels", "name"])),
    "image delete": (NotFound, lambda tx: tx.images.delete("absent")),
    "image of another target": (NotFound, lambda tx: tx.images.delete("new-i", target=A.digest)),
    "container taken": (AlreadyExists, lambda tx: tx.containers.create(container("new-c"))),
    "container spec": (InvalidArgument, lambda tx: tx.containers.create(container("c", spec=None))),
    "container update": (NotFound, lambda tx: tx.containers.update(container("absent"))),
    "container path": (InvalidArgument, lambda tx: tx.containers.update(container("new-c"), ["image", "runtime"])),
    "container delete": (NotFound, lambda tx: tx.containers.delete("absent")),
    "sandbox taken": (AlreadyExists, lambda tx: tx.sandboxes.create(sandbox("new-s"))),
    "sandbox id": (InvalidArgument, lambda tx: tx.sandboxes.create(sandbox("a b"))),
    "sandbox update": (NotFound, lambda tx: tx.sandboxes.update(sandbox("absent"))),
    "sandbox path": (InvalidArgument, lambda tx: tx.sandboxes.update(sandbox("new-s"), ["spec", "sandboxer"])),
    "sandbox delete": (NotFound, lambda tx: tx.sandboxes.delete("absent")),
    "lease taken": (AlreadyExists, lambda tx: tx.leases.create("new-l")),
    "lease id": (InvalidArgument, lambda tx: tx.leases.create("l" * 513)),
    "lease update": (NotFound, lambda tx: tx.leases.update("absent", {"a": "1"})),
    "lease path": (InvalidArgument, lambda tx: tx.leases.update("new-l", {"a": "1"}, ["labels.a", "id"])),
    "lease delete": (NotFound, lambda tx: tx.leases.delete("absent")),
    "resource of no lease": (NotFound, lambda tx: tx.leases.add("absent", resource("i"))),
    "resource kind": (errors.NotImplemented, lambda tx: tx.leases.add("new-l", orlop.LeaseResource("c", "containers"))),
    "resource removed": (NotFound, lambda tx: tx.leases.remove("absent", resource("i"))),
    "content digest": (FailedPrecondition, lambda tx: tx.content.put(b"x", expected=A.digest)),
    "content label": (InvalidArgument, lambda tx: tx.content.put(b"x", labels={"k": LARGE})),
    "content update": (NotFound, lambda tx: tx.content.update(A.digest, {"a": "1"})),
    "content path": (InvalidArgument, lambda tx: tx.content.update(digest_of(b"new"), {}, ["labels", "size"])),
    "content delete": (NotFound, lambda tx: tx.content.delete(A.digest)),
}


async def test_one_that_fails_undoes_all_before_it(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        create_all(tx, "old")
    before = await everything(store)
    there = store.in_namespace("fresh")
    for what, (kind, fail) in FAILING.items():
        with pytest.raises(OrlopError) as refused:
            async with there.transaction() as tx:
                create_all(tx, "new")
                update_all(tx, "new")
                fail(tx)
        assert type(refused.value) is kind, (what, refused.value)
        assert await everything(store) == before, what


async def test_deletes_and_updates_are_undone_too(store: orlop.Store) -> None:
    there = store.in_namespace("fresh")
    async with there.transaction() as tx:
        create_all(tx, "old")
        create_all(tx, "gone")
    before = await everything(store)
    for what, (kind, fail) in FAILING.items():
        with pytest.raises(OrlopError) as refused:
            async with there.transaction() as tx:
                create_all(tx, "new")
                update_all(tx, "new")
                update_all(tx, "old")
                delete_all(tx, "gone")
                tx.leases.add("old-l", resource("another"))
                fail(tx)
        assert type(refused.value) is kind, (what, refused.value)
        assert await everything(store) == before, what


# results --------------------------------------------------------------------------------------------------


async def test_results_are_awaited_after_the_block_and_not_inside(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        created = tx.images.create("i", A, {"a": "1", "e": ""})
        namespace = tx.namespaces.create("tenant", {"a": "1", "e": ""})
        made_up = tx.leases.create()
        with pytest.raises(RuntimeError):
            await created
    assert await created == await created == await store.images.get("i")
    assert await namespace == orlop.Namespace("tenant", {"a": "1", "e": ""})  # as alone: spec metadata 9.4
    assert [await made_up] == [lease async for lease in store.leases.list()]


async def test_reads_are_refused_in_the_block(store: orlop.Store) -> None:
    await store.images.create("i", A)
    for read in (
        lambda tx: tx.images.get("i"),
        lambda tx: tx.containers.get("c"),
        lambda tx: anext(aiter(tx.images.list())),
        lambda tx: anext(aiter(tx.namespaces.list())),
        lambda tx: tx.content.read(A.digest),
    ):
        with pytest.raises(RuntimeError):
            async with store.transaction() as tx:
                tx.images.delete("i")
                await read(tx)
    assert await names(store) == ["i"]


# later operations see earlier ones ------------------------------------------------------------------------


async def test_later_operations_see_what_earlier_ones_wrote(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        create_all(tx, "x")
        tx.images.update("x-i", labels={"b": "2"}, mask=["labels.b"])
        tx.containers.update(container("x-c", labels={"b": "2"}, image="j"), ["labels.b", "image"])
        tx.sandboxes.update(sandbox("x-s", labels={"b": "2"}), ["labels.b"])
        tx.leases.update("x-l", {"b": "2"}, ["labels.b"])
        tx.leases.add("x-l", resource("j"))
        tx.namespaces.update("x-n", {"b": "2"}, ["labels.b"])
        tx.content.update(digest_of(b"x"), {"b": "2"}, ["labels.b"])
    for record in await records(store, "x"):
        assert record.labels == {"a": "1", "b": "2", **(ROOT if isinstance(record, orlop.ContentInfo) else {})}
    assert await held(store, "x-l") == [("images", "i"), ("images", "j")]
    assert (await store.containers.get("x-c")).image == "j"


async def test_what_was_made_and_deleted_again_leaves_only_its_events(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        create_all(tx, "x")
        delete_all(tx, "x")
    left = await everything(store)
    assert left["default"] == [[], [], [], [], [], []]
    assert left["namespaces"] == [orlop.Namespace("default")]
    assert len(await journal(store)) == 8


async def test_a_name_deleted_can_be_taken_again(store: orlop.Store) -> None:
    await store.images.create("i", A, {"a": "1"})
    await store.content.put(b"data", labels={"a": "1", **ROOT})
    async with store.transaction() as tx:
        tx.images.delete("i")
        again = tx.images.create("i", B)
        tx.content.delete(digest_of(b"data"))
        tx.content.put(b"data", labels=ROOT)
    assert (await again).labels == {}
    assert await store.images.get("i") == await again
    assert (await store.content.info(digest_of(b"data"))).labels == ROOT
    assert await store.content.read(digest_of(b"data")) == b"data"
    await store.collect()
    assert await store.content.read(digest_of(b"data")) == b"data"
    with pytest.raises(AlreadyExists):
        async with store.transaction() as tx:
            tx.images.create("j", A)
            tx.images.create("j", A)
    assert await names(store) == ["i"]


async def test_emptying_a_namespace_and_deleting_it_go_together(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    async with there.transaction() as tx:
        tx.images.create("i", A)
        tx.leases.create("l")
        tx.sandboxes.create(sandbox("s"))
    async with there.transaction() as tx:
        tx.images.delete("i")
        tx.namespaces.delete("tenant")
    assert [n async for n in store.namespaces.list()] == []
    assert [[s async for s in there.sandboxes.list()], await lease_ids(there)] == [[], []]
    async with there.transaction() as tx:
        tx.leases.create("l")
        tx.namespaces.delete("tenant")
        tx.namespaces.create("tenant", {"a": "1"})
    assert [n async for n in store.namespaces.list()] == [orlop.Namespace("tenant", {"a": "1"})]
    assert await lease_ids(there) == []


async def test_an_update_is_later_than_the_create_before_it(store: orlop.Store) -> None:
    """Source: spec metadata 1.6."""
    async with store.transaction() as tx:
        tx.images.create("i", A)
        image = tx.images.update("i", target=B)
        tx.containers.create(container("c"))
        changed = tx.containers.update(container("c"))
    for record in (await image, await changed):
        assert record.updated_at > record.created_at


# blocks that fail, are cancelled, or say nothing ----------------------------------------------------------


async def test_an_exception_of_the_block_leaves_as_itself_and_nothing_is_done(store: orlop.Store) -> None:
    before = await everything(store)
    group = ExceptionGroup("of the block", [OfTheBlock()])
    for raised in (OfTheBlock(), group, NotFound("of the block"), StopAsyncIteration(), KeyboardInterrupt()):
        with pytest.raises(type(raised)) as left:
            async with store.in_namespace("fresh").transaction() as tx:
                create_all(tx, "new")
                raise raised
        assert left.value is raised
        assert left.value.__cause__ is None
    assert await everything(store) == before


async def test_a_cancelled_block_does_nothing(store: orlop.Store) -> None:
    before = await everything(store)
    with trio.CancelScope() as scope:
        async with store.transaction() as tx:
            create_all(tx, "new")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await everything(store) == before


async def test_a_block_that_asks_for_nothing_does_nothing(store: orlop.Store) -> None:
    before = await everything(store)
    async with store.in_namespace("fresh").transaction():
        pass
    answer = await store._caller.call(t.BATCH, Batch([]), Context(namespace="fresh"))
    assert answer == BatchResult([])
    async with store.in_namespace("fresh").transaction() as tx:
        tx.absent(Resource.IMAGE, "i")
        tx.absent(Resource.NAMESPACE, "fresh")
    assert await everything(store) == before


# events ---------------------------------------------------------------------------------------------------


async def test_events_stand_in_the_order_of_the_operations(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        tx.images.create("i", A, {"a": "1", "e": ""})
        tx.namespaces.create("tenant", {"a": "1", "e": ""})
        tx.containers.create(container("c", image="i"))
        tx.sandboxes.create(sandbox("s"))
        tx.leases.create("l")
        tx.content.put(b"data", media_type="text/plain")
        tx.containers.update(container("c", labels={"a": "1"}, image="j"))
        tx.images.update("i", labels={"b": "2"}, mask=["labels.b"])
        tx.namespaces.update("tenant", {"b": "2"})
        tx.content.update(digest_of(b"data"), {"a": "1"})
        tx.content.delete(digest_of(b"data"))
        tx.images.delete("i")
        tx.containers.delete("c")
        tx.namespaces.delete("tenant")
    found = await journal(store)
    assert [(event.namespace, event.event) for event in found] == [
        ("default", ImageCreate("i", {"a": "1"})),
        ("tenant", NamespaceCreate("tenant", {"a": "1", "e": ""})),
        ("default", ContainerCreate("c", "i", orlop.Runtime("r"))),
        ("default", ContentCreate(digest_of(b"data"), 4, "text/plain")),
        ("default", ContainerUpdate("c", "j", {"a": "1"}, "")),
        ("default", ImageUpdate("i", {"a": "1", "b": "2"})),
        ("tenant", NamespaceUpdate("tenant", {"b": "2"})),
        ("default", ContentDelete(digest_of(b"data"))),
        ("default", ImageDelete("i")),
        ("default", ContainerDelete("c")),
        ("tenant", NamespaceDelete("tenant")),
    ]
    assert [event.sequence for event in found] == list(range(found[0].sequence, found[0].sequence + len(found)))


async def test_events_of_a_transaction_stand_next_to_each_other(store: orlop.Store) -> None:
    async def transact(who: int) -> None:
        for round_ in range(3):
            async with store.transaction() as tx:
                for number in range(5):
                    tx.images.create(f"{who} {round_} {number}", A)

    async def alone(who: int) -> None:
        for number in range(10):
            await store.images.create(f"alone {who} {number}", A)

    async with trio.open_nursery() as nursery:
        for who in range(4):
            nursery.start_soon(transact, who)
            nursery.start_soon(alone, who)
    said = [event.event.name for event in await journal(store)]
    assert len(said) == len(set(said)) == 4 * (3 * 5 + 10)
    for who in range(4):
        for round_ in range(3):
            first = said.index(f"{who} {round_} 0")
            assert said[first : first + 5] == [f"{who} {round_} {number}" for number in range(5)]


async def test_a_subscriber_sees_all_of_it_or_nothing(store: orlop.Store) -> None:
    async with store.events.subscribe(0) as events:
        with pytest.raises(AlreadyExists):
            async with store.transaction() as tx:
                tx.images.create("i", A)
                tx.images.create("i", A)
        async with store.transaction() as tx:
            tx.images.create("j", A)
            tx.images.delete("j")
        with trio.fail_after(10):
            assert [(await anext(events)).event for _ in range(2)] == [ImageCreate("j", {}), ImageDelete("j")]


# durability -----------------------------------------------------------------------------------------------


@durable
async def test_a_transaction_survives_reopening(stores: StoreMaker) -> None:
    async with stores.open() as store:
        async with store.transaction() as tx:
            create_all(tx, "updated")
            create_all(tx, "deleted")
        async with store.transaction() as tx:
            create_all(tx, "created")
            update_all(tx, "updated")
            delete_all(tx, "deleted")
        with pytest.raises(AlreadyExists):
            async with store.transaction() as tx:
                update_all(tx, "created")
                tx.images.create("created-i", A)
        before = await everything(store)
    async with stores.open() as store:
        assert await everything(store) == before
        assert await store.content.read(digest_of(b"created")) == b"created"
        async with store.transaction() as tx:
            for record in await records(store, "updated"):
                tx.unchanged(record)
            delete_all(tx, "updated")
        assert await names(store) == ["created-i"]
