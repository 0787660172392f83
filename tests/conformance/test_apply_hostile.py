"""Hostile and odd archives: on every snapshotter the required tree, or the required refusal, and nothing outside.

The numbers are those of the table in spec unpack 6. L is the layer below, T the one at stake; a row without L is
tried as the first layer and over another one, a row with L also over a layer between.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import DataLoss, InvalidArgument, OrlopError

from ..support.layers import (
    Stack,
    Tree,
    block,
    brief,
    comparable,
    device,
    end,
    entry,
    fifo,
    file,
    folder,
    hardlink,
    layer,
    pax_header,
    put_blob,
    read_tree,
    symlink,
)

SNAPSHOTTERS = ("overlayfs", "native")
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # version 2, effective, CAP_NET_RAW permitted
YES = {"trusted.overlay.opaque": b"y"}


@dataclass(frozen=True)
class Refused:
    text: str = ""
    kinds: tuple[type[OrlopError], ...] = (InvalidArgument,)


@dataclass(frozen=True)
class Row:
    """T, what is to come of it (where the table leaves a choice: one of several things), and L."""

    this: list[bytes]
    expected: dict[str, str] | list[dict[str, str] | Refused] | Refused
    lower: list[bytes] = field(default_factory=list)
    tail: bytes = end


def rows(canary: str) -> dict[str, Row]:
    secret = f"{canary}/secret"
    etc = [folder("etc"), file("etc/x", "x")]
    old = [folder("d"), file("d/old", "old")]
    only_new = {"d": "dir", "d/new": "file:new"}
    new = file("d/new", "new")
    opaque = file("d/.wh..wh..opq")
    tmp = "foo/tmp/x"
    return {
        "1": Row([file("../../etc/passwd", "x")], {"etc": "dir", "etc/passwd": "file:x"}),
        "2": Row([file("/abs/file", "x")], {"abs": "dir", "abs/file": "file:x"}),
        "3": Row([entry("./", b"5", mode=0o700, uid=5)], {}),
        "4": Row([entry("..", b"5", mode=0o700, uid=5)], {}),
        "5": Row([symlink("", "/etc/")], {}),
        "6": Row([symlink("a", "/"), file("a/x", "x")], {"a": "-> /", "x": "file:x"}),
        "7": Row([symlink("a", "../../.."), file("a/x", "x")], {"a": "-> ../../..", "x": "file:x"}),
        "8": Row(
            [symlink("d", "/etc"), folder("etc"), file("d/f", "x")],
            {"d": "-> /etc", "etc": "dir", "etc/f": "file:x"},
        ),
        "9": Row([symlink("a", "b"), symlink("b", "a"), file("a/f", "x")], Refused("too many")),
        "10": Row(
            [symlink("a", "/nonexistent/deep"), file("a/f", "x")],
            {"a": "-> /nonexistent/deep", "nonexistent": "dir", "nonexistent/deep": "dir",
             "nonexistent/deep/f": "file:x"},
        ),
        "11": Row([symlink("x", secret), file("x", "new")], {"x": "file:new"}),
        "12": Row(
            [file("lib/f", "x")],
            {"lib": "-> usr/lib", "usr": "dir", "usr/lib": "dir", "usr/lib/f": "file:x"},
            [symlink("lib", "usr/lib"), folder("usr"), folder("usr/lib")],
        ),
        "13": Row(
            [folder("lib")],
            {"lib": "dir", "usr": "dir", "usr/lib": "dir", "usr/lib/g": "file:g"},
            [symlink("lib", "usr/lib"), file("usr/lib/g", "g")],
        ),
        "14": Row([file("p/child", "x")], Refused(), [file("p", "p")]),
        "15": Row([folder("d"), file("d/f", "x"), file("d", "now")], {"d": "file:now"}),
        "16": Row([file("f", "x"), folder("f"), file("f/g", "g")], {"f": "dir", "f/g": "file:g"}),
        "17": Row(
            [file("etc/passwd", "x"), hardlink("l", "../../../etc/passwd")],
            {"etc": "dir", "etc/passwd": "file:x", "l": "= etc/passwd"},
        ),
        "18": Row([hardlink("l", secret)], Refused()),
        "19": Row([symlink("s", secret), hardlink("h", "s", mode=0o777)], {"h": f"-> {secret}", "s": "= h"}),
        "20": Row(
            [file("etc/passwd", "x"), symlink("s", "../../etc"), hardlink("l", "s/passwd")],
            {"etc": "dir", "etc/passwd": "file:x", "l": "= etc/passwd", "s": "-> ../../etc"},
        ),
        "21": Row([hardlink("l", "later"), file("later", "x")], Refused()),
        "22": Row([folder("d"), hardlink("l", "d")], Refused()),
        "22-below": Row([hardlink("l", "d")], Refused(), [folder("d")]),
        "23": Row([file("a", "x"), hardlink("a", "a")], Refused()),
        "23-below": Row([hardlink("a", "a")], Refused(), [file("a", "x")]),
        "24": Row([hardlink("g", "f")], {"f": "file:old", "g": "= f"}, [file("f", "old")]),
        "25": Row([file(".wh...")], Refused()),
        "26": Row([file(".wh..")], Refused()),
        "27": Row([file("d/.wh.")], Refused()),
        "28": Row([file("etc/.wh.passwd")], {"etc": "dir"}, [folder("etc"), file("etc/passwd", "x")]),
        "29": Row([file(".wh.missing"), file("newdir/.wh.zip")], {}),
        "29-with-the-folder": Row([file(".wh.missing"), folder("newdir"), file("newdir/.wh.zip")], {"newdir": "dir"}),
        "29-with-a-sibling": Row(
            [file("newdir/.wh.zip"), file("newdir/f", "x")], {"newdir": "dir", "newdir/f": "file:x"}
        ),
        "30": Row([file("f", "new"), file(".wh.f")], {"f": "file:new"}, [file("f", "old")]),
        "31": Row([file(".wh.f"), file("f", "new")], {"f": "file:new"}, [file("f", "old")]),
        "32": Row([file(".wh.d"), folder("d"), new], only_new, old),
        "33": Row([folder("d"), opaque, new], only_new, old),
        "34": Row([folder("d"), new, opaque], only_new, old),
        "35": Row([new, opaque], only_new, old),
        "35b": Row([file("d/sub/new", "new"), opaque], {"d": "dir", "d/sub": "dir", "d/sub/new": "file:new"}, old),
        "35c": Row(
            [folder("d"), opaque, file("d/.wh.a"), file("d/c", "c")],
            {"d": "dir", "d/c": "file:c"},
            [folder("d"), file("d/a", "a"), file("d/b", "b")],
        ),
        "35d": Row([file("d", "x"), folder("d"), new], only_new, old),
        "36": Row([file(".wh..wh..opq"), file("c", "c")], {"c": "file:c"}, [file("a"), file("b")]),
        "37": Row([folder("d"), file("d/.wh..wh.plnk")], {"d": "dir"}),
        "37-of-another-kind": Row([folder("d"), folder("d/.wh..wh.orph"), file("d/.wh..wh.aufs", "x")], {"d": "dir"}),
        "38": Row([file(".wh.dir/file", "x")], [{".wh.dir": "dir", ".wh.dir/file": "file:x"}, Refused()]),
        "39": Row([file("s/.wh.x")], {"etc": "dir", "s": "-> etc"}, [*etc, symlink("s", "etc")]),
        "40": Row([file("dne/../.wh.etc")], {}, etc),
        "41": Row(
            [file("s/.wh.etc")],
            {"etc": "dir", "etc/x": "file:x", "s": "-> /dne"},
            [*etc, symlink("s", "/dne")],
        ),
        "42": Row([device("x", "char", 0, 0)], Refused()),
        "43": Row([device("sda", "block", 8, 0)], {"sda": "block 8:0"}),
        "44-less": Row([device("x", "char", -1, 0)], Refused()),
        "44-more": Row([device("x", "block", 2**33, 0)], Refused()),
        "44-minor-less": Row([device("x", "char", 1, -1)], Refused()),
        "44-minor-more": Row([device("x", "block", 8, 2**33)], Refused()),
        "45": Row([file("f", "x", xattrs=YES)], {"f": "file:x"}),
        "45-of-a-folder": Row([folder("d", xattrs=YES)], {"d": "dir", "d/old": "file:old"}, old),
        "46": Row(
            [folder("d", xattrs={"user.overlay.opaque": b"y"})],
            [{"d": said, "d/old": "file:old"} for said in ("dir", "dir {user.overlay.opaque=b'y'}")],
            old,
        ),
        "47": Row(
            [file("f", "x", uid=1000, xattrs={"security.capability": CAPABILITY})],
            {"f": f"file:x 0644 1000:0 {{security.capability={CAPABILITY!r}}}"},
        ),
        "48": Row([file("f", "x", xattrs={"bogus.x": b"1"})], {"f": "file:x"}),
        "49": Row([file("f", "x", mode=0o6755, uid=1000)], {"f": "file:x 6755 1000:0"}),
        "50": Row(
            [file("t", "x", mode=0o600), symlink("s", "t", mode=0o644), symlink("out", secret, mode=0o644)],
            {"out": f"-> {secret}", "s": "-> t", "t": "file:x 0600 0:0"},
        ),
        "51": Row([file("f", "x", mtime=-5)], {"f": "file:x @0"}),
        "51-pax": Row([file("f", "x", pax={"mtime": "-5"})], {"f": "file:x @0"}),
        "52": Row([file("f", "x", mtime=2**35)], {"f": "file:x @0"}),
        "52-pax": Row([file("f", "x", pax={"mtime": "99999999999999999999.5"})], {"f": "file:x @0"}),
        "53": Row([file("f", "x", uid=-1)], Refused()),
        "53-group": Row([file("f", "x", gid=-2)], Refused()),
        "53-more": Row([file("f", "x", uid=2**32 - 1)], Refused()),
        "53-pax": Row([file("f", "x", pax={"uid": "-1"})], Refused()),
        "54": Row([block("label", b"V")], Refused()),
        "54-multi-volume": Row([entry("f", b"M", b"x")], Refused()),
        "54-sparse": Row([sparse("f", b"abc", at=4)], {"f": "file:\0\0\0\0abc"}),
        "55": Row([pax_header({"comment": "x"}, b"g", "f")], {"f": "file:old"}, [file("f", "old")]),
        "55-here": Row([file("f", "x"), pax_header({"comment": "x"}, b"g", "f")], {"f": "file:x"}),
        "56": Row([file("n" * 256, "x")], Refused()),
        "56-of-a-parent": Row([file("n" * 256 + "/f", "x")], Refused()),
        "57": Row([file("a\nb", "x"), file(b"bad\xff", "y")], {"a\nb": "file:x", "bad\udcff": "file:y"}),
        "58": Row([folder("/".join(["d"] * 10_000))], Refused()),
        "58-one-by-one": Row([folder("/".join(["dddddddd"] * depth)) for depth in range(1, 500)], Refused()),
        "59": Row([block("f", size=100_000), bytes(512)], Refused("", (InvalidArgument, DataLoss)), tail=b""),
        "60": Row([symlink("s", "")], Refused()),
        "61": Row([folder("d"), file(".wh.d")], {"d": "dir"}),
        "62": Row([fifo("p")], {"p": "fifo"}),
        "63": Row(
            [file(tmp, "1"), symlink("foo", "/"), file(tmp, "2"), folder("foo"), folder("foo/tmp"), file(tmp, "3")],
            {"foo": "dir", "foo/tmp": "dir", tmp: "file:3", "tmp": "dir", "tmp/x": "file:2"},
        ),
        "64": Row([entry("f/", b"0", b"x")], {"f": "file:x"}),
    }  # fmt: skip


def sparse(name: str, data: bytes, *, at: int) -> bytes:
    """GNU's old form: one piece, and the size with its holes at byte 483. Source: GNU tar manual, Basic Tar Format."""
    places = b"%011o\0%011o\0" % (at, len(data)) + bytes(3 * 24)
    rest = bytes(386 - 345) + places + b"\0" + b"%011o\0" % (at + len(data))
    return block(name, b"S", size=len(data), magic=b"ustar  \0", rest=rest) + data.ljust(512, b"\0")


