"""From values to places on a plot, and where an axis is marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from ..text import amount_text, bytes_text, count_text, duration_text, percentile_text

__all__ = [
    "NINES",
    "Point",
    "Scale",
    "amounts",
    "bytes_scale",
    "durations",
    "nines",
    "percentile_place",
    "rates",
    "seconds_scale",
    "thin",
]

Point = tuple[float, float]

NINES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
TICKS_MOST = 7


class Scale(NamedTuple):
    """`place` takes a value to 0 for one end of the axis and to 1 for the other; `ticks`: values with their texts."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]
    title: str


def percentile_place(percentile: float) -> float:
    """How many nines: 0 for 0, 1 for 90, 2 for 99."""
    return -math.log10(max(1 - percentile / 100, 1e-12))


def nines() -> Scale:
    """As much room for each further nine."""
    most = percentile_place(NINES[-1])
    return Scale(
        lambda percentile: percentile_place(percentile) / most,
        [(each, percentile_text(each)) for each in NINES],
        "percentile",
    )


def durations(values: Sequence[float], title: str = "latency") -> Scale:
    """Microseconds, each power of ten as high."""
    busy = [each for each in values if each > 0]
    low, high = _decades(min(busy, default=100.0), max(busy, default=1000.0))
    span = math.log10(high / low)
    steps = (1, 2, 5) if span <= 3 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = range(first, last + 1, 1 if span <= 6 else 2)
    marks = [step * 10.0**power for power in powers for step in steps]
    ticks = [(mark, _bare(duration_text(mark))) for mark in marks if low * 0.999 <= mark <= high * 1.001]
    return Scale(lambda value: math.log10(max(value, low) / low) / span, ticks, f"{title}, logarithmic")


def amounts(values: Sequence[float], title: str) -> Scale:
    """From 0."""
    high, step = _round_steps(max(values, default=0.0))
    text = count_text if step >= 1 else amount_text
    ticks = [(step * number, _bare(text(step * number))) for number in range(round(high / step) + 1)]
    return Scale(lambda value: value / high, ticks, title)


def rates(values: Sequence[float], title: str = "per second") -> Scale:
    return amounts(values, title)


def bytes_scale(values: Sequence[float], title: str) -> Scale:
    """From 0, in steps of binary units."""
    most = max(values, default=0.0)
    unit = 1024.0 ** max(0, math.floor(math.log(max(most, 1.0), 1024)))
    high, step = _round_steps(most / unit)
    ticks = [
        (step * number * unit, _bare(bytes_text(step * number * unit))) for number in range(round(high / step) + 1)
    ]
    return Scale(lambda value: value / (high * unit), ticks, title)


def seconds_scale(end: float) -> Scale:
    """Up to where it ended, which need not be round."""
    end = max(end, 1.0)
    _, step = _round_steps(end)
    step = max(step, 1.0)
    ticks = [(step * number, count_text(step * number)) for number in range(int(end / step + 1e-9) + 1)]
    return Scale(lambda value: value / end, ticks, "seconds of measuring")


def thin(points: Sequence[Point], most: int, together: Callable[[Sequence[float]], float]) -> list[Point]:
    """At most so many: neighbours become one, where the first of them was."""
    width = math.ceil(len(points) / max(1, most))
    if width <= 1:
        return list(points)
    groups = [list(group) for _, group in groupby(enumerate(points), key=lambda each: each[0] // width)]
    return [(group[0][1][0], together([y for _, (_, y) in group])) for group in groups]


def _bare(text: str) -> str:
    """Without noughts behind the point: what is marked is round."""
    number, _, unit = text.partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {unit}" if unit else number


def _decades(low: float, high: float) -> tuple[float, float]:
    """A little room on both sides, at least a factor of three."""
    low, high = low / 1.15, high * 1.15
    if high / low < 3:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(3), middle * math.sqrt(3)
    return low, high


def _round_steps(most: float) -> tuple[float, float]:
    """The end of an axis from 0 that has so much on it, and its step of 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return 1.0, 1.0
    power = 10.0 ** math.floor(math.log10(most / TICKS_MOST))
    step = next(power * each for each in (1, 2, 5, 10) if most / (power * each) <= TICKS_MOST)
    return math.ceil(most / step - 1e-9) * step, step
