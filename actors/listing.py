"""Lists: one page, or a stream of pages, of the records of a resource that filters let pass.

A list never holds a view for long: it reads a slice, lets the loop have its turn, and goes on from its cursor on
a newer view. What exists throughout comes exactly once. Source: spec metadata 1.5, 7 and DESIGN 4.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
import trio

from ..protocol.filters.fields import CONTAINER, CONTENT, IMAGE, INGEST, LEASE, SANDBOX, SNAPSHOT, Filterable
from ..protocol.filters.matching import Matcher, compile_filters
from ..protocol.messages import Context, Empty, ListRecords, ListSnapshots
from ..protocol.projection import cut_down
from ..protocol.world import Work, Workers
from ..storage import tables
from ..storage.codec import join_records
from ..storage.engine import Engine
from ..storage.tables import PAGE_BYTES, Table

__all__ = [
    "CONTAINERS",
    "CONTENT_INFOS",
    "IMAGES",
    "INGEST_RECORDS",
    "LEASES",
    "SANDBOXES",
    "SNAPSHOTS",
    "Listing",
    "RawPage",
]

_SLICE_RECORDS = 500
_PAGE_SCANS = 40
"""Slices that a page looks at before it is answered short."""
_CHUNK_BYTES = 192 * 1024

Rows = list[tuple[bytes, bytes]]


class RawPage(msgspec.Struct, frozen=True):
    """A page whose records stay as they are stored."""

    items: msgspec.Raw
    next: str | int


class Selection(NamedTuple):
    """What a request wants of each record: whether it passes, and which part of it."""

    matcher: Matcher | None
    cut: Callable[[bytes], bytes] | None

    def apply(self, rows: Rows) -> Rows:
        matcher, cut = self.matcher, self.cut
        if matcher is not None:
            accepts = matcher.accepts
            rows = [row for row in rows if accepts(row[1])]
        if cut is not None:
            rows = [(name, cut(payload)) for name, payload in rows]
        return rows


class Listing:
    """How one resource is listed."""

    def __init__(self, table: Table[Any], fields: Filterable) -> None:
        self._table = table
        self._fields = fields

    async def page(self, engine: Engine, workers: Workers, request: ListRecords, context: Context) -> msgspec.Struct:
        """Raises InvalidArgument (filters, fields)."""
        selection = self.select(request)
        items, following = await self.read(engine, workers, request, context, selection, PAGE_BYTES)
        return RawPage(join_records([payload for _, payload in items]), following)

    async def stream(
        self,
        engine: Engine,
        workers: Workers,
        request: ListRecords,
        context: Context,
        emit: Callable[[object], Awaitable[None]],
    ) -> Empty:
        """Emit chunks of records until the end. Raises InvalidArgument."""
        selection = self.select(request)
        while True:
            items, following = await self.read(engine, workers, request, context, selection, _CHUNK_BYTES)
            if items:
                await emit(join_records([payload for _, payload in items]))
            if not following:
                return Empty()
            request = msgspec.structs.replace(request, after=following)
            await trio.lowlevel.checkpoint()

    def within(self, request: ListRecords) -> str:  # noqa: ARG002 - of some lists, the request says it
        """Only records whose names begin so."""
        return ""

    def select(self, request: ListRecords) -> Selection:
        """All filters are read before any record is."""
        return Selection(compile_filters(self._fields, request.filters), cut_down(self._fields.record, request.fields))

    async def read(
        self,
        engine: Engine,
        workers: Workers,
        request: ListRecords,
        context: Context,
        selection: Selection,
        most_bytes: int,
    ) -> tuple[Rows, str]:
        """Records that pass, and where to go on; short of `limit` when they are large or seldom."""
        namespace, after, within = context.namespace or "", request.after, self.within(request)
        if selection.matcher is None:
            with engine.view() as view:
                scanned = await self._table.page(view, namespace, after, request.limit, most_bytes, within)
            return selection.apply(scanned.rows), scanned.next
        found: Rows = []
        size = 0
        for scans in range(_PAGE_SCANS):
            if scans:
                await trio.lowlevel.checkpoint()
            wanted = request.limit - len(found)
            with engine.view() as view:
                scanned = await self._table.page(view, namespace, after, _SLICE_RECORDS, PAGE_BYTES, within)
            if selection.matcher.heavy:
                passed = await workers.run(Work.BYTES, selection.apply, scanned.rows)
            else:
                passed = selection.apply(scanned.rows)
            after = scanned.next
            for row in passed[:wanted]:
                found.append(row)
                size += len(row[1])
                if size > most_bytes:
                    break
            full = len(found) == request.limit or size > most_bytes
            if full and found and found[-1] is not passed[-1]:
                after = found[-1][0].decode()  # more of this slice would have passed
            if full or not after:
                break
        return found, after


class SnapshotListing(Listing):
    """Of one snapshotter. Cursors are names that hold it."""

    def within(self, request: ListRecords) -> str:
        assert isinstance(request, ListSnapshots)
        return f"{request.snapshotter}/"


IMAGES: Final = Listing(tables.IMAGES, IMAGE)
CONTAINERS: Final = Listing(tables.CONTAINERS, CONTAINER)
SANDBOXES: Final = Listing(tables.SANDBOXES, SANDBOX)
CONTENT_INFOS: Final = Listing(tables.CONTENT, CONTENT)
LEASES: Final = Listing(tables.LEASES, LEASE)
SNAPSHOTS: Final = SnapshotListing(tables.SNAPSHOTS, SNAPSHOT)
INGEST_RECORDS: Final = Listing(tables.INGESTS, INGEST)
