"""Worker processes, asked and heard in typed messages. See storage/archive/jobs.py."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import trio

from ..protocol.errors import Unavailable, error_from_wire
from ..protocol.world import Job as Process
from ..protocol.world import Pool, Work, World
from ..storage.archive.jobs import (
    Advanced,
    Failed,
    Job,
    Measure,
    NeedsLower,
    Output,
    RemoveTrees,
    Report,
    decode_report,
    encode,
)
from ..storage.archive.small import run_small
from ..storage.blobs.local import disk_error

__all__ = ["Hear", "LayerWorkers"]

Hear = Callable[[Process, NeedsLower | Advanced | Output], Awaitable[None]]


class LayerWorkers:
    """Jobs that nobody else counts wait for one of a few places."""

    def __init__(self, pool: Pool, world: World) -> None:
        self._pool = pool
        self._world = world
        self._places = trio.CapacityLimiter(4 * world.cores)

    async def warm(self) -> None:
        """Somebody is about to need a worker. What goes wrong is told to who really does."""
        with suppress(OSError):
            await self._pool.warm()

    async def run(self, job: Job, root: str) -> Report:
        """A short job, when there is a place for it; without a process where it is on a few entries. See `run_counted`.

        Cancellation: what is done without a process is waited for.
        """
        async with self._places:
            if isinstance(job, Measure | RemoveTrees):
                done = await self._world.workers.run(Work.FILES, run_small, job, root)
                if done is not None:
                    return done
            return await self.run_counted(job, root)

    async def run_counted(
        self, job: Job, root: str, hear: Hear | None = None, descriptors: Sequence[int] = ()
    ) -> Report:
        """What came of a job whose folders are relative to `root`. `hear` gets what the worker says meanwhile.

        Raises what the worker ran into, and Unavailable when it was killed. Cancellation: the worker is ended first.
        """
        try:
            fd = await self._world.workers.run(Work.FILES, self._world.files.open, root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise disk_error(error, "starting a worker process") from error
        try:
            process = await self._started(job, [fd, *descriptors])
        finally:
            self._world.files.close(fd)
        return await self._outcome(process, hear)

    async def run_in(self, root: int, job: Job, descriptors: Sequence[int] = ()) -> Report:
        """The same in an open folder, whatever is called by its name meanwhile."""
        return await self._outcome(await self._started(job, [root, *descriptors]), None)

    async def _started(self, job: Job, descriptors: Sequence[int]) -> Process:
        try:
            return await self._pool.start(encode(job), descriptors)
        except OSError as error:
            raise disk_error(error, "starting a worker process") from error

    async def _outcome(self, process: Process, hear: Hear | None) -> Report:
        try:
            while message := await process.receive():
                try:
                    report = decode_report(message)
                except msgspec.MsgspecError as error:
                    raise Unavailable(f"a worker process said what nobody understands: {error}") from None
                if isinstance(report, NeedsLower | Advanced | Output):
                    if hear is not None:
                        await hear(process, report)
                elif isinstance(report, Failed):
                    raise error_from_wire(report.error)
                else:
                    return report
            raise Unavailable("a worker process ended before its work was done", hint="try again")
        finally:
            await process.close()
