"""Layers laid onto active snapshots, and made from two snapshots. Source: spec unpack 4 and 7."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import msgspec
import trio

from ..protocol import messages as m
from ..protocol.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from ..protocol.errors import NotImplemented as Unsupported
from ..protocol.identifiers import check_digest, quote
from ..protocol.labels import UNCOMPRESSED, check_labels
from ..protocol.messages import Context
from ..protocol.records import ContentInfo, Descriptor, SnapshotKind
from ..protocol.service import Session
from ..protocol.world import Job as Process
from ..protocol.world import World
from ..storage.archive.jobs import Advanced, ApplyLayer, Difference, NeedsLower, Output, Packed, Unpacked
from ..storage.archive.limits import LayerLimits
from ..storage.archive.streams import LAYER_TYPE, reader_of
from .actor import PlanActor, Result
from .config import UnpackConfig
from .content_actor import ContentActor
from .snapshots import SnapshotActor
from .snapshotters import Snapshotters
from .workers import Hear, LayerWorkers

__all__ = ["LayerActor", "layer_limits"]

_COMPRESSIONS: Final = {
    "": "gzip",
    LAYER_TYPE: "",
    f"{LAYER_TYPE}+gzip": "gzip",
    f"{LAYER_TYPE}+zstd": "zstd",
}


class _Bytes(NamedTuple):
    """Of a blob: here, or to be read from a descriptor."""

    data: bytes | None
    descriptors: Sequence[int]


def layer_limits(config: UnpackConfig) -> LayerLimits:
    return LayerLimits(config.max_bytes, config.max_entries, config.max_ratio, config.max_depth)


class LayerActor:
    """Work happens in worker processes, for their callers' tasks."""

    def __init__(
        self,
        content: ContentActor,
        content_plans: PlanActor,
        snapshots: SnapshotActor,
        snapshotters: Snapshotters,
        workers: LayerWorkers,
        config: UnpackConfig,
        world: World,
    ) -> None:
        self._content = content
        self._content_plans = content_plans
        self._snapshots = snapshots
        self._snapshotters = snapshotters
        self._workers = workers
        self._config = config
        self._limits = layer_limits(config)
        self._world = world
        self._places = trio.CapacityLimiter(config.workers or world.cores)  # of what clients ask for one by one

    async def warm(self) -> None:
        """A layer is about to come."""
        await self._workers.warm()

    async def apply(self, request: m.ApplyDiff, context: Context, _: Session) -> Result:
        """See Snapshots.apply."""
        snapshotter, found, standing = await self._snapshots.standing(request.snapshotter, request.key, context)
        if found.kind is not SnapshotKind.ACTIVE:
            raise FailedPrecondition(f"snapshot {quote(request.key)} is {found.kind.value}, not active")
        target, kind = snapshotter.target(standing)
        lower = snapshotter.tree(standing)[1:] if kind.overlay else []
        job = ApplyLayer(target, request.layer.media_type, kind, self._limits, lower=lower)
        async with self._places:
            unpacked = await self.lay(job, snapshotter.name, request.layer, context)
        return Descriptor(LAYER_TYPE, unpacked.digest, unpacked.size)

    async def lay(
        self, job: ApplyLayer, snapshotter: str, layer: Descriptor, context: Context, hear: Hear | None = None
    ) -> Unpacked:
        """Have a worker lay a blob of this namespace onto a folder. Raises what `Snapshots.apply` raises."""
        check_digest(layer.digest)
        reader_of(layer.media_type)
        async with self._opened(layer.digest, context) as (data, descriptors):
            job = msgspec.structs.replace(job, data=data)
            with trio.move_on_after(self._config.time_s) as patience:

                async def heard(process: Process, report: NeedsLower | Advanced | Output) -> None:
                    began = trio.current_time()
                    if hear is not None:
                        await hear(process, report)
                    patience.deadline += trio.current_time() - began  # that was not the layer's own time

                root = self._snapshotters.root(snapshotter)
                unpacked = await self._workers.run_counted(job, root, heard, descriptors)
        if patience.cancelled_caught:
            raise ResourceExhausted(
                f"layer {layer.digest} was not unpacked within {self._config.time_s:g} s", hint="raise unpack.time_s"
            )
        assert isinstance(unpacked, Unpacked)
        return unpacked

    @asynccontextmanager
    async def _opened(self, digest: str, context: Context) -> AsyncIterator[_Bytes]:
        opened = await self._content.reads.open(m.OpenContent(digest), context)
        if isinstance(opened, m.OpenedContent):
            yield _Bytes(opened.data or b"", ())
            return
        try:
            yield _Bytes(None, (opened.descriptor,))
        finally:
            self._world.files.close(opened.descriptor)

    async def diff(self, request: m.CreateDiff, context: Context, _: Session) -> Result:
        """See Snapshots.diff."""
        compression = _COMPRESSIONS.get(request.media_type)
        if compression is None:
            raise Unsupported(f"making a layer of type {quote(request.media_type)}")
        check_labels(request.labels)
        media_type = request.media_type or f"{LAYER_TYPE}+gzip"
        job, snapshotter = await self._difference(request, context, compression)
        ref = request.ref or f"diff-{self._world.random.token(12).hex()}"
        try:
            return await self._written(job, snapshotter, request, context, ref, media_type)
        except BaseException:
            if not request.ref:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    try:
                        await self._content_plans.ask(m.AbortIngest(ref), context)
                    except NotFound:
                        pass
            raise

    async def _difference(self, request: m.CreateDiff, context: Context, compression: str) -> tuple[Difference, str]:
        snapshotter, found, upper = await self._snapshots.standing(request.snapshotter, request.upper, context)
        below = found.parent if request.lower is None else request.lower
        lower: list[str] = []
        if below:
            _, _, standing = await self._snapshots.standing(snapshotter.name, below, context)
            lower = snapshotter.tree(standing)
        epoch = None if request.source_date_epoch is None else request.source_date_epoch // 10**9
        userxattr = snapshotter.target(upper)[1].userxattr
        return Difference(snapshotter.tree(upper), lower, compression, userxattr, epoch), snapshotter.name

    async def _written(
        self, job: Difference, snapshotter: str, request: m.CreateDiff, context: Context, ref: str, media_type: str
    ) -> Descriptor:
        writer = await self._content.open_ingest(m.OpenIngest(ref, media_type=media_type), context)
        try:
            await writer.truncate()

            async def hear(_: Process, report: NeedsLower | Advanced | Output) -> None:
                if isinstance(report, Output):
                    await writer.write(report.data)

            async with self._places:
                packed = await self._workers.run_counted(job, self._snapshotters.root(snapshotter), hear)
            assert isinstance(packed, Packed)
            labels = {**request.labels, **({UNCOMPRESSED: packed.digest} if job.compression else {})}
            size = writer.offset
            try:
                info = await self._content.commit(writer, context, size, packed.stored, labels)
            except AlreadyExists:
                mask = [f"labels.{key}" for key in labels]
                update = m.UpdateContent(packed.stored, labels, mask)
                if labels:
                    await self._content_plans.ask(update, context)
                return Descriptor(media_type, packed.stored, size)
        finally:
            await writer.finish(keep=bool(request.ref))
        assert isinstance(info, ContentInfo)
        return Descriptor(media_type, info.digest, info.size)
