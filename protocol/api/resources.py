"""Namespaces, images, containers, sandboxes, leases and events, as a caller sees them.

A method that changes something returns an awaitable. In a transaction it is noted and happens with the others;
its result can be awaited once the transaction's block has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import msgspec

from .. import messages as m
from .. import methods as t
from ..errors import NotFound
from ..messages import Context
from ..methods import Method
from ..records import Container, Descriptor, Event, EventPayload, Image, Lease, LeaseResource, Namespace, Sandbox
from .caller import Caller
from .steps import Steps

__all__ = ["Containers", "Events", "Images", "Leases", "Namespaces", "Resource", "Sandboxes"]

Q = TypeVar("Q", bound=msgspec.Struct)
A = TypeVar("A")


class Resource:
    def __init__(self, caller: Caller, context: Context) -> None:
        self._caller = caller
        self._context = context

    def _call(self, method: Method[Q, A], request: Q) -> Awaitable[Any]:
        return self._caller.call(method, request, self._context)

    def _pages(self, method: Method[Q, Any], request: Q) -> AsyncIterator[Any]:
        """Every item of a list, page by page: each that exists throughout once, none twice."""
        return _Pages(self, method, request)

    @asynccontextmanager
    async def _streamed(self, method: Method[Q, Any], request: Q) -> AsyncIterator[AsyncIterator[Any]]:
        async with self._caller.stream(method, request, self._context) as stream:
            yield _Flattened(stream.__aiter__())


class _Pages(AsyncIterator[Any]):
    """Not a generator: whoever leaves the loop early leaves nothing that would have to be closed."""

    def __init__(self, resource: Resource, method: Method[Any, Any], request: Any) -> None:
        self._resource = resource
        self._method = method
        self._request = request
        self._items: deque[Any] = deque()
        self._ended = False

    async def __anext__(self) -> Any:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            page = await self._resource._call(self._method, self._request)
            self._items.extend(page.items)
            self._ended = not page.next
            self._request = msgspec.structs.replace(self._request, after=page.next)
        return self._items.popleft()


class _Flattened(AsyncIterator[Any]):
    """The items of a stream whose chunks are lists of them."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._chunks = chunks
        self._items: deque[Any] = deque()

    async def __anext__(self) -> Any:
        while not self._items:
            self._items.extend(await anext(self._chunks))
        return self._items.popleft()


class Namespaces(Resource):
    def create(self, name: str, labels: Mapping[str, str] | None = None) -> Awaitable[Namespace]:
        """Raises AlreadyExists, InvalidArgument."""
        return self._call(t.NAMESPACES_CREATE, m.CreateNamespace(name, dict(labels or {})))

    def get(self, name: str) -> Awaitable[Namespace]:
        """Raises NotFound."""
        return self._call(t.NAMESPACES_GET, m.GetNamespace(name))

    def list(self) -> AsyncIterator[Namespace]:
        """In the order of their names' bytes."""
        return self._pages(t.NAMESPACES_LIST, m.ListNamespaces(limit=m.PAGE_LIMIT_MAX))

    def update(self, name: str, labels: Mapping[str, str], mask: Sequence[str] | None = None) -> Awaitable[Namespace]:
        """Without a mask all labels are replaced; with paths `labels.<key>` just those. Raises NotFound."""
        return self._call(t.NAMESPACES_UPDATE, m.UpdateNamespace(name, dict(labels), _mask(mask)))

    def delete(self, name: str) -> Awaitable[None]:
        """Raises FailedPrecondition naming what is left in it, NotFound."""
        return self._call(t.NAMESPACES_DELETE, m.DeleteNamespace(name))


