"""Blobs open for reading: their bytes, where they live in the engine, or a descriptor of their file.

Whoever reads goes on when the blob is deleted meanwhile: an open file outlives its name. Source: spec content 3.5.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from ..protocol.errors import NotFound
from ..protocol.identifiers import check_digest
from ..protocol.messages import Context, OpenContent, OpenedContent
from ..protocol.service import Reply
from ..protocol.world import Work, World
from ..storage.blobs import ledger
from ..storage.blobs.local import LocalBlobs, disk_errors
from ..storage.engine import Engine
from ..storage.tables import CONTENT
from .content import damaged

__all__ = ["BlobReads", "OpenReader"]


class OpenReader:
    """A blob held open for a connection. Closing waits for a read under way to end."""

    def __init__(self, blobs: LocalBlobs, world: World, fd: int, size: int) -> None:
        self.size = size
        self._blobs = blobs
        self._world = world
        self._fd = fd
        self._users = 0
        self._closed = False

    async def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes. Raises OutOfRange, Unavailable (the disk cannot read them)."""
        return await _read(self._world, self._blobs, self._fd, offset, count)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._closed and not self._users:
                self._blobs.close(self._fd)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._users:
                self._blobs.close(self._fd)


class BlobReads:
    def __init__(self, engine: Engine, blobs: LocalBlobs, world: World) -> None:
        self._storage = engine
        self._blobs = blobs
        self._world = world

    async def open(self, request: OpenContent, context: Context) -> OpenedContent | Reply:
        """The bytes of a small blob, or a fresh descriptor of a file. Raises NotFound, DataLoss (found damaged).

        Cancellation: no descriptor is left behind.
        """
        check_digest(request.digest)
        with self._storage.view() as view:
            info = await CONTENT.get(view, context.namespace or "", request.digest)
            blob = await ledger.find_blob(view, request.digest)
            if blob is None:
                raise NotFound(f"bytes of content {request.digest}")
            if blob.damaged:
                raise damaged(info)
            if not blob.generation:
                return OpenedContent(blob.size, await ledger.small_bytes(view, request.digest))
        with disk_errors(f"content {request.digest}"):
            fd = await self._world.workers.run(Work.FILES, self._blobs.open_blob, request.digest, blob.generation)
        return Reply(OpenedContent(blob.size, descriptor=True), fd)

    @asynccontextmanager
    async def reading(self, digest: str, context: Context) -> AsyncIterator[tuple[int, Any]]:
        """(size, `read(offset, count)`) of a blob, while the block runs."""
        opened = await self.open(OpenContent(digest), context)
        if isinstance(opened, OpenedContent):
            data = opened.data or b""

            async def slice_(offset: int, count: int) -> bytes:
                return data[offset : offset + count]

            yield opened.size, slice_
            return
        fd = opened.descriptor
        assert isinstance(opened.result, OpenedContent)

        async def read(offset: int, count: int) -> bytes:
            return await _read(self._world, self._blobs, fd, offset, count)

        try:
            yield opened.result.size, read
        finally:
            self._blobs.close(fd)

    def open_reader(self, fd: int, size: int) -> OpenReader:
        """A blob that stays open between calls; it closes the descriptor."""
        return OpenReader(self._blobs, self._world, fd, size)


async def _read(world: World, blobs: LocalBlobs, fd: int, offset: int, count: int) -> bytes:
    with disk_errors(f"reading {count} bytes at {offset}"):
        return await world.workers.run(Work.BYTES, blobs.read, fd, offset, count)
