"""Snapshots and images as file systems, at a shell. Source: spec cli 3, 5 and 10 (34 to 42, 49, 50, 54, 55)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import make_layout
from tests.support.shell import CLI, ENVIRONMENT, Shell


def mounting_works() -> bool:
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(not mounting_works(), reason="mounting is not allowed here")
needs_namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "-U", "true"], capture_output=True, check=False).returncode != 0,
    reason="user namespaces are not allowed here",
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image") / "layout"
    make_layout(folder, "--layers", "3", "--files", "30", "--size", "300K", "--tag", "latest")
    return folder


@pytest.fixture
def registry(layout: Path) -> Iterator[str]:
    """The name of an image of three layers."""
    with LayoutRegistry({"x": layout}) as registry:
        yield f"{registry.address}/x:latest"


@pytest.fixture
def pulled(shell: Shell, registry: str) -> str:
    shell.out("pull", "--plain-http", "--quiet", registry)
    return registry


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "mnt"
    found.mkdir()
    yield found
    while os.path.ismount(found):
        subprocess.run(["umount", "-l", found], check=True)


def test_a_pull_unpacks_and_says_how_many_layers(shell: Shell, registry: str) -> None:
    assert "3 layers unpacked" in shell.out("pull", "--plain-http", registry)
    chain = shell.out("images", "rootfs", registry).strip()
    names = shell.out("snapshots", "ls", "-q").split()
    assert len(names) == 3
    assert chain in names
    assert shell.out("snapshots", "ls", "kind!=committed", "-q") == ""


def test_a_pull_may_leave_the_layers_packed(shell: Shell, registry: str) -> None:
    assert "unpacked" not in shell.out("pull", "--plain-http", "--no-unpack", registry)
    assert shell.out("snapshots", "ls", "-q") == ""
    chain = shell.out("images", "unpack", registry).strip()
    assert json.loads(shell.out("snapshots", "info", chain))["kind"] == "committed"
    assert json.loads(shell.out("images", "unpack", "--json", registry))["chain_id"] == chain


def test_usage_names_every_layer_from_the_top(shell: Shell, pulled: str) -> None:
    lines = shell.out("images", "usage", "-b", pulled).splitlines()
    assert lines[0].split() == ["KEY", "SIZE", "INODES"]
    assert len(lines) == 4
    assert lines[1].split()[0] == shell.out("images", "rootfs", pulled).strip()
    assert all(int(line.split()[1]) > 0 for line in lines[1:])
    assert sorted(lines[1:]) == sorted(shell.out("snapshots", "usage", "-b").splitlines()[1:])


def test_removing_an_image_removes_its_snapshots(shell: Shell, pulled: str, tmp_path: Path) -> None:
    shell.out("images", "rm", pulled)
    assert shell.out("snapshots", "ls", "-q") == ""
    assert [path for path in (tmp_path / "store" / "snapshots").rglob("*") if path.name.isdigit()] == []


def test_the_life_of_a_snapshot(shell: Shell) -> None:
    assert shell.out("snapshots", "prepare", "a b") == ""
    assert shell.out("snapshots", "commit", "base", "a b") == ""
    shell.out("snapshots", "prepare", "work", "base", "--label", "tier=db")
    shell.out("snapshots", "view", "look", "base")
    lines = shell.out("snapshots", "ls", "name~=^(base|work|look)$").splitlines()
    assert [line.split()[0] for line in lines] == ["KEY", "base", "look", "work"]
    assert shell.out("snapshots", "label", "work", "tier=", "zone=a").endswith("zone=a\n")
    assert json.loads(shell.out("snapshots", "info", "work"))["parent"] == "base"
    assert shell.out("snapshots", "tree") == " base\n  \\_ look\n  \\_ work\n"
    done = shell.run("snapshots", "rm", "base", "look", "none", "work")
    assert (done.returncode, done.stdout) == (1, "look\nwork\n")
    assert "cannot remove" in done.stderr
    assert shell.out("snapshots", "rm", "base") == "base\n"


def test_what_the_shell_made_outlives_a_collection(shell: Shell, pulled: str) -> None:
    chain = shell.out("images", "rootfs", pulled).strip()
    shell.out("snapshots", "view", "look", chain)
    shell.out("images", "rm", pulled)
    assert "look" in shell.out("snapshots", "ls", "-q").split()
    assert chain in shell.out("snapshots", "ls", "-q").split()


def test_a_tree_of_several_roots_is_sorted(shell: Shell) -> None:
    for key, parent in (("b", ""), ("a", ""), ("b2", "b"), ("b1", "b"), ("c", "b1")):
        shell.out("snapshots", "prepare", "tmp", *([parent] if parent else []))
        shell.out("snapshots", "commit", key, "tmp")
    assert shell.out("snapshots", "tree") == " a\n b\n  \\_ b1\n    \\_ c\n  \\_ b2\n"


def test_mounts_are_printed_for_a_shell_and_as_json(shell: Shell) -> None:
    found = json.loads(shell.out("snapshots", "prepare", "--mounts", "--snapshotter", "native", "a"))
    assert found[0].keys() == {"Type", "Source", "Target", "Options"}
    line = shell.out("snapshots", "mounts", "--snapshotter", "native", "/t x", "a").strip()
    assert line == f"mount -t bind {found[0]['Source']} '/t x' -o rbind,rw"


@needs_mounts
def test_printed_mounts_work_in_a_shell(shell: Shell, pulled: str, folder: Path) -> None:
    chain = shell.out("images", "rootfs", pulled).strip()
    script = shell.out("snapshots", "view", "--target", str(folder), "look", chain)
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)
    assert len(os.listdir(folder)) > 0
    shell.out("snapshots", "unmount", str(folder))
    assert os.listdir(folder) == []


@needs_mounts
def test_an_image_is_mounted_again_and_again(shell: Shell, pulled: str, folder: Path) -> None:
    for _ in range(2):
        assert shell.out("images", "mount", pulled, str(folder)) == f"{folder}\n"
        assert shell.out("images", "mount", pulled, str(folder)) == f"{folder}\n"  # it is there already
        with pytest.raises(OSError, match="Read-only"):
            (folder / "new").write_text("")
        shell.out("images", "unmount", str(folder))
        assert os.listdir(folder) == []
        assert str(folder) not in shell.out("snapshots", "ls", "-q").split()


@needs_mounts
def test_what_is_written_to_a_mounted_image_stays_until_told(shell: Shell, pulled: str, folder: Path) -> None:
    shell.out("images", "mount", "--rw", pulled, str(folder))
    (folder / "new").write_text("mine")
    done = shell.run("images", "unmount", str(folder))
    assert done.returncode == 0
    assert "--rm" in done.stderr
    other = shell.run("images", "mount", pulled, str(folder))
    assert other.returncode == 1
    assert "another mount" in other.stderr
    shell.out("images", "mount", "--rw", pulled, str(folder))
    assert (folder / "new").read_text() == "mine"
    shell.out("images", "unmount", "--rm", str(folder))
    assert str(folder) not in shell.out("snapshots", "ls", "-q").split()


def test_a_mount_without_a_folder_makes_nothing(shell: Shell, pulled: str, tmp_path: Path) -> None:
    done = shell.run("images", "mount", pulled, str(tmp_path / "none"))
    assert done.returncode == 3
    assert shell.out("snapshots", "ls", "kind!=committed", "-q") == ""


@needs_mounts
def test_a_diff_is_a_layer_on_standard_output_or_kept(shell: Shell, folder: Path, tmp_path: Path) -> None:
    shell.out("snapshots", "prepare", "a")
    shell.out("snapshots", "mount", "a", str(folder))
    (folder / "file").write_text("hello")
    shell.out("snapshots", "unmount", str(folder))
    output = tmp_path / "layer.tar"
    shell.out("snapshots", "diff", "--media-type", "application/vnd.oci.image.layer.v1.tar", "-o", str(output), "a")
    with tarfile.open(output) as layer:
        assert layer.getnames() == ["file"]
    command = [*CLI, "--store", str(tmp_path / "store"), "snapshots", "diff", "a"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as layer:
        assert layer.getnames() == ["file"]
    kept = json.loads(shell.out("snapshots", "diff", "--keep", "--label", "a=b", "a"))
    labels = json.loads(shell.out("content", "info", kept["digest"]))["labels"]
    assert labels["a"] == "b"
    assert "containerd.io/gc.root" in labels


def test_the_snapshotter_comes_from_the_flag_then_the_environment(shell: Shell) -> None:
    shell.out("snapshots", "prepare", "a", CONTAINERD_SNAPSHOTTER="native")
    assert shell.out("snapshots", "ls", "-q", "--snapshotter", "native") == "a\n"
    assert shell.out("snapshots", "ls", "-q", "--snapshotter", "native", CONTAINERD_SNAPSHOTTER="overlayfs") == "a\n"
    done = shell.run("snapshots", "ls", "--snapshotter", "zfs")
    assert done.returncode == 1
    assert "zfs" in done.stderr
    assert "overlayfs, native, btrfs" in done.stderr


def test_a_namespace_with_snapshots_is_not_empty(shell: Shell) -> None:
    shell.out("-n", "full", "snapshots", "prepare", "a")
    done = shell.run("namespaces", "rm", "full")
    assert done.returncode == 1
    assert "snapshots (1)" in done.stderr


def unprivileged(arguments: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """In a user namespace where we are somebody, and nobody else exists."""
    return subprocess.run(
        ["unshare", *options, sys.executable, *CLI[1:], *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_namespaces
def test_without_privileges_native_unpacks_and_says_what_it_could_not(tmp_path: Path, registry: str) -> None:
    store = ["--store", str(tmp_path / "store")]
    done = unprivileged([*store, "pull", "--plain-http", registry], "-U", "--map-user=1000", "--map-group=1000")
    assert done.returncode == 0, done.stderr
    assert "note: owners are not kept: that needs privileges" in done.stderr
    assert os.listdir(tmp_path / "store" / "snapshots") == ["native"]
    (tmp_path / "mnt").mkdir()
    done = unprivileged(
        [*store, "images", "mount", registry, str(tmp_path / "mnt")], "-U", "--map-user=1000", "--map-group=1000"
    )
    assert done.returncode == 1
    assert "mounting needs root" in done.stderr
    done = unprivileged([*store, "images", "rm", registry], "-U", "--map-user=1000", "--map-group=1000")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "store" / "snapshots" / "native") == []


@needs_namespaces
@needs_mounts
def test_in_a_user_namespace_overlayfs_is_the_default_and_mounts(tmp_path: Path, registry: str) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    orlop = [sys.executable, *CLI[1:], "--store", str(tmp_path / "store")]
    script = '"$@" pull -q --plain-http $0 && "$@" images mount $0 $MNT && ls $MNT && cat /proc/mounts | grep $MNT'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, registry, *orlop],
        env={**ENVIRONMENT, "MNT": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "userxattr" in done.stdout
    assert os.listdir(tmp_path / "store" / "snapshots") == ["overlayfs"]
