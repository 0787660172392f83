"""How numbers and names are written for people: three digits that say something, and a unit with each."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from ..output import size_text

__all__ = [
    "NOTHING",
    "amount_text",
    "bytes_text",
    "change_text",
    "count_text",
    "duration_text",
    "instant_text",
    "long_text",
    "percentile_text",
    "rate_text",
    "share_text",
]

NOTHING = "–"  # noqa: RUF001 - no minus
"""Where there is no number."""


def count_text(count: float) -> str:
    """A whole number, its thousands apart."""
    return f"{count:,.0f}"


def amount_text(amount: float) -> str:
    """Three digits that say something, but no whole digit is lost."""
    if amount != 0 and abs(amount) < 0.0995:
        return f"{amount:.2g}"
    for places, below in ((2, 9.995), (1, 99.95)):
        if abs(amount) < below:
            return f"{amount:.{places}f}"
    return f"{amount:,.0f}"


def duration_text(microseconds: float) -> str:
    """µs, ms or s; nothing for none."""
    if microseconds <= 0:
        return NOTHING
    if microseconds < 999.5:
        whole = microseconds == round(microseconds)
        return f"{microseconds:.0f} µs" if whole else f"{amount_text(microseconds)} µs"
    if microseconds < 999_500:
        return f"{amount_text(microseconds / 1000)} ms"
    return f"{amount_text(microseconds / 1e6)} s"


def long_text(seconds: float) -> str:
    """How long something went on."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def rate_text(rate: float) -> str:
    return f"{amount_text(rate)} /s"


def bytes_text(count: float) -> str:
    return size_text(round(count))


def share_text(share: float) -> str:
    """Of one, in per cent. What is there does not become 0, and what is missing not 100."""
    percent = share * 100
    if percent == 0 or percent == 100:
        return f"{percent:.0f} %"
    if percent < 0.01:
        return "< 0.01 %"
    if percent > 99.99:
        return "> 99.99 %"
    return f"{percent:.2f} %"


def change_text(ratio: float | None) -> str:
    """By how much: a sign and per cent, and how many times from the double on."""
    if ratio is None or not math.isfinite(ratio):
        return NOTHING
    if ratio >= 2:
        return f"× {amount_text(ratio)}"  # noqa: RUF001 - times
    percent = (ratio - 1) * 100
    if abs(percent) < 0.05:
        return "± 0 %"
    return f"{'+' if percent > 0 else '−'}{abs(percent):.1f} %"  # noqa: RUF001 - as wide as the plus


def percentile_text(percentile: float) -> str:
    return f"{percentile:g}"


def instant_text(seconds: float) -> str:
    """Since 1970, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return NOTHING
