"""Where the rooms are put together: a store in this process, a client, a daemon, each on the real machine."""

from __future__ import annotations

import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..actors.config import StoreConfig
from ..protocol.api import Store
from ..protocol.client import connect_store
from ..protocol.identifiers import DEFAULT_NAMESPACE, check_identifier
from ..protocol.registry.platforms import Platform, normalized
from ..protocol.world import Address, World
from .world import parse_address, real_world

if TYPE_CHECKING:
    from ..actors.supervisor import RunningStore

__all__ = ["connect", "host_platform", "open_store", "serve", "serving"]


def host_platform() -> Platform:
    """What this machine runs, as an index would name it."""
    return normalized(Platform(platform.system().lower(), platform.machine().lower()))


@asynccontextmanager
async def open_store(
    path: str | os.PathLike[str] | StoreConfig,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    serve_socket: bool = True,
    world: World | None = None,
) -> AsyncIterator[Store]:
    """A store in this process, for the length of the block. The folder is made if it is not there.

    With `serve_socket` it also serves `PATH/socket` (mode 0600), so that commands on the same store meet this
    process instead of colliding with it.

    Raises Unavailable when another process has the store, DataLoss when its files are damaged,
    FailedPrecondition when a newer orlop made it. An exception of the block leaves as itself.
    Cancellation: everything is closed; what calls had answered stays. Durability: see `Store`.
    """
    from ..actors.supervisor import run_store  # the whole store: who only speaks to one does not wait for it

    check_identifier(namespace, "namespace")
    config = path if isinstance(path, StoreConfig) else StoreConfig(os.path.abspath(os.fspath(path)))
    listen = [Address(path=f"{config.root}/socket")] if serve_socket else []
    listen += [parse_address(text) for text in config.listen]
    expose = parse_address(config.metrics.listen) if config.metrics.listen else None
    async with run_store(config, world or real_world(), host_platform(), listen, expose=expose) as running:
        yield running.store.in_namespace(namespace)


@asynccontextmanager
async def connect(
    address: str | Address, *, namespace: str = DEFAULT_NAMESPACE, world: World | None = None
) -> AsyncIterator[Store]:
    """A store behind a socket (`unix:PATH` or `tcp:HOST:PORT`), for the length of the block.

    Raises Unavailable when nobody answers. A lost connection fails reads under way with Unavailable and
    writes with Unknown. An exception of the block leaves as itself.
    """
    check_identifier(namespace, "namespace")
    where = parse_address(address) if isinstance(address, str) else address
    async with connect_store(where, world or real_world(), namespace) as store:
        yield store


async def serve(
    config: StoreConfig,
    *,
    world: World | None = None,
    task_status: trio.TaskStatus[RunningStore] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A whole daemon: `running = await nursery.start(orlop.serve, config)`.

    `running.addresses` says where it listens, `running.store` is its typed interface. It serves until it is
    cancelled, and then drains: what was accepted is answered first.
    """
    async with serving(config, world=world) as running:
        task_status.started(running)
        await trio.sleep_forever()


@asynccontextmanager
async def serving(config: StoreConfig, *, world: World | None = None) -> AsyncIterator[RunningStore]:
    """The same, for the length of the block. Raises what `open_store` raises."""
    from ..actors.supervisor import run_store

    listen = [parse_address(text) for text in config.listen] or [Address(path=f"{config.root}/socket")]
    expose = parse_address(config.metrics.listen) if config.metrics.listen else None
    async with run_store(config, world or real_world("orlopd"), host_platform(), listen, expose=expose) as running:
        yield running
