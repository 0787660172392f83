"""Which layers of an image are to be unpacked for this machine, and doing it for an image that is in the store.

Source: spec unpack 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from ..protocol.errors import FailedPrecondition, NotFound
from ..protocol.identifiers import check_digest, check_name, quote
from ..protocol.messages import Context, TransferState, Unpacked, UnpackImage
from ..protocol.records import Descriptor
from ..protocol.registry.documents import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_BYTES,
    Child,
    children,
    is_layer,
    kind_of,
)
from ..protocol.registry.platforms import Platform, best_first, parse_platform
from ..protocol.registry.rootfs import Layer, RootFs, layers_of, read_rootfs
from ..protocol.service import Session
from ..storage.tables import IMAGES
from .content import has_intact
from .content_actor import ContentActor
from .downloads import check_bytes
from .progress import Emit, Progress
from .snapshotters import Snapshotters
from .storage import StorageActor
from .unpacking import Show, UnpackActor, Unpacking
from .work_leases import WorkLeases

__all__ = ["ImageUnpacks", "is_rootfs", "read_document"]

_IMAGE_CONFIGS: Final = CONFIG_TYPES[:2]


def is_rootfs(media_type: str, found: Sequence[Child]) -> bool:
    """Whether a document is the manifest of an image that has a file system. Artefacts have other configs, or, like
    signatures, other things than layers."""
    parts = found[1:]
    layered = not parts or any(is_layer(part.media_type) for part in parts)
    return media_type in MANIFEST_TYPES and found[0].media_type in _IMAGE_CONFIGS and layered


async def read_document(content: ContentActor, context: Context, descriptor: Descriptor) -> bytes:
    """A small blob of the namespace, whole. Raises NotFound, FailedPrecondition (not what its descriptor says)."""
    async with content.reads.reading(descriptor.digest, context) as (size, read):
        if size != descriptor.size or size > MAX_DOCUMENT_BYTES:
            raise FailedPrecondition(
                f"{descriptor.digest} has {size} bytes here, its descriptor says {descriptor.size}"
            )
        data: bytes = await read(0, size)
    check_bytes(descriptor, data)
    return data


class ImageUnpacks:
    def __init__(
        self,
        storage: StorageActor,
        content: ContentActor,
        snapshotters: Snapshotters,
        unpacks: UnpackActor,
        leases: WorkLeases,
        host: Platform,
    ) -> None:
        self._storage = storage
        self._content = content
        self._snapshotters = snapshotters
        self._unpacks = unpacks
        self._leases = leases
        self._host = host

    async def unpack(self, request: UnpackImage, context: Context, _: Session, emit: Emit) -> Unpacked:
        """See Images.unpack."""
        check_name(request.name, "image name")
        snapshotter = await self._snapshotters.find(request.snapshotter)
        platform = parse_platform(request.platform, self._host) if request.platform else self._host
        progress = Progress(emit)
        async with self._leases.hold(context, request.name) as leased, progress.reporting():
            target = request.target
            if target is None:
                with self._storage.view() as view:
                    target = (await IMAGES.get(view, context.namespace or "", request.name)).target
            manifest = await self._manifest(leased, target, platform)
            parts = [child.descriptor for child in await self._children(leased, manifest)]
            layers = None
            if parts and parts[0].media_type in _IMAGE_CONFIGS:
                layers = await self.layers(leased, manifest.digest, parts[0], parts)
            if layers is None:
                raise FailedPrecondition(f"image {quote(request.name)} is no file system for {self._host.os}")
            start = await self._unpacks.present(snapshotter, layers, leased)
            unpacking = Unpacking(layers, parts[0].digest, leased, self._here(leased, layers), progress.show_unpacking)
            top = await self._unpacks.run(snapshotter, unpacking, start)
        return Unpacked(top, snapshotter.name)

    async def layers(
        self,
        context: Context,
        manifest: str,
        config: Descriptor,
        parts: Sequence[Descriptor],
        platforms: Sequence[Platform] = (),
    ) -> list[Layer] | None:
        """What a manifest's layers are, by its config; None: not for this kind of machine.

        Raises NotFound (for none of these `platforms`; empty: whatever it is for), FailedPrecondition (their numbers
        differ), InvalidArgument (no config).
        """
        rootfs = read_rootfs(await read_document(self._content, context, config), config.digest)
        _check_platform(rootfs.platform, platforms, manifest)
        found = layers_of(parts, rootfs, manifest)
        return found if self._suits(rootfs) else None

    async def bring(
        self,
        snapshotter_name: str,
        context: Context,
        manifest: str,
        parts: Sequence[Descriptor],
        fetch: Callable[[Descriptor], Awaitable[None]],
        show: Show,
        *,
        platforms: Sequence[Platform],
        fetch_all: bool,
    ) -> None:
        """Fetch what a manifest names and unpack it, each layer as soon as it is here; layers whose snapshots are there
        are not fetched, unless `fetch_all`. For another kind of machine it is fetched alone. `platforms`: as for
        `layers`."""
        config = parts[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._unpacks.warm)
            await fetch(config)
        layers = await self.layers(context, manifest, config, parts, platforms)
        others = [part for part in parts[1:] if not is_layer(part.media_type)]
        async with trio.open_nursery() as nursery:
            for part in others:
                nursery.start_soon(fetch, part)
            if layers is None:
                for part in parts[1:]:
                    if part not in others:
                        nursery.start_soon(fetch, part)
                return
            snapshotter = await self._snapshotters.find(snapshotter_name)
            start = await self._unpacks.present(snapshotter, layers, context)
            here = [trio.Event() for _ in layers]

            async def fetch_layer(index: int) -> None:
                await fetch(layers[index].descriptor)
                here[index].set()

            for index, layer in enumerate(layers):
                if index >= start or fetch_all:
                    nursery.start_soon(fetch_layer, index)
                else:
                    show(layer.descriptor, TransferState.UNPACKED, 0)

            async def fetched(index: int) -> None:
                await here[index].wait()

            await self._unpacks.run(snapshotter, Unpacking(layers, config.digest, context, fetched, show), start)

    def _suits(self, rootfs: RootFs) -> bool:
        return rootfs.kind in ("", "layers") and rootfs.platform.os.lower() in ("", self._host.os)

    def _here(self, context: Context, layers: Sequence[Layer]) -> Callable[[int], Awaitable[None]]:
        """Nothing is fetched: a layer is here, or it is missing."""

        async def here(index: int) -> None:
            digest = layers[index].descriptor.digest
            with self._storage.view() as view:
                if not await has_intact(view, context.namespace or "", digest):
                    raise NotFound(f"layer {digest}", hint="pull the image again")

        return here

    async def _manifest(self, context: Context, target: Descriptor, platform: Platform) -> Descriptor:
        """The image's manifest for a platform. Raises NotFound."""
        for _ in range(8):
            if target.media_type in MANIFEST_TYPES:
                return target
            if target.media_type not in INDEX_TYPES:
                break
            found = [child for child in await self._children(context, target) if kind_of(child.media_type) != "unknown"]
            best = best_first([child.platform for child in found], platform)
            if not best:
                raise NotFound(f"a manifest for platform {platform}")
            target = found[best[0]].descriptor
        raise FailedPrecondition(f"{target.digest} is no image: its type is {target.media_type}")

    async def _children(self, context: Context, descriptor: Descriptor) -> list[Child]:
        check_digest(descriptor.digest)
        data = await read_document(self._content, context, descriptor)
        return children(descriptor.media_type, data, descriptor.digest)


def _check_platform(found: Platform, wanted: Sequence[Platform], manifest: str) -> None:
    """A config that does not say what it is for suits everybody."""
    if not wanted or not found.os or not found.architecture:
        return
    if not any(best_first([found], each) for each in wanted):
        texts = ", ".join(str(each) for each in wanted)
        raise NotFound(f"manifest {manifest} for platform {texts}", hint=f"it is for {found}")
