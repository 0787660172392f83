"""Mounts that are performed: where, for how long, and that what may not be written is not.

Source: spec snapshots 8; 13, cases 12, 24, 25, 48.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import OrlopError

from ..support.snapshotters import Subject
from ..support.trees import apply, change_mode, change_owner, make_file, make_folder, names, remove, tree


def is_mounted(folder: str | Path) -> bool:
    """Binds included, which look like any other folder."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in file]
    return str(folder) in points


async def test_mounts_are_performed_at_a_folder_of_their_own(mounting_subject: Subject) -> None:
    mounts = await mounting_subject.prepare("a")
    async with orlop.mounted(mounts) as path:
        assert is_mounted(path)
        apply(path, [make_file("f", b"data")])
    assert not is_mounted(path)
    assert not os.path.exists(path)
    async with orlop.mounted(mounts) as again:
        assert (Path(again) / "f").read_bytes() == b"data"


async def test_mounts_are_performed_at_a_given_folder(mounting_subject: Subject, tmp_path: Path) -> None:
    at = tmp_path / "with a space, a comma and 牛"
    at.mkdir()
    async with orlop.mounted(await mounting_subject.prepare("a"), str(at)) as path:
        assert path == str(at)
        assert is_mounted(at)
        apply(at, [make_file("f", b"data")])
    assert not is_mounted(at)
    assert names(at) == []


async def test_mounts_end_with_the_block_however_it_ends(mounting_subject: Subject) -> None:
    with pytest.raises(KeyError):
        async with orlop.mounted(await mounting_subject.prepare("a")) as path:
            assert is_mounted(path)
            raise KeyError(path)
    assert not is_mounted(path)
    with trio.CancelScope() as scope:
        async with orlop.mounted(await mounting_subject.snapshots.mounts("a")) as path:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not is_mounted(path)


async def test_a_mount_that_fails_leaves_nothing(tmp_path: Path, mounting: None) -> None:
    at = tmp_path / "at"
    at.mkdir()
    sound = orlop.Mount("bind", str(tmp_path), "", ["rbind", "ro"])
    lost = orlop.Mount("bind", str(tmp_path / "not-there"), "", ["rbind", "rw"])
    for mounts in ([lost], [sound, lost], [orlop.Mount("no-such-type", "none", "", [])]):
        with pytest.raises((OSError, OrlopError)):
            async with orlop.mounted(mounts, str(at)):
                pass
        assert not is_mounted(at)
        assert names(at) == []


async def test_a_view_cannot_be_written_by_root(mounting_subject: Subject) -> None:
    """48"""
    await mounting_subject.layer("c1", "", make_file("f", b"data"), make_folder("d"))
    await mounting_subject.layer("c2", "c1", make_file("g", b"more"))
    for number, parent in enumerate(("", "c1", "c2")):
        async with orlop.mounted(await mounting_subject.view(f"v{number}", parent)) as path:
            before = tree(path)
            assert len(before) == [0, 2, 3][number]
            for change in (make_file("new"), make_file("f", b"changed"), make_folder("e"), remove("f")):
                with pytest.raises(OSError):
                    apply(path, [change])
            with pytest.raises(OSError):
                apply(path, [change_mode(".", 0o700)])
            assert tree(path) == before


async def test_many_views_and_actives_of_one_parent_do_not_meet(mounting_subject: Subject) -> None:
    await mounting_subject.layer("c", "", make_file("f", b"data"))
    one, two = await mounting_subject.prepare("one", "c"), await mounting_subject.prepare("two", "c")
    view = await mounting_subject.view("view", "c")
    async with orlop.mounted(one) as first, orlop.mounted(two) as second, orlop.mounted(view) as third:
        apply(first, [make_file("f", b"one")])
        apply(second, [remove("f"), make_file("g")])
        assert (names(first), names(second), names(third)) == (["f"], ["g"], ["f"])
        assert (Path(third) / "f").read_bytes() == b"data"


async def test_the_removal_of_one_namespaces_leaves_anothers_to_be_mounted(mounting_subject: Subject) -> None:
    """12"""
    one, two = mounting_subject.within("one"), mounting_subject.within("two")
    await one.layer("c", "", make_file("f", b"one"))
    await two.layer("c", "", make_file("f", b"two"))
    await one.snapshots.remove("c")
    await mounting_subject.store.collect()
    async with orlop.mounted(await two.view("v", "c")) as path:
        assert (Path(path) / "f").read_bytes() == b"two"


async def test_mounts_work_when_they_were_asked_for_again(mounting_subject: Subject) -> None:
    await mounting_subject.layer("c", "", make_file("f", b"data"))
    await mounting_subject.prepare("a", "c")
    async with orlop.mounted(await mounting_subject.snapshots.mounts("a")) as path:
        apply(path, [make_file("g", b"more")])
    async with orlop.mounted(await mounting_subject.snapshots.mounts("a")) as path:
        assert names(path) == ["f", "g"]


async def test_a_snapshot_upon_another_is_its_whole_and_its_own_change(mounting_subject: Subject) -> None:
    """Rebased, where that can be: what lies below shows through."""
    if mounting_subject.name != "overlayfs":
        pytest.skip("has no rebase")
    await mounting_subject.layer("p", "", make_file("below", b"p"), make_file("both", b"p"))
    async with orlop.mounted(await mounting_subject.prepare("a")) as path:
        apply(path, [make_file("above", b"a"), make_file("both", b"a"), change_owner("above", 3, 4)])
    await mounting_subject.commit("c", "a", parent="p")
    flat = mounting_subject.flat(
        "flat", make_file("below", b"p"), make_file("both", b"a"), make_file("above", b"a"), change_owner("above", 3, 4)
    )
    await mounting_subject.holds("c", flat)


async def test_usage_counts_what_was_written_through_the_mount(mounting_subject: Subject) -> None:
    await mounting_subject.layer("c1", "", make_file("large", os.urandom(1 << 20)))
    await mounting_subject.layer("c2", "c1", make_file("small", os.urandom(256 << 10)))
    whole, own = [(await mounting_subject.snapshots.usage(name)).size for name in ("c1", "c2")]
    assert 1 << 20 <= whole < 3 << 19
    if mounting_subject.name != "overlayfs":  # the whole tree: docs/differences.md
        own -= whole
    assert 256 << 10 <= own < 512 << 10
