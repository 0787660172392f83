"""Error classes keep their code, text and class on the way over the wire. Source: spec metadata 6."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from orlop.protocol import errors
from orlop.protocol.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    NotModified,
    OrlopError,
    Unknown,
    WireError,
    error_from_wire,
    error_to_wire,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "errors.json").read_text())
CONTEXT = 'berth "A7"'
CUSTOM = "only this text"

every_class = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["class"])
every_class_with_custom_text = pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS if "custom_text_native_class" in vector],
    ids=lambda vector: vector["class"],
)


def class_named(name: str) -> type[OrlopError]:
    return getattr(errors, name)


def over_the_wire(error: BaseException) -> OrlopError:
    data = msgspec.msgpack.encode(error_to_wire(error))
    return error_from_wire(msgspec.msgpack.decode(data, type=WireError))


# the server's side ---------------------------------------------------------------------------------------


@every_class
def test_context_is_put_before_the_text_of_the_class(vector):
    assert str(class_named(vector["class"])(CONTEXT)) == vector["wire_message"]


@every_class
def test_bare_error_reads_as_its_class(vector):
    assert str(class_named(vector["class"])()) == vector["class_text"]


@every_class
def test_custom_text_replaces_the_text_of_the_class(vector):
    assert str(class_named(vector["class"])(text=CUSTOM)) == CUSTOM


@every_class
def test_custom_text_follows_the_context(vector):
    assert str(class_named(vector["class"])(CONTEXT, text=CUSTOM)) == f"{CONTEXT}: {CUSTOM}"


@every_class
def test_class_has_the_code_number_of_its_status(vector):
    assert class_named(vector["class"]).code_number == vector["code_number"]


@every_class
def test_class_travels_as_its_code(vector):
    assert error_to_wire(class_named(vector["class"])(CONTEXT)).code == vector["code"]


@every_class
def test_message_travels_with_the_text_of_the_class(vector):
    assert error_to_wire(class_named(vector["class"])(CONTEXT)).message == vector["wire_message"]


@every_class
def test_error_of_one_class_travels_without_details(vector):
    assert error_to_wire(class_named(vector["class"])(CONTEXT)).details == []


# the client's side ---------------------------------------------------------------------------------------


@every_class
def test_code_and_message_become_the_class_again(vector):
    error = error_from_wire(WireError(vector["code"], vector["wire_message"]))
    assert type(error) is class_named(vector["native_class"])


@every_class
def test_message_is_not_changed_on_arrival(vector):
    assert str(error_from_wire(WireError(vector["code"], vector["wire_message"]))) == vector["native_message"]


@every_class
def test_bare_class_text_arrives_as_the_bare_class(vector):
    error = error_from_wire(WireError(vector["code"], vector["class_text"]))
    assert type(error) is class_named(vector["bare_native_class"])


@every_class
def test_bare_class_text_arrives_unchanged(vector):
    error = error_from_wire(WireError(vector["code"], vector["class_text"]))
    assert str(error) == vector["bare_native_message"]


@every_class_with_custom_text
def test_custom_text_arrives_as_the_class_that_the_code_allows(vector):
    error = error_from_wire(WireError(vector["code"], CUSTOM))
    assert type(error) is class_named(vector["custom_text_native_class"])


@every_class_with_custom_text
def test_custom_text_arrives_unchanged(vector):
    assert str(error_from_wire(WireError(vector["code"], CUSTOM))) == vector["custom_text_native_message"]


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["class"] not in ("Conflict", "NotModified")], ids=lambda v: v["class"]
)
def test_empty_message_becomes_the_text_of_the_class(vector):
    assert str(error_from_wire(WireError(vector["code"], ""))) == vector["class_text"]


def test_canceled_without_its_suffix_gets_it():
    error = error_from_wire(WireError("Canceled", "the tide turned"))
    assert str(error) == "the tide turned: context canceled"


def test_deadline_exceeded_without_its_suffix_gets_it():
    error = error_from_wire(WireError("DeadlineExceeded", "the tide turned"))
    assert str(error) == "the tide turned: context deadline exceeded"


def test_unlisted_code_arrives_as_unknown():
    assert type(error_from_wire(WireError("Overboard", "splash"))) is Unknown


def test_unlisted_code_keeps_its_message():
    assert str(error_from_wire(WireError("Overboard", "splash"))) == "splash"


def test_text_that_only_ends_in_the_letters_of_conflict_stays_failed_precondition():
    assert type(error_from_wire(WireError("FailedPrecondition", "no conflict"))) is FailedPrecondition


def test_text_that_only_ends_in_the_letters_of_not_modified_stays_failed_precondition():
    assert type(error_from_wire(WireError("FailedPrecondition", "was not modified"))) is FailedPrecondition


def test_conflict_suffix_under_another_code_does_not_make_a_conflict():
    assert type(error_from_wire(WireError("NotFound", "a: conflict"))) is NotFound


# both sides ----------------------------------------------------------------------------------------------


@every_class
def test_class_survives_the_way_there(vector):
    assert type(over_the_wire(class_named(vector["class"])(CONTEXT))) is class_named(vector["class"])


@every_class
def test_text_survives_the_way_there(vector):
    assert str(over_the_wire(class_named(vector["class"])(CONTEXT))) == vector["wire_message"]


@every_class
def test_arrived_error_is_an_error_of_its_class(vector):
    assert over_the_wire(class_named(vector["class"])(CONTEXT)).is_a(class_named(vector["class"]))


def test_arrived_error_is_no_error_of_another_class():
    assert not over_the_wire(NotFound(CONTEXT)).is_a(AlreadyExists)


@pytest.mark.parametrize("kind", [NotFound, Conflict, NotModified])
def test_long_context_does_not_cost_the_class(kind):
    assert over_the_wire(kind("x" * 10_000)).is_a(kind)


def test_context_with_colons_and_line_ends_survives():
    context = "a: conflict: b\nnot found: é牛\x00"
    assert str(over_the_wire(NotFound(context))) == context + ": not found"


# errors without a class ----------------------------------------------------------------------------------


def test_error_without_a_class_travels_as_unknown():
    assert error_to_wire(ValueError("keel is missing")).code == "Unknown"


def test_error_without_a_class_keeps_its_text():
    assert error_to_wire(ValueError("keel is missing")).message == "keel is missing"


def test_error_without_a_class_arrives_as_unknown_with_its_text():
    assert str(over_the_wire(ValueError("keel is missing"))) == "keel is missing"


# several classes -----------------------------------------------------------------------------------------


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_outermost_class_chooses_the_code():
    error = caused(InvalidArgument("outer"), NotFound("inner"))
    assert error_to_wire(error).code == "InvalidArgument"


def test_message_of_two_classes_is_that_of_the_outermost():
    error = caused(InvalidArgument("outer"), NotFound("inner"))
    assert error_to_wire(error).message == "outer: invalid argument"


def test_further_class_is_added_as_a_detail():
    error = caused(InvalidArgument("outer"), NotFound("inner"))
    assert [(d.code, d.message) for d in error_to_wire(error).details] == [("NotFound", "inner: not found")]


def test_every_further_class_is_a_detail_in_the_order_of_causes():
    error = caused(InvalidArgument("a"), caused(NotFound("b"), Internal("c")))
    assert [d.code for d in error_to_wire(error).details] == ["NotFound", "Internal"]


@pytest.mark.parametrize("kind", [InvalidArgument, NotFound, Internal])
def test_arrived_error_is_of_every_class_that_it_left_with(kind):
    error = caused(InvalidArgument("a"), caused(NotFound("b"), Internal("c")))
    assert over_the_wire(error).is_a(kind)


def test_further_class_arrives_as_the_cause():
    arrived = over_the_wire(caused(InvalidArgument("outer"), NotFound("inner")))
    assert type(arrived.__cause__) is NotFound


def test_further_class_arrives_with_its_text():
    arrived = over_the_wire(caused(InvalidArgument("outer"), NotFound("inner")))
    assert str(arrived.__cause__) == "inner: not found"


def test_class_behind_an_error_without_one_chooses_the_code():
    assert error_to_wire(caused(RuntimeError("loading"), NotFound("inner"))).code == "NotFound"


def test_cause_without_a_class_adds_no_detail():
    assert error_to_wire(caused(NotFound("outer"), OSError("disk"))).details == []


@pytest.mark.parametrize("kind", [Conflict, NotModified])
def test_conflict_behind_failed_precondition_survives_although_they_share_a_code(kind):
    assert over_the_wire(caused(FailedPrecondition("outer"), kind("inner"))).is_a(kind)


def test_not_modified_behind_conflict_survives_although_they_share_a_code():
    assert over_the_wire(caused(Conflict("outer"), NotModified("inner"))).is_a(NotModified)


def test_left_branch_of_a_joined_error_chooses_the_code():
    joined = ExceptionGroup("two", [InvalidArgument("left"), NotFound("right")])
    assert error_to_wire(joined).code == "InvalidArgument"


def test_right_branch_of_a_joined_error_is_added_as_a_detail():
    joined = ExceptionGroup("two", [InvalidArgument("left"), NotFound("right")])
    assert [d.code for d in error_to_wire(joined).details] == ["NotFound"]


def test_ring_of_causes_still_travels():
    error = NotFound("a")
    caused(error, caused(Internal("b"), error))
    assert [d.code for d in error_to_wire(error).details] == ["Internal"]


# hints ---------------------------------------------------------------------------------------------------


def test_hint_travels():
    assert over_the_wire(NotFound(CONTEXT, hint="look in the other dock")).hint == "look in the other dock"


def test_hint_is_no_part_of_the_text():
    assert str(NotFound("a", hint="look elsewhere")) == "a: not found"


def test_error_without_a_hint_travels_without_one():
    assert error_to_wire(NotFound("a")).hint == ""
