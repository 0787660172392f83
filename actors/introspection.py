"""What serves here: the store's identity, the parts it is made of, and how they stand. Source: spec metadata 15."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import trio

from ..protocol.errors import OrlopError
from ..protocol.filters.fields import PLUGIN
from ..protocol.filters.matching import compile_filters
from ..protocol.messages import Context, GetServer, ListPlugins, Plugin, Plugins, PluginStatus, ServerInfo
from ..protocol.registry.platforms import Platform
from ..protocol.version import STORE_FORMAT, __version__
from ..protocol.world import Work, World
from .config import StoreConfig
from .gc import Collector
from .snapshotters import SNAPSHOTTERS, Snapshotters
from .storage import StorageActor

__all__ = ["Introspection", "Part", "parts_of"]

_OK: Final = (PluginStatus.OK, "")
_SNAPSHOTTER: Final = "io.orlop.snapshotter.v1"
State = Callable[[], Awaitable[tuple[PluginStatus, str]]]


class Part(NamedTuple):
    """`state`: how it stands now; None for what works whenever the store does."""

    plugin: Plugin
    state: State | None = None


class Introspection:
    """`parts` stand in the order in which they were started."""

    def __init__(self, store_id: str, parts: Sequence[Part], snapshotters: Snapshotters, world: World) -> None:
        self._store_id = store_id
        self._parts = parts
        self._snapshotters = snapshotters
        self._world = world

    async def server(self, _: GetServer, __: Context) -> msgspec.Struct:
        status = await self._world.workers.run(Work.FILES, self._world.files.status, "/proc/self/ns/pid")
        return ServerInfo(self._store_id, self._world.pid, status.inode if status else 0, __version__)

    async def plugins(self, request: ListPlugins, _: Context) -> msgspec.Struct:
        """Only those that the filters let pass are looked at. Raises InvalidArgument (filters)."""
        matcher = compile_filters(PLUGIN, request.filters)
        wanted = [part for part in self._parts if matcher is None or matcher.accepts_record(part.plugin)]
        return Plugins([await self._now(part) for part in wanted])

    async def _now(self, part: Part) -> Plugin:
        plugin = part.plugin
        if part.state is None:
            await trio.lowlevel.checkpoint()
            return plugin
        status, error = await part.state()
        if plugin.type == _SNAPSHOTTER and status is PluginStatus.OK and plugin.id == await self._default():
            plugin = msgspec.structs.replace(plugin, capabilities=["default", *plugin.capabilities])
        return msgspec.structs.replace(plugin, status=status, error=error)

    async def _default(self) -> str:
        try:
            return await self._snapshotters.default()
        except OrlopError:  # its own line says why
            return ""


def parts_of(
    config: StoreConfig, storage: StorageActor, collector: Collector, snapshotters: Snapshotters, host: Platform
) -> list[Part]:
    """What a store of these settings is made of."""

    async def metadata() -> tuple[PluginStatus, str]:
        return (PluginStatus.ERROR, "a write failed; the data is being opened again") if storage.reopening else _OK

    async def gc() -> tuple[PluginStatus, str]:
        return (PluginStatus.ERROR, collector.trouble) if collector.trouble else _OK

    async def opt() -> tuple[PluginStatus, str]:
        return _OK if config.install_path else (PluginStatus.SKIP, "install_path is empty in the settings")

    def snapshotter(name: str) -> Part:
        exports = {"root": snapshotters.root(name)}
        plugin = Plugin(_SNAPSHOTTER, name, snapshotters.capabilities(name), exports, [str(host)])
        return Part(plugin, lambda: snapshotters.state(name))

    policy: list[str] = [config.content_sharing_policy]
    return [
        Part(Plugin("io.orlop.metadata.v1", "leveldb", exports={"format": str(STORE_FORMAT)}), metadata),
        Part(Plugin("io.orlop.content.v1", "local", policy, {"root": f"{config.root}/blobs"})),
        *(snapshotter(name) for name in SNAPSHOTTERS),
        Part(Plugin("io.orlop.differ.v1", "walking", ["gzip", "zstd"], platforms=[str(host)])),
        Part(Plugin("io.orlop.event.v1", "journal")),
        Part(Plugin("io.orlop.gc.v1", "witnesses"), gc),
        Part(Plugin("io.orlop.transfer.v1", "registry")),
        Part(Plugin("io.orlop.image-verifier.v1", "bindir")),
        Part(
            Plugin("io.orlop.opt.v1", "path", exports={"path": config.install_path} if config.install_path else {}), opt
        ),
    ]
