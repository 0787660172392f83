"""The life of a store: who is started after whom, and how everything ends.

Start: lock, engine, blob folders, storage actor, domains, listeners. Stop: listeners, drain, domains, storage,
engine, lock. Everything lives in one nursery; state on disk is good at every instant, so a crash is only a
restart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from ..protocol.api import Store
from ..protocol.errors import StoreFailed
from ..protocol.identifiers import DEFAULT_NAMESPACE
from ..protocol.messages import Context
from ..protocol.registry.platforms import Platform
from ..protocol.server import Budget, serve_listener
from ..protocol.world import Address, Listener, Work, World
from ..storage.blobs.local import LocalBlobs
from ..storage.engine import KeyValue
from ..storage.leveldb import LevelDBStore
from ..storage.lock import Holder, StoreLock
from . import content, images, leases, namespaces
from .actor import PlanActor
from .caller import LocalCaller
from .config import StoreConfig
from .content import ContentActor
from .events import EventsActor, JournalLimits
from .gc import Collector
from .service import StoreService
from .storage import StorageActor
from .transfer import TransferActor

__all__ = ["RunningStore", "run_store"]

log = structlog.get_logger("orlop")


class RunningStore:
    """A store that is up: its typed interface, its service, and where it listens."""

    def __init__(
        self,
        store: Store,
        service: StoreService,
        storage: StorageActor,
        collector: Collector,
        addresses: Sequence[Address],
    ) -> None:
        self.store = store
        self.service = service
        self.storage = storage
        self.collector = collector
        self.addresses = addresses


@asynccontextmanager
async def run_store(
    config: StoreConfig,
    world: World,
    host: Platform,
    listen: Sequence[Address] = (),
    engine: KeyValue | None = None,
) -> AsyncIterator[RunningStore]:
    """Run a store for the length of the block. `engine` stands in for LevelDB, in tests and simulations.

    Raises Unavailable (StoreInUse) when another process has it, DataLoss, FailedPrecondition (newer format).
    An exception of the body leaves as itself; a failure of the store is StoreFailed with the group as cause.
    """
    root, run = config.root, world.workers.run
    holder = Holder(world.pid, world.program, next((address.path for address in listen if address.path), ""))
    lock = await run(Work.FILES, StoreLock.take, root, world.files, holder)
    try:
        opened: KeyValue = (
            engine if engine is not None else await run(Work.COMMIT, LevelDBStore.open, root, world.files)
        )
        try:
            blobs = LocalBlobs(root, world.files)
            await run(Work.FILES, blobs.prepare)
            async with _running(config, world, host, listen, opened, blobs) as running:
                yield running
        finally:
            with trio.CancelScope(shield=True):  # closing ends when the disk does
                await run(Work.COMMIT, opened.close)
    finally:
        lock.release()


@asynccontextmanager
async def _running(
    config: StoreConfig,
    world: World,
    host: Platform,
    listen: Sequence[Address],
    engine: KeyValue,
    blobs: LocalBlobs,
) -> AsyncIterator[RunningStore]:
    storage = StorageActor(engine, world)
    content_actor = ContentActor(storage, blobs, world)
    collector = Collector(storage, content_actor, world)
    journal = JournalLimits(config.journal.events, config.journal.age_s)
    events = EventsActor(storage, journal, world)
    plans = {name: PlanActor(table, storage) for name, table in _PLANS.items()}
    transfer = TransferActor(
        storage,
        content_actor,
        plans["content"],
        plans["leases"],
        host,
        world,
        stall_s=config.transfer.stall_s,
    )
    body: BaseException | None = None
    try:
        async with trio.open_nursery() as storage_nursery:
            storage_nursery.start_soon(storage.run)
            service = StoreService(
                store_id=await storage.check_format(),
                storage=storage,
                namespace_actor=plans["namespaces"],
                image_actor=plans["images"],
                content_plans=plans["content"],
                lease_actor=plans["leases"],
                content_actor=content_actor,
                events=events,
                collector=collector,
                transfer=transfer,
                world=world,
            )
            async with trio.open_nursery() as domains:
                await domains.start(content_actor.run)
                domains.start_soon(events.run)
                domains.start_soon(collector.run)
                for plan_actor in plans.values():
                    domains.start_soon(plan_actor.run)
                async with trio.open_nursery() as listeners:
                    addresses = await _listen(config, world, listen, service, listeners)
                    session = service.open_session()
                    store = Store(LocalCaller(service, session), Context(namespace=DEFAULT_NAMESPACE))
                    try:
                        yield RunningStore(store, service, storage, collector, addresses)
                    except BaseException as error:  # noqa: BLE001 - raised again, as itself, below
                        body = error
                    service.drain()
                    listeners.cancel_scope.cancel()
                with trio.CancelScope(shield=True):  # ends when the disk does
                    await session.close()
                    await content_actor.close_writers()
                    with trio.move_on_after(config.drain_s):
                        await storage.wait_idle()
                domains.cancel_scope.cancel()
            storage_nursery.cancel_scope.cancel()
    except* trio.Cancelled:
        raise
    except* Exception as failure:
        raise StoreFailed(f"store {config.root} failed: {failure.exceptions[0]}") from failure
    finally:
        storage.close()
    if body is not None:
        raise body


_PLANS = {
    "namespaces": namespaces.PLANS,
    "images": images.PLANS,
    "content": content.PLANS,
    "leases": leases.PLANS,
}


async def _listen(
    config: StoreConfig,
    world: World,
    listen: Sequence[Address],
    service: StoreService,
    nursery: trio.Nursery,
) -> list[Address]:
    """Bind every address before any is served."""
    found = []
    budget = Budget()
    for address in listen:
        listener = await world.network.listen(address, config.socket_mode)
        found.append(listener.address)
        nursery.start_soon(_serve, listener, service, world, budget)
    return found


async def _serve(listener: Listener, service: StoreService, world: World, budget: Budget) -> None:
    try:
        await serve_listener(listener, service, world.clock, budget)
    finally:
        with trio.CancelScope(shield=True):  # closing a socket does not wait
            await listener.close()
