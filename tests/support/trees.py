"""File trees: changes that can be made in any folder, and what a tree consists of, to compare one with another."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "Change",
    "Entry",
    "apply",
    "change_mode",
    "change_owner",
    "hard_link",
    "make_file",
    "make_folder",
    "move",
    "names",
    "remove",
    "set_times",
    "tree",
    "usage",
]

Change = Callable[[Path], None]
"""Something that is done to a tree, given its root; paths in it are relative to the root."""

_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


# changes ----------------------------------------------------------------------------------------------------


def apply(root: str | Path, changes: tuple[Change, ...] | list[Change]) -> None:
    for change in changes:
        change(Path(root))


def make_file(path: str, data: bytes = b"", mode: int = 0o644) -> Change:
    """Also over a file that is there: then its bytes and its mode change, and it stays the same file."""

    def change(root: Path) -> None:
        (root / path).write_bytes(data)
        (root / path).chmod(mode)

    return change


def make_folder(path: str, mode: int = 0o755) -> Change:
    def change(root: Path) -> None:
        (root / path).mkdir()
        (root / path).chmod(mode)

    return change


def remove(path: str) -> Change:
    """With all that is in it."""

    def change(root: Path) -> None:
        there = root / path
        if there.is_dir() and not there.is_symlink():
            shutil.rmtree(there)
        else:
            there.unlink()

    return change


def move(old: str, new: str) -> Change:
    return lambda root: os.replace(root / old, root / new)


def hard_link(old: str, new: str) -> Change:
    return lambda root: os.link(root / old, root / new)


def change_owner(path: str, uid: int, gid: int) -> Change:
    return lambda root: os.chown(root / path, uid, gid, follow_symlinks=False)


def change_mode(path: str, mode: int) -> Change:
    return lambda root: (root / path).chmod(mode)


def set_times(path: str, time_ns: int) -> Change:
    return lambda root: os.utime(root / path, ns=(time_ns, time_ns), follow_symlinks=False)


# comparison -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """All of a file but its times; those on request."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: bytes = b""
    target: str = ""
    device: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()
    links: tuple[str, ...] = ()
    mtime_ns: int = 0


def tree(root: str | Path, *, exactly: bool = False) -> dict[str, Entry]:
    """What is below `root`, by path; `exactly`: with the root itself as ".", times, and which names are one file."""
    found = {path: _entry(Path(root) / path, exactly) for path in _paths(Path(root))}
    if not exactly:
        return found
    same: dict[tuple[int, int], list[str]] = {}
    for path in found:
        about = os.lstat(Path(root) / path)
        same.setdefault((about.st_dev, about.st_ino), []).append(path)
    links = {path: tuple(sorted(paths)) for paths in same.values() if len(paths) > 1 for path in paths}
    found = {path: _with_links(entry, links.get(path, ())) for path, entry in found.items()}
    return {".": _entry(Path(root), exactly), **found}


def names(root: str | Path) -> list[str]:
    """The paths below `root`, sorted."""
    return sorted(_paths(Path(root)))


def usage(root: str | Path) -> tuple[int, int]:
    """Allocated bytes and files, each file once, the root included. Source: spec snapshots 9."""
    blocks = {}
    for path in [Path(root), *(Path(root) / path for path in _paths(Path(root)))]:
        about = path.lstat()
        blocks[about.st_dev, about.st_ino] = about.st_blocks
    return 512 * sum(blocks.values()), len(blocks)


def _paths(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            yield os.path.relpath(os.path.join(folder, name), root)


def _entry(path: Path, exactly: bool) -> Entry:
    about = path.lstat()
    kind = _KINDS[stat.S_IFMT(about.st_mode)]
    return Entry(
        kind,
        stat.S_IMODE(about.st_mode),
        (about.st_uid, about.st_gid),
        path.read_bytes() if kind == "file" else b"",
        os.readlink(path) if kind == "link" else "",
        about.st_rdev if kind.endswith("device") else 0,
        tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in _attributes(path)),
        mtime_ns=about.st_mtime_ns if exactly else 0,
    )


def _attributes(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def _with_links(entry: Entry, links: tuple[str, ...]) -> Entry:
    return Entry(**{**entry.__dict__, "links": links})
