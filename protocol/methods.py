"""The one table of methods. Client, server, in-process store, documentation and fuzz tests are driven by it:
a new method is added here, and given a handler in the actor that owns its resource.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

import msgspec

from . import messages as m
from .records import (
    Container,
    ContentInfo,
    Descriptor,
    Event,
    Image,
    IngestStatus,
    Lease,
    Namespace,
    Sandbox,
    SnapshotInfo,
    Usage,
)

__all__ = ["METHODS", "Access", "Method", "Shape"]

Q = TypeVar("Q", bound=msgspec.Struct)
A = TypeVar("A")


class Access(Enum):
    READ = "read"
    WRITE = "write"


class Shape(Enum):
    UNARY = "unary"
    STREAM = "stream"


@dataclass(frozen=True, eq=False)
class Method(Generic[Q, A]):
    """One line of the table. `item` is the type of a stream's chunks; `large` methods may send 1 MiB frames; the
    arguments of a `bulk` one are mostly bytes, which a call in this process need not copy to check them."""

    name: str
    request: type[Q]
    response: Any
    access: Access
    shape: Shape = Shape.UNARY
    item: Any = None
    namespaced: bool = True
    large: bool = False
    bulk: bool = False


METHODS: dict[str, Method[Any, Any]] = {}


def _unary(
    name: str,
    request: type[Q],
    response: Any,
    access: Access,
    *,
    namespaced: bool = True,
    large: bool = False,
    bulk: bool = False,
) -> Method[Q, Any]:
    method: Method[Q, Any] = Method(name, request, response, access, namespaced=namespaced, large=large, bulk=bulk)
    METHODS[name] = method
    return method


def _stream(
    name: str, request: type[Q], item: Any, response: Any, access: Access, *, namespaced: bool = True
) -> Method[Q, Any]:
    method: Method[Q, Any] = Method(
        name, request, response, access, shape=Shape.STREAM, item=item, namespaced=namespaced
    )
    METHODS[name] = method
    return method


R, W = Access.READ, Access.WRITE

HELLO = _unary("hello", m.Hello, m.Welcome, R, namespaced=False)

NAMESPACES_CREATE = _unary("namespaces.create", m.CreateNamespace, Namespace, W, namespaced=False)
NAMESPACES_GET = _unary("namespaces.get", m.GetNamespace, Namespace, R, namespaced=False)
NAMESPACES_LIST = _unary("namespaces.list", m.ListNamespaces, m.NamespacePage, R, namespaced=False)
NAMESPACES_UPDATE = _unary("namespaces.update", m.UpdateNamespace, Namespace, W, namespaced=False)
NAMESPACES_DELETE = _unary("namespaces.delete", m.DeleteNamespace, m.Empty, W, namespaced=False)

IMAGES_CREATE = _unary("images.create", m.CreateImage, Image, W)
IMAGES_GET = _unary("images.get", m.GetImage, Image, R)
IMAGES_LIST = _unary("images.list", m.ListImages, m.ImagePage, R)
IMAGES_UPDATE = _unary("images.update", m.UpdateImage, Image, W)
IMAGES_DELETE = _unary("images.delete", m.DeleteImage, m.Empty, W)

IMAGES_STREAM = _stream("images.list_stream", m.ListImages, list[Image], m.Empty, R)

CONTAINERS_CREATE = _unary("containers.create", m.CreateContainer, Container, W, large=True)
CONTAINERS_GET = _unary("containers.get", m.GetContainer, Container, R)
CONTAINERS_LIST = _unary("containers.list", m.ListContainers, m.ContainerPage, R)
CONTAINERS_STREAM = _stream("containers.list_stream", m.ListContainers, list[Container], m.Empty, R)
# The namespace is checked by the plan, after the id.
CONTAINERS_UPDATE = _unary("containers.update", m.UpdateContainer, Container, W, namespaced=False, large=True)
CONTAINERS_DELETE = _unary("containers.delete", m.DeleteContainer, m.Empty, W)

SANDBOXES_CREATE = _unary("sandboxes.create", m.CreateSandbox, Sandbox, W, large=True)
SANDBOXES_GET = _unary("sandboxes.get", m.GetSandbox, Sandbox, R)
SANDBOXES_LIST = _unary("sandboxes.list", m.ListSandboxes, m.SandboxPage, R)
SANDBOXES_STREAM = _stream("sandboxes.list_stream", m.ListSandboxes, list[Sandbox], m.Empty, R)
SANDBOXES_UPDATE = _unary("sandboxes.update", m.UpdateSandbox, Sandbox, W, large=True)
SANDBOXES_DELETE = _unary("sandboxes.delete", m.DeleteSandbox, m.Empty, W)

CONTENT_INFO = _unary("content.info", m.GetContent, ContentInfo, R)
CONTENT_LIST = _unary("content.list", m.ListContent, m.ContentPage, R)
CONTENT_STREAM = _stream("content.list_stream", m.ListContent, list[ContentInfo], m.Empty, R)
CONTENT_UPDATE = _unary("content.update", m.UpdateContent, ContentInfo, W)
CONTENT_DELETE = _unary("content.delete", m.DeleteContent, m.Empty, W)
CONTENT_PUT = _unary("content.put", m.PutContent, ContentInfo, W)
CONTENT_OPEN = _unary("content.open", m.OpenContent, m.OpenedContent, R)
CONTENT_READ = _stream("content.read", m.ReadContent, bytes, m.Empty, R)
CONTENT_VERIFY = _stream("content.verify", m.VerifyContent, m.VerifyProgress, m.Verified, R)
CONTENT_CLOSE = _unary("content.close", m.CloseContent, m.Empty, R, namespaced=False)

# The namespace is checked by the handler, after the ref.
INGESTS_OPEN = _unary("ingests.open", m.OpenIngest, m.OpenedIngest, W, namespaced=False)
INGESTS_WRITE = _unary("ingests.write", m.WriteIngest, m.WrittenIngest, W, namespaced=False, large=True, bulk=True)
INGESTS_TRUNCATE = _unary("ingests.truncate", m.TruncateIngest, m.WrittenIngest, W, namespaced=False)
INGESTS_COMMIT = _unary("ingests.commit", m.CommitIngest, ContentInfo, W)
INGESTS_CLOSE = _unary("ingests.close", m.CloseIngest, m.Empty, W, namespaced=False)
INGESTS_GET = _unary("ingests.get", m.GetIngest, IngestStatus, R)
INGESTS_LIST = _unary("ingests.list", m.ListIngests, m.IngestPage, R)
INGESTS_ABORT = _unary("ingests.abort", m.AbortIngest, m.Empty, W)

SNAPSHOTS_PREPARE = _unary("snapshots.prepare", m.PrepareSnapshot, m.Mounts, W)
SNAPSHOTS_VIEW = _unary("snapshots.view", m.ViewSnapshot, m.Mounts, W)
SNAPSHOTS_COMMIT = _unary("snapshots.commit", m.CommitSnapshot, SnapshotInfo, W)
SNAPSHOTS_MOUNTS = _unary("snapshots.mounts", m.GetMounts, m.Mounts, R)
SNAPSHOTS_GET = _unary("snapshots.get", m.GetSnapshot, SnapshotInfo, R)
SNAPSHOTS_LIST = _unary("snapshots.list", m.ListSnapshots, m.SnapshotPage, R)
SNAPSHOTS_STREAM = _stream("snapshots.list_stream", m.ListSnapshots, list[SnapshotInfo], m.Empty, R)
SNAPSHOTS_UPDATE = _unary("snapshots.update", m.UpdateSnapshot, SnapshotInfo, W)
SNAPSHOTS_USAGE = _unary("snapshots.usage", m.GetUsage, Usage, R)
SNAPSHOTS_DELETE = _unary("snapshots.delete", m.DeleteSnapshot, m.Empty, W)
SNAPSHOTS_CLEANUP = _unary("snapshots.cleanup", m.CleanupSnapshots, m.Empty, W)
SNAPSHOTS_APPLY = _unary("snapshots.apply", m.ApplyDiff, Descriptor, W)
SNAPSHOTS_DIFF = _unary("snapshots.diff", m.CreateDiff, Descriptor, W)

LEASES_CREATE = _unary("leases.create", m.CreateLease, Lease, W)
LEASES_GET = _unary("leases.get", m.GetLease, Lease, R)
LEASES_LIST = _unary("leases.list", m.ListLeases, m.LeasePage, R)
LEASES_STREAM = _stream("leases.list_stream", m.ListLeases, list[Lease], m.Empty, R)
LEASES_UPDATE = _unary("leases.update", m.UpdateLease, Lease, W)
LEASES_DELETE = _unary("leases.delete", m.DeleteLease, m.Empty, W)
LEASES_ADD = _unary("leases.add", m.AddLeaseResource, m.Empty, W)
LEASES_REMOVE = _unary("leases.remove", m.DeleteLeaseResource, m.Empty, W)
LEASES_RESOURCES = _unary("leases.resources", m.ListLeaseResources, m.ResourcePage, R)

EVENTS_LIST = _unary("events.list", m.ListEvents, m.EventsPage, R, namespaced=False)
EVENTS_SUBSCRIBE = _stream("events.subscribe", m.SubscribeEvents, Event, m.Empty, R, namespaced=False)

EVENTS_PUBLISH = _unary("events.publish", m.PublishEvent, m.Published, W)
EVENTS_FORWARD = _unary("events.forward", m.ForwardEvent, m.Published, W, namespaced=False)

BATCH = _unary("batch", m.Batch, m.BatchResult, W, large=True)

INTROSPECTION_SERVER = _unary("introspection.server", m.GetServer, m.ServerInfo, R, namespaced=False)
INTROSPECTION_PLUGINS = _unary("introspection.plugins", m.ListPlugins, m.Plugins, R, namespaced=False)

INTROSPECTION_METRICS = _unary("introspection.metrics", m.GetMetrics, m.Metrics, R, namespaced=False)

GC_COLLECT = _unary("gc.collect", m.Collect, m.Collection, W, namespaced=False)
GC_STATUS = _unary("gc.status", m.GetCollector, m.CollectorStatus, R, namespaced=False)
GC_PLAN = _stream("gc.plan", m.PlanCollection, m.Planned, m.PlannedCollection, R)
GC_EXPLAIN = _unary("gc.explain", m.Explain, m.Explained, R)
GC_UNDELETE = _unary("gc.undelete", m.Undelete, m.Undeleted, W)
USAGE_GET = _unary("usage.get", m.GetDiskUsage, m.DiskUsage, R, namespaced=False)
CHECK_RUN = _stream("check.run", m.Check, m.Finding, m.Checked, W, namespaced=False)

TRANSFER_PULL = _stream("transfer.pull", m.PullImage, m.TransferProgress, Image, W)
TRANSFER_RESOLVE = _unary("transfer.resolve", m.ResolveReference, Descriptor, R, namespaced=False)
TRANSFER_FETCH = _stream("transfer.fetch", m.FetchBlobs, m.TransferProgress, m.Empty, W)
TRANSFER_PUSH = _stream("transfer.push", m.PushImage, m.TransferProgress, m.Pushed, R)
TRANSFER_COPY = _stream("transfer.copy", m.CopyImage, m.TransferProgress, m.Pushed, R, namespaced=False)
TRANSFER_REFERRERS = _unary("transfer.referrers", m.ListReferrers, m.Referrers, R, namespaced=False)
TRANSFER_UNPACK = _stream("transfer.unpack", m.UnpackImage, m.TransferProgress, m.Unpacked, W)
