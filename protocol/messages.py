"""Requests and answers, one struct each. Fields only grow, at the end of the wire's map, with a default.

Without a mask, or with an empty one, everything that may be replaced is.
Every list answers one page: go on with `after` = the page's `next` until that is empty.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Generic, TypeVar

import msgspec

from .records import (
    Container,
    ContentInfo,
    Descriptor,
    Event,
    EventPayload,
    Image,
    IngestStatus,
    Lease,
    LeaseResource,
    Namespace,
    Sandbox,
)

PAGE_LIMIT_MAX = 1000
PAGE_LIMIT_DEFAULT = 200
MAX_CHUNK_BYTES = 256 * 1024
MAX_WRITE_BYTES = 1024 * 1024
MAX_INLINE_BYTES = 16 * 1024
"""Blobs up to here live in the engine; `content.put` takes no more."""

Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_LIMIT_MAX)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Handle = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Lifetime = Annotated[int, msgspec.Meta(ge=1, le=10 * 365 * 24 * 3600)]
R = TypeVar("R")


class Context(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes with a call beside its arguments, as containerd sends it in headers.

    `timeout_ms` counts from the arrival of the request; `credit` is how many chunks of a stream may be sent
    before the caller grants more.
    """

    namespace: str | None = None
    lease: str | None = None
    timeout_ms: int | None = None
    traceparent: str | None = None
    credit: Annotated[int, msgspec.Meta(ge=0, le=256)] = 16


class Page(msgspec.Struct, Generic[R], frozen=True):
    """`next` is opaque; give it back as `after`. Empty: this was the last page."""

    items: list[R]
    next: str = ""


class ListRecords(msgspec.Struct, frozen=True):
    """One page of a list, or of the chunks of its streaming form, of at most `limit` records.

    `filters`: records that match any of them; none, or an empty one, lets everything pass. A page may be short
    and yet have a `next`: the store looks at a bounded number of records for each.
    `fields`: leave out all others but those that a record must have; none named, leave out nothing.
    """

    filters: list[str] = []
    after: str = ""
    limit: Limit = PAGE_LIMIT_DEFAULT
    fields: list[str] = []


class Empty(msgspec.Struct, frozen=True):
    pass


# hello ---------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True):
    """The first call on every connection. `protocols` are the versions that the client speaks."""

    protocols: list[int]
    client: str = ""


class Limits(msgspec.Struct, frozen=True):
    """What the server takes. Sizes in bytes."""

    request_bytes: int = 256 * 1024
    large_request_bytes: int = MAX_WRITE_BYTES + 4096
    requests_in_flight: int = 1024
    streams: int = 64
    chunk_bytes: int = MAX_CHUNK_BYTES
    write_bytes: int = MAX_WRITE_BYTES
    inline_bytes: int = MAX_INLINE_BYTES
    transaction_operations: int = 250
    transaction_writes: int = 1000
    transaction_bytes: int = 1024 * 1024


class Welcome(msgspec.Struct, frozen=True):
    protocol: int
    server: str
    store: str
    """The store's own UUID: it stays the same for the life of the data."""
    store_format: int
    pid: int
    capabilities: list[str]
    """`descriptors`: blobs can be read through passed file descriptors."""
    limits: Limits


# namespaces ----------------------------------------------------------------------------------------------


class CreateNamespace(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}


class GetNamespace(msgspec.Struct, frozen=True):
    name: str


class ListNamespaces(msgspec.Struct, frozen=True):
    after: str = ""
    limit: Limit = PAGE_LIMIT_DEFAULT
    filters: list[str] = []
    """Taken and ignored, as containerd does; nothing of a namespace is filterable."""


class UpdateNamespace(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}
    mask: list[str] | None = None


class DeleteNamespace(msgspec.Struct, frozen=True):
    name: str


# images --------------------------------------------------------------------------------------------------


class CreateImage(msgspec.Struct, frozen=True):
    name: str
    target: Descriptor
    labels: dict[str, str] = {}
    source_date_epoch: int | None = None
    """Nanoseconds; stands for "now" in created_at and updated_at."""


