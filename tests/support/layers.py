"""Layers made by hand, and what becomes of them when they are laid one on the other.

An entry is its bytes: `layer(folder("d"), file("d/f", b"x"))`. Headers are written here and not by a library, because
most of them are to be odd. A tree that was read is plain data, and `brief` says it in words that a test can spell out:

    {"d": "dir", "d/f": "file:x", "s": "-> d/f", "h": "= d/f", "n": "block 8:0 0600 5:6"}
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.errors import AlreadyExists
from orlop.storage.memory import MemoryStore

__all__ = [
    "GZIP", "MTIME", "TAR", "ZSTD", "Entry", "Stack", "Tree", "block", "brief", "comparable", "device", "digest_of",
    "end", "entry", "fifo", "file", "folder", "hardlink", "layer", "merged", "names_of", "pax_header", "put_blob",
    "quick_store", "read_tree", "symlink", "zstd_repeated", "zstd_stored",
]  # fmt: skip

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = TAR + "+gzip"
ZSTD = TAR + "+zstd"
MTIME = 1_700_000_000  # what every entry has, unless it is told otherwise
INLINE_BYTES = 16 * 1024
_SHOWN_BYTES = 64
_USUAL_MODES = {"dir": 0o755, "link": 0o777}

Text = str | bytes
_stacks = itertools.count()  # several in one store have names of their own


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


# Writing


def layer(*entries: bytes) -> bytes:
    """A whole archive, with its end marker."""
    return b"".join(entries) + end


end = bytes(1024)


def entry(
    name: Text,
    kind: bytes,
    data: bytes = b"",
    *,
    target: Text = b"",
    pax: Mapping[str, Text] | None = None,
    xattrs: Mapping[str, bytes] | None = None,
    **fields: int,
) -> bytes:
    """Header, content and padding; preceded by PAX records where a name is long or some are asked for."""
    raw, raw_target = _bytes(name), _bytes(target)
    records = {key: _bytes(value) for key, value in (pax or {}).items()}
    records |= {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    if len(raw) > 100:
        records["path"] = raw
    if len(raw_target) > 100:
        records["linkpath"] = raw_target
    before = pax_header(records) if records else b""
    fields.setdefault("size", len(data))
    return before + block(raw[:100], kind, target=raw_target[:100], **fields) + _padded(data)


def file(name: Text, data: Text = b"", **more) -> bytes:
    return entry(name, b"0", _bytes(data), **more)


def folder(name: Text, *, mode: int = 0o755, **more) -> bytes:
    return entry(_bytes(name) + b"/", b"5", mode=mode, **more)


def symlink(name: Text, target: Text, *, mode: int = 0o777, **more) -> bytes:
    return entry(name, b"2", target=target, mode=mode, **more)


def hardlink(name: Text, target: Text, **more) -> bytes:
    return entry(name, b"1", target=target, **more)


def fifo(name: Text, **more) -> bytes:
    return entry(name, b"6", **more)


def device(name: Text, kind: str, major: int, minor: int, **more) -> bytes:
    return entry(name, {"char": b"3", "block": b"4"}[kind], major=major, minor=minor, **more)


def pax_header(records: Mapping[str, Text], kind: bytes = b"x", name: Text = "PaxHeaders/x") -> bytes:
    body = b"".join(_record(key.encode() + b"=" + _bytes(value)) for key, value in records.items())
    return block(name, kind, size=len(body)) + _padded(body)


def block(
    name: Text,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    target: Text = b"",
    major: int = 0,
    minor: int = 0,
    magic: bytes = b"ustar\x0000",
    owner: bytes = b"",
    group: bytes = b"",
    rest: bytes = b"",
) -> bytes:
    """One header: 512 bytes, with the right checksum. Numbers that octal digits cannot say are in base 256.

    `rest` is what stands from byte 345 on: a prefix (USTAR), or times and the map of a sparse file (GNU).
    """
    before = struct.pack("100s", _bytes(name)) + _number(mode, 8) + _number(uid, 8) + _number(gid, 8)
    before += _number(size, 12) + _number(mtime, 12)
    after = kind + struct.pack("100s8s32s32s", _bytes(target), magic, owner, group)
    after += _number(major, 8) + _number(minor, 8) + rest
    whole = before + b" " * 8 + after
    whole = whole.ljust(512, b"\0")
    assert len(whole) == 512
    return whole[:148] + b"%06o\0 " % sum(whole) + whole[156:]


def zstd_stored(data: bytes, *, frames: int = 1) -> bytes:
    """Zstandard frames of stored blocks. Source: RFC 8878, 3.1.1."""
    size = -(-len(data) // frames) or 1
    return b"".join(_zstd_frame(data[at : at + size]) for at in range(0, max(len(data), 1), size))


def _zstd_frame(data: bytes) -> bytes:
    parts = [data[at : at + 65536] for at in range(0, len(data), 65536)] or [b""]
    blocks = [struct.pack("<I", len(part) << 3 | (part is parts[-1]))[:3] + part for part in parts]
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + b"".join(blocks)


def zstd_repeated(data: bytes, zeros: int) -> bytes:
    """A Zstandard frame of `data` and then so many zeros, which take 4 bytes for each 128 KiB."""
    blocks = [struct.pack("<I", len(data) << 3)[:3] + data]
    for at in range(0, zeros, 1 << 17):
        size = min(1 << 17, zeros - at)
        blocks.append(struct.pack("<I", size << 3 | 2 | (at + size == zeros))[:3] + b"\0")
    return b"\x28\xb5\x2f\xfd\x00\x50" + b"".join(blocks)  # a window of 1 MiB


def _bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else os.fsencode(text)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def _record(text: bytes) -> bytes:
    size = len(text) + 2
    while size != len(text) + 2 + len(str(size)):
        size = len(text) + 2 + len(str(size))
    return b"%d %s\n" % (size, text)


def _number(value: int, width: int) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if value < 0:
        return (256**width + value).to_bytes(width, "big")
    return b"\x80" + value.to_bytes(width - 1, "big")


# Reading


@dataclass(frozen=True)
class Entry:
    """One name of a tree. `links`: the first of the names of this file, where it has more than one."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: str = ""
    target: str = ""
    rdev: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    links: str = ""

    def __str__(self) -> str:
        said = self._itself()
        if (self.mode, self.uid, self.gid) != (_USUAL_MODES.get(self.kind, 0o644), 0, 0):
            said += f" {self.mode:04o} {self.uid}:{self.gid}"
        if self.kind != "dir" and self.mtime_ns != MTIME * 10**9:
            said += f" @{self.mtime_ns}"
        if self.xattrs:
            said += " {" + ", ".join(f"{name}={value!r}" for name, value in self.xattrs) + "}"
        return said

    def _itself(self) -> str:
        match self.kind:
            case "file":
                return f"file:{self.content}"
            case "link":
                return f"-> {self.target}"
            case "char" | "block":
                return f"{self.kind} {self.rdev[0]}:{self.rdev[1]}"
        return self.kind


