"""Images in another packing: layers recompressed, docker's media types to OCI's. File systems stay what they are."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import trio
import zstandard
from isal import isal_zlib

from ..actors.failures import first_of
from ..protocol.api import Store
from ..protocol.archives.importing import Repack
from ..protocol.errors import AlreadyExists, DataLoss, FailedPrecondition, NotFound
from ..protocol.identifiers import digest_of
from ..protocol.labels import UNCOMPRESSED
from ..protocol.messages import TransferProgress, TransferState
from ..protocol.records import ContentInfo, Descriptor, Image, LeaseResource
from ..protocol.registry.documents import (
    CONFIG_TYPES,
    INDEX_TYPES,
    children,
    document_labels,
    is_distributable,
    is_layer,
    kind_of,
)
from ..protocol.registry.platforms import Platform, best_first
from ..protocol.registry.rootfs import read_rootfs
from ..storage.archive.streams import decompressed
from .compression import Compression

__all__ = ["Conversion", "convert_image", "layer_compressor"]

_OCI: Final = {
    "application/vnd.docker.distribution.manifest.v2+json": "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json": INDEX_TYPES[0],
    "application/vnd.docker.container.image.v1+json": CONFIG_TYPES[0],
}
_SUFFIX: Final = {Compression.NONE: "", Compression.GZIP: "gzip", Compression.ZSTD: "zstd"}
_OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
_AHEAD: Final = 4
_GZIP_LEVEL: Final = 3
_GZIP_WINDOW: Final = 31
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
Told = Callable[[TransferProgress], None]


@dataclass(frozen=True)
class Conversion:
    """`layers`: how they are to be packed (None: as they are); with `plain_only` those that are not packed at all.
    `oci`: OCI's media types, the only ones for zstd."""

    layers: Compression | None = None
    oci: bool = False
    platforms: Sequence[Platform] = ()
    all_platforms: bool = False
    plain_only: bool = False


class _Converted(NamedTuple):
    """What became of one object."""

    media_type: str
    digest: str
    size: int

    def entry(self, before: dict[str, Any]) -> dict[str, Any]:
        said = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if before.get("digest") != self.digest:  # the old bytes, and where those can be had
            before = {key: value for key, value in before.items() if key not in ("data", "urls")}
        return {**before, **said}


async def convert_image(
    store: Store, source: str, target: str, conversion: Conversion, host: Platform, told: Told = lambda _: None
) -> Image:
    """Record the image `source` in another packing as `target`, which is made or moved. Of an index those manifests
    that were asked for, else the one for `host`; one alone becomes the image itself.

    Raises NotFound (image, platform, content), DataLoss (a layer is not what its config says), FailedPrecondition (no
    image). Cancellation: there is no image; what was made goes with the next collection.
    """
    image = await store.images.get(source)
    async with store.lease() as leased:
        root = await _Work(leased, conversion, told, host).convert(image.target)
        descriptor = Descriptor(root.media_type, root.digest, root.size)
        try:
            return await leased.images.create(target, descriptor, image.labels)
        except AlreadyExists:
            return await leased.images.update(target, target=descriptor, labels=image.labels)


def layer_compressor(store: Store, told: Told = lambda _: None) -> Repack:
    """What an import has done to its images: layers that are plain tars become gzip. See `import_archive`. `store` has
    a lease, which everything that is made joins."""
    work = _Work(store, Conversion(Compression.GZIP, all_platforms=True, plain_only=True), told)

    async def repack(target: Descriptor, kept: Collection[str]) -> Descriptor:
        made = await work.convert(target, kept=kept)
        return Descriptor(made.media_type, made.digest, made.size, target.annotations)

    return repack


