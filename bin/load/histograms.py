"""Latencies in microseconds up to an hour, to three digits: HdrHistograms, which travel and are kept as text."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["LONGEST_US", "decoded", "new_histogram", "percentiles_us"]

LONGEST_US: Final = 3_600_000_000
_DIGITS: Final = 3


def new_histogram() -> Any:
    return _hdr()(1, LONGEST_US, _DIGITS)


def decoded(text: str) -> Any:
    return _hdr().decode(text)


def percentiles_us(histogram: Any, *shares: float) -> list[int]:
    """Zeros for an empty one."""
    if not histogram.get_total_count():
        return [0 for _ in shares]
    return [int(histogram.get_value_at_percentile(share)) for share in shares]


def _hdr() -> Any:
    from hdrh.histogram import HdrHistogram  # one of the extra `load`

    return HdrHistogram
