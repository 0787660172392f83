"""The book as a page: `docs/performance.md`, made from the figures in `docs/performance.json`, the remarks, and what
was measured by hand (`prose.md`). `python -m benchmarks.page` makes it anew from the figures that are there."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import msgspec

from .bars import draw_bars
from .figures import Book, Comparison, Section
from .remarks import REMARKS, SECTIONS

__all__ = ["main", "render", "write_figures"]

DOCS = Path(__file__).parent.parent / "docs"
FIGURES = DOCS / "performance.json"
PROSE = Path(__file__).parent / "prose.md"


def main() -> None:
    write_page(msgspec.json.decode(FIGURES.read_bytes(), type=Book))


def write_figures(book: Book, results: str, *, whole: bool) -> None:
    """`whole`: all chapters at full length, which make the page anew."""
    if whole:
        FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(book), indent=1) + b"\n")
        write_page(book)
        print(f"\nwritten: {FIGURES}, {DOCS / 'performance.md'}")
    if results:
        Path(results).write_bytes(msgspec.json.encode(book))
    if not whole:
        print()
        for section in book.sections:
            print("\n".join(_table(section)))


def write_page(book: Book) -> None:
    (DOCS / "performance").mkdir(exist_ok=True)
    for name, drawing in drawings(book).items():
        (DOCS / "performance" / name).write_text(drawing)
    (DOCS / "performance.md").write_text(render(book))


def drawings(book: Book) -> dict[str, str]:
    """Files by name: of each section with something to compare, the ratios."""
    found = {}
    for section in book.sections:
        bars = [(each.title, each.ratio) for each in section.comparisons if each.ratio]
        if len(bars) > 1:
            title = f"{section.title}: how many times as good as {section.other}"
            found[f"{section.key}.svg"] = draw_bars(title, bars)
    return found


def render(book: Book) -> str:
    machine = book.machine
    lines = [
        "# Performance",
        "",
        "Made by `make bench` (`python -m benchmarks`) in one run, and by `python -m benchmarks.page` from its figures",
        "([performance.json](performance.json)). `make bench-quick` shows the same in under five minutes.",
        "",
        f"Measured {book.measured_on}: orlop {book.versions['orlop']}, containerd {book.versions['containerd']},",
        f"{machine.cores} cores ({machine.processor or 'unknown'}), {machine.memory_bytes / 2**30:.0f} GiB,",
        f"{machine.file_system}, {machine.system}, Python {machine.python}, trio {machine.trio}.",
        "Clients run on the same cores as the servers.",
        "",
        "Both servers run at once on folders of the same disk, and are asked in turns: some seconds here, some there,",
        "and again. A figure is the median of its rounds, in brackets the least and the most. Machines like this are",
        "noisy; a ratio of two figures from one run says more than either. It is above 1 where orlop is better.",
        "Every write that is counted was durable before it was answered, except containerd's snapshots, which it does",
        "not sync.",
    ]
    for section in book.sections:
        lines += ["", f"## {section.title}", ""]
        if section.key in SECTIONS:
            lines += [SECTIONS[section.key], ""]
        lines += _table(section)
        if sum(1 for each in section.comparisons if each.ratio) > 1:
            lines += ["", f"![{section.title}: ratios](performance/{section.key}.svg)"]
        remarks = [REMARKS[each.key] for each in section.comparisons if each.key in REMARKS]
        for remark in dict.fromkeys(remarks):
            lines += ["", f"* {remark}"] if lines[-1].startswith(("|", "!")) else [f"* {remark}"]
    return "\n".join(lines) + "\n\n" + PROSE.read_text()


def _table(section: Section) -> list[str]:
    """With a column for the server's CPU where it was measured."""
    costs = any(each.orlop.cpu_us for each in section.comparisons)
    head = ["", "orlop", section.other, "ratio"]
    if costs:
        head += ["p99", "server's CPU each"]
    rows = [head, ["---"] * len(head)]
    for each in section.comparisons:
        row = [each.title, _values(each, each.orlop.values), _values(each, each.other.values if each.other else [])]
        row.append(f"{each.ratio:.2f}" if each.ratio else "")
        if costs:
            sides = [each.orlop, *([each.other] if each.other else [])]
            row.append(" / ".join(_figure(side.p99_us / 1000) for side in sides) + " ms")
            row.append(" / ".join(f"{side.cpu_us:,.0f}" for side in sides) + " us")
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _values(comparison: Comparison, values: list[float]) -> str:
    if not values:
        return ""
    middle = _figure(median(values))
    spread = f" ({_figure(min(values))} to {_figure(max(values))})" if len(values) > 1 else ""
    unit = comparison.unit if comparison.unit.startswith("/") else f" {comparison.unit}"
    return f"{middle}{unit}{spread}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
