"""Namespaces: created by hand or by their first record, deleted only when empty.

Source: spec metadata 9, with its suggestions taken (docs/differences.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..protocol.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ..protocol.identifiers import check_identifier, quote
from ..protocol.labels import check_labels, check_mask, merge_map, stored_labels
from ..protocol.messages import (
    Context,
    CreateNamespace,
    DeleteNamespace,
    Empty,
    GetNamespace,
    ListNamespaces,
    NamespacePage,
    UpdateNamespace,
)
from ..protocol.records import Namespace, NamespaceCreate, NamespaceDelete, NamespaceUpdate
from ..storage import tables
from ..storage.engine import Engine, Reader, Transaction
from ..storage.leftovers import drop_dead, drop_leftovers
from .actor import Plan

__all__ = ["PLANS", "get", "list_page"]


async def create(txn: Transaction, request: CreateNamespace, _: Context) -> Namespace:
    check_identifier(request.name, "namespace")
    labels = stored_labels(request.labels)
    if await tables.find_namespace(txn, request.name) is not None:
        raise AlreadyExists(f"namespace {quote(request.name)}")
    await tables.put_namespace(txn, Namespace(request.name, labels))
    await tables.append_event(txn, request.name, NamespaceCreate(request.name, request.labels))
    return Namespace(request.name, request.labels)  # as sent, also what an empty value keeps from being stored


async def update(txn: Transaction, request: UpdateNamespace, _: Context) -> Namespace:
    found = await _find(txn, request.name)
    check_mask(request.mask, (), ("labels",), f"namespace {quote(request.name)}")
    if "labels." in (request.mask or ()):
        raise InvalidArgument(f"namespace {quote(request.name)}: a label needs a key")
    labels = merge_map(found.labels, request.labels, request.mask, "labels")
    check_labels(labels)
    namespace = Namespace(request.name, labels)
    await tables.put_namespace(txn, namespace)
    await tables.append_event(txn, request.name, NamespaceUpdate(request.name, request.labels))
    return namespace


async def delete(txn: Transaction, request: DeleteNamespace, _: Context) -> Empty:
    """Only when empty. Leases and ingests do not count, and vanish with it."""
    name = request.name
    await drop_dead(txn, name)
    left = await _occupants(txn, name)
    if left:
        raise FailedPrecondition(
            f"namespace {quote(name)} must be empty, but it still has {', '.join(left)}",
            hint=f"remove them first, for instance: orlop -n {name} images rm ...",
        )
    await drop_leftovers(txn, name)
    await tables.delete_namespace(txn, name)
    await tables.append_event(txn, name, NamespaceDelete(name))
    return Empty()


async def get(engine: Engine, request: GetNamespace, _: Context) -> Namespace:
    with engine.view() as view:
        return await _find(view, request.name)


async def list_page(engine: Engine, request: ListNamespaces, _: Context) -> NamespacePage:
    """Its filters are ignored, as containerd does."""
    with engine.view() as view:
        found = await tables.page_namespaces(view, request.after, request.limit)
    return NamespacePage(found, found[-1].name if len(found) == request.limit else "")


async def _find(reader: Reader, name: str) -> Namespace:
    found = await tables.find_namespace(reader, name)
    if found is None:
        raise NotFound(f"namespace {quote(name)}")
    return found


async def _occupants(reader: Reader, name: str) -> list[str]:
    """What keeps a namespace from being deleted, in containerd's order and words, with how many."""
    left = []
    for table, word in (
        (tables.IMAGES, "images"),
        (tables.CONTENT, "blobs"),
        (tables.CONTAINERS, "containers"),
    ):
        if count := await table.count(reader, name):
            left.append(f"{word} ({count})")
    if count := await tables.SNAPSHOTS.count(reader, name):
        left.append(f"snapshots ({count})")
    return left


PLANS: Mapping[type[msgspec.Struct], Plan] = {
    CreateNamespace: create,
    UpdateNamespace: update,
    DeleteNamespace: delete,
}
