"""Three sandboxes, and what tests ask of some."""

from __future__ import annotations

import hashlib

from msgspec.structs import replace

import orlop

REF = "containerd.io/gc.ref.content"


def typed(text: str) -> orlop.Any:
    return orlop.Any(f"types.example/{text}", text.encode())


def large(seed: int, kib: int = 200) -> orlop.Any:
    """A typed value of incompressible bytes."""
    return orlop.Any("types.example/large", hashlib.shake_256(b"%d" % seed).digest(kib * 1024))


BASE = orlop.Sandbox(
    "s",
    runtime=orlop.Runtime("io.example.v1", typed("options")),
    spec=typed("spec"),
    labels={"a": "1"},
    extensions={"e1": typed("one"), "e2": typed("two")},
    sandboxer="podsandbox",
)


OTHER = orlop.Sandbox(
    "s",
    runtime=orlop.Runtime("io.example.v1", typed("other options")),
    spec=typed("other spec"),
    labels={"a": "2", "new": "2"},
    extensions={"e2": typed("other"), "e3": typed("three")},
    sandboxer="other",
)


LEAST = orlop.Sandbox("s")


def at(sandbox: orlop.Sandbox, other: orlop.Sandbox) -> orlop.Sandbox:
    """`sandbox` with the times of `other`."""
    return replace(sandbox, created_at=other.created_at, updated_at=other.updated_at)


async def ids(store: orlop.Store, *filters: str) -> list[str]:
    return [sandbox.sandbox_id async for sandbox in store.sandboxes.list(filters)]


async def streamed(store: orlop.Store, *filters: str) -> list[orlop.Sandbox]:
    async with store.sandboxes.stream(filters) as found:
        return [sandbox async for sandbox in found]
