"""Histories that the collector got wrong."""

from __future__ import annotations

import pytest

from orlop.actors import content, leases, namespaces, snapshot_plans
from orlop.protocol import messages as m
from orlop.protocol.messages import Context
from orlop.protocol.records import LeaseResource
from orlop.storage.collection import collector
from orlop.storage.collection.state import Mode, State
from orlop.storage.engine import Kind
from tests.support.forest_checks import Seen
from tests.support.histories import EXPIRE, REF, ROOT
from tests.support.stories import Story, condition, digest, label, of_content, of_snapshot, vertex_of

BUDGETS = pytest.mark.parametrize("budget", [1, 8, 64])


@pytest.mark.parametrize("budget", [48, 64, 256])
def test_two_suspects_that_refer_to_each_other(budget: int) -> None:
    """Both have another root each: neither may become the other's witness."""
    story = Story(budget)
    story.open_lease("lease")
    story.put("A")
    story.put("B")
    story.hold("lease", of_content("A"), of_content("B"))
    story.settle()
    story.label("A", "B")
    story.label("B", "A")
    story.image("i", labels=label("A"))
    story.image("j", labels=label("B"))
    story.settle()
    story.end_lease("lease")
    story.settle()
    assert story.there("AB") == ["A", "B"]
    story.untag("i")
    story.untag("j")
    story.settle()
    assert story.there("AB") == []


@pytest.mark.parametrize("budget", [9, 14, 20, 23])
def test_what_hangs_on_a_suspect_of_a_later_round(budget: int) -> None:
    """V hangs on O, and O on C, which hangs on O and a root; O's witness goes while V is looked at."""
    story = Story(budget)
    story.put("O")
    story.image("top", labels=label("O"))
    story.settle()
    story.put("C")
    story.label("O", "C")
    story.settle()
    story.image("side", labels=label("C"))
    story.label("C", "O")
    story.put("V")
    story.image("first", labels=label("V"))
    story.settle()
    story.label("O", "C", "V")
    story.settle()
    story.relabel("first")
    story.until(lambda clock: clock.current)
    story.relabel("top")
    story.settle()
    assert story.there("OCV") == ["O", "C", "V"]


def held_flat(budget: int, bound: str = "") -> Story:
    """The snapshot s is held flat; kept otherwise by nothing, so that of it is sealed already."""
    story = Story(budget)
    story.open_lease("flat", flat=True)
    story.snapshot("s")
    story.mark_used("s", 0)
    story.hold("flat", of_snapshot("s"))
    story.container("k", "s")
    if bound:
        story.image("i", labels=condition("s", bound))
    story.settle()
    story.remove_container("k")
    story.until_sealed()
    assert story.state(vertex_of(of_snapshot("s"))).condemned
    return story


@BUDGETS
def test_a_condition_on_what_is_sealed_and_held_flat(budget: int) -> None:
    story = held_flat(budget)
    story.image("i", labels=condition("s", "<100s"))
    story.settle()
    assert story.state(vertex_of(of_snapshot("s"))).anchored


@BUDGETS
def test_a_window_opens_for_what_is_sealed_and_held_flat(budget: int) -> None:
    story = held_flat(budget, ">50s")
    story.wait(60)
    story.settle()
    assert story.state(vertex_of(of_snapshot("s"))).anchored


@BUDGETS
def test_an_expiry_comes_back_for_what_is_sealed_and_held_flat(budget: int) -> None:
    """It loses what is alive again: the image is a root, and its content goes."""
    story = Story(budget)
    story.open_lease("flat", flat=True)
    story.put("A")
    story.put("B", "A")
    story.image("i", "B", {EXPIRE: story.at(5)})
    story.hold("flat", LeaseResource("i", "images"))
    story.settle()
    story.wait(10)
    story.until_sealed()
    story.wait(-10)
    story.put("A")
    story.settle()
    assert story.there("A") == ["A"]


@BUDGETS
def test_a_large_record_takes_the_place_of_a_sealed_one(budget: int) -> None:
    story = Story(budget)
    many = [f"x{n}" for n in range(45)]
    story.image("i", labels={**label(*many), EXPIRE: story.at(5)})
    story.settle()
    story.wait(10)
    story.until_sealed()
    story.image("i", labels=label(*many))
    story.settle()
    story.put("B", labels=label("x2", way="bref"))
    story.settle()
    assert story.there("B") == ["B"]