class Images(Resource):
    def create(
        self,
        name: str,
        target: Descriptor,
        labels: Mapping[str, str] | None = None,
        *,
        source_date_epoch: int | None = None,
    ) -> Awaitable[Image]:
        """Raises AlreadyExists, InvalidArgument. The target's content need not be here.

        `source_date_epoch`: nanoseconds, stands in both times instead of now.
        """
        return self._call(t.IMAGES_CREATE, m.CreateImage(name, target, dict(labels or {}), source_date_epoch))

    async def has(self, name: str) -> bool:
        """Whether there is an image of that name."""
        try:
            await self.get(name)
        except NotFound:
            return False
        return True

    def get(self, name: str) -> Awaitable[Image]:
        """Raises NotFound."""
        return self._call(t.IMAGES_GET, m.GetImage(name))

    def list(self, filters: Sequence[str] = (), *, fields: Sequence[str] = ()) -> AsyncIterator[Image]:
        """Every image that a filter matches, in the order of their names' bytes. Raises InvalidArgument.

        `fields`: only these and those every image has are filled in.
        """
        return self._pages(t.IMAGES_LIST, m.ListImages(list(filters), "", m.PAGE_LIMIT_MAX, list(fields)))

    def stream(
        self, filters: Sequence[str] = (), *, fields: Sequence[str] = (), after: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Image]]:
        """`async with images.stream() as found: async for image in found`: like `list`, the store sending ahead."""
        return self._streamed(t.IMAGES_STREAM, m.ListImages(list(filters), after, m.PAGE_LIMIT_MAX, list(fields)))

    def update(
        self,
        name: str,
        *,
        target: Descriptor | None = None,
        labels: Mapping[str, str] | None = None,
        mask: Sequence[str] | None = None,
        source_date_epoch: int | None = None,
    ) -> Awaitable[Image]:
        """Without a mask target and labels are replaced. Paths: labels, labels.<key>, target, annotations,
        annotations.<key>. Raises NotFound, InvalidArgument."""
        request = m.UpdateImage(name, target, dict(labels or {}), _mask(mask), source_date_epoch)
        return self._call(t.IMAGES_UPDATE, request)

    def delete(self, name: str, *, target: str = "", sync: bool = False) -> Awaitable[None]:
        """`target`: only if the image has this digest. `sync`: wait until what only it held is gone.

        Raises NotFound.
        """
        return self._call(t.IMAGES_DELETE, m.DeleteImage(name, target, sync))

    async def unpack(
        self,
        name: str,
        *,
        snapshotter: str = "",
        platform: str = "",
        target: Descriptor | None = None,
        progress: Callable[[m.TransferProgress], None] | None = None,
    ) -> m.Unpacked:
        """Lay an image's layers down as snapshots named by their chain IDs; those that are there stay as they are.
        The image keeps them. `target`: what an image `name` is to be that is not recorded yet.

        Raises NotFound (image, platform, a layer that is not here), FailedPrecondition (wrong diff ID, no image for
        this kind of machine), NotImplemented (a layer's type), InvalidArgument (an archive), ResourceExhausted.
        Cancellation: the layers that were done stay until a collection; nothing half-made does.
        """
        request = m.UnpackImage(name, platform, snapshotter, target)
        async with self._caller.stream(t.TRANSFER_UNPACK, request, self._context) as stream:
            async for step in stream:
                if progress is not None:
                    progress(step)
            unpacked: m.Unpacked = stream.result
        return unpacked

    def pull(self, request: m.PullImage) -> Steps[Image]:
        """Bring an image, step by step: `async for step in images.pull(request)`. See Store.pull, and Steps."""
        return Steps(self._caller, t.TRANSFER_PULL, request, self._context)

    def push(self, request: m.PushImage) -> Steps[m.Pushed]:
        """Send an image, step by step. See Store.push, and Steps."""
        return Steps(self._caller, t.TRANSFER_PUSH, request, self._context)


class Containers(Resource):
    def create(self, container: Container) -> Awaitable[Container]:
        """Raises AlreadyExists, InvalidArgument. What it refers to need not be here."""
        return self._call(t.CONTAINERS_CREATE, m.CreateContainer(container))

    def get(self, id: str) -> Awaitable[Container]:
        """Raises NotFound."""
        return self._call(t.CONTAINERS_GET, m.GetContainer(id))

    def list(self, filters: Sequence[str] = (), *, fields: Sequence[str] = ()) -> AsyncIterator[Container]:
        """See Images.list."""
        return self._pages(t.CONTAINERS_LIST, m.ListContainers(list(filters), "", m.PAGE_LIMIT_MAX, list(fields)))

    def stream(
        self, filters: Sequence[str] = (), *, fields: Sequence[str] = (), after: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Container]]:
        """See Images.stream."""
        request = m.ListContainers(list(filters), after, m.PAGE_LIMIT_MAX, list(fields))
        return self._streamed(t.CONTAINERS_STREAM, request)

    def update(self, container: Container, mask: Sequence[str] | None = None) -> Awaitable[Container]:
        """Without a mask everything that can change is replaced; snapshotter and runtime name must be as they
        were. Paths: see UpdateContainer. Raises NotFound, InvalidArgument."""
        return self._call(t.CONTAINERS_UPDATE, m.UpdateContainer(container, _mask(mask)))

    def delete(self, id: str) -> Awaitable[None]:
        """Raises NotFound."""
        return self._call(t.CONTAINERS_DELETE, m.DeleteContainer(id))


class Sandboxes(Resource):
    def create(self, sandbox: Sandbox) -> Awaitable[Sandbox]:
        """Raises AlreadyExists, InvalidArgument."""
        return self._call(t.SANDBOXES_CREATE, m.CreateSandbox(sandbox))

    def get(self, sandbox_id: str) -> Awaitable[Sandbox]:
        """Raises NotFound."""
        return self._call(t.SANDBOXES_GET, m.GetSandbox(sandbox_id))

    def list(self, filters: Sequence[str] = (), *, fields: Sequence[str] = ()) -> AsyncIterator[Sandbox]:
        """See Images.list."""
        return self._pages(t.SANDBOXES_LIST, m.ListSandboxes(list(filters), "", m.PAGE_LIMIT_MAX, list(fields)))

    def stream(
        self, filters: Sequence[str] = (), *, fields: Sequence[str] = (), after: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Sandbox]]:
        """See Images.stream."""
        return self._streamed(t.SANDBOXES_STREAM, m.ListSandboxes(list(filters), after, m.PAGE_LIMIT_MAX, list(fields)))

    def update(self, sandbox: Sandbox, mask: Sequence[str] | None = None) -> Awaitable[Sandbox]:
        """Without a mask everything that can change is replaced, and the runtime's name must be as it was; the
        path `runtime` changes it. Raises NotFound, InvalidArgument."""
        return self._call(t.SANDBOXES_UPDATE, m.UpdateSandbox(sandbox, _mask(mask)))

    def delete(self, sandbox_id: str) -> Awaitable[None]:
        """Raises NotFound."""
        return self._call(t.SANDBOXES_DELETE, m.DeleteSandbox(sandbox_id))


