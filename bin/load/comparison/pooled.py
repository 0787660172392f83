"""What the rounds of a result say together: counts add up, and latencies are of all of them, by their histograms."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from hdrh.histogram import HdrHistogram

from ....protocol.errors import InvalidArgument
from ..result import OperationResult, Result

__all__ = ["Pooled", "latencies_at", "pool", "pool_all", "seconds_of"]

_PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_UNREADABLE = (
    HdrCookieException,
    HdrHistogramSettingsException,
    HdrLengthException,
    zlib.error,
    ValueError,  # among them what base 64 is not
    TypeError,
    IndexError,
)


@dataclass(frozen=True)
class Pooled:
    """One operation, or all of them, in all rounds. `rate`: successes per second; latencies in microseconds, 0 without
    a success; `histogram`: None without one."""

    operation: str
    count: int
    errors: dict[str, int]
    rate: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    histogram: HdrHistogram | None

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def error_share(self) -> float:
        """Of all that were answered."""
        asked = self.count + self.failed
        return self.failed / asked if asked else 0.0


def seconds_of(result: Result) -> float:
    """How long was measured."""
    return sum(each.seconds for each in result.rounds)


def pool(result: Result) -> list[Pooled]:
    """Each operation, the most frequent first. Raises InvalidArgument: a histogram that is none."""
    found: dict[str, list[OperationResult]] = {}
    for measured in result.rounds:
        for operation in measured.operations:
            found.setdefault(operation.operation, []).append(operation)
    pooled = [_pooled(name, parts, seconds_of(result)) for name, parts in found.items()]
    return sorted(pooled, key=lambda each: (-each.count, -each.failed))


def pool_all(result: Result) -> Pooled:
    """All operations as one, without a name. Raises InvalidArgument, as `pool`."""
    parts = [operation for measured in result.rounds for operation in measured.operations]
    return _pooled("", parts, seconds_of(result))


def latencies_at(histogram: HdrHistogram, percentiles: Iterable[float]) -> dict[float, float]:
    """Microseconds by percentile (0 to 100): what the histogram counts as one with it, but never more than the most."""
    found: dict[float, int] = histogram.get_percentile_to_value_dict(list(percentiles))
    return {at: float(min(value, histogram.max_value)) for at, value in found.items()}


def _pooled(name: str, parts: Sequence[OperationResult], seconds: float) -> Pooled:
    count = sum(part.count for part in parts)
    errors: Counter[str] = Counter()
    for part in parts:
        errors.update(part.errors)
    histogram = _together([part for part in parts if part.histogram and part.count])
    most = float(max((part.max_us for part in parts if part.count), default=0))
    at = latencies_at(histogram, _PERCENTILES) if histogram else {}
    at = {percentile: min(latency, most) for percentile, latency in at.items()}  # it rounds up
    return Pooled(
        name,
        count,
        dict(errors),
        count / seconds if seconds > 0 else 0.0,
        sum(part.mean_us * part.count for part in parts) / count if count else 0.0,
        at.get(50.0, 0.0),
        at.get(90.0, 0.0),
        at.get(99.0, 0.0),
        at.get(99.9, 0.0),
        most,
        histogram,
    )


def _together(parts: Sequence[OperationResult]) -> HdrHistogram | None:
    """The first of the widest takes in the others."""
    histograms = [_decoded(part) for part in parts]
    if not histograms:
        return None
    histograms.sort(key=lambda each: -each.highest_trackable_value)
    whole, *others = histograms
    for other in others:
        whole.add(other)
    return whole if whole.total_count else None


def _decoded(part: OperationResult) -> HdrHistogram:
    try:
        return HdrHistogram.decode(part.histogram)
    except _UNREADABLE as error:
        raise InvalidArgument(f"the histogram of {part.operation} cannot be read: {error}") from error
