"""Metrics for Prometheus: a listener that answers `GET /metrics`, and nothing else.

Source: Prometheus' text exposition format, written by its own library.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import h11
import structlog
import trio
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from .messages import MetricFamily, MetricKind, Metrics
from .world import Listener, Transport

__all__ = ["render", "serve_metrics"]

log = structlog.get_logger("orlop.metrics")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PATIENCE_S: Final = 10.0
_MOST_AT_ONCE: Final = 16
_MAX_REQUEST_BYTES: Final = 16 * 1024
Gather = Callable[[], Awaitable[Metrics]]


async def serve_metrics(listener: Listener, gather: Gather) -> None:
    """Answer scrapes until cancelled."""
    limiter = trio.CapacityLimiter(_MOST_AT_ONCE)
    async with trio.open_nursery() as nursery:
        while True:
            try:
                transport = await listener.accept()
            except OSError as error:  # no descriptors, say
                log.warning("a scrape could not be accepted", error=str(error))
                await trio.sleep(1)
                continue
            nursery.start_soon(_serve_one, transport, gather, limiter)


async def _serve_one(transport: Transport, gather: Gather, limiter: trio.CapacityLimiter) -> None:
    try:
        with trio.move_on_after(_PATIENCE_S):
            async with limiter:
                await _answer(transport, gather)
    except (OSError, h11.ProtocolError):  # whoever asked has gone, or speaks something else
        pass
    finally:
        with trio.CancelScope(shield=True):  # closing does not wait
            await transport.close()


async def _answer(transport: Transport, gather: Gather) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST_BYTES)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data, descriptors = await transport.receive()
            for fd in descriptors:
                transport.close_descriptor(fd)
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            break
        elif not isinstance(event, h11.Data):
            return
    path, method = request.target.partition(b"?")[0], request.method
    if path not in (b"/metrics", b"/"):
        status, body = 404, b"the metrics are at /metrics\n"
    elif method not in (b"GET", b"HEAD"):
        status, body = 405, b"only GET\n"
    else:
        status, body = 200, render((await gather()).families)
    headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body))), ("Connection", "close")]
    out = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    if method != b"HEAD":
        out += connection.send(h11.Data(data=body)) or b""
    await transport.send(out)


def render(families: Iterable[MetricFamily]) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready([_metric(each) for each in families]))
    return generate_latest(registry)


class _Ready(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _metric(family: MetricFamily) -> Metric:
    names = sorted({name for sample in family.samples for name in sample.labels})
    metric: Any
    if family.kind is MetricKind.HISTOGRAM:
        metric = HistogramMetricFamily(family.name, family.help, labels=names)
    elif family.kind is MetricKind.COUNTER:
        metric = CounterMetricFamily(family.name, family.help, labels=names)
    else:
        metric = GaugeMetricFamily(family.name, family.help, labels=names)
    for sample in family.samples:
        values = [sample.labels.get(name, "") for name in names]
        if family.kind is MetricKind.HISTOGRAM:
            buckets = [("+Inf" if bound == float("inf") else repr(bound), count) for bound, count in sample.buckets]
            metric.add_metric(values, buckets, sample.value)
        else:
            metric.add_metric(values, sample.value)
    return metric  # type: ignore[no-any-return]
