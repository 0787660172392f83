"""Leases: roots that end by themselves, and protect what is being made. Source: spec metadata 12, gc 10."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec

from ..protocol.errors import FailedPrecondition, InvalidArgument
from ..protocol.errors import NotImplemented as UnknownResource
from ..protocol.identifiers import check_digest, check_name, quote
from ..protocol.labels import GC_EXPIRE, check_mask, merge_map, stored_labels
from ..protocol.messages import (
    AddLeaseResource,
    Context,
    CreateLease,
    DeleteLease,
    DeleteLeaseResource,
    Empty,
    GetLease,
    ListLeaseResources,
    ResourcePage,
    UpdateLease,
)
from ..protocol.records import Lease, LeaseResource
from ..storage.engine import Engine, Transaction
from ..storage.lease_entries import end_lease, flatness_changed, join_lease, leave_lease, page_entries
from ..storage.references import is_flat, is_root
from ..storage.tables import LEASES
from .actor import Plan
from .timestamps import rfc3339

__all__ = ["PLANS", "check_resource", "get", "lease_id", "resources_page"]


def lease_id(now_ns: int, token: bytes) -> str:
    """An id for a lease that came without one: nanoseconds of the second, and some randomness."""
    return f"{now_ns % 1_000_000_000}-{base64.urlsafe_b64encode(token).decode()}"


async def create(txn: Transaction, request: CreateLease, context: Context) -> msgspec.Raw:
    check_name(request.id, "lease id")
    labels = stored_labels({**request.labels, **_expiry(txn, request.expires_in_s)})
    return await LEASES.insert(txn, context.namespace or "", request.id, Lease(request.id, txn.now_ns, labels))


async def update(txn: Transaction, request: UpdateLease, context: Context) -> msgspec.Raw:
    """containerd has no such operation; renewing a lease needs one. A lease that has expired stays so."""
    namespace = context.namespace or ""
    before = await LEASES.get(txn, namespace, request.id)
    what = f"lease {quote(request.id)}"
    check_mask(request.mask, ("labels",), ("labels",), what)
    if not is_root(before, txn.now_ns):
        raise FailedPrecondition(f"{what} has expired")
    labels = before.labels
    if request.expires_in_s is None or request.mask or request.labels:
        labels = merge_map(before.labels, request.labels, request.mask, "labels")
    labels = stored_labels({**labels, **_expiry(txn, request.expires_in_s)})
    after = msgspec.structs.replace(before, labels=labels)
    stored = await LEASES.replace(txn, namespace, request.id, after)
    if is_flat(after) != is_flat(before):
        await flatness_changed(txn, namespace, after)
    return stored


def _expiry(txn: Transaction, in_s: int | None) -> dict[str, str]:
    """The label's resolution is a second: never sooner than asked for."""
    return {} if in_s is None else {GC_EXPIRE: rfc3339(txn.now_ns + (in_s + 1) * 1_000_000_000)}


async def delete(txn: Transaction, request: DeleteLease, context: Context) -> Empty:
    txn.urgent = request.sync
    await end_lease(txn, context.namespace or "", request.id)
    return Empty()


async def add(txn: Transaction, request: AddLeaseResource, context: Context) -> Empty:
    namespace = context.namespace or ""
    await LEASES.get(txn, namespace, request.id)
    check_resource(request.resource)
    await join_lease(txn, namespace, request.id, request.resource)
    return Empty()


async def remove(txn: Transaction, request: DeleteLeaseResource, context: Context) -> Empty:
    namespace = context.namespace or ""
    await LEASES.get(txn, namespace, request.id)
    check_resource(request.resource)
    await leave_lease(txn, namespace, request.id, request.resource)
    txn.made_garbage()
    return Empty()


def check_resource(resource: LeaseResource) -> None:
    """Source: spec metadata 12.5."""
    kind, slash, snapshotter = resource.type.partition("/")
    if kind not in ("content", "ingests", "images", "snapshots"):
        raise UnknownResource(f"resource type {quote(resource.type)}")
    if kind == "snapshots":
        if not slash or not snapshotter or "/" in snapshotter:
            raise InvalidArgument(f"resource type {quote(resource.type)} must be snapshots/<snapshotter>")
    elif slash:
        raise InvalidArgument(f"resource type {quote(resource.type)}")
    if kind == "content":
        check_digest(resource.id, "resource")
    else:
        check_name(resource.id, f"id of a resource of type {resource.type}")


async def get(engine: Engine, request: GetLease, context: Context) -> msgspec.Raw:
    with engine.view() as view:
        return await LEASES.encoded(view, context.namespace or "", request.id)


async def resources_page(engine: Engine, request: ListLeaseResources, context: Context) -> ResourcePage:
    namespace = context.namespace or ""
    try:
        after = base64.urlsafe_b64decode(request.after)
    except ValueError:
        raise InvalidArgument("the cursor is not one that this list gave") from None
    with engine.view() as view:
        lease = await LEASES.get(view, namespace, request.id)
        found = await page_entries(view, namespace, lease, after, request.limit)
    cursor = base64.urlsafe_b64encode(found[-1][0]).decode() if len(found) == request.limit else ""
    return ResourcePage([resource for _, resource in found], cursor)


PLANS: Mapping[type[msgspec.Struct], Plan] = {
    CreateLease: create,
    DeleteLease: delete,
    AddLeaseResource: add,
    DeleteLeaseResource: remove,
    UpdateLease: update,
}
