"""The snapshot actor: what transactions cannot hold of snapshots, their folders.

A new snapshot is announced, then made on disk, then recorded; so is a commit: what was written is made durable first.
A crash in between leaves an announcement, which start-up takes back. Source: DESIGN 7, spec snapshots.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import structlog
import trio

from ..protocol import messages as m
from ..protocol.errors import DataLoss, FailedPrecondition, NotFound, OrlopError
from ..protocol.identifiers import check_name, quote
from ..protocol.messages import Context
from ..protocol.records import SnapshotInfo, SnapshotKind, Usage
from ..protocol.service import Session
from ..protocol.world import Work, World
from ..storage import snapshots
from ..storage.archive.jobs import Done, Measure
from ..storage.archive.small import sync_small
from ..storage.blobs.local import disk_errors
from ..storage.engine import Reader, Transaction
from ..storage.snapshotters.interface import Owner, Snapshotter, Standing
from ..storage.tables import SNAPSHOTS
from . import snapshot_plans as plans
from .actor import PlanActor, Result
from .listing import SNAPSHOTS as SNAPSHOT_LIST
from .removals import RemovalActor
from .snapshot_owners import mapped_owner
from .snapshotters import Snapshotters
from .storage import StorageActor
from .workers import LayerWorkers

__all__ = ["SnapshotActor", "too_many_layers"]

log = structlog.get_logger("orlop.snapshots")

_UNFINISHED_AT_ONCE = 100
_UNHELD_AT_ONCE = 100


class SnapshotActor:
    def __init__(
        self,
        storage: StorageActor,
        snapshotters: Snapshotters,
        workers: LayerWorkers,
        removals: RemovalActor,
        plan_actor: PlanActor,
        world: World,
    ) -> None:
        self._storage = storage
        self._snapshotters = snapshotters
        self._workers = workers
        self._removals = removals
        self._plans = plan_actor
        self._world = world

    async def settle_what_a_crash_left(self) -> None:
        """Whatever was being made is not. Before anybody is served."""
        while True:
            with self._storage.view() as view:
                found = await snapshots.page_unfinished(view, _UNFINISHED_AT_ONCE)
            if not found:
                return
            log.warning("snapshots that were being made when the store ended are removed", count=len(found))
            await self._storage.transact(partial(_abandon, found))

    # what callers ask

    async def prepare(self, request: m.PrepareSnapshot | m.ViewSnapshot, context: Context, _: Session) -> Result:
        """Source: spec snapshots 2.1. Cancellation: nothing half-made stays."""
        check_name(request.key, "key")
        snapshotter = await self._snapshotters.find(request.snapshotter)
        request = msgspec.structs.replace(request, snapshotter=snapshotter.name)
        owner = mapped_owner(request.labels)
        with trio.CancelScope(shield=True):  # an id of which nobody heard would never be abandoned
            announced = await self._storage.transact(lambda txn: plans.announce(txn, request, context))
        async with self._abandoned_unless_recorded([announced.id]):
            kind = SnapshotKind.ACTIVE if isinstance(request, m.PrepareSnapshot) else SnapshotKind.VIEW
            with self._storage.view() as view:
                standing = await self._standing_on(view, snapshotter, announced.id, kind, announced.parent)
            own_folder = snapshotter.needs_folder(standing)
            if own_folder:
                await self.make(snapshotter, standing, owner)
            await self._storage.transact(lambda txn: plans.record(txn, request, context, announced, own_folder))
        return m.Mounts(snapshotter.mounts(standing))

    async def commit(self, request: m.CommitSnapshot, context: Context, _: Session) -> Result:
        """Source: spec snapshots 2.2. Durability: everything that was written into it before."""
        check_name(request.name, "name")
        snapshotter = await self._snapshotters.find(request.snapshotter)
        request = msgspec.structs.replace(request, snapshotter=snapshotter.name)
        with self._storage.view() as view:
            name = plans.record_name(snapshotter.name, request.key)
            found = await SNAPSHOTS.find(view, context.namespace or "", name)
            snapshot_id = await snapshots.id_of(view, context.namespace or "", name) if found is not None else 0
        usage = Usage(0, 0)
        if found is not None and found.kind is SnapshotKind.ACTIVE:
            usage = await self._measured(snapshotter, snapshot_id, request.key)
            await self._make_tree_durable(snapshotter, snapshot_id)
        return await self._storage.transact(
            lambda txn: plans.commit(txn, request, context, usage, rebase=snapshotter.rebase)
        )

    async def mounts(self, request: m.GetMounts, context: Context, _: Session) -> Result:
        snapshotter, _found, standing = await self.standing(request.snapshotter, request.key, context)
        if standing.kind is SnapshotKind.COMMITTED:
            raise FailedPrecondition(f"snapshot {quote(request.key)} is committed", hint="prepare or view one on it")
        return m.Mounts(snapshotter.mounts(standing))

    async def get(self, request: m.GetSnapshot, context: Context, _: Session) -> Result:
        snapshotter = await self._snapshotters.find(request.snapshotter)
        with self._storage.view() as view:
            name = plans.record_name(snapshotter.name, request.key)
            return await SNAPSHOTS.encoded(view, context.namespace or "", name)

    async def usage(self, request: m.GetUsage, context: Context, _: Session) -> Result:
        """Counted now for an active snapshot, as it was at the commit for a committed one. Source: spec snapshots 9."""
        snapshotter, found, standing = await self.standing(request.snapshotter, request.key, context)
        if found.kind is SnapshotKind.ACTIVE:
            return await self._measured(snapshotter, standing.id, request.key)
        with self._storage.view() as view:
            backend = await snapshots.find_backend(view, standing.id)
        return Usage(0, 0) if backend is None else Usage(backend.size, backend.inodes)

    async def update(self, request: m.UpdateSnapshot, context: Context, _: Session) -> Result:
        check_name(request.key, "key")
        snapshotter = await self._snapshotters.find(request.snapshotter)
        return await self._plans.ask(msgspec.structs.replace(request, snapshotter=snapshotter.name), context)

    async def remove(self, request: m.DeleteSnapshot, context: Context, _: Session) -> Result:
        snapshotter = await self._snapshotters.find(request.snapshotter)
        return await self._plans.ask(msgspec.structs.replace(request, snapshotter=snapshotter.name), context)

    async def list_page(self, request: m.ListSnapshots, context: Context, _: Session) -> Result:
        named = await self._named(request)
        return await SNAPSHOT_LIST.page(self._storage, self._world.workers, named, context)

    async def list_stream(
        self, request: m.ListSnapshots, context: Context, _: Session, emit: Callable[[object], Awaitable[None]]
    ) -> Result:
        named = await self._named(request)
        return await SNAPSHOT_LIST.stream(self._storage, self._world.workers, named, context, emit)

    async def _named(self, request: m.ListSnapshots) -> m.ListSnapshots:
        snapshotter = await self._snapshotters.find(request.snapshotter)
        return msgspec.structs.replace(request, snapshotter=snapshotter.name)

    async def cleanup(self, request: m.CleanupSnapshots, _: Context, __: Session) -> Result:
        await self._snapshotters.find(request.snapshotter)
        await self.drop_unheld()
        await self._removals.try_again()
        await self._removals.done()
        return m.Empty()

    # what others of this room ask

    async def drop_unheld(self) -> tuple[int, int]:
        """Backend snapshots that nobody holds are no more, children before parents, and their folders are queued.
        Returns how many, and the bytes that frees."""
        count = freed = 0
        after = 0
        again = False
        while True:
            with self._storage.view() as view:
                page = await snapshots.page_unheld_snapshots(view, after, _UNHELD_AT_ONCE)
            if page:
                sizes = await self._storage.transact(partial(_forget_unheld, page[::-1]))
                count += len(sizes)
                freed += sum(sizes)
                again = again or bool(sizes)
            if len(page) == _UNHELD_AT_ONCE:
                after = page[-1]
            elif again:
                after, again = 0, False  # parents may have lost their last child
            else:
                return count, freed

    async def standing(self, name: str, key: str, context: Context) -> tuple[Snapshotter, SnapshotInfo, Standing]:
        """A snapshot of this namespace, and what it stands on. Raises NotFound, InvalidArgument."""
        snapshotter = await self._snapshotters.find(name)
        with self._storage.view() as view:
            namespace, record = context.namespace or "", plans.record_name(snapshotter.name, key)
            found = await SNAPSHOTS.find(view, namespace, record)
            if found is None:
                raise NotFound(f"snapshot {quote(key)}")
            snapshot_id = await snapshots.id_of(view, namespace, record)
            parents = await snapshots.ancestors(view, snapshot_id, snapshotter.most_parents)
        return snapshotter, found, Standing(snapshot_id, found.kind, parents)

    async def make(self, snapshotter: Snapshotter, standing: Standing, owner: Owner | None = None) -> None:
        """The folder of an announced snapshot, durably named. Raises Unavailable, ResourceExhausted (disk)."""
        with disk_errors(f"snapshot {standing.id}"):
            job = await self._world.workers.run(Work.FILES, snapshotter.make, standing, owner)
        if job is not None:
            try:
                await self._workers.run(job, self._snapshotters.root(snapshotter.name))
            except NotFound:
                raise DataLoss(f"the files of snapshot {standing.parents[0]} are gone") from None

    async def _make_tree_durable(self, snapshotter: Snapshotter, snapshot_id: int) -> None:
        """A few files by themselves: the whole file system may have much to write that is nobody's concern here."""
        if snapshotter.plain:
            tree = f"{self._snapshotters.root(snapshotter.name)}/{snapshotter.own_tree(snapshot_id)}"
            with disk_errors(f"snapshot {snapshot_id}"):
                if await self._world.workers.run(Work.BYTES, sync_small, tree, self._world.files.sync):
                    return
        await self.make_durable(snapshotter)

    async def make_durable(self, snapshotter: Snapshotter) -> None:
        """Everything that was written to its file system."""
        with disk_errors("making snapshots durable"):
            root = self._snapshotters.root(snapshotter.name)
            await self._world.workers.run(Work.BYTES, self._world.files.sync_file_system, root)

    @asynccontextmanager
    async def _abandoned_unless_recorded(self, ids: list[int]) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await self.abandon(ids)
            raise

    async def abandon(self, ids: list[int]) -> None:
        """What was announced and is not recorded will not be. Shielded; at the next start it would be done anyway."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            try:
                await self._storage.transact(partial(_abandon, ids))
            except OrlopError as error:
                log.error("unfinished snapshots stay until the next start", count=len(ids), error=str(error))

    async def _standing_on(
        self, reader: Reader, snapshotter: Snapshotter, snapshot_id: int, kind: SnapshotKind, parent: int
    ) -> Standing:
        if not parent:
            return Standing(snapshot_id, kind, [])
        below = await snapshots.ancestors(reader, parent, snapshotter.most_parents)
        # An active one will be one more, and is to be looked at as well.
        if snapshotter.stacks and len(below) + (kind is SnapshotKind.ACTIVE) >= snapshotter.most_parents:
            raise too_many_layers(snapshotter)
        return Standing(snapshot_id, kind, [parent, *below][: snapshotter.most_parents])

    async def _measured(self, snapshotter: Snapshotter, snapshot_id: int, key: str) -> Usage:
        """Raises NotFound when it was removed meanwhile."""
        job = Measure(snapshotter.own_tree(snapshot_id))
        try:
            done = await self._workers.run(job, self._snapshotters.root(snapshotter.name))
        except NotFound:
            raise NotFound(f"snapshot {quote(key)}") from None
        assert isinstance(done, Done)
        return Usage(done.size, done.inodes)


def too_many_layers(snapshotter: Snapshotter) -> FailedPrecondition:
    return FailedPrecondition(f"{snapshotter.name} takes {snapshotter.most_parents} snapshots on each other")


async def _abandon(ids: list[int], txn: Transaction) -> None:
    for each in ids:
        await snapshots.abandon(txn, each)


async def _forget_unheld(ids: list[int], txn: Transaction) -> list[int]:
    """Sizes of those that really went."""
    sizes = [await snapshots.forget_unheld_snapshot(txn, each) for each in ids]
    return [size for size in sizes if size is not None]