Tree = dict[str, Entry]
_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}  # fmt: skip


def read_tree(root: str | os.PathLike[str]) -> Tree:
    """Everything below `root`, by its path from there; the root itself is `.`. Nothing but files is opened.

    A name that is listed and cannot be looked at is in there as a `ghost`.
    """
    tree: Tree = {}
    first: dict[tuple[int, int], str] = {}
    start = os.fsencode(root)
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        path = os.path.join(start, below) if below else start
        name = os.fsdecode(below) or "."
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            tree[name] = Entry("ghost", 0, 0, 0, 0)
            continue
        tree[name] = _entry(path, status)
        if stat.S_ISDIR(status.st_mode):
            waiting.extend(sorted((os.path.join(below, child) for child in os.listdir(path)), reverse=True))
        elif status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            first.setdefault(inode, name)
            tree[name] = replace(tree[name], links=first[inode])
    alone = {links for links in first.values() if sum(e.links == links for e in tree.values()) == 1}
    return {name: replace(e, links="") if e.links in alone else e for name, e in sorted(tree.items())}


def _entry(path: bytes, status: os.stat_result) -> Entry:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    return Entry(
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        content=_shown(Path(os.fsdecode(path)).read_bytes()) if kind == "file" else "",
        target=os.fsdecode(os.readlink(path)) if kind == "link" else "",
        rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in ("char", "block") else (0, 0),
        xattrs=tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
    )


