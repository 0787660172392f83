"""Three containers, and what tests ask of some."""

from __future__ import annotations

from msgspec.structs import replace

import orlop

REF = "containerd.io/gc.ref.content"
BREF = "containerd.io/gc.bref.container"


def typed(text: str) -> orlop.Any:
    return orlop.Any(f"types.example/{text}", text.encode())


BASE = orlop.Container(
    "c",
    labels={"a": "1"},
    image="image one",
    runtime=orlop.Runtime("io.example.v1", typed("options")),
    spec=typed("spec"),
    snapshotter="native",
    snapshot_key="key one",
    extensions={"e1": typed("one"), "e2": typed("two")},
    sandbox="sandbox one",
)


OTHER = orlop.Container(
    "c",
    labels={"a": "2", "new": "2"},
    image="image two",
    runtime=orlop.Runtime("io.example.v1", typed("other options")),
    spec=typed("other spec"),
    snapshotter="native",
    snapshot_key="key two",
    extensions={"e2": typed("other"), "e3": typed("three")},
    sandbox="sandbox two",
)


LEAST = orlop.Container("c", runtime=orlop.Runtime("r"), spec=typed("spec"))


def at(container: orlop.Container, other: orlop.Container) -> orlop.Container:
    """`container` with the times of `other`."""
    return replace(container, created_at=other.created_at, updated_at=other.updated_at)


async def ids(store: orlop.Store, *filters: str) -> list[str]:
    return [container.id async for container in store.containers.list(filters)]


async def streamed(store: orlop.Store, *filters: str) -> list[orlop.Container]:
    async with store.containers.stream(filters) as found:
        return [container async for container in found]


async def said(store: orlop.Store) -> list[tuple[str, object]]:
    return [(event.namespace, event.event) for event in (await store.events.page()).items]
