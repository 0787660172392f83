"""What lies in the store's folders and is mounted from them. Blocking; called through the workers."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Final, NamedTuple

from ...protocol.world import Files

__all__ = ["digest_of", "list_store", "mounted_snapshots", "set_aside", "sizes_of"]

QUARANTINE: Final = "quarantine"
_MOUNTS: Final = "/proc/self/mountinfo"
_READ_BYTES: Final = 64 * 1024
_HASH_BYTES: Final = 1024 * 1024


def list_store(root: str, files: Files) -> list[str]:
    """Paths inside the store of all files of blobs and ingests, and of all folders of snapshots. What begins with a dot
    is being made or removed."""
    blobs = [
        f"blobs/{algorithm}/{name}"
        for algorithm in _names(root, "blobs", files)
        for name in _names(root, f"blobs/{algorithm}", files)
    ]
    ingests = [f"ingests/{name}" for name in _names(root, "ingests", files)]
    snapshots = [
        f"snapshots/{snapshotter}/{name}"
        for snapshotter in _names(root, "snapshots", files)
        if not snapshotter.startswith(".")
        for name in _names(root, f"snapshots/{snapshotter}", files)
        if not name.startswith(".")
    ]
    return blobs + ingests + snapshots


def _names(root: str, inside_: str, files: Files) -> list[str]:
    try:
        return sorted(files.list_folder(f"{root}/{inside_}"))
    except (FileNotFoundError, NotADirectoryError):
        return []


def sizes_of(root: str, paths: list[str], files: Files) -> list[int | None]:
    """None: it is not there."""
    found = [files.status(f"{root}/{path}") for path in paths]
    return [None if each is None else each.size for each in found]


def digest_of(root: str, path: str, algorithm: str, files: Files) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    digester = hashlib.new(algorithm)
    fd = files.open(f"{root}/{path}", os.O_RDONLY)
    try:
        at = 0
        while piece := files.pread(fd, _HASH_BYTES, at):
            digester.update(piece)
            at += len(piece)
    finally:
        files.close(fd)
    return digester.hexdigest()


class _Mount(NamedTuple):
    """`shown`: what it shows, from the root of its file system (`device`)."""

    device: str
    shown: str
    where: str
    options: list[str]


def mounted_snapshots(root: str, files: Files) -> list[tuple[str, str, int]]:
    """(where it is mounted, snapshotter, id) of every snapshot of this store that a mount shows."""
    real = os.path.realpath(root)
    bases = {f"{real}/snapshots/", f"{os.path.abspath(root)}/snapshots/"}
    mounts = [mount for line in _read(files, _MOUNTS).splitlines() if (mount := _parse(line)) is not None]
    around = [each for each in mounts if real == each.where or real.startswith(each.where.rstrip("/") + "/")]
    home = max(around, key=lambda each: len(each.where), default=None)  # of several at one place the last: it is on top
    for each in around:
        if home is not None and each.where == home.where:
            home = each
    found: list[tuple[str, str, int]] = []
    for mount in mounts:
        shown = [(base, path) for base in bases for path in _layers(mount.options)]
        if home is not None and mount.device == home.device:
            # A bind mount tells what it shows from the root of the file system, not from that of all.
            inside = home.shown.rstrip("/") + real[len(home.where.rstrip("/")) :]
            shown.append((f"{inside}/snapshots/", mount.shown))
        snapshots = {_snapshot(path[len(base) :]) for base, path in shown if path.startswith(base)}
        found += [(mount.where, *each) for each in sorted(each for each in snapshots if each is not None)]
    return found


def _parse(line: str) -> _Mount | None:
    fields = line.split(" ")
    if len(fields) < 10 or "-" not in fields:
        return None
    return _Mount(fields[2], _plain(fields[3]), _plain(fields[4]), _plain(fields[-1]).split(","))


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _layers(options: list[str]) -> list[str]:
    paths: list[str] = []
    for option in options:
        key, _, value = option.partition("=")
        if key in ("lowerdir", "upperdir"):
            paths += value.split(":")
    return paths


def _snapshot(inside: str) -> tuple[str, int] | None:
    snapshotter, _, rest = inside.partition("/")
    number = rest.partition("/")[0]
    return (snapshotter, int(number)) if number.isdecimal() else None


def _read(files: Files, path: str) -> str:
    pieces: list[bytes] = []
    try:
        fd = files.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        at = 0
        while piece := files.pread(fd, _READ_BYTES, at):
            pieces.append(piece)
            at += len(piece)
    finally:
        files.close(fd)
    return b"".join(pieces).decode("utf-8", "replace")


def set_aside(root: str, path: str, files: Files) -> str:
    """Move a file or folder that belongs to nothing out of the way. Returns where it is now, inside the store."""
    files.make_folder(f"{root}/{QUARANTINE}")
    files.sync_folder(root)
    target = name = f"{QUARANTINE}/{path.replace('/', '-')}"
    more = 0
    while files.status(f"{root}/{target}") is not None:  # nothing that lies there is ever written over
        more += 1
        target = f"{name}.{more}"
    files.rename(f"{root}/{path}", f"{root}/{target}")
    files.sync_folder(f"{root}/{QUARANTINE}")
    files.sync_folder(os.path.dirname(f"{root}/{path}"))
    return target
