"""A report is one well-formed page that fetches nothing, obeys no name, and says every number."""

from __future__ import annotations

import math
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from orlop.bin.load.comparison.pooled import pool
from orlop.bin.load.report import render
from orlop.bin.load.report.plots import _apart
from orlop.bin.load.report.scales import amounts, durations, nines, seconds_scale, thin
from orlop.bin.load.result import Interval, OperationResult, Result
from orlop.bin.load.text import NOTHING, amount_text, change_text, count_text, duration_text, rate_text, share_text
from tests.support.load_results import SCENARIO, disagreement, made_result, searched, with_operation

HOSTILE = """<script>alert("1")</script> & 'x' " ]]> \x00\x1b[31m\u202e url(http://evil.example/a) ü"""
VOID = {"meta"}


class Checker(HTMLParser):
    """Every element is closed, identities are unique, nothing is fetched and nothing runs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.identities: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.names.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "action", "data", "style", "xlink:href", "http-equiv"), name
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.identities.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> ET.Element:
    """The page as a tree."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(set(checker.identities)) == len(checker.identities)
    assert {link.removeprefix("#") for link in checker.links} <= set(checker.identities)
    assert checker.names.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "use", "image", "base", "form"}
    )
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    first, _, rest = page.partition("\n")
    assert first == "<!doctype html>"
    tree = ET.fromstring(rest)
    for svg in tree.iter("svg"):
        checked_picture(svg)
    return tree


def checked_picture(svg: ET.Element) -> None:
    """It has words for who does not see it, and draws nothing outside itself."""
    title, description = svg[0], svg[1]
    assert (title.tag, description.tag) == ("title", "desc")
    assert title.text
    assert description.text
    assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    _, _, width, height = map(float, (svg.get("viewBox") or "").split())
    for path in svg.iter("path"):
        for x, y in places(path.get("d") or ""):
            assert -1 <= x <= width + 1
            assert -1 <= y <= height + 1


