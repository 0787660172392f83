"""Edge cases of the content specification that no other module shows. Source: spec content 14, 3.8, 4.5, 4.6, 5.4."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from tests.support.content import EMPTY, blob, digest_of, digests
from tests.support.ingests import ROOT, keep, open_unclosed, refs, write_raw

from ..conftest import StoreMaker
from .test_sharing import bring

ABSENT = "sha256:" + "0" * 64
SIZES = [100, 40_000]  # in the engine, and a file


def files_of(stores: StoreMaker) -> tuple[list[str], list[str]]:
    """What is on disk: the hex digests of blobs, and ingests."""
    root = stores.folder / "store"
    names = sorted(name.partition(".")[0] for name in os.listdir(root / "blobs" / "sha256"))
    return names, sorted(os.listdir(root / "ingests"))


def hex_of(data: bytes) -> str:
    return digest_of(data).partition(":")[2]


# namespaces --------------------------------------------------------------------------------------------------


async def drain(items: AsyncIterator[Any]) -> None:
    async for _ in items:
        pass


async def drain_stream(content: Any) -> None:
    async with content.stream() as items:
        await drain(items)


async def drain_chunks(content: Any) -> None:
    async with content.chunks(ABSENT) as pieces:
        await drain(pieces)


async def open_and_close(content: Any) -> None:
    async with content.ingest("ref"):
        pass


CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "info": lambda content: content.info(ABSENT),
    "update": lambda content: content.update(ABSENT, {"k": "v"}),
    "delete": lambda content: content.delete(ABSENT),
    "put": lambda content: content.put(b"x"),
    "read": lambda content: content.read(ABSENT),
    "chunks": drain_chunks,
    "verify": lambda content: content.verify(),
    "list": lambda content: drain(content.list()),
    "stream": drain_stream,
    "open": open_and_close,
    "write": lambda content: content.write("ref", b"x"),
    "status": lambda content: content.status("ref"),
    "ingests": lambda content: drain(content.ingests()),
    "abort": lambda content: content.abort("ref"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_needs_a_namespace_that_is_one(store: orlop.Store, call: str) -> None:
    """spec content 14, rows 2 and 3"""
    with pytest.raises(errors.FailedPrecondition):
        await CALLS[call](store.in_namespace("").content)
    for name in ("a/b", "-a", "a..b", "x" * 77):
        with pytest.raises(errors.InvalidArgument):
            await CALLS[call](store.in_namespace(name).content)
    assert [namespace.name async for namespace in store.namespaces.list()] == []


async def test_a_commit_goes_to_the_namespace_of_its_open(store: orlop.Store) -> None:
    """spec content 5.4"""
    mine, other = store.in_namespace("mine"), store.in_namespace("other")
    await mine.leases.create("lease")
    opened = await open_unclosed(mine, "ref")
    await write_raw(mine, opened.writer, 0, b"bytes")
    await other.with_lease("lease").content._call(t.INGESTS_COMMIT, m.CommitIngest(opened.writer))
    assert await digests(mine) == [digest_of(b"bytes")]
    assert await digests(other) == []
    assert [r.id async for r in mine.leases.resources("lease")] == [digest_of(b"bytes")]


async def test_a_deleted_namespace_leaves_no_file_of_its_ingests(stores: StoreMaker) -> None:
    """spec content 14, row 57; what it was about to adopt is no longer held either"""
    shared, gone = blob(200, 40_000), blob(201, 40_000)
    async with stores.open() as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        digest = await bring(one, shared)
        await two.content.delete(await bring(two, gone))
        await two.leases.create("lease")
        async with two.with_lease("lease").content.ingest("leased") as writer:
            await writer.write(gone)
        async with two.content.ingest("unleased", expected=digest_of(gone)) as writer:
            if not writer.offset:  # else what was deleted was still there to adopt
                await writer.write(gone)
        async with two.content.ingest("adopting", expected=digest):
            pass
        await store.namespaces.delete("two")
        await store.collect()
        assert files_of(stores) == ([hex_of(shared)], [])
        await one.content.delete(digest)
        await store.collect()
        assert files_of(stores) == ([], [])


# bytes that are begun anew -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 5000])
async def test_a_restarted_ingest_that_is_committed_at_once_is_the_empty_blob(stores: StoreMaker, scale: int) -> None:
    """spec content 14, row 10"""
    async with stores.open() as store:
        async with store.content.ingest("ref", size=10 * scale) as writer:
            await writer.write(blob(210, 10 * scale))
        async with store.content.ingest("ref", size=5 * scale) as writer:
            info = await writer.commit(labels=ROOT)
        assert (info.digest, info.size) == (EMPTY, 0)
        assert await store.content.read(EMPTY) == b""
        assert await digests(store) == [EMPTY]
        await store.collect()
        assert files_of(stores) == ([], [])


@pytest.mark.parametrize("size", SIZES)
async def test_an_abort_heals_an_ingest_of_wrong_bytes(store: orlop.Store, size: int) -> None:
    """spec content 14, row 12"""
    good, bad = blob(211, size), blob(212, size)
    async with store.content.ingest("ref", expected=digest_of(good)) as writer:
        await writer.write(bad)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit()
    assert (await store.content.status("ref")).offset == size
    await store.content.abort("ref")
    async with store.content.ingest("ref", expected=digest_of(good)) as writer:
        assert writer.offset == 0
        await writer.write(good)
        await writer.commit(size=size, labels=ROOT)
    assert await digests(store) == [digest_of(good)]


@pytest.mark.parametrize("size", SIZES)
async def test_no_bytes_at_0_throw_away_what_was_written(store: orlop.Store, size: int) -> None:
    """spec content 8.4, and 14, row 44 as far as a commit without an offset can go"""
    data = blob(213, size)
    opened = await open_unclosed(store, "ref", expected=digest_of(data))
    assert await write_raw(store, opened.writer, 0, data) == size
    assert await write_raw(store, opened.writer, 0, b"") == 0
    with pytest.raises(errors.FailedPrecondition):
        await store.content._call(t.INGESTS_COMMIT, m.CommitIngest(opened.writer))
    assert (await store.content.status("ref")).offset == 0
    assert await digests(store) == []


# adopting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_no_bytes_at_its_end_leave_a_writer_adopting(stores: StoreMaker, size: int) -> None:
    """spec content 14, row 21"""
    data = blob(220, size)
    async with stores.open() as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        digest = await bring(one, data)
        async with two.content.ingest("ref", expected=digest) as writer:
            await writer.write(b"")
            assert writer.offset == size
            with pytest.raises(errors.NotFound):
                await two.content.status("ref")
            assert files_of(stores)[1] == []
            assert (await writer.commit(labels=ROOT)).digest == digest
        assert await two.content.read(digest) == data
        await one.content.delete(digest)
        await store.collect()
        assert await two.content.read(digest) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kept", [0, 4, 99])
async def test_the_first_bytes_of_what_is_adopted_begin_another_blob(store: orlop.Store, size: int, kept: int) -> None:
    """spec content 14, row 22"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    data = blob(221, size)
    digest = await bring(one, data)
    async with two.content.ingest("ref", size=size, expected=digest) as writer:
        await writer.truncate(kept)
        assert writer.offset == kept
        assert (await two.content.status("ref")).offset == kept
        await writer.write(b"xy")
        info = await writer.commit(size=kept + 2, labels=ROOT)
    assert (info.digest, info.size) == (digest_of(data[:kept] + b"xy"), kept + 2)
    assert await two.content.read(info.digest) == data[:kept] + b"xy"
    assert await one.content.read(digest) == data
    assert await digests(two) == [info.digest]


