"""Bringing single blobs for pulls: here already, adopted from another namespace, or downloaded once for all.

Source: spec registry 8, DESIGN 6.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import msgspec
import trio

from ..protocol.errors import AlreadyExists, FailedPrecondition, NotFound, OutOfRange
from ..protocol.identifiers import digest_of, split_digest
from ..protocol.labels import merge_sources, source_label
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    AbortIngest,
    Context,
    OpenIngest,
    PutContent,
    TransferState,
    UpdateContent,
)
from ..protocol.records import Descriptor
from ..protocol.registry.documents import Child, kind_of
from ..protocol.registry.references import Reference
from ..storage.blobs.ledger import find_blob
from ..storage.blobs.sharing import Sharing, adoptable
from ..storage.tables import CONTENT
from . import content
from .actor import PlanActor
from .adopting import AdoptingWriter
from .config import TransferConfig
from .content_actor import ContentActor
from .ingest import Writer
from .parts import fetch_parts
from .progress import EVERY_S, Progress
from .storage import StorageActor

__all__ = ["Downloads", "Fetching", "Nowhere", "Repository", "check_bytes", "source_labels"]


class _Download:
    """A download under way. Waiters watch `offset`: one that stands still is not waited for."""

    def __init__(self) -> None:
        self.offset = 0
        self.ended = trio.Event()


class Repository(Protocol):
    """Where objects are fetched from; see Registry."""

    async def document(self, descriptor: Descriptor) -> bytes: ...
    async def has(self, descriptor: Descriptor) -> bool: ...
    def steady_blob(
        self, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]: ...
    async def referrers(self, digest: str, artifact_type: str = "") -> list[Child]: ...
    def source_of(self, digest: str) -> str: ...
    def distrust(self, descriptor: Descriptor) -> None: ...


class Nowhere:
    """The repository of a pull that asks nobody: it has nothing."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    async def document(self, descriptor: Descriptor) -> bytes:
        raise self._missing(descriptor)

    async def has(self, _: Descriptor) -> bool:
        return False

    async def steady_blob(
        self, descriptor: Descriptor, _: int = 0, __: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        raise self._missing(descriptor)
        yield b""  # type: ignore[unreachable]  # what makes it a generator

    async def referrers(self, _: str, __: str = "") -> list[Child]:
        return []

    def source_of(self, _: str) -> str:
        return ""

    def distrust(self, _: Descriptor) -> None:
        return None

    def _missing(self, descriptor: Descriptor) -> NotFound:
        return NotFound(f"{kind_of(descriptor.media_type)} {descriptor.digest} of {self._reference} in this store")


@dataclass
class Fetching:
    """Objects of one repository on their way into one namespace."""

    reference: Reference
    context: Context
    registry: Repository
    limiter: trio.CapacityLimiter
    progress: Progress

    def show(self, descriptor: Descriptor, state: TransferState, offset: int = 0, transferred: int = 0) -> None:
        coming = transferred or state is TransferState.DOWNLOADING
        source = self.registry.source_of(descriptor.digest) if coming else ""
        self.progress.show(descriptor, state, offset, transferred, source=source)


class Downloads:
    """Owns the downloads under way: one for a digest, however many pulls want it.

    The first to ask is the leader; the others wait, and then adopt the bytes with a metadata write. If the leader
    is cancelled or fails, or makes no progress, the next one takes over.
    """

    def __init__(
        self,
        storage: StorageActor,
        content: ContentActor,
        content_plans: PlanActor,
        policy: Sharing,
        config: TransferConfig,
    ) -> None:
        self._storage = storage
        self._content = content
        self._content_plans = content_plans
        self._policy = policy
        self._config = config
        self._under_way: dict[str, _Download] = {}

    async def bring(self, fetching: Fetching, descriptor: Descriptor) -> None:
        """Have the blob in the pull's namespace: it is here, or another has it, or it is downloaded."""
        while True:
            if await self.is_here(fetching, descriptor) or await self.adopt(
                fetching, descriptor, source_labels(fetching.reference)
            ):
                fetching.show(descriptor, TransferState.EXISTS, descriptor.size)
                return
            download = self._under_way.get(descriptor.digest)
            if download is None:
                download = self._under_way[descriptor.digest] = _Download()
                try:
                    await self._download(fetching, descriptor, download)
                    return
                finally:
                    if self._under_way.get(descriptor.digest) is download:
                        del self._under_way[descriptor.digest]
                    download.ended.set()
            await self._follow(fetching, descriptor, download)

    async def _follow(self, fetching: Fetching, descriptor: Descriptor, download: _Download) -> None:
        """Wait for another pull's download, as long as it gets on."""
        while not download.ended.is_set():
            before = download.offset
            with trio.move_on_after(2 * self._config.stall_s) as patience:
                while not download.ended.is_set():
                    fetching.show(descriptor, TransferState.DOWNLOADING, download.offset)
                    with trio.move_on_after(EVERY_S):
                        await download.ended.wait()
                    if download.offset != before:
                        break
            if patience.cancelled_caught and self._under_way.get(descriptor.digest) is download:
                del self._under_way[descriptor.digest]  # it stands still: we lead now
                return

    async def _download(self, fetching: Fetching, descriptor: Descriptor, download: _Download) -> None:
        """Stream a blob into an ingest, resuming where it breaks, and commit it. One clear sentence on failure."""
        bring = self._bring_small if descriptor.size <= MAX_INLINE_BYTES else self._bring_large
        for last in (False, True):
            try:
                await bring(fetching, descriptor, download)
                return
            except FailedPrecondition:
                # Wrong bytes: they are gone, so nothing is poisoned; a second try gets fresh ones, from another host
                # if there is one.
                fetching.registry.distrust(descriptor)
                if last:
                    raise

    async def _bring_small(self, fetching: Fetching, descriptor: Descriptor, download: _Download) -> None:
        data = bytearray()
        await self._stream(fetching, descriptor, download, 0, _Sink(data))
        check_bytes(descriptor, bytes(data))
        await self.store_bytes(fetching.context, descriptor, bytes(data), source_labels(fetching.reference))
        fetching.show(descriptor, TransferState.COMPLETE, descriptor.size, descriptor.size)

    async def _bring_large(self, fetching: Fetching, descriptor: Descriptor, download: _Download) -> None:
        ref = f"{kind_of(descriptor.media_type)}-{descriptor.digest}"
        request = OpenIngest(ref, descriptor.size, descriptor.digest, descriptor.media_type)
        try:
            # Not under the pull's lease: unfinished bytes outlive a failed pull, for a day, and shorten the next.
            writer = await self._content.open_ingest(request, msgspec.structs.replace(fetching.context, lease=None))
        except AlreadyExists:
            return
        poisoned = False
        try:
            if writer.offset > descriptor.size:
                await writer.truncate()
            begun = writer.offset
            if begun < descriptor.size:
                await self._stream(fetching, descriptor, download, begun, writer)
            try:
                await self._content.commit(
                    writer, fetching.context, descriptor.size, descriptor.digest, source_labels(fetching.reference)
                )
            except AlreadyExists:
                pass
            except FailedPrecondition:
                poisoned = True
                raise
            fetching.show(descriptor, TransferState.COMPLETE, descriptor.size, descriptor.size - begun)
        finally:
            await writer.finish(keep=True)
            if poisoned:
                await self._content_plans.ask(AbortIngest(ref), fetching.context)

    async def _stream(
        self, fetching: Fetching, descriptor: Descriptor, download: _Download, begun: int, sink: _AnySink
    ) -> None:
        """Bytes into the sink until there are as many as the descriptor says; never one more."""
        download.offset = begun
        fetching.show(descriptor, TransferState.DOWNLOADING, begun)

        async def take(piece: bytes) -> None:
            await sink.write(piece)
            download.offset += len(piece)
            fetching.show(descriptor, TransferState.DOWNLOADING, download.offset, download.offset - begun)

        config, steady = self._config, fetching.registry.steady_blob
        began_s = trio.current_time()

        def is_slow() -> bool:
            """Several connections might bring it sooner, and it is worth it."""
            came, passed_s = download.offset - begun, trio.current_time() - began_s
            if config.ranges == 1 or descriptor.size - download.offset <= 2 * config.range_bytes:
                return False
            return came >= 2 * config.range_bytes and came < config.range_below * passed_s

        async def as_one(*, while_fast: bool) -> None:
            async with aclosing(steady(descriptor, download.offset)) as pieces:
                async for piece in pieces:
                    await take(piece)
                    if while_fast and is_slow():
                        return

        large = config.ranges > 1 and descriptor.size - begun > 2 * config.range_bytes
        if not (large and config.range_below == math.inf):
            await as_one(while_fast=True)
        if download.offset == descriptor.size:
            return
        try:
            await fetch_parts(
                lambda start, end: steady(descriptor, start, end),
                download.offset,
                descriptor.size,
                config.range_bytes,
                config.ranges,
                take,
            )
        except OutOfRange:  # no ranges there: as one piece, from where we are
            await as_one(while_fast=False)

    async def is_here(self, fetching: Fetching, descriptor: Descriptor) -> bool:
        """Whether this namespace has it; then the lease gets it too."""
        namespace = fetching.context.namespace or ""
        with self._storage.view() as view:
            if not await content.has_intact(view, namespace, descriptor.digest):
                return False
        await self.keep(fetching, descriptor, {})
        return True

    async def adopt(self, fetching: Fetching, descriptor: Descriptor, labels: dict[str, str]) -> bool:
        """Bytes that another namespace brought cost a metadata write, where they may be taken over."""
        return await self._may_adopt(fetching, descriptor) and await self._join(fetching, descriptor, labels)

    async def _may_adopt(self, fetching: Fetching, descriptor: Descriptor) -> bool:
        """In isolation only what is shareable, or what the registry would give to this pull's own credentials."""
        if self._policy is Sharing.SHARED:
            return True
        with self._storage.view() as view:
            if await find_blob(view, descriptor.digest) is None:
                return False
            if await adoptable(view, descriptor.digest, descriptor.size, self._policy) is not None:
                return True
        return await fetching.registry.has(descriptor)

    async def _join(self, fetching: Fetching, descriptor: Descriptor, labels: dict[str, str]) -> bool:
        try:
            await self._storage.transact(lambda txn: content.adopt(txn, fetching.context, descriptor, labels))
        except NotFound:
            return False
        except AlreadyExists:
            pass
        return True

    async def keep(self, fetching: Fetching, descriptor: Descriptor, labels: dict[str, str]) -> None:
        """Protect what this namespace has already, and add labels it lacks (where it came from, its children)."""
        await self._join(fetching, descriptor, {})
        with self._storage.view() as view:
            info = await CONTENT.get(view, fetching.context.namespace or "", descriptor.digest)
        missing = {key: value for key, value in labels.items() if info.labels.get(key) != value}
        missing |= {
            key: merged
            for key, value in source_labels(fetching.reference).items()
            if (merged := merge_sources(key, info.labels.get(key, ""), value)) != info.labels.get(key)
        }
        if missing:
            request = UpdateContent(descriptor.digest, missing, [f"labels.{key}" for key in missing])
            await self._content_plans.ask(request, fetching.context)

    async def store_bytes(self, context: Context, descriptor: Descriptor, data: bytes, labels: dict[str, str]) -> None:
        try:
            if len(data) <= MAX_INLINE_BYTES:
                request = PutContent(data, descriptor.digest, descriptor.media_type, labels)
                await self._content_plans.ask(request, context)
                return
            ref = f"{kind_of(descriptor.media_type)}-{descriptor.digest}"
            opened = OpenIngest(ref, len(data), descriptor.digest, descriptor.media_type)
            writer = await self._content.open_ingest(opened, context)
            try:
                await writer.write(data, 0)
                await self._content.commit(writer, context, len(data), descriptor.digest, labels)
            finally:
                await writer.finish(keep=False)
        except AlreadyExists:
            pass


class _Sink:
    """Bytes of a small blob, in memory."""

    def __init__(self, data: bytearray) -> None:
        self._data = data

    async def write(self, piece: bytes) -> int:
        self._data += piece
        return len(self._data)


_AnySink = _Sink | Writer | AdoptingWriter


def source_labels(reference: Reference) -> dict[str, str]:
    return {source_label(reference.host): reference.repository}


def check_bytes(descriptor: Descriptor, data: bytes) -> None:
    found = digest_of(data, split_digest(descriptor.digest)[0])
    if len(data) != descriptor.size or found != descriptor.digest:
        raise FailedPrecondition(
            f"{kind_of(descriptor.media_type)} {descriptor.digest}: the registry sent {len(data)} bytes "
            f"with digest {found}"
        )
