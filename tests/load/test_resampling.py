"""The statistics of comparisons, against values that were worked out by hand or are in tables."""

from __future__ import annotations

import math

import pytest

from orlop.bin.load.comparison.pooled import pool
from orlop.bin.load.comparison.resampling import (
    Timeline,
    _block,
    _student,
    latency_estimates,
    quotient_estimate,
    ratio_interval,
)
from tests.support.load_results import made_result


@pytest.mark.parametrize(
    "freedom, confidence, expected",
    [
        (1, 0.99, 63.657),
        (2, 0.95, 4.303),
        (4, 0.99, 4.604),
        (10, 0.99, 3.169),
        (30, 0.999, 3.646),
        (10_000, 0.99, 2.576),
    ],
)
def test_students_distribution(freedom: int, confidence: float, expected: float) -> None:
    assert _student(freedom, confidence) == pytest.approx(expected, abs=0.001)


def test_blocks_go_round() -> None:
    timeline = Timeline([13, 3], 0, "a", draws=1)
    powers = [2.0**number for number in range(13)]
    assert timeline.sums([powers, [1, 10, 100]]) == [
        *(3 * power for power in powers[:12]),  # a sixth of the round: two seconds each
        *(4097, 1, 10, 100),  # and in a very short one just one
        *(8191, 111),  # the rounds
    ]


@pytest.mark.parametrize(("seconds", "length"), [(1, 1), (11, 1), (12, 2), (30, 5), (60, 7), (100, 10), (3600, 60)])
def test_blocks_are_long_in_long_rounds_and_many_in_short_ones(seconds: int, length: int) -> None:
    assert _block(seconds) == length


def test_two_even_rounds_of_a_hundred_and_a_hundred_and_ten() -> None:
    """Their logarithms deviate by ln(1.1) / sqrt(2), a mean of two by that / sqrt(2), a difference of two means by as
    much as one; with two degrees of freedom 99 % are within 9.925 of these."""
    sides = []
    for name in ("before", "after"):
        timeline = Timeline([10, 10], 1, name)
        estimate = quotient_estimate(timeline, [[100.0] * 10, [110.0] * 10], [[1.0] * 10] * 2)
        assert estimate is not None
        assert estimate.between is not None
        assert set(estimate.within.values) == {estimate.found}
        sides.append(estimate)
    interval = ratio_interval(*sides, 0.99)
    assert interval is not None
    reach = 9.925 * math.log(1.1) / math.sqrt(2)
    assert [math.log(end) for end in interval] == pytest.approx([-reach, reach], rel=0.03)


def test_without_anything_below_there_is_no_quotient() -> None:
    timeline = Timeline([5], 0, "a")
    assert quotient_estimate(timeline, [[1.0] * 5], [[0.0] * 5]) is None
    assert quotient_estimate(timeline, [[0.0] * 5], [[1.0] * 5]) is None
    pseudo = quotient_estimate(timeline, [[0.0] * 5], [[1.0] * 5], least=0.5)
    assert pseudo is not None
    assert pseudo.found == pytest.approx(math.log(0.1))


@pytest.mark.parametrize("rate", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_seconds_put_together_are_about_their_histogram(rate: float, drift: float) -> None:
    result = made_result(1, operations={"image-get": (rate, 800.0)}, drift=drift, rounds=2, sampled=False)
    rounds = [[[interval] for interval in each.operations[0].series] for each in result.rounds]
    estimates = latency_estimates(Timeline([20, 20], 0, "a", draws=10), rounds, (0.5, 0.99, 0.999))
    pooled = pool(result)[0]
    found = [math.exp(each.found) if each else 0 for each in estimates]
    assert found[:2] == pytest.approx([pooled.p50_us, pooled.p99_us], rel=0.15)
    assert found[2] == pytest.approx(pooled.p999_us, rel=0.2)


def test_no_success_has_no_latency() -> None:
    assert latency_estimates(Timeline([2], 0, "a"), [[[], []]], (0.5,)) == [None]
