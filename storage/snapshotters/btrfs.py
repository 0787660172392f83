"""Btrfs: each snapshot is a subvolume, and shares what did not change with its parent. Source: spec snapshots 8.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...protocol.errors import InvalidArgument
from ...protocol.records import Mount, SnapshotKind
from ...protocol.world import Files, Subvolumes
from ..archive.apply import TargetKind
from ..archive.jobs import CopyTree
from .interface import Owner, Standing

__all__ = ["NOT_ON_BTRFS", "Btrfs"]

NOT_ON_BTRFS: Final = "the store does not lie on btrfs"


class Btrfs:
    """`<id>` is the subvolume. Mounts are binds: they need neither the device nor an id that only the disk knows."""

    name = "btrfs"
    most_parents = 1
    rebase = False
    stacks = False
    plain = False  # a new subvolume is durable with all of the file system

    def __init__(self, root: str, files: Files, subvolumes: Subvolumes, *, privileged: bool, devices: bool) -> None:
        self._root = root
        self._files = files
        self._subvolumes = subvolumes
        self._privileged = privileged
        self._devices = devices
        self.options = f"owners={privileged} devices={devices}"

    def prepare_root(self) -> None:
        self._files.make_folder(self._root)
        if not self._subvolumes.possible(self._root):
            raise InvalidArgument(f"snapshotter btrfs: {NOT_ON_BTRFS}")

    def needs_folder(self, standing: Standing) -> bool:
        return standing.kind is not SnapshotKind.VIEW or not standing.parents

    def make(self, standing: Standing, owner: Owner | None) -> CopyTree | None:
        folder = f"{self._root}/{standing.id}"
        if standing.parents:
            self._subvolumes.clone(f"{self._root}/{standing.parents[0]}", folder)
        else:
            self._subvolumes.make(folder)
            self._files.chmod(folder, 0o755)
        if owner is not None:
            self._files.chown(folder, owner.uid, owner.gid)
        self._files.sync_folder(self._root)
        return None

    def mounts(self, standing: Standing) -> list[Mount]:
        shown = standing.id if self.needs_folder(standing) else standing.parents[0]
        view = standing.kind is SnapshotKind.VIEW
        return [Mount("bind", f"{self._root}/{shown}", "", ["rbind", "ro" if view else "rw"])]

    def target(self, standing: Standing) -> tuple[str, TargetKind]:
        kind = TargetKind(overlay=False, fresh=False, owners=self._privileged, devices=self._devices)
        return str(standing.id), kind

    def tree(self, standing: Standing) -> list[str]:
        return [str(standing.id if self.needs_folder(standing) else standing.parents[0])]

    def own_tree(self, snapshot_id: int) -> str:
        return str(snapshot_id)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self._subvolumes.remove(f"{self._root}/{name}")
            except OSError:  # gone already, or it goes as a folder: that is tried next, and told of
                pass
