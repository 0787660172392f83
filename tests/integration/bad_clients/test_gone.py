"""What a client that goes, or never reads, can do to a server: nothing."""

from __future__ import annotations

import resource
import socket
import struct
from pathlib import Path

import pytest
import trio

import orlop
from orlop.bin.world import real_world
from orlop.protocol.errors import Unavailable
from orlop.protocol.outbox import Budget
from orlop.protocol.server import serve_listener
from orlop.protocol.world import Address
from tests.support.bad_clients import (
    ALLOWED_GROWTH,
    BLOB,
    BLOB_DIGEST,
    FRAME_LIMIT,
    SMALL_DIGEST,
    Raw,
    Served,
    eventually,
    raw_client,
    request,
)


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
