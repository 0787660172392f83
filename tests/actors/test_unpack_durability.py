"""What is unpacked is on the disk before any record says so: `--sync-fs` asks for what is always so.

Source: spec cli 9, snapshots 2.2.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import RealFiles, real_world
from orlop.protocol.errors import OrlopError
from orlop.storage.keys import BACKEND_SNAPSHOTS
from orlop.storage.memory import MemoryStore
from tests.support.archive_stores import written
from tests.support.archives import layout_files, named, simple
from tests.support.images import write_layout
from tests.support.layout_registry import LayoutRegistry

NAME = "quay.io/a/b:1"
MADE = simple(layers=3)


class Watched:
    """The order of what matters: files appear, the file system is synced, snapshots are recorded."""

    def __init__(self, folder: Path) -> None:
        self.root = str(folder / "store" / "snapshots" / "native")
        self.steps: list[str] = []
        self.failure: OSError | None = None  # of the next syncs


class WatchedFiles(RealFiles):
    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched

    def new_folder(self, path: str, mode: int) -> None:
        super().new_folder(path, mode)
        self._watched.steps.append("made")

    def sync(self, fd: int) -> None:
        if self._watched.failure is not None:
            raise self._watched.failure
        super().sync(fd)
        self._watched.steps.append(os.readlink(f"/proc/self/fd/{fd}"))

    def sync_file_system(self, path: str) -> None:
        super().sync_file_system(path)
        if path == self._watched.root:
            self._watched.steps.append("synced")


class WatchedEngine(MemoryStore):
    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        if any(key.startswith(BACKEND_SNAPSHOTS) and value is not None for key, value in batch.items()):
            self._watched.steps.append("recorded")
        super().write(batch)


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[tuple[orlop.Store, Watched]]:
    watched = Watched(folder)
    world: Any = replace(real_world(), files=WatchedFiles(watched))
    config = StoreConfig(str(folder / "store"), snapshots=orlop.SnapshotConfig(default="native"))
    async with run_store(config, world, host_platform(), (), WatchedEngine(watched)) as running:
        yield running.store, watched


def is_in_order(watched: Watched) -> None:
    """Between the last folder that was made for it and each record the file system was synced."""
    steps = watched.steps
    assert "recorded" in steps
    made = False
    for step in steps:
        made = step == "made" or (made and step != "synced")
        assert not (step == "recorded" and made), steps


@pytest.mark.parametrize("how", ["import", "unpack", "pull", "commit"])
async def test_what_is_unpacked_is_on_the_disk_before_it_is_recorded(tmp_path: Path, how: str) -> None:
    """Native lays layers down one after another, so that each of them can be looked at."""
    async with watching(tmp_path) as (store, watched):
        if how == "pull":
            with LayoutRegistry({"a/b": write_layout(tmp_path / "layout", MADE)}) as registry:
                access = orlop.RegistryAccess(plain_http=True)
                await store.pull(orlop.PullImage(f"{registry.address}/a/b:latest", access=access, unpack=True))
        elif how == "commit":
            mounts = await store.snapshots.prepare("a")
            for n in range(9):
                Path(mounts[0].source, str(n)).write_bytes(b"x")
            watched.steps.clear()
            await store.snapshots.commit("c", "a")
            assert watched.steps == ["synced", "recorded"]
            return
        else:
            unpack_for = [host_platform()] if how == "import" else []
            path = written(tmp_path, layout_files([(MADE, named(NAME))]))
            await orlop.import_archive(store, path, unpack_for=unpack_for)
        if how == "unpack":
            await store.images.unpack(NAME)
        assert watched.steps.count("synced") == len(MADE.layers)
        is_in_order(watched)


async def test_a_few_files_are_synced_by_themselves_before_they_are_recorded(tmp_path: Path) -> None:
    async with watching(tmp_path) as (store, watched):
        mounts = await store.snapshots.prepare("a")
        top = Path(mounts[0].source)
        (top / "deep" / "er").mkdir(parents=True)
        (top / "deep" / "file").write_bytes(b"x")
        (top / "link").symlink_to("/etc/passwd")
        os.mkfifo(top / "deep" / "er" / "pipe")
        (top / "b").write_bytes(b"x")
        watched.steps.clear()
        await store.snapshots.commit("c", "a")
        assert watched.steps[-2:] == [str(top), "recorded"]
        files = [str(top / "b"), str(top / "deep" / "file")]
        assert sorted(watched.steps[:-2]) == sorted([*files, str(top / "deep"), str(top / "deep" / "er")])
        assert watched.steps.index(str(top / "deep" / "er")) < watched.steps.index(str(top / "deep"))


@pytest.mark.parametrize("what", [errno.EIO, errno.ENOSPC])
async def test_a_commit_whose_sync_fails_did_not_happen(tmp_path: Path, what: int) -> None:
    async with watching(tmp_path) as (store, watched):
        mounts = await store.snapshots.prepare("a")
        Path(mounts[0].source, "f").write_bytes(b"x")
        watched.failure = OSError(what, os.strerror(what))
        with pytest.raises(OrlopError) as caught:
            await store.snapshots.commit("c", "a")
        assert os.strerror(what).lower() in str(caught.value).lower() or "no space" in str(caught.value).lower()
        watched.failure = None
        assert (await store.snapshots.get("a")).kind is orlop.SnapshotKind.ACTIVE
        await store.snapshots.commit("c", "a")
