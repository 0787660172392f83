"""Bytes come in, become a blob, or are thrown away. Source: spec content 3.7 to 3.10, 5, 14."""

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
from tests.support.content import EMPTY, blob, digest_of, digests
from tests.support.ingests import ROOT, held_by, ingest_when_free, must_be_locked, open_unclosed, refs, write_raw

# writing -----------------------------------------------------------------------------------------------------


async def test_a_write_at_another_offset_is_out_of_range_and_changes_nothing(store: orlop.Store) -> None:
    opened = await open_unclosed(store, "ref")
    assert await write_raw(store, opened.writer, 0, b"0123456789") == 10
    for offset in (5, 11, 2**40):
        with pytest.raises(errors.OutOfRange):
            await write_raw(store, opened.writer, offset, b"xyz")
        assert (await store.content.status("ref")).offset == 10
    await store.content._call(t.INGESTS_CLOSE, m.CloseIngest(opened.writer))
    async with store.content.ingest("ref") as writer:
        assert writer.offset == 10
        await writer.write(b"!")
        assert (await writer.commit(labels=ROOT)).digest == digest_of(b"0123456789!")


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_write_at_0_starts_afresh(store: orlop.Store, size: int) -> None:
    opened = await open_unclosed(store, "ref")
    await write_raw(store, opened.writer, 0, blob(40, size))
    assert await write_raw(store, opened.writer, 0, b"new") == 3
    assert (await store.content.status("ref")).offset == 3
    assert await write_raw(store, opened.writer, 3, b" bytes") == 9
    request = m.CommitIngest(opened.writer, labels=ROOT)
    info = await store.content._call(t.INGESTS_COMMIT, request)
    assert (info.digest, info.size) == (digest_of(b"new bytes"), 9)
    assert await store.content.read(info.digest) == b"new bytes"


async def test_an_empty_write_changes_nothing(store: orlop.Store) -> None:
    async with store.content.ingest("ref") as writer:
        await writer.write(b"abc")
        await writer.write(b"")
        assert writer.offset == 3
        assert (await writer.commit(labels=ROOT)).digest == digest_of(b"abc")


async def test_an_ingest_is_only_truncated_to_0(store: orlop.Store) -> None:
    async with store.content.ingest("ref") as writer:
        await writer.write(b"0123456789")
        with pytest.raises(errors.InvalidArgument):
            await store.content._call(t.INGESTS_TRUNCATE, m.TruncateIngest(writer.handle, 4))
        assert (await store.content.status("ref")).offset == 10
        await writer.truncate()
        await writer.truncate()
        assert (await writer.commit(labels=ROOT)).digest == EMPTY


async def test_many_writes_of_many_ingests_at_once_keep_their_order(store: orlop.Store) -> None:
    blobs = [blob(50 + n, 10_000 + 7000 * n) for n in range(12)]

    async def write(n: int) -> None:
        async with store.content.ingest(f"ref-{n}") as writer:
            pieces = [blobs[n][at : at + 500] for at in range(0, len(blobs[n]), 500)]
            await writer.write_many(pieces)
            info = await writer.commit(size=len(blobs[n]), labels=ROOT)
        assert info.digest == digest_of(blobs[n])

    async with trio.open_nursery() as nursery:
        for n in range(12):
            nursery.start_soon(write, n)
    for data in blobs:
        assert await store.content.read(digest_of(data)) == data


async def test_a_cancelled_write_leaves_a_good_beginning(store: orlop.Store) -> None:
    data = blob(60, 6_000_000)
    for delay in (0.0, 0.001, 0.005, 0.02):
        ref = f"ref-{delay}"
        async with store.content.ingest(ref) as writer:
            with trio.move_on_after(delay):
                await writer.write(data)
        async with store.content.ingest(ref) as writer:
            assert 0 <= writer.offset <= len(data)
            await writer.write(data[writer.offset :])
            await writer.commit(expected=digest_of(data), labels=ROOT)
        await store.content.delete(digest_of(data))


async def test_a_cancelled_open_leaves_the_ref_free(store: orlop.Store) -> None:
    for step in range(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_open_and_close, store, f"ref-{step}")
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        async with ingest_when_free(store, f"ref-{step}") as writer:
            assert writer.offset == 0


async def _open_and_close(store: orlop.Store, ref: str) -> None:
    async with store.content.ingest(ref):
        pass


async def test_a_write_to_a_closed_writer_fails_its_precondition(store: orlop.Store) -> None:
    async with store.content.ingest("ref") as writer:
        await writer.write(b"abc")
        await writer.close()
        await writer.close()
        with pytest.raises(errors.FailedPrecondition):
            await writer.write(b"def")
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit()
    assert (await store.content.status("ref")).offset == 3


