"""Snapshots, and layers laid onto them and made from them. An empty snapshotter is the store's default one."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..records import Descriptor, Mount, SnapshotInfo
from .common import ListRecords, Page

__all__ = [
    "ApplyDiff",
    "CleanupSnapshots",
    "CommitSnapshot",
    "CreateDiff",
    "DeleteSnapshot",
    "GetMounts",
    "GetSnapshot",
    "GetUsage",
    "ListSnapshots",
    "Mounts",
    "PrepareSnapshot",
    "SnapshotPage",
    "UpdateSnapshot",
    "ViewSnapshot",
]


class PrepareSnapshot(msgspec.Struct, frozen=True):
    """A new active snapshot on a committed one, or on nothing."""

    key: str
    parent: str = ""
    labels: dict[str, str] = {}
    snapshotter: str = ""


class ViewSnapshot(msgspec.Struct, frozen=True):
    """A new one that is only looked at."""

    key: str
    parent: str = ""
    labels: dict[str, str] = {}
    snapshotter: str = ""


class Mounts(msgspec.Struct, frozen=True):
    items: list[Mount]


class CommitSnapshot(msgspec.Struct, frozen=True):
    """Turn the active snapshot `key` into the committed one `name`, with just these labels. `parent`: one that it was
    not prepared on, where the snapshotter can do that."""

    name: str
    key: str
    labels: dict[str, str] = {}
    parent: str = ""
    snapshotter: str = ""


class GetMounts(msgspec.Struct, frozen=True):
    key: str
    snapshotter: str = ""


class GetSnapshot(msgspec.Struct, frozen=True):
    key: str
    snapshotter: str = ""


class UpdateSnapshot(msgspec.Struct, frozen=True):
    """Paths: labels, labels.<key>."""

    key: str
    labels: dict[str, str] = {}
    mask: list[str] | None = None
    snapshotter: str = ""


class ListSnapshots(ListRecords, frozen=True):
    snapshotter: str = ""


class GetUsage(msgspec.Struct, frozen=True):
    key: str
    snapshotter: str = ""


class DeleteSnapshot(msgspec.Struct, frozen=True):
    key: str
    snapshotter: str = ""


class CleanupSnapshots(msgspec.Struct, frozen=True):
    """Remove what nobody holds any more from the disk, without a collection."""

    snapshotter: str = ""


class ApplyDiff(msgspec.Struct, frozen=True):
    """Lay a layer that is in the store onto the active snapshot `key`."""

    key: str
    layer: Descriptor
    snapshotter: str = ""


class CreateDiff(msgspec.Struct, frozen=True):
    """Make a layer of what `upper` has beyond `lower`: None is its parent, empty the empty tree.

    `ref`: of the ingest, which begins anew. `source_date_epoch`: nanoseconds that no time in the layer is beyond.
    """

    upper: str
    lower: str | None = None
    media_type: str = ""
    ref: str = ""
    labels: dict[str, str] = {}
    source_date_epoch: Annotated[int, msgspec.Meta(ge=0)] | None = None
    snapshotter: str = ""


SnapshotPage = Page[SnapshotInfo]
