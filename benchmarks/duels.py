"""The same scenario against both, by the load harness, in turns: a few seconds here, a few there, and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import msgspec

from orlop.bin.load.leader.crew import Crew, open_crew
from orlop.bin.load.messages import Setup
from orlop.bin.load.result import Round
from orlop.bin.load.scenario import Scenario, parse_scenario

from .figures import Comparison, Side
from .pair import Server, containerd, orlop_daemon

__all__ = ["Duel", "duel", "scenario_of"]

CONNECT_S = 30.0


class Duel(msgspec.Struct, frozen=True):
    """One comparison: `operations` as the scenario has them, measured by `count` alone (empty: all of them)."""

    key: str
    title: str
    scenario: Scenario
    count: str = ""
    aim: str = ""


def scenario_of(operations: str, clients: int, population: str = "", workers_share: str = "shared") -> Scenario:
    """From lines of TOML: each operation one, as `do = "image-get"; weight = 2`."""
    lines = ['name = "book"', "warmup_s = 0", "[load]", f"clients = {clients}", f'connections = "{workers_share}"']
    lines += ["[population]", *population.split("; ")]
    for operation in operations.split(" + "):
        lines += ["[[operations]]", *operation.split("; ")]
    return parse_scenario("\n".join(lines), "book")


async def duel(duels: Sequence[Duel], folder: Path, seconds: float, rounds: int, *, both: bool) -> list[Comparison]:
    """Fresh servers for the whole list; `both`: False without containerd."""
    found = []
    with orlop_daemon(folder / "orlop") as ours:
        if both:
            with containerd(folder / "containerd") as theirs:
                found = [await _fight(each, [ours, theirs], seconds, rounds) for each in duels]
        else:
            found = [await _fight(each, [ours], seconds, rounds) for each in duels]
    return found


async def _fight(each: Duel, servers: Sequence[Server], seconds: float, rounds: int) -> Comparison:
    fought: list[list[Round]] = [[] for _ in servers]
    async with AsyncExitStack() as stack:
        crews = [await stack.enter_async_context(_ready(each, server)) for server in servers]
        for crew in crews:
            await crew.run(min(1.0, seconds / 2))
        for number in range(rounds):  # who comes first has the other's leftovers to bear least
            for crew, outcomes in list(zip(crews, fought, strict=True))[:: -1 if number % 2 else 1]:
                outcomes.append((await crew.run(seconds))[0])
    sides = [_side(each, outcomes) for outcomes in fought]
    print(f"  {each.title:44} " + "   ".join(f"{side.value:10,.0f} /s" for side in sides), flush=True)
    return Comparison(each.key, each.title, "/s", "higher", sides[0], sides[1] if len(sides) > 1 else None, each.aim)


@asynccontextmanager
async def _ready(each: Duel, server: Server) -> AsyncIterator[Crew]:
    scenario = each.scenario
    workers = 2 if scenario.load.clients >= 64 else 1
    run = f"-{each.key}"

    def setup(index: int) -> Setup:
        return Setup(scenario, server.driver, server.address, index, workers, run, False, CONNECT_S)

    async with open_crew(workers, setup) as crew:
        await crew.populate(lambda *_: None)
        yield crew


def _side(each: Duel, rounds: Sequence[Round]) -> Side:
    values, p99s, cpus = [], [], []
    for round_ in rounds:
        counted = [found for found in round_.operations if each.count in ("", found.operation)]
        failed = {name: count for found in round_.operations for name, count in found.errors.items()}
        if failed:
            print(f"    {each.title}: errors {failed}", flush=True)
        values.append(sum(found.rate for found in counted))
        p99s.append(max((found.p99_us for found in counted), default=0))
        done = sum(found.count for found in round_.operations)
        cpus.append(1e6 * round_.server_cpu_s / done if done else 0.0)
    return Side(values, median(cpus), median(p99s))
