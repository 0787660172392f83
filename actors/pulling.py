"""Pulling images: from a registry into a namespace, each blob downloaded once however many want it.

A pull runs under a lease of its own, so nothing it brings can be collected before the image record stands. It
walks from the root: document, children, the children that this machine wants, layers in parallel. Labels that
keep the children are committed with the document itself.

Source: spec registry 8 and 9.
"""

from __future__ import annotations

import msgspec
import structlog
import trio

from ..protocol.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ..protocol.identifiers import check_digest, check_name
from ..protocol.labels import check_labels
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    Context,
    PullImage,
    TransferProgress,
    TransferState,
)
from ..protocol.records import Descriptor
from ..protocol.registry.documents import INDEX_TYPES, Child, children, document_labels, kind_of
from ..protocol.registry.platforms import Platform, best_first, parse_platform
from ..protocol.registry.references import parse_reference
from ..protocol.service import Session
from ..storage.blobs.sharing import Sharing
from ..storage.engine import Transaction
from .actor import PlanActor
from .config import TransferConfig
from .content_actor import ContentActor
from .downloads import Downloads, Pull, check_bytes, source_labels
from .image_unpack import ImageUnpacks, is_rootfs, read_document
from .images import record_image
from .progress import Emit, Progress
from .registries import Registries
from .storage import StorageActor
from .work_leases import WorkLeases

__all__ = ["Puller"]

log = structlog.get_logger("orlop.transfer")

_MAX_DEPTH = 8
_MAX_OBJECTS = 10_000


