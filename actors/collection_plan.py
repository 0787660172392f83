"""What a collection would free: the collector itself, run without its effects. Source: DESIGN 8."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ..protocol.messages import Context, DeleteImage, PlanCollection, Planned, PlannedCollection
from ..protocol.service import Session
from ..protocol.world import World
from ..storage.collection.collector import Places, Slice, collect_some
from . import images
from .scratch import Scratch
from .storage import StorageActor

__all__ = ["CollectionPlanner"]


class CollectionPlanner:
    def __init__(self, storage: StorageActor, world: World) -> None:
        self._storage = storage
        self._world = world

    async def plan(
        self, request: PlanCollection, context: Context, _: Session, emit: Callable[[object], Awaitable[None]]
    ) -> PlannedCollection:
        """Every object that would go, and what that frees; of rounds in the bin, too. Raises NotFound (an image to be
        left out). One view is held throughout. Cancellation: nothing was done anyway."""
        objects = blobs = freed = 0
        places = Places()
        with self._storage.view() as view:
            scratch = Scratch(view, self._world.clock.now_ns())
            for name in request.without:
                scratch.transact(partial(images.delete, request=DeleteImage(name), context=context))
            while True:
                part: Slice = scratch.transact(lambda txn: collect_some(txn, places, grace_ns=0))
                for vertex, size in part.objects:
                    await emit(Planned(vertex.namespace, vertex.kind.name.lower(), vertex.name, size))
                objects += len(part.objects)
                blobs += part.blobs
                freed += part.freed
                if not part.more:
                    return PlannedCollection(objects, blobs, freed)
                await trio.lowlevel.checkpoint()
