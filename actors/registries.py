"""How this store speaks to registries: its configuration, and what all pulls and pushes share of a host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from ..protocol.messages import RegistryAccess
from ..protocol.registry.references import Reference
from ..protocol.registry.traffic import Traffic, TrafficLimits
from ..protocol.world import Work, World
from .config import RegistryConfig, TransferConfig
from .progress import Progress

if TYPE_CHECKING:
    from ..protocol.registry.client import Registry

__all__ = ["Registries"]

log = structlog.get_logger("orlop.registry")


class Registries:
    def __init__(self, world: World, config: RegistryConfig, transfer: TransferConfig) -> None:
        self._world = world
        self._config = config
        self.stall_s = transfer.stall_s
        self.traffic = Traffic(
            TrafficLimits(config.connections_per_host, config.requests_per_s, config.retries_per_host)
        )

    @asynccontextmanager
    async def open(self, reference: Reference, access: RegistryAccess, progress: Progress) -> AsyncIterator[Registry]:
        """A repository at its registry, for the length of the block. What the registry warns of, each text once, is
        told with the progress. Raises InvalidArgument (configuration)."""
        registry_type = await self._world.workers.run(Work.FILES, _registry_type)
        told: set[str] = set()

        def warned(text: str) -> None:
            if text not in told:
                told.add(text)
                log.warning("a registry warns", registry=reference.host, text=text)
                progress.note(f"{reference.host}: {text}")

        async with registry_type.open(
            reference,
            self._world,
            access,
            self.traffic,
            hosts_dir=self._config.hosts_dir,
            stall_s=self.stall_s,
            warned=warned,
        ) as registry:
            yield registry


def _registry_type() -> type[Registry]:
    """Its first import takes tens of milliseconds: not on the loop, and not for a store that never pulls."""
    from ..protocol.registry.client import Registry

    return Registry
