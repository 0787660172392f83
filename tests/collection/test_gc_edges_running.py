"""Edge cases of when a collection runs, of clocks, and of disks that fail. Source: spec gc 17; a test's number is that
of its row. The other rows, and where those are that neither file has: test_gc_edges.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

import orlop
from orlop.actors.config import CollectorConfig
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.storage.memory import MemoryStore

from ..support.graphs import Graph, digest_of
from ..support.running_stores import SECOND, Files, Gate, StoppedClock, digests, running, until, until_gone

ONE, TWO = b"more than is kept in a record" * 2000, b"and another one of this size" * 2000
EXPIRE = "containerd.io/gc.expire"
ROOT = {"containerd.io/gc.root": "r"}
NEVER_S = 3600.0


def blob_files(folder: Path) -> list[str]:
    return os.listdir(folder / "blobs" / "sha256")


async def dead(store: orlop.Store, data: bytes = ONE) -> str:
    """A blob of a lease that is deleted."""
    lease = await store.leases.create()
    info = await store.with_lease(lease.id).content.write(f"dead-{lease.id}", data)
    await store.leases.delete(lease.id)
    return info.digest


async def change(store: orlop.Store, digest: str, times: int) -> None:
    for n in range(times):
        await store.content.update(digest, {"n": str(n)}, ["labels.n"])


async def imaged(store: orlop.Store, name: str, data: bytes) -> str:
    """A blob, and an image that keeps it."""
    async with store.lease() as leased:
        info = await leased.content.write(f"image-{name}", data)
        await leased.images.create(name, orlop.Descriptor("type", info.digest, info.size))
    return info.digest


# files and disks ---------------------------------------------------------------------------------------------


async def test_17_05_a_file_of_nobody_goes_or_is_reported(tmp_path: Path) -> None:
    engine = MemoryStore()
    async with running(tmp_path / "store", engine=engine) as up:
        kept = await up.store.content.write("kept", TWO, labels=ROOT)
        disk = engine.power_cut()
    orphan = tmp_path / "store" / "blobs" / "sha256" / f"{digest_of('orphan')[7:]}.999"
    orphan.write_bytes(b"orphan")
    async with running(tmp_path / "store", engine=disk) as up:
        await up.store.collect()
        found: list[m.Finding] = []
        await up.store.check(each=found.append)
        assert [each.name for each in found] == [f"blobs/sha256/{orphan.name}"]
        assert orphan.exists()
        await up.store.check(repair=True)
        assert not orphan.exists()
        assert await up.store.content.read(kept.digest) == TWO


async def test_17_06_a_removal_that_failed_is_told_and_done_by_the_next_collection(tmp_path: Path) -> None:
    files = Files()
    refusals = 1

    def refuse(call: str, path: str) -> None:
        nonlocal refusals
        if call == "unlink" and "/blobs/" in path and refusals:
            refusals -= 1
            raise PermissionError(13, "not permitted", path)

    files.before = refuse
    async with running(tmp_path / "store", files=files, pause_s=NEVER_S) as up:
        await dead(up.store)
        with pytest.raises(errors.Unavailable, match="collection failed"):
            await up.store.collect()
        assert len(blob_files(tmp_path / "store")) == 1
        await up.store.collect()
        assert blob_files(tmp_path / "store") == []


async def test_17_07_bytes_that_a_crash_left_go_after_the_restart_unasked(tmp_path: Path) -> None:
    files, engine = Files(), MemoryStore()

    def broken(call: str, path: str) -> None:
        if call == "unlink" and "/blobs/" in path:
            raise OSError(5, "broken", path)

    files.before = broken
    async with running(tmp_path / "store", engine=engine, files=files) as up:
        await dead(up.store)
        with pytest.raises(errors.Unavailable):
            await up.store.collect()
        assert await digests(up.store) == []
        assert len(blob_files(tmp_path / "store")) == 1
        disk = engine.power_cut()
    assert len(blob_files(tmp_path / "store")) == 1
    async with running(tmp_path / "store", engine=disk):
        await until(lambda: blob_files(tmp_path / "store") == [])


async def test_17_08_a_stray_name_among_the_blobs_keeps_no_other_from_going(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "blobs" / "sha256"
    async with running(tmp_path / "store") as up:
        for name in ("no digest", "0", digest_of("x")[7:], f"{digest_of('x')[7:]}.y"):
            (folder / name).write_bytes(b"stray")
        (folder / "folder.1").mkdir()
        await dead(up.store, ONE)
        await up.store.collect()
        await dead(up.store, TWO)
        await up.store.collect()
        assert await digests(up.store) == []
        assert [path for path in folder.iterdir() if path.is_file() and path.stat().st_size > 100] == []


async def test_17_25_a_collection_that_one_snapshotter_concerns_leaves_the_other_alone(tmp_path: Path) -> None:
    files = Files()
    touched: list[str] = []
    async with running(tmp_path / "store", files=files, pause_s=NEVER_S) as up:
        for name in ("native", "overlayfs"):
            await up.store.snapshots.using(name).prepare("kept", labels=ROOT)
            await up.store.snapshots.using(name).prepare("removed", labels=ROOT)
        await up.store.collect()
        await up.store.snapshots.using("native").remove("removed")
        files.before = lambda call, path: touched.append(path)
        await up.store.collect()
        assert [path for path in touched if "/overlayfs" in path] == []
    folders = tmp_path / "store" / "snapshots"
    assert len([path for path in (folders / "native").iterdir() if path.is_dir()]) == 1


# at the same time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [True, False], ids=["29", "30"])
async def test_17_29_and_30_what_is_deleted_during_a_clean_up_goes_too(tmp_path: Path, sync: bool) -> None:
    """With sync the file is gone on return; without, it goes though nobody says anything more."""
    files, folder = Files(), tmp_path / "store"
    async with running(folder, files=files) as up:
        await imaged(up.store, "one", ONE)
        second = await imaged(up.store, "two", TWO)
        await up.store.collect()
        files.before = gate = Gate("unlink", "/blobs/")

        async def delete_second() -> None:
            await up.store.images.delete("two", sync=sync)
            if sync:
                assert not [name for name in blob_files(folder) if name.startswith(second[7:])]

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: up.store.images.delete("one", sync=True))
                await gate.reached()
                nursery.start_soon(delete_second)
                await gate.open_soon()
        finally:
            gate.open()
        await until(lambda: blob_files(folder) == [])
        assert await digests(up.store) == []


@pytest.mark.parametrize("expected", [True, False])
async def test_17_38_a_digest_that_comes_back_before_its_file_is_unlinked_has_a_file(
    tmp_path: Path, expected: bool
) -> None:
    files, folder = Files(), tmp_path / "store"
    async with running(folder, files=files) as up:
        digest = await imaged(up.store, "one", ONE)
        await up.store.collect()
        files.before = gate = Gate("unlink", "/blobs/")

        async def bring_back() -> None:
            await up.store.content.write("again", ONE, expected=digest if expected else "", labels=ROOT)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: up.store.images.delete("one", sync=True))
                await gate.reached()
                assert await digests(up.store) == []
                nursery.start_soon(bring_back)
                await gate.open_soon()
        finally:
            gate.open()
        await up.store.collect()
        assert await up.store.content.read(digest) == ONE
        assert len(blob_files(folder)) == 1
        await up.store.content.delete(digest)
        await up.store.collect()
        assert blob_files(folder) == []


@pytest.mark.parametrize("clean", ["collect", "cleanup"])
async def test_17_39_a_snapshot_that_is_being_prepared_is_not_cleaned_away(tmp_path: Path, clean: str) -> None:
    files = Files()
    async with running(tmp_path / "store", files=files, pause_s=NEVER_S) as up:
        snapshots = up.store.snapshots.using("native")
        await snapshots.prepare("other", labels=ROOT)
        await snapshots.remove("other")
        files.after = gate = Gate("new_folder", "/native/")
        clean_up = up.store.collect if clean == "collect" else snapshots.cleanup
        prepared: list[orlop.Mount] = []

        async def prepare() -> None:
            prepared.extend(await snapshots.prepare("half", labels=ROOT))

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(prepare)
                await gate.reached()
                nursery.start_soon(clean_up)
                await gate.open_soon()
        finally:
            gate.open()
        await clean_up()
        assert list(await snapshots.mounts("half")) == prepared
        assert Path(prepared[0].source).is_dir()


async def test_17_40_an_image_that_is_created_during_a_collection_survives(tmp_path: Path) -> None:
    files = Files()
    async with running(tmp_path / "store", files=files) as up:
        await imaged(up.store, "one", ONE)
        await up.store.collect()
        files.before = gate = Gate("unlink", "/blobs/")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: up.store.images.delete("one", sync=True))
                await gate.reached()
                digest = await imaged(up.store, "two", TWO)
                gate.open()
        finally:
            gate.open()
        await up.store.collect()
        assert [image.name async for image in up.store.images.list()] == ["two"]
        assert await up.store.content.read(digest) == TWO


# when it runs ------------------------------------------------------------------------------------------------


async def test_17_17_the_old_target_of_an_image_goes_once_enough_has_changed(tmp_path: Path) -> None:
    async with running(tmp_path / "store", mutation_threshold=20) as up:
        old = await imaged(up.store, "app", ONE)
        new = await up.store.content.put(b"new", labels=ROOT)
        await up.store.images.update("app", target=orlop.Descriptor("type", new.digest, 3), mask=["target"])
        await change(up.store, new.digest, 20)
        await until_gone(up.store, old)
        assert await digests(up.store) == [new.digest]


@pytest.mark.parametrize("collected", [True, False], ids=["after a collection", "after the start"])
async def test_17_31_the_hundredth_change_makes_it_run_and_not_the_one_before(tmp_path: Path, collected: bool) -> None:
    async with running(tmp_path / "store") as up:
        if collected:
            await up.store.collect()
        loose = (await up.store.content.put(b"loose")).digest
        kept = (await up.store.content.put(b"kept", labels=ROOT)).digest
        await change(up.store, kept, 97)
        await trio.sleep(3 * CollectorConfig().pause_s)
        assert set(await digests(up.store)) == {loose, kept}
        await change(up.store, kept, 1)
        await until_gone(up.store, loose)
        assert await digests(up.store) == [kept]


async def test_17_32_changes_after_a_deletion_count_as_deletions(tmp_path: Path) -> None:
    """The store is dirty from the first deletion to the next collection."""
    gc = {"pause_s": NEVER_S, "deletion_threshold": 5, "mutation_threshold": 0}
    async with running(tmp_path / "store", **gc) as up:
        digest = await dead(up.store)
        for n in range(4):
            await up.store.content.put(b"%d" % n, labels=ROOT)
        await until_gone(up.store, digest)


async def test_17_32_as_many_deletions_as_the_threshold_run_it_at_once(tmp_path: Path) -> None:
    gc = {"pause_s": NEVER_S, "deletion_threshold": 5, "mutation_threshold": 0}
    async with running(tmp_path / "store", **gc) as up:
        found = [(await up.store.content.put(b"%d" % n, labels=ROOT)).digest for n in range(5)]
        loose = (await up.store.content.put(b"loose")).digest
        for digest in found:
            await up.store.content.delete(digest)
        await until_gone(up.store, loose)


@pytest.mark.slow
async def test_17_33_a_collection_that_failed_is_tried_again_and_who_waits_is_told(tmp_path: Path) -> None:
    files, attempts = Files(), []

    def refuse(call: str, path: str) -> None:
        if call == "unlink" and "/blobs/" in path:
            attempts.append(path)
            if len(attempts) <= 3:
                raise OSError(5, "broken", path)

    files.before = refuse
    async with running(tmp_path / "store", files=files) as up:
        await imaged(up.store, "app", ONE)
        with pytest.raises(errors.Unavailable, match="collection failed"):
            await up.store.images.delete("app", sync=True)
        with pytest.raises(errors.NotFound):
            await up.store.images.get("app")
        await until(lambda: blob_files(tmp_path / "store") == [])
        assert len(attempts) == 4
        assert await up.store.collect()


async def test_17_35_without_a_delay_at_start_nothing_runs_until_something_is_deleted(tmp_path: Path) -> None:
    async with running(tmp_path / "store", startup_delay_s=0, pause_s=0) as up:
        loose = (await up.store.content.put(b"loose")).digest
        await trio.sleep(0.1)
        assert up.collector.runs == 0
        assert await digests(up.store) == [loose]
        await dead(up.store)
        await until_gone(up.store, loose)


async def test_17_42_taking_an_absent_entry_from_a_lease_counts_as_a_deletion(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as up:
        await up.store.leases.create("lease")
        loose = (await up.store.content.put(b"loose")).digest
        await up.store.leases.remove("lease", orlop.LeaseResource(digest_of("absent"), "content"))
        await until_gone(up.store, loose)


async def test_17_52_what_a_deleted_sandbox_named_goes_once_enough_has_changed(tmp_path: Path) -> None:
    async with running(tmp_path / "store", mutation_threshold=20) as up:
        graph = Graph(up.store)
        await graph.build("s:base\ns:top parent=base\nb:B ref.snapshot.native=top")
        assert await graph.survivors() == {"s:base", "s:top"}
        kept = await up.store.content.put(b"kept", labels=ROOT)
        await up.store.sandboxes.delete("B")
        await change(up.store, kept.digest, 20)
        snapshots = up.store.snapshots.using("native")
        with trio.fail_after(10):
            while [info async for info in snapshots.list()]:
                await trio.sleep(0.005)


# clocks ------------------------------------------------------------------------------------------------------


async def test_17_12_a_lease_is_expired_when_now_is_strictly_later(tmp_path: Path) -> None:
    clock = StoppedClock()
    async with running(tmp_path / "store", clock=clock, pause_s=NEVER_S) as up:
        await up.store.leases.create("now", {EXPIRE: clock.text(1)})
        clock.at_ns += SECOND // 2
        digest = (await up.store.with_lease("now").content.put(b"held")).digest
        await up.store.collect()
        assert [lease.id async for lease in up.store.leases.list()] == ["now"]
        assert await digests(up.store) == [digest]
        clock.at_ns += SECOND // 2 + 1
        await up.store.collect()
        assert [lease.id async for lease in up.store.leases.list()] == []
        assert await digests(up.store) == []


async def test_17_09_a_ref_that_is_being_written_outlives_its_day(tmp_path: Path) -> None:
    """docs/differences.md"""
    clock = StoppedClock()
    async with running(tmp_path / "store", clock=clock) as up:
        async with up.store.content.ingest("ref") as writer:
            await writer.write(ONE)
            clock.at_ns += 23 * 3600 * SECOND
            await writer.write(TWO)
            clock.at_ns += 2 * 3600 * SECOND
            await up.store.collect()
            digest = (await writer.commit(labels=ROOT)).digest
        assert await up.store.content.read(digest) == ONE + TWO


@pytest.mark.parametrize("text", ["tomorrow", "2001-01-01", "2001-01-01T00:00:00", "0"])
async def test_17_13_a_lease_with_an_unparsable_expiry_stays(tmp_path: Path, text: str) -> None:
    clock = StoppedClock()
    async with running(tmp_path / "store", clock=clock) as up:
        await up.store.leases.create("lease", {EXPIRE: text})
        digest = (await up.store.with_lease("lease").content.put(b"held")).digest
        clock.at_ns += 100 * 365 * 24 * 3600 * SECOND
        await up.store.collect()
        assert await digests(up.store) == [digest]
        await up.store.leases.delete("lease", sync=True)
        assert await digests(up.store) == []


async def test_17_14_what_is_committed_under_an_expired_lease_is_unprotected(tmp_path: Path) -> None:
    """In one transaction, so that the lease is there for it."""
    async with running(tmp_path / "store") as up:
        async with up.store.with_lease("lease").transaction() as tx:
            tx.leases.create("lease", {EXPIRE: "2001-01-01T00:00:00Z"})
            put = tx.content.put(b"held")
        assert (await put).size == 4
        await up.store.collect()
        assert await digests(up.store) == []
        assert [lease async for lease in up.store.leases.list()] == []


async def test_17_47_a_condition_ceases_when_its_time_is_over(tmp_path: Path) -> None:
    clock = StoppedClock()
    async with running(tmp_path / "store", clock=clock) as up:
        graph = Graph(up.store)
        used = clock.text(1 - 2 * 3600)
        await graph.build(
            f"""
            s:base
            s:young parent=base cond.value-usedat={used}
            s:old cond.value-usedat={used}
            c:c root=r cond.snapshot.native/1=usedat<2h|young cond.snapshot.native/2=usedat>2h|old
            """
        )
        await up.store.with_lease("scaffold").leases.create("other")
        await up.store.leases.add("other", orlop.LeaseResource("old", "snapshots/native"))
        assert await graph.survivors() == {"c:c", "s:young", "s:base", "s:old", "L:other"}
        clock.at_ns += SECOND
        assert await graph.survivors() == {"c:c", "s:old", "L:other"}
        clock.at_ns += 1
        await up.store.leases.delete("other")
        assert await graph.survivors() == {"c:c", "s:old"}
