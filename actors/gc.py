"""The collector: a full mark and sweep, while writers go on.

It marks on one view. From the moment of that view the storage actor records every object that becomes a root,
is born, or is referred to (*gains*), in the order of the transactions. The sweep runs in small transactions of
that same order, referrers first; each first *rescues* what the gains so far reach, then takes what existed in
the view, was unmarked, and was not rescued. An object that lives after the view was marked, or is reached from a
gain by references that were in the view or are gains themselves; so it is rescued before any transaction that
could take it. An object half made is a gain.

References never leave their namespace, so namespaces are done one after another, each on a view of its own.
Afterwards the blobs that no namespace holds lose their record and their files are queued for removal.

This full collection stays as the checker of the incremental one. Source: spec gc 3 to 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog
import trio

from ..protocol.errors import OrlopError, Unavailable
from ..protocol.messages import Collection
from ..protocol.records import ImageDelete, Lease
from ..protocol.world import World
from ..storage import tables
from ..storage.blobs import ledger
from ..storage.collection import clear_dirty, dirty_mark
from ..storage.engine import Kind, Transaction, View
from ..storage.lease_entries import end_lease, page_entries, pay_owed
from ..storage.references import (
    back_references,
    expiry_ns,
    is_flat,
    is_root,
    references,
    resource_node,
)
from ..storage.snapshots import has_children
from .content import drop_content
from .content_actor import ContentActor
from .promise import Promise
from .removals import RemovalActor
from .snapshot_plans import drop_snapshot
from .snapshots import SnapshotActor
from .storage import Durable, Recording, StorageActor

__all__ = ["Collector"]

log = structlog.get_logger("orlop.gc")

PAUSE_S = 0.1  # after a delete, so that a burst of them is one collection
RETRY_S = 5.0  # after a collection that failed
_SLICE_RECORDS = 500
_SWEEP_AT_ONCE = 100
_OWED_AT_ONCE = 500
_MARKER = b"containerd.io/gc."


class _Vertex(NamedTuple):
    """A node within one namespace; flat ones keep what they name, not what that refers to."""

    kind: Kind
    name: str
    flat: bool = False


class _Graph:
    """What one namespace's view says: who refers to whom, where roots are, and what may be swept."""

    def __init__(self) -> None:
        self.edges: dict[_Vertex, tuple[_Vertex, ...]] = {}
        self.back: dict[_Vertex, list[_Vertex]] = {}
        self.roots: list[_Vertex] = []
        self.sweepable: dict[_Vertex, None] = {}  # a set that keeps its order

    def add(self, namespace: str, kind: Kind, name: str, record: msgspec.Struct, now_ns: int) -> None:
        vertex = _Vertex(kind, name)
        if is_root(record, now_ns):
            self.roots.append(vertex)
        if targets := tuple(_Vertex(n.kind, n.name) for n in references(namespace, record)):
            self.edges[vertex] = targets
        for source in back_references(namespace, record):
            self.back.setdefault(_Vertex(source.kind, source.name), []).append(vertex)

    def targets(self, vertex: _Vertex) -> Iterator[_Vertex]:
        if not vertex.flat:
            yield from self.edges.get(vertex, ())
            yield from self.back.get(vertex, ())
        elif vertex.kind is Kind.IMAGE:
            for target in self.edges.get(_Vertex(Kind.IMAGE, vertex.name), ())[:1]:
                yield _Vertex(target.kind, target.name, True)

    def mark(self) -> Iterator[None]:
        """Take everything that a root reaches out of `sweepable`; yields now and then."""
        yield from self.rescue(self.roots)

    def rescue(self, start: Iterable[_Vertex]) -> Iterator[None]:
        seen: set[_Vertex] = set()
        stack: list[_Vertex] = []
        steps = 0
        for root in start:
            if root in seen:
                continue
            seen.add(root)
            stack.append(root)
            while stack:
                vertex = stack.pop()
                self.sweepable.pop(_Vertex(vertex.kind, vertex.name), None)
                for target in self.targets(vertex):
                    if target not in seen:
                        seen.add(target)
                        stack.append(target)
                steps += 1
                if steps % _SLICE_RECORDS == 0:
                    yield
        while seen:  # giving back so much memory at once would hold up the loop as well
            for _ in range(min(len(seen), _SLICE_RECORDS)):
                seen.pop()
            yield

    def in_order(self) -> Iterator[_Vertex | None]:
        """What is left to sweep, referrers before what they refer to; rings in any order. None: take a pause."""
        incoming: dict[_Vertex, int] = {}
        for steps, vertex in enumerate(list(self.sweepable)):
            incoming.setdefault(vertex, 0)
            for target in self.edges.get(vertex, ()):
                if target in self.sweepable:
                    incoming[target] = incoming.get(target, 0) + 1
            if steps % _SLICE_RECORDS == 0:
                yield None
        waiting: list[_Vertex] = []
        for start in list(incoming):
            if not incoming.get(start, 1):
                waiting.append(start)
            while waiting:
                vertex = waiting.pop()
                yield vertex
                del incoming[vertex]
                for target in self.edges.get(vertex, ()):
                    if target in incoming:
                        incoming[target] -= 1
                        if not incoming[target]:
                            waiting.append(target)
        yield from incoming

    def forget(self) -> Iterator[None]:
        """Let go of everything, a little at a time."""
        self.roots.clear()
        for held in (self.edges, self.back, self.sweepable):
            while held:
                for _ in range(min(len(held), _SLICE_RECORDS)):
                    held.popitem()
                yield


