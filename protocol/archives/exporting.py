"""Images of a store as an OCI layout that docker reads, too.

First what is to be written and what of it is missing, then the writing: an export that cannot be whole writes nothing.
The same images make the same bytes. Source: spec registry 12.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from ..api import Store
from ..errors import FailedPrecondition, InvalidArgument, NotFound
from ..identifiers import quote, split_digest
from ..labels import source_label, sources
from ..messages import TransferProgress, TransferState
from ..records import Descriptor, Image
from ..registry.documents import CONFIG_TYPES, INDEX_TYPES, Child, children, is_distributable, is_layer, kind_of
from ..registry.platforms import Platform, best_first
from ..registry.references import parse_reference
from ..registry.rootfs import read_rootfs
from .docker import DockerImage, familiar
from .entries import Sink
from .layout import IMAGE_NAME, LAYOUT, REF_NAME, layout_index

__all__ = ["Export", "ExportOptions", "Missing", "plan_export", "write_export"]

_MAX_DEPTH: Final = 8
_MAX_OBJECTS: Final = 100_000
_Known = tuple[tuple[str, str], ...]
"""Registry host, as labels name it, and repository."""


@dataclass(frozen=True)
class ExportOptions:
    """`platforms`: of an index; empty: what suits `host`, unless `all_platforms`. `docker`: with a manifest.json."""

    host: Platform
    platforms: Sequence[Platform] = ()
    all_platforms: bool = False
    docker: bool = True
    skip_nondistributable: bool = False


@dataclass(frozen=True)
class Missing:
    """An object that is not here. `sources`: the repositories that had its manifest, those to be asked first first."""

    image: str
    platform: str
    descriptor: Descriptor
    sources: tuple[str, ...]

    @property
    def object(self) -> str:
        return f"{kind_of(self.descriptor.media_type)} {self.descriptor.digest}"

    @property
    def what(self) -> str:
        return f"{self.object} of image {quote(self.image)}" + (f" for {self.platform}" if self.platform else "")

    def error(self) -> NotFound:
        where = f"it can be had from {', '.join(self.sources)}" if self.sources else "nobody says where it came from"
        return NotFound(self.what, hint=f"{where}; --missing=fetch brings it, --missing=skip leaves it out")


@dataclass
class Export:
    """What is to be written; nothing is yet."""

    blobs: dict[str, Descriptor] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    docker: dict[str, DockerImage] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(each.size for each in self.blobs.values())

    def without_missing(self) -> Export:
        """Leaves out what is not here, and docker's entries that need it."""
        gone = {each.descriptor.digest for each in self.missing}
        kept = {digest: each for digest, each in self.blobs.items() if digest not in gone}
        whole = {
            digest: image
            for digest, image in self.docker.items()
            if digest not in gone and not {_digest_of(path) for path in (image.config, *(image.layers or []))} & gone
        }
        return Export(kept, self.images, [], whole)


async def plan_export(store: Store, names: Sequence[str], options: ExportOptions) -> Export:
    """What an export of these images consists of. Raises NotFound: an image, or a platform that it is not for."""
    export = Export()
    for name in names:
        image = await store.images.get(name)
        if image.name in [each.name for each in export.images]:
            continue
        export.images.append(image)
        await _Walk(store, image, options, export).run()
    return export


