"""Both parsers of image names, row by row. Source: spec registry 1.3."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.protocol.errors import InvalidArgument
from orlop.protocol.registry.references import normalize, parse_reference

D64 = "0123456789abcdef" * 4
D128 = D64 * 2
D40 = "0123456789abcdef" * 2 + "01234567"
REFUSED = None
Parts = tuple[str, str, str]

# (row of the table, input, host / repository / object of the plain parser, docker's normal form)
ROWS: list[tuple[str, str, Parts | None, str | None]] = [
    ("1", "busybox", REFUSED, "docker.io/library/busybox:latest"),
    ("2", "busybox:1.36", REFUSED, "docker.io/library/busybox:1.36"),
    ("3", "docker.io/library/redis:7", ("docker.io", "library/redis", "7"), "docker.io/library/redis:7"),
    ("4", "docker.io/redis:7", ("docker.io", "redis", "7"), "docker.io/library/redis:7"),
    ("5", "library/redis:7", ("library", "redis", "7"), "docker.io/library/redis:7"),
    ("6", "foo/bar", REFUSED, "docker.io/foo/bar:latest"),
    ("7", "foo/bar/baz:x", ("foo", "bar/baz", "x"), "docker.io/foo/bar/baz:x"),
    ("8", "index.docker.io/library/redis:7", ("index.docker.io", "library/redis", "7"), "docker.io/library/redis:7"),
    ("9", "localhost/foo:1", ("localhost", "foo", "1"), "localhost/foo:1"),
    ("10", "localhost:5000/foo", REFUSED, "localhost:5000/foo:latest"),
    ("11", "localhost:5000/foo:1", ("localhost:5000", "foo", "1"), "localhost:5000/foo:1"),
    ("12", "[::1]:5000/foo:1", ("[::1]:5000", "foo", "1"), "[::1]:5000/foo:1"),
    ("13", "quay.io/a/b:v1.0_x-y", ("quay.io", "a/b", "v1.0_x-y"), "quay.io/a/b:v1.0_x-y"),
    ("14", "quay.io:443/a:1", ("quay.io:443", "a", "1"), "quay.io:443/a:1"),
    ("15", "quay.io/a/b:", REFUSED, REFUSED),
    ("16", "quay.io/a/b:-x", ("quay.io", "a/b", "-x"), REFUSED),
    ("17", "quay.io/a/b:" + "t" * 128, ("quay.io", "a/b", "t" * 128), "quay.io/a/b:" + "t" * 128),
    ("18", "quay.io/a/b:" + "t" * 129, ("quay.io", "a/b", "t" * 129), REFUSED),
    ("19", "quay.io/a//b:1", ("quay.io", "a/b", "1"), REFUSED),
    ("20", "quay.io/a/../b:1", ("quay.io", "b", "1"), REFUSED),
    ("21", "quay.io/Foo:1", ("quay.io", "Foo", "1"), REFUSED),
    ("22", "Foo/bar:1", ("Foo", "bar", "1"), "Foo/bar:1"),
    ("23", "quay.io/a__b:1", ("quay.io", "a__b", "1"), "quay.io/a__b:1"),
    ("24a", "quay.io/a___b:1", ("quay.io", "a___b", "1"), REFUSED),
    ("24b", "quay.io/a..b:1", ("quay.io", "a..b", "1"), REFUSED),
    ("24c", "quay.io/-a:1", ("quay.io", "-a", "1"), REFUSED),
    ("24d", "quay.io/a-:1", ("quay.io", "a-", "1"), REFUSED),
    ("25", f"redis@sha256:{D64}", REFUSED, f"docker.io/library/redis@sha256:{D64}"),
    (
        "26",
        f"docker.io/library/redis@sha256:{D64}",
        ("docker.io", "library/redis", f"@sha256:{D64}"),
        f"docker.io/library/redis@sha256:{D64}",
    ),
    (
        "27",
        f"docker.io/library/redis:7@sha256:{D64}",
        ("docker.io", "library/redis", f"7@sha256:{D64}"),
        f"docker.io/library/redis@sha256:{D64}",
    ),
    ("28", "docker.io/library/redis:obj@abcdef", ("docker.io", "library/redis", "obj@abcdef"), REFUSED),
    ("29", "docker.io/library/redis@sha256:abc", ("docker.io", "library/redis", "@sha256:abc"), REFUSED),
    ("30", f"quay.io/a@sha1:{D40}", ("quay.io", "a", f"@sha1:{D40}"), REFUSED),
    ("31", f"quay.io/a:1@sha512:{D128}", ("quay.io", "a", f"1@sha512:{D128}"), f"quay.io/a@sha512:{D128}"),
    ("32", "http://quay.io/a:1", REFUSED, REFUSED),
    ("34", "/a:1", REFUSED, REFUSED),
    ("35", "", REFUSED, REFUSED),
    ("36", "user@quay.io/a:1", REFUSED, REFUSED),
    ("37", "foo.com", REFUSED, "docker.io/library/foo.com:latest"),
    ("38", "foo.com:5000", REFUSED, "docker.io/library/foo.com:5000"),
    ("39", "foo.com:5000/a", REFUSED, "foo.com:5000/a:latest"),
    (
        "40",
        "xn--n3h.com/myimage:xn--n3h.com",
        ("xn--n3h.com", "myimage", "xn--n3h.com"),
        "xn--n3h.com/myimage:xn--n3h.com",
    ),
    ("41", D64, REFUSED, REFUSED),
    ("42", f"{D64}:tag", REFUSED, f"docker.io/library/{D64}:tag"),
    ("43", "quay.io/" + "a" * 256 + ":1", ("quay.io", "a" * 256, "1"), REFUSED),
    ("44", " quay.io/a:1", REFUSED, REFUSED),
]
row = pytest.mark.parametrize("text, parts, full", [r[1:] for r in ROWS], ids=[f"row{r[0]}" for r in ROWS])


@row
def test_plain_parser_splits_as_the_table_says(text: str, parts: Parts | None, full: str | None) -> None:
    if parts is REFUSED:
        with pytest.raises(InvalidArgument):
            parse_reference(text)
        return
    found = parse_reference(text)
    assert (found.host, found.repository, found.object) == parts


@row
def test_normal_form_is_that_of_the_table(text: str, parts: Parts | None, full: str | None) -> None:
    if full is REFUSED:
        with pytest.raises(InvalidArgument):
            normalize(text)
        return
    assert normalize(text) == full


def test_row_33_query_and_fragment_are_dropped_by_the_plain_parser() -> None:
    found = parse_reference("quay.io/a:1?x=y#z")
    assert (found.host, found.repository, found.object) == ("quay.io", "a", "1")


def test_row_33_query_and_fragment_have_no_normal_form() -> None:
    with pytest.raises(InvalidArgument):
        normalize("quay.io/a:1?x=y#z")


@pytest.mark.parametrize(
    "text, words",
    [
        ("quay.io/a/b:", "object required"),
        ("busybox", "object required"),
        ("/a:1", "hostname required"),
        ("", "hostname required"),
        ("busybox:1.36", "invalid port"),
    ],
)
def test_plain_parser_says_what_is_missing(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_reference(text)


def test_normalising_an_upper_case_repository_says_so() -> None:
    with pytest.raises(InvalidArgument, match="lower case"):
        normalize("quay.io/Foo:1")


@pytest.mark.parametrize("full", sorted({r[3] for r in ROWS if r[3] is not None}))
def test_a_normal_form_is_its_own_normal_form_and_can_be_pulled(full: str) -> None:
    assert normalize(full) == full
    assert str(parse_reference(full)) == full


@pytest.mark.parametrize(
    "text, again",
    [
        ("quay.io/a//b:1", "quay.io/a/b:1"),
        (f"quay.io/a:1@sha256:{D64}", f"quay.io/a:1@sha256:{D64}"),
        (f"quay.io/a@sha256:{D64}", f"quay.io/a@sha256:{D64}"),
    ],
)
def test_text_form_joins_locator_and_object(text: str, again: str) -> None:
    assert str(parse_reference(text)) == again


def test_tag_and_digest_are_the_two_halves_of_the_object() -> None:
    found = parse_reference(f"docker.io/library/redis:7@sha256:{D64}")
    assert (found.tag, found.digest) == ("7", f"sha256:{D64}")


def test_a_repository_of_255_characters_is_normal() -> None:
    text = "quay.io/" + "a" * 255 + ":1"
    assert normalize(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "quay.io/a@sha256:" + "A" * 64,
        "quay.io/a@sha384:" + "a" * 64,
        "quay.io/a@md5:" + "a" * 32,
        "quay.io/a@",
        "quay.io/a:b:c",
        "quay.io/a b:1",
        "quay.io/ä:1",
        "quay.io/a:ä",
        "quay.io/",
        "quay.io/:1",
        "-quay.io/a:1",
        "quay.io:http/a:1",
        "a\x00b",
    ],
)
def test_outside_the_grammar_there_is_no_normal_form(text: str) -> None:
    with pytest.raises(InvalidArgument):
        normalize(text)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="aA0.:/@-_[]%?# \n\x00ésha256", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parser in (parse_reference, normalize):
        try:
            parser(text)
        except InvalidArgument:
            pass
