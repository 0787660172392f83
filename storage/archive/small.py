"""Jobs on trees of a few entries, done right here: for them a process would take longer to start than to work.

Nothing confines this, so it does nothing clever: by names below open folders, no link is followed and no mode changed.
Whatever is larger, or does not go smoothly, is left as it stands to a worker process, which says what is wrong with it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from .jobs import Done, Measure, Removed, RemoveTrees
from .measure import TooLarge, measure
from .removing import remove_small_tree
from .tree import FOLDER_FLAGS, opened_folder

__all__ = ["run_small"]

_MOST_ENTRIES: Final = 64


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
