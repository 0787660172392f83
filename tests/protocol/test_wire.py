"""Bytes become frames or a RemoteProtocolError, however they are cut. Source: DESIGN 9, MessagePack-RPC."""

from __future__ import annotations

from itertools import pairwise

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.protocol.errors import WireError
from orlop.protocol.messages import (
    Context,
    CreateImage,
    GetImage,
    ImagePage,
    ListImages,
    Page,
    PutContent,
    UpdateContent,
    WriteIngest,
)
from orlop.protocol.records import ContentInfo, Descriptor, Image
from orlop.protocol.wire import (
    HELLO_FRAME_BYTES,
    MAX_FRAME_BYTES,
    Cancel,
    Chunk,
    Credit,
    Frame,
    FrameReader,
    RemoteProtocolError,
    Request,
    Response,
    encode_cancel,
    encode_chunk,
    encode_credit,
    encode_error,
    encode_request,
    encode_result,
)

LIMIT = HELLO_FRAME_BYTES

# Hypothesis' own deadline measures the machine; the suite has a timeout.
relaxed = settings(deadline=None, max_examples=60)


def decode_params(decoder, params):
    """Arguments and context of a request, as a server decodes them."""
    return decoder.decode(params)


def frames_of(*pieces: bytes, limit: int = LIMIT) -> list[Frame]:
    """All frames of a stream that arrives in these pieces; an error goes to the caller."""
    frames, error = until_error(pieces, limit)
    if error is not None:
        raise error
    return frames


def until_error(pieces, limit: int = LIMIT) -> tuple[list[Frame], RemoteProtocolError | None]:
    """The frames before the first error, and the error. Anything else that is raised is a defect."""
    reader = FrameReader(limit)
    frames: list[Frame] = []
    for piece in pieces:
        reader.receive(piece)
        try:
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)
        except RemoteProtocolError as error:
            return frames, error
    return frames, None


def one(data: bytes, limit: int = LIMIT) -> Frame:
    (frame,) = frames_of(data, limit=limit)
    return frame


def refused(data: bytes, limit: int = LIMIT) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        frames_of(data, limit=limit)
    return caught.value


def shown(frames: list[Frame]) -> list[tuple[object, ...]]:
    """Frames as plain values: raw parts compare by their bytes."""
    return [
        (
            type(frame).__name__,
            *(bytes(value) if isinstance(value, msgspec.Raw) else value for value in msgspec.structs.astuple(frame)),
        )
        for frame in frames
    ]


def cut(data: bytes, places) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


# strategies ----------------------------------------------------------------------------------------------

text = st.text(max_size=12)
labels = st.dictionaries(text, text, max_size=3)
sizes = st.integers(0, 2**62)
ids = st.integers(0, 2**32 - 1)
contexts = st.builds(
    Context,
    namespace=st.none() | text,
    lease=st.none() | text,
    timeout_ms=st.none() | sizes,
    traceparent=st.none() | text,
    credit=st.integers(0, 256),
)
descriptors = st.builds(Descriptor, text, text, sizes, labels)
images = st.builds(Image, text, descriptors, labels, sizes, sizes)
arguments = st.one_of(
    st.builds(GetImage, text),
    st.builds(CreateImage, text, descriptors, labels, st.none() | sizes),
    st.builds(PutContent, st.binary(max_size=40), text, text, labels),
    st.builds(UpdateContent, text, labels, st.none() | st.lists(text, max_size=3)),
    st.builds(WriteIngest, ids, sizes, st.binary(max_size=40)),
)
results = st.one_of(
    images,
    st.builds(ContentInfo, text, sizes, labels, sizes, sizes),
    st.builds(ImagePage, st.lists(images, max_size=3), text),
)
wire_errors = st.recursive(
    st.builds(WireError, text, text, st.just([]), text),
    lambda inner: st.builds(WireError, text, text, st.lists(inner, max_size=2), text),
    max_leaves=4,
)
frame_bytes = st.one_of(
    st.builds(encode_request, ids, text, arguments, contexts),
    st.builds(encode_result, ids, results),
    st.builds(encode_error, ids, wire_errors),
    st.builds(encode_chunk, ids, st.binary(max_size=40)),
    st.builds(encode_credit, ids, st.integers(1, 256)),
    st.builds(encode_cancel, ids),
)
streams = st.lists(frame_bytes, max_size=6).map(b"".join)
places = st.lists(st.integers(0, 10_000), max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@st.composite
def damaged(draw) -> bytes:
    """A good stream with a few bytes overwritten, put in or taken out."""
    data = bytearray(draw(streams))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


hostile = st.one_of(
    st.binary(max_size=200),
    st.lists(plain, max_size=4).map(lambda values: b"".join(msgpack.packb(value) for value in values)),
    st.builds(
        lambda head, tail: head + tail,
        st.sampled_from([b"\x94\x00", b"\x94\x01", b"\x93\x02", b"\xdc\x00\x04\x00", b"\xdd", b"\xdf", b"\xdb"]),
        st.binary(max_size=60),
    ),
    damaged(),
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

REQUEST = encode_request(7, "images.get", GetImage("buoy"), Context(namespace="dock"))
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
