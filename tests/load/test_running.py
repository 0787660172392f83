"""Runs from one end to the other: every driver of ours, both loops, every operation, kills, and what is found wrong."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import msgspec
import pytest
import trio

import orlop
from orlop.bin.load.histograms import decoded, percentiles_us
from orlop.bin.load.messages import Phase
from orlop.bin.load.result import Result, read_result, write_result
from orlop.bin.load.scenario import Load
from orlop.bin.load.steps.chance import chance_of
from orlop.bin.load.steps.client import Client, Publish
from orlop.bin.load.targets import store as store_target
from orlop.bin.load.worker.clients import Arrivals
from orlop.bin.load.worker.doing import check_everything, do_step
from orlop.bin.load.worker.ledger import Ledger
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, Unavailable

from ..support.loading import planted_daemon, run_plan, short

POPULATED = "[population]\nimages = 20\nblobs = 20\nblob_size = 30000\nsnapshots = 3"
ALL = (
    "image-get 4, image-list 0.2, image-create 4, image-update 2, image-delete, image-publish, blob-ingest, blob-read, "
    "blob-read-at, snapshot-prepare, snapshot-commit, collect 0.1"
)
FEW = Load(clients=8)


def errors(result: Result) -> dict[str, dict[str, int]]:
    return {each.operation: each.errors for round_ in result.rounds for each in round_.operations if each.errors}


@pytest.mark.parametrize("driver", ["in-process", "unix", "tcp"])
async def test_every_operation_is_done_and_found_as_it_was_acknowledged(tmp_path: Path, driver: str) -> None:
    scenario = short(ALL, POPULATED, load=FEW, duration_s=1.5)
    result, watcher = await run_plan(scenario, tmp_path / "store", driver)
    [round_] = result.rounds
    done = {each.operation: each.count for each in round_.operations}
    assert {each.partition(" ")[0] for each in ALL.split(", ")} - {"collect", "image-list"} <= set(done)
    assert errors(result) == {}
    assert result.verification is not None
    assert (result.verification.wrong, result.verification.uncertain) == (0, 0)
    assert result.verification.writes > 20
    assert watcher.phases == ["warm-up", "round 1 of 1", "verifying"]
    assert round_.server[-1].transactions > round_.server[0].transactions
    assert sum(count for _, count in round_.batches) > 0
    assert 0 < round_.client_cpu_s < 60
    assert round_.server[-1].resident_bytes > 10_000_000


async def test_figures_of_an_operation_belong_together(tmp_path: Path) -> None:
    result, _ = await run_plan(short("image-get", POPULATED, load=FEW), tmp_path / "store")
    [[gets]] = [round_.operations for round_ in result.rounds]
    assert gets.count == sum(each.count for each in gets.series) > 100
    assert gets.rate == pytest.approx(gets.count / result.rounds[0].seconds)
    assert gets.p50_us <= gets.p90_us <= gets.p99_us <= gets.p999_us <= gets.max_us
    histogram = decoded(gets.histogram)
    assert histogram.get_total_count() == gets.count
    assert percentiles_us(histogram, 50, 99) == [gets.p50_us, gets.p99_us]
    # Eight clients that never think: what each waits is what there is of time.
    assert gets.mean_us * gets.count == pytest.approx(8 * result.rounds[0].seconds * 1e6, rel=0.25)


async def test_workers_share_the_clients(tmp_path: Path) -> None:
    scenario = short("image-create", load=Load(clients=5, connections="own"))
    result, _ = await run_plan(scenario, tmp_path / "store", workers=2)
    assert errors(result) == {}
    assert result.verification is not None
    assert result.verification.wrong == 0
    # Both workers' writes were compared.
    assert result.verification.reads == result.verification.writes > result.rounds[0].operations[0].count


async def test_rounds_and_a_second_run_meet_nothing_of_each_other(tmp_path: Path) -> None:
    scenario = short("image-create, blob-ingest, snapshot-prepare", load=FEW, duration_s=0.5)
    for run in ("-a", "-b"):
        result, _ = await run_plan(scenario, tmp_path / "store", rounds=2, run=run)
        assert len(result.rounds) == 2
        assert errors(result) == {}


# open loop ---------------------------------------------------------------------------------------------------


async def test_what_arrives_is_done_at_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    scenario = short("image-get", POPULATED, load=Load(clients=16, rate=300), duration_s=2.0)
    result, _ = await run_plan(scenario, tmp_path / "store")
    [round_] = result.rounds
    assert round_.offered == 300
    assert sum(each.count for each in round_.operations) == pytest.approx(600, abs=4 * 600**0.5)


async def test_an_operation_that_has_to_wait_is_late(tmp_path: Path) -> None:
    """No coordinated omission: a handler that takes 4 ms, asked 500 times a second, falls behind, and every arrival
    that had to wait says so; a closed loop of one client sees 4 ms."""
    with planted_daemon("slow-get", tmp_path) as address:
        scenario = short("image-get", POPULATED, load=Load(clients=1), duration_s=1.5)
        closed, _ = await run_plan(scenario, tmp_path, address=address)
        hurried = msgspec.structs.replace(scenario, load=Load(clients=64, rate=500))
        opened, _ = await run_plan(hurried, tmp_path, address=address)
    assert closed.rounds[0].operations[0].p50_us < 20_000
    assert opened.rounds[0].operations[0].p50_us > 100_000
    count = opened.rounds[0].operations[0].count
    assert count == pytest.approx(750, abs=4 * 750**0.5)  # all that arrived, though late
    assert opened.rounds[0].seconds > 2


def test_arrivals_come_at_their_rate() -> None:
    phase = Phase(1, 100.0, 10.0, 50.0, 150.0)
    at = list(Arrivals(phase, chance_of("a"), even=False))
    assert at == sorted(at) == list(Arrivals(phase, chance_of("a"), even=False))
    assert 100 <= at[0] <= at[-1] < 110
    assert len(at) == pytest.approx(1000, abs=4 * 1000**0.5)
    assert sum(1 for each in at if each < 105) == pytest.approx(375, abs=4 * 375**0.5)
    ramp = [len(list(Arrivals(Phase(1, 0.0, 10.0, 0.1, 1000.0), chance_of(n), even=False))) for n in range(5)]
    assert all(count == pytest.approx(5000, abs=300) for count in ramp)
    even = list(Arrivals(Phase(1, 0.0, 2.0, 100.0, 100.0), chance_of("a"), even=True))
    assert len(even) in (199, 200)
    other = list(Arrivals(Phase(1, 0.0, 2.0, 100.0, 100.0), chance_of("a"), even=True, first=0.5))
    assert other[0] == pytest.approx(0.005)
    gaps = [second - first for first, second in itertools.pairwise(even)]
    assert max(gaps) == pytest.approx(0.01)


async def test_the_highest_rate_under_a_bound_is_found(tmp_path: Path) -> None:
    """With a handler that takes 4 ms it cannot be above 250."""
    with planted_daemon("slow-get", tmp_path) as address:
        scenario = short("image-get", POPULATED, load=Load(clients=64), warmup_s=0.0)
        result, watcher = await run_plan(scenario, tmp_path, address=address, bound_s=0.1, step_s=1.0)
    held = [step for step in result.search if step.held]
    assert result.search == watcher.steps
    assert all(step.p99_us <= 100_000 for step in held)
    assert 60 < max(step.rate for step in held) < 250
    assert result.rounds[0].offered == max(step.rate for step in held)


async def test_a_bound_that_cannot_be_kept_is_said_so(tmp_path: Path) -> None:
    with planted_daemon("slow-get", tmp_path) as address, pytest.raises(FailedPrecondition) as refused:
        scenario = short("image-get", POPULATED, load=Load(clients=4), warmup_s=0.0)
        await run_plan(scenario, tmp_path, address=address, bound_s=0.001, step_s=0.3)
    assert "no rate" in refused.value.message


# faults ------------------------------------------------------------------------------------------------------


async def test_a_lost_write_is_found(tmp_path: Path) -> None:
    with planted_daemon("lost-write", tmp_path) as address:
        result, _ = await run_plan(short("image-create", load=FEW), tmp_path, address=address)
    found = result.verification
    assert found is not None
    assert found.wrong == found.writes // 25 > 0
    assert all(each.found == "nothing" and "image registry.example/" in each.name for each in found.discrepancies)


async def test_after_kills_everything_acknowledged_is_there(tmp_path: Path) -> None:
    scenario = short(
        "image-create 2, image-publish, image-delete, blob-ingest, snapshot-prepare", load=FEW, duration_s=3.0
    )
    result, watcher = await run_plan(scenario, tmp_path / "store", kills=2)
    found = result.verification
    assert found is not None
    assert (found.kills, watcher.kills, found.wrong) == (2, 2, 0)
    assert found.writes > 50
    assert errors(result)  # the kills were felt


async def test_kills_are_survived_by_several_workers(tmp_path: Path) -> None:
    scenario = short("image-create", load=Load(clients=4), duration_s=2.0)
    result, _ = await run_plan(scenario, tmp_path / "store", kills=1, workers=2)
    assert result.verification is not None
    assert (result.verification.kills, result.verification.wrong) == (1, 0)


@pytest.mark.parametrize("rate", [0.0, 50.0])
async def test_a_server_that_stays_away_ends_the_run_in_time(tmp_path: Path, rate: float) -> None:
    scenario = short("image-create", load=Load(clients=4, rate=rate), warmup_s=0.0, duration_s=3.0)
    with planted_daemon("none", tmp_path) as address, trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def go_away() -> None:
                async with orlop.connect(address) as store:
                    pid = (await store.server()).pid
                    while "load-0" not in [namespace.name async for namespace in store.namespaces.list()]:
                        await trio.sleep(0.01)
                await trio.sleep(0.5)
                os.kill(pid, signal.SIGKILL)

            nursery.start_soon(go_away)
            result, _ = await run_plan(scenario, tmp_path, address=address, verify=False)
    assert set(errors(result)["image-create"]) & {"Unavailable", "Unknown"}


@pytest.mark.parametrize("how", ["truncated", "other", "gone"])
async def test_bytes_that_are_not_what_they_were_are_found(tmp_path: Path, how: str) -> None:
    """Also of blobs that are compared piece by piece."""
    scenario = short("blob-read", "[population]\nblobs = 3\nblob_size = 3000000", load=FEW)
    await run_plan(scenario, tmp_path / "store")
    for path in (tmp_path / "store" / "blobs" / "sha256").iterdir():
        if how == "gone":
            path.unlink()
        else:
            os.truncate(path, 1_000_000)
            os.truncate(path, 1_000_000 if how == "truncated" else 3_000_000)
    result, _ = await run_plan(scenario, tmp_path / "store")
    assert result.verification is not None
    assert result.verification.wrong >= 3


async def test_a_layer_that_a_published_image_has_lost_is_found(tmp_path: Path) -> None:
    client = Client(short("image-publish"), 0, 1)
    ledger = Ledger(kept=True)
    async with store_target.in_process(str(tmp_path / "store")) as target:
        await target.ensure_namespace("load-0")
        steps = [next(client) for _ in range(3)]
        for step in steps:
            await do_step(target, step, ledger, verify=True)
        await check_everything(target, ledger, [])
        assert ledger.wrong == 0
        assert isinstance(steps[1].action, Publish)
        await target.delete_blob("load-0", steps[1].action.layers[2])
        await check_everything(target, ledger, [])
        assert ledger.wrong == 1


async def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with trio.fail_after(60), pytest.raises(Unavailable):
        await run_plan(short("image-create"), tmp_path, address=f"unix:{tmp_path}/none", connect_s=1.0)


# results -----------------------------------------------------------------------------------------------------


async def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    result, _ = await run_plan(short("image-create", load=FEW, duration_s=0.3), tmp_path / "store", label="mine")
    write_result(result, str(tmp_path / "a.json"))
    assert read_result(str(tmp_path / "a.json")) == result


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{"])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"a\.json"):
        read_result(str(tmp_path / "a.json"))
    with pytest.raises(InvalidArgument):
        read_result(str(tmp_path / "none.json"))
