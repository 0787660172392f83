"""Batches as they stand on the wire: their limits, and what cannot be in one.

Source: spec metadata 1.3, 1.8.
"""

from __future__ import annotations

import msgspec
import pytest

import orlop
from orlop.protocol import methods as t
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from orlop.protocol.messages import (
    Batch,
    Collect,
    Condition,
    CreateImage,
    CreateLease,
    DeleteImage,
    DeleteLease,
    GetImage,
    Hello,
    ListContainers,
    OpenIngest,
    Operation,
    Precondition,
    Resource,
    WriteIngest,
)

from ..support.changes import FINE, MANIFEST, A, container, everything, held, lease_ids, raw, refused, resource

CANNOT: dict[str, object] = {
    "hello": Hello([1]),
    "images.get": GetImage("i"),
    "images.list": {},
    "containers.list_stream": ListContainers(),
    "content.read": {"digest": A.digest},
    "content.open": {"digest": A.digest},
    "ingests.open": OpenIngest("r"),
    "ingests.write": WriteIngest(1, 0, b"x"),
    "ingests.abort": {"ref": "r"},
    "events.list": {},
    "events.subscribe": {},
    "gc.collect": Collect(),
    "transfer.pull": {"reference": "example.org/a:1"},
    "batch": Batch([]),
    "no.such.method": {},
    "": {},
}

MALFORMED: list[tuple[str, object]] = [
    ("images.create", None),
    ("images.create", []),
    ("images.create", {"name": "i"}),
    ("images.create", {"name": 7, "target": A}),
    ("images.create", {"name": "i", "target": {"media_type": MANIFEST, "digest": A.digest, "size": "7"}}),
    ("images.update", {"name": "i", "mask": "labels"}),
    ("containers.create", {"container": {"id": "c", "labels": {"a": 1}}}),
    ("sandboxes.create", {"sandbox": "s"}),
    ("leases.create", {"id": "l", "expires_in_s": 0}),
    ("leases.add", {"id": "l", "resource": {"id": "x"}}),
    ("content.put", {"data": "text"}),
    ("namespaces.create", {}),
]


# limits ---------------------------------------------------------------------------------------------------


async def test_250_operations_and_preconditions_are_taken_and_no_more(store: orlop.Store) -> None:
    limit = store.welcome().limits.transaction_operations
    assert limit == 250
    await store.leases.create("l")
    async with store.transaction() as tx:
        tx.exists(Resource.LEASE, "l")
        for number in range(limit - 1):
            tx.leases.add("l", resource(f"{number:03}"))
    assert len(await held(store, "l")) == limit - 1
    before = await everything(store)
    for checks in (0, 1):
        with pytest.raises(ResourceExhausted):
            async with store.in_namespace("fresh").transaction() as tx:
                tx.images.create("", A)  # refused before it is planned: else InvalidArgument
                for number in range(limit - checks):
                    tx.images.create(f"{number}", A)
                for _ in range(checks):
                    tx.absent(Resource.IMAGE, "x")
        assert await everything(store) == before


async def test_a_mebibyte_of_records_is_too_much(store: orlop.Store) -> None:
    assert store.welcome().limits.transaction_bytes == 1024 * 1024
    large = container("large", spec=orlop.Any("x", b"x" * 400_000))
    async with store.in_namespace("tenant").transaction() as tx:
        tx.containers.create(large)  # one of them is not too much
    await store.in_namespace("tenant").containers.delete("large")
    await store.namespaces.delete("tenant")
    before = await everything(store)
    with pytest.raises(ResourceExhausted):
        async with store.in_namespace("fresh").transaction() as tx:
            tx.containers.create(large)
            for number in range(3):
                tx.containers.update(container("large", labels={"n": str(number)}), ["labels"])
    assert await everything(store) == before


async def test_a_request_of_more_than_a_mebibyte_is_refused_and_the_store_goes_on(store: orlop.Store) -> None:
    before = await everything(store)
    for each, count in ((400_000, 3), (16_000, 200)):
        with pytest.raises(ResourceExhausted):
            async with store.in_namespace("fresh").transaction() as tx:
                for number in range(count):
                    tx.containers.create(container(f"c{number}", spec=orlop.Any("x", b"x" * each)))
        assert await everything(store) == before


