"""Writing blobs: the life of an ingest from open to commit. Source: spec content 2.3, 3.6 to 3.10, 4, 13.1."""

from __future__ import annotations

import os
import time

import pytest

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from tests.conftest import StoreMaker
from tests.support.content import blob, digest_of, digests
from tests.support.ingests import GRID, ROOT, held_by, keep, must_be_locked, open_unclosed, refs

# the base suite ----------------------------------------------------------------------------------------------


async def test_five_writers_at_once(store: orlop.Store) -> None:
    """Writer."""
    blobs = [blob(seed, 256) for seed in range(4)] + [blob(4, 32 * 1024 * 1024)]
    announced = [(0, False), (256, False), (0, True), (256, True), (32 * 1024 * 1024, True)]
    writers = []
    for n, (size, with_digest) in enumerate(announced):
        expected = digest_of(blobs[n]) if with_digest else ""
        opened = await open_unclosed(store, f"ref-{n}", size, expected)
        assert (opened.status.ref, opened.status.offset, opened.status.total) == (f"ref-{n}", 0, size)
        writers.append(orlop.IngestWriter(store.content._caller, store.context, opened))
    for n, writer in enumerate(writers):
        await writer.write(blobs[n])
        assert writer.offset == len(blobs[n])
        before = time.time_ns()
        info = await writer.commit(labels=ROOT)
        after = time.time_ns()
        assert (info.digest, info.size, info.labels) == (digest_of(blobs[n]), len(blobs[n]), ROOT)
        assert before <= info.created_at <= after
        assert info.updated_at == info.created_at
        assert await store.content.info(info.digest) == info
    assert await refs(store) == []


async def test_the_status_follows_the_writes(store: orlop.Store) -> None:
    """UpdateStatus."""
    data = blob(10, 256)
    before = time.time_ns()
    async with store.content.ingest("ref", size=256, expected=digest_of(data)) as writer:
        opened = await store.content.status("ref")
        assert (opened.ref, opened.offset, opened.total) == ("ref", 0, 256)
        assert before <= opened.started_at <= opened.updated_at <= time.time_ns()
        offset = 0
        for count in (64, 128, 64):
            before = time.time_ns()
            await writer.write(data[offset : offset + count])
            after = time.time_ns()
            offset += count
            status = await store.content.status("ref")
            assert (status.offset, status.total, status.started_at) == (offset, 256, opened.started_at)
            assert before <= status.updated_at <= after
            assert [s async for s in store.content.ingests()] == [status]
        info = await writer.commit(labels=ROOT)
    assert (info.digest, info.size) == (digest_of(data), 256)


@pytest.mark.parametrize("size", [100, 50_000])
async def test_committing_what_is_here_says_so(store: orlop.Store, size: int) -> None:
    """CommitExists."""
    data = blob(11, size)
    await keep(store, data)
    for ref, expected in (("with", digest_of(data)), ("without", "")):
        async with store.content.ingest(ref) as writer:
            await writer.write(data)
            with pytest.raises(errors.AlreadyExists):
                await writer.commit(size=size, expected=expected)
    assert await refs(store) == []
    assert await store.content.read(digest_of(data)) == data