class GetImage(msgspec.Struct, frozen=True):
    name: str


class ListImages(ListRecords, frozen=True):
    pass


class UpdateImage(msgspec.Struct, frozen=True):
    name: str
    target: Descriptor | None = None
    labels: dict[str, str] = {}
    mask: list[str] | None = None
    source_date_epoch: int | None = None


class DeleteImage(msgspec.Struct, frozen=True):
    name: str
    target: str = ""
    """Only if the image has this digest. Empty: whatever it has."""
    sync: bool = False
    """Answer when a collection that began after the delete has ended."""


# containers ----------------------------------------------------------------------------------------------


class CreateContainer(msgspec.Struct, frozen=True):
    """The times in `container` are ignored: the store sets them."""

    container: Container


class GetContainer(msgspec.Struct, frozen=True):
    id: str


class ListContainers(ListRecords, frozen=True):
    pass


class UpdateContainer(msgspec.Struct, frozen=True):
    """Paths: labels, labels.<key>, extensions, extensions.<key>, spec, image, snapshotkey."""

    container: Container
    mask: list[str] | None = None


class DeleteContainer(msgspec.Struct, frozen=True):
    id: str


# sandboxes -----------------------------------------------------------------------------------------------


class CreateSandbox(msgspec.Struct, frozen=True):
    sandbox: Sandbox


class GetSandbox(msgspec.Struct, frozen=True):
    sandbox_id: str


class ListSandboxes(ListRecords, frozen=True):
    pass


class UpdateSandbox(msgspec.Struct, frozen=True):
    """Paths: labels, labels.<key>, extensions, extensions.<key>, spec, runtime."""

    sandbox: Sandbox
    mask: list[str] | None = None


class DeleteSandbox(msgspec.Struct, frozen=True):
    sandbox_id: str


# content -------------------------------------------------------------------------------------------------


class GetContent(msgspec.Struct, frozen=True):
    digest: str


class ListContent(ListRecords, frozen=True):
    pass


class UpdateContent(msgspec.Struct, frozen=True):
    digest: str
    labels: dict[str, str] = {}
    mask: list[str] | None = None


class DeleteContent(msgspec.Struct, frozen=True):
    digest: str


class PutContent(msgspec.Struct, frozen=True):
    """A whole small blob in one call. `expected` empty: whatever the bytes hash to, with sha256."""

    data: bytes
    expected: str = ""
    media_type: str = ""
    labels: dict[str, str] = {}


class OpenContent(msgspec.Struct, frozen=True):
    """A small blob comes with the answer. Of a larger one the answer brings a file descriptor, where `descriptor`
    asks for it (unix sockets), else the handle of a reader for `content.read`."""

    digest: str
    descriptor: bool = True


class OpenedContent(msgspec.Struct, frozen=True):
    size: int
    data: bytes | None = None
    """The bytes themselves, of a blob that lives in the engine."""
    descriptor: bool = False
    """A file descriptor came with this answer: read-only, positioned at 0, the caller's to close."""
    reader: int = 0
    """Good on this connection until `content.close`; it reads on also when the blob is deleted."""


class ReadContent(msgspec.Struct, frozen=True):
    """Stream of bytes, of a blob by its digest or of an open reader. `length` 0: to the end.

    `verify`: hash them on the way; of a whole blob only. Wrong bytes end in DataLoss before the last chunk.
    """

    digest: str = ""
    offset: Size = 0
    length: Size = 0
    reader: Handle = 0
    verify: bool = False


class VerifyContent(msgspec.Struct, frozen=True):
    """Hash blobs of the namespace again; none named, all of them. `bytes_per_s`: no faster than that."""

    digests: list[str] = []
    bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] | None = None


class VerifyState(Enum):
    CHECKING = "checking"
    INTACT = "intact"
    DAMAGED = "damaged"
    """The bytes are not what the digest says, or gone. Reads now say so; a new ingest or pull heals it."""
    MISSING = "missing"
    """The namespace has no such content."""


