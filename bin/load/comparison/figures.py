"""What a run is judged by: each figure with what else it could have been."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from ..result import Interval, Result, Round, ServerSample
from .pooled import Pooled, pool, pool_all
from .resampling import BLOCK_S, Estimate, Timeline, latency_estimates, quotient_estimate
from .shares import Trial

__all__ = ["OVERALL", "Figure", "Side", "What"]

What = Literal[
    "rate",
    "p50",
    "p99",
    "p99.9",
    "errors",
    "wrong",
    "server CPU",
    "client CPU",
    "memory peak",
    "transactions per commit",
]

OVERALL: Final = ""
"""What stands for the name of all operations together."""

_SHARES: Final[dict[What, float]] = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_LEAST_COUNTS: Final[dict[What, int]] = {"p50": 20, "p99": 1000, "p99.9": 10_000}
"""Successes, so that ten are slower than the percentile; of fewer it is not estimated."""
_CELLS: Final = 3600
"""Seconds of a run that are looked at one by one; of a longer one, several at a time."""
_PSEUDO: Final = 0.5
"""Stands for no success at all, of which there is no logarithm."""

_Seconds = list[list[float]]
"""A value for each second of each round."""


class Figure(NamedTuple):
    """`value`: per second, microseconds or bytes, as it is shown. `estimate`: None of too little data. `counted`: of
    how many successes. `by_round`: within a round nothing is known of it."""

    value: float
    estimate: Estimate | None
    counted: float
    by_round: bool = False


class Side:
    """One of two runs, in cells of a second, or of as many as make it short enough. What is left over at the end of a
    round does not count; a round shorter than a cell is one.

    Raises InvalidArgument: a histogram is none.
    """

    def __init__(self, result: Result, seed: int, name: str) -> None:
        self.operations: dict[str, Pooled] = {each.operation: each for each in pool(result)}
        self.whole = pool_all(result)
        self.rounds = result.rounds
        self._width = max(1, math.ceil(sum(each.seconds for each in result.rounds) / _CELLS))
        self._cells = [max(1, math.floor(each.seconds) // self._width) for each in result.rounds]
        self._timeline = Timeline(self._cells, seed, name)

    @property
    def seconds(self) -> int:
        """How many count."""
        return sum(self._cells) * self._width

    def pooled(self, operation: str) -> Pooled:
        return self.operations[operation] if operation else self.whole

    def figures(self, operation: str) -> dict[What, Figure]:
        """Rate and latencies, of one operation or of all."""
        pooled, rounds = self.pooled(operation), self._intervals(operation)
        counts = _counts(rounds)
        counted = sum(map(sum, counts))
        times = [[float(self._width)] * cells for cells in self._cells]
        rate = quotient_estimate(self._timeline, counts, times, least=_PSEUDO)
        found: dict[What, Figure] = {"rate": Figure(pooled.rate, rate, counted)}
        told = [what for what in _SHARES if counted >= _LEAST_COUNTS[what]]
        latencies = latency_estimates(self._timeline, rounds, [_SHARES[what] for what in told])
        estimates = dict(zip(told, latencies, strict=True))
        for what, value in zip(_SHARES, (pooled.p50_us, pooled.p99_us, pooled.p999_us), strict=True):
            found[what] = Figure(value, estimates.get(what), counted)
        return found

    def resources(self) -> dict[What, Figure]:
        """What all operations took: CPU by operation, the mean of the rounds' peaks of memory, and how many
        transactions one commit made durable. Only what was measured in all rounds."""
        found: dict[What, Figure] = {}
        if not self.rounds:
            return found
        counts, sampled = _counts(self._intervals(OVERALL)), all(each.server for each in self.rounds)
        if self.whole.count and all(each.server_cpu_s > 0 for each in self.rounds):
            cpu = self._gained(lambda sample: sample.cpu_s)
            found["server CPU"] = self._quotient(lambda each: each.server_cpu_s, _successes, cpu, counts, 1e6)
        if self.whole.count and all(each.client_cpu_s > 0 for each in self.rounds):
            found["client CPU"] = self._quotient(lambda each: each.client_cpu_s, _successes, None, None, 1e6)
        if sampled and all(_peak(each) > 0 for each in self.rounds):
            found["memory peak"] = self._quotient(_peak, lambda _: 1.0, None, None)
        if sampled and all(_committed(each) > 0 for each in self.rounds):
            transactions = self._gained(lambda sample: sample.transactions)
            commits = self._gained(lambda sample: sample.commits)
            found["transactions per commit"] = self._quotient(_transacted, _committed, transactions, commits)
        return found

    def trials(self, operation: str) -> list[list[Trial]]:
        """By round and block of seconds: what failed, of what was answered."""
        found = []
        for seconds in self._intervals(operation):
            blocks = [seconds[first : first + BLOCK_S] for first in range(0, len(seconds), BLOCK_S)]
            each = [[interval for second in block for interval in second] for block in blocks]
            found.append([(sum(i.errors for i in block), sum(i.errors + i.count for i in block)) for block in each])
        return found

    def _quotient(
        self,
        above: Callable[[Round], float],
        below: Callable[[Round], float],
        above_by_second: _Seconds | None,
        below_by_second: _Seconds | None,
        scale: float = 1.0,
    ) -> Figure:
        total, whole = sum(map(above, self.rounds)), sum(map(below, self.rounds))
        by_round = above_by_second is None or below_by_second is None
        if above_by_second is None or below_by_second is None:
            above_by_second, below_by_second = self._evenly(above), self._evenly(below)
        estimate = quotient_estimate(self._timeline, above_by_second, below_by_second)
        return Figure(scale * total / whole, estimate, self.whole.count, by_round)

    def _intervals(self, operation: str) -> list[list[list[Interval]]]:
        """By round and cell."""
        found: list[list[list[Interval]]] = []
        for measured, cells in zip(self.rounds, self._cells, strict=True):
            at: list[list[Interval]] = [[] for _ in range(cells)]
            for each in measured.operations:
                if operation in (OVERALL, each.operation):
                    for interval in each.series:
                        if 0 <= interval.at_s < cells * self._width:
                            at[interval.at_s // self._width].append(interval)
            found.append(at)
        return found

    def _evenly(self, value: Callable[[Round], float]) -> _Seconds:
        """What is known of a round only, as if each cell had its part."""
        return [[value(each) / count] * count for each, count in zip(self.rounds, self._cells, strict=True)]

    def _gained(self, value: Callable[[ServerSample], float]) -> _Seconds | None:
        """By which something of the server grew; None if it was not sampled all the time, or begun anew."""
        found = [
            _gains(each.server, value, [cell * self._width for cell in range(cells + 1)])
            for each, cells in zip(self.rounds, self._cells, strict=True)
        ]
        known = [each for each in found if each is not None]
        return known if len(known) == len(found) else None


def _counts(rounds: Sequence[Sequence[Sequence[Interval]]]) -> _Seconds:
    return [[float(sum(each.count for each in second)) for second in seconds] for seconds in rounds]


def _successes(measured: Round) -> float:
    return sum(each.count for each in measured.operations)


def _peak(measured: Round) -> float:
    return max((each.resident_bytes for each in measured.server), default=0)


def _transacted(measured: Round) -> float:
    return _grown([each.transactions for each in measured.server])


def _committed(measured: Round) -> float:
    return _grown([each.commits for each in measured.server])


def _grown(values: Sequence[float]) -> float:
    """A server that was begun anew counts from 0."""
    return sum(max(0.0, later - earlier) for earlier, later in pairwise(values))


def _gains(
    samples: Sequence[ServerSample], value: Callable[[ServerSample], float], seconds: Sequence[int]
) -> list[float] | None:
    """Between these seconds of a round."""
    points = [(each.at_s, value(each)) for each in samples]
    if len(points) < 2 or points[0][0] > 1 or points[-1][0] < seconds[-1] - 1:
        return None
    if any(later <= earlier or high < low for (earlier, low), (later, high) in pairwise(points)):
        return None
    at, edges = 0, []
    for second in seconds:
        while at < len(points) - 2 and points[at + 1][0] < second:
            at += 1
        (earlier, low), (later, high) = points[at], points[at + 1]
        edges.append(low + (high - low) * (second - earlier) / (later - earlier))
    return [max(0.0, high - low) for low, high in pairwise(edges)]
