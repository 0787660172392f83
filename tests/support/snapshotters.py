"""One snapshotter of one store, as the suites are handed it."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import orlop

from ..conftest import StoreMaker
from .trees import Change, apply, tree

__all__ = ["ROOT", "Home", "Snapshots", "Subject", "Window", "held", "journal", "kinds", "paths"]

Snapshots = Any
"""What `store.snapshots.using(name)` answers."""

ROOT: Final = {"containerd.io/gc.root": "test"}


@dataclass(frozen=True)
class Subject:
    """A snapshotter of an open store. What the methods here make is a root of the collector."""

    name: str
    store: orlop.Store
    folder: Path
    """The store's."""
    work: Path
    """For what is compared with."""

    @property
    def snapshots(self) -> Snapshots:
        return self.store.snapshots.using(self.name)

    def leased(self, lease: str) -> Snapshots:
        return self.store.with_lease(lease).snapshots.using(self.name)

    def within(self, namespace: str) -> Subject:
        """The same in another namespace."""
        return Subject(self.name, self.store.in_namespace(namespace), self.folder, self.work / namespace)

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] = ROOT) -> list[orlop.Mount]:
        return list(await self.snapshots.prepare(key, parent, labels))

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] = ROOT) -> list[orlop.Mount]:
        return list(await self.snapshots.view(key, parent, labels))

    async def commit(self, name: str, key: str, labels: Mapping[str, str] = ROOT, **more: str) -> orlop.SnapshotInfo:
        return await self.snapshots.commit(name, key, labels, **more)

    async def committed(self, name: str, parent: str = "", labels: Mapping[str, str] = ROOT) -> orlop.SnapshotInfo:
        """One in which nothing is changed."""
        await self.prepare(f"{name}-active", parent)
        return await self.commit(name, f"{name}-active", labels)

    async def layer(self, name: str, parent: str, *changes: Change) -> orlop.SnapshotInfo:
        """One in which, through its mount, `changes` are made."""
        mounts = await self.prepare(f"{name}-active", parent)
        async with orlop.mounted(mounts) as path:
            apply(path, changes)
        return await self.commit(name, f"{name}-active")

    async def holds(self, name: str, flat: Path) -> None:
        """A view of the committed one is like the ordinary folder."""
        mounts = await self.view(f"{name}-view", name)
        async with orlop.mounted(mounts) as path:
            assert tree(path) == tree(flat)
        await self.snapshots.remove(f"{name}-view")

    def flat(self, name: str, *changes: Change) -> Path:
        """An ordinary folder, with the changes made."""
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        apply(folder, changes)
        return folder

    @property
    def root(self) -> Path:
        return self.folder / "snapshots" / self.name

    def folders(self) -> set[str]:
        """What lies in the snapshotter's folder: one entry for each snapshot that has a folder."""
        return set(os.listdir(self.root)) if self.root.is_dir() else set()

    async def infos(self, *filters: str) -> dict[str, orlop.SnapshotInfo]:
        return {info.name: info async for info in self.snapshots.list(filters)}

    async def names(self, *filters: str) -> set[str]:
        listed = [info.name async for info in self.snapshots.list(filters)]
        assert len(set(listed)) == len(listed)
        return set(listed)


@dataclass(frozen=True)
class Home:
    """Where a snapshotter's store lies, and how it is opened."""

    stores: StoreMaker
    name: str
    work: Path

    @asynccontextmanager
    async def open(self, namespace: str = "default") -> AsyncIterator[Subject]:
        async with self.stores.open(namespace=namespace) as store:
            yield Subject(self.name, store, self.stores.folder / "store", self.work)


class Window:
    """Tells whether a time lies between two readings of the clock around a call."""

    def __enter__(self) -> Self:
        self.began_ns, self.ended_ns = time.time_ns(), 0
        return self

    def __exit__(self, *_: object) -> None:
        self.ended_ns = time.time_ns()

    def __contains__(self, at_ns: int) -> bool:
        return self.began_ns <= at_ns <= self.ended_ns


def paths(mounts: Sequence[orlop.Mount]) -> list[Path]:
    """All that mounts point to: the writable folder first if there is one, then the lower ones, nearest first."""
    (mount,) = mounts
    if mount.type == "bind":
        return [Path(mount.source)]
    options = dict(option.partition("=")[::2] for option in mount.options)
    upper = [options["upperdir"]] if "upperdir" in options else []
    return [Path(path) for path in [*upper, *options["lowerdir"].split(":")]]


async def held(store: orlop.Store, lease: str) -> list[tuple[str, str]]:
    return [(entry.type, entry.id) async for entry in store.leases.resources(lease)]


async def kinds(snapshots: Snapshots) -> dict[str, str]:
    return {info.name: info.kind.name async for info in snapshots.list()}


async def journal(store: orlop.Store, group: str = "/snapshot/") -> list[orlop.Event]:
    events: list[orlop.Event] = []
    after = 0
    while True:
        page = await store.events.page(after, limit=1000)
        if not page.items:
            return [event for event in events if event.topic.startswith(group)]
        events += page.items
        after = page.next
