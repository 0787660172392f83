"""How the objects of a transfer stand, told now and then: the newest state of each, with its rate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import trio

from ..protocol.identifiers import split_digest
from ..protocol.messages import TransferProgress, TransferState
from ..protocol.records import Descriptor
from ..protocol.registry.documents import kind_of
from .failures import first_of

__all__ = ["EVERY_S", "Emit", "Progress"]

EVERY_S: Final = 0.1
_STALLED_S: Final = 1.0
_SMOOTHING: Final = 0.3
_MOVING: Final = (TransferState.DOWNLOADING, TransferState.UPLOADING)
Emit = Callable[[object], Awaitable[None]]


class _Pace:
    """When an object last got on, and how fast."""

    def __init__(self, now_s: float) -> None:
        self.bytes = 0
        self.at_s = self.moved_s = now_s
        self.rate = 0.0

    def measure(self, transferred: int, now_s: float) -> None:
        passed = now_s - self.at_s
        if passed > 0:
            self.rate += _SMOOTHING * ((transferred - self.bytes) / passed - self.rate)
        if transferred != self.bytes:
            self.moved_s = now_s
        self.bytes, self.at_s = transferred, now_s


class Progress:
    """Who works shows; who asked (if anybody did) is told every tenth of a second, and at the end."""

    def __init__(self, emit: Emit | None = None) -> None:
        self._emit = emit or _nobody
        self._steps: dict[str, TransferProgress] = {}
        self._changed: set[str] = set()
        self._paces: dict[str, _Pace] = {}
        self._notes: list[str] = []
        self._telling = trio.Lock()  # in the order in which it came about

    async def say(self, step: TransferProgress) -> None:
        """Something of the whole transfer, at once, and what came before it first."""
        await self.report()
        await self._emit(step)

    def note(self, text: str) -> None:
        """Something that a person should know of it all."""
        self._notes.append(text)

    def show(
        self,
        descriptor: Descriptor,
        state: TransferState,
        offset: int = 0,
        transferred: int = 0,
        note: str = "",
        source: str = "",
    ) -> None:
        """How an object stands. What went over the network stays said, and from where."""
        digest, kind = descriptor.digest, kind_of(descriptor.media_type)
        before = self._steps.get(digest)
        if before is not None:
            transferred = max(transferred, before.transferred)
            source = source or before.source
        self._steps[digest] = TransferProgress(
            name=f"{kind} ({split_digest(digest)[1][:12]})",
            state=state,
            digest=digest,
            kind=kind,
            offset=offset,
            total=0 if state is TransferState.UNPACKING else descriptor.size,
            transferred=transferred,
            note=note,
            source=source,
        )
        self._changed.add(digest)

    def show_unpacking(self, descriptor: Descriptor, state: TransferState, offset: int, note: str = "") -> None:
        self.show(descriptor, state, descriptor.size if state is TransferState.UNPACKED else offset, note=note)

    def forget(self, descriptor: Descriptor) -> None:
        self._steps.pop(descriptor.digest, None)
        self._changed.discard(descriptor.digest)

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Tells while the block runs. The block's own exception leaves as itself."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run)
                yield
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        await self.report()

    async def _run(self) -> None:
        while True:
            await trio.sleep(EVERY_S)
            await self.report()

    async def report(self) -> None:
        """What changed since the last time; and what stands still, every second."""
        now_s = trio.current_time()
        for digest, step in self._steps.items():
            if step.state in _MOVING:
                pace = self._paces.setdefault(digest, _Pace(now_s))
                pace.measure(step.transferred, now_s)
                if now_s - pace.moved_s >= _STALLED_S:
                    self._changed.add(digest)
            else:
                self._paces.pop(digest, None)
        async with self._telling:
            while self._notes:
                await self._emit(TransferProgress("", TransferState.NOTE, note=self._notes[0]))
                del self._notes[0]
            for digest in list(self._changed):
                if digest not in self._changed:  # forgotten meanwhile
                    continue
                self._changed.discard(digest)
                try:
                    await self._emit(self._paced(self._steps[digest], now_s))
                except trio.Cancelled:  # at the end it is told after all
                    self._changed.add(digest)
                    raise

    def _paced(self, step: TransferProgress, now_s: float) -> TransferProgress:
        pace = self._paces.get(step.digest)
        if pace is None:
            return step
        stalled = now_s - pace.moved_s
        return msgspec.structs.replace(
            step, rate=int(pace.rate), stalled_s=round(stalled, 1) if stalled >= _STALLED_S else 0.0
        )


async def _nobody(_: object) -> None:
    return None
