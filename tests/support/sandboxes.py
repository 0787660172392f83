"""What tests of sandboxes share: three of them, the vectors."""

from __future__ import annotations

import hashlib
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
