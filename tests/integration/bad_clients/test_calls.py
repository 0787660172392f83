"""Calls that are cancelled, timed out, or too many."""

from __future__ import annotations

import socket
import struct
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.support.bad_clients import BLOB, BLOB_DIGEST, SMALL_DIGEST, Served, notification, raw_client, request


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


async def test_streams_of_one_connection_take_turns(served: Served) -> None:
    async with served.raw() as client:
        streams = range(10, 18)
        for frame_id in streams:
            await client.request(frame_id, "content.read", {"digest": BLOB_DIGEST}, credit=256)
        order = []
        ended = 0
        while ended < len(streams):
            frame = await client.frame()
            if frame[0] == 1:
                assert frame[2] is None
                ended += 1
            else:
                order.append(frame[2][0])
        for frame_id in streams:
            at = [n for n, each in enumerate(order) if each == frame_id]
            assert max(after - before for before, after in pairwise(at)) <= 2 * len(streams)


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
