"""Files that nothing refers to any more: unlinked from a durable queue, then struck off it.

A crash in between unlinks again, harmlessly: a name in the queue is never given to another file (DESIGN 6).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import structlog
import trio

from ..protocol.errors import InvalidArgument, OrlopError, Unavailable
from ..protocol.world import Work, World
from ..storage.archive.jobs import Removed, RemoveTrees
from ..storage.blobs import ledger
from ..storage.blobs.local import LocalBlobs, disk_error
from ..storage.engine import Transaction
from ..storage.snapshots import FOLDERS
from .measuring import Scales
from .snapshotters import Snapshotters
from .storage import Durable, StorageActor
from .workers import LayerWorkers

__all__ = ["RemovalActor"]

log = structlog.get_logger("orlop.removals")

_REMOVALS_AT_ONCE = 256
RETRY_S = 1.0
RETRY_ASIDE_S = 60.0


class RemovalActor:
    def __init__(
        self,
        storage: StorageActor,
        blobs: LocalBlobs,
        snapshotters: Snapshotters,
        workers: LayerWorkers,
        scales: Scales,
        world: World,
    ) -> None:
        self._storage = storage
        self._blobs = blobs
        self._snapshotters = snapshotters
        self._workers = workers
        self._scales = scales
        self._world = world
        self.uncounted_bytes = 0
        """Of what has gone, the bytes that no record counted: those of ingests, and of snapshots never committed."""
        self._due = trio.Event()
        self._removed_up_to: int | None = None  # not known before the queue was read
        self._removed = trio.Condition()
        self._failure: OrlopError | None = None  # of an attempt since somebody began to wait
        storage.listen(self._hear)

    async def run(self) -> None:
        """Begins with what an earlier run left behind. Ends when cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._try_again_now_and_then)
            await self._run()

    async def _run(self) -> None:
        self._due.set()
        while True:
            await self._due.wait()
            self._due = trio.Event()
            while await self._attempt():
                pass

    async def done(self) -> None:
        """Wait until every removal queued so far has been carried out. Raises Unavailable when that fails: what is
        queued stays so, and is tried again."""
        with self._storage.view() as view:
            pending = await ledger.last_removal(view)
        self._failure = None
        self._due.set()
        async with self._removed:
            while self._removed_up_to is None or self._removed_up_to < pending:
                await self._removed.wait()
                if self._failure is not None:
                    raise Unavailable(self._failure.message, hint="what is queued is tried again")

    async def settled(self) -> None:
        """Like `done`, for those who only look: what cannot be removed is no error to them."""
        with suppress(Unavailable):
            await self.done()

    async def _attempt(self) -> bool:
        """Some of the queue; True if there is more to do. A disk or an engine that fails is tried again after a pause,
        and meanwhile those who wait are told."""
        try:
            return await self._remove_some()
        except OSError as error:
            failure: OrlopError = disk_error(error, "removing files that nothing refers to any more")
        except OrlopError as error:
            failure = error
        log.error("files could not be removed; trying again later", error=str(failure))
        async with self._removed:
            self._failure = failure
            self._removed.notify_all()
        await trio.sleep(RETRY_S)
        return True

    async def _remove_some(self) -> bool:
        """Unlink files of the queue, then strike them off; a crash in between unlinks again, harmlessly."""
        with self._storage.view() as view:
            if self._removed_up_to is None:
                self._removed_up_to = await ledger.first_removal(view)
            head = await ledger.last_removal(view)
            page = await ledger.page_removals(view, self._removed_up_to, _REMOVALS_AT_ONCE)
        if page:
            uncounted = [(each.path, await self._scales.weigh(each.path)) for _, each in page if not each.size]
            left = await self._remove([removal.path for _, removal in page])
            self.uncounted_bytes += sum(size for path, size in uncounted if path not in left)
            await self._storage.transact(partial(_strike, page=page, left=left))
        async with self._removed:
            self._removed_up_to = page[-1][0] if len(page) == _REMOVALS_AT_ONCE else max(head, self._removed_up_to)
            self._removed.notify_all()
        return len(page) == _REMOVALS_AT_ONCE

    async def try_again(self) -> None:
        """Queue what was set aside."""
        await self._storage.transact(partial(ledger.take_back, limit=_REMOVALS_AT_ONCE))

    async def _try_again_now_and_then(self) -> None:
        """What was set aside, now and then: first when the store starts."""
        while True:
            try:
                await self.try_again()
            except OrlopError as error:
                log.error("what could not be removed waits on", error=str(error))
            await trio.sleep(RETRY_ASIDE_S)

    async def _remove(self, paths: list[str]) -> set[str]:
        """Files at once, whole trees by worker processes. Returns the trees that could not be removed: somebody made a
        file immutable, or mounted something; nobody else has to wait for that."""
        left: set[str] = set()
        files = [path for path in paths if not path.startswith(FOLDERS)]
        if files:
            await self._world.workers.run(Work.FILES, self._blobs.remove, files)
        trees: dict[str, list[str]] = {}
        for path in paths:
            if path.startswith(FOLDERS):
                root, _, name = path.rpartition("/")
                trees.setdefault(root, []).append(name)
        for root, names in trees.items():
            try:
                snapshotter = await self._snapshotters.find(root.rpartition("/")[2])
            except InvalidArgument as error:
                log.warning("snapshots cannot be removed; trying again later", reason=str(error))
                left |= {f"{root}/{name}" for name in names}
                continue
            await self._world.workers.run(Work.FILES, snapshotter.remove, names)
            done = await self._workers.run(RemoveTrees(names), self._blobs.path(root))
            assert isinstance(done, Removed)
            for name, reason in done.left.items():
                log.warning("a snapshot's folder cannot be removed; trying again later", name=name, reason=reason)
                left.add(f"{root}/{name}")
            await self._world.workers.run(Work.FILES, self._blobs.sync_folder, root)
        return left

    def _hear(self, news: Durable) -> None:
        if news.removals:
            self._due.set()


async def _strike(txn: Transaction, page: list[tuple[int, ledger.Removal]], left: set[str]) -> None:
    txn.quiet = True
    for position, removal in page:
        if removal.path in left:
            ledger.set_aside(txn, position, removal)
    ledger.strike_removals(txn, [position for position, _ in page])
