"""Jobs on trees of a few entries, done right here: for them a process would take longer to start than to work.

Nothing confines this, so it does nothing clever: by names below open folders, no link is followed and no mode changed.
Whatever is larger, or does not go smoothly, is left as it stands to a worker process, which says what is wrong with it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .jobs import Done, Measure, Removed, RemoveTrees
from .measure import TooLarge, first_names, measure
from .removing import remove_small_tree
from .tree import FOLDER_FLAGS, open_folder, opened_folder

__all__ = ["run_small", "sync_small"]

_MOST_ENTRIES: Final = 64
_MOST_SYNCED: Final = 8  # each waits for the disk
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no pipe is waited for
_OTHERS_DO: Final = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EMFILE, errno.ENFILE)


def run_small(job: Measure | RemoveTrees, root: str) -> Done | Removed | None:
    """The outcome of a job whose folders are relative to `root`; None if it, or the rest of it, wants a worker process.
    Blocks for some hundred microseconds. Raises NotFound as a worker does."""
    with suppress(TooLarge, OSError):
        at = os.open(root, FOLDER_FLAGS)
        try:
            if isinstance(job, Measure):
                with opened_folder(job.folder, at) as folder:
                    return Done(*measure(folder, _MOST_ENTRIES))
            left = _MOST_ENTRIES
            for name in job.folders:
                left = remove_small_tree(at, name, left)
            return Removed()
        finally:
            os.close(at)
    return None


def sync_small(folder: str, sync: Callable[[int], None]) -> bool:
    """Make a tree of a few entries durable, and nothing else of its file system, however much of that waits to be
    written. False if there are more, or not all can be opened. `sync` is given descriptors. Raises OSError: what the
    disk says."""
    try:
        at = os.open(folder, FOLDER_FLAGS)
        try:
            _sync(at, _MOST_SYNCED, sync)
        finally:
            os.close(at)
    except TooLarge:
        return False
    except OSError as error:
        if error.errno in _OTHERS_DO:
            return False
        raise
    return True


def _sync(folder: int, most: int, sync: Callable[[int], None]) -> int:
    names = first_names(folder, most)
    left = most - len(names)
    for name in names:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            below = open_folder(name, folder)
            try:
                left = _sync(below, left, sync)
            finally:
                os.close(below)
        elif stat.S_ISREG(mode):  # whatever else there is, is its entry in the folder
            fd = os.open(name, _FILE_FLAGS, dir_fd=folder)
            try:
                sync(fd)
            finally:
                os.close(fd)
    sync(folder)
    return left
