"""The writer of one ingest: a task that takes bytes in order, writes and hashes them in a thread.

Bytes are taken while earlier ones are written, so hashing runs beside the transfer. A writer belongs to
whoever opened it and holds its ref's lock until it ends by commit or close.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..protocol.errors import FailedPrecondition, InvalidArgument, OrlopError, OutOfRange
from ..protocol.identifiers import quote
from ..protocol.messages import WrittenIngest
from ..protocol.records import IngestStatus
from ..protocol.service import Answer
from ..protocol.world import Work, World
from ..storage.blobs.local import IngestFile, disk_error
from ..storage.tables import IngestRecord
from .promise import Promise

__all__ = ["Writer"]

RENEW_BEFORE_NS = 12 * 3600 * 1_000_000_000
_PIECES = 16  # of up to 1 MiB, that wait while earlier ones are written
_BATCH_BYTES = 4 * 1024 * 1024


class _Piece:
    __slots__ = ("answer", "data", "end", "restart")

    def __init__(self, data: bytes, end: int, restart: bool, answer: Answer[WrittenIngest] | None) -> None:
        self.data = data
        self.end = end
        self.restart = restart
        self.answer = answer


class Writer:
    """An open ingest. `write` and `commit` are for one user at a time; what fails once stays failed."""

    def __init__(
        self,
        namespace: str,
        record: IngestRecord,
        file: IngestFile,
        world: World,
        ended: Callable[[], None],
        is_current: Callable[[str, IngestRecord], Awaitable[bool]],
        renew: Callable[[str, IngestRecord], Awaitable[IngestRecord]],
    ) -> None:
        self.namespace = namespace
        self.record = record
        self.file = file
        self._world = world
        self._ended = ended
        self._is_current = is_current
        self._renew = renew
        self._queued = 0
        self._accepted = file.offset
        self._updated_at = record.updated_at
        self._send, self._receive = trio.open_memory_channel[_Piece](_PIECES)
        self._failure: OrlopError | None = None
        self._done = trio.Event()
        self.open = True

    @property
    def offset(self) -> int:
        """Position of the next byte, counting what is accepted and not yet written."""
        return self._accepted

    def status(self) -> IngestStatus:
        record = self.record
        return IngestStatus(
            ref=record.ref,
            offset=self._accepted,
            total=record.total,
            expected=record.expected,
            started_at=record.started_at,
            updated_at=self._updated_at,
        )

    async def write(self, data: bytes, offset: int | None = None) -> int:
        """Take bytes for `offset` (default: where we are; 0 starts afresh). Returns the new offset.

        Raises OutOfRange for another offset, FailedPrecondition after the end, and what the disk said about
        earlier bytes. Cancellation: the bytes were not taken. Durability: only with the commit.
        """
        return await self._take(self._piece(data, offset, None))

    async def write_answered(self, data: bytes, offset: int, answer: Answer[WrittenIngest]) -> None:
        """Like `write`, but the answer is called when the bytes are written. Waits only for room."""
        await self._take(self._piece(data, offset, answer))

    async def truncate(self, size: int = 0) -> None:
        """Back to zero bytes; nothing else can be hashed again cheaply. Cancellation: may have happened."""
        if size:
            raise InvalidArgument(f"an ingest can only be truncated to 0 bytes, not {size}")
        if self._accepted:
            await self._settle(restart=True)

    async def flush(self) -> None:
        """Wait until everything accepted is written. Raises what the disk said."""
        if self._queued or self._failure is not None:
            await self._settle(restart=False)

    async def run(self) -> None:
        """Write what comes until `finish`; then answer nobody any more."""
        try:
            async for first in self._receive:
                batch = [first]
                size = len(first.data)
                while size < _BATCH_BYTES:
                    try:
                        batch.append(self._receive.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                    size += len(batch[-1].data)
                await self._write(batch)
                await self._outlive_expiry()
        finally:
            self._done.set()

    async def _outlive_expiry(self) -> None:
        """An ingest that is being written does not expire under its writer."""
        expires = self.record.expires_at
        if expires is None or expires - self._world.clock.now_ns() > RENEW_BEFORE_NS:
            return
        try:
            self.record = await self._renew(self.namespace, self.record)
        except OrlopError:  # aborted, or there is time for another attempt
            pass

    async def finish(self, *, keep: bool) -> None:
        """End the writer and free its ref. `keep`: sync what was written, so that it can be resumed.

        Idempotent. Cancellation: shielded; it ends when the disk does.
        """
        if not self.open:
            return
        self.open = False
        with trio.CancelScope(shield=True):  # bounded by the writes already accepted
            self._send.close()
            await self._done.wait()
            try:
                if keep and self.file.offset:
                    await self._keep()
                elif self.file.on_disk:
                    await self._world.workers.run(Work.FILES, self.file.close)
            except OSError:
                pass  # the bytes are not promised; the next open trusts what is on disk
            finally:
                self._ended()

    async def _keep(self) -> None:
        """An ingest that was aborted meanwhile leaves no file that nobody knows of."""
        await self._world.workers.run(Work.BYTES, self._keep_file)
        if not await self._is_current(self.namespace, self.record):
            await self._world.workers.run(Work.FILES, self.file.discard)

    def _piece(self, data: bytes, offset: int | None, answer: Answer[WrittenIngest] | None) -> _Piece:
        if not self.open:
            raise FailedPrecondition(f"writer of {quote(self.record.ref)} is closed")
        if self._failure is not None:
            raise self._failure
        restart = offset == 0 and self._accepted > 0
        if offset is not None and not restart and offset != self._accepted:
            raise OutOfRange(f"write at {offset} of {quote(self.record.ref)}, which is at {self._accepted}")
        return _Piece(data, (0 if restart else self._accepted) + len(data), restart, answer)

    async def _take(self, piece: _Piece) -> int:
        """Queue a piece. Its place is reserved first: more may be queued while this one waits for room."""
        before, self._accepted = self._accepted, piece.end
        self._queued += 1
        try:
            await self._send.send(piece)
        except trio.Cancelled:
            self._queued -= 1
            if self._accepted == piece.end:
                self._accepted = before
            else:
                self._failure = FailedPrecondition(f"a write of {quote(self.record.ref)} was cancelled")
            raise
        self._updated_at = self._world.clock.now_ns()
        return piece.end

    async def _settle(self, *, restart: bool) -> None:
        if self._failure is not None:
            raise self._failure
        promise: Promise[WrittenIngest] = Promise()
        await self._take(_Piece(b"", 0 if restart else self._accepted, restart, promise))
        await promise.wait()

    async def _write(self, batch: list[_Piece]) -> None:
        if self._failure is None:
            try:
                if self.file.fits_in_memory(sum(len(piece.data) for piece in batch)):
                    _write_batch(self.file, batch)
                else:
                    await self._world.workers.run(Work.BYTES, _write_batch, self.file, batch)
            except OSError as error:
                self._failure = disk_error(error, f"ingest {quote(self.record.ref)}")
                self._accepted = self.file.offset
        self._queued -= len(batch)
        for piece in batch:
            if piece.answer is None:
                continue
            if self._failure is None:
                piece.answer.succeed(WrittenIngest(piece.end))
            else:
                piece.answer.fail(self._failure)

    def _keep_file(self) -> None:
        try:
            self.file.keep(self._updated_at)
        finally:
            self.file.close()


def _write_batch(file: IngestFile, batch: list[_Piece]) -> None:
    data: list[bytes] = []
    for piece in batch:
        if piece.restart:
            data.clear()
            file.restart()
        if piece.data:
            data.append(piece.data)
    file.append(data)
