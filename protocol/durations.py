"""Durations as Go writes them (`2h45m`, `1.5s`), and ages as people say them. Source: spec gc 4.2."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

__all__ = ["age_text", "parse_duration"]

_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[+-]?(?:{_PART.pattern})+")
_MOST: Final = 2**63 - 1
_LONGEST_TEXT: Final = 100


def parse_duration(text: str) -> int | None:
    """Nanoseconds; None for what is no duration, or one that does not fit 64 bits."""
    if text in ("0", "+0", "-0"):
        return 0
    if len(text) > _LONGEST_TEXT or not text.isprintable() or _WHOLE.fullmatch(text) is None:
        return None
    total = sum(int(Decimal(number) * _UNITS[unit]) for number, unit in _PART.findall(text))
    if total > _MOST:
        return None
    return -total if text.startswith("-") else total


def age_text(since_ns: int, now_ns: int) -> str:
    """How long ago, as people say it."""
    seconds = max(0, now_ns - since_ns) // 1_000_000_000
    for length, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = seconds // length
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
