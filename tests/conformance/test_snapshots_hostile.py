"""What clients may put into a snapshot or into its record, and nobody would expect.

The files are a client's: names, links, depth and flags are as it likes, and the store does its work with them as root.
Source: spec snapshots 2.1, 8.1, 9, 10.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition, OrlopError

from ..support.layers import quick_store
from ..support.snapshotters import Snapshots, Subject, kinds, paths
from ..support.trees import apply, make_file, make_folder, tree

DEPTH = 1500
LONG = "deep" * 20


async def gone(subject: Subject, name: str, folder: Path) -> None:
    """Removed, and its folder is no longer there."""
    await subject.snapshots.remove(name)
    with trio.fail_after(20):
        await subject.store.collect()
        await subject.snapshots.cleanup()
    assert not folder.exists()


# files ------------------------------------------------------------------------------------------------------


async def test_links_to_outside_are_not_followed(plain: Subject, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    apply(outside, [make_folder("d"), make_file("d/f", b"x" * 100_000), make_file("g", b"precious")])
    before = tree(outside, exactly=True)
    (folder,) = paths(await plain.prepare("a"))
    for name, target in {"folder": outside, "file": outside / "g", "up": "../../..", "loop": "loop"}.items():
        (folder / name).symlink_to(target)
    assert (await plain.snapshots.usage("a")).inodes == 5
    await plain.commit("c", "a")
    own = paths(await plain.prepare("b", "c"))[0]
    if plain.name == "native":
        assert tree(own) == tree(folder)
    await gone(plain, "b", own)
    await gone(plain, "c", folder)
    assert tree(outside, exactly=True) == before


@contextmanager
def deep_below(folder: Path) -> Iterator[None]:
    """So many folders in each other that no path names the last; if they are left, they go."""
    at = os.open(folder, os.O_PATH)
    for _ in range(DEPTH):
        os.mkdir(LONG, dir_fd=at)
        below = os.open(LONG, os.O_PATH, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    try:
        yield
    finally:
        for left in (folder, *folder.parent.parent.glob("*")):  # the removal at the end of a test gives up on them
            if left.exists():
                subprocess.run(["rm", "-rf", str(left)], check=True)


async def test_a_tree_may_be_deeper_than_any_path(plain: Subject) -> None:
    (folder,) = paths(await plain.prepare("a"))
    with deep_below(folder):
        assert (await plain.snapshots.usage("a")).inodes == DEPTH + 2
        await plain.commit("c", "a")
        own = paths(await plain.prepare("b", "c"))[0]
        assert (await plain.snapshots.usage("b")).inodes == {"overlayfs": 1, "native": DEPTH + 2}[plain.name]
        await gone(plain, "b", own)
        await gone(plain, "c", folder)


@contextmanager
def kept_by_a_flag(file: Path) -> Iterator[None]:
    subprocess.run(["chattr", "+i", str(file)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)


flags = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("chattr"), reason="flags need root and chattr")


@flags
async def test_what_cannot_be_removed_holds_up_no_other_removal(plain: Subject) -> None:
    (folder,) = paths(await plain.prepare("a"))
    (other,) = paths(await plain.prepare("b"))
    apply(folder, [make_file("f", b"data")])
    with kept_by_a_flag(folder / "f"), trio.fail_after(20):
        await plain.snapshots.remove("a")
        await plain.snapshots.remove("b")
        for call in (plain.store.collect, plain.snapshots.cleanup):
            with suppress(OrlopError):  # it may be told
                await call()
        assert await kinds(plain.snapshots) == {}
        assert not other.exists()
        await plain.prepare("a")
        assert await kinds(plain.snapshots) == {"a": "ACTIVE"}
    with trio.fail_after(20):
        while folder.exists():
            with suppress(OrlopError):
                await plain.snapshots.cleanup()


@flags
async def test_what_cannot_be_removed_is_no_failure_of_anybody_elses_call(plain: Subject) -> None:
    """Source: spec snapshots 10: a deletion that fails is logged, the call succeeds."""
    (folder,) = paths(await plain.prepare("a"))
    apply(folder, [make_file("f", b"data")])
    other = plain.within("other").store
    await other.images.create("i", orlop.Descriptor("type", "sha256:" + "a" * 64, 7))
    await other.leases.create("l")
    await other.with_lease("l").snapshots.using(plain.name).prepare("k")
    with kept_by_a_flag(folder / "f"), trio.fail_after(20):
        await plain.snapshots.remove("a")
        await other.images.delete("i", sync=True)
        await other.leases.delete("l", sync=True)
        assert await kinds(other.snapshots.using(plain.name)) == {}
        await plain.store.collect()


async def test_a_folder_that_is_mounted_elsewhere_can_be_removed(mounting_subject: Subject) -> None:
    if mounting_subject.name == "btrfs":
        pytest.skip("a mounted subvolume stays")
    await mounting_subject.layer("c", "", make_file("f", b"data"))
    mounts = await mounting_subject.prepare("a", "c")
    async with orlop.mounted(mounts) as path:
        apply(path, [make_file("g", b"more")])
        await gone(mounting_subject, "a", paths(mounts)[0])
    assert len(await mounting_subject.names()) == 1


# records ----------------------------------------------------------------------------------------------------


async def test_a_label_may_be_as_long_as_it_may_whatever_it_means(snapshots: Snapshots) -> None:
    for label in (
        "gc.ref.snapshot.native",
        "gc.ref.snapshot.overlayfs/x",
        "gc.ref.content.x",
        "gc.ref.image",
        "gc.bref.image",
        "gc.bref.snapshot.native",
        "gc.root",
        "snapshot.ref",
        "snapshot/x",
    ):
        labels = {f"containerd.io/{label}": "x" * (4096 - len(f"containerd.io/{label}"))}
        await snapshots.prepare("a", labels=labels)
        assert (await snapshots.get("a")).labels == labels
        await snapshots.update("a", {}, ["labels"])
        await snapshots.update("a", labels, [f"labels.containerd.io/{label}"])
        await snapshots.commit("c", "a", labels)
        assert (await snapshots.get("c")).labels == labels
        await snapshots.remove("c")


async def test_the_longest_names_go_together(subject: Subject) -> None:
    """Of a namespace, a lease, a parent and its children."""
    there = subject.within("n" * 76)
    lease = "l" * 512
    await there.store.leases.create(lease)
    leased = there.leased(lease)
    parent = ""
    for letter in "abc":
        await leased.prepare("k" * 512, parent)
        await leased.commit(letter * 512, "k" * 512)
        parent = letter * 512
    await leased.view("v" * 512, parent)
    await subject.store.collect()
    assert len(await there.names()) == 4
    for letter in "vcba":
        await leased.remove(letter * 512)
    assert await there.names() == set()


async def test_a_container_of_the_longest_name_keeps_its_snapshot(subject: Subject) -> None:
    await subject.store.leases.create("l")
    await subject.leased("l").prepare("k" * 512)
    await subject.store.containers.create(
        orlop.Container(
            "c" * 76,
            runtime=orlop.Runtime("r"),
            spec=orlop.Any("t", b""),
            snapshotter=subject.name,
            snapshot_key="k" * 512,
        )
    )
    await subject.store.leases.delete("l", sync=True)
    await subject.store.collect()
    assert await subject.names() == {"k" * 512}


async def test_more_layers_than_can_be_mounted_are_refused_before_they_are_made(tmp_path: Path) -> None:
    """And the highest that there can be can be looked at."""
    async with quick_store(tmp_path / "store") as store:
        snapshots = store.snapshots.using("overlayfs")
        below = ""
        for number in range(499):
            await snapshots.prepare("work", below)
            below = (await snapshots.commit(f"layer-{number}", "work")).name
        (mount,) = await snapshots.view("look", below)
        assert mount.options[0].count(":") == 498
        with pytest.raises(FailedPrecondition, match="499"):
            await snapshots.prepare("work", below)
        assert "work" not in {info.name async for info in snapshots.list()}
