"""Images to registries: from this store, or from another registry through it.

What is there already is not sent. Blobs go first, several at a time, then manifests, then indexes from the inside out;
the root comes last, and moves the tag: whoever pulls meanwhile gets the old image or the new one, whole. Source: spec
registry 10.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from ..protocol.errors import FailedPrecondition, InvalidArgument, NotFound
from ..protocol.identifiers import check_digest, check_name, digest_of
from ..protocol.messages import (
    Context,
    CopyImage,
    ListReferrers,
    Pushed,
    PushImage,
    PushOptions,
    Referrer,
    Referrers,
    TransferProgress,
    TransferState,
)
from ..protocol.records import Descriptor
from ..protocol.registry.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Child,
    children,
    is_distributable,
    kind_of,
    sniff,
    subject_of,
    trimmed,
)
from ..protocol.registry.platforms import Platform, best_first, parse_platform
from ..protocol.registry.references import Reference, parse_reference
from ..protocol.service import Session
from ..storage.tables import CONTENT, IMAGES
from .content_actor import ContentActor
from .failures import first_of
from .origins import LocalOrigin, Origin, RegistryOrigin
from .progress import Emit, Progress
from .registries import Registries
from .storage import StorageActor

if TYPE_CHECKING:
    from ..protocol.registry.client import Registry
    from ..protocol.registry.upload import Uploader

__all__ = ["Pusher"]

_MAX_DEPTH: Final = 8
_MAX_OBJECTS: Final = 10_000


@dataclass
class _Document:
    """A manifest or index, and its place: what is deeper goes before; what only describes the rest, and is no part of
    it, goes after. `data` None: it is not here, and has to be there."""

    descriptor: Descriptor
    data: bytes | None
    depth: int
    part: bool = True

    @property
    def subject(self) -> str:
        """The digest of what it describes; empty if it describes nothing."""
        if self.data is None:
            return ""
        subject = subject_of(self.descriptor.media_type, self.data, self.descriptor.digest)
        return "" if subject is None else subject.digest


@dataclass
class _Plan:
    """What makes up an image that is to be sent. `sources`: in which repositories of the registry a blob is, as far as
    we know, with commas between."""

    documents: dict[str, _Document] = field(default_factory=dict)
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


class Pusher:
    """Pushes run in their callers' tasks; two of one blob into one repository do not send it twice."""

    def __init__(self, storage: StorageActor, content: ContentActor, registries: Registries, host: Platform) -> None:
        self._storage = storage
        self._content = content
        self._registries = registries
        self._host = host
        self._under_way: dict[tuple[str, str], _Sending] = {}

    async def push(self, request: PushImage, context: Context, _: Session, emit: Emit) -> Pushed:
        """See Store.push."""
        check_name(request.reference, "reference")
        reference = parse_reference(request.reference, needs_object=False)
        root = await self._local_root(request, context)
        origin = LocalOrigin(self._storage, self._content, context)
        progress = Progress(emit)
        async with progress.reporting(), self._registries.open(reference, request.access, progress) as registry:
            from ..protocol.registry.upload import Uploader

            if kind_of(root.media_type) not in ("index", "manifest") and request.target:
                plan = _Plan(blobs={root.digest: root})
                work = _Push(Uploader(registry), origin, reference, request, progress, self._under_way)
                await work.send_blobs(plan)
                return Pushed(str(reference), root, work.sent)
            return await self._send(Uploader, registry, origin, root, reference, request, progress)

    async def copy(self, request: CopyImage, _: Context, __: Session, emit: Emit) -> Pushed:
        """See Store.copy."""
        source, target = parse_reference(request.source), parse_reference(request.target, needs_object=False)
        progress = Progress(emit)
        async with (
            progress.reporting(),
            self._registries.open(source, request.source_access, progress) as origin,
            self._registries.open(target, request.target_access, progress) as registry,
        ):
            from ..protocol.registry.upload import Uploader

            await progress.say(TransferProgress(request.source, TransferState.RESOLVING, source=source.host))
            root = await origin.resolve()
            await progress.say(TransferProgress(request.source, TransferState.RESOLVED, root.digest, total=root.size))
            return await self._send(Uploader, registry, RegistryOrigin(origin), root, target, request, progress)

    async def referrers(self, request: ListReferrers, _: Context, __: Session) -> Referrers:
        """See Store.referrers."""
        reference = parse_reference(request.reference)
        progress = Progress()
        async with self._registries.open(reference, request.access, progress) as registry:
            target = await registry.resolve()
            found = await registry.referrers(target.digest, request.artifact_type)
        return Referrers(target, [Referrer(each.artifact_type, each.descriptor) for each in found])

    async def _local_root(self, request: PushImage, context: Context) -> Descriptor:
        if not request.target:
            with self._storage.view() as view:
                name = request.name or request.reference
                return (await IMAGES.get(view, context.namespace or "", name)).target
        check_digest(request.target)
        with self._storage.view() as view:
            info = await CONTENT.get(view, context.namespace or "", request.target)
        if request.media_type:
            return Descriptor(request.media_type, info.digest, info.size)
        origin = LocalOrigin(self._storage, self._content, context)
        data = await origin.document(Descriptor("", info.digest, info.size)) or b""
        return Descriptor(sniff(data, request.target), info.digest, info.size)

    async def _send(
        self,
        uploader_type: type[Uploader],
        registry: Registry,
        origin: Origin,
        root: Descriptor,
        reference: Reference,
        options: PushOptions,
        progress: Progress,
    ) -> Pushed:
        platforms = [parse_platform(text, self._host) for text in options.platforms]
        root, root_data = await self._chosen(origin, root, platforms, trim=options.trim, name=str(reference))
        if reference.digest and reference.digest != root.digest:
            raise FailedPrecondition(
                f"{reference} names another digest than what is to be pushed ({root.digest})",
                hint="leave the digest out of the reference",
            )
        plan = await self._plan(origin, root, root_data, reference.host, options)
        known = {each for sources in plan.sources.values() for each in sources.split(",") if each}
        work = _Push(uploader_type(registry, sorted(known)), origin, reference, options, progress, self._under_way)
        await work.run(plan, root)
        await progress.say(TransferProgress(str(reference), TransferState.PUSHED, root.digest, source=work.host))
        return Pushed(str(reference), root, work.sent)

    async def _chosen(
        self, origin: Origin, root: Descriptor, platforms: Sequence[Platform], *, trim: bool, name: str
    ) -> tuple[Descriptor, bytes]:
        """The document that goes under the tag."""
        if kind_of(root.media_type) not in ("index", "manifest"):
            raise InvalidArgument(f"{root.digest} is no image: its type is {root.media_type}")
        data = await origin.document(root)
        if data is None:
            raise NotFound(f"{kind_of(root.media_type)} {root.digest}", hint="pull the image again")
        if not platforms or root.media_type not in INDEX_TYPES:
            return root, data
        found = children(root.media_type, data, root.digest)
        chosen: list[Child] = []
        for platform in platforms:
            best = best_first([child.platform for child in found], platform)
            if not best:
                offered = ", ".join(sorted({str(c.platform) for c in found if c.platform is not None})) or "none"
                raise NotFound(f"{name} for platform {platform}", hint=f"the index offers: {offered}")
            if found[best[0]].digest not in [each.digest for each in chosen]:
                chosen.append(found[best[0]])
        if len(chosen) == 1 and not trim:
            return await self._chosen(origin, chosen[0].descriptor, platforms, trim=False, name=name)
        smaller = trimmed(data, [each.digest for each in chosen], root.digest)
        return Descriptor(root.media_type, digest_of(smaller), len(smaller)), smaller

    async def _plan(self, origin: Origin, root: Descriptor, data: bytes, host: str, options: PushOptions) -> _Plan:
        plan = _Plan({root.digest: _Document(root, data, 0)})
        waiting = [plan.documents[root.digest]]
        while waiting:
            document = waiting.pop()
            if document.data is None:
                continue
            parts = children(document.descriptor.media_type, document.data, document.descriptor.digest)
            found = [(child, True) for child in parts]
            if options.referrers and document.descriptor.media_type in MANIFEST_TYPES + INDEX_TYPES:
                found += [(child, False) for child in await origin.referrers(document.descriptor.digest)]
            for child, part in found:
                check_digest(child.digest)
                descriptor, depth = child.descriptor, document.depth + 1
                if kind_of(descriptor.media_type) not in ("index", "manifest"):
                    if options.allow_nondistributable or is_distributable(descriptor.media_type):
                        plan.blobs[descriptor.digest] = descriptor
                        # Where a manifest came from its blobs are too, also those that are not here.
                        plan.sources[descriptor.digest] = (
                            plan.sources.get(descriptor.digest)
                            or await origin.repositories(descriptor, host)
                            or await origin.repositories(document.descriptor, host)
                        )
                    continue
                known = plan.documents.get(descriptor.digest)
                if known is None:
                    known = _Document(descriptor, await origin.document(descriptor), depth, part)
                    plan.documents[descriptor.digest] = known
                elif known.depth >= depth and known.part >= part:
                    continue
                known.depth, known.part = max(depth, known.depth), part or known.part
                waiting.append(known)  # once more if it is deeper than we knew: so is all below it
            if document.depth > _MAX_DEPTH or len(plan.documents) + len(plan.blobs) > _MAX_OBJECTS:
                raise FailedPrecondition(
                    f"{root.digest}: deeper than {_MAX_DEPTH} documents or more than {_MAX_OBJECTS} objects"
                )
        return plan


