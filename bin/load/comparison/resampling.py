"""How sure a comparison of two runs is: what else they could have found, by drawing anew from what they did.

There are two levels, and a ratio's interval is as wide as the wider of what they say:

* within rounds: seconds that follow each other are alike, so blocks of neighbouring seconds are drawn, from each round;
* between rounds, which differ as wholes: rounds are drawn. Their spread holds that of the seconds in them; to draw
  blocks from drawn rounds would count it twice. But what happened once in each of three rounds looks certain to them,
  and only the seconds know that it could have happened to none.

Where few are drawn from, such an interval is too narrow; three things widen it:

* of n rounds or blocks n - 1 are drawn, which makes the variance right instead of too small by (n - 1) / n;
* distances are stretched as Student's distribution is wider than the normal one, with n - 1 degrees of freedom on each
  side: of blocks by Welch and Satterthwaite together; of rounds, of which there are few, both runs are taken for as
  uneven, and they add up;
* it reaches at least as far as that distribution says for the deviation found: three rounds have no extremes.

How much rounds differ is known only from several. If but one of two runs has several, the other is taken for as uneven;
if neither has, it is not in the interval.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from statistics import NormalDist, fmean
from typing import NamedTuple

from ..result import Interval
from ..steps.chance import chance_of

__all__ = [
    "BLOCK_S",
    "Estimate",
    "Timeline",
    "latency_estimates",
    "quotient_estimate",
    "ratio_interval",
]

BLOCK_S = 5
"""At least: what a flush or a collection slows down lies within one. In long rounds as many as there are blocks, so
that what lasts for longer is seen, too."""
_LEAST_BLOCKS = 6  # of a short round, whose blocks are shorter: of two nothing can be learnt
DRAWS = 1000
"""An end of a 99 % interval is the fifth from outside."""

_NORMAL = NormalDist()
_GRID = 160
"""Latencies at which a distribution is kept: 7 % apart over five decades, and between them it is interpolated."""
_TINY = 1e-9


class Drawn(NamedTuple):
    """What else an estimate could have been. None: there was nothing to divide by."""

    values: Sequence[float | None]
    freedom: int


class Estimate(NamedTuple):
    """A logarithm. `between`: None with one round."""

    found: float
    within: Drawn
    between: Drawn | None


class Timeline:
    """The seconds of a run's rounds, and what was drawn from them: for everything that is asked, the same.

    What is drawn are numbers of blocks. A block is `length` seconds of a round, over its end from its beginning again;
    its number is that of its first second, counted through all rounds. Behind them come whole rounds.
    """

    def __init__(self, seconds: Sequence[int], seed: int, side: str, draws: int = DRAWS) -> None:
        self.seconds = seconds
        self._lengths = [_block(each) for each in seconds]
        counts = [max(1, round(each / length)) for each, length in zip(seconds, self._lengths, strict=True)]
        self.freedom = sum(count - 1 for count in counts)
        chance = chance_of(seed, side)
        firsts = list(accumulate(seconds, initial=0))
        self.within = [
            [
                first + int(chance.random() * length)
                for first, length, count in zip(firsts, seconds, counts, strict=False)
                for _ in range(max(1, count - 1))
            ]
            for _ in range(draws)
        ]
        rounds = len(seconds)
        self.between = [
            tuple(sorted(firsts[-1] + chance.randrange(rounds) for _ in range(rounds - 1))) for _ in range(draws)
        ]

    def sums(self, rounds: Sequence[Sequence[float]]) -> list[float]:
        """Of each block and round, from a value for each second."""
        found: list[float] = []
        for values, length in zip(rounds, self._lengths, strict=True):
            around = list(accumulate([*values, *values[: length - 1]], initial=0.0))
            found += [after - before for before, after in zip(around, around[length:], strict=False)]
        return found + [sum(values) for values in rounds]

    def estimate(self, found: float, draw_again: Callable[[Sequence[int]], float | None]) -> Estimate:
        within = Drawn([draw_again(draw) for draw in self.within], self.freedom)
        if len(self.seconds) < 2:
            return Estimate(found, within, None)
        known = {draw: draw_again(draw) for draw in set(self.between)}  # of few rounds there are few draws
        return Estimate(found, within, Drawn([known[draw] for draw in self.between], len(self.seconds) - 1))


def quotient_estimate(
    timeline: Timeline, above: Sequence[Sequence[float]], below: Sequence[Sequence[float]], least: float = 0.0
) -> Estimate | None:
    """Of a sum over a sum, as successes per second are; `least`: what stands for fewer above."""
    parts, wholes = sum(map(sum, above)), sum(map(sum, below))
    if max(parts, least) <= 0 or wholes <= 0:
        return None
    part_of, whole_of = timeline.sums(above), timeline.sums(below)

    def again(draw: Sequence[int]) -> float | None:
        part = max(sum([part_of[block] for block in draw]), least)
        whole = sum([whole_of[block] for block in draw])
        return math.log(part / whole) if part > _TINY and whole > _TINY else None

    return timeline.estimate(math.log(max(parts, least) / wholes), again)


def latency_estimates(
    timeline: Timeline, rounds: Sequence[Sequence[Sequence[Interval]]], shares: Sequence[float]
) -> list[Estimate | None]:
    """Of the latencies (µs) below which those shares of all successes are. `rounds`: what was found in each second of
    each, by one operation or several.

    A second tells its median, p99 and most; between them it is taken for lognormal, and above p99 for a power law. The
    seconds drawn are put together as their histograms would be.
    """
    grid = _grid(rounds)
    if not grid:
        return [None for _ in shares]
    tails = [[_add([_tail(each, grid) for each in second], len(grid)) for second in seconds] for seconds in rounds]
    counts = [[float(sum(each.count for each in second)) for second in seconds] for seconds in rounds]
    whole = _add([second for seconds in tails for second in seconds], len(grid))
    columns = [[[second[at] for second in seconds] for seconds in tails] for at in range(len(grid))]
    blocks: dict[int, list[float]] = {}  # by latency: most of them nobody asks for
    count_of = timeline.sums(counts)
    total = sum(map(sum, counts))

    def beyond(at: int, draw: Sequence[int]) -> float:
        if at not in blocks:
            blocks[at] = timeline.sums(columns[at])
        of = blocks[at]
        return sum([of[block] for block in draw])

    def estimate(share: float) -> Estimate:
        start = bisect_right([-tail for tail in whole], -total * (1 - share)) - 1
        start = min(max(start, 0), len(grid) - 2)

        def again(draw: Sequence[int]) -> float | None:
            aim = (1 - share) * sum([count_of[block] for block in draw])
            if aim <= _TINY:
                return None
            at = start
            upper, lower = beyond(at, draw), beyond(at + 1, draw)
            while upper < aim and at > 0:
                at, upper, lower = at - 1, beyond(at - 1, draw), upper
            while lower > aim and at < len(grid) - 2:
                at, upper, lower = at + 1, lower, beyond(at + 2, draw)
            return _between(grid, at, upper, lower, aim)

        return timeline.estimate(_between(grid, start, whole[start], whole[start + 1], total * (1 - share)), again)

    return [estimate(share) for share in shares]


def ratio_interval(before: Estimate, after: Estimate, confidence: float) -> tuple[float, float] | None:
    """Where the ratio of `after` to `before` lies, as sure as that; None if too few draws say anything."""
    found = after.found - before.found
    ends = _ends(found, before.within, after.within, confidence, alike=False)
    if ends is None:
        return None
    low, high = ends
    between_before = before.between or _as_uneven(before.found, after)
    between_after = after.between or _as_uneven(after.found, before)
    if between_before and between_after:
        ends = _ends(found, between_before, between_after, confidence, alike=True)
        if ends is None:
            return None
        low, high = min(low, ends[0]), max(high, ends[1])
    return math.exp(max(low, -50.0)), math.exp(min(high, 50.0))


def _ends(found: float, before: Drawn, after: Drawn, confidence: float, *, alike: bool) -> tuple[float, float] | None:
    pairs = [(b, a) for b, a in zip(before.values, after.values, strict=True) if b is not None and a is not None]
    if len(pairs) < 0.9 * len(before.values):
        return None
    spread_before, spread_after = _variance([b for b, _ in pairs]), _variance([a for _, a in pairs])
    if alike:
        freedom = before.freedom + after.freedom
    else:
        freedom = _freedom((spread_before, before.freedom), (spread_after, after.freedom))
    student = _student(freedom, confidence)
    normal = _NORMAL.inv_cdf(0.5 + confidence / 2)
    differences = sorted(a - b for b, a in pairs)
    outside = int(len(differences) * (1 - confidence) / 2)
    reach = student * math.sqrt(spread_before + spread_after)
    low = min(found - reach, found + student / normal * (differences[outside] - found))
    high = max(found + reach, found + student / normal * (differences[-1 - outside] - found))
    return low, high


def _variance(values: Sequence[float]) -> float:
    middle = fmean(values)
    return fmean([(each - middle) ** 2 for each in values])


def _as_uneven(found: float, other: Estimate) -> Drawn | None:
    """One round, as far from what it could have been as each round of the other run."""
    if other.between is None:
        return None
    stretch = math.sqrt(other.between.freedom + 1)
    values = [None if each is None else found + stretch * (each - other.found) for each in other.between.values]
    return Drawn([*values[1:], values[0]], 0)  # not the draw that it is held against, and it knows nothing more


def _block(seconds: int) -> int:
    """How long the blocks of a round are."""
    return max(1, min(seconds // _LEAST_BLOCKS, max(BLOCK_S, math.isqrt(seconds))))


# distributions -----------------------------------------------------------------------------------------------


def _grid(rounds: Sequence[Sequence[Sequence[Interval]]]) -> list[float]:
    """Logarithms of latencies, from below the fastest second's median to above everything."""
    busy = [each for seconds in rounds for second in seconds for each in second if each.count and each.p50_us > 0]
    if not busy:
        return []
    low = math.log(min(each.p50_us for each in busy)) - 1.5
    high = math.log(max(each.max_us for each in busy) * 1.01)
    step = max((high - low) / (_GRID - 1), 1e-3)
    return [low + step * number for number in range(_GRID)]


