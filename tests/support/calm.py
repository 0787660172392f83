"""Stores whose collector rests until it is asked, and what one puts into them: blobs, images, snapshots."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

import orlop
from orlop.actors.config import CollectorConfig, StoreConfig
from orlop.actors.supervisor import RunningStore, run_store
from orlop.actors.timestamps import rfc3339
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import AlreadyExists
from orlop.protocol.world import Address
from orlop.storage.memory import MemoryStore

from .layers import digest_of

__all__ = [
    "BREF", "BREF_IMAGE", "EXPIRE", "FLAT", "HOUR_S", "LARGE", "REF", "REF_IMAGE", "REF_NATIVE", "ROOT", "ROOTED",
    "SMALL", "Calm", "CalmMaker", "Shape", "ShiftedClock", "bytes_below", "data_of", "labels_to", "make_image",
    "make_snapshot", "put", "seen",
]  # fmt: skip

ROOT: Final = "containerd.io/gc.root"
FLAT: Final = "containerd.io/gc.flat"
EXPIRE: Final = "containerd.io/gc.expire"
REF: Final = "containerd.io/gc.ref.content"
REF_IMAGE: Final = "containerd.io/gc.ref.image"
REF_NATIVE: Final = "containerd.io/gc.ref.snapshot.native"
BREF: Final = "containerd.io/gc.bref.content"
BREF_IMAGE: Final = "containerd.io/gc.bref.image"
ROOTED: Final = {ROOT: "test"}
SMALL: Final = 300
LARGE: Final = 20_000
"""More than a record of the engine holds: a file."""
HOUR_S: Final = 3600
_RESTING: Final = CollectorConfig(pause_s=HOUR_S, mutation_threshold=0, startup_delay_s=HOUR_S)


class ShiftedClock:
    """The real clock, and how far the test has moved it."""

    shift_s = 0

    def now_ns(self) -> int:
        return time.time_ns() + self.shift_s * 1_000_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def after(self, seconds: float) -> str:
        return rfc3339(self.now_ns() + int(seconds * 1e9))


@dataclass(frozen=True)
class Calm:
    """An open store: as the namespace `default` sees it, from inside, and its folder."""

    store: orlop.Store
    running: RunningStore
    folder: Path
    clock: ShiftedClock

    async def removals_done(self) -> None:
        """A file that lost its name to one that was there already is removed by and by."""
        with trio.fail_after(10):
            while (await self.store.collector()).removals:
                await trio.sleep(0.01)

    def on_disk(self) -> int:
        """Bytes of all blobs, ingests and snapshots that are files and folders."""
        files = bytes_below(self.folder / "blobs") + bytes_below(self.folder / "ingests")
        return files + snapshot_bytes(self.folder / "snapshots")


@dataclass(frozen=True)
class CalmMaker:
    """Opens such stores by one way in, over one engine."""

    way: str
    engine: str
    folder: Path

    @asynccontextmanager
    async def open(
        self, name: str = "store", *, grace_s: float = 0.0, clock: ShiftedClock | None = None
    ) -> AsyncIterator[Calm]:
        root = self.folder / name
        clock = clock or ShiftedClock()
        config = StoreConfig(str(root), gc=msgspec.structs.replace(_RESTING, grace_s=grace_s))
        world = dataclasses.replace(real_world(), clock=clock)
        listen = {
            "embedded": [],
            "unix": [Address(path=str(root / "socket"))],
            "tcp": [Address(host="127.0.0.1", port=0)],
        }[self.way]
        engine = MemoryStore() if self.engine == "memory" else None
        async with run_store(config, world, host_platform(), listen, engine) as running:
            if self.way == "embedded":
                yield Calm(running.store, running, root, clock)
            else:
                async with orlop.connect(running.addresses[0], namespace="default") as store:
                    yield Calm(store, running, root, clock)


def bytes_below(folder: Path) -> int:
    """Of all files, as long as they are."""
    return sum(Path(at, name).stat().st_size for at, _, names in os.walk(folder) for name in names)


def snapshot_bytes(folder: Path) -> int:
    """Allocated, of all that lies in the folders of snapshotters."""
    return sum(
        512 * Path(at, name).lstat().st_blocks
        for kind in (folder.iterdir() if folder.is_dir() else ())
        for at, folders, files in os.walk(kind)
        for name in [*folders, *files]
    )


def data_of(name: str, size: int = SMALL) -> bytes:
    """The bytes of the blob called `name`: so many, and no others have them."""
    return (name.encode() + b"\n").ljust(size, b".")


async def put(
    store: orlop.Store, name: str, size: int = SMALL, labels: Mapping[str, str] | None = None
) -> orlop.Descriptor:
    """New, or here already; a lease holds it in either case."""
    data = data_of(name, size)
    try:
        if size <= SMALL:
            await store.content.put(data, labels=labels)
        else:
            await store.content.write(f"put {name}", data, size=size, labels=labels)
    except AlreadyExists:
        pass
    return orlop.Descriptor("application/octet-stream", digest_of(data), size)


def labels_to(*targets: orlop.Descriptor) -> dict[str, str]:
    return {f"{REF}.{number}": target.digest for number, target in enumerate(targets)}


@dataclass(frozen=True)
class Shape:
    """An image as `make_image` leaves it."""

    name: str
    manifest: orlop.Descriptor
    parts: list[orlop.Descriptor]


async def make_image(
    store: orlop.Store,
    name: str,
    layers: Sequence[str] = (),
    *,
    snapshot: str = "",
    labels: Mapping[str, str] | None = None,
) -> Shape:
    """A manifest with large layers, some perhaps here already, and a small config that refers to a native snapshot."""
    async with store.lease() as leased:
        config = await put(leased, f"{name} config", labels={REF_NATIVE: snapshot} if snapshot else None)
        parts = [config, *[await put(leased, layer, LARGE) for layer in layers]]
        manifest = await put(leased, " ".join((name, "manifest", *layers)), labels=labels_to(*parts))
        await store.images.create(name, manifest, dict(labels or {}))
    return Shape(name, manifest, parts)


async def make_snapshot(
    store: orlop.Store,
    name: str,
    parent: str = "",
    labels: Mapping[str, str] | None = None,
    *,
    size: int = 5000,
    snapshotter: str = "native",
) -> None:
    """A committed one with a file of its own, in folders that can be written to without a mount."""
    snapshots = store.snapshots.using(snapshotter)
    (mount,) = await snapshots.prepare(f"{name} active", parent, ROOTED)
    Path(mount.source, name).write_bytes(bytes(size))
    await snapshots.commit(name, f"{name} active", dict(labels or {}))


async def seen(store: orlop.Store) -> set[str]:
    """What a namespace has: images and native snapshots by name, blobs by digest."""
    found = {image.name async for image in store.images.list()}
    found |= {info.name async for info in store.snapshots.using("native").list()}
    return found | {info.digest async for info in store.content.list()}
