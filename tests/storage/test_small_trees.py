"""What is done about a tree of a few entries without a process is what a worker process does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.protocol.errors import NotFound
from orlop.storage.archive.jobs import Done, Failed, Measure, Removed, RemoveTrees, Report, decode_report
from orlop.storage.archive.small import run_small
from orlop.storage.archive.worker import run_job


def by_worker(job: Measure | RemoveTrees, root: Path) -> Report:
    said: list[bytes] = []
    fd = os.open(root, os.O_RDONLY)
    try:
        run_job(job, [fd], said.append, lambda _: b"", confined=False)
    finally:
        os.close(fd)
    return decode_report(said[-1])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"k" * 5000)
    yield root
    assert (outside / "kept").read_bytes() == b"k" * 5000


def fill(folder: Path, entries: int) -> None:
    """So many in all: files of several sizes, two names for one, links to the outside, folders in each other."""
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 9000)
    (folder / "hard").hardlink_to(folder / "file")
    (folder / "soft").symlink_to("../../outside")
    (folder / "dangling").symlink_to("/nowhere")
    (folder / "deep").mkdir()
    (folder / "deep" / "er").mkdir()
    (folder / "deep" / "er" / "link").symlink_to("../../../outside/kept")
    os.mkfifo(folder / "deep" / "er" / "fifo")
    for n in range(entries - 8):
        (folder / "deep" / f"{n}").write_bytes(bytes(n))


@pytest.mark.parametrize("entries", [8, 9, 40, 64])
def test_a_small_tree_is_measured_as_a_worker_does(root: Path, entries: int) -> None:
    fill(root / "1", entries)
    measured = run_small(Measure("1"), str(root))
    assert measured == by_worker(Measure("1"), root)
    assert isinstance(measured, Done)
    assert measured.inodes == entries  # the folder itself, and one name fewer
    assert measured.size >= 9000


def test_a_larger_one_is_left_to_a_worker(root: Path) -> None:
    fill(root / "1", 65)
    assert run_small(Measure("1"), str(root)) is None
    assert run_small(RemoveTrees(["1"]), str(root)) is None
    assert by_worker(RemoveTrees(["1"]), root) == Removed()
    assert os.listdir(root) == []


def test_what_is_not_there_is_not_found_and_need_not_be_removed(root: Path) -> None:
    with pytest.raises(NotFound):
        run_small(Measure("1"), str(root))
    assert isinstance(by_worker(Measure("1"), root), Failed)
    assert run_small(RemoveTrees(["1"]), str(root)) == Removed()


@pytest.mark.parametrize("entries", [8, 21, 64])
def test_a_small_tree_is_removed_and_nothing_else(root: Path, entries: int) -> None:
    fill(root / "1", entries)
    fill(root / "2", 8)
    assert run_small(RemoveTrees(["1"]), str(root)) == Removed()
    assert os.listdir(root) == ["2"]
    assert run_small(RemoveTrees(["2"]), str(root)) == Removed()
    assert os.listdir(root) == []


def test_many_small_ones_are_many(root: Path) -> None:
    """The bound is the job's, not the tree's: what blocks a thread is all of it."""
    names = [str(n) for n in range(10)]
    for name in names:
        fill(root / name, 8)
    assert run_small(RemoveTrees(names), str(root)) is None
    assert 0 < len(os.listdir(root)) < 10
    assert by_worker(RemoveTrees(names), root) == Removed()
    assert os.listdir(root) == []


@pytest.mark.parametrize("there", ["file", "link"])
def test_what_is_no_folder_is_left_to_a_worker_to_tell_of(root: Path, there: str) -> None:
    if there == "file":
        (root / "1").write_bytes(b"")
    else:
        (root / "1").symlink_to("../outside")
    assert run_small(RemoveTrees(["1"]), str(root)) is None
    left = by_worker(RemoveTrees(["1"]), root)
    assert isinstance(left, Removed)
    assert list(left.left) == ["1"]
    assert run_small(Measure("1"), str(root)) is None
