"""What every snapshotter does, as scenarios that take one. Source: spec snapshots 11.1, 11.2.

`MOUNTED` are those that mount what they are answered, and need to be allowed to; `SCENARIOS` are the others.
Each wants a namespace in which nothing is, and leaves what it will. What is made are roots of the collector.
Two are restated: no second boundary is waited for (S9), times are set instead; and "close" (S18) is closing the store.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

import orlop
from orlop.protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

from ..support.snapshotters import Subject, Window
from ..support.trees import (
    Change,
    apply,
    change_owner,
    hard_link,
    make_file,
    make_folder,
    move,
    names,
    remove,
    set_times,
    tree,
)

Scenario = Callable[[Subject], Awaitable[None]]

SCENARIOS: Final[list[Scenario]] = []
MOUNTED: Final[list[Scenario]] = []

Kind = orlop.SnapshotKind


def scenario(run: Scenario) -> Scenario:
    SCENARIOS.append(run)
    return run


def mounted(run: Scenario) -> Scenario:
    MOUNTED.append(run)
    return run


async def check_chain(subject: Subject, *layers: list[Change]) -> None:
    """Each layer upon the one before; after each a view of it is like an ordinary folder with the same changes."""
    flat = subject.flat("flat")
    parent = ""
    for number, changes in enumerate(layers):
        await subject.layer(f"layer-{number}", parent, *changes)
        apply(flat, changes)
        parent = f"layer-{number}"
        await subject.holds(parent, flat)


@mounted
async def s01_basic(subject: Subject) -> None:
    first = [make_file("foo", b"foo\n", 0o777), *(make_folder(path) for path in ("a", "a/b", "a/b/c"))]
    mounts = await subject.prepare("P")
    assert len(mounts) >= 1
    async with orlop.mounted(mounts) as path:
        apply(path, first)
    await subject.commit("C1", "P")
    c1 = await subject.snapshots.get("C1")
    assert (c1.parent, c1.kind) == ("", Kind.COMMITTED)
    with pytest.raises(NotFound):
        await subject.snapshots.get("P")

    second = [make_file("bar", b"bar\n", 0o777), make_file("foo", b"bar\n", 0o777), remove("a/b")]
    flat = subject.flat("flat", *first)
    mounts = await subject.prepare("N", "C1")
    assert len(mounts) >= 1
    async with orlop.mounted(mounts) as path:
        assert tree(path) == tree(flat)
        apply(path, second)
        apply(flat, second)
        assert tree(path) == tree(flat)
    n = await subject.snapshots.get("N")
    assert (n.parent, n.kind) == ("C1", Kind.ACTIVE)

    await subject.commit("C2", "N")
    c2 = await subject.snapshots.get("C2")
    assert (c2.parent, c2.kind) == ("C1", Kind.COMMITTED)
    with pytest.raises(NotFound):
        await subject.snapshots.get("N")
    assert await subject.infos() == {"C1": c1, "C2": c2}

    async with orlop.mounted(await subject.view("V", "C2")) as path:
        assert tree(path) == tree(flat)
    await subject.snapshots.remove("V")
    with pytest.raises(FailedPrecondition, match="remove"):
        await subject.snapshots.remove("C1")
    await subject.snapshots.remove("C2")
    await subject.snapshots.remove("C1")
    assert await subject.names() == set()


@mounted
async def s02_stat_of_an_active(subject: Subject) -> None:
    async with orlop.mounted(await subject.prepare("a")) as path:
        assert names(path) == []
    info = await subject.snapshots.get("a")
    assert (info.name, info.kind, info.parent, info.snapshotter) == ("a", Kind.ACTIVE, "", subject.name)


@scenario
async def s03_stat_of_a_committed(subject: Subject) -> None:
    await subject.prepare("a")
    await subject.commit("c", "a")
    info = await subject.snapshots.get("c")
    assert (info.name, info.kind, info.parent, info.snapshotter) == ("c", Kind.COMMITTED, "", subject.name)


@mounted
async def s04_transitive_parents(subject: Subject) -> None:
    await subject.layer("A", "", make_file("foo", b"foo\n"))
    await subject.layer("B", "A", make_file("foo", b"bar\n"))
    a, b = await subject.snapshots.get("A"), await subject.snapshots.get("B")
    assert b.parent == "A"
    assert (await subject.snapshots.get(b.parent)).parent == a.parent == ""


@scenario
async def s05_duplicate_keys(subject: Subject) -> None:
    await subject.committed("A")
    await subject.prepare("k", "A")
    with pytest.raises(AlreadyExists):
        await subject.view("k", "A")
    await subject.prepare("m", "A")
    with pytest.raises(AlreadyExists):
        await subject.prepare("m", "A")
    await subject.view("n", "A")
    with pytest.raises(AlreadyExists):
        await subject.view("n", "A")


@scenario
async def s06_update(subject: Subject) -> None:
    root = {"containerd.io/gc.root": "now"}
    made = {
        "c1": (Kind.COMMITTED, ""), "c2": (Kind.COMMITTED, "c1"), "a1": (Kind.ACTIVE, "c2"),
        "a2": (Kind.ACTIVE, ""), "v1": (Kind.VIEW, "c2"), "v2": (Kind.VIEW, ""),
    }  # fmt: skip
    for name, (kind, parent) in made.items():
        with Window() as window:
            match kind:
                case Kind.COMMITTED:
                    await subject.prepare(f"{name}-active", parent)
                    with window:  # set again at commit
                        await subject.commit(name, f"{name}-active")
                case Kind.ACTIVE:
                    await subject.prepare(name, parent)
                case Kind.VIEW:
                    await subject.view(name, parent)
        info = await subject.snapshots.get(name)
        assert info.created_at == info.updated_at
        assert info.created_at in window
        assert (info.kind, info.parent, info.name) == (kind, parent, name)

    async def update(before: orlop.SnapshotInfo, labels: dict[str, str], mask: list[str] | None) -> orlop.SnapshotInfo:
        with Window() as window:
            updated = await subject.snapshots.update(before.name, labels, mask)
        assert updated.updated_at in window
        after = await subject.snapshots.get(before.name)
        assert after == updated
        assert after.updated_at > before.updated_at
        for field in ("name", "kind", "parent", "created_at", "snapshotter"):
            assert getattr(after, field) == getattr(before, field)
        return after

    for name in made:
        info = await subject.snapshots.get(name)
        info = await update(info, {"l1": "v1", "l2": "v2", "l3": "v3", **root}, None)
        assert info.labels == {"l1": "v1", "l2": "v2", "l3": "v3", **root}
        info = await update(info, {"l1": "updated", "l4": "v4"}, ["labels.l1", "labels.l2"])
        assert info.labels == {"l1": "updated", "l3": "v3", **root}
        info = await update(info, {"l4": "v4", **root}, ["labels"])
        assert info.labels == {"l4": "v4", **root}
        with pytest.raises(InvalidArgument):
            await subject.snapshots.update(name, {}, ["parent"])
        assert await subject.snapshots.get(name) == info


@scenario
async def s07_reuse_of_a_key(subject: Subject) -> None:
    await subject.committed("committed-1")
    await subject.prepare("reuse-1", "committed-1")
    await subject.snapshots.remove("reuse-1")
    await subject.view("reuse-1", "committed-1")
    await subject.snapshots.remove("reuse-1")
    await subject.prepare("reuse-1")
    await subject.snapshots.remove("committed-1")
    await subject.commit("committed-1", "reuse-1")
    assert await subject.names() == {"committed-1"}


ALL: Final = ("a-np", "p", "a", "v", "p-wl", "a-wl", "v-wl", "a-np-wl")
WALKED: Final = {
    ('labels."containerd.io/gc.root"==check-walk',): set(ALL),
    ('kind==active,labels."containerd.io/gc.root"==check-walk',): {"a-np", "a", "a-wl", "a-np-wl"},
    ('kind==view,labels."containerd.io/gc.root"==check-walk',): {"v", "v-wl"},
    ('kind==committed,labels."containerd.io/gc.root"==check-walk',): {"p", "p-wl"},
    ("name==p", "name==a-np-wl"): {"p", "a-np-wl"},
    ("name==a-wl,labels.l",): {"a-wl"},
    ("parent==p",): {"a", "v"},
    ('parent!="",labels."containerd.io/gc.root"==check-walk',): {"a", "v", "a-wl", "v-wl"},
    ("labels.l",): {"p-wl", "a-wl", "v-wl", "a-np-wl"},
    ("labels.l==2",): {"a-wl", "a-np-wl"},
}
"""What each set of filters finds. Source: 11.2."""


@scenario
async def s08_walk_by_filters(subject: Subject) -> None:
    root = {"containerd.io/gc.root": "check-walk"}
    await subject.prepare("a-np", labels=root)
    await subject.prepare("p-active", labels=root)
    await subject.commit("p", "p-active", root)
    await subject.prepare("a", "p", root)
    await subject.view("v", "p", root)
    await subject.prepare("p-wl-active", labels={"l": "0", **root})
    await subject.commit("p-wl", "p-wl-active", {"l": "1", **root})
    await subject.prepare("a-wl", "p-wl", {"l": "2", **root})
    await subject.view("v-wl", "p-wl", {"l": "3", **root})
    await subject.prepare("a-np-wl", labels={"l": "2", **root})
    assert await subject.names() == set(ALL)
    for filters, expected in WALKED.items():
        assert await subject.names(*filters) == expected, filters
        async with subject.snapshots.stream(filters) as found:
            assert {info.name async for info in found} == expected, filters


@mounted
async def s09_update_of_files_in_a_layer(subject: Subject) -> None:
    """The size stays, and so does the time, to the nanosecond or to the second: it is the content that counts."""
    second = 1_700_000_000 * 10**9
    for number, (before, after) in enumerate([(0, 0), (0, 1), (1, 0), (0, 999_999_999), (500_000_000, 500_000_000)]):
        hosts = b"127.0.0.1 localhost"
        times_before, times_after = second + before, second + after
        await check_chain(
            subject.within(f"update-{number}"),
            [
                make_folder("etc", 0o700),
                make_file("etc/hosts", hosts),
                make_file("etc/profile", b"PATH=/usr/bin"),
                set_times("etc/hosts", times_before),
                set_times("etc/profile", times_before),
            ],
            [
                make_file("etc/hosts", b"mydomain".ljust(len(hosts))),
                make_file("etc/profile", b"PATH=/usr/bin", 0o666),
                make_folder("root", 0o700),
                make_file("root/.bashrc", b"PATH=/usr/sbin:/usr/bin"),
                set_times("etc/hosts", times_after),
                set_times("etc/profile", times_after),
            ],
        )


@mounted
async def s10_a_folder_removed_and_made_again_hides_what_was_in_it(subject: Subject) -> None:
    await check_chain(
        subject,
        [make_folder("lib", 0o700), make_file("lib/hidden")],
        [remove("lib"), make_folder("lib", 0o700), make_file("lib/not-hidden")],
        [make_file("lib/newfile")],
    )
    assert names(subject.flat("flat")) == ["lib", "lib/newfile", "lib/not-hidden"]


@mounted
async def s11_change_of_owner(subject: Subject) -> None:
    tree_ = ["opt", "opt/a", "opt/a/b"]
    await check_chain(
        subject,
        [*(make_folder(path, 0o700) for path in tree_), make_file("opt/a/b/file.txt", b"hello")],
        [change_owner(path, 1, 1) for path in [*tree_, "opt/a/b/file.txt"]],
    )


@mounted
async def s12_modes_and_owners_of_folders_at_commit(subject: Subject) -> None:
    await check_chain(
        subject,
        [
            *(make_folder(f"dir{number}", 0o700) for number in range(1, 6)),
            make_file("dir4/f1", b"f1"),
            make_file("dir5/f1", b"f1"),
            *(change_owner(path, 1, 1) for path in ("dir1", "dir2", "dir3", "dir5", "dir5/f1")),
        ],
        [
            change_owner("dir2", 0, 0),
            remove("dir3"),
            change_owner("dir4", 1, 1),
            change_owner("dir4/f1", 1, 1),
        ],
        [
            make_folder("dir3", 0o700),
            change_owner("dir3", 1, 1),
            remove("dir5"),
            make_folder("dir5", 0o700),
            change_owner("dir5", 1, 1),
        ],
    )


@scenario
async def s13_one_in_between_is_not_removed(subject: Subject) -> None:
    await subject.committed("base")
    await subject.committed("inter", "base")
    await subject.prepare("top", "inter")
    with pytest.raises(FailedPrecondition, match="remove"):
        await subject.snapshots.remove("inter")
    for name in ("top", "inter", "base"):
        await subject.snapshots.remove(name)
    assert await subject.names() == set()


@mounted
async def s14_deleted_files(subject: Subject) -> None:
    await check_chain(subject, [make_file("foo"), make_file("foobar")], [remove("foobar")], [])
    assert names(subject.flat("flat")) == ["foo"]


@mounted
async def s15_move_from_a_lower_layer(subject: Subject) -> None:
    await check_chain(
        subject,
        [
            make_folder("dir1", 0o700),
            make_file("dir1/f1", b"f1"),
            make_folder("dir2", 0o700),
            make_file("dir2/f2", b"f2"),
        ],
        [
            make_folder("dir3", 0o700),
            make_file("dir3/f1", b"f1"),
            remove("dir1"),
            hard_link("dir2/f2", "dir3/f2"),
            remove("dir2/f2"),
        ],
    )


@mounted
async def s16_a_view_is_read_only(subject: Subject) -> None:
    await subject.committed("empty")
    async with orlop.mounted(await subject.view("view", "empty")) as path:
        with pytest.raises(OSError):
            apply(path, [make_file("foo")])
        assert names(path) == []
    await subject.snapshots.remove("view")
    await subject.snapshots.remove("empty")


@scenario
async def s17_stat_while_walking(subject: Subject) -> None:
    await subject.committed("w-c1")
    await subject.committed("w-c2", "w-c1")
    await subject.prepare("w-a1", "w-c2")
    await subject.view("w-v1", "w-c2")
    walked = set()
    async for info in subject.snapshots.list():
        assert await subject.snapshots.get(info.name) == info
        walked.add(info.name)
    async with subject.snapshots.stream([]) as found:
        async for info in found:
            assert await subject.snapshots.get(info.name) == info
            walked.remove(info.name)
    assert walked == set()


@mounted
async def s19_mode_of_the_top(subject: Subject) -> None:
    async with orlop.mounted(await subject.prepare("a")) as path:
        assert os.stat(path).st_mode & 0o777 == 0o755


@mounted
async def s20_rename(subject: Subject) -> None:
    """A folder of a lower layer cannot be renamed on an overlay: the kernel's rule, not ours."""
    renamed = [] if subject.name == "overlayfs" else [move("dir1", "dir2")]
    await check_chain(
        subject,
        [
            make_folder("dir1", 0o700),
            make_folder("somefiles", 0o700),
            make_file("somefiles/f1", b"was here first!"),
            make_file("somefiles/f2", b"nothing interesting"),
        ],
        [
            *renamed,
            make_file("somefiles/f1-overwrite", b"new content 1"),
            move("somefiles/f1-overwrite", "somefiles/f1"),
            move("somefiles/f2", "somefiles/f3"),
        ],
    )


