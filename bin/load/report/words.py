"""What a result says in plain words, and what was run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from ..comparison.pooled import Pooled
from ..result import Result, ServerSample, Verification
from ..text import (
    amount_text,
    bytes_text,
    count_text,
    duration_text,
    instant_text,
    long_text,
    rate_text,
    share_text,
)
from .markup import Markup, element, join

__all__ = ["names_of", "run_facts", "scenario_facts", "summary"]

FREQUENT: Final = 4
"""Operations that a summary speaks of."""
ERRORS: Final = 6
"""Kinds of errors that it names."""


def names_of(results: Sequence[Result]) -> list[str]:
    """By label, else by scenario and driver; those that are called alike get numbers."""
    names = [each.label or f"{each.scenario.name}, {each.driver}" for each in results]
    return [
        f"{name} ({names[: number + 1].count(name)})" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]


def summary(result: Result, whole: Pooled, pooled: Sequence[Pooled]) -> Iterator[str]:
    """Sentences: what was done, how fast, whether it was right."""
    yield _pace(result, whole)
    for each in [each for each in pooled if each.count][:FREQUENT]:
        yield _latencies(each, whole)
    quiet = [each.operation for each in pooled if not each.count]
    if quiet:
        yield element("span", f"No success at all: {', '.join(quiet)}.", kind="bad")
    yield _errors(whole, pooled)
    yield _verified(result.verification)
    yield from _server(result)
    if result.search:
        yield _searched(result)


def _pace(result: Result, whole: Pooled) -> str:
    load = result.scenario.load
    seconds = sum(each.seconds for each in result.rounds)
    rounds = f"{len(result.rounds)} rounds, together" if len(result.rounds) != 1 else "One round of"
    offered = max((each.offered for each in result.rounds), default=0.0)
    if offered or load.rate:
        dropped = sum(each.dropped for each in result.rounds)
        never = f", of which {count_text(dropped)} were never begun as too many waited" if dropped else ""
        asked = f"arrivals at {rate_text(offered or load.rate)}{never}"
    else:
        asked = f"{count_text(load.clients)} clients, each asking anew when it was answered"
    return (
        f"{rounds} {long_text(seconds)}, {asked}: {rate_text(whole.rate)} succeeded, {count_text(whole.count)} in all."
    )


def _latencies(each: Pooled, whole: Pooled) -> Markup:
    share = f"{amount_text(100 * each.count / whole.count)} %"
    how = (
        f" ({share} of the successes): {rate_text(each.rate)}; half took up to {duration_text(each.p50_us)}, 99 of 100"
        f" up to {duration_text(each.p99_us)}, 999 of 1,000 up to {duration_text(each.p999_us)}."
    )
    return join([element("strong", each.operation), how], "")


def _errors(whole: Pooled, pooled: Sequence[Pooled]) -> Markup:
    if not whole.failed:
        return element("span", "No errors.", kind="good") if whole.count else element("span", "Nothing was answered.")
    kinds = sorted(
        ((count, each.operation, kind) for each in pooled for kind, count in each.errors.items()), reverse=True
    )
    named = [f"{operation} {kind} {count_text(count)}" for count, operation, kind in kinds[:ERRORS] if count]
    more = [f"and {len(kinds) - ERRORS} kinds more"] if len(kinds) > ERRORS else []
    total = f"{count_text(whole.failed)} errors ({share_text(whole.error_share)} of what was answered): "
    return element("span", total + ", ".join(named + more) + ".", kind="bad")


def _verified(verification: Verification | None) -> Markup:
    if verification is None:
        return element("span", "What was written was not verified.")
    looked = f"{count_text(verification.reads)} reads after {count_text(verification.writes)} writes"
    meanwhile = []
    if verification.uncertain:
        meanwhile.append(f"{count_text(verification.uncertain)} writes had an uncertain outcome and may be either way")
    if verification.kills:
        meanwhile.append(f"the server was killed {count_text(verification.kills)} times meanwhile")
    rest = f" ({'; '.join(meanwhile)})" if meanwhile else ""
    if verification.wrong:
        return element(
            "span", f"WRONG: {count_text(verification.wrong)} of {looked} are not as acknowledged{rest}.", kind="bad"
        )
    return element("span", f"Verified: {looked}, everything as it was acknowledged{rest}.", kind="good")


def _server(result: Result) -> Iterator[str]:
    seconds = sum(each.seconds for each in result.rounds)
    cpu = sum(each.server_cpu_s for each in result.rounds)
    samples: list[ServerSample] = [sample for each in result.rounds for sample in each.server]
    said = []
    if cpu and seconds:
        said.append(f"used {amount_text(cpu / seconds)} cores on average")
    if samples:
        said.append(f"held up to {bytes_text(max(each.resident_bytes for each in samples))} of memory")
    if said:
        yield f"The server {' and '.join(said)}; clients used {_client(result, seconds)}."
    else:
        yield f"The server was not sampled; clients used {_client(result, seconds)}."


def _client(result: Result, seconds: float) -> str:
    cpu = sum(each.client_cpu_s for each in result.rounds)
    return f"{amount_text(cpu / seconds if seconds else 0.0)} cores"


def _searched(result: Result) -> str:
    held = [each.rate for each in result.search if each.held]
    lost = [each.rate for each in result.search if not each.held]
    if not held:
        return f"No offered rate was held, not even {rate_text(min(lost))}."
    above = [each for each in lost if each > max(held)]
    bound = f"; {rate_text(min(above))} was not" if above else "; more was not tried"
    return f"The highest offered rate that was held is {rate_text(max(held))}{bound}."


# what was run ------------------------------------------------------------------------------------------------


def run_facts(result: Result) -> Iterator[tuple[str, str]]:
    machine = result.machine
    began = [each.began_at for each in result.rounds]
    yield "began", instant_text(min(began)) if began else "never"
    yield "driver", f"{result.driver}, {result.address}" if result.address else result.driver
    yield "client processes", count_text(result.workers)
    yield "versions", f"orlop {machine.orlop}, Python {machine.python}, trio {machine.trio}"
    yield "system", machine.system
    yield "processor", f"{machine.processor or 'unknown'}, {count_text(machine.cores)} cores usable"
    yield "memory", bytes_text(machine.memory_bytes)
    yield "file system", machine.file_system or "unknown"


def scenario_facts(result: Result) -> Iterator[tuple[str, str]]:
    """Each thing that the scenario says, in its own words."""
    for key, value in msgspec.to_builtins(result.scenario).items():
        if key == "operations":
            for number, operation in enumerate(value, 1):
                yield f"operation {number}", _said(operation)
        elif value != "":
            yield key, _said(value)


def _said(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{key} {_said(each)}" for key, each in value.items())
        case list():
            return f"[{', '.join(_said(each) for each in value)}]"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case int():
            return count_text(value)
        case _:
            return str(value)
