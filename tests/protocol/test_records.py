"""Records and event payloads as they are stored and travel. Source: spec metadata 9 to 14, 20; content 2."""

from __future__ import annotations

import msgpack
import msgspec
import pytest

from orlop.protocol.records import (
    TOPICS,
    Any_,
    Container,
    ContainerCreate,
    ContainerDelete,
    ContainerUpdate,
    ContentCreate,
    ContentDelete,
    ContentInfo,
    Descriptor,
    Event,
    EventPayload,
    Image,
    ImageCreate,
    ImageDelete,
    ImageUpdate,
    IngestStatus,
    Lease,
    LeaseResource,
    Namespace,
    NamespaceCreate,
    NamespaceDelete,
    NamespaceUpdate,
    Runtime,
    SnapshotCommit,
    SnapshotInfo,
    SnapshotKind,
    SnapshotPrepare,
    SnapshotRemove,
)

DIGEST = "sha256:" + "0a" * 32
LABELS = {"pier": "north", "é": "牛"}
NOW = 1_753_272_000_123_456_789
SPEC = Any_("types.example/Hull", b"\x00\xff\xc1")
TARGET = Descriptor("application/vnd.oci.image.manifest.v1+json", DIGEST, 2**53 + 1, {"keel": "oak"})

RECORDS = [
    Namespace("dock", LABELS),
    Namespace("dock"),
    TARGET,
    Descriptor("a", DIGEST, 0),
    Image("docker.io/library/buoy:1", TARGET, LABELS, NOW, NOW + 1),
    Image("b", TARGET),
    SPEC,
    Any_("", b""),
    Runtime("io.containerd.runc.v2", SPEC),
    Runtime("r"),
    Container("c1", LABELS, "buoy", Runtime("r", SPEC), SPEC, "native", "key", NOW, NOW + 1, {"e": SPEC}, "sb"),
    Container("c1"),
    ContentInfo(DIGEST, 2**62, LABELS, NOW, NOW + 1),
    ContentInfo(DIGEST, 0),
    IngestStatus("ref / 1", 5, 10, DIGEST, NOW, NOW + 1),
    IngestStatus("r"),
    SnapshotInfo("native", "hull", SnapshotKind.VIEW, "keel", LABELS, NOW, NOW + 1),
    SnapshotInfo("native", "hull", SnapshotKind.ACTIVE),
    SnapshotInfo("native", "hull", SnapshotKind.COMMITTED),
    Lease("any / thing 牛", NOW, LABELS),
    Lease("l"),
    LeaseResource(DIGEST, "content"),
    LeaseResource("key", "snapshots/native"),
]
PAYLOADS = [
    NamespaceCreate("dock", LABELS),
    NamespaceUpdate("dock", LABELS),
    NamespaceDelete("dock"),
    ContainerCreate("c1", "buoy", Runtime("r", SPEC)),
    ContainerUpdate("c1", "buoy", LABELS, "key"),
    ContainerDelete("c1"),
    ImageCreate("buoy", LABELS),
    ImageUpdate("buoy", LABELS),
    ImageDelete("buoy"),
    ContentCreate(DIGEST, 5, "text/plain"),
    ContentDelete(DIGEST),
    SnapshotPrepare("key", "keel", "native"),
    SnapshotCommit("key", "hull", "native"),
    SnapshotRemove("key", "native"),
]

# Spec metadata 9.1, 10.1, 11.1, 12.1, 12.5, 20; content 2.2 and 2.3.
RECORD_FIELDS = {
    Namespace: {"name", "labels"},
    Descriptor: {"media_type", "digest", "size", "annotations"},
    Image: {"name", "labels", "target", "created_at", "updated_at"},
    Any_: {"type_url", "value"},
    Runtime: {"name", "options"},
    Container: {
        "id", "labels", "image", "runtime", "spec", "snapshotter", "snapshot_key", "created_at", "updated_at",
        "extensions", "sandbox",
    },
    ContentInfo: {"digest", "size", "created_at", "updated_at", "labels"},
    IngestStatus: {"ref", "offset", "total", "expected", "started_at", "updated_at"},
    Lease: {"id", "created_at", "labels"},
    LeaseResource: {"id", "type"},
}  # fmt: skip

# Spec metadata 14.3.
PAYLOAD_TABLE = {
    NamespaceCreate: ("/namespaces/create", "containerd.events.NamespaceCreate", {"name", "labels"}),
    NamespaceUpdate: ("/namespaces/update", "containerd.events.NamespaceUpdate", {"name", "labels"}),
    NamespaceDelete: ("/namespaces/delete", "containerd.events.NamespaceDelete", {"name"}),
    ContainerCreate: ("/containers/create", "containerd.events.ContainerCreate", {"id", "image", "runtime"}),
    ContainerUpdate: (
        "/containers/update", "containerd.events.ContainerUpdate", {"id", "image", "labels", "snapshot_key"},
    ),
    ContainerDelete: ("/containers/delete", "containerd.events.ContainerDelete", {"id"}),
    ImageCreate: ("/images/create", "containerd.services.images.v1.ImageCreate", {"name", "labels"}),
    ImageUpdate: ("/images/update", "containerd.services.images.v1.ImageUpdate", {"name", "labels"}),
    ImageDelete: ("/images/delete", "containerd.services.images.v1.ImageDelete", {"name"}),
    ContentCreate: ("/content/create", "containerd.events.ContentCreate", {"digest", "size", "mediaType"}),
    ContentDelete: ("/content/delete", "containerd.events.ContentDelete", {"digest"}),
    SnapshotPrepare: (
        "/snapshot/prepare", "containerd.events.SnapshotPrepare", {"key", "parent", "snapshotter"},
    ),
    SnapshotCommit: ("/snapshot/commit", "containerd.events.SnapshotCommit", {"key", "name", "snapshotter"}),
    SnapshotRemove: ("/snapshot/remove", "containerd.events.SnapshotRemove", {"key", "snapshotter"}),
}  # fmt: skip

