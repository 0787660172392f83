"""Looking whether stored bytes still are what their digests say.

Disks lie, and people edit files. What is found damaged is marked in one transaction: from then on reads say so, and
name where it came from; the next commit of that digest takes its place. Source: spec content 3.5 (the reference
never looks), DESIGN 6.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import structlog
import trio

from ..protocol.errors import NotFound, OrlopError
from ..protocol.identifiers import check_digest, split_digest
from ..protocol.labels import sources
from ..protocol.messages import (
    MAX_CHUNK_BYTES,
    Context,
    OpenContent,
    OpenedContent,
    Verified,
    VerifyContent,
    VerifyProgress,
    VerifyState,
)
from ..protocol.service import Session
from ..protocol.world import Work, World
from ..storage.blobs import ledger
from ..storage.blobs.local import Digester, LocalBlobs, new_digester
from ..storage.tables import CONTENT
from .content import damaged
from .content_actor import ContentActor
from .storage import StorageActor

__all__ = ["Verifier"]

log = structlog.get_logger("orlop.verification")

_PIECE_BYTES = 4 * 1024 * 1024
_REPORT_BYTES = 64 * 1024 * 1024
_PAGE = 500
Emit = Callable[[object], Awaitable[None]]


class Verifier:
    def __init__(self, storage: StorageActor, content: ContentActor, blobs: LocalBlobs, world: World) -> None:
        self._storage = storage
        self._content = content
        self._blobs = blobs
        self._world = world

    async def verify(self, request: VerifyContent, context: Context, _: Session, emit: Emit) -> Verified:
        """Hash blobs again and mark what is damaged; others read and write meanwhile. See VerifyContent.

        Raises InvalidArgument (a malformed digest). Cancellation: what was found so far stays marked.
        """
        for digest in request.digests:
            check_digest(digest)
        counts = dict.fromkeys(VerifyState, 0)
        pace = _Pace(request.bytes_per_s)
        async with aclosing(self._wanted(request, context)) as wanted:
            async for digest in wanted:
                counts[await self._check(digest, context, emit, pace)] += 1
        return Verified(
            counts[VerifyState.INTACT] + counts[VerifyState.DAMAGED],
            counts[VerifyState.DAMAGED],
            counts[VerifyState.MISSING],
            pace.bytes,
        )

    async def emit_verified(self, digest: str, context: Context, emit: Emit) -> None:
        """A whole blob's bytes, hashed on their way. The last chunk is held back until it is known that all fit.

        Raises NotFound, DataLoss.
        """
        with self._storage.view() as view:
            blob = await ledger.find_blob(view, digest)
        async with self._content.reads.reading(digest, context) as (size, read):
            digester = new_digester(split_digest(digest)[0])
            held = b""
            for at in range(0, size, MAX_CHUNK_BYTES):
                if held:
                    await emit(held)
                held = await read(at, min(MAX_CHUNK_BYTES, size - at))
                await self._world.workers.run(Work.BYTES, digester.update, held)
            if digester.hexdigest() != split_digest(digest)[1]:
                await self._mark(digest, blob)
                with self._storage.view() as view:
                    raise damaged(await CONTENT.get(view, context.namespace or "", digest))
            if held:
                await emit(held)

    async def _wanted(self, request: VerifyContent, context: Context) -> AsyncGenerator[str, None]:
        if request.digests:
            for digest in request.digests:
                yield digest
            return
        after = ""
        while True:
            with self._storage.view() as view:
                page = await CONTENT.page(view, context.namespace or "", after, _PAGE)
            for name in page.names:
                yield name
            if not page.next:
                return
            after = page.next

    async def _check(self, digest: str, context: Context, emit: Emit, pace: _Pace) -> VerifyState:
        with self._storage.view() as view:
            info = await CONTENT.find(view, context.namespace or "", digest)
            blob = await ledger.find_blob(view, digest)
        if info is None:
            await emit(VerifyProgress(digest, VerifyState.MISSING))
            return VerifyState.MISSING
        intact = False
        if blob is not None and not blob.damaged:
            try:
                intact = await self._intact(digest, context, emit, pace)
            except NotFound:
                with self._storage.view() as view:
                    if await CONTENT.find(view, context.namespace or "", digest) is None:
                        return VerifyState.MISSING  # deleted while we looked
            if not intact:
                await self._mark(digest, blob)
        state = VerifyState.INTACT if intact else VerifyState.DAMAGED
        found = {} if intact else sources(info.labels)
        await emit(VerifyProgress(digest, state, info.size, info.size, found))
        return state

    async def _intact(self, digest: str, context: Context, emit: Emit, pace: _Pace) -> bool:
        opened = await self._content.reads.open(OpenContent(digest), context)
        digester = new_digester(split_digest(digest)[0])
        if isinstance(opened, OpenedContent):
            digester.update(opened.data or b"")
            await pace.keep(opened.size)
            return digester.hexdigest() == split_digest(digest)[1]
        assert isinstance(opened.result, OpenedContent)
        size, at, reported = opened.result.size, 0, 0
        try:
            hash_piece = partial(_hash_piece, self._blobs, opened.descriptor, digester)
            while (count := await self._world.workers.run(Work.BYTES, hash_piece, at)) > 0:
                at += count
                await pace.keep(count)
                if at - reported >= _REPORT_BYTES:
                    reported = at
                    await emit(VerifyProgress(digest, VerifyState.CHECKING, at, size))
        except OSError as error:  # a disk that cannot read it has lost it
            log.error("a blob cannot be read", digest=digest, error=str(error))
            return False
        finally:
            self._blobs.close(opened.descriptor)
        return at == size and digester.hexdigest() == split_digest(digest)[1]

    async def _mark(self, digest: str, blob: ledger.Blob | None) -> None:
        if blob is None:
            return
        generation = blob.generation
        try:
            if await self._storage.transact(lambda txn: ledger.mark_damaged(txn, digest, generation)):
                log.error("a blob is damaged", digest=digest, generation=generation)
        except OrlopError as error:
            log.error("a damaged blob could not be marked", digest=digest, error=str(error))


class _Pace:
    """No more bytes a second than asked for, on average."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._began = trio.current_time()
        self.bytes = 0

    async def keep(self, count: int) -> None:
        self.bytes += count
        if self._bytes_per_s is not None:
            await trio.sleep_until(self._began + self.bytes / self._bytes_per_s)
        else:
            await trio.lowlevel.checkpoint()


def _hash_piece(blobs: LocalBlobs, fd: int, digester: Digester, at: int) -> int:
    """How many bytes were hashed; none at the end."""
    piece: Any = blobs.read_some(fd, at, _PIECE_BYTES)
    digester.update(piece)
    return len(piece)
