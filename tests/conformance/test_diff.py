"""Layers made from two snapshots: which entries they have, in which order, and what their headers say.

Source: spec unpack 7; a number such as 9.32 is that of its list of edge cases. That such a layer, laid over the lower
tree, gives the upper one: test_diff_roundtrips.py.
"""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import orlop
from orlop.protocol.errors import NotFound, NotImplemented  # noqa: A004  the field's name for it

from ..support.layers import GZIP, MTIME, TAR, ZSTD, Stack, digest_of, names_of
from ..support.tree_changes import Change, Device, Dir, Fifo, File, Hard, Link, Member, Socket, change, members, names

S = 10**9
CAPABILITY = {"security.capability": struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)}


async def built(leased: orlop.Store, snapshotter: str, *changes: Change) -> Stack:
    """One snapshot for each, on the one before."""
    stack = Stack(leased, snapshotter)
    for one in changes:
        await stack.change(lambda path, one=one: change(path, one))
    return stack


async def archive(stack: Stack, **options: Any) -> bytes:
    """The difference of the newest snapshot from its parent, uncompressed."""
    made = await stack.snapshots.diff(stack.top, media_type=TAR, **options)
    data = await stack.store.content.read(made.digest)
    assert (made.media_type, made.digest, made.size) == (TAR, digest_of(data), len(data))
    return data


async def difference(leased: orlop.Store, snapshotter: str, lower: Change, upper: Change) -> list[str]:
    return names(await archive(await built(leased, snapshotter, lower, upper)))


# The worked examples (7.6)

DIRECTORIES = {"d1": Dir(0o755), "d2": Dir(0o770)}
FILES = {"d1/f1": File("1"), "d2/f1": File("2"), "d2/f2": File("3"), "d3/f1": File("4"), "d4/f1": File("5"),
         "d5/f1": File("6")}  # fmt: skip
LINKS = {"d1/f1": File("1"), "d2/f1": File("2"), "d3": Dir(), "d4/f1": File("4"), "d5/f1": File("5"),
         "d6/l1": Hard("d1/f1"), "d6/l2": Hard("d5/f1")}  # fmt: skip
LINKED = {"d2/l1": Hard("d1/f1"), "d3/l1": Hard("d4/f1"), "d6/l1": None, "d6/l2": None}
EXAMPLES: dict[str, tuple[Change, Change, list[str]]] = {
    "A": (DIRECTORIES, {"d1/d": Dir(0o700), "d2/f": File("x")}, ["d1/", "d1/d/", "d2/", "d2/f"]),
    "B": (
        FILES,
        {"d1/f1": None, "d2/f1": None, "d2/f2": File("3", 0o777), "d3/f1": None, "d3/f2": File("x"), "d4/f1": None,
         "d4/f0": File("x"), "d5": None},
        ["d1/", "d1/.wh.f1", "d2/", "d2/.wh.f1", "d2/f2", "d3/", "d3/.wh.f1", "d3/f2", "d4/", "d4/f0", "d4/.wh.f1",
         ".wh.d5"],
    ),
    "C": ({"d1": Dir(), "d2/f1": File("x")}, {"d1": None, "d2": None, "d3": Dir()}, [".wh.d1", ".wh.d2", "d3/"]),
    "D": (
        LINKS,
        LINKED,
        ["d2/", "d2/l1", "d1/", "d1/f1 = d2/l1", "d3/", "d3/l1", "d4/", "d4/f1 = d3/l1", "d6/", "d6/.wh.l1",
         "d6/.wh.l2"],
    ),
    "E": (
        LINKS,
        {**LINKED, "d1": Dir(0o700)},
        ["d1/", "d2/", "d2/l1", "d1/f1 = d2/l1", "d3/", "d3/l1", "d4/", "d4/f1 = d3/l1", "d6/", "d6/.wh.l1",
         "d6/.wh.l2"],
    ),
    "F": ({"f1": File("1")}, {"f2": File("2"), "s0": Socket(), "f3": File("3")}, ["f2", "f3"]),
}  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES)
async def test_the_worked_example(leased: orlop.Store, snapshotter: str, example: str) -> None:  # 9.36 is F
    lower, upper, expected = EXAMPLES[example]
    assert await difference(leased, snapshotter, lower, upper) == expected


