"""The numbered edge cases of filters, errors and events; the number is the case's."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

import orlop
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from orlop.protocol.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unknown,
    error_to_wire,
)
from orlop.protocol.records import ContainerCreate, ImageCreate, Opaque
from tests.support.metadata_edges import A, C, containers, images, nowhere, over_the_wire, said, take

# filters -------------------------------------------------------------------------------------------------


async def test_45_a_bare_pattern_does_not_begin_with_a_dot(store: orlop.Store) -> None:
    await store.containers.create(replace(C, id="a", image="i"))
    await store.containers.create(replace(C, id="b"))
    with pytest.raises(InvalidArgument):
        await containers(store, "image~=.*")
    assert await containers(store, "image~=/.*/") == ["a", "b"]


async def test_46_a_key_with_a_slash_is_quoted(store: orlop.Store) -> None:
    await store.containers.create(replace(C, labels={"example.com/x": "1"}))
    with pytest.raises(InvalidArgument):
        await containers(store, "labels.example.com/x==1")
    assert await containers(store, 'labels."example.com/x"==1') == ["c"]


async def test_47_a_value_with_a_slash_in_front_is_quoted(store: orlop.Store) -> None:
    with pytest.raises(InvalidArgument):
        async with store.events.subscribe(after=0, filters=["topic==/containers/create"]) as events:
            await take(events, 1)
    await store.images.create("i", A)
    await store.containers.create(C)
    async with store.events.subscribe(after=0, filters=['topic=="/containers/create"']) as events:
        assert [event.event for event in await take(events, 1)] == [ContainerCreate("c", "", C.runtime)]


async def test_48_a_backslash_between_slashes_is_doubled(store: orlop.Store) -> None:
    await store.containers.create(replace(C, labels={"num": "42"}))
    with pytest.raises(InvalidArgument):
        await containers(store, r"labels.num~=/\d+/")
    assert await containers(store, r"labels.num~=\d+") == ["c"]
    assert await containers(store, r"labels.num~=/\\d+/") == ["c"]


async def test_49_a_pattern_that_does_not_compile_matches_nothing(store: orlop.Store) -> None:
    await store.containers.create(C)
    assert await containers(store, "id~=[") == []


async def test_50_an_absent_label_differs_from_all_but_the_empty_text(store: orlop.Store) -> None:
    await store.containers.create(C)
    assert await containers(store, "labels.gone!=x") == ["c"]
    assert await containers(store, 'labels.gone!=""') == []


async def test_51_an_empty_filter_among_others_lets_everything_pass(store: orlop.Store) -> None:
    for id_ in ("a", "b"):
        await store.containers.create(replace(C, id=id_))
    assert await containers(store, "id==a", "") == ["a", "b"]


async def test_52_a_blank_may_stand_before_a_filter_but_not_behind(store: orlop.Store) -> None:
    await store.containers.create(replace(C, id="a"))
    with pytest.raises(InvalidArgument):
        await containers(store, "id==a ")
    assert await containers(store, " id==a") == ["a"]


async def test_53_a_container_without_image_has_no_empty_one(store: orlop.Store) -> None:
    await store.containers.create(C)
    assert await containers(store, 'image==""') == []


async def test_54_filters_on_namespaces_are_ignored_even_malformed_ones(store: orlop.Store) -> None:
    await store.namespaces.create("tenant")
    for filters in (["name==other"], ["name=="]):
        page = await store.namespaces._call(t.NAMESPACES_LIST, m.ListNamespaces(filters=filters))
        assert [namespace.name for namespace in page.items] == ["tenant"]


# errors --------------------------------------------------------------------------------------------------


def test_55_of_two_joined_errors_the_first_gives_the_code_and_both_answer() -> None:
    joined = ExceptionGroup("two", [InvalidArgument("left"), NotFound("right")])
    assert error_to_wire(joined).code == "InvalidArgument"
    arrived = over_the_wire(joined)
    assert arrived.is_a(InvalidArgument)
    assert arrived.is_a(NotFound)
    # The second one's text is that of a cause, where the reference adds a line.
    assert [str(arrived), str(arrived.__cause__)] == ["left: invalid argument", "right: not found"]


def test_56_a_conflict_travels_as_a_failed_precondition_and_arrives_as_itself() -> None:
    assert error_to_wire(Conflict("berth")).code == "FailedPrecondition"
    assert isinstance(over_the_wire(Conflict("berth")), Conflict)


def test_57_an_error_without_a_class_arrives_as_unknown_with_its_text() -> None:
    arrived = over_the_wire(ValueError("keel is missing"))
    assert type(arrived) is Unknown
    assert str(arrived) == "keel is missing"


# events --------------------------------------------------------------------------------------------------


async def test_58_an_event_needs_a_topic_and_a_namespace(store: orlop.Store) -> None:
    for topic in ("/a/", "a"):
        with pytest.raises(InvalidArgument):
            await store.events.publish(topic, Opaque("types.example/x"))
    with pytest.raises(FailedPrecondition):
        await nowhere(store).events.publish("/a", Opaque("types.example/x"))
    assert await said(store) == []


async def test_60_the_changes_of_a_transaction_are_told_when_it_ends(store: orlop.Store) -> None:
    async with store.transaction() as tx:
        tx.images.create("i", A)
        tx.containers.create(C)
        assert await said(store) == []
    assert await said(store) == [("default", ImageCreate("i")), ("default", ContainerCreate("c", "", C.runtime))]
    with pytest.raises(AlreadyExists):
        async with store.transaction() as tx:
            tx.images.create("j", A)
            tx.containers.create(C)
    assert await images(store) == ["i"]
    assert len(await said(store)) == 2


async def test_62_only_the_path_runtime_changes_a_sandboxs_runtime(store: orlop.Store) -> None:
    await store.sandboxes.create(orlop.Sandbox("s", orlop.Runtime("one")))
    other = orlop.Sandbox("s", orlop.Runtime("two"))
    with pytest.raises(InvalidArgument):
        await store.sandboxes.update(other)
    assert (await store.sandboxes.update(other, ["runtime"])).runtime.name == "two"
    assert (await store.sandboxes.get("s")).runtime.name == "two"


async def test_63_lists_are_in_the_order_of_bytes(store: orlop.Store) -> None:
    for id_ in ("z", "B", "a10", "a9", "a_1"):
        await store.containers.create(replace(C, id=id_))
        await store.images.create(id_, A)
    assert await containers(store) == ["B", "a10", "a9", "a_1", "z"]
    assert await images(store) == ["B", "a10", "a9", "a_1", "z"]


async def test_64_an_empty_label_without_key_is_dropped(store: orlop.Store) -> None:
    assert (await store.containers.create(replace(C, labels={"": ""}))).labels == {}
    assert (await store.containers.get("c")).labels == {}


async def test_65_an_empty_key_is_not_found_but_invalid_in_updates_save_for_sandboxes(store: orlop.Store) -> None:
    for absent in (
        lambda: store.containers.get(""),
        lambda: store.containers.delete(""),
        lambda: store.images.get(""),
        lambda: store.images.delete(""),
        lambda: store.sandboxes.update(orlop.Sandbox("")),
        lambda: store.sandboxes.update(orlop.Sandbox(""), ["labels"]),
    ):
        with pytest.raises(NotFound):
            await absent()
    for invalid in (
        lambda: store.containers.update(replace(C, id="")),
        lambda: store.containers.update(replace(C, id=""), ["labels"]),
        lambda: store.images.update("", target=A),
        lambda: store.images.update("", labels={"a": "1"}, mask=["labels"]),
    ):
        with pytest.raises(InvalidArgument):
            await invalid()


async def test_66_a_subscriber_hears_of_all_namespaces(store: orlop.Store) -> None:
    async with store.in_namespace("a").events.subscribe(after=0) as events:
        await store.in_namespace("b").images.create("i", A)
        assert [event.namespace for event in await take(events, 1)] == ["b"]
