"""A store with some of everything, and hands that damage it while nobody has it open."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orlop
from orlop.actors.config import CollectorConfig, StoreConfig
from orlop.actors.supervisor import RunningStore, run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.labels import GC_EXPIRE, GC_FLAT, GC_ROOT
from orlop.protocol.messages import Checked, Finding
from orlop.protocol.records import Any_, Container, LeaseResource, Runtime, Sandbox
from orlop.storage import keys
from orlop.storage.blobs import ledger
from orlop.storage.codec import encode, seal
from orlop.storage.collection.state import State, decode_states, encode_states
from orlop.storage.engine import KeyValue
from orlop.storage.memory import MemoryStore

from .images import image
from .layers import TAR, digest_of

__all__ = [
    "BIG",
    "CHILD",
    "CONFIG",
    "LAYER",
    "MANIFEST",
    "SMALL",
    "Furnished",
    "alive",
    "checked",
    "dump",
    "furnish",
    "running",
]

ROOTED = {GC_ROOT: "test"}
FAR = "2099-01-01T00:00:00Z"
_RANDOM = random.Random(5)

_IMAGE = image([_RANDOM.randbytes(40_000), b"a small layer"], media_type=TAR)
_OTHER = image([_RANDOM.randbytes(30_000)], media_type=TAR)
LAYER = _IMAGE.layers[0].digest  # in a file; held by both namespaces
CONFIG = _IMAGE.config_digest  # in the engine; held by both namespaces
MANIFEST = _IMAGE.target.digest
_BIG_BYTES = _RANDOM.randbytes(50_000)
BIG = digest_of(_BIG_BYTES)
_SMALL_BYTES = b"small and rooted"
SMALL = digest_of(_SMALL_BYTES)
BASE, CHILD = "native/base", "native/child"
GRACE_S = 3600.0


@asynccontextmanager
async def running(folder: Path, engine: KeyValue | None = None) -> AsyncIterator[RunningStore]:
    config = StoreConfig(str(folder), gc=CollectorConfig(grace_s=GRACE_S))
    async with run_store(config, real_world(), host_platform(), (), engine) as up:
        yield up


async def furnish(store: orlop.Store) -> None:
    """What is left waits in the bin or lives."""
    other = store.in_namespace("other")
    async with store.lease() as leased, other.lease() as leased_other:
        await _IMAGE.stored(leased, "docker.io/library/kept:1")
        await _IMAGE.stored(leased_other, "docker.io/library/kept:1")
        await _OTHER.stored(leased, "docker.io/library/deleted:1")
        await leased.content.put(_SMALL_BYTES, labels=ROOTED)
        await leased.content.write("big", _BIG_BYTES, labels=ROOTED)
        await leased.content.put(b"kept by who is named", labels={"containerd.io/gc.bref.content": SMALL})
        native = leased.snapshots.using("native")
        await native.prepare("base active")
        await native.commit("base", "base active", {"containerd.io/gc.cond.value-usedat": "2026-01-01T00:00:00Z"})
        await native.prepare("child", "base", ROOTED)
        await native.view("view", "base", ROOTED)
        await native.prepare("of a container", "base")
        await leased_other.snapshots.using("native").prepare("alone", "", ROOTED)
        conditional = {"containerd.io/gc.cond.snapshot.native/1": "usedat<2h|base", **ROOTED}
        await leased.content.put(b"on a condition", labels=conditional)
        await store.images.create("expires", orlop.Descriptor("x", SMALL, 16), {GC_EXPIRE: FAR})
        await store.images.create("expired", orlop.Descriptor("x", SMALL, 16), {GC_EXPIRE: "2020-01-01T00:00:00Z"})
        await store.leases.create("normal", {GC_EXPIRE: FAR})
        await store.leases.create("flat", {GC_FLAT: "yes"})
        loose = await leased.content.put(b"kept by a lease")
        for lease in ("normal", "flat"):
            await store.leases.add(lease, LeaseResource(loose.digest, "content"))
            await store.leases.add(lease, LeaseResource("view", "snapshots/native"))
        await store.containers.create(
            Container(
                "c", runtime=Runtime("r"), spec=Any_("x", b"x"), snapshotter="native", snapshot_key="of a container"
            )
        )
        await store.sandboxes.create(Sandbox("s", Runtime("r"), labels={"containerd.io/gc.ref.content": SMALL}))
        async with store.content.ingest("open") as writer:
            await writer.write(bytes(70_000))
    await store.namespaces.create("shared", {"containerd.io/namespace.shareable": "true"})
    await store.images.delete("docker.io/library/deleted:1", sync=False)
    await store.collect()


@dataclass
class Furnished:
    """A closed store: its folder, and what its engine holds."""

    folder: Path
    engine: MemoryStore

    def copy(self, folder: Path) -> Furnished:
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("lock", "LOCK"))
        return Furnished(folder, self.engine.power_cut())

    def opened(self):
        return running(self.folder, self.engine)

    # what is there

    def get(self, key: bytes) -> bytes:
        return dump(self.engine)[key]

    def under(self, prefix: bytes) -> list[bytes]:
        return [key for key in dump(self.engine) if key.startswith(prefix)]

    def one(self, prefix: bytes) -> bytes:
        (key,) = self.under(prefix)
        return key

    def id_of(self, name: str, namespace: str = "default") -> int:
        return int.from_bytes(self.get(keys.snapshot_id(namespace, name)), "big")

    def path_of(self, digest: str) -> Path:
        (found,) = (self.folder / "blobs").glob(f"sha256/{digest.partition(':')[2]}.*")
        return found

    def states(self, key: bytes) -> tuple[State, State]:
        return decode_states(self.get(key))

    # damage

    def put(self, key: bytes, value: bytes) -> None:
        assert dump(self.engine).get(key) != value
        self.engine.write({key: value})

    def delete(self, key: bytes) -> None:
        assert key in dump(self.engine)
        self.engine.write({key: None})

    def flip(self, key: bytes) -> None:
        value = self.get(key)
        self.put(key, value[:-1] + bytes([value[-1] ^ 1]))

    def put_number(self, key: bytes, by: int) -> None:
        self.put(key, keys.number(int.from_bytes(self.get(key), "big") + by))

    def put_states(self, key: bytes, normal: State, flat: State) -> None:
        value = encode_states(normal, flat, 0, "")
        assert value is not None
        self.put(key, value)

    def queue_removal(self, path: str, position: int) -> None:
        self.put(keys.removal(position), seal(encode(ledger.Removal(path))))


def dump(engine: KeyValue) -> dict[bytes, bytes]:
    snapshot = engine.snapshot()
    try:
        return dict(_pairs(snapshot.scan(b"", b"\xff")))
    finally:
        snapshot.close()


def _pairs(scan: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    try:
        yield from scan
    finally:
        scan.close()  # type: ignore[attr-defined]


async def checked(store: orlop.Store, *, repair: bool = False) -> tuple[list[Finding], Checked]:
    findings: list[Finding] = []
    done = await store.check(repair=repair, each=findings.append)
    assert done.findings == len(findings)
    return findings, done


async def alive(store: orlop.Store) -> dict[str, object]:
    """All that can be read, by what a caller would ask for."""
    found: dict[str, object] = {}
    for namespace in ("default", "other", "shared"):
        here = store.in_namespace(namespace)
        found[f"{namespace} images"] = [each async for each in here.images.list()]
        found[f"{namespace} leases"] = [each async for each in here.leases.list()]
        found[f"{namespace} containers"] = [each async for each in here.containers.list()]
        found[f"{namespace} sandboxes"] = [each async for each in here.sandboxes.list()]
        found[f"{namespace} ingests"] = [each async for each in here.content.ingests()]
        for lease in found[f"{namespace} leases"]:  # type: ignore[attr-defined]
            found[f"{namespace} {lease.id}"] = [each async for each in here.leases.resources(lease.id)]
        async for info in here.content.list():
            try:
                found[f"{namespace} {info.digest}"] = digest_of(await here.content.read(info.digest)) == info.digest
            except orlop.errors.DataLoss:
                found[f"{namespace} {info.digest}"] = False
        native = here.snapshots.using("native")
        async for snapshot in native.list():
            shown = await native.mounts(snapshot.name) if snapshot.kind.value != "committed" else []
            there = all(os.path.isdir(mount.source) for mount in shown)
            found[f"{namespace} {snapshot.name}"] = (snapshot, shown, there)
    return found
