"""What a snapshotter is asked. It knows ids, folders and mounts; names, namespaces and leases are not its business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...protocol.records import Mount, SnapshotKind
from ..archive.apply import TargetKind
from ..archive.jobs import CopyTree

__all__ = ["Owner", "Snapshotter", "Standing"]


class Owner(NamedTuple):
    uid: int
    gid: int


class Standing(NamedTuple):
    """A snapshot and what it stands on: ids, `parents` nearest first."""

    id: int
    kind: SnapshotKind
    parents: Sequence[int]


class Snapshotter(Protocol):
    """Paths are relative to the snapshotter's root, `<store>/snapshots/<name>`; mounts name absolute ones.

    Functions that touch the disk say so and are called in a thread; the others only decide.
    """

    name: str
    rebase: bool
    """Whether a parent can be given at commit: layers are then laid down side by side."""
    most_parents: int
    """How many of a snapshot's ancestors it wants to know: all that can be mounted."""
    stacks: bool
    """Whether `most_parents` is a limit: more than those cannot be mounted."""
    plain: bool
    """Whether its snapshots are folders like any other: what is in them becomes durable by syncing it, file by file."""
    options: str
    """What else changes the files on disk; part of what a shared snapshot is found by."""

    def prepare_root(self) -> None:
        """Make the folders. Blocks. Raises OSError, InvalidArgument where it cannot work."""

    def needs_folder(self, standing: Standing) -> bool:
        """False for a view that shows its parent's folder."""

    def make(self, standing: Standing, owner: Owner | None) -> CopyTree | None:
        """Make the snapshot's folder, durably named; the job that fills it, if one must. Blocks."""

    def mounts(self, standing: Standing) -> list[Mount]: ...

    def target(self, standing: Standing) -> tuple[str, TargetKind]:
        """The folder that a layer is laid onto, and how."""

    def tree(self, standing: Standing) -> list[str]:
        """Folders that make up what it looks like, nearest first."""

    def own_tree(self, snapshot_id: int) -> str:
        """The folder whose size is the snapshot's."""

    def remove(self, names: Sequence[str]) -> None:
        """What must go in another way than as a folder, before folders of these names are removed. Blocks."""
