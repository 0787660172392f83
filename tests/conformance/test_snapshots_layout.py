"""The folders of a snapshot, who owns them, and the mounts that are answered. Source: spec snapshots 8; 13.

What is written here is written past any mount, into the folders themselves.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orlop
from orlop.protocol.errors import NotFound, OrlopError

from ..support.snapshotters import ROOT, Home, Subject, paths
from ..support.trees import apply, change_owner, make_file, make_folder, names, tree

UIDS, GIDS = "containerd.io/snapshot/uidmapping", "containerd.io/snapshot/gidmapping"
AT_THE_END = {"userxattr", "index=off"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def committed_with(subject: Subject, name: str, parent: str, *changes: Callable[[Path], None]) -> Path:
    """The folder of a committed snapshot, changed before it was committed."""
    folder = paths(await subject.prepare(f"{name}-active", parent))[0]
    apply(folder, changes)
    await subject.commit(name, f"{name}-active")
    return folder


# overlayfs --------------------------------------------------------------------------------------------------


async def test_an_overlay_without_a_parent_is_one_bind_mount(overlay: Subject) -> None:
    """23"""
    (mount,) = await overlay.prepare("a")
    assert (mount.type, mount.target, mount.options) == ("bind", "", ["rw", "rbind"])
    (mount,) = await overlay.view("v")
    assert (mount.type, mount.target, mount.options) == ("bind", "", ["ro", "rbind"])


async def test_a_view_of_one_overlay_is_a_bind_mount_of_its_folder(overlay: Subject) -> None:
    """24"""
    (folder,) = paths(await overlay.prepare("a"))
    await overlay.commit("c", "a")
    (mount,) = await overlay.view("v", "c")
    assert (mount.type, mount.source, mount.options) == ("bind", str(folder), ["ro", "rbind"])


async def test_the_lower_folders_of_an_overlay_are_nearest_first(overlay: Subject) -> None:
    """25"""
    chain: list[Path] = []
    for number in range(3):
        folder = await committed_with(overlay, f"c{number}", f"c{number - 1}" if number else "")
        chain.insert(0, folder)
    lower = "lowerdir=" + ":".join(map(str, chain))
    (mount,) = await overlay.prepare("a", "c2")
    assert (mount.type, mount.source, mount.target) == ("overlay", "overlay", "")
    work, upper, *rest = mount.options
    own = Path(upper.removeprefix("upperdir="))
    assert own.name == "fs"
    assert own not in chain
    assert work == f"workdir={own.parent}/work"
    assert rest[0] == lower
    assert set(rest[1:]) <= AT_THE_END
    (mount,) = await overlay.view("v", "c2")
    assert (mount.type, mount.source, mount.target) == ("overlay", "overlay", "")
    assert mount.options[0] == lower
    assert set(mount.options[1:]) <= AT_THE_END


async def test_folders_of_an_overlay_lie_by_number(overlay: Subject) -> None:
    (active,) = paths(await overlay.prepare("a"))
    assert active.parent.parent == overlay.root
    assert active.parent.name.isdecimal()
    assert names(active.parent) == ["fs", "work"]
    assert (mode(active), mode(active.parent / "work")) == (0o755, 0o711)
    await overlay.commit("c", "a")
    upper, *_ = paths(await overlay.prepare("b", "c"))
    assert int(upper.parent.name) > int(active.parent.name)
    assert mode(upper) == 0o755


@needs_root
async def test_an_overlay_has_its_parents_owner(overlay: Subject) -> None:
    await committed_with(overlay, "c", "", change_owner(".", 7, 8))
    upper, *_ = paths(await overlay.prepare("a", "c"))
    assert (upper.stat().st_uid, upper.stat().st_gid) == (7, 8)


# native -----------------------------------------------------------------------------------------------------


async def test_a_native_snapshot_is_one_bind_mount(native: Subject) -> None:
    (mount,) = await native.prepare("a")
    assert (mount.type, mount.target, mount.options) == ("bind", "", ["rbind", "rw"])
    folder = Path(mount.source)
    assert folder.parent == native.root
    assert folder.name.isdecimal()
    assert mode(folder) == 0o755
    await native.commit("c", "a")
    (mount,) = await native.prepare("b", "c")
    assert (mount.type, mount.options) == ("bind", ["rbind", "rw"])
    assert Path(mount.source).parent == native.root
    assert mount.source != str(folder)
    (mount,) = await native.view("v", "c")
    assert (mount.type, mount.source, mount.options) == ("bind", str(folder), ["rbind", "ro"])
    (mount,) = await native.view("w")
    assert (mount.type, mount.options) == ("bind", ["rbind", "ro"])
    assert os.listdir(mount.source) == []


async def test_a_native_view_with_a_parent_has_no_folder(native: Subject) -> None:
    """27"""
    folder = await committed_with(native, "c", "", make_file("f", b"data"))
    before = native.folders()
    await native.view("v", "c")
    assert native.folders() == before
    await native.snapshots.remove("v")
    await native.store.collect()
    assert native.folders() == before
    assert (folder / "f").read_bytes() == b"data"


async def test_a_native_child_changes_nothing_of_its_parent(native: Subject) -> None:
    """26"""
    folder = await committed_with(
        native, "c", "", make_folder("d", 0o700), make_file("d/f", b"data"), make_file("g", b"more")
    )
    before = tree(folder, exactly=True)
    (own,) = paths(await native.prepare("a", "c"))
    apply(own, [make_file("d/f", b"other"), make_file("new")])
    (own / "g").unlink()
    os.truncate(own / "d" / "f", 1)
    assert tree(folder, exactly=True) == before
    await native.snapshots.remove("a")
    await native.store.collect()
    assert not own.exists()
    assert tree(folder, exactly=True) == before


def populate(root: Path) -> None:
    """One of each that a copy must keep."""
    (root / "folder").mkdir(mode=0o2750)
    (root / "folder" / "deeper").mkdir(mode=0o1777)
    (root / "folder").chmod(0o2750)
    (root / "folder" / "deeper").chmod(0o1777)
    (root / "file").write_bytes(b"data" * 5000)
    (root / "file").chmod(0o4711)
    (root / "empty").touch(0o000 if os.geteuid() == 0 else 0o400)
    os.link(root / "file", root / "folder" / "the same")
    os.link(root / "file", root / "folder" / "deeper" / "the same")
    with open(root / "sparse", "wb") as file:
        file.seek(10 << 20)
        file.write(b"end")
    (root / "symlink").symlink_to("folder/deeper")
    (root / "dangling").symlink_to("/nowhere/" + "x" * 200)
    (root / "name\nwith 牛").write_bytes(b"")
    (root / os.fsdecode(b"not \xff text")).write_bytes(b"")
    os.mkfifo(root / "pipe", 0o622)
    os.setxattr(root / "file", "user.attribute", b"\x00value")
    os.setxattr(root / "folder", "user.other", b"of a folder")
    with socket.socket(socket.AF_UNIX) as listener:
        where = os.open(root, os.O_PATH)
        listener.bind(f"/proc/self/fd/{where}/socket")
        os.close(where)
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(7, 200))
        os.chown(root / "folder", 1000, 2000)
        (root / "folder").chmod(0o2750)
        os.chown(root / "symlink", 5, 6, follow_symlinks=False)
        os.chown(root / "null", 0, 5)
        os.chown(root, 11, 12)
    root.chmod(0o711)
    for number, path in enumerate(sorted(root.rglob("*"), key=lambda path: -len(path.parts)), 1):
        os.utime(path, ns=(number * 10**9 + 1, number * 10**18 // 1000 + 123_456_789), follow_symlinks=False)
    os.utime(root, ns=(1, 1_234_567_890_123_456_789))


async def test_a_native_copy_is_exact(native: Subject) -> None:
    folder = await committed_with(native, "c", "", populate)
    (own,) = paths(await native.prepare("a", "c"))
    assert tree(own, exactly=True) == tree(folder, exactly=True)
    assert (own / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (own / "file").stat().st_ino != (folder / "file").stat().st_ino
    assert (own / "file").stat().st_nlink == 3


@needs_root
async def test_a_native_copy_has_the_attributes_of_the_system(native: Subject) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw, effective

    def add(root: Path) -> None:
        os.setxattr(root, "security.capability", capability)

    folder = await committed_with(
        native, "c", "", make_file("ping", b"#!", 0o755), lambda root: add(root / "ping"), change_owner(".", 3, 4)
    )
    (own,) = paths(await native.prepare("a", "c"))
    assert tree(own, exactly=True) == tree(folder, exactly=True)
    assert tree(own)["ping"].attributes == (("security.capability", capability),)


@needs_root
async def test_a_native_copy_has_trusted_attributes(native: Subject) -> None:
    folder = await committed_with(
        native, "c", "", make_file("f"), lambda root: os.setxattr(root / "f", "trusted.attribute", b"value")
    )
    (own,) = paths(await native.prepare("a", "c"))
    assert tree(own) == tree(folder)


async def test_a_native_copy_whose_source_is_lost_leaves_nothing(native: Subject) -> None:
    """45"""
    folder = await committed_with(native, "c", "", make_file("f"))
    shutil.rmtree(folder)
    before = native.folders()
    with pytest.raises((OrlopError, OSError)):
        await native.prepare("a", "c")
    await native.snapshots.cleanup()
    assert native.folders() == before
    with pytest.raises(NotFound):
        await native.snapshots.get("a")


# all that are folders ---------------------------------------------------------------------------------------


async def test_the_folder_of_all_is_for_the_store_alone(plain: Subject) -> None:
    await plain.prepare("a")
    assert mode(plain.root) == 0o700


async def test_a_failed_creation_leaves_no_folder(plain: Subject) -> None:
    """45"""
    await plain.committed("c")
    await plain.prepare("a")
    before = plain.folders()
    for create in (plain.prepare, plain.view):
        for key, parent, labels in [
            ("x", "not-there", {}), ("a", "", {}), ("a", "c", {}), ("x", "a", {}), ("", "", {}),
            ("x", "", {"k": "v" * 4096}), ("x", "", {UIDS: "0:abc:1"}), ("x", "c", {"containerd.io/snapshot.ref": "c"}),
        ]:  # fmt: skip
            with pytest.raises(OrlopError):
                await create(key, parent, labels)
            assert plain.folders() == before, (key, parent, labels)


async def test_two_namespaces_with_one_key_have_two_folders(plain: Subject) -> None:
    """N4"""
    mine = paths(await plain.prepare("a"))
    yours = paths(await plain.within("other").prepare("a"))
    assert mine != yours
    assert len(plain.folders()) == 2


async def test_the_folder_stays_at_commit(plain: Subject) -> None:
    """M7"""
    (folder,) = paths(await plain.prepare("a"))
    apply(folder, [make_file("f", b"data")])
    inode = folder.stat().st_ino
    await plain.commit("c", "a")
    assert paths(await plain.view("v", "c")) == [folder]
    assert folder.stat().st_ino == inode
    assert (folder / "f").read_bytes() == b"data"


@needs_root
@pytest.mark.parametrize(
    "uids,gids,owner",
    [
        ("", "", (0, 0)),
        ("0:1000:65536", "0:2000:65536", (1000, 2000)),
        ("0:1000:65536", "0:1000:65536", (1000, 1000)),
        ("0:1000:1,1:5000:10", "0:3000:1,1:5000:10", (1000, 3000)),
        ("1:5000:10,0:1000:1", "1:5000:10,0:3000:1", (1000, 3000)),
    ],
)
async def test_the_owner_is_who_owns_the_root_inside(
    plain: Subject, uids: str, gids: str, owner: tuple[int, int]
) -> None:
    """37"""
    mounts = await plain.prepare("a", "", {**({UIDS: uids, GIDS: gids} if uids else {}), **ROOT})
    (folder,) = paths(mounts)
    if not any(option.startswith("uidmap=") for option in mounts[0].options):
        assert (folder.stat().st_uid, folder.stat().st_gid) == owner
    assert mode(folder) == 0o755


MAPLESS = (
    "1:1000:10",
    "5:1000:10",
    "0:abc:1",
    "0:-1:1",
    "-1:0:1",
    "0:1000",
    "0:1000:",
    "x",
    ",",
    "0:1000:1,",
    "0:1:1:1",
)


async def test_a_mapping_that_tells_no_owner_is_refused(plain: Subject) -> None:
    """38"""
    for mapping in MAPLESS:
        for labels in (
            {UIDS: mapping},
            {GIDS: mapping},
            {UIDS: mapping, GIDS: "0:1:1"},
            {UIDS: "0:1:1", GIDS: mapping},
        ):
            with pytest.raises(OrlopError):
                await plain.prepare("a", "", {**labels, **ROOT})
    assert await plain.names() == set()
    assert plain.folders() == set()


async def test_mounts_point_to_what_is_there(plain: Subject) -> None:
    await plain.committed("c1")
    await plain.committed("c2", "c1")
    answered: list[Any] = [await plain.prepare("a1"), await plain.prepare("a2", "c1"), await plain.prepare("a3", "c2")]
    answered += [await plain.view("v1"), await plain.view("v2", "c1"), await plain.view("v3", "c2")]
    for mounts in answered:
        assert all(isinstance(mount, orlop.Mount) for mount in mounts)
        assert all(path.is_dir() for path in paths(mounts))


async def test_the_mounts_stay_when_the_store_is_opened_again(lasting_home: Home) -> None:
    """36"""
    async with lasting_home.open() as subject:
        await subject.committed("c1")
        await subject.committed("c2", "c1")
        before = {}
        for parent in ("", "c1", "c2"):
            before[f"a-{parent}"] = await subject.prepare(f"a-{parent}", parent)
            before[f"v-{parent}"] = await subject.view(f"v-{parent}", parent)
        infos = await subject.infos()
        usage = {name: await subject.snapshots.usage(name) for name in infos}
    async with lasting_home.open() as subject:
        assert await subject.infos() == infos
        assert {name: await subject.snapshots.usage(name) for name in infos} == usage
        for key, mounts in before.items():
            assert await subject.snapshots.mounts(key) == mounts
        after = await subject.prepare("after", "c2")
        assert after not in before.values()
