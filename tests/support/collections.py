"""Blobs that hang on each other, and what tests of collections ask of them."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import orlop
from orlop.protocol import errors
from tests.support.content import INLINE_BYTES, digest_of

PAST, FUTURE = "2001-01-01T00:00:00Z", "2200-01-01T00:00:00Z"
EXPIRE = "containerd.io/gc.expire"
ROOT = "containerd.io/gc.root"
REF = "containerd.io/gc.ref.content"
BREF = "containerd.io/gc.bref.content"


def named(name: str) -> str:
    """The digest of the blob called `name`."""
    return digest_of(name.encode())


def after_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


async def keep(store: orlop.Store, data: bytes, labels: dict[str, str] | None = None) -> str:
    """A blob of any size, already here or not."""
    try:
        if len(data) <= INLINE_BYTES:
            await store.content.put(data, labels=labels or {})
        else:
            async with store.content.ingest(f"keep-{digest_of(data)}-{random.getrandbits(64)}") as writer:
                await writer.write(data)
                await writer.commit(labels=labels or {})
    except errors.AlreadyExists:
        pass
    return digest_of(data)


async def digests(store: orlop.Store) -> list[str]:
    return [info.digest async for info in store.content.list()]


class Graph:
    """Builds one scenario in one namespace, then tells who survived."""

    def __init__(self, store: orlop.Store) -> None:
        self.store = store
        self.scaffold = store.with_lease("scaffold")
        self._names: dict[str, str] = {}

    async def blobs(self, *names: str, **labelled: dict[str, str]) -> None:
        """Blobs; a label's value is a blob's name where the label refers to content."""
        for name in names:
            await self._blob(name, {})
        for name, labels in labelled.items():
            await self._blob(name, labels)

    async def _blob(self, name: str, labels: dict[str, str]) -> None:
        self._names[named(name)] = name
        targets = ("containerd.io/gc.ref.content", "containerd.io/gc.bref.content")
        resolved = {k: named(v) if k.startswith(targets) else v for k, v in labels.items()}
        await self.scaffold.content.put(name.encode(), labels=resolved)

    async def image(self, name: str, target: str, labels: dict[str, str] | None = None) -> None:
        """An image, protected by the scaffold as well if it has an expiry."""
        descriptor = orlop.Descriptor("application/octet-stream", named(target), len(target))
        await self.scaffold.images.create(name, descriptor, labels)

    async def survivors(self) -> set[str]:
        """c:, i: and L: as in the specification's worked graphs."""
        await self.store.leases.delete("scaffold")
        return await self.collected()

    async def collected(self) -> set[str]:
        await self.store.collect()
        found = {f"c:{self._names[digest]}" for digest in await digests(self.store)}
        found |= {f"i:{image.name}" async for image in self.store.images.list()}
        found |= {f"L:{lease.id}" async for lease in self.store.leases.list()}
        for info in [info async for info in self.store.content.list()]:
            assert digest_of(await self.store.content.read(info.digest)) == info.digest
        return found
