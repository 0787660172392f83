"""What a platform's text means, what runs where, and which manifest of an index is taken. Source: spec registry 8.3
and 8.4, the column "compatible"."""

from __future__ import annotations

import pytest

from orlop.protocol.errors import InvalidArgument
from orlop.protocol.registry.platforms import Platform, acceptable, best_first, normalized, parse_platform

HOST = Platform("linux", "amd64")


def parse(text: str) -> Platform:
    return parse_platform(text, HOST)


@pytest.mark.parametrize(
    "text, os, architecture, variant",
    [
        ("linux/amd64", "linux", "amd64", ""),
        ("linux/arm/v7", "linux", "arm", "v7"),
        ("linux", "linux", "amd64", ""),
        ("windows", "windows", "amd64", ""),
        ("arm64", "linux", "arm64", ""),
        ("macos/arm64", "darwin", "arm64", ""),
        ("linux/x86_64", "linux", "amd64", ""),
        ("linux/x86-64", "linux", "amd64", ""),
        ("linux/i386", "linux", "386", ""),
        ("linux/aarch64", "linux", "arm64", ""),
        ("linux/armhf", "linux", "arm", "v7"),
        ("linux/armel", "linux", "arm", "v6"),
        ("linux/arm", "linux", "arm", "v7"),
        ("linux/arm/5", "linux", "arm", "v5"),
        ("linux/arm/6", "linux", "arm", "v6"),
        ("linux/arm/8", "linux", "arm", "v8"),
        ("linux/arm64/v8", "linux", "arm64", ""),
        ("linux/arm64/8", "linux", "arm64", ""),
        ("linux/arm64/v8.0", "linux", "arm64", ""),
        ("linux/arm64/9", "linux", "arm64", "v9"),
        ("linux/arm64/9.0", "linux", "arm64", "v9"),
        ("linux/arm64/v9.0", "linux", "arm64", "v9"),
        ("linux/amd64/v1", "linux", "amd64", ""),
        ("linux/amd64/v3", "linux", "amd64", "v3"),
        ("Linux/AMD64", "linux", "amd64", ""),
        ("x86_64", "linux", "amd64", ""),
        ("armhf", "linux", "arm", "v7"),
    ],
)
def test_text_is_read_and_normalised(text: str, os: str, architecture: str, variant: str) -> None:
    assert parse(text) == Platform(os, architecture, variant)


def test_version_and_features_of_a_system_stand_in_parentheses() -> None:
    assert parse("windows(10.0.17763)/amd64") == Platform("windows", "amd64", "", "10.0.17763")
    assert parse("windows(10.0.17763+win32k)/amd64") == Platform("windows", "amd64", "", "10.0.17763", ("win32k",))


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "/amd64", "linux/arm/v7/extra", "linux/am d64", "bogus", "linux(1/amd64", "*/*", "ä/b"]
)
def test_text_that_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


def test_an_index_entry_is_normalised_like_text() -> None:
    assert normalized(Platform("macos", "aarch64", "v8")) == Platform("darwin", "arm64", "")