class Collector:
    """Runs a collection when something was deleted, when something expired, and when asked."""

    def __init__(
        self,
        storage: StorageActor,
        content: ContentActor,
        snapshots: SnapshotActor,
        removals: RemovalActor,
        world: World,
    ) -> None:
        self._storage = storage
        self._content = content
        self._snapshots = snapshots
        self._removals = removals
        self._world = world
        self._woken = trio.Event()
        self._dirty = False
        self._waiting: list[Promise[Collection]] = []
        self._next_expiry_ns: int | None = None
        self.runs = 0
        storage.listen(self._hear)

    async def collect(self) -> Collection:
        """A collection that begins after this call, and what it removed. Cancellation: it goes on unheard."""
        promise: Promise[Collection] = Promise()
        self._waiting.append(promise)
        self._woken.set()
        return await promise.wait()

    async def run(self) -> None:
        dirty = True
        with suppress(OrlopError), self._storage.view() as view:  # not readable: then find out by collecting
            dirty = await dirty_mark(view) is not None
        if not dirty:
            await self._wait()
        while True:
            self._dirty = False
            waiting, self._waiting = self._waiting, []
            try:
                result = await self._collect()
            except OrlopError as error:
                log.error("a collection failed; nothing alive was touched", error=str(error))
                for promise in waiting:
                    promise.fail(Unavailable(f"the collection failed: {error}"))
                await self._rest()
                continue
            except BaseException:
                for promise in waiting:
                    promise.fail(Unavailable("the collector ended"))
                raise
            self.runs += 1
            for promise in waiting:
                promise.succeed(result)
            await self._wait()

    async def _rest(self) -> None:
        """After a failure: for a while, or until somebody asks."""
        with trio.move_on_after(RETRY_S):
            while not self._waiting:
                self._woken = trio.Event()
                await self._woken.wait()

    async def _wait(self) -> None:
        """Until there is something to do: at once when asked or when something expires, after a pause when
        something was deleted. News of a later expiry only moves the alarm."""
        while not self._waiting:
            with trio.move_on_after(self._until_expiry_s()) as alarm:
                await self._woken.wait()
            if alarm.cancelled_caught:
                return
            self._woken = trio.Event()
            if self._dirty:
                with trio.move_on_after(PAUSE_S):
                    while not self._waiting:
                        await self._woken.wait()
                        self._woken = trio.Event()
                return

    def _until_expiry_s(self) -> float:
        if self._next_expiry_ns is None:
            return math.inf
        return max(0.0, (self._next_expiry_ns - self._world.clock.now_ns()) / 1e9)

    def _hear(self, news: Durable) -> None:
        if news.dirty:
            self._dirty = True
            self._woken.set()
        if news.expiry_ns is not None:
            self._expires(news.expiry_ns)
            self._woken.set()

    def _expires(self, at_ns: int) -> None:
        if self._next_expiry_ns is None or at_ns < self._next_expiry_ns:
            self._next_expiry_ns = at_ns

    async def _collect(self) -> Collection:
        began = self._world.clock.monotonic_ns()
        self._next_expiry_ns = None
        with self._storage.view() as view:
            dirty = await dirty_mark(view)
        while await self._storage.transact(lambda txn: pay_owed(txn, _OWED_AT_ONCE)):
            pass
        removed = _Counts()
        after = ""
        while True:
            with self._storage.view() as view:
                page = await tables.page_namespaces(view, after, 100)
            for namespace in page:
                await self._collect_namespace(namespace.name, removed)
            if len(page) < 100:
                break
            after = page[-1].name
        await self._drop_unheld(removed)
        _, freed = await self._snapshots.drop_unheld()
        removed.freed += freed
        await self._removals.done()
        if dirty is not None:
            await self._storage.transact(lambda txn: clear_dirty(txn, dirty))
        duration = (self._world.clock.monotonic_ns() - began) // 1_000_000
        return Collection(
            leases=removed.leases,
            images=removed.images,
            ingests=removed.ingests,
            content=removed.content,
            snapshots=removed.snapshots,
            blobs=removed.blobs,
            freed=removed.freed,
            duration_ms=duration,
        )

    async def _collect_namespace(self, namespace: str, removed: _Counts) -> None:
        view, recording = self._storage.start_recording()
        try:
            with view:
                graph = await self._read(view, namespace)
            for _ in graph.mark():
                await trio.lowlevel.checkpoint()
            if graph.sweepable:
                await self._sweep(namespace, graph, recording, removed)
            for _ in graph.forget():
                await trio.lowlevel.checkpoint()
        finally:
            self._storage.stop_recording()

    async def _read(self, view: View, namespace: str) -> _Graph:
        """The namespace's graph, read in slices off one view."""
        graph = _Graph()
        now = self._world.clock.now_ns()
        async with aclosing(_records(view, namespace, tables.LEASES)) as leases:
            async for name, raw in leases:
                lease = tables.LEASES.decode(raw)
                await self._read_lease(view, namespace, lease, graph, now)
                if not is_root(lease, now):
                    graph.sweepable[_Vertex(Kind.LEASE, name)] = None
                else:
                    self._note_expiry(lease.labels)
        async for name, raw in _records(view, namespace, tables.IMAGES):
            image = tables.IMAGES.decode(raw)
            graph.add(namespace, Kind.IMAGE, name, image, now)
            if not is_root(image, now):
                graph.sweepable[_Vertex(Kind.IMAGE, name)] = None
            else:
                self._note_expiry(image.labels)
        async for name, raw in _records(view, namespace, tables.CONTAINERS):
            graph.add(namespace, Kind.CONTAINER, name, tables.CONTAINERS.decode(raw), now)
        async for name, raw in _records(view, namespace, tables.SANDBOXES):
            graph.add(namespace, Kind.SANDBOX, name, tables.SANDBOXES.decode(raw), now)
        async for name, raw in _records(view, namespace, tables.SNAPSHOTS):
            graph.sweepable[_Vertex(Kind.SNAPSHOT, name)] = None
            graph.add(namespace, Kind.SNAPSHOT, name, tables.SNAPSHOTS.decode(raw), now)
        async for name, raw in _records(view, namespace, tables.INGESTS):
            vertex = _Vertex(Kind.INGEST, name)
            graph.sweepable[vertex] = None
            expires = tables.INGESTS.decode(raw).expires_at
            if expires is not None and now <= expires:
                self._expires(expires)
                graph.roots.append(vertex)
            elif self._content.is_open(namespace, name):
                graph.roots.append(vertex)
        async for name, raw in _records(view, namespace, tables.CONTENT):
            graph.sweepable[_Vertex(Kind.CONTENT, name)] = None
            if _MARKER in raw:  # most blobs are layers without any reference: not decoded
                graph.add(namespace, Kind.CONTENT, name, tables.CONTENT.decode(raw), now)
        return graph

    async def _read_lease(self, view: View, namespace: str, lease: Lease, graph: _Graph, now: int) -> None:
        vertex, flat = _Vertex(Kind.LEASE, lease.id), is_flat(lease)
        entries: list[_Vertex] = []
        cursor = b""
        while True:
            page = await page_entries(view, namespace, lease, cursor, _SLICE_RECORDS)
            for _, resource in page:
                node = resource_node(namespace, resource.type, resource.id)
                if node is not None:
                    entries.append(_Vertex(node.kind, node.name, flat and node.kind is not Kind.INGEST))
            if len(page) < _SLICE_RECORDS:
                break
            cursor = page[-1][0]
            await trio.lowlevel.checkpoint()
        if is_root(lease, now):
            graph.roots += [vertex, *entries]
        elif entries:
            graph.edges[vertex] = tuple(entries)  # renewed in the last moment, it keeps them after all

    def _note_expiry(self, labels: dict[str, str]) -> None:
        expires = expiry_ns(labels)
        if expires is not None:
            self._expires(expires)

    async def _sweep(self, namespace: str, graph: _Graph, recording: Recording, removed: _Counts) -> None:
        looked = 0

        async def sweep(txn: Transaction) -> None:
            nonlocal looked
            # Gains of everything planned before this transaction are recorded by now: one order for all.
            gains = recording.nodes[looked:]
            looked += len(gains)
            for _ in graph.rescue([_Vertex(n.kind, n.name) for n in gains if n.namespace == namespace]):
                pass
            for vertex in batch:
                if vertex in graph.sweepable and await _remove(txn, namespace, vertex):
                    removed.count(vertex.kind)

        batch: list[_Vertex] = []
        for vertex in graph.in_order():
            if vertex is None:
                await trio.lowlevel.checkpoint()
            elif vertex in graph.sweepable:
                batch.append(vertex)
            if len(batch) == _SWEEP_AT_ONCE:
                await self._storage.transact(sweep)
                batch.clear()
        if batch:
            await self._storage.transact(sweep)

    async def _drop_unheld(self, removed: _Counts) -> None:
        """Blobs that no namespace holds: the record goes and the file is queued, in one transaction."""
        after = ""
        while True:
            with self._storage.view() as view:
                page = await ledger.page_unheld(view, after, _SWEEP_AT_ONCE)
            if page:
                freed = await self._storage.transact(partial(_forget_unheld, page))
                removed.blobs += len(freed)
                removed.freed += sum(freed)
            if len(page) < _SWEEP_AT_ONCE:
                return
            after = page[-1]


