"""Pulling images: from a registry into a namespace, each blob downloaded once however many want it.

A pull runs under a lease of its own, so nothing it brings can be collected before the image record stands. It
walks from the root: document, children, the children that this machine wants, layers in parallel. Labels that
keep the children are committed with the document itself.

Downloads of one digest are shared by all pulls of the store. The first is the leader; the others wait and then
adopt the bytes with a metadata write. If the leader is cancelled or fails, or makes no progress, the next one
takes over. Source: spec registry 8 and 9, DESIGN 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from ..protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
)
from ..protocol.identifiers import check_digest, check_name, split_digest
from ..protocol.labels import GC_EXPIRE, check_labels, merge_sources, source_label
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    AbortIngest,
    Context,
    CreateLease,
    DeleteLease,
    OpenIngest,
    PullImage,
    PullProgress,
    PullState,
    PutContent,
    UpdateContent,
)
from ..protocol.records import Descriptor
from ..protocol.registry.documents import INDEX_TYPES, Child, children, kind_of, reference_labels
from ..protocol.registry.platforms import Platform, best_first, parse_platform
from ..protocol.registry.references import Reference, parse_reference
from ..protocol.service import Session
from ..protocol.world import World
from ..storage.engine import Transaction
from ..storage.lease_entries import page_entries
from ..storage.tables import CONTENT, LEASES
from .actor import PlanActor
from .content import ContentActor, adopt
from .images import record_image
from .ingest import Writer
from .leases import lease_id
from .storage import StorageActor
from .timestamps import rfc3339

if TYPE_CHECKING:
    from ..protocol.registry.client import Registry

__all__ = ["TransferActor"]

log = structlog.get_logger("orlop.transfer")

LEASE_LIFE_NS = 24 * 3600 * 1_000_000_000
PULL_LABEL = "orlop.io/pull"  # on a pull's lease: the reference
_LEASE_PREFIX = "pull-"
PROGRESS_EVERY_S = 0.1
BREAKS_WITHOUT_PROGRESS = 3
STALL_S = 30.0
_MAX_DEPTH = 8
_MAX_OBJECTS = 10_000
Emit = Callable[[object], Awaitable[None]]


class _Download:
    """A download under way. Waiters watch `offset`: one that stands still is not waited for."""

    def __init__(self) -> None:
        self.offset = 0
        self.ended = trio.Event()


@dataclass
class _Pull:
    request: PullImage
    reference: Reference
    context: Context
    registry: Registry
    platforms: list[Platform]
    limiter: trio.CapacityLimiter
    emit: Emit
    progress: dict[str, PullProgress] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def show(self, descriptor: Descriptor, state: PullState, offset: int = 0, transferred: int = 0) -> None:
        self.progress[descriptor.digest] = PullProgress(
            name=f"{kind_of(descriptor.media_type)} ({split_digest(descriptor.digest)[1][:12]})",
            state=state,
            digest=descriptor.digest,
            kind=kind_of(descriptor.media_type),
            offset=offset,
            total=descriptor.size,
            transferred=transferred,
        )
        self.changed.add(descriptor.digest)

    async def report(self) -> None:
        """Send what changed since the last time; the newest state of each object only."""
        changed, self.changed = self.changed, set()
        for digest in changed:
            await self.emit(self.progress[digest])


class TransferActor:
    """Owns the downloads under way. Pulls run in their callers' tasks."""

    def __init__(
        self,
        storage: StorageActor,
        content: ContentActor,
        content_plans: PlanActor,
        leases: PlanActor,
        host: Platform,
        world: World,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        self._storage = storage
        self._content = content
        self._content_plans = content_plans
        self._leases = leases
        self._host = host
        self._world = world
        self._stall_s = stall_s
        self._downloads: dict[str, _Download] = {}
        self._pulling: set[str] = set()  # leases of pulls under way

    async def pull(self, request: PullImage, context: Context, _: Session, emit: Emit) -> msgspec.Raw:
        """Bring an image and record it. See PullImage.

        Raises NotFound (name, platform, blob), FailedPrecondition (bytes are not what they should be),
        Unauthenticated, PermissionDenied, Unavailable (registry), and what the store says.
        Cancellation: no image record; what has come stays for a day, and shortens the next attempt.
        Durability: with the return.
        """
        from ..protocol.registry.client import Registry

        check_name(request.reference, "reference")
        reference = parse_reference(request.reference)
        check_labels(request.labels)
        if reference.digest:
            check_digest(reference.digest, f"reference {request.reference}")
        platforms = [parse_platform(text, self._host) for text in request.platforms] or [self._host]
        async with (
            self._lease(context, request.reference) as leased,
            Registry.open(
                reference,
                self._world,
                plain_http=request.plain_http,
                skip_verify=request.skip_verify,
                credentials=request.credentials,
                stall_s=self._stall_s,
            ) as registry,
        ):
            limiter = trio.CapacityLimiter(request.max_concurrent_downloads)
            pull = _Pull(request, reference, leased, registry, platforms, limiter, emit)
            await emit(PullProgress(request.reference, PullState.RESOLVING))
            root = await registry.resolve()
            await emit(PullProgress(request.reference, PullState.RESOLVED, root.digest, total=root.size))
            await self._bring_all(pull, root)
            await pull.report()
            image = await self._storage.transact(lambda txn: _record(txn, leased.namespace or "", request, root))
        await emit(PullProgress(request.reference, PullState.SAVED, root.digest))
        return image

    @asynccontextmanager
    async def _lease(self, context: Context, reference: str) -> AsyncIterator[Context]:
        """A lease for the length of a pull, unless the caller brought one.

        A pull that fails leaves its lease: what has come is there for the next attempt, until the lease
        expires. The attempt that succeeds ends it, and those of earlier attempts.
        """
        if context.lease is not None:
            yield context
            return
        now = self._world.clock.now_ns()
        name = f"{_LEASE_PREFIX}{lease_id(now, self._world.random.token(9))}"
        labels = {GC_EXPIRE: rfc3339(now + LEASE_LIFE_NS), PULL_LABEL: reference[:2048]}
        self._pulling.add(name)
        try:
            await self._leases.ask(CreateLease(name, labels), context)
            yield msgspec.structs.replace(context, lease=name)
            for stale in [name, *await self._earlier_attempts(context.namespace or "", labels[PULL_LABEL])]:
                try:
                    await self._leases.ask(DeleteLease(stale), context)
                except NotFound:
                    pass
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await self._end_if_empty(context, name)
            raise
        finally:
            self._pulling.discard(name)

    async def _end_if_empty(self, context: Context, name: str) -> None:
        """A pull that failed before anything came leaves nothing at all."""
        try:
            with self._storage.view() as view:
                lease = await LEASES.find(view, context.namespace or "", name)
                entries = lease and await page_entries(view, context.namespace or "", lease, b"", 1)
            if lease is not None and not entries:
                await self._leases.ask(DeleteLease(name), context)
        except OrlopError as error:  # it ends by itself
            log.warning("a pull's lease could not be deleted", lease=name, error=str(error))

    async def _earlier_attempts(self, namespace: str, reference: str) -> list[str]:
        """Leases that failed pulls of the same name left behind."""
        with self._storage.view() as view:
            page = await LEASES.page(view, namespace, _LEASE_PREFIX, 1000)
        return [
            name
            for name, raw in page.items
            if name.startswith(_LEASE_PREFIX)
            and name not in self._pulling
            and LEASES.decode(raw).labels.get(PULL_LABEL) == reference
        ]

    async def _bring_all(self, pull: _Pull, root: Descriptor) -> None:
        failures: list[OrlopError] = []

        async def bring() -> None:
            try:
                await self._bring(pull, Child(root.media_type, root.digest, root.size), 0)
            finally:
                reporting.cancel()

        async def report() -> None:
            while True:
                await trio.sleep(PROGRESS_EVERY_S)
                await pull.report()

        reporting = trio.CancelScope()

        async def reporter() -> None:
            with reporting:
                await report()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reporter)
                await bring()
        except* OrlopError as group:
            failures += _leaves(group)
        if failures:
            raise failures[0]  # the others were cancelled, or say the same

    async def _bring(self, pull: _Pull, child: Child, depth: int) -> None:
        """This object and, if it is a document, what it refers to and this pull wants."""
        descriptor = child.descriptor
        check_digest(descriptor.digest)
        if descriptor.digest in pull.seen:
            return
        pull.seen.add(descriptor.digest)
        if depth > _MAX_DEPTH or len(pull.seen) > _MAX_OBJECTS:
            raise FailedPrecondition(
                f"{pull.request.reference}: deeper than {_MAX_DEPTH} documents or more than {_MAX_OBJECTS} objects"
            )
        if descriptor.size <= 0:
            raise InvalidArgument(f"descriptor {descriptor.digest} must have a size")
        pull.show(descriptor, PullState.WAITING)
        if kind_of(descriptor.media_type) not in ("index", "manifest"):
            async with pull.limiter:
                await self._bring_blob(pull, child)
            return
        data = await self._bring_document(pull, descriptor)
        found = children(descriptor.media_type, data, descriptor.digest)
        wanted = self._wanted(pull, descriptor, found)
        async with trio.open_nursery() as nursery:
            for each in wanted:
                nursery.start_soon(self._bring, pull, each, depth + 1)
            if not pull.request.skip_metadata:
                for each in found:
                    if each not in wanted:
                        nursery.start_soon(self._bring_metadata, pull, each)

    async def _bring_metadata(self, pull: _Pull, child: Child) -> None:
        """The manifest and config of a platform that was not asked for, if the registry has them.

        Copies of an image often hold one platform only, so what is missing here is no failure.
        """
        descriptor = child.descriptor
        check_digest(descriptor.digest)
        if descriptor.digest in pull.seen or kind_of(descriptor.media_type) != "manifest":
            return
        pull.seen.add(descriptor.digest)
        try:
            data = await self._bring_document(pull, descriptor)
        except NotFound:
            pull.progress.pop(descriptor.digest, None)
            pull.changed.discard(descriptor.digest)
            return
        for each in children(descriptor.media_type, data, descriptor.digest):
            if kind_of(each.media_type) == "config" and each.digest not in pull.seen and each.size > 0:
                pull.seen.add(each.digest)
                async with pull.limiter:
                    await self._bring_blob(pull, each)

    def _wanted(self, pull: _Pull, descriptor: Descriptor, found: list[Child]) -> list[Child]:
        """Of an index, the best manifest for each platform that was asked for; else everything."""
        if descriptor.media_type not in INDEX_TYPES or pull.request.all_platforms:
            return found
        chosen: dict[str, Child] = {}
        for platform in pull.platforms:
            best = best_first([child.platform for child in found], platform)
            if not best:
                offered = ", ".join(sorted({str(c.platform) for c in found if c.platform is not None})) or "none"
                raise NotFound(f"{pull.request.reference} for platform {platform}", hint=f"the index offers: {offered}")
            chosen[found[best[0]].digest] = found[best[0]]
        return list(chosen.values())

    async def _bring_document(self, pull: _Pull, descriptor: Descriptor) -> bytes:
        """A manifest or index: its bytes, stored with the labels that keep its children."""
        context = pull.context
        data = await self._own_document(context, descriptor)
        if data is not None:
            pull.show(descriptor, PullState.EXISTS, descriptor.size)
            labels = reference_labels(children(descriptor.media_type, data, descriptor.digest))
            await self._keep(pull, descriptor, labels)
            return data
        data = await self._adopted_document(pull, descriptor)
        if data is not None:
            pull.show(descriptor, PullState.EXISTS, descriptor.size)
            return data
        data = await pull.registry.document(descriptor)
        _check_bytes(descriptor, data)
        pull.show(descriptor, PullState.DOWNLOADING, 0, len(data))
        labels = reference_labels(children(descriptor.media_type, data, descriptor.digest))
        labels |= _source(pull.reference)
        await self._store_bytes(context, descriptor, data, labels)
        pull.show(descriptor, PullState.COMPLETE, descriptor.size, len(data))
        return data

    async def _own_document(self, context: Context, descriptor: Descriptor) -> bytes | None:
        try:
            return await self._read(context, descriptor)
        except NotFound:
            return None

    async def _adopted_document(self, pull: _Pull, descriptor: Descriptor) -> bytes | None:
        """Another namespace's document: its children are needed for its labels, so it is adopted twice over."""
        if not await self._adopt(pull, descriptor, _source(pull.reference)):
            return None
        data = await self._read(pull.context, descriptor)
        labels = reference_labels(children(descriptor.media_type, data, descriptor.digest))
        await self._keep(pull, descriptor, labels)
        return data

    async def _read(self, context: Context, descriptor: Descriptor) -> bytes:
        async with self._content.reading(descriptor.digest, context) as (size, read):
            if size != descriptor.size:
                raise FailedPrecondition(
                    f"{descriptor.digest} has {size} bytes here, its descriptor says {descriptor.size}"
                )
            data: bytes = await read(0, size)
        _check_bytes(descriptor, data)
        return data

    async def _bring_blob(self, pull: _Pull, child: Child) -> None:
        descriptor = child.descriptor
        while True:
            if await self._is_here(pull, descriptor) or await self._adopt(pull, descriptor, _source(pull.reference)):
                pull.show(descriptor, PullState.EXISTS, descriptor.size)
                return
            download = self._downloads.get(descriptor.digest)
            if download is None:
                download = self._downloads[descriptor.digest] = _Download()
                try:
                    await self._download(pull, descriptor, download)
                    return
                finally:
                    if self._downloads.get(descriptor.digest) is download:
                        del self._downloads[descriptor.digest]
                    download.ended.set()
            await self._follow(pull, descriptor, download)

    async def _follow(self, pull: _Pull, descriptor: Descriptor, download: _Download) -> None:
        """Wait for another pull's download, as long as it gets on."""
        while not download.ended.is_set():
            before = download.offset
            with trio.move_on_after(2 * self._stall_s) as patience:
                while not download.ended.is_set():
                    pull.show(descriptor, PullState.DOWNLOADING, download.offset)
                    with trio.move_on_after(PROGRESS_EVERY_S):
                        await download.ended.wait()
                    if download.offset != before:
                        break
            if patience.cancelled_caught and self._downloads.get(descriptor.digest) is download:
                del self._downloads[descriptor.digest]  # it stands still: we lead now
                return

    async def _download(self, pull: _Pull, descriptor: Descriptor, download: _Download) -> None:
        """Stream a blob into an ingest, resuming where it breaks, and commit it. One clear sentence on failure."""
        if descriptor.size <= MAX_INLINE_BYTES:
            data = await self._download_small(pull, descriptor, download)
            await self._store_bytes(pull.context, descriptor, data, _source(pull.reference))
            pull.show(descriptor, PullState.COMPLETE, descriptor.size, descriptor.size)
            return
        for last in (False, True):
            try:
                await self._download_large(pull, descriptor, download)
                return
            except FailedPrecondition:
                # Wrong bytes: they are gone, so nothing is poisoned; a second try gets fresh ones.
                if last:
                    raise

    async def _download_small(self, pull: _Pull, descriptor: Descriptor, download: _Download) -> bytes:
        data = bytearray()
        await self._stream(pull, descriptor, download, 0, _Sink(data))
        _check_bytes(descriptor, bytes(data))
        return bytes(data)

    async def _download_large(self, pull: _Pull, descriptor: Descriptor, download: _Download) -> None:
        ref = f"{kind_of(descriptor.media_type)}-{descriptor.digest}"
        request = OpenIngest(ref, descriptor.size, descriptor.digest, descriptor.media_type)
        try:
            # Not under the pull's lease: unfinished bytes outlive a failed pull, for a day, and shorten the next.
            writer = await self._content.open_ingest(request, msgspec.structs.replace(pull.context, lease=None))
        except AlreadyExists:
            return
        poisoned = False
        try:
            if writer.offset > descriptor.size:
                await writer.truncate()
            begun = writer.offset
            download.offset = begun
            if begun < descriptor.size:
                await self._stream(pull, descriptor, download, begun, writer)
            try:
                await self._content.commit(
                    writer, pull.context, descriptor.size, descriptor.digest, _source(pull.reference)
                )
            except AlreadyExists:
                pass
            except FailedPrecondition:
                poisoned = True
                raise
            pull.show(descriptor, PullState.COMPLETE, descriptor.size, descriptor.size - begun)
        finally:
            await writer.finish(keep=True)
            if poisoned:
                await self._content_plans.ask(AbortIngest(ref), pull.context)

    async def _stream(
        self, pull: _Pull, descriptor: Descriptor, download: _Download, begun: int, sink: _Sink | Writer
    ) -> None:
        """Bytes into the sink until there are as many as the descriptor says; never one more."""
        from ..protocol.registry.client import BrokenTransfer

        offset, breaks = begun, 0
        pull.show(descriptor, PullState.DOWNLOADING, offset)
        while offset < descriptor.size:
            before = offset
            reason = "the registry sent fewer bytes than it announced"
            try:
                async with pull.registry.blob(descriptor, offset) as pieces:
                    async for piece in pieces:
                        if offset + len(piece) > descriptor.size:
                            raise FailedPrecondition(
                                f"blob {descriptor.digest}: the registry sends more than {descriptor.size} bytes"
                            )
                        await sink.write(piece)
                        offset += len(piece)
                        download.offset = offset
                        pull.show(descriptor, PullState.DOWNLOADING, offset, offset - begun)
            except BrokenTransfer as broken:
                reason = str(broken)
            breaks = 0 if offset > before else breaks + 1
            if offset < descriptor.size and breaks >= BREAKS_WITHOUT_PROGRESS:
                raise Unavailable(
                    f"blob {descriptor.digest}: {offset} of {descriptor.size} bytes came from "
                    f"{pull.reference.host}, then it broke off {breaks} times ({reason})",
                    hint="pull again: it goes on from there",
                )

    async def _is_here(self, pull: _Pull, descriptor: Descriptor) -> bool:
        """Whether this namespace has it; then the lease gets it too."""
        namespace = pull.context.namespace or ""
        with self._storage.view() as view:
            if await CONTENT.find(view, namespace, descriptor.digest) is None:
                return False
        await self._keep(pull, descriptor, {})
        return True

    async def _adopt(self, pull: _Pull, descriptor: Descriptor, labels: dict[str, str]) -> bool:
        """Bytes that another namespace brought cost a metadata write."""
        try:
            await self._storage.transact(
                lambda txn: adopt(txn, pull.context, descriptor.digest, descriptor.size, labels, descriptor.media_type)
            )
        except NotFound:
            return False
        except AlreadyExists:
            pass
        return True

    async def _keep(self, pull: _Pull, descriptor: Descriptor, labels: dict[str, str]) -> None:
        """Protect what this namespace has already, and add labels it lacks (where it came from, its children)."""
        await self._adopt(pull, descriptor, {})
        with self._storage.view() as view:
            info = await CONTENT.get(view, pull.context.namespace or "", descriptor.digest)
        missing = {key: value for key, value in labels.items() if info.labels.get(key) != value}
        missing |= {
            key: merged
            for key, value in _source(pull.reference).items()
            if (merged := merge_sources(key, info.labels.get(key, ""), value)) != info.labels.get(key)
        }
        if missing:
            request = UpdateContent(descriptor.digest, missing, [f"labels.{key}" for key in missing])
            await self._content_plans.ask(request, pull.context)

    async def _store_bytes(self, context: Context, descriptor: Descriptor, data: bytes, labels: dict[str, str]) -> None:
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


async def _record(txn: Transaction, namespace: str, request: PullImage, root: Descriptor) -> msgspec.Raw:
    return await record_image(txn, namespace, request.reference, root, request.labels)


def _source(reference: Reference) -> dict[str, str]:
    return {source_label(reference.host): reference.repository}


def _check_bytes(descriptor: Descriptor, data: bytes) -> None:
    algorithm = split_digest(descriptor.digest)[0]
    found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if len(data) != descriptor.size or found != descriptor.digest:
        raise FailedPrecondition(
            f"{kind_of(descriptor.media_type)} {descriptor.digest}: the registry sent {len(data)} bytes "
            f"with digest {found}"
        )


def _leaves(group: BaseExceptionGroup[OrlopError]) -> list[OrlopError]:
    found: list[OrlopError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
