"""What runs leave in a store: namespaces of their own, which are emptied and removed."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager

from ...protocol.api import Store
from ...protocol.errors import NotFound
from ..embed import connect, open_store
from .targets.interface import MADE_LABEL

__all__ = ["remove_leftovers"]


async def remove_leftovers(address: str, folder: str) -> int:
    """How many namespaces are gone, with all that was in them. Raises OrlopError. Cancellation: some are."""
    opened: AbstractAsyncContextManager[Store] = connect(address) if address else open_store(folder)
    async with opened as store:
        names = [namespace.name async for namespace in store.namespaces.list() if MADE_LABEL in namespace.labels]
        for name in names:
            await _empty(store.in_namespace(name))
        await store.collect(empty_bin=True)
        for name in names:
            await store.namespaces.delete(name)
    return len(names)


async def _empty(store: Store) -> None:
    async for image in store.images.list():
        await _gone(store.images.delete(image.name))
    async for snapshot in store.snapshots.list():
        if snapshot.labels:
            await store.snapshots.using(snapshot.snapshotter).update(snapshot.name, {})
    async for blob in store.content.list():
        if blob.labels:
            await _gone(store.content.delete(blob.digest))
    async for lease in store.leases.list():
        await _gone(store.leases.delete(lease.id))
    async for ingest in store.content.ingests():
        await store.content.abort(ingest.ref)


async def _gone(deleting: Awaitable[object]) -> None:
    try:
        await deleting
    except NotFound:
        pass