def places(drawn: str) -> list[tuple[float, float]]:
    """Where the lines of a picture go; marks are small enough not to matter."""
    assert "nan" not in drawn
    assert "inf" not in drawn
    found = []
    for start, steps in re.findall(r"M([^MlLHVvhaz]+)(?:l([^MLHVvhaz]+))?", drawn):
        x, y = map(float, start.split())
        found.append((x, y))
        numbers = [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", steps)]
        for step_x, step_y in zip(numbers[::2], numbers[1::2], strict=True):
            x, y = x + step_x, y + step_y
            found.append((x, y))
    return found


def words_of(tree: ET.Element) -> str:
    return " ".join("".join(each.itertext()) for each in tree.iter("body"))


def table(tree: ET.Element, caption: str) -> list[list[str]]:
    for each in tree.iter("table"):
        if (each.findtext("caption") or "").startswith(caption):
            return [["".join(cell.itertext()) for cell in row] for row in each.iter("tr")]
    raise AssertionError(caption)


# what it says ------------------------------------------------------------------------------------------------


def test_every_operation_has_its_numbers() -> None:
    result = made_result(1, failing={"image-publish": 0.02})
    tree = checked(render([result]))
    rows = {row[0]: row[1:] for row in table(tree, "Successes, errors by class")[1:]}
    assert set(rows) == {"image-get", "image-publish", "all"}
    for each in pool(result):
        latencies = [each.mean_us, each.p50_us, each.p90_us, each.p99_us, each.p999_us, each.max_us]
        errors = f"Unavailable {each.failed} ({share_text(each.error_share)})" if each.failed else "none"
        assert rows[each.operation] == [
            count_text(each.count),
            rate_text(each.rate),
            errors,
            *map(duration_text, latencies),
        ]


def test_the_summary_says_how_it_went() -> None:
    summary = words_of(checked(render([disagreement(made_result(1), 0)])))
    assert "3 rounds, together 60 s, 16 clients" in summary
    assert re.search(r"image-get \(71\.\d % of the successes\): 10\d /s; half took up to", summary)
    assert "No errors." in summary
    assert "Verified: 5,000 reads after 1,200 writes, everything as it was acknowledged" in summary
    assert "not verified" in words_of(checked(render([made_result(1)])))


def test_what_is_wrong_is_listed() -> None:
    tree = checked(render([disagreement(made_result(1), 2)]))
    assert "WRONG: 2 of 5,000 reads" in words_of(tree)
    assert table(tree, "2 of 2")[1] == ["load-0", "image 0", "1.7", "1.6"]


def test_what_was_run_is_there() -> None:
    facts = words_of(checked(render([replace(made_result(1), address="/run/a socket")])))
    for expected in ("unix, /run/a socket", "Python 3.11.7", "2025-06-15 15:06:40 UTC", "seed", "ext4", "clients 16"):
        assert expected in facts


def test_pictures_of_everything_that_was_measured() -> None:
    tree = checked(render([searched(made_result(1))]))
    titles = [svg[0].text for svg in tree.iter("svg")]
    assert titles == [
        "Latency by percentile",
        "Throughput over time",
        "image-get",
        "image-publish",
        "Server: CPU",
        "Server: memory",
        "Server: loop lag p99",
        "Server: transactions per commit",
        "Search: achieved rate",
        "Search: p99",
    ]


def test_lines_are_named_and_their_axes_have_units() -> None:
    svg = next(checked(render([made_result(1)])).iter("svg"))
    texts = [each.text for each in svg.iter("text")]
    assert {"image-get", "image-publish", "percentile", "99.9", "1 ms", "latency, logarithmic"} <= set(texts)


def test_the_search_says_its_bound() -> None:
    tree = checked(render([searched(made_result(1))]))
    assert "The highest offered rate that was held is 775 /s; 800 /s was not." in words_of(tree)
    assert len(table(tree, "In the order")) == 8


def test_batches_are_listed() -> None:
    result = made_result(1, rounds=1)
    batched = replace(result, rounds=[replace(result.rounds[0], batches=[(1.0, 40), (8.0, 1200), (math.inf, 3)])])
    assert table(checked(render([batched])), "Round 1")[1] == ["commits", "40", "1,200", "3"]


def test_an_open_loop_says_what_was_offered() -> None:
    result = made_result(1)
    opened = replace(result, rounds=[replace(each, offered=150.0, dropped=4) for each in result.rounds])
    assert "arrivals at 150 /s, of which 12 were never begun" in words_of(checked(render([opened])))


# comparisons -------------------------------------------------------------------------------------------------


def test_two_results_stand_side_by_side() -> None:
    before = made_result(1, label="before", rounds=5)
    after = made_result(2, label="after", rounds=5, slower={"image-get": 1.5})
    tree = checked(render([before, after]))
    rows = table(tree, "Figures")
    assert rows[0][:5] == ["operation", "figure", "before", "after", "change"]
    p50 = next(row for row in rows if row[:2] == ["image-get", "p50"])
    old, new = (next(e for e in pool(r) if e.operation == "image-get").p50_us for r in (before, after))
    assert p50[2:5] == [duration_text(old), duration_text(new), change_text(new / old)]
    assert p50[6] == "▼ worse"
    overlays = [svg for svg in tree.iter("svg") if (svg[0].get("id") or "").startswith("overlay")]
    assert [svg[0].text for svg in overlays] == ["all operations", "image-get", "image-publish"]
    assert all({"before", "after"} <= {each.text for each in svg.iter("text")} for svg in overlays)


def test_three_results_are_held_against_the_first() -> None:
    results = [made_result(seed, rounds=2, seconds=10) for seed in range(3)]
    tree = checked(render(results))
    header = table(tree, "Figures")[0]
    assert [header[2], header[3], header[7]] == [f"mixed, unix ({number})" for number in (1, 2, 3)]
    assert header.count("change") == 2
    assert {len(row) for row in table(tree, "Figures")} == {len(header)}


def test_operations_of_one_result_only_are_said() -> None:
    both, one = made_result(1, label="both"), made_result(2, label="one", operations={"image-get": (100.0, 800.0)})
    assert "image-publish: only in both, not in one" in words_of(checked(render([both, one])))


# names that want to be more ----------------------------------------------------------------------------------


def test_hostile_names_are_only_text() -> None:
    result = made_result(1, operations={HOSTILE: (100.0, 800.0), "image-get": (50.0, 900.0)}, label=HOSTILE)
    result = with_operation(result, HOSTILE, lambda each: replace(each, errors={HOSTILE: 3}))
    result = replace(
        disagreement(result, 1),
        scenario=replace(SCENARIO, name="x", about=HOSTILE),
        address=HOSTILE,
        driver=HOSTILE,
        machine=replace(result.machine, processor=HOSTILE),
    )
    for page in (render([result]), render([result, replace(result, label="")])):
        tree = checked(page)
        assert "<script" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert r"""<script>alert("1")</script> & 'x' " ]]> \x00\x1b[31m\u202e url""" in words_of(tree)


# edge cases --------------------------------------------------------------------------------------------------


def no_success(operation: OperationResult) -> OperationResult:
    series = [Interval(each.at_s, 0, 5, 0, 0, 0) for each in operation.series]
    return OperationResult(operation.operation, 0, {"Unavailable": 5}, 0.0, 0.0, 0, 0, 0, 0, 0, "", series)


def edge_cases() -> dict[str, Result]:
    plain = made_result(1)
    nothing = made_result(1, operations={})
    failed = with_operation(plain, "image-get", no_success)
    return {
        "one interval": made_result(1, rounds=1, seconds=1),
        "less than a second": replace(plain, rounds=[replace(plain.rounds[0], seconds=0.4)]),
        "one operation without success": failed,
        "no success": with_operation(failed, "image-publish", no_success),
        "no operations": nothing,
        "no rounds": replace(plain, rounds=[]),
        "no samples": made_result(1, sampled=False),
        "one sample": replace(plain, rounds=[replace(each, server=each.server[:1]) for each in plain.rounds]),
        "samples that say nothing": replace(
            plain,
            rounds=[
                replace(r, server=[replace(s, cpu_s=0.0, resident_bytes=0, commits=0.0) for s in r.server])
                for r in plain.rounds
            ],
        ),
        "a server begun anew": replace(
            plain,
            rounds=[replace(r, server=[replace(s, cpu_s=s.cpu_s % 0.2) for s in r.server]) for r in plain.rounds],
        ),
        "no series": with_operation(plain, "image-get", lambda each: replace(each, series=[])),
        "one success": made_result(1, operations={"collect": (1.0, 4_000_000.0)}, rounds=1, seconds=1),
        "very quick": made_result(1, operations={"image-get": (50.0, 1.0)}, sigma=0.0),
        "very slow": made_result(1, operations={"pull": (5.0, 600_000_000.0)}),
        "nothing held": replace(plain, search=[replace(each, held=False) for each in searched(plain).search]),
        "all held": replace(plain, search=[replace(each, held=True) for each in searched(plain).search]),
        "a long name": made_result(1, operations={"x" * 300: (100.0, 800.0)}, label="y" * 300),
    }


@pytest.mark.parametrize("name", edge_cases())
def test_edge_cases_have_a_page(name: str) -> None:
    result = edge_cases()[name]
    checked(render([result]))
    checked(render([result, made_result(2, rounds=2, seconds=10)]))
    checked(render([made_result(2, rounds=2, seconds=10), result]))


def test_no_results_have_a_page() -> None:
    assert "no results" in words_of(checked(render([])))


def long_result(seconds: int, operations: int, rounds: int = 1) -> Result:
    """Its series are made up: what matters is how many points they have."""
    chance = random.Random(1)
    names = {f"operation-{number}": (40.0, 500.0 * (number + 1)) for number in range(operations)}
    short = made_result(1, operations=names, rounds=rounds, seconds=10, sampled=False)

    def stretched(operation: OperationResult) -> OperationResult:
        series = [
            Interval(second, chance.randrange(20, 60), 0, 500, chance.randrange(1000, 9000), 9000)
            for second in range(seconds)
        ]
        return replace(operation, series=series)

    for name in names:
        short = with_operation(short, name, stretched)
    return replace(short, rounds=[replace(each, seconds=float(seconds)) for each in short.rounds])


def test_thousands_of_seconds_are_thinned() -> None:
    page = render([long_result(7200, 3)])
    for svg in checked(page).iter("svg"):
        for path in svg.iter("path"):
            assert len(places(path.get("d") or "")) <= 600
    assert len(page) < 200_000


def test_twenty_operations_over_thousands_of_seconds_stay_below_half_a_megabyte() -> None:
    page = render([long_result(3600, 20)])
    checked(page)
    assert len(page.encode()) < 500_000
    assert all(page.count(f"operation-{number}<") >= 2 for number in range(20))


def test_twenty_operations_differ_in_colour_or_mark() -> None:
    svg = next(checked(render([long_result(30, 20)])).iter("svg"))
    labels = [group for group in svg.iter("g") if group.find("text") is not None]
    looks = set()
    for group in labels:
        mark = next(path for path in group.iter("path") if path.get("class") == "mark")
        looks.add((group.get("class"), re.sub(r"^M\S+ \S+?(?=[a-z])", "", mark.get("d") or "")))
    assert len(labels) == len(looks) == 20


def test_thinning_keeps_the_worst_and_the_mean() -> None:
    points = [(float(x), float(x % 10)) for x in range(100)]
    assert thin(points, 10, max) == [(float(x), 9.0) for x in range(0, 100, 10)]
    assert thin(points, 10, lambda ys: sum(ys) / len(ys))[0] == (0.0, 4.5)
    assert thin(points, 100, max) == points
    assert len(thin(points, 30, max)) == 25
    assert thin([], 10, max) == []


# light, dark, paper ------------------------------------------------------------------------------------------


def test_it_is_made_for_dark_rooms_and_for_paper() -> None:
    page = render([made_result(1)])
    assert "@media screen and (prefers-color-scheme: dark)" in page  # never on paper
    printed = page[page.index("@media print") :]
    assert "break-inside: avoid" in printed
    assert "--page: #fff; --ink: #000" in printed


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out(scheme: str) -> None:
    """Lines 3 to 1, text 4.5 to 1 (WCAG 2.1, 1.4.3 and 1.4.11)."""
    style = render([made_result(1)])
    where = style.index(":root { color-scheme: " + scheme)
    colours = dict(re.findall(r"--(\w+): (#\w+);", style[where : style.index("}", where)]))
    page = light_of(colours["page"])
    for name, colour in colours.items():
        least = {"ink": 7.0, "soft": 4.5, "good": 4.5, "bad": 4.5, "edge": 1.0, "band": 1.0, "page": 1.0}.get(name, 3.0)
        high, low = sorted((light_of(colour), page), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= least, name


def light_of(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# numbers and axes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "microseconds, text",
    [
        (0, NOTHING),
        (7, "7 µs"),
        (7.25, "7.25 µs"),
        (850, "850 µs"),
        (999.6, "1.00 ms"),
        (1234, "1.23 ms"),
        (12_340, "12.3 ms"),
        (999_400, "999 ms"),
        (999_600, "1.00 s"),
        (123_456_789, "123 s"),
        (12_345_678_900, "12,346 s"),
    ],
)
def test_durations(microseconds: float, text: str) -> None:
    assert duration_text(microseconds) == text


def test_other_numbers() -> None:
    assert [amount_text(each) for each in (0, 0.00123, 0.5, 9.996, 99.96, 1234.5)] == [
        "0.00",
        "0.0012",
        "0.50",
        "10.0",
        "100",
        "1,234",
    ]
    assert [share_text(each) for each in (0, 1e-6, 0.0123, 0.99999, 1)] == [
        "0 %",
        "< 0.01 %",
        "1.23 %",
        "> 99.99 %",
        "100 %",
    ]
    assert [change_text(each) for each in (1, 1.234, 0.5, 4.2, None, math.inf)] == [
        "± 0 %",
        "+23.4 %",
        "\u221250.0 %",
        "\u00d7 4.20",
        NOTHING,
        NOTHING,
    ]


def test_each_nine_has_as_much_room() -> None:
    place = nines().place
    assert [place(each) for each in (0, 90, 99, 99.9, 99.99)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("most", [0, 0.003, 1, 7, 9.99, 1234, 5e6])
def test_amounts_begin_at_0_and_end_above_all(most: float) -> None:
    scale = amounts([0.0, most], "per second")
    assert scale.place(0) == 0
    assert 0 <= scale.place(most) <= 1
    assert most == 0 or scale.place(most) > 0.5
    assert 2 <= len(scale.ticks) <= 9
    assert len({text for _, text in scale.ticks}) == len(scale.ticks)


@pytest.mark.parametrize("low, high", [(1, 1), (500, 600), (80, 9000), (3, 5e8), (1, 6e9)])
def test_latencies_of_all_sizes_have_marks(low: float, high: float) -> None:
    scale = durations([low, high])
    assert 0 <= scale.place(low) < scale.place(high) + 1e-9 <= 1.0001
    assert 1 <= len(scale.ticks) <= 12
    assert all(-0.01 <= scale.place(value) <= 1.01 for value, _ in scale.ticks)


def test_seconds_end_where_the_run_ended() -> None:
    scale = seconds_scale(47.5)
    assert scale.place(47.5) == 1
    assert [text for _, text in scale.ticks] == ["0", "10", "20", "30", "40"]


def test_names_do_not_cover_each_other() -> None:
    places = _apart([10.0, 11.0, 12.0, 200.0, 300.0], 0, 250)
    assert places == sorted(places)
    assert all(after - before >= 13 - 1e-9 for before, after in pairwise(places))
    assert places[-1] <= 250
    assert all(0 <= each <= 250 for each in _apart([250.0] * 40, 0, 250))
