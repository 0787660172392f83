"""A server for clients that break the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

import orlop
from tests.conftest import StoreMaker
from tests.support.bad_clients import BLOB, SMALL_DIGEST, TIMEOUT_S, Served, state


@pytest.fixture(params=["unix", "tcp"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    return StoreMaker(request.param, "memory", tmp_path)


@pytest.fixture
async def served(stores: StoreMaker) -> AsyncIterator[Served]:
    async with stores.running() as running:
        served = Served(running, running.addresses[0])
        async with served.good() as store:
            small = await store.content.put(b"small", labels={"a": "b"})
            await store.images.create("example/app:1", orlop.Descriptor("text/plain", small.digest, small.size))
            async with store.content.ingest("blob") as writer:
                await writer.write(BLOB)
                await writer.commit(labels={"containerd.io/gc.root": "yes"})
        before = await state(served)
        yield served
        with trio.fail_after(TIMEOUT_S):
            assert await state(served) == before
            async with served.good() as store:
                assert (await store.content.info(SMALL_DIGEST)).size == 5
                await store.leases.create("good")
                await store.leases.delete("good")
