"""Fetching one blob in several ranges at once, for hosts that give each connection a share of their speed only.

A writer takes bytes in their order, which keeps hashing beside the transfer; so what is fetched ahead of its turn waits
in memory, and there are never more than `at_once` parts. Source: spec registry 6.2.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import trio

from .failures import first_of

__all__ = ["fetch_parts"]


class _Part:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.whole = trio.Event()


async def fetch_parts(
    fetch: Callable[[int, int], AsyncGenerator[bytes, None]],
    start: int,
    stop: int,
    part_bytes: int,
    at_once: int,
    take: Callable[[bytes], Awaitable[None]],
) -> None:
    """Bytes from `start` to `stop`, in order into `take`. Raises what `fetch` raises; what was taken is good."""
    places = trio.Semaphore(at_once)
    send, receive = trio.open_memory_channel[_Part](at_once)

    async def fill(part: _Part, begin: int, end: int) -> None:
        async with aclosing(fetch(begin, end)) as pieces:
            async for piece in pieces:
                part.pieces.append(piece)
        part.whole.set()

    async def begin_all(nursery: trio.Nursery) -> None:
        async with send:
            for begin in range(start, stop, part_bytes):
                await places.acquire()
                part = _Part()
                nursery.start_soon(fill, part, begin, min(stop, begin + part_bytes))
                await send.send(part)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin_all, nursery)
            async for part in receive:
                await part.whole.wait()
                for piece in part.pieces:
                    await take(piece)
                places.release()
    except BaseExceptionGroup as group:
        raise first_of(group) from None
