"""The writer of an ingest whose bytes another namespace has already: it is full from the start, and needs a commit
alone.

The first byte written, or a truncation, turns it into an ordinary writer over a copy; the blob that it would have
adopted is left as it is. Until then it holds no lock. Source: spec content 2.5 and 6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..protocol.errors import FailedPrecondition, InvalidArgument, OutOfRange
from ..protocol.identifiers import quote
from ..protocol.messages import WrittenIngest
from ..protocol.records import IngestStatus
from ..protocol.service import Answer
from ..storage.tables import IngestRecord
from .ingest import Writer

__all__ = ["AdoptingWriter"]


class AdoptingWriter:
    """`backed` is the ordinary writer that it has become, if it has."""

    def __init__(
        self,
        namespace: str,
        record: IngestRecord,
        size: int,
        unshare: Callable[[AdoptingWriter, int], Awaitable[Writer]],
    ) -> None:
        self.namespace = namespace
        self.record = record
        self.size = size
        self.backed: Writer | None = None
        self.open = True
        self._unshare = unshare
        self._turning = trio.Lock()

    @property
    def offset(self) -> int:
        return self.size if self.backed is None else self.backed.offset

    def status(self) -> IngestStatus:
        if self.backed is not None:
            return self.backed.status()
        record = self.record
        return IngestStatus(
            ref=record.ref,
            offset=self.size,
            total=self.size,
            expected=record.held,
            started_at=record.started_at,
            updated_at=record.updated_at,
        )

    async def write(self, data: bytes, offset: int | None = None) -> int:
        """See Writer.write. No bytes at the end change nothing."""
        if self.backed is None and not data and offset in (None, self.size):
            self._check_open()
            await trio.lowlevel.checkpoint()
            return self.size
        writer = await self._writer(offset)
        return await writer.write(data, offset)

    async def write_answered(self, data: bytes, offset: int, answer: Answer[WrittenIngest]) -> None:
        """See Writer.write_answered."""
        if self.backed is None and not data and offset == self.size:
            self._check_open()
            answer.succeed(WrittenIngest(self.size))
            return
        writer = await self._writer(offset)
        await writer.write_answered(data, offset, answer)

    async def truncate(self, size: int = 0) -> None:
        """Keep the first `size` bytes. Raises InvalidArgument beyond the end."""
        if self.backed is not None:
            await self.backed.truncate(size)
        elif size > self.size:
            raise InvalidArgument(f"truncate {quote(self.record.ref)} to {size} bytes: it has {self.size}")
        elif size < self.size:
            await self._turn(size)

    async def flush(self) -> None:
        if self.backed is not None:
            await self.backed.flush()

    async def finish(self, *, keep: bool) -> None:
        """See Writer.finish."""
        self.open = False
        if self.backed is not None:
            await self.backed.finish(keep=keep)

    def _check_open(self) -> None:
        if not self.open:
            raise FailedPrecondition(f"writer of {quote(self.record.ref)} is closed")

    async def _writer(self, offset: int | None) -> Writer:
        self._check_open()
        if self.backed is None:
            if offset not in (None, 0, self.size):
                raise OutOfRange(f"write at {offset} of {quote(self.record.ref)}, which is at {self.size}")
            await self._turn(0 if offset == 0 else self.size)
        assert self.backed is not None
        return self.backed

    async def _turn(self, kept: int) -> None:
        """Writes may come side by side: only the first turns."""
        self._check_open()
        async with self._turning:
            if self.backed is None:
                self.backed = await self._unshare(self, kept)
