"""The highest rate at which the 99th percentile stays under a bound."""

from __future__ import annotations

import math
from collections.abc import Callable

from ....protocol.errors import FailedPrecondition
from ..histograms import percentiles_us
from ..result import SearchStep
from .crew import Crew, Watch

__all__ = ["find_rate"]

_CLOSE_ENOUGH = 0.05
_MOST_STEPS = 14
_GROWTH = 1.5
_ACHIEVED = 0.97
_LEAST_RATE = 1.0


async def find_rate(
    crew: Crew, bound_s: float, step_s: float, tell: Callable[[SearchStep], None], watch: Watch | None
) -> tuple[float, list[SearchStep]]:
    """Doubts begin where a closed loop comes out; then up and down by halves until it is known to 5 %. A rate holds if
    the percentile does, next to nothing failed, and what arrived was done in time.

    Raises FailedPrecondition: no rate holds."""
    closed, _ = await crew.run(step_s, watch=watch)
    rate = max(_LEAST_RATE, closed.rate / 2)
    held, broke = 0.0, 0.0
    steps: list[SearchStep] = []
    while len(steps) < _MOST_STEPS and not (held and broke and broke - held <= _CLOSE_ENOUGH * held):
        step = await _try(crew, rate, bound_s, step_s, watch)
        steps.append(step)
        tell(step)
        if step.held:
            held = rate
            rate = (held + broke) / 2 if broke else rate * _GROWTH
        else:
            broke = rate
            rate = (held + broke) / 2
            if rate < _LEAST_RATE:
                break
    if not held:
        raise FailedPrecondition(f"no rate keeps p99 under {bound_s * 1000:g} ms", hint="a higher bound may be kept")
    return held, steps


async def _try(crew: Crew, rate: float, bound_s: float, step_s: float, watch: Watch | None) -> SearchStep:
    outcome, gathered = await crew.run(step_s, rate=rate, watch=watch)
    latencies = gathered.all_latencies()
    [p99] = percentiles_us(latencies, 99)
    failed = gathered.count_errors() + outcome.dropped
    done = latencies.get_total_count()
    fine = done and failed <= 0.001 * done
    held = bool(p99 <= bound_s * 1e6 and fine and outcome.rate >= _ACHIEVED * _arrived(outcome.seconds, step_s, rate))
    return SearchStep(rate, outcome.rate, p99, held)


def _arrived(seconds: float, step_s: float, rate: float) -> float:
    """What could have been done per second, if the last operation took longer than the phase; by chance a little less
    arrives than the rate says."""
    return rate * step_s / max(seconds, step_s) - 3 * math.sqrt(rate / step_s)
