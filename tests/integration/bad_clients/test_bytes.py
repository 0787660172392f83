"""What a client that breaks the protocol can do to a server: nothing."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from tests.support.bad_clients import FRAME_LIMIT, HELLO_LIMIT, SMALL_DIGEST, Served, head, request

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
