"""What an archive is made of, be it a tar stream or a folder."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from enum import Enum
from typing import NamedTuple, Protocol

from ..errors import InvalidArgument
from ..identifiers import quote

__all__ = ["Entry", "EntryKind", "Sink", "clean_name", "link_target", "read_small"]


class EntryKind(Enum):
    FILE = "file"
    LINK = "link"
    OTHER = "other"


class Entry(NamedTuple):
    """One file, or one link to another by `target`. `chunks` gives its bytes, once, before the next entry is asked
    for. `name` is clean: no leading slash or dots, nothing outside."""

    name: str
    kind: EntryKind
    size: int
    target: str
    chunks: Callable[[], AsyncGenerator[bytes, None]]


class Sink(Protocol):
    """Where an export goes."""

    async def folder(self, name: str) -> None: ...
    async def file(self, name: str, size: int, mode: int, pieces: AsyncIterator[bytes]) -> None: ...
    async def end(self) -> None: ...


def clean_name(name: str) -> str:
    """Empty for what lies outside the archive."""
    cleaned = posixpath.normpath("/" + name).lstrip("/")
    return "" if ".." in name.split("/") else cleaned


def link_target(name: str, target: str) -> str:
    """What a symbolic link at `name` leads to. Links may climb, as long as they stay inside: `id/layer.tar` may be a
    link to `../other/layer.tar`. Empty for what lies outside the archive."""
    parts = [] if target.startswith("/") else name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


async def read_small(entry: Entry, most: int) -> bytes:
    """Raises InvalidArgument for more than `most` bytes."""
    if entry.size > most:
        raise InvalidArgument(f"{quote(entry.name)} has {entry.size} bytes; the limit is {most}")
    async with aclosing(entry.chunks()) as chunks:
        return b"".join([chunk async for chunk in chunks])
