"""The life of a store: who is started after whom, and how everything ends.

Start: lock, engine, blob folders, storage actor, domains, listeners. Stop: listeners, drain, domains, storage,
engine, lock. Everything lives in one nursery; state on disk is good at every instant, so a crash is only a
restart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio

from ..protocol.api import Store
from ..protocol.errors import StoreFailed
from ..protocol.identifiers import DEFAULT_NAMESPACE
from ..protocol.messages import Context
from ..protocol.meter import Meter
from ..protocol.outbox import Budget
from ..protocol.registry.platforms import Platform
from ..protocol.server import serve_listener
from ..protocol.world import Address, Listener, Pool, Work, World
from ..storage.blobs.local import LocalBlobs, disk_errors
from ..storage.blobs.sharing import sharing_policy
from ..storage.engine import KeyValue
from ..storage.leveldb import LevelDBStore
from ..storage.lock import Holder, StoreLock
from .caller import LocalCaller
from .checking import Checker
from .collection_plan import CollectionPlanner
from .config import StoreConfig
from .content_actor import ContentActor
from .events import EventsActor, JournalLimits
from .explaining import Explainer
from .gc import Collector
from .image_unpack import ImageUnpacks
from .introspection import Introspection, parts_of
from .layers import LayerActor
from .measuring import Scales
from .metrics import LoopWatch, StoreMetrics
from .planning import Plans
from .pulling import Puller
from .pushing import Pusher
from .registries import Registries
from .removals import RemovalActor
from .service import StoreService
from .snapshots import SnapshotActor
from .snapshotters import Snapshotters
from .storage import StorageActor
from .unpacking import UnpackActor
from .verification import Verifier
from .verifiers import ImageVerifiers
from .work_leases import WorkLeases
from .workers import LayerWorkers

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
        metrics_address: Address | None,
    ) -> None:
        self.store = store
        self.service = service
        self.storage = storage
        self.collector = collector
        self.addresses = addresses
        self.metrics_address = metrics_address


@asynccontextmanager
async def run_store(
    config: StoreConfig,
    world: World,
    host: Platform,
    listen: Sequence[Address] = (),
    engine: KeyValue | None = None,
    expose: Address | None = None,
) -> AsyncIterator[RunningStore]:
    """Run a store for the length of the block. `engine` stands in for LevelDB, in tests and simulations. `expose`:
    where its metrics are served.

    Raises Unavailable (StoreInUse when another process has it, else the disk), ResourceExhausted (it is full),
    DataLoss, FailedPrecondition (newer format).
    An exception of the body leaves as itself; a failure of the store is StoreFailed with the group as cause.
    """
    root, run = config.root, world.workers.run
    with disk_errors(f"store {root}"):
        lock = await run(Work.FILES, StoreLock.take, root, world.files, Holder(world.pid, world.program))

    def announce(addresses: Sequence[Address]) -> None:
        """Say in the lock where others meet us: only once somebody listens there, and no longer than that."""
        socket = next((address.path for address in addresses if address.path), "")
        lock.announce(Holder(world.pid, world.program, socket))

    try:
        with disk_errors(f"store {root}"):
            opened: KeyValue = (
                engine if engine is not None else await run(Work.COMMIT, LevelDBStore.open, root, world.files)
            )
        try:
            blobs = LocalBlobs(root, world.files)
            with disk_errors(f"store {root}"):
                await run(Work.FILES, blobs.prepare)
            async with _running(config, world, host, listen, opened, blobs, announce, expose) as running:
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
    announce: Callable[[Sequence[Address]], None],
    expose: Address | None,
) -> AsyncIterator[RunningStore]:
    async with (
        world.processes.pool() as pool,
        _served(config, world, host, listen, engine, blobs, announce, expose, pool) as running,
    ):
        yield running


@asynccontextmanager
async def _served(
    config: StoreConfig,
    world: World,
    host: Platform,
    listen: Sequence[Address],
    engine: KeyValue,
    blobs: LocalBlobs,
    announce: Callable[[Sequence[Address]], None],
    expose: Address | None,
    pool: Pool,
) -> AsyncIterator[RunningStore]:
    storage = StorageActor(engine, world)
    policy = sharing_policy(config.content_sharing_policy)
    content_actor = ContentActor(storage, blobs, world, policy)
    workers = LayerWorkers(pool, world)
    snapshotters = Snapshotters(config.root, world, config.snapshots)
    scales = Scales(blobs, snapshotters, workers, world)
    removals = RemovalActor(storage, blobs, snapshotters, workers, scales, world)
    plans = Plans(storage)
    snapshots = SnapshotActor(storage, snapshotters, workers, removals, plans.snapshots, world)
    layers = LayerActor(content_actor, plans.content, snapshots, snapshotters, workers, config.unpack, world)
    work_leases = WorkLeases(storage, plans.leases, world)
    unpacks = UnpackActor(storage, snapshots, layers, plans.content, config.unpack, world.cores)
    image_unpacks = ImageUnpacks(storage, content_actor, snapshotters, unpacks, work_leases, host)
    collector = Collector(storage, removals, world, config.gc)
    journal = JournalLimits(config.journal.events, config.journal.age_s)
    events = EventsActor(storage, journal, world)
    registries = Registries(world, config.registry, config.transfer)
    puller = Puller(
        storage,
        content_actor,
        plans.content,
        work_leases,
        image_unpacks,
        registries,
        ImageVerifiers(world, config.verifiers),
        host,
        policy,
        config.transfer,
        world.clock,
    )
    body: BaseException | None = None
    engine_room, domains, connections = _Ward(), _Ward(), _Ward()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine_room.keep, storage.run)
            try:
                store_id = await storage.check_format()
                meter, watch = Meter(), LoopWatch(world)
                parts = parts_of(config, storage, collector, snapshotters, host)
                metrics = StoreMetrics(storage, collector, registries.traffic, meter, watch, store_id)
                service = StoreService(
                    store_id=store_id,
                    storage=storage,
                    plans=plans,
                    content_actor=content_actor,
                    events=events,
                    collector=collector,
                    collection_planner=CollectionPlanner(storage, scales, world),
                    snapshots=snapshots,
                    layers=layers,
                    image_unpacks=image_unpacks,
                    puller=puller,
                    pusher=Pusher(storage, content_actor, registries, host),
                    verifier=Verifier(storage, content_actor, blobs, world),
                    explainer=Explainer(storage, world, config.gc),
                    checker=Checker(storage, collector, removals, blobs, snapshotters, world),
                    introspection=Introspection(store_id, parts, snapshotters, world),
                    metrics=metrics,
                    meter=meter,
                    world=world,
                )
                await snapshots.settle_what_a_crash_left()
                await nursery.start(domains.keep_started, content_actor.run)
                for actor in (events.run, removals.run, collector.run, watch.run, *(plan.run for plan in plans.all)):
                    nursery.start_soon(domains.keep, actor)
                session = service.open_session()
                async with trio.open_nursery() as listeners:
                    try:
                        addresses = await _listen(config, world, listen, service, connections, listeners)
                        metrics_address = await _expose(expose, world, metrics, listeners)
                        store = Store(LocalCaller(service, session, world.clock), Context(namespace=DEFAULT_NAMESPACE))
                        announce(addresses)
                        try:
                            yield RunningStore(store, service, storage, collector, addresses, metrics_address)
                        except BaseException as error:  # noqa: BLE001 - raised again, as itself, below
                            body = error
                        announce(())
                        service.drain()
                        with trio.CancelScope(shield=True, deadline=trio.current_time() + config.drain_s):
                            await service.wait_quiet()
                    finally:
                        connections.end()
                        listeners.cancel_scope.cancel()
                with trio.CancelScope(shield=True):  # ends when the disk does
                    await session.close()
                    await content_actor.close_writers()
                    with trio.move_on_after(config.drain_s):
                        await storage.wait_idle()
            finally:
                domains.end()
                engine_room.end()
    except* trio.Cancelled:
        raise
    except* Exception as failure:
        raise StoreFailed(f"store {config.root} failed: {_leaf(failure)}") from failure
    finally:
        storage.close()
    if body is not None:
        raise body


class _Ward:
    """What outlives a cancellation from outside, until it is its turn to end: actors whose users clean up first,
    connections whose calls are answered first. If one fails, all of them end at once."""

    def __init__(self) -> None:
        self._scopes: list[trio.CancelScope] = []
        self._ended = False

    async def keep(self, actor: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope(shield=True) as scope:  # ended by `end`
            self._scopes.append(scope)
            if self._ended:
                scope.cancel()
            try:
                await actor()
            except Exception:
                self.end()
                raise

    async def keep_started(
        self,
        actor: Callable[[trio.TaskStatus[None]], Awaitable[None]],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await self.keep(partial(actor, task_status))

    def end(self) -> None:
        self._ended = True
        for scope in self._scopes:
            scope.cancel()


def _leaf(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def _listen(
    config: StoreConfig,
    world: World,
    listen: Sequence[Address],
    service: StoreService,
    ward: _Ward,
    nursery: trio.Nursery,
) -> list[Address]:
    """Bind every address, and serve it until the ward ends."""
    found = []
    budget = Budget()
    for address in listen:
        listener = await world.network.listen(address, config.socket_mode)
        found.append(listener.address)
        nursery.start_soon(ward.keep, partial(_serve, listener, service, world, budget))
    return found


async def _expose(
    address: Address | None, world: World, metrics: StoreMetrics, nursery: trio.Nursery
) -> Address | None:
    """Metrics on a listener of their own, if that is wanted."""
    if address is None:
        return None
    from ..protocol.exposition import serve_metrics  # Prometheus' library, for those who use it

    listener = await world.network.listen(address)
    nursery.start_soon(_serve_metrics, serve_metrics, listener, metrics)
    return listener.address


async def _serve_metrics(serve: Callable[..., Awaitable[None]], listener: Listener, metrics: StoreMetrics) -> None:
    try:
        await serve(listener, metrics.gather)
    finally:
        with trio.CancelScope(shield=True):  # closing a socket does not wait
            await listener.close()


async def _serve(listener: Listener, service: StoreService, world: World, budget: Budget) -> None:
    try:
        await serve_listener(listener, service, world.clock, budget)
    finally:
        with trio.CancelScope(shield=True):  # closing a socket does not wait
            await listener.close()
