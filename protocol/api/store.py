"""A store as one namespace sees it: the resources, and what concerns them all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from .. import messages as m
from .. import methods as t
from ..errors import FailedPrecondition, NotFound, OrlopError, Unavailable
from ..identifiers import DEFAULT_NAMESPACE
from ..messages import Context
from ..methods import Method
from ..records import Descriptor, Image, Lease
from .caller import Caller
from .content import Content
from .resources import Containers, Events, Images, Leases, Namespaces, Sandboxes
from .snapshots import Snapshots
from .transaction import Transaction

__all__ = ["Store"]

Progress = Callable[[m.TransferProgress], None] | None
"""Is told of every step; must not block."""
LEASE_LIFE_S = 3600
_END_LEASE_S = 10


class Store:
    """A store as one namespace sees it. `in_namespace` gives the same store as another sees it."""

    def __init__(self, caller: Caller, context: Context | None = None) -> None:
        self._caller = caller
        self.context = context or Context(namespace=DEFAULT_NAMESPACE)
        self.namespaces = Namespaces(caller, self.context)
        self.images = Images(caller, self.context)
        self.containers = Containers(caller, self.context)
        self.sandboxes = Sandboxes(caller, self.context)
        self.content = Content(caller, self.context)
        self.leases = Leases(caller, self.context)
        self.snapshots = Snapshots(caller, self.context)
        self.events = Events(caller, self.context)

    @property
    def namespace(self) -> str:
        return self.context.namespace or ""

    def in_namespace(self, name: str) -> Store:
        return Store(self._caller, msgspec.structs.replace(self.context, namespace=name))

    def with_lease(self, lease: str) -> Store:
        """The same store; what its calls create joins the lease."""
        return Store(self._caller, msgspec.structs.replace(self.context, lease=lease))

    @asynccontextmanager
    async def lease(
        self, labels: Mapping[str, str] | None = None, *, expires_in_s: int = LEASE_LIFE_S
    ) -> AsyncIterator[Store]:
        """`async with store.lease() as leased:` what `leased` creates lives until the block ends.

        The lease is renewed while the block runs, and ended with it; should this program die, it expires after
        `expires_in_s` seconds. In a store that has a lease already, that one serves. Raises FailedPrecondition
        in the block when somebody else ended the lease.
        Cancellation: the lease is ended, for up to 10 s shielded.
        """
        if self.context.lease is not None:
            yield self
            return
        # Shielded: a lease of which nobody heard would stand until it expires.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_LEASE_S) as patience:
            lease = await self.leases.create("", labels, expires_in_s=expires_in_s)
        if patience.cancelled_caught:
            raise Unavailable(f"no lease within {_END_LEASE_S} s")
        try:
            await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew, lease, expires_in_s)
                try:
                    yield self.with_lease(lease.id)
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None  # the body's own exception leaves as itself
            raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_LEASE_S):
                try:
                    await self.leases.delete(lease.id)
                except OrlopError:  # gone already, or it goes by itself
                    pass

    async def _renew(self, lease: Lease, expires_in_s: int) -> None:
        while True:
            await trio.sleep(expires_in_s / 3)
            try:
                await self.leases.update(lease.id, expires_in_s=expires_in_s)
            except NotFound:
                raise FailedPrecondition(f"lease {lease.id} was ended by somebody else") from None
            except OrlopError:  # there is time for another attempt
                pass

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """`async with store.transaction() as tx:` what the block asks of `tx` happens when it ends, all or nothing.

        Raises, at the end of the block, what the first operation that cannot be done raises; Conflict, NotFound
        or AlreadyExists for a precondition that does not hold; ResourceExhausted beyond the limits that
        `welcome()` states. An exception of the block leaves as itself, and nothing is done.
        Durability: with the end of the block.
        """
        transaction = Transaction(self.context)
        yield transaction
        await transaction.send(self._caller, self.context)

    def welcome(self) -> m.Welcome:
        """Versions, capabilities and limits of the store."""
        return self._caller.welcome()

    async def server(self) -> m.ServerInfo:
        """Who serves: the store's uuid, the process and its PID namespace."""
        result: m.ServerInfo = await self._caller.call(t.INTROSPECTION_SERVER, m.GetServer(), self.context)
        return result

    async def metrics(self) -> m.Metrics:
        """The store's own numbers, as Prometheus would be told. Counters begin with the start of the store."""
        result: m.Metrics = await self._caller.call(t.INTROSPECTION_METRICS, m.GetMetrics(), self.context)
        return result

    async def plugins(self, filters: Sequence[str] = ()) -> list[m.Plugin]:
        """The parts that the store is made of, in the order in which they were started, and how each stands: what can
        be tried is tried, and leaves nothing behind. Raises InvalidArgument (filters)."""
        request = m.ListPlugins(list(filters))
        result: m.Plugins = await self._caller.call(t.INTROSPECTION_PLUGINS, request, self.context)
        return result.items

    async def collect(self, *, full: bool = False, empty_bin: bool = False) -> m.Collection:
        """Run a garbage collection that begins now; returns what it removed, in all namespaces, when that is off the
        disk. `full`: compare the outcome with a full mark. `empty_bin`: what waits in the bin goes as well."""
        result: m.Collection = await self._caller.call(t.GC_COLLECT, m.Collect(full, empty_bin), self.context)
        return result

    async def collector(self) -> m.CollectorStatus:
        """What the collector does, what it removed, and what it waits for."""
        result: m.CollectorStatus = await self._caller.call(t.GC_STATUS, m.GetCollector(), self.context)
        return result

    async def plan_collection(
        self, without: Sequence[str] = (), each: Callable[[m.Planned], None] | None = None
    ) -> m.PlannedCollection:
        """What a collection would free now, to the byte, if these images of the namespace were deleted before. Nothing
        is changed. `each` is told of every object. Raises NotFound (an image)."""
        async with self._caller.stream(t.GC_PLAN, m.PlanCollection(list(without)), self.context) as stream:
            async for planned in stream:
                if each is not None:
                    each(planned)
            result: m.PlannedCollection = stream.result
        return result

    async def why(self, name: str, *, all_namespaces: bool = False, limit: int = 100) -> list[m.Explanation]:
        """Every path from a root to a blob, an image, or a snapshot (`snapshotter/key`); or since when it is condemned.

        Raises NotFound when there is nothing by that name."""
        request = m.Explain(name, all_namespaces, limit)
        result: m.Explained = await self._caller.call(t.GC_EXPLAIN, request, self.context)
        return result.items

    async def undelete(self, name: str) -> m.Undeleted:
        """Bring back what is condemned and not swept: an image that was deleted, as it was; a blob or a snapshot
        (`snapshotter/key`), with a root label.

        Raises NotFound, FailedPrecondition (it is alive; its content is gone), AlreadyExists (the name is taken)."""
        result: m.Undeleted = await self._caller.call(t.GC_UNDELETE, m.Undelete(name), self.context)
        return result

    async def disk_usage(self) -> m.DiskUsage:
        """Bytes held, by namespace and in total; counted, not walked."""
        result: m.DiskUsage = await self._caller.call(t.USAGE_GET, m.GetDiskUsage(), self.context)
        return result

    async def check(self, *, repair: bool = False, each: Callable[[m.Finding], None] | None = None) -> m.Checked:
        """Compare records, references, files, snapshots and mounts; others are served meanwhile. `each` hears of every
        finding. `repair`: mend what has one safe answer, and set aside the rest."""
        async with self._caller.stream(t.CHECK_RUN, m.Check(repair), self.context) as stream:
            async for finding in stream:
                if each is not None:
                    each(finding)
            result: m.Checked = stream.result
        return result

    async def resolve(self, reference: str, access: m.RegistryAccess | None = None) -> Descriptor:
        """What stands in a registry under a name or digest. Raises like `pull`."""
        request = m.ResolveReference(reference, access or m.RegistryAccess())
        result: Descriptor = await self._caller.call(t.TRANSFER_RESOLVE, request, self.context)
        return result

    async def fetch(self, request: m.FetchBlobs, progress: Progress = None) -> None:
        """Bring single objects from a registry. Without a lease of the caller's, what nothing refers to goes with the
        next collection. Raises and is cancelled like `pull`."""
        await self._transferred(t.TRANSFER_FETCH, request, progress)

    async def push(self, request: m.PushImage, progress: Progress = None) -> m.Pushed:
        """Send an image to a registry; what is there is not sent again. See PushImage for the options.

        Raises NotFound (the image, or content that is neither here nor there), Unauthenticated, PermissionDenied,
        FailedPrecondition, Unavailable. Cancellation: no tag is moved; blobs that arrived stay in the registry.
        """
        pushed: m.Pushed = await self._transferred(t.TRANSFER_PUSH, request, progress)
        return pushed

    async def copy(self, request: m.CopyImage, progress: Progress = None) -> m.Pushed:
        """From one registry to another; nothing of it stays here. Raises and is cancelled like `push`."""
        pushed: m.Pushed = await self._transferred(t.TRANSFER_COPY, request, progress)
        return pushed

    async def referrers(self, request: m.ListReferrers) -> m.Referrers:
        """What in a registry describes an image: signatures, bills of materials. Raises like `pull`."""
        result: m.Referrers = await self._caller.call(t.TRANSFER_REFERRERS, request, self.context)
        return result

    async def _transferred(self, method: Method[Any, Any], request: msgspec.Struct, progress: Progress) -> Any:
        async with self._caller.stream(method, request, self.context) as stream:
            async for item in stream:
                if progress is not None:
                    progress(item)
            return stream.result

    async def pull(self, request: m.PullImage, progress: Progress = None) -> Image:
        """Bring an image from its registry and record it. See PullImage for the options.

        Raises NotFound, Unauthenticated, PermissionDenied, FailedPrecondition (wrong bytes, an image verifier
        denies), Unavailable. Cancellation: no image; what has come shortens the next pull.
        """
        image: Image = await self._transferred(t.TRANSFER_PULL, request, progress)
        return image
