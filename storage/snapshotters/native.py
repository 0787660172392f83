"""Native: each snapshot is a whole copy, its blocks shared where the file system can. Source: spec snapshots 8.1."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.records import Mount, SnapshotKind
from ...protocol.world import Files
from ..archive.apply import TargetKind
from ..archive.jobs import CopyTree
from .interface import Owner, Standing

__all__ = ["Native"]


class Native:
    """`<id>` is the tree itself; a view with a parent has none, and shows its parent's."""

    name = "native"
    most_parents = 1
    rebase = False
    stacks = False
    plain = True

    def __init__(self, root: str, files: Files, *, privileged: bool, devices: bool) -> None:
        self._root = root
        self._files = files
        self._privileged = privileged
        self._devices = devices
        self.options = f"owners={privileged} devices={devices}"

    def prepare_root(self) -> None:
        self._files.make_folder(self._root)

    def needs_folder(self, standing: Standing) -> bool:
        return standing.kind is not SnapshotKind.VIEW or not standing.parents

    def make(self, standing: Standing, owner: Owner | None) -> CopyTree | None:
        folder = f"{self._root}/{standing.id}"
        self._files.new_folder(folder, 0o755)
        if owner is not None:
            self._files.chown(folder, owner.uid, owner.gid)
        self._files.sync_folder(self._root)
        if not standing.parents:
            return None
        return CopyTree(str(standing.parents[0]), str(standing.id), own=self._privileged)

    def mounts(self, standing: Standing) -> list[Mount]:
        shown = standing.id if self.needs_folder(standing) else standing.parents[0]
        view = standing.kind is SnapshotKind.VIEW
        return [Mount("bind", f"{self._root}/{shown}", "", ["rbind", "ro" if view else "rw"])]

    def target(self, standing: Standing) -> tuple[str, TargetKind]:
        return str(standing.id), TargetKind(overlay=False, fresh=False, owners=self._privileged, devices=self._devices)

    def tree(self, standing: Standing) -> list[str]:
        return [str(standing.id if self.needs_folder(standing) else standing.parents[0])]

    def own_tree(self, snapshot_id: int) -> str:
        return str(snapshot_id)

    def remove(self, names: Sequence[str]) -> None:
        """Folders are all that there is."""
