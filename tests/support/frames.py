"""Frames of every kind, good and damaged, as hypothesis makes them."""

from __future__ import annotations

from itertools import pairwise

import msgpack
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from orlop.protocol.errors import WireError
from orlop.protocol.messages import Context, CreateImage, GetImage, ImagePage, PutContent, UpdateContent, WriteIngest
from orlop.protocol.records import ContentInfo, Descriptor, Image
from orlop.protocol.wire import (
    HELLO_FRAME_BYTES,
    Frame,
    FrameReader,
    RemoteProtocolError,
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


REQUEST = encode_request(7, "images.get", GetImage("buoy"), Context(namespace="dock"))
