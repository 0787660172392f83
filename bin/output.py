"""What the programs print: tables, JSON, sizes, ages, and errors with their exit codes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import click
import msgspec

from ..protocol.errors import NotFound, OrlopError

__all__ = [
    "EXIT_FAILED",
    "EXIT_NOT_FOUND",
    "EXIT_USAGE",
    "fail",
    "labels_text",
    "print_json",
    "print_table",
    "report",
    "size_text",
    "visible",
]

_NARROWEST = 12  # of a column that is cut
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns aligned with spaces, as containerd's tools print them."""
    table = [list(header), *([visible(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    if sys.stdout.isatty():  # a pipe gets everything
        widths = _fitting(widths, shutil.get_terminal_size().columns)
    for row in table:
        cells = (_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(" ".join(cells).rstrip())


def _fitting(widths: list[int], columns: int) -> list[int]:
    """The widest columns give way first, down to what still says something."""
    widths = list(widths)
    while sum(widths) + len(widths) - 1 > columns and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def print_json(value: Any) -> None:
    click.echo(msgspec.json.encode(value).decode())


def size_text(size: int) -> str:
    """Binary units, one style everywhere."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def labels_text(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "-"


def report(error: OrlopError, program: str) -> int:
    """One line on stderr, and a hint if there is one. Returns the exit code."""
    click.echo(f"{program}: {visible(error.message)}", err=True)
    if error.hint:
        click.echo(f"  hint: {visible(error.hint)}", err=True)
    return EXIT_NOT_FOUND if isinstance(error, NotFound) else EXIT_FAILED


def fail(error: OrlopError, program: str) -> NoReturn:
    sys.exit(report(error, program))


def visible(text: str) -> str:
    """Names may hold anything; a terminal must not obey them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
