"""What a person wants to know of an image's documents: what is here of it, how large it is, its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec

from ...protocol.api import Store
from ...protocol.errors import NotFound, OrlopError
from ...protocol.records import Descriptor, Image
from ...protocol.registry.documents import INDEX_TYPES, Child, children, kind_of
from ...protocol.registry.platforms import Platform, best_first

__all__ = ["ImageConfig", "Node", "image_config", "measure", "walk"]

_MOST_OBJECTS = 10_000
_MOST_DEPTH = 8


class Node(NamedTuple):
    """One object of an image, `depth` below its target. `here`: this namespace has its content."""

    depth: int
    descriptor: Descriptor
    platform: Platform | None
    here: bool
    data: bytes
    """Of documents that are here; empty of others."""


class _Settings(msgspec.Struct):
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    stop_signal: str = msgspec.field(name="StopSignal", default="")


class ImageConfig(msgspec.Struct):
    """The part of an image's configuration that containers take over. Source: OCI image-spec, config."""

    config: _Settings | None = None


async def walk(store: Store, image: Image) -> AsyncIterator[Node]:
    """Every object of an image, depth first in the order of its documents; each object once."""
    target = image.target
    root = Child(target.media_type, target.digest, target.size, target.annotations)
    waiting: list[tuple[int, Child]] = [(0, root)]
    seen: set[str] = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        depth, child = waiting.pop()
        if child.digest in seen:
            continue
        seen.add(child.digest)
        here = await store.content.has(child.digest)
        data = b""
        if here and kind_of(child.media_type) in ("index", "manifest", "config"):
            data = await store.content.read(child.digest)
        yield Node(depth, child.descriptor, child.platform, here, data)
        if data and depth < _MOST_DEPTH and kind_of(child.media_type) in ("index", "manifest"):
            waiting += [(depth + 1, each) for each in reversed(children(child.media_type, data, child.digest))]


async def measure(store: Store, image: Image) -> tuple[int | None, str]:
    """(bytes of the documents, configs and layers that are here, platforms that are complete)."""
    total = 0
    seen: set[str] = set()
    platforms: list[str] = []
    waiting = [(image.target.media_type, image.target.digest)]
    try:
        while waiting:
            media_type, digest = waiting.pop()
            if digest in seen or len(seen) > _MOST_OBJECTS:
                continue
            seen.add(digest)
            try:
                info = await store.content.info(digest)
            except NotFound:
                if digest == image.target.digest:
                    raise
                continue
            total += info.size
            if media_type in INDEX_TYPES or "manifest" in media_type:
                found = children(media_type, await store.content.read(digest), digest)
                if media_type in INDEX_TYPES:
                    waiting += [(child.media_type, child.digest) for child in found]
                elif await _all_here(store, found):
                    waiting += [(child.media_type, child.digest) for child in found]
                    platforms += [await _platform(store, child.digest) for child in found[:1]]
    except OrlopError:
        return None, "-"
    return total, ",".join(sorted({name for name in platforms if name})) or "-"


async def image_config(store: Store, image: Image, host: Platform) -> ImageConfig:
    """The configuration of the manifest that suits `host` best. Raises NotFound when it is not here."""
    media_type, digest = image.target.media_type, image.target.digest
    for _ in range(_MOST_DEPTH):
        found = children(media_type, await store.content.read(digest), digest)
        if media_type not in INDEX_TYPES:
            if not found:
                break
            return msgspec.json.decode(await store.content.read(found[0].digest), type=ImageConfig)
        best = best_first([child.platform for child in found], host)
        if not best:
            break
        media_type, digest = found[best[0]].media_type, found[best[0]].digest
    raise NotFound(f'configuration of image "{image.name}" for platform {host}')


async def _all_here(store: Store, found: list[Child]) -> bool:
    for child in found:
        if not await store.content.has(child.digest):
            return False
    return True


async def _platform(store: Store, config: str) -> str:
    """What a config says of itself; attestations and other artefacts say nothing."""
    try:
        return str(msgspec.json.decode(await store.content.read(config), type=Platform))
    except msgspec.MsgspecError:
        return ""
