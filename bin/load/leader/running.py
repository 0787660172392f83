"""A whole run: who is to be loaded, the phases, the kills, the comparison at the end; and what came of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import msgspec
import trio

from ....actors.failures import first_of
from ....protocol.errors import InvalidArgument
from ..messages import Setup
from ..result import Result, Round, SearchStep, Verification, this_machine
from ..scenario import Pull, Scenario
from .crew import Crew, Gathered, open_crew
from .search import find_rate
from .server import OwnServer, own_server

__all__ = ["Plan", "Watcher", "fill_in", "run_scenario"]


@dataclass(frozen=True)
class Plan:
    """`driver`: in-process, unix, tcp or containerd. `address`: of a server that is there; else `folder`: of a store,
    in a worker's own process (in-process) or served by a daemon that is started for it (unix, tcp). `run`: part of all
    names that are made. `bound_s`: find the highest rate with a p99 under it, instead of the scenario's load; `ramp`:
    rates between which it goes evenly, instead. `kills`: how often the daemon is killed in each round."""

    scenario: Scenario
    driver: str
    address: str
    folder: str
    workers: int
    run: str
    rounds: int = 1
    verify: bool = False
    kills: int = 0
    bound_s: float = 0.0
    step_s: float = 5.0
    ramp: tuple[float, float] | None = None
    label: str = ""
    connect_s: float = 30.0


class Watcher(Protocol):
    """Is told how it goes; must not block."""

    def populating(self, done: int, total: int) -> None: ...

    def phase(self, name: str, seconds: float) -> None:
        """Another phase begins."""

    def second(self, gathered: Gathered) -> None:
        """Another second of it is complete."""

    def searched(self, step: SearchStep) -> None: ...

    def killed(self) -> None: ...

    def verifying(self) -> None: ...


def fill_in(scenario: Scenario, registry: str) -> Scenario:
    """References with `{registry}` in them get a host. Raises InvalidArgument: none was given."""
    operations = []
    for operation in scenario.operations:
        if isinstance(operation, Pull):
            if not registry and any("{registry}" in reference for reference in operation.references):
                raise InvalidArgument(
                    f"scenario {scenario.name} pulls from a registry", hint="give --registry HOST:PORT"
                )
            references = [reference.replace("{registry}", registry) for reference in operation.references]
            operation = msgspec.structs.replace(operation, references=references)
        operations.append(operation)
    return msgspec.structs.replace(scenario, operations=operations)


async def run_scenario(plan: Plan, watcher: Watcher) -> Result:
    """Raises OrlopError. Cancellation: nothing runs on, and what was made stays in the store."""
    try:
        return await _run(plan, watcher)
    except BaseExceptionGroup as group:
        raise first_of(group) from None


async def _run(plan: Plan, watcher: Watcher) -> Result:
    async with _server(plan) as server, trio.open_nursery() as nursery:
        if server is not None:
            nursery.start_soon(server.watch)
        address = server.address if server is not None else plan.address or plan.folder
        verify = plan.verify or plan.kills > 0
        crew_of = open_crew(
            plan.workers,
            lambda index: Setup(
                plan.scenario, plan.driver, address, index, plan.workers, plan.run, verify, plan.connect_s
            ),
        )
        async with crew_of as crew:
            await crew.populate(watcher.populating)
            result = await _measure(plan, crew, server, address, watcher)
        nursery.cancel_scope.cancel()
    return result


@asynccontextmanager
async def _server(plan: Plan) -> AsyncIterator[OwnServer | None]:
    if plan.address or plan.driver == "in-process":
        yield None
        return
    async with own_server(plan.folder, plan.driver) as server:
        yield server


async def _measure(plan: Plan, crew: Crew, server: OwnServer | None, address: str, watcher: Watcher) -> Result:
    scenario = plan.scenario
    if scenario.warmup_s:
        watcher.phase("warm-up", scenario.warmup_s)
        await crew.run(scenario.warmup_s, rate=scenario.load.rate, watch=watcher.second)
    search: list[SearchStep] = []
    rate, rate_end = scenario.load.rate, scenario.load.rate
    if plan.bound_s:
        watcher.phase("search", plan.step_s)
        rate, search = await find_rate(crew, plan.bound_s, plan.step_s, watcher.searched, watcher.second)
        rate_end = rate
    elif plan.ramp:
        rate, rate_end = plan.ramp
    rounds: list[Round] = []
    for number in range(plan.rounds):
        watcher.phase(f"round {number + 1} of {plan.rounds}", scenario.duration_s)
        async with trio.open_nursery() as nursery:
            if server is not None and plan.kills:
                nursery.start_soon(_kill_now_and_then, server, plan, watcher)
            outcome, _ = await crew.run(scenario.duration_s, rate=rate, rate_end=rate_end, watch=watcher.second)
            nursery.cancel_scope.cancel()
        rounds.append(outcome)
    verification = await _verify(plan, crew, server, watcher)
    return Result(
        scenario=scenario,
        driver=plan.driver,
        address=address,
        workers=plan.workers,
        machine=this_machine(plan.folder or os.getcwd()),
        rounds=rounds,
        search=search,
        verification=verification,
        label=plan.label,
    )


async def _kill_now_and_then(server: OwnServer, plan: Plan, watcher: Watcher) -> None:
    for _ in range(plan.kills):
        await trio.sleep(plan.scenario.duration_s / (plan.kills + 1))
        with trio.CancelScope(shield=True):  # it is started again in any case
            await server.kill()
        watcher.killed()


async def _verify(plan: Plan, crew: Crew, server: OwnServer | None, watcher: Watcher) -> Verification | None:
    if not plan.verify and not plan.kills:
        return None
    watcher.verifying()
    outcome = await crew.verify()
    return msgspec.structs.replace(outcome, kills=server.kills if server is not None else 0)
