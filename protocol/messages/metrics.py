"""What a store tells of itself in numbers."""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = ["GetMetrics", "MetricFamily", "MetricKind", "Metrics", "Sample"]


class GetMetrics(msgspec.Struct, frozen=True):
    pass


class MetricKind(Enum):
    """COUNTER only grows, from the start of the store on. HISTOGRAM: counts below bounds."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Sample(msgspec.Struct, frozen=True):
    """`value`: of a histogram the sum of all values. `buckets`: (upper bound, how many values lay at or below it), the
    last bound infinite."""

    value: float
    labels: dict[str, str] = {}
    buckets: list[tuple[float, int]] = []


class MetricFamily(msgspec.Struct, frozen=True):
    """Named as Prometheus names them: base units, counters end in `_total`."""

    name: str
    kind: MetricKind
    help: str
    samples: list[Sample]


class Metrics(msgspec.Struct, frozen=True):
    families: list[MetricFamily]