class Leases(Resource):
    def create(
        self,
        id: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        expires_in_s: int | None = None,
    ) -> Awaitable[Lease]:
        """An empty id lets the store make one up. `expires_in_s`: by the store's clock. Raises AlreadyExists."""
        return self._call(t.LEASES_CREATE, m.CreateLease(id, dict(labels or {}), expires_in_s))

    def get(self, id: str) -> Awaitable[Lease]:
        """Raises NotFound."""
        return self._call(t.LEASES_GET, m.GetLease(id))

    def list(self, filters: Sequence[str] = (), *, fields: Sequence[str] = ()) -> AsyncIterator[Lease]:
        """See Images.list."""
        return self._pages(t.LEASES_LIST, m.ListLeases(list(filters), "", m.PAGE_LIMIT_MAX, list(fields)))

    def stream(
        self, filters: Sequence[str] = (), *, fields: Sequence[str] = (), after: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Lease]]:
        """See Images.stream."""
        return self._streamed(t.LEASES_STREAM, m.ListLeases(list(filters), after, m.PAGE_LIMIT_MAX, list(fields)))

    def update(
        self,
        id: str,
        labels: Mapping[str, str] | None = None,
        mask: Sequence[str] | None = None,
        *,
        expires_in_s: int | None = None,
    ) -> Awaitable[Lease]:
        """Change labels, or only when it expires. Raises NotFound, InvalidArgument."""
        return self._call(t.LEASES_UPDATE, m.UpdateLease(id, dict(labels or {}), _mask(mask), expires_in_s))

    def delete(self, id: str, *, sync: bool = False) -> Awaitable[None]:
        """Raises NotFound. `sync`: wait until what only it held is gone."""
        return self._call(t.LEASES_DELETE, m.DeleteLease(id, sync))

    def add(self, id: str, resource: LeaseResource) -> Awaitable[None]:
        """Raises NotFound (the lease; the resource need not be here), InvalidArgument, NotImplemented (its type)."""
        return self._call(t.LEASES_ADD, m.AddLeaseResource(id, resource))

    def remove(self, id: str, resource: LeaseResource) -> Awaitable[None]:
        """One that is not in it is no error. Raises NotFound (the lease), InvalidArgument, NotImplemented."""
        return self._call(t.LEASES_REMOVE, m.DeleteLeaseResource(id, resource))

    def resources(self, id: str) -> AsyncIterator[LeaseResource]:
        """Content, images, ingests, then snapshots, each by id. Raises NotFound."""
        return self._pages(t.LEASES_RESOURCES, m.ListLeaseResources(id, limit=m.PAGE_LIMIT_MAX))


class Events(Resource):
    def page(
        self, after: int = 0, limit: int = m.PAGE_LIMIT_DEFAULT, filters: Sequence[str] = ()
    ) -> Awaitable[m.EventsPage]:
        """Events after a sequence number (0: from the oldest kept) that a filter matches.

        Raises OutOfRange when some are gone, InvalidArgument (filter).
        """
        return self._call(t.EVENTS_LIST, m.ListEvents(after, limit, list(filters)))

    @asynccontextmanager
    async def subscribe(
        self, after: int | None = None, filters: Sequence[str] = ()
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """`async with events.subscribe() as events: async for event in events`. All namespaces.

        From `after` on without gap or repeat, or from now on. Raises OutOfRange when some are gone,
        InvalidArgument (filter).
        """
        request = m.SubscribeEvents(after, list(filters))
        async with self._caller.stream(t.EVENTS_SUBSCRIBE, request, self._context) as stream:
            yield stream.__aiter__()

    def publish(self, topic: str, event: EventPayload) -> Awaitable[m.Published]:
        """An event of the caller's own, durable like all others; an Opaque payload carries any type.

        Raises FailedPrecondition (no namespace), InvalidArgument (topic).
        """
        return self._call(t.EVENTS_PUBLISH, m.PublishEvent(topic, event))

    def forward(self, timestamp: int, namespace: str, topic: str, event: EventPayload) -> Awaitable[m.Published]:
        """Pass on an event that happened elsewhere, with its own namespace and time. Raises InvalidArgument."""
        return self._call(t.EVENTS_FORWARD, m.ForwardEvent(timestamp, namespace, topic, event))


def _mask(paths: Sequence[str] | None) -> list[str] | None:
    return None if paths is None else list(paths)
