"""The store itself: who serves."""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = ["GetServer", "ListPlugins", "Plugin", "PluginStatus", "Plugins", "ServerInfo"]


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


class PluginStatus(Enum):
    OK = "ok"
    SKIP = "skip"
    """It does not work on this machine, and nobody said that it should."""
    ERROR = "error"


class Plugin(msgspec.Struct, frozen=True):
    """A part of the store. `platforms`: empty for what is the same on all. `exports`: what others may use of it, such
    as a folder by the name `root`. `error`: why the status is not `ok`."""

    type: str
    id: str
    capabilities: list[str] = []
    exports: dict[str, str] = {}
    platforms: list[str] = []
    status: PluginStatus = PluginStatus.OK
    error: str = ""


class Plugins(msgspec.Struct, frozen=True):
    items: list[Plugin]
