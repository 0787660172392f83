"""Whether a share differs by more than chance: of errors, which come in crowds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

__all__ = ["Trial", "chance_of_share"]

Trial = tuple[int, int]
"""What failed, of what was asked."""

_NORMAL = NormalDist()
_LEAST_FREEDOM = 4
"""With fewer, chance alone makes it twice or three times what it is too often."""


def chance_of_share(before: Sequence[Sequence[Trial]], after: Sequence[Sequence[Trial]]) -> float:
    """How likely is a share as far from the other run's, on that side, if there were no difference. By rounds, of
    what failed and was asked in each block of them.

    Of all that failed, so many would fall to `after` as were asked there (a binomial test). But failures come in
    crowds, as when a connection breaks: they are counted as so many fewer as their variance over blocks, or rounds, is
    larger than that of independent ones.
    """
    failed_before, asked_before = _summed(before)
    failed_after, asked_after = _summed(after)
    if not asked_before or not asked_after or not failed_before + failed_after:
        return 1.0
    blocks = [[each for blocks in side for each in blocks] for side in (before, after)]
    rounds = [[_summed([blocks]) for blocks in side] for side in (before, after)]
    crowd = max(1.0, _dispersion(blocks), _dispersion(rounds))
    successes, failures = failed_after / crowd, failed_before / crowd
    share = asked_after / (asked_before + asked_after)
    if successes >= (successes + failures) * share:
        return _tail_of_binomial(math.floor(successes), math.floor(successes) + math.ceil(failures), share)
    return _tail_of_binomial(math.floor(failures), math.floor(failures) + math.ceil(successes), 1 - share)


def _summed(rounds: Sequence[Sequence[Trial]]) -> Trial:
    return (sum(failed for each in rounds for failed, _ in each), sum(asked for each in rounds for _, asked in each))


def _dispersion(sides: Sequence[Sequence[Trial]]) -> float:
    """Chi squared by its degrees of freedom, of the sides where anything failed. 1 where these are too few to say."""
    total, freedom = 0.0, 0
    for side in sides:
        failed, asked = _summed([side])
        share = failed / asked if asked else 0.0
        if not 0 < share < 1:
            continue
        total += sum((f - a * share) ** 2 / (a * share * (1 - share)) for f, a in side if a)
        freedom += sum(1 for _, a in side if a) - 1
    return total / freedom if freedom >= _LEAST_FREEDOM else 1.0


def _tail_of_binomial(least: int, of: int, share: float) -> float:
    """How likely at least so many are."""
    if least <= 0:
        return 1.0
    if of > 2000:
        deviation = math.sqrt(of * share * (1 - share))
        return 1 - _NORMAL.cdf((least - 0.5 - of * share) / deviation)
    whole = math.lgamma(of + 1)
    return sum(
        math.exp(
            whole
            - math.lgamma(number + 1)
            - math.lgamma(of - number + 1)
            + number * math.log(share)
            + (of - number) * math.log1p(-share)
        )
        for number in range(least, of + 1)
    )
