"""A store that is whole is found whole, also while others write; and a check only reads. Source: DESIGN 8.

What it finds in a store that is not: test_repair.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
import trio

import orlop
from orlop.actors import content, ingest_plans
from orlop.bin.world import real_world
from orlop.protocol.errors import OrlopError
from orlop.protocol.labels import GC_FLAT, GC_ROOT
from orlop.protocol.messages import Context, Fixed, OpenIngest, Problem, PutContent
from orlop.protocol.records import LeaseResource
from orlop.storage import keys
from orlop.storage.blobs import ledger
from orlop.storage.blobs.sharing import Sharing
from orlop.storage.collection.state import decode_clock
from orlop.storage.engine import Transaction
from orlop.storage.leveldb import LevelDBStore
from orlop.storage.memory import MemoryStore

from ..support.furnished import BIG, LAYER, SMALL, alive, checked, dump, furnish, running
from ..support.histories import World
from ..support.layers import digest_of

ROOTED = {GC_ROOT: "test"}


async def test_a_store_with_some_of_everything_is_whole(tmp_path: Path) -> None:
    engine = MemoryStore()
    async with running(tmp_path / "store", engine) as up:
        assert (await checked(up.store))[0] == []
        await furnish(up.store)
        assert (await up.store.collect(full=True)).differed == 0
        there = await alive(up.store)
        before = dump(engine)
        found, done = await checked(up.store)
        assert found == []
        assert done.compared
        assert min(done.records, done.references, done.blobs, done.snapshots, done.files) >= 5
        assert dump(engine) == before
        found, done = await checked(up.store, repair=True)
        assert found == []
        assert done.fixed == 0
        assert dump(engine) == before
        assert not (tmp_path / "store" / "quarantine").exists()
        async with up.store.in_namespace("other").content.ingest("adopts", expected=BIG):
            assert (await checked(up.store))[0] == []
        await up.store.collect(full=True, empty_bin=True)
        found, done = await checked(up.store)
        assert found == []
        assert done.compared
        now = await alive(up.store)  # but for what waited in the bin
        assert now.keys() < there.keys()
        assert all(now[name] == there[name] for name in now if "images" not in name and "ingests" not in name)


async def test_a_damaged_store_is_only_read_by_a_check(tmp_path: Path) -> None:
    engine = MemoryStore()
    async with running(tmp_path / "store", engine) as up:
        await furnish(up.store)
    engine.write({keys.state("default", b"b", SMALL): None, keys.blob_holders(LAYER) + b"other": None})
    (tmp_path / "store" / "blobs" / "sha256" / "stray").write_bytes(b"")
    async with running(tmp_path / "store", engine) as up:
        await up.store.collect()
        before, folders = dump(engine), files(tmp_path / "store")
        found, _ = await checked(up.store)
        assert {Problem.STATE, Problem.HOLDERS, Problem.ORPHAN} <= {each.problem for each in found}
        assert dump(engine) == before
        assert files(tmp_path / "store") == folders


def files(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


async def test_leveldb_is_checked_and_mended_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    async with running(folder) as up:
        await furnish(up.store)
        assert (await checked(up.store))[0] == []
    closed = LevelDBStore.open(str(folder), real_world().files)
    there = dump(closed)
    edge = next(key for key in there if key.startswith(keys.EDGES) and not key.endswith(keys.STATE_MARK))
    closed.write({edge: None, keys.blob(LAYER): None, keys.count("default", b"\x01p"): keys.number(1)})
    closed.close()
    async with running(folder) as up:
        found, _ = await checked(up.store)
        assert {Problem.REFERENCE, Problem.BYTES, Problem.USAGE} <= {each.problem for each in found}
        found, done = await checked(up.store, repair=True)
        assert done.fixed == done.findings
        assert (await up.store.collect(full=True)).differed == 0
        assert (await checked(up.store))[0] == []
        assert len(await up.store.content.read(LAYER)) > 16 * 1024


async def test_what_is_set_aside_is_never_written_over(tmp_path: Path) -> None:
    """A folder where ingests are: start-up, which removes files of ingests that ended, leaves it as it is."""
    stray = tmp_path / "store" / "ingests" / "777"
    async with running(tmp_path / "store", MemoryStore()) as up:
        for text in (b"one", b"two"):
            stray.mkdir()
            (stray / "inside").write_bytes(text)
            found, _ = await checked(up.store, repair=True)
            assert [(each.problem, each.fixed) for each in found] == [(Problem.ORPHAN, Fixed.QUARANTINED)]
            assert (await checked(up.store))[0] == []
    aside = tmp_path / "store" / "quarantine"
    assert sorted(path.read_bytes() for path in aside.glob("*/inside")) == [b"one", b"two"]


async def test_a_blob_whose_bytes_are_lost_is_whole_again_when_they_come_again(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(20_000)
    async with running(tmp_path / "store", MemoryStore()) as up:
        info = await up.store.content.write("r", data, labels=ROOTED)
        (path,) = (tmp_path / "store" / "blobs" / "sha256").iterdir()
        path.unlink()
        found, done = await checked(up.store, repair=True)
        assert [each.problem for each in found] == [Problem.BYTES]
        assert done.fixed == 0
        await up.store.content.write("again", data, expected=info.digest, size=len(data))
        await up.store.collect()
        assert (await checked(up.store))[0] == []
        assert await up.store.content.read(info.digest) == data


async def test_more_than_one_page_of_everything(tmp_path: Path) -> None:
    async with running(tmp_path / "store", MemoryStore()) as up:
        store = up.store
        digest = (await store.content.put(b"one", labels=ROOTED)).digest
        await store.leases.create("large", {GC_FLAT: "yes"})
        for start in range(0, 3000, 100):
            async with store.transaction() as transaction:
                for number in range(start, start + 100):
                    transaction.images.create(f"i{number:04}", orlop.Descriptor("x", digest, 3))
            async with store.transaction() as transaction:
                for number in range(start, start + 50):
                    transaction.leases.add("large", LeaseResource(f"i{number:04}", "images"))
        for number in range(250):
            await store.content.put(str(number).encode(), labels=ROOTED)
        assert (await store.collect(full=True)).differed == 0
        found, done = await checked(store)
        assert found == []
        assert done.records >= 3250
        assert done.references >= 4500
        assert done.compared


async def test_no_false_alarms_while_others_write(tmp_path: Path) -> None:
    """Not one finding in checks that run one after the other, beside eight writers and collections."""
    async with running(tmp_path / "store", MemoryStore()) as up:
        await furnish(up.store)
        found: list[orlop.Finding] = []
        checks = 0
        with trio.move_on_after(2.5):
            async with trio.open_nursery() as nursery:
                for seed in range(8):
                    nursery.start_soon(_write_on, up.store.in_namespace(("default", "other")[seed % 2]), seed)
                nursery.start_soon(_collect_on, up.store)
                while True:
                    found += (await checked(up.store))[0]
                    checks += 1
        assert checks
        assert found == []
        assert (await up.store.collect(full=True, empty_bin=True)).differed == 0
        found, done = await checked(up.store)
        assert found == []
        assert done.compared


async def _collect_on(store: orlop.Store) -> None:
    turn = 0
    while True:
        turn += 1
        await store.collect(full=turn % 3 == 0, empty_bin=turn % 2 == 0)
        await trio.sleep(0.02)


async def _write_on(store: orlop.Store, seed: int) -> None:
    """Some of everything; blobs, names and refs are few, so that all get in each other's way. What all write is rooted;
    what the collector finds dead nobody writes again: see the test of that."""
    pick = random.Random(seed)
    native = store.snapshots.using("native")
    blobs = [bytes([n]) * size for n in range(4) for size in (100, 20_000)]
    while True:
        await trio.lowlevel.checkpoint()
        try:
            await _change(store, native, pick, pick.choice(blobs))
        except OrlopError:
            pass


async def _change(store: orlop.Store, native: orlop.Snapshots, pick: random.Random, data: bytes) -> None:
    name, lease = f"n{pick.randrange(6)}", f"l{pick.randrange(3)}"
    match pick.randrange(12):
        case 0:
            await store.content.put(data[:100], labels=ROOTED)
            await store.content.put(pick.randbytes(50))
        case 1:
            await store.content.write(f"r{pick.randrange(3)}", data, labels=ROOTED)
            await store.content.write(f"r{pick.randrange(3)}", pick.randbytes(20_000))
        case 2:
            infos = [info async for info in store.content.list()]
            info = pick.choice([*infos, await store.content.put(data[:50], labels=ROOTED)])
            if pick.random() < 0.5:
                await store.content.delete(info.digest)
            else:
                many = {f"containerd.io/gc.ref.content.{n}": each.digest for n, each in enumerate(infos)}
                more = {f"containerd.io/gc.ref.content.x{n}": f"sha256:{n:064x}" for n in range(pick.choice([0, 60]))}
                await store.content.update(info.digest, ROOTED | many | more)
        case 3:
            await store.leases.create(lease, {GC_FLAT: ""} if pick.random() < 0.5 else {})
        case 4:
            await store.leases.update(lease, {GC_FLAT: ""} if pick.random() < 0.5 else {})
        case 5:
            await store.leases.delete(lease, sync=pick.random() < 0.2)
        case 6:
            async with store.transaction() as transaction:
                for n in range(pick.choice([1, 60])):
                    transaction.leases.add(lease, LeaseResource(f"n{n}", "images"))
        case 7:
            await store.images.create(name, orlop.Descriptor("x", pick.choice([BIG, LAYER, SMALL]), 1))
        case 8:
            await store.images.delete(name, sync=pick.random() < 0.3)
        case 9:
            await native.prepare(f"{name} active", pick.choice(["", f"n{pick.randrange(6)}"]), ROOTED)
            await native.commit(name, f"{name} active", ROOTED if pick.random() < 0.5 else {})
        case 10:
            await native.remove(name)
        case _:
            async with store.content.ingest(f"a{pick.randrange(3)}", expected=pick.choice([BIG, LAYER])) as writer:
                if pick.random() < 0.7:
                    await writer.write(data[: pick.randrange(len(data))])
                else:
                    await writer.commit(labels=ROOTED)


@pytest.mark.parametrize("adopting", [False, True], ids=["put", "ingest"])
def test_what_comes_again_before_it_was_swept_is_held_once(adopting: bool) -> None:
    world = World()
    here, data = Context(namespace="default"), b"dead, and here again"
    kept = Context(namespace="other")
    world.transact(lambda txn: content.put(txn, PutContent(data, labels=ROOTED), kept))

    async def sealed(txn: Transaction) -> bool:
        return bool(decode_clock(await txn.get(keys.CLOCK)).sealed)

    async def again(txn: Transaction) -> object:
        if adopting:
            request = OpenIngest("r", expected=digest_of(data))
            return await ingest_plans.open_adopting(txn, request, here, Sharing.SHARED)
        return await content.put(txn, PutContent(data), here)

    async def holders(txn: Transaction) -> tuple[int, int]:
        blob = await ledger.find_blob(txn, digest_of(data))
        prefix = keys.blob_holders(digest_of(data))
        return blob.holders if blob else 0, len(await txn.scan(prefix, prefix + b"\x7f", 9)) + adopting

    world.transact(again)
    assert world.read(holders) == (2, 2)
    world.now_ns += 48 * 3600 * 10**9
    while not world.read(sealed):
        assert world.collect(1, most_steps=1).more
    world.transact(again)
    assert world.read(holders) == (2, 2)


@pytest.mark.parametrize("snapshotter", ["native", "overlayfs"])
async def test_a_mount_that_shows_a_snapshot_that_is_gone_is_told(tmp_path: Path, snapshotter: str) -> None:
    if os.getuid():
        pytest.skip("only root mounts")
    folder, engine, at = tmp_path / "store", MemoryStore(), tmp_path / "at"
    at.mkdir()
    async with running(folder, engine) as up:
        snapshots = up.store.snapshots.using(snapshotter)
        try:
            await snapshots.prepare("below active", "", ROOTED)
            await snapshots.commit("below", "below active", ROOTED)
            mounts = await snapshots.prepare("a", "below", ROOTED)
        except OrlopError as error:
            pytest.skip(str(error))
        try:
            _mount(mounts, at)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot mount: {error.stderr}")
        try:
            found, done = await checked(up.store)
            assert found == []
            assert done.mounts
            number = int.from_bytes(dump(engine)[keys.snapshot_id("default", f"{snapshotter}/a")], "big")
            await snapshots.remove("a")
            await up.store.snapshots.using(snapshotter).cleanup()
            await up.store.collect(empty_bin=True)
            for repair in (False, True):
                told = [each for each in (await checked(up.store, repair=repair))[0] if each.problem is Problem.MOUNT]
                assert [(each.name, each.fixed) for each in told] == [(f"{snapshotter}/{number}", Fixed.NO)]
                assert str(at) in told[0].detail
        finally:
            _unmount(at)
        assert not [each for each in (await checked(up.store))[0] if each.problem is Problem.MOUNT]


def _mount(mounts: list[orlop.Mount], at: Path) -> None:
    (mount,) = mounts
    options = [option for option in mount.options if option not in ("rbind", "rw")]
    command = ["mount", "--bind", mount.source, str(at)]
    if mount.type != "bind":
        command = ["mount", "-t", mount.type, "-o", ",".join(options), mount.source or "overlay", str(at)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _unmount(at: Path) -> None:
    subprocess.run(["umount", str(at)], check=True)
