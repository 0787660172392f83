"""Stores in this process with settings of the collector, a clock that stands still, or files that wait or fail."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import trio

import orlop
from orlop.actors.config import CollectorConfig, StoreConfig
from orlop.actors.supervisor import RunningStore, run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.storage.memory import MemoryStore

__all__ = ["SECOND", "Files", "Gate", "StoppedClock", "digests", "running", "until", "until_gone"]

SECOND: Final = 1_000_000_000


class StoppedClock:
    """The time that the test sets, for everything that is compared with a time."""

    def __init__(self) -> None:
        self.at_ns = time.time_ns() // SECOND * SECOND

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def text(self, seconds: int = 0) -> str:
        return datetime.fromtimestamp(self.at_ns // SECOND + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Files:
    """The real ones. `before` and `after` are called, in the worker's thread, around what changes or lists names."""

    def __init__(self) -> None:
        self._real = real_world().files
        self.before: Callable[[str, str], None] = lambda call, path: None
        self.after = self.before

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in ("unlink", "rename", "list_folder", "remove_tree", "new_folder", "make_folder"):
            return real

        def called(path: str, *rest: object) -> object:
            self.before(name, path)
            result = real(path, *rest)
            self.after(name, path)
            return result

        return called


class Gate:
    """Holds up the first call of this name below a folder until the test lets it go on."""

    def __init__(self, call: str, below: str) -> None:
        self._call, self._below = call, below
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self, call: str, path: str) -> None:
        if call == self._call and self._below in path and not self._reached.is_set():
            self._reached.set()
            assert self._open.wait(30)

    async def reached(self) -> None:
        await until(self._reached.is_set)

    async def open_soon(self) -> None:
        """Once the others have had their chance to go wrong."""
        await trio.sleep(0.05)
        self._open.set()

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def running(
    folder: Path,
    *,
    engine: MemoryStore | None = None,
    files: Files | None = None,
    clock: StoppedClock | None = None,
    **gc: float,
) -> AsyncIterator[RunningStore]:
    world = real_world()
    world = dataclasses.replace(world, files=files or world.files, clock=clock or world.clock)
    config = StoreConfig(str(folder), gc=CollectorConfig(**gc))
    async with run_store(config, world, host_platform(), (), engine or MemoryStore()) as up:
        yield up


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not true():
            await trio.sleep(0.005)


async def until_gone(store: orlop.Store, digest: str) -> None:
    with trio.fail_after(10):
        while digest in await digests(store):
            await trio.sleep(0.005)


async def digests(store: orlop.Store) -> list[str]:
    return [info.digest async for info in store.content.list()]
