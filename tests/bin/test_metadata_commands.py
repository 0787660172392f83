"""Containers, leases, labels, filters and events at a shell. Source: spec cli 2, 3, 6, 7, 8 and 11."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import HOST
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import make_layout
from tests.support.shell import Shell, one_line

SPEC = {"ociVersion": "1.2.0", "process": {"args": ["sh"]}}


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC))
    return str(path)


@pytest.fixture
def pulled(shell: Shell, tmp_path: Path) -> Iterator[str]:
    """An image that was pulled from a registry on loopback."""
    layout = tmp_path / "layout"
    make_layout(layout, "--layers", "2", "--files", "4", "--size", "200K", "--noise", "0.9", "--index")
    with LayoutRegistry({"library/redis": layout}) as registry:
        name = f"{registry.address}/library/redis:latest"
        shell.out("pull", "--plain-http", name)
        yield name


def test_a_container_is_recorded_labelled_listed_and_removed(shell: Shell, spec: str) -> None:
    assert shell.out("containers", "create", "--config", spec, "c1", "--label", "tier=db", "--runtime", "rt") == ""
    assert shell.out("containers", "ls").splitlines() == ["CONTAINER IMAGE RUNTIME", "c1        -     rt"]
    assert shell.out("containers", "label", "c1", "zone=a", "tier=") == "zone=a\n"
    assert shell.out("containers", "label", "c1") == "zone=a\n"
    record = json.loads(shell.out("containers", "info", "c1"))
    assert (record["id"], record["labels"], record["spec"]["value"]) == ("c1", {"zone": "a"}, SPEC)
    assert json.loads(shell.out("containers", "info", "--spec", "c1")) == SPEC
    assert shell.out("containers", "rm", "c1") == "c1\n"
    assert shell.out("containers", "ls", "-q") == ""


def test_creating_a_container_twice_is_an_error_and_the_first_stays(shell: Shell, spec: str) -> None:
    shell.out("containers", "create", "--config", spec, "c1", "--label", "n=1")
    done = shell.run("containers", "create", "--config", spec, "c1", "--label", "n=2")
    assert done.returncode == 1
    one_line(done.stderr)
    assert shell.out("containers", "label", "c1") == "n=1\n"


def test_of_several_containers_the_good_ones_are_removed(shell: Shell, spec: str) -> None:
    for name in ("a", "b"):
        shell.out("containers", "create", "--config", spec, name)
    done = shell.run("containers", "rm", "a", "none", "b")
    assert (done.returncode, done.stdout) == (3, "a\nb\n")


@pytest.mark.parametrize("broken", ["{", "[1,"])
def test_a_spec_that_is_no_json_is_a_usage_error(shell: Shell, tmp_path: Path, broken: str) -> None:
    (tmp_path / "bad.json").write_text(broken)
    done = shell.run("containers", "create", "--config", str(tmp_path / "bad.json"), "c1")
    assert done.returncode == 2
    assert shell.out("containers", "ls", "-q") == ""


def test_a_container_of_an_image_takes_over_its_labels(shell: Shell, pulled: str) -> None:
    shell.out("containers", "create", pulled, "c1", "--label", "mine=1")
    record = json.loads(shell.out("containers", "info", "c1"))
    assert record["image"] == pulled
    assert record["labels"]["mine"] == "1"
    assert record["labels"]["io.containerd.image.config.stop-signal"] == "SIGTERM"


def test_images_are_labelled_and_inspected(shell: Shell, pulled: str) -> None:
    assert shell.out("images", "label", pulled, "tier=db", "zone") == "tier=db,zone=true\n"
    assert shell.out("images", "label", pulled, "zone=") == "tier=db\n"
    assert shell.out("images", "label", "-r", pulled, "only=this") == "only=this\n"
    assert shell.out("images", "label", pulled) == "only=this\n"
    assert shell.out("images", "ls", "-q", "labels.only==this") == f"{pulled}\n"
    assert shell.out("images", "ls", "-q", "labels.only!=this") == ""
    tree = shell.out("images", "inspect", pulled)
    assert tree.startswith(f"{pulled}\n Created: ")
    kinds = [line.strip(" │├└─").split(" ")[0] for line in tree.splitlines()[4:]]
    assert [kind.partition("image.")[2].partition(".")[0] for kind in kinds] == [
        "index", "manifest", "config", "layer", "layer",
    ]  # fmt: skip
    assert "(not here)" not in tree
    found = json.loads(shell.out("images", "inspect", "--json", pulled))
    assert found["image"]["name"] == pulled
    assert all(each["here"] for each in found["objects"])
    assert '"layers"' in shell.out("images", "inspect", "--content", pulled)


def test_what_is_missing_of_an_image_is_said(shell: Shell, pulled: str) -> None:
    objects = json.loads(shell.out("images", "inspect", "--json", pulled))["objects"]
    layer = next(each for each in objects if "layer" in each["media_type"])
    shell.out("content", "rm", layer["digest"])
    assert shell.out("images", "inspect", pulled).count("(not here)") == 1


def test_leases_keep_what_is_made_under_them(shell: Shell) -> None:
    assert shell.out("leases", "create", "--id", "l1", "--expires", "1h30m", "owner=ci") == "l1\n"
    digest = shell.out("--lease", "l1", "content", "ingest", "--no-root", "ref", stdin="hello").strip()
    assert shell.out("leases", "resources", "l1").splitlines()[1].split() == ["content", digest]
    assert shell.out("leases", "resources", "-q", "l1") == f"{digest}\n"
    header, row = shell.out("leases", "ls").splitlines()
    assert header.split("  ")[0] == "ID CREATED AT"
    assert row.startswith("l1 ")
    assert "owner=ci" in row
    shell.out("leases", "add", "l1", "images", "some/image:1")
    shell.out("leases", "rm-resource", "l1", "content", digest)
    assert json.loads(shell.out("leases", "resources", "--json", "l1")) == [{"id": "some/image:1", "type": "images"}]
    assert shell.out("leases", "rm", "--sync", "l1") == "l1\n"
    assert shell.out("content", "ls", "-q") == ""


def test_a_lease_without_end_has_no_expiry_and_a_second_of_its_name_is_refused(shell: Shell) -> None:
    shell.out("leases", "create", "--id", "x", "--expires", "0")
    assert json.loads(shell.out("leases", "ls", "--json"))[0]["labels"] == {}
    assert shell.run("leases", "create", "--id", "x").returncode == 1
    assert len(shell.out("leases", "create").strip()) > 4


def test_of_several_leases_the_good_ones_end(shell: Shell) -> None:
    shell.out("leases", "create", "--id", "good")
    done = shell.run("leases", "rm", "missing", "good")
    assert (done.returncode, done.stdout) == (3, "good\n")


@pytest.mark.parametrize("bad", ["soon", "1x", "-5", "1h 2m"])
def test_a_duration_that_cannot_be_read_is_a_usage_error(shell: Shell, bad: str) -> None:
    done = shell.run("leases", "create", "--expires", bad)
    assert done.returncode == 2
    assert shell.out("leases", "ls", "-q") == ""


def test_content_is_labelled(shell: Shell) -> None:
    digest = shell.out("content", "ingest", "ref", stdin="x").strip()
    assert "k=v" in shell.out("content", "label", digest, "k=v", "k2=")
    assert shell.out("content", "ls", "-q", "labels.k==v") == f"{digest}\n"


def test_lists_run_over_all_namespaces(shell: Shell, spec: str) -> None:
    for namespace in ("one", "two"):
        shell.out("-n", namespace, "containers", "create", "--config", spec, f"in-{namespace}")
    assert shell.out("containers", "ls", "-q") == ""
    assert shell.out("containers", "ls", "-A", "-q").splitlines() == ["one in-one", "two in-two"]
    assert shell.out("containers", "ls", "-A").splitlines()[0].split() == ["NAMESPACE", "CONTAINER", "IMAGE", "RUNTIME"]
    found = json.loads(shell.out("containers", "ls", "-A", "--json", "id==in-two"))
    assert [(each["namespace"], each["id"]) for each in found] == [("two", "in-two")]


@pytest.mark.parametrize("command", ["images", "containers", "content", "leases"])
def test_a_filter_that_cannot_be_read_says_where(shell: Shell, command: str) -> None:
    done = shell.run(command, "ls", "id==x", "labels.example.com/x==1")
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert ">|/|<" in done.stderr
    assert "double quotes" in done.stderr


def test_events_are_filtered(shell: Shell, spec: str) -> None:
    shell.out("containers", "create", "--config", spec, "c1")
    shell.out("-n", "other", "containers", "create", "--config", spec, "c2")
    shell.out("content", "ingest", "ref", stdin="x")
    since = ("events", "--since", "0", "--no-follow")
    assert len(shell.out(*since).splitlines()) == 3
    assert "c2" in shell.out(*since, "--filter", "namespace==other")
    both = shell.out(*since, "--filter", "event.id==c1", "--filter", "topic~=^/content/").splitlines()
    assert [line.split()[3] for line in both] == ["/containers/create", "/content/create"]


def test_who_serves_is_told(shell: Shell) -> None:
    found = json.loads(shell.out("info"))
    assert found["namespace"] == "default"
    assert found["counts"] == {"images": 0, "containers": 0, "content": 0, "snapshots": 0, "leases": 0}
    assert len(found["server"]["uuid"]) == 36
    assert "io.orlop.content.v1" in shell.out("plugins", "ls")
    assert shell.out("plugins", "ls", "-q", "id==local") == "local\n"
    assert shell.out("plugins", "ls", "-d", "id==nobody") == ""


def test_parts_say_what_they_export_and_can(shell: Shell, tmp_path: Path) -> None:
    shown = shell.out("plugins", "ls", "-d", "id==local", "id==native")
    first, second = shown.split("\n\n")
    assert first.splitlines() == [
        "Type:         io.orlop.content.v1",
        "ID:           local",
        "Status:       ok",
        "Capabilities: shared",
        f"Exports:      root={tmp_path}/store/blobs",
    ]
    assert f"Exports:      root={tmp_path}/store/snapshots/native" in second.splitlines()
    assert f"Platforms:    {HOST}" in second.splitlines()


def test_a_namespace_without_given_labels_shows_those_it_has(shell: Shell) -> None:
    shell.out("namespaces", "create", "foo", "a=1", "b=2")
    assert shell.out("namespaces", "label", "foo") == "a=1,b=2\n"
    assert shell.out("namespaces", "label", "foo", "a=", "c=3") == "b=2,c=3\n"
