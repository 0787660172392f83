"""Blobs as a namespace sees them: their records and labels. Source: spec content 2, 3.1 to 3.3, 14."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from tests.conftest import StoreMaker
from tests.support.content import ABSENT, INLINE_BYTES, MALFORMED, ROOT, blob, digest_of, digests, keep

# info --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, INLINE_BYTES, INLINE_BYTES + 1])
async def test_info_tells_what_was_committed(store: orlop.Store, size: int) -> None:
    data = blob(1, size)
    before = time.time_ns()
    made = await keep(store, data, {**ROOT, "k": "v"})
    after = time.time_ns()
    info = await store.content.info(digest_of(data))
    assert info == made
    assert (info.digest, info.size, info.labels) == (digest_of(data), size, {**ROOT, "k": "v"})
    assert before <= info.created_at <= after
    assert info.updated_at == info.created_at


async def test_info_of_what_is_not_here_is_not_found(store: orlop.Store) -> None:
    with pytest.raises(errors.NotFound):
        await store.content.info(ABSENT)


@pytest.mark.parametrize("digest", MALFORMED)
async def test_a_malformed_digest_is_an_invalid_argument_everywhere(store: orlop.Store, digest: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        await store.content.info(digest)
    with pytest.raises(errors.InvalidArgument):
        await store.content.update(digest, {"a": "b"})
    with pytest.raises(errors.InvalidArgument):
        await store.content.delete(digest)
    with pytest.raises(errors.InvalidArgument):
        await store.content.read(digest)


async def test_a_call_without_namespace_fails_its_precondition(store: orlop.Store) -> None:
    nowhere = store.in_namespace("")
    with pytest.raises(errors.FailedPrecondition):
        await nowhere.content.info(ABSENT)
    with pytest.raises(errors.FailedPrecondition):
        await nowhere.content.put(b"x")
    with pytest.raises(errors.FailedPrecondition):
        await digests(nowhere)
    with pytest.raises(errors.FailedPrecondition):
        await nowhere.content.read(ABSENT)


@pytest.mark.parametrize("name", ["a/b", "a b", "-a", "a..b", "x" * 77, "ä"])
async def test_a_malformed_namespace_is_an_invalid_argument(store: orlop.Store, name: str) -> None:
    elsewhere = store.in_namespace(name)
    with pytest.raises(errors.InvalidArgument):
        await elsewhere.content.info(ABSENT)
    with pytest.raises(errors.InvalidArgument):
        await elsewhere.content.put(b"x")
    with pytest.raises(errors.InvalidArgument):
        await digests(elsewhere)


# list --------------------------------------------------------------------------------------------------------


async def test_an_empty_namespace_lists_nothing(store: orlop.Store) -> None:
    assert await digests(store) == []
    assert await digests(store.in_namespace("never-used")) == []


async def test_a_list_is_in_the_order_of_the_digests(store: orlop.Store) -> None:
    expected = []
    for seed in range(12):
        data = blob(seed, 100)
        algorithm = ("sha256", "sha512", "sha384")[seed % 3]
        await store.content.put(data, expected=digest_of(data, algorithm), labels=ROOT)
        expected.append(digest_of(data, algorithm))
    assert await digests(store) == sorted(expected)


async def test_a_list_tells_the_same_as_info(store: orlop.Store) -> None:
    for seed in range(5):
        await keep(store, blob(seed, 100 + seed), {**ROOT, "seed": str(seed)})
    for listed in [info async for info in store.content.list()]:
        assert listed == await store.content.info(listed.digest)


async def test_a_list_of_many_pages_brings_each_blob_once(store: orlop.Store) -> None:
    expected = [digest_of(b"%d" % n) for n in range(1050)]

    async def put(numbers: range) -> None:
        for n in numbers:
            await store.content.put(b"%d" % n, labels=ROOT)

    async with trio.open_nursery() as nursery:
        for first in range(0, 1050, 50):
            nursery.start_soon(put, range(first, first + 50))
    assert await digests(store) == sorted(expected)


async def test_pages_of_a_list_join_without_gap_or_repeat(store: orlop.Store) -> None:
    expected = sorted([(await keep(store, blob(seed, 50))).digest for seed in range(7)])
    found: list[str] = []
    after = ""
    while True:
        page = await store.content._call(t.CONTENT_LIST, m.ListContent(after=after, limit=3))
        assert len(page.items) <= 3
        found += [info.digest for info in page.items]
        if not page.next:
            break
        after = page.next
    assert found == expected


async def test_everything_can_be_deleted_while_it_is_listed(store: orlop.Store) -> None:
    for seed in range(20):
        await keep(store, blob(seed, 50))
    async for info in store.content.list():
        await store.content.delete(info.digest)
    assert await digests(store) == []


async def test_what_exists_throughout_a_list_comes_once_while_others_come_and_go(store: orlop.Store) -> None:
    stable = sorted([(await keep(store, blob(seed, 50))).digest for seed in range(40)])
    seen: list[str] = []

    async def churn() -> None:
        for seed in range(1000, 1000 + 10_000):
            info = await keep(store, blob(seed, 20))
            await store.content.delete(info.digest)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(churn)
        after = ""
        while True:
            page = await store.content._call(t.CONTENT_LIST, m.ListContent(after=after, limit=2))
            seen += [info.digest for info in page.items]
            if not page.next:
                break
            after = page.next
        nursery.cancel_scope.cancel()
    assert max(Counter(seen).values()) == 1
    assert [digest for digest in seen if digest in set(stable)] == stable


async def test_an_update_without_mask_replaces_all_labels(store: orlop.Store) -> None:
    made = await keep(store, b"x", {**ROOT, "k1": "v1", "k2": "v2"})
    before = time.time_ns()
    info = await store.content.update(made.digest, {**ROOT, "k1": "v1b", "k3": "v3"})
    after = time.time_ns()
    assert info.labels == {**ROOT, "k1": "v1b", "k3": "v3"}
    assert before <= info.updated_at <= after
    assert info.created_at == made.created_at
    assert await store.content.info(made.digest) == info


async def test_the_mask_labels_replaces_all_labels(store: orlop.Store) -> None:
    made = await keep(store, b"x", {**ROOT, "k1": "v1"})
    info = await store.content.update(made.digest, {**ROOT, "k2": "v2"}, ["labels"])
    assert info.labels == {**ROOT, "k2": "v2"}


async def test_a_masked_update_sets_and_removes_just_its_labels(store: orlop.Store) -> None:
    made = await keep(store, b"x", {**ROOT, "k1": "v1", "k3": "v3"})
    info = await store.content.update(made.digest, {"k1": "new", "k9": "not asked"}, ["labels.k3", "labels.k1"])
    assert info.labels == {**ROOT, "k1": "new"}
    assert info.created_at == made.created_at


async def test_in_a_mask_all_behind_the_first_dot_is_the_key(store: orlop.Store) -> None:
    made = await keep(store, b"x")
    info = await store.content.update(made.digest, {"a.b/c.d": "v"}, ["labels.a.b/c.d"])
    assert info.labels == {**ROOT, "a.b/c.d": "v"}


async def test_paths_of_a_mask_apply_from_left_to_right(store: orlop.Store) -> None:
    made = await keep(store, b"x", {**ROOT, "old": "v"})
    info = await store.content.update(made.digest, {**ROOT, "k": "v"}, ["labels.k", "labels", "labels.old"])
    assert info.labels == {**ROOT, "k": "v"}


async def test_an_empty_value_removes_a_label_and_is_never_stored(store: orlop.Store) -> None:
    made = await keep(store, b"x", {**ROOT, "a": "v", "b": "v", "nothing": ""})
    assert made.labels == {**ROOT, "a": "v", "b": "v"}
    info = await store.content.update(made.digest, {"a": ""}, ["labels.a"])
    assert info.labels == {**ROOT, "b": "v"}
    info = await store.content.update(made.digest, {**ROOT, "b": ""})
    assert info.labels == ROOT


async def test_an_update_with_no_labels_clears_them(store: orlop.Store) -> None:
    made = await keep(store, b"x", {**ROOT, "a": "v"})
    await store.images.create("holder", orlop.Descriptor("t", made.digest, 1))  # it is no root afterwards
    assert (await store.content.update(made.digest, {})).labels == {}


@pytest.mark.parametrize("path", ["size", "digest", "created_at", "label.k", "labelsx", "", "Labels.k"])
async def test_an_update_of_anything_but_labels_changes_nothing(store: orlop.Store, path: str) -> None:
    made = await keep(store, b"x", {**ROOT, "a": "v"})
    with pytest.raises(errors.InvalidArgument):
        await store.content.update(made.digest, {"a": "changed"}, ["labels.a", path])
    assert await store.content.info(made.digest) == made


async def test_an_update_of_what_is_not_here_is_not_found(store: orlop.Store) -> None:
    with pytest.raises(errors.NotFound):
        await store.content.update(ABSENT, {"a": "b"})


async def test_a_label_has_at_most_4096_bytes(store: orlop.Store) -> None:
    made = await keep(store, b"x")
    longest = {**ROOT, "k" * 96: "v" * 4000}
    assert (await store.content.update(made.digest, longest)).labels == longest
    for key, value in [("k" * 97, "v" * 4000), ("k", "é" * 2048)]:
        with pytest.raises(errors.InvalidArgument):
            await store.content.update(made.digest, {**ROOT, key: value})
        with pytest.raises(errors.InvalidArgument):
            await store.content.update(made.digest, {key: value}, [f"labels.{key}"])
        with pytest.raises(errors.InvalidArgument):
            await store.content.put(b"other", labels={key: value})
    assert (await store.content.info(made.digest)).labels == longest
    assert await digests(store) == [made.digest]


async def test_a_label_without_key_is_an_invalid_argument(store: orlop.Store) -> None:
    made = await keep(store, b"x")
    with pytest.raises(errors.InvalidArgument):
        await store.content.update(made.digest, {**ROOT, "": "v"})
    with pytest.raises(errors.InvalidArgument):
        await store.content.put(b"other", labels={"": "v"})
    assert (await store.content.info(made.digest)).labels == ROOT


async def test_updates_of_different_labels_at_once_all_stay(store: orlop.Store) -> None:
    made = await keep(store, b"x")

    async def label(key: str) -> None:
        await store.content.update(made.digest, {key: key}, [f"labels.{key}"])

    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(label, f"k{n}")
    assert (await store.content.info(made.digest)).labels == {**ROOT, **{f"k{n}": f"k{n}" for n in range(50)}}


# delete ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1])
async def test_a_deleted_blob_is_gone_and_a_second_delete_says_so(store: orlop.Store, size: int) -> None:
    info = await keep(store, blob(1, size))
    await store.content.delete(info.digest)
    with pytest.raises(errors.NotFound):
        await store.content.info(info.digest)
    with pytest.raises(errors.NotFound):
        await store.content.read(info.digest)
    with pytest.raises(errors.NotFound):
        await store.content.delete(info.digest)
    assert await digests(store) == []


async def test_a_blob_that_is_referred_to_can_be_deleted(store: orlop.Store) -> None:
    info = await keep(store, b"x")
    await store.images.create("app", orlop.Descriptor("t", info.digest, info.size))
    await store.leases.create("lease")
    await store.leases.add("lease", orlop.LeaseResource(info.digest, "content"))
    await store.content.delete(info.digest)
    assert await digests(store) == []
    assert [r.id async for r in store.leases.resources("lease")] == [info.digest]


async def test_a_delete_takes_the_entry_out_of_its_own_lease_only(store: orlop.Store) -> None:
    info = await keep(store, b"x")
    for lease in ("mine", "other"):
        await store.leases.create(lease)
        await store.leases.add(lease, orlop.LeaseResource(info.digest, "content"))
    await store.with_lease("mine").content.delete(info.digest)
    assert [r.id async for r in store.leases.resources("mine")] == []
    assert [r.id async for r in store.leases.resources("other")] == [info.digest]


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1, 700_000])
async def test_a_deleted_blob_can_be_stored_again(store: orlop.Store, size: int) -> None:
    data = blob(1, size)
    for n in range(3):
        info = await keep(store, data, {**ROOT, "n": str(n)})
        assert info.labels["n"] == str(n)
        assert await store.content.read(info.digest) == data
        await store.content.delete(info.digest)


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1, 700_000])
async def test_a_reader_of_a_deleted_blob_reads_on(store: orlop.Store, size: int) -> None:
    data = blob(1, size)
    info = await keep(store, data)
    async with store.content.open(info.digest) as reader:
        assert await reader.read_at(0, 10) == data[:10]
        await store.content.delete(info.digest)
        await store.collect()
        assert reader.size == size
        assert await reader.read_at(0, size) == data
        assert await reader.read_at(size - 5, 100) == data[-5:]


# namespaces --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1])
async def test_a_blob_of_another_namespace_cannot_be_seen(store: orlop.Store, size: int) -> None:
    info = await keep(store, blob(7, size))
    other = store.in_namespace("other")
    with pytest.raises(errors.NotFound):
        await other.content.info(info.digest)
    with pytest.raises(errors.NotFound):
        await other.content.update(info.digest, {"a": "b"})
    with pytest.raises(errors.NotFound):
        await other.content.delete(info.digest)
    with pytest.raises(errors.NotFound):
        await other.content.read(info.digest)
    assert await digests(other) == []
    assert await store.content.info(info.digest) == info


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1])
async def test_labels_and_times_belong_to_one_namespace(store: orlop.Store, size: int) -> None:
    data = blob(8, size)
    first = await keep(store, data, {**ROOT, "k": "first"})
    other = store.in_namespace("other")
    second = await keep(other, data, {**ROOT, "x": "second"})
    assert second.labels == {**ROOT, "x": "second"}
    assert second.created_at > first.created_at
    await other.content.update(first.digest, {**ROOT, "y": "z"})
    assert await store.content.info(first.digest) == first


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1])
async def test_a_delete_in_one_namespace_leaves_the_other_its_bytes(store: orlop.Store, size: int) -> None:
    data = blob(9, size)
    other = store.in_namespace("other")
    info = await keep(store, data)
    await keep(other, data)
    await store.content.delete(info.digest)
    await store.collect()
    with pytest.raises(errors.NotFound):
        await store.content.read(info.digest)
    assert await other.content.read(info.digest) == data


@pytest.mark.parametrize("size", [100, INLINE_BYTES + 1])
async def test_one_blob_in_many_namespaces_at_once(stores: StoreMaker, size: int) -> None:
    data = blob(10, size)
    async with stores.open() as store:
        names = [f"ns{n}" for n in range(12)]
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(keep, store.in_namespace(name), data)
        for name in names:
            assert await store.in_namespace(name).content.read(digest_of(data)) == data
        await store.collect()
        files = os.listdir(stores.folder / "store" / "blobs" / "sha256")
    assert len(files) == (1 if size > INLINE_BYTES else 0)
