"""What orlop unpacks is what others make of the same image: umoci, and GNU tar layer by layer.

Images by make_images.py (hard links, symlinks, owners, extended attributes, whiteouts) and by umoci. Compared entry by
entry: type, mode, owner, times, links, extended attributes, content.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import orlop
from tests.support.layers import Tree, read_tree
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import make_layout

SNAPSHOTTERS = ("overlayfs", "native")
umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts need root")
pytestmark = [root]


@asynccontextmanager
async def unpacked(folder: Path, layout: Path, snapshotter: str) -> AsyncIterator[str]:
    """The image's root file system, pulled, unpacked and mounted."""
    with LayoutRegistry({"x": layout}) as registry:
        async with orlop.open_store(folder / "store") as store:
            request = orlop.PullImage(
                f"{registry.address}/x:latest",
                access=orlop.RegistryAccess(plain_http=True),
                unpack=True,
                snapshotter=snapshotter,
            )
            await store.pull(request)
            top = (await store.images.unpack(request.reference, snapshotter=snapshotter)).chain_id
            async with store.lease() as leased:
                snapshots = leased.snapshots.using(snapshotter)
                async with orlop.mounted(await snapshots.view("look", top)) as path:
                    yield path


def by_umoci(layout: Path, folder: Path) -> Path:
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:latest", folder / "bundle"], check=True, capture_output=True
    )
    return folder / "bundle" / "rootfs"


def by_tar(layout: Path, folder: Path) -> Path:
    """Layers without whiteouts, one after another."""
    target = folder / "tar"
    target.mkdir(mode=0o755)
    for digest in layers_of(layout):
        blob = layout / "blobs" / digest.replace(":", "/")
        command = ["tar", "-xzpf", blob, "-C", target, "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        subprocess.run([*command, "--no-overwrite-dir"], check=True)
    return target


def layers_of(layout: Path) -> list[str]:
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_text())
    return [layer["digest"] for layer in manifest["layers"]]


def shown(path: Path | str) -> Tree:
    """All but the root, whose times are nobody's."""
    tree = read_tree(path)
    tree.pop(".")
    return tree


def as_tar_sees_it(tree: Tree) -> Tree:
    """Without what tar does in its own way: it puts more into folders whose times it has set, and gives a hard link
    nothing of its header."""
    plain = {name: replace(entry, mtime_ns=0) if entry.kind == "dir" else entry for name, entry in tree.items()}
    return {name: replace(entry, uid=0, gid=0) if entry.links else entry for name, entry in plain.items()}


def differences(ours: Tree, theirs: Tree) -> list[str]:
    return [
        f"{name}: {ours.get(name)} != {theirs.get(name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


@umoci
@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
async def test_made_images_unpack_as_umoci_unpacks_them(tmp_path: Path, snapshotter: str) -> None:
    layout = tmp_path / "layout"
    make_layout(
        layout, "--layers", "4", "--files", "400", "--size", "3M", "--xattrs", "0.2", "--whiteouts", "12",
        "--tag", "latest",
    )  # fmt: skip
    theirs = shown(by_umoci(layout, tmp_path))
    assert len(theirs) > 400
    async with unpacked(tmp_path, layout, snapshotter) as path:
        assert differences(shown(path), theirs) == []


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
async def test_made_images_unpack_as_gnu_tar_unpacks_them(tmp_path: Path, snapshotter: str) -> None:
    layout = tmp_path / "layout"
    make_layout(layout, "--layers", "3", "--files", "400", "--size", "3M", "--xattrs", "0.2", "--tag", "latest")
    theirs = as_tar_sees_it(shown(by_tar(layout, tmp_path)))
    async with unpacked(tmp_path, layout, snapshotter) as path:
        assert differences(as_tar_sees_it(shown(path)), theirs) == []


@umoci
@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
async def test_images_that_umoci_made_unpack_as_it_unpacks_them(tmp_path: Path, snapshotter: str) -> None:
    """Three layers: a tree of every kind of file, changes to it, deletions with a folder made anew."""
    layout = tmp_path / "layout"
    run("init", "--layout", str(layout))
    run("new", "--image", f"{layout}:latest")
    for change in (make, alter, delete):
        bundle = tmp_path / f"bundle-{change.__name__}"
        run("unpack", "--image", f"{layout}:latest", str(bundle))
        change(bundle / "rootfs")
        run("repack", "--image", f"{layout}:latest", str(bundle))
    theirs = shown(by_umoci(layout, tmp_path))
    assert "etc/link" in theirs
    assert "usr/lib/gone" not in theirs
    async with unpacked(tmp_path, layout, snapshotter) as path:
        assert differences(shown(path), theirs) == []


def run(*arguments: str) -> None:
    subprocess.run(["umoci", *arguments], check=True, capture_output=True)


def make(tree: Path) -> None:
    for folder in ("etc", "usr/lib/deep", "home/user", "dev"):
        (tree / folder).mkdir(parents=True)
    (tree / "etc/passwd").write_text("root:x:0:0\n")
    os.link(tree / "etc/passwd", tree / "etc/passwd.link")
    (tree / "etc/link").symlink_to("/usr/lib")
    (tree / "usr/lib/gone").write_text("gone")
    (tree / "usr/lib/deep/old").write_text("old")
    (tree / "home/user/file").write_bytes(bytes(range(256)) * 40)
    os.chown(tree / "home/user", 1000, 1000)
    os.chown(tree / "home/user/file", 1000, 1001)
    (tree / "home/user").chmod(0o2750)
    (tree / "usr/lib/tool").write_text("#!/bin/sh\n")
    (tree / "usr/lib/tool").chmod(0o4755)
    os.mknod(tree / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    os.mkfifo(tree / "dev/pipe")
    os.setxattr(tree / "etc/passwd", "user.note", b"\0binary\xff")


def alter(tree: Path) -> None:
    (tree / "etc/passwd").unlink()
    (tree / "etc/passwd").write_text("root:x:0:0\nuser:x:1000:1000\n")
    (tree / "usr/lib/tool").chmod(0o755)
    (tree / "home/user/more").write_text("more")
    (tree / "etc/link").unlink()
    (tree / "etc/link").symlink_to("../home")


def delete(tree: Path) -> None:
    (tree / "usr/lib/gone").unlink()
    shutil.rmtree(tree / "usr/lib/deep")
    (tree / "usr/lib/deep").mkdir()
    (tree / "usr/lib/deep/new").write_text("new")
    shutil.rmtree(tree / "home/user")
    (tree / "home/user").write_text("a file now")
