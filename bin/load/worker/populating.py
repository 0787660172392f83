"""What is to be there before a scenario begins: made by all workers together, and left as it is if it is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import trio

from ....protocol.errors import AlreadyExists
from ..scenario import Pull, Scenario
from ..steps.client import (
    POPULATED,
    Ingest,
    Step,
    namespace_name,
    populated_blob,
    populated_image,
    populated_snapshot,
    pull_namespace,
)
from ..targets.interface import ROOT_LABEL, Target
from .doing import get_ready
from .ledger import Thing

__all__ = ["count_population", "populate", "populated_things"]

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
    if any(isinstance(operation, Pull) for operation in scenario.operations):
        for client in range(index, scenario.load.clients, workers):
            await target.ensure_namespace(pull_namespace(client))
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


def populated_things(scenario: Scenario, index: int, workers: int) -> Iterator[Thing]:
    """A worker's share of what must still be there in the end."""
    population = scenario.population
    number = 0
    for tenant in range(scenario.tenants.count):
        namespace = namespace_name(tenant)
        for image in range(population.images):
            number += 1
            if number % workers == index:
                yield Thing("image", namespace, populated_image(image))
        for each in range(population.blobs):
            number += 1
            if number % workers == index:
                blob = populated_blob(scenario, tenant, each)
                yield Thing("blob", namespace, blob.name, blob.size)
        for snapshot in range(population.snapshots):
            number += 1
            if number % workers == index:
                yield Thing("snapshot", namespace, populated_snapshot(snapshot))


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
        if await target.has_snapshot(namespace, name):
            return
        try:
            await target.prepare_snapshot(namespace, f"{name}-active", "")
        except AlreadyExists:  # a run before this one came no further
            pass
        await target.commit_snapshot(namespace, name, f"{name}-active")

    return make
