"""What a layer hides of the layers below it. Source: spec unpack 5.6 to 5.8.

Only what comes from below is hidden, never what the layer itself brings, whatever the order. Where older things lie in
the same folders they are removed at once. Where they lie in folders below, what is hidden is no way to anything from
then on, and marks are made at the end: a device 0:0 for a name, an attribute for all of a folder; only for what is
there to be hidden.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Container

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
        self._names: list[tuple[Place, bytes]] = []
        self._folders: list[Place] = []

    def hide(self, folder: bytes, name: bytes, entry: bytes) -> None:
        """One name in a folder; an empty one is everything in it. Nothing is ever made for it."""
        try:
            place = self._places.find(folder, entry)
        except InvalidArgument:  # its folder is a file, or leads nowhere: there is nothing to hide
            return
        if place is None:
            return
        if self._mixed:
            self._remove(place, name) if name else self._sweep(place)
        if not self._overlay:
            return
        if name:
            self._names.append((place, name))
            self._places.hide(place, name)
        else:
            self._folders.append(place)
            self._places.hide_all(place)

    def mark(self) -> None:
        """At the end, in the folder's own terms: what is hidden is there no more for whoever mounts it."""
        whole = set(self._folders)
        for place, name in dict.fromkeys(self._names):
            if not place.gone and place not in whole and not self._under_mark(place, whole):
                self._mark_one(place, name)
        for place in dict.fromkeys(self._folders):
            if not place.gone and not self._under_mark(place, whole):
                self._mark_all(place)

    def make_opaque(self, place: Place) -> None:
        """Nothing of the layers below shows through this folder."""
        fd = self._places.open(place)
        if not place.opaque:
            os.setxattr(fd, self._opaque_name, b"y")
            place.opaque = True
        self._drop_copies(place)
        self._places.hide_all(place)

    def _mark_all(self, place: Place) -> None:
        below = self._places.really_below(place)
        if below is None:
            return
        if place.parent is not None:
            self.make_opaque(place)
            return
        for name in below.names():
            self._mark_one(place, name)

    def _mark_one(self, place: Place, name: bytes) -> None:
        below = self._places.really_below(place)
        found = below.look(name) if below is not None else None
        status = self._places.status(place, name)
        if status is not None and place.copied and name in place.copied:
            os.unlink(name, dir_fd=self._places.open(place))
            place.copied.discard(name)
            self._count.exact = False
        elif status is not None:
            if stat.S_ISDIR(status.st_mode) and found is not None and found.folder is not None:
                child = self._places.find_child(place, name)
                if child is not None:
                    self.make_opaque(child)
            return
        if found is not None:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=self._places.open(place))
            self._count.inodes += 1

    def _under_mark(self, place: Place, whole: Container[Place]) -> bool:
        """Whether what lies below this place is hidden anyway, by itself or by a folder on the way to it."""
        at: Place = place
        while at.parent is not None:
            if at.opaque or at.name in at.parent.hidden or at.parent in whole:
                return True
            at = at.parent
        return False

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
