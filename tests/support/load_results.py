"""Results of runs that never were: latencies are lognormal, seconds drift, rounds differ as wholes. By a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

from hdrh.histogram import HdrHistogram
from msgspec.structs import replace

from orlop.bin.load.result import (
    Discrepancy,
    Interval,
    Machine,
    OperationResult,
    Result,
    Round,
    SearchStep,
    ServerSample,
    Verification,
)
from orlop.bin.load.scenario import GetImage, Load, PublishImage, Scenario

__all__ = ["MACHINE", "SCENARIO", "disagreement", "made_result", "searched", "with_operation"]

MACHINE = Machine(
    system="Linux-6.1-x86_64",
    cores=2,
    memory_bytes=8 * 1024**3,
    python="3.11.7",
    trio="0.35.0",
    orlop="0.2.0",
    processor="A processor",
    file_system="ext4",
)
SCENARIO = Scenario("mixed", [GetImage(weight=3), PublishImage(layers=2)], load=Load(clients=16), duration_s=20.0)
OPERATIONS: Mapping[str, tuple[float, float]] = {"image-get": (100.0, 800.0), "image-publish": (40.0, 6000.0)}
"""Successes per second, and median in microseconds."""


def made_result(
    seed: int,
    *,
    operations: Mapping[str, tuple[float, float]] = OPERATIONS,
    rounds: int = 3,
    seconds: int = 20,
    level: float = 0.01,
    drift: float = 0.02,
    sigma: float = 0.5,
    slower: Mapping[str, float] | None = None,
    failing: Mapping[str, float] | None = None,
    stall: Callable[[int, int], float] = lambda number, second: 1.0,
    open_loop: bool = False,
    sampled: bool = True,
    cpu_us: float = 200.0,
    label: str = "",
    began_at: float = 1_750_000_000.0,
) -> Result:
    """`level`: how much rounds differ, `drift`: how much a second differs from the last (both of logarithms); `slower`:
    how many times, by operation; `failing`: what share; `stall`: how many times slower a second of a round is;
    `open_loop`: it is asked as often all the same."""
    chance = random.Random(f"made/{seed}")
    made = []
    for number in range(rounds):
        pace = chance.gauss(0, level)
        second_paces, now = [], 0.0
        for second in range(seconds):
            now = 0.7 * now + chance.gauss(0, drift)
            second_paces.append(math.exp(pace + now) * stall(number, second))
        measured = [
            _operation(
                chance, name, rate, median, sigma, second_paces, (slower or {}).get(name, 1.0), failing or {}, open_loop
            )
            for name, (rate, median) in operations.items()
        ]
        count = sum(each.count for each in measured)
        made.append(
            Round(
                began_at=began_at + number * (seconds + 5),
                seconds=float(seconds),
                operations=measured,
                server=_server(chance, measured, seconds, cpu_us, math.exp(pace)) if sampled else [],
                client_cpu_s=count * 150e-6 * math.exp(pace + chance.gauss(0, 0.01)),
                server_cpu_s=count * cpu_us * 1e-6 * math.exp(pace + chance.gauss(0, 0.01)) if sampled else 0.0,
            )
        )
    return Result(SCENARIO, "unix", "a socket", 2, MACHINE, made, label=label)


def with_operation(result: Result, name: str, change: Callable[[OperationResult], OperationResult]) -> Result:
    """One operation is something else in each round."""
    rounds = [
        replace(each, operations=[change(inner) if inner.operation == name else inner for inner in each.operations])
        for each in result.rounds
    ]
    return replace(result, rounds=rounds)


def searched(result: Result) -> Result:
    steps = [
        SearchStep(rate, min(rate, 900.0) * 0.998, int(1500 + (rate / 700) ** 6 * 4000), rate < 800)
        for rate in (200.0, 400.0, 800.0, 600.0, 700.0, 750.0, 775.0)
    ]
    return replace(result, search=steps)


def disagreement(result: Result, wrong: int) -> Result:
    found = [Discrepancy("load-0", f"image {number}", "1.7", "1.6") for number in range(min(wrong, 100))]
    return replace(result, verification=Verification(5000, 1200, 3, 4, wrong, found))


def _operation(
    chance: random.Random,
    name: str,
    rate: float,
    median: float,
    sigma: float,
    paces: Sequence[float],
    slower: float,
    failing: Mapping[str, float],
    open_loop: bool,
) -> OperationResult:
    histogram = HdrHistogram(1, 3600 * 1_000_000, 3)
    series, errors, total = [], 0, 0.0
    for second, pace in enumerate(paces):
        slowed = 1.0 if open_loop else pace * slower
        asked = max(0, round(chance.gauss(1, 1 / math.sqrt(rate)) * rate / slowed))
        failed = sum(chance.random() < failing.get(name, 0.0) for _ in range(asked)) if name in failing else 0
        middle = math.log(median * pace * slower)
        found = sorted(max(1, int(math.exp(chance.gauss(middle, sigma)))) for _ in range(asked - failed))
        for each in found:
            histogram.record_value(each)
        errors += failed
        total += sum(found)
        at = [found[math.ceil(len(found) * share) - 1] if found else 0 for share in (0.5, 0.99, 1.0)]
        series.append(Interval(second, len(found), failed, *at))
    count = histogram.total_count
    p50, p90, p99, p999 = (histogram.get_value_at_percentile(each) if count else 0 for each in (50, 90, 99, 99.9))
    return OperationResult(
        operation=name,
        count=count,
        errors={"Unavailable": errors} if errors else {},
        rate=count / len(paces),
        mean_us=total / count if count else 0.0,
        p50_us=p50,
        p90_us=p90,
        p99_us=p99,
        p999_us=p999,
        max_us=max(each.max_us for each in series),
        histogram=histogram.encode().decode(),
        series=series,
    )


def _server(
    chance: random.Random, measured: Sequence[OperationResult], seconds: int, cpu_us: float, pace: float
) -> list[ServerSample]:
    cpu, transactions, commits = 3.0, 100.0, 40.0
    samples = []
    for second in range(seconds + 1):
        samples.append(
            ServerSample(
                at_s=second + 0.01,
                cpu_s=cpu,
                resident_bytes=int((60 + 20 * (1 - math.exp(-second / 10))) * pace * 1024**2),
                descriptors=40,
                loop_lag_p99_s=0.002 * math.exp(chance.gauss(0, 0.3)),
                transactions=transactions,
                commits=commits,
            )
        )
        done = sum(each.series[second].count for each in measured if second < seconds)
        cpu += done * cpu_us * 1e-6 * pace * math.exp(chance.gauss(0, 0.03))
        transactions += done
        commits += done / 6 * math.exp(chance.gauss(0, 0.05))
    return samples
