"""What a run found, for a terminal."""

from __future__ import annotations

import click

from ...output import print_table, size_text
from ..result import Result, Round, Verification
from ..text import duration_text, rate_text

__all__ = ["print_summary"]


def print_summary(result: Result) -> None:
    for number, round_ in enumerate(result.rounds):
        if len(result.rounds) > 1:
            click.echo(f"round {number + 1}:")
        _print_round(round_)
    if result.search:
        held = max((step.rate for step in result.search if step.held), default=0.0)
        click.echo(f"highest rate that holds: {rate_text(held)}")
    if result.verification is not None:
        _print_verification(result.verification)


def _print_round(round_: Round) -> None:
    header = ("OPERATION", "COUNT", "RATE", "ERRORS", "MEAN", "P50", "P99", "P99.9", "MAX")
    rows = []
    for each in round_.operations:
        figures = (each.mean_us, each.p50_us, each.p99_us, each.p999_us, each.max_us)
        times = [duration_text(figure) if each.count else "-" for figure in figures]
        errors = ", ".join(f"{count:,} {name}" for name, count in sorted(each.errors.items())) or "-"
        rows.append((each.operation, f"{each.count:,}", rate_text(each.rate), errors, *times))
    print_table(header, rows)
    count = sum(each.count for each in round_.operations)
    words = [f"{rate_text(round_.rate)} in all over {round_.seconds:.1f} s"]
    if round_.offered:
        words.append(f"{rate_text(round_.offered)} offered")
    if round_.dropped:
        words.append(f"{round_.dropped:,} arrivals dropped")
    if count:
        words.append(f"CPU each: client {duration_text(1e6 * round_.client_cpu_s / count)}")
        if round_.server:
            words.append(f"server {duration_text(1e6 * round_.server_cpu_s / count)}")
    if round_.server:
        words.append(f"server's memory up to {size_text(max(each.resident_bytes for each in round_.server))}")
        if round_.writes_a_sync:
            words.append(f"{round_.writes_a_sync:.1f} writes a sync")
            words.append(f"loop late p99 <{max(each.loop_lag_p99_s for each in round_.server) * 1000:g} ms")
    click.echo(", ".join(words))


def _print_verification(found: Verification) -> None:
    verdict = "all as acknowledged" if not found.wrong else f"{found.wrong:,} WRONG"
    kills = f", {found.kills} kills" if found.kills else ""
    lost = f"{found.uncertain:,} whose answer was lost{kills}"
    click.echo(f"compared: {found.reads:,} reads, {found.writes:,} writes, {lost}: {verdict}")
    for each in found.discrepancies[:20]:
        click.echo(f"  {each.namespace}: {each.name}: expected {each.expected}, found {each.found}")