def _tail(second: Interval, grid: Sequence[float]) -> list[float]:
    """How many of a second's were slower than each latency of the grid."""
    count = second.count
    if not count or second.p50_us <= 0:
        return [0.0] * len(grid)
    middle, top, most = (math.log(max(each, second.p50_us)) for each in (second.p50_us, second.p99_us, second.max_us))
    most = max(most, top)
    score_middle, score_top = _score(0.5, count), _score(0.99, count)
    slope = (score_top - score_middle) / (top - middle) if top > middle else 0.0
    at_top = count * (1 - _NORMAL.cdf(score_top))
    fall = math.log(at_top / 0.625) / (most - top) if most > top and at_top > 0.625 else 0.0
    found = []
    for at in grid:
        if at >= most:
            found.append(0.0)
        elif at >= top:
            found.append(at_top * math.exp(-fall * (at - top)))
        elif slope:
            found.append(count * 0.5 * math.erfc((score_middle + slope * (at - middle)) / math.sqrt(2)))
        else:
            found.append(float(count))
    return found


@lru_cache(maxsize=4096)
def _score(share: float, count: int) -> float:
    """Where in a normal distribution the one of `count` lies that has that share at or below it (Blom)."""
    rank = math.ceil(share * count)
    return _NORMAL.inv_cdf((rank - 0.375) / (count + 0.25))


