"""What may be a name, and the class of the refusal. Source: spec metadata 2, 3, 5 and 14.2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.protocol.errors import FailedPrecondition, InvalidArgument
from orlop.protocol.identifiers import (
    check_digest,
    check_identifier,
    check_name,
    check_request_namespace,
    check_topic,
    split_digest,
)

FOLDER = Path(__file__).parents[1] / "vectors"


def vectors(name: str):
    return json.loads((FOLDER / name).read_text())


IDENTIFIERS = vectors("identifiers.json")
NAMESPACES = vectors("namespaces.json")
DIGESTS = vectors("digests.json")
TOPICS = vectors("topics.json")
CLASSES = {"FailedPrecondition": FailedPrecondition, "InvalidArgument": InvalidArgument}
REASONS = {
    "invalid checksum digest format": "format",
    "invalid checksum digest length": "length",
    "unsupported digest algorithm": "unsupported algorithm",
}

any_text = st.text(st.characters())  # lone surrogates too: an embedded caller can pass them
any_name = st.text(st.sampled_from("aZ0._-/: é\n\x00\ud800")) | any_text


# identifiers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*IDENTIFIERS["valid"], "a", "con", "z" * 76])
def test_valid_identifier_is_accepted(text):
    assert check_identifier(text) == text


@pytest.mark.parametrize("text", [*IDENTIFIERS["invalid"], "é", "a-", "z" * 77])
def test_invalid_identifier_is_an_invalid_argument(text):
    with pytest.raises(InvalidArgument):
        check_identifier(text)


def test_identifier_before_a_final_newline_is_refused():
    with pytest.raises(InvalidArgument):
        check_identifier("a\n")


@pytest.mark.parametrize("text", ["٣", "Ａ", "a٣", "ß", "ⅷ"])  # noqa: RUF001 - other scripts are the point
def test_letters_and_digits_of_other_scripts_are_refused(text):
    with pytest.raises(InvalidArgument):
        check_identifier(text)


def test_case_of_an_identifier_is_kept():
    assert check_identifier("Fleet-A7") == "Fleet-A7"


def test_refusal_names_the_identifier():
    with pytest.raises(InvalidArgument, match=r'"a b"'):
        check_identifier("a b")


def test_length_is_judged_before_the_pattern():
    with pytest.raises(InvalidArgument, match="longer than 76"):
        check_identifier("!" * 77)


@settings(deadline=None)
@given(any_name)
def test_any_text_is_an_identifier_or_an_invalid_argument(text):
    try:
        assert check_identifier(text) == text
    except InvalidArgument:
        return


@settings(deadline=None)
@given(
    st.lists(st.text("abcXYZ019", min_size=1, max_size=8), min_size=1, max_size=8),
    st.sampled_from([".", "_", "-"]),
)
def test_groups_joined_by_single_separators_are_identifiers(groups, separator):
    text = separator.join(groups)
    assert check_identifier(text) == text


# the request's namespace ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*NAMESPACES["valid"], *NAMESPACES["reserved_on_create"]])
def test_valid_namespace_is_accepted_in_a_request(text):
    assert check_request_namespace(text) == text


@pytest.mark.parametrize("text", [text for text in NAMESPACES["invalid"] if text])
def test_malformed_request_namespace_is_an_invalid_argument(text):
    with pytest.raises(InvalidArgument):
        check_request_namespace(text)


@pytest.mark.parametrize("row", [row for row in NAMESPACES["error_class"] if row["as_request_namespace"]], ids=repr)
def test_refused_request_namespace_has_the_class_of_its_fault(row):
    with pytest.raises(CLASSES[row["as_request_namespace"]]):
        check_request_namespace(row["namespace"])


@pytest.mark.parametrize("row", [row for row in NAMESPACES["error_class"] if not row["as_request_namespace"]], ids=repr)
def test_request_namespace_without_a_fault_is_accepted(row):
    assert check_request_namespace(row["namespace"]) == row["namespace"]


@pytest.mark.parametrize("text", [None, ""])
def test_missing_request_namespace_is_no_invalid_argument(text):
    with pytest.raises(FailedPrecondition) as caught:
        check_request_namespace(text)
    assert not caught.value.is_a(InvalidArgument)


# digests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in DIGESTS if row["ok"]], ids=lambda row: row["digest"][:20])
def test_valid_digest_is_accepted(row):
    assert check_digest(row["digest"]) == row["digest"]


@pytest.mark.parametrize("row", [row for row in DIGESTS if not row["ok"]], ids=lambda row: ascii(row["digest"][:20]))
def test_refused_digest_says_the_category_of_its_fault(row):
    with pytest.raises(InvalidArgument) as caught:
        check_digest(row["digest"])
    fault = str(caught.value).rpartition('"')[2]
    assert [word for word in REASONS.values() if word in fault] == [REASONS[row["reason"]]]


def test_digest_of_empty_content_is_accepted():
    digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert check_digest(digest) == digest


def test_digest_before_a_final_newline_is_refused():
    with pytest.raises(InvalidArgument, match="length"):
        check_digest("sha256:" + "0" * 64 + "\n")


def test_encoded_length_of_a_digest_is_counted_in_bytes():
    with pytest.raises(InvalidArgument, match="length"):
        check_digest("sha256:" + "é" * 64)


@settings(deadline=None)
@given(any_text | any_text.map("sha256:{}".format))
def test_any_text_is_a_digest_or_an_invalid_argument(text):
    try:
        assert check_digest(text) == text
    except InvalidArgument:
        return


def test_lone_surrogate_in_a_digest_is_an_invalid_argument():
    with pytest.raises(InvalidArgument):
        check_digest("sha256:\ud800")


def test_digest_splits_into_algorithm_and_encoded_part():
    assert split_digest("sha256:" + "0a" * 32) == ("sha256", "0a" * 32)


# topics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in TOPICS if row["ok"]], ids=lambda row: row["topic"])
def test_valid_topic_is_accepted(row):
    assert check_topic(row["topic"]) == row["topic"]


@pytest.mark.parametrize("row", [row for row in TOPICS if not row["ok"]], ids=lambda row: row["topic"])
def test_invalid_topic_is_an_invalid_argument(row):
    with pytest.raises(InvalidArgument):
        check_topic(row["topic"])


@pytest.mark.parametrize("topic", ["", "a", "/a\n", "/é"])
def test_topic_outside_the_vectors_that_breaks_the_rule_is_refused(topic):
    with pytest.raises(InvalidArgument):
        check_topic(topic)


@settings(deadline=None)
@given(any_name | any_name.map("/{}".format))
def test_any_text_is_a_topic_or_an_invalid_argument(text):
    try:
        assert check_topic(text) == text
    except InvalidArgument:
        return


# free-form names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a", "z" * 512, "é" * 256, "牛" * 170 + "zz", "😀" * 128])
def test_name_of_up_to_512_bytes_is_accepted(text):
    assert check_name(text, "image name") == text


@pytest.mark.parametrize("text", ["z" * 513, "é" * 257, "牛" * 171, "😀" * 128 + "z"])
def test_name_of_more_than_512_bytes_is_an_invalid_argument(text):
    with pytest.raises(InvalidArgument):
        check_name(text, "image name")


def test_empty_name_is_an_invalid_argument():
    with pytest.raises(InvalidArgument):
        check_name("", "image name")


@pytest.mark.parametrize("text", ["any / thing 牛", "a\x00b", "a\n", " ", "docker.io/library/buoy:latest"])
def test_characters_of_a_name_are_free(text):
    assert check_name(text, "lease id") == text


def test_refused_name_says_what_it_was_for():
    with pytest.raises(InvalidArgument, match="lease id"):
        check_name("", "lease id")


@settings(deadline=None)
@given(any_text)
def test_any_text_is_a_name_or_an_invalid_argument(text):
    try:
        assert check_name(text, "image name") == text
    except InvalidArgument:
        return