async def test_a_thousand_writes_are_too_many(store: orlop.Store) -> None:
    assert store.welcome().limits.transaction_writes == 1000
    before = await everything(store)
    with pytest.raises(ResourceExhausted):
        async with store.transaction() as tx:
            tx.images.create("i", A)
            for number in range(249):
                tx.content.put(f"blob {number}".encode())
    assert await everything(store) == before
    async with store.transaction() as tx:
        for number in range(150):
            tx.content.put(f"blob {number}".encode(), labels={"containerd.io/gc.root": "x"})
    assert len([info async for info in store.content.list()]) == 150


async def test_leases_with_many_entries_go_in_one_transaction(store: orlop.Store) -> None:
    leases = [f"l{number}" for number in range(6)]
    for lease in leases:
        async with store.transaction() as tx:
            tx.leases.create(lease)
            for number in range(200):
                tx.leases.add(lease, resource(f"{number}"))
    async with store.transaction() as tx:
        for lease in leases[:5]:
            tx.leases.delete(lease)
    assert await lease_ids(store) == leases[5:]
    await store.collect()
    assert len([each async for each in store.leases.resources(leases[5])]) == 200


# raw batches ----------------------------------------------------------------------------------------------


async def test_what_cannot_be_in_a_batch_is_an_invalid_argument(store: orlop.Store) -> None:
    before = await everything(store)
    for method, request in CANNOT.items():
        said = await refused(store, [FINE, Operation(method, raw(request))])
        assert f"({method})" in said, said
        assert "operation 2" in said, said
        assert "operation 1 " in await refused(store, [Operation(method, raw(request)), FINE])
    assert await everything(store) == before


async def test_synchronous_deletes_cannot_be_in_a_batch(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        tx.images.create("i", A)
        tx.leases.create("l")
    before = await everything(store)
    for method, request in (("images.delete", DeleteImage("i", "", True)), ("leases.delete", DeleteLease("l", True))):
        said = await refused(store, [FINE, Operation(method, raw(request))])
        assert "operation 2" in said
        assert method in said
    with pytest.raises(InvalidArgument, match=r"images\.delete"):
        async with store.transaction() as tx:
            tx.images.delete("i", sync=True)
    with pytest.raises(InvalidArgument, match=r"leases\.delete"):
        async with store.transaction() as tx:
            tx.leases.delete("l", sync=True)
    assert await everything(store) == before


async def test_malformed_arguments_are_refused_before_anything_is_planned(store: orlop.Store) -> None:
    before = await everything(store)
    taken = Operation("images.create", raw(CreateImage("", A)))
    for method, request in MALFORMED:
        said = await refused(store, [FINE, taken, Operation(method, raw(request))])
        assert f"operation 3 ({method})" in said, said
    assert await everything(store) == before


async def test_malformed_preconditions_are_invalid_arguments(store: orlop.Store) -> None:
    before = await everything(store)
    for kind in Resource:
        for record in (None, raw(None), raw({}), raw("text"), raw({"name": 7})):
            precondition = Precondition(kind, "the name", Condition.UNCHANGED, record)
            assert "the name" in await refused(store, [FINE], [precondition])
    assert await everything(store) == before


async def test_arguments_out_of_range_are_refused_in_the_typed_form_too(store: orlop.Store) -> None:
    with pytest.raises(InvalidArgument, match=r"leases\.create"):
        async with store.transaction() as tx:
            tx.leases.create("l", expires_in_s=0)


async def test_results_are_what_the_methods_answer(store: orlop.Store) -> None:
    request = [Operation("leases.create", raw(CreateLease("l")))]
    answer = await store._caller.call(t.BATCH, Batch(request), store.context)
    assert msgspec.msgpack.decode(answer.results[0], type=orlop.Lease) == await store.leases.get("l")


async def test_the_error_names_the_operation_and_what_it_was_about(store: orlop.Store) -> None:
    with pytest.raises(NotFound, match=r"2.*images\.delete.*absent.*: not found$"):
        async with store.transaction() as tx:
            tx.images.create("i", A)
            tx.images.delete("absent")
            tx.containers.delete("absent too")
    with pytest.raises(NotFound, match=r"1.*containers\.delete"):
        async with store.transaction() as tx:
            tx.containers.delete("absent")
            tx.images.create("", A)


async def test_a_batch_without_a_namespace_or_with_a_bad_one_is_refused(store: orlop.Store) -> None:
    for space, kind in (("", FailedPrecondition), ("bad/ns", InvalidArgument)):
        with pytest.raises(kind):
            async with store.in_namespace(space).transaction() as tx:
                tx.images.create("i", A)
    assert [n async for n in store.namespaces.list()] == []