@pytest.mark.parametrize(
    "wanted, runs",
    [
        ("amd64", "amd64 386"),
        ("amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("arm/v8", "arm/v8 arm/v7 arm/v6 arm/v5"),
        ("arm/v7", "arm/v7 arm/v6 arm/v5"),
        ("arm/v6", "arm/v6 arm/v5"),
        ("arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        (
            "arm64/v9.1",
            (
                "arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64 "
                "arm/v8 arm/v7 arm/v6 arm/v5"
            ),
        ),
        ("386", "386"),
        ("riscv64", "riscv64"),
        ("s390x", "s390x"),
        ("ppc64le", "ppc64le"),
    ],
)
def test_what_runs_on_a_machine_best_first(wanted: str, runs: str) -> None:
    pairs = acceptable(parse(f"linux/{wanted}"))
    assert [f"{architecture}/{variant}".rstrip("/") for architecture, variant in pairs] == runs.split()


def entry(text: str) -> Platform | None:
    """An entry as it stands in an index, spelling kept; `-` for one without a platform."""
    return None if text == "-" else Platform(*text.split("/"))


# Table 8.4: entries in the order of the index, what is wanted, which one is taken (None: nothing suits).
SELECTIONS = [
    ("1", "linux/amd64 linux/arm64", "linux/amd64", 0),
    ("2", "linux/arm64 linux/amd64", "linux/amd64", 1),
    ("3", "linux/386 linux/arm64", "linux/amd64", 0),
    ("4", "linux/arm/v6 linux/arm/v5", "linux/arm/v7", 0),
    ("5", "linux/arm/v6 linux/arm/v7", "linux/arm", 1),
    ("6", "linux/arm64/v8", "linux/arm64", 0),
    ("7", "linux/arm64", "linux/arm64/v8", 0),
    ("8", "linux/amd64/v2 linux/amd64", "linux/amd64", 1),
    ("9", "linux/amd64 linux/amd64/v2 linux/amd64/v3", "linux/amd64/v2", 1),
    ("10", "linux/amd64 linux/amd64", "linux/amd64", 0),
    ("11", "linux/arm/v7", "linux/arm64", 0),
    ("12", "linux/s390x", "linux/amd64", None),
    ("13", "windows/amd64 linux/amd64", "linux/amd64", 1),
    ("14", "- linux/amd64", "linux/amd64", 1),
    ("14 alone", "linux/s390x -", "linux/amd64", 1),
    ("15", "linux/arm/v5 linux/arm/v6 linux/arm/v7 linux/arm/v8", "linux/arm64", 3),
    ("16", "linux/arm64 linux/arm/v8", "linux/arm64/v9", 0),
    ("18", "unknown/unknown linux/amd64", "linux/amd64", 1),
    ("18 alone", "unknown/unknown", "linux/amd64", None),
]


@pytest.mark.parametrize("entries, wanted, taken", [s[1:] for s in SELECTIONS], ids=[f"row{s[0]}" for s in SELECTIONS])
def test_the_manifest_that_suits_best_is_first(entries: str, wanted: str, taken: int | None) -> None:
    found = best_first([entry(text) for text in entries.split()], parse(wanted))
    assert found[:1] == ([] if taken is None else [taken])


def test_entries_that_suit_equally_keep_the_order_of_the_index() -> None:
    assert best_first([entry("linux/amd64")] * 3, parse("linux/amd64")) == [0, 1, 2]


def test_an_empty_index_has_nothing_to_offer() -> None:
    assert best_first([], HOST) == []


def test_required_features_must_all_be_there_and_more_of_them_win() -> None:
    plain, one, two = (Platform("linux", "amd64", os_features=f) for f in ((), ("a",), ("a", "b")))
    assert best_first([plain, one, two], Platform("linux", "amd64")) == [0]
    assert best_first([plain, one, two], Platform("linux", "amd64", os_features=("b", "a"))) == [2, 1, 0]


@pytest.mark.parametrize(
    "image, host, suits",
    [
        ("10.0.17763", "10.0.17763.1", True),  # a host before 20348 wants its own build
        ("10.0.17763", "10.0.18362", False),
        ("10.0.18362", "10.0.17763", False),
        ("10.0.20348", "10.0.20348", True),
        ("10.0.20348", "10.0.22621", True),  # no long-term build before the one below the host
        ("10.0.17763", "10.0.22621", False),
        ("10.0.20348", "10.0.26100", True),  # floor: the long-term build before 26100
        ("10.0.22621", "10.0.26100", True),
        ("10.0.26100", "10.0.22621", False),  # newer than the host
        ("10.0.20347", "10.0.26100", False),
        ("10.1.26100", "10.0.26100", False),
        ("", "10.0.26100", True),
        ("10.0.17763", "", True),
    ],
)
def test_windows_builds_suit_by_their_numbers(image: str, host: str, suits: bool) -> None:
    found = best_first([Platform("windows", "amd64", os_version=image)], Platform("windows", "amd64", os_version=host))
    assert found == ([0] if suits else [])


def test_versions_of_other_systems_do_not_matter() -> None:
    wanted = Platform("linux", "amd64", os_version="6.1")
    assert best_first([Platform("linux", "amd64", os_version="5.10")], wanted) == [0]
