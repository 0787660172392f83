"""What a client that breaks the protocol, or goes, or never reads, can do to a server: nothing.

Raw sockets against a real server, over unix sockets and TCP. Around every test the fixture looks at the store
through a good client: it answers, and its records are what they were.

Source: DESIGN 9; the public MessagePack-RPC specification.
"""

from __future__ import annotations

import random
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

import orlop
from orlop.actors.supervisor import RunningStore
from orlop.bin.world import real_world
from orlop.protocol.errors import Unavailable
from orlop.protocol.outbox import Budget
from orlop.protocol.server import serve_listener
from orlop.protocol.world import Address
from tests.conftest import StoreMaker

TIMEOUT_S = 10.0
BLOB = random.Random(1).randbytes(1_500_000)
BLOB_DIGEST = f"sha256:{sha256(BLOB).hexdigest()}"
SMALL_DIGEST = f"sha256:{sha256(b'small').hexdigest()}"
HELLO_LIMIT = 64 * 1024
FRAME_LIMIT = 1024 * 1024
ALLOWED_GROWTH = 64 * 1024 * 1024  # a budget of 8 MiB, and room for the allocator


@pytest.fixture(params=["unix", "tcp"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    return StoreMaker(request.param, "memory", tmp_path)


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


@pytest.fixture
async def served(stores: StoreMaker) -> AsyncIterator[Served]:
    async with stores.running() as running:
        served = Served(running, running.addresses[0])
        async with served.good() as store:
            small = await store.content.put(b"small", labels={"a": "b"})
            await store.images.create("example/app:1", orlop.Descriptor("text/plain", small.digest, small.size))
            async with store.content.ingest("blob") as writer:
                await writer.write(BLOB)
                await writer.commit(labels={"containerd.io/gc.root": "yes"})
        before = await state(served)
        yield served
        with trio.fail_after(TIMEOUT_S):
            assert await state(served) == before
            async with served.good() as store:
                assert (await store.content.info(SMALL_DIGEST)).size == 5
                await store.leases.create("good")
                await store.leases.delete("good")


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


GARBAGE = {
    "never-used byte": b"\xc1" * 64,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls hello": bytes.fromhex("16030100c4010000c00303") + bytes(190),
    "zeros": bytes(4096),
    "random": random.Random(2).randbytes(4096),
    "a number": b"\x2a",
    "a map": msgpack.packb({"id": 1, "method": "hello"}),
    "an empty array": b"\x90",
    "an unknown kind": msgpack.packb([3, 1, "hello", []]),
    "a kind in text": msgpack.packb(["0", 1, "hello", []]),
    "a request too short": msgpack.packb([0, 1, "hello"]),
    "a request too long": msgpack.packb([0, 1, "hello", [{}, {}], 5]),
    "a negative id": msgpack.packb([0, -1, "hello", [{}, {}]]),
    "an id in text": msgpack.packb([0, "1", "hello", [{}, {}]]),
    "an id over 32 bits": msgpack.packb([0, 2**32, "hello", [{}, {}]]),
    "a method that is a number": msgpack.packb([0, 1, 5, [{}, {}]]),
    "a method that is not utf-8": b"\x94\x00\x01\xa2\xff\xfe\x92\x80\x80",
    "an answer": msgpack.packb([1, 1, None, {}]),
    "a chunk": msgpack.packb([2, "chunk", [1, b"x"]]),
    "an unknown notification": msgpack.packb([2, "shutdown", []]),
    "a credit of 0": msgpack.packb([2, "credit", [1, 0]]),
    "a credit of 2**31": msgpack.packb([2, "credit", [1, 2**31]]),
    "a cancel of nothing": msgpack.packb([2, "cancel", []]),
}


@pytest.mark.parametrize("hello", [False, True], ids=["before hello", "after hello"])
async def test_garbage_ends_its_own_connection(served: Served, hello: bool) -> None:
    async with served.raw() as neighbour:
        for name, garbage in GARBAGE.items():
            async with served.raw(hello=hello) as client:
                await client.try_send(garbage)
                for frame in await client.ends():
                    assert frame[0] == 1, name
                    assert frame[2] is not None, name
        await neighbour.works()


async def test_garbage_after_good_requests_does_not_undo_their_answers(served: Served) -> None:
    async with served.raw() as client:
        await client.send(request(1, "content.info", {"digest": SMALL_DIGEST}) + b"\xc1")
        said = await client.ends()
    assert said[0][:3] == [1, 1, None]


async def test_before_hello_a_frame_over_64_kib_is_answered_and_ends_the_connection(served: Served) -> None:
    async with served.raw(hello=False) as client:
        await client.send(request(7, "hello", {"protocols": [1], "client": "x" * HELLO_LIMIT}))
        said = await client.ends()
    assert [frame[:2] for frame in said] == [[1, 7]]
    assert said[0][2] is not None


async def test_before_hello_a_frame_need_not_end_to_be_too_long(served: Served) -> None:
    async with served.raw(hello=False) as client:
        await client.try_send(head(7, "hello") + b"\x92\xdb\xff\xff\xff\xff" + b"x" * HELLO_LIMIT)
        await client.ends()


async def test_a_frame_over_1_mib_need_not_end_to_be_refused(served: Served) -> None:
    async with served.raw() as client:
        await client.try_send(head(7, "ingests.write") + b"\x92\xc6\xff\xff\xff\xff" + bytes(FRAME_LIMIT + 64 * 1024))
        await client.ends()


async def test_a_frame_that_promises_4_billion_elements_costs_nothing(served: Served) -> None:
    async with served.raw() as client:
        await client.try_send(head(7, "images.list") + b"\x92\xdd\xff\xff\xff\xff" + b"\xc0" * (2 * FRAME_LIMIT))
        await client.ends()


async def test_a_request_over_256_kib_is_answered_and_ends_the_connection(served: Served) -> None:
    async with served.raw() as client:
        await client.send(request(7, "namespaces.create", {"name": "n", "labels": {"k": "x" * 300_000}}))
        said = await client.ends()
    assert [frame[:2] for frame in said] == [[1, 7]]
    assert said[0][2] is not None


async def test_a_write_of_1_mib_is_no_long_frame(served: Served) -> None:
    async with served.raw() as client:
        opened = await client.call("ingests.open", {"ref": "r"})
        data = bytes(FRAME_LIMIT)
        written = await client.call("ingests.write", {"writer": opened["writer"], "offset": 0, "data": data})
        assert written["offset"] == FRAME_LIMIT
        await client.call("ingests.close", {"writer": opened["writer"]})
        await client.call("ingests.abort", {"ref": "r"})


@pytest.mark.parametrize("before", [b"", b"\x81\xa1x"], ids=["for the arguments", "in an unknown field"])
async def test_deep_nesting_is_an_error_answer(served: Served, before: bytes) -> None:
    for depth in (100, 500, 1_000, 10_000):
        async with served.raw() as client:
            await client.send(head(7, "images.list") + b"\x92" + before + b"\x91" * depth + b"\xc0\x80")
            said = await client.frame()
            assert said[:2] == [1, 7], depth
            if depth > 500 or not before:
                assert said[2]["code"] == "InvalidArgument", depth


async def test_nesting_that_never_ends_does_not_get_far(served: Served) -> None:
    async with served.raw() as client:
        await client.try_send(head(7, "images.list") + b"\x91" * (2 * FRAME_LIMIT))
        await client.ends()


async def test_an_unknown_method_is_answered_and_the_connection_goes_on(served: Served) -> None:
    async with served.raw() as client:
        for frame_id, method in enumerate(["images.explode", "", "Images.List", "__class__", "x" * 10_000]):
            await client.request(frame_id, method)
            assert (await client.error(frame_id))["code"] == "Unimplemented"
        await client.works()


# method, arguments, context, what the message must hold
WRONG_TYPES: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "number for text": ("images.get", {"name": 5}, {}, ".name`"),
    "bytes for text": ("images.get", {"name": b"x"}, {}, ".name`"),
    "missing field": ("images.get", {}, {}, "`name`"),
    "limit of 0": ("images.list", {"limit": 0}, {}, ".limit`"),
    "limit over 1000": ("images.list", {"limit": 1001}, {}, ".limit`"),
    "negative offset": ("content.read", {"digest": SMALL_DIGEST, "offset": -1}, {}, ".offset`"),
    "inside a descriptor": (
        "images.create",
        {"name": "n", "target": {"media_type": "m", "digest": "d", "size": "1"}},
        {},
        ".target.size`",
    ),
    "inside a list": ("images.list", {"filters": ["a", 5]}, {}, ".filters[1]`"),
    "inside a map": ("namespaces.create", {"name": "n", "labels": {"a": 1}}, {}, ".labels[...]`"),
    "namespace": ("images.list", {}, {"namespace": 5}, ".namespace`"),
    "timeout": ("images.list", {}, {"timeout_ms": "soon"}, ".timeout_ms`"),
    "credit": ("content.read", {"digest": SMALL_DIGEST}, {"credit": 257}, ".credit`"),
    "negative credit": ("content.read", {"digest": SMALL_DIGEST}, {"credit": -1}, ".credit`"),
    "arguments that are a list": ("images.list", [], {}, "$[0]"),
}


async def test_a_wrong_type_is_answered_with_the_path_of_the_field(served: Served) -> None:
    async with served.raw() as client:
        for name, (method, arguments, context, words) in WRONG_TYPES.items():
            await client.request(5, method, arguments, **context)
            error = await client.error(5)
            assert error["code"] == "InvalidArgument", name
            assert words in error["message"], name
        await client.works()


async def test_params_that_are_no_pair_are_answered(served: Served) -> None:
    async with served.raw() as client:
        for params in (None, [], [{}], [{}, {}, {}], {}, 5, "x"):
            await client.send(msgpack.packb([0, 5, "images.list", params]))
            assert (await client.error(5))["code"] == "InvalidArgument", params
        await client.works()


async def test_bad_namespaces_and_digests_are_answered(served: Served) -> None:
    target = {"media_type": "m", "digest": "sha256:nothing", "size": 1}
    async with served.raw() as client:
        for namespace in ("default", "a/b", "-a", "a" * 77):
            await client.request(5, "images.create", {"name": "a", "target": target}, namespace=namespace)
            assert (await client.error(5))["code"] == "InvalidArgument", namespace
        await client.works()


@pytest.mark.parametrize("hello", [False, True], ids=["before hello", "after hello"])
async def test_a_frame_cut_in_half_does_nothing(served: Served, hello: bool) -> None:
    for kept in (1, 10, -1):
        async with served.raw(hello=hello) as client:
            await client.send(request(5, "namespaces.create", {"name": "half"})[:kept])


async def test_a_frame_that_comes_byte_by_byte_is_a_frame(served: Served) -> None:
    async with served.raw() as client:
        for byte in request(5, "content.info", {"digest": SMALL_DIGEST}):
            await client.send(bytes([byte]))
        error, result = await client.answer(5)
        assert error is None
        assert result["size"] == 5


async def test_before_hello_no_call_is_served(served: Served) -> None:
    async with served.raw(hello=False) as client:
        for method in ("images.list", "namespaces.create", "events.subscribe", "gc.collect"):
            await client.request(5, method, {"name": "early"})
            assert (await client.error(5))["code"] == "FailedPrecondition"


async def test_a_protocol_that_the_server_does_not_speak_is_refused_and_nothing_served(served: Served) -> None:
    async with served.raw(hello=False) as client:
        for frame_id, protocols in enumerate([[99], [], [0], [-1]]):
            await client.request(frame_id, "hello", {"protocols": protocols})
            assert (await client.error(frame_id))["code"] == "FailedPrecondition"
        await client.request(9, "namespaces.create", {"name": "early"})
        assert (await client.error(9))["code"] == "FailedPrecondition"


async def test_the_server_picks_its_protocol_out_of_many(served: Served) -> None:
    async with served.raw(hello=False) as client:
        await client.request(1, "hello", {"protocols": [7, 1, 99]})
        error, welcome = await client.answer(1)
        assert error is None
        assert welcome["protocol"] == 1
        assert ("descriptors" in welcome["capabilities"]) == bool(served.address.path)
        await client.works()


async def test_an_id_that_is_in_flight_is_not_given_twice(served: Served) -> None:
    async with served.raw() as client:
        await client.request(5, "events.subscribe")
        await client.request(5, "events.subscribe")
        said = await client.ends()
    assert [frame[0] for frame in said] == [1]
    assert "id 5" in said[0][2]["message"]


async def test_an_id_is_free_again_once_it_is_answered(served: Served) -> None:
    async with served.raw() as client:
        for _ in range(3):
            await client.request(5, "images.list")
            error, page = await client.answer(5)
            assert error is None
            assert len(page["items"]) == 1


def reset_on_close(client: Raw) -> None:
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_bytes_of_a_client_that_vanished_stay_and_its_lock_goes(served: Served, reset: bool) -> None:
    data = BLOB[:300_000]
    async with served.raw() as client:
        opened = await client.call("ingests.open", {"ref": "upload", "size": len(BLOB)})
        await client.call("ingests.write", {"writer": opened["writer"], "offset": 0, "data": data})
        async with served.good() as store:
            with pytest.raises(Unavailable):
                async with store.content.ingest("upload"):
                    raise AssertionError("two writers of one ref")
        # A second write that never ends.
        whole = request(9, "ingests.write", {"writer": opened["writer"], "offset": len(data), "data": data})
        await client.send(whole[: len(whole) // 2])
        if reset:
            reset_on_close(client)

    async with served.good() as store:
        assert (await store.content.status("upload")).offset == 300_000

        async def resumed() -> bool:
            try:
                async with store.content.ingest("upload", size=len(BLOB)) as writer:
                    assert writer.offset == 300_000
                    await writer.write(BLOB[300_000:])
                    assert writer.offset == len(BLOB)
                    return True
            except Unavailable:
                return False

        await eventually(resumed)
        assert (await store.content.status("upload")).offset == len(BLOB)
        await store.content.abort("upload")


async def test_a_writer_is_good_on_its_own_connection_only(served: Served) -> None:
    async with served.raw() as owner, served.raw() as other:
        opened = await owner.call("ingests.open", {"ref": "mine"})
        await other.request(5, "ingests.write", {"writer": opened["writer"], "offset": 0, "data": b"theirs"})
        assert (await other.error(5))["code"] == "FailedPrecondition"
        await owner.call("ingests.close", {"writer": opened["writer"]})
        assert (await owner.call("ingests.get", {"ref": "mine"}))["offset"] == 0
        await owner.call("ingests.abort", {"ref": "mine"})


async def test_a_write_at_a_wrong_offset_is_refused_and_the_writer_goes_on(served: Served) -> None:
    async with served.raw() as client:
        writer = (await client.call("ingests.open", {"ref": "r"}))["writer"]
        await client.call("ingests.write", {"writer": writer, "offset": 0, "data": b"1234"})
        await client.request(5, "ingests.write", {"writer": writer, "offset": 9, "data": b"x"})
        assert (await client.error(5))["code"] == "OutOfRange"
        written = await client.call("ingests.write", {"writer": writer, "offset": 4, "data": b"5"})
        assert written["offset"] == 5
        await client.call("ingests.close", {"writer": writer})
        await client.call("ingests.abort", {"ref": "r"})


async def test_a_client_that_never_reads_is_no_longer_read_and_slows_nobody(served: Served) -> None:
    question = request(5, "content.info", {"digest": SMALL_DIGEST})
    questions = question * 1000
    async with served.raw() as deaf:
        taken = 0
        with trio.move_on_after(1.0):
            while taken < 32 * FRAME_LIMIT:
                taken += await deaf.stream.socket.send(questions[taken % len(question) :])
        assert taken < 32 * FRAME_LIMIT, "the server goes on reading from a client that takes no answers"
        async with served.good() as store:
            with trio.fail_after(1.0):
                for _ in range(100):
                    await store.content.info(SMALL_DIGEST)


async def test_streams_that_nobody_reads_wait_for_their_reader(served: Served) -> None:
    async with served.raw() as deaf:
        for frame_id in range(60):
            await deaf.request(frame_id, "content.read", {"digest": BLOB_DIGEST}, credit=256)
        async with served.good() as store:
            with trio.fail_after(2.0):
                assert await store.content.read(BLOB_DIGEST) == BLOB
                for _ in range(100):
                    await store.content.info(SMALL_DIGEST)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no way to see this process's memory")
async def test_answers_that_nobody_takes_stay_within_the_budget_of_the_process(served: Served) -> None:
    """One read can bring 1,000 questions of 60 bytes; each may be answered by a page of a megabyte."""
    store = served.running.store.in_namespace("wide")
    small = await store.content.put(b"wide")
    target = orlop.Descriptor("text/plain", small.digest, small.size)
    names = [f"i{number}" for number in range(200)]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(store.images.create, name, target, {"k": "x" * 3500})
    # 400 pages of 700 kB: 280 MB if all were made at once.
    questions = [request(n, "images.list", {"limit": 200}, namespace="wide") for n in range(400)]
    clock, grown = real_world().clock, 0
    listener = await real_world().network.listen(Address(host="127.0.0.1", port=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_listener, listener, served.running.service, clock, Budget(8 * FRAME_LIMIT))
        async with raw_client(listener.address) as deaf:
            await deaf.call("hello", {"protocols": [1]})
            before = resident_bytes()
            await deaf.try_send(b"".join(questions))
            with trio.move_on_after(1.0):
                while grown < ALLOWED_GROWTH:
                    await trio.sleep(0.01)
                    grown = resident_bytes() - before
        nursery.cancel_scope.cancel()
    await listener.close()
    for name in names:
        await store.images.delete(name)
    await store.collect()
    await store.namespaces.delete("wide")
    assert grown < ALLOWED_GROWTH


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_cancel_ends_a_stream(served: Served) -> None:
    async with served.raw() as client:
        await client.request(5, "events.subscribe")
        await client.works()
        await client.send(notification("cancel", 5))
        assert (await client.error(5))["code"] == "Canceled"
        await client.works()


async def test_cancel_ends_a_stream_that_waits_for_credit(served: Served) -> None:
    async with served.raw() as client:
        await client.request(5, "content.read", {"digest": BLOB_DIGEST}, credit=0)
        await client.works()
        await client.send(notification("cancel", 5))
        assert (await client.error(5))["code"] == "Canceled"
        await client.works()


async def test_cancel_and_credit_for_what_is_not_in_flight_are_ignored(served: Served) -> None:
    async with served.raw() as client:
        await client.send(notification("cancel", 4711) + notification("credit", 4711, 5))
        await client.works()
        await client.request(5, "images.list")
        assert (await client.answer(5))[0] is None
        await client.send(notification("cancel", 5) * 3)
        await client.works()


async def test_every_cancelled_request_is_answered_once(served: Served) -> None:
    async with served.raw() as client:
        frames = b"".join(
            request(n, "images.list") + notification("cancel", n) + notification("cancel", n) for n in range(50)
        )
        await client.send(frames)
        answered = [(await client.frame())[1] for _ in range(50)]
        assert sorted(answered) == list(range(50))
        await client.works()


async def test_a_timeout_ends_a_stream(served: Served) -> None:
    async with served.raw() as client:
        for timeout_ms in (0, 30):
            await client.request(5, "events.subscribe", timeout_ms=timeout_ms)
            assert (await client.error(5))["code"] == "DeadlineExceeded"
        await client.works()


async def test_a_timeout_ends_a_stream_that_waits_for_credit(served: Served) -> None:
    async with served.raw() as client:
        await client.request(5, "content.read", {"digest": BLOB_DIGEST}, credit=0, timeout_ms=30)
        assert (await client.error(5))["code"] == "DeadlineExceeded"
        await client.works()


async def test_a_timeout_that_is_long_enough_changes_nothing(served: Served) -> None:
    async with served.raw() as client:
        for method in ("images.list", "gc.collect", "namespaces.list"):
            await client.call(method, timeout_ms=60_000)


async def test_a_stream_sends_as_many_chunks_as_it_was_granted(served: Served) -> None:
    async with served.raw() as client:
        await client.request(5, "content.read", {"digest": BLOB_DIGEST}, credit=0)

        async def quiet() -> None:
            """Twice asked, nothing but the answers comes."""
            for frame_id in (6, 7):
                await client.request(frame_id, "content.list")
                assert (await client.frame())[:2] == [1, frame_id]

        await quiet()
        data = b""
        for count in (1, 2):
            await client.send(notification("credit", 5, count))
            for _ in range(count):
                kind, method, (frame_id, chunk) = await client.frame()
                assert (kind, method, frame_id) == (2, "chunk", 5)
                assert 0 < len(chunk) <= 256 * 1024
                data += chunk
            await quiet()
        await client.send(notification("credit", 5, 256))
        while (frame := await client.frame())[0] == 2:
            data += frame[2][1]
        assert frame[:3] == [1, 5, None]
        assert data == BLOB


async def test_a_good_client_reads_a_blob_to_its_last_byte(served: Served) -> None:
    """Unary answers go before chunks, but the end of a stream comes after its own chunks."""
    async with served.good() as store:
        for _ in range(5):
            assert await store.content.read(BLOB_DIGEST) == BLOB


async def test_more_streams_than_a_connection_may_have_are_refused(served: Served) -> None:
    async with served.raw() as client:
        limit = (await client.call("hello", {"protocols": [1]}))["limits"]["streams"]
        for frame_id in range(limit):
            await client.request(frame_id, "events.subscribe")
        await client.request(limit, "events.subscribe")
        assert (await client.error(limit))["code"] == "ResourceExhausted"
        await client.works()


async def test_a_thousand_pipelined_requests_are_each_answered_once(served: Served) -> None:
    missing = f"sha256:{'0' * 64}"
    kinds = [
        ("content.info", {"digest": SMALL_DIGEST}, None),
        ("content.info", {"digest": missing}, "NotFound"),
        ("images.list", {}, None),
        ("images.get", {"name": 5}, "InvalidArgument"),
        ("no.such", {}, "Unimplemented"),
        ("content.put", {"data": b"small"}, "AlreadyExists"),
    ]
    async with served.raw() as client:
        frames = [request(n, *kinds[n % 6][:2]) for n in range(1000)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"".join(frames))
            codes: dict[int, str | None] = {}
            for _ in range(1000):
                _, frame_id, error, _ = await client.frame()
                assert frame_id not in codes
                codes[frame_id] = error and error["code"]
        assert codes == {n: kinds[n % 6][2] for n in range(1000)}
        await client.works()


async def test_more_requests_than_may_be_in_flight_wait_and_are_answered(served: Served) -> None:
    """1,024 is the server's limit; over it a client is slowed, not refused."""
    async with served.raw() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"".join(request(n, "content.list") for n in range(3000)))
            answered = [(await client.frame())[:3] for _ in range(3000)]
        assert sorted(frame[1] for frame in answered) == list(range(3000))
        assert {frame[2] for frame in answered} == {None}


async def test_descriptors_that_a_client_sends_are_closed(served: Served, tmp_path: Path) -> None:
    if not served.address.path:
        pytest.skip("descriptors do not pass over TCP")
    (tmp_path / "sent").write_bytes(b"")
    async with served.raw() as client:
        with open(tmp_path / "sent", "rb") as file:  # noqa: ASYNC230 - an empty file, for its descriptor
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file.fileno()))]
            frame = request(5, "content.info", {"digest": SMALL_DIGEST})
            assert await client.stream.socket.sendmsg([frame], ancillary) == len(frame)
        assert (await client.answer(5))[0] is None
    # The fixture of all tests finds any that is left open.


async def test_many_connections_one_after_another_leave_nothing(served: Served) -> None:
    for number in range(200):
        async with raw_client(served.address) as client:
            if number % 3 == 0:
                await client.send(b"\x94")
            elif number % 3 == 1:
                await client.try_send(b"\xc1")


async def test_a_client_that_connects_and_says_nothing_is_in_nobodys_way(served: Served) -> None:
    async with served.raw(hello=False), served.raw(hello=False), served.good() as store:
        assert (await store.content.info(SMALL_DIGEST)).size == 5
