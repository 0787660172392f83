"""The store itself: who serves, and collections."""

from __future__ import annotations

import msgspec

__all__ = ["Collect", "Collection", "GetServer", "ListPlugins", "Plugin", "Plugins", "ServerInfo"]


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


class Collect(msgspec.Struct, frozen=True):
    """Run a collection that begins now, and wait for it."""


class Collection(msgspec.Struct, frozen=True):
    """What a collection removed, counted over all namespaces; `freed` in bytes on disk."""

    leases: int = 0
    images: int = 0
    ingests: int = 0
    content: int = 0
    snapshots: int = 0
    blobs: int = 0
    freed: int = 0
    duration_ms: int = 0
