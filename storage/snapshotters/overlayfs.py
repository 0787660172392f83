"""Overlayfs: each snapshot keeps what differs from its parent. Source: spec snapshots 8.2."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.records import Mount, SnapshotKind
from ...protocol.world import Files
from ..archive.apply import TargetKind
from ..archive.jobs import CopyTree
from .interface import Owner, Standing

__all__ = ["Overlayfs", "OverlayTraits"]

_MOST_LAYERS = 499  # the kernel takes 500, and what is committed will be one of them


class OverlayTraits:
    """What the kernel and the place of this process allow. `userxattr`: marks are kept in `user.*`, as a user
    namespace needs; `index_off`: the kernel knows the option."""

    def __init__(self, *, userxattr: bool = False, index_off: bool = True) -> None:
        self.userxattr = userxattr
        self.index_off = index_off


class Overlayfs:
    """`<id>/fs` is the upper folder, `<id>/work` the kernel's; views have no `work`."""

    name = "overlayfs"
    most_parents = _MOST_LAYERS
    rebase = True
    stacks = True
    plain = True

    def __init__(
        self, root: str, files: Files, traits: OverlayTraits, *, privileged: bool, mount_options: Sequence[str] = ()
    ) -> None:
        self._root = root
        self._files = files
        self._privileged = privileged
        self._extra = list(mount_options)
        if "userxattr" in self._extra:
            traits = OverlayTraits(userxattr=True, index_off=traits.index_off)
        self._traits = traits
        self.options = f"userxattr={traits.userxattr} owners={privileged}"
        if traits.userxattr and "userxattr" not in self._extra:
            self._extra.append("userxattr")
        if traits.index_off and not any(each.split("=")[0] == "index" for each in self._extra):
            self._extra.append("index=off")

    def prepare_root(self) -> None:
        self._files.make_folder(self._root)

    def needs_folder(self, standing: Standing) -> bool:
        return standing.kind is not SnapshotKind.VIEW or not standing.parents

    def make(self, standing: Standing, owner: Owner | None) -> CopyTree | None:
        folder = f"{self._root}/{standing.id}"
        self._files.new_folder(folder, 0o700)
        self._files.new_folder(f"{folder}/fs", 0o755)
        if owner is None and standing.parents:
            above = self._files.status(f"{self._root}/{standing.parents[0]}/fs")
            owner = Owner(above.uid, above.gid) if above is not None and self._privileged else None
        if owner is not None and owner != (0, 0):
            self._files.chown(f"{folder}/fs", owner.uid, owner.gid)
        if standing.kind is SnapshotKind.ACTIVE:
            self._files.new_folder(f"{folder}/work", 0o711)
        self._files.sync_folder(folder)
        self._files.sync_folder(self._root)
        return None

    def mounts(self, standing: Standing) -> list[Mount]:
        view = standing.kind is SnapshotKind.VIEW
        parents = [f"{self._root}/{parent}/fs" for parent in standing.parents]
        if not parents or (view and len(parents) == 1):
            source = parents[0] if parents else f"{self._root}/{standing.id}/fs"
            return [Mount("bind", source, "", ["ro" if view else "rw", "rbind"])]
        own = [] if view else [f"workdir={self._root}/{standing.id}/work", f"upperdir={self._root}/{standing.id}/fs"]
        return [Mount("overlay", "overlay", "", [*own, f"lowerdir={':'.join(parents)}", *self._extra])]

    def target(self, standing: Standing) -> tuple[str, TargetKind]:
        kind = TargetKind(
            overlay=bool(standing.parents),
            fresh=False,
            userxattr=self._traits.userxattr,
            owners=self._privileged,
            devices=self._privileged and not self._traits.userxattr,
        )
        return f"{standing.id}/fs", kind

    def tree(self, standing: Standing) -> list[str]:
        own = [f"{standing.id}/fs"] if self.needs_folder(standing) else []
        return [*own, *(f"{parent}/fs" for parent in standing.parents)]

    def own_tree(self, snapshot_id: int) -> str:
        return f"{snapshot_id}/fs"

    def remove(self, names: Sequence[str]) -> None:
        """Folders are all that there is."""
