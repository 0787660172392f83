"""Which test shows which row of the lists of edge cases; that no row is forgotten, and no test is that is named here.

Source: spec registry 14, spec cli 11. What orlop leaves out on purpose has a sentence in a test's place.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.protocol import test_platforms, test_references

TESTS: Final = Path(__file__).parent
ROWS: Final = range(1, 61)


@dataclass(frozen=True)
class Shown:
    """By these functions of that file below tests/, or of any in that folder."""

    file: str
    functions: tuple[str, ...]


Row = tuple[Shown, ...]


def by(file: str, *functions: str) -> Shown:
    return Shown(f"{file}.py", tuple(f"test_{name}" for name in functions))


def pull(*functions: str) -> Shown:
    return Shown("integration/pull", tuple(f"test_{name}" for name in functions))


def push(*functions: str) -> Shown:
    return by("integration/push/test_images", *functions)


def access(*functions: str) -> Shown:
    return by("integration/test_registry_access", *functions)


def mirrors(*functions: str) -> Shown:
    return by("integration/test_mirrors", *functions)


def rows(*functions: str) -> Shown:
    return by("integration/test_registry_rows", *functions)


def shell(*functions: str) -> Shown:
    return by("bin/test_cli", *functions)


def images(*functions: str) -> Shown:
    return by("bin/test_image_commands", *functions)


def snapshots(*functions: str) -> Shown:
    return by("bin/test_snapshot_commands", *functions)


def metadata(*functions: str) -> Shown:
    return by("bin/test_metadata_commands", *functions)


def collection(*functions: str) -> Shown:
    return by("bin/test_collection_commands", *functions)


def lines(*functions: str) -> Shown:
    return by("bin/test_cli_rows", *functions)


REGISTRY: Final[dict[int, Row]] = {
    1: (rows("row_1_and_2_a_name_that_is_no_reference_is_refused"),),
    2: (rows("row_1_and_2_a_name_that_is_no_reference_is_refused"),),
    3: (pull("head_without_a_digest_is_followed_by_get"),),
    4: (pull("head_that_is_not_allowed_becomes_get"),),
    5: (pull("a_digest_that_is_none_is_refused_by_its_value"),),
    6: (rows("row_6_a_manifest_that_is_not_what_head_said_is_refused_and_poisons_nothing"),),
    7: (pull("a_wrong_digest_is_never_committed_and_poisons_nothing"),),
    8: (pull("a_wrong_size_is_never_committed"),),
    9: (pull("a_layer_that_breaks_goes_on_where_it_broke"),),
    10: (pull("a_registry_without_ranges_sends_the_layer_again"),),
    11: (pull("breaking_without_end_fails_and_the_next_pull_goes_on_from_there"),),
    12: (pull("a_range_that_begins_elsewhere_is_an_error"),),
    13: (pull("429_four_times_is_survived", "429_without_end_is_resource_exhausted_after_five_requests"),),
    14: (pull("retry_after_is_waited_for"),),
    15: (pull("server_errors_are_tried_again", "the_same_server_error_twice_is_unavailable_and_names_the_blob"),),
    16: (pull("one_token_serves_the_whole_pull"), access("a_pull_asks_for_pull_alone")),
    17: (pull("a_token_server_that_takes_no_post_is_asked_with_get"),),
    18: (pull("an_answer_of_the_token_server_without_token_is_said_clearly"),),
    19: (pull("no_credentials_where_some_are_needed_ends_after_one_request"),),
    20: (pull("wrong_basic_credentials_are_tried_once"), access("a_wrong_password_is_tried_no_more_than_twice")),
    21: (pull("a_redirect_to_another_host_carries_no_credentials"),),
    22: (access("ten_redirects_are_followed_and_no_more"),),
    23: (by("integration/test_registry_tls", "a_redirect_out_of_tls_is_refused"),),
    24: (mirrors("what_the_mirror_has_not_the_server_is_asked_for"),),
    25: (mirrors("a_mirror_without_resolve_is_not_asked_for_tags"),),
    26: (mirrors("a_mirror_that_fails_costs_one_request"),),
    27: (
        mirrors("broken_settings_refuse_pull_and_push_before_any_request"),
        by("integration/test_hosts", "settings_that_cannot_be_understood_are_refused_by_name"),
    ),
    28: (by("integration/test_hosts", "mirrors_stand_in_the_order_of_the_file"),),
    29: (
        mirrors("a_registry_on_the_loopback_needs_no_flag_for_plain_http"),
        by(
            "integration/test_registry_tls",
            "on_the_loopback_an_unknown_authority_is_good_enough",
            "an_authority_that_is_unknown_is_refused_and_http_is_not_tried",
        ),
    ),
    30: (pull("schema_1_is_refused"),),
    31: (rows("row_31_a_manifest_of_the_largest_size_is_read_and_none_beyond"),),
    32: (
        rows("row_32_a_manifest_that_is_an_index_too_is_refused"),
        by("protocol/test_documents", "a_document_that_is_not_what_its_type_says_is_refused_by_name"),
    ),
    33: (rows("row_33_a_nested_index_is_walked"),),
    34: (
        rows(
            "row_34_of_an_index_the_manifest_that_suits_is_fetched",
            "row_34_where_no_index_says_what_a_manifest_is_for_its_config_does",
        ),
        by("protocol/test_platforms", "the_manifest_that_suits_best_is_first"),
    ),
    35: (pull("no_platform_that_suits_is_not_found_and_names_those_there_are"),),
    36: (pull("a_second_namespace_downloads_nothing"),),
    37: (
        pull("a_collection_after_the_pull_takes_nothing"),
        by("conformance/test_unpack_pulled", "a_pull_unpacks_and_a_collection_takes_nothing"),
    ),
    38: (rows("row_38_what_a_killed_pull_brought_lives_as_long_as_its_lease"),),
    39: (pull("documents_keep_their_children_by_labels"),),
    40: (push("what_was_pulled_from_another_repository_is_mounted"),),
    41: (
        push(
            "where_a_mount_is_not_made_the_upload_that_was_opened_is_used",
            "where_a_mount_is_refused_an_upload_is_opened",
        ),
    ),
    42: (push("of_an_index_blobs_go_first_then_manifests_and_the_tag_last"),),
    43: (push("another_tag_sends_the_manifest_alone_and_an_older_one_is_moved", "a_second_push_is_one_head"),),
    44: (push("a_digest_that_is_not_the_roots_is_refused"),),
    45: (by("integration/push/test_uploads", "an_answer_with_another_digest_is_an_error"),),
    46: (access("an_upload_to_another_host_carries_no_credentials"),),
    47: (push("layers_that_are_not_to_be_passed_on_stay_here_unless_it_is_said"),),
    48: (
        by("bin/test_pull_policies", "an_image_that_nothing_describes_is_brought_all_the_same"),
        by("integration/push/test_referrers", "where_nothing_describes_it_the_list_is_empty"),
    ),
    49: (by("integration/test_import_docker", "a_tag_that_is_none_lets_nothing_in"),),
    50: (by("integration/test_import", "what_is_no_layout_is_refused"),),
    51: (
        by("integration/test_import", "a_corrupt_blob_is_an_error", "nothing_is_left_half_read_when_an_import_fails"),
    ),
    52: (
        by("integration/test_export", "the_same_images_make_the_same_bytes"),
        by("integration/test_export_failures", "missing_content_is_named_with_its_platform"),
    ),
    53: (by("integration/test_export", "importing_what_was_exported_restores_it"),),
    54: (by("integration/test_import", "layouts_are_brought_in_every_form"),),
    55: (pull("two_pulls_at_once_share_every_download"),),
    56: (by("integration/test_image_verifiers", "a_verifier_denies"),),
    57: (
        rows(
            "row_57_a_layer_of_no_size_is_refused",
            "row_57_what_the_manifest_holds_itself_is_not_asked_for",
            "row_57_wrong_bytes_in_the_manifest_are_refused",
        ),
        by("integration/test_fetch", "a_blob_must_have_a_size"),
    ),
    58: (
        rows("row_58_a_packed_answer_is_unpacked", "row_58_an_answer_that_cannot_be_unpacked_is_an_error"),
        pull("an_encoded_manifest_is_decoded"),
    ),
    59: (pull("no_more_blobs_at_once_than_was_said"),),
    60: (mirrors("what_a_registry_warns_of_is_told_once"),),
}

CLI: Final[dict[int, Row]] = {
    1: (shell("a_server_that_is_not_there_is_one_line_at_once"),),
    2: (lines("row_2_a_list_in_a_namespace_that_is_not_there_does_not_create_it"),),
    3: (lines("row_3_a_snapshot_creates_its_namespace"),),
    4: (lines("row_4_a_namespace_with_an_image_stays_and_the_others_go"),),
    5: (lines("row_5_a_namespace_with_only_a_lease_goes"),),
    6: (lines("row_6_labels_for_a_namespace_that_is_not_there_create_nothing"),),
    7: (metadata("images_are_labelled_and_inspected"),),
    8: (metadata("images_are_labelled_and_inspected"),),
    9: (lines("row_9_of_two_images_the_one_that_is_there_goes"),),
    10: (lines("row_10_content_and_snapshots_are_gone_when_the_command_returns"),),
    11: (images("names_that_exist_are_moved_only_by_force"),),
    12: (images("several_names_are_given_and_printed_in_order"),),
    13: (images("names_are_checked_and_normalised_unless_told"),),
    14: (by("bin/test_image_check", "what_is_missing_is_counted"),),
    15: (by("bin/test_image_check", "an_image_without_its_manifest_is_unavailable"),),
    16: (images("an_export_of_what_is_not_there_leaves_no_file"),),
    17: (images("an_export_to_standard_output_is_the_archive_alone"),),
    18: (images("an_archive_comes_through_standard_input", "a_stream_that_is_cut_short_brings_nothing"),),
    19: (images("an_archive_without_names_fails_and_says_what_to_do"),),
    20: (images("wrong_usage_exits_2_and_does_nothing"),),
    21: (images("options_say_what_images_are_called"),),
    22: (shell("a_platform_that_is_not_offered_exits_3_with_those_that_are"),),
    23: (lines("row_23_what_is_no_platform_is_refused_before_any_request"),),
    24: (lines("row_24_a_second_pull_is_one_head_and_prints_the_same_digest"),),
    25: (shell("a_piped_pull_prints_lines_without_escape_sequences"),),
    26: (shell("what_is_not_there_exits_3_and_prints_nothing"),),
    27: (shell("what_can_never_work_exits_1_with_one_line"),),
    28: (lines("row_28_and_29_an_ingest_of_other_bytes_leaves_no_ingest"),),
    29: (lines("row_28_and_29_an_ingest_of_other_bytes_leaves_no_ingest"),),
    30: (shell("ingest_prints_the_digest_and_get_gives_the_bytes_back"),),
    31: (lines("row_31_of_several_blobs_the_good_ones_go"),),
    32: (collection("a_dry_run_removes_no_reference", "layers_of_what_is_unpacked_go_and_it_can_still_be_mounted"),),
    33: (lines("row_33_labels_that_are_not_named_stay"),),
    34: (snapshots("the_life_of_a_snapshot"),),
    35: (snapshots("what_the_shell_made_outlives_a_collection"),),
    36: (snapshots("mounts_are_printed_for_a_shell_and_as_json"),),
    37: (snapshots("printed_mounts_work_in_a_shell"),),
    38: (lines("row_38_a_key_may_have_spaces"),),
    39: (snapshots("a_diff_is_a_layer_on_standard_output_or_kept"),),
    40: (lines("row_40_a_layer_that_is_here_already_is_labelled_and_stays"),),
    41: (snapshots("usage_names_every_layer_from_the_top"),),
    42: (snapshots("a_tree_of_several_roots_is_sorted"),),
    43: (metadata("a_lease_without_end_has_no_expiry_and_a_second_of_its_name_is_refused"),),
    44: (lines("row_44_what_only_a_lease_held_is_gone_when_the_command_returns"),),
    45: (metadata("of_several_leases_the_good_ones_end"),),
    46: (
        metadata("creating_a_container_twice_is_an_error_and_the_first_stays"),
        lines("row_46_a_container_that_is_there_keeps_its_snapshot"),
        lines("row_46_a_second_container_of_that_name_leaves_the_firsts_own_snapshot"),
    ),
    47: (lines("row_47_a_containers_own_snapshot_goes_with_it_unless_it_is_kept"),),
    48: (lines("row_48_snapshots_that_a_container_uses_stay_when_their_image_goes"),),
    49: (snapshots("an_image_is_mounted_again_and_again"),),
    50: (snapshots("what_is_written_to_a_mounted_image_stays_until_told"),),
    51: (collection("pruning_images_takes_a_filter_or_all", "pruning_all_images_keeps_what_containers_use"),),
    52: (lines("row_52_events_of_a_pull_come_in_its_order"),),
    53: (lines("row_53_a_filter_chooses_by_name"), metadata("a_filter_that_cannot_be_read_says_where")),
    54: (snapshots("the_snapshotter_comes_from_the_flag_then_the_environment"),),
    55: (snapshots("the_snapshotter_comes_from_the_flag_then_the_environment"),),
    56: (shell("version_is_told_without_a_store"),),
    57: (lines("row_57_a_part_that_fails_says_so_and_why"),),
    58: (
        shell("a_password_is_not_asked_for_where_nobody_can_answer"),
        by("bin/test_terminal", "a_password_is_asked_for_and_not_shown"),
    ),
    59: (shell("a_timeout_ends_a_pull_from_a_silent_registry"),),
    60: (by("bin/test_registry_commands", "what_is_not_here_exits_3_in_one_line"),),
}

TABLES: Final = {"registry 14": REGISTRY, "cli 11": CLI}


@cache
def functions_of(file: str) -> frozenset[str]:
    """The functions at the top of a file of tests, or of all in a folder."""
    place = TESTS / file
    files = [place] if place.is_file() else sorted(place.glob("test_*.py"))
    found = [each for path in files for each in ast.parse(path.read_text()).body]
    return frozenset(each.name for each in found if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_in_its_table_once(table: str) -> None:
    assert list(TABLES[table]) == list(ROWS)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_has_a_test(table: str) -> None:
    for number, row in TABLES[table].items():
        assert row, number
        for each in row:
            missing = set(each.functions) - functions_of(each.file)
            assert each.functions, number
            assert not missing, f"{table}, row {number}: {each.file} has no {', '.join(sorted(missing))}"


@pytest.mark.parametrize("file", ["integration/test_registry_rows.py", "bin/test_cli_rows.py"])
def test_what_is_named_after_a_row_stands_in_its_table(file: str) -> None:
    named = {
        name
        for table in TABLES.values()
        for row in table.values()
        for each in row
        if each.file == file
        for name in each.functions
    }
    assert {name for name in functions_of(file) if name.startswith("test_row_")} == named


def test_every_row_of_the_table_of_references_is_tried() -> None:
    """Source: spec registry 1.3. Row 33 has tests of its own."""
    tried = {int(row[0].rstrip("abcd")) for row in test_references.ROWS}
    assert tried | {33} == set(range(1, 45))
    assert any(name.startswith("test_row_33_") for name in functions_of("protocol/test_references.py"))


def test_every_row_of_the_table_of_selections_is_tried() -> None:
    """Source: spec registry 8.4. Row 17 is no index."""
    assert {int(row[0].split()[0]) for row in test_platforms.SELECTIONS} | {17} == set(range(1, 19))