class _Counts:
    def __init__(self) -> None:
        self.leases = self.images = self.ingests = self.content = self.snapshots = self.blobs = self.freed = 0

    def count(self, kind: Kind) -> None:
        if kind is Kind.LEASE:
            self.leases += 1
        elif kind is Kind.IMAGE:
            self.images += 1
        elif kind is Kind.INGEST:
            self.ingests += 1
        elif kind is Kind.SNAPSHOT:
            self.snapshots += 1
        else:
            self.content += 1


async def _forget_unheld(digests: list[str], txn: Transaction) -> list[int]:
    """Sizes of those that really went."""
    sizes = [await ledger.forget_unheld(txn, digest) for digest in digests]
    return [size for size in sizes if size is not None]


async def _remove(txn: Transaction, namespace: str, vertex: _Vertex) -> bool:
    """Take one dead object away; False if somebody else did already."""
    name = vertex.name
    if vertex.kind is Kind.CONTENT:
        if await tables.CONTENT.find(txn, namespace, name) is None:
            return False
        await drop_content(txn, namespace, name)
    elif vertex.kind is Kind.INGEST:
        record = await tables.INGESTS.find(txn, namespace, name)
        if record is None:
            return False
        await tables.INGESTS.remove(txn, namespace, name)
        await ledger.drop_ingest_files(txn, record)
    elif vertex.kind is Kind.SNAPSHOT:
        found = await tables.SNAPSHOTS.find(txn, namespace, name)
        if found is None or await has_children(txn, namespace, name):
            return False
        await drop_snapshot(txn, namespace, found)
    elif vertex.kind is Kind.IMAGE:
        if await tables.IMAGES.find(txn, namespace, name) is None:
            return False
        await tables.IMAGES.remove(txn, namespace, name)
        await tables.append_event(txn, namespace, ImageDelete(name))
    else:
        if await tables.LEASES.find(txn, namespace, name) is None:
            return False
        await end_lease(txn, namespace, name, inline=5)
    return True


async def _records(view: View, namespace: str, table: tables.Table[Any]) -> Any:
    """All records of a table, with the loop's turn after each slice."""
    after = ""
    while True:
        page = await table.page(view, namespace, after, _SLICE_RECORDS)
        for name, raw in page.rows:
            yield name.decode(), raw
        if not page.next:
            return
        after = page.next
        await trio.lowlevel.checkpoint()
