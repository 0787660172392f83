"""Tar streams, forwards only. Source: POSIX pax and ustar; GNU tar's long names."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final

from ..errors import FailedPrecondition, InvalidArgument
from .entries import Entry, EntryKind, clean_name, link_target

__all__ = ["TarSink", "tar_entries"]

_BLOCK: Final = 512
_CHUNK: Final = 1024 * 1024
_MAX_HEADER: Final = 1024 * 1024
_MAX_DIGITS: Final = 20
_RECORD: Final = 20 * _BLOCK
_ONLY_HEADERS: Final = (b"3", b"4", b"5", b"6")  # devices, folders, pipes: their size, if they say one, is no bytes
Read = Callable[[int], Awaitable[bytes]]


async def tar_entries(read: Read) -> AsyncGenerator[Entry, None]:
    """The entries of a tar stream; `read(n)` gives up to n bytes, none at the end. Raises InvalidArgument for what is
    no tar, or one that is cut short: without its end marker nobody knows whether it is whole."""
    names: dict[str, str] = {}
    first = True
    while True:
        header = await _exactly(read, _BLOCK)
        if not header.strip(b"\0"):
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise InvalidArgument("this is no tar archive" if first else f"a broken tar header: {error}") from None
        first = False
        if info.size < 0:
            raise InvalidArgument(f"a tar header of {info.size} bytes")
        if info.type in (b"x", b"L", b"K", b"g"):
            if info.size > _MAX_HEADER:
                raise InvalidArgument(f"a tar header of {info.size} bytes")
            data = await _exactly(read, info.size)
            await _exactly(read, -info.size % _BLOCK)
            if info.type == b"x":
                names.update(_pax(data))
            elif info.type != b"g":
                names["path" if info.type == b"L" else "linkpath"] = data.rstrip(b"\0").decode(errors="surrogateescape")
            continue
        size = _number(names["size"]) if "size" in names else info.size
        name = clean_name(names.get("path", info.name))
        target = names.get("linkpath", info.linkname)
        names = {}
        if info.type in (b"1", b"2"):
            leads_to = link_target(name if info.type == b"2" else "", target)  # hard links are from the root
            yield Entry(name, EntryKind.LINK, 0, leads_to, _Body(read, 0).chunks)
            continue
        if info.type not in (b"0", b"\0", b"7"):
            if info.type not in _ONLY_HEADERS:
                await _skip(read, size + -size % _BLOCK)
            yield Entry(name, EntryKind.OTHER, 0, "", _Body(read, 0).chunks)
            continue
        body = _Body(read, size)
        yield Entry(name, EntryKind.FILE, size, "", body.chunks)
        await body.finish()


class _Body:
    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._left = size
        self._padding = -size % _BLOCK

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        while self._left:
            piece = await self._read(min(self._left, _CHUNK))
            if not piece:
                raise InvalidArgument("the archive ends in the middle of a file")
            self._left -= len(piece)
            yield piece

    async def finish(self) -> None:
        await _skip(self._read, self._left + self._padding)
        self._left = self._padding = 0


class TarSink:
    """An uncompressed tar that is the same for the same entries: times are the epoch, owners are 0. Source: spec
    registry 12."""

    def __init__(self, write: Callable[[bytes], Awaitable[object]]) -> None:
        self._write = write
        self._written = 0

    async def folder(self, name: str) -> None:
        await self._header(name + "/", 0, 0o755, tarfile.DIRTYPE)

    async def file(self, name: str, size: int, mode: int, pieces: AsyncIterator[bytes]) -> None:
        await self._header(name, size, mode, tarfile.REGTYPE)
        count = 0
        async for piece in pieces:
            await self._put(piece)
            count += len(piece)
        if count != size:
            raise FailedPrecondition(f"{name}: {count} bytes came instead of {size}")
        await self._put(bytes(-size % _BLOCK))

    async def end(self) -> None:
        await self._put(bytes(2 * _BLOCK))
        await self._put(bytes(-self._written % _RECORD))

    async def _header(self, name: str, size: int, mode: int, kind: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.type = size, mode, kind
        await self._put(info.tobuf(tarfile.GNU_FORMAT))

    async def _put(self, data: bytes) -> None:
        self._written += len(data)
        if data:
            await self._write(data)


def _pax(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        end = _number(length.decode(errors="replace"))
        if not space or not len(length) < end <= len(data):
            raise InvalidArgument("a broken pax header")
        record, data = data[len(length) + 1 : end], data[end:]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        found[key.decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidArgument("a broken pax header")
    return int(text)


async def _exactly(read: Read, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await read(count - len(data))
        if not piece:
            raise InvalidArgument("the archive is cut short")
        data += piece
    return data


async def _skip(read: Read, count: int) -> None:
    while count:
        piece = await read(min(count, _CHUNK))
        if not piece:
            raise InvalidArgument("the archive is cut short")
        count -= len(piece)
