"""What all tests share: a store by every way in and over every engine, and the check that nothing is left.

Real LevelDB, real sockets on loopback, real files. The memory engine is not a mock: it is held to the same
suite as LevelDB.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

import orlop
import orlop.protocol.registry.client  # its first import takes longer than some tests wait
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import RunningStore, run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol.world import Address
from orlop.storage.engine import KeyValue
from orlop.storage.memory import MemoryStore

WAYS = ("embedded", "unix", "tcp")
ENGINES = ("leveldb", "memory")
# Every way in over LevelDB, every engine in process: more would repeat, not add.
COMBINATIONS = [("embedded", "leveldb"), ("embedded", "memory"), ("unix", "leveldb"), ("tcp", "leveldb")]


@pytest.hookimpl(trylast=True)  # after those that shuffle
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests first, so that none is left alone at the end while the other processes have nothing to do; and by the
    shortest way and the longest only, but in a long run."""
    if "ORLOP_SOAK" not in os.environ:
        left_out = [item for item in items if _is_slow(item) and item.get_closest_marker("in_between")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    items.sort(key=lambda item: not _is_slow(item))


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


@dataclass(frozen=True)
class StoreMaker:
    """Opens stores by one way in, over one engine."""

    way: str
    engine: str
    folder: Path

    @asynccontextmanager
    async def open(self, name: str = "store", namespace: str = "default") -> AsyncIterator[orlop.Store]:
        async with self.running(name) as running:
            if self.way == "embedded":
                yield running.store.in_namespace(namespace)
            else:
                async with orlop.connect(running.addresses[0], namespace=namespace) as store:
                    yield store

    @asynccontextmanager
    async def running(self, name: str = "store") -> AsyncIterator[RunningStore]:
        """The store itself, for tests that connect more than once or look inside."""
        root = self.folder / name
        listen = {
            "embedded": [],
            "unix": [Address(path=str(root / "socket"))],
            "tcp": [Address(host="127.0.0.1", port=0)],
        }[self.way]
        engine: KeyValue | None = MemoryStore() if self.engine == "memory" else None
        async with run_store(StoreConfig(str(root)), real_world(), host_platform(), listen, engine) as running:
            yield running


@pytest.fixture(
    params=[
        COMBINATIONS[0],
        *[pytest.param(pair, marks=pytest.mark.in_between) for pair in COMBINATIONS[1:-1]],
        COMBINATIONS[-1],
    ],
    ids=lambda pair: "-".join(pair),
)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    way, engine = request.param
    return StoreMaker(way, engine, tmp_path)


@pytest.fixture
async def store(stores: StoreMaker) -> AsyncIterator[orlop.Store]:
    """An empty store, as the namespace `default` sees it."""
    async with stores.open() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No descriptor and no thread of ours survives a test."""
    structlog.reset_defaults()
    before = _descriptors()
    yield
    left = {fd: path for fd, path in _descriptors().items() if before.get(fd) != path}
    if left:
        gc.collect()  # 50 ms that only those pay who look as if they leaked
        left = {fd: path for fd, path in _descriptors().items() if before.get(fd) != path}
    assert not left, f"descriptors left open: {left}"
    stray = [t.name for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    assert not stray, f"threads left: {stray}"


def _descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if not path.startswith(("/proc/", "/dev/", "anon_inode:")):
            found[fd] = path
    return found
