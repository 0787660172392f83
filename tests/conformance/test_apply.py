"""One layer laid onto a tree: names, existing targets, types, links, metadata.

Source: spec unpack 5.1 to 5.5; a number such as 9.21 is that of its list of edge cases. Whiteouts:
test_apply_whiteouts.py; archives that are meant to do harm: test_apply_hostile.py; how streams are read, and limits:
test_apply_streams.py.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

import pytest

import orlop
from orlop.protocol.errors import InvalidArgument

from ..support.layers import (
    MTIME,
    Stack,
    Tree,
    brief,
    device,
    entry,
    fifo,
    file,
    folder,
    hardlink,
    layer,
    merged,
    pax_header,
    symlink,
)

S = 10**9


async def seen(leased: orlop.Store, snapshotter: str, layers: list[bytes]) -> list[Tree]:
    """The tree of these layers, and the one where they lie above another."""
    return [await merged(leased, snapshotter, below + layers) for below in ([], [layer(folder("base"))])]


async def shown(leased: orlop.Store, snapshotter: str, layers: list[bytes]) -> dict[str, str]:
    """What is seen of these layers, whatever lies below."""
    alone, above = [brief(tree) for tree in await seen(leased, snapshotter, layers)]
    assert above == {"base": "dir", **alone}
    return alone


async def refused(leased: orlop.Store, snapshotter: str, layers: list[bytes]) -> None:
    """All but the last are accepted, also above another one."""
    for first in ([], [layer(folder("base"))]):
        stack = Stack(leased, snapshotter)
        for data in (*first, *layers[:-1]):
            await stack.add(data)
        with pytest.raises(InvalidArgument):
            await stack.add(layers[-1])


# Names (5.1)


async def test_names_are_cleaned(leased: orlop.Store, snapshotter: str) -> None:
    for name in ("a//b/./c", "/a/b/c", "./a/b/c", "a/x/../b/c", "../../a/b/c", "a/b/c/d/..", "//a/../a/b/./c"):
        got = await shown(leased, snapshotter, [layer(file(name, "x"))])
        assert got == {"a": "dir", "a/b": "dir", "a/b/c": "file:x"}, name


async def test_an_entry_for_the_root_changes_nothing(leased: orlop.Store, snapshotter: str) -> None:  # 9.16
    for name in (".", "./", "/", "..", "", "a/.."):
        root = entry(name, b"5", mode=0o700, uid=5, gid=6, xattrs={"user.x": b"1"})
        assert await shown(leased, snapshotter, [layer(root, file("f", "x"))]) == {"f": "file:x"}, name


async def test_255_links_are_followed_and_not_one_more(leased: orlop.Store, snapshotter: str) -> None:
    chain = [folder("end"), symlink("0", "end"), *(symlink(str(n), str(n - 1)) for n in range(1, 256))]
    stack = Stack(leased, snapshotter)
    await stack.add(layer(*chain, file("254/f", "x")))  # 254 → 253 → … → 0 → end
    assert brief(await stack.tree())["end/f"] == "file:x"
    with pytest.raises(InvalidArgument, match="too many"):
        await stack.add(layer(file("255/g", "x")))


async def test_links_on_the_way_lead_through_every_layer(leased: orlop.Store, snapshotter: str) -> None:
    layers = [
        layer(symlink("lib", "usr/lib"), folder("usr"), folder("usr/share")),
        layer(symlink("usr/lib", "../usr/share/./lib")),
        layer(symlink("usr/share/lib", "/real")),
        layer(folder("real")),
        layer(file("lib/f", "x"), hardlink("lib/g", "lib/f")),
        layer(file("lib/.wh.f")),
    ]
    assert await shown(leased, snapshotter, layers) == {
        "lib": "-> usr/lib",
        "real": "dir",
        "real/g": "file:x",
        "usr": "dir",
        "usr/lib": "-> ../usr/share/./lib",
        "usr/share": "dir",
        "usr/share/lib": "-> /real",
    }


async def test_missing_parents_are_made_as_by_mkdir(leased: orlop.Store, snapshotter: str) -> None:
    before = time.time_ns() - 10 * 10**6  # the kernel's clock for files is up to a tick behind
    trees = await seen(leased, snapshotter, [layer(file("a/b/f", "x", mode=0o600, uid=5, gid=6))])
    after = time.time_ns()
    for made in [tree[name] for tree in trees for name in ("a", "a/b")]:
        assert str(made) == "dir"
        assert before <= made.mtime_ns <= after


async def test_parents_from_below_keep_what_they_are(leased: orlop.Store, snapshotter: str) -> None:
    below = layer(
        folder("a", mode=0o2700, uid=1, gid=2, xattrs={"user.a": b"1"}), folder("a/b", mode=0o1777, uid=3, gid=4)
    )
    got = await shown(leased, snapshotter, [below, layer(), layer(file("a/b/f", "x"))])
    assert got == {"a": "dir 2700 1:2 {user.a=b'1'}", "a/b": "dir 1777 3:4", "a/b/f": "file:x"}


async def test_parents_in_a_new_folder_are_new(leased: orlop.Store, snapshotter: str) -> None:
    """Whatever lies below under the same name elsewhere."""
    below = layer(folder("etc", mode=0o700, uid=5), file("a", "a"), fifo("b"))
    above = layer(file("b/b", "x"), folder("x"), file("x/etc/f", "x"), file("x/a/f", "x"))
    await refused(leased, snapshotter, [below, above])
    above = layer(file("c/b", "x"), folder("x"), file("x/etc/f", "x"), file("x/a/f", "x"), folder("b"), file("b/b/f"))
    assert await shown(leased, snapshotter, [below, above]) == {
        "a": "file:a", "b": "dir", "b/b": "dir", "b/b/f": "file:", "c": "dir", "c/b": "file:x",
        "etc": "dir 0700 5:0", "x": "dir", "x/a": "dir", "x/a/f": "file:x", "x/etc": "dir", "x/etc/f": "file:x",
    }  # fmt: skip


async def test_an_entry_may_replace_the_link_that_led_to_it(leased: orlop.Store, snapshotter: str) -> None:
    link = symlink("a", ".")
    for layers in ([layer(link), layer(file("a/a", "x"))], [layer(link, file("a/a", "x"))]):
        assert await shown(leased, snapshotter, layers) == {"a": "file:x"}


async def test_a_file_is_no_parent(leased: orlop.Store, snapshotter: str) -> None:
    await refused(leased, snapshotter, [layer(file("p", "x"), file("p/child", "x"))])
    await refused(leased, snapshotter, [layer(file("p", "x"), symlink("l", "p"), file("l/child", "x"))])


async def test_a_component_has_up_to_255_bytes(leased: orlop.Store, snapshotter: str) -> None:
    name = "é" * 127 + "n"
    got = await shown(leased, snapshotter, [layer(file(f"{name}/{name}", "x"))])
    assert got == {name: "dir", f"{name}/{name}": "file:x"}
    await refused(leased, snapshotter, [layer(file(name + "n", "x"))])
    await refused(leased, snapshotter, [layer(symlink("s", "x"), symlink(name + "n", "x"))])


async def test_a_path_beyond_the_systems_limit_is_refused(leased: orlop.Store, snapshotter: str) -> None:
    await refused(leased, snapshotter, [layer(file("/".join(["n" * 250] * 17), "x"))])


# What is there already (5.2)

EXISTING = {
    "dir": [folder("t", mode=0o700, uid=1, xattrs={"user.old": b"1"}), file("t/in", "in")],
    "file": [file("t", "old")],
    "link": [symlink("t", "other"), folder("other"), file("other/in", "in")],
    "dangling": [symlink("t", "nowhere")],
    "fifo": [fifo("t")],
}
COMING = {
    "dir": (folder("t", mode=0o751, uid=2, xattrs={"user.new": b"2"}), "dir 0751 2:0 {user.new=b'2'}"),
    "file": (file("t", "new"), "file:new"),
    "link": (symlink("t", "new"), "-> new"),
    "fifo": (fifo("t", mode=0o600), "fifo 0600 0:0"),
    "device": (device("t", "char", 1, 3), "char 1:3"),
    "hard link": (hardlink("t", "z"), "file:z"),
}


@pytest.mark.parametrize("existing", EXISTING)
async def test_what_is_there_makes_way(leased: orlop.Store, snapshotter: str, existing: str) -> None:
    before = [file("z", "z"), *EXISTING[existing]]
    for coming, (data, said) in COMING.items():
        expected = {"t": said, "z": "= t" if coming == "hard link" else "file:z"}
        if existing == "link":
            expected |= {"other": "dir", "other/in": "file:in"}
        if (existing, coming) == ("dir", "dir"):
            expected["t/in"] = "file:in"
        assert await shown(leased, snapshotter, [layer(*before), layer(data)]) == expected, coming
        assert await shown(leased, snapshotter, [layer(*before, data)]) == expected, f"{coming} in the same archive"


@pytest.mark.parametrize("place", ["below", "in the same archive"])
async def test_other_names_of_a_replaced_file_keep_the_old_content(
    leased: orlop.Store, snapshotter: str, place: str
) -> None:
    before = [file("a", "old"), hardlink("b", "a"), hardlink("c", "a")]
    layers = [layer(*before), layer(file("a", "new"))] if place == "below" else [layer(*before, file("a", "new"))]
    assert await shown(leased, snapshotter, layers) == {"a": "file:new", "b": "file:old", "c": "= b"}


async def test_the_last_of_several_entries_wins(leased: orlop.Store, snapshotter: str) -> None:
    entries = [file("f", "1", mode=0o600), symlink("f", "x"), folder("f"), file("f/in", "x"), file("f", "2", uid=9)]
    assert await shown(leased, snapshotter, [layer(*entries)]) == {"f": "file:2 0644 9:0"}


# Types (5.3)


async def test_every_type_is_made(leased: orlop.Store, snapshotter: str) -> None:
    entries = [
        entry("old", b"\0", b"v7"),
        entry("olddir/", b"\0", mode=0o755),
        file("f", "x"),
        entry("slash/", b"0", b"y"),
        hardlink("h", "f"),
        symlink("s", "/etc/../passwd"),
        device("c", "char", 1, 3, mode=0o666),
        device("b", "block", 259, 1048575, mode=0o660, gid=6),
        folder("d"),
        fifo("p", mode=0o600),
    ]
    assert await shown(leased, snapshotter, [layer(*entries)]) == {
        "b": "block 259:1048575 0660 0:6",
        "c": "char 1:3 0666 0:0",
        "d": "dir",
        "f": "file:x",
        "h": "= f",
        "old": "file:v7",
        "olddir": "dir",
        "p": "fifo 0600 0:0",
        "s": "-> /etc/../passwd",
        "slash": "file:y",
    }


async def test_other_types_are_refused(leased: orlop.Store, snapshotter: str) -> None:
    for kind in (b"7", b"V", b"M", b"D", b"Z", b"A", b"\xff"):
        await refused(leased, snapshotter, [layer(entry("f", kind, b""))])


async def test_a_global_header_concerns_nothing(leased: orlop.Store, snapshotter: str) -> None:
    header = pax_header({"path": "elsewhere", "uid": "5", "mtime": "1", "SCHILY.xattr.user.x": "1"}, b"g", "f")
    entries = [header, file("f", "x"), header, file("g", "y")]
    assert await shown(leased, snapshotter, [layer(*entries)]) == {"f": "file:x", "g": "file:y"}


# Hard links (5.4)


async def test_the_target_of_a_hard_link_is_found_inside(leased: orlop.Store, snapshotter: str) -> None:
    expected = {"d": "dir", "d/f": "file:x", "l": "= d/f", "s": "-> /d"}
    for target in ("d/f", "/d/f", "./d//f", "../d/f", "s/f", "s/../d/f"):
        entries = [folder("d"), file("d/f", "x"), symlink("s", "/d")]
        assert await shown(leased, snapshotter, [layer(*entries, hardlink("l", target))]) == expected, target
        assert await shown(leased, snapshotter, [layer(*entries), layer(hardlink("l", target))]) == expected, target


async def test_a_hard_link_without_a_file_is_refused(leased: orlop.Store, snapshotter: str) -> None:
    entries = [folder("d"), file("f", "x")]
    for target in ("missing", "missing/f", "", ".", "/", "..", "d", "l", "f/child"):
        await refused(leased, snapshotter, [layer(*entries, hardlink("l", target))])
        await refused(leased, snapshotter, [layer(*entries), layer(hardlink("l", target))])


@pytest.mark.parametrize("place", ["below", "in the same archive"])
async def test_a_hard_link_gives_its_file_the_headers_metadata(
    leased: orlop.Store, snapshotter: str, place: str
) -> None:
    before = file("f", "x", mode=0o600, uid=1, xattrs={"user.kept": b"1", "user.x": b"1"})
    after = hardlink("l", "f", mode=0o4711, uid=2, gid=3, mtime=MTIME + 5, xattrs={"user.x": b"2"})
    layers = [layer(before), layer(after)] if place == "below" else [layer(before, after)]
    said = "file:x 4711 2:3 @1700000005000000000 {user.kept=b'1', user.x=b'2'}"
    assert await shown(leased, snapshotter, layers) == {"f": said, "l": "= f"}


async def test_a_file_from_below_is_linked_with_all_it_has(leased: orlop.Store, snapshotter: str) -> None:  # 9.18
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    below = layer(
        file("d/f", b"x" * 100_000, uid=1, gid=2, mode=0o755, xattrs={"security.capability": capability}),
        folder("other", mode=0o700),
    )
    again = hardlink("other/l", "d/f", mode=0o755, uid=1, gid=2, xattrs={"security.capability": capability})
    stack = Stack(leased, snapshotter)
    await stack.add(below)
    before = (await stack.tree())["d/f"]
    await stack.add(layer(again))
    tree = await stack.tree()
    assert tree["d/f"].content == before.content
    assert (tree["other/l"].links, str(tree["d/f"])) == ("d/f", str(before))
    assert await stack.looked_at(lambda path: os.lstat(f"{path}/d/f").st_nlink) == 2
    assert str(tree["other"]) == "dir 0700 0:0"


async def test_not_only_files_from_below_are_linked(leased: orlop.Store, snapshotter: str) -> None:
    for below, said in (
        (symlink("f", "nowhere", uid=5), "-> nowhere"),
        (fifo("f", mode=0o600), "fifo"),
        (device("f", "char", 1, 3), "char 1:3"),
    ):
        got = await shown(leased, snapshotter, [layer(below), layer(hardlink("g", "f"))])
        assert got == {"f": said, "g": "= f"}


async def test_a_linked_file_can_be_hidden_under_its_first_name(leased: orlop.Store, snapshotter: str) -> None:
    layers = [layer(file("f", "x")), layer(hardlink("g", "f"), file(".wh.f"))]
    assert await shown(leased, snapshotter, layers) == {"g": "file:x"}


# Metadata (5.5)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


async def test_the_umask_has_no_say(leased: orlop.Store, snapshotter: str, umask: None) -> None:
    entries = [folder("d"), file("d/f", "x"), fifo("p", mode=0o666), device("c", "char", 1, 3, mode=0o666)]
    assert await shown(leased, snapshotter, [layer(*entries, file("made/f", "x"))]) == {
        "c": "char 1:3 0666 0:0",
        "d": "dir",
        "d/f": "file:x",
        "made": "dir",
        "made/f": "file:x",
        "p": "fifo 0666 0:0",
    }  # 9.21


async def test_modes_are_twelve_bits(leased: orlop.Store, snapshotter: str) -> None:
    entries = [
        folder("tmp", mode=0o1777),
        folder("group", mode=0o2775, uid=7, gid=8),
        file("su", "x", mode=0o4755, uid=7),
        file("more", "x", mode=0o100640),
        file("none", "x", mode=0),
    ]
    assert await shown(leased, snapshotter, [layer(*entries)]) == {
        "group": "dir 2775 7:8",
        "more": "file:x 0640 0:0",
        "none": "file:x 0000 0:0",
        "su": "file:x 4755 7:0",
        "tmp": "dir 1777 0:0",
    }  # 9.22


async def test_owners_are_the_numbers(leased: orlop.Store, snapshotter: str) -> None:
    entries = [
        entry("named", b"0", b"x", uid=1234, owner=b"root", group=b"daemon"),
        file("large", "x", uid=3_000_000_000, gid=2**32 - 2),
        file("pax", "x", pax={"uid": "70000", "gid": "80000", "uname": "root"}),
        symlink("s", "x", uid=5, gid=6),
    ]
    assert await shown(leased, snapshotter, [layer(*entries)]) == {
        "large": "file:x 0644 3000000000:4294967294",
        "named": "file:x 0644 1234:0",
        "pax": "file:x 0644 70000:80000",
        "s": "-> x 0777 5:6",
    }


async def test_times_have_nanoseconds_and_belong_to_links_too(leased: orlop.Store, snapshotter: str) -> None:
    entries = [
        file("f", "x", pax={"mtime": "1600000000.123456789"}),
        symlink("s", "f", pax={"mtime": "1500000000.000000001"}),
        file("short", "x", pax={"mtime": "1600000000.5"}),
        fifo("p", mtime=1),
        folder("d", pax={"mtime": "1400000000.987654321"}),
    ]
    for tree in await seen(leased, snapshotter, [layer(*entries)]):
        assert {name: tree[name].mtime_ns for name in ("d", "f", "p", "s", "short")} == {
            "d": 1400000000_987654321,
            "f": 1600000000_123456789,
            "p": 1 * S,
            "s": 1500000000_000000001,
            "short": 1600000000_500000000,
        }  # 9.24


async def test_folders_have_their_own_times_whatever_comes_into_them(
    leased: orlop.Store, snapshotter: str
) -> None:  # 9.23
    entries = [
        folder("a", mtime=1000),
        folder("a/b", mtime=2000),
        file("a/b/f", "x"),
        file("a/f", "x"),
        folder("gone", mtime=3000),
        file("gone", "x"),
        folder("twice", mtime=1),
        folder("twice", mtime=4000),
        file(".wh.nothing"),
        file("a/b/.wh.nothing"),
    ]
    for tree in await seen(leased, snapshotter, [layer(*entries)]):
        assert [tree[name].mtime_ns for name in ("a", "a/b", "twice")] == [1000 * S, 2000 * S, 4000 * S]
        assert str(tree["gone"]) == "file:x"


async def test_a_folder_from_below_takes_the_entrys_time(leased: orlop.Store, snapshotter: str) -> None:
    below = layer(folder("d", mtime=1000), file("d/old", "x"))
    for tree in await seen(leased, snapshotter, [below, layer(folder("d", mtime=2000), file("d/new", "x"))]):
        assert tree["d"].mtime_ns == 2000 * S


async def test_a_file_is_never_read_before_it_was_written(leased: orlop.Store, snapshotter: str) -> None:
    stack = Stack(leased, snapshotter)
    early, late = file("early", "x", pax={"atime": "1000.25"}), file("late", "x", pax={"atime": "1800000000.5"})
    names = ("early", "late", "none")
    for _ in range(2):
        await stack.add(layer(early, late, file("none", "x")))
        times = await stack.looked_at(lambda path: [os.lstat(f"{path}/{name}").st_atime_ns for name in names])
        assert times == [MTIME * S, 1800000000_500000000, MTIME * S]


async def test_xattrs_come_from_schilys_records_alone(leased: orlop.Store, snapshotter: str) -> None:
    records = {"LIBARCHIVE.xattr.user.other": "eA==", "comment": "x"}
    xattrs = {"user.binary": b"a\0b\n\xff=", "user.empty": b"", "user.a.b c": b"1"}
    entries = [file("f", "x", pax=records, xattrs=xattrs), folder("d", xattrs=xattrs)]
    said = "{user.a.b c=b'1', user.binary=b'a\\x00b\\n\\xff=', user.empty=b''}"
    got = await shown(leased, snapshotter, [layer(*entries)])
    assert got == {"d": f"dir {said}", "f": f"file:x {said}"}  # 9.25


async def test_xattrs_that_nothing_can_have_are_left_out(leased: orlop.Store, snapshotter: str) -> None:
    trusted = {"trusted.overlay.opaque": b"y", "trusted.overlay.redirect": b"/", "trusted.mine": b"1"}
    entries = [
        folder("d", xattrs=trusted),
        file("f", "x", xattrs=trusted),
        symlink("s", "f", xattrs={"user.x": b"1"}),
        fifo("p", xattrs={"user.x": b"1"}),
        device("c", "char", 1, 3, xattrs={"user.x": b"1"}),
        file("unknown", "x", xattrs={"bogus.x": b"1"}),
    ]
    assert await shown(leased, snapshotter, [layer(*entries)]) == {
        "c": "char 1:3", "d": "dir", "f": "file:x", "p": "fifo", "s": "-> f", "unknown": "file:x",
    }  # fmt: skip  # 9.26


async def test_an_xattr_that_is_wrong_is_refused(leased: orlop.Store, snapshotter: str) -> None:
    half = {"system.posix_acl_access": b"\x02\0\0\0half"}  # the version, and less than an entry
    await refused(leased, snapshotter, [layer(file("f", "x", xattrs=half))])


async def test_owners_that_are_none_are_refused(leased: orlop.Store, snapshotter: str) -> None:
    for fields in ({"uid": -1}, {"gid": -1}, {"uid": 2**32 - 1}, {"gid": 2**40}):
        for bad in (file("f", **fields), folder("f", **fields), fifo("f", **fields), symlink("f", "x", **fields)):
            await refused(leased, snapshotter, [layer(bad)])
