"""Bytes that are no frames, or too many: refused early, at no cost. Source: docs/protocol.md."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.protocol.errors import WireError
from orlop.protocol.messages import Context, WriteIngest
from orlop.protocol.wire import (
    MAX_FRAME_BYTES,
    Cancel,
    Chunk,
    Credit,
    FrameReader,
    RemoteProtocolError,
    Request,
    Response,
    encode_request,
)
from tests.support.frames import (
    LIMIT,
    REQUEST,
    byte_by_byte,
    frames_of,
    hostile,
    one,
    refused,
    relaxed,
    shown,
    until_error,
)

# foreign bytes -------------------------------------------------------------------------------------------


@relaxed
@given(hostile, st.sampled_from([8, 64, LIMIT]))
def test_any_bytes_give_frames_or_a_remote_protocol_error(data, limit):
    frames, _ = until_error([data], limit)
    assert all(isinstance(frame, Request | Response | Chunk | Credit | Cancel) for frame in frames)


@relaxed
@given(hostile)
def test_any_request_that_was_read_had_the_kind_of_a_request(data):
    assert all(frame.kind == 0 for frame in until_error([data])[0] if isinstance(frame, Request))


@relaxed
@given(hostile)
def test_id_in_an_error_is_an_id_or_none(data):
    _, error = until_error([data])
    assert error is None or error.frame_id is None or type(error.frame_id) is int


@relaxed
@given(hostile, st.binary(max_size=20))
def test_reader_stays_in_error(data, more):
    reader = FrameReader(LIMIT)
    reader.receive(b"\xc1" + data)
    for _ in range(3):
        with pytest.raises(RemoteProtocolError):
            reader.next_frame()
        reader.receive(more)


def test_good_frame_after_an_error_is_not_handed_out():
    reader = FrameReader(LIMIT)
    reader.receive(b"\xc1")
    with pytest.raises(RemoteProtocolError):
        reader.next_frame()
    reader.receive(REQUEST)
    with pytest.raises(RemoteProtocolError):
        reader.next_frame()


def test_good_frames_before_an_error_are_handed_out():
    frames, error = until_error([REQUEST + b"\xc1"])
    assert error is not None
    assert shown(frames) == shown([one(REQUEST)])


def test_nothing_is_stored_after_an_error():
    reader = FrameReader(LIMIT)
    reader.receive(b"\xc1")
    with pytest.raises(RemoteProtocolError):
        reader.next_frame()
    before = reader.buffered
    reader.receive(b"x" * 1000)
    assert reader.buffered <= before


@pytest.mark.parametrize(
    "data",
    [b"\xc1", b"\x94\xc1", b"\x94\x00\x07\xa1m\xc1", b"\x94\x00\x07\xa1m\x92\x81\xa1a\xc1\x80"],
    ids=["alone", "as the kind", "as the params", "inside the params"],
)
def test_byte_that_messagepack_never_uses_is_refused(data):
    refused(data)


@pytest.mark.parametrize("depth", [1100, 100_000])
@pytest.mark.parametrize("head", [b"", b"\x94\x00\x07\xa1m", b"\x94\x01\x07\xc0"], ids=["bare", "request", "response"])
def test_deeply_nested_arrays_are_refused(head, depth):
    refused(head + b"\x91" * depth + b"\xc0", limit=MAX_FRAME_BYTES)


def test_deeply_nested_maps_are_refused():
    refused(b"\x94\x00\x07\xa1m" + b"\x81\xa1a" * 100_000 + b"\xc0", limit=MAX_FRAME_BYTES)


def test_deeply_nested_arrays_are_refused_before_their_end():
    refused(b"\x91" * 2000, limit=MAX_FRAME_BYTES)


def test_deeply_nested_details_of_an_error_are_refused():
    inner = b"\x83\xa4code\xa1a\xa7message\xa1b\xa7details"
    refused(b"\x94\x01\x07" + (inner + b"\x91") * 20_000 + inner + b"\x90" * 2, limit=MAX_FRAME_BYTES)


@pytest.mark.parametrize(
    "value",
    [
        None, 0, "text", b"bytes", {}, [], [0], [0, 7], [0, 7, "m"], [0, 7, "m", [], None], [1, 7, None],
        [1, 7, None, None, None], [2, "cancel"], [2, "cancel", [7], None], [3, 7, "m", []], [-1, 7, "m", []],
        ["0", 7, "m", []], [None, 7, "m", []], [True, 7, "m", []], {0: 7, 1: "m", 2: [], 3: 4},
    ],
    ids=repr,
)  # fmt: skip
def test_value_that_is_no_frame_is_refused(value):
    refused(msgpack.packb(value))


@pytest.mark.parametrize("frame_id", [-1, 2**32, 2**64 - 1, 1.5, "7", None, True, []], ids=repr)
@pytest.mark.parametrize("rest", [(0, "m", []), (1, None, None)], ids=["request", "response"])
def test_id_that_is_no_32_bit_number_is_refused(rest, frame_id):
    kind, *others = rest
    refused(msgpack.packb([kind, frame_id, *others]))


@pytest.mark.parametrize("frame_id", [0, 127, 128, 2**16, 2**32 - 1])
def test_id_of_up_to_32_bits_is_taken(frame_id):
    assert one(msgpack.packb([0, frame_id, "m", []])).id == frame_id


@pytest.mark.parametrize("error", ["text", 5, [], {}, {"code": 5, "message": ""}, {"code": "NotFound"}], ids=repr)
def test_error_that_is_no_struct_is_refused(error):
    refused(msgpack.packb([1, 7, error, None]))


def test_unknown_field_of_an_error_is_ignored():
    frame = one(msgpack.packb([1, 7, {"code": "NotFound", "message": "gone", "later": [1]}, None]))
    assert frame.error == WireError("NotFound", "gone")


def test_method_that_is_not_utf_8_is_refused():
    refused(b"\x94\x00\x07\xa2\xff\xfe\x90")


def test_unknown_notification_is_refused():
    refused(msgpack.packb([2, "shanty", [7]]))


@pytest.mark.parametrize("count", [0, -1, 257, 2**40, "3", None], ids=repr)
def test_credit_outside_1_to_256_is_refused(count):
    refused(msgpack.packb([2, "credit", [7, count]]))


@pytest.mark.parametrize("count", [1, 256])
def test_credit_of_1_to_256_is_taken(count):
    assert one(msgpack.packb([2, "credit", [7, count]])) == Credit(7, count)


@pytest.mark.parametrize("params", [[], [7, 8], 7, None, {"id": 7}, [-1]], ids=repr)
def test_cancel_of_anything_but_one_id_is_refused(params):
    refused(msgpack.packb([2, "cancel", params]))


def test_response_with_a_long_array_head_is_not_taken_for_a_request():
    refused(b"\xdc\x00\x04\x01\x05\xa1m\x90")


# lengths -------------------------------------------------------------------------------------------------


def request_of(length: int, frame_id: int = 7) -> bytes:
    """A request frame of exactly `length` bytes (over 300 of them)."""
    data = msgpack.packb([0, frame_id, "m", [{"name": "x" * 256}, {}]])
    data = msgpack.packb([0, frame_id, "m", [{"name": "x" * (256 + length - len(data))}, {}]])
    assert len(data) == length
    return data


def test_frame_of_exactly_the_limit_is_taken():
    assert isinstance(one(request_of(1000), limit=1000), Request)


def test_whole_frame_of_one_byte_over_the_limit_is_refused():
    refused(request_of(1001), limit=1000)


def test_unfinished_frame_within_the_limit_is_waited_for():
    assert frames_of(request_of(5000)[:1000], limit=1000) == []


def test_frame_over_the_limit_is_refused_without_waiting_for_its_end():
    refused(request_of(5000)[:1001], limit=1000)


def test_frame_over_the_limit_is_refused_when_it_comes_in_pieces():
    frames, error = until_error(byte_by_byte(request_of(5000)[:1001]), limit=1000)
    assert frames == []
    assert error is not None


def test_id_of_a_request_over_the_limit_is_reported():
    assert refused(request_of(5000)[:1001], limit=1000).frame_id == 7


def test_id_of_a_whole_request_over_the_limit_is_reported():
    assert refused(request_of(1001), limit=1000).frame_id == 7


@pytest.mark.parametrize("frame_id", [0, 127, 128, 255, 256, 2**16, 2**32 - 1])
def test_id_of_any_width_is_reported(frame_id):
    assert refused(request_of(1001, frame_id), limit=1000).frame_id == frame_id


def test_id_of_the_second_request_is_reported_when_that_one_is_too_long():
    stream = request_of(400, frame_id=1) + request_of(5000, frame_id=2)[:1001]
    frames, error = until_error([stream], limit=1000)
    assert [frame.id for frame in frames] == [1]
    assert error is not None
    assert error.frame_id == 2


def test_short_frames_that_together_are_over_the_limit_are_taken():
    assert len(frames_of(request_of(400) * 10, limit=1000)) == 10


def test_limit_that_was_raised_holds_for_the_next_frame():
    reader = FrameReader(1000)
    reader.receive(request_of(900))
    reader.next_frame()
    reader.limit = 5000
    reader.receive(request_of(4000))
    assert isinstance(reader.next_frame(), Request)


@pytest.mark.parametrize("head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_announced_length_alone_allocates_nothing(head):
    reader = FrameReader(1000)
    reader.receive(b"\x94\x00\x07\xa1m" + head)
    assert reader.next_frame() is None
    assert reader.buffered == 10


def test_write_of_one_mebibyte_fits_a_large_frame():
    data = encode_request(2**32 - 1, "ingests.write", WriteIngest(1, 2**62, b"\0" * 2**20), Context())
    assert isinstance(one(data, limit=MAX_FRAME_BYTES), Request)


# ids of malformed requests -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [
    msgpack.packb([0, 7, 12, []]),
    b"\x94\x00\x07\xa2\xff\xfe\x90",
    b"\x94\x00\x07\xa1m\xc1",
    b"\x94\x00\x07\xa1m" + b"\x91" * 2000,
], ids=["method is a number", "method is not UTF-8", "garbage params", "deep params"])  # fmt: skip
def test_id_of_a_malformed_request_is_reported(data):
    assert refused(data).frame_id == 7


@pytest.mark.parametrize(
    "head",
    [
        b"\x94\x00\xc3", b"\x94\x00\xc2", b"\x94\x00\xc0", b"\x94\x00\xff", b"\x94\x00\xa17",
        b"\x94\x01\x07", b"\x93\x02\x07",
    ],
    ids=["true", "false", "nil", "negative", "text", "response", "notification"],
)  # fmt: skip
def test_no_id_is_reported_where_there_is_none_of_a_request(head):
    assert refused(head + b"\xc5\xff\xff" + b"x" * 1000, limit=100).frame_id is None


def test_no_id_is_reported_for_bytes_that_are_no_frame():
    assert refused(b"\xc1").frame_id is None
