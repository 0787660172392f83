"""What is to be there before a scenario begins: made by all workers together, and left as it is if it is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import trio

from ....protocol.errors import AlreadyExists
from ..scenario import Scenario
from ..steps.client import (
    POPULATED,
    Ingest,
    Step,
    namespace_name,
    populated_blob,
    populated_image,
    populated_snapshot,
)
from ..targets.interface import ROOT_LABEL, Target
from .doing import get_ready

__all__ = ["count_population", "populate"]

_AT_ONCE = 64
_TELL_EVERY = 1000

Making = Callable[[Target], Awaitable[None]]


def count_population(scenario: Scenario) -> int:
    population = scenario.population
    return scenario.tenants.count * (population.images + population.blobs + population.snapshots)


async def populate(
    target: Target, scenario: Scenario, index: int, workers: int, tell: Callable[[int], Awaitable[None]]
) -> None:
    """This worker's share. `tell` hears how much is done, now and then. Raises OrlopError; doing it again goes on."""
    for tenant in range(scenario.tenants.count):
        await target.ensure_namespace(namespace_name(tenant))
    makings = (making for number, making in enumerate(_all(scenario)) if number % workers == index)
    done = 0

    async def make() -> None:
        nonlocal done
        for making in makings:
            try:
                await making(target)
            except AlreadyExists:
                pass
            done += 1
            if done % _TELL_EVERY == 0:
                await tell(done)

    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(make)
    await tell(done)


def _all(scenario: Scenario) -> Iterator[Making]:
    population = scenario.population
    for tenant in range(scenario.tenants.count):
        for number in range(population.images):
            yield _image(tenant, number)
        for number in range(population.blobs):
            yield _blob(scenario, tenant, number)
        for number in range(population.snapshots):
            yield _snapshot(tenant, number)


def _image(tenant: int, number: int) -> Making:
    async def make(target: Target) -> None:
        await target.create_image(namespace_name(tenant), populated_image(number), POPULATED)

    return make


def _blob(scenario: Scenario, tenant: int, number: int) -> Making:
    async def make(target: Target) -> None:
        blob = populated_blob(scenario, tenant, number)
        await get_ready(Step("", "", Ingest(blob)))
        await target.ingest(namespace_name(tenant), blob, {ROOT_LABEL: "load"})

    return make


def _snapshot(tenant: int, number: int) -> Making:
    async def make(target: Target) -> None:
        name = populated_snapshot(number)
        namespace = namespace_name(tenant)
        if not await target.has_snapshot(namespace, name):
            await target.prepare_snapshot(namespace, f"{name}-active", "")
            await target.commit_snapshot(namespace, name, f"{name}-active")

    return make
