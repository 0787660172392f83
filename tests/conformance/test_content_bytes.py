"""Blobs as a namespace sees them: their bytes. Source: spec content 2, 3.4, 3.5, 6.1, 14."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
import trio

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from tests.conftest import StoreMaker
from tests.support.content import ABSENT, EMPTY, INLINE_BYTES, MALFORMED, ROOT, blob, digest_of, digests, keep

# bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [6, INLINE_BYTES, INLINE_BYTES + 1, 300_000])
async def test_a_range_ends_where_the_blob_ends(store: orlop.Store, size: int) -> None:
    data = blob(2, size)
    info = await keep(store, data)
    async with store.content.open(info.digest) as reader:
        assert reader.size == size
        assert await reader.read_at(0, size + 1) == data
        assert await reader.read_at(1, 3) == data[1:4]
        assert await reader.read_at(size - 1, 10) == data[-1:]
        assert await reader.read_at(size, 10) == b""
        assert await reader.read_at(size + 10, 10) == b""
        assert await reader.read_at(0, 0) == b""


@pytest.mark.parametrize("size", [5000, 1_000_000])
async def test_many_readers_at_many_offsets_read_the_right_bytes(store: orlop.Store, size: int) -> None:
    data = blob(3, size)
    info = await keep(store, data)

    async def read(seed: int) -> None:
        chance = random.Random(seed)
        async with store.content.open(info.digest) as reader:
            for _ in range(4):
                offset, count = chance.randrange(size), chance.randrange(1, 300_000)
                assert await reader.read_at(offset, count) == data[offset : offset + count]

    async with trio.open_nursery() as nursery:
        for seed in range(24):
            nursery.start_soon(read, seed)


async def test_one_reader_serves_many_reads_at_once(store: orlop.Store) -> None:
    data = blob(4, 1_000_000)
    info = await keep(store, data)
    async with store.content.open(info.digest) as reader:

        async def read(offset: int) -> None:
            assert await reader.read_at(offset, 50_000) == data[offset : offset + 50_000]

        async with trio.open_nursery() as nursery:
            for offset in range(0, 1_000_000, 40_000):
                nursery.start_soon(read, offset)


async def test_each_of_many_opens_at_once_gets_its_own_blob(store: orlop.Store) -> None:
    blobs = [blob(seed, INLINE_BYTES + 1 + seed if seed % 4 else 50 + seed) for seed in range(40)]
    for data in blobs:
        await keep(store, data)
    wrong: list[int] = []

    async def read(number: int) -> None:
        if await store.content.read(digest_of(blobs[number])) != blobs[number]:
            wrong.append(number)

    for _ in range(5):
        async with trio.open_nursery() as nursery:
            for number in range(len(blobs)):
                nursery.start_soon(read, number)
    assert wrong == []


async def test_a_cancelled_open_does_not_hand_its_bytes_to_the_next(store: orlop.Store) -> None:
    blobs = [blob(seed, INLINE_BYTES + 1 + seed) for seed in range(10)]
    for data in blobs:
        await keep(store, data)

    async def open_and_leave(data: bytes, steps: int) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_soon() -> None:
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel_soon)
                async with store.content.open(digest_of(data)):
                    pass
                nursery.cancel_scope.cancel()

    for steps in range(12):
        await open_and_leave(blobs[steps % 10], steps)
        other = blobs[(steps + 1) % 10]
        assert await store.content.read(digest_of(other)) == other


async def test_reading_what_is_not_here_is_not_found(store: orlop.Store) -> None:
    with pytest.raises(errors.NotFound):
        async with store.content.open(ABSENT):
            pass


@pytest.mark.parametrize("size", [1000, 600_000])
async def test_a_stream_of_bytes_begins_at_its_offset(store: orlop.Store, size: int) -> None:
    data = blob(5, size)
    info = await keep(store, data)

    async def stream(offset: int, length: int) -> bytes:
        request = m.ReadContent(info.digest, offset, length)
        async with store.content._caller.stream(t.CONTENT_READ, request, store.context) as chunks:
            return b"".join([chunk async for chunk in chunks])

    assert await stream(0, 0) == data
    assert await stream(100, 0) == data[100:]
    assert await stream(100, 10) == data[100:110]
    assert await stream(size - 3, 10) == data[-3:]
    assert await stream(size, 0) == b""
    with pytest.raises(errors.OutOfRange):
        await stream(size + 1, 0)


# put ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
async def test_a_put_goes_by_the_algorithm_of_the_expected_digest(store: orlop.Store, algorithm: str) -> None:
    data = b"some bytes"
    info = await store.content.put(data, expected=digest_of(data, algorithm), labels=ROOT)
    assert info.digest == digest_of(data, algorithm)
    assert await store.content.read(info.digest) == data
    for other in {"sha256", "sha384", "sha512"} - {algorithm}:
        with pytest.raises(errors.NotFound):
            await store.content.info(digest_of(data, other))


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
async def test_a_put_of_other_bytes_than_expected_is_refused(store: orlop.Store, algorithm: str) -> None:
    with pytest.raises(errors.FailedPrecondition):
        await store.content.put(b"these", expected=digest_of(b"those", algorithm))
    assert await digests(store) == []


@pytest.mark.parametrize("expected", [d for d in MALFORMED if d])
async def test_a_put_that_expects_no_digest_at_all_is_refused(store: orlop.Store, expected: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        await store.content.put(b"these", expected=expected)
    assert await digests(store) == []


async def test_a_put_takes_up_to_16_kib(store: orlop.Store) -> None:
    data = blob(6, INLINE_BYTES)
    assert (await store.content.put(data, labels=ROOT)).size == INLINE_BYTES
    with pytest.raises((errors.InvalidArgument, errors.ResourceExhausted)):
        await store.content.put(data + b"x")
    assert await digests(store) == [digest_of(data)]


async def test_the_empty_blob_can_be_put_and_read(store: orlop.Store) -> None:
    info = await store.content.put(b"", labels=ROOT)
    assert (info.digest, info.size) == (EMPTY, 0)
    assert await store.content.read(EMPTY) == b""


async def test_a_second_put_says_so_and_leaves_the_labels(store: orlop.Store) -> None:
    made = await store.content.put(b"x", labels={**ROOT, "k": "v1"})
    with pytest.raises(errors.AlreadyExists):
        await store.content.put(b"x", labels={**ROOT, "k": "v2"})
    with pytest.raises(errors.AlreadyExists):
        await store.content.put(b"x", expected=made.digest)
    assert await store.content.info(made.digest) == made


async def test_a_put_under_a_lease_joins_it_also_when_the_blob_is_here(store: orlop.Store) -> None:
    made = await store.content.put(b"x", labels=ROOT)
    await store.leases.create("lease")
    leased = store.with_lease("lease")
    with pytest.raises(errors.AlreadyExists):
        await leased.content.put(b"x")
    other = await leased.content.put(b"y")
    held = {(r.type, r.id) async for r in store.leases.resources("lease")}
    assert held == {("content", made.digest), ("content", other.digest)}


async def test_a_put_under_an_unknown_lease_stores_nothing(store: orlop.Store) -> None:
    await store.in_namespace("other").leases.create("elsewhere")
    for lease in ("nobody", "elsewhere"):
        with pytest.raises(errors.NotFound):
            await store.with_lease(lease).content.put(b"x")
    assert await digests(store) == []


async def test_of_many_puts_of_one_blob_at_once_one_succeeds(store: orlop.Store) -> None:
    outcomes: Counter[str] = Counter()

    async def put() -> None:
        try:
            await store.content.put(b"same", labels=ROOT)
            outcomes["made"] += 1
        except errors.AlreadyExists:
            outcomes["exists"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(put)
    assert outcomes == {"made": 1, "exists": 29}


# damage ------------------------------------------------------------------------------------------------------


async def test_a_record_whose_file_was_lost_tells_info_but_no_bytes(stores: StoreMaker) -> None:
    data = blob(11, 50_000)
    async with stores.open() as store:
        info = await keep(store, data)
        folder = stores.folder / "store" / "blobs" / "sha256"
        for name in os.listdir(folder):
            os.unlink(folder / name)
        assert await store.content.info(info.digest) == info
        with pytest.raises((errors.NotFound, errors.DataLoss)):
            await store.content.read(info.digest)


async def test_a_lost_file_comes_back_with_a_new_ingest(stores: StoreMaker) -> None:
    data = blob(12, 50_000)
    async with stores.open() as store:
        info = await keep(store, data)
        folder = stores.folder / "store" / "blobs" / "sha256"
        for name in os.listdir(folder):
            os.unlink(folder / name)
        with pytest.raises(errors.AlreadyExists):
            await keep(store, data)
        assert await store.content.read(info.digest) == data


async def test_stray_files_among_the_blobs_disturb_nothing(stores: StoreMaker) -> None:
    async with stores.open() as store:
        info = await keep(store, blob(13, 50_000))
        gone = await keep(store, blob(14, 50_000))
        folder = stores.folder / "store" / "blobs" / "sha256"
        (folder / "stray").write_bytes(b"?")
        (folder / "folder").mkdir()
        await store.content.delete(gone.digest)
        await store.collect()
        assert await digests(store) == [info.digest]
        assert {name for name in os.listdir(folder) if name.startswith(gone.digest[7:])} == set()
        assert await store.content.read(info.digest) == blob(13, 50_000)
