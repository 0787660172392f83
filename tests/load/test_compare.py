"""Comparisons find what was planted, and little else. The runs are made by a seed; nothing is measured."""

from __future__ import annotations

import math
import os

import msgspec
import pytest
from msgspec.structs import replace

from orlop.bin.load.comparison.compare import OVERALL, Change, Comparison, compare, describe, exit_code
from orlop.bin.load.comparison.shares import chance_of_share
from orlop.bin.load.result import Interval, OperationResult, Result, read_result, write_result
from orlop.bin.load.scenario import Load
from orlop.protocol.errors import InvalidArgument
from tests.support.load_results import MACHINE, SCENARIO, disagreement, made_result, with_operation

ONE = {"image-get": (100.0, 800.0)}
CALLED_CHANGED = ("worse", "better", "changed")


def change_of(comparison: Comparison, operation: str, what: str) -> Change:
    return next(each for each in comparison.changes if (each.operation, each.what) == (operation, what))


def verdict(comparison: Comparison, operation: str, what: str) -> str:
    return change_of(comparison, operation, what).verdict


PAIRS = 200 if "ORLOP_SOAK" in os.environ else 12


def changed(comparison: Comparison) -> list[Change]:
    return [each for each in comparison.changes if each.verdict in CALLED_CHANGED]


# what is promised --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"rounds": 3, "seconds": 15, "level": 0.03}, id="three uneven rounds"),
        pytest.param({"rounds": 1, "seconds": 40, "level": 0.0}, id="one round of drifting seconds"),
    ],
)
def test_where_there_is_no_difference_hardly_any_is_found(shape: dict[str, float]) -> None:
    """One in a hundred verdicts is promised. Of 200 pairs with some six verdicts each that would be about 12; as a
    pair's go together, twice as many are let pass. So many in a long run; fewer, always the same, in a short one."""
    found = judged = pairs = 0
    for number in range(PAIRS):
        before = made_result(1000 + 2 * number, operations=ONE, **shape)  # type: ignore[arg-type]
        after = made_result(1001 + 2 * number, operations=ONE, **shape)  # type: ignore[arg-type]
        comparison = compare(before, after, seed=number)
        found += len(changed(comparison))
        judged += sum(each.verdict != "cannot tell" for each in comparison.changes)
        pairs += bool(changed(comparison))
    assert judged > 6 * PAIRS
    assert found <= 0.02 * judged
    assert pairs <= 0.06 * PAIRS


def test_a_fifth_slower_is_found_in_most_pairs_and_a_fiftieth_is_not() -> None:
    found, seen = [], 0
    for number in range(9):
        before = made_result(2 * number, rounds=4)
        slow = compare(before, made_result(2 * number + 1, rounds=4, slower={"image-get": 1.2}))
        found.append(verdict(slow, "image-get", "p50") == verdict(slow, "image-get", "rate") == "worse")
        assert exit_code(slow) == 1
        seen += bool(changed(compare(before, made_result(2 * number + 1, rounds=4, slower={"image-get": 1.02}))))
    assert sum(found) >= 7
    assert seen <= 1


def test_the_interval_holds_what_was_planted() -> None:
    for number in range(5):
        comparison = compare(made_result(number), made_result(100 + number, slower={"image-get": 1.5}))
        p50 = change_of(comparison, "image-get", "p50")
        assert p50.ratio is not None
        assert p50.low is not None
        assert p50.high is not None
        assert p50.low <= 1.5 <= p50.high
        assert p50.low <= p50.ratio <= p50.high


def test_a_fifth_quicker_is_better() -> None:
    comparison = compare(made_result(1, rounds=5, slower={"image-get": 1.25}), made_result(2, rounds=5))
    assert verdict(comparison, "image-get", "p50") == "better"
    assert verdict(comparison, "image-get", "rate") == "better"
    assert exit_code(comparison) == 0


def test_noise_that_is_huge_hides_a_tenth() -> None:
    noisy = {"level": 0.3, "drift": 0.2}
    comparison = compare(made_result(1, **noisy), made_result(2, slower={"image-get": 1.1}, **noisy))  # type: ignore[arg-type]
    assert verdict(comparison, "image-get", "p50") == "within noise"
    assert exit_code(comparison) == 0


def test_what_is_certain_but_small_is_no_change() -> None:
    before, after = made_result(1, rounds=1, seconds=100, cpu_us=200), made_result(2, rounds=1, seconds=100, cpu_us=216)
    assert verdict(compare(before, after, least=0.05), OVERALL, "server CPU") == "worse"
    assert verdict(compare(before, after, least=0.15), OVERALL, "server CPU") == "within noise"