class _Walk:
    """Through one image."""

    def __init__(self, store: Store, image: Image, options: ExportOptions, export: Export) -> None:
        self._store = store
        self._image = image
        self._options = options
        self._export = export
        self._hosts: dict[str, list[str]] | None = None

    async def run(self) -> None:
        target = self._image.target
        root = Child(target.media_type, target.digest, target.size)
        await self._visit(root, None, self._options.docker, (), 0)

    async def _visit(
        self, child: Child, platform: Platform | None, for_docker: bool, known_from: _Known, depth: int
    ) -> None:
        """`for_docker`: whether docker, which knows one platform, is to see this one."""
        if depth > _MAX_DEPTH or len(self._export.blobs) > _MAX_OBJECTS:
            raise FailedPrecondition(f"image {quote(self._image.name)} is deeper or larger than can be exported")
        kind = kind_of(child.media_type)
        if self._options.skip_nondistributable and not is_distributable(child.media_type):
            return
        self._export.blobs[child.digest] = child.descriptor
        try:
            info = await self._store.content.info(child.digest)
        except NotFound:
            await self._lacks(child, platform, known_from)
            return
        if kind not in ("index", "manifest"):
            return
        known_from = tuple(dict.fromkeys((*_known(info.labels), *known_from)))
        data = await self._store.content.read(child.digest)
        found = children(child.media_type, data, child.digest)
        if child.media_type in INDEX_TYPES:
            chosen = self._chosen(found)
            best = best_first([found[at].platform for at in chosen], self._options.host)
            shown = chosen[best[0] if best else 0] if chosen else None
            for at in chosen:
                await self._visit(found[at], found[at].platform, for_docker and at == shown, known_from, depth + 1)
            return
        if depth == 0:
            platform = await self._platform_of(found)
        for each in found:
            await self._visit(each, platform, False, known_from, depth + 1)
        if for_docker and found and found[0].media_type in CONFIG_TYPES:
            self._add_docker(child, found)

    def _chosen(self, found: Sequence[Child]) -> Sequence[int]:
        options = self._options
        if options.all_platforms:
            return range(len(found))
        chosen: list[int] = []
        for platform in options.platforms or [options.host]:
            best = best_first([each.platform for each in found], platform)
            if not best:
                offered = ", ".join(sorted({str(each.platform) for each in found if each.platform})) or "none"
                raise NotFound(
                    f"image {quote(self._image.name)} for platform {platform}",
                    hint=f"its index offers: {offered}; or use --all-platforms",
                )
            if best[0] not in chosen:
                chosen.append(best[0])
        return chosen

    async def _platform_of(self, found: Sequence[Child]) -> Platform | None:
        """A single manifest is for one platform, as its config says. Raises NotFound where another was asked for."""
        if not found or found[0].media_type not in CONFIG_TYPES:
            return None
        try:
            config = read_rootfs(await self._store.content.read(found[0].digest), found[0].digest)
        except NotFound:
            return None
        wanted = self._options.platforms
        if wanted and not any(best_first([config.platform], each) for each in wanted):
            texts = ", ".join(str(each) for each in wanted)
            raise NotFound(f"image {quote(self._image.name)} for {texts}", hint=f"it is for {config.platform}")
        return config.platform

    async def _lacks(self, child: Child, platform: Platform | None, known_from: _Known) -> None:
        places = await self._places(known_from)
        for at, known in enumerate(self._export.missing):
            if known.descriptor.digest == child.digest:  # another of the images may know others to ask
                self._export.missing[at] = replace(known, sources=tuple(dict.fromkeys((*known.sources, *places))))
                return
        self._export.missing.append(Missing(self._image.name, str(platform or ""), child.descriptor, tuple(places)))

    async def _places(self, known_from: _Known) -> list[str]:
        """Repositories as they can be asked; the image's own comes first, then those of what is nearest."""
        if self._hosts is None:
            self._hosts = await self._hosts_of_names()
        places = [
            f"{spoken}/{name}" for host, name in known_from for spoken in self._hosts.get(source_label(host), [host])
        ]
        own = _repository_of(self._image.name)
        return sorted(dict.fromkeys(places), key=lambda place: place != own)

    async def _hosts_of_names(self) -> dict[str, list[str]]:
        """Labels leave out the port of the registry they name; the image's own names have it."""
        names = [each.name async for each in self._store.images.list([f"target.digest=={self._image.target.digest}"])]
        repositories = [_repository_of(name) for name in (self._image.name, *names)]
        found: dict[str, list[str]] = {}
        for host in dict.fromkeys(each.partition("/")[0] for each in repositories if each):
            found.setdefault(source_label(host), []).append(host)
        return found

    def _add_docker(self, manifest: Child, found: Sequence[Child]) -> None:
        layers = [_path(each.digest) for each in found if is_layer(each.media_type)]
        entry = self._export.docker.setdefault(manifest.digest, DockerImage(_path(found[0].digest), [], layers))
        if entry.repo_tags is not None and _tag_of(self._image.name):
            entry.repo_tags.append(familiar(self._image.name))


async def write_export(
    store: Store, export: Export, sink: Sink, told: Callable[[TransferProgress], None] = lambda _: None
) -> None:
    """Every entry, sorted by name; blobs are verified on their way. Raises DataLoss, NotFound (deleted meanwhile)."""
    files: dict[str, Descriptor | bytes] = {_path(each.digest): each for each in export.blobs.values()}
    index = layout_index(
        [(each.target, {IMAGE_NAME: each.name, REF_NAME: _ref_of(each.name)}) for each in export.images]
    )
    files |= {"index.json": index, "oci-layout": LAYOUT}
    if export.docker:
        files["manifest.json"] = msgspec.json.encode(list(export.docker.values()))
    folders = {"blobs", *(path.rpartition("/")[0] for path in files if "/" in path)}
    for name in sorted([*folders, *files]):
        if name in folders:
            await sink.folder(name)
            continue
        what = files[name]
        if isinstance(what, bytes):
            async with aclosing(_once(what)) as pieces:
                await sink.file(name, len(what), 0o444 if name == "oci-layout" else 0o644, pieces)
            continue
        async with (
            store.content.chunks(what.digest, verify=True) as chunks,
            aclosing(_shown(chunks, what, told)) as pieces,
        ):
            await sink.file(name, what.size, 0o444, pieces)
    await sink.end()


def _known(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(host, name) for host, names in sorted(sources(labels).items()) for name in names.split(",") if name]


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


async def _shown(
    pieces: AsyncIterator[bytes], what: Descriptor, told: Callable[[TransferProgress], None]
) -> AsyncGenerator[bytes, None]:
    kind = kind_of(what.media_type)
    name, came = f"{kind} ({split_digest(what.digest)[1][:12]})", 0
    async for piece in pieces:
        yield piece
        came += len(piece)
        state = TransferState.EXPORTING if came < what.size else TransferState.COMPLETE
        told(TransferProgress(name, state, what.digest, kind, came, what.size))


def _repository_of(name: str) -> str:
    """`host/repository` of a name; empty if it has none."""
    try:
        reference = parse_reference(name, needs_object=False)
    except InvalidArgument:  # any name may stand in a store
        return ""
    return f"{reference.host}/{reference.repository}"


def _tag_of(name: str) -> str:
    """The tag of a name, if it has one and no digest."""
    try:
        reference = parse_reference(name)
    except InvalidArgument:  # any name may stand in a store
        return ""
    return reference.tag if not reference.digest else ""


def _ref_of(name: str) -> str:
    """The object part of a name that has a tag, else all of it. Source: spec registry 12."""
    try:
        reference = parse_reference(name)
    except InvalidArgument:  # any name may stand in a store
        return name
    return reference.object if reference.tag else name


def _path(digest: str) -> str:
    algorithm, value = split_digest(digest)
    return f"blobs/{algorithm}/{value}"


def _digest_of(path: str) -> str:
    _, algorithm, value = path.split("/")
    return f"{algorithm}:{value}"
