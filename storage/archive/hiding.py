"""What a layer hides of the layers below it, done when all its entries lie there. Source: spec unpack 5.6 to 5.8.

Where older things lie in the same folders they are removed; where they lie in folders below, marks are made: a device
0:0 for a name, an attribute for all of a folder. Marks are made only for what is there to be hidden.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import Final

from ...protocol.errors import InvalidArgument
from .folders import Place, Places, holds
from .tree import is_whiteout

__all__ = ["Count", "Hider"]


class Count:
    """What the target holds, as far as it can be said without looking: `exact` until something was removed."""

    def __init__(self, *, exact: bool) -> None:
        self.blocks = 0
        self.inodes = 1
        self.exact = exact


class Hider:
    """`overlay`: the target is an upper folder. `mixed`: it holds what this layer did not bring."""

    def __init__(self, places: Places, count: Count, opaque_name: str, *, overlay: bool, mixed: bool) -> None:
        self._places = places
        self._count = count
        self._opaque_name = opaque_name
        self._overlay = overlay
        self._mixed = mixed
        self._names: dict[tuple[bytes, bytes], None] = {}
        self._folders: dict[bytes, None] = {}

    def note(self, folder: bytes, name: bytes) -> None:
        """One name in a folder; an empty one is everything in it."""
        if name:
            self._names[folder, name] = None
        else:
            self._folders[folder] = None

    def carry_out(self) -> None:
        for path in self._folders:
            place = self._resolved(path)
            if place is not None:
                self._hide_all(place)
        for path, name in self._names:
            place = self._resolved(path)
            if place is not None:
                self._hide_one(place, name)

    def make_opaque(self, place: Place) -> None:
        """Nothing of the layers below shows through this folder."""
        fd = self._places.open(place)
        if not place.opaque:
            os.setxattr(fd, self._opaque_name, b"y")
            place.opaque = True
        self._drop_copies(place)
        self._places.hide_lower(place)

    def _resolved(self, path: bytes) -> Place | None:
        try:
            return self._places.find(path, path)
        except InvalidArgument:  # its folder is a file, or leads nowhere: there is nothing to hide
            return None

    def _hide_all(self, place: Place) -> None:
        if self._mixed:
            self._sweep(place)
        if not self._overlay:
            return
        if place.parent is None:
            folder = self._places.lower(place)
            for name in folder.names() if folder is not None else ():
                self._mark(place, name)
            self._places.hide_lower(place)
        elif self._places.lower(place) is not None:
            self.make_opaque(place)

    def _hide_one(self, place: Place, name: bytes) -> None:
        if self._mixed:
            self._remove(place, name)
        if self._overlay:
            self._mark(place, name)

    def _mark(self, place: Place, name: bytes) -> None:
        status = self._places.status(place, name)
        if status is not None and place.copied and name in place.copied:
            os.unlink(name, dir_fd=self._places.open(place))
            place.copied.discard(name)
            self._count.exact = False
        elif status is not None:
            if stat.S_ISDIR(status.st_mode):
                child = self._places.find_child(place, name)
                if child is not None and self._places.lower(child) is not None:
                    self.make_opaque(child)
            return
        if self._places.below(place, name) is not None:
            os.mknod(name, stat.S_IFCHR, _WHITEOUT_DEVICE, dir_fd=self._places.open(place))
            self._count.inodes += 1

    def _drop_copies(self, place: Place) -> None:
        """Files that are here only because of a hard link to them are hidden like what they are copies of."""
        for name in place.copied or ():
            os.unlink(name, dir_fd=self._places.open(place))
            self._count.exact = False
        place.copied = None
        for child in place.children.values():
            self._drop_copies(child)

    def _remove(self, place: Place, name: bytes) -> None:
        """Away with an older thing; what this layer brought stays, and of a folder what it put inside."""
        status = self._places.status(place, name)
        if status is None:
            return
        child = place.children.get(name)
        made = name in (place.made or ())
        if stat.S_ISDIR(status.st_mode):
            if child is not None and (made or holds(child)):
                self._sweep(child)
                return
            shutil.rmtree(name, dir_fd=self._places.open(place))
        elif made:
            return
        else:
            os.unlink(name, dir_fd=self._places.open(place))
        self._places.replaced(place, name)

    def _sweep(self, place: Place) -> None:
        if not place.exists:
            return
        fd = self._places.open(place)
        os.lseek(fd, 0, os.SEEK_SET)
        for text in os.listdir(fd):
            name = os.fsencode(text)
            status = os.stat(name, dir_fd=self._places.open(place), follow_symlinks=False)
            if not is_whiteout(status):
                self._remove(place, name)


_WHITEOUT_DEVICE: Final = 0
