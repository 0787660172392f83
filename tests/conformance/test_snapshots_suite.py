"""The scenarios over every snapshotter and way in, each alone, and side by side in namespaces of one store.

Source: spec snapshots 11; the scenarios themselves: snapshot_suite.py, snapshot_store_suite.py.
"""

from __future__ import annotations

import pytest
import trio

from ..support.snapshotters import Home, Subject
from . import snapshot_store_suite, snapshot_suite
from .snapshot_suite import Scenario

SCENARIOS = [*snapshot_suite.SCENARIOS, *snapshot_store_suite.SCENARIOS]
LONG = snapshot_suite.s21_a_hundred_and_twenty_eight_layers
MOUNTED = [run for run in snapshot_suite.MOUNTED if run is not LONG]


def name_of(run: object) -> str:
    return getattr(run, "__name__", "")


@pytest.mark.parametrize("run", SCENARIOS, ids=name_of)
async def test_scenario(run: Scenario, subject_in_process: Subject) -> None:
    await run(subject_in_process)


@pytest.mark.parametrize("run", MOUNTED, ids=name_of)
async def test_mounted_scenario(run: Scenario, mounting_subject: Subject) -> None:
    await run(mounting_subject.within("a.b-c_d"))


@pytest.mark.slow
async def test_long_scenario(subject_in_process: Subject, mounting: None) -> None:
    await LONG(subject_in_process)


async def test_scenarios_in_namespaces_of_one_store_do_not_meet(subject: Subject) -> None:
    """N1; and by every way in"""
    async with trio.open_nursery() as nursery:
        for run in SCENARIOS:
            nursery.start_soon(run, subject.within(name_of(run).replace("_", "-")))


async def test_a_store_closes_and_opens_again_with_nothing_in_it(lasting_home: Home) -> None:
    """S18"""
    for _ in range(2):
        async with lasting_home.open() as subject:
            await subject.prepare("a")
            await subject.commit("c", "a")
            await subject.snapshots.remove("c")
            assert await subject.names() == set()
