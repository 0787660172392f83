"""A call may be cancelled at any of its steps: it is done or not done, and nothing of it stays held.

Each call is made again and again, cancelled before its first step, then before its second, until it ends by itself.
Source: RELIABILITY 3.3; spec content 3.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.protocol import errors

from ..conftest import StoreMaker

ROOT = {"containerd.io/gc.root": "test"}
LARGE = 40_000
MOST_STEPS = 500


class CancelBefore(trio.abc.Instrument):
    """Cancels `scope` before the n-th step of the task that made it."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._task = trio.lowlevel.current_task()
        self._scope = scope
        self._left = step
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self._task or self.fired:
            return
        if self._left == 0:
            self.fired = True
            self._scope.cancel()
        self._left -= 1


async def cancelled_before(step: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the call had so many steps."""
    with trio.CancelScope() as scope:
        instrument = CancelBefore(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.fired


async def every_step(call: Callable[[int], Awaitable[object]], look: Callable[[int], Awaitable[object]]) -> None:
    """The call with a number of its own each time, cancelled one step later each time; `look` at what it left."""
    for step in range(MOST_STEPS):
        fired = await cancelled_before(step, partial(call, step))
        await look(step)
        if not fired:
            assert step, "nothing was cancelled"
            return
    raise AssertionError(f"after {MOST_STEPS} steps the call is still not done")


def blob(number: int, size: int = LARGE) -> bytes:
    return random.Random(f"{number} {size}").randbytes(size)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@asynccontextmanager
async def opened(store: orlop.Store, ref: str, **how: Any) -> AsyncIterator[orlop.IngestWriter]:
    """Soon: over a socket a cancelled call's lock goes when the server hears of it."""
    with trio.fail_after(5):
        while True:
            ingest = store.content.ingest(ref, **how)
            try:
                writer = await ingest.__aenter__()
                break
            except errors.Unavailable:
                await trio.sleep(0.001)
    try:
        yield writer
    finally:
        await ingest.__aexit__(None, None, None)


async def finished(store: orlop.Store, ref: str, data: bytes) -> None:
    """The ingest can be gone on with, unless it was committed; then its bytes are right."""
    with suppress(errors.AlreadyExists):
        async with opened(store, ref, expected=digest_of(data), size=len(data)) as writer:
            await writer.write(data[writer.offset :])
            await writer.commit(labels=ROOT)
    assert await store.content.read(digest_of(data)) == data
    with trio.fail_after(5), suppress(errors.NotFound):  # its writer ends just after its commit
        while await store.content.status(ref):
            await trio.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("size", [500, LARGE])
async def test_an_ingest_may_be_cancelled_anywhere(stores: StoreMaker, size: int) -> None:
    async with stores.open() as store:

        async def ingest(number: int) -> None:
            data = blob(number, size)
            async with store.content.ingest(f"ref {number}", expected=digest_of(data), size=size) as writer:
                await writer.write(data[: size // 2])
                await writer.write(data[size // 2 :])
                await writer.commit(labels=ROOT)

        async def look(number: int) -> None:
            await finished(store, f"ref {number}", blob(number, size))

        await every_step(ingest, look)


async def test_leaving_an_ingest_may_be_cancelled_anywhere(stores: StoreMaker) -> None:
    async with stores.open() as store:

        async def leave(number: int) -> None:
            async with store.content.ingest(f"ref {number}", size=LARGE) as writer:
                await writer.write(blob(number)[: LARGE // 2])

        async def look(number: int) -> None:
            await finished(store, f"ref {number}", blob(number))

        await every_step(leave, look)


async def test_going_on_with_an_ingest_may_be_cancelled_anywhere(stores: StoreMaker) -> None:
    async with stores.open() as store:

        async def resume(number: int) -> None:
            data = blob(number)
            async with store.content.ingest(f"ref {number}", expected=digest_of(data), size=LARGE) as writer:
                assert writer.offset == LARGE // 4
                await writer.write(data[writer.offset :])
                await writer.commit(labels=ROOT)

        async def kept(number: int) -> None:
            async with store.content.ingest(f"ref {number}", size=LARGE) as writer:
                await writer.write(blob(number)[: LARGE // 4])

        await kept(0)

        async def look(number: int) -> None:
            await finished(store, f"ref {number}", blob(number))
            await kept(number + 1)

        await every_step(resume, look)


async def test_an_abort_may_be_cancelled_anywhere(stores: StoreMaker) -> None:
    async with stores.open() as store:

        async def kept(number: int) -> None:
            async with store.content.ingest(f"ref {number}", size=LARGE) as writer:
                await writer.write(blob(number)[: LARGE // 2])

        await kept(0)

        async def look(number: int) -> None:
            with suppress(errors.NotFound):
                await store.content.abort(f"ref {number}")
            with pytest.raises(errors.NotFound):
                await store.content.status(f"ref {number}")
            await kept(number + 1)

        await every_step(lambda number: store.content.abort(f"ref {number}"), look)


async def test_a_truncate_may_be_cancelled_anywhere(stores: StoreMaker) -> None:
    async with stores.open() as store:

        async def truncate(number: int) -> None:
            async with store.content.ingest(f"ref {number}", size=LARGE) as writer:
                await writer.write(b"wrong" * 5_000)
                await writer.truncate()
                await writer.write(blob(number))
                await writer.commit(expected=digest_of(blob(number)), labels=ROOT)

        async def look(number: int) -> None:
            data = blob(number)
            if digest_of(data) not in {info.digest async for info in store.content.list()}:
                async with opened(store, f"ref {number}", size=LARGE) as writer:
                    await writer.truncate()
                    await writer.write(data)
                    await writer.commit(expected=digest_of(data), labels=ROOT)
            assert await store.content.read(digest_of(data)) == data

        await every_step(truncate, look)


@pytest.mark.parametrize("size", [500, LARGE])
async def test_a_read_may_be_cancelled_anywhere(stores: StoreMaker, size: int) -> None:
    data = blob(0, size)
    async with stores.open() as store:
        async with store.content.ingest("ref", size=size) as writer:
            await writer.write(data)
            await writer.commit(labels=ROOT)

        async def read(_: int) -> None:
            assert await store.content.read(digest_of(data)) == data
            async with store.content.chunks(digest_of(data), verify=True) as pieces:
                assert b"".join([piece async for piece in pieces]) == data

        async def look(_: int) -> None:
            assert await store.content.read(digest_of(data)) == data

        await every_step(read, look)


async def test_a_put_a_delete_and_a_collection_may_be_cancelled_anywhere(stores: StoreMaker) -> None:
    async with stores.open() as store:

        async def come_and_go(number: int) -> None:
            data = blob(number, 500)
            await store.content.put(data, labels=ROOT)
            await store.content.delete(digest_of(data))
            await store.collect()

        async def look(number: int) -> None:
            digest = digest_of(blob(number, 500))
            found = {info.digest async for info in store.content.list()}
            assert found <= {digest}, "an earlier round's, which this one's look deleted"
            with suppress(errors.NotFound):  # the delete may still be under way
                assert await store.content.read(digest) == blob(number, 500)
                await store.content.delete(digest)

        await every_step(come_and_go, look)


async def test_a_transaction_may_be_cancelled_anywhere(stores: StoreMaker) -> None:
    target = orlop.Descriptor("type", digest_of(b""), 7)
    async with stores.open() as store:

        async def together(number: int) -> None:
            async with store.transaction() as tx:
                tx.images.create(f"a {number}", target)
                tx.images.create(f"b {number}", target)

        async def look(_: int) -> None:
            names = [image.name async for image in store.images.list()]
            assert {name[2:] for name in names if name[0] == "a"} == {name[2:] for name in names if name[0] == "b"}

        await every_step(together, look)


async def test_a_call_that_is_cancelled_together_with_its_connection_is_cancelled(tmp_path: Path) -> None:
    """It does not tell of the lost connection, which is only how the cancellation came about."""
    async with StoreMaker("unix", "memory", tmp_path).running() as running:
        with trio.CancelScope() as scope:
            async with orlop.connect(running.addresses[0]) as store:
                scope.cancel()
                with trio.CancelScope(shield=True), pytest.raises(errors.Unavailable):
                    while True:
                        _ = [namespace async for namespace in store.namespaces.list()]
                await store.leases.create("late")
                raise AssertionError("the call succeeded")
        assert scope.cancelled_caught
