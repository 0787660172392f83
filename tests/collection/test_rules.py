"""No rule is there for nothing: with any of them switched off, some history goes wrong.

The histories were found by trying seeds; where none was found, one that is told by hand shows it. When a change of the
collector or of the generator lets one of them pass, another seed is to be found. Source: gc-algorithm 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.collection import test_fixed_histories as fixed
from tests.collection import test_large_histories as large
from tests.collection import test_sealed_histories as sealed
from tests.collection.test_histories import run_history
from tests.support.rules import RULES, switch_off

pytestmark = pytest.mark.slow

SEEDS: dict[str, list[tuple[int, str, bool]]] = {
    "a new edge wakes its target": [(4, "wild namespaces", False), (6, "", False)],
    "a new edge gives what is absent a state": [(0, "", False), (1, "wild", False)],
    "what has a record is told to those it refers to": [(24, "", False), (10, "grace", True)],
    "what is absent is told to those that refer back to it": [(24, "", False), (24, "", True)],
    "who loses his witness is a suspect": [(1, "wild", False), (2, "wild grace", False)],
    "a flat edge that goes is lost": [(18, "", False), (13, "wild", False)],
    "a flat edge that comes conducts": [(18, "", False), (28, "wild namespaces", False)],
    "a back reference that goes is lost": [(53, "many wild", False)],
    "a back reference that comes conducts": [(16, "", True), (7, "wild namespaces", True)],
    "an entry that goes is lost": [(1, "wild", False), (2, "wild grace", False)],
    "an entry that comes conducts": [(3, "wild", False), (1, "wild", False)],
    "an entry of another flatness replaces": [(3, "wild", False), (35, "many wild", False)],
    "a root that is born is anchored": [(1, "wild", False), (2, "wild grace", False)],
    "a root that is born is rescued when it was condemned": [(6, "", False), (11, "many wild", False)],
    "what is born is found dead, if nothing refers to it": [(1, "wild", False), (2, "wild grace", False)],
    "a root that is deleted is a suspect": [(1, "wild", False), (0, "", False)],
    "who loses his root reason is a suspect": [(9, "wild", False), (10, "wild namespaces", False)],
    "who gains a root reason is woken": [(13, "wild", False), (13, "wild", True)],
    "an expiry has its instant": [(0, "", True), (1, "wild", True)],
    "an expiry that goes takes its instant along": [(0, "", True), (2, "grace", True)],
    "an instant makes a suspect": [(0, "", True), (4, "", True)],
    "an instant wakes": [(52, "", True)],
    "instants are not consumed": [(0, "", True), (4, "", True)],
    "a clock that is set back crosses instants": [(52, "", True)],
    "owed entries get the present flatness": [(8, "", True)],
    "a lease takes its entries along": [(1, "wild", True), (0, "", True)],
    "a large lease's entries follow": [(5, "wild", True), (37, "wild", True)],
    "a lease's flatness is that of its entries": [(8, "", True)],
    "a root is its own witness": [(1, "wild", True), (10, "grace", True)],
    "a witness is climbed from": [(52, "", True)],
    "a climb ends at what is queued": [(34, "grace", True), (52, "", True)],
    "a suspect on the way is seen": [(25, "wild", True), (18, "grace", True)],
    "who saw something is looked at again": [(25, "wild", True), (18, "grace", True)],
    "who saw nothing is condemned, the others wait": [(25, "wild", True), (18, "grace", True)],
    "who is detached makes suspects of his children": [(7, "wild namespaces", True), (0, "", True)],
    "a look in parts remembers what it saw": [(18, "grace", True), (25, "wild", True)],
    "a root is rescued": [(29, "wild", True), (13, "wild", True)],
    "only what lives rescues": [(0, "", True), (2, "grace", True)],
    "who is rescued tells others": [(5, "wild", True), (13, "wild", True)],
    "others are those that refer back, too": [(37, "wild", True), (35, "wild namespaces", True)],
    "others are entries of leases, too": [(7, "wild namespaces", True), (8, "", True)],
    "others are flat, too": [(38, "grace", True), (10, "grace", True)],
    "a rescue is of the current round": [(18, "grace", True), (30, "grace", True)],
    "rescues come before a round is closed": [(2, "grace", True), (4, "", True)],
    "a condition has to hold": [(3, "wild namespaces", True), (10, "grace", True)],
    "a hint has to conduct": [(5, "wild", True), (13, "wild", True)],
    "normal edges keep nothing flat": [(13, "wild", True), (8, "", True)],
    "flat entries keep nothing else": [(10, "grace", True), (13, "wild", True)],
    "a record goes with its last variant": [(0, "", True), (24, "", True)],
    "what is in the way of a new record is buried": [(34, "grace", True), (11, "wild namespaces", True)],
    "what is alive does not make way": [(1, "wild", True), (2, "grace", True)],
}
"""Seed, options, and whether the invariants are looked at after every transaction."""

STORIES: dict[str, list[tuple[Callable[..., None], dict[str, Any]]]] = {
    "a new edge lets a suspect look again": [(fixed.test_a_label_behind_the_cursor, {"budget": 8})],
    "a condition that changed is another edge": [(fixed.test_a_condition_is_another_one, {"budget": 8})],
    "a root that is born tells those that refer back to it": [
        (fixed.test_a_root_is_born_to_which_others_refer_back, {"budget": 8})
    ],
    "a window that moved makes a suspect": [(fixed.test_a_used_at_goes, {"budget": 8})],
    "a window that moved lets a suspect look again": [
        (fixed.test_a_used_at_that_moves_a_window_behind_the_cursor, {"budget": 8})
    ],
    "a window that moved wakes": [(fixed.test_a_window_moves_with_no_edge_touched, {"budget": 8, "bound": ">10s"})],
    "a window that moved switches at other instants": [
        (fixed.test_time_moves_a_window_back_and_forth, {"budget": 8, "bound": "<10s"})
    ],
    "a condition has its instants": [(fixed.test_a_window_that_opens_behind_the_cursor, {"budget": 8})],
    "an instant lets a suspect look again": [(fixed.test_a_window_that_opens_behind_the_cursor, {"budget": 8})],
    "the clock moves before what it crosses is looked at": [
        (fixed.test_a_clock_is_set_in_the_middle_of_a_tick, {"budget": 8, "moves": (100, -60, 40, -100, 100)})
    ],
    "nothing else is done before the clock has moved": [
        (fixed.test_nothing_is_sealed_in_the_middle_of_a_tick, {"budget": 1})
    ],
    "a large record's edges follow": [
        (large.test_a_large_record_is_made_again_while_its_edges_are_owed, {"budget": 8, "steps": 0})
    ],
    "what is owed is done before anything else": [
        (large.test_a_large_record_is_made_again_while_its_edges_are_owed, {"budget": 8, "steps": 3})
    ],
    "owed edges are those of the present record": [
        (large.test_a_large_record_is_made_again_while_its_edges_are_owed, {"budget": 8, "steps": 0})
    ],
    "owed entries are those of the present life": [
        (large.test_a_large_lease_is_made_again_while_its_entries_are_owed, {"budget": 8, "flat": True, "steps": 0})
    ],
    "behind a long climb the look goes on": [
        (fixed.test_two_suspects_with_long_climbs_to_each_other, {"budget": 1, "alive": True})
    ],
    "a suspect whose look has gone on is reset": [(fixed.test_a_label_behind_the_cursor, {"budget": 8})],
    "who is being detached has seen what comes": [
        (fixed.test_a_window_moves_with_no_edge_touched, {"budget": 8, "bound": ">10s"})
    ],
    "the collector's suspicions are of the current round": [(fixed.test_a_ring_dies, {"budget": 8})],
    "suspects come before rescues": [(fixed.test_a_ring_dies, {"budget": 8})],
    "what is sealed is no more": [(sealed.test_a_clock_that_is_set_back_brings_nothing_back, {"budget": 1})],
    "a new edge buries what is sealed": [(sealed.test_both_variants_are_sealed_and_referred_to_again, {"budget": 8})],
    "a condition does not wake what is sealed": [(sealed.test_a_condition_brings_nothing_back, {"budget": 8})],
    "a rescue buries what is sealed": [(sealed.test_one_variant_is_sealed_and_referred_to_again, {"budget": 8})],
    "an instant buries what is sealed": [(sealed.test_a_clock_that_is_set_back_brings_nothing_back, {"budget": 1})],
    "both variants are buried": [(sealed.test_both_variants_are_sealed_and_referred_to_again, {"budget": 8})],
    "what lives by its other variant is not buried": [
        (sealed.test_one_variant_is_sealed_and_referred_to_again, {"budget": 8})
    ],
    "what is sealed is not found": [(sealed.test_a_lease_that_was_found_dead_takes_no_entries, {"budget": 8})],
}


def histories(rule: str) -> list[Callable[[], None]]:
    def of_seed(seed: int, options: str, invariants: bool) -> Callable[[], None]:
        words = options.split()
        flags: dict[str, Any] = {word: True for word in words if word != "namespaces"}
        if "namespaces" in words:
            flags["namespaces"] = 2
        return lambda: run_history(seed, invariants=invariants, **flags)

    def of_story(story: Callable[..., None], arguments: dict[str, Any]) -> Callable[[], None]:
        return lambda: story(**arguments)

    return [
        *(of_seed(*each) for each in SEEDS.get(rule, ())),
        *(of_story(*each) for each in STORIES.get(rule, ())),
    ]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = histories(rule)
    assert known
    for history in known:
        history()
    switch_off(monkeypatch, rule)
    for history in known:
        with pytest.raises(Exception):  # noqa: B017 - a broken forest fails in many ways
            history()
