"""What may be found after what was acknowledged."""

from __future__ import annotations

import pytest

from orlop.bin.load.worker.ledger import ABSENT, Ledger, Thing
from orlop.protocol.errors import AlreadyExists, Unknown

A = Thing("image", "n", "a")


def find(ledger: Ledger, value: str) -> int:
    """How much is wrong when that is found."""
    before = ledger.wrong
    with ledger.reading(A) as found:
        found(value)
    return ledger.wrong - before


def write(ledger: Ledger, value: str) -> None:
    with ledger.writing(A, value, fresh=True):
        pass


def test_what_was_acknowledged_is_there_and_nothing_else() -> None:
    ledger = Ledger(kept=True)
    write(ledger, "1")
    assert [find(ledger, value) for value in ("1", "2", ABSENT)] == [0, 1, 1]
    write(ledger, ABSENT)
    assert [find(ledger, value) for value in ("1", ABSENT)] == [1, 0]


def test_what_nobody_here_wrote_may_be_anything() -> None:
    ledger = Ledger(kept=True)
    assert [find(ledger, value) for value in ("1", ABSENT)] == [0, 0]
    assert ledger.reads == 0


def test_what_was_there_before_must_be_there_whatever_it_says() -> None:
    ledger = Ledger(kept=True)
    for value, wrong in (("1", 0), (ABSENT, 1)):
        with ledger.reading(A, must_be=True) as found:
            found(value)
        assert ledger.wrong == wrong


def test_parts_are_there_as_long_as_the_whole() -> None:
    ledger = Ledger(kept=True)
    write(ledger, "1")
    part = Thing("blob", "n", "part", 5)
    ledger.has_parts(A, [part])
    assert part in ledger.things()
    ledger.loses_parts(A)
    assert part not in ledger.things()


def test_a_name_that_another_run_took_is_not_ours() -> None:
    ledger = Ledger(kept=True)
    with pytest.raises(AlreadyExists), ledger.writing(A, "1", fresh=True):
        raise AlreadyExists("there")
    assert [find(ledger, value) for value in ("1", "2", ABSENT)] == [0, 0, 0]


def test_nothing_is_remembered_where_nobody_compares() -> None:
    ledger = Ledger(kept=False)
    write(ledger, "1")
    ledger.has_parts(A, [A])
    assert ledger.things() == []
    assert find(ledger, ABSENT) == 0


def test_a_lost_answer_leaves_both_possible_until_the_next() -> None:
    ledger = Ledger(kept=True)
    write(ledger, "1")
    with pytest.raises(Unknown), ledger.writing(A, "2"):
        raise Unknown("gone")
    assert [find(ledger, value) for value in ("1", "2", "3", ABSENT)] == [0, 0, 1, 1]
    assert ledger.outcome().uncertain == 1
    write(ledger, "3")
    assert [find(ledger, value) for value in ("1", "2", "3")] == [1, 1, 0]
    assert ledger.outcome().uncertain == 0


def test_a_refusal_changes_nothing() -> None:
    ledger = Ledger(kept=True)
    write(ledger, "1")
    with pytest.raises(AlreadyExists), ledger.writing(A, "2"):
        raise AlreadyExists("there")
    assert [find(ledger, value) for value in ("1", "2")] == [0, 1]


def test_a_read_may_find_what_was_at_any_moment_since_it_began() -> None:
    ledger = Ledger(kept=True)
    write(ledger, "1")
    for value, wrong in (("1", 0), ("2", 0), ("3", 0), ("4", 1)):
        with ledger.reading(A) as found:
            write(ledger, "2")
            with pytest.raises(Unknown), ledger.writing(A, "3"):
                raise Unknown("gone")
            found(value)
        assert ledger.wrong == wrong
        write(ledger, "1")
    assert find(ledger, "2") == 1


def test_a_write_that_is_given_up_is_uncertain() -> None:
    ledger = Ledger(kept=True)
    with pytest.raises(KeyboardInterrupt), ledger.writing(A, "1", fresh=True):
        raise KeyboardInterrupt
    assert [find(ledger, value) for value in ("1", ABSENT, "2")] == [0, 0, 1]
