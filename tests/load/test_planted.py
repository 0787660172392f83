"""A planted slowdown is found by a comparison of two runs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import trio

from orlop.bin.load.comparison.compare import compare, describe, exit_code
from orlop.bin.load.result import Result
from orlop.bin.load.scenario import Load, Scenario

from ..support.loading import planted_daemon, run_plan, short

POPULATED = "[population]\nimages = 50"
SOAK = pytest.mark.skipif("ORLOP_SOAK" not in os.environ, reason="takes minutes: `make soak`")


async def measured(folder: Path, fault: str, scenario: Scenario, rounds: int) -> Result:
    with planted_daemon(fault, folder) as address:
        result, _ = await run_plan(scenario, folder, address=address, verify=False, rounds=rounds)
    return result


@SOAK
async def test_a_handler_that_sleeps_is_found_and_named(tmp_path: Path) -> None:
    """Both at once: what disturbs the machine disturbs both."""
    scenario = short("image-get 3, image-create", POPULATED, load=Load(clients=2), duration_s=11.0)
    found: dict[str, Result] = {}

    async def measure(fault: str) -> None:
        found[fault] = await measured(tmp_path / fault, fault, scenario, 1)

    async with trio.open_nursery() as nursery:
        for fault in ("none", "slow-get"):
            nursery.start_soon(measure, fault)
    before, after = found["none"], found["slow-get"]
    comparison = compare(before, after)
    print(describe(comparison))
    assert ("image-get", "p50") in {(each.operation, each.what) for each in comparison.of("worse")}
    assert exit_code(comparison) == 1


@SOAK
async def test_a_sync_that_is_done_twice_is_found(tmp_path: Path) -> None:
    """Round by round in turns: what disturbs the machine disturbs both."""
    scenario = short("image-create", load=Load(clients=1), duration_s=4.0)
    found: dict[str, list[Result]] = {"none": [], "double-sync": []}
    for number in range(12):
        for fault, results in found.items():
            results.append(await measured(tmp_path / f"{fault}-{number}", fault, scenario, 1))
    comparison = compare(*(_together(results) for results in found.values()))
    print(describe(comparison))
    worse = {(each.operation, each.what) for each in comparison.of("worse")}
    assert worse & {("image-create", "p50"), ("image-create", "rate")}


def _together(results: list[Result]) -> Result:
    rounds = [round_ for result in results for round_ in result.rounds]
    return msgspec.structs.replace(results[0], rounds=rounds)
