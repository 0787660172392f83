"""What a tree takes on disk. Source: spec snapshots 9."""

from __future__ import annotations

import os
import stat
from itertools import islice
from typing import Final

from .tree import open_folder

__all__ = ["TooLarge", "first_names", "measure"]

_NO_END: Final = 2**62


class TooLarge(Exception):
    """A tree has more entries than were to be looked at."""


def first_names(folder: int, most: int) -> list[str]:
    """What is in an open folder. Raises TooLarge when that is more."""
    with os.scandir(folder) as entries:
        found = [entry.name for entry in islice(entries, most + 1)]
    if len(found) > most:
        raise TooLarge
    return found


def measure(folder: int, most: int = _NO_END) -> tuple[int, int]:
    """(allocated bytes, inodes) of a folder and all in it; a file with many names counts once. What vanishes
    meanwhile is left out. Raises TooLarge when there are more than `most` entries."""
    counting = _Count(most)
    counting.add_folder(folder, os.fstat(folder))
    return counting.size, counting.inodes


class _Count:
    def __init__(self, most: int) -> None:
        self.size = 0
        self.inodes = 0
        self._left = most
        self._seen: set[tuple[int, int]] = set()

    def add_folder(self, folder: int, status: os.stat_result) -> None:
        self._add(status)
        names = first_names(folder, self._left)
        self._left -= len(names)
        for name in names:
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                below = open_folder(name, folder) if stat.S_ISDIR(found.st_mode) else -1
            except (FileNotFoundError, NotADirectoryError):
                continue
            if below < 0:
                self._add_file(found)
                continue
            try:
                self.add_folder(below, found)
            finally:
                os.close(below)

    def _add_file(self, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            if key in self._seen:
                return
            self._seen.add(key)
        self._add(status)

    def _add(self, status: os.stat_result) -> None:
        self.size += status.st_blocks * 512
        self.inodes += 1
