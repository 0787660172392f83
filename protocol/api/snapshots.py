"""Snapshots, as a caller sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from .. import messages as m
from .. import methods as t
from ..messages import Context
from ..records import Descriptor, Mount, SnapshotInfo, Usage
from .caller import Caller
from .resources import Resource

__all__ = ["Snapshots"]


class Snapshots(Resource):
    """Those of one snapshotter, of the store's default one unless `using` says another.

    Names and keys share one space: any text of up to 512 bytes. What nothing keeps (a lease, the label
    `containerd.io/gc.root`, an image, a container, a child) goes with the next collection.
    """

    def __init__(self, caller: Caller, context: Context, snapshotter: str = "") -> None:
        super().__init__(caller, context)
        self.snapshotter = snapshotter

    def using(self, snapshotter: str) -> Snapshots:
        """Those of another snapshotter: overlayfs, native, btrfs. Its calls raise InvalidArgument where there is no
        such snapshotter, or it cannot work here."""
        return Snapshots(self._caller, self._context, snapshotter)

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[Mount]:
        """A new active snapshot, and how to mount it. `parent`: the name of a committed one.

        Raises NotFound (parent, lease), InvalidArgument (parent not committed), AlreadyExists (the key; or what the
        label `containerd.io/snapshot.ref` names, which a lease in the context then has).
        Cancellation: it may have been made; nothing half-made stays.
        """
        result: m.Mounts = await self._call(
            t.SNAPSHOTS_PREPARE, m.PrepareSnapshot(key, parent, dict(labels or {}), self.snapshotter)
        )
        return result.items

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[Mount]:
        """A new snapshot to look at only. Raises what `prepare` raises."""
        result: m.Mounts = await self._call(
            t.SNAPSHOTS_VIEW, m.ViewSnapshot(key, parent, dict(labels or {}), self.snapshotter)
        )
        return result.items

    def commit(
        self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = ""
    ) -> Awaitable[SnapshotInfo]:
        """Turn an active snapshot into a committed one, with just these labels. Its key is free again.

        Raises AlreadyExists (the name, looked at first), NotFound (key, parent), FailedPrecondition (not active),
        InvalidArgument (another parent than it was prepared on). Durability: what was written into it, too.
        """
        return self._call(t.SNAPSHOTS_COMMIT, m.CommitSnapshot(name, key, dict(labels or {}), parent, self.snapshotter))

    async def mounts(self, key: str) -> list[Mount]:
        """How to mount an active snapshot or a view; always the same. Raises NotFound, FailedPrecondition."""
        result: m.Mounts = await self._call(t.SNAPSHOTS_MOUNTS, m.GetMounts(key, self.snapshotter))
        return result.items

    def get(self, key: str) -> Awaitable[SnapshotInfo]:
        """Raises NotFound."""
        return self._call(t.SNAPSHOTS_GET, m.GetSnapshot(key, self.snapshotter))

    def list(self, filters: Sequence[str] = (), *, fields: Sequence[str] = ()) -> AsyncIterator[SnapshotInfo]:
        """See Images.list. Filters: name, parent, kind, labels.<key>."""
        request = m.ListSnapshots(list(filters), "", m.PAGE_LIMIT_MAX, list(fields), self.snapshotter)
        return self._pages(t.SNAPSHOTS_LIST, request)

    def stream(
        self, filters: Sequence[str] = (), *, fields: Sequence[str] = (), after: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[SnapshotInfo]]:
        """See Images.stream."""
        request = m.ListSnapshots(list(filters), after, m.PAGE_LIMIT_MAX, list(fields), self.snapshotter)
        return self._streamed(t.SNAPSHOTS_STREAM, request)

    def update(self, key: str, labels: Mapping[str, str], mask: Sequence[str] | None = None) -> Awaitable[SnapshotInfo]:
        """Only labels can change. Raises NotFound, InvalidArgument."""
        return self._call(
            t.SNAPSHOTS_UPDATE,
            m.UpdateSnapshot(key, dict(labels), None if mask is None else list(mask), self.snapshotter),
        )

    def usage(self, key: str) -> Awaitable[Usage]:
        """What it takes on disk, without its parents; nothing for a view. Raises NotFound."""
        return self._call(t.SNAPSHOTS_USAGE, m.GetUsage(key, self.snapshotter))

    def remove(self, key: str) -> Awaitable[None]:
        """Its name is free at once; its files go with the next collection. Raises NotFound, FailedPrecondition (it
        has children)."""
        return self._call(t.SNAPSHOTS_DELETE, m.DeleteSnapshot(key, self.snapshotter))

    async def cleanup(self) -> None:
        """Remove the files of what was removed before, without a collection."""
        await self._call(t.SNAPSHOTS_CLEANUP, m.CleanupSnapshots(self.snapshotter))

    def apply(self, key: str, layer: Descriptor) -> Awaitable[Descriptor]:
        """Lay a layer that is in the store onto an active snapshot; answers its uncompressed form.

        Raises NotFound, FailedPrecondition (not active), NotImplemented (its type), InvalidArgument (the archive),
        DataLoss (it is cut short), ResourceExhausted (limits). Cancellation and errors: it may be half laid down.
        """
        return self._call(t.SNAPSHOTS_APPLY, m.ApplyDiff(key, layer, self.snapshotter))

    def diff(
        self,
        upper: str,
        lower: str | None = None,
        *,
        media_type: str = "",
        ref: str = "",
        labels: Mapping[str, str] | None = None,
        source_date_epoch: int | None = None,
    ) -> Awaitable[Descriptor]:
        """Make a layer, a blob in this namespace, of what `upper` has beyond `lower` (None: its parent; empty: the
        empty tree). The same trees give the same bytes.

        Raises NotFound, NotImplemented (media type). Cancellation: no blob, no ingest of its own.
        """
        request = m.CreateDiff(upper, lower, media_type, ref, dict(labels or {}), source_date_epoch, self.snapshotter)
        return self._call(t.SNAPSHOTS_DIFF, request)
