"""Programs of an image put into a folder of this machine, straight from its layers. Source: spec cli 8, install.

Layers are foreign bytes. A confined worker lays what is wanted of them into a folder of its own inside the target, all
of them; only then is anything moved to its place, each file at once. Everything is reached from open folders, and no
link on the way is followed: what lies in the target may be anybody's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import trio

from ..actors.config import UnpackConfig
from ..actors.layers import layer_limits
from ..actors.workers import LayerWorkers
from ..protocol.api import Store
from ..protocol.archives.importing import suiting
from ..protocol.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from ..protocol.identifiers import quote
from ..protocol.messages import TransferProgress, TransferState
from ..protocol.records import Descriptor
from ..protocol.registry.documents import children
from ..protocol.registry.platforms import Platform
from ..protocol.registry.rootfs import Layer, layers_of, read_rootfs
from ..protocol.world import World
from ..storage.archive.apply import TargetKind
from ..storage.archive.jobs import ApplyLayer, Unpacked
from ..storage.archive.streams import reader_of
from .archives import as_ours

__all__ = ["Installed", "install_image"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OWN_FOLDER: Final = _FOLDER | os.O_NOFOLLOW
_SPECIAL: Final = stat.S_ISUID | stat.S_ISGID
Told = Callable[[TransferProgress], None]


class Installed(NamedTuple):
    """`names` below the target, in order. `notes`: what a person should know of how they lie there."""

    names: list[str]
    notes: list[str]


async def install_image(
    store: Store,
    name: str,
    path: str,
    world: World,
    platform: Platform,
    *,
    libs: bool = False,
    replace: bool = False,
    told: Told = lambda _: None,
) -> Installed:
    """Put what is right inside an image's `bin` (and `lib`, with `libs`) into the folders of those names in `path`,
    which is made if it is not there. Of several layers the last one's word counts.

    Raises NotFound (image, platform, a layer, nothing to install), AlreadyExists (a file, unless `replace`),
    FailedPrecondition (a layer is not what the image says; something in the target is no folder, or is one),
    InvalidArgument, DataLoss, NotImplemented (the layers), ResourceExhausted, PermissionDenied (disk).
    Cancellation and errors: nothing was installed, unless it was told of while files were moved. Durability: with the
    return.
    """
    layers = await _layers(store, name, platform)
    folders = ["bin", "lib"] if libs else ["bin"]
    notes: list[str] = []
    with as_ours(path):
        async with _opened(path) as target, _staging(target) as staged, world.processes.pool() as pool:
            workers = LayerWorkers(pool, world)
            for number, layer in enumerate(layers):
                notes += await _lay(store, workers, staged, layer, folders, number == 0, world, told)
            chosen = await trio.to_thread.run_sync(_chosen, staged, folders)
            if not chosen:
                raise NotFound(
                    f"anything to install in {' or '.join(folders)} of image {quote(name)}",
                    hint="" if libs else "--libs also looks in lib",
                )
            places = _Places(target, staged, path, chosen)
            try:
                await trio.to_thread.run_sync(places.fill, replace, world.user.gives_away)
            finally:
                places.close()
    return Installed([f"{folder}/{each}" for folder in folders for each in chosen.get(folder, [])], notes)


async def _layers(store: Store, name: str, platform: Platform) -> Sequence[Layer]:
    image = await store.images.get(name)
    manifest = await suiting(store, image.target, platform)
    if manifest is None:
        raise NotFound(f"image {quote(name)} for {platform}", hint="pull it for this machine first")
    found = children(manifest.media_type, await store.content.read(manifest.digest), manifest.digest)
    config, *rest = found
    rootfs = read_rootfs(await store.content.read(config.digest), config.digest)
    layers = layers_of([each.descriptor for each in rest], rootfs, manifest.digest)
    for layer in layers:
        reader_of(layer.descriptor.media_type)
        if not await store.content.has(layer.descriptor.digest):
            raise NotFound(
                f"layer {layer.descriptor.digest} of image {quote(name)}",
                hint="pull --fetch-all brings layers whose snapshots are here, too",
            )
    return layers


async def _lay(
    store: Store,
    workers: LayerWorkers,
    staged: int,
    layer: Layer,
    folders: list[str],
    lowest: bool,
    world: World,
    told: Told,
) -> list[str]:
    """What is wanted of one layer, onto what came of those below it."""
    config = UnpackConfig()
    kind = TargetKind(overlay=False, fresh=lowest, owners=world.user.gives_away, devices=False)
    job = ApplyLayer(".", layer.descriptor.media_type, kind, layer_limits(config), only=folders)
    async with _copied(store, layer.descriptor, staged, told) as copy:
        with trio.move_on_after(config.time_s) as patience:
            done = await workers.run_in(staged, job, [copy])
    if patience.cancelled_caught:
        raise ResourceExhausted(f"layer {layer.descriptor.digest} was not read within {config.time_s:g} s")
    assert isinstance(done, Unpacked)
    if done.digest != layer.diff_id:
        raise FailedPrecondition(
            f"layer {layer.descriptor.digest} unpacks to {done.digest}, its config says {layer.diff_id}"
        )
    return done.applied.warnings


@asynccontextmanager
async def _copied(store: Store, layer: Descriptor, staged: int, told: Told) -> AsyncIterator[int]:
    """An open file without a name, which holds the layer's verified bytes: the store may be anywhere."""
    name = f"layer ({layer.digest.partition(':')[2][:12]})"
    copy = os.open("layer", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=staged)
    try:
        os.unlink("layer", dir_fd=staged)
        came = 0
        async with store.content.chunks(layer.digest, verify=True) as pieces:
            async for piece in pieces:
                await trio.to_thread.run_sync(_write, copy, piece)
                came += len(piece)
                told(TransferProgress(name, TransferState.UNPACKING, layer.digest, "layer", came, layer.size))
        yield copy
        told(TransferProgress(name, TransferState.UNPACKED, layer.digest, "layer", came, layer.size))
    finally:
        os.close(copy)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