class Puller:
    """Pulls run in their callers' tasks; what they share is the downloads."""

    def __init__(
        self,
        storage: StorageActor,
        content: ContentActor,
        content_plans: PlanActor,
        leases: WorkLeases,
        unpacks: ImageUnpacks,
        registries: Registries,
        host: Platform,
        policy: Sharing,
        config: TransferConfig,
    ) -> None:
        self._storage = storage
        self._content = content
        self._leases = leases
        self._unpacks = unpacks
        self._registries = registries
        self._host = host
        self._downloads = Downloads(storage, content, content_plans, policy, config)

    async def pull(self, request: PullImage, context: Context, _: Session, emit: Emit) -> msgspec.Raw:
        """Bring an image and record it. See PullImage.

        Raises NotFound (name, platform, blob), FailedPrecondition (bytes are not what they should be),
        Unauthenticated, PermissionDenied, Unavailable (registry), and what the store says.
        Cancellation: no image record; what has come stays for a day, and shortens the next attempt.
        Durability: with the return.
        """
        check_name(request.reference, "reference")
        reference = parse_reference(request.reference)
        check_labels(request.labels)
        if reference.digest:
            check_digest(reference.digest, f"reference {request.reference}")
        platforms = [parse_platform(text, self._host) for text in request.platforms] or [self._host]
        progress = Progress(emit)
        async with (
            self._leases.hold(context, request.reference) as leased,
            progress.reporting(),
            self._registries.open(reference, request.access, progress) as registry,
        ):
            limiter = trio.CapacityLimiter(request.max_concurrent_downloads)
            pull = Pull(request, reference, leased, registry, platforms, limiter, progress)
            await progress.say(TransferProgress(request.reference, TransferState.RESOLVING, source=reference.host))
            root = await registry.resolve()
            await progress.say(
                TransferProgress(request.reference, TransferState.RESOLVED, root.digest, total=root.size)
            )
            await self._bring(pull, Child(root.media_type, root.digest, root.size), 0)
            image = await self._storage.transact(lambda txn: _record(txn, leased.namespace or "", request, root))
        await progress.say(TransferProgress(request.reference, TransferState.SAVED, root.digest))
        return image

    async def _bring(self, pull: Pull, child: Child, depth: int) -> None:
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
        pull.show(descriptor, TransferState.WAITING)
        if kind_of(descriptor.media_type) not in ("index", "manifest"):
            await self._bring_blob(pull, child)
            return
        data = await self._bring_document(pull, descriptor)
        found = children(descriptor.media_type, data, descriptor.digest)
        if pull.request.unpack and found and is_rootfs(descriptor.media_type, found):
            await self._bring_unpacked(pull, descriptor, found)
            return
        wanted = self._wanted(pull, descriptor, found)
        async with trio.open_nursery() as nursery:
            for each in wanted:
                nursery.start_soon(self._bring, pull, each, depth + 1)
            if not pull.request.skip_metadata:
                for each in found:
                    if each not in wanted:
                        nursery.start_soon(self._bring_metadata, pull, each)

    async def _bring_blob(self, pull: Pull, child: Child) -> None:
        """What its parent holds in itself need not be asked for."""
        descriptor = child.descriptor
        if len(child.data) == descriptor.size <= MAX_INLINE_BYTES:
            check_bytes(descriptor, child.data)
            await self._downloads.store_bytes(pull.context, descriptor, child.data, source_labels(pull.reference))
            pull.show(descriptor, TransferState.EXISTS, descriptor.size)
            return
        async with pull.limiter:
            await self._downloads.bring(pull, descriptor)

    async def _bring_unpacked(self, pull: Pull, manifest: Descriptor, found: list[Child]) -> None:
        """A manifest's config and layers, and these as snapshots."""
        for child in found:
            check_digest(child.digest)
            if child.size <= 0:
                raise InvalidArgument(f"descriptor {child.digest} must have a size")

        by_digest = {child.digest: child for child in found}

        async def fetch(descriptor: Descriptor) -> None:
            pull.seen.add(descriptor.digest)
            await self._bring_blob(pull, by_digest[descriptor.digest])

        await self._unpacks.bring(
            pull.request.snapshotter,
            pull.context,
            manifest.digest,
            [child.descriptor for child in found],
            fetch,
            pull.progress.show_unpacking,
            fetch_all=pull.request.fetch_all,
        )

    async def _bring_metadata(self, pull: Pull, child: Child) -> None:
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
            pull.progress.forget(descriptor)
            return
        for each in children(descriptor.media_type, data, descriptor.digest):
            if kind_of(each.media_type) == "config" and each.digest not in pull.seen and each.size > 0:
                pull.seen.add(each.digest)
                await self._bring_blob(pull, each)

    def _wanted(self, pull: Pull, descriptor: Descriptor, found: list[Child]) -> list[Child]:
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

    async def _bring_document(self, pull: Pull, descriptor: Descriptor) -> bytes:
        """A manifest or index: its bytes, stored with the labels that keep its children."""
        context = pull.context
        data = await self._own_document(context, descriptor)
        if data is not None:
            pull.show(descriptor, TransferState.EXISTS, descriptor.size)
            labels = document_labels(descriptor.media_type, data, descriptor.digest)
            await self._downloads.keep(pull, descriptor, labels)
            return data
        data = await self._adopted_document(pull, descriptor)
        if data is not None:
            pull.show(descriptor, TransferState.EXISTS, descriptor.size)
            return data
        data = await pull.registry.document(descriptor)
        check_bytes(descriptor, data)
        pull.show(descriptor, TransferState.DOWNLOADING, 0, len(data))
        labels = document_labels(descriptor.media_type, data, descriptor.digest)
        labels |= source_labels(pull.reference)
        await self._downloads.store_bytes(context, descriptor, data, labels)
        pull.show(descriptor, TransferState.COMPLETE, descriptor.size, len(data))
        return data

    async def _own_document(self, context: Context, descriptor: Descriptor) -> bytes | None:
        try:
            return await read_document(self._content, context, descriptor)
        except NotFound:
            return None

    async def _adopted_document(self, pull: Pull, descriptor: Descriptor) -> bytes | None:
        """Another namespace's document: its children are needed for its labels, so it is adopted twice over."""
        if not await self._downloads.adopt(pull, descriptor, source_labels(pull.reference)):
            return None
        data = await read_document(self._content, pull.context, descriptor)
        labels = document_labels(descriptor.media_type, data, descriptor.digest)
        await self._downloads.keep(pull, descriptor, labels)
        return data


async def _record(txn: Transaction, namespace: str, request: PullImage, root: Descriptor) -> msgspec.Raw:
    return await record_image(txn, namespace, request.reference, root, request.labels)
