"""Trees made by hand in a mounted snapshot, and the layers that differences of them are.

    change(path, {"d": Dir(0o700), "d/f": File("x"), "d/g": Hard("d/f"), "old": None})

Whatever is made has the time `MTIME`, without nanoseconds, unless it is told otherwise. So what two trees have in
common counts as the same.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from .layers import MTIME

__all__ = [
    "Change",
    "Device",
    "Dir",
    "Fifo",
    "File",
    "Hard",
    "Link",
    "Member",
    "Node",
    "Socket",
    "change",
    "members",
    "names",
]

S = 10**9


@dataclass(frozen=True)
class Node:
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = MTIME * S
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Dir(Node):
    mode: int = 0o755


@dataclass(frozen=True)
class _Content:
    content: str = ""


@dataclass(frozen=True)
class File(Node, _Content):
    """`File("content", 0o644, ...)`; one that is there already is written over, and stays the same inode."""


@dataclass(frozen=True)
class _Target:
    target: str


@dataclass(frozen=True)
class Link(Node, _Target):
    mode: int = 0o777


@dataclass(frozen=True)
class Hard:
    """One more name of a file that is there."""

    of: str


@dataclass(frozen=True)
class Fifo(Node):
    pass


@dataclass(frozen=True)
class _Numbers:
    kind: str
    major: int
    minor: int


@dataclass(frozen=True)
class Device(Node, _Numbers):
    """`Device("char", 1, 3)`"""


@dataclass(frozen=True)
class Socket(Node):
    pass


Change = Mapping[str, Node | Hard | None]


def change(root: str, changes: Change) -> None:
    """Make, replace or (None) remove, in this order. Missing parents are made."""
    for name, node in changes.items():
        path = f"{root}/{name}"
        if node is None:
            remove(path)
        else:
            _make(root, path, node)


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _make(root: str, path: str, node: Node | Hard) -> None:
    if not os.path.isdir(os.path.dirname(path)):
        _make(root, os.path.dirname(path), Dir())
    if isinstance(node, Hard):
        remove(path)
        os.link(f"{root}/{node.of}", path, follow_symlinks=False)
        return
    if not _same_kind(path, node):
        remove(path)
    match node:
        case Dir():
            os.makedirs(path, exist_ok=True)
        case File():
            with open(path, "w") as opened:
                opened.write(node.content)
        case Link():
            os.symlink(node.target, path)
        case Socket():
            _bind(path)
        case Fifo():
            os.mkfifo(path)
        case Device():
            kind = {"char": stat.S_IFCHR, "block": stat.S_IFBLK}[node.kind]
            os.mknod(path, kind, os.makedev(node.major, node.minor))
    _describe(path, node)


def _same_kind(path: str, node: Node) -> bool:
    if not os.path.lexists(path):
        return True
    found = os.lstat(path).st_mode
    return (stat.S_ISDIR(found) and isinstance(node, Dir)) or (stat.S_ISREG(found) and isinstance(node, File))


def _describe(path: str, node: Node) -> None:
    os.lchown(path, node.uid, node.gid)
    if not isinstance(node, Link):
        for name in os.listxattr(path):
            os.removexattr(path, name)
        for name, value in node.xattrs.items():
            os.setxattr(path, name, value)
        os.chmod(path, node.mode)
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


def _bind(path: str) -> None:
    """Through the folder's descriptor: the path of a socket has at most 107 bytes."""
    at = os.open(os.path.dirname(path), os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{at}/{os.path.basename(path)}")
    finally:
        os.close(at)


# Reading a layer


@dataclass(frozen=True)
class Member:
    """One entry as its header and its records tell it; `mtime` and the like as they stand in the header."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: str
    owners: bytes
    rdev: tuple[int, int]
    pax: dict[str, bytes]
    data: bytes

    def __str__(self) -> str:
        return f"{self.name} = {self.target}" if self.kind == "1" else self.name


def members(archive: bytes) -> list[Member]:
    """The entries of an archive in USTAR and PAX form, with nothing but zeros behind them."""
    found = []
    records: dict[str, bytes] = {}
    at = 0
    while at < len(archive) and archive[at] != 0:
        header = archive[at : at + 512]
        assert sum(header[:148]) + 8 * 32 + sum(header[156:]) == int(header[148:154], 8)
        assert header[257:263] == b"ustar\0"
        kind = header[156:157].decode()
        size = int(records.get("size", header[124:135].rstrip(b"\0 ") or b"0"), 10 if "size" in records else 8)
        data = archive[at + 512 : at + 512 + size]
        assert len(data) == size
        at += 512 + -(-size // 512) * 512
        if kind == "x":
            assert not records
            records = _records(data)
            continue
        assert kind != "g"
        found.append(_member(header, kind, size, data, records))
        records = {}
    assert archive[at:] == bytes(len(archive) - at)
    assert len(archive) - at >= 1024
    return found


def names(archive: bytes) -> list[str]:
    """The entries by name; hard links as `name = first name`."""
    return [str(member) for member in members(archive)]


def _member(header: bytes, kind: str, size: int, data: bytes, records: dict[str, bytes]) -> Member:
    def text(start: int, length: int) -> bytes:
        return header[start : start + length].partition(b"\0")[0]

    def number(key: str, start: int, length: int) -> int:
        if key in records:
            return int(records[key])
        return int(text(start, length).strip() or b"0", 8)

    prefix = text(345, 155)
    name = (prefix + b"/" if prefix else b"") + text(0, 100)
    return Member(
        os.fsdecode(records.get("path", name)),
        kind,
        number("mode", 100, 8),
        number("uid", 108, 8),
        number("gid", 116, 8),
        size,
        int(text(136, 12), 8),
        os.fsdecode(records.get("linkpath", text(157, 100))),
        text(265, 32) + text(297, 32) + records.get("uname", b"") + records.get("gname", b""),
        (number("", 329, 8), number("", 337, 8)),
        records,
        data,
    )


def _records(data: bytes) -> dict[str, bytes]:
    records = {}
    while data:
        size = int(data[: data.index(b" ")])
        key, _, value = data[data.index(b" ") + 1 : size - 1].partition(b"=")
        records[os.fsdecode(key)] = value
        data = data[size:]
    return records
