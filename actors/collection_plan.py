"""What a collection would free: the collector itself, run without its effects. Source: DESIGN 8."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ..protocol.messages import Context, DeleteImage, PlanCollection, Planned, PlannedCollection
from ..protocol.service import Session
from ..protocol.world import World
from ..storage import snapshots
from ..storage.blobs import ledger
from ..storage.collection.collector import Places, Slice, collect_some
from ..storage.collection.state import Vertex
from ..storage.engine import Kind, Reader
from ..storage.tables import INGESTS
from . import images
from .measuring import Scales
from .scratch import Scratch
from .storage import StorageActor

__all__ = ["CollectionPlanner"]

_REMOVALS_AT_ONCE = 256


class CollectionPlanner:
    def __init__(self, storage: StorageActor, scales: Scales, world: World) -> None:
        self._storage = storage
        self._scales = scales
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
            weighed = _Weighed(self._scales)
            queued = await ledger.last_removal(view)
            for name in request.without:
                scratch.transact(partial(images.delete, request=DeleteImage(name), context=context))
            while True:
                part: Slice = scratch.transact(lambda txn: collect_some(txn, places, grace_ns=0))
                for vertex, size in part.objects:
                    path = "" if size else await _uncounted_path(view, vertex)
                    size = size or await weighed.at(path)
                    await emit(Planned(vertex.namespace, vertex.kind.name.lower(), vertex.name, size))
                while page := scratch.transact(partial(ledger.page_removals, after=queued, limit=_REMOVALS_AT_ONCE)):
                    freed += sum([await weighed.at(removal.path) for _, removal in page if not removal.size])
                    queued = page[-1][0]
                objects += len(part.objects)
                blobs += part.blobs
                freed += part.freed
                if not part.more:
                    return PlannedCollection(objects, blobs, freed)
                await trio.lowlevel.checkpoint()


class _Weighed:
    """Each path once, so that an object and the plan's sum say the same of what somebody still writes to."""

    def __init__(self, scales: Scales) -> None:
        self._scales = scales
        self._known = {"": 0}

    async def at(self, path: str) -> int:
        if path not in self._known:
            self._known[path] = await self._scales.weigh(path)
        return self._known[path]


async def _uncounted_path(reader: Reader, vertex: Vertex) -> str:
    """Where an object lies whose bytes no record counts."""
    if vertex.kind is Kind.INGEST:
        ingest = await INGESTS.find(reader, vertex.namespace, vertex.name)
        return "" if ingest is None else ledger.ingest_path(ingest.generation)
    if vertex.kind is Kind.SNAPSHOT:
        snapshot_id = await snapshots.find_id(reader, vertex.namespace, vertex.name)
        backend = await snapshots.find_backend(reader, snapshot_id) if snapshot_id else None
        if backend is not None and backend.own_folder:
            return snapshots.folder_of(backend.snapshotter, snapshot_id)
    return ""
