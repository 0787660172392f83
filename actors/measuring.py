"""How many bytes lie on disk of what no record counts: an ingest's file, the folder of a snapshot never committed."""

from __future__ import annotations

import structlog

from ..protocol.errors import OrlopError
from ..protocol.world import Work, World
from ..storage.archive.jobs import Done, Measure
from ..storage.blobs.local import LocalBlobs, disk_errors
from ..storage.snapshots import parse_folder
from .snapshotters import Snapshotters
from .workers import LayerWorkers

__all__ = ["Scales"]

log = structlog.get_logger("orlop.measuring")


class Scales:
    def __init__(self, blobs: LocalBlobs, snapshotters: Snapshotters, workers: LayerWorkers, world: World) -> None:
        self._blobs = blobs
        self._snapshotters = snapshotters
        self._workers = workers
        self._world = world

    async def weigh(self, path: str) -> int:
        """Bytes of a file or a snapshot's folder, by its path inside the store; 0 if it is not there or cannot
        be read: nobody's removal depends on its weight. Cancellation: safe."""
        folder = parse_folder(path)
        try:
            if folder is None:
                with disk_errors(path):
                    return await self._world.workers.run(Work.FILES, self._blobs.size_of, path)
            name, snapshot_id = folder
            snapshotter = await self._snapshotters.find(name)
            done = await self._workers.run(Measure(snapshotter.own_tree(snapshot_id)), self._snapshotters.root(name))
        except OrlopError as error:
            log.info("not counted, as it cannot be measured", path=path, reason=str(error))
            return 0
        assert isinstance(done, Done)
        return done.size