class _Work:
    """`host`: for which an index is converted where nothing else is said."""

    def __init__(self, store: Store, conversion: Conversion, told: Told, host: Platform | None = None) -> None:
        self._store = store
        self._conversion = conversion
        self._host = host
        self._told = told
        self._oci = conversion.oci or conversion.layers is Compression.ZSTD
        self._layers: dict[tuple[str, str], _Converted] = {}  # images of one archive share some

    async def convert(self, descriptor: Descriptor, depth: int = 0, kept: Collection[str] | None = None) -> _Converted:
        """`kept`: nothing else is touched; of an index all that is in there, and its other entries stay."""
        kind = kind_of(descriptor.media_type)
        if kept is not None and (descriptor.digest not in kept or kind not in ("index", "manifest")):
            return _Converted(descriptor.media_type, descriptor.digest, descriptor.size)
        if kind not in ("index", "manifest"):
            raise FailedPrecondition(f"{descriptor.digest} is no image: its type is {descriptor.media_type}")
        data = await self._store.content.read(descriptor.digest)
        found = children(descriptor.media_type, data, descriptor.digest)
        document = msgspec.json.decode(data, type=dict[str, Any])
        if kind == "index":
            chosen = self._chosen([each.platform for each in found], descriptor.digest)
            made = [await self.convert(found[at].descriptor, depth + 1, kept) for at in chosen]
            if len(made) == 1 and not self._conversion.all_platforms:
                return made[0]
            entries = document["manifests"]
            document["manifests"] = [each.entry(entries[at]) for at, each in zip(chosen, made, strict=True)]
        elif found and found[0].media_type in CONFIG_TYPES[:2]:
            config = found[0]
            rootfs = read_rootfs(await self._store.content.read(config.digest), config.digest)
            wanted = self._conversion.platforms
            if depth == 0 and wanted and not any(best_first([rootfs.platform], each) for each in wanted):
                texts = ", ".join(str(each) for each in wanted)
                raise NotFound(f"image {descriptor.digest} for {texts}", hint=f"it is for {rootfs.platform}")
            layers = [each.descriptor for each in found[1:]]
            if len(rootfs.diff_ids) != len(layers):
                raise FailedPrecondition(
                    f"{descriptor.digest} has {len(layers)} layers, its config {len(rootfs.diff_ids)}"
                )
            made = [
                await self._layer_once(layer, diff_id) for layer, diff_id in zip(layers, rootfs.diff_ids, strict=True)
            ]
            await self._hold(config.digest)
            document["config"]["mediaType"] = self._type(config.media_type)
            document["layers"] = [each.entry(old) for old, each in zip(document["layers"], made, strict=True)]
        if document == msgspec.json.decode(data) and self._type(descriptor.media_type) == descriptor.media_type:
            await self._hold(descriptor.digest)
            return _Converted(descriptor.media_type, descriptor.digest, descriptor.size)
        return await self._document(descriptor.media_type, document)

    async def _hold(self, digest: str) -> None:
        """What is taken over as it is must not go before the record stands."""
        await self._store.leases.add(self._store.context.lease or "", LeaseResource(digest, "content"))

    def _chosen(self, platforms: Sequence[Platform | None], digest: str) -> list[int]:
        if self._conversion.all_platforms:
            return list(range(len(platforms)))
        chosen: list[int] = []
        for wanted in self._conversion.platforms or ([self._host] if self._host else []):
            best = best_first(platforms, wanted)
            if not best:
                raise NotFound(f"a manifest for platform {wanted} in index {digest}")
            if best[0] not in chosen:
                chosen.append(best[0])
        return sorted(chosen)

    async def _document(self, media_type: str, document: dict[str, Any]) -> _Converted:
        media_type = self._type(media_type)
        if "mediaType" in document or self._oci:
            document["mediaType"] = media_type
        data = msgspec.json.encode(document)
        digest = digest_of(data)
        labels = document_labels(media_type, data, digest)
        content = self._store.content
        info = await content.write(f"convert-{digest}", data, size=len(data), expected=digest, labels=labels)
        if any(info.labels.get(key) != value for key, value in labels.items()):
            await content.update(digest, labels, [f"labels.{key}" for key in labels])
        return _Converted(media_type, digest, len(data))

    def _type(self, media_type: str) -> str:
        return _OCI.get(media_type, media_type) if self._oci else media_type

    async def _layer_once(self, layer: Descriptor, diff_id: str) -> _Converted:
        known = self._layers.get((layer.digest, layer.media_type))
        if known is None:
            known = self._layers[layer.digest, layer.media_type] = await self._layer(layer, diff_id)
        return known

    async def _layer(self, layer: Descriptor, diff_id: str) -> _Converted:
        wanted = self._conversion.layers
        packed = _packing(layer.media_type)
        if self._conversion.plain_only and not await self._is_plain(layer, packed):
            return _Converted(layer.media_type, layer.digest, layer.size)
        if not is_layer(layer.media_type) or wanted is None or packed is wanted:
            await self._hold(layer.digest)
            return _Converted(_layer_type(layer.media_type, packed, oci=self._oci), layer.digest, layer.size)
        media_type = _layer_type(layer.media_type, wanted, oci=self._oci)
        if wanted is Compression.NONE:
            await self._hold(diff_id)
            try:
                info = await self._store.content.info(diff_id)
            except NotFound:
                pass
            else:
                return _Converted(media_type, info.digest, info.size)
        kind = kind_of(layer.media_type)
        name = f"{kind} ({layer.digest.partition(':')[2][:12]})"
        came = 0

        def count(piece: bytes) -> None:
            nonlocal came
            came += len(piece)
            self._told(TransferProgress(name, TransferState.CONVERTING, layer.digest, kind, came, layer.size))

        info = await self._pack(layer, diff_id, wanted, count)
        self._told(TransferProgress(name, TransferState.COMPLETE, layer.digest, kind, layer.size, layer.size))
        return _Converted(media_type, info.digest, info.size)

    async def _is_plain(self, layer: Descriptor, packed: Compression) -> bool:
        """Docker's plain type is also said of what is packed. What is not to be passed on stays as its maker packed it:
        others get it from him."""
        if packed is not Compression.NONE or not is_layer(layer.media_type) or not is_distributable(layer.media_type):
            return False
        async with self._store.content.open(layer.digest) as reader:
            head = await reader.read_at(0, min(4, reader.size))
        return not head.startswith((_GZIP_MAGIC, _ZSTD_MAGIC))

    async def _pack(
        self, layer: Descriptor, diff_id: str, wanted: Compression, count: Callable[[bytes], None]
    ) -> ContentInfo:
        """Bytes go through a thread that unpacks, checks and packs them."""
        send, receive = trio.open_memory_channel[bytes](_AHEAD)
        made = hashlib.sha256()

        async def hashed() -> AsyncGenerator[bytes, None]:
            async for piece in receive:
                made.update(piece)
                yield piece

        async def run(source: AsyncIterator[bytes]) -> None:
            async def more() -> bytes:
                piece = await anext(source, b"")
                count(piece)
                return piece

            async with send:
                await trio.to_thread.run_sync(
                    _repack,
                    lambda _: trio.from_thread.run(more),
                    lambda piece: trio.from_thread.run(send.send, piece),
                    wanted,
                    diff_id,
                    layer.digest,
                )

        ref = f"convert-{layer.digest}-{wanted.value}-{self._store.context.lease}"
        content = self._store.content
        try:
            async with content.chunks(layer.digest) as chunks, trio.open_nursery() as nursery:
                nursery.start_soon(run, aiter(chunks))
                label = {UNCOMPRESSED: diff_id}
                try:
                    return await content.write(ref, hashed(), labels=label)
                except AlreadyExists:
                    return await content.update(f"sha256:{made.hexdigest()}", label, [f"labels.{UNCOMPRESSED}"])
        except BaseExceptionGroup as group:
            raise first_of(group) from None


