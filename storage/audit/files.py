"""What lies in the store's folders and is mounted from them. Blocking; called through the workers."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from ...protocol.world import Files
from ..blobs.ledger import blob_path, ingest_path

__all__ = ["Found", "inside", "list_store", "mounted_snapshots", "set_aside", "sizes_of"]

QUARANTINE: Final = "quarantine"
_MOUNTS: Final = "/proc/self/mountinfo"
_READ_BYTES: Final = 64 * 1024


class Found(NamedTuple):
    """Paths inside the store."""

    blobs: list[str]
    ingests: list[str]
    snapshots: list[str]


def list_store(root: str, files: Files) -> Found:
    blobs = [
        f"blobs/{algorithm}/{name}"
        for algorithm in _names(root, "blobs", files)
        for name in _names(root, f"blobs/{algorithm}", files)
    ]
    ingests = [f"ingests/{name}" for name in _names(root, "ingests", files)]
    snapshots = [
        f"snapshots/{snapshotter}/{name}"
        for snapshotter in _names(root, "snapshots", files)
        for name in _names(root, f"snapshots/{snapshotter}", files)
        if name.isdecimal()
    ]
    return Found(blobs, ingests, snapshots)


def _names(root: str, inside_: str, files: Files) -> list[str]:
    try:
        return sorted(files.list_folder(f"{root}/{inside_}"))
    except (FileNotFoundError, NotADirectoryError):
        return []


def inside(digest: str, generation: int) -> str:
    return blob_path(digest, generation)


def ingest_inside(generation: int) -> str:
    return ingest_path(generation)


def sizes_of(root: str, paths: list[str], files: Files) -> list[int | None]:
    """None: it is not there."""
    found = [files.status(f"{root}/{path}") for path in paths]
    return [None if each is None else each.size for each in found]


def mounted_snapshots(root: str, files: Files) -> list[tuple[str, str, int]]:
    """(where it is mounted, snapshotter, id) of every snapshot of this store that a mount shows."""
    base = f"{os.path.realpath(root)}/snapshots/"
    found = []
    for line in _read(files, _MOUNTS).splitlines():
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields:
            continue
        options = fields[-1].split(",")
        shown = [fields[3]]  # of a bind mount: what it shows, from the root of its file system
        for option in options:
            key, _, value = option.partition("=")
            if key in ("lowerdir", "upperdir"):
                shown += value.replace("\\040", " ").split(":")
        for path in shown:
            at = path.find(base)
            if at < 0:
                continue
            snapshotter, _, rest = path[at + len(base) :].partition("/")
            number = rest.partition("/")[0]
            if number.isdecimal():
                found.append((fields[4], snapshotter, int(number)))
    return found


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
    target = f"{QUARANTINE}/{path.replace('/', '-')}"
    files.rename(f"{root}/{path}", f"{root}/{target}")
    files.sync_folder(f"{root}/{QUARANTINE}")
    files.sync_folder(os.path.dirname(f"{root}/{path}"))
    return target