class Outside:
    """What no archive may touch: a folder that links lead to, and the places the table names."""

    NAMES = ("/x", "/abs", "/tmp/x", "/nonexistent", "/etc/f", "/dne", "/foo", "/a", "/etc/x")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.canary = folder / "canary"
        self.canary.mkdir()
        (self.canary / "secret").write_text("the host's")
        (self.canary / "etc").mkdir()
        self._before = self._now()

    def _now(self) -> tuple[object, ...]:
        def stamp(path: str | Path) -> tuple[int, ...]:
            found = os.lstat(path)  # the time of its last change tells any: content, mode, owner, links
            return (found.st_ino, found.st_mode, found.st_nlink, found.st_ctime_ns)

        stamps = [stamp(path) for path in (self.canary, *sorted(self.canary.rglob("*")))]
        names = [name for name in self.NAMES if os.path.lexists(name)]
        return (stamps, stamp("/etc/passwd"), names, sorted(os.listdir(self.folder)), sorted(os.listdir("/")))

    def check(self) -> None:
        assert self._now() == self._before


@pytest.fixture
def outside(leased: orlop.Store, tmp_path: Path) -> Outside:
    return Outside(tmp_path)


async def laid(store: orlop.Store, snapshotter: str, place: str, below: list[bytes], this: bytes) -> Tree | OrlopError:
    """The tree of a snapshot with this layer on top: the same before its commit, after it, and from one above."""
    stack = Stack(store, snapshotter)
    for data in below:
        await stack.add(data)
    key = f"this, {place}"
    mounts = await stack.snapshots.prepare(key, stack.top)
    try:
        await stack.snapshots.apply(key, await put_blob(store, this))
    except OrlopError as error:
        await stack.snapshots.remove(key)
        return error
    async with orlop.mounted(mounts) as path:
        active = comparable(read_tree(path))
    stack.top = f"done, {place}"
    await stack.snapshots.commit(stack.top, key)
    tree = comparable(await stack.tree())
    assert active == tree, "before and after the commit"
    await stack.add(layer())
    assert comparable(await stack.tree()) == tree, "below another layer"
    return tree