def _shown(data: bytes) -> str:
    if len(data) > _SHOWN_BYTES:
        return f"{len(data)} bytes {digest_of(data)}"
    return data.decode("utf-8", "backslashreplace")


def brief(tree: Tree) -> dict[str, str]:
    """The tree in words. The root is left out where it is as snapshots are made: 0755, of user and group 0."""
    said = {name: f"= {e.links}" if e.links not in ("", name) else str(e) for name, e in tree.items()}
    if said.get(".") == "dir":
        del said["."]
    return said


def comparable(tree: Tree) -> Tree:
    """Without the times of folders, which every change of their content changes."""
    return {name: replace(e, mtime_ns=0) if e.kind == "dir" else e for name, e in tree.items()}


# Laying layers


@asynccontextmanager
async def quick_store(folder: Path, *, leased: bool = True, **settings: Any) -> AsyncIterator[orlop.Store]:
    """A store over the memory engine, which does not wait for the disk; a lease holds whatever is made in it."""
    opening = run_store(StoreConfig(str(folder), **settings), real_world(), host_platform(), [], MemoryStore())
    async with opening as running:
        if not leased:
            yield running.store
            return
        async with running.store.lease() as store:
            yield store


async def put_blob(
    store: orlop.Store, data: bytes, media_type: str = TAR, labels: Mapping[str, str] | None = None
) -> orlop.Descriptor:
    """The blob's descriptor, whether it had been here or not."""
    digest = digest_of(data)
    try:
        if len(data) <= INLINE_BYTES:
            await store.content.put(data, labels=labels)
        else:
            await store.content.write(f"put {digest}", data, size=len(data), expected=digest, labels=labels)
    except AlreadyExists:
        pass
    return orlop.Descriptor(media_type, digest, len(data))


async def names_of(store: orlop.Store, snapshotter: str) -> set[str]:
    """Every snapshot there is, of any kind."""
    return {info.name async for info in store.snapshots.using(snapshotter).list()}


class Stack:
    """Layers one on the other, in one snapshotter of a store."""

    def __init__(self, store: orlop.Store, snapshotter: str) -> None:
        self.store = store
        self.snapshotter = snapshotter
        self.snapshots = store.snapshots.using(snapshotter)
        self.top = ""
        """The newest committed snapshot."""
        self._number = next(_stacks)
        self._made = 0

    async def add(self, data: bytes, media_type: str = TAR) -> orlop.Descriptor:
        """Apply one more layer. When that fails the snapshot is removed, as everybody does it."""
        key = self._new("adding")
        await self.snapshots.prepare(key, self.top)
        try:
            applied = await self.snapshots.apply(key, await put_blob(self.store, data, media_type))
        except BaseException:
            await self.snapshots.remove(key)
            raise
        await self._commit(key)
        return applied

    async def change(self, change: Callable[[str], object]) -> str:
        """One more snapshot, made by `change(path)` in the mounted tree; its name."""
        key = self._new("changing")
        async with orlop.mounted(await self.snapshots.prepare(key, self.top)) as path:
            change(path)
        return await self._commit(key)

    async def tree(self, name: str | None = None) -> Tree:
        """What a committed snapshot shows; the newest one, unless it is named."""
        return await self.looked_at(read_tree, name)

    async def looked_at(self, look: Callable[[str], Any], name: str | None = None) -> Any:
        """`look(path)` of a committed snapshot, while it is mounted read-only."""
        key = self._new("viewing")
        kept = {"containerd.io/gc.root": "while it is looked at"}
        try:
            mounts = await self.snapshots.view(key, self.top if name is None else name, kept)
            async with orlop.mounted(mounts) as path:
                return look(path)
        finally:
            await self.snapshots.remove(key)

    async def _commit(self, key: str) -> str:
        name = self._new("layer")
        await self.snapshots.commit(name, key)
        self.top = name
        return name

    def _new(self, word: str) -> str:
        self._made += 1
        return f"{word}-{self._number}-{self._made}"


async def merged(store: orlop.Store, snapshotter: str, layers: list[bytes]) -> Tree:
    """What is seen with these layers one on the other."""
    stack = Stack(store, snapshotter)
    for data in layers:
        await stack.add(data)
    return await stack.tree()
