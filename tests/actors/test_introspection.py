"""How the parts of a store stand is what happens when they are used. Source: spec cli 8 and 11, row 57."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from orlop.actors.config import SnapshotConfig, StoreConfig
from orlop.actors.supervisor import RunningStore, run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import InvalidArgument, OrlopError
from orlop.protocol.messages import Plugin, PluginStatus
from orlop.protocol.world import World
from orlop.storage.engine import WriteFailed
from orlop.storage.memory import MemoryStore

OK, SKIP, ERROR = PluginStatus.OK, PluginStatus.SKIP, PluginStatus.ERROR
TIMEOUT_S = 10.0


@asynccontextmanager
async def running(
    folder: Path, world: World | None = None, engine: MemoryStore | None = None, **config: Any
) -> AsyncIterator[RunningStore]:
    settings = StoreConfig(str(folder / "store"), **config)
    async with run_store(settings, world or real_world(), host_platform(), (), engine or MemoryStore()) as up:
        yield up


async def parts(up: RunningStore, *filters: str) -> dict[str, Plugin]:
    return {each.id: each for each in await up.store.plugins(filters)}


class NoMounts:
    """A machine on which nothing may be mounted."""

    def mount(self, kind: str, source: str, target: str, options: Sequence[str]) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def unmount(self, target: str) -> None:
        raise AssertionError("what was not mounted")


class Mounting(NoMounts):
    def mount(self, kind: str, source: str, target: str, options: Sequence[str]) -> None:
        pass

    def unmount(self, target: str) -> None:
        pass


class OnBtrfs:
    def possible(self, folder: str) -> bool:
        return True


async def test_where_overlays_cannot_be_mounted_they_are_skipped(tmp_path: Path) -> None:
    async with running(tmp_path, replace(real_world(), mounts=NoMounts())) as up:
        found = await parts(up)
        assert (found["overlayfs"].status, found["native"].status) == (SKIP, OK)
        assert "Operation not permitted" in found["overlayfs"].error
        assert "default" in found["native"].capabilities
        assert "default" not in found["overlayfs"].capabilities


async def test_where_overlays_can_be_mounted_they_are_the_default(tmp_path: Path) -> None:
    async with running(tmp_path, replace(real_world(), mounts=Mounting())) as up:
        found = await parts(up)
        assert (found["overlayfs"].status, found["overlayfs"].error) == (OK, "")
        assert found["overlayfs"].capabilities == ["default", "rebase"]


async def test_what_was_asked_for_and_cannot_be_is_an_error(tmp_path: Path) -> None:
    config = SnapshotConfig(default="overlayfs")
    async with running(tmp_path, replace(real_world(), mounts=NoMounts()), snapshots=config) as up:
        found = await parts(up)
        assert found["overlayfs"].status is ERROR
        assert "Operation not permitted" in found["overlayfs"].error


async def test_btrfs_is_skipped_where_the_store_does_not_lie_on_it_and_refuses_in_the_same_words(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as up:
        (btrfs,) = await up.store.plugins(["id==btrfs"])
        if btrfs.status is OK:
            pytest.skip("temporary files lie on btrfs here")
        assert (btrfs.status, btrfs.error) == (SKIP, "the store does not lie on btrfs")
        with pytest.raises(InvalidArgument, match=btrfs.error):
            await up.store.snapshots.using("btrfs").prepare("a")


async def test_btrfs_is_ok_where_it_works(tmp_path: Path) -> None:
    world: Any = replace(real_world(), subvolumes=OnBtrfs())
    async with running(tmp_path, world) as up:
        assert (await parts(up))["btrfs"].status is OK


async def test_what_the_disk_refuses_is_an_error_until_it_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "snapshots"
    async with running(tmp_path, replace(real_world(), mounts=Mounting())) as up:
        folder.write_text("in the way")
        found = await parts(up)
        for name in ("overlayfs", "native", "btrfs"):
            assert found[name].status is ERROR
            assert f"{folder} is not a folder" in found[name].error
        assert found["local"].status is OK
        with pytest.raises(OrlopError):
            await up.store.snapshots.prepare("a")
        folder.unlink()
        found = await parts(up)
        assert (found["overlayfs"].status, found["native"].status) == (OK, OK)


async def test_one_that_cannot_have_its_own_folder_fails_alone(tmp_path: Path) -> None:
    async with running(tmp_path, replace(real_world(), mounts=Mounting())) as up:
        folder = tmp_path / "store" / "snapshots"
        folder.mkdir()
        (folder / "overlayfs").write_text("in the way")
        found = await parts(up)
        assert (found["overlayfs"].status, found["native"].status) == (ERROR, OK)


async def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running(tmp_path) as up:
        await parts(up)
        assert os.listdir(tmp_path / "store" / "snapshots") == []


async def test_what_is_not_asked_for_is_not_tried(tmp_path: Path) -> None:
    async with running(tmp_path) as up:
        assert list(await parts(up, "type~=content")) == ["local"]
        assert not (tmp_path / "store" / "snapshots").exists()


class Stubborn(MemoryStore):
    """Does not open again before it is let."""

    locked = True

    def recover(self) -> None:
        if self.locked:
            raise OSError(errno.EIO, "Input/output error")


async def test_a_store_that_is_being_reopened_says_so(tmp_path: Path) -> None:
    engine = Stubborn()
    async with running(tmp_path, engine=engine) as up:
        engine.fail_next = WriteFailed("EIO")
        with pytest.raises(OrlopError):
            await up.store.namespaces.create("a")
        (leveldb,) = await up.store.plugins(["id==leveldb"])
        assert leveldb.status is ERROR
        assert "opened again" in leveldb.error
        engine.locked = False
        with trio.fail_after(TIMEOUT_S):
            while (await up.store.plugins(["id==leveldb"]))[0].status is ERROR:
                await trio.sleep(0.05)
        await up.store.namespaces.create("a")


async def collected(up: RunningStore) -> bool:
    try:
        await up.store.collect()
    except OrlopError:  # refused while the store is being reopened
        return False
    return True


async def test_a_collection_that_failed_says_so_until_one_succeeds(tmp_path: Path) -> None:
    engine = MemoryStore()
    async with running(tmp_path, engine=engine) as up:
        lease = await up.store.leases.create("l")
        await up.store.with_lease("l").content.put(b"loose")
        await up.store.leases.delete(lease.id)
        engine.fail_next = WriteFailed("EIO")
        with pytest.raises(OrlopError):
            await up.store.collect()
        (gc,) = await up.store.plugins(["type~=gc"])
        assert gc.status is ERROR
        assert gc.error
        with trio.fail_after(TIMEOUT_S):
            while not await collected(up):
                pass
        (gc,) = await up.store.plugins(["type~=gc"])
        assert (gc.status, gc.error) == (OK, "")
