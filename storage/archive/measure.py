"""What a tree takes on disk. Source: spec snapshots 9."""

from __future__ import annotations

import os
import stat

from .tree import FOLDER_FLAGS

__all__ = ["measure"]


def measure(folder: int) -> tuple[int, int]:
    """(allocated bytes, inodes) of a folder and all in it; a file with many names counts once. What vanishes
    meanwhile is left out."""
    seen: set[tuple[int, int]] = set()
    top = os.fstat(folder)
    return _measure(folder, top, seen)


def _measure(folder: int, status: os.stat_result, seen: set[tuple[int, int]]) -> tuple[int, int]:
    size, inodes = status.st_blocks * 512, 1
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                below = os.open(name, FOLDER_FLAGS, dir_fd=folder)
                try:
                    more, count = _measure(below, found, seen)
                finally:
                    os.close(below)
                size += more
                inodes += count
                continue
        except (FileNotFoundError, NotADirectoryError):
            continue
        if found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            if key in seen:
                continue
            seen.add(key)
        size += found.st_blocks * 512
        inodes += 1
    return size, inodes
