"""What travels between the load harness and containerd, byte by byte, and what containerd's statuses mean."""

from __future__ import annotations

from typing import Any

import pytest

from orlop.protocol import errors

pytest.importorskip("grpc", reason="needs grpcio")
pytest.importorskip("google.protobuf", reason="needs protobuf")

from orlop.bin.load.targets import containerd_messages as api
from orlop.bin.load.targets.containerd_calls import error_of_status
from orlop.bin.load.targets.containerd_messages import MESSAGES, message_classes

CLASSES = message_classes(MESSAGES)


def test_a_string_is_its_tag_its_length_and_its_bytes():
    assert api.GET_IMAGE.request(name="abc").SerializeToString() == bytes.fromhex("0a 03 61 62 63")


def test_a_write_has_every_type_of_field():
    request = api.WRITE_CONTENT.request(
        action=api.COMMIT, ref="r", total=300, expected="d", offset=5, data=b"xyz", labels={"k": "v"}
    )
    assert request.SerializeToString() == bytes.fromhex(
        "08 02  12 01 72  18 ac 02  22 01 64  28 05  32 03 78 79 7a  3a 06 0a 01 6b 12 01 76"
    )


def test_an_update_nests_messages_and_a_mask():
    image = {"name": "a", "labels": {"k": "v"}, "target": {"media_type": "m", "digest": "d", "size": 1}}
    request = api.UPDATE_IMAGE.request(image=image, update_mask={"paths": ["labels.k"]})
    assert request.SerializeToString() == bytes.fromhex(
        "0a 15  0a 01 61  12 06 0a 01 6b 12 01 76  1a 08 0a 01 6d 12 01 64 18 0112 0a  0a 08 6c 61 62 65 6c 73 2e 6b"
    )


def test_the_end_of_a_lease_may_be_synchronous():
    assert api.DELETE_LEASE.request(id="l", sync=True).SerializeToString() == bytes.fromhex("0a 01 6c  10 01")


def test_what_the_table_leaves_out_is_passed_over():
    """An image with the times that containerd sends, in fields 7 and 8."""
    answer = api.GET_IMAGE.response.FromString(bytes.fromhex("0a 0d  0a 01 61  3a 02 08 01  42 04 08 01 10 02"))
    assert answer.image.name == "a"
    assert dict(answer.image.labels) == {}


@pytest.mark.parametrize("name", CLASSES)
def test_every_message_comes_back_as_it_was(name: str):
    package, _, short = name.rpartition(".")
    request = CLASSES[name](**filled(package, MESSAGES[package][short]))
    data = request.SerializeToString()
    again = CLASSES[name].FromString(data)
    assert again == request
    assert again.SerializeToString() == data
    assert {field.number for field, _ in again.ListFields()} == numbers(MESSAGES[package][short])


def filled(package: str, fields: str) -> dict[str, Any]:
    """A value that is not the default for each field."""
    found: dict[str, Any] = {}
    for spec in filter(None, fields.split(", ")):
        number, kind, name = spec.split(" ")
        plain = kind.rstrip("*")
        scalars: dict[str, Any] = {"string": f"s{number}", "bytes": b"\0b", "bool": True, "int32": -7, "int64": 2**40}
        scalars["map"] = {"k": "v"}
        if plain in scalars:
            value = scalars[plain]
        else:
            home, _, short = plain.rpartition(".")
            value = filled(home or package, MESSAGES[home or package][short])
        found[name] = [value, value] if kind.endswith("*") else value
    return found


def numbers(fields: str) -> set[int]:
    return {int(spec.split(" ")[0]) for spec in filter(None, fields.split(", "))}


@pytest.mark.parametrize("fields", [fields for messages in MESSAGES.values() for fields in messages.values()])
def test_no_number_and_no_name_occurs_twice_in_a_message(fields: str):
    specs = [spec.split(" ") for spec in filter(None, fields.split(", "))]
    assert len({number for number, _, _ in specs}) == len({name for _, _, name in specs}) == len(specs)


@pytest.mark.parametrize(
    ("number", "text", "kind"),
    [
        (1, "context canceled", errors.Canceled),
        (2, "failed", errors.Unknown),
        (3, "bad: invalid argument", errors.InvalidArgument),
        (4, "Deadline Exceeded", errors.DeadlineExceeded),
        (5, 'image "a": not found', errors.NotFound),
        (6, 'image "a": already exists', errors.AlreadyExists),
        (8, "Received message larger than max", errors.ResourceExhausted),
        (9, "it has children: failed precondition", errors.FailedPrecondition),
        (9, "it changed: conflict", errors.Conflict),
        (11, "read past object length", errors.OutOfRange),
        (12, "unknown service", errors.NotImplemented),
        (99, "what is this", errors.Unknown),
    ],
)
def test_a_status_is_an_error_of_its_class(number: int, text: str, kind: type[errors.OrlopError]):
    error = error_of_status(number, text, writes=False)
    assert type(error) is (errors.Unavailable if kind is errors.Canceled else kind)
    assert text in error.message


@pytest.mark.parametrize(
    ("number", "text", "read", "write"),
    [
        (
            14,
            "failed to connect to all addresses; last error: refused",
            errors.Unavailable,
            errors.Unavailable,
        ),
        (14, "ref a locked for 1s (since then): unavailable", errors.Unavailable, errors.Unavailable),
        (14, "Stream removed (recvmsg:Connection reset by peer (104))", errors.Unavailable, errors.Unknown),
        (14, "Socket closed", errors.Unavailable, errors.Unknown),
        (13, "Received RST_STREAM with error code 2", errors.Unavailable, errors.Unknown),
        (1, "context canceled", errors.Unavailable, errors.Unknown),
    ],
)
def test_a_broken_connection_leaves_a_write_unknown(
    number: int, text: str, read: type[errors.OrlopError], write: type[errors.OrlopError]
):
    assert type(error_of_status(number, text, writes=False)) is read
    assert type(error_of_status(number, text, writes=True)) is write
