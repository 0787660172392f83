"""What calls cost, counted where they are answered. Plain numbers: this stands on the path of every call."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from .errors import OrlopError

__all__ = ["LATENCIES_S", "Histogram", "Meter", "MethodMeter"]

LATENCIES_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)


class Histogram:
    """How many values lay at or below each bound, and above the last."""

    __slots__ = ("bounds", "counts", "count", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value


class MethodMeter:
    """One method: calls that were taken, calls that failed by class of error, and how long they took in seconds (of
    point reads a sample)."""

    __slots__ = ("calls", "errors", "seconds", "under_way")

    def __init__(self) -> None:
        self.calls = self.under_way = 0
        self.errors: dict[str, int] = {}
        self.seconds = Histogram(LATENCIES_S)

    def failed(self, error: OrlopError) -> None:
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1


class Meter:
    """All methods that were called since the start."""

    def __init__(self) -> None:
        self.methods: dict[str, MethodMeter] = {}
        self.connections = 0

    def of(self, name: str) -> MethodMeter:
        found = self.methods.get(name)
        if found is None:
            found = self.methods[name] = MethodMeter()
        return found
