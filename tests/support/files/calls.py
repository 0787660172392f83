"""File calls of a child process, recorded or made to fail: the Python side of `calls.c`."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from pathlib import Path
from shutil import which
from typing import NamedTuple, Self

import pytest

__all__ = ["Armed", "Entry", "Kind", "entries", "environment", "mark", "needs_calls"]

_SOURCE = Path(__file__).with_name("calls.c")
_ENTRY = struct.Struct("<BBiqII")

needs_calls = pytest.mark.skipif(
    not sys.platform.startswith("linux") or which("gcc") is None,
    reason="standing between a program and libc's file calls needs Linux and gcc",
)


class Kind(IntEnum):
    OPEN = 1
    WRITE = 2
    SYNC = 3
    RENAME = 4
    UNLINK = 5
    MKDIR = 6
    TRUNCATE = 7
    ALLOCATE = 8
    CLOSE = 9
    MARK = 10
    READ = 11
    CHANGE = 12


class Entry(NamedTuple):
    """One call that took effect. `flag` of OPEN: 1 creates, 2 truncates. `offset` of TRUNCATE and
    ALLOCATE is a size. `first` is a path, or the bytes written; `second` a rename's target."""

    kind: Kind
    flag: int
    fd: int
    offset: int
    first: bytes
    second: bytes


def environment(root: Path, folder: Path, log: Path | None = None) -> dict[str, str]:
    """For a child whose calls below `root` are watched. The library is made in `folder`, unless it is there."""
    library = folder / "calls.so"
    if not library.exists():
        draft = folder / f"calls.{os.getpid()}.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", draft, _SOURCE, "-ldl", "-lpthread"], check=True)
        draft.rename(library)
    found = {**os.environ, "LD_PRELOAD": str(library), "ORLOP_FILES_ROOT": str(root)}
    return found if log is None else {**found, "ORLOP_FILES_LOG": str(log)}


def entries(log: Path) -> Iterator[Entry]:
    data, at = log.read_bytes(), 0
    while at < len(data):
        kind, flag, fd, offset, first, second = _ENTRY.unpack_from(data, at)
        middle = at + _ENTRY.size + first
        yield Entry(Kind(kind), flag, fd, offset, data[middle - first : middle], data[middle : middle + second])
        at = middle + second


@cache
def _library() -> ctypes.CDLL:
    """The library, in a process that was started with it."""
    library = ctypes.CDLL(None)
    library.files_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.files_disarm.restype = ctypes.c_long
    library.files_mark.argtypes = [ctypes.c_char_p]
    return library


def mark(text: str) -> None:
    """A line in the log, between the calls before it and those after it."""
    _library().files_mark(text.encode())


class Armed:
    """`with Armed(k, errno.EIO, {Kind.WRITE}) as armed`: the k-th such call in the block fails, and with `forever`
    every one after it. `armed.fired` says afterwards how many did."""

    def __init__(self, call: int, error: int, kinds: frozenset[Kind], *, forever: bool = False) -> None:
        self._call, self._error, self._forever = call, error, forever
        self._kinds = sum(1 << kind for kind in kinds)
        self.fired = 0

    def __enter__(self) -> Self:
        _library().files_arm(self._call, self._error, int(self._forever), self._kinds)
        return self

    def __exit__(self, *_: object) -> None:
        self.fired = _library().files_disarm()