every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
every_payload = pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: type(payload).__name__)


def event_of(payload: EventPayload) -> Event:
    return Event(3, NOW, "dock", TOPICS[type(payload)], payload)


def plain(record: msgspec.Struct):
    return msgpack.unpackb(msgspec.msgpack.encode(record))


# round trips ---------------------------------------------------------------------------------------------


@every_record
def test_record_is_read_as_it_was_written(record):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=type(record)) == record


@every_payload
def test_payload_is_read_as_the_type_that_it_names(payload):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(payload), type=EventPayload) == payload


@every_payload
def test_event_is_read_as_it_was_written(payload):
    event = event_of(payload)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


@every_record
def test_unknown_field_of_a_record_is_ignored(record):
    data = msgpack.packb({**plain(record), "added_later": [{"a": b"\xff"}]})
    assert msgspec.msgpack.decode(data, type=type(record)) == record


@every_payload
def test_unknown_field_of_a_payload_is_ignored(payload):
    data = msgpack.packb({**plain(payload), "added_later": [{"a": b"\xff"}]})
    assert msgspec.msgpack.decode(data, type=EventPayload) == payload


@every_payload
def test_unknown_field_of_an_event_is_ignored(payload):
    event = event_of(payload)
    data = msgpack.packb({**plain(event), "added_later": 1})
    assert msgspec.msgpack.decode(data, type=Event) == event


# names ---------------------------------------------------------------------------------------------------


def test_plain_library_sees_containerds_names_in_an_image():
    assert plain(Image("buoy", Descriptor("text/plain", DIGEST, 5, {"keel": "oak"}), {"a": "1"}, 7, 8)) == {
        "name": "buoy",
        "labels": {"a": "1"},
        "target": {"media_type": "text/plain", "digest": DIGEST, "size": 5, "annotations": {"keel": "oak"}},
        "created_at": 7,
        "updated_at": 8,
    }


@every_record
def test_record_has_exactly_containerds_fields(record):
    if type(record) is SnapshotInfo:
        expected = {"snapshotter", "name", "kind", "parent", "labels", "created_at", "updated_at"}
    else:
        expected = RECORD_FIELDS[type(record)]
    assert set(plain(record)) == expected


@every_payload
def test_payload_has_exactly_containerds_fields_and_its_type(payload):
    assert set(plain(payload)) == PAYLOAD_TABLE[type(payload)][2] | {"type"}


@every_payload
def test_payload_names_containerds_type(payload):
    assert plain(payload)["type"] == PAYLOAD_TABLE[type(payload)][1]


@every_payload
def test_payload_has_containerds_topic(payload):
    assert TOPICS[type(payload)] == PAYLOAD_TABLE[type(payload)][0]


def test_every_payload_has_a_topic():
    assert set(TOPICS) == set(PAYLOAD_TABLE)


def test_event_has_the_fields_of_an_envelope_and_its_sequence():
    envelope = {"timestamp", "namespace", "topic", "event"}
    assert set(plain(event_of(ImageDelete("buoy")))) == {"sequence"} | envelope


@pytest.mark.parametrize(
    "kind, text",
    [(SnapshotKind.VIEW, "view"), (SnapshotKind.ACTIVE, "active"), (SnapshotKind.COMMITTED, "committed")],
)
def test_snapshot_kind_travels_as_a_word(kind, text):
    assert plain(SnapshotInfo("native", "hull", kind))["kind"] == text


def test_time_travels_as_integer_nanoseconds():
    assert plain(Lease("l", NOW))["created_at"] == 1_753_272_000_123_456_789


def test_opaque_value_travels_as_bytes():
    assert plain(SPEC) == {"type_url": "types.example/Hull", "value": b"\x00\xff\xc1"}


# what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [{}, {"name": "a"}, {"name": 5, "target": {}}, {"name": "a", "target": {"digest": DIGEST}}, [], None],
    ids=lambda value: repr(value)[:40],
)
def test_image_of_a_wrong_shape_is_a_validation_error(value):
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgpack.packb(value), type=Image)


def test_label_value_that_is_no_text_is_a_validation_error():
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgpack.packb({"name": "dock", "labels": {"a": 1}}), type=Namespace)


def test_payload_of_an_unknown_type_is_a_validation_error():
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgpack.packb({"type": "containerd.events.Mutiny"}), type=EventPayload)


@every_record
def test_record_cannot_be_changed_in_place(record):
    with pytest.raises(AttributeError):
        setattr(record, record.__struct_fields__[0], "other")


def test_default_labels_are_not_shared_between_records():
    assert Namespace("a").labels is not Namespace("b").labels
