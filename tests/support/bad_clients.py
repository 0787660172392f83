"""A client that sends what it likes, and a server with small limits."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgpack
import trio

import orlop
from orlop.actors.supervisor import RunningStore
from orlop.protocol.world import Address

TIMEOUT_S = 10.0
BLOB = random.Random(1).randbytes(1_500_000)
BLOB_DIGEST = f"sha256:{sha256(BLOB).hexdigest()}"
SMALL_DIGEST = f"sha256:{sha256(b'small').hexdigest()}"
HELLO_LIMIT = 64 * 1024
FRAME_LIMIT = 1024 * 1024
ALLOWED_GROWTH = 64 * 1024 * 1024  # a budget of 8 MiB, and room for the allocator


@dataclass(frozen=True)
class Served:
    running: RunningStore
    address: Address

    @asynccontextmanager
    async def raw(self, *, hello: bool = True) -> AsyncIterator[Raw]:
        async with raw_client(self.address) as client:
            if hello:
                assert (await client.call("hello", {"protocols": [1]}))["protocol"] == 1
            yield client

    @asynccontextmanager
    async def good(self) -> AsyncIterator[orlop.Store]:
        async with orlop.connect(self.address) as store:
            yield store


async def state(served: Served) -> tuple[object, ...]:
    async with served.good() as store:
        return (
            [n async for n in store.namespaces.list()],
            [i async for i in store.images.list()],
            [c async for c in store.content.list()],
            [i async for i in store.content.ingests()],
            [lease async for lease in store.leases.list()],
        )


class Gone(Exception):
    """The server ended the connection."""


class Raw:
    """One connection on which anything can be sent. Frames are built and read by msgpack alone."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=64 * 1024 * 1024)
        self._next = 1000

    async def send(self, data: bytes) -> None:
        with trio.fail_after(TIMEOUT_S):
            await self.stream.send_all(data)

    async def try_send(self, data: bytes) -> None:
        """Send to a server that may end the connection meanwhile."""
        try:
            await self.send(data)
        except trio.BrokenResourceError:
            pass

    async def request(self, frame_id: int, method: str, arguments: Any = None, **context: Any) -> None:
        await self.send(request(frame_id, method, arguments, **context))

    async def frame(self) -> list[Any]:
        """The next frame from the server. Raises Gone at its end."""
        with trio.fail_after(TIMEOUT_S):
            while True:
                for frame in self._unpacker:
                    assert isinstance(frame, list)
                    return frame
                try:
                    data = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:  # a reset: it left bytes of ours unread
                    raise Gone from None
                if not data:
                    raise Gone
                self._unpacker.feed(data)

    async def answer(self, frame_id: int) -> tuple[dict[str, Any] | None, Any]:
        """(error, result) of a request, chunks before it skipped."""
        while True:
            frame = await self.frame()
            if frame[0] == 1:
                assert frame[1] == frame_id
                return frame[2], frame[3]

    async def error(self, frame_id: int) -> dict[str, Any]:
        error, result = await self.answer(frame_id)
        assert error is not None
        assert result is None
        return error

    async def call(self, method: str, arguments: Any = None, **context: Any) -> Any:
        """A good call in between; returns its result."""
        self._next += 1
        await self.request(self._next, method, arguments, **context)
        error, result = await self.answer(self._next)
        assert error is None, error
        return result

    async def works(self) -> None:
        """The connection goes on."""
        assert (await self.call("content.info", {"digest": SMALL_DIGEST}))["size"] == 5

    async def ends(self) -> list[list[Any]]:
        """The server ends the connection; returns what it said before."""
        said = []
        while True:
            try:
                said.append(await self.frame())
            except Gone:
                return said


@asynccontextmanager
async def raw_client(address: Address) -> AsyncIterator[Raw]:
    if address.path:
        stream = await trio.open_unix_socket(address.path)
    else:
        stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        yield Raw(stream)


def request(frame_id: int, method: str, arguments: Any = None, **context: Any) -> bytes:
    context = {"namespace": "default", **context}
    packed: bytes = msgpack.packb([0, frame_id, method, [{} if arguments is None else arguments, context]])
    return packed


def notification(method: str, *params: Any) -> bytes:
    packed: bytes = msgpack.packb([2, method, list(params)])
    return packed


def head(frame_id: int, method: str) -> bytes:
    """The beginning of a request whose params follow."""
    return b"\x94\x00" + msgpack.packb(frame_id) + msgpack.packb(method)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """The server hears of a lost connection when its kernel tells it; nothing we hold says when that was."""
    with trio.fail_after(TIMEOUT_S):
        while not await check():
            await trio.sleep(0.005)
