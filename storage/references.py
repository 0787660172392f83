"""Who keeps whom alive: roots, references and expiry, read off the records.

One place for what labels and built-in fields mean to the collector. Source: spec gc 3 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from ..protocol.labels import GC_EXPIRE, GC_FLAT, GC_ROOT
from ..protocol.records import Container, ContentInfo, Image, Lease, Sandbox, SnapshotInfo
from .engine import Kind, Node

__all__ = ["back_references", "expiry_ns", "is_flat", "is_root", "may_free", "references", "resource_node"]

_REF = "containerd.io/gc.ref."
_BACK = "containerd.io/gc.bref."
_NAMED = {"content": Kind.CONTENT, "image": Kind.IMAGE, "container": Kind.CONTAINER}
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def expiry_ns(labels: Mapping[str, str]) -> int | None:
    """When `containerd.io/gc.expire` ends protection. None: never, also for a value that is no RFC 3339 time."""
    text = labels.get(GC_EXPIRE)
    if text is None:
        return None
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    fraction = match.group(1) or ""
    try:
        moment = datetime.fromisoformat(text.replace(fraction, "", 1))
    except ValueError:
        return None
    since = moment - _EPOCH
    nanoseconds = int((fraction[1:] + "0" * 9)[:9])
    return (since.days * 86400 + since.seconds) * 1_000_000_000 + nanoseconds


def is_flat(lease: Lease) -> bool:
    return GC_FLAT in lease.labels


def is_root(record: msgspec.Struct, now_ns: int) -> bool:
    """Whether the object protects itself. Ingests and lease entries are judged by the collector."""
    if isinstance(record, Container | Sandbox):
        return True
    if isinstance(record, Image | Lease):
        expires = expiry_ns(record.labels)
        return expires is None or now_ns <= expires
    if isinstance(record, ContentInfo | SnapshotInfo):
        return any(key.startswith(GC_ROOT) for key in record.labels)
    return False


def references(namespace: str, record: msgspec.Struct) -> Iterator[Node]:
    """What this object keeps alive, within its own namespace."""
    if isinstance(record, Image):
        yield Node(Kind.CONTENT, namespace, record.target.digest)
    if isinstance(record, Container) and record.snapshotter:
        yield Node(Kind.SNAPSHOT, namespace, f"{record.snapshotter}/{record.snapshot_key}")
    if isinstance(record, SnapshotInfo) and record.parent:
        yield Node(Kind.SNAPSHOT, namespace, f"{record.snapshotter}/{record.parent}")
    if isinstance(record, Image | Container | Sandbox | ContentInfo | SnapshotInfo) and record.labels:
        yield from _labelled(namespace, record.labels, _REF)


def back_references(namespace: str, record: msgspec.Struct) -> Iterator[Node]:
    """What keeps this object alive by a label on the object itself."""
    if isinstance(record, Image | ContentInfo | SnapshotInfo):
        yield from _labelled(namespace, record.labels, _BACK)


def may_free(namespace: str, before: msgspec.Struct, after: msgspec.Struct) -> bool:
    """Whether replacing one record by the other takes a reference or a root reason away."""
    if is_root(before, 0) and not is_root(after, 0):
        return True
    for edges in (references, back_references):
        if not set(edges(namespace, before)) <= set(edges(namespace, after)):
            return True
    return False


def resource_node(namespace: str, resource_type: str, resource_id: str) -> Node | None:
    """The node that a lease's entry names. Source: spec metadata 12.5."""
    if resource_type == "content":
        return Node(Kind.CONTENT, namespace, resource_id)
    if resource_type == "images":
        return Node(Kind.IMAGE, namespace, resource_id)
    if resource_type == "ingests":
        return Node(Kind.INGEST, namespace, resource_id)
    if resource_type.startswith("snapshots/"):
        return Node(Kind.SNAPSHOT, namespace, f"{resource_type.partition('/')[2]}/{resource_id}")
    return None


def _labelled(namespace: str, labels: Mapping[str, str], prefix: str) -> Iterator[Node]:
    for key, value in labels.items():
        if not key.startswith(prefix):
            continue
        rest = key[len(prefix) :]
        if rest.startswith("snapshot."):
            # A dot belongs to the snapshotter's name; only a slash begins a free one.
            yield Node(Kind.SNAPSHOT, namespace, f"{rest[9:].partition('/')[0]}/{value}")
            continue
        name = re.split(r"[./]", rest, maxsplit=1)[0]
        kind = _NAMED.get(name)
        if kind is not None and not (prefix == _REF and kind is Kind.CONTAINER):
            yield Node(kind, namespace, value)
