"""Two or more results next to each other, the others against the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..comparison.compare import Change, Comparison, compare, named, value_text
from ..comparison.pooled import Pooled, pool_all
from ..result import Result
from ..text import NOTHING, change_text
from .charts import SMALL, percentile_plot
from .markup import Markup, bullets, element, figure, figures, join, numbers_table
from .plots import Plot

__all__ = ["side_by_side"]

ALL = "all"


def side_by_side(results: Sequence[Result], names: Sequence[str], pooled: Sequence[Sequence[Pooled]]) -> Markup:
    comparisons = [compare(results[0], each) for each in results[1:]]
    parts: list[str] = [element("h2", "Comparison", identity="comparison")]
    said = [
        join([element("strong", name), f" against {names[0]}: ", _verdict(comparison)], "")
        for name, comparison in zip(names[1:], comparisons, strict=True)
    ]
    parts.append(element("div", bullets(said), kind="summary"))
    parts.append(_table(names, comparisons))
    for name, comparison in zip(names[1:], comparisons, strict=True):
        remarks = list(_remarks(names[0], name, comparison))
        if remarks:
            parts.append(bullets(remarks))
    parts.append(element("h3", "Latency by percentile, overlaid"))
    plots = list(_plots(results, names, pooled))
    parts += [figure(plots[0]), figures(plots[1:])] if plots else [element("p", "Nothing succeeded.")]
    return element("section", join(parts))


def _verdict(comparison: Comparison) -> Markup:
    worse, better = comparison.of("worse"), comparison.of("better")
    if worse:
        return element("span", f"worse in {_named(worse)}", kind="bad")
    if better:
        return element("span", f"nothing is worse, better in {_named(better)}", kind="good")
    return element("span", "no change that is certain")


def _named(changes: Sequence[Change]) -> str:
    return ", ".join(map(named, changes[:5])) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")


def _table(names: Sequence[str], comparisons: Sequence[Comparison]) -> Markup:
    """By operation, each figure of the first result, and of the others with what it means."""
    by_key = [{(each.operation, each.what): each for each in comparison.changes} for comparison in comparisons]
    keys = sorted({key: None for known in by_key for key in known}, key=_place)
    rows = []
    for key in keys:
        first = next(known[key].before for known in by_key if key in known)
        row: list[str] = [key[0] or ALL, key[1], value_text(key[1], first)]
        for known in by_key:
            row += _cells(known[key]) if key in known else [NOTHING] * 4
        rows.append(row)
    header = ["operation", "figure", names[0]]
    for name, comparison in zip(names[1:], comparisons, strict=True):
        header += [name, "change", f"{100 * comparison.confidence:g} % sure", "verdict"]
    words = [0, 1, *range(6, len(header), 4)]
    return numbers_table("Figures, how much they changed, and whether that is certain", header, rows, words=words)


def _place(key: tuple[str, str]) -> tuple[bool, str, int]:
    figures_in_order = ("wrong", "errors", "rate", "p50", "p99", "p99.9")
    place = figures_in_order.index(key[1]) if key[1] in figures_in_order else len(figures_in_order)
    return key[0] != "", key[0], place


def _cells(change: Change) -> list[str]:
    interval = NOTHING
    if change.low is not None and change.high is not None:
        interval = f"{change_text(change.low)} to {change_text(change.high)}"
    verdict: str = change.verdict
    if change.verdict == "worse":
        verdict = element("span", "▼ worse", kind="bad")
    elif change.verdict == "better":
        verdict = element("span", "▲ better", kind="good")
    elif change.verdict == "cannot tell":
        verdict = f"cannot tell: {change.why}"
    return [value_text(change.what, change.after), change_text(change.ratio), interval, verdict]


def _remarks(first: str, name: str, comparison: Comparison) -> Iterator[str]:
    yield from (f"{operation}: only in {first}, not in {name}" for operation in comparison.only_before)
    yield from (f"{operation}: only in {name}, not in {first}" for operation in comparison.only_after)
    yield from (f"{name}: {each}" for each in comparison.warnings)
    yield from (f"{name}: {each}" for each in comparison.notes)


def _plots(results: Sequence[Result], names: Sequence[str], pooled: Sequence[Sequence[Pooled]]) -> Iterator[Plot]:
    """All operations together, then each, a line for each result."""
    whole = [pool_all(each).histogram for each in results]
    operations = list({each.operation: None for some in pooled for each in some})
    found = [("all operations", whole)]
    found += [
        (operation, [next((each.histogram for each in some if each.operation == operation), None) for some in pooled])
        for operation in operations
    ]
    for number, (title, histograms) in enumerate(found):
        known = [(name, each, n) for n, (name, each) in enumerate(zip(names, histograms, strict=True)) if each]
        if known:
            lines, numbers = [(name, each) for name, each, _ in known], [n for *_, n in known]
            size = SMALL if number else {}
            yield percentile_plot(f"overlay-{number}", title, lines, numbers, **size)
