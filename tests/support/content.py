"""What tests of blobs share."""

from __future__ import annotations

import hashlib
import random

import orlop

INLINE_BYTES = 16 * 1024
ABSENT = "sha256:" + "0" * 64
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ROOT = {"containerd.io/gc.root": "test"}
MALFORMED = [
    "",
    "sha256",
    "sha256:",
    ":" + "0" * 64,
    "sha256:" + "0" * 63,
    "sha256:" + "A" * 64,
    "md5:" + "0" * 32,
    "sha512:" + "0" * 64,
    "sha256:" + "0" * 64 + "\n",
    "sha256:../" + "0" * 61,
]


def blob(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


async def keep(store: orlop.Store, data: bytes, labels: dict[str, str] | None = None) -> orlop.ContentInfo:
    """Store a blob of any size; the root label keeps it through collections."""
    labels = ROOT if labels is None else labels
    if len(data) <= INLINE_BYTES:
        return await store.content.put(data, labels=labels)
    async with store.content.ingest(f"keep-{digest_of(data)}") as writer:
        await writer.write(data)
        return await writer.commit(size=len(data), labels=labels)


async def digests(store: orlop.Store) -> list[str]:
    return [info.digest async for info in store.content.list()]
