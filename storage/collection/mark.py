"""The full mark: everything that the roots reach, read off the records alone.

It knows nothing of witnesses, so it checks them: what it marks, the collector has to keep, and nothing else. Its memory
and time follow the size of a namespace. Source: spec gc 5.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple

from ...protocol.records import Lease
from .. import keys
from ..codec import read_record
from ..engine import Kind, Reader
from ..lease_entries import page_targets
from ..references import FLAT_KINDS, EdgeKind, Out, edges, holds, is_root, used_at
from .kinds import KIND_OF, decode_record

__all__ = ["Graph", "Node", "mark", "read_graph"]

_SLICE: Final = 500
_BACK: Final = EdgeKind.BACK.value
_BUILT_IN: Final = EdgeKind.BUILT_IN.value
_CONDITION: Final = EdgeKind.CONDITION.value

Pause = Callable[[], Awaitable[object]]


class Node(NamedTuple):
    """An object within its namespace, kept with what it refers to or, `flat`, without."""

    kind: Kind
    name: str
    flat: bool = False


class Graph:
    """What the records of one namespace say."""

    def __init__(self) -> None:
        self.records: set[Node] = set()
        self.roots: list[Node] = []
        self.edges: dict[Node, list[Out]] = {}
        self.back: dict[Node, list[Node]] = {}
        self.used: dict[str, int | None] = {}

    def add(self, kind: Kind, name: str, record: Any, time: int) -> None:
        node = Node(kind, name)
        self.records.add(node)
        if is_root(record, time):
            self.roots.append(node)
        if kind is Kind.SNAPSHOT:
            self.used[name] = used_at(record)
        outs = edges(record)
        if outs:
            self.edges[node] = outs
        for out in outs:
            if out.edge == _BACK:
                self.back.setdefault(Node(out.kind, out.name), []).append(node)

    def targets(self, node: Node, time: int) -> list[Node]:
        found = []
        for out in self.edges.get(Node(node.kind, node.name), ()):
            if out.edge == _BACK:
                continue
            if node.flat:
                if out.edge == _BUILT_IN and node.kind in FLAT_KINDS:
                    found.append(Node(out.kind, out.name, True))
            elif out.edge != _CONDITION or holds(out.value, self.used.get(out.name), time):
                found.append(Node(out.kind, out.name))
        if not node.flat:
            found += self.back.get(node, ())
        return found


async def read_graph(reader: Reader, namespace: str, time: int, pause: Pause) -> Graph:
    graph = Graph()
    prefix = keys.records(namespace, b"")
    after = prefix
    while True:
        page = await reader.scan(after, prefix + b"\x7f", _SLICE)
        for key, value in page:
            kind = KIND_OF[key[len(prefix) : len(prefix) + 1]]
            record = decode_record(kind, await read_record(reader, key, value))
            if record is None:
                continue
            name = key[len(prefix) + 1 :].decode()
            graph.add(kind, name, record, time)
            if isinstance(record, Lease) and is_root(record, time):
                async for target in _entries(reader, namespace, record, pause):
                    graph.roots.append(target)
        if len(page) < _SLICE:
            return graph
        after = page[-1][0] + b"\x00"
        await pause()


async def _entries(reader: Reader, namespace: str, lease: Lease, pause: Pause) -> AsyncIterator[Node]:
    cursor = b""
    while True:
        page = await page_targets(reader, namespace, lease, cursor, _SLICE)
        for _, kind, name, flat in page:
            yield Node(kind, name, flat)
        if len(page) < _SLICE:
            return
        cursor = page[-1][0]
        await pause()


async def mark(graph: Graph, time: int, pause: Pause) -> set[Node]:
    """Every node that a root reaches at that time, absent ones among them."""
    seen = set(graph.roots)
    stack = list(seen)
    steps = 0
    while stack:
        for target in graph.targets(stack.pop(), time):
            if target not in seen:
                seen.add(target)
                stack.append(target)
        steps += 1
        if steps % _SLICE == 0:
            await pause()
    return seen
