"""What a child does to a store while its file calls are recorded: `python -m tests.crash.workload ROOT SEED`.

Three tasks, each with a namespace of its own, commit, adopt, delete and half-ingest the same few blobs and make
images of them, beside a collection now and then; the store is opened twice. Before and after every call a mark says
what it makes of which object, so that a checker of any prefix knows what must be there and what may be.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
from dataclasses import dataclass
from typing import Any, Final

import trio

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import errors

from ..support.files.calls import mark

__all__ = ["BLOBS", "NAMESPACES", "ROOT", "digest_of"]

SIZES: Final = (300, 9_000, 17_000, 40_000)
BLOBS: Final = {
    f"sha256:{hashlib.sha256(data).hexdigest()}": data
    for data in (random.Random(size).randbytes(size) for size in SIZES)
}
NAMESPACES: Final = ("one", "two", "three")
ROOT: Final = {"containerd.io/gc.root": "test"}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Worker:
    """One task. `objects`: what it made of each, as it knows: an object's name is `kind namespace key`."""

    namespace: str
    chance: random.Random
    numbers: itertools.count[int]
    held: dict[str, str]
    kept: dict[str, int]

    async def work(self, store: orlop.Store, rounds: int) -> None:
        store = store.in_namespace(self.namespace)
        for _ in range(rounds):
            digest = self.chance.choice(list(BLOBS))
            await self.chance.choice([self.commit, self.commit, self.keep, self.delete, self.image])(store, digest)
            if self.chance.random() < 0.1:
                await store.collect()

    def begins(self, name: str, value: Any) -> None:
        mark(json.dumps({"begin": name, "value": value}))

    def ended(self, name: str, value: Any) -> None:
        mark(json.dumps({"end": name, "value": value}))

    async def commit(self, store: orlop.Store, digest: str) -> None:
        """By `put` when it is small, else by an ingest, which goes on where an earlier one was left."""
        if digest in self.held:
            return
        name, count = f"content {self.namespace} {digest}", str(next(self.numbers))
        labels, data = {**ROOT, "count": count}, BLOBS[digest]
        ingest = f"ingest {self.namespace} {digest}"
        self.begins(name, count)
        self.begins(ingest, None)
        if len(data) <= SIZES[0]:
            await store.content.put(data, labels=labels)
        else:
            async with store.content.ingest(digest, expected=digest, size=len(data)) as writer:
                for at in range(writer.offset, len(data), 8_000):
                    await writer.write(data[at : at + 8_000])
                await writer.commit(labels=labels)
        self.ended(name, count)
        self.ended(ingest, None)
        self.held[digest] = count
        self.kept.pop(digest, None)

    async def keep(self, store: orlop.Store, digest: str) -> None:
        """Part of an ingest, left to be gone on with."""
        data = BLOBS[digest]
        name = f"ingest {self.namespace} {digest}"
        if digest in self.held or self.kept.get(digest, 0) > len(data) // 2:
            return
        self.begins(name, None)
        async with store.content.ingest(digest, expected=digest, size=len(data)) as writer:
            await writer.write(data[writer.offset : writer.offset + len(data) // 4])
            self.kept[digest] = writer.offset
        self.ended(name, self.kept[digest])

    async def delete(self, store: orlop.Store, digest: str) -> None:
        if digest not in self.held:
            return
        name = f"content {self.namespace} {digest}"
        self.begins(name, None)
        await store.content.delete(digest)
        self.ended(name, None)
        del self.held[digest]

    async def image(self, store: orlop.Store, digest: str) -> None:
        number = str(next(self.numbers))
        name = f"image {self.namespace} {digest[7:12]}"
        target = orlop.Descriptor("type", digest, len(BLOBS[digest]))
        self.begins(name, number)
        try:
            await store.images.create(digest[7:12], target, {"count": number})
        except errors.AlreadyExists:
            await store.images.update(digest[7:12], labels={"count": number}, mask=["labels.count"])
        self.ended(name, number)


async def main(root: str, seed: int, rounds: int) -> None:
    numbers = itertools.count(1)
    workers = [Worker(namespace, random.Random(f"{seed} {namespace}"), numbers, {}, {}) for namespace in NAMESPACES]
    for _ in range(2):
        async with (
            run_store(StoreConfig(root), real_world(), host_platform()) as running,
            trio.open_nursery() as nursery,
        ):
            mark(json.dumps({"begin": "store", "value": None}))
            for worker in workers:
                nursery.start_soon(worker.work, running.store, rounds)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
