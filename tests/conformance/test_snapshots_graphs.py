"""Graphs with snapshots in them, and who survives a collection. Source: spec gc 4, 16, 18.

All of a graph is made under a lease called `scaffold`, which then ends. A blob's name is its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest

import orlop

from ..conftest import StoreMaker
from ..support.snapshotters import Snapshots

ROOT = {"gc.root": "any"}
PAST, FUTURE = "2001-01-01T00:00:00Z", "2200-01-01T00:00:00Z"


def digest_of(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def full(labels: dict[str, str]) -> dict[str, str]:
    """Values of the form `c:x` are the digest of the blob x."""
    return {
        f"containerd.io/{key}": digest_of(value[2:]) if value.startswith("c:") else value
        for key, value in labels.items()
    }


class Graph:
    """Makes objects, and tells which are left: `c:` content, `s:` native snapshots, `i:` images."""

    def __init__(self, store: orlop.Store) -> None:
        self.store = store
        self.scaffold = store.with_lease("scaffold")
        self.snapshots: Snapshots = self.scaffold.snapshots.using("native")
        self.blobs: dict[str, str] = {}

    async def content(self, name: str, **labels: str) -> None:
        await self.scaffold.content.put(name.encode(), labels=full(labels))
        self.blobs[digest_of(name)] = name

    async def committed(self, name: str, parent: str = "", **labels: str) -> None:
        await self.snapshots.prepare(f"{name} active", parent)
        await self.snapshots.commit(name, f"{name} active", full(labels))

    async def image(self, name: str, target: str, **labels: str) -> None:
        """Last, if it has expired."""
        descriptor = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", digest_of(target), len(target))
        await self.store.images.create(name, descriptor, full(labels))

    async def container(self, name: str, snapshot: str, **labels: str) -> None:
        await self.store.containers.create(
            orlop.Container(
                name,
                full(labels),
                runtime=orlop.Runtime("r"),
                spec=orlop.Any("t", b""),
                snapshotter="native",
                snapshot_key=snapshot,
            )
        )

    async def left(self) -> set[str]:
        if [lease async for lease in self.store.leases.list(["id==scaffold"])]:
            await self.store.leases.delete("scaffold", sync=True)
        await self.store.collect()
        snapshots = self.store.snapshots.using("native")
        return (
            {f"c:{self.blobs[info.digest]}" async for info in self.store.content.list()}
            | {f"s:{info.name}" async for info in snapshots.list()}
            | {f"i:{image.name}" async for image in self.store.images.list()}
        )


def named(names: str) -> set[str]:
    return set(names.split())


@pytest.fixture(params=["leveldb", "memory"])
async def graph(request: pytest.FixtureRequest, tmp_path) -> AsyncIterator[Graph]:
    async with StoreMaker("embedded", request.param, tmp_path).open() as store:
        await store.leases.create("scaffold")
        yield Graph(store)


async def test_graph_1_an_image_keeps_all_below_it(graph: Graph) -> None:
    await graph.committed("base")
    await graph.committed("top", "base")
    await graph.content("l0")
    await graph.content("cfg", **{"gc.ref.snapshot.native": "top"})
    await graph.content("man", **{"gc.ref.content.config": "c:cfg", "gc.ref.content.l.0": "c:l0"})
    await graph.content("idx", **{"gc.ref.content.m.0": "c:man", "gc.ref.content.m.1": "c:absent"})
    await graph.image("app", "idx")
    assert await graph.left() == named("i:app c:idx c:man c:cfg c:l0 s:top s:base")
    await graph.store.images.delete("app", sync=True)
    assert await graph.left() == set()


async def test_graph_4_only_a_slash_starts_a_free_name_after_the_snapshotter(graph: Graph) -> None:
    for name in ("a", "b", "c", "d/e"):
        await graph.committed(name)
    ref = "gc.ref.snapshot.native"
    await graph.content("x", **{ref: "a", f"{ref}/n": "b", f"{ref}.n": "c", f"{ref}/z": "d/e"}, **ROOT)
    assert await graph.left() == named("c:x s:a s:b s:d/e")


async def test_graph_7_back_references_to_and_from_snapshots(graph: Graph) -> None:
    await graph.content("p", **ROOT)
    await graph.committed("s", **{"gc.bref.content": "c:p"})
    await graph.content("t", **{"gc.bref.snapshot.native": "s"})
    await graph.content("t2", **{"gc.bref.snapshot.native/any": "s"})
    await graph.content("t3", **{"gc.bref.snapshot.native.any": "s"})
    assert await graph.left() == named("c:p s:s c:t c:t2")


async def test_graph_8_a_container_keeps_its_snapshot_and_not_its_image(graph: Graph) -> None:
    await graph.content("x")
    await graph.committed("s")
    await graph.container("C", "s")
    await graph.image("img", "x", **{"gc.expire": PAST})
    assert await graph.left() == named("s:s")


async def test_graph_9_labels_of_a_container_count(graph: Graph) -> None:
    await graph.content("x")
    await graph.committed("p")
    await graph.committed("q", "p")
    await graph.committed("o")
    await graph.container("C", "q", **{"gc.ref.content.0": "c:x", "gc.ref.snapshot.native/foo": "o"})
    assert await graph.left() == named("c:x s:p s:q s:o")


async def test_graph_19_a_child_goes_and_its_parent_can_be_removed(graph: Graph) -> None:
    await graph.committed("p", **ROOT)
    await graph.committed("c", "p")
    assert await graph.left() == named("s:p")
    await graph.store.snapshots.using("native").remove("p")
    assert await graph.left() == set()


async def test_graph_20_a_sibling_is_nobodys(graph: Graph) -> None:
    await graph.committed("p")
    await graph.committed("c", "p", **ROOT)
    await graph.committed("sib", "p")
    assert await graph.left() == named("s:c s:p")


async def test_graph_21_an_active_is_no_root(graph: Graph) -> None:
    await graph.committed("b")
    await graph.snapshots.view("v", "b", full(ROOT))
    await graph.snapshots.prepare("a", "b")
    assert await graph.left() == named("s:b s:v")


async def test_graph_22_snapshots_and_content_by_turns(graph: Graph) -> None:
    await graph.committed("s2")
    await graph.committed("s3", "s2")
    await graph.content("q", **{"gc.ref.snapshot.native": "s2"})
    await graph.committed("s0")
    await graph.committed("s1", "s0", **{"gc.ref.content.q": "c:q"})
    await graph.content("t", **{"gc.ref.snapshot.native": "s1"})
    await graph.image("i", "t")
    assert await graph.left() == named("i:i c:t s:s1 s:s0 c:q s:s2")


async def test_graph_23_an_expiry_keeps_no_snapshot(graph: Graph) -> None:
    await graph.committed("s", **{"gc.expire": FUTURE})
    assert await graph.left() == set()


async def test_any_label_that_begins_as_the_root_label_is_one(graph: Graph) -> None:
    await graph.committed("one", **{"gc.root.of.something": "x"})
    await graph.committed("two", **{"gc.rooted": "x"})
    await graph.committed("three", **{"gc.roo": "x"})
    assert await graph.left() == named("s:one s:two")


@pytest.mark.parametrize("graph", ["memory"], indirect=True)
async def test_a_long_chain_is_kept_by_its_top(graph: Graph) -> None:
    parent = ""
    for number in range(40):
        await graph.committed(f"s{number}", parent)
        parent = f"s{number}"
    await graph.container("C", parent)
    assert len(await graph.left()) == 40
    await graph.store.containers.delete("C")
    assert await graph.left() == set()
