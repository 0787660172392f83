"""Small histories told by hand: each shows one thing that such a collector gets wrong. Source: gc-algorithm 9."""

from __future__ import annotations

import pytest

from orlop.protocol.records import LeaseResource
from orlop.storage.collection.state import Mode
from tests.support.forest_checks import Seen
from tests.support.histories import COND, EXPIRE, REF, ROOT
from tests.support.stories import (
    Story,
    condition,
    label,
    of_content,
    of_snapshot,
    snapshot_label,
    vertex_of,
)

pytestmark = pytest.mark.parametrize("budget", [1, 8])
MANY = [f"x{n}" for n in range(45)]


# mistakes that were made ------------------------------------------------------------------------------------


def test_a_flat_variant_without_references_does_not_take_the_normal_one_along(budget: float) -> None:
    """X is held flat, and normally by Y, which waits for its rescue."""
    story = Story(budget)
    story.open_lease("flat", flat=True)
    story.open_lease("normal")
    story.put("Y")
    story.put("Z", "Y")
    story.hold("normal", of_content("Y"))
    story.label("Y", "Z")
    story.put("X", labels=label("Y", way="bref"))
    story.hold("flat", of_content("X"))
    story.image("root", "Z")
    story.settle()
    story.end_lease("normal")
    story.end_lease("flat")
    story.settle()
    assert story.there("XYZ") == ["X", "Y", "Z"]
    story.untag("root")
    story.settle()
    assert story.there("XYZ") == []


def partly_examined(budget: float, used: float) -> Story:
    """The snapshot s lost its lease; the look for another witness has passed a condition that did not hold."""
    story = Story(budget)
    story.open_lease("lease")
    referrers = [f"d{n}" for n in range(10)]
    for each in referrers:
        story.put(each, labels=snapshot_label("s"))
        story.hold("lease", of_content(each))
    story.snapshot("s")
    story.hold("lease", of_snapshot("s"))
    story.mark_used("s", used)
    story.image("i", labels=condition("s", ">100s"))
    for each in referrers:  # the witness is to be the lease: the others refer to it later
        story.label(each)
    for each in referrers:
        story.label(each, labels=snapshot_label("s"))
    story.settle()
    story.end_lease("lease")
    place = vertex_of(of_snapshot("s"))
    for _ in range(1_000):
        story.step()
        seen = Seen(story.world)
        at = [each for each in seen.queue.values() if each.vertex == place]
        if at and at[0].mode == Mode.SUSPECT and at[0].cursor > b"er":
            return story
    raise AssertionError("it is never examined in part")


def test_a_window_that_opens_behind_the_cursor(budget: float) -> None:
    story = partly_examined(budget, 0)
    story.wait(200)
    story.settle()
    assert story.snapshots("s") == ["s"]


def test_a_used_at_that_moves_a_window_behind_the_cursor(budget: float) -> None:
    story = partly_examined(budget, 0)
    story.mark_used("s", -200)
    story.settle()
    assert story.snapshots("s") == ["s"]


def test_a_label_behind_the_cursor(budget: float) -> None:
    story = partly_examined(budget, 0)
    story.container("k", "s")
    story.settle()
    assert story.snapshots("s") == ["s"]
    story.remove_container("k")
    story.settle()
    assert story.snapshots("s") == []


def test_a_rescue_during_a_long_climb_is_not_overtaken(budget: float) -> None:
    story = Story(budget)
    chain(story, "c", 12)
    story.image("top", "c0")
    story.open_lease("lease")
    for each in ("dead", "deep"):
        story.put(each)
        story.hold("lease", of_content(each))
    story.label("c11", "deep")
    story.settle()
    story.end_lease("lease")
    if budget == 1:
        story.until(lambda clock: clock.climb)
    story.put("later", "dead", labels={ROOT: "x"})
    story.settle()
    assert story.there(["dead", "deep", "c11"]) == ["dead", "deep", "c11"]


