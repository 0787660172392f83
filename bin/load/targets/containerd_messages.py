"""containerd's API v1, as much of it as scenarios use: its messages and its methods.

The message classes are made when this module is imported, from a table of what travels: each field's number, type and
name. A field that nobody here sets or reads is left out, as protobuf passes over what it does not know. Needs protobuf.

Source: the API of containerd 1.6 and 1.7, which later versions keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = [
    "COMMIT",
    "COMMIT_SNAPSHOT",
    "CONTENT_INFO",
    "CREATE_IMAGE",
    "CREATE_LEASE",
    "CREATE_NAMESPACE",
    "DELETE_CONTENT",
    "DELETE_IMAGE",
    "DELETE_LEASE",
    "GET_IMAGE",
    "LIST_IMAGES",
    "MESSAGES",
    "PREPARE_SNAPSHOT",
    "READ_CONTENT",
    "REMOVE_SNAPSHOT",
    "STAT_SNAPSHOT",
    "UPDATE_IMAGE",
    "VERSION",
    "WATCH_HEALTH",
    "WRITE",
    "WRITE_CONTENT",
    "Method",
    "message_classes",
]

_IMAGES = "containerd.services.images.v1"
_CONTENT = "containerd.services.content.v1"
_SNAPSHOTS = "containerd.services.snapshots.v1"
_LEASES = "containerd.services.leases.v1"
_NAMESPACES = "containerd.services.namespaces.v1"
_VERSION = "containerd.services.version.v1"
_HEALTH = "grpc.health.v1"

MESSAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "google.protobuf": {
        "Empty": "",
        "FieldMask": "1 string* paths",
    },
    "containerd.types": {
        "Descriptor": "1 string media_type, 2 string digest, 3 int64 size",
    },
    _IMAGES: {
        "Image": "1 string name, 2 map labels, 3 containerd.types.Descriptor target",
        "GetImageRequest": "1 string name",
        "GetImageResponse": "1 Image image",
        "CreateImageRequest": "1 Image image",
        "CreateImageResponse": "1 Image image",
        "UpdateImageRequest": "1 Image image, 2 google.protobuf.FieldMask update_mask",
        "UpdateImageResponse": "1 Image image",
        "ListImagesRequest": "1 string* filters",
        "ListImagesResponse": "1 Image* images",
        "DeleteImageRequest": "1 string name, 2 bool sync",
    },
    _CONTENT: {
        "Info": "1 string digest, 2 int64 size, 5 map labels",
        "InfoRequest": "1 string digest",
        "InfoResponse": "1 Info info",
        "DeleteContentRequest": "1 string digest",
        "ReadContentRequest": "1 string digest, 2 int64 offset, 3 int64 size",
        "ReadContentResponse": "1 int64 offset, 2 bytes data",
        "WriteContentRequest": (
            "1 int32 action, 2 string ref, 3 int64 total, 4 string expected, 5 int64 offset, 6 bytes data, 7 map labels"
        ),
        "WriteContentResponse": "1 int32 action, 4 int64 offset, 5 int64 total, 6 string digest",
    },
    _SNAPSHOTS: {
        "Info": "1 string name, 2 string parent, 3 int32 kind, 6 map labels",
        "PrepareSnapshotRequest": "1 string snapshotter, 2 string key, 3 string parent, 4 map labels",
        "PrepareSnapshotResponse": "",
        "CommitSnapshotRequest": "1 string snapshotter, 2 string name, 3 string key, 4 map labels",
        "RemoveSnapshotRequest": "1 string snapshotter, 2 string key",
        "StatSnapshotRequest": "1 string snapshotter, 2 string key",
        "StatSnapshotResponse": "1 Info info",
    },
    _LEASES: {
        "Lease": "1 string id, 3 map labels",
        "CreateRequest": "1 string id, 3 map labels",
        "CreateResponse": "1 Lease lease",
        "DeleteRequest": "1 string id, 2 bool sync",
    },
    _NAMESPACES: {
        "Namespace": "1 string name, 2 map labels",
        "CreateNamespaceRequest": "1 Namespace namespace",
        "CreateNamespaceResponse": "1 Namespace namespace",
    },
    _VERSION: {
        "VersionResponse": "1 string version, 2 string revision",
    },
    _HEALTH: {
        "HealthCheckRequest": "1 string service",
        "HealthCheckResponse": "1 int32 status",
    },
}
"""By package: a message, and its fields as `NUMBER TYPE NAME`. `TYPE*` is repeated; `map` has strings as keys and as
values; an enumeration is an int32, as which it travels; any other type is a message, of the same package if no dot is
in it."""

WRITE: Final = 1
COMMIT: Final = 2
"""Actions of WriteContentRequest: write its data; write it and commit."""

_SCALARS: Final = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
}


def message_classes(table: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Classes by full name, in a pool of their own: protobuf's default one may know the same names already."""
    pool = DescriptorPool()
    for package, messages in table.items():
        file = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        file.dependency.extend(f"{other}.proto" for other in table if _mentions(messages, other))
        for name, fields in messages.items():
            _add_message(file, name, fields)
        pool.Add(file)
    names = [f"{package}.{name}" for package, messages in table.items() for name in messages]
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


