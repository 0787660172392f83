"""Why something stays: the ways that lead to it from a root, or since when it is condemned. Source: DESIGN 8."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

import msgspec
import trio

from ..protocol.errors import NotFound
from ..protocol.identifiers import quote
from ..protocol.messages import Context, Explain, Explained, Explanation, Kept, Reason
from ..protocol.records import Container, Image, Lease, Sandbox
from ..protocol.service import Session
from ..protocol.world import World
from ..storage import keys
from ..storage.collection.forest import Forest
from ..storage.collection.state import ROOT, Link, State, Vertex
from ..storage.engine import Kind, Transaction
from ..storage.ingests import IngestRecord
from ..storage.references import FLAT_KINDS, expires_at, is_root
from ..storage.tables import CONTENT, IMAGES, SNAPSHOTS, page_namespaces
from .config import CollectorConfig
from .scratch import Scratch
from .snapshotters import SNAPSHOTTERS
from .storage import StorageActor
from .timestamps import rfc3339

__all__ = ["Explainer"]

_MOST_STEPS: Final = 20_000
_DEEPEST: Final = 1_000
_STEPS_A_SLICE: Final = 50
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_BUILT_IN: Final = {Kind.IMAGE: "target", Kind.SNAPSHOT: "parent", Kind.CONTAINER: "snapshot", Kind.INGEST: "adopts"}


_Above = AsyncGenerator[tuple[Vertex, Reason], None]


class Explainer:
    def __init__(self, storage: StorageActor, world: World, config: CollectorConfig) -> None:
        self._storage = storage
        self._world = world
        self._grace_ns = int(config.grace_s * 1e9)

    async def explain(self, request: Explain, context: Context, _: Session) -> Explained:
        """Raises NotFound. References are followed as the collector follows them, on one view."""
        found: list[Explanation] = []
        with self._storage.view() as view:
            scratch = Scratch(view, self._world.clock.now_ns())
            namespaces = [context.namespace or ""]
            if request.all_namespaces:
                namespaces = [each.name for each in await page_namespaces(view, "", 10_000)]
            for namespace in namespaces:
                named = scratch.transact(partial(_named, namespace=namespace, name=request.name))
                found += [await _Search(scratch, request.limit).explain(each, self._grace_ns) for each in named]
        if not found:
            where = "any namespace" if request.all_namespaces else f"namespace {quote(context.namespace or '')}"
            raise NotFound(
                f"content, image or snapshot {quote(request.name)} in {where}",
                hint="a snapshot may be named as snapshotter/key; --all-namespaces looks everywhere",
            )
        return Explained(found)


async def _named(txn: Transaction, namespace: str, name: str) -> list[Vertex]:
    """All that there is a record of by that name; a snapshot's may leave out the snapshotter."""
    if _DIGEST.fullmatch(name) and await CONTENT.find(txn, namespace, name) is not None:
        return [Vertex(namespace, Kind.CONTENT, name)]
    found = []
    if await IMAGES.find(txn, namespace, name) is not None:
        found.append(Vertex(namespace, Kind.IMAGE, name))
    spelled = [name, *(f"{snapshotter}/{name}" for snapshotter in SNAPSHOTTERS)]
    found += [
        Vertex(namespace, Kind.SNAPSHOT, full)
        for full in spelled
        if await SNAPSHOTS.find(txn, namespace, full) is not None
    ]
    return found


