"""What a snapshot takes. Source: spec snapshots 9; 13, cases 28 to 30.

Where nothing but a mount leads to the files there is a mount; elsewhere they are written past it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import NotFound

from ..support.snapshotters import Subject, paths
from ..support.trees import Change, apply, hard_link, make_file, make_folder, remove, usage

KIB = 1024


def sparse(path: str, size: int, data: bytes) -> Change:
    def change(root: Path) -> None:
        with open(root / path, "wb") as file:
            file.write(data)
            file.truncate(size)

    return change


async def prepared_with(subject: Subject, key: str, parent: str, *changes: Change) -> Path:
    folder = paths(await subject.prepare(key, parent))[0]
    apply(folder, changes)
    return folder


async def used(subject: Subject, name: str) -> tuple[int, int]:
    answered = await subject.snapshots.usage(name)
    assert isinstance(answered, orlop.Usage)
    return answered.size, answered.inodes


async def test_an_empty_snapshot_is_one_folder(plain: Subject) -> None:
    (folder,) = paths(await plain.prepare("a"))
    assert await used(plain, "a") == (folder.stat().st_blocks * 512, 1)


async def test_a_file_with_two_names_counts_once(plain: Subject) -> None:
    """28"""
    folder = await prepared_with(plain, "a", "", make_file("f", b"x" * 8 * KIB))
    before = await used(plain, "a")
    apply(folder, [hard_link("f", "g")])
    assert await used(plain, "a") == before
    empty = await prepared_with(plain, "empty", "")
    assert before == (empty.stat().st_blocks * 512 + 8 * KIB, 2)


async def test_a_sparse_file_counts_what_it_has(plain: Subject) -> None:
    """29"""
    await prepared_with(plain, "a", "", sparse("f", 1 << 30, b"x" * 4 * KIB))
    size, inodes = await used(plain, "a")
    assert 4 * KIB <= size <= 64 * KIB
    assert inodes == 2
    await plain.commit("c", "a")
    assert await used(plain, "c") == (size, inodes)


async def test_every_kind_of_file_counts(plain: Subject) -> None:
    folder = await prepared_with(
        plain, "a", "", make_folder("d"), make_file("d/f", b"x" * 5000), make_file("empty"), hard_link("d/f", "g")
    )
    (folder / "link").symlink_to("target" * 30)
    os.mkfifo(folder / "pipe")
    assert await used(plain, "a") == usage(folder)
    assert usage(folder)[1] == 6
    apply(folder, [remove("d")])
    assert await used(plain, "a") == usage(folder)


async def test_what_was_stored_at_commit_stays(plain: Subject) -> None:
    """30"""
    folder = await prepared_with(plain, "a", "", make_file("f", b"x" * 8 * KIB))
    await plain.commit("c", "a")
    before = await used(plain, "c")
    assert before == usage(folder)
    apply(folder, [make_file("more", b"x" * 100 * KIB), remove("f")])
    assert await used(plain, "c") == before


async def test_a_view_takes_nothing(subject: Subject) -> None:
    await subject.committed("c")
    await subject.view("v", "c")
    await subject.view("w")
    assert await used(subject, "v") == await used(subject, "w") == (0, 0)


async def test_an_overlay_takes_what_is_its_own_and_a_copy_the_whole(plain: Subject) -> None:
    base = await prepared_with(plain, "a", "", make_file("large", b"x" * 64 * KIB))
    await plain.commit("c", "a")
    folder = await prepared_with(plain, "b", "c", make_file("small", b"x" * 4 * KIB))
    await plain.commit("d", "b")
    size, inodes = await used(plain, "d")
    assert (size, inodes) == usage(folder)
    assert inodes == {"overlayfs": 2, "native": 3}[plain.name]
    assert (size > 64 * KIB) == (plain.name == "native")
    assert await used(plain, "c") == usage(base)


async def test_usage_goes_for_every_kind_and_nothing_else(subject: Subject) -> None:
    await subject.committed("c")
    await subject.prepare("a", "c")
    for name in ("a", "c"):
        size, inodes = await used(subject, name)
        assert size >= 0
        assert inodes >= 0
    with pytest.raises(NotFound):
        await subject.snapshots.usage("not-there")


async def test_an_active_is_measured_while_its_files_come_and_go(plain: Subject) -> None:
    folder = await prepared_with(plain, "a", "", *(make_folder(f"d{number}") for number in range(40)))
    for number in range(40):
        apply(folder, [make_file(f"d{number}/{name}") for name in range(20)])

    def churn() -> None:
        for number in range(40):
            apply(folder, [remove(f"d{number}")])

    async def measure() -> None:
        for _ in range(10):
            _, inodes = await used(plain, "a")
            assert 1 <= inodes <= 1 + 40 + 800

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, churn)
        nursery.start_soon(measure)
    assert (await used(plain, "a"))[1] == 1


def children() -> set[str]:
    return {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}


async def test_a_few_files_need_no_process(plain: Subject) -> None:
    before = children()
    folder = await prepared_with(plain, "a", "", *[make_file(f"{n}", b"x") for n in range(20)])
    await plain.snapshots.usage("a")
    await plain.commit("c", "a")
    await plain.snapshots.remove("c")
    await plain.store.collect()
    assert not folder.exists()
    assert children() == before


async def test_many_files_are_counted_and_removed_all_the_same(plain: Subject) -> None:
    folder = await prepared_with(plain, "a", "", *[make_file(f"{n}", b"x") for n in range(200)])
    assert (await used(plain, "a"))[1] == 201
    await plain.snapshots.remove("a")
    await plain.store.collect()
    assert not folder.exists()
