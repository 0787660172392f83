"""Bytes that a release wrote are read by today's code, and written again as they were.

Each folder holds the samples of one release: for each name the plain value (bytes as base64) and the hex of
its MessagePack. A sample is never edited; a new release adds a folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import msgspec
import pytest

from orlop.protocol import records
from orlop.protocol.messages import Context, GetImage, WriteIngest
from orlop.protocol.records import TOPICS, Image
from orlop.protocol.wire import (
    MAX_FRAME_BYTES,
    Cancel,
    Chunk,
    Credit,
    Frame,
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

FOLDER = Path(__file__).parent
RELEASES = sorted(path.name for path in FOLDER.iterdir() if (path / "records.json").exists())
REQUESTS = {"images.get": GetImage, "ingests.write": WriteIngest}


def samples(kind: str):
    return [
        pytest.param(name, sample, id=f"{release}-{name}")
        for release in RELEASES
        for name, sample in json.loads((FOLDER / release / f"{kind}.json").read_text()).items()
    ]


every_record = pytest.mark.parametrize("name, sample", samples("records"))
every_frame = pytest.mark.parametrize("name, sample", samples("frames"))


def read_record(name: str, sample):
    return msgspec.msgpack.decode(bytes.fromhex(sample["hex"]), type=getattr(records, name))


def read_frame(sample) -> Frame:
    reader = FrameReader(MAX_FRAME_BYTES)
    reader.receive(bytes.fromhex(sample["hex"]))
    frame = reader.next_frame()
    assert frame is not None
    return frame


def read_params(frame: Request):
    return msgspec.msgpack.Decoder(tuple[REQUESTS[frame.method], Context]).decode(frame.params)


def written(frame: Frame) -> bytes:
    """The frame, decoded into its types and encoded again."""
    match frame:
        case Request():
            arguments, context = read_params(frame)
            return encode_request(frame.id, frame.method, arguments, context)
        case Response(error=None):
            return encode_result(frame.id, msgspec.msgpack.decode(frame.result, type=Image))
        case Response():
            return encode_error(frame.id, frame.error)
        case Chunk():
            return encode_chunk(frame.id, msgspec.msgpack.decode(frame.data, type=bytes))
        case Credit():
            return encode_credit(frame.id, frame.count)
        case Cancel():
            return encode_cancel(frame.id)


@every_record
def test_record_of_a_release_is_read_with_its_values(name, sample):
    assert msgspec.to_builtins(read_record(name, sample)) == sample["value"]


@every_record
def test_record_of_a_release_is_written_as_it_was(name, sample):
    assert msgspec.msgpack.encode(read_record(name, sample)).hex() == sample["hex"]


@every_frame
def test_frame_of_a_release_is_written_as_it_was(name, sample):
    assert written(read_frame(sample)).hex() == sample["hex"]


@every_frame
def test_frame_of_a_release_holds_its_values(name, sample):
    assert msgspec.to_builtins(msgpack.unpackb(written(read_frame(sample)))) == sample["value"]


def test_every_payload_type_has_a_sample_of_the_latest_release():
    held = set(json.loads((FOLDER / RELEASES[-1] / "records.json").read_text()))
    assert {kind.__name__ for kind in TOPICS} <= held


def test_every_record_type_has_a_sample_of_the_latest_release():
    held = set(json.loads((FOLDER / RELEASES[-1] / "records.json").read_text()))
    structs = {name for name in records.__all__ if isinstance(getattr(records, name), type(msgspec.Struct))}
    assert structs <= held
