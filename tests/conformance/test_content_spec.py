"""What the scenarios of the content specification ask for beyond the base suite, and the files below it.

The base suite is in test_ingests.py, sharing in test_sharing.py. Source: spec content 9, 13.1, 13.3, 13.4.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import orlop
from orlop.bin.world import real_world
from orlop.protocol import errors
from orlop.protocol.messages import MAX_INLINE_BYTES
from orlop.storage.blobs.local import IngestFile, LocalBlobs
from tests.support.content import blob, digest_of
from tests.support.ingests import ROOT, keep, must_be_locked, open_unclosed, refs

from ..conftest import StoreMaker
from .test_sharing import bring, isolated

MIB = 1024 * 1024


# copies ------------------------------------------------------------------------------------------------------


async def one_after_another(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 7000):
        yield data[at : at + 7000]


SOURCES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda data: data,
    "view": memoryview,
    "pieces": lambda data: [data[at : at + 999] for at in range(0, len(data), 999)],
    "reader": one_after_another,
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [500, 5000, 50_000])
async def test_a_copy_from_the_start_skips_what_an_earlier_writer_left(
    store: orlop.Store, size: int, source: str
) -> None:
    """ResumeCopy, ResumeCopySeeker, ResumeCopyReaderAt, and "helpers: offset"."""
    for percent in (0, 10, 50, 90, 100):
        data, ref = blob(100 + percent, size), f"ref-{percent}"
        cut = size * percent // 100
        async with store.content.ingest(ref, size=size, expected=digest_of(data)) as writer:
            await writer.write(data[:cut])
        assert (await store.content.status(ref)).offset == cut
        info = await store.content.write(ref, SOURCES[source](data), size=size, expected=digest_of(data), labels=ROOT)
        assert (info.digest, info.size, info.labels) == (digest_of(data), size, ROOT)
        assert await store.content.read(info.digest) == data
    assert await refs(store) == []


async def test_a_copy_of_what_others_commit_meanwhile_succeeds(store: orlop.Store) -> None:
    """ "helpers: AlreadyExists at commit ok"."""
    data = blob(110, 50_000)

    async def overtaken() -> AsyncIterator[bytes]:
        yield data[:20_000]
        await keep(store, data, "faster")
        yield data[20_000:]

    info = await store.content.write("ref", overtaken(), size=50_000, expected=digest_of(data), labels={"k": "v"})
    assert (info.digest, info.labels) == (digest_of(data), ROOT)  # of who came first
    assert await refs(store) == []


async def test_a_copy_of_what_is_here_does_not_touch_its_reader(store: orlop.Store) -> None:
    """spec content 9.3"""
    data = blob(111, 50_000)
    await keep(store, data)

    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("there is nothing to read")
        yield b""

    info = await store.content.write("ref", untouched(), size=50_000, expected=digest_of(data))
    assert info == await store.content.info(digest_of(data))


# status and locks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 256, 100_000])
async def test_a_status_is_to_the_nanosecond_what_it_was_before_a_close_and_a_restart(
    stores: StoreMaker, size: int
) -> None:
    """Resume: "status identical to before the close"."""
    async with stores.open() as store:
        async with store.content.ingest("ref", size=200_000) as writer:
            if size:
                await writer.write(blob(120, size))
            before = await store.content.status("ref")
            assert (before.ref, before.offset, before.total) == ("ref", size, 200_000)
        assert await store.content.status("ref") == before
        assert [status async for status in store.content.ingests()] == [before]
        async with store.content.ingest("ref", size=200_000) as writer:
            assert writer.status == before
        assert await store.content.status("ref") == before
    if stores.engine == "memory":
        return  # it does not outlive its store
    async with stores.open() as store:
        assert await store.content.status("ref") == before
        async with store.content.ingest("ref", size=200_000) as writer:
            assert writer.status == before


async def test_who_finds_a_ref_locked_is_told_which_and_for_how_long(store: orlop.Store) -> None:
    """ "locks: lock twice"."""
    async with store.content.ingest("layers/first one"):
        with pytest.raises(errors.Unavailable, match=r'"layers/first one".* for \d+\.\d s'):
            await open_unclosed(store, "layers/first one")


# in isolation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 40_000])
async def test_in_isolation_a_writer_of_what_another_has_is_a_new_one(tmp_path: Path, size: int) -> None:
    """CrossNamespaceIsolate"""
    async with isolated(tmp_path) as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        digest = await bring(one, blob(130, size))
        before = time.time_ns()
        async with two.content.ingest("bring", size=size, expected=digest) as writer:
            after = time.time_ns()
            assert (writer.status.ref, writer.status.offset, writer.status.total) == ("bring", 0, size)
            assert before <= writer.status.started_at <= after
            assert writer.status.updated_at == writer.status.started_at
            assert await two.content.status("bring") == writer.status
            with pytest.raises(errors.FailedPrecondition):  # it has no bytes, and commits none
                await writer.commit(size=size, expected=digest)
        assert [info async for info in two.content.list()] == []


@pytest.mark.parametrize("size", [1000, 40_000])
async def test_in_isolation_a_shareable_namespace_gives_its_blob_whole(tmp_path: Path, size: int) -> None:
    """SharedNamespaceIsolate"""
    async with isolated(tmp_path) as store:
        one, two = store.in_namespace("one"), store.in_namespace("two")
        await store.namespaces.create("one", {"containerd.io/namespace.shareable": "true"})
        data = blob(131, size)
        digest = await bring(one, data)
        async with two.content.ingest("bring", size=size, expected=digest) as writer:
            assert (writer.status.offset, writer.status.total, writer.status.expected) == (size, size, digest)
            info = await writer.commit(size=size, expected=digest, labels=ROOT)
        assert (info.digest, info.size, info.labels) == (digest, size, ROOT)
        assert await two.content.read(digest) == await one.content.read(digest) == data


# the local store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True])
async def test_the_root_folder_may_be_missing_or_there(tmp_path: Path, there: bool) -> None:
    root = tmp_path / "some" / "where"
    if there:
        root.mkdir(parents=True)
    for _ in range(2):
        async with orlop.open_store(root) as store:
            await store.content.write("ref", blob(140, 50_000), expected=digest_of(blob(140, 50_000)), labels=ROOT)
            assert [info.digest async for info in store.content.list()] == [digest_of(blob(140, 50_000))]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_blob_from_its_open_to_its_file(stores: StoreMaker, algorithm: str) -> None:
    data = blob(141, 4 * MIB)
    expected = digest_of(data, algorithm)
    async with stores.open() as store:
        async with store.content.ingest("first", expected=expected):
            pass
        async with store.content.ingest("first", expected=expected) as writer:
            await must_be_locked(store, "first")
            (listed,) = [status async for status in store.content.ingests()]
            assert (listed.ref, listed.offset, listed.total) == ("first", 0, 0)
            await writer.write(data)
            assert (await writer.commit(expected=expected, labels=ROOT)).digest == expected
        async with store.content.ingest("second") as writer:
            await writer.write(data)
            with pytest.raises(errors.AlreadyExists):
                await writer.commit(expected=expected)
        await store.collect()
        folder = stores.folder / "store" / "blobs" / algorithm
        (name,) = os.listdir(folder)
        assert name.partition(".")[0] == expected.partition(":")[2]
        assert stat.S_IMODE(os.stat(folder / name).st_mode) == 0o444
        assert (folder / name).read_bytes() == data
        assert os.listdir(stores.folder / "store" / "ingests") == []


async def test_79_blobs_by_two_algorithms_are_158(store: orlop.Store) -> None:
    blobs = [blob(number, 100) for number in range(79)]
    expected = [digest_of(data, algorithm) for data in blobs for algorithm in ("sha256", "sha512")]

    async def put(data: bytes) -> None:
        for algorithm in ("sha256", "sha512"):
            await store.content.put(data, expected=digest_of(data, algorithm), labels=ROOT)

    async with trio.open_nursery() as nursery:
        for data in blobs:
            nursery.start_soon(put, data)
    assert [info.digest async for info in store.content.list()] == sorted(expected)
    async with store.content.stream() as infos:
        assert [info.digest async for info in infos] == sorted(expected)


@pytest.mark.parametrize("scale", [1, 5000])
async def test_an_incomplete_write_of_bad_data_is_truncated_and_made_good(store: orlop.Store, scale: int) -> None:
    bad, good = b"bad data" * scale, b"good, and longer" * scale
    async with store.content.ingest("ref", size=len(good)) as writer:
        await writer.write(bad)
    async with store.content.ingest("ref", size=len(good)) as writer:
        assert (writer.offset, writer.status.total) == (len(bad), len(good))
        await writer.truncate()
        assert writer.offset == 0
        await writer.write(good)
        info = await writer.commit(size=len(good), expected=digest_of(good), labels=ROOT)
    assert await store.content.read(info.digest) == good


# the bare backend --------------------------------------------------------------------------------------------


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return backend(tmp_path)


def backend(root: Path) -> LocalBlobs:
    prepared = LocalBlobs(str(root), real_world().files)
    prepared.prepare()
    return prepared


def ingested(blobs: LocalBlobs, generation: int, data: bytes, algorithm: str = "sha256") -> IngestFile:
    file = blobs.new_ingest(generation, algorithm)
    file.append([data])
    return file


@pytest.mark.parametrize("there", [False, True])
def test_the_backend_makes_its_folders_or_takes_those_there_are(tmp_path: Path, there: bool) -> None:
    root = tmp_path / "some" / "where"
    if there:
        root.mkdir(parents=True)
    file = ingested(backend(root), 1, b"kept")
    file.keep(1)
    file.close()
    again = backend(root)
    assert again.ingest_files() == ["ingests/1"]
    assert {path.name for path in (root / "blobs").iterdir()} == {"sha256", "sha384", "sha512"}
    file = again.resume_ingest(1, "sha256")
    assert file.digest() == digest_of(b"kept")
    file.close()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("size", [0, 1, MAX_INLINE_BYTES, MAX_INLINE_BYTES + 1, 4 * MIB])
def test_a_backend_blob_is_a_read_only_file_of_its_bytes(
    tmp_path: Path, blobs: LocalBlobs, algorithm: str, size: int
) -> None:
    data = blob(150, size)
    file = blobs.new_ingest(7, algorithm)
    assert blobs.ingest_files() == []  # nothing yet
    for at in range(0, size, 100_000):
        file.append([data[at : at + 60_000], data[at + 60_000 : at + 100_000]])
    assert (file.offset, file.digest()) == (size, digest_of(data, algorithm))
    for other in ("sha256", "sha384", "sha512"):
        assert file.digest_with(other) == digest_of(data, other)
    file.sync()
    assert blobs.ingest_files() == ["ingests/7"]
    for _ in range(2):  # again is harmless
        blobs.seal(7, file.digest())
    file.close()
    path = tmp_path / "blobs" / algorithm / f"{hashlib.new(algorithm, data).hexdigest()}.7"
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert blobs.ingest_files() == []


def test_a_sealed_ingest_that_is_taken_back_can_be_written_again(tmp_path: Path, blobs: LocalBlobs) -> None:
    """spec content 4.6"""
    data, more = blob(151, 50_000), blob(152, 1000)
    file = ingested(blobs, 3, data)
    file.sync()
    file.close()
    blobs.seal(3, digest_of(data))
    assert blobs.ingest_status(3, "") is None
    assert blobs.ingest_status(3, digest_of(data)) is not None
    assert blobs.unseal(3, digest_of(data))
    assert not blobs.unseal(3, digest_of(data))
    file = blobs.resume_ingest(3, "sha256")
    assert (file.offset, file.digest()) == (50_000, digest_of(data))
    file.append([more])
    file.sync()
    file.close()
    blobs.seal(3, digest_of(data + more))
    (path,) = (tmp_path / "blobs" / "sha256").iterdir()
    assert path.read_bytes() == data + more


@pytest.mark.parametrize("size", [8, 40_000])
def test_bad_data_of_an_incomplete_write_is_gone_after_a_truncate(tmp_path: Path, blobs: LocalBlobs, size: int) -> None:
    bad, good = blob(153, size), blob(154, size // 2)
    file = ingested(blobs, 1, bad)
    file.keep(1)
    file.close()
    file = blobs.resume_ingest(1, "sha256")
    assert (file.offset, file.contents()) == (size, bad)
    file.restart()
    assert (file.offset, file.contents(), file.digest()) == (0, b"", digest_of(b""))
    file.append([good])
    assert file.digest() == digest_of(good)
    file.sync()
    file.close()
    assert (tmp_path / "ingests" / "1").read_bytes() == good


@pytest.mark.parametrize("at_ns", [0, 1, 999_999_999, 1_234_567_890_123_456_789])
def test_the_time_of_the_last_write_survives_also_when_it_is_zero(blobs: LocalBlobs, at_ns: int) -> None:
    for generation, size in ((1, 10), (2, 40_000)):
        file = ingested(blobs, generation, bytes(size))
        file.keep(at_ns)
        file.close()
        assert blobs.ingest_status(generation, "") == (size, at_ns)


Bytes = st.builds(lambda data, times: data * times, st.binary(max_size=9), st.sampled_from([1, 3, 800, 3000]))
Steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(Bytes, max_size=3)),
        st.tuples(st.sampled_from(["reopen", "reopen knowing", "restart", "sync"]), st.none()),
    ),
    max_size=10,
)


@settings(derandomize=True, database=None, deadline=None, max_examples=40)
@given(steps=Steps, algorithm=st.sampled_from(["sha256", "sha512"]))
def test_whatever_is_opened_written_closed_and_reopened_is_committed_whole(
    steps: list[tuple[str, list[bytes] | None]], algorithm: str
) -> None:
    """ "local store: fuzz", against a bytearray."""
    written = bytearray()
    with tempfile.TemporaryDirectory() as folder:
        blobs = backend(Path(folder))
        file = blobs.new_ingest(1, algorithm)
        try:
            for step, pieces in steps:
                if step == "write":
                    file.append(pieces or [])
                    written += b"".join(pieces or [])
                elif step == "restart":
                    file.restart()
                    written.clear()
                elif step == "sync":
                    file.sync()
                else:
                    file.keep(5)
                    file.close()
                    file = blobs.resume_ingest(1, algorithm, file.progress() if step == "reopen knowing" else None)
                assert file.offset == len(written)
                assert file.contents() == written
                assert file.digest() == digest_of(bytes(written), algorithm)
            file.sync()
            blobs.seal(1, file.digest())
        finally:
            file.close()
        (path,) = (Path(folder) / "blobs" / algorithm).iterdir()
        assert path.read_bytes() == written
        assert path.name == f"{hashlib.new(algorithm, written).hexdigest()}.1"
