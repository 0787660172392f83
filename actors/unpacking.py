"""Unpacking: an image's layers laid down as snapshots, each once for whoever wants it.

Layers that do not need each other's files on disk are laid down side by side, each as soon as its blob is here; one
that does need those below says so and waits for them. They are recorded in order: several that are ready share one
sync of the file system and one transaction. Nothing of a layer is visible before; what a failure or a crash leaves
was announced, and is taken back.

Two unpacks of the same blobs meet: the second waits, and then takes what the first recorded, in its own namespace or
another, with a metadata write. Source: spec unpack 2; DESIGN 7.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from ..protocol.errors import FailedPrecondition, OrlopError
from ..protocol.labels import GC_REF_SNAPSHOT
from ..protocol.messages import Context, TransferState, UpdateContent
from ..protocol.records import Descriptor, SnapshotKind, Usage
from ..protocol.registry.rootfs import Layer
from ..protocol.world import Job as Process
from ..storage import snapshots
from ..storage.archive.apply import TargetKind
from ..storage.archive.jobs import Advanced, ApplyLayer, LowerReady, NeedsLower, Output, Unpacked, encode
from ..storage.archive.streams import reader_of
from ..storage.engine import Transaction
from ..storage.snapshotters.interface import Snapshotter, Standing
from . import unpack_plans as plans
from .actor import PlanActor
from .config import UnpackConfig
from .failures import first_of
from .layers import LayerActor, layer_limits
from .snapshot_plans import keep
from .snapshots import SnapshotActor, too_many_layers
from .storage import StorageActor
from .unpack_plans import Finished

__all__ = ["Show", "UnpackActor", "Unpacking"]

_RECORDED_AT_ONCE = 50


class Show(Protocol):
    """How a layer stands now; `note` is what a person should know of it."""

    def __call__(self, descriptor: Descriptor, state: TransferState, offset: int, note: str = "") -> None: ...


class _Made:
    """A layer on its way. `applied`: it lies there whole, or `failure` says why not."""

    def __init__(self) -> None:
        self.id = 0
        self.below = 0  # the id that it stands on
        self.known = trio.Event()
        self.applied = trio.Event()
        self.recorded = trio.Event()
        self.usage: Usage | None = None
        self.announced = False
        self.note = ""
        self.failure: OrlopError | None = None


@dataclass
class Unpacking:
    """One image for one namespace. `fetched(i)` returns when the blob of layer i is in the namespace."""

    layers: Sequence[Layer]
    config: str
    context: Context
    fetched: Callable[[int], Awaitable[None]]
    show: Show
    origins: list[bytes] = field(default_factory=list)
    made: dict[int, _Made] = field(default_factory=dict)
    claimed: list[bytes] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    """Of what was there (as far up from the bottom as mounts need), and then of each layer as it is known."""
    before: int = 0
    """By how much positions there differ from those of the layers."""


class UnpackActor:
    """Unpacks run in their callers' tasks; what they share is which layers are being laid down."""

    def __init__(
        self,
        storage: StorageActor,
        snapshot_actor: SnapshotActor,
        layers: LayerActor,
        content_plans: PlanActor,
        config: UnpackConfig,
        cores: int,
    ) -> None:
        self._storage = storage
        self._snapshots = snapshot_actor
        self._layers = layers
        self._content_plans = content_plans
        self._limits = layer_limits(config)
        self._limiter = trio.CapacityLimiter(config.workers or cores)
        self._window = 2 * (config.workers or cores)  # workers that wait for those below have no place, but take memory
        self._under_way: dict[bytes, trio.Event] = {}

    async def warm(self) -> None:
        """An image is about to come."""
        await self._layers.warm()

    async def present(self, snapshotter: Snapshotter, layers: Sequence[Layer], context: Context) -> int:
        """How many layers from the bottom are snapshots of this namespace already; the lease holds them then."""
        namespace = context.namespace or ""
        with self._storage.view() as view:
            found = await plans.present(view, namespace, snapshotter.name, layers)
        if not found:
            return 0

        async def hold(txn: Transaction) -> int:
            found = await plans.present(txn, namespace, snapshotter.name, layers)
            if found:
                await keep(txn, context, snapshotter.name, layers[found - 1].chain_id)
            return found

        return await self._storage.transact(hold)

    async def run(self, snapshotter: Snapshotter, unpacking: Unpacking, start: int) -> str:
        """Lay down the layers from `start` on; returns the top's chain ID. See Images.unpack for what it raises.

        Cancellation and errors: what was recorded stays, nothing else.
        """
        layers = unpacking.layers
        if not layers:
            return ""
        if snapshotter.stacks and len(layers) > snapshotter.most_parents:
            raise too_many_layers(snapshotter)
        for layer in layers[start:]:
            reader_of(layer.descriptor.media_type)
        below = b""
        for layer in layers:
            digest = layer.descriptor.digest
            below = snapshots.origin(snapshotter.name, snapshotter.options, below, digest, layer.diff_id)
            unpacking.origins.append(below)
        try:
            unpacking.made = {index: _Made() for index in range(start, len(layers))}
            await self._lay_all(snapshotter, unpacking, start)
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            for made_of in unpacking.claimed:
                self._under_way.pop(made_of).set()
            left = [made.id for made in unpacking.made.values() if made.announced and not made.recorded.is_set()]
            if left:
                await self._snapshots.abandon(left)
        top = layers[-1].chain_id
        label = f"{GC_REF_SNAPSHOT}.{snapshotter.name}"
        update = UpdateContent(unpacking.config, {label: top}, [f"labels.{label}"])
        await self._content_plans.ask(update, unpacking.context)
        return top

    async def _lay_all(self, snapshotter: Snapshotter, unpacking: Unpacking, start: int) -> None:
        if start:
            chain = unpacking.layers[start - 1].chain_id
            _, _, standing = await self._snapshots.standing(snapshotter.name, chain, unpacking.context)
            unpacking.ids = [*reversed(standing.parents), standing.id]
            unpacking.before = len(unpacking.ids) - start
        async with trio.open_nursery() as nursery:
            for index in unpacking.made:
                nursery.start_soon(self._layer, snapshotter, unpacking, index)
            await self._record_in_order(snapshotter, unpacking, start)

    # one layer

    async def _layer(self, snapshotter: Snapshotter, unpacking: Unpacking, index: int) -> None:
        """A failure is kept until those below are recorded: they are worth keeping."""
        made = unpacking.made[index]
        try:
            await unpacking.fetched(index)
            await self._identify(snapshotter, unpacking, index)
            lower = unpacking.made.get(index - self._window)
            if lower is not None:
                await lower.applied.wait()
            if made.announced:
                await self._lay(snapshotter, unpacking, index)
        except OrlopError as error:
            made.failure = error
        made.applied.set()

    async def _identify(self, snapshotter: Snapshotter, unpacking: Unpacking, index: int) -> None:
        """The id under which the layer lies or will lie: another unpack's, or one of our own. From the bottom up, so
        that nobody waits for somebody who waits for him."""
        made, made_of = unpacking.made[index], unpacking.origins[index]
        below = unpacking.made.get(index - 1)
        if below is not None:
            await below.known.wait()
            if not snapshotter.rebase:
                await below.recorded.wait()
        namespace, parts = unpacking.context.namespace or "", unpacking.layers[: index + 1]
        made.below = unpacking.ids[-1] if index else 0
        while True:
            with self._storage.view() as view:
                made.id = await plans.find_shared(view, namespace, made_of, parts)
                backend = await snapshots.find_backend(view, made.id) if made.id else None
            if backend is not None and backend.parent == made.below:
                break
            under_way = self._under_way.get(made_of)
            if under_way is None:
                self._under_way[made_of] = trio.Event()
                unpacking.claimed.append(made_of)
                parent = 0 if snapshotter.rebase else made.below
                announce = partial(snapshots.announce, snapshotter=snapshotter.name, parent=parent)
                with trio.CancelScope(shield=True):  # an id of which nobody heard would never be abandoned
                    made.id = await self._storage.transact(announce)
                    made.announced = True
                break
            await under_way.wait()
        unpacking.ids.append(made.id)
        if made.announced:
            await self._snapshots.make(snapshotter, self._standing(snapshotter, unpacking, index))
        made.known.set()  # those above may look into its folder from now on

    def _standing(self, snapshotter: Snapshotter, unpacking: Unpacking, index: int) -> Standing:
        lower = unpacking.ids[: index + unpacking.before][::-1]
        return Standing(unpacking.made[index].id, SnapshotKind.ACTIVE, lower[: snapshotter.most_parents])

    async def _lay(self, snapshotter: Snapshotter, unpacking: Unpacking, index: int) -> None:
        made, layer = unpacking.made[index], unpacking.layers[index]
        standing = self._standing(snapshotter, unpacking, index)
        token = object()
        await self._limiter.acquire_on_behalf_of(token)
        try:
            target, kind = snapshotter.target(standing)
            job = ApplyLayer(
                target,
                layer.descriptor.media_type,
                _fresh(kind) if not standing.parents else kind,
                self._limits,
                lower=snapshotter.tree(standing)[1:] if kind.overlay else [],
                lower_ready=self._lower_ready(unpacking, index),
            )
            unpacking.show(layer.descriptor, TransferState.UNPACKING, 0)
            hear = partial(self._hear, unpacking, index, token)
            unpacked = await self._layers.lay(job, snapshotter.name, layer.descriptor, unpacking.context, hear)
        finally:
            self._release(token)
        _check(layer, unpacked)
        made.usage = Usage(unpacked.applied.blocks * 512, unpacked.applied.inodes)
        made.note = "; ".join(unpacked.applied.warnings)
        unpacking.show(layer.descriptor, TransferState.UNPACKING, unpacked.size)

    async def _hear(
        self, unpacking: Unpacking, index: int, token: object, process: Process, report: NeedsLower | Advanced | Output
    ) -> None:
        if isinstance(report, Advanced):
            unpacking.show(unpacking.layers[index].descriptor, TransferState.UNPACKING, report.bytes)
        elif isinstance(report, NeedsLower):
            self._release(token)  # those below may be waiting for this place
            for lower, made in unpacking.made.items():
                if lower < index:
                    await made.applied.wait()
                    if made.failure is not None:
                        await trio.sleep_forever()  # until the whole is cancelled
            await process.send(encode(LowerReady()))

    def _lower_ready(self, unpacking: Unpacking, index: int) -> bool:
        return all(made.applied.is_set() for lower, made in unpacking.made.items() if lower < index)

    def _release(self, token: object) -> None:
        try:
            self._limiter.release_on_behalf_of(token)
        except RuntimeError:  # while it waited for the layers below, others had its place
            pass

    # all of them, in order

    async def _record_in_order(self, snapshotter: Snapshotter, unpacking: Unpacking, start: int) -> None:
        at = start
        while at < len(unpacking.layers):
            await unpacking.made[at].applied.wait()
            ready: list[Finished] = []
            failure: OrlopError | None = None
            while at < len(unpacking.layers) and len(ready) < _RECORDED_AT_ONCE:
                made = unpacking.made[at]
                if not made.applied.is_set() or made.failure is not None:
                    failure = made.failure
                    break
                ready.append(Finished(at, made.id, made.below, made.usage))
                at += 1
            if any(each.usage is not None for each in ready):
                await self._snapshots.make_durable(snapshotter)
            if ready:
                await self._record(snapshotter, unpacking, ready)
            if failure is not None:
                raise failure

    async def _record(self, snapshotter: Snapshotter, unpacking: Unpacking, ready: list[Finished]) -> None:
        await self._storage.transact(
            lambda txn: plans.record_layers(
                txn, unpacking.context, snapshotter.name, unpacking.layers, unpacking.origins, ready
            )
        )
        for each in ready:
            unpacking.made[each.position].recorded.set()
            made_of = unpacking.origins[each.position]
            if made_of in unpacking.claimed:
                unpacking.claimed.remove(made_of)
                self._under_way.pop(made_of).set()
            note = unpacking.made[each.position].note
            unpacking.show(unpacking.layers[each.position].descriptor, TransferState.UNPACKED, 0, note)


def _fresh(kind: TargetKind) -> TargetKind:
    """Nothing lies below, and nobody has written into it."""
    return TargetKind(False, True, kind.userxattr, kind.owners, kind.devices)


def _check(layer: Layer, unpacked: Unpacked) -> None:
    """Source: spec unpack 2.3, step 7."""
    if unpacked.digest != layer.diff_id:
        raise FailedPrecondition(
            f'wrong diff id "{unpacked.digest}" calculated on extraction "{layer.diff_id}", '
            f'desc "{layer.descriptor.digest}"'
        )
