"""Trees removed, however deep they are and whatever modes are in them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from .measure import first_names
from .tree import FOLDER_FLAGS, open_folder

__all__ = ["remove_small_tree", "remove_trees"]

_MOST_OPEN: Final = 200  # folders in each other; what is deeper is moved up first
_MOVED: Final = ".removing-%d-%d"


def remove_trees(root: int, names: Sequence[str]) -> dict[str, str]:
    """Remove folders of an open one. Those that could not be, and why; one that is gone already is fine."""
    left = {}
    for name in names:
        try:
            _Remover(root).remove(name)
        except OSError as error:
            left[name] = error.strerror or str(error)
    return left


def remove_small_tree(at: int, name: str, most: int) -> int:
    """Remove a folder with no more than so many entries; returns how many more there could have been. One that is gone
    is fine. Raises TooLarge, and OSError at the first thing that does not go; what went until then is gone."""
    try:
        fd = open_folder(name, at)
    except FileNotFoundError:
        return most
    try:
        names = first_names(fd, most)
        left = most - len(names)
        for child in names:
            try:
                os.unlink(child, dir_fd=fd)
            except IsADirectoryError:
                left = remove_small_tree(fd, child, left)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=at)
    return left


class _Remover:
    """Of one tree. What lies deep in it is moved up into its own top folder, so whatever becomes of this process, all
    that is left of the tree is below its name."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._top = -1
        self._moved = 0

    def remove(self, name: str) -> None:
        """Goes on after what cannot be removed, and raises the first such error at the end."""
        top = _opened(name, self._root)
        if top is None:
            return
        self._top = top
        try:
            before = -1
            while self._moved != before:  # what was moved up is there now
                before = self._moved
                failure = self._emptied(top, 0)
        finally:
            os.close(top)
        if failure is not None:
            raise failure
        os.rmdir(name, dir_fd=self._root)

    def _emptied(self, fd: int, depth: int) -> OSError | None:
        """The first thing that could not be removed, if there was one."""
        failure: OSError | None = None
        for child in os.listdir(fd):
            try:
                self._child(fd, child, depth)
            except OSError as error:
                failure = failure or error
        return failure

    def _move_up(self, at: int, name: str) -> None:
        while True:
            moved = _MOVED % (os.getpid(), self._moved)
            self._moved += 1
            try:
                os.rename(name, moved, src_dir_fd=at, dst_dir_fd=self._top)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
            else:
                return

    def _folder(self, at: int, name: str, depth: int) -> None:
        if depth > _MOST_OPEN:
            self._move_up(at, name)
            return
        fd = _opened(name, at)
        if fd is None:
            return
        try:
            failure = self._emptied(fd, depth)
        finally:
            os.close(fd)
        if failure is not None:
            raise failure
        os.rmdir(name, dir_fd=at)

    def _child(self, at: int, name: str, depth: int) -> None:
        try:
            os.unlink(name, dir_fd=at)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                raise
            self._folder(at, name, depth + 1)


def _opened(name: str, at: int) -> int | None:
    """A folder that may be entered and changed: not everybody is root."""
    try:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=at)
    except FileNotFoundError:
        return None
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=at)
        fd = os.open(name, FOLDER_FLAGS, dir_fd=at)
    status = os.fstat(fd)
    if status.st_uid == os.geteuid() and status.st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return fd