def test_the_same_seed_says_the_same() -> None:
    before, after = made_result(1), made_result(2)
    assert compare(before, after, seed=3) == compare(before, after, seed=3)


def test_a_run_against_itself_has_not_changed() -> None:
    result = made_result(1)
    comparison = compare(result, result)
    assert not changed(comparison)
    assert {each.ratio for each in comparison.changes} == {1.0}
    assert comparison.warnings == []


# slow seconds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stalled",
    [
        pytest.param({(1, 7)}, id="one"),
        pytest.param({(0, 3), (1, 11), (2, 7)}, id="one in each round"),
    ],
)
def test_a_slow_second_does_not_make_p99_worse(stalled: set[tuple[int, int]]) -> None:
    """A twentieth of a round's operations comes in a second, so its p99 is that second's."""

    def stall(number: int, second: int) -> float:
        return 50.0 if (number, second) in stalled else 1.0

    for seed in range(4):
        before = made_result(seed, operations=ONE, open_loop=True)
        after = made_result(50 + seed, operations=ONE, open_loop=True, stall=stall)
        p99 = change_of(compare(before, after), "image-get", "p99")
        assert p99.ratio is not None
        assert p99.ratio > 5
        assert p99.verdict == "within noise"


def test_a_slow_second_of_a_single_round_does_not_make_p99_worse() -> None:
    def stall(number: int, second: int) -> float:
        return 50.0 if second == 12 else 1.0

    before = made_result(1, operations=ONE, rounds=1, seconds=30, open_loop=True)
    after = made_result(2, operations=ONE, rounds=1, seconds=30, open_loop=True, stall=stall)
    assert verdict(compare(before, after), "image-get", "p99") == "within noise"


def test_every_fourth_second_slow_does() -> None:
    def stall(number: int, second: int) -> float:
        return 50.0 if second % 4 == 0 else 1.0

    before = made_result(1, operations=ONE, rounds=5, open_loop=True)
    after = made_result(2, operations=ONE, rounds=5, open_loop=True, stall=stall)
    assert verdict(compare(before, after), "image-get", "p99") == "worse"


# errors ------------------------------------------------------------------------------------------------------


def test_errors_that_were_not_there_are_worse() -> None:
    comparison = compare(made_result(1), made_result(2, failing={"image-publish": 0.01}))
    errors = change_of(comparison, "image-publish", "errors")
    assert errors.verdict == "worse"
    assert errors.before == 0
    assert errors.after == pytest.approx(0.01, abs=0.006)
    assert verdict(comparison, OVERALL, "errors") == "worse"
    assert exit_code(comparison) == 1
    assert verdict(compare(made_result(2, failing={"image-publish": 0.01}), made_result(1)), "", "errors") == "better"


def test_as_many_errors_as_before_are_not() -> None:
    for seed in range(5):
        before = made_result(seed, failing={"image-get": 0.02})
        after = made_result(100 + seed, failing={"image-get": 0.02})
        assert verdict(compare(before, after), "image-get", "errors") == "within noise"


def test_one_burst_of_errors_is_one_event() -> None:
    none = [[(0, 500)] * 4] * 3
    burst = [[(0, 500), (400, 500), (0, 500), (0, 500)], [(0, 500)] * 4, [(0, 500)] * 4]
    spread = [[(33, 500)] * 4] * 3
    assert chance_of_share(none, burst) > 0.05
    assert chance_of_share(none, spread) < 1e-9


def test_few_errors_are_judged_exactly() -> None:
    """All of n that failed did so in one of two equal runs: by chance one in 2 ** n."""
    side = [[(0, 1000)]]
    for count in (1, 5, 8):
        assert chance_of_share(side, [[(count, 1000)]]) == pytest.approx(2.0**-count)
        assert chance_of_share([[(count, 1000)]], side) == pytest.approx(2.0**-count)
    assert chance_of_share(side, side) == 1


def test_wrong_reads_are_worse_whatever_else() -> None:
    before, after = disagreement(made_result(1), 0), disagreement(made_result(2), 3)
    comparison = compare(before, after)
    assert comparison.changes[0].what == "wrong"
    assert exit_code(comparison) == 1
    assert any("acknowledged" in each for each in comparison.warnings)


# resources ---------------------------------------------------------------------------------------------------


