"""The numbered edge cases of namespaces, labels, containers and images; the number is the case's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

import orlop
from orlop.protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.protocol.records import ContainerCreate, ImageDelete, NamespaceCreate, Opaque
from tests.support.metadata_edges import (
    EXPIRE,
    HOUR_NS,
    MANIFEST,
    PAST,
    SPEC,
    A,
    B,
    C,
    containers,
    digest_of,
    images,
    namespaces,
    opened,
    said,
    take,
)
from tests.support.outcomes import outcome

# namespaces ----------------------------------------------------------------------------------------------


async def test_1_a_list_in_a_namespace_never_used_is_empty_and_makes_none(store: orlop.Store) -> None:
    assert await containers(store.in_namespace("unused")) == []
    assert await namespaces(store) == []


async def test_2_a_failed_create_makes_no_namespace(store: orlop.Store) -> None:
    there = store.in_namespace("unused")
    with pytest.raises(InvalidArgument):
        await there.containers.create(replace(C, id="bad id"))
    with pytest.raises(InvalidArgument):
        await there.images.create("i", replace(A, size=0))
    assert await namespaces(store) == []


async def test_3_a_namespace_that_comes_by_itself_is_silent_and_exists(store: orlop.Store) -> None:
    async with store.events.subscribe(after=0) as events:
        await store.in_namespace("tenant").containers.create(C)
        with pytest.raises(AlreadyExists):
            await store.namespaces.create("tenant")
        await store.namespaces.create("other")
        assert [event.event for event in await take(events, 2)] == [
            ContainerCreate("c", "", C.runtime),
            NamespaceCreate("other"),
        ]


async def test_4_a_lease_a_sandbox_and_an_ingest_go_with_their_namespace(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    await there.leases.create("l")
    await there.sandboxes.create(orlop.Sandbox("s"))
    async with there.content.ingest("r") as writer:
        await writer.write(b"half")
    await store.namespaces.delete("tenant")
    assert await namespaces(store) == []
    for again in (False, True):
        if again:
            await store.namespaces.create("tenant")
        assert [lease async for lease in there.leases.list()] == []
        assert [sandbox async for sandbox in there.sandboxes.list()] == []
        assert [ingest async for ingest in there.content.ingests()] == []


async def test_5_the_refusal_to_delete_a_namespace_names_all_that_is_left_in_order(store: orlop.Store) -> None:
    there = store.in_namespace("tenant")
    await there.images.create("i", orlop.Descriptor(MANIFEST, digest_of(b"data"), 4))
    await there.content.put(b"data")
    await there.containers.create(C)
    with pytest.raises(FailedPrecondition, match=r"tenant.*\bimages\b.*, blobs\b.*, containers\b"):
        await store.namespaces.delete("tenant")
    assert await namespaces(store) == ["tenant"]


async def test_7_an_absent_namespace_is_not_found(store: orlop.Store) -> None:
    with pytest.raises(NotFound):
        await store.namespaces.get("absent")


async def test_8_an_update_of_an_absent_namespace_is_not_found_and_makes_none(store: orlop.Store) -> None:
    with pytest.raises(NotFound):
        await store.namespaces.update("absent", {"x": "1"}, ["labels.x"])
    with pytest.raises(NotFound):
        await store.namespaces.update("absent", {})
    assert await namespaces(store) == []
    assert await said(store) == []


async def test_9_a_namespace_update_does_not_take_the_path_labels(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"a": "1"})
    with pytest.raises(InvalidArgument):
        await store.namespaces.update("tenant", {"b": "2"}, ["labels"])
    assert (await store.namespaces.get("tenant")).labels == {"a": "1"}


async def test_10_a_refused_path_of_a_namespace_undoes_the_one_before(store: orlop.Store) -> None:
    await store.namespaces.create("tenant", {"a": "1"})
    with pytest.raises(InvalidArgument):
        await store.namespaces.update("tenant", {"q": "2"}, ["labels.q", "name"])
    assert (await store.namespaces.get("tenant")).labels == {"a": "1"}


async def test_11_an_empty_label_of_a_new_namespace_is_answered_and_told_but_not_kept(store: orlop.Store) -> None:
    labels = {"a": "1", "e": ""}
    assert (await store.namespaces.create("tenant", labels)).labels == labels
    assert await said(store) == [("tenant", NamespaceCreate("tenant", labels))]
    assert (await store.namespaces.get("tenant")).labels == {"a": "1"}


async def test_12_version_is_an_ordinary_name_of_a_namespace(store: orlop.Store) -> None:
    await store.namespaces.create("version", {"a": "1"})
    await store.in_namespace("version").containers.create(C)
    assert await containers(store.in_namespace("version")) == ["c"]
    await store.in_namespace("version").containers.delete("c")
    await store.namespaces.delete("version")
    assert await namespaces(store) == []


async def test_14_an_empty_namespace_fails_the_precondition_and_a_malformed_one_is_invalid(store: orlop.Store) -> None:
    calls: list[Callable[[orlop.Store], Awaitable[object]]] = [
        lambda there: there.containers.create(C),
        lambda there: there.containers.get("c"),
        containers,
        lambda there: there.images.delete("i"),
        lambda there: there.leases.create("l"),
        lambda there: there.sandboxes.update(orlop.Sandbox("s")),
        lambda there: there.content.info(A.digest),
        lambda there: opened(there, "r"),
        lambda there: there.events.publish("/a", Opaque("t")),
    ]
    for call in calls:
        assert await outcome(call(store.in_namespace(""))) == "FailedPrecondition"
        assert await outcome(call(store.in_namespace("bad/ns"))) == "InvalidArgument"


# identifiers and labels ----------------------------------------------------------------------------------


async def test_15_an_identifier_does_not_end_with_a_newline(store: orlop.Store) -> None:
    with pytest.raises(InvalidArgument):
        await store.containers.create(replace(C, id="a\n"))


async def test_16_a_label_is_measured_in_bytes_not_characters(store: orlop.Store) -> None:
    with pytest.raises(InvalidArgument):
        await store.containers.create(replace(C, labels={"k": "é" * 2048}))
    await store.containers.create(replace(C, labels={"k": "é" * 2047}))


async def test_17_an_oversized_label_matters_only_where_the_mask_selects_it(store: orlop.Store) -> None:
    await store.containers.create(C)
    given = replace(C, image="new", labels={"k": "x" * 4096})
    assert (await store.containers.update(given, ["image"])).image == "new"
    with pytest.raises(InvalidArgument):
        await store.containers.update(given, ["labels.k"])
    assert (await store.containers.get("c")).labels == {}


async def test_18_a_label_missing_from_the_body_is_removed(store: orlop.Store) -> None:
    await store.containers.create(replace(C, labels={"a": "1", "b": "2"}))
    assert (await store.containers.update(C, ["labels.b"])).labels == {"a": "1"}
    assert (await store.containers.get("c")).labels == {"a": "1"}


async def test_19_all_behind_the_first_dot_of_a_path_is_the_key(store: orlop.Store) -> None:
    await store.containers.create(C)
    given = replace(C, labels={"x.y.z/w": "1"})
    assert (await store.containers.update(given, ["labels.x.y.z/w"])).labels == {"x.y.z/w": "1"}


# containers ----------------------------------------------------------------------------------------------


async def test_20_the_path_is_snapshotkey_and_not_snapshot_key(store: orlop.Store) -> None:
    given = replace(C, snapshotter="native", snapshot_key="one")
    await store.containers.create(given)
    with pytest.raises(InvalidArgument):
        await store.containers.update(replace(given, snapshot_key="two"), ["snapshot_key"])
    updated = await store.containers.update(replace(given, snapshot_key="two"), ["snapshotkey"])
    assert updated.snapshot_key == "two"


async def test_21_an_absent_container_is_not_found_whatever_the_path(store: orlop.Store) -> None:
    with pytest.raises(NotFound):
        await store.containers.update(C, ["no.such.path"])


async def test_22_an_update_without_mask_keeps_sandbox_and_runtime_options(store: orlop.Store) -> None:
    given = replace(C, runtime=orlop.Runtime("r", SPEC), sandbox="one")
    await store.containers.create(given)
    other = replace(given, runtime=orlop.Runtime("r", orlop.Any("other", b"")), sandbox="two", image="new")
    await store.containers.update(other)
    found = await store.containers.get("c")
    assert (found.runtime, found.sandbox, found.image) == (given.runtime, "one", "new")


async def test_23_an_update_without_mask_and_without_the_snapshotter_is_refused(store: orlop.Store) -> None:
    await store.containers.create(replace(C, snapshotter="native"))
    with pytest.raises(InvalidArgument, match="snapshotter"):
        await store.containers.update(C)


async def test_24_the_path_extensions_replaces_them_all(store: orlop.Store) -> None:
    await store.containers.create(replace(C, extensions={"e1": SPEC, "e2": SPEC}))
    updated = await store.containers.update(replace(C, extensions={"e3": SPEC}), ["extensions"])
    assert updated.extensions == {"e3": SPEC}
    assert (await store.containers.get("c")).extensions == {"e3": SPEC}


async def test_25_an_extension_missing_from_the_body_is_removed(store: orlop.Store) -> None:
    await store.containers.create(replace(C, extensions={"e1": SPEC}))
    assert (await store.containers.update(C, ["extensions.e1"])).extensions == {}
    assert (await store.containers.get("c")).extensions == {}


async def test_26_an_update_that_changes_nothing_moves_updated_at(store: orlop.Store) -> None:
    created = await store.containers.create(C)
    updated = await store.containers.update(C)
    assert updated.updated_at > created.updated_at
    assert updated.created_at == created.created_at


async def test_27_the_times_are_the_stores_own(store: orlop.Store) -> None:
    await store.containers.create(replace(C, created_at=1, updated_at=2))
    found = await store.containers.get("c")
    assert found.created_at > 10**18
    assert found.updated_at == found.created_at


# images --------------------------------------------------------------------------------------------------


async def test_28_an_update_of_labels_alone_needs_no_target(store: orlop.Store) -> None:
    await store.images.create("i", A)
    updated = await store.images.update("i", labels={"a": "1"}, mask=["labels"])
    assert (updated.target, updated.labels) == (A, {"a": "1"})


async def test_29_an_update_without_mask_and_labels_clears_them(store: orlop.Store) -> None:
    await store.images.create("i", A, {"a": "1"})
    assert (await store.images.update("i", target=A)).labels == {}
    assert (await store.images.get("i")).labels == {}


async def test_30_the_path_target_takes_annotations_along_and_leaves_labels(store: orlop.Store) -> None:
    await store.images.create("i", replace(A, annotations={"n": "1"}), {"a": "1"})
    updated = await store.images.update("i", target=B, mask=["target"])
    assert (updated.target, updated.labels) == (B, {"a": "1"})


async def test_31_a_delete_with_a_target_needs_its_digest(store: orlop.Store) -> None:
    for target in (A.digest, ""):
        created = await store.images.create("i", A)
        with pytest.raises(NotFound):
            await store.images.delete("i", target=B.digest)
        assert await store.images.get("i") == created
        await store.images.delete("i", target=target)
        assert await images(store) == []


async def test_32_source_date_epoch_may_lie_before_the_creation(store: orlop.Store) -> None:
    created = await store.images.create("i", A)
    updated = await store.images.update("i", target=A, source_date_epoch=HOUR_NS)
    assert (updated.updated_at, updated.created_at) == (HOUR_NS, created.created_at)
    assert await store.images.get("i") == updated


async def test_33_an_expired_image_goes_with_any_synchronous_delete(store: orlop.Store) -> None:
    await store.images.create("past", A, {EXPIRE: PAST})
    await store.images.create("unparsable", A, {EXPIRE: "tomorrow"})
    await store.leases.create("l")
    await store.leases.delete("l", sync=True)
    assert await images(store) == ["unparsable"]
    assert ("default", ImageDelete("past")) in await said(store)
