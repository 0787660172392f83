"""Progress of a transfer: bars on a terminal, plain lines when piped; always on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from ...protocol.messages import TransferProgress, TransferState
from ..output import size_text

__all__ = ["TransferDisplay", "open_display", "transfer_bar"]

_STALLED_S = 5.0  # worth a line
_ENDED = (TransferState.COMPLETE, TransferState.EXISTS, TransferState.MOUNTED, TransferState.UNPACKED)
_WHOLE = (
    TransferState.RESOLVING,
    TransferState.RESOLVED,
    TransferState.VERIFYING,
    TransferState.SAVED,
    TransferState.PUSHED,
    TransferState.NOTE,
)


class TransferDisplay:
    """Keeps the newest state of every object; shows nothing by itself."""

    def __init__(self) -> None:
        self.items: dict[str, TransferProgress] = {}
        self.notes: list[str] = []

    def show(self, item: TransferProgress) -> None:
        if item.note and item.note not in self.notes:
            self.notes.append(item.note)
        if item.state not in _WHOLE:
            self.items[item.digest] = item


class _Lines(TransferDisplay):
    """One line for each thing that begins or ends."""

    def show(self, item: TransferProgress) -> None:
        before = self.items.get(item.digest)
        super().show(item)
        if item.stalled_s >= _STALLED_S and (before is None or before.stalled_s < _STALLED_S):
            click.echo(f"{item.name}: nothing has come from {item.source} for {item.stalled_s:.0f} s", err=True)
        if before is not None and before.state is item.state:
            return
        if item.state is TransferState.RESOLVED:
            click.echo(f"{item.name}: resolved {item.digest}", err=True)
        elif item.state in _ENDED:
            click.echo(f"{item.name}: {item.state.value}, {item.total} bytes", err=True)
        elif item.state is not TransferState.WAITING:
            click.echo(f"{item.name}: {item.state.value}", err=True)


class _Bars(TransferDisplay):
    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
        )

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}"),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, item: TransferProgress) -> None:
        super().show(item)
        if item.state in _WHOLE:
            self.progress.console.print(f"{item.name}: {item.state.value}", markup=False, highlight=False)
            return
        task = self._tasks.get(item.digest)
        if task is None:
            task = self._tasks[item.digest] = self.progress.add_task(item.name, total=item.total, state="", rate="")
        # How much a layer unfolds to nobody says: its bar then only shows that it moves.
        state = f"stalled {item.stalled_s:.0f} s" if item.stalled_s else item.state.value
        rate = f"{size_text(item.rate)}/s" if item.rate else ""
        self.progress.update(task, completed=item.offset, total=item.total or None, state=state, rate=rate)


@contextmanager
def open_display(quiet: bool) -> Iterator[TransferDisplay]:
    """What there is to know is told at the end, each thing once, however quiet."""
    if quiet:
        display = TransferDisplay()
        yield display
    elif sys.stderr.isatty():
        display = bars = _Bars()
        with bars.progress:
            yield display
    else:
        display = _Lines()
        yield display
    for note in display.notes:
        click.echo(f"note: {note}", err=True)


@contextmanager
def transfer_bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for bytes that pass, where somebody can see it; advance it by each piece's length."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
