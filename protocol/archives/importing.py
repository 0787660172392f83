"""Images out of an archive into a store: one pass over its entries, then the records.

Everything is brought under a lease; images are recorded when all that they need is here, so an archive that is broken
leaves no image, and what came of it goes with the next collection. Source: spec registry 11.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from ..api import Store
from ..errors import AlreadyExists, InvalidArgument, NotFound, OrlopError
from ..identifiers import check_digest, digest_of, quote, split_digest
from ..labels import GC_BREF_IMAGE, GC_EXPIRE, GC_REF_CONTENT
from ..messages import MAX_INLINE_BYTES, TransferProgress, TransferState
from ..records import ContentInfo, Descriptor, Image
from ..registry.documents import CONFIG_TYPES, INDEX_TYPES, Child, children, document_labels, is_layer, kind_of
from ..registry.platforms import Platform, best_first
from ..registry.rootfs import read_rootfs
from . import docker
from .entries import Entry, EntryKind, read_small
from .layout import IMAGE_NAME, REF_NAME, Naming, check_layout, layout_index, names_of, read_index

__all__ = ["ImportOptions", "Repack", "import_images", "let_layers_go", "suiting"]

_MAX_JSON: Final = 20 * 1024 * 1024
_MAX_ENTRIES: Final = 1_000_000
_MOST_LINKS: Final = 16
_MAX_DEPTH: Final = 8
_TOGETHER: Final = 100
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class ImportOptions:
    """`platforms`: of these the images must be complete, and others are left out; empty: all that the archive holds.
    `labels`: for the image records. `discard_layers`: what is unpacked does not keep its layers. `expires_at`: now, in
    RFC 3339; for records that live with the index's."""

    naming: Naming = field(default_factory=Naming)
    platforms: Sequence[Platform] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    discard_layers: bool = False
    expires_at: str = ""


Told = Callable[[TransferProgress], None]
Ready = Callable[[str, Descriptor], Awaitable[None]]
Repack = Callable[[Descriptor, Collection[str]], Awaitable[Descriptor]]
"""Gives another image in an image's place. Of what the first refers to only what is in the collection is here."""


async def _nothing_else(_: str, __: Descriptor) -> None:
    return None


async def import_images(
    store: Store,
    entries: AsyncGenerator[Entry, None],
    options: ImportOptions,
    told: Told = lambda _: None,
    ready: Ready = _nothing_else,
    repack: Repack | None = None,
) -> list[Image]:
    """Bring the images of an OCI layout or a docker archive. Returns what was recorded, in the archive's order: all of
    it or nothing. `ready` is called for each image by its first name when all of it is here, before it is recorded, and
    `repack` before that. Where an image's name says its digest, it says that of the one in its place.

    Raises InvalidArgument (no such archive, a tag that is none, nothing has a name), NotFound (a blob that its images
    need is not in it), FailedPrecondition (a blob is not what its name says). Cancellation: no image is recorded.
    Durability: with the return.
    """
    archive = _Archive(store, told)
    async with aclosing(entries):
        count = 0
        async for entry in entries:
            count += 1
            if count > _MAX_ENTRIES:
                raise InvalidArgument(f"an archive with more than {_MAX_ENTRIES} entries")
            await archive.take(entry)
    if archive.layout is not None:
        check_layout(archive.layout)
        if archive.index is None:
            raise InvalidArgument("missing index.json in an OCI layout")
        named = [(child, list(names_of(child, options.naming))) for child in read_index(archive.index)]
    elif archive.manifest is not None:
        named = await archive.docker_images(docker.read_images(archive.manifest), options.naming)
    else:
        raise InvalidArgument("unrecognized image format", hint="neither oci-layout nor manifest.json is in it")
    if options.naming.index:
        named = [(await archive.whole_index(), [options.naming.index]), *named]
    wanted = [(child, names) for child, names in named if names]
    if not wanted:
        raise InvalidArgument(
            "the archive says no name for any of its images", hint="give --base-name NAME, or --digests"
        )
    for child, _ in wanted:
        await archive.keep(child, options, 0)
    if repack is not None:
        wanted = [await _in_its_place(child, names, repack, archive.kept) for child, names in wanted]
    for name, target in {child.digest: (names[0], child.descriptor) for child, names in wanted}.values():
        await ready(name, target)
    return await _record(store, {name: child.descriptor for child, names in wanted for name in names}, options)


async def _in_its_place(
    child: Child, names: Sequence[str], repack: Repack, kept: Collection[str]
) -> tuple[Child, list[str]]:
    made = await repack(child.descriptor, kept)
    placed = structs.replace(child, media_type=made.media_type, digest=made.digest, size=made.size)
    said = f"@{child.digest}"
    return placed, [f"{name.removesuffix(said)}@{made.digest}" if name.endswith(said) else name for name in names]


