"""Whiteouts and opaque markers: they hide what is below, and nothing of their own archive, whatever the order.

Source: spec unpack 5.6 to 5.8, and section 9 where a number says so. The odd ones: test_apply_hostile.py.
"""

from __future__ import annotations

import pytest

import orlop
from orlop.protocol.errors import InvalidArgument

from ..support.layers import (
    Stack,
    block,
    brief,
    device,
    fifo,
    file,
    folder,
    hardlink,
    layer,
    merged,
    symlink,
)

WHITEOUTS = {
    "file": file("d/.wh.x"),
    "content": file("d/.wh.x", "content", mode=0, uid=7),
    "dir": folder("d/.wh.x"),
    "link": symlink("d/.wh.x", "y"),
    "hard link": hardlink("d/.wh.x", "d/y"),
    "fifo": fifo("d/.wh.x"),
    "device": device("d/.wh.x", "char", 0, 0),
    "v7": block("d/.wh.x", b"\0"),
}


@pytest.mark.parametrize("whiteout", WHITEOUTS)
async def test_a_whiteout_of_any_form_hides_anything(leased: orlop.Store, snapshotter: str, whiteout: str) -> None:
    for hidden in (
        [file("d/x", "x")],
        [symlink("d/x", "y")],
        [folder("d/x"), folder("d/x/z"), file("d/x/z/f", "x")],
    ):
        layers = [layer(folder("d"), file("d/y", "y"), *hidden), layer(WHITEOUTS[whiteout])]
        assert brief(await merged(leased, snapshotter, layers)) == {"d": "dir", "d/y": "file:y"}


TREE = [folder("d"), folder("d/sub"), file("d/sub/old", "o"), file("d/old", "o"), file("other", "o")]


@pytest.mark.parametrize(
    "entries, expected",
    [
        ([file("d/new", "n"), file(".wh.d")], {"d": "dir", "d/new": "file:n"}),
        ([file("d/sub/new", "n"), file(".wh.d")], {"d": "dir", "d/sub": "dir", "d/sub/new": "file:n"}),
        ([file("d/sub/new", "n"), file("d/.wh.sub"), file("d/.wh.old")],
         {"d": "dir", "d/sub": "dir", "d/sub/new": "file:n"}),
        ([file("d/.wh..wh..opq"), file("d/sub/new", "n")], {"d": "dir", "d/sub": "dir", "d/sub/new": "file:n"}),
        ([file("d/sub/.wh..wh..opq")], {"d": "dir", "d/old": "file:o", "d/sub": "dir"}),
        ([file("d/sub/.wh..wh..opq"), file("d/sub/new", "n"), file("d/.wh..wh..opq")],
         {"d": "dir", "d/sub": "dir", "d/sub/new": "file:n"}),
        ([file(".wh.d"), folder("d", mode=0o700)], {"d": "dir 0700 0:0"}),
        ([file(".wh.d"), file("d", "n")], {"d": "file:n"}),
        ([file(".wh.d"), symlink("d", "other")], {"d": "-> other"}),
        ([file(".wh.d"), file(".wh.d"), folder("d"), file("d/.wh..wh..opq"), file("d/.wh.sub")], {"d": "dir"}),
        ([symlink("d", "sub"), folder("d"), folder("d/sub")], {"d": "dir", "d/sub": "dir"}),
        ([folder("d"), file("d/.wh..wh..opq", "x"), folder("d/sub"), file("d/sub/.wh.old")],
         {"d": "dir", "d/sub": "dir"}),
        ([file(".wh.d"), file("d/.wh..wh..opq")], {}),
        ([file("d/.wh.old"), file(".wh.d")], {}),
        ([file("s/.wh..wh..opq"), file("s/.wh.old"), symlink("s", "d")],
         {"d": "dir", "d/old": "file:o", "d/sub": "dir", "d/sub/old": "file:o", "s": "-> d"}),
        ([symlink("s", "/d/sub"), file("s/.wh..wh..opq"), file(".wh.d")], {"s": "-> /d/sub"}),
        ([file(".wh.d"), file("d/new", "n")], {"d": "dir", "d/new": "file:n"}),
    ],
)  # fmt: skip
async def test_whiteouts_hide_what_is_below_and_that_alone(
    leased: orlop.Store, snapshotter: str, entries: list[bytes], expected: dict[str, str]
) -> None:  # 9.20
    got = brief(await merged(leased, snapshotter, [layer(*TREE), layer(*entries)]))
    assert got == {**expected, "other": "file:o"}


async def test_what_was_hidden_is_no_way_to_anything(leased: orlop.Store, snapshotter: str) -> None:
    """Neither a file nor a link that the archive hid stands in the way of what comes after."""
    below = layer(file("f", "old"), symlink("s", "d"), folder("d"))
    for hider in (file(".wh.f"), file(".wh.s")), (file(".wh..wh..opq"), folder("d")):
        above = layer(*hider, file("f/new", "n"), file("s/new", "n"))
        assert brief(await merged(leased, snapshotter, [below, above])) == {
            "d": "dir", "f": "dir", "f/new": "file:n", "s": "dir", "s/new": "file:n",
        }  # fmt: skip


