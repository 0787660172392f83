"""orlop images check. Source: spec cli 3; the numbers in comments are rows of its section 11."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from tests.support.archive_stores import written
from tests.support.archives import HOST, OTHER, for_other, layout_files, named, simple
from tests.support.images import INDEX, MANIFEST, Blob, image, index_of
from tests.support.layers import digest_of
from tests.support.shell import Shell

NAME = "quay.io/a/b:1"
MADE = simple()
BOTH = {HOST: MADE, OTHER: for_other()}
REQUIRED = len(MADE.config) + sum(len(blob.data) for blob in MADE.layers)


def imported(shell: Shell, tmp_path: Path, made: Any = MADE, name: str = NAME, *options: str) -> None:
    shell.out("images", "import", "-q", *options, str(written(tmp_path, layout_files([(made, named(name))]))))


def rows(text: str) -> list[dict[str, str]]:
    header, *lines = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    ends = [*starts[1:], None]
    names = header.split()
    return [
        {name: line[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)} for line in lines
    ]


def checked(shell: Shell, *arguments: str, code: int = 0) -> list[dict[str, str]]:
    done = shell.run("images", "check", *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    return rows(done.stdout)


def test_an_image_that_is_whole_and_unpacked(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path)
    (row,) = checked(shell)
    assert [key for key in row if key != "PLATFORM"] == ["REF", "TYPE", "DIGEST", "STATUS", "SIZE", "UNPACKED"]
    size = f"{REQUIRED / 1024:.1f} KiB"
    assert (row["REF"], row["TYPE"], row["DIGEST"]) == (NAME, MANIFEST, MADE.target.digest)
    assert (row["STATUS"], row["SIZE"], row["UNPACKED"]) == ("complete (3/3)", f"{size}/{size}", "true")
    assert row["PLATFORM"] == HOST
    assert shell.out("images", "check", "-q") == f"{NAME}\n"


def test_an_image_that_is_whole_and_packed(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path, MADE, NAME, "--no-unpack")
    (row,) = checked(shell)
    assert (row["STATUS"], row["UNPACKED"]) == ("complete (3/3)", "false")
    assert shell.out("images", "check", "-q") == ""


def test_unpacked_is_said_of_the_snapshotter(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path, MADE, NAME, "--snapshotter", "native")
    assert checked(shell, "--snapshotter", "native")[0]["UNPACKED"] == "true"
    assert checked(shell, "--snapshotter", "overlayfs")[0]["UNPACKED"] == "false"
    assert shell.out("images", "check", "-q", "--snapshotter", "overlayfs") == ""


@pytest.mark.parametrize("which", ["layer", "config"])
def test_what_is_missing_is_counted(shell: Shell, tmp_path: Path, which: str) -> None:  # 14
    imported(shell, tmp_path)
    imported(shell, tmp_path, simple("whole"), "quay.io/a/whole:1")
    digest = MADE.layers[1].digest if which == "layer" else MADE.config_digest
    size = len(MADE.blobs[digest])
    shell.out("content", "rm", digest)
    incomplete, whole = checked(shell, code=1)
    assert (incomplete["REF"], incomplete["STATUS"]) == (NAME, "incomplete (2/3)")
    assert incomplete["SIZE"] == f"{(REQUIRED - size) / 1024:.1f} KiB/{REQUIRED / 1024:.1f} KiB"
    assert whole["STATUS"] == "complete (3/3)"
    done = shell.run("images", "check", "-q")
    assert (done.returncode, done.stdout) == (1, "quay.io/a/whole:1\n")
    assert checked(shell, "name==quay.io/a/whole:1")[0]["REF"] == "quay.io/a/whole:1"
    found, _ = as_json(shell, code=1)
    assert (found["state"], found["present"], found["required"]) == ("incomplete", 2, 3)
    assert (found["present_bytes"], found["required_bytes"]) == (REQUIRED - size, REQUIRED)
    assert found["missing"] == [digest]


def as_json(shell: Shell, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = shell.run("images", "check", "--json", *arguments)
    assert done.returncode == code
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_an_image_without_its_manifest_is_unavailable(shell: Shell, tmp_path: Path) -> None:  # 15
    imported(shell, tmp_path)
    shell.out("content", "rm", MADE.target.digest)
    (row,) = checked(shell, code=1)
    assert (row["STATUS"], row["UNPACKED"]) == ("unavailable (0/?)", "false")
    assert shell.out("images", "ls", "-q") == f"{NAME}\n"
    assert shell.run("images", "check", "-q").stdout == ""
    (found,) = as_json(shell, code=1)
    assert found["state"] == "unavailable"


def test_of_an_index_this_machine_s_image_counts(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path, BOTH)
    shell.out("content", "rm", BOTH[OTHER].layers[0].digest)
    (row,) = checked(shell)
    assert (row["TYPE"], row["PLATFORM"], row["STATUS"]) == (INDEX, HOST, "complete (3/3)")
    here, other = checked(shell, "--all-platforms", code=1)
    assert (here["PLATFORM"], here["STATUS"], here["UNPACKED"]) == (HOST, "complete (3/3)", "true")
    assert (other["PLATFORM"], other["STATUS"], other["UNPACKED"]) == (OTHER, "incomplete (2/3)", "false")
    assert shell.run("images", "check", "-q", "--all-platforms").stdout == f"{NAME}\n"


def test_an_index_without_this_machine_or_without_its_manifest_is_unavailable(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path, {OTHER: BOTH[OTHER]}, "quay.io/a/other:1")
    imported(shell, tmp_path, BOTH)
    shell.out("content", "rm", MADE.target.digest)
    assert [row["STATUS"] for row in checked(shell, code=1)] == ["unavailable (0/?)"] * 2
    statuses = [(row["REF"], row["PLATFORM"], row["STATUS"]) for row in checked(shell, "--all-platforms", code=1)]
    assert statuses == [
        (NAME, HOST, "unavailable (0/?)"),
        (NAME, OTHER, "complete (3/3)"),
        ("quay.io/a/other:1", OTHER, "complete (3/3)"),
    ]


def test_an_image_whose_layers_were_let_go_is_incomplete_and_unpacked(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path, MADE, NAME, "--discard-unpacked-layers")
    shell.out("gc", "run")
    (row,) = checked(shell, code=1)
    assert (row["STATUS"], row["UNPACKED"]) == ("incomplete (1/3)", "true")


@pytest.mark.parametrize(
    "diff_ids", [[], [digest_of(b"1")], [digest_of(b"1"), digest_of(b"2"), digest_of(b"3")], ["none"]], ids=len
)
def test_a_config_that_does_not_fit_is_no_crash(shell: Shell, tmp_path: Path, diff_ids: Sequence[str]) -> None:
    imported(shell, tmp_path, simple(diff_ids=diff_ids), NAME, "--no-unpack")
    (row,) = rows(shell.run("images", "check").stdout)
    assert (row["REF"], row["UNPACKED"]) == (NAME, "false")


def test_an_artefact_is_whole_and_never_unpacked(shell: Shell, tmp_path: Path) -> None:
    blobs = [Blob(b"text", "text/plain", "")]
    made = image(blobs, config=b"{}", config_type="application/vnd.oci.empty.v1+json", diff_ids=[])
    imported(shell, tmp_path, made)
    (row,) = checked(shell)
    assert (row["STATUS"], row["UNPACKED"]) == ("complete (2/2)", "false")


def test_a_document_that_is_not_what_it_is_said_to_be_is_an_error(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path, BOTH)
    root = index_of(BOTH)

    async def tag() -> None:
        async with orlop.open_store(tmp_path / "store") as store:
            await store.images.create("broken", orlop.Descriptor(MANIFEST, digest_of(root), len(root)))

    trio.run(tag)
    broken, whole = checked(shell, code=1)
    assert (broken["REF"], broken["STATUS"], broken["UNPACKED"]) == ("broken", "error", "false")
    assert whole["STATUS"] == "complete (3/3)"
    assert "expected a manifest" in as_json(shell, "name==broken", code=1)[0]["error"]


def test_without_images_there_is_a_header(shell: Shell) -> None:
    done = shell.run("images", "check")
    assert done.returncode == 0
    assert done.stdout.split()[:3] == ["REF", "TYPE", "DIGEST"]
    assert shell.out("images", "check", "--json") == "[]\n"
    assert shell.run("images", "check", "name==").returncode == 1
