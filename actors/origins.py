"""Where the objects of an image are taken from that goes to a registry: this store, or another registry."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, Protocol

from ..protocol.errors import InvalidArgument, NotFound
from ..protocol.labels import source_label
from ..protocol.messages import MAX_CHUNK_BYTES, Context
from ..protocol.records import Descriptor
from ..protocol.registry.documents import Child, artifact_type_of, kind_of, sniff, subject_of
from ..storage.collection.forest import back_referrers
from ..storage.collection.state import Vertex
from ..storage.engine import Kind
from ..storage.tables import CONTENT
from .content_actor import ContentActor
from .downloads import check_bytes
from .image_unpack import read_document
from .storage import StorageActor

if TYPE_CHECKING:
    from ..protocol.registry.client import Registry
    from ..protocol.registry.upload import Source

__all__ = ["LocalOrigin", "Origin", "RegistryOrigin"]

_MOST_REFERRERS: Final = 1000


class Origin(Protocol):
    async def document(self, descriptor: Descriptor) -> bytes | None:
        """A manifest or index; None when it is not here."""

    async def blob(self, descriptor: Descriptor) -> Source:
        """Raises NotFound."""

    async def repositories(self, descriptor: Descriptor, host: str, /) -> str:
        """From which repositories of a host it came, with commas between."""

    async def referrers(self, digest: str) -> list[Child]:
        """What describes a document."""


class LocalOrigin:
    def __init__(self, storage: StorageActor, content: ContentActor, context: Context) -> None:
        self._storage = storage
        self._content = content
        self._context = context

    async def document(self, descriptor: Descriptor) -> bytes | None:
        try:
            return await read_document(self._content, self._context, descriptor)
        except NotFound:
            return None

    async def blob(self, descriptor: Descriptor) -> Source:
        from ..protocol.registry.upload import Source

        with self._storage.view() as view:
            info = await CONTENT.get(view, self._context.namespace or "", descriptor.digest)

        async def pieces(offset: int) -> AsyncGenerator[bytes, None]:
            async with self._content.reads.reading(descriptor.digest, self._context) as (size, read):
                while offset < size:
                    piece = await read(offset, min(MAX_CHUNK_BYTES, size - offset))
                    offset += len(piece)
                    yield piece

        return Source(info.size, pieces)

    async def repositories(self, descriptor: Descriptor, host: str) -> str:
        with self._storage.view() as view:
            info = await CONTENT.find(view, self._context.namespace or "", descriptor.digest)
        return "" if info is None else info.labels.get(source_label(host), "")

    async def referrers(self, digest: str) -> list[Child]:
        namespace = self._context.namespace or ""
        found: list[Child] = []
        with self._storage.view() as view:
            vertices = await back_referrers(view, Vertex(namespace, Kind.CONTENT, digest), b"", _MOST_REFERRERS)
            infos = [
                await CONTENT.find(view, namespace, vertex.name)
                for _, vertex in vertices
                if vertex.kind is Kind.CONTENT
            ]
        for info in infos:
            data = None if info is None else await self.document(Descriptor("", info.digest, info.size))
            if info is None or data is None:
                continue
            try:
                media_type = sniff(data, info.digest)
                subject = subject_of(media_type, data, info.digest)
            except InvalidArgument:  # a label alone does not make a referrer
                continue
            if subject is not None and subject.digest == digest:
                kind = artifact_type_of(data, info.digest)
                found.append(Child(media_type, info.digest, info.size, artifact_type=kind))
        return found


class RegistryOrigin:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def document(self, descriptor: Descriptor) -> bytes | None:
        try:
            data = await self._registry.document(descriptor)
        except NotFound:
            return None
        check_bytes(descriptor, data)
        return data

    async def blob(self, descriptor: Descriptor) -> Source:
        from ..protocol.registry.upload import Source

        if not await self._registry.has(descriptor):
            raise NotFound(f"{kind_of(descriptor.media_type)} {descriptor.digest} in {self._registry.reference}")
        return Source(descriptor.size, lambda offset: self._registry.steady_blob(descriptor, offset))

    async def repositories(self, _: Descriptor, host: str) -> str:
        reference = self._registry.reference
        return reference.repository if source_label(reference.host) == source_label(host) else ""

    async def referrers(self, digest: str) -> list[Child]:
        return await self._registry.referrers(digest)
