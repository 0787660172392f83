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
from tests.collection import test_reported_histories as reported
from tests.collection import test_sealed_histories as sealed
from tests.collection.test_histories import run_history
from tests.support.rules import RULES, switch_off

pytestmark = pytest.mark.slow

SEEDS: dict[str, list[tuple[int, str, bool]]] = {
    "who gains a root reason and refers to nothing is anchored": [(12, "grace wild rings", True)],
    "who is referred back to is woken": [(37, "wild", True), (24, "", True)],
    "a flat edge that comes conducts": [(18, "", True), (28, "grace wild", True)],
    "a lease's flatness is that of its entries": [(8, "", True), (0, "many wild", True)],
    "what is alive does not make way": [(2, "grace", True), (1, "wild", True)],
    "a dead object counts until its record goes": [(1, "grace", True), (13, "", True)],
    "who loses his witness is a suspect": [(1, "wild", False), (2, "wild grace", False)],
    "a flat edge that goes is lost": [(18, "", False), (13, "wild", False)],
    "an entry that goes is lost": [(1, "wild", False), (2, "wild grace", False)],
    "an entry that comes conducts": [(3, "wild", False), (1, "wild", False)],
    "an entry of another flatness replaces": [(3, "wild", False)],
    "a root that is born is anchored": [(1, "wild", False), (2, "wild grace", False)],
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
    "a root is its own witness": [(1, "wild", True), (10, "grace", True)],
    "a witness is climbed from": [(52, "", True)],
    "a climb ends at what is queued": [(34, "grace", True), (52, "", True)],
    "a suspect on the way is seen": [(25, "wild", True), (18, "grace", True)],
    "who saw something is looked at again": [(25, "wild", True), (18, "grace", True)],
    "who saw nothing is condemned, the others wait": [(25, "wild", True), (18, "grace", True)],
    "who is detached makes suspects of his children": [(7, "wild namespaces", True), (0, "", True)],
    "a look in parts remembers what it saw": [(18, "grace", True), (25, "wild", True)],
    "only what lives rescues": [(0, "", True), (2, "grace", True)],
    "who is rescued tells others": [(5, "wild", True), (13, "wild", True)],
    "others are those that refer back, too": [(37, "wild", True), (35, "wild namespaces", True)],
    "others are entries of leases, too": [(7, "wild namespaces", True), (8, "", True)],
    "others are flat, too": [(38, "grace", True), (10, "grace", True)],
    "a rescue is of the current round": [(18, "grace", True), (30, "grace", True)],
    "a condition has to hold": [(3, "wild namespaces", True), (10, "grace", True)],
    "a hint has to conduct": [(5, "wild", True), (13, "wild", True)],
    "normal edges keep nothing flat": [(13, "wild", True), (8, "", True)],
    "flat entries keep nothing else": [(10, "grace", True), (13, "wild", True)],
    "a record goes with its last variant": [(0, "", True), (24, "", True)],
}
"""Seed, options, and whether the invariants are looked at after every transaction."""

