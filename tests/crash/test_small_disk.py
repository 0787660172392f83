"""A disk that is really full: everything is refused with one clear error, deletes still work, and then all goes on."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import OrlopError, ResourceExhausted, Unavailable, Unknown

MIB = 1024 * 1024
SIZE_MIB = 48  # the ballast takes 16 of them
ROOT = {"containerd.io/gc.root": "test"}
FULL = (ResourceExhausted, Unavailable, Unknown)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    options = f"size={SIZE_MIB}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def blob(number: int, size: int) -> tuple[bytes, str]:
    data = number.to_bytes(8, "big") * (size // 8)
    return data, f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_files(small: Path) -> int:
    return sum(path.is_file() for path in (small / "store" / "blobs").rglob("*"))


async def fill(store: orlop.Store, size: int, most: int) -> list[int]:
    """Blobs until one is refused, and then another, which must be refused as clearly; which of them are there."""
    there, refused = [], 0
    for number in range(most):
        data, digest = blob(number, size)
        try:
            await store.content.write(f"ref-{number}", data, size=len(data), expected=digest, labels=ROOT)
        except FULL:
            refused += 1
            if refused == 3:
                return there
        else:
            there.append(number)
    pytest.fail(f"{most} blobs of {size} bytes fitted into {SIZE_MIB} MiB")


async def test_a_full_disk_refuses_writes_and_deletes_bring_it_back(small: Path) -> None:
    async with orlop.open_store(small / "store") as store:
        there = await fill(store, MIB, 64)
        assert len(there) > 10
        for number in there:
            assert (await store.content.info(blob(number, MIB)[1])).size == MIB
        async for status in store.content.ingests():
            await store.content.abort(status.ref)
        for number in there[:-1]:
            await store.content.delete(blob(number, MIB)[1])
        await store.collect()  # its figures are not all: the collector may have begun by itself
        assert blob_files(small) == 1
        assert await store.content.read(blob(there[-1], MIB)[1]) == blob(there[-1], MIB)[0]
        again, digest = blob(1000, MIB)
        await store.content.write("again", again, size=MIB, expected=digest, labels=ROOT)
    async with orlop.open_store(small / "store") as store:
        assert await store.content.read(digest) == again


async def test_a_disk_filled_by_others_lets_images_be_removed(small: Path) -> None:
    """Not one byte is left for the database but the ballast."""
    async with orlop.open_store(small / "store") as store:
        data, digest = blob(1, 4 * MIB)
        await store.content.write("ref", data, size=len(data), expected=digest, labels={})
        await store.images.create("image", orlop.Descriptor("type", digest, len(data)))
        filler = os.open(small / "filler", os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                try:
                    os.write(filler, bytes(MIB))
                except OSError:
                    break
        finally:
            os.close(filler)
        failures = 0
        while True:
            try:
                await store.images.delete("image", sync=True)
                break
            except orlop.errors.NotFound:  # an attempt of which nobody knew what came of it
                await store.collect()
                break
            except OrlopError:  # also while the store is being reopened: then calls are refused, and not held
                failures += 1
                assert failures < 200
                await trio.sleep(0.01)
        assert [image.name async for image in store.images.list()] == []
        assert blob_files(small) == 0
