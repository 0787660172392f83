"""Which plots a result has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from statistics import fmean

from hdrh.histogram import HdrHistogram

from ..comparison.pooled import Pooled, latencies_at
from ..result import Interval, Result, ServerSample
from ..text import amount_text, bytes_text, duration_text, long_text, percentile_text, rate_text
from .plots import Line, Plot, Rule
from .scales import (
    NINES,
    Point,
    Scale,
    amounts,
    bytes_scale,
    durations,
    nines,
    percentile_place,
    rates,
    seconds_scale,
    thin,
)

__all__ = ["SMALL", "latency_plot", "percentile_plot", "search_plots", "server_plots", "throughput_plot"]

POINTS = 600
"""Of a line, at most: more than a page shows."""
SMALL = {"width": 500, "height": 230}
"""Of plots that stand side by side."""

_STEPS = 40
_GRID = [100 * (1 - 10 ** -(percentile_place(NINES[-1]) * number / _STEPS)) for number in range(_STEPS + 1)]
_PERCENTILES = sorted({*(round(each, 6) for each in _GRID), *NINES})


def percentile_plot(
    identity: str, title: str, histograms: Sequence[tuple[str, HdrHistogram]], numbers: Sequence[int], **size: int
) -> Plot:
    """Latency by percentile, a line for each histogram; each only as far as its counts go."""
    lines, values = [], []
    for (name, histogram), number in zip(histograms, numbers, strict=True):
        count = histogram.total_count
        known = [each for each in _PERCENTILES if each in (0.0, 50.0) or count * (1 - each / 100) >= 1]
        at = latencies_at(histogram, known)
        points = [(each, at[each]) for each in known]
        texts = [f"{name}: {percentile_text(round(p, 3))} % within {duration_text(value)}" for p, value in points]
        lines.append(Line(name, [points], number, texts))
        values += [value for _, value in points]
    told = "; ".join(f"{line.name} {_at(line, 50.0)} at 50, {_at(line, 99.0)} at 99" for line in lines)
    return Plot(identity, title, f"Latency by percentile. {told}.", nines(), durations(values), lines, (), **size)


def _at(line: Line, percentile: float) -> str:
    return next((duration_text(y) for x, y in line.parts[0] if x == percentile), "too few")


# over time ---------------------------------------------------------------------------------------------------


def throughput_plot(identity: str, result: Result, pooled: Sequence[Pooled]) -> Plot | None:
    """Successes in each second, by operation."""
    lines = []
    for number, each in enumerate(pooled):
        points = _by_second(result, each.operation, lambda interval: float(interval.count), 0.0)
        lines.append(_over_time(each.operation, points, number, _mean, rate_text))
    if len(pooled) > 1:
        parts = [_sum(parts) for parts in zip(*(line.parts for line in lines), strict=True)]
        lines.append(_over_time("all", parts, len(pooled), _mean, rate_text))
    values = [y for line in lines for part in line.parts for _, y in part]
    if not values:
        return None
    told = "; ".join(f"{line.name} {_spread(line, rate_text)}" for line in lines)
    description = f"Successes per second over {_length(result)}. {told}."
    return Plot(identity, "Throughput over time", description, _seconds(result), rates(values), lines, _rounds(result))


def latency_plot(identity: str, result: Result, operation: str) -> Plot | None:
    """Median and p99 of each second of one operation."""
    kinds: list[tuple[str, Callable[[Interval], float], Callable[[Sequence[float]], float]]] = [
        ("p99", lambda interval: float(interval.p99_us), max),
        ("p50", lambda interval: float(interval.p50_us), _mean),
    ]
    lines = []
    for number, (name, value, together) in enumerate(kinds):
        points = _by_second(result, operation, value, None)
        lines.append(_over_time(name, points, number, together, duration_text, POINTS // 2))
    values = [y for line in lines for part in line.parts for _, y in part]
    if not values:
        return None
    told = "; ".join(f"{line.name} {_spread(line, duration_text)}" for line in lines)
    description = f"Latency of {operation} in each second over {_length(result)}. {told}."
    across, up = _seconds(result), durations(values)
    return Plot(identity, operation, description, across, up, lines, _rounds(result), **SMALL)


def server_plots(identity: str, result: Result) -> list[Plot]:
    """CPU, memory, how late its loop was, and transactions per commit: what was sampled."""
    if not any(each.server for each in result.rounds):
        return []
    samples = [each.server for each in result.rounds]
    kinds: list[tuple[str, list[list[Point]], Callable[[float], str], Callable[[Sequence[float]], Scale]]] = [
        ("CPU", [_quotients(each, lambda s: s.cpu_s, None) for each in samples], _cores, _core_scale),
        (
            "memory",
            [[(s.at_s, float(s.resident_bytes)) for s in each if s.resident_bytes] for each in samples],
            bytes_text,
            lambda values: bytes_scale(values, "resident memory"),
        ),
        (
            "loop lag p99",
            [[(s.at_s, s.loop_lag_p99_s * 1e6) for s in each] for each in samples],
            duration_text,
            lambda values: durations(values, "how late the event loop was, p99"),
        ),
        (
            "transactions per commit",
            [_quotients(each, lambda s: s.transactions, lambda s: s.commits) for each in samples],
            amount_text,
            lambda values: amounts(values, "transactions per commit"),
        ),
    ]
    plots = []
    for number, (name, parts, text, scale) in enumerate(kinds):
        line = _over_time(name, _shifted(result, parts), number, max, text)
        values = [y for part in line.parts for _, y in part]
        if any(values):
            description = f"The server's {name} over {_length(result)}: {_spread(line, text)}."
            across = _seconds(result)
            title = f"Server: {name}"
            plots.append(
                Plot(
                    f"{identity}-{number}", title, description, across, scale(values), [line], _rounds(result), **SMALL
                )
            )
    return plots


def _over_time(
    name: str,
    parts: Sequence[Sequence[Point]],
    number: int,
    together: Callable[[Sequence[float]], float],
    text: Callable[[float], str],
    most: int = POINTS,
) -> Line:
    count = sum(map(len, parts))
    thinned = [thin(part, max(2, most * len(part) // max(1, count)), together) for part in parts]
    texts = [f"{name}: {text(y)} at {x:g} s" for part in thinned for x, y in part]
    return Line(name, thinned, number, texts)


def _by_second(
    result: Result, operation: str, value: Callable[[Interval], float], missing: float | None
) -> list[list[Point]]:
    """By round; without a success a second is `missing`. What is not a whole second is left out, if there is one."""
    parts: list[list[Point]] = []
    for offset, each in zip(_offsets(result), result.rounds, strict=True):
        found = {i.at_s: i for inner in each.operations if inner.operation == operation for i in inner.series}
        part: list[Point] = []
        for second in range(max(1, math.floor(each.seconds))):
            interval = found.get(second)
            if interval is not None and interval.count:
                part.append((offset + second, value(interval)))
            elif missing is not None:
                part.append((offset + second, missing))
        parts.append(part)
    return parts


def _shifted(result: Result, parts: Sequence[Sequence[Point]]) -> list[list[Point]]:
    return [[(x + offset, y) for x, y in part] for offset, part in zip(_offsets(result), parts, strict=True)]


def _sum(parts: Sequence[Sequence[Point]]) -> list[Point]:
    return [(points[0][0], sum(y for _, y in points)) for points in zip(*parts, strict=True)]


def _quotients(
    samples: Sequence[ServerSample],
    above: Callable[[ServerSample], float],
    below: Callable[[ServerSample], float] | None,
) -> list[Point]:
    """How fast one grew by the other, or by time, between samples. A server that was begun anew counts from 0."""
    found = []
    for earlier, later in pairwise(samples):
        grown = above(later) - above(earlier)
        by = below(later) - below(earlier) if below else later.at_s - earlier.at_s
        if by > 0 and grown >= 0:
            found.append((later.at_s, grown / by))
    return found


def _offsets(result: Result) -> list[float]:
    """Where each round begins: they follow each other without a pause."""
    return list(accumulate((max(1.0, each.seconds) for each in result.rounds), initial=0.0))[:-1]


def _seconds(result: Result) -> Scale:
    return seconds_scale(sum(max(1.0, each.seconds) for each in result.rounds))


def _rounds(result: Result) -> list[Rule]:
    offsets = _offsets(result)
    if not 1 < len(offsets) <= 30:
        return []
    name = "round " if len(offsets) <= 4 else ""
    return [Rule(offset, f"{name}{number}") for number, offset in enumerate(offsets, 1)]


def _length(result: Result) -> str:
    rounds = f" in {len(result.rounds)} rounds" if len(result.rounds) > 1 else ""
    return long_text(sum(each.seconds for each in result.rounds)) + rounds


def _spread(line: Line, text: Callable[[float], str]) -> str:
    values = [y for part in line.parts for _, y in part]
    return f"from {text(min(values))} to {text(max(values))}" if values else "never"


def _mean(values: Iterable[float]) -> float:
    return fmean(values)


def _cores(value: float) -> str:
    return f"{amount_text(value)} cores"


def _core_scale(values: Sequence[float]) -> Scale:
    return amounts(values, "cores")


# the search --------------------------------------------------------------------------------------------------


def search_plots(identity: str, result: Result) -> list[Plot]:
    """What was achieved of each offered rate, and how late: two plots side by side."""
    steps = sorted(result.search, key=lambda each: each.rate)
    if not steps:
        return []
    held = [each for each in steps if each.held]
    lost = [each for each in steps if not each.held]
    best = max((each.rate for each in held), default=0.0)
    rules = [Rule(best, f"held {rate_text(best)}")] if held else []
    across = rates([each.rate for each in steps], "offered per second")
    told = f"{len(steps)} offered rates, of which {len(held)} were held, the highest {rate_text(best)}."
    achieved = [
        Line("offered", [[(0.0, 0.0), (steps[-1].rate, steps[-1].rate)]], 0, faint=True),
        *(
            Line(
                name,
                [[(s.rate, s.achieved) for s in some]],
                number,
                [_step(s.rate, s.p99_us) for s in some],
                joined=False,
            )
            for number, (name, some) in enumerate((("held", held), ("not held", lost)))
            if some
        ),
    ]
    late = [
        Line(
            name,
            [[(s.rate, float(s.p99_us)) for s in some]],
            number,
            [_step(s.rate, s.p99_us) for s in some],
            joined=False,
        )
        for number, (name, some) in enumerate((("held", held), ("not held", lost)))
        if some
    ]
    up = rates([max(s.rate, s.achieved) for s in steps], "achieved per second")
    return [
        Plot(
            f"{identity}-a",
            "Search: achieved rate",
            f"Achieved by offered rate. {told}",
            across,
            up,
            achieved,
            rules,
            **SMALL,
        ),
        Plot(
            f"{identity}-p",
            "Search: p99",
            f"p99 of all operations by offered rate. {told}",
            across,
            durations([float(s.p99_us) for s in steps], "p99"),
            late,
            rules,
            **SMALL,
        ),
    ]


def _step(rate: float, p99_us: int) -> str:
    return f"{rate_text(rate)} offered: p99 {duration_text(p99_us)}"
