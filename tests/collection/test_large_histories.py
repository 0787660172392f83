"""Records and leases that are more than one transaction takes: what happens to them while their edges follow.

Source: gc-algorithm 4 and 10.
"""

from __future__ import annotations

import pytest

from tests.support.histories import ROOT
from tests.support.stories import Story, label, of_content, of_snapshot

pytestmark = pytest.mark.parametrize("budget", [1, 8])
MANY = [f"x{n}" for n in range(50)]


@pytest.mark.parametrize("steps", range(4))
def test_a_large_record_is_made_again_while_its_edges_are_owed(budget: float, steps: int) -> None:
    story = Story(budget)
    story.put("x1", labels={ROOT: "x"})
    story.put("x44", labels={ROOT: "x"})
    story.image("i", labels=label(*MANY))
    story.step(steps)
    story.untag("i")
    story.step(1)
    story.image("i", labels=label(*MANY[:42]))
    story.step(1)
    story.label("x1")
    story.label("x44")
    story.settle()
    assert story.there(["x1", "x44"]) == ["x1"]
    story.untag("i")
    story.step(steps)
    story.image("i", labels=label(*MANY))
    story.settle()
    story.relabel("i", labels=label(*MANY[:10]))
    story.settle()
    story.untag("i")
    story.settle()
    assert story.there(["x1", "x44"]) == []


def test_back_references_of_a_large_record_count_once(budget: float) -> None:
    """It is made again while its edges are there, and what is owed for it puts them once more."""
    story = Story(budget)
    labels = {**label(*MANY), **label("x1", way="bref")}
    story.image("i", labels=labels)
    story.settle()
    story.untag("i")
    story.image("i", labels=labels)
    story.settle()
    story.untag("i")
    story.settle()


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("flat", [False, True])
def test_a_large_lease_is_made_again_while_its_entries_are_owed(budget: float, steps: int, flat: bool) -> None:
    story = Story(budget)
    story.open_lease("lease", flat=flat)
    story.put("below", labels={ROOT: "x"})
    story.put("x1", "below", labels={ROOT: "x"})
    story.put("x44", labels={ROOT: "x"})
    for each in MANY:
        story.checking = False
        story.hold("lease", of_content(each))
    story.checking = True
    for each in ("below", "x44"):
        story.label(each)
    story.label("x1", "below")
    story.settle()
    assert story.there(["below", "x1", "x44"]) == (["x1", "x44"] if flat else ["below", "x1", "x44"])
    story.end_lease("lease")
    story.step(steps)
    story.open_lease("lease", flat=not flat)
    story.hold("lease", of_content("x1"))
    story.step(steps)
    story.hold("lease", of_content("x1"))
    story.settle()
    assert story.there(["x44"]) == []


@pytest.mark.parametrize("steps", range(4))
def test_a_large_lease_becomes_flat_and_normal_again(budget: float, steps: int) -> None:
    story = Story(budget)
    story.open_lease("lease")
    story.snapshot("base")
    story.snapshot("top", "base", {ROOT: "x"})
    story.hold("lease", of_snapshot("top"))
    story.put("below", labels={ROOT: "x"})
    story.put("x1", "below")
    story.checking = False
    for each in MANY:
        story.hold("lease", of_content(each))
    story.checking = True
    story.mark_used("top", None)
    story.label("below")
    story.settle()
    story.flatten("lease", flat=True)
    story.step(steps)
    story.let_go("lease", of_content("x44"))
    story.hold("lease", of_content("x50"))
    story.flatten("lease", flat=False)
    story.step(steps)
    story.settle()
    assert story.there(["below", "x1"]) == ["below", "x1"]
    story.flatten("lease", flat=True)
    story.settle()
    assert story.there(["below", "x1"]) == ["x1"]
    assert story.snapshots("base", "top") == ["base", "top"]
    story.flatten("lease", flat=False)
    story.end_lease("lease")
    story.settle()
    assert story.there(["below", "x1"]) == []
    assert story.snapshots("base", "top") == []
