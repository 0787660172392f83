"""Writing blobs: the life of an ingest from open to commit. Source: spec content 2.3, 3.6 to 3.10, 4, 5, 13.1, 14.

The scenarios of the base suite (13.1) have its names in their docstrings. A running digest is not part of the
interface, so where the suite looks at it, these tests commit and look at the blob's.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import orlop
from orlop.actors.supervisor import RunningStore
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t

from ..conftest import StoreMaker

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ROOT = {"containerd.io/gc.root": "2024-01-01T00:00:00Z"}
GRID = [(size, cut) for size in (500, 5000, 50_000) for cut in (0, 10, 50, 90, 100)]

over_sockets = pytest.mark.parametrize("stores", [("unix", "leveldb"), ("tcp", "leveldb")], indirect=True, ids=str)
over_leveldb = pytest.mark.parametrize(
    "stores", [("embedded", "leveldb"), ("unix", "leveldb"), ("tcp", "leveldb")], indirect=True, ids=str
)


def blob(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


async def keep(store: orlop.Store, data: bytes, ref: str = "keep") -> orlop.ContentInfo:
    async with store.content.ingest(ref) as writer:
        await writer.write(data)
        return await writer.commit(size=len(data), labels=ROOT)


async def digests(store: orlop.Store) -> list[str]:
    return [info.digest async for info in store.content.list()]


async def refs(store: orlop.Store) -> list[str]:
    return sorted([status.ref async for status in store.content.ingests()])


async def held_by(store: orlop.Store, lease: str) -> set[tuple[str, str]]:
    return {(resource.type, resource.id) async for resource in store.leases.resources(lease)}


@asynccontextmanager
async def another_client(stores: StoreMaker, running: RunningStore) -> AsyncIterator[orlop.Store]:
    if stores.way == "embedded":
        yield running.store
    else:
        async with orlop.connect(running.addresses[0]) as store:
            yield store


async def open_unclosed(store: orlop.Store, ref: str, size: int = 0, expected: str = "") -> m.OpenedIngest:
    """A writer that nothing closes but the end of its connection."""
    opened: m.OpenedIngest = await store.content._call(t.INGESTS_OPEN, m.OpenIngest(ref, size, expected))
    return opened


async def write_raw(store: orlop.Store, writer: int, offset: int, data: bytes) -> int:
    written: m.WrittenIngest = await store.content._call(t.INGESTS_WRITE, m.WriteIngest(writer, offset, data))
    return written.offset


@asynccontextmanager
async def ingest_when_free(store: orlop.Store, ref: str) -> AsyncIterator[orlop.IngestWriter]:
    """What clients do while somebody else has the ref. Source: spec content 9.1."""
    with trio.fail_after(3):
        while True:
            try:
                opened = await open_unclosed(store, ref)
                break
            except errors.Unavailable:
                await trio.sleep(0.002)
    writer = orlop.IngestWriter(store.content._caller, store.context, opened)
    try:
        yield writer
    finally:
        await writer.close()


async def must_be_locked(store: orlop.Store, ref: str) -> None:
    with pytest.raises(errors.Unavailable):
        await open_unclosed(store, ref)


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
