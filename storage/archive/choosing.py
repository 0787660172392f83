"""A layer of which only what lies right inside a few folders is wanted. Source: spec cli 8, install."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from .names import OPAQUE_MARKER, WHITEOUT, split
from .tar import Entry, TarReader

__all__ = ["ChosenEntries"]

_PROGRAMS: Final = (b"0", b"1", b"2")


class ChosenEntries(TarReader):
    """Files and links whose folder is one of `folders`, and what hides such of the layers below. Everything else is
    passed over: other folders, also inside those; devices and pipes; names that begin with `/` or climb."""

    def __init__(self, read_chunk: Callable[[], bytes], folders: Sequence[str]) -> None:
        super().__init__(read_chunk)
        self._folders = frozenset(os.fsencode(folder) for folder in folders)
        self._hiding = frozenset((OPAQUE_MARKER, *(WHITEOUT + folder for folder in self._folders)))

    def next(self) -> Entry | None:
        while (entry := super().next()) is not None and not self._is_chosen(entry):
            pass
        return entry

    def _is_chosen(self, entry: Entry) -> bool:
        name = entry.name
        if entry.kind not in _PROGRAMS or name.startswith(b"/") or b".." in name.split(b"/"):
            return False
        folder, base = split(name)
        return bool(base) and (folder in self._folders or (not folder and base in self._hiding))