@BUDGETS
def test_a_record_is_born_where_a_flat_variant_was_sealed(budget: int) -> None:
    story = Story(budget)
    story.open_lease("flat", flat=True)
    story.put("A")
    story.image("i", "A")
    story.hold("flat", of_content("A"))
    story.settle()
    story.end_lease("flat")
    story.until_sealed()
    story.drop("A")
    story.untag("i")
    story.open_lease("new", flat=True)
    story.batch(
        (content.put, m.PutContent(b"blob A")),
        (leases.add, m.AddLeaseResource("new", of_content("A"))),
    )
    assert story.there("A") == ["A"]
    story.settle()
    assert story.there("A") == ["A"]


@BUDGETS
def test_a_reference_to_what_was_held_flat_and_is_sealed(budget: int) -> None:
    story = Story(budget)
    story.open_lease("flat", flat=True)
    story.put("A", "B")
    story.put("B")
    story.hold("flat", of_content("A"), of_content("B"))
    story.settle()
    story.end_lease("flat")
    story.until_sealed()
    assert story.there("AB") == []
    story.image("i", "A")
    assert story.there("AB") == []
    story.settle()
    assert story.there("AB") == []


@BUDGETS
def test_a_flat_entry_for_what_was_held_and_is_sealed(budget: int) -> None:
    story = Story(budget)
    story.open_lease("lease")
    story.put("A")
    story.hold("lease", of_content("A"))
    story.open_lease("flat", flat=True)
    story.settle()
    story.end_lease("lease")
    story.until_sealed()
    assert story.there("A") == []
    story.hold("flat", of_content("A"))
    assert story.there("A") == []


@BUDGETS
def test_a_namespace_goes_whose_leases_are_sealed(budget: int) -> None:
    story = Story(budget)
    story.open_lease("lease", seconds=5)
    story.settle()
    story.wait(10)
    story.until_sealed()
    story.transact(lambda txn: namespaces.delete(txn, m.DeleteNamespace("one"), Context(namespace="one")))
    story.settle()


@BUDGETS
def test_a_snapshot_goes_whose_children_are_sealed(budget: int) -> None:
    story = Story(budget)
    story.snapshot("base")
    story.snapshot("top", "base")
    story.container("k", "base")
    story.open_lease("lease")
    story.hold("lease", of_snapshot("top"))
    story.settle()
    story.end_lease("lease")
    story.until_sealed()
    assert story.snapshots("base", "top") == ["base"]
    story.run(snapshot_plans.delete, m.DeleteSnapshot("base", "native"))
    assert story.snapshots("base", "top") == []


@pytest.mark.parametrize("budget", [1, 8])
def test_what_tells_others_is_found_dead_meanwhile(budget: int) -> None:
    """A is absent; it lives by an image that expires before all are told that refer back to it."""
    story = Story(budget)
    for n in range(20):
        story.put(n, labels={**label("A", way="bref"), ROOT: "x"})
    story.settle()
    story.image("i", "A", {EXPIRE: story.at(5)})
    story.until(lambda _: any(each.mode == Mode.PUSH and each.cursor for each in Seen(story.world).queue.values()))
    story.wait(6)
    story.settle()
    assert story.state(vertex_of(of_content("A"))) == State()


@BUDGETS
def test_a_round_that_is_to_be_closed_is_work(budget: int) -> None:
    story = Story(budget)
    story.put("A", labels={ROOT: "x"})
    story.settle()
    story.label("A")
    while story.has(Kind.CONTENT, digest("A")):
        assert story.world.read(collector.has_work), story.clock
        story.step()


@pytest.mark.parametrize("budget", [256])
def test_many_records_with_long_names_go(budget: int) -> None:
    """More bytes than a transaction takes; the collector would never get any further."""
    story = Story(budget, check=False)
    story.namespace = "n" * 76
    for n in range(60):
        labels = {f"{REF}snapshot.native/{k}": "s" * 387 + f"{k:03}" for k in range(39)}
        story.image("i" * 500 + f"{n:04}", labels={EXPIRE: story.at(5), **labels})
    while story.world.collect(budget).more:
        pass
    story.wait(10)
    while story.world.collect(budget).more:
        pass
    assert not Seen(story.world).records