def _add(vectors: Sequence[Sequence[float]], width: int) -> list[float]:
    if len(vectors) == 1:
        return list(vectors[0])
    return [sum(each) for each in zip(*vectors, strict=True)] if vectors else [0.0] * width


def _between(grid: Sequence[float], at: int, upper: float, lower: float, aim: float) -> float:
    """The latency between two of the grid that so many are slower than."""
    if upper <= lower or aim >= upper:
        return grid[at]
    if aim <= lower:
        return grid[at + 1]
    share = math.log(upper / aim) / math.log(upper / lower) if lower > 0 else (upper - aim) / upper
    return grid[at] + share * (grid[at + 1] - grid[at])


# Student -----------------------------------------------------------------------------------------------------


def _freedom(*sides: tuple[float, int]) -> int:
    """Welch and Satterthwaite, of variances with their degrees of freedom; rounded down, which is wider."""
    total = sum(variance for variance, _ in sides)
    if total <= 0:
        return max(1, sum(freedom for _, freedom in sides))
    shares = sum((variance / total) ** 2 / max(1, freedom) for variance, freedom in sides)
    return max(1, math.floor(1 / shares + _TINY))


@lru_cache(maxsize=1024)
def _student(freedom: int, confidence: float) -> float:
    """Within how many deviations of the middle Student's distribution holds that share.

    With t = sqrt(n) tan(x) its density is cos(x) ** (n - 1) up to a factor: summed up until the share is reached.
    """
    if freedom > 300:
        return _NORMAL.inv_cdf(0.5 + confidence / 2)
    steps = 20_000
    width = math.pi / 2 / steps
    density = [math.cos((number + 0.5) * width) ** (freedom - 1) for number in range(steps)]
    aim = confidence * sum(density)
    reached = 0.0
    for number, each in enumerate(density):
        if reached + each >= aim:
            return math.sqrt(freedom) * math.tan((number + (aim - reached) / each) * width)
        reached += each
    raise AssertionError(freedom)