# commit ------------------------------------------------------------------------------------------------------


async def test_zero_bytes_are_a_blob(store: orlop.Store) -> None:
    async with store.content.ingest("ref") as writer:
        info = await writer.commit(labels=ROOT)
    assert (info.digest, info.size) == (EMPTY, 0)
    assert await store.content.read(EMPTY) == b""
    assert await digests(store) == [EMPTY]


async def test_a_blob_of_many_pieces(store: orlop.Store) -> None:
    data = blob(70, 5 * 1024 * 1024 + 17)
    async with store.content.ingest("ref", size=len(data)) as writer:
        await writer.write(data)
        assert writer.offset == len(data)
        info = await writer.commit(size=len(data), expected=digest_of(data), labels=ROOT)
    assert info.size == len(data)
    assert await store.content.read(info.digest) == data


async def test_a_wrong_size_keeps_the_bytes(store: orlop.Store) -> None:
    data = blob(71, 50_000)
    async with store.content.ingest("ref") as writer:
        await writer.write(data)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(size=49_999)
    async with store.content.ingest("ref") as writer:
        assert writer.offset == 50_000
        assert (await writer.commit(size=50_000, labels=ROOT)).digest == digest_of(data)


async def test_a_wrong_digest_poisons_the_ingest_until_it_is_truncated(store: orlop.Store) -> None:
    good, bad = blob(72, 40_000), blob(73, 40_000)
    async with store.content.ingest("ref") as writer:
        await writer.write(bad)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(expected=digest_of(good))
    async with store.content.ingest("ref") as writer:
        assert writer.offset == 40_000
        await writer.write(good)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(expected=digest_of(good))
    async with store.content.ingest("ref") as writer:
        await writer.truncate()
        await writer.write(good)
        await writer.commit(expected=digest_of(good), labels=ROOT)
    assert await digests(store) == [digest_of(good)]


async def test_a_label_over_the_limit_keeps_the_bytes(store: orlop.Store) -> None:
    for labels in ({"k": "v" * 4096}, {"k": "é" * 2048}, {"": "v"}):
        async with store.content.ingest("ref") as writer:
            if writer.offset == 0:
                await writer.write(b"bytes")
            with pytest.raises(errors.InvalidArgument):
                await writer.commit(labels={**ROOT, **labels})
    assert await digests(store) == []
    async with store.content.ingest("ref") as writer:
        assert writer.offset == 5
        info = await writer.commit(labels={**ROOT, "k": "v" * 4095, "empty": ""})
    assert info.labels == {**ROOT, "k": "v" * 4095}


async def test_a_commit_of_what_is_here_leaves_labels_and_joins_the_lease(store: orlop.Store) -> None:
    async with store.content.ingest("first") as writer:
        await writer.write(b"x")
        made = await writer.commit(labels={**ROOT, "k": "v1"})
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    async with leased.content.ingest("second") as writer:
        assert await held_by(store, "lease") == {("ingests", "second")}
        await writer.write(b"x")
        with pytest.raises(errors.AlreadyExists):
            await writer.commit(labels={"k": "v2", "new": "label"})
    assert await store.content.info(made.digest) == made
    assert await held_by(store, "lease") == {("content", made.digest)}


async def test_a_leased_ingest_is_in_its_lease_until_the_blob_is(store: orlop.Store) -> None:
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    async with leased.content.ingest("ref") as writer:
        assert await held_by(store, "lease") == {("ingests", "ref")}
        await writer.write(b"bytes")
        info = await writer.commit()
    assert await held_by(store, "lease") == {("content", info.digest)}
    async with leased.content.ingest("aborted"):
        pass
    assert ("ingests", "aborted") in await held_by(store, "lease")
    await leased.content.abort("aborted")
    assert await held_by(store, "lease") == {("content", info.digest)}


async def test_an_unknown_lease_opens_nothing(store: orlop.Store) -> None:
    await store.in_namespace("other").leases.create("elsewhere")
    for lease in ("nobody", "elsewhere"):
        with pytest.raises(errors.NotFound):
            await open_unclosed(store.with_lease(lease), "ref")
    assert await refs(store) == []
    async with store.content.ingest("ref") as writer:  # and the ref is not locked
        assert writer.offset == 0


