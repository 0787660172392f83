"""What tests of containers share: three of them, the vectors, and what is said about them."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from pathlib import Path

import trio
from msgspec.structs import replace

import orlop
from orlop.protocol import errors

VECTORS = Path(__file__).parent.parent / "vectors"
IDENTIFIERS = json.loads((VECTORS / "identifiers.json").read_text())
SIZES = json.loads((VECTORS / "label_sizes.json").read_text())
MASKS = json.loads((VECTORS / "masks.json").read_text())
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


async def outcome(call: Awaitable[object]) -> str:
    """`ok`, or the class of the error."""
    try:
        await call
    except errors.OrlopError as error:
        return type(error).__name__
    return "ok"


async def until_gone(store: orlop.Store, digest: str) -> None:
    """Collections of content publish nothing, so that one can only be waited for by looking."""
    with trio.fail_after(10):
        while await outcome(store.content.info(digest)) == "ok":
            await trio.sleep(0.002)