@pytest.mark.parametrize("alive", [False, True])
def test_two_suspects_with_long_climbs_to_each_other(budget: float, alive: bool) -> None:
    story = Story(budget, check=False, most_steps=1_000)
    story.open_lease("lease")
    for each in "AB":
        story.put(each)
        story.hold("lease", of_content(each))
    chain(story, "a", 10)
    chain(story, "b", 10)
    story.label("A", "b0")
    story.label("B", "a0")
    story.label("a9", "A")
    story.label("b9", "B")
    if alive:
        story.image("root", labels=label("B"))
    story.settle()
    story.end_lease("lease")
    story.settle()
    everything = ["A", "B", *(f"{each}{n}" for each in "ab" for n in range(10))]
    assert story.there(everything) == (everything if alive else [])


def test_a_ring_dies(budget: float) -> None:
    story = Story(budget, check=False, most_steps=1_000)
    for each in range(5):
        story.put(each, (each + 1) % 5, (each + 2) % 5, labels={ROOT: "x"} if each == 2 else {})
    story.settle()
    assert story.there(range(5)) == [0, 1, 2, 3, 4]
    story.label(2, 3)
    story.settle()
    assert story.there(range(5)) == []


def test_many_suspects_that_refer_to_one_are_looked_at_once_each(budget: float) -> None:
    story = Story(max(budget, 64), check=False)
    count = 60 if budget == 1 else 240
    story.put("hot", labels={ROOT: "x"})
    story.open_lease("lease")
    for n in range(count):
        story.put(n, "hot")
        story.hold("lease", of_content(n))
    story.hold("lease", of_content("hot"))
    story.label("hot")
    story.settle()
    story.end_lease("lease")
    cost = 0
    while (part := story.step()).more:
        cost += part.cost
    assert story.there(["hot", *range(count)]) == []
    assert cost < 60 * count


def chain(story: Story, name: str, length: int) -> None:
    for n in range(length):
        story.put(f"{name}{n}", *([f"{name}{n + 1}"] if n + 1 < length else []), labels={ROOT: "x"})
    for n in range(length):
        story.label(f"{name}{n}", *([f"{name}{n + 1}"] if n + 1 < length else []))


# what a plain search leaves out -----------------------------------------------------------------------------


def test_an_absent_object_keeps_those_that_refer_back_to_it(budget: float) -> None:
    story = Story(budget)
    story.put("A", "absent", labels={ROOT: "x"})
    story.put("B", labels=label("absent", way="bref"))
    story.settle()
    assert story.there("AB") == ["A", "B"]
    story.label("A", labels={ROOT: "x"})
    story.settle()
    assert story.there("AB") == ["A"]


def test_an_image_expires_and_nothing_else_happens(budget: float) -> None:
    story = Story(budget)
    story.put("A", labels={ROOT: "x"})
    story.image("i", "A", {EXPIRE: story.at(5)})
    story.label("A")
    story.settle()
    assert story.there("A") == ["A"]
    story.wait(4)
    story.settle()
    assert story.there("A") == ["A"]
    story.wait(2)
    story.settle()
    assert story.there("A") == []


def test_held_flat_and_dead_otherwise(budget: float) -> None:
    story = Story(budget)
    story.snapshot("base")
    story.snapshot("top", "base", {ROOT: "x"})
    story.put("A", "B", labels={ROOT: "x"})
    story.put("B")
    story.open_lease("flat", flat=True)
    story.hold("flat", of_snapshot("top"), of_content("A"))
    story.settle()
    story.mark_used("top", None)
    story.label("A", "B")
    story.settle()
    assert story.snapshots("base", "top") == ["base", "top"]
    assert story.there("AB") == ["A"]
    story.let_go("flat", of_snapshot("top"))
    story.let_go("flat", of_content("A"))
    story.settle()
    assert story.snapshots("base", "top") == []
    assert story.there("AB") == []


def test_a_root_reason_goes(budget: float) -> None:
    story = Story(budget)
    for each in "AB":
        story.put(each, labels={ROOT: "x"})
    story.image("i", "B")
    story.label("B")
    story.label("A")
    story.settle()
    assert story.there("AB") == ["B"]
    story.relabel("i", "B", {EXPIRE: story.at(-5)})
    story.settle()
    assert story.there("AB") == []


