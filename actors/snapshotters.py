"""Which snapshotters this store has, and which of them is the default: found out by trying."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

from ..protocol.errors import InvalidArgument, OrlopError
from ..protocol.identifiers import quote
from ..protocol.messages import PluginStatus
from ..protocol.world import Files, Work, World
from ..storage.blobs.local import disk_errors
from ..storage.snapshotters.btrfs import NOT_ON_BTRFS, Btrfs
from ..storage.snapshotters.interface import Snapshotter
from ..storage.snapshotters.native import Native
from ..storage.snapshotters.overlayfs import Overlayfs, OverlayTraits
from ..storage.snapshotters.probe import knows_index, overlay_refusal
from .config import SnapshotConfig

__all__ = ["SNAPSHOTTERS", "Snapshotters"]

log = structlog.get_logger("orlop.snapshots")

_NATIVE: Final = "native"
SNAPSHOTTERS: Final = ("overlayfs", "native", "btrfs")


class Snapshotters:
    """Each is set up when it is first asked for; the answer stays."""

    def __init__(self, store: str, world: World, config: SnapshotConfig) -> None:
        self._base = f"{store}/snapshots"
        self._world = world
        self._config = config
        self._known: dict[str, Snapshotter] = {}
        self._refused: dict[str, str] = {}  # why not, of those that were tried; empty: it works
        self._default = ""
        self._setting_up = trio.Lock()
        self._makers: Mapping[str, Callable[[str], Snapshotter]] = {
            "overlayfs": self._overlayfs,
            "native": self._native,
            "btrfs": self._btrfs,
        }

    @staticmethod
    def capabilities(snapshotter: str) -> list[str]:
        """`rebase`: a parent can be given at commit, so that layers are laid down side by side."""
        rebases = {Overlayfs.name: Overlayfs.rebase, Native.name: Native.rebase, Btrfs.name: Btrfs.rebase}
        return ["rebase"] if rebases[snapshotter] else []

    def root(self, snapshotter: str) -> str:
        return f"{self._base}/{snapshotter}"

    def known(self, name: str) -> Snapshotter | None:
        """One that is set up already; an empty name is the default."""
        return self._known.get(name or self._default)

    async def find(self, name: str) -> Snapshotter:
        """Raises InvalidArgument: there is no such snapshotter, or why it does not work here."""
        found = self.known(name)
        if found is not None:
            await trio.lowlevel.checkpoint()
            return found
        async with self._setting_up:
            if not name:
                name = self._default or await self._choose()
            return await self._set_up(name)

    async def _choose(self) -> str:
        """The configured one; else overlayfs where it can be mounted, else native."""
        if self._config.default:
            self._default = self._config.default
            return self._default
        refusal = await self._refusal("overlayfs")
        if refusal:
            log.info("the default snapshotter is native: overlayfs cannot be mounted here", reason=refusal)
        self._default = _NATIVE if refusal else "overlayfs"
        return self._default

    async def default(self) -> str:
        """The one where none is named. Raises Unavailable, ResourceExhausted (disk)."""
        async with self._setting_up:
            return self._default or await self._choose()

    async def state(self, name: str) -> tuple[PluginStatus, str]:
        """Whether one of SNAPSHOTTERS works here, and else why not; found out by trying, once. What the disk refused is
        tried again the next time."""
        async with self._setting_up:
            try:
                refusal = await self._refusal(name)
            except OrlopError as error:
                return PluginStatus.ERROR, error.message
        if not refusal:
            return PluginStatus.OK, ""
        wanted = name == self._config.default
        return (PluginStatus.ERROR if wanted else PluginStatus.SKIP), refusal

    async def _refusal(self, name: str) -> str:
        found = self._refused.get(name)
        if found is None:
            with disk_errors(f"snapshotter {name}"):
                found = await self._world.workers.run(Work.FILES, self._try, name)
            self._refused[name] = found
        return found

    async def _set_up(self, name: str) -> Snapshotter:
        found = self._known.get(name)
        if found is not None:
            return found
        maker = self._makers.get(name)
        if maker is None:
            raise InvalidArgument(f"snapshotter {quote(name)}", hint=f"there are: {', '.join(self._makers)}")
        with disk_errors(f"snapshotter {name}"):
            found = await self._world.workers.run(Work.FILES, maker, self.root(name))
            await self._world.workers.run(Work.FILES, found.prepare_root)
        self._known[name] = found
        return found

    # makers and a prober; they block

    def _overlayfs(self, root: str) -> Snapshotter:
        user = self._world.user
        traits = OverlayTraits(
            userxattr=user.in_user_namespace or user.uid != 0, index_off=knows_index(self._world.files)
        )
        return Overlayfs(
            root, self._world.files, traits, privileged=user.gives_away, mount_options=self._config.mount_options
        )

    def _native(self, root: str) -> Snapshotter:
        user = self._world.user
        return Native(
            root, self._world.files, privileged=user.gives_away, devices=user.uid == 0 and not user.in_user_namespace
        )

    def _btrfs(self, root: str) -> Snapshotter:
        user = self._world.user
        return Btrfs(
            root,
            self._world.files,
            self._world.subvolumes,
            privileged=user.gives_away,
            devices=user.uid == 0 and not user.in_user_namespace,
        )

    def _try(self, snapshotter: str) -> str:
        """Why it cannot work, and nothing if it can. Its own folder is not made."""
        user, files, root = self._world.user, self._world.files, self.root(snapshotter)
        _make_folder(files, self._base)
        there = files.status(root) is not None
        if there:
            _make_folder(files, root)
        name = f".probe-{self._world.random.token(6).hex()}"
        if snapshotter == "overlayfs":
            userxattr = user.in_user_namespace or user.uid != 0
            refusal = overlay_refusal(self._base, name, files, self._world.mounts, userxattr=userxattr)
            return refusal and f"overlayfs cannot be mounted here: {refusal}"
        if snapshotter == "btrfs":
            return "" if self._world.subvolumes.possible(root if there else self._base) else NOT_ON_BTRFS
        files.new_folder(f"{self._base}/{name}", 0o700)
        files.remove_tree(f"{self._base}/{name}")
        return ""


def _make_folder(files: Files, path: str) -> None:
    """Raises NotADirectoryError where something else has that name."""
    try:
        files.make_folder(path)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is not a folder") from None
