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
    ledger = Ledger()
    write(ledger, "1")
    assert [find(ledger, value) for value in ("1", "2", ABSENT)] == [0, 1, 1]
    write(ledger, ABSENT)
    assert [find(ledger, value) for value in ("1", ABSENT)] == [1, 0]


def test_what_nobody_here_wrote_may_be_anything() -> None:
    ledger = Ledger()
    assert [find(ledger, value) for value in ("1", ABSENT)] == [0, 0]
    assert ledger.reads == 2


def test_a_lost_answer_leaves_both_possible_until_the_next() -> None:
    ledger = Ledger()
    write(ledger, "1")
    with pytest.raises(Unknown), ledger.writing(A, "2"):
        raise Unknown("gone")
    assert [find(ledger, value) for value in ("1", "2", "3", ABSENT)] == [0, 0, 1, 1]
    assert ledger.outcome().uncertain == 1
    write(ledger, "3")
    assert [find(ledger, value) for value in ("1", "2", "3")] == [1, 1, 0]
    assert ledger.outcome().uncertain == 0


def test_a_refusal_changes_nothing() -> None:
    ledger = Ledger()
    write(ledger, "1")
    with pytest.raises(AlreadyExists), ledger.writing(A, "2"):
        raise AlreadyExists("there")
    assert [find(ledger, value) for value in ("1", "2")] == [0, 1]


def test_a_read_may_find_what_was_at_any_moment_since_it_began() -> None:
    ledger = Ledger()
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
    ledger = Ledger()
    with pytest.raises(KeyboardInterrupt), ledger.writing(A, "1", fresh=True):
        raise KeyboardInterrupt
    assert [find(ledger, value) for value in ("1", ABSENT, "2")] == [0, 0, 1]
