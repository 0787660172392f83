"""Blobs, their files and their holders against a model in plain dicts. Source: RELIABILITY 3.1, spec content 6.

Several namespaces commit the same few blobs, drop them, keep half-made ingests and open readers; the store is
collected and restarted in between, over the same engine and the same folder. After every step each namespace
must see exactly what it holds, with the right bytes.
"""

from __future__ import annotations

import hashlib
import os
import queue
import random
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import errors
from orlop.storage.memory import MemoryStore

INLINE_BYTES = 16 * 1024
SIZES = (0, 1, 700, INLINE_BYTES, INLINE_BYTES + 1, 40_000)
BLOBS = {name: random.Random(n).randbytes(SIZES[n]) for n, name in enumerate("abcdef")}
NAMESPACES = ("ns1", "ns2", "ns3")
ROOT = {"containerd.io/gc.root": "test"}

Names = st.sampled_from(sorted(BLOBS))
Spaces = st.sampled_from(NAMESPACES)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


DIGESTS = {name: digest_of(data) for name, data in BLOBS.items()}


class Loop:
    """A trio loop in a thread that runs one coroutine after another, all in one task."""

    def __init__(self) -> None:
        self._ready: queue.SimpleQueue[tuple[trio.lowlevel.TrioToken, trio.MemorySendChannel[Any]]] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        self._token, self._send = self._ready.get()

    async def _main(self) -> None:
        send, receive = trio.open_memory_channel[Any](1)
        self._ready.put((trio.lowlevel.current_trio_token(), send))
        async for afn, future in receive:
            try:
                future.set_result(await afn())  # no cancel scope here: the store's own outlive one call
            except Exception as error:  # noqa: BLE001 - handed to who asked
                future.set_exception(error)

    def run(self, afn: Callable[[], Awaitable[Any]]) -> Any:
        future: Future[Any] = Future()
        self._token.run_sync_soon(self._send.send_nowait, (afn, future))
        return future.result(60)

    def close(self) -> None:
        self._token.run_sync_soon(self._send.close)
        self._thread.join()


class BlobMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="orlop-state-machine-")
        self.engine = MemoryStore()
        self.held: dict[str, dict[str, dict[str, str]]] = {name: {} for name in NAMESPACES}
        self.half: dict[tuple[str, str], int] = {}
        self.readers: list[tuple[str, orlop.BlobReader]] = []
        self.count = 0
        self.loop = Loop()
        self.stack = AsyncExitStack()
        self.loop.run(self._start)

    async def _start(self) -> None:
        running = await self.stack.enter_async_context(
            run_store(StoreConfig(self.folder), real_world(), host_platform(), [], self.engine)
        )
        self.store = running.store

    async def _stop(self) -> None:
        self.readers.clear()
        await self.stack.aclose()
        self.stack = AsyncExitStack()

    def teardown(self) -> None:
        self.loop.run(self._stop)
        self.loop.close()
        shutil.rmtree(self.folder)

    def labels(self) -> dict[str, str]:
        self.count += 1
        return {**ROOT, "count": str(self.count)}

    # rules

    @rule(space=Spaces, name=Names, expected=st.booleans(), pieces=st.integers(1, 3))
    def commit(self, space: str, name: str, expected: bool, pieces: int) -> None:
        """Also how another namespace comes to a blob that is here: it brings the bytes, or adopts them."""
        labels, data = self.labels(), BLOBS[name]
        step = max(1, -(-len(data) // pieces))

        async def commit() -> None:
            content = self.store.in_namespace(space).content
            digest = DIGESTS[name] if expected else ""
            async with content.ingest(f"commit {self.count}", expected=digest) as writer:
                if expected and self.held_somewhere(name):
                    assert writer.offset == len(data)  # adopted: there is nothing to send
                for at in range(writer.offset, len(data), step):
                    await writer.write(data[at : at + step])
                info = await writer.commit(size=len(data), labels=labels)
            assert (info.digest, info.size, info.labels) == (DIGESTS[name], len(data), labels)

        if name in self.held[space]:
            with pytest.raises(errors.AlreadyExists):
                self.loop.run(commit)
            self.loop.run(lambda: self._abort_if_there(space, f"commit {self.count}"))
        else:
            self.loop.run(commit)
            self.held[space][name] = labels

    def held_somewhere(self, name: str) -> bool:
        return any(name in held for held in self.held.values())

    @rule(space=Spaces, name=Names, kept=st.integers(0, 50_000))
    def begin_to_adopt_and_write_something_else(self, space: str, name: str, kept: int) -> None:
        """The first bytes of a shared blob, then other ones: a blob of its own, gone again; the other stays."""
        if name in self.held[space] or not self.held_somewhere(name):
            return
        self.count += 1
        data, tail = BLOBS[name], str(self.count).encode()
        kept = min(kept, len(data))

        async def diverge() -> None:
            content = self.store.in_namespace(space).content
            async with content.ingest(f"diverge {self.count}", expected=DIGESTS[name]) as writer:
                await writer.truncate(kept)
                await writer.write(tail)
                wanted = data[:kept] + tail
                info = await writer.commit(size=len(wanted), expected=digest_of(wanted))
            assert await content.read(info.digest) == wanted
            await content.delete(info.digest)

        self.loop.run(diverge)

    @rule(space=Spaces, name=Names)
    def adopt_while_the_last_holder_deletes_and_is_collected(self, space: str, name: str) -> None:
        if name in self.held[space] or not self.held_somewhere(name):
            return
        labels = self.labels()

        async def adopt() -> None:
            async with self.store.in_namespace(space).content.ingest(
                f"adopt {self.count}", expected=DIGESTS[name]
            ) as writer:
                for other in NAMESPACES:
                    if name in self.held[other]:
                        await self.store.in_namespace(other).content.delete(DIGESTS[name])
                await self.store.collect()
                await writer.commit(labels=labels)

        self.loop.run(adopt)
        for other in NAMESPACES:
            self.held[other].pop(name, None)
        self.held[space][name] = labels

    async def _abort_if_there(self, space: str, ref: str) -> None:
        with pytest.raises(errors.NotFound):  # the ingest ended with AlreadyExists, or never began
            await self.store.in_namespace(space).content.abort(ref)

    @rule(space=Spaces, name=st.sampled_from([n for n in sorted(BLOBS) if len(BLOBS[n]) <= INLINE_BYTES]))
    def put(self, space: str, name: str) -> None:
        labels = self.labels()

        async def put() -> None:
            await self.store.in_namespace(space).content.put(BLOBS[name], labels=labels)

        if name in self.held[space]:
            with pytest.raises(errors.AlreadyExists):
                self.loop.run(put)
        else:
            self.loop.run(put)
            self.held[space][name] = labels

    @rule(name=Names)
    def commit_everywhere_at_once(self, name: str) -> None:
        labels = self.labels()
        made: list[str] = []

        async def one(space: str, n: int) -> None:
            async with self.store.in_namespace(space).content.ingest(f"race {self.count} {n}") as writer:
                await writer.write(BLOBS[name])
                try:
                    await writer.commit(labels=labels)
                    made.append(space)
                except errors.AlreadyExists:
                    pass

        async def all_at_once() -> None:
            async with trio.open_nursery() as nursery:
                for n in range(2):
                    for space in NAMESPACES:
                        nursery.start_soon(one, space, n)

        self.loop.run(all_at_once)
        assert sorted(made) == [space for space in NAMESPACES if name not in self.held[space]]
        for space in made:
            self.held[space][name] = labels

    @rule(space=Spaces, name=Names)
    def delete(self, space: str, name: str) -> None:
        async def delete() -> None:
            await self.store.in_namespace(space).content.delete(DIGESTS[name])

        if name in self.held[space]:
            self.loop.run(delete)
            del self.held[space][name]
        else:
            with pytest.raises(errors.NotFound):
                self.loop.run(delete)

    @rule(space=Spaces, name=Names)
    def delete_and_commit_again_amid_collections(self, space: str, name: str) -> None:
        labels = self.labels()

        async def collect_all_the_time() -> None:
            while True:
                await self.store.collect()

        async def swap() -> None:
            content = self.store.in_namespace(space).content
            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect_all_the_time)
                for n in range(3):
                    if n or name in self.held[space]:
                        await content.delete(DIGESTS[name])
                    async with content.ingest(f"again {self.count}") as writer:
                        await writer.write(BLOBS[name])
                        await writer.commit(labels=labels)
                nursery.cancel_scope.cancel()

        self.loop.run(swap)
        self.held[space][name] = labels

    @rule(space=Spaces, name=Names)
    def let_the_collector_take(self, space: str, name: str) -> None:
        async def unroot() -> None:
            await self.store.in_namespace(space).content.update(DIGESTS[name], {})
            await self.store.collect()

        if name in self.held[space]:
            self.loop.run(unroot)
            del self.held[space][name]

    @rule(space=Spaces, name=Names, share=st.integers(0, 4))
    def write_half(self, space: str, name: str, share: int) -> None:
        async def write() -> None:
            async with self.store.in_namespace(space).content.ingest(f"half {name}") as writer:
                assert writer.offset == self.half.get((space, name), 0)
                await writer.write(BLOBS[name][writer.offset : max(writer.offset, end)])

        end = len(BLOBS[name]) * share // 4
        self.loop.run(write)
        self.half[space, name] = max(self.half.get((space, name), 0), end)

    @precondition(lambda self: self.half)
    @rule(data=st.data(), abort=st.booleans())
    def end_half(self, data: st.DataObject, abort: bool) -> None:
        space, name = data.draw(st.sampled_from(sorted(self.half)))
        labels = self.labels()

        async def end() -> bool:
            content = self.store.in_namespace(space).content
            if abort:
                await content.abort(f"half {name}")
                return False
            async with content.ingest(f"half {name}") as writer:
                assert writer.offset == self.half[space, name]
                await writer.write(BLOBS[name][writer.offset :])
                try:
                    await writer.commit(expected=DIGESTS[name], labels=labels)
                except errors.AlreadyExists:
                    return False
            return True

        made = self.loop.run(end)
        assert made == (not abort and name not in self.held[space])
        del self.half[space, name]
        if made:
            self.held[space][name] = labels

    @precondition(lambda self: any(self.held.values()) and len(self.readers) < 3)
    @rule(data=st.data())
    def open_reader(self, data: st.DataObject) -> None:
        space, name = data.draw(st.sampled_from(sorted((s, n) for s in NAMESPACES for n in self.held[s])))

        async def open_it() -> orlop.BlobReader:
            return await self.stack.enter_async_context(self.store.in_namespace(space).content.open(DIGESTS[name]))

        self.readers.append((name, self.loop.run(open_it)))

    @rule()
    def collect(self) -> None:
        self.loop.run(lambda: self.store.collect())
        large = {DIGESTS[n] for held in self.held.values() for n in held if len(BLOBS[n]) > INLINE_BYTES}
        names = os.listdir(os.path.join(self.folder, "blobs", "sha256"))
        assert sorted(f"sha256:{name.split('.')[0]}" for name in names) == sorted(large)
        assert len(os.listdir(os.path.join(self.folder, "ingests"))) <= len(self.half)

    @rule()
    def restart(self) -> None:
        self.loop.run(self._stop)
        self.loop.run(self._start)

    # what must hold after each

    @invariant()
    def every_namespace_sees_what_it_holds(self) -> None:
        self.loop.run(self._compare)

    async def _compare(self) -> None:
        for space in NAMESPACES:
            content = self.store.in_namespace(space).content
            listed = [info async for info in content.list()]
            held = self.held[space]
            assert [info.digest for info in listed] == sorted(DIGESTS[name] for name in held)
            labels = {info.digest: info.labels for info in listed}
            for name, data in BLOBS.items():
                if name in held:
                    assert labels[DIGESTS[name]] == held[name]
                    assert await content.read(DIGESTS[name]) == data
                else:
                    with pytest.raises(errors.NotFound):
                        await content.info(DIGESTS[name])
                    with pytest.raises(errors.NotFound):
                        await content.read(DIGESTS[name])
            ingests = {status.ref: status.offset async for status in content.ingests()}
            assert ingests == {f"half {name}": offset for (s, name), offset in self.half.items() if s == space}
        for name, reader in self.readers:
            assert await reader.read_at(0, 100_000) == BLOBS[name]


@pytest.mark.slow
def test_namespaces_see_exactly_what_they_hold() -> None:
    run_state_machine_as_test(
        BlobMachine,
        settings=settings(
            max_examples=14,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
