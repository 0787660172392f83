"""What serves here: the store's identity, and the parts it is made of. Source: spec metadata 15."""

from __future__ import annotations

import msgspec

from ..protocol.filters.fields import PLUGIN
from ..protocol.filters.matching import compile_filters
from ..protocol.messages import Context, GetServer, ListPlugins, Plugin, Plugins, ServerInfo
from ..protocol.version import __version__
from ..protocol.world import Work, World

__all__ = ["Introspection"]


class Introspection:
    """`plugins` stand in the order in which they were started."""

    def __init__(self, store_id: str, plugins: list[Plugin], world: World) -> None:
        self._store_id = store_id
        self._plugins = plugins
        self._world = world

    async def server(self, _: GetServer, __: Context) -> msgspec.Struct:
        status = await self._world.workers.run(Work.FILES, self._world.files.status, "/proc/self/ns/pid")
        return ServerInfo(self._store_id, self._world.pid, status.inode if status else 0, __version__)

    async def plugins(self, request: ListPlugins, _: Context) -> msgspec.Struct:
        """Raises InvalidArgument (filters)."""
        matcher = compile_filters(PLUGIN, request.filters)
        return Plugins([each for each in self._plugins if matcher is None or matcher.accepts_record(each)])
