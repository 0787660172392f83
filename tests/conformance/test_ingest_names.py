"""What ingests are called, and who may write to one. Source: spec content 3.6, 4, 14."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from tests.conftest import StoreMaker
from tests.support.content import blob, digest_of, digests
from tests.support.ingests import (
    ROOT,
    another_client,
    ingest_when_free,
    keep,
    must_be_locked,
    open_unclosed,
    over_leveldb,
    over_sockets,
    refs,
    write_raw,
)

# names -------------------------------------------------------------------------------------------------------


async def test_a_ref_must_not_be_empty(store: orlop.Store) -> None:
    with pytest.raises(errors.InvalidArgument):
        await open_unclosed(store, "")


async def test_an_empty_ref_is_seen_before_a_missing_namespace(store: orlop.Store) -> None:
    with pytest.raises(errors.InvalidArgument):
        await open_unclosed(store.in_namespace(""), "")


async def test_an_ingest_needs_a_namespace(store: orlop.Store) -> None:
    with pytest.raises(errors.FailedPrecondition):
        await open_unclosed(store.in_namespace(""), "ref")
    with pytest.raises(errors.InvalidArgument):
        await open_unclosed(store.in_namespace("a/b"), "ref")


@pytest.mark.parametrize("ref", ["../../escape", "a/b/../..", "new\nline", "ünï✓", "/abs", "nul\0byte", ".", "r" * 512])
async def test_a_ref_is_any_text_and_never_a_path(stores: StoreMaker, ref: str) -> None:
    data = blob(24, 30_000)
    async with stores.open() as store:
        before = set(os.listdir(stores.folder))
        async with store.content.ingest(ref) as writer:
            await writer.write(data[:20_000])
        assert await refs(store) == [ref]
        assert (await store.content.status(ref)).ref == ref
        async with store.content.ingest(ref) as writer:
            await writer.write(data[20_000:])
            await writer.commit(expected=digest_of(data), labels=ROOT)
        assert set(os.listdir(stores.folder)) == before
        assert [name for name in os.listdir(stores.folder / "store") if "escape" in name] == []
        assert await store.content.read(digest_of(data)) == data


async def test_a_ref_has_at_most_512_bytes(store: orlop.Store) -> None:
    with pytest.raises(errors.InvalidArgument):
        await open_unclosed(store, "ü" * 256 + "x")


async def test_ingests_belong_to_their_namespace(store: orlop.Store) -> None:
    other = store.in_namespace("other")
    async with store.content.ingest("ref") as writer:
        await writer.write(b"mine")
        with pytest.raises(errors.NotFound):
            await other.content.status("ref")
        with pytest.raises(errors.NotFound):
            await other.content.abort("ref")
        assert await refs(other) == []
        async with other.content.ingest("ref") as theirs:
            assert theirs.offset == 0
            await theirs.write(b"theirs")
            assert (await theirs.commit(labels=ROOT)).digest == digest_of(b"theirs")
        assert (await writer.commit(labels=ROOT)).digest == digest_of(b"mine")
    assert await digests(other) == [digest_of(b"theirs")]


async def test_an_unknown_ref_is_not_found(store: orlop.Store) -> None:
    with pytest.raises(errors.NotFound):
        await store.content.status("nobody")
    with pytest.raises(errors.NotFound):
        await store.content.abort("nobody")
    assert await refs(store) == []


async def test_a_list_of_ingests_names_each_once(store: orlop.Store) -> None:
    for n in range(30):
        async with store.content.ingest(f"ref-{n}") as writer:
            await writer.write(b"x" * n)
    listed = {status.ref: status.offset async for status in store.content.ingests()}
    assert listed == {f"ref-{n}": n for n in range(30)}
    page = await store.content._call(t.INGESTS_LIST, m.ListIngests(limit=4))
    assert len(page.items) == 4
    some = {status.ref async for status in store.content.ingests(["ref~=^ref-1"])}
    assert some == {"ref-1"} | {f"ref-{n}" for n in range(10, 20)}


# locks -------------------------------------------------------------------------------------------------------


async def test_a_ref_has_one_writer_in_each_namespace(stores: StoreMaker) -> None:
    async with (
        stores.running() as running,
        another_client(stores, running) as one,
        another_client(stores, running) as two,
    ):
        async with one.content.ingest("ref"):
            await must_be_locked(one, "ref")
            await must_be_locked(two, "ref")
            async with two.in_namespace("other").content.ingest("ref"):
                await must_be_locked(one.in_namespace("other"), "ref")
        async with two.content.ingest("ref"):
            await must_be_locked(one, "ref")


async def test_of_many_opens_of_one_ref_at_once_one_succeeds(store: orlop.Store) -> None:
    outcomes: Counter[str] = Counter()
    writers: list[m.OpenedIngest] = []

    async def open_it() -> None:
        try:
            writers.append(await open_unclosed(store, "ref"))
        except errors.Unavailable:
            outcomes["locked"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(open_it)
    assert len(writers) == 1
    assert outcomes == {"locked": 19}


@over_sockets
async def test_a_dropped_connection_frees_the_ref_and_keeps_the_bytes(stores: StoreMaker) -> None:
    data = blob(30, 100_000)
    async with stores.running() as running:
        async with orlop.connect(running.addresses[0]) as gone:
            opened = await open_unclosed(gone, "ref", size=100_000)
            await write_raw(gone, opened.writer, 0, data[:60_000])
        async with orlop.connect(running.addresses[0]) as store:
            async with ingest_when_free(store, "ref") as writer:
                assert writer.offset == 60_000
                assert writer.status.started_at == opened.status.started_at
                await writer.write(data[60_000:])
                await writer.commit(expected=digest_of(data), labels=ROOT)
            assert await store.content.read(digest_of(data)) == data


@over_sockets
async def test_a_connection_dropped_amid_its_writes_leaves_a_good_beginning(stores: StoreMaker) -> None:
    data = blob(31, 6_000_000)
    async with stores.running() as running:
        for delay in (0.0, 0.002, 0.01):
            with trio.move_on_after(delay):
                async with orlop.connect(running.addresses[0]) as gone:
                    opened = await open_unclosed(gone, f"ref-{delay}")
                    writer = orlop.IngestWriter(gone.content._caller, gone.context, opened)
                    await writer.write(data)
            async with orlop.connect(running.addresses[0]) as store:
                async with ingest_when_free(store, f"ref-{delay}") as writer:
                    assert 0 <= writer.offset <= len(data)
                    await writer.write(data[writer.offset :])
                    await writer.commit(expected=digest_of(data), labels=ROOT)
                await store.content.delete(digest_of(data))


@over_sockets
async def test_a_writer_is_good_on_its_own_connection_only(stores: StoreMaker) -> None:
    async with (
        stores.running() as running,
        orlop.connect(running.addresses[0]) as one,
        orlop.connect(running.addresses[0]) as two,
    ):
        opened = await open_unclosed(one, "ref")
        with pytest.raises(errors.OrlopError):
            await write_raw(two, opened.writer, 0, b"not mine")
        with pytest.raises(errors.OrlopError):
            await two.content._call(t.INGESTS_COMMIT, m.CommitIngest(opened.writer))
        assert await write_raw(one, opened.writer, 0, b"mine") == 4
        await must_be_locked(two, "ref")


@over_leveldb
@pytest.mark.parametrize("closed", [True, False])
async def test_a_reopened_store_resumes_its_ingests(stores: StoreMaker, closed: bool) -> None:
    data = blob(32, 3_000_000)
    async with stores.open() as store:
        opened = await open_unclosed(store, "ref", size=len(data))
        writer = orlop.IngestWriter(store.content._caller, store.context, opened)
        await writer.write(data[:1_234_567])
        if closed:
            await writer.close()
        status = await store.content.status("ref")
    async with stores.open() as store:
        found = await store.content.status("ref")
        assert (found.offset, found.total, found.started_at) == (1_234_567, len(data), status.started_at)
        assert found.started_at <= found.updated_at <= status.updated_at + 1_000_000_000
        async with store.content.ingest("ref", size=len(data)) as writer:
            assert (writer.offset, writer.status.total) == (1_234_567, len(data))
            assert writer.status.started_at == status.started_at
            await writer.write(data[1_234_567:])
            await writer.commit(size=len(data), expected=digest_of(data), labels=ROOT)
        assert await store.content.read(digest_of(data)) == data


@over_leveldb
async def test_a_reopened_store_has_its_blobs(stores: StoreMaker) -> None:
    small, large = blob(33, 100), blob(34, 100_000)
    async with stores.open() as store:
        made = [await keep(store, small), await keep(store, large)]
    async with stores.open() as store:
        assert sorted([i async for i in store.content.list()], key=lambda i: i.size) == made
        assert await store.content.read(digest_of(small)) == small
        assert await store.content.read(digest_of(large)) == large