async def test_the_worked_example_of_an_epoch(leased: orlop.Store, snapshotter: str) -> None:  # G, 9.37
    epoch, earlier, later = 1642941296 * S, 1640995200 * S, MTIME * S
    upper = {"f1": None, "f2": File("2", mtime_ns=earlier), "f3": File("3", mtime_ns=later)}
    stack = await built(leased, snapshotter, {"f1": File("1")}, upper)
    data = await archive(stack, source_date_epoch=epoch)
    assert [(m.name, m.mtime) for m in members(data)] == [(".wh.f1", 0), ("f2", earlier // S), ("f3", epoch // S)]
    assert await archive(stack, source_date_epoch=epoch) == data
    assert [m.mtime for m in members(await archive(stack))] == [0, earlier // S, later // S]


# Which entries appear (7.1)

TREE = {"d": Dir(), "d/a": File("a"), "d/s": Link("a"), "d/sub": Dir(), "d/sub/b": File("b"), "f": File("f")}
CHANGES: dict[str, tuple[Change, list[str]]] = {
    "nothing": ({}, []),
    "a file added": ({"d/new": File("n")}, ["d/", "d/new"]),
    "a link added": ({"d/sub/new": Link("x")}, ["d/", "d/sub/", "d/sub/new"]),
    "a device added": ({"n": Device("char", 1, 3)}, ["n"]),
    "a fifo added": ({"n": Fifo()}, ["n"]),
    "an empty folder added": ({"d/n": Dir()}, ["d/", "d/n/"]),
    "folders added": ({"n/m/o": Dir(), "n/m/f": File("x")}, ["n/", "n/m/", "n/m/f", "n/m/o/"]),
    "a file changed": ({"d/sub/b": File("more")}, ["d/", "d/sub/", "d/sub/b"]),
    "a link changed": ({"d/s": Link("sub")}, ["d/", "d/s"]),
    "a mode changed": ({"f": File("f", 0o600)}, ["f"]),
    "an owner changed": ({"f": File("f", uid=5)}, ["f"]),
    "a group changed": ({"f": File("f", gid=5)}, ["f"]),
    "a capability set": ({"f": File("f", xattrs=CAPABILITY)}, ["f"]),
    "a file deleted": ({"d/a": None}, ["d/", "d/.wh.a"]),
    "a link deleted": ({"d/s": None}, ["d/", "d/.wh.s"]),
    "a folder deleted": ({"d": None}, [".wh.d"]),  # 9.30
    "a folder's mode changed": ({"d": Dir(0o700)}, ["d/"]),
    "a folder's owner changed": ({"d/sub": Dir(uid=5)}, ["d/", "d/sub/"]),
    "a folder's time changed": ({"d": Dir(mtime_ns=5 * S)}, []),
    "a folder became a file": ({"d": File("x")}, ["d"]),  # 9.31
    "a folder became a link": ({"d": Link("f")}, ["d"]),
    "a file became a folder": ({"f": Dir(), "f/n": File("x")}, ["f/", "f/n"]),  # 9.31
    "a file became a link": ({"f": Link("d")}, ["f"]),
    "a link became a folder": ({"d/s": Dir(), "d/s/n": File("x")}, ["d/", "d/s/", "d/s/n"]),
    "a folder remade": (
        {"d": None, "d/b": File("b"), "d/n": File("n")},
        ["d/", "d/.wh.a", "d/b", "d/n", "d/.wh.s", "d/.wh.sub"],
    ),  # 9.32
    "a folder remade as it was": ({"./d": None, **TREE}, []),
    "a folder remade empty": ({"d/sub": None, "d/sub/": Dir()}, ["d/", "d/sub/", "d/sub/.wh.b"]),
    "a socket added": ({"d/n": Socket()}, []),
    "a socket instead of a file": ({"f": Socket()}, [".wh.f"]),
    "everything deleted": ({"d": None, "f": None}, [".wh.d", ".wh.f"]),
}


async def test_a_change_gives_its_entries(leased: orlop.Store, snapshotter: str) -> None:
    for what, (upper, expected) in CHANGES.items():
        assert await difference(leased, snapshotter, TREE, upper) == expected, what


async def test_a_deleted_socket_gives_a_whiteout(leased: orlop.Store, snapshotter: str) -> None:
    assert await difference(leased, snapshotter, {"d/s": Socket()}, {"d/s": None}) == ["d/", "d/.wh.s"]


async def test_the_root_never_appears(leased: orlop.Store, snapshotter: str) -> None:
    upper = {"": Dir(0o700, uid=5, mtime_ns=5 * S)}
    assert await difference(leased, snapshotter, TREE, upper) == []


async def test_an_empty_difference_is_two_zero_blocks(leased: orlop.Store, snapshotter: str) -> None:  # 9.29
    stack = await built(leased, snapshotter, TREE, {})
    assert await archive(stack) == bytes(1024)
    first = await stack.snapshots.diff(stack.top, media_type=GZIP)
    assert gzip.decompress(await leased.content.read(first.digest)) == bytes(1024)
    again = await built(leased, snapshotter, TREE, {"x": File("x")}, {"x": File("x")})
    assert await again.snapshots.diff(again.top, media_type=GZIP) == first


async def test_parents_have_their_present_attributes(leased: orlop.Store, snapshotter: str) -> None:
    lower = {"a": Dir(0o711, uid=1), "a/b": Dir(0o1777, gid=2), "a/b/f": File("f")}
    stack = await built(leased, snapshotter, lower, {"a": Dir(0o700, uid=3), "a/b/g": File("g")})
    got = [(m.name, m.mode, m.uid, m.gid) for m in members(await archive(stack))]
    assert got == [("a/", 0o700, 3, 0), ("a/b/", 0o1777, 0, 2), ("a/b/g", 0o644, 0, 0)]


# When two files count as the same (7.2)

AT, NS = MTIME * S, MTIME * S + 123
SAME: dict[str, tuple[Any, Any, bool]] = {
    "everything": (File("x"), File("x"), True),
    "everything, with nanoseconds": (File("x", mtime_ns=NS), File("x", mtime_ns=NS), True),
    "the content, another second": (File("x"), File("x", mtime_ns=AT + S), False),
    "the content, other nanoseconds": (File("x", mtime_ns=NS), File("x", mtime_ns=NS + 1), False),
    "the content, nanoseconds here only": (File("x", mtime_ns=NS), File("x"), False),
    "size and second, not the content": (File("x"), File("y"), False),  # 9.34
    "the time, not the size": (File("x"), File("xx"), False),
    "the text of a link": (Link("x"), Link("x"), True),
    "the length of a link": (Link("x"), Link("y"), False),
    "the link, another second": (Link("x"), Link("x", mtime_ns=AT + S), False),
    "the number of a device": (Device("char", 1, 3), Device("char", 1, 3), True),
    "the major of a device": (Device("char", 1, 3), Device("char", 1, 5), False),
    "the minor of a device": (Device("block", 7, 3), Device("block", 8, 3), False),
    "all but the kind": (Device("char", 1, 3), Device("block", 1, 3), False),
    "all but an attribute": (File("x"), File("x", xattrs={"user.x": b"1"}), False),  # 9.33
    "all but an attribute's value": (File("x", xattrs={"user.x": b"1"}), File("x", xattrs={"user.x": b"2"}), False),
    "all but an attribute, of folders": (Dir(xattrs={"user.x": b"1"}), Dir(), False),
    "all but a capability": (File("x", xattrs=CAPABILITY), File("x"), False),
}


async def test_files_that_share_so_much_count_as_the_same_or_not(leased: orlop.Store, snapshotter: str) -> None:
    for what, (lower, upper, same) in SAME.items():
        name = "f/" if isinstance(upper, Dir) else "f"
        got = await difference(leased, snapshotter, {"f": lower}, {"f": upper})
        assert got == ([] if same else [name]), what


# Header fields (7.3)


def described(found: list[Member]) -> dict[str, Member]:
    return {member.name: member for member in found}


async def test_headers_say_what_the_files_are(leased: orlop.Store, snapshotter: str) -> None:
    tree = {
        "c": Device("char", 1, 3, mode=0o666),
        "d": Dir(0o1777, 5, 6, NS),
        "f": File("content", 0o6711, 7, 8, NS),
        "g": Hard("f"),
        "p": Fifo(0o600),
        "s": Link("../target", uid=9, mtime_ns=NS),
    }
    stack = await built(leased, snapshotter, {}, tree)
    found = described(members(await archive(stack)))
    assert {name: (m.kind, m.mode, m.uid, m.gid, m.mtime, m.target, m.data) for name, m in found.items()} == {
        "c": ("3", 0o666, 0, 0, MTIME, "", b""),
        "d/": ("5", 0o1777, 5, 6, MTIME, "", b""),
        "f": ("0", 0o6711, 7, 8, MTIME, "", b"content"),
        "g": ("1", 0o6711, 7, 8, MTIME, "f", b""),
        "p": ("6", 0o600, 0, 0, MTIME, "", b""),
        "s": ("2", 0o777, 9, 0, MTIME, "../target", b""),
    }
    assert found["c"].rdev == (1, 3)
    assert {m.owners for m in found.values()} == {b""}
    assert [m.pax for m in found.values() if m.pax] == []  # neither fractions of seconds nor other times


async def test_records_are_there_where_a_header_is_too_small(leased: orlop.Store, snapshotter: str) -> None:
    long = "n" * 120
    tree = {
        long: File("x"),
        "ü": File("x"),
        "ids": File("x", uid=3_000_000_000, gid=2**21),
        "z": Link("t" * 120),
        "y/" + long: Hard(long),
    }
    found = described(members(await archive(await built(leased, snapshotter, {}, tree))))
    assert {name: (m.target, m.uid, m.gid, set(m.pax)) for name, m in found.items()} == {
        "ids": ("", 3_000_000_000, 2**21, {"uid", "gid"}),
        long: ("", 0, 0, {"path"}),
        "y/": ("", 0, 0, set()),
        "y/" + long: (long, 0, 0, {"path", "linkpath"}),
        "z": ("t" * 120, 0, 0, {"linkpath"}),
        "ü": ("", 0, 0, {"path"}),
    }


async def test_a_whiteout_has_nothing_of_what_it_hides(leased: orlop.Store, snapshotter: str) -> None:
    lower = {"d/f": File("content", 0o4755, 5, 6, xattrs=CAPABILITY), "g": Dir(uid=5)}
    found = members(await archive(await built(leased, snapshotter, lower, {"d/f": None, "g": None})))
    assert [m.name for m in found] == ["d/", "d/.wh.f", ".wh.g"]
    for m in found[1:]:
        assert (m.kind, m.size, m.mode, m.uid, m.gid, m.mtime, m.pax) == ("0", 0, 0, 0, 0, 0, {})


async def test_attributes_are_recorded_but_not_those_of_the_overlay(leased: orlop.Store, snapshotter: str) -> None:
    xattrs = {"user.x": b"a\0b", **CAPABILITY}
    lower = {"d/old": File("x"), "f": File("x")}
    upper = {"d": None, "d/new": File("x"), "f": File("x", xattrs=xattrs), "d/sub": Dir(xattrs={"user.y": b"1"})}
    found = described(members(await archive(await built(leased, snapshotter, lower, upper))))
    assert {name: m.pax for name, m in found.items() if m.pax} == {
        "d/sub/": {"SCHILY.xattr.user.y": b"1"},
        "f": {f"SCHILY.xattr.{name}": value for name, value in xattrs.items()},
    }


# Order (7.4)


async def test_a_slash_sorts_before_everything(leased: orlop.Store, snapshotter: str) -> None:
    lower = {"a-b": File("x"), "a!": File("x"), "b": File("x"), "e/old": File("x")}
    upper = {
        "a/z": File("x"), "a-c": File("x"), "a.d": File("x"), "a": Dir(), "a/b/c": File("x"), "a/b!": File("x"),
        "B": File("x"), "ü": File("x"), "a!": None, "b": None, "e/old": None, "e/new": File("x"), "c\n": File("x"),
    }  # fmt: skip
    assert await difference(leased, snapshotter, lower, upper) == [
        "B", "a/", "a/b/", "a/b/c", "a/b!", "a/z", ".wh.a!", "a-c", "a.d", ".wh.b", "c\n", "e/", "e/new", "e/.wh.old",
        "ü",
    ]  # fmt: skip


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD, ""])
async def test_the_same_difference_has_the_same_bytes(leased: orlop.Store, snapshotter: str, media_type: str) -> None:
    upper = {f"d{n}/f{m}": File(str(n * m) * 1000) for n in range(5) for m in range(5)}
    one = await built(leased, snapshotter, TREE, {**upper, "d/a": None})
    other = await built(leased, snapshotter, TREE, {"d/a": None, **dict(reversed(upper.items()))})
    made = await one.snapshots.diff(one.top, media_type=media_type)
    assert await one.snapshots.diff(one.top, media_type=media_type) == made
    if made.media_type == GZIP:
        data = await leased.content.read(made.digest)
        assert data[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # no name, no time
    # Folders have the time of the last that came into them; an epoch levels those.
    options = {"media_type": media_type, "source_date_epoch": 5 * S}
    assert await one.snapshots.diff(one.top, **options) == await other.snapshots.diff(other.top, **options)


# Hard links (7.5)

GROUP = {"a": File("a"), "m": File("m"), "n": Hard("m"), "o": Hard("m")}
LINK_CHANGES: dict[str, tuple[Change, list[str]]] = {
    "names of one new file": ({"x": File("x"), "d/y": Hard("x"), "z": Hard("x")}, ["d/", "d/y", "x = d/y", "z = d/y"]),
    "a new name before the others": ({"a": Hard("m"), "n": None, "o": None}, ["a", "m = a", ".wh.n", ".wh.o"]),
    "a new name behind the only one": ({"d/b": Hard("a")}, ["d/", "d/b", "a = d/b"]),  # 9.35
    "a new name of a changed file": ({"a": File("changed"), "b": Hard("a")}, ["a", "b = a"]),
    "a removed name": ({"n": None}, [".wh.n"]),
    "nothing": ({}, []),
    "a link with two names": ({"s": Link("x"), "t": Hard("s")}, ["s", "t = s"]),
}


async def test_names_of_one_file(leased: orlop.Store, snapshotter: str) -> None:
    for what, (upper, expected) in LINK_CHANGES.items():
        data = await archive(await built(leased, snapshotter, GROUP, upper))
        assert names(data) == expected, what
        assert {m.size for m in members(data) if m.kind == "1"} <= {0}


async def test_unchanged_names_follow_a_new_one_with_their_parents(leased: orlop.Store) -> None:  # 9.35
    """On native alone: an overlay takes a file up under the one name that is linked."""
    lower = {"d/m": File("m"), "e/f/n": Hard("d/m"), "z": Hard("d/m")}
    got = await difference(leased, "native", lower, {"c": File("c"), "k": Hard("d/m"), "l": File("l")})
    assert got == ["c", "k", "d/", "d/m = k", "e/", "e/f/", "e/f/n = k", "z = k", "l"]


# Options (7)


async def test_lower_is_the_parent_any_snapshot_or_nothing(leased: orlop.Store, snapshotter: str) -> None:
    stack = await built(leased, snapshotter, {"a": File("a")}, {"b": File("b")})
    first, second = (
        (await stack.change(lambda path: None)),
        (await stack.change(lambda path: change(path, {"a": None}))),
    )
    other = await built(leased, snapshotter, {"a": File("changed"), "c": File("c")})
    before = await names_of(leased, snapshotter)
    assert names(await archive(stack)) == [".wh.a"]
    assert names(await archive(stack, lower=first)) == [".wh.a"]
    assert names(await archive(stack, lower="")) == ["b"]
    assert names(await archive(stack, lower=other.top)) == [".wh.a", "b", ".wh.c"]
    assert names(await archive(other)) == ["a", "c"]
    assert names(await archive(stack, lower=second)) == []
    assert await names_of(leased, snapshotter) == before


@contextmanager
def appended_to(path: str, text: str) -> Iterator[None]:
    """The file stays open for writing while the block lasts."""
    with open(path, "a") as opened:
        opened.write(text)
        opened.flush()
        yield


async def test_active_snapshots_and_views_have_differences_too(leased: orlop.Store, snapshotter: str) -> None:  # 9.40
    stack = await built(leased, snapshotter, TREE)
    mounts = await stack.snapshots.prepare("active", stack.top)
    await stack.snapshots.view("view", stack.top)
    before = await names_of(leased, snapshotter)
    async with orlop.mounted(mounts) as path:
        change(path, {"f": None, "new": File("new")})
        with appended_to(f"{path}/new", ", and more"):
            made = await stack.snapshots.diff("active", media_type=TAR)
        data = await leased.content.read(made.digest)
    assert names(data) == [".wh.f", "new"]
    assert members(data)[1].data == b"new, and more"
    made = await stack.snapshots.diff("view", "active", media_type=TAR)
    assert names(await leased.content.read(made.digest)) == ["f", ".wh.new"]
    assert await names_of(leased, snapshotter) == before


async def test_a_snapshot_that_is_not_there_is_not_found(leased: orlop.Store, snapshotter: str) -> None:
    stack = await built(leased, snapshotter, TREE)
    with pytest.raises(NotFound):
        await stack.snapshots.diff("absent")
    with pytest.raises(NotFound):
        await stack.snapshots.diff(stack.top, "absent")
    assert [status async for status in leased.content.ingests()] == []


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD, ""])
async def test_the_blob_is_what_was_asked_for(leased: orlop.Store, snapshotter: str, media_type: str) -> None:
    stack = await built(leased, snapshotter, TREE, {"big": File("x" * 300_000)})
    plain = await archive(stack)
    made = await stack.snapshots.diff(stack.top, media_type=media_type, labels={"mine": "yes"})
    data = await leased.content.read(made.digest)
    assert (made.media_type, made.size) == (media_type or GZIP, len(data))
    info = await leased.content.info(made.digest)
    if media_type == TAR:  # 9.41
        assert data == plain
        assert info.labels == {"mine": "yes"}
    else:
        assert len(data) < len(plain) // 10
        assert info.labels == {"mine": "yes", "containerd.io/uncompressed": digest_of(plain)}
    applied = await Stack(leased, snapshotter).add(data, made.media_type)
    assert (applied.digest, applied.size) == (digest_of(plain), len(plain))
    if media_type in ("", GZIP):
        assert gzip.decompress(data) == plain
    if media_type == ZSTD and shutil.which("zstd"):
        assert unpacked(data) == plain


