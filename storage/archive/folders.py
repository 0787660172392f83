"""Where a layer's entries go: names resolved inside the target, over what lies below it.

A `Place` is a folder of the merged tree: open in the target, or only in the layers below and made in the target when
something is put into it (with the attributes it has there). Symlinks on the way are followed as if the root were `/`;
the last part of a name never is. Every step is one name below an open folder. Source: spec unpack 5.1, 5.7.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from ...protocol.errors import InvalidArgument
from .names import shown
from .tree import FOLDER_FLAGS, Folder, Found, has_mark, is_whiteout

__all__ = ["NotAFolder", "Place", "Places", "holds"]

MAX_LINKS: Final = 255
_MOST_OPEN: Final = 400
_MOST_LOWER: Final = 200


class NotAFolder(InvalidArgument):
    """A parent of an entry is something else."""


class Place:
    """`made`: names put here by this layer, kept only where they are mixed with older ones. `copied`: names that are
    here only because something links to them. `hidden`: names of which what lies below is hidden. `times`: what its
    times become at the end."""

    __slots__ = (
        "acl", "children", "copied", "exists", "explicit", "fd", "gone", "hidden", "lower", "made", "mode", "name",
        "opaque", "parent", "setgid", "times",
    )  # fmt: skip

    def __init__(self, parent: Place | None, name: bytes, lower: Folder | type[Unknown] | None) -> None:
        self.parent = parent
        self.name = name
        self.fd = -1
        self.exists = False
        self.gone = False
        self.explicit = False
        self.opaque = False
        self.setgid = False
        self.lower = lower
        self.children: dict[bytes, Place] = {}
        self.made: set[bytes] | None = None
        self.copied: set[bytes] | None = None
        self.hidden: set[bytes] = set()
        self.times: tuple[int, int] | None = None
        self.mode: int | None = None
        self.acl: bytes | None = None


class Unknown:
    """Nobody asked yet what lies below a place."""


def holds(place: Place) -> bool:
    """Whether this layer brought it, or put anything into it."""
    return place.explicit or bool(place.made) or any(holds(child) for child in place.children.values())


class Places:
    """All places that were looked at. `lower`: asked for once, when what lies below is first needed; it may wait.
    `marks`: the attribute of opaque folders where the target may hold whiteouts and such folders already, else empty.
    """

    def __init__(
        self,
        target: int,
        lower: Callable[[], Folder | None],
        create: Callable[[Place, Found | None], None],
        *,
        depth: int,
        marks: str,
    ) -> None:
        self._ask = lower
        self._asked: Folder | type[Unknown] | None = Unknown
        self._create = create
        self._depth = depth
        self._marks = marks
        self.root = Place(None, b"", Unknown)
        self.root.fd = target
        self.root.exists = True
        self.root.setgid = bool(os.fstat(target).st_mode & stat.S_ISGID)
        self._known: dict[bytes, Place] = {b"": self.root}
        self._followed: set[tuple[Place, bytes]] = set()  # links that led somewhere
        self._open: list[Place] = []
        self._looked = 0

    def parent(self, path: bytes, entry: bytes) -> Place:
        """The place of a path, for putting something there. Raises InvalidArgument (a part is no folder, too many
        links, too deep)."""
        place = self._known.get(path)
        if place is None:
            place = self.walk(path, entry, create=True)
            assert place is not None
            self._known[path] = place
        if place.fd < 0:
            self.open(place)
        return place

    def find(self, path: bytes, entry: bytes) -> Place | None:
        """The place of a path, if there is one; nothing is made."""
        return self._known.get(path) or self.walk(path, entry, create=False)

    def find_child(self, place: Place, name: bytes) -> Place | None:
        """A folder right inside a place."""
        return place.children.get(name) or self._added(place, name)

    def every(self) -> Iterator[Place]:
        """All places that were looked at, but for the root."""
        waiting = list(self.root.children.values())
        while waiting:
            place = waiting.pop()
            yield place
            waiting += place.children.values()

    def remember(self, path: bytes, place: Place) -> None:
        self._known[path] = place

    def _added(self, place: Place, name: bytes) -> Place | None:
        found = self._look(place, name, name)
        if not isinstance(found, Place):
            return None
        place.children[name] = found
        return found

    def walk(self, path: bytes, entry: bytes, *, create: bool) -> Place | None:
        links = 0
        place = self.root
        parts = path.split(b"/")
        if len(parts) > self._depth:
            raise InvalidArgument(f"entry {shown(entry)}: deeper than {self._depth} folders")
        parts.reverse()
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                place = place.parent or self.root
                continue
            child = place.children.get(part)
            if child is None:
                found = self._look(place, part, entry)
                if isinstance(found, bytes):
                    self._followed.add((place, part))
                    links += 1
                    if links > MAX_LINKS:
                        raise InvalidArgument(f"entry {shown(entry)}: too many links")
                    if found.startswith(b"/"):
                        place = self.root
                    parts += reversed(found.split(b"/"))
                    if len(parts) > self._depth + 256:
                        raise InvalidArgument(f"entry {shown(entry)}: too many links")
                    continue
                if found is None:
                    if not create:
                        return None
                    found = Place(place, part, None)
                child = place.children[part] = found
            place = child
        return place

    def _look(self, place: Place, name: bytes, entry: bytes) -> Place | bytes | None:
        """A folder's place, a symlink's text, or None for what is not there. Raises NotAFolder."""
        status = self.status(place, name)
        if status is not None:
            if stat.S_ISDIR(status.st_mode):
                child = Place(place, name, Unknown)
                child.exists = True
                child.setgid = bool(status.st_mode & stat.S_ISGID)
                child.times = (status.st_atime_ns, status.st_mtime_ns)
                return child
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(name, dir_fd=self.open(place))
            raise NotAFolder(f"entry {shown(entry)}: {shown(name)} is not a folder")
        found = self.below(place, name)
        if found is None:
            return None
        if found.folder is not None:
            return Place(place, name, found.folder)
        if stat.S_ISLNK(found.status.st_mode):
            return os.readlink(name, dir_fd=found.at)
        raise NotAFolder(f"entry {shown(entry)}: {shown(name)} is not a folder")

    def status(self, place: Place, name: bytes) -> os.stat_result | None:
        """What stands in the target itself; a whiteout is nothing."""
        if not place.exists:
            return None
        try:
            found = os.stat(name, dir_fd=self.open(place), follow_symlinks=False)
        except FileNotFoundError:
            return None
        return None if self._marks and is_whiteout(found) else found

    def below(self, place: Place, name: bytes) -> Found | None:
        """What the layers below show under a name."""
        if name in place.hidden:
            return None
        folder = self.lower(place)
        if folder is None or (self._marks and place.exists and self._is_marked(place, name)):
            return None
        self._looked += 1
        return folder.look(name)

    def really_below(self, place: Place) -> Folder | None:
        """The folder below a place, also where this layer hides it."""
        if place.parent is None:
            return self._lowest()
        if self._marks and place.exists and not place.opaque and has_mark(self.open(place), self._marks):
            return None
        above = self.really_below(place.parent)
        found = above.look(place.name) if above is not None else None
        return found.folder if found is not None else None

    def hide(self, place: Place, name: bytes) -> None:
        """What lies below under this name is no way to anything any more."""
        place.hidden.add(name)
        self._known = {b"": self.root}
        child = place.children.get(name)
        if child is not None and child.exists:
            self.hide_all(child)
        else:
            place.children.pop(name, None)

    def hide_all(self, place: Place) -> None:
        """What lies below this place is no way to anything any more."""
        place.lower = None
        self._known = {b"": self.root}
        for name, child in list(place.children.items()):
            if child.exists:
                self.hide_all(child)
            else:
                del place.children[name]

    def _is_marked(self, place: Place, name: bytes) -> bool:
        try:
            return is_whiteout(os.stat(name, dir_fd=self.open(place), follow_symlinks=False))
        except FileNotFoundError:
            return False

    def lower(self, place: Place) -> Folder | None:
        """The folder below a place."""
        lower = place.lower
        if lower is not None and not isinstance(lower, Folder):
            if place.parent is None:
                lower = self._lowest()
            else:
                if self._looked > _MOST_LOWER:
                    self._close_lower()
                found = self.below(place.parent, place.name)
                lower = found.folder if found is not None else None
                if lower is not None and self._marks and place.exists and has_mark(self.open(place), self._marks):
                    lower = None
            assert lower is None or isinstance(lower, Folder)
            place.lower = lower
        return lower

    def _lowest(self) -> Folder | None:
        """The root of what lies below; asked for once."""
        if self._asked is not None and not isinstance(self._asked, Folder):
            self._asked = self._ask()
        assert self._asked is None or isinstance(self._asked, Folder)
        return self._asked

    def _close_lower(self) -> None:
        """Too many folders of the layers below are open: all are looked up again when needed."""
        self._looked = 0

        def forget(place: Place) -> None:
            for child in place.children.values():
                if isinstance(child.lower, Folder):
                    child.lower = Unknown
                forget(child)

        forget(self.root)
        if isinstance(self._asked, Folder):
            self._asked.forget_all()

    def open(self, place: Place) -> int:
        """A descriptor of the place in the target, which is made there if it is not."""
        if place.fd >= 0:
            return place.fd
        parent = place.parent
        assert parent is not None
        if len(self._open) > _MOST_OPEN:
            self._close_some()
        at = self.open(parent)
        if not place.exists:
            self._create(place, self.below(parent, place.name))
            place.exists = True
            at = self.open(parent)  # making it may have closed that
            if place.fd >= 0:
                return place.fd
        place.fd = os.open(place.name, FOLDER_FLAGS, dir_fd=at)
        self._open.append(place)
        return place.fd

    def _close_some(self) -> None:
        for place in self._open:
            if place.fd >= 0:
                os.close(place.fd)
                place.fd = -1
        self._open.clear()

    def shadowed(self, place: Place, name: bytes, *, by_folder: bool) -> None:
        """An entry was put here under a name that may have been a way to somewhere, in the layers below."""
        if (place, name) in self._followed or (not by_folder and name in place.children):
            self._followed.discard((place, name))
            self.replaced(place, name)

    def replaced(self, place: Place, name: bytes) -> None:
        """Something under this name, a folder or a link, is no longer what it was."""
        self._known = {b"": self.root}
        child = place.children.pop(name, None)
        if child is not None:
            self._forget(child)

    def _forget(self, place: Place) -> None:
        place.gone = True
        if place.fd >= 0:
            os.close(place.fd)
            place.fd = -1
        for child in place.children.values():
            self._forget(child)

    def close(self) -> None:
        self._close_some()
