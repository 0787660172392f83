"""A difference laid over the lower tree gives the upper one. Source: spec unpack 7.7, snapshots 11.1 (S9 to S15, S20).

Folders' times are not compared: every change of what is in them changes them, and a difference does not record it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import orlop

from ..support.layers import GZIP, MTIME, TAR, Stack, Tree, comparable, quick_store, read_tree
from ..support.tree_changes import Change, Device, Dir, Fifo, File, Hard, Link, Node, Socket, change, remove

S = 10**9
Step = Change | Callable[[str], object]


def whole_seconds(tree: Tree) -> Tree:
    """What is left of times in an archive; sockets are not in any."""
    return {
        name: replace(e, mtime_ns=e.mtime_ns // S * S) for name, e in comparable(tree).items() if e.kind != "socket"
    }


# Steps (7.7)

HOME = "home/derek"
ETC = {"etc/hosts": File("mydomain 10.0.0.1"), "etc/hosts.allow": Hard("etc/hosts")}
LIB = {"usr/local/lib/libnothing.so": File("\x00\x00"), "usr/local/lib/libnothing.so.2": Link("libnothing.so")}


def renamed(old: str, new: str) -> Callable[[str], object]:
    """As `mv` does it, which copies where the file system cannot rename what lies below."""
    return lambda path: shutil.move(f"{path}/{old}", f"{path}/{new}")


def all_of(*steps: Step) -> Callable[[str], object]:
    def do(path: str) -> None:
        for step in steps:
            change(path, step) if isinstance(step, dict) else step(path)  # type: ignore[arg-type,operator]

    return do


def chowned(root: str) -> None:
    for folder, _, files in os.walk(f"{root}/opt"):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.lchown(path, 1, 1)


CASES: dict[str, list[Step]] = {
    "basic": [
        {**ETC, **LIB, HOME: Dir(0o700)},
        {"etc/hosts": File("mydomain 10.0.0.120"), "etc/fstab": File("", 0o600), "etc/badfile": File("", 0o666),
         f"{HOME}/.zshrc": File("#ZSH is just better", 0o640)},
        all_of({"etc/badfile": None}, renamed(HOME, "home/notderek")),
        {"usr": None, "etc/hosts.allow": None},
        {"home": None, HOME: Dir(0o700), f"{HOME}/.bashrc": File("#not going away", 0o640),
         "etc/hosts.allow": Hard("etc/hosts")},
    ],
    "deletion": [
        {"test/somedir": Dir(0o700), "lib": Dir(0o700), "lib/hidden": File("x")},
        all_of({"test/a": File("a"), "test/b": File("b"), "test/x/y": File("y"), "lib": None},
               {"lib": Dir(0o700), "lib/not-hidden": File("y")}),
        {"test/a": None, "test/b": None, "test/x": None, "lib/newfile": File("z")},
    ],
    "update": [
        {"d1": Dir(0o700), "d1/f": File("short"), "d2/f": File("x"), "d3": Dir(), "f": File("f", 0o600)},
        {"d1/f": File("longer than it was")},
        all_of({"d2": None}, {"d2/f": File("again"), "d2/g": File("g")}),
        {"d3": Dir(0o1777), "f": File("f", 0o4755)},
    ],
    "folders keep their modes": [
        {"d1": Dir(0o700), "d2": Dir(0o751), "d3": Dir(0o777)},
        {"d1/d": Dir(0o700), "d1/f": File("f", 0o644), "d2/d": Dir(0o777), "d2/f": File("f", 0o444), "d3/d": Dir(0o444),
         "d3/f": File("f", 0o600)},
    ],
    "folders above keep their modes": [
        {"d1": Dir(0o700), "d1/d": Dir(0o700), "d1/d/f": File("f", 0o444), "d2": Dir(0o751), "d2/d": Dir(0o751),
         "d2/d/f": File("f", 0o644), "d3": Dir(0o777), "d3/d": Dir(0o777), "d3/d/f": File("f", 0o644)},
        {"d1/d/f": File("changed", 0o444), "d2/d/f": File("changed", 0o644)},
    ],
    "a link to what did not change": [
        {"etc/hosts": File("hosts 1")},
        {"etc/hosts": File("hosts 2, longer")},
        {"etc/hosts.deny": Hard("etc/hosts")},
    ],
    "a link before what did not change": [
        {"etc/hosts": File("hosts 1")},
        {"etc/hosts": File("hosts 2, longer")},
        {"before": Hard("etc/hosts")},
    ],
    "a link before what changed": [
        {"etc/hosts": File("hosts 1")},
        all_of({"etc/hosts": None}, {"etc/hosts": File("hosts 2, longer"), "before": Hard("etc/hosts")}),
        {"zz": Hard("before"), "etc/hosts.deny": Hard("before")},
    ],
    "chains of links": [
        {"a": Link("b"), "b": Link("/c"), "c": Link("../../etc"), "etc/f": File("f"), "dangling": Link("nowhere")},
        {"a": Link("c"), "c": Dir(), "c/f": File("x"), "etc/self": Link("self")},
        {"b": None, "c": None, "a": File("no link any more")},
    ],
    "a file updated with the same length": [
        {"etc/hosts": File("one"), "etc/profile": File("p", 0o644)},
        {"etc/hosts": File("two"), "etc/profile": File("p", 0o666), "root": Dir(0o700), "root/.bashrc": File("x")},
        {"etc/hosts": File("six", mtime_ns=MTIME * S + 5)},
    ],
    "a tree with another owner": [{"opt/a/b/file": File("x", 0o700), "opt": Dir(0o700)}, chowned],
    "owners and modes of folders": [
        {"d1": Dir(0o700, 1, 1), "d2": Dir(0o700, 1, 1), "d3": Dir(0o700, 1, 1), "d4": Dir(0o700),
         "d4/f1": File("x"), "d5": Dir(0o700, 1, 1), "d5/f1": File("x", uid=1, gid=1)},
        {"d2": Dir(0o700), "d3": None, "d4": Dir(0o700, 1, 1), "d4/f1": File("x", uid=1, gid=1)},
        all_of({"d3": Dir(0o700, 1, 1), "d5": None}, {"d5": Dir(0o700, 1, 1)}),
    ],
    "moves": [
        {"dir1": Dir(0o700), "dir1/f1": File("f1"), "dir2/f2": File("f2"), "files/f1": File("1"),
         "files/f2": File("2")},
        all_of({"dir3/f1": File("new"), "dir1": None, "dir3/f2": Hard("dir2/f2")}, {"dir2/f2": None}),
        all_of(renamed("dir3", "dir1"), renamed("files/f1", "files/f2"), renamed("files/f2", "files/f3")),
    ],
    "kinds become others": [
        {"a": File("x"), "b": Dir(), "b/in": File("x"), "c": Link("a"), "d": Fifo(), "e": Device("char", 1, 3)},
        {"a": Dir(), "a/in": File("x"), "b": Link("a"), "c": Fifo(), "d": Device("block", 7, 1), "e": File("x")},
        {"a": Device("char", 5, 1), "b": File("b"), "c": Dir(), "d": Link("x"), "e": Dir(0o700), "e/in": File("x")},
        dict.fromkeys("abcde"),
    ],
    "sockets": [{"a": File("a"), "s": Socket()}, {"s": None, "d/t": Socket(), "d/f": File("f")}],
    "attributes": [
        {"f": File("x", xattrs={"user.a": b"1", "user.b": b"\0\xff"}), "d": Dir(xattrs={"user.d": b""})},
        {"f": File("x", xattrs={"user.b": b"2"}), "d": Dir(), "e": Dir(xattrs={"user.e": b"\n"})},
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_every_step_is_repeated_by_its_difference(leased: orlop.Store, snapshotter: str, case: str) -> None:
    made, applied = Stack(leased, snapshotter), Stack(leased, snapshotter)
    for step in CASES[case]:
        await made.change(all_of(step))
        difference = await made.snapshots.diff(made.top)
        await applied.add(await leased.content.read(difference.digest), difference.media_type)
        assert whole_seconds(await applied.tree()) == whole_seconds(await made.tree())


async def test_differences_are_good_on_the_other_snapshotter_too(leased: orlop.Store) -> None:
    for one, other in (("native", "overlayfs"), ("overlayfs", "native")):
        made, applied = Stack(leased, one), Stack(leased, other)
        for step in CASES["basic"]:
            await made.change(all_of(step))
            difference = await made.snapshots.diff(made.top, media_type=TAR)
            await applied.add(await leased.content.read(difference.digest))
        assert whole_seconds(await applied.tree()) == whole_seconds(await made.tree())


async def test_one_difference_over_many_layers(leased: orlop.Store, snapshotter: str) -> None:
    made, applied = Stack(leased, snapshotter), Stack(leased, snapshotter)
    for step in CASES["basic"]:
        await made.change(all_of(step))
    difference = await made.snapshots.diff(made.top, "")
    assert difference.media_type == GZIP
    await applied.add(await leased.content.read(difference.digest), GZIP)
    assert whole_seconds(await applied.tree()) == whole_seconds(await made.tree())


# Any two trees

NAMES = st.sampled_from(["a", "b", "a-b", "é", "n" * 101])
OWNERS = st.sampled_from([(0, 0), (1, 0), (3_000_000_000, 7)])
TIMES = st.sampled_from([MTIME * S, (MTIME - 1) * S])
XATTRS = st.sampled_from([{}, {"user.x": b"1"}, {"user.x": b"a\0\n"}, {"user.y": b""}])
FILES = st.builds(
    lambda content, mode, owner, mtime, xattrs: File(content, mode, *owner, mtime, xattrs),
    st.sampled_from(["", "1", "2", "longer"]), st.sampled_from([0o644, 0o4755, 0o400]), OWNERS, TIMES, XATTRS,
)  # fmt: skip
LINKS = st.builds(
    lambda target, owner, mtime: Link(target, 0o777, *owner, mtime),
    st.sampled_from(["a", "/b", "../nowhere"]), OWNERS, TIMES,
)  # fmt: skip
DIRS = st.builds(
    lambda mode, owner, xattrs: Dir(mode, *owner, xattrs=xattrs), st.sampled_from([0o755, 0o1700]), OWNERS, XATTRS
)
LEAVES = st.one_of(FILES, FILES, LINKS)
Nested = dict[str, "Node | tuple[Dir, Nested]"]
NESTED = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, st.tuples(DIRS, inner)), max_size=4),
    max_leaves=8,
)


def flattened(nested: Nested, above: str = "") -> dict[str, Node]:
    found: dict[str, Node] = {}
    for name, node in nested.items():
        if isinstance(node, tuple):
            found[above + name] = node[0]
            found |= flattened(node[1], f"{above}{name}/")
        else:
            found[above + name] = node
    return found


@st.composite
def trees(draw: st.DrawFn, like: dict[str, Node | Hard] | None = None) -> dict[str, Node | Hard]:
    """A tree, which may keep some of another; files have up to two more names each.

    The content of a file names its first name: two trees that tie names together otherwise differ in content, which
    is all that a difference can see of it.
    """
    tree = flattened(draw(NESTED))
    if like is not None and draw(st.booleans()):
        kept = set(draw(st.lists(st.sampled_from(sorted(like) or ["none"]), max_size=8)))
        for name in sorted(kept & set(like)):
            node = like[name]
            above = name.rpartition("/")[0]
            if isinstance(node, Node) and (not above or isinstance(tree.get(above), Dir)):
                if not isinstance(node, Dir):
                    tree = {path: n for path, n in tree.items() if not path.startswith(name + "/")}
                tree[name] = node
    folders = ["", *(f"{name}/" for name, node in tree.items() if isinstance(node, Dir))]
    groups = {name: [name] for name, node in tree.items() if isinstance(node, File)}
    for name in sorted(groups):
        for folder in draw(st.lists(st.sampled_from(folders), max_size=2)):
            more = f"{folder}link{len(groups[name])} of {name.replace('/', ' ')}"[:200]
            if more not in tree and more not in {n for group in groups.values() for n in group}:
                groups[name].append(more)
    done: dict[str, Node | Hard] = dict(tree)
    for name, group in groups.items():
        node = tree[name]
        assert isinstance(node, File)
        first = min(group)
        done[name] = File(
            f"{node.content.partition(' ')[0]} {first}", node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs
        )
        done |= {more: Hard(name) for more in group[1:]}
    return done


def made(tree: dict[str, Node | Hard]) -> Callable[[str], None]:
    ordered = sorted(tree.items(), key=lambda item: (isinstance(item[1], Hard), item[0].count("/"), item[0]))
    return lambda path: change(path, dict(ordered))


def turned_into(before: dict[str, Node | Hard], after: dict[str, Node | Hard]) -> Callable[[str], None]:
    """Leave what both have and touch the rest."""

    def do(path: str) -> None:
        for name in sorted(before, reverse=True):
            if before[name] != after.get(name) and not (
                isinstance(before[name], Dir) and isinstance(after.get(name), Dir)
            ):
                remove(f"{path}/{name}")
        made({name: node for name, node in after.items() if before.get(name) != node})(path)
        for name, node in after.items():  # whose first name went, and came anew
            if isinstance(node, Hard) and not os.path.samestat(
                os.lstat(f"{path}/{name}"), os.lstat(f"{path}/{node.of}")
            ):
                made({name: node})(path)

    return do


PAIRS = trees().flatmap(lambda lower: st.tuples(st.just(lower), trees(lower)))
FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # trees are small; making them smaller takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(pair=PAIRS, related=st.booleans())
@FEW
async def test_any_tree_becomes_any_other(
    snapshotter: str, tmp_path: Path, pair: tuple[dict[str, Node | Hard], dict[str, Node | Hard]], related: bool
) -> None:
    """`related`: the upper one was made by changing the lower one; else both were made from nothing."""
    lower, upper = pair
    assume(lower or upper)
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        async with quick_store(Path(folder)) as store:
            below = Stack(store, snapshotter)
            await below.change(made(lower))
            above = Stack(store, snapshotter)
            above.top = below.top if related else ""
            await above.change(turned_into(lower, upper) if related else made(upper))
            wanted = await above.tree()
            difference = await above.snapshots.diff(above.top, below.top, media_type=TAR)
            await below.add(await store.content.read(difference.digest))
            assert whole_seconds(await below.tree()) == whole_seconds(wanted)


async def test_a_tree_is_read_as_it_was_made(leased: orlop.Store, snapshotter: str) -> None:
    """What the comparisons above rest on."""
    stack = Stack(leased, snapshotter)
    tree = {"d": Dir(0o700, 1, 2), "d/f": File("x", 0o600, xattrs={"user.x": b"1"}), "d/g": Hard("d/f"), "l": Link("x")}
    await stack.change(made(tree))
    got = await stack.looked_at(read_tree)
    assert (str(got["d"]), str(got["d/f"]), got["d/g"].links, str(got["l"])) == (
        "dir 0700 1:2", "file:x 0600 0:0 {user.x=b'1'}", "d/f", "-> x",
    )  # fmt: skip
