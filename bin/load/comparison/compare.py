"""Whether one run did better or worse than another, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

from ...output import visible
from ..result import Result
from ..text import (
    NOTHING,
    amount_text,
    bytes_text,
    change_text,
    count_text,
    duration_text,
    rate_text,
    share_text,
)
from .figures import OVERALL, Figure, Side, What
from .resampling import BLOCK_S, ratio_interval
from .shares import chance_of_share

__all__ = [
    "OVERALL",
    "Change",
    "Comparison",
    "Verdict",
    "What",
    "compare",
    "describe",
    "exit_code",
    "named",
    "value_text",
]

Verdict = Literal["worse", "changed", "cannot tell", "within noise", "better"]
"""`changed`: no way is the better one."""

_LEAST_RATE: Final = 20
"""Successes in one of the runs."""
_LEAST_SECONDS: Final = 2 * BLOCK_S
"""Of a single round."""
_RISES: Final[dict[What, Verdict]] = {"rate": "better", "transactions per commit": "changed"}
"""What it is if a figure is higher; of all others, worse."""
_ORDER: Final[tuple[Verdict, ...]] = ("worse", "changed", "cannot tell", "within noise", "better")
_MIXED: Final = ("rate", "p50", "p99", "p99.9", "errors", "server CPU", "client CPU")
"""What of all together says something only if the same operations are in it."""
_FEW: Final = "too little data"
_OTHERS: Final = "not the same operations"
_WARNED: Final = 20
"""Differences of two scenarios or machines that are named; two scenarios can differ in everything."""


class Change(msgspec.Struct, frozen=True):
    """One figure of both runs. `operation`: OVERALL for all together. Rates are per second, latencies and CPU by
    operation microseconds, memory bytes, errors a share of what was answered, wrong a number of reads. `ratio`: after
    to before, None if there was nothing before; `low`, `high`: where it lies, as sure as was asked, None where that is
    not known. `why`: what keeps from telling, or what the verdict rests on."""

    operation: str
    what: What
    before: float
    after: float
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    why: str = ""


class Comparison(msgspec.Struct, frozen=True):
    """`changes`: the worst first. `warnings`: what else differs than the program; `notes`: what no verdict knows."""

    changes: list[Change]
    only_before: list[str]
    only_after: list[str]
    warnings: list[str]
    notes: list[str]
    least: float
    confidence: float

    def of(self, verdict: Verdict) -> list[Change]:
        return [each for each in self.changes if each.verdict == verdict]


def compare(
    before: Result, after: Result, *, least: float = 0.05, confidence: float = 0.99, seed: int = 0
) -> Comparison:
    """Something has changed only if it is by at least `least` (0.05: times 1.05, or divided by it) and the interval of
    the ratio, as sure as `confidence`, excludes 1. The same `seed` draws the same.

    Raises InvalidArgument: a histogram is none.
    """
    judge = _Judge(Side(before, seed, "before"), Side(after, seed, "after"), least, confidence)
    there, here = judge.before.operations, judge.after.operations
    both = [name for name in there if name in here]
    changes = [*judge.operation(OVERALL), *judge.resources(), *_verified(before, after)]
    for name in both:
        changes += judge.operation(name)
    return Comparison(
        sorted(changes, key=_badness),
        [name for name in there if name not in here],
        [name for name in here if name not in there],
        list(_warnings(before, after)),
        list(_notes(before, after, changes, confidence)),
        least,
        confidence,
    )


def exit_code(comparison: Comparison) -> int:
    """0: nothing is worse, 1: something is."""
    return 1 if comparison.of("worse") else 0


class _Judge:
    def __init__(self, before: Side, after: Side, least: float, confidence: float) -> None:
        self.before, self.after = before, after
        self._least = math.log1p(least)
        self._confidence = confidence
        self._rounds = (len(before.rounds), len(after.rounds))
        self._same = before.operations.keys() == after.operations.keys()
        self._enough = all(len(side.rounds) > 1 or side.seconds >= _LEAST_SECONDS for side in (before, after))

    def operation(self, name: str) -> Iterator[Change]:
        before, after = self.before.figures(name), self.after.figures(name)
        for what in before:
            if what != "p99.9" or (before[what].estimate and after[what].estimate):
                yield self._change(name, what, before[what], after[what])
        yield from self._errors(name)

    def resources(self) -> Iterator[Change]:
        before, after = self.before.resources(), self.after.resources()
        for what in {**before, **after}:
            if what in before and what in after:
                yield self._change(OVERALL, what, before[what], after[what])
            else:
                value = (before[what].value if what in before else 0.0, after[what].value if what in after else 0.0)
                yield _untold(OVERALL, what, *value, "measured in one of them only")

    def _change(self, name: str, what: What, before: Figure, after: Figure) -> Change:
        values = (before.value, after.value)
        if name == OVERALL and what in _MIXED and not self._same:
            return _untold(name, what, *values, _OTHERS)
        few = what == "rate" and max(before.counted, after.counted) < _LEAST_RATE
        if before.estimate is None or after.estimate is None or few or not self._enough:
            return _untold(name, what, *values, _FEW)
        if (before.by_round or after.by_round) and max(self._rounds) < 2:
            return _untold(name, what, *values, "known of a round only, and there is one")
        interval = ratio_interval(before.estimate, after.estimate, self._confidence)
        if interval is None:
            return _untold(name, what, *values, _FEW)
        ratio = after.value / before.value if before.value else None
        if ratio is not None:  # what is shown lies in what is shown
            interval = min(interval[0], ratio), max(interval[1], ratio)
        verdict = self._verdict(what, ratio, *interval)
        return Change(name, what, *values, ratio, *interval, verdict)

    def _verdict(self, what: What, ratio: float | None, low: float, high: float) -> Verdict:
        if low <= 1 <= high or (ratio and abs(math.log(ratio)) < self._least):
            return "within noise"
        rises = _RISES.get(what, "worse")
        if low > 1 or rises == "changed":
            return rises
        return "better" if rises == "worse" else "worse"

    def _errors(self, name: str) -> Iterator[Change]:
        before, after = self.before.pooled(name), self.after.pooled(name)
        if not before.failed and not after.failed:
            return
        shares = (before.error_share, after.error_share)
        if name == OVERALL and not self._same:
            yield _untold(name, "errors", *shares, _OTHERS)
            return
        ratio = shares[1] / shares[0] if shares[0] else None
        chance = chance_of_share(self.before.trials(name), self.after.trials(name))
        verdict: Verdict = "within noise"
        if chance < (1 - self._confidence) / 2 and (not ratio or abs(math.log(ratio)) >= self._least):
            verdict = "worse" if shares[1] > shares[0] else "better"
        yield Change(
            name,
            "errors",
            *shares,
            ratio,
            None,
            None,
            verdict,
            f"{count_text(before.failed)} and {count_text(after.failed)}",
        )


def _untold(name: str, what: What, before: float, after: float, why: str) -> Change:
    return Change(name, what, before, after, after / before if before else None, None, None, "cannot tell", why)


def _verified(before: Result, after: Result) -> Iterator[Change]:
    """What is wrong needs no statistics."""
    there, here = ((each.verification.wrong if each.verification else 0) for each in (before, after))
    if there or here:
        verdict: Verdict = "worse" if here > there else "better" if here < there else "within noise"
        yield Change(OVERALL, "wrong", there, here, here / there if there else None, None, None, verdict)


def _badness(change: Change) -> tuple[int, bool, float]:
    """Wrong reads before all; then by how much."""
    amount = abs(math.log(change.ratio)) if change.ratio else math.inf
    return _ORDER.index(change.verdict), change.what != "wrong", amount if change.verdict == "better" else -amount


# what else there is to say -----------------------------------------------------------------------------------


def _warnings(before: Result, after: Result) -> Iterator[str]:
    for what, there, here in (
        ("scenarios", before.scenario, after.scenario),
        ("machines", before.machine, after.machine),
        ("drivers", before.driver, after.driver),
        ("client processes", before.workers, after.workers),
    ):
        differences = list(_differences(msgspec.to_builtins(there), msgspec.to_builtins(here)))
        if differences:
            more = [f"and {len(differences) - _WARNED} more"] if len(differences) > _WARNED else []
            yield f"the {what} differ: {'; '.join(differences[:_WARNED] + more)}"
    dropped = [sum(each.dropped for each in result.rounds) for result in (before, after)]
    if any(dropped):
        counts = " and ".join(map(count_text, dropped))
        yield f"arrivals that were never begun, as too many waited: {counts}"
    if any(result.verification and result.verification.wrong for result in (before, after)):
        yield "not everything was found as it had been acknowledged"
    if not all(result.rounds for result in (before, after)):
        yield "nothing was measured in one of them"


def _differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Of what a scenario or machine says; the program's version is what is compared, and `about` changes nothing."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            if path or key not in ("about", "orlop"):
                yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        for number, (there, here) in enumerate(zip(before, after, strict=True)):
            yield from _differences(there, here, f"{path}[{number}]")
    elif before != after:
        words = " → ".join(visible(each if isinstance(each, str) else str(each)) for each in (before, after))
        yield f"{path} {words}".strip()


def _notes(before: Result, after: Result, changes: Iterable[Change], confidence: float) -> Iterator[str]:
    single = [len(result.rounds) == 1 for result in (before, after)]
    if all(single):
        yield (
            "one round each: how much whole runs differ from each other is not seen, and may be more than any interval"
            " here; measure with --rounds 5"
        )
    elif any(single):
        yield "one of them has a single round: it is taken for as uneven as the other; measure both with --rounds 5"
    judged = sum(each.verdict != "cannot tell" for each in changes)
    if judged:
        yield (
            f"each interval is {100 * confidence:g} % sure, not all together: of {judged}, chance makes about"
            f" {amount_text(judged * (1 - confidence))} exclude the truth"
        )


# for a terminal ----------------------------------------------------------------------------------------------


def value_text(what: What, value: float) -> str:
    """With its unit."""
    match what:
        case "rate":
            return rate_text(value)
        case "p50" | "p99" | "p99.9":
            return duration_text(value)
        case "server CPU" | "client CPU":
            return f"{duration_text(value)}/op" if value else NOTHING
        case "errors":
            return share_text(value)
        case "memory peak":
            return bytes_text(value) if value else NOTHING
        case "wrong":
            return count_text(value)
        case "transactions per commit":
            return amount_text(value) if value else NOTHING


def named(change: Change) -> str:
    """What changed, and by how much."""
    before, after = value_text(change.what, change.before), value_text(change.what, change.after)
    return f"{_name(change)} {change.what} ({change_text(change.ratio) if change.ratio else f'{before} → {after}'})"


def describe(comparison: Comparison) -> str:
    """A table, the worst first; what one has to know about it; and the verdict as the last line."""
    header = ("operation", "", "before", "after", "change", f"{100 * comparison.confidence:g} % sure", "verdict")
    rows = [header, *(_row(change) for change in comparison.changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in (2, 3, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.append("")
    lines += [f"{visible(name)}: only before" for name in comparison.only_before]
    lines += [f"{visible(name)}: only after" for name in comparison.only_after]
    lines += [f"warning: {each}" for each in comparison.warnings]
    lines += [f"note: {each}" for each in comparison.notes]
    lines.append(_verdict_line(comparison))
    return "\n".join(lines)


def _row(change: Change) -> tuple[str, ...]:
    arrow = "↑" if change.after > change.before else "↓" if change.after < change.before else " "
    interval = ""
    if change.low is not None and change.high is not None:
        interval = f"{change_text(change.low)} to {change_text(change.high)}"
    return (
        _name(change),
        change.what,
        value_text(change.what, change.before),
        value_text(change.what, change.after),
        change_text(change.ratio),
        interval or change.why,
        change.verdict if change.verdict in ("within noise", "cannot tell") else f"{arrow} {change.verdict.upper()}",
    )


def _name(change: Change) -> str:
    return visible(change.operation) or "all"


def _verdict_line(comparison: Comparison) -> str:
    counts = [f"{len(comparison.of(verdict))} {verdict}" for verdict in _ORDER[1:] if comparison.of(verdict)]
    worse = comparison.of("worse")
    if not worse:
        return f"nothing is worse: {', '.join(counts) or 'nothing was compared'}"
    return f"worse: {', '.join(map(named, worse))}{'; ' if counts else ''}{', '.join(counts)}"
