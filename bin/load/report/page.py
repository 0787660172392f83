"""The report: one document that needs nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from ....protocol.version import __version__
from ..comparison.pooled import Pooled, pool, pool_all, seconds_of
from ..result import Result
from ..text import NOTHING, amount_text, count_text, duration_text, instant_text, long_text, rate_text, share_text
from .charts import latency_plot, percentile_plot, search_plots, server_plots, throughput_plot
from .markup import Markup, bullets, element, figure, figures, join, numbers_table, pairs_table, text_of
from .side_by_side import side_by_side
from .style import STYLE
from .words import names_of, run_facts, scenario_facts, summary

__all__ = ["render"]


def render(results: Sequence[Result]) -> str:
    """An HTML document, which is well-formed XML, too, behind its first line. Two or more results are compared, the
    others with the first of them.

    Raises InvalidArgument: a histogram is none.
    """
    names = names_of(results)
    pooled = [pool(each) for each in results]
    title = f"Load: {' / '.join(names)}" if names else "Load: no results"
    parts: list[str] = [element("h1", title)]
    if len(results) > 1:
        links = [("comparison", "comparison"), *((f"result-{n}", name) for n, name in enumerate(names, 1))]
        parts.append(element("nav", join([element("a", name, href=f"#{where}") for where, name in links], " · ")))
        parts.append(side_by_side(results, names, pooled))
    for number, (result, name, each) in enumerate(zip(results, names, pooled, strict=True), 1):
        parts.append(_result(f"result-{number}", name, result, each, alone=len(results) == 1))
    parts.append(element("p", f"Made by orlop {__version__}. Latencies are of successes only.", kind="about"))
    body = join(parts)
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{text_of(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _result(identity: str, name: str, result: Result, pooled: Sequence[Pooled], *, alone: bool) -> Markup:
    parts: list[str] = [] if alone else [element("h2", name, identity=identity)]
    if result.scenario.about:
        parts.append(element("p", result.scenario.about, kind="about"))
    parts.append(element("div", bullets(summary(result, pool_all(result), pooled)), kind="summary"))
    parts += _operations(identity, result, pooled)
    parts += _over_time(identity, result, pooled)
    parts += _rounds(result)
    parts += _search(identity, result)
    parts += _verification(result)
    parts.append(element("h3", "What was run"))
    parts.append(pairs_table("Where and how", run_facts(result)))
    parts.append(pairs_table("The scenario", scenario_facts(result)))
    return element("section", join(parts))


def _operations(identity: str, result: Result, pooled: Sequence[Pooled]) -> Iterator[str]:
    whole = [dataclasses.replace(pool_all(result), operation="all")] if len(pooled) > 1 else []
    header = ("operation", "successes", "rate", "errors", "mean", "p50", "p90", "p99", "p99.9", "max")
    rows = [_row(each) for each in [*pooled, *whole]]
    yield element("h3", "Operations")
    yield numbers_table("Successes, errors by class, and latencies of successes", header, rows, words=(0, 3))
    known = [(each.operation, each.histogram, number) for number, each in enumerate(pooled) if each.histogram]
    if known:
        title = "Latency by percentile"
        histograms = [(name, histogram) for name, histogram, _ in known]
        yield figure(percentile_plot(f"{identity}-percentiles", title, histograms, [number for *_, number in known]))


def _row(each: Pooled) -> tuple[str, ...]:
    errors = ", ".join(f"{kind} {count_text(count)}" for kind, count in sorted(each.errors.items()) if count)
    share = f" ({share_text(each.error_share)})" if errors else ""
    latencies = (each.mean_us, each.p50_us, each.p90_us, each.p99_us, each.p999_us, each.max_us)
    return (
        each.operation,
        count_text(each.count),
        rate_text(each.rate),
        f"{errors or 'none'}{share}",
        *map(duration_text, latencies),
    )


def _over_time(identity: str, result: Result, pooled: Sequence[Pooled]) -> Iterator[str]:
    throughput = throughput_plot(f"{identity}-throughput", result, pooled)
    latencies = [
        latency_plot(f"{identity}-latency-{number}", result, each.operation) for number, each in enumerate(pooled)
    ]
    server = server_plots(f"{identity}-server", result)
    yield element("h3", "Over time")
    if throughput:
        yield figure(throughput)
    else:
        yield element("p", "There is nothing over time.")
    found = [each for each in latencies if each]
    if found:
        yield element("p", "Median and p99 of each second, by operation:")
        yield figures(found)
    yield element("h3", "The server")
    yield figures(server) if server else element("p", "It was not sampled.")


def _rounds(result: Result) -> Iterator[str]:
    rows = []
    for number, each in enumerate(result.rounds, 1):
        whole = pool_all(replace(result, rounds=[each]))
        seconds = each.seconds or 1.0
        rows.append(
            (
                str(number),
                instant_text(each.began_at).removesuffix(" UTC"),
                long_text(each.seconds),
                rate_text(each.offered) if each.offered else "closed loop",
                count_text(each.dropped),
                rate_text(whole.rate),
                count_text(whole.failed),
                duration_text(whole.p50_us),
                duration_text(whole.p99_us),
                amount_text(each.client_cpu_s / seconds),
                amount_text(each.server_cpu_s / seconds) if each.server_cpu_s else NOTHING,
            )
        )
    header = ("round", "began (UTC)", "length", "offered", "never begun", "rate", "errors", "p50", "p99")
    yield element("h3", "Rounds")
    yield numbers_table(
        f"All operations together; {long_text(seconds_of(result))} in all",
        (*header, "client cores", "server cores"),
        rows,
    )
    for number, each in enumerate(result.rounds, 1):
        if each.batches:
            yield numbers_table(
                f"Round {number}: how many commits had up to so many transactions",
                ("transactions", *(amount_text(most) if most != float("inf") else "more" for most, _ in each.batches)),
                [("commits", *(count_text(count) for _, count in each.batches))],
            )


def _search(identity: str, result: Result) -> Iterator[str]:
    if not result.search:
        return
    rows = [
        (
            rate_text(each.rate),
            rate_text(each.achieved),
            share_text(each.achieved / each.rate) if each.rate else NOTHING,
            duration_text(each.p99_us),
            "held" if each.held else "not held",
        )
        for each in result.search
    ]
    yield element("h3", "Search for the highest rate")
    yield figures(search_plots(f"{identity}-search", result))
    yield numbers_table(
        "In the order in which they were tried", ("offered", "achieved", "share", "p99 of all", ""), rows, words=(4,)
    )


def _verification(result: Result) -> Iterator[str]:
    verification = result.verification
    if verification is None or not verification.wrong:
        return
    shown = len(verification.discrepancies)
    yield element("h3", "Not as acknowledged")
    yield numbers_table(
        f"{count_text(shown)} of {count_text(verification.wrong)}",
        ("namespace", "name", "acknowledged", "found"),
        [(each.namespace, each.name, each.expected, each.found) for each in verification.discrepancies],
        words=(0, 1, 2, 3),
    )