def _mentions(messages: Mapping[str, str], package: str) -> bool:
    return any(f" {package}." in fields for fields in messages.values())


def _add_message(file: FileDescriptorProto, name: str, fields: str) -> None:
    message = file.message_type.add(name=name)
    for spec in filter(None, fields.split(", ")):
        number, kind, field_name = spec.split(" ")
        field = message.field.add(name=field_name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
        if kind == "map" or kind.endswith("*"):
            field.label = FieldDescriptorProto.LABEL_REPEATED
            kind = kind.rstrip("*")
        field.type = _SCALARS.get(kind, FieldDescriptorProto.TYPE_MESSAGE)
        if kind == "map":
            field.type_name = f".{file.package}.{name}.{_add_entry(message, field_name)}"
        elif kind not in _SCALARS:
            field.type_name = f".{kind}" if "." in kind else f".{file.package}.{kind}"


def _add_entry(message: DescriptorProto, field: str) -> str:
    """A map is a repeated message of key and value."""
    entry = message.nested_type.add(name=f"{field.capitalize()}Entry")
    entry.options.map_entry = True
    for number, part in enumerate(("key", "value"), 1):
        entry.field.add(name=part, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL, type=_SCALARS["string"])
    return str(entry.name)


class Method(NamedTuple):
    """A procedure. `writes`: when the connection breaks, nobody knows whether it was done."""

    path: str
    request: Any
    response: Any
    writes: bool


_CLASSES: Final = message_classes(MESSAGES)
_EMPTY: Final = "google.protobuf.Empty"


def _method(package: str, name: str, request: str, response: str, *, writes: bool) -> Method:
    def of(message: str) -> Any:
        return _CLASSES[message if "." in message else f"{package}.{message}"]

    return Method(f"/{package}.{name}", of(request), of(response), writes)


GET_IMAGE: Final = _method(_IMAGES, "Images/Get", "GetImageRequest", "GetImageResponse", writes=False)
LIST_IMAGES: Final = _method(_IMAGES, "Images/List", "ListImagesRequest", "ListImagesResponse", writes=False)
CREATE_IMAGE: Final = _method(_IMAGES, "Images/Create", "CreateImageRequest", "CreateImageResponse", writes=True)
UPDATE_IMAGE: Final = _method(_IMAGES, "Images/Update", "UpdateImageRequest", "UpdateImageResponse", writes=True)
DELETE_IMAGE: Final = _method(_IMAGES, "Images/Delete", "DeleteImageRequest", _EMPTY, writes=True)
CONTENT_INFO: Final = _method(_CONTENT, "Content/Info", "InfoRequest", "InfoResponse", writes=False)
DELETE_CONTENT: Final = _method(_CONTENT, "Content/Delete", "DeleteContentRequest", _EMPTY, writes=True)
READ_CONTENT: Final = _method(_CONTENT, "Content/Read", "ReadContentRequest", "ReadContentResponse", writes=False)
WRITE_CONTENT: Final = _method(_CONTENT, "Content/Write", "WriteContentRequest", "WriteContentResponse", writes=True)
PREPARE_SNAPSHOT: Final = _method(
    _SNAPSHOTS, "Snapshots/Prepare", "PrepareSnapshotRequest", "PrepareSnapshotResponse", writes=True
)
COMMIT_SNAPSHOT: Final = _method(_SNAPSHOTS, "Snapshots/Commit", "CommitSnapshotRequest", _EMPTY, writes=True)
REMOVE_SNAPSHOT: Final = _method(_SNAPSHOTS, "Snapshots/Remove", "RemoveSnapshotRequest", _EMPTY, writes=True)
STAT_SNAPSHOT: Final = _method(
    _SNAPSHOTS, "Snapshots/Stat", "StatSnapshotRequest", "StatSnapshotResponse", writes=False
)
CREATE_LEASE: Final = _method(_LEASES, "Leases/Create", "CreateRequest", "CreateResponse", writes=True)
DELETE_LEASE: Final = _method(_LEASES, "Leases/Delete", "DeleteRequest", _EMPTY, writes=True)
CREATE_NAMESPACE: Final = _method(
    _NAMESPACES, "Namespaces/Create", "CreateNamespaceRequest", "CreateNamespaceResponse", writes=True
)
VERSION: Final = _method(_VERSION, "Version/Version", _EMPTY, "VersionResponse", writes=False)
WATCH_HEALTH: Final = _method(_HEALTH, "Health/Watch", "HealthCheckRequest", "HealthCheckResponse", writes=False)