@pytest.mark.parametrize("size", SIZES)
async def test_what_nobody_has_any_more_can_be_adopted_until_it_is_collected(store: orlop.Store, size: int) -> None:
    """spec content 14, row 29: a collection begins a pause after the delete"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    data = blob(222, size)
    digest = await bring(one, data)
    await one.content.delete(digest)
    async with two.content.ingest("ref", size=size, expected=digest) as writer:
        assert writer.offset == size
        await store.collect()
        await writer.commit(labels=ROOT)
    await store.collect()
    assert await two.content.read(digest) == data


async def test_what_was_collected_cannot_be_adopted(store: orlop.Store) -> None:
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(223, 40_000))
    await one.content.delete(digest)
    await store.collect()
    async with two.content.ingest("ref", size=40_000, expected=digest) as writer:
        assert writer.offset == 0


@pytest.mark.parametrize("size", SIZES)
async def test_a_commit_that_adopts_finds_that_the_bytes_are_gone(store: orlop.Store, size: int) -> None:
    """spec content 14, row 26: also when its own lease is not what is missing"""
    one, two = store.in_namespace("one"), store.in_namespace("two")
    digest = await bring(one, blob(227, size))
    await two.leases.create("lease")
    opened = await open_unclosed(two.with_lease("lease"), "ref", expected=digest)
    assert opened.status.offset == size
    await one.content.delete(digest)
    await two.leases.delete("lease")
    await store.collect()
    with pytest.raises(errors.NotFound):
        await two.content._call(t.INGESTS_COMMIT, m.CommitIngest(opened.writer, labels=ROOT))
    assert await digests(two) == []
    async with two.content.ingest("ref", expected=digest) as writer:  # and the ref is free
        assert writer.offset == 0


async def test_an_abort_of_what_no_longer_adopts_leaves_no_file(stores: StoreMaker) -> None:
    """spec content 3.8"""
    data = blob(224, 40_000)
    async with stores.open() as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        digest = await bring(one, data)
        async with two.content.ingest("ref", expected=digest) as writer:
            await writer.write(b"more")
        assert [(s.ref, s.offset) async for s in two.content.ingests()] == [("ref", 40_004)]
        await two.content.abort("ref")
        await store.collect()
        assert files_of(stores) == ([hex_of(data)], [])
        await one.content.delete(digest)
        await store.collect()
        assert files_of(stores) == ([], [])


async def test_a_commit_that_adopts_leaves_an_ingest_of_its_ref_that_no_longer_does(stores: StoreMaker) -> None:
    """spec content 4.2, 6.4: they hold no lock, so one of two may have begun to write"""
    data = blob(225, 40_000)
    async with stores.open() as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        digest = await bring(one, data)
        async with two.content.ingest("ref", expected=digest) as adopting:
            async with two.content.ingest("ref", expected=digest) as writing:
                await writing.write(b"more")
            await adopting.commit(labels=ROOT)
        assert (await two.content.status("ref")).offset == 40_004
        async with two.content.ingest("ref") as writer:
            info = await writer.commit(expected=digest_of(data + b"more"), labels=ROOT)
        assert await two.content.read(info.digest) == data + b"more"
        assert await two.content.read(digest) == data
        await store.collect()
        assert files_of(stores) == (sorted([hex_of(data), hex_of(data + b"more")]), [])


@pytest.mark.parametrize("kept", [4, 30_000])
async def test_of_two_that_adopt_only_the_first_to_write_goes_on(stores: StoreMaker, kept: int) -> None:
    """spec content 6.4: what it wrote and left is not thrown away by the other"""
    data = blob(226, 40_000)
    async with stores.open() as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        digest = await bring(one, data)
        async with two.content.ingest("ref", expected=digest) as late:
            async with two.content.ingest("ref", expected=digest) as first:
                await first.write(b"more")
            with pytest.raises(errors.FailedPrecondition):
                await late.truncate(kept)
            with pytest.raises(errors.FailedPrecondition):
                await late.write(b"other")
        async with two.content.ingest("ref") as writer:
            assert writer.offset == 40_004
            await writer.commit(expected=digest_of(data + b"more"), labels=ROOT)
        await store.collect()
        assert files_of(stores) == (sorted([hex_of(data), hex_of(data + b"more")]), [])


# lists -------------------------------------------------------------------------------------------------------


async def test_250_blobs_are_listed_by_100_100_and_50(store: orlop.Store) -> None:
    """spec content 14, row 52"""
    expected = sorted([digest_of(b"%d" % number) for number in range(250)])
    for first in range(0, 250, 50):
        async with store.transaction() as tx:
            for number in range(first, first + 50):
                tx.content.put(b"%d" % number, labels=ROOT)
    pages, after = [], ""
    while True:
        page = await store.content._call(t.CONTENT_LIST, m.ListContent(after=after, limit=100))
        pages.append([info.digest for info in page.items])
        after = page.next
        if not after:
            break
    assert [page for page in pages if page] == [expected[:100], expected[100:200], expected[200:]]


async def test_everything_can_be_deleted_while_it_is_paged_or_streamed(store: orlop.Store) -> None:
    """spec content 14, row 37, over more than one page"""
    for number in range(20):
        await store.content.put(b"%d" % number, labels=ROOT)
    after = ""
    while True:
        page = await store.content._call(t.CONTENT_LIST, m.ListContent(after=after, limit=3))
        for info in page.items[:2]:
            await store.content.delete(info.digest)
        if not (after := page.next):
            break
    assert len(await digests(store)) == 6  # every third
    async with store.content.stream() as infos:
        async for info in infos:
            await store.content.delete(info.digest)
    assert await digests(store) == []


async def test_filters_know_digests_and_labels_and_no_sizes(store: orlop.Store) -> None:
    """spec content 14, row 39, and 3.3"""
    a, b = b"a", b"b"
    await store.content.put(a, labels={**ROOT, "c": "1", "x.y": "2"})
    await store.content.put(b, labels=ROOT)
    both, one, other = sorted([digest_of(a), digest_of(b)]), [digest_of(a)], [digest_of(b)]
    expected = {
        (): both,
        ("",): both,
        ("size!=1",): both,
        ("size==1",): [],
        ("size",): [],
        ("labels.c!=1",): other,
        ("labels.c==1",): one,
        ("labels.c",): one,
        ("labels.x.y==2",): one,
        ('labels."x.y"==2',): one,
        (f"digest=={digest_of(b)}",): other,
        (f"digest=={digest_of(b)},labels.c",): [],
        (f"digest=={digest_of(b)}", "labels.c"): both,
    }
    for filters, found in expected.items():
        assert [info.digest async for info in store.content.list(filters)] == found, filters
    with pytest.raises(errors.InvalidArgument):
        await drain(store.content.list(["size=1"]))


# damage and crashes ------------------------------------------------------------------------------------------


def only_ingest_of(stores: StoreMaker, size: int) -> Path:
    (found,) = [path for path in (stores.folder / "store" / "ingests").iterdir() if path.stat().st_size == size]
    return found


async def test_an_ingest_whose_file_was_lost_is_listed_and_begins_anew(stores: StoreMaker) -> None:
    """spec content 14, row 41: half an ingest is no error of the list"""
    data = blob(230, 40_000)
    async with stores.open() as store:
        for ref, size in (("lost", 40_000), ("kept", 30_000)):
            async with store.content.ingest(ref, size=40_000) as writer:
                await writer.write(data[:size])
        only_ingest_of(stores, 40_000).unlink()
        assert {status.ref: status.offset async for status in store.content.ingests()} == {"lost": 0, "kept": 30_000}
        assert (await store.content.status("lost")).offset == 0
        async with store.content.ingest("lost", size=40_000) as writer:
            assert writer.offset == 0
            await writer.write(data)
            await writer.commit(expected=digest_of(data), labels=ROOT)
        assert await refs(store) == ["kept"]
        assert await store.content.read(digest_of(data)) == data


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_ingest_goes_on_at_the_length_of_its_file(stores: StoreMaker, restarted: bool) -> None:
    """spec content 14, row 42, and 4.5: a power cut may take bytes that were not synced"""
    if restarted and stores.engine == "memory":
        pytest.skip("the memory engine does not outlive its store")
    data = blob(231, 40_000)

    async def go_on(store: orlop.Store) -> None:
        os.truncate(only_ingest_of(stores, 30_000), 12_345)
        assert (await store.content.status("ref")).offset == 12_345
        async with store.content.ingest("ref", size=40_000) as writer:
            assert writer.offset == 12_345
            await writer.write(data[12_345:])
            await writer.commit(size=40_000, expected=digest_of(data), labels=ROOT)
        assert await store.content.read(digest_of(data)) == data

    async with stores.open() as store:
        async with store.content.ingest("ref", size=40_000) as writer:
            await writer.write(data[:30_000])
        if not restarted:
            await go_on(store)
    if restarted:
        async with stores.open() as store:
            await go_on(store)


async def test_what_a_crash_left_between_rename_and_record_is_no_second_file(tmp_path: Path) -> None:
    """spec content 14, row 43: ingested again under another ref, by somebody else"""
    data = blob(232, 40_000)
    blobs, ingests = tmp_path / "blobs" / "sha256", tmp_path / "ingests"
    async with orlop.open_store(tmp_path) as store, store.content.ingest("ref", expected=digest_of(data)) as writer:
        await writer.write(data)
    (ingest,) = ingests.iterdir()
    ingest.rename(blobs / f"{hex_of(data)}.{ingest.name}")
    async with orlop.open_store(tmp_path) as store:
        assert await digests(store) == []
        assert (await keep(store, data, "another")).digest == digest_of(data)
        with pytest.raises(errors.AlreadyExists):
            await open_unclosed(store, "ref", expected=digest_of(data))
        await store.content.abort("ref")
        await store.collect()
        assert await digests(store) == [digest_of(data)]
        assert await store.content.read(digest_of(data)) == data
    assert len(list(blobs.iterdir())) == 1
    assert list(ingests.iterdir()) == []


async def test_a_stranger_among_the_ingests_does_not_keep_what_a_crash_left(tmp_path: Path) -> None:
    """spec content 14, rows 40 and 41, and 15: one stray name must not end a clean-up"""
    async with orlop.open_store(tmp_path):
        pass
    ingests = tmp_path / "ingests"
    (ingests / "0").mkdir()
    (ingests / "999").write_bytes(b"of an ingest that ended")
    async with orlop.open_store(tmp_path) as store:
        with trio.fail_after(10):
            while (ingests / "999").exists():  # it goes beside whatever else is done
                await trio.sleep(0.005)
        await store.content.write("ref", blob(233, 40_000), labels=ROOT)
        assert await refs(store) == []
    assert [path.name for path in ingests.iterdir()] == ["0"]
