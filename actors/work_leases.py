"""Leases under which pulls and unpacks work, so that nothing they bring can be collected half-made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog
import trio

from ..protocol.errors import NotFound, OrlopError
from ..protocol.labels import GC_EXPIRE
from ..protocol.messages import Context, CreateLease, DeleteLease
from ..protocol.world import World
from ..storage.lease_entries import page_entries
from ..storage.tables import LEASES
from .actor import PlanActor
from .leases import lease_id
from .storage import StorageActor
from .timestamps import rfc3339

__all__ = ["PULL_LABEL", "WorkLeases"]

log = structlog.get_logger("orlop.transfer")

LEASE_LIFE_NS: Final = 24 * 3600 * 1_000_000_000
PULL_LABEL: Final = "orlop.io/pull"  # on a lease: the reference
_LEASE_PREFIX: Final = "pull-"


class WorkLeases:
    def __init__(self, storage: StorageActor, leases: PlanActor, world: World) -> None:
        self._storage = storage
        self._leases = leases
        self._world = world
        self._pulling: set[str] = set()  # leases of work under way

    @asynccontextmanager
    async def hold(self, context: Context, reference: str) -> AsyncIterator[Context]:
        """A lease for the length of the block, unless the caller brought one.

        A pull that fails leaves its lease: what has come is there for the next attempt, until the lease
        expires. The attempt that succeeds ends it, and those of earlier attempts.
        """
        if context.lease is not None:
            yield context
            return
        now = self._world.clock.now_ns()
        name = f"{_LEASE_PREFIX}{lease_id(now, self._world.random.token(9))}"
        labels = {GC_EXPIRE: rfc3339(now + LEASE_LIFE_NS), PULL_LABEL: reference[:2048]}
        self._pulling.add(name)
        try:
            await self._leases.ask(CreateLease(name, labels), context)
            yield msgspec.structs.replace(context, lease=name)
            for stale in [name, *await self._earlier_attempts(context.namespace or "", labels[PULL_LABEL])]:
                try:
                    await self._leases.ask(DeleteLease(stale), context)
                except NotFound:
                    pass
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await self._end_if_empty(context, name)
            raise
        finally:
            self._pulling.discard(name)

    async def _end_if_empty(self, context: Context, name: str) -> None:
        """A pull that failed before anything came leaves nothing at all."""
        try:
            with self._storage.view() as view:
                lease = await LEASES.find(view, context.namespace or "", name)
                entries = lease and await page_entries(view, context.namespace or "", lease, b"", 1)
            if lease is not None and not entries:
                await self._leases.ask(DeleteLease(name), context)
        except OrlopError as error:  # it ends by itself
            log.warning("a pull's lease could not be deleted", lease=name, error=str(error))

    async def _earlier_attempts(self, namespace: str, reference: str) -> list[str]:
        """Leases that failed pulls of the same name left behind."""
        with self._storage.view() as view:
            page = await LEASES.page(view, namespace, _LEASE_PREFIX, 1000)
        return [
            name
            for name, (_, raw) in zip(page.names, page.rows, strict=True)
            if name.startswith(_LEASE_PREFIX)
            and name not in self._pulling
            and LEASES.decode(raw).labels.get(PULL_LABEL) == reference
        ]
