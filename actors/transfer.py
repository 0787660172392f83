"""Pulling images: from a registry into a namespace, each blob downloaded once however many want it.

A pull runs under a lease of its own, so nothing it brings can be collected before the image record stands. It
walks from the root: document, children, the children that this machine wants, layers in parallel. Labels that
keep the children are committed with the document itself.

Source: spec registry 8 and 9.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog
import trio

from ..protocol.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
)
from ..protocol.identifiers import check_digest, check_name
from ..protocol.labels import GC_EXPIRE, check_labels
from ..protocol.messages import (
    Context,
    CreateLease,
    DeleteLease,
    PullImage,
    PullProgress,
    PullState,
)
from ..protocol.records import Descriptor
from ..protocol.registry.documents import INDEX_TYPES, Child, children, kind_of, reference_labels
from ..protocol.registry.platforms import Platform, best_first, parse_platform
from ..protocol.registry.references import parse_reference
from ..protocol.service import Session
from ..protocol.world import World
from ..storage.blobs.sharing import Sharing
from ..storage.engine import Transaction
from ..storage.lease_entries import page_entries
from ..storage.tables import LEASES
from .actor import PlanActor
from .content_actor import ContentActor
from .downloads import PROGRESS_EVERY_S, Downloads, Emit, Pull, check_bytes, source_labels
from .images import record_image
from .leases import lease_id
from .storage import StorageActor
from .timestamps import rfc3339

__all__ = ["TransferActor"]

log = structlog.get_logger("orlop.transfer")

LEASE_LIFE_NS = 24 * 3600 * 1_000_000_000
PULL_LABEL = "orlop.io/pull"  # on a pull's lease: the reference
_LEASE_PREFIX = "pull-"
STALL_S = 30.0
_MAX_DEPTH = 8
_MAX_OBJECTS = 10_000


class TransferActor:
    """Pulls run in their callers' tasks; what they share is the downloads."""

    def __init__(
        self,
        storage: StorageActor,
        content: ContentActor,
        content_plans: PlanActor,
        leases: PlanActor,
        host: Platform,
        world: World,
        policy: Sharing,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        self._storage = storage
        self._content = content
        self._leases = leases
        self._host = host
        self._world = world
        self._stall_s = stall_s
        self._downloads = Downloads(storage, content, content_plans, policy, stall_s)
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
            pull = Pull(request, reference, leased, registry, platforms, limiter, emit)
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
            for name, (_, raw) in zip(page.names, page.rows, strict=True)
            if name.startswith(_LEASE_PREFIX)
            and name not in self._pulling
            and LEASES.decode(raw).labels.get(PULL_LABEL) == reference
        ]

    async def _bring_all(self, pull: Pull, root: Descriptor) -> None:
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
        pull.show(descriptor, PullState.WAITING)
        if kind_of(descriptor.media_type) not in ("index", "manifest"):
            async with pull.limiter:
                await self._downloads.bring(pull, descriptor)
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
            pull.progress.pop(descriptor.digest, None)
            pull.changed.discard(descriptor.digest)
            return
        for each in children(descriptor.media_type, data, descriptor.digest):
            if kind_of(each.media_type) == "config" and each.digest not in pull.seen and each.size > 0:
                pull.seen.add(each.digest)
                async with pull.limiter:
                    await self._downloads.bring(pull, each.descriptor)

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
            pull.show(descriptor, PullState.EXISTS, descriptor.size)
            labels = reference_labels(children(descriptor.media_type, data, descriptor.digest))
            await self._downloads.keep(pull, descriptor, labels)
            return data
        data = await self._adopted_document(pull, descriptor)
        if data is not None:
            pull.show(descriptor, PullState.EXISTS, descriptor.size)
            return data
        data = await pull.registry.document(descriptor)
        check_bytes(descriptor, data)
        pull.show(descriptor, PullState.DOWNLOADING, 0, len(data))
        labels = reference_labels(children(descriptor.media_type, data, descriptor.digest))
        labels |= source_labels(pull.reference)
        await self._downloads.store_bytes(context, descriptor, data, labels)
        pull.show(descriptor, PullState.COMPLETE, descriptor.size, len(data))
        return data

    async def _own_document(self, context: Context, descriptor: Descriptor) -> bytes | None:
        try:
            return await self._read(context, descriptor)
        except NotFound:
            return None

    async def _adopted_document(self, pull: Pull, descriptor: Descriptor) -> bytes | None:
        """Another namespace's document: its children are needed for its labels, so it is adopted twice over."""
        if not await self._downloads.adopt(pull, descriptor, source_labels(pull.reference)):
            return None
        data = await self._read(pull.context, descriptor)
        labels = reference_labels(children(descriptor.media_type, data, descriptor.digest))
        await self._downloads.keep(pull, descriptor, labels)
        return data

    async def _read(self, context: Context, descriptor: Descriptor) -> bytes:
        async with self._content.reads.reading(descriptor.digest, context) as (size, read):
            if size != descriptor.size:
                raise FailedPrecondition(
                    f"{descriptor.digest} has {size} bytes here, its descriptor says {descriptor.size}"
                )
            data: bytes = await read(0, size)
        check_bytes(descriptor, data)
        return data


async def _record(txn: Transaction, namespace: str, request: PullImage, root: Descriptor) -> msgspec.Raw:
    return await record_image(txn, namespace, request.reference, root, request.labels)


def _leaves(group: BaseExceptionGroup[OrlopError]) -> list[OrlopError]:
    found: list[OrlopError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
