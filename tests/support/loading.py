"""Runs of the load harness as a test wants them: short, and their results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orlop.bin.load.leader.crew import Gathered
from orlop.bin.load.leader.running import Plan, run_scenario
from orlop.bin.load.result import Result, SearchStep
from orlop.bin.load.scenario import Scenario, parse_scenario

from .shell import ENVIRONMENT, ROOT, started

__all__ = ["LOAD", "Quiet", "load", "planted_daemon", "run_plan", "short"]

LOAD = [sys.executable, "-c", "from orlop.bin.load.cli import main; main()"]
TIMEOUT_S = 120.0


class Quiet:
    """A Watcher that remembers what it heard."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.seconds = self.kills = 0
        self.steps: list[SearchStep] = []

    def populating(self, done: int, total: int) -> None:
        pass

    def phase(self, name: str, seconds: float) -> None:
        self.phases.append(name)

    def second(self, gathered: Gathered) -> None:
        self.seconds += 1

    def searched(self, step: SearchStep) -> None:
        self.steps.append(step)

    def killed(self) -> None:
        self.kills += 1

    def verifying(self) -> None:
        self.phases.append("verifying")


def short(operations: str, rest: str = "", **changes: object) -> Scenario:
    """A scenario of less than a second; `operations`: names and weights, as `image-get 2, image-create 1`."""
    lines = ['name = "short"', "warmup_s = 0.1", "duration_s = 0.7", rest]
    for each in operations.split(","):
        name, _, weight = each.strip().partition(" ")
        lines += ["[[operations]]", f'do = "{name}"', f"weight = {weight or 1}"]
    return msgspec.structs.replace(parse_scenario("\n".join(lines), "short"), **changes)  # type: ignore[arg-type]


async def run_plan(scenario: Scenario, folder: Path, driver: str = "unix", **more: object) -> tuple[Result, Quiet]:
    watcher = Quiet()
    settings = {"workers": 1, "run": "", "address": "", "verify": True, **more}
    plan = Plan(scenario=scenario, driver=driver, folder=str(folder), **settings)  # type: ignore[arg-type]
    return await run_scenario(plan, watcher), watcher


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LOAD, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@contextmanager
def planted_daemon(fault: str, folder: Path) -> Iterator[str]:
    """The address of a daemon with a fault."""
    folder.mkdir(exist_ok=True)
    address = f"unix:{folder}/socket"
    command = [sys.executable, "-m", "tests.support.planted", fault, str(folder / "store"), address]
    with started(command, {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        yield address
