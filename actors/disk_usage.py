"""Bytes held, as the counters say. Source: DESIGN 8."""

from __future__ import annotations

import trio

from ..protocol.messages import BytesHeld, DiskUsage
from ..storage import usage
from ..storage.blobs import ledger
from ..storage.engine import Engine
from ..storage.tables import page_namespaces

__all__ = ["disk_usage"]

_AT_ONCE = 100


async def disk_usage(engine: Engine) -> DiskUsage:
    """A hundred namespaces on each view. Of the store, reclaimable is the sum of what the namespaces count."""
    found: dict[str, BytesHeld] = {}
    after = ""
    while True:
        with engine.view() as view:
            page = await page_namespaces(view, after, _AT_ONCE)
            for namespace in page:
                found[namespace.name] = _told(await usage.read_usage(view, namespace.name))
        if len(page) < _AT_ONCE:
            break
        after = page[-1].name
        await trio.lowlevel.checkpoint()
    with engine.view() as view:
        store = await usage.read_usage(view, usage.STORE)
        removals = await ledger.count_removals(view)
    exclusive = sum(each.exclusive for each in found.values())
    total = BytesHeld(
        store.packed,
        store.unpacked,
        exclusive,
        store.packed + store.unpacked - exclusive,
        sum(each.reclaimable for each in found.values()),
    )
    return DiskUsage(found, total, removals)


def _told(held: usage.BytesHeld) -> BytesHeld:
    return BytesHeld(held.packed, held.unpacked, held.exclusive, held.shared, held.reclaimable)
