"""Leases: what joins them, what they protect, and how they end.

Source: spec metadata 12, 18; tests/vectors/lease_resources.json.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol.errors import AlreadyExists, InvalidArgument, NotFound

ROWS = json.loads((Path(__file__).parent.parent / "vectors" / "lease_resources.json").read_text())
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TARGET = orlop.Descriptor(MANIFEST, "sha256:" + "a" * 64, 7)
EXPIRE = "containerd.io/gc.expire"
FUTURE = "2999-01-02T03:04:05Z"
PAST = "2001-02-03T04:05:06Z"
REF = "containerd.io/gc.ref.content"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def resource(type_: str, id_: str) -> orlop.LeaseResource:
    return orlop.LeaseResource(id=id_, type=type_)


async def held(store: orlop.Store, lease: str) -> list[tuple[str, str]]:
    return [(entry.type, entry.id) async for entry in store.leases.resources(lease)]


async def ids(store: orlop.Store) -> list[str]:
    return [lease.id async for lease in store.leases.list()]


async def digests(store: orlop.Store) -> set[str]:
    return {info.digest async for info in store.content.list()}


async def outcome(call: Awaitable[object]) -> str:
    """`ok`, or the class of the error."""
    try:
        await call
    except errors.OrlopError as error:
        return type(error).__name__
    return "ok"


# the record ----------------------------------------------------------------------------------------------


async def test_a_created_lease_is_got_and_listed(store: orlop.Store) -> None:
    before = time.time_ns()
    lease = await store.leases.create("any / thing 牛", {"a": "1", "empty": ""})
    after = time.time_ns()
    assert (lease.id, lease.labels) == ("any / thing 牛", {"a": "1"})
    assert before <= lease.created_at <= after
    assert await store.leases.get("any / thing 牛") == lease
    assert [entry async for entry in store.leases.list()] == [lease]
    assert await held(store, "any / thing 牛") == []


async def test_an_empty_id_is_made_up(store: orlop.Store) -> None:
    made = [(await store.leases.create()).id for _ in range(8)]
    assert len(set(made)) == 8
    assert await ids(store) == sorted(made)
    for id_ in made:
        assert re.fullmatch(r"\d{1,9}-[A-Za-z0-9_-]{4}", id_)


async def test_an_id_is_any_text_of_up_to_512_bytes(store: orlop.Store) -> None:
    accepted = ["\x00", "a b", "é" * 256, "l" * 512]
    for id_ in accepted:
        await store.leases.create(id_)
    for id_ in ("é" * 257, "l" * 513):
        with pytest.raises(InvalidArgument):
            await store.leases.create(id_)
    assert await ids(store) == sorted(accepted)


async def test_labels_of_leases_are_checked_as_everywhere(store: orlop.Store) -> None:
    await store.leases.create("fits", {"k": "x" * 4095})
    for labels in ({"k": "x" * 4096}, {"k": "é" * 2048}, {"": "value"}):
        with pytest.raises(InvalidArgument):
            await store.leases.create("refused", labels)
    assert (await store.leases.create("pair", {"": ""})).labels == {}
    assert await ids(store) == ["fits", "pair"]


async def test_create_of_a_taken_id_is_refused_and_changes_nothing(store: orlop.Store) -> None:
    lease = await store.leases.create("l", {"a": "1"})
    with pytest.raises(AlreadyExists, match="l"):
        await store.leases.create("l", {"a": "2"})
    assert await store.leases.get("l") == lease


async def test_of_32_concurrent_creates_one_succeeds(store: orlop.Store) -> None:
    won: list[orlop.Lease] = []
    refused: list[AlreadyExists] = []

    async def create(number: int) -> None:
        try:
            won.append(await store.leases.create("one", {"winner": str(number)}))
        except AlreadyExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(create, number)
    assert (len(won), len(refused)) == (1, 31)
    assert [lease async for lease in store.leases.list()] == won


async def test_leases_are_listed_in_byte_order(store: orlop.Store) -> None:
    for id_ in ("z", "B", "a10", "a9", "a_1", "c1", "a\x00", "a", "牛", "\uffff", "🚢"):
        await store.leases.create(id_)
    assert await ids(store) == ["B", "a", "a\x00", "a10", "a9", "a_1", "c1", "z", "牛", "\uffff", "🚢"]


async def test_an_absent_lease_is_not_found(store: orlop.Store) -> None:
    await store.in_namespace("other").leases.create("absent")
    for id_ in ("absent", ""):
        for call in (
            lambda id_=id_: store.leases.get(id_),
            lambda id_=id_: store.leases.delete(id_),
            lambda id_=id_: store.leases.delete(id_, sync=True),
            lambda id_=id_: store.leases.add(id_, resource("images", "i")),
            lambda id_=id_: store.leases.remove(id_, resource("images", "i")),
            lambda id_=id_: held(store, id_),
        ):
            with pytest.raises(NotFound):
                await call()
    assert await ids(store.in_namespace("other")) == ["absent"]


async def test_adding_resources_goes_by_the_table(store: orlop.Store) -> None:
    await store.leases.create("l")
    expected = []
    for row in ROWS:
        entry = resource(row["type"], row["id"])
        if row["add"] == "ok":
            await store.leases.add("l", entry)
            expected.append((row["type"], row["id"]))
        else:
            assert await outcome(store.leases.add("l", entry)) == row["add"], row
    assert sorted(await held(store, "l")) == sorted(expected)


async def test_removing_resources_goes_by_the_table(store: orlop.Store) -> None:
    await store.leases.create("l")
    await store.leases.add("l", resource("images", "stays"))
    for row in ROWS:
        entry = resource(row["type"], row["id"])
        if row["delete"] == "ok":
            await store.leases.remove("l", entry)  # never added
            await store.leases.add("l", entry)
            await store.leases.remove("l", entry)
        else:
            assert await outcome(store.leases.remove("l", entry)) == row["delete"], row
    assert await held(store, "l") == [("images", "stays")]


async def test_a_resource_needs_an_id_and_a_snapshotter(store: orlop.Store) -> None:
    await store.leases.create("l")
    for type_, id_ in [
        ("images", ""), ("ingests", ""), ("snapshots/native", ""), ("snapshots/", "k"), ("snapshots/a/b", "k"),
    ]:  # fmt: skip
        with pytest.raises(InvalidArgument):
            await store.leases.add("l", resource(type_, id_))
        with pytest.raises(InvalidArgument):
            await store.leases.remove("l", resource(type_, id_))
    with pytest.raises(errors.NotImplemented):
        await store.leases.add("l", resource("", "k"))
    assert await held(store, "l") == []


async def test_the_lease_is_looked_for_before_the_type(store: orlop.Store) -> None:
    with pytest.raises(NotFound):
        await store.leases.add("absent", resource("bogus", "x"))
    with pytest.raises(NotFound):
        await store.leases.remove("absent", resource("content", "no digest"))


async def test_resources_are_listed_once_each_by_kind_then_id(store: orlop.Store) -> None:
    await store.leases.create("l")
    expected = [
        ("content", "sha256:" + "0" * 64),
        ("content", "sha256:" + "f" * 64),
        ("content", "sha512:" + "0" * 128),
        ("images", "B"),
        ("images", "a"),
        ("images", "a\x00"),
        ("images", "牛"),
        ("ingests", "r1"),
        ("ingests", "r2"),
        ("snapshots/a", "z"),
        ("snapshots/b", "B"),
        ("snapshots/b", "a"),
    ]
    for type_, id_ in [*reversed(expected), *expected[::3]]:
        await store.leases.add("l", resource(type_, id_))
    assert await held(store, "l") == expected


async def test_a_large_lease_is_listed_whole_and_its_end_leaves_nothing_to_its_successor(
    store: orlop.Store,
) -> None:
    await store.leases.create("l")
    expected = [("images", f"i{number:04}") for number in range(1200)]

    async def add(share: list[tuple[str, str]]) -> None:
        for type_, id_ in share:
            await store.leases.add("l", resource(type_, id_))

    async with trio.open_nursery() as nursery:
        for part in range(64):
            nursery.start_soon(add, expected[part::64])
    assert await held(store, "l") == expected
    await store.leases.delete("l")
    assert await ids(store) == []
    await store.leases.create("l")
    assert await held(store, "l") == []


# a lease in the request ----------------------------------------------------------------------------------


async def test_content_joins_the_lease_from_ingest_to_delete(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    async with leased.content.ingest("upload") as writer:
        assert await held(store, "l") == [("ingests", "upload")]
        await writer.write(b"data")
        await writer.commit()
    assert await held(store, "l") == [("content", digest_of(b"data"))]
    await leased.content.put(b"small")
    assert set(await held(store, "l")) == {
        ("content", digest_of(b"data")),
        ("content", digest_of(b"small")),
    }
    await leased.content.delete(digest_of(b"data"))
    assert await held(store, "l") == [("content", digest_of(b"small"))]
    await store.content.delete(digest_of(b"small"))  # outside the lease: the entry goes stale, and stays
    assert await held(store, "l") == [("content", digest_of(b"small"))]


async def test_an_aborted_ingest_leaves_the_lease(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    async with leased.content.ingest("upload") as writer:
        await writer.write(b"data")
    assert await held(store, "l") == [("ingests", "upload")]
    await leased.content.abort("upload")
    assert await held(store, "l") == []


async def test_opening_a_writer_for_content_that_is_here_adds_it_to_the_lease(store: orlop.Store) -> None:
    await store.leases.create("holds")
    await store.leases.create("l")
    await store.with_lease("holds").content.put(b"data")
    with pytest.raises(AlreadyExists):
        async with store.with_lease("l").content.ingest("upload", expected=digest_of(b"data")):
            pass
    assert await held(store, "l") == [("content", digest_of(b"data"))]


async def test_committing_content_that_is_here_adds_it_to_the_lease(store: orlop.Store) -> None:
    await store.leases.create("holds")
    await store.leases.create("l")
    await store.with_lease("holds").content.put(b"data")
    async with store.with_lease("l").content.ingest("upload") as writer:
        await writer.write(b"data")
        with pytest.raises(AlreadyExists):
            await writer.commit()
    assert await held(store, "l") == [("content", digest_of(b"data"))]
    assert [ingest async for ingest in store.content.ingests()] == []


async def test_only_images_with_the_expire_label_join_the_lease(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    await leased.images.create("plain", TARGET)
    await leased.images.create("expiring", TARGET, {EXPIRE: FUTURE})
    emptied = await leased.images.create("emptied", TARGET, {EXPIRE: ""})
    assert emptied.labels == {}
    await store.images.create("outside", TARGET, {EXPIRE: FUTURE})
    assert await held(store, "l") == [("images", "emptied"), ("images", "expiring")]


async def test_an_update_that_adds_the_expire_label_joins_for_good(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    await store.images.create("i", TARGET)
    await leased.images.update("i", labels={"a": "1"}, mask=["labels.a"])
    assert await held(store, "l") == []
    await leased.images.update("i", labels={EXPIRE: FUTURE}, mask=[f"labels.{EXPIRE}"])
    assert await held(store, "l") == [("images", "i")]
    await leased.images.update("i", labels={}, mask=["labels"])
    assert await held(store, "l") == [("images", "i")]
    await leased.images.delete("i")
    assert await held(store, "l") == []


async def test_a_failed_delete_leaves_the_entry_in_the_lease(store: orlop.Store) -> None:
    await store.leases.create("l")
    leased = store.with_lease("l")
    await leased.images.create("i", TARGET, {EXPIRE: FUTURE})
    with pytest.raises(NotFound):
        await leased.images.delete("i", target="sha256:" + "b" * 64)
    assert await held(store, "l") == [("images", "i")]


async def test_what_would_join_a_missing_lease_is_refused(store: orlop.Store) -> None:
    await store.in_namespace("other").leases.create("l")
    await store.images.create("taken", TARGET)
    for lease in ("l", ""):  # of another namespace; given, but empty
        leased = store.with_lease(lease)
        with pytest.raises(NotFound):
            await leased.images.create("i", TARGET, {EXPIRE: FUTURE})
        with pytest.raises(NotFound):
            await leased.images.create("taken", TARGET, {EXPIRE: FUTURE})
        with pytest.raises(NotFound):
            await leased.images.update("taken", labels={EXPIRE: FUTURE}, mask=["labels"])
        with pytest.raises(NotFound):
            await leased.content.put(b"data")
        with pytest.raises(NotFound):
            async with leased.content.ingest("upload"):
                pass
    assert [image.name async for image in store.images.list()] == ["taken"]
    assert (await store.images.get("taken")).labels == {}
    assert await digests(store) == set()
    assert [ingest async for ingest in store.content.ingests()] == []


async def test_what_would_not_join_ignores_a_missing_lease(store: orlop.Store) -> None:
    await store.leases.create("holds")
    info = await store.with_lease("holds").content.put(b"data")
    async with store.content.ingest("upload") as writer:
        await writer.write(b"half")
    leased = store.with_lease("absent")
    await leased.images.create("plain", TARGET)
    await leased.images.update("plain", labels={"a": "1"}, mask=["labels"])
    await leased.content.update(info.digest, {"a": "1"})
    assert (await leased.content.info(info.digest)).labels == {"a": "1"}
    await leased.images.delete("plain")
    await leased.content.delete(info.digest)
    await leased.content.abort("upload")
    await leased.namespaces.create("tenant")
    await leased.leases.create("other")
    assert await ids(store) == ["holds", "other"]


# what a lease protects -----------------------------------------------------------------------------------


async def test_a_lease_protects_what_it_names_and_what_that_refers_to(store: orlop.Store) -> None:
    await store.leases.create("temporary")
    await store.with_lease("temporary").content.put(b"leaf")
    await store.with_lease("temporary").content.put(b"unheld")
    await store.leases.create("l")
    await store.with_lease("l").content.put(b"root", labels={REF: digest_of(b"leaf")})
    await store.leases.delete("temporary", sync=True)
    assert await digests(store) == {digest_of(b"root"), digest_of(b"leaf")}
    await store.leases.delete("l", sync=True)
    assert await digests(store) == set()


async def test_a_flat_lease_protects_only_what_it_names(store: orlop.Store) -> None:
    await store.leases.create("temporary")
    await store.with_lease("temporary").content.put(b"leaf")
    await store.leases.create("l", {"containerd.io/gc.flat": "no matter what"})
    await store.with_lease("l").content.put(b"root", labels={REF: digest_of(b"leaf")})
    await store.leases.delete("temporary", sync=True)
    assert await digests(store) == {digest_of(b"root")}


async def test_a_lease_protects_resources_that_were_added_by_hand(store: orlop.Store) -> None:
    await store.leases.create("temporary")
    await store.with_lease("temporary").content.put(b"data")
    await store.leases.create("l")
    await store.leases.add("l", resource("content", digest_of(b"data")))
    await store.leases.delete("temporary", sync=True)
    assert await digests(store) == {digest_of(b"data")}
    await store.leases.remove("l", resource("content", digest_of(b"data")))
    await store.collect()
    assert await digests(store) == set()


async def test_a_lease_keeps_an_expired_image(store: orlop.Store) -> None:
    await store.leases.create("l")
    await store.leases.add("l", resource("images", "i"))
    await store.images.create("i", TARGET, {EXPIRE: PAST})
    await store.collect()
    assert [image.name async for image in store.images.list()] == ["i"]
    await store.leases.delete("l", sync=True)
    assert [image.name async for image in store.images.list()] == []


async def test_a_lease_protects_in_its_own_namespace_only(store: orlop.Store) -> None:
    other = store.in_namespace("other")
    await other.leases.create("temporary")
    await other.with_lease("temporary").content.put(b"data")
    await store.leases.create("l")
    await store.leases.add("l", resource("content", digest_of(b"data")))
    await other.leases.delete("temporary", sync=True)
    assert await digests(other) == set()


async def test_a_collection_removes_expired_leases_and_no_others(store: orlop.Store) -> None:
    await store.leases.create("past", {EXPIRE: PAST})
    await store.leases.create("past, with offset", {EXPIRE: "2001-02-03T04:05:06.789+02:00"})
    await store.leases.create("future", {EXPIRE: FUTURE})
    await store.leases.create("unparsable", {EXPIRE: "never"})
    await store.leases.create("forever")
    await store.collect()
    assert await ids(store) == ["forever", "future", "unparsable"]


async def test_deleting_a_lease_leaves_what_others_hold(store: orlop.Store) -> None:
    await store.leases.create("one")
    await store.leases.create("two")
    await store.with_lease("one").content.put(b"data")
    await store.leases.add("two", resource("content", digest_of(b"data")))
    await store.leases.delete("one", sync=True)
    assert await store.content.read(digest_of(b"data")) == b"data"
    assert await ids(store) == ["two"]


async def test_the_longest_lease_holds_the_longest_snapshot(store: orlop.Store) -> None:
    """Together they are longer than a key: the entry is listed, keeps what it names, and can be removed."""
    lease, key = "l" * 512, "k" * 512
    await store.leases.create(lease)
    snapshots = store.with_lease(lease).snapshots.using("native")
    await snapshots.prepare(key)
    held = orlop.LeaseResource(key, "snapshots/native")
    assert [resource async for resource in store.leases.resources(lease)] == [held]
    await store.collect()
    assert (await snapshots.get(key)).name == key
    await store.leases.remove(lease, held)
    assert [resource async for resource in store.leases.resources(lease)] == []
    await store.collect()
    with pytest.raises(NotFound):
        await snapshots.get(key)