class _Search:
    """All ways up from one object, depth first, each without a ring."""

    def __init__(self, scratch: Scratch, limit: int) -> None:
        self._scratch = scratch
        self._limit = limit
        self._steps = 0
        self.paths: list[list[Reason]] = []
        self.more = False

    async def explain(self, vertex: Vertex, grace_ns: int) -> Explanation:
        normal, flat = self._scratch.transact(lambda txn: _states(txn, vertex))
        about = Explanation(vertex.namespace, vertex.kind.name.lower(), vertex.name, Kept.ALIVE)
        if normal.witness is None and flat.witness is None:
            if not (normal.condemned or flat.condemned):
                return msgspec.structs.replace(about, state=Kept.SUSPECT)
            state = normal if normal.condemned else flat
            condemned_at = self._scratch.transact(lambda txn: _in_bin(txn, state.round))
            return msgspec.structs.replace(
                about,
                state=Kept.CONDEMNED,
                since=state.since,
                due_at=None if condemned_at is None else condemned_at + grace_ns,
                lost=None if state.lost is None else _reason(state.lost, state.lost.edge),
            )
        for variant in (vertex, vertex._replace(flat=True)):
            if not variant.flat or vertex.kind in FLAT_KINDS:
                await self._up(variant, [Reason(_word(vertex.kind), vertex.name)], {variant})
        state_now = Kept.ALIVE if self.paths or normal.anchored or flat.anchored else Kept.SUSPECT
        return msgspec.structs.replace(about, state=state_now, paths=self.paths, more=self.more)

    async def _up(self, start: Vertex, path: list[Reason], on_path: set[Vertex]) -> None:
        """Iterative: chains may be long."""
        stack: list[tuple[Vertex, _Above]] = [(start, self._above(start))]
        self._end_at_root(start, path)
        try:
            await self._walk(stack, path, on_path)
        finally:
            for _, above in stack:
                await above.aclose()

    async def _walk(self, stack: list[tuple[Vertex, _Above]], path: list[Reason], on_path: set[Vertex]) -> None:
        while stack and not self.more:
            vertex, above = stack[-1]
            try:
                source, reason = await anext(above)
            except StopAsyncIteration:
                stack.pop()
                on_path.discard(vertex)
                path.pop(0)
                continue
            self._steps += 1
            if self._steps % _STEPS_A_SLICE == 0:
                await trio.lowlevel.checkpoint()
            if self._steps > _MOST_STEPS or len(stack) > _DEEPEST:
                self.more = True
                break
            if source in on_path:
                continue
            on_path.add(source)
            path.insert(0, reason)
            self._end_at_root(source, path)
            stack.append((source, self._above(source)))

    def _end_at_root(self, vertex: Vertex, path: list[Reason]) -> None:
        root = None if vertex.flat else self._scratch.transact(lambda txn: _root(txn, vertex))
        if root is None:
            return
        if len(self.paths) == self._limit:
            self.more = True
            return
        self.paths.append([Reason("root", root, ""), *path] if root else list(path))

    async def _above(self, vertex: Vertex) -> _Above:
        """Those that keep it and live themselves."""
        cursor = b""
        while page := self._scratch.transact(partial(_sources, vertex=vertex, cursor=cursor)):
            for _, source, link in page:
                yield source, _reason(link, link.edge)
            cursor = page[-1][0]


async def _states(txn: Transaction, vertex: Vertex) -> tuple[State, State]:
    return await (await Forest.load(txn)).states(vertex)


async def _in_bin(txn: Transaction, round_: int) -> int | None:
    value = await txn.get(keys.bin_round(round_))
    return None if value is None else int.from_bytes(value, "big")


async def _sources(txn: Transaction, vertex: Vertex, cursor: bytes) -> list[tuple[bytes, Vertex, Link]]:
    """Some of the edges that conduct to a vertex from what is not dead."""
    forest = await Forest.load(txn)
    record = None if vertex.flat else await forest.record(vertex)
    found = []
    edges = forest.in_edges(vertex, cursor, record)
    async for edge in edges:
        if (await forest.state(edge.source)).witness is not None:
            found.append((edge.cursor, edge.source, edge.link))
        if len(found) == _STEPS_A_SLICE:
            await edges.aclose()
            break
    return found


async def _root(txn: Transaction, vertex: Vertex) -> str | None:
    """None: it is no root. What makes it one; empty where its kind says it."""
    forest = await Forest.load(txn)
    record = await forest.record(vertex)
    if not is_root(record, forest.clock.time):
        return None
    if isinstance(record, Container | Sandbox):
        return ""
    if isinstance(record, Image | Lease | IngestRecord):
        expires = expires_at(record)
        return "" if expires is None else f"until {rfc3339(expires)}"
    return "label containerd.io/gc.root"


def _reason(link: Link, edge: str) -> Reason:
    if link == ROOT:
        return Reason("root", "", "")
    kind = Kind(link.kind)
    how = {"b": "is named by a back reference", "c": "label", "r": "label", "q": "condition", "z": "entry"}.get(edge)
    return Reason(_word(kind), link.name, how or _BUILT_IN.get(kind, ""))


def _word(kind: Kind) -> str:
    return kind.name.lower()
