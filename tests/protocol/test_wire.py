"""Frames: what is written is what is read, however the stream is cut. Source: docs/protocol.md."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.protocol.errors import WireError
from orlop.protocol.messages import Context, CreateImage, GetImage, ImagePage, ListImages, Page
from orlop.protocol.wire import (
    Cancel,
    Chunk,
    Credit,
    FrameReader,
    Request,
    Response,
    encode_cancel,
    encode_chunk,
    encode_credit,
    encode_error,
    encode_request,
    encode_result,
)
from tests.support.frames import (
    LIMIT,
    REQUEST,
    arguments,
    byte_by_byte,
    contexts,
    cut,
    decode_params,
    frames_of,
    hostile,
    ids,
    one,
    places,
    plain,
    relaxed,
    results,
    shown,
    streams,
    text,
    until_error,
    wire_errors,
)

# round trips ---------------------------------------------------------------------------------------------


@relaxed
@given(ids, text, arguments, contexts)
def test_any_request_arrives_as_it_was_sent(frame_id, method, sent, context):
    frame = one(encode_request(frame_id, method, sent, context))
    assert isinstance(frame, Request)
    received = decode_params(msgspec.msgpack.Decoder(tuple[type(sent), Context]), frame.params)
    assert (frame.id, frame.method, received) == (frame_id, method, (sent, context))


@relaxed
@given(ids, results)
def test_any_result_arrives_as_it_was_sent(frame_id, sent):
    frame = one(encode_result(frame_id, sent))
    assert isinstance(frame, Response)
    # A page forgets of what type its items are, as every generic class does.
    kind = ImagePage if isinstance(sent, Page) else type(sent)
    received = msgspec.msgpack.decode(frame.result, type=kind)
    assert (frame.id, frame.error, received) == (frame_id, None, sent)


@relaxed
@given(ids, wire_errors)
def test_any_error_arrives_as_it_was_sent(frame_id, sent):
    frame = one(encode_error(frame_id, sent))
    assert isinstance(frame, Response)
    assert (frame.id, frame.error, bytes(frame.result)) == (frame_id, sent, b"\xc0")


@relaxed
@given(ids, st.binary(max_size=200))
def test_any_chunk_arrives_as_it_was_sent(frame_id, data):
    frame = one(encode_chunk(frame_id, data))
    assert isinstance(frame, Chunk)
    assert (frame.id, msgspec.msgpack.decode(frame.data, type=bytes)) == (frame_id, data)


@relaxed
@given(ids, st.integers(1, 256))
def test_any_credit_arrives_as_it_was_sent(frame_id, count):
    assert one(encode_credit(frame_id, count)) == Credit(frame_id, count)


@relaxed
@given(ids)
def test_any_cancel_arrives_as_it_was_sent(frame_id):
    assert one(encode_cancel(frame_id)) == Cancel(frame_id)


# what another language sees ------------------------------------------------------------------------------


def test_request_is_the_array_of_messagepack_rpc():
    data = encode_request(7, "images.get", GetImage("buoy"), Context(namespace="dock"))
    assert msgpack.unpackb(data) == [0, 7, "images.get", [{"name": "buoy"}, {"namespace": "dock"}]]


def test_result_is_the_array_of_messagepack_rpc():
    assert msgpack.unpackb(encode_result(7, {"name": "buoy"})) == [1, 7, None, {"name": "buoy"}]


def test_error_is_the_array_of_messagepack_rpc():
    error = WireError("NotFound", "a: not found", [WireError("Internal", "b: internal")], "look elsewhere")
    inner = {"code": "Internal", "message": "b: internal", "details": [], "hint": ""}
    outer = {"code": "NotFound", "message": "a: not found", "details": [inner], "hint": "look elsewhere"}
    assert msgpack.unpackb(encode_error(7, error)) == [1, 7, outer, None]


def test_chunk_is_a_notification():
    assert msgpack.unpackb(encode_chunk(7, b"abc")) == [2, "chunk", [7, b"abc"]]


def test_credit_is_a_notification():
    assert msgpack.unpackb(encode_credit(7, 3)) == [2, "credit", [7, 3]]


def test_cancel_is_a_notification():
    assert msgpack.unpackb(encode_cancel(7)) == [2, "cancel", [7]]


def test_request_of_a_plain_library_is_read():
    frame = one(msgpack.packb([0, 7, "images.get", [{"name": "buoy"}, {}]]))
    assert isinstance(frame, Request)
    assert decode_params(msgspec.msgpack.Decoder(tuple[GetImage, Context]), frame.params) == (
        GetImage("buoy"),
        Context(),
    )


def test_response_of_a_plain_library_is_read():
    frame = one(msgpack.packb([1, 7, {"code": "NotFound", "message": "gone"}, None]))
    assert isinstance(frame, Response)
    assert frame.error == WireError("NotFound", "gone")


# how the stream is cut -----------------------------------------------------------------------------------

SAMPLES = {
    "request": REQUEST,
    "result": encode_result(7, GetImage("buoy")),
    "error": encode_error(7, WireError("NotFound", "a: not found")),
    "chunk": encode_chunk(7, b"abc"),
    "credit": encode_credit(7, 3),
    "cancel": encode_cancel(7),
}
every_sample = pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)


@every_sample
def test_frame_that_arrives_byte_by_byte_is_the_same(data):
    assert shown(frames_of(*byte_by_byte(data))) == shown([one(data)])


@every_sample
def test_frame_before_an_unfinished_one_is_the_same(data):
    assert shown(frames_of(data + REQUEST[:5])) == shown([one(data)])


@every_sample
def test_frame_after_an_unfinished_one_was_finished_is_the_same(data):
    assert shown(frames_of(REQUEST[:5], REQUEST[5:] + data)[1:]) == shown([one(data)])


def test_no_frame_before_its_last_byte():
    reader = FrameReader(LIMIT)
    reader.receive(REQUEST[:-1])
    assert reader.next_frame() is None


def test_asking_again_before_more_bytes_changes_nothing():
    reader = FrameReader(LIMIT)
    reader.receive(REQUEST[:5])
    reader.next_frame()
    reader.next_frame()
    reader.receive(REQUEST[5:])
    assert shown([reader.next_frame()]) == shown([one(REQUEST)])


def test_no_bytes_give_no_frame():
    assert FrameReader(LIMIT).next_frame() is None


def test_buffered_counts_the_bytes_of_the_unfinished_frame():
    reader = FrameReader(LIMIT)
    reader.receive(REQUEST + REQUEST[:5])
    reader.next_frame()
    assert reader.buffered == 5


@relaxed
@given(streams, places)
def test_any_split_of_a_stream_gives_the_same_frames(stream, cuts):
    assert shown(frames_of(*cut(stream, cuts))) == shown(frames_of(stream))


@relaxed
@given(hostile, places)
def test_any_split_of_foreign_bytes_gives_the_same_frames(data, cuts):
    whole, _ = until_error([data])
    assert shown(until_error(cut(data, cuts))[0]) == shown(whole)


@relaxed
@given(hostile, places)
def test_any_split_of_foreign_bytes_is_refused_when_the_whole_is(data, cuts):
    _, error = until_error([data])
    assert (until_error(cut(data, cuts))[1] is None) == (error is None)


# typed parameters ----------------------------------------------------------------------------------------


def params_of(value) -> msgspec.Raw:
    return one(msgpack.packb([0, 7, "m", value])).params


@pytest.mark.parametrize(
    "params",
    [
        None, 5, "text", {}, [], [{"name": "a"}], [{"name": "a"}, {}, {}], [{"name": "a"}, None], [None, {}],
        [{}, {}], [{"name": 5}, {}], [{"name": None}, {}], [{"name": b"a"}, {}], [["a"], {}],
        [{"name": "a"}, {"namespace": 5}], [{"name": "a"}, {"credit": 257}], [{"name": "a"}, {"credit": -1}],
        [{"name": "a"}, {"credit": None}], [{"name": "a"}, {"timeout_ms": "5"}], [{"name": "a"}, []],
    ],
    ids=repr,
)  # fmt: skip
def test_params_of_a_wrong_type_are_a_validation_error(params):
    with pytest.raises(msgspec.ValidationError):
        decode_params(msgspec.msgpack.Decoder(tuple[GetImage, Context]), params_of(params))


@pytest.mark.parametrize("limit", [0, -1, 1001, 2**63, "5", None], ids=repr)
def test_page_limit_outside_1_to_1000_is_a_validation_error(limit):
    with pytest.raises(msgspec.ValidationError):
        decode_params(msgspec.msgpack.Decoder(tuple[ListImages, Context]), params_of([{"limit": limit}, {}]))


def test_fault_of_params_has_its_path():
    with pytest.raises(msgspec.ValidationError, match=r"name"):
        decode_params(msgspec.msgpack.Decoder(tuple[GetImage, Context]), params_of([{"name": 5}, {}]))


def test_unknown_argument_is_ignored():
    params = params_of([{"name": "a", "later": [{}]}, {"later": 5}])
    decoded = decode_params(msgspec.msgpack.Decoder(tuple[GetImage, Context]), params)
    assert decoded == (GetImage("a"), Context())


@relaxed
@given(plain)
def test_any_params_are_typed_or_a_msgspec_error(value):
    decoder = msgspec.msgpack.Decoder(tuple[CreateImage, Context])
    try:
        arguments, context = decode_params(decoder, params_of(value))
    except msgspec.MsgspecError:
        return
    assert (type(arguments), type(context)) == (CreateImage, Context)
