"""What labels may be written, and what a field mask changes. Source: spec metadata 4 and 8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.protocol.errors import InvalidArgument
from orlop.protocol.labels import check_labels, check_mask, merge_map, merge_sources, source_label, stored_labels

FOLDER = Path(__file__).parents[1] / "vectors"
SIZES = json.loads((FOLDER / "label_sizes.json").read_text())
MASKS = json.loads((FOLDER / "masks.json").read_text())

# Spec metadata 8.2: paths taken as a whole, and maps of which single keys may be addressed.
RESOURCES = {
    "container": (("labels", "extensions", "spec", "image", "snapshotkey"), ("labels", "extensions")),
    "image": (("labels", "annotations", "target"), ("labels", "annotations")),
    "sandbox": (("labels", "extensions", "spec", "runtime"), ("labels", "extensions")),
    "content": (("labels",), ("labels",)),
    "snapshot": (("labels",), ("labels",)),
}
# `extensions.` is refused by the check of the merged record (spec metadata 10.2), not by that of the mask.
MASK_CASES = [
    (kind, row["path"], row[kind] == "ok") for row in MASKS for kind in RESOURCES if row["path"] != "extensions."
]


def label_of(row) -> dict[str, str]:
    return {"k" * row["key_bytes"]: row["value_fill"] * row["value_repeat"]}


def size_id(row) -> str:
    return f"{row['key_bytes']}+{row['value_repeat']}{row['value_fill']!a}"


# sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in SIZES if row["ok"] and row["key_bytes"]], ids=size_id)
def test_label_within_the_limit_is_accepted(row):
    check_labels(label_of(row))


@pytest.mark.parametrize("row", [row for row in SIZES if not row["ok"]], ids=size_id)
def test_label_over_the_limit_is_an_invalid_argument(row):
    with pytest.raises(InvalidArgument):
        check_labels(label_of(row))


def test_key_alone_may_have_4096_bytes():
    check_labels({"k" * 4096: ""})


def test_limit_holds_for_each_label_and_not_for_all():
    check_labels({f"k{number}": "v" * 4000 for number in range(10)})


def test_one_oversized_label_among_others_is_refused():
    with pytest.raises(InvalidArgument):
        check_labels({"a": "1", "b": "v" * 4096, "c": "3"})


@pytest.mark.parametrize("shown", ["4100", "4096", "k" * 64])
def test_refusal_of_an_oversized_label_shows_total_limit_and_head_of_the_key(shown):
    with pytest.raises(InvalidArgument, match=shown):
        check_labels({"k" * 4099: "v"})


def test_refusal_shows_no_more_than_64_bytes_of_an_ascii_key():
    with pytest.raises(InvalidArgument) as caught:
        check_labels({"k" * 4099: "v"})
    assert "k" * 65 not in str(caught.value)


def test_refusal_shows_no_more_than_64_bytes_of_a_key_in_another_script():
    with pytest.raises(InvalidArgument) as caught:
        check_labels({"é" * 2100: "v"})
    assert "é" * 33 not in str(caught.value)


@pytest.mark.parametrize("labels", [{"ключ \x00\n": "牛"}, {" ": "v"}, {"containerd.io/gc.root": "x"}])
def test_characters_of_a_label_are_free(labels):
    assert stored_labels(labels) == labels


# empty keys and values -----------------------------------------------------------------------------------


def test_label_with_an_empty_value_is_not_stored():
    assert stored_labels({"a": "1", "e": ""}) == {"a": "1"}


def test_label_with_a_blank_value_is_stored():
    assert stored_labels({"a": " "}) == {"a": " "}


@pytest.mark.parametrize("value", ["v", "a" * 4096])
def test_value_with_an_empty_key_is_an_invalid_argument(value):
    with pytest.raises(InvalidArgument):
        stored_labels({"": value})


def test_empty_key_with_an_empty_value_is_ignored():
    assert stored_labels({"": ""}) == {}


def test_oversized_key_without_a_value_is_refused_and_not_dropped():
    with pytest.raises(InvalidArgument):
        stored_labels({"k" * 4097: ""})


# which paths a mask may have -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind, path", [(kind, path) for kind, path, good in MASK_CASES if good])
def test_mask_path_of_the_resource_is_accepted(kind, path):
    allowed, maps = RESOURCES[kind]
    check_mask([path], allowed, maps, "record")


@pytest.mark.parametrize("kind, path", [(kind, path) for kind, path, good in MASK_CASES if not good])
def test_any_other_mask_path_is_an_invalid_argument(kind, path):
    allowed, maps = RESOURCES[kind]
    with pytest.raises(InvalidArgument):
        check_mask([path], allowed, maps, "record")


def test_namespace_refuses_the_path_labels():
    with pytest.raises(InvalidArgument):
        check_mask(["labels"], (), ("labels",), "namespace")


def test_namespace_accepts_the_path_of_one_label():
    check_mask(["labels.a"], (), ("labels",), "namespace")


def test_path_of_an_empty_key_is_accepted():
    check_mask(["labels."], ("labels",), ("labels",), "image")


@pytest.mark.parametrize("mask", [None, []])
def test_mask_without_paths_is_accepted(mask):
    check_mask(mask, ("labels",), ("labels",), "image")


def test_one_bad_path_among_good_ones_is_refused():
    with pytest.raises(InvalidArgument):
        check_mask(["labels.q", "name"], ("labels",), ("labels",), "image")


def test_repeated_and_overlapping_paths_are_accepted():
    check_mask(["labels", "labels.a", "labels.a", "labels"], ("labels",), ("labels",), "image")


@pytest.mark.parametrize("shown", ["target[.]digest", "image blue"])
def test_refusal_of_a_path_names_path_and_record(shown):
    with pytest.raises(InvalidArgument, match=shown):
        check_mask(["target.digest"], ("labels",), ("labels",), "image blue")


# what a mask changes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, []])
def test_update_without_mask_replaces_the_whole_map(mask):
    assert merge_map({"a": "1", "b": "2"}, {"c": "3"}, mask, "labels") == {"c": "3"}


def test_update_without_mask_drops_empty_values():
    assert merge_map({"a": "1"}, {"a": "", "c": "3"}, None, "labels") == {"c": "3"}


def test_path_of_the_map_replaces_the_whole_map():
    assert merge_map({"a": "1", "b": "2"}, {"c": "3", "e": ""}, ["labels"], "labels") == {"c": "3"}


def test_path_of_a_key_sets_that_key_only():
    assert merge_map({"a": "1"}, {"b": "2", "c": "3"}, ["labels.b"], "labels") == {"a": "1", "b": "2"}


def test_path_of_a_key_overwrites_that_key():
    assert merge_map({"a": "1"}, {"a": "2"}, ["labels.a"], "labels") == {"a": "2"}


def test_path_of_a_key_that_the_body_lacks_removes_it():
    assert merge_map({"a": "1", "b": "2"}, {}, ["labels.b"], "labels") == {"a": "1"}


def test_path_of_a_key_with_an_empty_value_removes_it():
    assert merge_map({"a": "1", "b": "2"}, {"b": ""}, ["labels.b"], "labels") == {"a": "1"}


def test_removing_an_absent_key_is_fine():
    assert merge_map({"a": "1"}, {}, ["labels.z"], "labels") == {"a": "1"}


def test_everything_after_the_first_dot_is_the_key():
    assert merge_map({}, {"x.y.z/w": "1", "z/w": "2"}, ["labels.x.y.z/w"], "labels") == {"x.y.z/w": "1"}


@pytest.mark.parametrize("key", ["*", " a", '"a"', "A", "containerd.io/gc.root"])
def test_key_of_a_path_is_taken_verbatim(key):
    given = {"*": "1", " a": "2", '"a"': "3", "A": "4", "a": "5", "containerd.io/gc.root": "6"}
    assert merge_map({}, given, [f"labels.{key}"], "labels") == {key: given[key]}


def test_path_of_an_empty_key_changes_nothing():
    assert merge_map({"a": "1"}, {"a": "2"}, ["labels."], "labels") == {"a": "1"}


def test_value_set_under_an_empty_key_is_refused_by_the_check_of_the_record():
    with pytest.raises(InvalidArgument):
        stored_labels(merge_map({"a": "1"}, {"": "2"}, ["labels."], "labels"))


def test_paths_of_another_map_change_nothing():
    merged = merge_map({"a": "1"}, {"a": "2"}, ["annotations", "annotations.a", "target"], "labels")
    assert merged == {"a": "1"}


def test_path_that_only_begins_like_the_map_changes_nothing():
    assert merge_map({"a": "1"}, {"a": "2"}, ["labels2", "labels2.a"], "labels") == {"a": "1"}


def test_oversized_label_that_the_mask_leaves_out_is_harmless():
    given = {"a": "2", "big": "v" * 5000}
    assert stored_labels(merge_map({"a": "1"}, given, ["labels.a"], "labels")) == {"a": "2"}


def test_oversized_label_that_the_mask_selects_is_refused():
    given = {"a": "2", "big": "v" * 5000}
    with pytest.raises(InvalidArgument):
        stored_labels(merge_map({"a": "1"}, given, ["labels.big"], "labels"))


def test_merging_leaves_the_record_as_it_was():
    current = {"a": "1"}
    merge_map(current, {"b": "2"}, ["labels.b", "labels.a"], "labels")
    assert current == {"a": "1"}


keys = st.sampled_from(["a", "b", "c", "a.b"])
maps = st.dictionaries(keys, st.sampled_from(["1", "2"]))
paths = st.lists(st.just("labels") | keys.map("labels.{}".format), min_size=1, max_size=6)


@settings(deadline=None)
@given(maps, maps, paths, st.randoms(use_true_random=False))
def test_order_and_repetition_of_paths_have_no_effect(current, given, mask, random):
    shuffled = [*mask, *mask]
    random.shuffle(shuffled)
    assert merge_map(current, given, mask, "labels") == merge_map(current, given, shuffled, "labels")


@settings(deadline=None)
@given(maps, maps, paths)
def test_merged_map_has_for_each_key_the_value_of_body_or_record(current, given, mask):
    merged = merge_map(current, given, mask, "labels")
    for key in ["a", "b", "c", "a.b"]:
        selected = "labels" in mask or f"labels.{key}" in mask
        assert merged.get(key) == (given if selected else current).get(key)


# the label of a blob's sources ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host, label",
    [
        ("registry.example", "containerd.io/distribution.source.registry.example"),
        ("127.0.0.1:5000", "containerd.io/distribution.source.127.0.0.1"),
    ],
)
def test_source_label_has_the_host_without_its_port(host, label):
    assert source_label(host) == label


SOURCE = "containerd.io/distribution.source.quay.io"


@pytest.mark.parametrize(
    "known, repository, merged",
    [
        ("", "", ""),
        ("", "library/busybox", "library/busybox"),
        ("library/busybox", "library/busybox", "library/busybox"),
        (
            "library/busybox,library/redis,library/busybox",
            "library/alpine",
            "library/alpine,library/busybox,library/redis",
        ),
        ("library/busybox,library/redis,library/busybox", "", "library/busybox,library/redis"),
    ],
)
def test_sources_are_sorted_and_named_once(known: str, repository: str, merged: str) -> None:
    """Source: spec registry 8.2, the table of existing and new values."""
    assert merge_sources(SOURCE, known, repository) == merged


def test_a_source_label_that_would_be_too_long_stays_as_it_is() -> None:
    known = "a" * (4096 - len(SOURCE) - len(",b"))
    assert merge_sources(SOURCE, known, "b") == f"{known},b"
    assert merge_sources(SOURCE, known, "bc") == known
