"""The numbers by which a store can be watched: calls, commits, queues, collections, bytes, and how late the loop is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import trio

from ..protocol.messages import Context, GetMetrics, MetricFamily, MetricKind, Metrics, Sample
from ..protocol.meter import Histogram, Meter
from ..protocol.registry.traffic import Traffic
from ..protocol.version import __version__
from ..protocol.world import World
from .disk_usage import disk_usage
from .gc import Collector
from .storage import StorageActor

__all__ = ["LoopWatch", "StoreMetrics"]

_EVERY_S: Final = 0.25
_LAGS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_INF: Final = float("inf")


class LoopWatch:
    """Sleeps and sees how late it wakes: so long others held up the loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lags = Histogram(_LAGS_S)

    async def run(self) -> None:
        clock = self._world.clock
        while True:
            began = clock.monotonic_ns()
            await trio.sleep(_EVERY_S)
            self.lags.add(max(0.0, (clock.monotonic_ns() - began) / 1e9 - _EVERY_S))


class StoreMetrics:
    def __init__(
        self,
        storage: StorageActor,
        collector: Collector,
        traffic: Traffic,
        meter: Meter,
        watch: LoopWatch,
        store_id: str,
    ) -> None:
        self._storage = storage
        self._collector = collector
        self._traffic = traffic
        self._meter = meter
        self._watch = watch
        self._store_id = store_id

    async def get(self, _: GetMetrics, __: Context) -> Metrics:
        return await self.gather()

    async def gather(self) -> Metrics:
        """What is known now. Counters begin with the start of the store."""
        return Metrics(
            [
                _gauge(
                    "orlop_info", "The store and its version.", (1, {"store": self._store_id, "version": __version__})
                ),
                *self._calls(),
                *self._commits(),
                *self._loop(),
                *self._registries(),
                *await self._collections(),
                *await self._bytes(),
            ]
        )

    def _calls(self) -> Iterator[MetricFamily]:
        methods = sorted(self._meter.methods.items())
        yield _counter(
            "orlop_requests_total",
            "Calls that were taken.",
            *((each.calls, {"method": name}) for name, each in methods),
        )
        yield _counter(
            "orlop_request_errors_total",
            "Calls that failed, by class of error.",
            *(
                (count, {"method": name, "error": error})
                for name, each in methods
                for error, count in sorted(each.errors.items())
            ),
        )
        yield MetricFamily(
            "orlop_request_seconds",
            MetricKind.HISTOGRAM,
            "How long calls took; of point reads a sample.",
            [_histogram(each.seconds, {"method": name}) for name, each in methods if each.seconds.count],
        )
        yield _gauge(
            "orlop_requests_under_way",
            "Calls that are not answered yet.",
            *((each.under_way, {"method": name}) for name, each in methods),
        )
        yield _gauge("orlop_connections", "Connections that are open.", (self._meter.connections, {}))

    def _commits(self) -> Iterator[MetricFamily]:
        found = self._storage.statistics()
        yield _counter("orlop_commits_total", "Groups of transactions, each with one sync.", (found.groups, {}))
        yield _counter("orlop_transactions_total", "Transactions.", (found.transactions, {}))
        yield _counter("orlop_writes_total", "Keys that were written.", (found.writes, {}))
        yield _counter("orlop_recoveries_total", "Reopenings after a failed write.", (found.recoveries, {}))
        for name, histogram, text in (
            ("orlop_commit_transactions", self._storage.batch_sizes, "Transactions that shared a sync."),
            ("orlop_commit_seconds", self._storage.commit_seconds, "How long a group's write and sync took."),
        ):
            yield MetricFamily(name, MetricKind.HISTOGRAM, text, [_histogram(histogram, {})])
        yield _gauge("orlop_commit_queue", "Transactions that wait for their sync.", (found.queued, {}))

    def _loop(self) -> Iterator[MetricFamily]:
        yield MetricFamily(
            "orlop_loop_lag_seconds",
            MetricKind.HISTOGRAM,
            "How late the event loop was.",
            [_histogram(self._watch.lags, {})],
        )

    def _registries(self) -> Iterator[MetricFamily]:
        for name, text in (
            ("requests", "Requests to registries."),
            ("retries", "Requests that were repeated."),
            ("received_bytes", "Bytes of blobs that came."),
            ("sent_bytes", "Bytes of blobs that were sent."),
        ):
            values = [
                (getattr(host, name.removesuffix("_bytes")), {"host": authority})
                for authority, host in sorted(self._traffic.hosts.items())
            ]
            yield _counter(f"orlop_registry_{name}_total", text, *values)

    async def _collections(self) -> list[MetricFamily]:
        status = await self._collector.status()
        removed = status.removed
        kinds = ("leases", "images", "ingests", "content", "snapshots", "blobs")
        return [
            _counter("orlop_gc_runs_total", "Collections.", (status.runs, {})),
            _counter("orlop_gc_failures_total", "Collections that failed.", (status.failures, {})),
            _counter(
                "orlop_gc_removed_total",
                "What collections removed.",
                *((getattr(removed, kind), {"kind": kind}) for kind in kinds),
            ),
            _counter("orlop_gc_freed_bytes_total", "Bytes that collections freed.", (removed.freed, {})),
            _counter("orlop_gc_work_seconds_total", "Time that collections worked.", (status.worked_ns / 1e9, {})),
            _gauge("orlop_gc_removals", "Removals from disk that wait.", (status.removals, {})),
        ]

    async def _bytes(self) -> list[MetricFamily]:
        usage = await disk_usage(self._storage)
        rows = [("packed", "packed"), ("unpacked", "unpacked"), ("reclaimable", "reclaimable")]
        return [
            _gauge(
                "orlop_bytes",
                "Bytes held by each namespace; what several hold counts for each.",
                *(
                    (getattr(each, field), {"namespace": name, "kind": kind})
                    for name, each in usage.namespaces.items()
                    for kind, field in rows
                ),
            ),
            _gauge(
                "orlop_store_bytes",
                "Bytes held by the store, each once.",
                *((getattr(usage.total, field), {"kind": kind}) for kind, field in rows),
            ),
        ]


def _counter(name: str, text: str, *values: tuple[float, dict[str, str]]) -> MetricFamily:
    return MetricFamily(name, MetricKind.COUNTER, text, [Sample(value, labels) for value, labels in values])


def _gauge(name: str, text: str, *values: tuple[float, dict[str, str]]) -> MetricFamily:
    return MetricFamily(name, MetricKind.GAUGE, text, [Sample(value, labels) for value, labels in values])


def _histogram(found: Histogram, labels: dict[str, str]) -> Sample:
    bounds = (*found.bounds, _INF)
    return Sample(found.total, labels, list(zip(bounds, accumulate(found.counts), strict=True)))