class _Archive:
    """What came so far. Blobs are in the store by now, under the caller's lease."""

    def __init__(self, store: Store, told: Told) -> None:
        self._store = store
        self._told = told
        self.layout: bytes | None = None
        self.index: bytes | None = None
        self.manifest: bytes | None = None
        self._files: dict[str, tuple[Descriptor, str]] = {}  # of docker's: what it is, how it is packed
        self._links: dict[str, str] = {}
        self.kept: set[str] = set()

    async def take(self, entry: Entry) -> None:
        name = entry.name
        if entry.kind is EntryKind.LINK:
            if name and entry.target:
                self._links[name] = entry.target
        elif entry.kind is not EntryKind.FILE:
            return
        elif name == "oci-layout":
            self.layout = await read_small(entry, _MAX_JSON)
        elif name == "index.json":
            self.index = await read_small(entry, _MAX_JSON)
        elif name == "manifest.json":
            self.manifest = await read_small(entry, _MAX_JSON)
        elif name.startswith("blobs/"):
            _, algorithm, value = [*name.split("/"), "", ""][:3]
            try:
                check_digest(f"{algorithm}:{value}")
            except OrlopError:
                return
            self._files[name] = await self._store_file(entry, f"{algorithm}:{value}")
        elif name.endswith(".tar") or (name.endswith(".json") and entry.size <= _MAX_JSON):
            self._files[name] = await self._store_file(entry, "")

    async def _store_file(self, entry: Entry, expected: str) -> tuple[Descriptor, str]:
        """Its digest is that of its bytes; where its name says one, it must be that."""
        content = self._store.content
        head = b""
        hasher = hashlib.sha256()
        shown = expected or entry.name

        async def pieces() -> AsyncGenerator[bytes, None]:
            nonlocal head
            came = 0
            async with aclosing(entry.chunks()) as chunks:
                async for chunk in chunks:
                    head = head or chunk[:4]
                    if not expected:
                        hasher.update(chunk)
                    came += len(chunk)
                    self._tell(shown, TransferState.IMPORTING, came, entry.size)
                    yield chunk

        if entry.size <= MAX_INLINE_BYTES:
            data = b"".join([piece async for piece in pieces()])
            try:
                info = await content.put(data, expected=expected)
            except AlreadyExists:
                info = await content.info(expected or f"sha256:{hasher.hexdigest()}")
        else:
            ref = f"import-{expected}" if expected else f"import-{self._store.context.lease}-{entry.name}"
            try:
                info = await content.write(ref, pieces(), size=entry.size, expected=expected)
            except AlreadyExists:  # only without an expected digest: the bytes have been hashed by then
                info = await content.info(f"sha256:{hasher.hexdigest()}")
        self._tell(shown, TransferState.COMPLETE, entry.size, entry.size)
        packed = "gzip" if head.startswith(_GZIP) else "zstd" if head == _ZSTD else ""
        return Descriptor("", info.digest, info.size), packed

    async def docker_images(
        self, images: Sequence[docker.DockerImage], naming: Naming
    ) -> list[tuple[Child, list[str]]]:
        """A manifest for each image of a docker archive, and an index of them, with an entry for every tag. Every tag
        is checked before anything is recorded."""
        named: list[tuple[Child, list[str]]] = []
        entries: list[tuple[Descriptor, dict[str, str]]] = []
        for image, tags in [(image, image.names()) for image in images]:
            config, _ = self._find(image.config)
            layers = [self._find(path) for path in image.layers or []]
            data = docker.docker_manifest(
                Descriptor(docker.CONFIG_TYPE, config.digest, config.size),
                [Descriptor(docker.LAYER_TYPES[packed], layer.digest, layer.size) for layer, packed in layers],
            )
            info = await self._put_document(data)
            for said in [{IMAGE_NAME: name, REF_NAME: name.rpartition(":")[2]} for name in tags] or [{}]:
                child = Child(docker.MANIFEST_TYPE, info.digest, info.size, said)
                entries.append((child.descriptor, {}))
                named.append((child, list(names_of(child, naming))))
        self.index = layout_index(entries)
        return named

    async def whole_index(self) -> Child:
        assert self.index is not None
        info = await self._put_document(self.index)
        return Child(INDEX_TYPES[0], info.digest, info.size)

    async def _put_document(self, data: bytes) -> ContentInfo:
        digest = digest_of(data)
        return await self._store.content.write(f"import-{digest}", data, size=len(data), expected=digest)

    def _find(self, path: str) -> tuple[Descriptor, str]:
        name = path.removeprefix("./")
        for _ in range(_MOST_LINKS):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                break
            name = self._links[name]
        raise NotFound(f"{quote(path)} in the archive, which its manifest.json names")

    async def keep(self, child: Child, options: ImportOptions, depth: int) -> None:
        """Label a document so that it keeps what it refers to, which must be here."""
        if child.digest in self.kept or depth > _MAX_DEPTH:
            return
        self.kept.add(child.digest)
        check_digest(child.digest)
        kind = kind_of(child.media_type)
        if kind not in ("index", "manifest"):
            await self._need(child)
            return
        await self._need(child)
        data = await self._store.content.read(child.digest)
        labels = document_labels(child.media_type, data, child.digest)
        found = children(child.media_type, data, child.digest)
        if labels:
            await self._store.content.update(child.digest, labels, [f"labels.{key}" for key in labels])
        for each in await self._wanted(child, found, options):
            await self.keep(each, options, depth + 1)

    async def _wanted(self, parent: Child, found: Sequence[Child], options: ImportOptions) -> Sequence[Child]:
        """Of an index what the archive holds, or what was asked for; of a manifest everything."""
        if parent.media_type not in INDEX_TYPES:
            return found
        here = [each for each in found if await self._store.content.has(each.digest)]
        if not options.platforms:
            if not here and found:
                raise NotFound(f"any manifest of index {parent.digest} in the archive")
            return here
        chosen = []
        for platform in options.platforms:
            best = best_first([each.platform for each in here], platform)
            if not best:
                offered = ", ".join(sorted({str(each.platform) for each in here if each.platform})) or "none"
                raise NotFound(f"platform {platform} in the archive", hint=f"it holds: {offered}")
            chosen.append(here[best[0]])
        return chosen

    async def _need(self, child: Child) -> None:
        if not await self._store.content.has(child.digest):
            raise NotFound(f"{kind_of(child.media_type)} {child.digest} in the archive")

    def _tell(self, name: str, state: TransferState, offset: int, total: int) -> None:
        digest = name if ":" in name else ""
        shown = f"blob ({split_digest(digest)[1][:12]})" if digest else name
        self._told(TransferProgress(shown, state, name, "blob", offset, total))


