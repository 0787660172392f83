"""orlop top"""

from __future__ import annotations

import sys

import click
import trio

from ...protocol.api import Store
from ..output import print_json, print_table, size_text
from ..readings import Readings
from ..session import Session
from .options import json_option

__all__ = ["top"]

_MOST_METHODS = 15


@click.command()
@click.option("--every", type=click.FloatRange(0.2), default=1.0, show_default=True, metavar="SECONDS")
@click.option("--once", is_flag=True, help="Look for one interval, print, and end.")
@json_option
@click.pass_obj
def top(session: Session, every: float, once: bool, as_json: bool) -> None:
    """Watch a running store: calls and how long they take, commits, the collector, bytes.

    \b
    orlop --address unix:/run/orlop/orlop.sock top
    orlop top --once
    """

    async def run(store: Store) -> None:
        if as_json:
            print_json(await store.metrics())
            return
        before = Readings.of(await store.metrics())
        live = not once and sys.stdout.isatty()
        while True:
            await trio.sleep(every)
            now = Readings.of(await store.metrics())
            if live:
                click.clear()
            _show(before, now, every)
            if not live:
                return
            before = now

    session.run(run)


def _show(before: Readings, now: Readings, seconds: float) -> None:
    since = now.since(before)

    def rate(name: str, **labels: str) -> float:
        return since.value(name, **labels) / seconds

    commits, transactions = rate("orlop_commits_total"), rate("orlop_transactions_total")
    together = transactions / commits if commits else 0.0
    click.echo(
        f"{rate('orlop_requests_total'):.0f} calls/s on {now.value('orlop_connections'):.0f} connections, "
        f"{rate('orlop_request_errors_total'):.0f} errors/s; {transactions:.0f} transactions/s, {commits:.0f} syncs/s "
        f"({together:.1f} each), sync p99 {_latency(since, 'orlop_commit_seconds')}, "
        f"loop late p99 {_latency(since, 'orlop_loop_lag_seconds')}"
    )
    click.echo(
        f"collector {100 * rate('orlop_gc_work_seconds_total'):.0f} % of the time, "
        f"{rate('orlop_gc_removed_total'):.0f} removed/s, {now.value('orlop_gc_removals'):.0f} removals wait; "
        f"received {size_text(int(rate('orlop_registry_received_bytes_total')))}/s, "
        f"sent {size_text(int(rate('orlop_registry_sent_bytes_total')))}/s; packed "
        f"{size_text(int(now.value('orlop_store_bytes', kind='packed')))}, unpacked "
        f"{size_text(int(now.value('orlop_store_bytes', kind='unpacked')))}"
    )
    names = {each.labels["method"] for each in now.samples("orlop_requests_total")}
    rows = sorted(((rate("orlop_requests_total", method=name), name) for name in names), reverse=True)
    print_table(
        ("METHOD", "CALLS/S", "ERRORS/S", "P50", "P99", "UNDER WAY"),
        [
            (
                name,
                f"{calls:.0f}",
                f"{rate('orlop_request_errors_total', method=name):.0f}",
                _latency(since, "orlop_request_seconds", 0.5, method=name),
                _latency(since, "orlop_request_seconds", method=name),
                f"{now.value('orlop_requests_under_way', method=name):.0f}",
            )
            for calls, name in rows[:_MOST_METHODS]
        ],
    )


def _latency(since: Readings, name: str, share: float = 0.99, **labels: str) -> str:
    bound = since.percentile(name, share, **labels)
    if bound is None:
        return "-"
    if bound == float("inf"):
        return "more"
    return f"<{bound * 1e3:g} ms" if bound < 1 else f"<{bound:g} s"
