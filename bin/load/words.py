"""Figures as people read them."""

from __future__ import annotations

__all__ = ["duration_text", "rate_text"]


def duration_text(microseconds: float) -> str:
    """Three digits, in the unit that fits."""
    if microseconds < 1000:
        return f"{microseconds:.0f} us"
    if microseconds < 1_000_000:
        return f"{_three(microseconds / 1000)} ms"
    return f"{_three(microseconds / 1_000_000)} s"


def rate_text(per_second: float) -> str:
    return f"{per_second:,.0f} /s" if per_second >= 100 else f"{_three(per_second)} /s"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