def unpacked(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout


async def test_labels_come_to_a_blob_that_is_here_already(leased: orlop.Store, snapshotter: str) -> None:
    stack = await built(leased, snapshotter, TREE)
    made = await stack.snapshots.diff(stack.top, labels={"a": "1"})
    uncompressed = (await leased.content.info(made.digest)).labels["containerd.io/uncompressed"]
    await leased.content.update(made.digest, {})
    assert await stack.snapshots.diff(stack.top, labels={"b": "2"}) == made
    assert (await leased.content.info(made.digest)).labels == {"b": "2", "containerd.io/uncompressed": uncompressed}


async def test_what_was_left_under_a_ref_is_written_over(leased: orlop.Store, snapshotter: str) -> None:  # 9.38
    stack = await built(leased, snapshotter, TREE)
    async with leased.content.ingest("mine") as writer:
        await writer.write(b"garbage" * 10_000)
    data = await archive(stack, ref="mine")
    assert names(data) == ["d/", "d/a", "d/s", "d/sub/", "d/sub/b", "f"]
    assert [status async for status in leased.content.ingests()] == []


@pytest.mark.parametrize(
    "media_type", [TAR + "+lz4", "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/json"]
)
async def test_another_type_is_not_implemented_and_leaves_nothing(
    leased: orlop.Store, snapshotter: str, media_type: str
) -> None:  # 9.39
    stack = await built(leased, snapshotter, TREE)
    before = [info.digest async for info in leased.content.list()]
    with pytest.raises(NotImplemented):
        await stack.snapshots.diff(stack.top, media_type=media_type, ref="mine")
    assert [status async for status in leased.content.ingests()] == []
    assert [info.digest async for info in leased.content.list()] == before


async def test_every_way_in_makes_differences_alike(mounts: None, store: orlop.Store) -> None:
    async with store.lease() as leased:
        for snapshotter in ("overlayfs", "native"):
            lower, upper, expected = EXAMPLES["B"]
            assert await difference(leased, snapshotter, lower, upper) == expected