def test_cpu_by_operation_is_compared() -> None:
    comparison = compare(made_result(1, cpu_us=200), made_result(2, cpu_us=260))
    server = change_of(comparison, OVERALL, "server CPU")
    assert server.verdict == "worse"
    assert server.before == pytest.approx(200, rel=0.05)
    assert server.after == pytest.approx(260, rel=0.05)
    assert verdict(comparison, OVERALL, "client CPU") == "within noise"
    assert verdict(comparison, OVERALL, "memory peak") == "within noise"


def test_more_transactions_per_commit_are_neither_good_nor_bad() -> None:
    after = made_result(2)
    rounds = [
        replace(each, server=[replace(s, transactions=2 * s.transactions) for s in each.server])
        for each in after.rounds
    ]
    comparison = compare(made_result(1), replace(after, rounds=rounds))
    assert verdict(comparison, OVERALL, "transactions per commit") == "changed"
    assert exit_code(comparison) == 0


def test_what_was_not_sampled_is_left_out() -> None:
    sampled, bare = made_result(1), made_result(2, sampled=False)
    whats = {each.what for each in compare(bare, bare).changes}
    assert whats == {"rate", "p50", "p99", "client CPU"}
    memory = change_of(compare(sampled, bare), OVERALL, "memory peak")
    assert memory.verdict == "cannot tell"
    assert memory.why == "measured in one of them only"


def test_a_server_that_was_killed_meanwhile_is_judged_by_rounds() -> None:
    result = made_result(1)
    rounds = [replace(each, server=[replace(s, cpu_s=s.cpu_s % 0.3) for s in each.server]) for each in result.rounds]
    server = change_of(compare(made_result(2), replace(result, rounds=rounds)), OVERALL, "server CPU")
    assert server.verdict == "within noise"


# too little --------------------------------------------------------------------------------------------------


def test_a_single_round_says_what_it_cannot_see() -> None:
    comparison = compare(made_result(1, rounds=1), made_result(2, rounds=1))
    assert "--rounds" in comparison.notes[0]
    memory = change_of(comparison, OVERALL, "memory peak")
    assert (memory.verdict, memory.low) == ("cannot tell", None)
    assert "--rounds" not in " ".join(compare(made_result(1), made_result(2)).notes)


def test_a_single_round_is_taken_for_as_uneven_as_the_others() -> None:
    many, one = made_result(1, level=0.1, rounds=5), made_result(2, level=0.0, rounds=1, seconds=60)
    alone = compare(made_result(3, level=0.0, rounds=1, seconds=60), one)
    against = compare(many, one)
    assert "as uneven as" in against.notes[0]

    def width(comparison: Comparison) -> float:
        p50 = change_of(comparison, "image-get", "p50")
        assert p50.low is not None
        assert p50.high is not None
        return math.log(p50.high / p50.low)

    assert width(against) > 3 * width(alone)


@pytest.mark.parametrize("seconds", [1, 5, 9])
def test_a_few_seconds_of_one_round_tell_nothing(seconds: int) -> None:
    comparison = compare(made_result(1, rounds=1, seconds=seconds), made_result(2, rounds=1, seconds=seconds))
    assert {each.verdict for each in comparison.changes} == {"cannot tell"}
    assert exit_code(comparison) == 0


def test_rare_operations_tell_nothing_of_their_percentiles() -> None:
    rare = {"collect": (0.2, 900_000.0), **ONE}
    comparison = compare(made_result(1, operations=rare), made_result(2, operations=rare))
    assert verdict(comparison, "collect", "p50") == "cannot tell"
    assert verdict(comparison, "collect", "p99") == "cannot tell"
    assert verdict(comparison, "image-get", "p50") == "within noise"


def test_p999_only_where_there_are_enough() -> None:
    few = compare(made_result(1), made_result(2))
    assert "p99.9" not in {each.what for each in few.changes}
    many = {"image-get": (400.0, 800.0)}
    comparison = compare(made_result(1, operations=many, seconds=10), made_result(2, operations=many, seconds=10))
    assert verdict(comparison, "image-get", "p99.9") == "within noise"


def no_success(operation: OperationResult) -> OperationResult:
    series = [Interval(each.at_s, 0, each.count, 0, 0, 0) for each in operation.series]
    errors = {"Unavailable": operation.count}
    return OperationResult(operation.operation, 0, errors, 0.0, 0.0, 0, 0, 0, 0, 0, "", series)


def test_an_operation_that_never_succeeds_any_more_is_worse() -> None:
    comparison = compare(made_result(1), with_operation(made_result(2), "image-get", no_success))
    rate = change_of(comparison, "image-get", "rate")
    assert (rate.verdict, rate.ratio) == ("worse", 0.0)
    assert verdict(comparison, "image-get", "errors") == "worse"
    assert verdict(comparison, "image-get", "p50") == "cannot tell"
    back = compare(with_operation(made_result(2), "image-get", no_success), made_result(1))
    rate = change_of(back, "image-get", "rate")
    assert (rate.verdict, rate.ratio) == ("better", None)