class _Sending:
    """What is on its way into a repository."""

    def __init__(self) -> None:
        self.users = 0
        self.lock = trio.Lock()


class _Push:
    """One push under way."""

    def __init__(
        self,
        uploader: Uploader,
        origin: Origin,
        reference: Reference,
        options: PushOptions,
        progress: Progress,
        under_way: dict[tuple[str, str], _Sending],
    ) -> None:
        self._uploader = uploader
        self._origin = origin
        self._reference = reference
        self._options = options
        self._progress = progress
        self._under_way = under_way
        self._absent: set[str] = set()  # of which that is known
        self.sent = 0

    @property
    def host(self) -> str:
        return self._uploader.host

    async def run(self, plan: _Plan, root: Descriptor) -> None:
        for descriptor in (*plan.blobs.values(), *(each.descriptor for each in plan.documents.values())):
            self._progress.show(descriptor, TransferState.WAITING, source=self.host)
        tag = self._reference.tag
        if tag and all(each.part for each in plan.documents.values()) and not plan.documents[root.digest].subject:
            if await self._uploader.has(root, tag):
                for descriptor in (*plan.blobs.values(), *(each.descriptor for each in plan.documents.values())):
                    self._progress.show(descriptor, TransferState.EXISTS, descriptor.size)
                return
            self._absent.add(root.digest)
        await self.send_blobs(plan)
        for document in sorted(plan.documents.values(), key=lambda each: -each.depth):
            if document.part and document.descriptor.digest != root.digest:
                await self._send_document(document, document.descriptor.digest)
        await self._send_document(plan.documents[root.digest], tag or root.digest)
        for document in sorted(plan.documents.values(), key=lambda each: each.depth):
            if not document.part:
                await self._send_document(document, document.descriptor.digest)

    async def send_blobs(self, plan: _Plan) -> None:
        """Several at a time. The first failure ends the others."""
        limiter = trio.CapacityLimiter(self._options.max_concurrent_uploads)

        async def send(blob: Descriptor) -> None:
            async with limiter:
                await self._send_once(blob, plan.sources.get(blob.digest, ""))

        try:
            async with trio.open_nursery() as nursery:
                for blob in plan.blobs.values():
                    nursery.start_soon(send, blob)
        except BaseExceptionGroup as group:
            raise first_of(group) from None

    async def _send_once(self, blob: Descriptor, sources: str) -> None:
        """Whoever comes second waits, and then finds it there."""
        async with self._alone(blob.digest):
            await self._send_blob(blob, sources)

    @asynccontextmanager
    async def _alone(self, what: str) -> AsyncIterator[None]:
        """No other push is at this in this repository."""
        key = (f"{self.host}/{self._reference.repository}", what)
        sending = self._under_way.setdefault(key, _Sending())
        sending.users += 1
        try:
            async with sending.lock:
                yield
        finally:
            sending.users -= 1
            if not sending.users:
                self._under_way.pop(key, None)

    async def _send_blob(self, blob: Descriptor, sources: str) -> None:
        show = self._progress.show
        if await self._uploader.has(blob):
            show(blob, TransferState.EXISTS, blob.size)
            return
        from ..protocol.registry.upload import Source, mount_candidate

        mount_from = mount_candidate(sources, self._reference.repository)
        source: Source | None
        try:
            source = await self._origin.blob(blob)
        except NotFound:  # then it may be mounted
            source = None
        show(blob, TransferState.UPLOADING)
        most = 0

        def sent(offset: int) -> None:
            nonlocal most
            most = max(most, offset)
            show(blob, TransferState.UPLOADING, offset, most)

        if await self._uploader.put_blob(blob, source, mount_from, sent, chunk_bytes=self._options.chunk_bytes):
            show(blob, TransferState.MOUNTED, blob.size)
            return
        self.sent += blob.size
        show(blob, TransferState.COMPLETE, blob.size, blob.size)

    async def _send_document(self, document: _Document, name: str) -> None:
        descriptor, subject = document.descriptor, document.subject
        tagged = name if name != descriptor.digest else ""
        there = descriptor.digest not in self._absent and await self._uploader.has(descriptor, tagged)
        if there and (not subject or await self._uploader.lists(descriptor, subject)):
            self._progress.show(descriptor, TransferState.EXISTS, descriptor.size)
            return
        if document.data is None:
            raise NotFound(
                f"{kind_of(descriptor.media_type)} {descriptor.digest} is neither here nor at {self.host}",
                hint="choose what is here with --platform",
            )
        if subject:
            async with self._alone(f"referrers of {subject}"):
                await self._uploader.put_referrer(descriptor, document.data, name)
        else:
            await self._uploader.put_document(descriptor, document.data, name)
        self.sent += descriptor.size
        self._progress.show(descriptor, TransferState.COMPLETE, descriptor.size, descriptor.size)
