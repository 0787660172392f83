"""Rows of the command line's edge cases that no other test shows. tests/test_spec_rows.py says where the others are.

Source: spec cli 11; each test is named after its row.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.archive_stores import written
from tests.support.archives import layout_files, named, simple
from tests.support.images import MadeImage, write_layout
from tests.support.layers import digest_of
from tests.support.layout_registry import LayoutRegistry
from tests.support.shell import TIMEOUT_S, Shell, daemon, one_line
from tests.support.transfers import lines

NAME = "quay.io/a/b:1"
MADE = simple()
NATIVE = ("--snapshotter", "native")
ROOT_LABEL = "containerd.io/gc.root"


def imported(shell: Shell, folder: Path, name: str = NAME, made: MadeImage = MADE, namespace: str = "default") -> str:
    """The name of an image that was brought and unpacked."""
    archive = written(folder, layout_files([(made, named(name))]))
    shell.out("-n", namespace, "images", "import", "-q", *NATIVE, str(archive))
    return name


@pytest.fixture
def image(shell: Shell, tmp_path: Path) -> str:
    return imported(shell, tmp_path)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry({"a/b": write_layout(tmp_path / "layout", MADE)}) as registry:
        yield registry


def at(registry: LayoutRegistry) -> str:
    return f"{registry.address}/a/b:latest"


def content(shell: Shell) -> set[str]:
    return set(shell.out("content", "ls", "-q").split())


def snapshots(shell: Shell) -> set[str]:
    return set(shell.out("snapshots", "ls", "-q", *NATIVE).split())


def ingested(shell: Shell, text: str) -> str:
    return shell.out("content", "ingest", text, stdin=text).strip()


def labels(shell: Shell, digest: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(shell.out("content", "info", digest))["labels"]
    return found


def namespaces(shell: Shell) -> list[str]:
    return shell.out("namespaces", "ls", "-q").split()


# namespaces


@pytest.mark.parametrize("kind", ["images", "content", "snapshots", "leases", "containers"])
def test_row_2_a_list_in_a_namespace_that_is_not_there_does_not_create_it(shell: Shell, kind: str) -> None:
    done = shell.run("-n", "new", kind, "ls")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.isupper()
    assert namespaces(shell) == []


def test_row_3_a_snapshot_creates_its_namespace(shell: Shell) -> None:
    shell.out("-n", "new", "snapshots", "prepare", "a")
    assert namespaces(shell) == ["new"]


def test_row_4_a_namespace_with_an_image_stays_and_the_others_go(shell: Shell, tmp_path: Path) -> None:
    imported(shell, tmp_path, namespace="full")
    for name in ("one", "two"):
        shell.out("namespaces", "create", name)
    done = shell.run("namespaces", "rm", "one", "full", "two")
    assert (done.returncode, done.stdout) == (1, "one\ntwo\n")
    assert 'namespace "full" must be empty' in done.stderr
    assert "images" in done.stderr
    assert "failed precondition" in done.stderr
    assert namespaces(shell) == ["full"]


def test_row_5_a_namespace_with_only_a_lease_goes(shell: Shell) -> None:
    shell.out("-n", "leased", "leases", "create", "--id", "x")
    assert namespaces(shell) == ["leased"]
    assert shell.out("namespaces", "rm", "leased") == "leased\n"
    assert namespaces(shell) == []
    assert shell.out("-n", "leased", "leases", "ls", "-q") == ""


def test_row_6_labels_for_a_namespace_that_is_not_there_create_nothing(shell: Shell) -> None:
    done = shell.run("namespaces", "label", "x", "a=b")
    assert (done.returncode, done.stdout) == (3, "")
    assert "not found" in done.stderr
    assert namespaces(shell) == []


# images


def test_row_9_of_two_images_the_one_that_is_there_goes(shell: Shell, image: str) -> None:
    done = shell.run("images", "rm", "quay.io/a/missing:1", image)
    assert (done.returncode, done.stdout) == (3, f"{image}\n")
    assert "quay.io/a/missing:1" in done.stderr
    assert shell.out("images", "ls", "-q") == ""


@pytest.mark.parametrize("flags", [(), ("--sync",)], ids=str)
def test_row_10_content_and_snapshots_are_gone_when_the_command_returns(
    shell: Shell, image: str, flags: tuple[str, ...]
) -> None:
    assert content(shell) == set(MADE.blobs)
    assert snapshots(shell) == set(MADE.chain)
    assert shell.out("images", "rm", *flags, image) == f"{image}\n"
    assert content(shell) == set()
    assert snapshots(shell) == set()


def test_row_23_what_is_no_platform_is_refused_before_any_request(shell: Shell, registry: LayoutRegistry) -> None:
    done = shell.run("pull", "--plain-http", "--platform", "bogus", at(registry))
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "invalid argument" in done.stderr
    assert "bogus" in done.stderr
    assert registry.requests == []


def test_row_24_a_second_pull_is_one_head_and_prints_the_same_digest(shell: Shell, registry: LayoutRegistry) -> None:
    command = ("pull", "-q", "--plain-http", at(registry))
    assert shell.out(*command) == f"{MADE.target.digest}\n"
    registry.clear()
    assert shell.out(*command) == f"{MADE.target.digest}\n"
    assert lines(registry) == ["HEAD /v2/a/b/manifests/latest"]


def test_row_48_snapshots_that_a_container_uses_stay_when_their_image_goes(shell: Shell, image: str) -> None:
    shell.out("containers", "create", image, "c1", *NATIVE, "--snapshot-key", MADE.chain[-1])
    shell.out("images", "rm", "--sync", image)
    assert snapshots(shell) == set(MADE.chain)
    shell.out("containers", "rm", "c1")
    shell.out("gc", "run")
    assert snapshots(shell) == set()


def test_row_53_a_filter_chooses_by_name(shell: Shell, image: str) -> None:
    shell.out("images", "tag", image, "x.io/a:1", "y.io/x:1")
    assert shell.out("images", "ls", "-q", "name~=^x") == "x.io/a:1\n"
    assert shell.out("images", "ls", "-q", "name~=^none") == ""
    done = shell.run("images", "ls", "name~=")
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "invalid argument" in done.stderr


# content


@pytest.mark.parametrize(
    "expected", [("--expected-digest", f"sha256:{'0' * 64}"), ("--expected-size", "10")], ids=["28", "29"]
)
def test_row_28_and_29_an_ingest_of_other_bytes_leaves_no_ingest(shell: Shell, expected: tuple[str, ...]) -> None:
    done = shell.run("content", "ingest", "ref", *expected, stdin="12345")
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "failed precondition" in done.stderr
    assert len(shell.out("content", "active").splitlines()) == 1
    assert content(shell) == set()
    assert shell.out("content", "ingest", "ref", stdin="12345") == f"{digest_of(b'12345')}\n"


def test_row_31_of_several_blobs_the_good_ones_go(shell: Shell) -> None:
    good, other = ingested(shell, "good"), ingested(shell, "other")
    done = shell.run("content", "rm", good, "sha256:xyz", other)
    assert (done.returncode, done.stdout) == (1, f"{good}\n{other}\n")
    assert "sha256:xyz" in done.stderr
    assert content(shell) == set()


def test_row_33_labels_that_are_not_named_stay(shell: Shell) -> None:
    digest = ingested(shell, "x")
    before = labels(shell, digest)
    shell.out("content", "label", digest, "k2=old", "k3=stays")
    assert shell.out("content", "label", digest, "k=v", "k2=").splitlines()[-1].endswith("k=v,k3=stays")
    assert labels(shell, digest) == {**before, "k": "v", "k3": "stays"}
    assert ROOT_LABEL in before


# snapshots


def test_row_38_a_key_may_have_spaces(shell: Shell) -> None:
    shell.out("snapshots", "prepare", "a b")
    found = json.loads(shell.out("snapshots", "info", "a b"))
    assert (found["name"], found["kind"]) == ("a b", "active")


def test_row_40_a_layer_that_is_here_already_is_labelled_and_stays(shell: Shell, tmp_path: Path) -> None:
    shell.out("snapshots", "prepare", *NATIVE, "a")
    layer = tmp_path / "layer"
    shell.out("snapshots", "diff", *NATIVE, "-o", str(layer), "a")
    shell.out("leases", "create", "--id", "mine")
    digest = shell.out("--lease", "mine", "content", "ingest", "--no-root", "ref", str(layer)).strip()
    assert ROOT_LABEL not in labels(shell, digest)
    kept = json.loads(shell.out("snapshots", "diff", *NATIVE, "--keep", "--ref", "r", "--label", "k=v", "a"))
    assert kept["digest"] == digest
    found = labels(shell, digest)
    assert found["k"] == "v"
    assert ROOT_LABEL in found
    shell.out("leases", "rm", "--sync", "mine")
    shell.out("gc", "run")
    assert content(shell) == {digest}


# leases and containers


def test_row_44_what_only_a_lease_held_is_gone_when_the_command_returns(shell: Shell) -> None:
    shell.out("leases", "create", "--id", "l")
    shell.out("--lease", "l", "content", "ingest", "--no-root", "held", stdin="held")
    kept = ingested(shell, "kept")
    assert len(content(shell)) == 2
    assert shell.out("leases", "rm", "--sync", "l") == "l\n"
    assert content(shell) == {kept}


def test_row_46_a_container_that_is_there_keeps_its_snapshot(shell: Shell, image: str) -> None:
    command = ("containers", "create", image, "c1", *NATIVE)
    shell.out(*command, "--snapshot-key", MADE.chain[-1])
    done = shell.run(*command, "--snapshot-key", MADE.chain[0])
    assert (done.returncode, done.stdout) == (1, "")
    assert "already exists" in done.stderr
    assert json.loads(shell.out("containers", "info", "c1"))["snapshot_key"] == MADE.chain[-1]
    shell.out("images", "rm", "--sync", image)
    assert snapshots(shell) == set(MADE.chain)


def test_row_46_a_second_container_of_that_name_leaves_the_firsts_own_snapshot(shell: Shell, image: str) -> None:
    command = ("containers", "create", image, "c1", *NATIVE)
    shell.out(*command)
    done = shell.run(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "already exists" in done.stderr
    assert snapshots(shell) == {"c1", *MADE.chain}


def test_a_container_gets_a_snapshot_of_its_own(shell: Shell, image: str) -> None:
    shell.out("containers", "create", image, "c1", *NATIVE, "--snapshotter-label", "a=b")
    record = json.loads(shell.out("containers", "info", "c1"))
    assert (record["snapshotter"], record["snapshot_key"]) == ("native", "c1")
    info = json.loads(shell.out("snapshots", "info", *NATIVE, "c1"))
    assert (info["kind"], info["parent"], info["labels"]) == ("active", MADE.chain[-1], {"a": "b"})
    shell.out("gc", "run")
    assert snapshots(shell) == {"c1", *MADE.chain}
    shell.out("containers", "create", image, "c2", *NATIVE, "--no-snapshot")
    assert snapshots(shell) == {"c1", *MADE.chain}


def test_a_container_that_cannot_be_recorded_leaves_no_snapshot(shell: Shell, image: str) -> None:
    shell.out("containers", "create", image, "c1", *NATIVE, "--no-snapshot")
    done = shell.run("containers", "create", image, "c1", *NATIVE)
    assert (done.returncode, "already exists" in done.stderr) == (1, True)
    assert snapshots(shell) == set(MADE.chain)


def test_row_47_a_containers_own_snapshot_goes_with_it_unless_it_is_kept(shell: Shell, image: str) -> None:
    for name in ("gone", "kept"):
        shell.out("containers", "create", image, name, *NATIVE)
    shell.out("containers", "rm", "gone")
    assert snapshots(shell) == {"kept", *MADE.chain}
    shell.out("containers", "rm", "--keep-snapshot", "kept")
    shell.out("gc", "run")
    assert snapshots(shell) == {"kept", *MADE.chain}


def test_a_snapshot_that_another_container_has_or_that_is_committed_stays(shell: Shell, image: str) -> None:
    shell.out("snapshots", "prepare", *NATIVE, "both", MADE.chain[-1])
    for name, key in (("a", "both"), ("b", "both"), ("c", MADE.chain[-1])):
        shell.out("containers", "create", image, name, *NATIVE, "--snapshot-key", key)
    shell.out("containers", "rm", "a", "c")
    assert snapshots(shell) == {"both", *MADE.chain}
    shell.out("containers", "rm", "b")
    assert snapshots(shell) == set(MADE.chain)


# events


def test_row_52_events_of_a_pull_come_in_its_order(tmp_path: Path, registry: LayoutRegistry) -> None:
    address = f"unix:{tmp_path}/orlop.sock"
    shell = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address)
    with daemon(tmp_path / "store", "--listen", address), shell.started("events", "--since", "0", "--json") as events:
        shell.out("pull", "-q", "--plain-http", *NATIVE, at(registry))
        seen = until_topic(events, "/images/create")
    topics = [each["topic"] for each in seen]
    content_of = {each["event"]["digest"] for each in seen if each["topic"] == "/content/create"}
    assert content_of == set(MADE.blobs)
    commits = [each["event"]["name"] for each in seen if each["topic"] == "/snapshot/commit"]
    assert commits == MADE.chain
    assert topics.index("/content/create") < topics.index("/snapshot/prepare") < topics.index("/snapshot/commit")
    assert topics[-1] == "/images/create"
    assert seen[-1]["event"]["name"] == at(registry)


# parts


def test_row_57_a_part_that_fails_says_so_and_why(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "store" / "snapshots").mkdir(parents=True)
    (tmp_path / "store" / "snapshots" / "native").write_text("in the way")
    done = shell.run("plugins", "ls")
    assert (done.returncode, done.stderr) == (0, "")
    header, *listed = (line.split() for line in done.stdout.splitlines())
    assert header == ["TYPE", "ID", "PLATFORMS", "STATUS"]
    states = {line[1]: line[3] for line in listed}
    assert (states["local"], states["native"], states["leveldb"]) == ("ok", "error", "ok")
    shown = shell.out("plugins", "ls", "-d", "id==native")
    assert "Error:" in shown
    assert f"{tmp_path}/store/snapshots/native is not a folder" in shown
    (found,) = json.loads(shell.out("plugins", "ls", "--json", "id==native"))
    assert found["status"] == "error"


def until_topic(events: subprocess.Popen[str], topic: str) -> list[dict[str, Any]]:
    """What is printed up to the first event of this topic."""
    assert events.stdout is not None
    deadline = time.monotonic() + TIMEOUT_S
    text = b""
    while select.select([events.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        more = os.read(events.stdout.fileno(), 65536)
        assert more, "no more events"
        text += more
        seen = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
        for number, each in enumerate(seen):
            if each["topic"] == topic:
                return seen[: number + 1]
    raise AssertionError(f"no {topic} came: {text!r}")
