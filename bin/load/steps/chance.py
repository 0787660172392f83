"""Choices by one seed: the same seed makes the same ones, on every machine."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from ..scenario import Choice, Even, Keys, Lognormal, Sizes, Zipf

__all__ = ["chance_of", "pick_index", "pick_size", "pick_weighted"]


def chance_of(*parts: object) -> random.Random:
    """A source of its own for whoever these parts name. Strings are hashed alike everywhere."""
    return random.Random("/".join(str(part) for part in parts))


def pick_index(chance: random.Random, keys: Keys, count: int) -> int:
    """A number below `count`."""
    if isinstance(keys, Zipf) and keys.skew:
        return pick_weighted(chance, _zipf(keys.skew, count))
    return chance.randrange(count)


def pick_weighted(chance: random.Random, cumulative: Sequence[float]) -> int:
    """An index, by weights that were summed up."""
    return min(bisect_left(cumulative, chance.random() * cumulative[-1]), len(cumulative) - 1)


def pick_size(chance: random.Random, sizes: Sizes) -> int:
    """Bytes, at least one."""
    if isinstance(sizes, int):
        return max(1, sizes)
    if isinstance(sizes, Even):
        return chance.randint(min(sizes.least, sizes.most), max(sizes.least, sizes.most))
    if isinstance(sizes, Lognormal):
        return min(sizes.most, max(1, int(sizes.median * math.exp(chance.gauss(0, sizes.sigma)))))
    assert isinstance(sizes, Choice)
    weights = list(accumulate(weight for weight, _ in sizes.of))
    return sizes.of[pick_weighted(chance, weights)][1]


@lru_cache(maxsize=16)
def _zipf(skew: float, count: int) -> Sequence[float]:
    weigh: Callable[[int], float] = lambda rank: rank**-skew  # noqa: E731 - one line says it
    return list(accumulate(weigh(rank) for rank in range(1, count + 1)))
