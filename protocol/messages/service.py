"""The store itself: who serves."""

from __future__ import annotations

import msgspec

__all__ = ["GetServer", "ListPlugins", "Plugin", "Plugins", "ServerInfo"]


class GetServer(msgspec.Struct, frozen=True):
    pass


class ServerInfo(msgspec.Struct, frozen=True):
    """`uuid` is the store's own and stays with the data; `pidns` is 0 where there is none."""

    uuid: str
    pid: int
    pidns: int
    version: str


class ListPlugins(msgspec.Struct, frozen=True):
    filters: list[str] = []


class Plugin(msgspec.Struct, frozen=True):
    type: str
    id: str
    capabilities: list[str] = []
    exports: dict[str, str] = {}


class Plugins(msgspec.Struct, frozen=True):
    items: list[Plugin]