STORIES: dict[str, list[tuple[Callable[..., None], dict[str, Any]]]] = {
    "a new edge wakes its target": [(fixed.test_a_ring_dies, {"budget": 8})],
    "a new edge anchors what refers to nothing": [
        (reported.test_a_flat_entry_for_what_was_held_and_is_sealed, {"budget": 64})
    ],
    "what is dead keeps nothing": [(sealed.test_a_condition_brings_nothing_back, {"budget": 8})],
    "who refers to something is woken": [(sealed.test_content_in_the_bin_is_there_already, {"budget": 1})],
    "what is born is looked at, if something refers to it": [
        (fixed.test_a_root_is_born_to_which_others_refer_back, {"budget": 8})
    ],
    "a lease is woken": [(sealed.test_a_lease_is_taken_from_the_bin, {"budget": 8})],
    "a back reference that goes is lost": [(fixed.test_a_back_reference_goes, {"budget": 8})],
    "a back reference that comes conducts": [(fixed.test_a_back_reference_goes, {"budget": 8})],
    "a root that is born is rescued when it was condemned": [
        (sealed.test_what_takes_the_place_of_what_is_in_the_bin_waits_anew, {"budget": 8, "flat": False, "root": True})
    ],
    "what was condemned flat and is born is in question": [
        (sealed.test_what_takes_the_place_of_what_is_in_the_bin_waits_anew, {"budget": 8, "flat": True, "root": False})
    ],
    "what is condemned and born is in question": [
        (sealed.test_what_takes_the_place_of_what_is_in_the_bin_waits_anew, {"budget": 8, "flat": False, "root": False})
    ],
    "of what is absent and dead nothing is kept": [
        (sealed.test_of_what_is_absent_and_dead_nothing_is_kept, {"budget": 8})
    ],
    "what still tells others is condemned, though it is absent": [
        (reported.test_what_tells_others_is_found_dead_meanwhile, {"budget": 8})
    ],
    "who waits for an answer is not asked": [(reported.test_two_suspects_that_refer_to_each_other, {"budget": 64})],
    "only suspects of this round are asked": [(reported.test_what_hangs_on_a_suspect_of_a_later_round, {"budget": 20})],
    "what an urgent round releases is pulled into it": [
        (sealed.test_urgent_work_takes_suspects_over_that_it_releases, {"budget": 8})
    ],
    "who is let go urgently is pulled into the urgent round": [
        (sealed.test_urgent_work_takes_suspects_over, {"budget": 8})
    ],
    "a suspect is taken over by the urgent round": [(sealed.test_urgent_work_takes_suspects_over, {"budget": 8})],
    "a root is rescued": [
        (sealed.test_what_takes_the_place_of_what_is_in_the_bin_waits_anew, {"budget": 8, "flat": False, "root": True})
    ],
    "rescues come before a round is closed": [
        (reported.test_a_snapshot_goes_whose_children_are_sealed, {"budget": 64})
    ],
    "a round that was begun with is work": [(reported.test_a_round_that_is_to_be_closed_is_work, {"budget": 8})],
    "a round with work left is begun with": [(reported.test_a_round_that_is_to_be_closed_is_work, {"budget": 8})],
    "an urgent round does not wait in the bin": [(sealed.test_urgent_work_does_not_wait_in_the_bin, {"budget": 8})],
    "an empty round is not sealed": [(sealed.test_of_what_is_absent_and_dead_nothing_is_kept, {"budget": 8})],
    "an entry of the queue counts": [(sealed.test_of_what_is_absent_and_dead_nothing_is_kept, {"budget": 8})],
    "an entry that goes counts no more": [(reported.test_a_round_that_is_to_be_closed_is_work, {"budget": 8})],
    "an extent begins with its first entry": [(sealed.test_of_what_is_absent_and_dead_nothing_is_kept, {"budget": 8})],
    "an extent of nothing goes": [(reported.test_a_round_that_is_to_be_closed_is_work, {"budget": 8})],
    "back references count": [(fixed.test_an_absent_object_keeps_those_that_refer_back_to_it, {"budget": 8})],
    "a back reference that goes counts no more": [(fixed.test_a_back_reference_goes, {"budget": 8})],
    "a back reference counts once": [(large.test_back_references_of_a_large_record_count_once, {"budget": 8})],
    "a new edge buries what is no more": [(reported.test_a_flat_entry_for_what_was_held_and_is_sealed, {"budget": 8})],
    "a condition buries what is no more": [(sealed.test_a_condition_brings_nothing_back, {"budget": 8})],
    "a rescue buries what is sealed": [(sealed.test_one_variant_is_sealed_and_referred_to_again, {"budget": 8})],
    "an instant buries what is sealed": [(sealed.test_a_clock_that_is_set_back_brings_nothing_back, {"budget": 1})],
    "both variants are buried": [(reported.test_a_flat_entry_for_what_was_held_and_is_sealed, {"budget": 8})],
    "only what is no more is buried": [(reported.test_a_condition_on_what_is_sealed_and_held_flat, {"budget": 8})],
    "what is buried leaves no record": [(reported.test_a_namespace_goes_whose_leases_are_sealed, {"budget": 64})],
    "what is in the way of a new record is buried": [(sealed.test_a_name_is_taken_from_the_bin, {"budget": 8})],
    "content that is in the way and no more is buried": [
        (sealed.test_what_is_sealed_is_no_more_at_once, {"budget": 8})
    ],
    "what waits in the bin makes way": [(sealed.test_a_name_is_taken_from_the_bin, {"budget": 8})],
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
    "what lives by its other variant is not buried": [
        (sealed.test_one_variant_is_sealed_and_referred_to_again, {"budget": 8})
    ],
    "what is sealed is not found": [(sealed.test_a_lease_that_was_found_dead_takes_no_entries, {"budget": 8})],
}


def histories(rule: str) -> dict[str, Callable[[], None]]:
    def of_seed(seed: int, options: str, invariants: bool) -> Callable[[], None]:
        words = options.split()
        flags: dict[str, Any] = {word: True for word in words if word != "namespaces"}
        if "namespaces" in words:
            flags["namespaces"] = 2
        return lambda: run_history(seed, invariants=invariants, **flags)

    def of_story(story: Callable[..., None], arguments: dict[str, Any]) -> Callable[[], None]:
        return lambda: story(**arguments)

    return {
        **{repr(each): of_seed(*each) for each in SEEDS.get(rule, ())},
        **{f"{story.__name__} {arguments}": of_story(story, arguments) for story, arguments in STORIES.get(rule, ())},
    }


PASSED: set[str] = set()
"""Many rules have a history in common: with all rules on it passes once."""


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = histories(rule)
    assert known
    for name, history in known.items():
        if name not in PASSED:
            history()
            PASSED.add(name)
    switch_off(monkeypatch, rule)
    for history in known.values():
        with pytest.raises(Exception):  # noqa: B017 - a broken forest fails in many ways
            history()
