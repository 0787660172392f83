"""A store's numbers at one instant, and what happened between two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ..protocol.messages import MetricFamily, MetricKind, Metrics, Sample

__all__ = ["Readings"]


class Readings(NamedTuple):
    families: Mapping[str, MetricFamily]

    @classmethod
    def of(cls, metrics: Metrics) -> Readings:
        return cls({family.name: family for family in metrics.families})

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples with these labels; 0 if there are none."""
        return sum(each.value for each in self._with(name, labels))

    def samples(self, name: str) -> list[Sample]:
        return self.families[name].samples if name in self.families else []

    def buckets(self, name: str, **labels: str) -> dict[float, int]:
        """Of a histogram: how many values lay at or below each bound."""
        found: dict[float, int] = {}
        for each in self._with(name, labels):
            for bound, count in each.buckets:
                found[bound] = found.get(bound, 0) + count
        return found

    def percentile(self, name: str, share: float, **labels: str) -> float | None:
        """The bound below which so many of a histogram's values lay; None without any, infinite beyond the last."""
        counts = sorted(self.buckets(name, **labels).items())
        total = max((count for _, count in counts), default=0)
        return next((bound for bound, count in counts if count >= share * total), None) if total else None

    def since(self, before: Readings) -> Readings:
        """What was added to counters and histograms; gauges as they are now."""
        return Readings({name: _since(family, before.samples(name)) for name, family in self.families.items()})

    def _with(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        return [each for each in self.samples(name) if labels.items() <= each.labels.items()]


def _since(family: MetricFamily, before: list[Sample]) -> MetricFamily:
    if family.kind is MetricKind.GAUGE:
        return family
    old = {tuple(sorted(each.labels.items())): each for each in before}
    added = []
    for each in family.samples:
        was = old.get(tuple(sorted(each.labels.items())), Sample(0.0))
        counts = dict(was.buckets)
        buckets = [(bound, count - counts.get(bound, 0)) for bound, count in each.buckets]
        added.append(Sample(each.value - was.value, each.labels, buckets))
    return msgspec.structs.replace(family, samples=added)