@pytest.mark.parametrize("size", [100, 100_000])
async def test_an_unknown_lease_commits_nothing(store: orlop.Store, size: int) -> None:
    data = blob(74, size)
    opened = await open_unclosed(store, "ref")
    await write_raw(store, opened.writer, 0, data)
    with pytest.raises(errors.NotFound):
        await store.with_lease("nobody").content._call(t.INGESTS_COMMIT, m.CommitIngest(opened.writer))
    assert await digests(store) == []
    async with store.content.ingest("ref") as writer:
        await writer.truncate()
        await writer.write(data)
        await writer.commit(expected=digest_of(data), labels=ROOT)
    assert await store.content.read(digest_of(data)) == data


async def test_a_second_commit_fails_and_takes_nobodys_lock(store: orlop.Store) -> None:
    async with store.content.ingest("ref") as writer:
        await writer.write(b"bytes")
        await writer.commit(labels=ROOT)
        async with store.content.ingest("ref"):
            with pytest.raises(errors.FailedPrecondition):
                await writer.commit()
            await must_be_locked(store, "ref")


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("namespaces", [1, 2])
async def test_two_commits_of_one_blob_at_once(stores: StoreMaker, size: int, namespaces: int) -> None:
    data = blob(75, size)
    outcomes: Counter[str] = Counter()

    async def commit(store: orlop.Store, ref: str) -> None:
        async with store.content.ingest(ref) as writer:
            await writer.write(data)
            try:
                await writer.commit(size=size, labels=ROOT)
                outcomes["made"] += 1
            except errors.AlreadyExists:
                outcomes["exists"] += 1

    async with stores.open() as store:
        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(commit, store.in_namespace(f"ns{n % namespaces}"), f"ref-{n}")
        assert outcomes == {"made": namespaces, "exists": 8 - namespaces}
        await store.collect()
        for n in range(namespaces):
            assert await store.in_namespace(f"ns{n}").content.read(digest_of(data)) == data
        files = os.listdir(stores.folder / "store" / "blobs" / "sha256")
        assert len(files) == (1 if size > m.MAX_INLINE_BYTES else 0)
        assert os.listdir(stores.folder / "store" / "ingests") == []


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_a_cancelled_commit_did_or_did_not_happen(store: orlop.Store, size: int) -> None:
    for step in range(12):
        data = blob(80 + step, size)
        opened = await open_unclosed(store, "ref")
        writer = orlop.IngestWriter(store.content._caller, store.context, opened)
        await writer.write(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_commit_and_ignore, writer, size)
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        async with ingest_when_free(store, "ref") as again:
            assert again.offset in (0, size)
            await again.truncate()
            await again.write(data)
            try:
                await again.commit(expected=digest_of(data), labels=ROOT)
            except errors.AlreadyExists:
                pass
        assert await store.content.read(digest_of(data)) == data


async def _commit_and_ignore(writer: orlop.IngestWriter, size: int) -> None:
    await writer.commit(size=size, labels=ROOT)


# abort -------------------------------------------------------------------------------------------------------


async def test_abort_throws_the_bytes_away(stores: StoreMaker) -> None:
    async with stores.open() as store:
        async with store.content.ingest("ref") as writer:
            await writer.write(blob(90, 100_000))
        await store.content.abort("ref")
        with pytest.raises(errors.NotFound):
            await store.content.status("ref")
        with pytest.raises(errors.NotFound):
            await store.content.abort("ref")
        assert await refs(store) == []
        await store.collect()
        assert os.listdir(stores.folder / "store" / "ingests") == []
        async with store.content.ingest("ref") as writer:
            assert writer.offset == 0


async def test_abort_of_an_open_ingest_fails_its_commit_and_keeps_its_lock(stores: StoreMaker) -> None:
    async with stores.open() as store:
        async with store.content.ingest("ref") as writer:
            await writer.write(blob(91, 100_000))
            await store.content.abort("ref")
            await must_be_locked(store, "ref")
            with pytest.raises((errors.FailedPrecondition, errors.NotFound)):
                await writer.commit(labels=ROOT)
        assert await digests(store) == []
        async with store.content.ingest("ref") as writer:
            assert writer.offset == 0
            await writer.write(b"fresh")
            assert (await writer.commit(labels=ROOT)).digest == digest_of(b"fresh")
        await store.collect()
        assert os.listdir(stores.folder / "store" / "ingests") == []


async def test_abort_of_an_open_ingest_that_is_closed_leaves_nothing(stores: StoreMaker) -> None:
    async with stores.open() as store:
        async with store.content.ingest("ref") as writer:
            await writer.write(blob(92, 100_000))
            await store.content.abort("ref")
        assert await refs(store) == []
        async with store.content.ingest("ref") as writer:
            assert writer.offset == 0
        await store.content.abort("ref")
        await store.collect()
        assert os.listdir(stores.folder / "store" / "ingests") == []