class VerifyProgress(msgspec.Struct, frozen=True):
    digest: str
    state: VerifyState
    offset: int = 0
    total: int = 0
    sources: dict[str, str] = {}
    """Of damaged content: registry and repositories that it came from."""


class Verified(msgspec.Struct, frozen=True):
    """How many blobs were looked at, how many of them are damaged or missing, and how many bytes were read."""

    checked: int = 0
    damaged: int = 0
    missing: int = 0
    bytes: int = 0


class CloseContent(msgspec.Struct, frozen=True):
    reader: Handle


class OpenIngest(msgspec.Struct, frozen=True):
    ref: str
    size: Size = 0
    expected: str = ""
    media_type: str = ""


class OpenedIngest(msgspec.Struct, frozen=True):
    """`writer` is good on this connection only, until commit, close or its end."""

    writer: int
    status: IngestStatus


class WriteIngest(msgspec.Struct, frozen=True):
    """Bytes for `offset`, which must be the current one; 0 starts the ingest afresh. Up to 1 MiB."""

    writer: Handle
    offset: Size
    data: bytes


class WrittenIngest(msgspec.Struct, frozen=True):
    offset: int


class TruncateIngest(msgspec.Struct, frozen=True):
    writer: Handle
    size: Size = 0


class CommitIngest(msgspec.Struct, frozen=True):
    """`size` 0 and `expected` empty: not checked (what the open announced still is)."""

    writer: Handle
    size: Size = 0
    expected: str = ""
    labels: dict[str, str] = {}


class CloseIngest(msgspec.Struct, frozen=True):
    writer: Handle


class GetIngest(msgspec.Struct, frozen=True):
    ref: str


class ListIngests(msgspec.Struct, frozen=True):
    filters: list[str] = []
    after: str = ""
    limit: Limit = PAGE_LIMIT_DEFAULT


class AbortIngest(msgspec.Struct, frozen=True):
    ref: str


# leases --------------------------------------------------------------------------------------------------


class CreateLease(msgspec.Struct, frozen=True):
    """`id` empty: the store makes one up. `expires_in_s`: seconds, by the store's clock; it becomes the label
    `containerd.io/gc.expire`."""

    id: str = ""
    labels: dict[str, str] = {}
    expires_in_s: Lifetime | None = None


class GetLease(msgspec.Struct, frozen=True):
    id: str


class ListLeases(ListRecords, frozen=True):
    pass


class UpdateLease(msgspec.Struct, frozen=True):
    """Paths: labels, labels.<key>. `expires_in_s` sets the label `containerd.io/gc.expire` beside them; with it, and
    neither labels nor a mask, nothing else changes."""

    id: str
    labels: dict[str, str] = {}
    mask: list[str] | None = None
    expires_in_s: Lifetime | None = None


class DeleteLease(msgspec.Struct, frozen=True):
    id: str
    sync: bool = False


class AddLeaseResource(msgspec.Struct, frozen=True):
    id: str
    resource: LeaseResource


class DeleteLeaseResource(msgspec.Struct, frozen=True):
    id: str
    resource: LeaseResource


class ListLeaseResources(msgspec.Struct, frozen=True):
    id: str
    after: str = ""
    limit: Limit = PAGE_LIMIT_DEFAULT


# events --------------------------------------------------------------------------------------------------


class ListEvents(msgspec.Struct, frozen=True):
    """Events after the sequence number `after` (0: from the beginning), from all namespaces."""

    after: Size = 0
    limit: Limit = PAGE_LIMIT_DEFAULT
    filters: list[str] = []


class EventsPage(msgspec.Struct, frozen=True):
    items: list[Event]
    next: int
    """Give it back as `after`; it is the last sequence number when there is nothing new."""


class SubscribeEvents(msgspec.Struct, frozen=True):
    """Stream of events after the sequence number `after`; None: only what happens from now on."""

    after: Size | None = None
    filters: list[str] = []


class PublishEvent(msgspec.Struct, frozen=True):
    """An event of the caller's own, in the request's namespace, stamped by the store."""

    topic: str
    event: EventPayload


