"""What is condemned or was deleted comes back, as long as it is there. Source: DESIGN 8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..protocol.errors import AlreadyExists, FailedPrecondition, NotFound
from ..protocol.identifiers import quote
from ..protocol.labels import GC_ROOT
from ..protocol.messages import Context, Undelete, Undeleted
from ..protocol.records import ImageCreate
from ..storage.collection.deleted import find_deleted, take_deleted
from ..storage.collection.forest import Forest
from ..storage.collection.state import Vertex, is_dead
from ..storage.engine import Transaction
from ..storage.tables import CONTENT, IMAGES, SNAPSHOTS, Table, append_event
from .actor import Plan
from .timestamps import rfc3339

__all__ = ["PLANS"]


async def undelete(txn: Transaction, request: Undelete, context: Context) -> Undeleted:
    """An image comes back as it was; a blob or snapshot gets a root label, for something has to keep it."""
    namespace, name = context.namespace or "", request.name
    deleted = await find_deleted(txn, namespace, name)
    if deleted is not None and await IMAGES.find(txn, namespace, name) is not None:
        raise AlreadyExists(
            f"image {quote(name)}", hint="the one that was deleted can come back when this name is free"
        )
    for table in (CONTENT, SNAPSHOTS, IMAGES):
        record = await table.find(txn, namespace, name)
        if record is not None:
            return await _keep(txn, namespace, name, table, record)
    if deleted is None:
        raise NotFound(
            f"condemned or deleted object {quote(name)}",
            hint="only what waits in the bin can be brought back; its length is gc.grace_s in the configuration",
        )
    key, image = deleted
    if await CONTENT.find(txn, namespace, image.target.digest) is None:
        raise FailedPrecondition(f"the content of image {quote(name)} is gone", hint="pull it again")
    take_deleted(txn, key)
    await IMAGES.insert(txn, namespace, name, image)
    await append_event(txn, namespace, ImageCreate(name, image.labels))
    return Undeleted("image", name, "itself")


async def _keep(txn: Transaction, namespace: str, name: str, table: Table[Any], record: Any) -> Undeleted:
    forest = await Forest.load(txn)
    kind = table.node.name.lower()
    if not is_dead(*await forest.states(Vertex(namespace, table.node, name))):
        raise FailedPrecondition(f"{kind} {quote(name)} is not condemned", hint=f"see: orlop why {name}")
    if table is IMAGES:
        labels = {key: value for key, value in record.labels.items() if key != "containerd.io/gc.expire"}
        kept_by = "itself: it expires no more"
    else:
        labels = {**record.labels, GC_ROOT: rfc3339(txn.now_ns)}
        kept_by = f"label {GC_ROOT}"
    changed = msgspec.structs.replace(record, labels=labels, updated_at=txn.now_ns)
    await table.replace(txn, namespace, name, changed)
    return Undeleted(kind, name, kept_by)


PLANS: Mapping[type[msgspec.Struct], Plan] = {Undelete: undelete}