def agrees(got: Tree | OrlopError, wanted: dict[str, str] | Refused) -> bool:
    if isinstance(wanted, Refused):
        return isinstance(got, wanted.kinds) and re.search(wanted.text, str(got)) is not None
    return isinstance(got, dict) and brief(got) == wanted


@pytest.mark.parametrize("number", rows("/canary"))
async def test_of_the_table(leased: orlop.Store, outside: Outside, number: str) -> None:
    row = rows(str(outside.canary))[number]
    this = b"".join(row.this) + row.tail
    places: dict[str, list[bytes]] = {"first": [], "above another": [layer(file("another", "a"))]}
    if row.lower:
        places = {"right above": [layer(*row.lower)], "further above": [layer(*row.lower), layer()]}
    for place, below in places.items():
        got = {snapshotter: await laid(leased, snapshotter, place, below, this) for snapshotter in SNAPSHOTTERS}
        outside.check()
        choice = row.expected if isinstance(row.expected, list) else [row.expected]
        if place == "above another":
            choice = [{**wanted, "another": "file:a"} if isinstance(wanted, dict) else wanted for wanted in choice]
        said = {name: brief(tree) if isinstance(tree, dict) else repr(tree) for name, tree in got.items()}
        agreed = any(all(agrees(tree, wanted) for tree in got.values()) for wanted in choice)
        assert agreed, f"{place}: {said}, wanted: {choice}"
        trees = [tree for tree in got.values() if isinstance(tree, dict)]
        assert all(tree == trees[0] for tree in trees)


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
async def test_a_folder_that_becomes_a_link_meanwhile_leads_nobody_out(
    leased: orlop.Store, outside: Outside, snapshotter: str
) -> None:
    """Another process swaps `d` for a link to the host all the while; what comes of it in the root is left open."""
    snapshots = leased.snapshots.using(snapshotter)
    mounts = await snapshots.prepare("swapped")
    entries = [file(f"d/{number}", "x", uid=7) for number in range(2000)]
    blob = await put_blob(leased, layer(folder("d"), *entries, *(file(f"d/.wh.{n}") for n in range(2000))))
    over = False

    def swap(path: str) -> None:
        d, aside = f"{path}/d", f"{path}/aside"
        steps = [
            lambda: os.rename(d, aside),
            lambda: os.symlink(outside.canary, d),
            lambda: os.unlink(d),
            lambda: os.rename(aside, d),
        ]
        while not over:
            for step in steps:
                try:
                    step()
                except OSError:  # the layer's own entries are there first
                    pass

    async with orlop.mounted(mounts) as path, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, swap, path)
        try:
            await snapshots.apply("swapped", blob)
        except OrlopError:
            pass
        finally:
            over = True
    outside.check()
