"""What is sealed, what is urgent, and what waits in the bin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orlop.protocol.records import LeaseResource
from orlop.storage.collection.state import State
from orlop.storage.engine import Kind
from tests.support.histories import EXPIRE, ROOT
from tests.support.stories import Story, condition, digest, label, of_content, of_snapshot, vertex_of

pytestmark = pytest.mark.parametrize("budget", [1, 8])


def test_urgent_work_overtakes(budget: float) -> None:
    story = Story(budget)
    story.open_lease("slow")
    for n in range(12):
        story.put(n)
        story.hold("slow", of_content(n))
    story.put("quick", labels={ROOT: "x"})
    story.image("i", "quick")
    story.label("quick")
    story.settle()
    story.end_lease("slow")
    story.untag("i", sync=True)
    while story.step().urgent:
        assert story.there(range(12)) == list(range(12))
    assert story.there(["quick"]) == []
    story.settle()
    assert story.there(range(12)) == []


def test_urgent_work_takes_suspects_over(budget: float) -> None:
    """What a client let go of before, and another one urgently now, goes with the urgent."""
    story = Story(budget)
    story.open_lease("one")
    story.open_lease("two")
    story.put("quick")
    story.hold("one", of_content("quick"))
    story.hold("two", of_content("quick"))
    for n in range(12):
        story.put(n)
        story.hold("one", of_content(n))
    story.settle()
    story.end_lease("one")
    story.end_lease("two", sync=True)
    while story.step().urgent:
        assert len(story.there(range(12))) == 12
    assert story.there(["quick"]) == []
    story.settle()


def test_urgent_work_takes_suspects_over_that_it_releases(budget: float) -> None:
    """Both let go of C: a client before, and now what goes urgently."""
    story = Story(budget)
    story.open_lease("one")
    story.open_lease("two")
    story.put("C")
    story.hold("one", of_content("C"))
    story.put("P", "C")
    story.hold("two", of_content("P"))
    for n in range(12):
        story.put(n)
        story.hold("one", of_content(n))
    story.settle()
    story.end_lease("one")
    story.end_lease("two", sync=True)
    while story.step().urgent:
        assert len(story.there(range(12))) == 12
    assert story.there("PC") == []
    story.settle()


def binned(budget: float) -> Story:
    story = Story(budget, grace_ns=10**10)
    story.put("A", "B", labels={ROOT: "x"})
    story.put("B")
    story.image("i", "A")
    story.label("A", "B")
    story.settle()
    story.untag("i")
    story.settle()
    assert story.there("AB") == ["A", "B"]
    assert not story.has(Kind.IMAGE, "i")
    return story


def test_what_is_in_the_bin_goes_when_it_is_due(budget: float) -> None:
    story = binned(budget)
    story.wait(9)
    story.settle()
    assert story.there("AB") == ["A", "B"]
    story.wait(2)
    story.settle()
    assert story.there("AB") == []


@pytest.mark.parametrize(
    "wake",
    [
        lambda story: story.image("j", "A"),
        lambda story: story.label("A", "B", labels={ROOT: "x"}),
        lambda story: story.open_lease("l") or story.hold("l", of_content("A")),
    ],
    ids=["a new reference", "a label", "an entry"],
)
def test_what_is_in_the_bin_is_woken(budget: float, wake: Callable[[Story], None]) -> None:
    story = binned(budget)
    wake(story)
    story.settle()
    story.wait(20)
    story.settle()
    assert story.there("AB") == ["A", "B"]


def test_urgent_work_does_not_wait_in_the_bin(budget: float) -> None:
    story = binned(budget)
    story.put("C", labels={ROOT: "x"})
    story.image("j", "C")
    story.label("C")
    story.settle()
    story.untag("j", sync=True)
    story.settle()
    assert story.there("ABC") == ["A", "B"]


def test_a_name_is_taken_from_the_bin(budget: float) -> None:
    story = Story(budget, grace_ns=10**10)
    story.put("A", labels={ROOT: "x"})
    story.image("i", "A", {EXPIRE: story.at(5)})
    story.label("A")
    story.settle()
    story.wait(6)
    story.settle()
    assert story.has(Kind.IMAGE, "i")
    story.image("i", "A", label("A"))
    story.settle()
    story.wait(20)
    story.settle()
    assert story.has(Kind.IMAGE, "i")
    assert story.there("A") == ["A"]


def test_a_lease_is_taken_from_the_bin(budget: float) -> None:
    """Its expiry is still to come, for the clock was set back, and is called off: what it names lives with it."""
    story = Story(budget, grace_ns=10**10)
    story.put("A", labels={ROOT: "x"})
    story.open_lease("lease", seconds=5)
    story.hold("lease", of_content("A"))
    story.label("A")
    story.settle()
    story.wait(6)
    story.settle()
    assert not story.state(vertex_of(of_content("A"))).anchored
    story.wait(-6)
    story.flatten("lease", flat=False)
    story.settle()
    story.wait(20)
    story.settle()
    assert story.has(Kind.LEASE, "lease")
    assert story.there("A") == ["A"]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("root", [False, True])
def test_what_takes_the_place_of_what_is_in_the_bin_waits_anew(budget: float, flat: bool, root: bool) -> None:
    story = Story(budget, grace_ns=10**10)
    story.open_lease("lease", flat=flat)
    story.hold("lease", of_content("A"))
    story.put("A")
    story.settle()
    story.end_lease("lease")
    story.settle()
    story.wait(9)
    story.drop("A")
    story.put("A", labels={ROOT: "x"} if root else {})
    story.settle()
    story.wait(2)
    story.settle()
    assert story.there("A") == ["A"]
    story.wait(10)
    story.settle()
    assert story.there("A") == (["A"] if root else [])


def test_content_in_the_bin_is_there_already(budget: float) -> None:
    story = binned(budget)
    story.put("A")
    story.image("j", "A")
    story.wait(20)
    story.settle()
    assert story.there("AB") == ["A", "B"]


def test_what_is_sealed_is_no_more_at_once(budget: float) -> None:
    story = Story(budget)
    story.open_lease("lease")
    for n in range(8):
        story.put(n)
        story.hold("lease", of_content(n))
    story.settle()
    story.end_lease("lease")
    story.until_sealed()
    assert story.there(range(8)) == []
    story.put(3)
    story.image("i", 3)
    story.image("j", 5)
    assert story.there(range(8)) == [3]
    story.put(5)
    story.settle()
    assert story.there(range(8)) == [3, 5]


def test_a_lease_that_was_found_dead_takes_no_entries(budget: float) -> None:
    story = Story(budget)
    story.put("A", labels={ROOT: "x"})
    story.open_lease("lease", seconds=5)
    story.hold("lease", of_content("A"), LeaseResource("i", "images"))
    story.label("A")
    story.settle()
    story.wait(6)
    story.until_sealed()
    assert not story.has(Kind.LEASE, "lease")
    story.open_lease("lease")
    story.settle()
    assert story.has(Kind.LEASE, "lease")
    assert not story.has(Kind.CONTENT, digest("A"))


# what is sealed, and comes up again -------------------------------------------------------------------------


def held_both_ways(budget: float) -> Story:
    """A and what it refers to, A also held flat; then nothing holds A otherwise, and that is sealed."""
    story = Story(budget)
    story.open_lease("flat", flat=True)
    story.open_lease("normal")
    story.put("A", "B")
    story.put("B")
    story.hold("normal", of_content("A"))
    story.hold("flat", of_content("A"))
    story.settle()
    story.end_lease("normal")
    return story


def test_one_variant_is_sealed_and_referred_to_again(budget: float) -> None:
    """It lives; what it referred to was no more, and is not brought back."""
    story = held_both_ways(budget)
    story.until_sealed()
    assert story.there("AB") == ["A"]
    story.image("i", "A")
    while story.clock.current:
        story.step()
    assert story.there("AB") == ["A"]
    story.settle()
    assert story.there("AB") == ["A"]
    assert story.state(vertex_of(of_content("A"))).anchored
    assert story.state(vertex_of(of_content("B"))).anchored  # absent, and referred to


def test_both_variants_are_sealed_and_referred_to_again(budget: float) -> None:
    story = held_both_ways(budget)
    story.end_lease("flat")
    story.until_sealed()
    story.image("i", "A")
    assert story.there("AB") == []
    story.settle()
    assert story.there("AB") == []
    story.put("A")
    story.settle()
    assert story.there("AB") == ["A"]


def test_a_clock_that_is_set_back_brings_nothing_back(budget: float) -> None:
    story = Story(budget)
    story.image("i", labels={EXPIRE: story.at(5)})
    story.settle()
    story.wait(10)
    story.until_sealed()
    story.wait(-10)
    story.step(2)
    assert not story.has(Kind.IMAGE, "i")
    story.settle()
    assert not story.has(Kind.IMAGE, "i")


def test_a_condition_brings_nothing_back(budget: float) -> None:
    story = Story(budget)
    story.open_lease("lease")
    story.snapshot("s")
    story.mark_used("s", 0)
    story.hold("lease", of_snapshot("s"))
    story.settle()
    story.end_lease("lease")
    story.until_sealed()
    story.image("i", labels=condition("s", "<50s"))
    story.step(2)
    assert story.snapshots("s") == []
    story.settle()
    assert story.snapshots("s") == []


def test_what_was_sealed_in_one_way_is_deleted_and_born(budget: float) -> None:
    """What is born is another one than what is no more: it lives as long as it is held."""
    story = held_both_ways(budget)
    story.until_sealed()
    story.drop("A")
    story.put("A")
    story.image("i", "A")
    story.end_lease("flat")
    assert story.there("A") == ["A"]
    story.settle()
    assert story.there("A") == ["A"]


def test_of_what_is_absent_and_dead_nothing_is_kept(budget: float) -> None:
    """There is nothing to sweep; born later, it is as new as any other."""
    story = Story(budget)
    story.open_lease("lease")
    story.hold("lease", of_content("A"))
    story.settle()
    assert story.state(vertex_of(of_content("A"))).anchored
    story.end_lease("lease")
    while story.step().more:
        assert not story.clock.sealed
    assert story.state(vertex_of(of_content("A"))) == State()
    story.put("A")
    story.image("i", "A")
    story.settle()
    assert story.there("A") == ["A"]


def test_a_round_goes_as_one(budget: float) -> None:
    """Whoever sees one of it gone sees all of it gone."""
    story = Story(budget)
    story.open_lease("lease")
    for n in range(6):
        story.put(n, n + 1)
    story.hold("lease", of_content(0))
    story.settle()
    story.label(5, labels=label("x", way="bref"))
    story.end_lease("lease")
    while story.step().more:
        assert story.there(range(6)) in ([], list(range(6)))
