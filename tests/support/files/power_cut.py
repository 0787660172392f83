"""What a disk may hold after the power failed, from a record of the calls that a process made.

Four models (RELIABILITY 3.6 a), each applied after any prefix of the calls:

* KEPT: everything reached the disk; the process died, the machine did not.
* SYNCED: only what was synced. Names follow their order: a sync of anything carries all earlier names with it (ext4).
* TORN: as SYNCED, and then some of the later names in their order, and any of the later writes, some of them in part.
* STRICT: close to POSIX to the letter. A name is there once its own folder was synced. Until then any number of the
  folder's changes may be, in their order, whatever other folders show. (To the letter, even those of one folder could
  come in any order. LevelDB renames CURRENT and unlinks what it named before with no sync between, and would not open
  then; no file system for Linux does that.)
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from .calls import Entry, Kind

__all__ = ["Disk", "Model", "State", "write_out"]

_SECTOR: Final = 512
_FOLDER: Final = 0


class Model(Enum):
    KEPT = "kept"
    SYNCED = "synced"
    TORN = "torn"
    STRICT = "strict"


@dataclass(frozen=True)
class Contents:
    """A file: bytes, and a size that may be larger (the rest are zeros)."""

    data: bytes
    size: int
    key: bytes

    @classmethod
    def of(cls, data: bytes, size: int) -> Contents:
        return cls(data, size, hashlib.sha1(b"%d " % size + data, usedforsecurity=False).digest())


@dataclass
class _File:
    """What is on disk for certain, and the changes since: (offset, bytes) or (size, None)."""

    synced: Contents = field(default_factory=lambda: Contents.of(b"", 0))
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    _known: tuple[int, Contents] | None = None

    def now(self) -> Contents:
        """As the process sees it."""
        if self._known is None or self._known[0] != len(self.changes):
            self._known = (len(self.changes), _apply(self.synced, self.changes))
        return self._known[1]

    def torn(self, chance: random.Random) -> Contents:
        kept: list[tuple[int, bytes | None]] = []
        for offset, data in self.changes:
            fate = chance.random()
            if fate < 0.4:
                kept.append((offset, data))
            elif fate < 0.7 and data is not None:
                kept.append((offset, data[: _SECTOR * chance.randrange(len(data) // _SECTOR + 1)]))
        return _apply(self.synced, kept)

    def sync(self) -> None:
        """All of it is on disk; how it came there does not matter any more."""
        self.synced, self.changes, self._known = self.now(), [], None


def _apply(base: Contents, changes: Sequence[tuple[int, bytes | None]]) -> Contents:
    if not changes:
        return base
    data, size = bytearray(base.data), base.size
    for offset, piece in changes:
        if piece is None:
            del data[offset:]
            size = offset
        elif piece:
            if len(data) < offset:
                data.extend(bytes(offset - len(data)))
            data[offset : offset + len(piece)] = piece
            size = max(size, len(data))
    return Contents.of(bytes(data), size)


@dataclass(frozen=True)
class _Name:
    """A change of names: `path` is now file `inode`, or a folder, or nothing (None). `undoes`: a rename's source,
    which does not go before its target came."""

    path: str
    inode: int | None
    undoes: str = ""

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


@dataclass(frozen=True)
class State:
    """One disk: folders, files, and the marks that the process had made by then."""

    model: Model
    call: int
    folders: frozenset[str]
    files: Mapping[str, Contents]
    marks: Sequence[dict[str, Any]]

    @property
    def key(self) -> bytes:
        """Equal for disks that are equal."""
        whole = hashlib.sha1(usedforsecurity=False)
        for path in sorted(self.folders):
            whole.update(path.encode() + b"/")
        for path, contents in sorted(self.files.items()):
            whole.update(path.encode() + b"\0" + contents.key)
        return whole.digest() + b"%d" % len(self.marks)


class Disk:
    """Follows a record, call by call. `root` existed before it, durably."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._files: dict[int, _File] = defaultdict(_File)
        self._names: dict[str, int] = {}  # as the process sees them
        self._open: dict[int, int | str] = {}
        self._later: list[_Name] = []  # changes of names since anything was synced
        self._ordered: dict[str, int] = {}  # names as of that sync
        self._strict: dict[str, int] = {}  # names whose folder was synced since
        self._loose: list[_Name] = []  # the others' changes
        self._marks: list[dict[str, Any]] = []
        self._calls = 0

    def follow(self, entry: Entry) -> bool:
        """Take one call in; False if it cannot have changed what is on any disk."""
        self._calls += 1
        first = os.fsdecode(entry.first) if entry.kind is not Kind.WRITE else ""
        match entry.kind:
            case Kind.MARK:
                self._marks.append(json.loads(first))
            case Kind.OPEN:
                return self._opened(entry, first)
            case Kind.CLOSE:
                self._open.pop(entry.fd, None)
                return False
            case Kind.WRITE:
                self._file(entry.fd).changes.append((entry.offset, entry.first))
            case Kind.TRUNCATE | Kind.ALLOCATE:
                self._file(entry.fd).changes.append((entry.offset, None))
            case Kind.SYNC:
                self._synced(self._open[entry.fd])
            case Kind.MKDIR:
                self._renamed(_Name(first, _FOLDER))
            case Kind.UNLINK:
                self._renamed(_Name(first, None))
            case Kind.RENAME:
                source, target = first, os.fsdecode(entry.second)
                if source in self._names:  # LevelDB's information log is not recorded
                    inode = self._names[source]
                    self._renamed(_Name(target, inode), _Name(source, None, undoes=target))
            case _:
                return False
        return True

    def _opened(self, entry: Entry, path: str) -> bool:
        if path == self._root or self._names.get(path) == _FOLDER:
            self._open[entry.fd] = path
            return False
        changed = path not in self._names
        if changed:
            if not entry.flag & 1:
                self._open[entry.fd] = -1  # one that is not recorded
                return False
            self._renamed(_Name(path, len(self._files) + 1))
            self._files[self._names[path]] = _File()
        inode = self._open[entry.fd] = self._names[path]
        if entry.flag & 2 and not changed:
            self._files[inode].changes.append((0, None))
            changed = True
        return changed

    def _file(self, fd: int) -> _File:
        inode = self._open[fd]
        assert isinstance(inode, int)
        return self._files[inode]

    def _renamed(self, *changes: _Name) -> None:
        for change in changes:
            _rename(self._names, change)
        self._later += changes
        self._loose += changes

    def _synced(self, what: int | str) -> None:
        for change in self._later:
            _rename(self._ordered, change)
        self._later.clear()
        if isinstance(what, int):
            self._files[what].sync()
            return
        rest = []
        for change in self._loose:
            if change.folder == what:
                _rename(self._strict, change)
            else:
                rest.append(change)
        self._loose = rest

    def states(self, chance: random.Random, draws: int) -> Iterator[State]:
        """What the disk may hold now: one each that is KEPT and SYNCED, `draws` each that are TORN and STRICT."""
        yield self._state(Model.KEPT, self._names, {inode: file.now() for inode, file in self._files.items()})
        yield self._state(Model.SYNCED, self._ordered, {inode: file.synced for inode, file in self._files.items()})
        for _ in range(draws):
            torn = {inode: file.torn(chance) for inode, file in self._files.items()}
            names = dict(self._ordered)
            for change in self._later[: chance.randrange(len(self._later) + 1)]:
                _rename(names, change)
            yield self._state(Model.TORN, names, torn)
            names, come = dict(self._strict), {change.folder: chance.random() for change in self._loose}
            for number, change in enumerate(self._loose):
                if number < come[change.folder] * len(self._loose) and (not change.undoes or change.undoes in names):
                    _rename(names, change)
            yield self._state(Model.STRICT, names, torn)

    def _state(self, model: Model, names: Mapping[str, int], contents: Mapping[int, Contents]) -> State:
        root = self._root
        folders = {root}
        for path in sorted(path for path, inode in names.items() if inode == _FOLDER):
            if os.path.dirname(path) in folders:
                folders.add(path)
        files = {
            path[len(root) + 1 :]: contents[inode]
            for path, inode in names.items()
            if inode != _FOLDER and os.path.dirname(path) in folders
        }
        below = frozenset(folder[len(root) + 1 :] for folder in folders - {root})
        return State(model, self._calls, below, files, tuple(self._marks))


def _rename(names: dict[str, int], change: _Name) -> None:
    if change.inode is None:
        names.pop(change.path, None)
    else:
        names[change.path] = change.inode


def write_out(state: State, root: Path) -> None:
    """Make the disk: `root` must not exist."""
    root.mkdir()
    for folder in sorted(state.folders):
        (root / folder).mkdir()
    for path, contents in state.files.items():
        with open(root / path, "wb") as file:
            file.write(contents.data)
            file.truncate(contents.size)
