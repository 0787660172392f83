"""What a server has to say to one peer: answers first, then chunks of streams in turn, and never without end.

Answers of one step leave in one write. While the peer does not take them, whoever makes more has to wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from .world import Transport

__all__ = ["BATCH_BYTES", "Budget", "Outbox"]

BATCH_BYTES = 256 * 1024
BUDGET_BYTES = 256 * 1024 * 1024


class Budget:
    """Bytes that all connections of a process may hold in unfinished frames and unsent answers."""

    def __init__(self, limit: int = BUDGET_BYTES) -> None:
        self.limit = limit
        self.used = 0

    def exhausted(self) -> bool:
        return self.used > self.limit


class Outbox:
    """The frames of one connection that wait to be sent, and the task that sends them."""

    def __init__(self, transport: Transport, sent: Callable[[], None]) -> None:
        """`sent` is called whenever some of what was held has left."""
        self._transport = transport
        self._told = sent
        self._answers: list[bytes | tuple[bytes, int]] = []  # a frame, or one with a file descriptor
        self._answer_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._chunk_bytes = 0
        self._turn = trio.Lock()
        self._wake = trio.Event()
        self._drained = trio.Event()
        self._drained.set()
        self.sending = False
        """Something is half sent: nothing else may be written to the transport."""
        self._ended = False

    @property
    def held(self) -> int:
        """Bytes, of answers also those that are being sent."""
        return self._answer_bytes + self._chunk_bytes

    def behind(self) -> bool:
        """The peer does not take its answers as fast as they are made."""
        return self._answer_bytes > BATCH_BYTES

    def answer(self, frame: bytes, descriptor: int | None = None) -> None:
        """Queue a unary answer; it leaves with whatever else is answered in this step of the loop."""
        self._answers.append(frame if descriptor is None else (frame, descriptor))
        self._answer_bytes += len(frame)
        self._wake.set()

    def answer_quietly(self, frame: bytes) -> None:
        """Queue an answer without waking the sender: whoever calls will flush."""
        self._answers.append(frame)
        self._answer_bytes += len(frame)

    def queue_chunk(self, frame: bytes) -> None:
        """Queue a frame of a stream; it leaves when no unary answer waits."""
        self._chunks.append(frame)
        self._chunk_bytes += len(frame)
        if self._drained.is_set():
            self._drained = trio.Event()
        self._wake.set()

    async def room_for_chunk(self) -> None:
        """Until there is room, in the order in which streams came for it: whoever is woken first would else be so again
        and again, and the others would wait until it has ended."""
        async with self._turn:
            while self._chunk_bytes > BATCH_BYTES:
                await self._drained.wait()

    async def caught_up(self) -> None:
        """Until something was sent since this was called."""
        if self._drained.is_set():
            self._drained = trio.Event()
        self._wake.set()
        await self._drained.wait()

    async def sent(self) -> None:
        """Until everything has been sent, or nothing can be any more."""
        while (self._answers or self._chunks or self.sending) and not self._ended:
            await self.caught_up()

    async def flush(self) -> None:
        """Send what is answered, without a task switch when the peer takes it all at once."""
        if self._answers and (self.sending or self._chunks):
            self._wake.set()
        elif self._answers:
            if len(self._answers) == 1 and isinstance(self._answers[0], bytes):
                data = self._answers[0]
            elif any(isinstance(answer, tuple) for answer in self._answers):
                self._wake.set()  # the sender sends descriptors
                return
            else:
                data = b"".join(self._answers)  # type: ignore[arg-type]  # the tuples were ruled out
            self._answers.clear()
            self._answer_bytes = 0
            sent = self._transport.send_nowait(data)
            if sent < len(data):
                self._answers.append(data[sent:])
                self._answer_bytes = len(data) - sent
                self._wake.set()
        while self.behind():  # it does not take its answers: do not read its questions
            await self.caught_up()

    async def run(self) -> None:
        """Send until cancelled. Raises OSError when the connection broke."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._answers or self._chunks:
                    self.sending = True
                    await self._send_some()
                    self.sending = False
                    self._told()
                    self._drained.set()
        finally:
            self._ended = True
            self._drained.set()

    def drop(self) -> None:
        """Nobody will take them: close the descriptors among them."""
        for answer in self._answers:
            if isinstance(answer, tuple):
                self._transport.close_descriptor(answer[1])
        self._answers.clear()

    async def _send_some(self) -> None:
        """All answers, then one chunk. What could not be sent is queued again, so its descriptors get closed."""
        answers, self._answers = deque(self._answers), []
        taken = self._answer_bytes  # they count as held until the peer has taken them
        try:
            plain: list[bytes] = []
            while answers:
                answer = answers.popleft()
                if isinstance(answer, bytes):
                    plain.append(answer)
                    continue
                try:
                    if plain:
                        await self._transport.send(b"".join(plain))
                        plain.clear()
                    await self._transport.send(*answer)
                finally:
                    self._transport.close_descriptor(answer[1])
            if plain:
                await self._transport.send(b"".join(plain))
        finally:
            self._answers[:0] = answers
        self._answer_bytes -= taken
        if self._chunks and not self._answers:
            chunk = self._chunks.popleft()
            self._chunk_bytes -= len(chunk)
            await self._transport.send(chunk)
