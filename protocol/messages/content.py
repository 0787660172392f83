"""Blobs, and the ingests that make them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from ..records import ContentInfo, IngestStatus
from .common import PAGE_LIMIT_DEFAULT, Handle, Limit, ListRecords, Page, Size

__all__ = [
    "AbortIngest",
    "CloseContent",
    "CloseIngest",
    "CommitIngest",
    "ContentPage",
    "DeleteContent",
    "GetContent",
    "GetIngest",
    "IngestPage",
    "ListContent",
    "ListIngests",
    "OpenContent",
    "OpenIngest",
    "OpenedContent",
    "OpenedIngest",
    "PutContent",
    "ReadContent",
    "TruncateIngest",
    "UpdateContent",
    "Verified",
    "VerifyContent",
    "VerifyProgress",
    "VerifyState",
    "WriteIngest",
    "WrittenIngest",
]


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


ContentPage = Page[ContentInfo]
IngestPage = Page[IngestStatus]