class ForwardEvent(msgspec.Struct, frozen=True):
    """An event that happened elsewhere, passed on with its own namespace and time."""

    timestamp: int
    namespace: str
    topic: str
    event: EventPayload


class Published(msgspec.Struct, frozen=True):
    sequence: int


# several changes as one ------------------------------------------------------------------------------------


class Resource(Enum):
    NAMESPACE = "namespace"
    IMAGE = "image"
    CONTAINER = "container"
    SANDBOX = "sandbox"
    CONTENT = "content"
    LEASE = "lease"


class Condition(Enum):
    EXISTS = "exists"
    ABSENT = "absent"
    UNCHANGED = "unchanged"


class Precondition(msgspec.Struct, frozen=True):
    """What must hold for a batch to be done. `record`: with UNCHANGED, the whole record as it was read."""

    resource: Resource
    name: str
    condition: Condition
    record: msgspec.Raw = msgspec.Raw(b"\xc0")


class Operation(msgspec.Struct, frozen=True):
    """One change of a batch: a method that may stand in one, and its arguments."""

    method: str
    arguments: msgspec.Raw


class Batch(msgspec.Struct, frozen=True):
    """Changes that happen all or not at all, in their order, in the request's namespace."""

    operations: list[Operation]
    preconditions: list[Precondition] = []


class BatchResult(msgspec.Struct, frozen=True):
    """What each operation would have answered by itself."""

    results: list[msgspec.Raw]


# introspection -------------------------------------------------------------------------------------------


class GetServer(msgspec.Struct, frozen=True):
    pass


class ServerInfo(msgspec.Struct, frozen=True):
    """`uuid` is the store's own and stays with the data; `pidns` is 0 where there is none."""

    uuid: str
    pid: int
    pidns: int
    version: str


class ListPlugins(msgspec.Struct, frozen=True):
    filters: list[str] = []


class Plugin(msgspec.Struct, frozen=True):
    type: str
    id: str
    capabilities: list[str] = []
    exports: dict[str, str] = {}


class Plugins(msgspec.Struct, frozen=True):
    items: list[Plugin]


# collection ----------------------------------------------------------------------------------------------


class Collect(msgspec.Struct, frozen=True):
    """Run a collection that begins now, and wait for it."""


class Collection(msgspec.Struct, frozen=True):
    """What a collection removed, counted over all namespaces; `freed` in bytes on disk."""

    leases: int = 0
    images: int = 0
    ingests: int = 0
    content: int = 0
    blobs: int = 0
    freed: int = 0
    duration_ms: int = 0


# transfer ------------------------------------------------------------------------------------------------


class Credentials(msgspec.Struct, frozen=True):
    """`user` empty and a `secret`: an identity token."""

    user: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, secret=…)"


class PullImage(msgspec.Struct, frozen=True):
    """Bring the image `reference` (taken literally) from its registry and record it under that name.

    `platforms` in order of preference, empty: the machine's own. With `all_platforms` everything is brought.
    """

    reference: str
    platforms: list[str] = []
    all_platforms: bool = False
    skip_metadata: bool = False
    """Leave out the manifests and configs of platforms that were not asked for."""
    plain_http: bool = False
    skip_verify: bool = False
    credentials: Credentials | None = None
    labels: dict[str, str] = {}
    max_concurrent_downloads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class PullState(Enum):
    RESOLVING = "resolving"
    RESOLVED = "resolved"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    EXISTS = "already exists"
    COMPLETE = "complete"
    SAVED = "saved"


class PullProgress(msgspec.Struct, frozen=True):
    """How one object of a pull stands. `transferred` counts bytes that came over the network."""

    name: str
    state: PullState
    digest: str = ""
    kind: str = ""
    offset: int = 0
    total: int = 0
    transferred: int = 0


# what a method's answer may hold, for those that read this file from the top
ImagePage = Page[Image]
NamespacePage = Page[Namespace]
ContentPage = Page[ContentInfo]
IngestPage = Page[IngestStatus]
LeasePage = Page[Lease]
ResourcePage = Page[LeaseResource]
ContainerPage = Page[Container]
SandboxPage = Page[Sandbox]
