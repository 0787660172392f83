"""Sixteen clients against a collector at full speed, and SIGKILL now and then: nothing leased or referenced is lost,
everything dead is gone at the end, and a check finds nothing.

A few seconds in each run; `make soak` runs it for ORLOP_SOAK_S seconds (600). The seed of each run is printed.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol import errors
from tests.support.daemon import GONE, Daemon

SECONDS = float(os.environ.get("ORLOP_SOAK_S", "6"))
KILL_EVERY_S = (1.5, 3.0) if SECONDS < 60 else (10.0, 40.0)
CLIENTS = 16
REF = "containerd.io/gc.ref.content"
SHARED = [f"shared {n}".encode() * (1 if n % 2 else 3000) for n in range(6)]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Image:
    """What an acknowledged image must keep."""

    name: str
    blobs: dict[str, bytes]
    top: str


@dataclass
class Tally:
    images: int = 0
    deleted: int = 0
    verified: int = 0
    collections: int = 0
    kills: int = 0
    longest_ms: float = 0.0


@dataclass
class Client:
    """One tenant of the shared store; it knows what it was promised."""

    number: int
    chance: random.Random
    tally: Tally
    kept: dict[str, Image] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    made: int = 0

    async def work(self, store: orlop.Store) -> None:
        await self.settle(store)
        while True:
            await self.make(store)
            if len(self.kept) > 4 or (self.kept and self.chance.random() < 0.4):
                await self.delete(store, self.chance.choice(list(self.kept)))
            if self.kept and self.chance.random() < 0.5:
                await self.verify(store, self.chance.choice(list(self.kept.values())))
            if self.kept and self.chance.random() < 0.2:
                await self.label(store, self.chance.choice(list(self.kept.values())))

    async def make(self, store: orlop.Store) -> None:
        """As a pull does: everything under a lease, then the image, then the lease goes."""
        self.made += 1
        name = f"image {self.number}.{self.made}"
        self.unsure.add(name)
        began = time.monotonic()
        lease = await store.leases.create(labels={"owner": str(self.number)}, expires_in_s=3600)
        leased = store.with_lease(lease.id)
        layers = [self.chance.choice(SHARED), f"{name} own".encode() * self.chance.choice([1, 2000])]
        for data in layers:
            await put(leased, data, f"{name} {digest_of(data)}")
        config = f"config of {name}".encode()
        top = await self.snapshots(leased, name)
        await put(leased, config, name, {"containerd.io/gc.ref.snapshot.native": top})
        manifest = f"manifest of {name}".encode()
        labels = {f"{REF}.l.{n}": digest_of(data) for n, data in enumerate(layers)}
        await put(leased, manifest, name, {**labels, f"{REF}.config": digest_of(config)})
        await store.images.create(name, orlop.Descriptor("t", digest_of(manifest), len(manifest)))
        blobs = {digest_of(data): data for data in (*layers, config, manifest)}
        self.kept[name] = Image(name, blobs, top)
        self.unsure.discard(name)
        self.tally.images += 1
        await store.leases.delete(lease.id, sync=self.chance.random() < 0.1)
        self.tally.longest_ms = max(self.tally.longest_ms, (time.monotonic() - began) * 1e3)

    async def snapshots(self, leased: orlop.Store, name: str) -> str:
        native = leased.snapshots.using("native")
        parent = ""
        for depth in range(2):
            key = f"{name} {depth}"
            await native.prepare(f"active {key}", parent)
            await native.commit(key, f"active {key}")
            parent = key
        return parent

    async def label(self, store: orlop.Store, image: Image) -> None:
        """A reference to something else comes and goes."""
        digest = self.chance.choice(list(image.blobs))
        other = digest_of(self.chance.choice(SHARED))
        try:
            await store.content.update(digest, {f"{REF}.extra": other}, [f"labels.{REF}.extra"])
            await store.content.update(digest, {}, [f"labels.{REF}.extra"])
        except errors.NotFound as error:
            raise AssertionError(f"{digest} of {image.name} is gone") from error

    async def delete(self, store: orlop.Store, name: str) -> None:
        self.unsure.add(name)
        self.kept.pop(name)
        await store.images.delete(name, sync=self.chance.random() < 0.3)
        self.unsure.discard(name)
        self.tally.deleted += 1

    async def verify(self, store: orlop.Store, image: Image) -> None:
        await store.images.get(image.name)
        for digest, data in image.blobs.items():
            assert await store.content.read(digest) == data, f"{digest} of {image.name}"
        await store.snapshots.using("native").get(image.top)
        self.tally.verified += 1

    async def settle(self, store: orlop.Store) -> None:
        """After a kill: what was promised is there; what was not sure goes."""
        for image in list(self.kept.values()):
            await self.verify(store, image)
        for name in list(self.unsure):
            try:
                await store.images.delete(name)
            except errors.NotFound:
                pass
            self.unsure.discard(name)
        async for lease in store.leases.list([f"labels.owner=={self.number}"]):
            await store.leases.delete(lease.id)


async def put(store: orlop.Store, data: bytes, ref: str, labels: dict[str, str] | None = None) -> None:
    try:
        if len(data) <= 16 * 1024:
            await store.content.put(data, labels=labels or {})
        else:
            await store.content.write(ref, data, labels=labels or {})
    except errors.AlreadyExists:
        pass


@pytest.mark.slow
async def test_clients_and_collector_and_kills(tmp_path: Path, chance: random.Random) -> None:
    daemon, tally = Daemon(tmp_path), Tally()
    clients = [Client(number, random.Random(chance.random()), tally) for number in range(CLIENTS)]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        async with daemon.running() as process, trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(until_gone, client, daemon)
            nursery.start_soon(collect_all_the_time, daemon, tally)
            await trio.sleep(min(chance.uniform(*KILL_EVERY_S), max(0.5, end - time.monotonic())))
            process.send_signal(signal.SIGKILL)
            tally.kills += 1
    async with daemon.store() as store:
        for client in clients:
            await client.settle(store)
        await finish(store, clients, tmp_path / "store")
    print(tally)


async def until_gone(client: Client, daemon: Daemon) -> None:
    try:
        async with orlop.connect(daemon.address) as store:
            await client.work(store)
    except GONE:
        pass


async def collect_all_the_time(daemon: Daemon, tally: Tally) -> None:
    try:
        async with orlop.connect(daemon.address) as store:
            while True:
                await store.collect()
                tally.collections += 1
    except GONE:
        pass


async def finish(store: orlop.Store, clients: list[Client], root: Path) -> None:
    """A check finds nothing, only what images keep is there; and when they go, nothing is."""
    done = await store.collect(full=True)
    assert done.differed == 0
    found: list[object] = []
    checked = await store.check(each=found.append)
    assert found == []
    assert checked.compared
    kept = [image for client in clients for image in client.kept.values()]
    assert {info.digest async for info in store.content.list()} == {digest for image in kept for digest in image.blobs}
    for client in clients:
        for name in list(client.kept):
            await client.delete(store, name)
    await store.collect()
    assert [info.digest async for info in store.content.list()] == []
    assert [info.name async for info in store.snapshots.using("native").list()] == []
    left = [
        path for folder in ("blobs", "ingests", "snapshots") for path in (root / folder).rglob("*") if path.is_file()
    ]
    assert left == []
    assert [path.name for path in (root / "snapshots" / "native").iterdir()] == []
    usage = await store.disk_usage()
    assert (usage.total.packed, usage.total.unpacked, usage.total.reclaimable) == (0, 0, 0)
