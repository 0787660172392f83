"""Bytes under a ref, whatever is here already; and what a crash cut short. Source: spec content 9 and 4.6."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

import orlop
from orlop.bin.embed import open_store
from orlop.protocol import errors

ROOT = {"containerd.io/gc.root": "test"}
SIZE = 3_000_000


def blob(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces_of(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [0, 5, 16 * 1024, 16 * 1024 + 1, SIZE])
async def test_bytes_are_brought_and_brought_again(store: orlop.Store, size: int) -> None:
    data = blob(1, size)
    for _ in range(2):
        info = await store.content.write("ref", data, size=size, expected=digest_of(data), labels=ROOT)
        assert (info.digest, info.size, info.labels) == (digest_of(data), size, ROOT)
    assert await store.content.read(info.digest) == data
    assert [status async for status in store.content.ingests()] == []


@pytest.mark.parametrize("begun", [1, 500_000, SIZE])
async def test_what_an_earlier_attempt_left_is_not_sent_again(store: orlop.Store, begun: int) -> None:
    """spec content 9.2"""
    data = blob(2)
    async with store.content.ingest("ref") as writer:
        await writer.write(data[:begun])
    info = await store.content.write("ref", pieces_of(data), size=SIZE, labels=ROOT)
    assert info.digest == digest_of(data)
    assert [status async for status in store.content.ingests()] == []


async def test_too_few_bytes_are_refused_and_leave_nothing(store: orlop.Store) -> None:
    with pytest.raises(errors.FailedPrecondition):
        await store.content.write("ref", pieces_of(blob(2)[:-1]), size=SIZE)
    assert [status async for status in store.content.ingests()] == []


async def test_wrong_bytes_do_not_poison_the_next_attempt(store: orlop.Store) -> None:
    """spec content 4.4 says that the reference's do"""
    data = blob(3)
    with pytest.raises(errors.FailedPrecondition):
        await store.content.write("ref", data[:-1] + b"x", size=SIZE, expected=digest_of(data))
    info = await store.content.write("ref", data, size=SIZE, expected=digest_of(data), labels=ROOT)
    assert info.size == SIZE


async def test_another_writer_is_waited_for(store: orlop.Store) -> None:
    """spec content 9.1"""
    done = trio.Event()

    async def hold() -> None:
        async with store.content.ingest("ref") as writer:
            await writer.write(b"abc")
            await done.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with pytest.raises(errors.Unavailable):
            async with store.content.ingest("ref"):
                pass
        nursery.start_soon(_later, 0.1, done)
        info = await store.content.write("ref", b"abcdef", size=6, labels=ROOT)
    assert info.digest == digest_of(b"abcdef")


async def _later(seconds: float, event: trio.Event) -> None:
    await trio.sleep(seconds)
    event.set()


async def test_what_is_here_without_a_known_digest_is_told(store: orlop.Store) -> None:
    await store.content.write("ref", b"data", labels=ROOT)
    with pytest.raises(errors.AlreadyExists):
        await store.content.write("ref", b"data")


async def test_a_commit_that_a_crash_cut_short_is_taken_back_at_start(tmp_path: Path) -> None:
    """spec content 4.6 and 14, row 43: renamed, and not recorded"""
    data = blob(4, 100_000)
    async with open_store(str(tmp_path)) as store, store.content.ingest("ref", expected=digest_of(data)) as writer:
        await writer.write(data)
    (ingest,) = (tmp_path / "ingests").iterdir()
    sealed = tmp_path / "blobs" / "sha256" / f"{digest_of(data).partition(':')[2]}.{ingest.name}"
    ingest.rename(sealed)
    async with open_store(str(tmp_path)) as store:
        with trio.fail_after(10):
            while sealed.exists():
                await trio.sleep(0.01)
        assert (await store.content.status("ref")).offset == len(data)
        async with store.content.ingest("ref", expected=digest_of(data)) as writer:
            assert writer.offset == len(data)
            await writer.commit(labels=ROOT)
        assert await store.content.read(digest_of(data)) == data
    assert len(list((tmp_path / "blobs" / "sha256").iterdir())) == 1


@pytest.mark.parametrize("stray", ["blobs/sha256/stray", "blobs/sha256/" + "0" * 64 + ".77", "ingests/999", "blobs/x"])
async def test_strangers_in_the_folders_disturb_nobody(tmp_path: Path, stray: str) -> None:
    """spec content 14, rows 38, 40, 41"""
    async with open_store(str(tmp_path)) as store:
        await store.content.write("ref", blob(5, 50_000), labels=ROOT)
    (tmp_path / stray).write_bytes(b"?")
    os.mkdir(tmp_path / "ingests" / "folder")
    async with open_store(str(tmp_path)) as store:
        assert [info.size async for info in store.content.list()] == [50_000]
        assert [status async for status in store.content.ingests()] == []
        await store.collect()
        assert (await store.content.verify()).checked == 1
        await store.content.write("other", blob(6, 50_000), labels=ROOT)
