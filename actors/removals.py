"""Files that nothing refers to any more: unlinked from a durable queue, then struck off it.

A crash in between unlinks again, harmlessly: a name in the queue is never given to another file (DESIGN 6).
"""

from __future__ import annotations

import structlog
import trio

from ..protocol.errors import OrlopError
from ..protocol.world import Work, World
from ..storage.blobs import ledger
from ..storage.blobs.local import LocalBlobs
from ..storage.engine import Transaction
from .storage import Durable, StorageActor

__all__ = ["RemovalActor"]

log = structlog.get_logger("orlop.removals")

_REMOVALS_AT_ONCE = 256


class RemovalActor:
    def __init__(self, storage: StorageActor, blobs: LocalBlobs, world: World) -> None:
        self._storage = storage
        self._blobs = blobs
        self._world = world
        self._due = trio.Event()
        self._removed_up_to = 0
        self._removed = trio.Condition()
        storage.listen(self._hear)

    async def run(self) -> None:
        """Begins with what an earlier run left behind. Ends when cancelled."""
        with self._storage.view() as view:
            self._removed_up_to = await ledger.first_removal(view)
        self._due.set()
        while True:
            await self._due.wait()
            self._due = trio.Event()
            while await self._remove_some():
                pass

    async def done(self) -> None:
        """Wait until every removal queued so far has been carried out."""
        with self._storage.view() as view:
            pending = await ledger.last_removal(view)
        self._due.set()
        async with self._removed:
            while self._removed_up_to < pending:
                await self._removed.wait()

    async def _remove_some(self) -> bool:
        """Unlink files of the queue, then strike them off; a crash in between unlinks again, harmlessly."""
        with self._storage.view() as view:
            head = await ledger.last_removal(view)
            page = await ledger.page_removals(view, self._removed_up_to, _REMOVALS_AT_ONCE)
        if page:
            try:
                await self._world.workers.run(Work.FILES, self._blobs.remove, [removal.path for _, removal in page])
            except OSError as error:
                log.error("files could not be removed; trying again later", error=str(error))
                await trio.sleep(1)
                return True

            async def strike(txn: Transaction) -> None:
                ledger.strike_removals(txn, [position for position, _ in page])

            try:
                await self._storage.transact(strike)
            except OrlopError as error:
                log.warning("removed files are still queued", error=str(error))
                await trio.sleep(1)
                return True
        async with self._removed:
            self._removed_up_to = page[-1][0] if len(page) == _REMOVALS_AT_ONCE else max(head, self._removed_up_to)
            self._removed.notify_all()
        return len(page) == _REMOVALS_AT_ONCE

    def _hear(self, news: Durable) -> None:
        if news.removals:
            self._due.set()