@mounted
async def s21_a_hundred_and_twenty_eight_layers(subject: Subject) -> None:
    """Where each is a whole, their number is of no interest, and a quarter is enough."""

    def changes(number: int) -> list[Change]:
        if not number:
            return [
                make_file("bottom", b"way at the bottom\n", 0o777),
                make_file("overwriteme", b"FIRST!\n", 0o777),
                make_folder("addhere"),
                make_folder("onlyme"),
                make_file("onlyme/bottom", b"bye!\n", 0o777),
            ]
        return [
            make_file("overwriteme", f"{number} WAS HERE!\n".encode(), 0o777),
            make_file(f"addhere/file-{number}", b"same\n", 0o755),
            remove("onlyme"),
            make_folder("onlyme"),
            make_file(f"onlyme/file-{number}", b"only me!\n", 0o777),
        ]

    flat = subject.flat("flat")
    parent = ""
    for number in range(128 if subject.name == "overlayfs" else 32):
        async with orlop.mounted(await subject.prepare(f"active-{number}", parent)) as path:
            assert tree(path) == tree(flat)
            apply(path, changes(number))
            apply(flat, changes(number))
            assert tree(path) == tree(flat)
        parent = f"layer-{number}"
        await subject.commit(parent, f"active-{number}")
    await subject.holds(parent, flat)
