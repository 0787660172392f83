"""An error is the same thing in process, over a unix socket and over TCP: class, text, hint and causes.

Source: spec metadata 6.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

import orlop
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import methods as t
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError, error_to_wire
from orlop.protocol.messages import (
    AddLeaseResource,
    CreateImage,
    DeleteContent,
    GetImage,
    ListEvents,
    ListImages,
    ListLeaseResources,
    ListNamespaces,
    SubscribeEvents,
    WriteIngest,
)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
A = orlop.Descriptor(MANIFEST, "sha256:" + "a" * 64, 7)
B = orlop.Descriptor(MANIFEST, "sha256:" + "b" * 64, 8)
EXPIRE = {"containerd.io/gc.expire": "2999-01-02T03:04:05Z"}
LONE = "\ud800"  # half of a surrogate pair: text that UTF-8 cannot say

Call = Callable[[orlop.Store], Awaitable[object]]


async def every(items: AsyncIterator[object]) -> list[object]:
    return [item async for item in items]


async def opened(store: orlop.Store, ref: str, size: int = 0) -> None:
    async with store.content.ingest(ref, size=size):
        pass


async def read(store: orlop.Store, digest: str) -> None:
    async with store.content.open(digest):
        pass


async def subscribed(store: orlop.Store, request: SubscribeEvents) -> None:
    async with store._caller.stream(t.EVENTS_SUBSCRIBE, request, store.context) as stream:
        async for _ in stream:
            pass


def nowhere(store: orlop.Store) -> orlop.Store:
    return orlop.Store(store._caller, orlop.Context(namespace=None))


# Each is refused, and leaves the store as it was.
REFUSED: dict[str, Call] = {
    "image absent": lambda s: s.images.get("absent"),
    "image absent, with an odd name": lambda s: s.images.get('a "b"\n\x00牛' + "x" * 300),
    "image without a name": lambda s: s.images.create("", A),
    "image with a long name": lambda s: s.images.create("é" * 257, A),
    "image taken": lambda s: s.images.create("taken", A),
    "image without a digest": lambda s: s.images.create("i", orlop.Descriptor(MANIFEST, "", 7)),
    "image with a short digest": lambda s: s.images.create("i", orlop.Descriptor(MANIFEST, "sha256:ab", 7)),
    "image of no size": lambda s: s.images.create("i", orlop.Descriptor(MANIFEST, A.digest, 0)),
    "image of negative size": lambda s: s.images.create("i", orlop.Descriptor(MANIFEST, A.digest, -1)),
    "image without media type": lambda s: s.images.create("i", orlop.Descriptor("", A.digest, 7)),
    "image with a large label": lambda s: s.images.create("i", A, {"k" * 90: "x" * 4096}),
    "image with a label without key": lambda s: s.images.create("i", A, {"": "x"}),
    "image for a missing lease": lambda s: s.with_lease("absent").images.create("i", A, EXPIRE),
    "image update, absent": lambda s: s.images.update("absent", target=A),
    "image update, no name": lambda s: s.images.update("", target=A),
    "image update, path": lambda s: s.images.update("taken", target=A, mask=["labels.a", "target.digest"]),
    "image update, no target": lambda s: s.images.update("taken"),
    "image delete, absent": lambda s: s.images.delete("absent", sync=True),
    "image delete, other target": lambda s: s.images.delete("taken", target=B.digest),
    "image list, filter": lambda s: every(s.images.list(["name=taken"])),
    "no namespace": lambda s: nowhere(s).images.get("taken"),
    "no namespace, list": lambda s: every(nowhere(s).images.list()),
    "no namespace, blob": lambda s: read(nowhere(s), A.digest),
    "no namespace, pull": lambda s: nowhere(s).pull(orlop.PullImage("example/app:1")),
    "empty namespace": lambda s: s.in_namespace("").leases.create("l"),
    "bad namespace": lambda s: s.in_namespace("bad/ns").content.put(b"x"),
    "namespace absent": lambda s: s.namespaces.get("absent"),
    "namespace taken": lambda s: s.namespaces.create("default"),
    "namespace name": lambda s: s.namespaces.create("bad name"),
    "namespace update, path": lambda s: s.namespaces.update("default", {}, ["labels"]),
    "namespace update, absent": lambda s: s.namespaces.update("absent", {"a": "1"}),
    "namespace delete, not empty": lambda s: s.namespaces.delete("default"),
    "namespace delete, absent": lambda s: s.namespaces.delete("absent"),
    "lease absent": lambda s: s.leases.get("absent"),
    "lease taken": lambda s: s.leases.create("held"),
    "lease with a long id": lambda s: s.leases.create("l" * 513),
    "lease delete, absent": lambda s: s.leases.delete("absent", sync=True),
    "lease resource, kind": lambda s: s.leases.add("held", orlop.LeaseResource("c", "containers")),
    "lease resource, digest": lambda s: s.leases.add("held", orlop.LeaseResource("c", "content")),
    "lease resources, absent": lambda s: every(s.leases.resources("absent")),
    "lease list, filter": lambda s: every(s.leases.list(["id=held"])),
    "content absent": lambda s: s.content.info(A.digest),
    "content, bad digest": lambda s: s.content.info("sha256:short"),
    "content open, absent": lambda s: read(s, A.digest),
    "content read, absent": lambda s: s.content.read(A.digest),
    "content put, other digest": lambda s: s.content.put(b"x", expected=A.digest),
    "content put, too large": lambda s: s.content.put(b"x" * 16385),
    "content put, here": lambda s: s.content.put(b"data"),
    "content delete, absent": lambda s: s._caller.call(t.CONTENT_DELETE, DeleteContent(A.digest), s.context),
    "content update, path": lambda s: s.content.update("sha256:" + "c" * 64, {}, ["size"]),
    "content list, filter": lambda s: every(s.content.list(["size=1"])),
    "ingest absent": lambda s: s.content.status("absent"),
    "ingest abort, absent": lambda s: s.content.abort("absent"),
    "ingest ref, empty": lambda s: opened(s, ""),
    "ingest ref, long": lambda s: opened(s, "r" * 513),
    "ingest for a missing lease": lambda s: opened(s.with_lease("absent"), "r"),
    "ingest list, filter": lambda s: every(s.content.ingests(["ref=r"])),
    "ingest write, no writer": lambda s: s._caller.call(t.INGESTS_WRITE, WriteIngest(4_000_000, 0, b"x"), s.context),
    "events, filter": lambda s: s.events._call(t.EVENTS_LIST, ListEvents(filters=["topic=x"])),
    "subscription, filter": lambda s: subscribed(s, SubscribeEvents(None, ["topic=x"])),
    "subscription, negative cursor": lambda s: subscribed(s, SubscribeEvents(-1)),
    "pull, no reference": lambda s: s.pull(orlop.PullImage("")),
    "pull, odd reference": lambda s: s.pull(orlop.PullImage("UPPER CASE//::")),
}

# Numbers outside the ranges that the requests declare.
OUT_OF_RANGE: dict[str, Call] = {
    "limit 0": lambda s: s._caller.call(t.IMAGES_LIST, ListImages(limit=0), s.context),
    "limit 1001": lambda s: s._caller.call(t.NAMESPACES_LIST, ListNamespaces(limit=1001), s.context),
    "limit of resources": lambda s: s._caller.call(t.LEASES_RESOURCES, ListLeaseResources("held", limit=-1), s.context),
    "events, limit": lambda s: s.events.page(0, limit=0),
    "events, negative cursor": lambda s: s.events.page(-1),
    "ingest, negative size": lambda s: opened(s, "r", size=-1),
    "image, size of 64 bits": lambda s: s.images.create("i", orlop.Descriptor(MANIFEST, A.digest, 2**63)),
}

# What no message can say: the client finds out, or the server; the caller need not know which.
UNSPEAKABLE: dict[str, Call] = {
    "image size": lambda s: s.images.create("i", orlop.Descriptor(MANIFEST, A.digest, 2**64)),
    "image time": lambda s: s._caller.call(t.IMAGES_CREATE, CreateImage("i", A, {}, 2**64), s.context),
    "image name": lambda s: s.images.create(LONE, A),
    "image label": lambda s: s.images.create("i", A, {"k": LONE}),
    "image get": lambda s: s._caller.call(t.IMAGES_GET, GetImage(LONE), s.context),
    "lease id": lambda s: s.leases.create(LONE),
    "lease label": lambda s: s.leases.create("l", {LONE: "x"}),
    "lease resource": lambda s: s._caller.call(
        t.LEASES_ADD, AddLeaseResource("held", orlop.LeaseResource(LONE, "images")), s.context
    ),
    "ingest ref": lambda s: opened(s, LONE),
    "namespace": lambda s: s.namespaces.create(LONE),
    "request namespace": lambda s: s.in_namespace(LONE).images.get("i"),
}


@pytest.fixture
async def ways(tmp_path: Path) -> AsyncIterator[dict[str, orlop.Store]]:
    """One store, by every way into it."""
    listen = [orlop.Address(path=str(tmp_path / "socket")), orlop.Address(host="127.0.0.1", port=0)]
    config = orlop.StoreConfig(str(tmp_path / "store"))
    async with run_store(config, real_world(), host_platform(), listen) as running:
        unix, tcp = running.addresses
        async with orlop.connect(unix) as by_unix, orlop.connect(tcp) as by_tcp:
            embedded = running.store.in_namespace("default")
            await embedded.images.create("taken", A)
            await embedded.leases.create("held")
            await embedded.with_lease("held").content.put(b"data")
            yield {"embedded": embedded, "unix": by_unix, "tcp": by_tcp}


def described(error: OrlopError) -> tuple[object, ...]:
    causes = [(detail.code, detail.message) for detail in error_to_wire(error).details]
    return type(error).__name__, str(error), error.hint, causes


async def outcome(call: Call, store: orlop.Store) -> tuple[object, ...]:
    with trio.fail_after(20):
        try:
            await call(store)
        except OrlopError as error:
            return described(error)
        except Exception as error:  # noqa: BLE001 - the test is about what kind it is
            return "not of orlop", type(error).__name__, str(error)
    return ("done",)


async def outcomes(ways: dict[str, orlop.Store], calls: dict[str, Call]) -> dict[str, dict[str, tuple[object, ...]]]:
    return {name: {way: await outcome(call, store) for way, store in ways.items()} for name, call in calls.items()}


async def test_a_refusal_is_the_same_by_every_way_in(ways: dict[str, orlop.Store]) -> None:
    found = await outcomes(ways, REFUSED)
    assert {name: by for name, by in found.items() if len(set(map(repr, by.values()))) > 1} == {}
    unwanted = ("done", "not of orlop", "Internal", "Unknown", "DataLoss")
    assert {name: by for name, by in found.items() if by["embedded"][0] in unwanted} == {}


def not_invalid(found: dict[str, dict[str, tuple[object, ...]]]) -> dict[str, tuple[object, ...]]:
    return {
        f"{name}, {way}": result
        for name, by in found.items()
        for way, result in by.items()
        if result[0] != "InvalidArgument"
    }


async def test_a_number_out_of_range_is_an_invalid_argument_by_every_way_in(ways: dict[str, orlop.Store]) -> None:
    found = await outcomes(ways, OUT_OF_RANGE)
    assert not_invalid(found) == {}


async def test_what_no_message_can_say_is_an_invalid_argument_by_every_way_in(ways: dict[str, orlop.Store]) -> None:
    found = await outcomes(ways, UNSPEAKABLE)
    assert not_invalid(found) == {}


async def test_a_call_that_cannot_be_sent_takes_nothing_from_later_ones(ways: dict[str, orlop.Store]) -> None:
    for way, store in ways.items():
        with trio.move_on_after(3) as scope:
            for _ in range(store.welcome().limits.requests_in_flight):
                assert await outcome(lambda s: s.images.get(LONE), store) != ("done",)
            assert (await store.images.get("taken")).target == A
        assert not scope.cancelled_caught, way


async def test_a_text_ends_with_its_class_and_names_the_object(ways: dict[str, orlop.Store]) -> None:
    for store in ways.values():
        with pytest.raises(NotFound, match=r"absent.*: not found$"):
            await store.images.get("absent")
        with pytest.raises(InvalidArgument, match=r"bad/ns.*: invalid argument$"):
            await store.in_namespace("bad/ns").images.get("i")
        with pytest.raises(FailedPrecondition, match=r"namespace.*: failed precondition$"):
            await nowhere(store).images.get("i")


async def test_hints_come_along_by_every_way_in(ways: dict[str, orlop.Store]) -> None:
    for call in (
        REFUSED["content put, too large"],
        REFUSED["namespace delete, not empty"],
        lambda s: s.pull(orlop.PullImage("example.org/app:1", platforms=["no platform"])),
        lambda s: s.pull(orlop.PullImage("https://example.org/app:1")),
    ):
        hints = []
        for store in ways.values():
            with pytest.raises(OrlopError) as refused:
                await call(store)
            hints.append(refused.value.hint)
        assert hints[0]
        assert hints == [hints[0]] * 3


async def test_an_error_about_one_call_leaves_the_others_of_its_connection_alone(
    ways: dict[str, orlop.Store],
) -> None:
    for store in ways.values():
        results: list[object] = []

        async def good(store: orlop.Store = store, results: list[object] = results) -> None:
            results.append((await store.images.get("taken")).target)

        async def bad(store: orlop.Store = store, results: list[object] = results) -> None:
            try:
                await store.images.create("taken", A)
            except OrlopError as error:
                results.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(good)
                nursery.start_soon(bad)
        assert results.count(A) == 16
        assert results.count("AlreadyExists") == 16