def _repack(
    read: Callable[[int], bytes], put: Callable[[bytes], None], wanted: Compression, diff_id: str, digest: str
) -> None:
    compressor: Any = {
        Compression.GZIP: lambda: isal_zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW),  # type: ignore[no-untyped-call]  # isal has no types
        Compression.ZSTD: lambda: zstandard.ZstdCompressor(level=3).compressobj(),
        Compression.NONE: lambda: None,
    }[wanted]()
    hasher = hashlib.new(diff_id.partition(":")[0])
    for piece in decompressed(read):
        hasher.update(piece)
        packed = compressor.compress(piece) if compressor else piece
        if packed:
            put(packed)
    if compressor and (rest := compressor.flush()):
        put(rest)
    if f"{hasher.name}:{hasher.hexdigest()}" != diff_id:
        raise DataLoss(f"layer {digest} unpacks to {hasher.name}:{hasher.hexdigest()}, its config says {diff_id}")


def _packing(media_type: str) -> Compression:
    for compression in (Compression.GZIP, Compression.ZSTD):
        if media_type.endswith((f"+{compression.value}", f".{compression.value}")):
            return compression
    return Compression.NONE


def _layer_type(media_type: str, packed: Compression, *, oci: bool) -> str:
    """The type of a layer in another packing; what is no layer, or not to be passed on, keeps its own kind."""
    suffix = _SUFFIX[packed]
    if media_type.startswith("application/vnd.oci.image.layer."):
        return media_type.partition("+")[0] + (f"+{suffix}" if suffix else "")
    if not media_type.startswith("application/vnd.docker.image.rootfs."):
        return media_type
    foreign = ".foreign." in media_type
    if oci:
        base = _OCI_LAYER.replace("layer.v1", "layer.nondistributable.v1") if foreign else _OCI_LAYER
        return base + (f"+{suffix}" if suffix else "")
    base = _DOCKER_LAYER.replace("rootfs.diff", "rootfs.foreign.diff") if foreign else _DOCKER_LAYER
    return base + (f".{suffix}" if suffix else "")