@pytest.mark.parametrize("rounds", [0, 1])
def test_nothing_measured_is_no_crash(rounds: int) -> None:
    result = made_result(1, rounds=1, operations={})
    empty = replace(result, rounds=result.rounds[:rounds])
    for before, after in ((empty, empty), (empty, made_result(1)), (made_result(1), empty)):
        comparison = compare(before, after)
        assert {each.what for each in changed(comparison)} <= {"rate"}  # from nothing to something, if at all
        assert describe(comparison)


def test_a_day_is_compared_in_longer_steps() -> None:
    long = made_result(1, operations={"image-get": (0.3, 800.0)}, rounds=1, seconds=20_000, sampled=False)
    comparison = compare(long, long)
    assert verdict(comparison, "image-get", "p50") == "within noise"


def test_a_histogram_that_is_none_is_said() -> None:
    broken = with_operation(made_result(1), "image-get", lambda each: replace(each, histogram="no histogram"))
    with pytest.raises(InvalidArgument, match="image-get"):
        compare(broken, made_result(2))


# what else differs -------------------------------------------------------------------------------------------


def test_an_operation_of_one_run_only_is_said() -> None:
    both = made_result(1)
    first = made_result(2, operations=ONE)
    comparison = compare(both, first)
    assert change_of(comparison, OVERALL, "p50").why == "not the same operations"
    assert verdict(comparison, "image-get", "p50") == "within noise"
    assert comparison.only_before == ["image-publish"]
    assert compare(first, both).only_after == ["image-publish"]
    assert "image-publish: only before" in describe(comparison)


def test_other_scenarios_machines_and_drivers_are_named() -> None:
    before = made_result(1)
    after = replace(
        before,
        scenario=replace(SCENARIO, about="other words", load=Load(clients=32)),
        machine=replace(MACHINE, cores=4, orlop="0.3.0"),
        driver="tcp",
    )
    assert compare(before, after).warnings == [
        "the scenarios differ: load.clients 16 → 32",
        "the machines differ: cores 2 → 4",
        "the drivers differ: unix → tcp",
    ]


def test_arrivals_that_were_never_begun_are_named() -> None:
    result = made_result(1)
    dropped = replace(result, rounds=[replace(each, dropped=400) for each in result.rounds])
    assert any("0 and 1,200" in each for each in compare(result, dropped).warnings)


# for a terminal ----------------------------------------------------------------------------------------------


def slower_and_failing() -> Comparison:
    return compare(made_result(1), made_result(2, slower={"image-get": 1.5}, failing={"image-publish": 0.02}))


def test_the_worst_comes_first_and_the_verdict_last() -> None:
    lines = describe(slower_and_failing()).splitlines()
    verdicts = [line.split("  ")[-1].strip() for line in lines[1 : lines.index("")]]
    worse = [each.endswith("WORSE") for each in verdicts]
    assert worse == sorted(worse, reverse=True)
    assert any(worse)
    assert lines[-1].startswith("worse: ")
    assert "image-get p50 (+" in lines[-1]
    assert describe(compare(made_result(1), made_result(3))).splitlines()[-1].startswith("nothing is worse: ")


def test_columns_are_aligned() -> None:
    lines = describe(slower_and_failing()).splitlines()
    table = lines[: lines.index("")]
    at = table[0].index("verdict")
    assert {line[at - 2 : at] for line in table} == {"  "}
    assert all(line[at:].split()[-1] in ("verdict", "WORSE", "BETTER", "noise", "tell") for line in table)


def test_hostile_names_do_not_reach_the_terminal() -> None:
    name = "image\x1b[31m\n-get"
    hostile = {name: (100.0, 800.0)}
    text = describe(compare(made_result(1, operations=hostile), made_result(2, operations=hostile)))
    assert "\x1b" not in text
    assert r"image\x1b[31m\n-get" in text


def test_a_comparison_is_json() -> None:
    comparison = slower_and_failing()
    assert msgspec.json.decode(msgspec.json.encode(comparison), type=Comparison) == comparison


def test_a_result_survives_its_file(tmp_path) -> None:
    result: Result = made_result(1)
    write_result(result, str(tmp_path / "result.json"))
    assert compare(read_result(str(tmp_path / "result.json")), result) == compare(result, result)
