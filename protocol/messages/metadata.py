"""Namespaces, images, containers, sandboxes and leases."""

from __future__ import annotations

import msgspec

from ..records import Container, Descriptor, Image, Lease, LeaseResource, Namespace, Sandbox
from .common import PAGE_LIMIT_DEFAULT, Lifetime, Limit, ListRecords, Page

__all__ = [
    "AddLeaseResource",
    "ContainerPage",
    "CreateContainer",
    "CreateImage",
    "CreateLease",
    "CreateNamespace",
    "CreateSandbox",
    "DeleteContainer",
    "DeleteImage",
    "DeleteLease",
    "DeleteLeaseResource",
    "DeleteNamespace",
    "DeleteSandbox",
    "GetContainer",
    "GetImage",
    "GetLease",
    "GetNamespace",
    "GetSandbox",
    "ImagePage",
    "LeasePage",
    "ListContainers",
    "ListImages",
    "ListLeaseResources",
    "ListLeases",
    "ListNamespaces",
    "ListSandboxes",
    "NamespacePage",
    "ResourcePage",
    "SandboxPage",
    "UpdateContainer",
    "UpdateImage",
    "UpdateLease",
    "UpdateNamespace",
    "UpdateSandbox",
]


class CreateNamespace(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}


class GetNamespace(msgspec.Struct, frozen=True):
    name: str


class ListNamespaces(msgspec.Struct, frozen=True):
    after: str = ""
    limit: Limit = PAGE_LIMIT_DEFAULT
    filters: list[str] = []
    """Taken and ignored, as containerd does; nothing of a namespace is filterable."""


class UpdateNamespace(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}
    mask: list[str] | None = None


class DeleteNamespace(msgspec.Struct, frozen=True):
    name: str


class CreateImage(msgspec.Struct, frozen=True):
    name: str
    target: Descriptor
    labels: dict[str, str] = {}
    source_date_epoch: int | None = None
    """Nanoseconds; stands for "now" in created_at and updated_at."""


class GetImage(msgspec.Struct, frozen=True):
    name: str


class ListImages(ListRecords, frozen=True):
    pass


class UpdateImage(msgspec.Struct, frozen=True):
    name: str
    target: Descriptor | None = None
    labels: dict[str, str] = {}
    mask: list[str] | None = None
    source_date_epoch: int | None = None


class DeleteImage(msgspec.Struct, frozen=True):
    name: str
    target: str = ""
    """Only if the image has this digest. Empty: whatever it has."""
    sync: bool = False
    """Answer when a collection that began after the delete has ended."""


class CreateContainer(msgspec.Struct, frozen=True):
    """The times in `container` are ignored: the store sets them."""

    container: Container


class GetContainer(msgspec.Struct, frozen=True):
    id: str


class ListContainers(ListRecords, frozen=True):
    pass


class UpdateContainer(msgspec.Struct, frozen=True):
    """Paths: labels, labels.<key>, extensions, extensions.<key>, spec, image, snapshotkey."""

    container: Container
    mask: list[str] | None = None


class DeleteContainer(msgspec.Struct, frozen=True):
    id: str


class CreateSandbox(msgspec.Struct, frozen=True):
    sandbox: Sandbox


class GetSandbox(msgspec.Struct, frozen=True):
    sandbox_id: str


class ListSandboxes(ListRecords, frozen=True):
    pass


class UpdateSandbox(msgspec.Struct, frozen=True):
    """Paths: labels, labels.<key>, extensions, extensions.<key>, spec, runtime."""

    sandbox: Sandbox
    mask: list[str] | None = None


class DeleteSandbox(msgspec.Struct, frozen=True):
    sandbox_id: str


class CreateLease(msgspec.Struct, frozen=True):
    """`id` empty: the store makes one up. `expires_in_s`: seconds, by the store's clock; it becomes the label
    `containerd.io/gc.expire`."""

    id: str = ""
    labels: dict[str, str] = {}
    expires_in_s: Lifetime | None = None


class GetLease(msgspec.Struct, frozen=True):
    id: str


class ListLeases(ListRecords, frozen=True):
    pass


class UpdateLease(msgspec.Struct, frozen=True):
    """Paths: labels, labels.<key>. `expires_in_s` sets the label `containerd.io/gc.expire` beside them; with it, and
    neither labels nor a mask, nothing else changes."""

    id: str
    labels: dict[str, str] = {}
    mask: list[str] | None = None
    expires_in_s: Lifetime | None = None


class DeleteLease(msgspec.Struct, frozen=True):
    id: str
    sync: bool = False


class AddLeaseResource(msgspec.Struct, frozen=True):
    id: str
    resource: LeaseResource


class DeleteLeaseResource(msgspec.Struct, frozen=True):
    id: str
    resource: LeaseResource


class ListLeaseResources(msgspec.Struct, frozen=True):
    id: str
    after: str = ""
    limit: Limit = PAGE_LIMIT_DEFAULT


ImagePage = Page[Image]
NamespacePage = Page[Namespace]
LeasePage = Page[Lease]
ResourcePage = Page[LeaseResource]
ContainerPage = Page[Container]
SandboxPage = Page[Sandbox]
