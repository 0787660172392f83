"""Pulling images: from a registry into a namespace, each blob downloaded once however many want it.

A pull runs under a lease of its own, so nothing it brings can be collected before the image record stands. It
walks from the root: document, children, the children that this machine wants, layers in parallel. Labels that
keep the children are committed with the document itself.

Source: spec registry 8 and 9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog
import trio

from ..protocol.durations import age_text
from ..protocol.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from ..protocol.identifiers import check_digest, check_name, quote
from ..protocol.labels import check_labels
from ..protocol.messages import (
    MAX_INLINE_BYTES,
    Context,
    Empty,
    FetchBlobs,
    PullImage,
    PullPolicy,
    ResolveReference,
    TransferProgress,
    TransferState,
)
from ..protocol.records import Descriptor, Image
from ..protocol.registry.documents import INDEX_TYPES, Child, children, document_labels, kind_of
from ..protocol.registry.platforms import Platform, best_first, parse_platform
from ..protocol.registry.references import parse_reference
from ..protocol.service import Session
from ..protocol.world import Clock
from ..storage.blobs.sharing import Sharing
from ..storage.engine import Transaction
from ..storage.tables import IMAGES
from .actor import PlanActor
from .config import TransferConfig
from .content_actor import ContentActor
from .downloads import Downloads, Fetching, Nowhere, check_bytes, source_labels
from .failures import first_of
from .image_unpack import ImageUnpacks, is_rootfs, read_document
from .images import record_image
from .progress import Emit, Progress
from .registries import Registries
from .storage import StorageActor
from .verifiers import ImageVerifiers
from .work_leases import WorkLeases

__all__ = ["Puller"]

log = structlog.get_logger("orlop.transfer")

_MAX_DEPTH = 8
_MAX_OBJECTS = 10_000


@dataclass
class Pull(Fetching):
    """One pull under way."""

    request: PullImage
    platforms: list[Platform]
    seen: set[str] = field(default_factory=set)


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
        verifiers: ImageVerifiers,
        host: Platform,
        policy: Sharing,
        config: TransferConfig,
        clock: Clock,
    ) -> None:
        self._storage = storage
        self._content = content
        self._leases = leases
        self._unpacks = unpacks
        self._registries = registries
        self._verifiers = verifiers
        self._host = host
        self._clock = clock
        self._downloads = Downloads(storage, content, content_plans, policy, config)

    async def pull(self, request: PullImage, context: Context, _: Session, emit: Emit) -> Image:
        """Bring an image and record it. See PullImage.

        Raises NotFound (name, platform, blob), FailedPrecondition (bytes are not what they should be, an image
        verifier denies), Unauthenticated, PermissionDenied, Unavailable (registry), and what the store says.
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
        async with self._leases.hold(context, request.reference) as leased, progress.reporting():
            limiter = trio.CapacityLimiter(request.max_concurrent_downloads)
            pull = Pull(reference, leased, Nowhere(reference), limiter, progress, request, platforms)
            image = await self._cached(pull)
            if image is None:
                image = await self._pull(pull)
        await progress.say(TransferProgress(request.reference, TransferState.SAVED, image.target.digest))
        return image

    async def _pull(self, pull: Pull) -> Image:
        request, name = pull.request, pull.request.reference
        async with self._registries.open(pull.reference, request.access, pull.progress) as registry:
            await pull.progress.say(TransferProgress(name, TransferState.RESOLVING, source=pull.reference.host))
            try:
                root = await registry.resolve()
            except (Unavailable, ResourceExhausted) as error:
                here = await self._recorded(pull)
                if here is None:
                    raise
                age = age_text(here.updated_at, self._clock.now_ns())
                if request.policy is not PullPolicy.NEWER:
                    here_is = f"what was pulled {age} ago is here; --policy=newer serves it meanwhile"
                    error.hint = f"{error.hint}; {here_is}" if error.hint else here_is
                    raise
                pull.progress.note(f"{error.message}; this image was recorded {age} ago")
                return await self._serve(pull, here)
            await pull.progress.say(TransferProgress(name, TransferState.RESOLVED, root.digest, total=root.size))
            if self._verifiers.are_set:
                await pull.progress.say(TransferProgress(name, TransferState.VERIFYING, root.digest))
                await self._verifiers.ask(pull.reference, root)
            pull.registry = registry
            await self._bring(pull, Child(root.media_type, root.digest, root.size), 0)
            raw = await self._storage.transact(lambda txn: _record(txn, pull.context.namespace or "", request, root))
        return IMAGES.decode(raw)

    async def _cached(self, pull: Pull) -> Image | None:
        """The image as it is here, if the policy is content with that and all of it is."""
        policy = pull.request.policy
        if policy not in (PullPolicy.MISSING, PullPolicy.NEVER):
            return None
        here = await self._recorded(pull)
        try:
            if here is None:
                raise NotFound(f"image {quote(pull.request.reference)}", hint="the policy is never to ask its registry")
            return await self._serve(pull, here)
        except NotFound:
            if policy is PullPolicy.NEVER:
                raise
        pull.seen.clear()
        return None

    async def _recorded(self, pull: Pull) -> Image | None:
        with self._storage.view() as view:
            return await IMAGES.find(view, pull.context.namespace or "", pull.request.reference)

    async def _serve(self, pull: Pull, image: Image) -> Image:
        """What is here, unpacked if that was asked for. Raises NotFound for what is not."""
        target = image.target
        try:
            await self._bring(pull, Child(target.media_type, target.digest, target.size), 0)
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        return image

    async def resolve(self, request: ResolveReference, _: Context, __: Session) -> Descriptor:
        """See Store.resolve."""
        reference = parse_reference(request.reference)
        async with self._registries.open(reference, request.access, Progress()) as registry:
            try:
                return await registry.resolve()
            except NotFound as missing:
                if not reference.digest:
                    raise
                try:
                    return await registry.find(reference.digest)
                except NotFound:
                    raise missing from None

    async def fetch(self, request: FetchBlobs, context: Context, _: Session, emit: Emit) -> Empty:
        """See Store.fetch."""
        reference = parse_reference(request.repository, needs_object=False)
        for descriptor in request.blobs:
            check_digest(descriptor.digest)
            if descriptor.size <= 0:
                raise InvalidArgument(f"descriptor {descriptor.digest} must have a size")
        progress = Progress(emit)
        async with (
            self._leases.hold(context, request.repository) as leased,
            progress.reporting(),
            self._registries.open(reference, request.access, progress) as registry,
        ):
            limiter = trio.CapacityLimiter(request.max_concurrent_downloads)
            fetching = Fetching(reference, leased, registry, limiter, progress)
            try:
                async with trio.open_nursery() as nursery:
                    for descriptor in request.blobs:
                        nursery.start_soon(self._fetch_one, fetching, descriptor)
            except BaseExceptionGroup as group:
                raise first_of(group) from None
        return Empty()

    async def _fetch_one(self, fetching: Fetching, descriptor: Descriptor) -> None:
        if kind_of(descriptor.media_type) in ("index", "manifest"):
            await self._bring_document(fetching, descriptor)
        else:
            async with fetching.limiter:
                await self._downloads.bring(fetching, descriptor)

    async def _bring(self, pull: Pull, child: Child, depth: int, *, describes: bool = False) -> None:
        """This object and, if it is a document, what it refers to and this pull wants. `describes`: it is a signature
        or the like, of which all is wanted and nothing unpacked, whatever its config looks like."""
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
        if pull.request.referrers:
            for referrer in await pull.registry.referrers(descriptor.digest):
                await self._bring(pull, referrer, depth + 1, describes=True)
        if pull.request.unpack and not describes and found and is_rootfs(descriptor.media_type, found):
            # What no index describes is for the machine that its config names.
            named = bool(pull.request.platforms) and child.platform is None and not pull.request.all_platforms
            await self._bring_unpacked(pull, descriptor, found, pull.platforms if named else [])
            return
        wanted = found if describes else self._wanted(pull, descriptor, found)
        async with trio.open_nursery() as nursery:
            for each in wanted:
                nursery.start_soon(partial(self._bring, pull, each, depth + 1, describes=describes))
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

    async def _bring_unpacked(
        self, pull: Pull, manifest: Descriptor, found: list[Child], platforms: list[Platform]
    ) -> None:
        """A manifest's config and layers, and these as snapshots. Raises NotFound where it is for none of these
        platforms; empty: for whatever it is."""
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
            platforms=platforms,
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

    async def _bring_document(self, fetching: Fetching, descriptor: Descriptor) -> bytes:
        """A manifest or index: its bytes, stored with the labels that keep its children."""
        context = fetching.context
        data = await self._own_document(context, descriptor)
        if data is not None:
            fetching.show(descriptor, TransferState.EXISTS, descriptor.size)
            labels = document_labels(descriptor.media_type, data, descriptor.digest)
            await self._downloads.keep(fetching, descriptor, labels)
            return data
        data = await self._adopted_document(fetching, descriptor)
        if data is not None:
            fetching.show(descriptor, TransferState.EXISTS, descriptor.size)
            return data
        data = await fetching.registry.document(descriptor)
        check_bytes(descriptor, data)
        fetching.show(descriptor, TransferState.DOWNLOADING, 0, len(data))
        labels = document_labels(descriptor.media_type, data, descriptor.digest)
        labels |= source_labels(fetching.reference)
        await self._downloads.store_bytes(context, descriptor, data, labels)
        fetching.show(descriptor, TransferState.COMPLETE, descriptor.size, len(data))
        return data

    async def _own_document(self, context: Context, descriptor: Descriptor) -> bytes | None:
        try:
            return await read_document(self._content, context, descriptor)
        except NotFound:
            return None

    async def _adopted_document(self, fetching: Fetching, descriptor: Descriptor) -> bytes | None:
        """Another namespace's document: its children are needed for its labels, so it is adopted twice over."""
        if not await self._downloads.adopt(fetching, descriptor, source_labels(fetching.reference)):
            return None
        data = await read_document(self._content, fetching.context, descriptor)
        labels = document_labels(descriptor.media_type, data, descriptor.digest)
        await self._downloads.keep(fetching, descriptor, labels)
        return data


async def _record(txn: Transaction, namespace: str, request: PullImage, root: Descriptor) -> msgspec.Raw:
    return await record_image(txn, namespace, request.reference, root, request.labels)
