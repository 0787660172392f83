"""Stored bytes that are no longer what they should be: found, told, healed. Source: DESIGN 6, spec content 5.3."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import orlop
from orlop.protocol import errors
from orlop.protocol.messages import Verified, VerifyProgress, VerifyState
from tests.conftest import StoreMaker

LABELS = {
    "containerd.io/gc.root": "test",
    "containerd.io/distribution.source.registry.example": "library/redis,mirror/redis",
}
BIG = 300_000


def blob(seed: int, size: int = BIG) -> bytes:
    return random.Random(seed).randbytes(size)


async def bring(store: orlop.Store, data: bytes) -> str:
    async with store.content.ingest("bring") as writer:
        await writer.write(data)
        return (await writer.commit(labels=LABELS)).digest


def file_of(stores: StoreMaker, digest: str) -> Path:
    (found,) = (stores.folder / "store" / "blobs" / "sha256").glob(f"{digest.partition(':')[2]}.*")
    return found


def spoil(path: Path, at: int = 100) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


async def verified(store: orlop.Store, *digests: str) -> tuple[Verified, dict[str, VerifyProgress]]:
    steps: dict[str, VerifyProgress] = {}

    def note(step: VerifyProgress) -> None:
        steps[step.digest] = step

    return await store.content.verify(digests, progress=note), steps


async def test_what_is_whole_is_found_whole(store: orlop.Store) -> None:
    small, large = await bring(store, b"small"), await bring(store, blob(1))
    empty = await bring(store, b"")
    result, steps = await verified(store)
    assert result == Verified(3, 0, 0, BIG + 5)
    assert {digest: step.state for digest, step in steps.items()} == dict.fromkeys(
        (small, large, empty), VerifyState.INTACT
    )
    for digest, data in ((small, b"small"), (large, blob(1)), (empty, b"")):
        async with store.content.chunks(digest, verify=True) as pieces:
            assert b"".join([piece async for piece in pieces]) == data


async def test_a_changed_bit_is_found_told_and_healed(stores: StoreMaker) -> None:
    async with stores.open() as store:
        data = blob(2)
        digest, other = await bring(store, data), await bring(store, blob(3))
        path = file_of(stores, digest)
        spoil(path)
        result, steps = await verified(store)
        assert result == Verified(2, 1, 0, 2 * BIG)
        assert steps[digest].state is VerifyState.DAMAGED
        assert steps[digest].sources == {"registry.example": "library/redis,mirror/redis"}
        assert steps[other].state is VerifyState.INTACT
        with pytest.raises(errors.DataLoss) as told:
            await store.content.read(digest)
        assert "registry.example/library/redis" in told.value.hint
        assert (await store.content.info(digest)).size == BIG
        async with store.content.ingest("again", size=BIG, expected=digest) as writer:
            assert writer.offset == 0
            await writer.write(data)
            with pytest.raises(errors.AlreadyExists):
                await writer.commit()
        assert await store.content.read(digest) == data
        assert (await verified(store))[0].damaged == 0
        await store.collect()
        assert not path.exists()
        assert file_of(stores, digest).read_bytes() == data


async def test_nobody_adopts_damaged_bytes(stores: StoreMaker) -> None:
    async with stores.open() as store:
        digest = await bring(store, blob(4))
        spoil(file_of(stores, digest))
        await store.content.verify([digest])
        two = store.in_namespace("two")
        async with two.content.ingest("ref", size=BIG, expected=digest) as writer:
            assert writer.offset == 0
            await writer.write(blob(4))
            await writer.commit(labels=LABELS)
        assert await two.content.read(digest) == await store.content.read(digest) == blob(4)


async def test_a_verified_read_fails_before_its_last_piece_and_marks_what_it_found(stores: StoreMaker) -> None:
    async with stores.open() as store:
        digest = await bring(store, blob(5))
        spoil(file_of(stores, digest), BIG - 1)
        came = 0
        with pytest.raises(errors.DataLoss):
            async with store.content.chunks(digest, verify=True) as pieces:
                async for piece in pieces:
                    came += len(piece)
        assert came < BIG
        with pytest.raises(errors.DataLoss):
            await store.content.read(digest)


async def test_a_file_that_vanished_or_was_cut_is_damaged_too(stores: StoreMaker) -> None:
    async with stores.open() as store:
        gone, cut = await bring(store, blob(6)), await bring(store, blob(7))
        file_of(stores, gone).unlink()
        os.chmod(file_of(stores, cut), 0o600)
        os.truncate(file_of(stores, cut), 1000)
        result, steps = await verified(store, gone, cut)
        assert (result.damaged, steps[gone].state, steps[cut].state) == (2, VerifyState.DAMAGED, VerifyState.DAMAGED)
        for digest, data in ((gone, blob(6)), (cut, blob(7))):
            async with store.content.ingest(f"heal {digest}", expected=digest) as writer:
                await writer.write(data)
                with pytest.raises(errors.AlreadyExists):
                    await writer.commit()
            assert await store.content.read(digest) == data


async def test_damage_is_remembered_over_a_restart_and_healed_by_a_small_put(stores: StoreMaker) -> None:
    if stores.engine == "memory":
        pytest.skip("the memory engine does not outlive its store")
    async with stores.open() as store:
        digest = await bring(store, blob(8))
        spoil(file_of(stores, digest))
        await store.content.verify()
    async with stores.open() as store:
        with pytest.raises(errors.DataLoss):
            await store.content.read(digest)
        await store.content.delete(digest)
        await store.collect()
        assert await bring(store, blob(8)) == digest
        assert await store.content.read(digest) == blob(8)


async def test_what_is_not_here_is_missing_and_what_is_no_digest_refused(store: orlop.Store) -> None:
    absent = f"sha256:{'0' * 64}"
    result, steps = await verified(store, absent)
    assert (result, steps[absent].state) == (Verified(missing=1), VerifyState.MISSING)
    with pytest.raises(errors.InvalidArgument):
        await store.content.verify(["sha256:x"])
    with pytest.raises(errors.NotFound):
        async with store.content.chunks(absent, verify=True) as pieces:
            async for _ in pieces:
                pass
