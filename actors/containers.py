"""Containers: records of what runs somewhere; creating one runs nothing. They are roots of the collector.

Source: spec metadata 10, with its suggestions taken (docs/differences.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..protocol.errors import InvalidArgument
from ..protocol.identifiers import check_identifier, check_request_namespace, quote
from ..protocol.labels import check_mask, merge_map, stored_labels
from ..protocol.messages import Context, CreateContainer, DeleteContainer, Empty, GetContainer, UpdateContainer
from ..protocol.records import Container, ContainerCreate, ContainerDelete, ContainerUpdate
from ..storage.engine import Engine, Transaction
from ..storage.tables import CONTAINERS, append_event
from .actor import Plan

__all__ = ["PLANS", "check_extensions", "get"]

_PATHS = ("labels", "extensions", "spec", "image", "snapshotkey")
_MAPS = ("labels", "extensions")


async def create(txn: Transaction, request: CreateContainer, context: Context) -> msgspec.Raw:
    """Containers never join a lease: they are roots themselves."""
    namespace = context.namespace or ""
    now = txn.now_ns
    container = _checked(msgspec.structs.replace(request.container, created_at=now, updated_at=now))
    stored = await CONTAINERS.insert(txn, namespace, container.id, container)
    await append_event(txn, namespace, ContainerCreate(container.id, container.image, container.runtime))
    return stored


async def update(txn: Transaction, request: UpdateContainer, context: Context) -> msgspec.Raw:
    given, mask = request.container, request.mask
    if not given.id:  # even before the namespace: spec metadata 10.5
        raise InvalidArgument("container id must not be empty")
    namespace = check_request_namespace(context.namespace)
    before = await CONTAINERS.get(txn, namespace, given.id)
    container = _checked(_merged(before, given, mask, txn.now_ns))
    stored = await CONTAINERS.replace(txn, namespace, given.id, container)
    event = ContainerUpdate(container.id, container.image, container.labels, container.snapshot_key)
    await append_event(txn, namespace, event)
    return stored


async def delete(txn: Transaction, request: DeleteContainer, context: Context) -> Empty:
    namespace = context.namespace or ""
    await CONTAINERS.remove(txn, namespace, request.id)
    txn.made_garbage()
    await append_event(txn, namespace, ContainerDelete(request.id))
    return Empty()


async def get(engine: Engine, request: GetContainer, context: Context) -> msgspec.Raw:
    with engine.view() as view:
        return await CONTAINERS.encoded(view, context.namespace or "", request.id)


def check_extensions(extensions: Mapping[str, object], mask: list[str] | None, what: str) -> None:
    """An extension needs a key, in the record and in a mask."""
    if "" in extensions or "extensions." in (mask or ()):
        raise InvalidArgument(f"{what}: an extension needs a key")


def _merged(before: Container, given: Container, mask: list[str] | None, now: int) -> Container:
    """The record after the update; runtime options, sandbox and creation time stay as they are."""
    what = f"container {quote(given.id)}"
    if not mask:
        if given.snapshotter != before.snapshotter:
            raise InvalidArgument(f"{what}: snapshotter cannot change from {quote(before.snapshotter)}")
        if given.runtime.name != before.runtime.name:
            raise InvalidArgument(f"{what}: runtime.name cannot change from {quote(before.runtime.name)}")
    check_mask(mask, _PATHS, _MAPS, what)
    check_extensions({}, mask, what)
    return msgspec.structs.replace(
        before,
        labels=merge_map(before.labels, given.labels, mask, "labels"),
        extensions=merge_map(before.extensions, given.extensions, mask, "extensions"),
        spec=given.spec if not mask or "spec" in mask else before.spec,
        image=given.image if not mask or "image" in mask else before.image,
        snapshot_key=given.snapshot_key if not mask or "snapshotkey" in mask else before.snapshot_key,
        updated_at=now,
    )


def _checked(container: Container) -> Container:
    """The record as it is stored, or InvalidArgument. Order of the checks: spec metadata 10.2."""
    check_identifier(container.id, "container id")
    what = f"container {quote(container.id)}"
    check_extensions(container.extensions, None, what)
    labels = stored_labels(container.labels)
    if not container.runtime.name:
        raise InvalidArgument(f"{what}: runtime.name must be set")
    if container.spec is None:
        raise InvalidArgument(f"{what}: spec must be set")
    if container.snapshot_key and not container.snapshotter:
        raise InvalidArgument(f"{what}: snapshotter must be set, as snapshot_key is")
    return msgspec.structs.replace(container, labels=labels)


PLANS: Mapping[type[msgspec.Struct], Plan] = {
    CreateContainer: create,
    UpdateContainer: update,
    DeleteContainer: delete,
}
