"""What all calls share: their context, pages, and the greeting."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

import msgspec

__all__ = [
    "Context",
    "Empty",
    "Handle",
    "Hello",
    "Lifetime",
    "Limit",
    "Limits",
    "ListRecords",
    "MAX_CHUNK_BYTES",
    "MAX_INLINE_BYTES",
    "MAX_WRITE_BYTES",
    "PAGE_LIMIT_DEFAULT",
    "PAGE_LIMIT_MAX",
    "Page",
    "Size",
    "Welcome",
]


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