async def test_what_lies_below_a_listed_folder_is_found_whatever_came_before(
    leased: orlop.Store, snapshotter: str
) -> None:
    """An entry whose parents had to be made comes first."""
    below = layer(
        folder("var"), file("var/x", "x"), file("var/y", "y"), symlink("var/run", "/run"), folder("run"),
        folder("var/lib", mode=0o700, uid=5),
    )  # fmt: skip
    above = layer(
        file("made/f", "f"), folder("var"), file("var/.wh.x"), hardlink("var/z", "var/y"), file("var/run/pid", "1"),
        file("var/lib/f", "f"),
    )  # fmt: skip
    assert brief(await merged(leased, snapshotter, [below, above])) == {
        "made": "dir", "made/f": "file:f", "run": "dir", "run/pid": "file:1", "var": "dir",
        "var/lib": "dir 0700 5:0", "var/lib/f": "file:f", "var/run": "-> /run", "var/y": "file:y", "var/z": "= var/y",
    }  # fmt: skip


async def test_a_whiteout_in_a_new_folder_leaves_no_ghost(leased: orlop.Store, snapshotter: str) -> None:
    """Also where something of that name lies elsewhere below."""
    below = layer(file("a", "a"), folder("x"))
    above = layer(folder("c/c"), folder("n"), file("n/.wh.a"), file("n/.wh.x"), file("m/f", "f"), file("m/.wh.a"))
    assert brief(await merged(leased, snapshotter, [below, above])) == {
        "a": "file:a", "c": "dir", "c/c": "dir", "m": "dir", "m/f": "file:f", "n": "dir", "x": "dir",
    }  # fmt: skip


async def test_an_opaque_root_hides_everything_below_it(leased: orlop.Store, snapshotter: str) -> None:  # 9.19
    opaque = file(".wh..wh..opq")
    stack = Stack(leased, snapshotter)
    for data in (layer(*TREE), layer(file("middle", "m")), layer(file("early", "e"), opaque, file("d/new", "n"))):
        await stack.add(data)
    expected = {"d": "dir", "d/new": "file:n", "early": "file:e"}
    assert brief(await stack.tree()) == expected
    await stack.add(layer(file("late", "l")))
    assert brief(await stack.tree()) == {**expected, "late": "file:l"}


async def test_what_a_layer_hid_a_later_one_may_bring_again(leased: orlop.Store, snapshotter: str) -> None:
    stack = Stack(leased, snapshotter)
    await stack.add(layer(*TREE))
    await stack.add(layer(file("d/.wh.old"), file("d/sub/.wh..wh..opq"), file(".wh.other")))
    await stack.add(layer(file("d/sub/again", "2"), file("other", "2"), folder("d/old")))
    assert brief(await stack.tree()) == {
        "d": "dir", "d/old": "dir", "d/sub": "dir", "d/sub/again": "file:2", "other": "file:2",
    }  # fmt: skip
    await stack.add(layer(file(".wh.d"), file(".wh.other")))
    assert brief(await stack.tree()) == {}
    await stack.add(layer(*TREE))
    assert set(await stack.tree()) == {".", "d", "d/sub", "d/sub/old", "d/old", "other"}


async def test_what_whiteouts_are_made_of_is_never_seen(leased: orlop.Store, snapshotter: str) -> None:
    """No device and no attribute of an overlay shows, also where a snapshot is seen without the ones below it."""
    for layers in (
        [layer(file(".wh.x"), folder("d"), file("d/.wh.y"), file("d/.wh..wh..opq"))],
        [layer(*TREE), layer(file("d/.wh..wh..opq"), file("d/.wh.sub"), folder("d"), file(".wh.other"))],
        [layer(*TREE), layer(file(".wh.d"), folder("d"), file(".wh.other"), file(".wh.ghost"))],
    ):
        assert brief(await merged(leased, snapshotter, layers)) == {"d": "dir"}


async def test_a_whiteout_of_nothing_or_of_folders_that_are_no_names_is_refused(
    leased: orlop.Store, snapshotter: str
) -> None:
    stack = Stack(leased, snapshotter)
    await stack.add(layer(*TREE))
    for name in (".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."):
        with pytest.raises(InvalidArgument):
            await stack.add(layer(file(name)))


async def test_what_aufs_kept_for_itself_is_ignored(leased: orlop.Store, snapshotter: str) -> None:
    stack = Stack(leased, snapshotter)
    await stack.add(layer(*TREE))
    before = brief(await stack.tree())
    for name in (".wh..wh.plnk", "d/.wh..wh.aufs", "d/.wh..wh.orph", "d/.wh..wh..opqx"):
        await stack.add(layer(file(name, "x"), file("new", "n")))
        assert brief(await stack.tree()) == {**before, "new": "file:n"}