def test_who_kept_others_by_their_labels_dies(budget: float) -> None:
    story = Story(budget)
    story.put("X", labels={ROOT: "x"})
    story.put("B", labels=label("X", way="bref"))
    story.settle()
    story.label("X")
    story.settle()
    assert story.there("XB") == []


def test_a_back_reference_goes(budget: float) -> None:
    story = Story(budget)
    story.put("X", labels={ROOT: "x"})
    for each in "BC":
        story.put(each, labels=label("X", way="bref"))
    story.settle()
    story.label("B")
    story.settle()
    assert story.there("XBC") == ["X", "C"]


def test_two_held_flat_that_refer_to_each_other(budget: float) -> None:
    """Dead but for their leases, they come to rest; a path that reaches one of them later reaches all below."""
    story = Story(budget)
    story.snapshot("one", labels={ROOT: "x"})
    story.snapshot("two", labels={ROOT: "x"})
    story.put("below", labels={ROOT: "x"})
    story.open_lease("flat", flat=True)
    story.hold("flat", of_snapshot("one"), of_snapshot("two"))
    story.mark_used("one", None, snapshot_label("two"))
    story.mark_used("two", None, {**snapshot_label("one"), **label("below")})
    story.settle()
    assert not story.state(vertex_of(of_snapshot("one"))).anchored
    story.container("k", "one")
    story.label("below")
    story.settle()
    assert story.there(["below"]) == ["below"]
    story.remove_container("k")
    story.settle()
    assert story.there(["below"]) == []
    assert story.snapshots("one", "two") == ["one", "two"]


def test_a_root_is_born_to_which_others_refer_back(budget: float) -> None:
    """B is held flat; what it refers to lives as soon as X does."""
    story = Story(budget)
    story.open_lease("flat", flat=True)
    story.put("B", labels={**label("X", way="bref"), ROOT: "x"})
    story.hold("flat", of_content("B"))
    story.label("B", "below", labels=label("X", way="bref"))
    story.settle()
    story.put("X", labels={ROOT: "x"})
    story.put("below")
    story.settle()
    assert story.there(["B", "below"]) == ["B", "below"]


# conditions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["<10s", ">10s"])
def test_a_window_moves_with_no_edge_touched(budget: float, bound: str) -> None:
    inside, outside = (-1, -100) if bound[0] == "<" else (-100, -1)
    story = Story(budget)
    story.snapshot("s", labels={ROOT: "x"})
    story.put("below", labels={ROOT: "x"})
    story.image("i", labels=condition("s", bound))
    story.mark_used("s", inside, label("below"))
    story.label("below")
    story.settle()
    assert story.snapshots("s") == ["s"]
    assert story.there(["below"]) == ["below"]
    story.mark_used("s", outside, label("below"))
    if budget > 1:
        story.step(3)
        story.mark_used("s", inside, label("below"))
        story.settle()
        assert story.there(["below"]) == ["below"]
        story.mark_used("s", outside, label("below"))
    story.settle()
    assert story.snapshots("s") == []
    assert story.there(["below"]) == []


@pytest.mark.parametrize("bound", ["<10s", ">10s"])
def test_time_moves_a_window_back_and_forth(budget: float, bound: str) -> None:
    inside, outside = (5, 20) if bound[0] == "<" else (20, 5)
    story = Story(budget)
    story.snapshot("s", labels={ROOT: "x"})
    story.open_lease("flat", flat=True)
    story.hold("flat", of_snapshot("s"))
    story.put("below", labels={ROOT: "x"})
    story.image("i", labels=condition("s", bound))
    story.mark_used("s", 0, label("below"))
    began = story.world.now_ns
    for seconds in (inside, outside, inside, outside, inside):
        story.world.now_ns = began + seconds * 10**9
        story.settle()
        assert story.state(vertex_of(of_snapshot("s"))).anchored == (seconds == inside)
    story.label("below")
    story.settle()
    assert story.there(["below"]) == ["below"]
    story.world.now_ns = began + outside * 10**9
    story.settle()
    assert story.there(["below"]) == []


