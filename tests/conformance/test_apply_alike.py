"""Any archives, laid one on the other, give the same tree on every snapshotter, or are refused by each.

Source: spec unpack 5.8. Hard links are in the last layer alone: what is linked below is one file on a snapshotter that
copies, and several for an overlay, which takes up one name at a time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import orlop
from orlop.protocol.errors import InvalidArgument

from ..support.layers import Stack, brief, fifo, file, folder, hardlink, layer, symlink

SEEDS = 2000 if os.environ.get("ORLOP_SOAK") else 40


@dataclass(frozen=True)
class Said:
    """An entry, and the words for it when a test fails."""

    words: str
    data: bytes

    def __repr__(self) -> str:
        return self.words


def named(path: str, text: str = "", mode: int = 0o644, uid: int = 0) -> Said:
    return Said(f"file({path!r}, {text!r}, mode={mode:#o}, uid={uid})", file(path, text, mode=mode, uid=uid))


def listed(path: str, mode: int = 0o755, uid: int = 0, value: str = "") -> Said:
    xattrs = {"user.x": value.encode()} if value else {}
    words = f"folder({path!r}, mode={mode:#o}, uid={uid}, xattrs={xattrs})"
    return Said(words, folder(path, mode=mode, uid=uid, xattrs=xattrs))


def leading(path: str, target: str) -> Said:
    return Said(f"symlink({path!r}, {target!r})", symlink(path, target))


def tied(path: str, target: str) -> Said:
    return Said(f"hardlink({path!r}, {target!r})", hardlink(path, target))


class Maker:
    """Archives with few names, so that their entries meet."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def layers(self) -> list[list[Said]]:
        below = [self._some(self._entry, 0, 8) for _ in range(self._random.randint(0, 2))]
        return [*below, self._some(self._entry_or_hider, 1, 7), self._some(self._any, 1, 8)]

    def _some(self, make: Callable[[], Said], least: int, most: int) -> list[Said]:
        return [make() for _ in range(self._random.randint(least, most))]

    def _path(self) -> str:
        return "/".join(self._random.choice("abc") for _ in range(self._random.choice([1, 1, 2, 2, 3])))

    def _entry(self) -> Said:
        one_of = self._random.choice
        mode, uid = one_of([0o755, 0o700, 0o4711]), one_of([0, 5])
        match one_of(["file", "file", "folder", "folder", "link", "fifo"]):
            case "file":
                return named(self._path(), one_of("xyz"), mode, uid)
            case "folder":
                return listed(self._path(), mode, uid, one_of(["", "", "1", "2"]))
            case "link":
                return leading(self._path(), one_of(["a", "b", "/a/b", "../c", "/c", "nowhere", "."]))
        path = self._path()
        return Said(f"fifo({path!r})", fifo(path))

    def _entry_or_hider(self) -> Said:
        if self._random.random() < 2 / 3:
            return self._entry()
        above, slash, last = self._path().rpartition("/")
        name = self._random.choice([".wh..wh..opq", f".wh.{last}", f".wh.{last}"])
        return named(above + slash + name)

    def _any(self) -> Said:
        if self._random.random() < 9 / 10:
            return self._entry_or_hider()
        return tied(self._path(), self._path())


async def seen(store: orlop.Store, snapshotter: str, layers: list[list[Said]]) -> list[dict[str, str] | str]:
    """What is seen after each layer; one that is refused is left out."""
    found: list[dict[str, str] | str] = []
    stack = Stack(store, snapshotter)
    for entries in layers:
        try:
            await stack.add(layer(*(entry.data for entry in entries)))
        except InvalidArgument:
            found.append("refused")
        else:
            found.append(brief(await stack.tree()))
    return found


@pytest.mark.parametrize("first", range(0, SEEDS, 25))
async def test_any_layers_are_seen_alike(leased: orlop.Store, first: int) -> None:
    for seed in range(first, first + 25):
        layers = Maker(seed).layers()
        overlay, native = [await seen(leased, snapshotter, layers) for snapshotter in ("overlayfs", "native")]
        assert overlay == native, f"seed {seed}: {layers}"
