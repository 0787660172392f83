"""What tests of ingests share: bytes and digests, what is here and what is open, a writer that is left open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import orlop
from orlop.actors.supervisor import RunningStore
from orlop.protocol import errors
from orlop.protocol import messages as m
from orlop.protocol import methods as t
from tests.conftest import StoreMaker

ROOT = {"containerd.io/gc.root": "2024-01-01T00:00:00Z"}
GRID = [(size, cut) for size in (500, 5000, 50_000) for cut in (0, 10, 50, 90, 100)]
over_sockets = pytest.mark.parametrize("stores", [("unix", "leveldb"), ("tcp", "leveldb")], indirect=True, ids=str)
over_leveldb = pytest.mark.parametrize(
    "stores", [("embedded", "leveldb"), ("unix", "leveldb"), ("tcp", "leveldb")], indirect=True, ids=str
)


async def keep(store: orlop.Store, data: bytes, ref: str = "keep") -> orlop.ContentInfo:
    async with store.content.ingest(ref) as writer:
        await writer.write(data)
        return await writer.commit(size=len(data), labels=ROOT)


async def refs(store: orlop.Store) -> list[str]:
    return sorted([status.ref async for status in store.content.ingests()])


async def held_by(store: orlop.Store, lease: str) -> set[tuple[str, str]]:
    return {(resource.type, resource.id) async for resource in store.leases.resources(lease)}


@asynccontextmanager
async def another_client(stores: StoreMaker, running: RunningStore) -> AsyncIterator[orlop.Store]:
    if stores.way == "embedded":
        yield running.store
    else:
        async with orlop.connect(running.addresses[0]) as store:
            yield store


async def open_unclosed(store: orlop.Store, ref: str, size: int = 0, expected: str = "") -> m.OpenedIngest:
    """A writer that nothing closes but the end of its connection."""
    opened: m.OpenedIngest = await store.content._call(t.INGESTS_OPEN, m.OpenIngest(ref, size, expected))
    return opened


async def write_raw(store: orlop.Store, writer: int, offset: int, data: bytes) -> int:
    written: m.WrittenIngest = await store.content._call(t.INGESTS_WRITE, m.WriteIngest(writer, offset, data))
    return written.offset


@asynccontextmanager
async def ingest_when_free(store: orlop.Store, ref: str) -> AsyncIterator[orlop.IngestWriter]:
    """What clients do while somebody else has the ref. Source: spec content 9.1."""
    with trio.fail_after(3):
        while True:
            try:
                opened = await open_unclosed(store, ref)
                break
            except errors.Unavailable:
                await trio.sleep(0.002)
    writer = orlop.IngestWriter(store.content._caller, store.context, opened)
    try:
        yield writer
    finally:
        await writer.close()


async def must_be_locked(store: orlop.Store, ref: str) -> None:
    with pytest.raises(errors.Unavailable):
        await open_unclosed(store, ref)
