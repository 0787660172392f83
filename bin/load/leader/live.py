"""What a run shows while it runs: a table that renews itself on a terminal, else a line for each phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...output import size_text
from ..histograms import new_histogram, percentiles_us
from ..result import SearchStep
from ..text import duration_text, rate_text
from .crew import Gathered

__all__ = ["Screen", "screen"]


class Screen:
    """A Watcher. Use `screen`."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live: Live | None = None
        self._phase = "connecting"
        self._ends_at = 0.0
        self._kills = 0
        self._gathered: Gathered | None = None
        self._told_population = 0.0

    def populating(self, done: int, total: int) -> None:
        if total:
            self._phase = f"populating: {done:,} of {total:,}"
            self._show()

    def phase(self, name: str, seconds: float) -> None:
        self._phase, self._ends_at, self._gathered = name, time.monotonic() + seconds, None
        self._say(f"{name}, {seconds:g} s")
        self._show()

    def second(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._show()

    def searched(self, step: SearchStep) -> None:
        kept = "holds" if step.held else "does not hold"
        self._print(f"  {rate_text(step.rate)}: p99 {duration_text(step.p99_us)}, {kept}")
        self._show()

    def killed(self) -> None:
        self._kills += 1
        self._say("the server was killed, and started again")

    def verifying(self) -> None:
        self._phase, self._ends_at = "comparing what was acknowledged with what is there", 0.0
        self._say(self._phase)
        self._show()

    def _say(self, line: str) -> None:
        """Without a terminal that renews itself, a line."""
        if self._live is None:
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._view())

    def _view(self) -> RenderableType:
        left = self._ends_at - time.monotonic()
        head = f"{self._title} - {self._phase}" + (f", {left:.0f} s left" if left > 0 else "")
        if self._kills:
            head += f", killed {self._kills} times"
        parts: list[RenderableType] = [Text(head, style="bold")]
        if self._gathered is not None:
            parts.append(_operations(self._gathered))
            parts.append(Text(_server(self._gathered)))
        return Group(*parts)


def _operations(gathered: Gathered) -> Table:
    """Of the last seconds."""
    table = Table(box=None, pad_edge=False)
    table.add_column("operation")
    for title in ("rate", "errors", "p50", "p99", "max"):
        table.add_column(title, justify="right")
    recent = list(gathered.recent)
    for operation in gathered.operations():
        errors, whole = 0, new_histogram()
        for second in recent:
            errors += sum(second.errors.get(operation, {}).values())
            if operation in second.histograms:
                whole.add(second.histograms[operation])
        count = whole.get_total_count()
        cells = [duration_text(value) if count else "-" for value in percentiles_us(whole, 50, 99, 100)]
        table.add_row(operation, rate_text(count / max(1, len(recent))), f"{errors:,}" if errors else "", *cells)
    return table


def _server(gathered: Gathered) -> str:
    if len(gathered.server) < 2:
        return ""
    before, now = gathered.server[-2:]
    seconds = max(0.001, now.at_s - before.at_s)
    cores = (now.cpu_s - before.cpu_s) / seconds
    words = [f"server: {cores:.2f} cores, {size_text(now.resident_bytes)}, {now.descriptors} descriptors"]
    if now.commits > before.commits:
        words.append(f"{(now.transactions - before.transactions) / (now.commits - before.commits):.1f} writes a sync")
        words.append(f"loop late p99 <{now.loop_lag_p99_s * 1000:g} ms")
    if gathered.recent and (waiting := gathered.recent[-1].waiting):
        words.append(f"{waiting:,} arrivals wait")
    return ", ".join(words)


@contextmanager
def screen(title: str, *, quiet: bool) -> Iterator[Screen]:
    """On standard error; `quiet`: nothing at all."""
    console = Console(stderr=True, quiet=quiet)
    shown = Screen(console, title)
    if not console.is_terminal or quiet:
        yield shown
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        shown._live = live
        yield shown
