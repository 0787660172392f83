"""What operations took, kept by the second: a histogram for each, and errors by class."""

from __future__ import annotations

from typing import Any

from ..histograms import LONGEST_US, new_histogram
from ..messages import OperationTold

__all__ = ["Tally"]


class Tally:
    """Of one worker. `take` begins a new second."""

    def __init__(self) -> None:
        self._histograms: dict[str, Any] = {}
        self._errors: dict[str, dict[str, int]] = {}

    def succeeded(self, operation: str, seconds: float) -> None:
        histogram = self._histograms.get(operation)
        if histogram is None:
            histogram = self._histograms[operation] = new_histogram()
        histogram.record_value(min(LONGEST_US, max(1, int(seconds * 1e6))))

    def failed(self, operation: str, error: str) -> None:
        errors = self._errors.setdefault(operation, {})
        errors[error] = errors.get(error, 0) + 1

    def take(self) -> dict[str, OperationTold]:
        """Everything since the last time."""
        found = {}
        for operation in self._histograms.keys() | self._errors.keys():
            histogram = self._histograms.get(operation)
            text = ""
            if histogram is not None and histogram.get_total_count():
                text = histogram.encode().decode()
                histogram.reset()
            errors = self._errors.pop(operation, {})
            if text or errors:
                found[operation] = OperationTold(text, errors)
        return found