@pytest.mark.parametrize("size", [256, 100_000])
async def test_a_closed_ingest_goes_on_where_it_was(store: orlop.Store, size: int) -> None:
    """Resume."""
    data = blob(12, size)
    async with store.content.ingest("ref", size=size, expected=digest_of(data)) as writer:
        before = time.time_ns()
        await writer.write(data[: size // 2])
        after = time.time_ns()
        status = await store.content.status("ref")
        assert before <= status.updated_at <= after
    closed = await store.content.status("ref")
    assert (closed.offset, closed.total, closed.started_at) == (size // 2, size, status.started_at)
    assert before <= closed.updated_at <= after
    async with store.content.ingest("ref", size=size, expected=digest_of(data)) as writer:
        resumed = writer.status
        assert (resumed.offset, resumed.total) == (size // 2, size)
        assert resumed.started_at == status.started_at
        assert before <= resumed.updated_at <= after
        assert writer.offset == size // 2
        await writer.write(data[size // 2 :])
        assert (await store.content.status("ref")).offset == size
        info = await writer.commit(labels=ROOT)
        await writer.close()
    assert (info.digest, info.size) == (digest_of(data), size)
    assert await store.content.read(info.digest) == data


@pytest.mark.parametrize(("size", "percent"), GRID)
async def test_a_resumed_ingest_can_begin_again(store: orlop.Store, size: int, percent: int) -> None:
    """ResumeTruncate."""
    data, cut = blob(13, size), size * percent // 100
    async with store.content.ingest("ref", size=size, expected=digest_of(data)) as writer:
        await writer.write(data[:cut])
    async with store.content.ingest("ref", size=size, expected=digest_of(data)) as writer:
        assert writer.offset == cut
        await writer.truncate()
        assert (await store.content.status("ref")).offset == 0
        await writer.write(data)
        info = await writer.commit(size=size, expected=digest_of(data), labels=ROOT)
    assert await store.content.read(info.digest) == data


@pytest.mark.parametrize(("size", "percent"), GRID)
async def test_a_resumed_ingest_needs_only_the_rest(store: orlop.Store, size: int, percent: int) -> None:
    """ResumeDiscard, and what ResumeCopy, ResumeCopySeeker and ResumeCopyReaderAt come to."""
    data, cut = blob(14, size), size * percent // 100
    async with store.content.ingest("ref", size=size, expected=digest_of(data)) as writer:
        await writer.write(data[:cut])
    async with store.content.ingest("ref", size=size, expected=digest_of(data)) as writer:
        assert writer.offset == cut
        await writer.write(data[cut:])
        info = await writer.commit(size=size, expected=digest_of(data), labels=ROOT)
    assert await store.content.read(info.digest) == data


async def test_a_small_blob_reads_back_also_past_its_end(store: orlop.Store) -> None:
    """SmallBlob."""
    async with store.content.ingest("ref", size=6, expected=digest_of(b"foobar")) as writer:
        await writer.write(b"foobar")
        await writer.commit(size=6, expected=digest_of(b"foobar"), labels=ROOT)
        await writer.close()
    async with store.content.open(digest_of(b"foobar")) as reader:
        assert await reader.read_at(0, 7) == b"foobar"


async def test_labels_of_a_commit_and_of_updates(store: orlop.Store) -> None:
    """Labels."""
    data = blob(15, 300)
    async with store.content.ingest("ref") as writer:
        await writer.write(data)
        made = await writer.commit(labels={**ROOT, "k1": "v1", "k2": "v2"})
    assert made.labels == {**ROOT, "k1": "v1", "k2": "v2"}
    before = time.time_ns()
    info = await store.content.update(made.digest, {**ROOT, "k1": "newvalue", "k3": "v3"})
    assert before <= info.updated_at <= time.time_ns()
    assert (info.labels, info.created_at) == ({**ROOT, "k1": "newvalue", "k3": "v3"}, made.created_at)
    info = await store.content.update(made.digest, {**ROOT, "k1": "v1"}, ["labels.k3", "labels.k1"])
    assert info.labels == {**ROOT, "k1": "v1"}


@pytest.mark.parametrize("size", [600, 60_000])
async def test_what_a_failed_commit_leaves(store: orlop.Store, size: int) -> None:
    """CommitErrorState."""
    c1, c2 = blob(16, size), blob(16, size) + blob(17, 4)
    await keep(store, c1, "first")

    async with store.content.ingest("ref") as writer:  # 1: it exists, and the open gave no expected digest
        await must_be_locked(store, "ref")
        await writer.write(c1)
        with pytest.raises(errors.AlreadyExists):
            await writer.commit(size=size, expected=digest_of(c1))
        async with store.content.ingest("ref") as second:  # 2: at once, and empty
            assert second.offset == 0
            await must_be_locked(store, "ref")
            await second.write(c1)
            with pytest.raises(errors.AlreadyExists):
                await second.commit(size=size)
    async with store.content.ingest("ref") as writer:  # 3
        assert writer.offset == 0
        await must_be_locked(store, "ref")
        await writer.write(c2)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(size=size + 4, expected=digest_of(c1))
    async with store.content.ingest("ref") as writer:  # 4
        assert writer.offset == size + 4
        await must_be_locked(store, "ref")
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(size=size)
    async with store.content.ingest("ref") as writer:  # 5: without writing again
        await must_be_locked(store, "ref")
        info = await writer.commit(size=size + 4, labels=ROOT)
    assert info.digest == digest_of(c2)
    assert await store.content.read(info.digest) == c2
    async with store.content.ingest("ref") as writer:  # 6
        assert writer.offset == 0
        await writer.write(c1)
        with pytest.raises(errors.AlreadyExists):
            await writer.commit()
    for _ in range(2):  # 7, 8
        async with store.content.ingest("ref") as writer:
            await must_be_locked(store, "ref")
            await writer.truncate()
    assert (await store.content.status("ref")).offset == 0


# what is announced -------------------------------------------------------------------------------------------


async def test_the_total_stays_what_the_first_open_said(store: orlop.Store) -> None:
    async with store.content.ingest("with", size=100) as writer:
        await writer.write(b"0123456789")
    async with store.content.ingest("with") as writer:
        assert (writer.status.total, writer.status.offset) == (100, 10)
    async with store.content.ingest("without") as writer:
        await writer.write(b"0123456789")
    async with store.content.ingest("without", size=100) as writer:
        assert (writer.status.total, writer.status.offset) == (0, 10)


@pytest.mark.parametrize("scale", [1, 5000])
async def test_another_announced_size_starts_the_ingest_afresh(stores: StoreMaker, scale: int) -> None:
    old, new = blob(20, 10 * scale), blob(21, 5 * scale)
    async with stores.open() as store:
        async with store.content.ingest("ref", size=10 * scale) as writer:
            await writer.write(old)
        async with store.content.ingest("ref", size=5 * scale) as writer:
            assert (writer.offset, writer.status.total) == (0, 5 * scale)
            await writer.write(new)
            info = await writer.commit(labels=ROOT)
        assert (info.digest, info.size) == (digest_of(new), 5 * scale)
        assert await store.content.read(info.digest) == new
        if scale > 1:
            folder = stores.folder / "store" / "blobs" / "sha256"
            assert [os.path.getsize(folder / name) for name in os.listdir(folder)] == [5 * scale]


async def test_a_restarted_ingest_committed_at_once_is_not_the_old_bytes(store: orlop.Store) -> None:
    async with store.content.ingest("ref", size=50_000) as writer:
        await writer.write(blob(22, 50_000))
    async with store.content.ingest("ref", size=20_000) as writer:
        with pytest.raises(errors.FailedPrecondition):  # announced 20,000, has none
            await writer.commit(size=20_000)
    async with store.content.ingest("ref") as writer:
        assert writer.offset == 0
    await store.content.abort("ref")
    assert await digests(store) == []


async def test_the_digest_expected_at_open_is_enforced_at_commit(store: orlop.Store) -> None:
    async with store.content.ingest("ref", expected=digest_of(b"wanted")) as writer:
        await writer.write(b"something else")
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit()
    assert await digests(store) == []
    async with store.content.ingest("ref", expected=digest_of(b"wanted")) as writer:
        assert writer.offset == len(b"something else")
        await writer.truncate()
        await writer.write(b"wanted")
        assert (await writer.commit(labels=ROOT)).digest == digest_of(b"wanted")


@pytest.mark.parametrize(
    "expected", ["garbage", "sha256:zz", "md5:" + "0" * 32, "sha256:" + "A" * 64, "sha512:" + "0" * 64]
)
async def test_a_malformed_expected_digest_is_an_invalid_argument(store: orlop.Store, expected: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        await open_unclosed(store, "ref", expected=expected)
    assert await refs(store) == []
    async with store.content.ingest("ref") as writer:
        await writer.write(b"bytes")
        with pytest.raises(errors.InvalidArgument):
            await writer.commit(expected=expected)
    async with store.content.ingest("ref") as writer:
        assert (await writer.commit(labels=ROOT)).digest == digest_of(b"bytes")


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("at", ["open", "commit"])
async def test_a_blob_goes_by_the_expected_digests_algorithm(
    stores: StoreMaker, size: int, algorithm: str, at: str
) -> None:
    data = blob(23, size)
    expected = digest_of(data, algorithm)
    async with stores.open() as store:
        async with store.content.ingest("ref", expected=expected if at == "open" else "") as writer:
            await writer.write(data[: size // 3])
        async with store.content.ingest("ref", expected=expected if at == "open" else "") as writer:
            await writer.write(data[size // 3 :])
            info = await writer.commit(expected=expected if at == "commit" else "", labels=ROOT)
        assert (info.digest, info.size) == (expected, size)
        assert await store.content.read(expected) == data
        for other in {"sha256", "sha384", "sha512"} - {algorithm}:
            with pytest.raises(errors.NotFound):
                await store.content.info(digest_of(data, other))
        if size > m.MAX_INLINE_BYTES:
            names = os.listdir(stores.folder / "store" / "blobs" / algorithm)
            assert [name.split(".")[0] for name in names] == [expected.split(":")[1]]


async def test_opening_with_an_expected_digest_that_is_here_says_so(store: orlop.Store) -> None:
    info = await keep(store, b"x")
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    with pytest.raises(errors.AlreadyExists):
        await open_unclosed(leased, "ref", expected=info.digest)
    assert await held_by(store, "lease") == {("content", info.digest)}
    assert await refs(store) == []