@asynccontextmanager
async def _opened(path: str) -> AsyncIterator[int]:
    """The target itself is the caller's word: a link there is followed."""

    def opened() -> int:
        try:
            os.makedirs(path, 0o755, exist_ok=True)
        except FileExistsError:
            pass  # a file, which the next line refuses in better words
        return os.open(path, _FOLDER)

    fd = await trio.to_thread.run_sync(opened)
    try:
        yield fd
    finally:
        os.close(fd)


@asynccontextmanager
async def _staging(target: int) -> AsyncIterator[int]:
    """A folder in the target, so that what is in it can be moved to its place at once. It goes with the block."""
    name = f".orlop-install-{secrets.token_hex(6)}"
    os.mkdir(name, 0o700, dir_fd=target)
    try:
        fd = os.open(name, _OWN_FOLDER, dir_fd=target)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        with trio.CancelScope(shield=True):  # as long as it takes to remove files
            await trio.to_thread.run_sync(lambda: shutil.rmtree(name, ignore_errors=True, dir_fd=target))


def _chosen(staged: int, folders: Sequence[str]) -> dict[str, list[str]]:
    """What came of the layers, by its folder. Blocks."""
    found = {}
    for folder in folders:
        try:
            fd = os.open(folder, _OWN_FOLDER, dir_fd=staged)
        except FileNotFoundError:
            continue
        try:
            names = sorted(os.listdir(fd))
        finally:
            os.close(fd)
        if names:
            found[folder] = names
    return found


class _Places:
    """Where files lie, and where they are to lie. All of it blocks."""

    def __init__(self, target: int, staged: int, path: str, chosen: dict[str, list[str]]) -> None:
        self._target = target
        self._staged = staged
        self._path = path
        self._chosen = chosen
        self._open: list[int] = []

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)

    def fill(self, replace: bool, owners: bool) -> None:
        """Everything that speaks against it is found before anything is moved."""
        pairs = {folder: (self._staged_folder(folder), self._target_folder(folder)) for folder in self._chosen}
        for folder, (source, target) in pairs.items():
            for name in self._chosen[folder]:
                self._check(f"{folder}/{name}", name, target, replace)
                if not owners:
                    _drop_special(name, source)
                _sync(name, source)
        for folder, (source, target) in pairs.items():
            for name in self._chosen[folder]:
                self._move(f"{folder}/{name}", name, source, target, replace)
            os.fsync(target)
        os.fsync(self._target)

    def _staged_folder(self, folder: str) -> int:
        fd = os.open(folder, _OWN_FOLDER, dir_fd=self._staged)
        self._open.append(fd)
        return fd

    def _target_folder(self, folder: str) -> int:
        """Made if it is not there. A link in its place may lead anywhere."""
        try:
            os.mkdir(folder, 0o755, dir_fd=self._target)
        except FileExistsError:
            pass
        try:
            fd = os.open(folder, _OWN_FOLDER, dir_fd=self._target)
        except OSError:
            raise FailedPrecondition(
                f"{folder} in {self._path} is not a folder, or a link to one", hint="install somewhere else: --path DIR"
            ) from None
        self._open.append(fd)
        return fd

    def _check(self, shown: str, name: str, target: int, replace: bool) -> None:
        try:
            status = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise FailedPrecondition(f"{shown} in {self._path} is a folder, which no file replaces")
        if not replace:
            raise self._is_there(shown)

    def _move(self, shown: str, name: str, source: int, target: int, replace: bool) -> None:
        """At once: whoever looks sees the old file or the new one, and who runs the old one goes on with it."""
        if replace:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            return
        try:  # unlike a rename, a link takes nobody's place
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except FileExistsError:
            raise self._is_there(shown) from None

    def _is_there(self, shown: str) -> AlreadyExists:
        return AlreadyExists(f"cannot replace {shown} in {self._path}", hint="--replace does")


def _drop_special(name: str, folder: int) -> None:
    """Whose file it was to be is not kept, so nobody is to run it as its owner."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode) and status.st_mode & _SPECIAL:
        os.chmod(name, stat.S_IMODE(status.st_mode) & ~_SPECIAL, dir_fd=folder)


def _sync(name: str, folder: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:  # its own owner may not read it
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
