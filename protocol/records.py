"""The typed records of every resource, as they are stored and as they travel.

Field names are containerd's. Times are integer nanoseconds since the epoch, UTC. Digests are `algorithm:hex`.
New fields are added with a default; a field never changes its type (tests/formats holds samples to prove it).
Source: spec metadata 9 to 14, content 2.
"""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = [
    "Any_",
    "Container",
    "ContentInfo",
    "Descriptor",
    "Event",
    "EventPayload",
    "Image",
    "IngestStatus",
    "Lease",
    "LeaseResource",
    "Mount",
    "Namespace",
    "Opaque",
    "Runtime",
    "Sandbox",
    "SnapshotInfo",
    "SnapshotKind",
    "Usage",
]


class Namespace(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}


class Descriptor(msgspec.Struct, frozen=True):
    """What a piece of content is: type, digest, size in bytes. Source: OCI image-spec, descriptor."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class Image(msgspec.Struct, frozen=True):
    name: str
    target: Descriptor
    labels: dict[str, str] = {}
    created_at: int = 0
    updated_at: int = 0


class Any_(msgspec.Struct, frozen=True):  # noqa: N801 - protobuf's name for it
    """A typed value that the store never looks into. Source: spec metadata 1.7."""

    type_url: str
    value: bytes


class Runtime(msgspec.Struct, frozen=True):
    name: str
    options: Any_ | None = None


class Container(msgspec.Struct, frozen=True):
    """A container's metadata. Creating one runs nothing."""

    id: str
    labels: dict[str, str] = {}
    image: str = ""
    runtime: Runtime = Runtime("")
    spec: Any_ | None = None
    snapshotter: str = ""
    snapshot_key: str = ""
    created_at: int = 0
    updated_at: int = 0
    extensions: dict[str, Any_] = {}
    sandbox: str = ""


class Sandbox(msgspec.Struct, frozen=True):
    """The record of a group of containers that share an environment. Source: spec metadata 13."""

    sandbox_id: str
    runtime: Runtime = Runtime("")
    spec: Any_ | None = None
    labels: dict[str, str] = {}
    created_at: int = 0
    updated_at: int = 0
    extensions: dict[str, Any_] = {}
    sandboxer: str = ""


class ContentInfo(msgspec.Struct, frozen=True):
    """What one namespace knows of a blob. Labels and times are this namespace's own."""

    digest: str
    size: int
    labels: dict[str, str] = {}
    created_at: int = 0
    updated_at: int = 0


class IngestStatus(msgspec.Struct, frozen=True):
    """An ingest in progress: `offset` is the position of the next byte, `total` 0 when not announced."""

    ref: str
    offset: int = 0
    total: int = 0
    expected: str = ""
    started_at: int = 0
    updated_at: int = 0


class SnapshotKind(Enum):
    VIEW = "view"
    ACTIVE = "active"
    COMMITTED = "committed"


class SnapshotInfo(msgspec.Struct, frozen=True):
    """One state of a file system. `parent` is the name of a committed snapshot, empty for none."""

    snapshotter: str
    name: str
    kind: SnapshotKind
    parent: str = ""
    labels: dict[str, str] = {}
    created_at: int = 0
    updated_at: int = 0


class Mount(msgspec.Struct, frozen=True):
    """What to mount; `target` is relative to where the caller wants it. Source: spec snapshots 8."""

    type: str
    source: str
    target: str = ""
    options: list[str] = []


class Usage(msgspec.Struct, frozen=True):
    """Allocated bytes, and inodes; a file with several names counts once. Source: spec snapshots 9."""

    size: int
    inodes: int


class Lease(msgspec.Struct, frozen=True):
    id: str
    created_at: int = 0
    labels: dict[str, str] = {}


class LeaseResource(msgspec.Struct, frozen=True):
    """`type` is content, ingests, images or snapshots/<snapshotter>."""

    id: str
    type: str


class NamespaceCreate(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.NamespaceCreate"):
    name: str
    labels: dict[str, str] = {}


class NamespaceUpdate(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.NamespaceUpdate"):
    name: str
    labels: dict[str, str] = {}


class NamespaceDelete(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.NamespaceDelete"):
    name: str


class ContainerCreate(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.ContainerCreate"):
    id: str
    image: str = ""
    runtime: Runtime | None = None


class ContainerUpdate(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.ContainerUpdate"):
    id: str
    image: str = ""
    labels: dict[str, str] = {}
    snapshot_key: str = ""


class ContainerDelete(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.ContainerDelete"):
    id: str


class ImageCreate(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.services.images.v1.ImageCreate"):
    name: str
    labels: dict[str, str] = {}


class ImageUpdate(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.services.images.v1.ImageUpdate"):
    name: str
    labels: dict[str, str] = {}


class ImageDelete(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.services.images.v1.ImageDelete"):
    name: str


class ContentCreate(
    msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}, tag_field="type",
    tag="containerd.events.ContentCreate",
):  # fmt: skip
    digest: str
    size: int
    media_type: str = ""


class ContentDelete(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.ContentDelete"):
    digest: str


class SnapshotPrepare(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.SnapshotPrepare"):
    key: str
    parent: str = ""
    snapshotter: str = ""


class SnapshotCommit(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.SnapshotCommit"):
    key: str
    name: str
    snapshotter: str = ""


class SnapshotRemove(msgspec.Struct, frozen=True, tag_field="type", tag="containerd.events.SnapshotRemove"):
    key: str
    snapshotter: str = ""


class Opaque(msgspec.Struct, frozen=True, tag_field="type", tag="any"):
    """A payload of a type that the store does not know; it is passed on as it came."""

    type_url: str
    value: bytes = b""


EventPayload = (
    NamespaceCreate | NamespaceUpdate | NamespaceDelete
    | ContainerCreate | ContainerUpdate | ContainerDelete
    | ImageCreate | ImageUpdate | ImageDelete
    | ContentCreate | ContentDelete
    | SnapshotPrepare | SnapshotCommit | SnapshotRemove
    | Opaque
)  # fmt: skip

TOPICS: dict[type[msgspec.Struct], str] = {
    NamespaceCreate: "/namespaces/create",
    NamespaceUpdate: "/namespaces/update",
    NamespaceDelete: "/namespaces/delete",
    ContainerCreate: "/containers/create",
    ContainerUpdate: "/containers/update",
    ContainerDelete: "/containers/delete",
    ImageCreate: "/images/create",
    ImageUpdate: "/images/update",
    ImageDelete: "/images/delete",
    ContentCreate: "/content/create",
    ContentDelete: "/content/delete",
    SnapshotPrepare: "/snapshot/prepare",
    SnapshotCommit: "/snapshot/commit",
    SnapshotRemove: "/snapshot/remove",
}
"""Under which topic the store tells of a change. Source: spec metadata 14.3."""


class Event(msgspec.Struct, frozen=True):
    """One entry of the journal. `sequence` only grows; `timestamp` is that of the change itself."""

    sequence: int
    timestamp: int
    namespace: str
    topic: str
    event: EventPayload