async def suiting(store: Store, target: Descriptor, wanted: Platform) -> Descriptor | None:
    """The manifest of an image that has a file system for a platform, if it and its config are here."""
    try:
        found = children(target.media_type, await store.content.read(target.digest), target.digest)
        if target.media_type in INDEX_TYPES:
            best = best_first([each.platform for each in found], wanted)
            return await suiting(store, found[best[0]].descriptor, wanted) if best else None
        if not found or found[0].media_type not in CONFIG_TYPES[:2]:
            return None
        config = read_rootfs(await store.content.read(found[0].digest), found[0].digest)
    except (NotFound, InvalidArgument):
        return None
    return target if best_first([config.platform], wanted) else None


async def let_layers_go(store: Store, manifest: Descriptor) -> None:
    """The manifest's layers need not be kept any more: their snapshots are."""
    data = await store.content.read(manifest.digest)
    layers = {each.digest for each in children(manifest.media_type, data, manifest.digest) if is_layer(each.media_type)}
    labels = (await store.content.info(manifest.digest)).labels
    gone = [f"labels.{key}" for key, value in labels.items() if key.startswith(GC_REF_CONTENT) and value in layers]
    if gone:
        await store.content.update(manifest.digest, {}, gone)


async def _record(store: Store, wanted: Mapping[str, Descriptor], options: ImportOptions) -> list[Image]:
    """All of them or none, up to as many as one transaction takes."""
    names = list(wanted)
    images: list[Image] = []
    for at in range(0, len(names), _TOGETHER):
        images += await _record_together(store, {name: wanted[name] for name in names[at : at + _TOGETHER]}, options)
    return images


async def _record_together(store: Store, wanted: Mapping[str, Descriptor], options: ImportOptions) -> list[Image]:
    for last in (False, False, True):
        known = [name for name in wanted if await store.images.has(name)]
        planned: list[Awaitable[Image]] = []
        try:
            async with store.transaction() as tx:
                for name, target in wanted.items():
                    labels = dict(options.labels)
                    if options.naming.index and name != options.naming.index:  # lives and dies with the index's record
                        labels |= {GC_BREF_IMAGE: options.naming.index, GC_EXPIRE: options.expires_at}
                    if name in known:
                        planned.append(tx.images.update(name, target=target, labels=labels))
                    else:
                        planned.append(tx.images.create(name, target, labels))
        except (AlreadyExists, NotFound):  # somebody came in between
            if last:
                raise
        else:
            break
    return [await each for each in planned]
