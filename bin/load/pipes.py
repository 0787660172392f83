"""Messages over a pair of pipes: each behind its length."""

from __future__ import annotations

import struct
from typing import Final

import trio

__all__ = ["Pipes"]

_LENGTH: Final = struct.Struct(">I")
_READ: Final = 64 * 1024


class Pipes:
    def __init__(self, reading: trio.abc.ReceiveStream, writing: trio.abc.SendStream) -> None:
        self._reading = reading
        self._writing = writing
        self._buffer = bytearray()
        self._turn = trio.Lock()

    async def send(self, message: bytes) -> None:
        """Raises BrokenResourceError: the other side has ended. Cancellation: the pipe is of no more use."""
        async with self._turn:
            await self._writing.send_all(_LENGTH.pack(len(message)) + message)

    async def receive(self) -> bytes | None:
        """The next message; None: there are no more."""
        head = await self._exactly(_LENGTH.size)
        return None if head is None else await self._exactly(_LENGTH.unpack(head)[0])

    async def close(self) -> None:
        """The other side reads that there are no more."""
        await self._writing.aclose()
        await self._reading.aclose()

    async def _exactly(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            data = await self._reading.receive_some(_READ)
            if not data:
                return None
            self._buffer += data
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found