def test_a_condition_is_another_one(budget: float) -> None:
    story = Story(budget)
    story.snapshot("s", labels={ROOT: "x"})
    story.image("i", labels=condition("s", "<10s"))
    story.mark_used("s", -1)
    story.settle()
    story.relabel("i", labels=condition("s", "<100s"))
    story.wait(50)
    story.settle()
    assert story.snapshots("s") == ["s"]
    story.relabel("i", labels=condition("s", "<200s"))
    story.relabel("i", labels=condition("s", ">100s"))
    story.settle()
    assert story.snapshots("s") == []


def test_a_used_at_goes(budget: float) -> None:
    story = Story(budget)
    story.snapshot("s", labels={ROOT: "x"})
    story.image("i", labels={f"{COND}/0": "usedat<10s|s"})
    story.mark_used("s", -1)
    story.settle()
    story.mark_used("s", None)
    story.settle()
    assert story.snapshots("s") == []


# the clock --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [(100, -100), (-100, 100), (100, -60, 40, -100, 100), (30, 30, 30, -200)])
def test_a_clock_is_set_in_the_middle_of_a_tick(budget: float, moves: tuple[int, ...]) -> None:
    story = Story(budget)
    for n in range(20):
        story.put(n, labels={ROOT: "x"})
        story.image(f"i{n}", n, {EXPIRE: story.at(5 * n - 50)})
        story.label(n)
        if n == 10:
            story.step(3)
    story.open_lease("lease", seconds=30)
    story.hold("lease", *(of_content(n) for n in range(0, 20, 3)))
    for move in moves:
        story.wait(move)
        story.step(2)
        story.image("new", labels={EXPIRE: story.at(move // 2), **label(1)})
        story.untag("new")
    story.settle()
    story.wait(1_000)
    story.settle()
    assert story.there(range(20)) == []


def test_nothing_is_sealed_in_the_middle_of_a_tick(budget: float) -> None:
    """The clock is set back, so an image is a root again, which is found out after many others."""
    story = Story(budget)
    story.open_lease("flat", flat=True)
    for n in range(20):
        story.image(f"a{n}", labels={EXPIRE: story.at(10)})
    story.image("keeper", labels={f"{REF}image.{n}": f"a{n}" for n in range(20)})
    story.put("A")
    story.image("i", "A", {EXPIRE: story.at(11)})
    story.hold("flat", LeaseResource("i", "images"))
    story.open_lease("lease")
    story.hold("lease", of_content("A"))
    story.settle()
    story.wait(20)
    story.settle()
    assert story.there("A") == ["A"]
    story.end_lease("lease")
    story.until(lambda clock: clock.current)
    story.wait(-20)
    story.settle()
    assert story.there("A") == ["A"]


# crashes ----------------------------------------------------------------------------------------------------


def with_everything(budget: float) -> Story:
    story = Story(budget)
    story.open_lease("lease")
    story.open_lease("flat", flat=True)
    chain(story, "c", 6)
    story.image("top", "c0")
    for n in range(6):
        story.put(n, n + 1)
        story.hold("lease", of_content(n))
    story.put("ring", "ring2")
    story.put("ring2", "ring")
    story.hold("lease", of_content("ring"))
    story.image("side", labels=label("ring2"))
    story.hold("flat", of_content(3))
    story.put("back", labels=label(2, way="bref"))
    story.checking = False
    for each in MANY:
        story.hold("lease", of_content(each))
    story.checking = True
    story.image("late", "c3", {EXPIRE: story.at(5)})
    story.settle()
    story.untag("top")
    story.end_lease("lease")
    return story


def test_a_crash_after_any_transaction(budget: float) -> None:
    story = with_everything(budget)
    for _ in range(2_000):
        more = story.step().more
        story.crash()
        if not more:
            break
    story.settle()
    assert story.there(["ring", "ring2", "back", *range(6), "c0", "c3", "c5"]) == ["ring", "ring2", 3, "c3", "c5"]
