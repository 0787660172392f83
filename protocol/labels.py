"""Labels and field masks: what may be written, and what a masked update leaves behind.

Source: spec metadata 4 and 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from .errors import InvalidArgument
from .identifiers import quote

__all__ = [
    "GC_EXPIRE",
    "GC_FLAT",
    "GC_BREF_CONTENT",
    "GC_REF_CONTENT",
    "GC_ROOT",
    "MAX_LABEL_BYTES",
    "GC_REF_SNAPSHOT",
    "SHAREABLE",
    "SNAPSHOT_REF",
    "UNCOMPRESSED",
    "check_labels",
    "check_mask",
    "is_source_label",
    "merge_map",
    "merge_sources",
    "source_label",
    "sources",
    "stored_labels",
]

V = TypeVar("V")

MAX_LABEL_BYTES = 4096  # key and value together, in UTF-8
MAX_MASK_PATHS = 512

GC_ROOT = "containerd.io/gc.root"
GC_EXPIRE = "containerd.io/gc.expire"
GC_FLAT = "containerd.io/gc.flat"
GC_REF_CONTENT = "containerd.io/gc.ref.content"
GC_BREF_CONTENT = "containerd.io/gc.bref.content"
GC_BREF_IMAGE = "containerd.io/gc.bref.image"
GC_REF_SNAPSHOT = "containerd.io/gc.ref.snapshot"
UNCOMPRESSED = "containerd.io/uncompressed"
SNAPSHOT_REF = "containerd.io/snapshot.ref"
SHAREABLE = "containerd.io/namespace.shareable"
_SOURCE = "containerd.io/distribution.source."


def source_label(host: str) -> str:
    """The label that remembers from which repositories of `host` (without port) a blob came."""
    return _SOURCE + (host if host.endswith("]") else host.rsplit(":", 1)[0])


def sources(labels: Mapping[str, str]) -> dict[str, str]:
    """Where a blob came from, by its labels: registry host to repositories."""
    return {key[len(_SOURCE) :]: value for key, value in labels.items() if key.startswith(_SOURCE)}


def is_source_label(key: str) -> bool:
    return key.startswith(_SOURCE)


def merge_sources(key: str, known: str, repository: str) -> str:
    """A source label's value with one more repository: sorted, without repeats. What would be too long a label
    stays as it is. Source: spec registry 8.2."""
    merged = ",".join(sorted({name for name in (*known.split(","), repository) if name}))
    return merged if len(key.encode()) + len(merged.encode()) <= MAX_LABEL_BYTES else known


def check_labels(labels: Mapping[str, str]) -> None:
    """Size of each label in bytes, and no value without a key. Raises InvalidArgument."""
    for key, value in labels.items():
        # Four bytes a character at most: most labels need no encoding to be judged.
        if 4 * (len(key) + len(value)) > MAX_LABEL_BYTES:
            total = len(key.encode()) + len(value.encode())
            if total > MAX_LABEL_BYTES:
                start = key.encode()[:64].decode(errors="ignore")
                raise InvalidArgument(
                    f"label {quote(start)} has {total} bytes with its value, more than {MAX_LABEL_BYTES}"
                )
        if not key and value:
            raise InvalidArgument("a label needs a key")


def stored_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Checked, and without empty values: an empty value means "no such label"."""
    check_labels(labels)
    return {key: value for key, value in labels.items() if value}


def merge_map(
    current: Mapping[str, V], given: Mapping[str, V], paths: Sequence[str] | None, field: str
) -> dict[str, V]:
    """Apply the mask paths that concern the map `field` and return the new map.

    No mask (or an empty one), or the path `field` itself, replaces the map; `field.<key>` sets that key, or
    removes it when it is absent or empty in `given`. Everything after the first dot is the key, dots included.
    """
    if not paths:
        return {key: value for key, value in given.items() if value}
    merged = dict(current)
    for path in paths:
        head, dot, key = path.partition(".")
        if head != field:
            continue
        if not dot:
            merged = {k: v for k, v in given.items() if v}
        elif value := given.get(key):
            merged[key] = value
        else:
            merged.pop(key, None)
    return merged


def check_mask(paths: Sequence[str] | None, allowed: Sequence[str], maps: Sequence[str], what: str) -> None:
    """Refuse any path that is neither in `allowed` nor a key of one of `maps`; nothing is changed then."""
    if not paths:
        return
    if len(paths) > MAX_MASK_PATHS:
        raise InvalidArgument(f"{what}: a mask has at most {MAX_MASK_PATHS} paths")
    for path in paths:
        head, dot, _ = path.partition(".")
        if not (path in allowed or (dot and head in maps)):
            raise InvalidArgument(f"cannot update {quote(path)} of {what}")
