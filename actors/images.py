"""Images: names that point at content, and roots of the collector. Source: spec metadata 11."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..protocol.errors import InvalidArgument, NotFound
from ..protocol.identifiers import check_digest, check_name, quote
from ..protocol.labels import GC_EXPIRE, check_labels, check_mask, merge_map, stored_labels
from ..protocol.messages import (
    Context,
    CreateImage,
    DeleteImage,
    Empty,
    GetImage,
    UpdateImage,
)
from ..protocol.records import Descriptor, Image, ImageCreate, ImageDelete, ImageUpdate, LeaseResource
from ..storage.collection.deleted import keep_deleted
from ..storage.engine import Engine, Transaction
from ..storage.lease_entries import join_lease, leave_lease
from ..storage.tables import (
    IMAGES,
    append_event,
)
from .actor import Plan

__all__ = ["PLANS", "get", "record_image"]

_MAX_SIZE = 2**63 - 1


async def create(txn: Transaction, request: CreateImage, context: Context) -> msgspec.Raw:
    namespace = context.namespace or ""
    now = txn.now_ns if request.source_date_epoch is None else request.source_date_epoch
    image = _checked(Image(request.name, request.target, request.labels, now, now))
    if GC_EXPIRE in request.labels:
        await join_lease(txn, namespace, context.lease, LeaseResource(request.name, "images"))
    stored = await IMAGES.insert(txn, namespace, request.name, image)
    await append_event(txn, namespace, ImageCreate(request.name, image.labels))
    return stored


async def update(txn: Transaction, request: UpdateImage, context: Context) -> msgspec.Raw:
    namespace = context.namespace or ""
    if not request.name:
        raise InvalidArgument("image name must not be empty")
    before = await IMAGES.get(txn, namespace, request.name)
    now = txn.now_ns if request.source_date_epoch is None else request.source_date_epoch
    image = _checked(_merged(before, request, now))
    if GC_EXPIRE in image.labels or _gives_expiry(request):
        await join_lease(txn, namespace, context.lease, LeaseResource(request.name, "images"))
    stored = await IMAGES.replace(txn, namespace, request.name, image)
    await append_event(txn, namespace, ImageUpdate(request.name, image.labels))
    return stored


async def delete(txn: Transaction, request: DeleteImage, context: Context) -> Empty:
    txn.urgent = request.sync
    namespace = context.namespace or ""
    await leave_lease(txn, namespace, context.lease, LeaseResource(request.name, "images"))
    removed = await IMAGES.remove(txn, namespace, request.name)
    if request.target and removed.target.digest != request.target:
        raise NotFound(f"image {quote(request.name)} with digest {request.target} (it has {removed.target.digest})")
    txn.made_garbage()
    await keep_deleted(txn, namespace, removed)
    await append_event(txn, namespace, ImageDelete(request.name))
    return Empty()


async def record_image(
    txn: Transaction, namespace: str, name: str, target: Descriptor, labels: Mapping[str, str]
) -> msgspec.Raw:
    """Create the image, or move it to a new target and labels: what a pull ends with. Source: spec registry 9."""
    context = Context(namespace=namespace)
    if await IMAGES.find(txn, namespace, name) is None:
        return await create(txn, CreateImage(name, target, dict(labels)), context)
    return await update(txn, UpdateImage(name, target, dict(labels)), context)


async def get(engine: Engine, request: GetImage, context: Context) -> msgspec.Raw:
    with engine.view() as view:
        return await IMAGES.encoded(view, context.namespace or "", request.name)


def _merged(before: Image, request: UpdateImage, now: int) -> Image:
    """The record after the update. Source: spec metadata 11.5."""
    mask = request.mask
    check_mask(mask, ("labels", "annotations", "target"), ("labels", "annotations"), f"image {quote(request.name)}")
    labels = merge_map(before.labels, request.labels, mask, "labels")
    target = before.target
    if not mask or "target" in mask:
        if request.target is None:
            raise InvalidArgument(f"image {quote(request.name)}: a target is required")
        target = request.target
    elif request.target is not None or any(path.startswith("annotations") for path in mask):
        given = request.target.annotations if request.target is not None else {}
        target = msgspec.structs.replace(target, annotations=merge_map(target.annotations, given, mask, "annotations"))
    return Image(before.name, target, labels, before.created_at, now)


def _checked(image: Image) -> Image:
    """The record as it is stored, or InvalidArgument. Order of the checks: spec metadata 11.2."""
    check_name(image.name, "image name")
    check_labels(image.labels)
    target = image.target
    check_digest(target.digest, "target digest")
    if not 0 < target.size <= _MAX_SIZE:
        raise InvalidArgument(f"image {quote(image.name)}: target size must be above 0")
    if not target.media_type:
        raise InvalidArgument(f"image {quote(image.name)}: target media type must not be empty")
    if not image.labels and not target.annotations:
        return image
    annotations = {key: value for key, value in target.annotations.items() if value}
    return Image(
        image.name,
        Descriptor(target.media_type, target.digest, target.size, annotations),
        stored_labels(image.labels),
        image.created_at,
        image.updated_at,
    )


def _gives_expiry(request: UpdateImage) -> bool:
    """Whether the update sets the expire label, be it to nothing: that counts, too. Source: spec metadata 12.6."""
    if request.mask and f"labels.{GC_EXPIRE}" in request.mask:
        return True
    return GC_EXPIRE in request.labels and (not request.mask or "labels" in request.mask)


PLANS: Mapping[type[msgspec.Struct], Plan] = {
    CreateImage: create,
    UpdateImage: update,
    DeleteImage: delete,
}
