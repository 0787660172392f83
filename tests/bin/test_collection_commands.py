"""Collections at a shell: gc, why, undelete, df, prune. Source: spec cli 3 and 4, 10 (32, 51), DESIGN 8."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import make_layout
from tests.support.shell import Shell, daemon, one_line

HELP = [
    ("gc", "run"), ("gc", "status"), ("gc", "plan"), ("why",), ("undelete",), ("df",), ("images", "prune"),
    ("content", "prune", "references"),
]  # fmt: skip
SHARED = "--layers 2 --files 4 --size 200K --noise 0.9"
NATIVE = ("--snapshotter", "native")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two images that share no layer."""
    found = {}
    for seed, name in enumerate(("library/redis", "library/other")):
        found[name] = tmp_path_factory.mktemp("layout") / "layout"
        make_layout(found[name], *SHARED.split(), "--index", "--seed", str(seed))
    return found


@pytest.fixture
def registry(layouts: dict[str, Path]) -> Iterator[str]:
    with LayoutRegistry(layouts) as registry:
        yield registry.address


@pytest.fixture
def redis(shell: Shell, registry: str) -> str:
    """Pulled, not unpacked; nothing is left to collect."""
    return pull(shell, f"{registry}/library/redis:latest")


@pytest.fixture
def other(shell: Shell, registry: str) -> str:
    return pull(shell, f"{registry}/library/other:latest")


def pull(shell: Shell, name: str) -> str:
    shell.out("pull", "--plain-http", "--quiet", "--no-unpack", name)
    shell.out("gc", "run")
    return name


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Shell]:
    """Against a daemon in which dead objects wait for an hour."""
    config = tmp_path / "orlopd.toml"
    config.write_text("[gc]\ngrace_s = 3600\n")
    root = tmp_path / "served"
    with daemon(root, "--config", str(config)):
        yield Shell(HOME=str(tmp_path), ORLOP_ADDRESS=f"unix:{root}/socket")


def images(shell: Shell) -> list[str]:
    return sorted(shell.out("images", "ls", "-q").split())


def is_whole(shell: Shell, name: str) -> bool:
    return all(each["here"] for each in json.loads(shell.out("images", "inspect", "--json", name))["objects"])


def ingest(shell: Shell, data: str, *more: str) -> str:
    return shell.out("content", "ingest", *more, f"ref {data[:20]}", stdin=data).strip()


def blob_bytes(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file())


# help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_says_what_it_does(shell: Shell, command: tuple[str, ...]) -> None:
    text = shell.out(*command, "--help")
    assert text.startswith("Usage: orlop")
    assert " ".join(command) in text.splitlines()[0]
    assert "--help" in text


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_has_an_example(shell: Shell, command: tuple[str, ...]) -> None:
    lines = [line.strip() for line in shell.out(*command, "--help").splitlines()[1:]]
    assert [line for line in lines if line.startswith("orlop " + command[0])]


# gc ----------------------------------------------------------------------------------------------------------


def test_gc_run_says_what_it_removed(shell: Shell) -> None:
    text = shell.out("gc", "run")
    assert text.startswith("removed nothing; freed 0 B in ")
    ingest(shell, "x" * 50_000, "--no-root")
    ingest(shell, "kept")
    done = json.loads(shell.out("gc", "run", "--json"))
    assert done["content"] + json.loads(shell.out("gc", "run", "--json"))["content"] <= 1
    assert set(done) == {
        "leases", "images", "ingests", "content", "snapshots", "blobs", "freed", "duration_ms", "differed",
    }  # fmt: skip
    assert len(shell.out("content", "ls", "-q").splitlines()) == 1


def test_gc_run_counts_what_goes(patient: Shell, registry: str) -> None:
    pull(patient, name := f"{registry}/library/redis:latest")
    planned = json.loads(patient.out("gc", "plan", "--json", "--without", name).splitlines()[-1])
    patient.out("images", "rm", name)
    assert patient.out("gc", "run").startswith("removed nothing")
    done = patient.out("gc", "run", "--empty-bin", "--full")
    assert done.startswith(f"removed {planned['objects']} blobs; freed ")
    assert patient.out("content", "ls", "-q") == ""


def test_gc_run_full_agrees(shell: Shell, redis: str) -> None:
    done = shell.run("gc", "run", "--full", "--json")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["differed"]) == (0, "", 0)


def test_gc_status_in_words_and_in_json(shell: Shell) -> None:
    assert "0 failed" in shell.out("gc", "status")
    found = json.loads(shell.out("gc", "status", "--json"))
    assert (found["failures"], found["grace_s"], found["bin"], found["next_at"]) == (0, 0.0, [], None)


def test_gc_status_shows_the_bin(patient: Shell, registry: str) -> None:
    pull(patient, name := f"{registry}/library/redis:latest")
    patient.out("images", "rm", name)
    patient.out("gc", "run")
    text = patient.out("gc", "status")
    assert "dead objects wait in the bin for 3600 s" in text
    assert text.count("found dead") == 1
    (waiting,) = json.loads(patient.out("gc", "status", "--json"))["bin"]
    assert waiting["due_at"] - waiting["condemned_at"] == 3600 * 10**9


# gc plan -----------------------------------------------------------------------------------------------------


def test_gc_plan_without_anything_to_collect(shell: Shell, redis: str) -> None:
    assert shell.out("gc", "plan") == "0 objects, 0 blobs; would free 0 bytes (0 B)\n"
    assert json.loads(shell.out("gc", "plan", "--json")) == {"objects": 0, "blobs": 0, "freed": 0}


def test_gc_plan_is_what_removing_the_image_frees(shell: Shell, redis: str, other: str, tmp_path: Path) -> None:
    *objects, total = [json.loads(line) for line in shell.out("gc", "plan", "--json", "--without", redis).splitlines()]
    assert {each["kind"] for each in objects} == {"content"}
    assert total["objects"] == len(objects)
    assert total["freed"] == sum(each["size"] for each in objects)
    small = sum(each["size"] for each in objects if each["size"] <= 16 * 1024)
    before = blob_bytes(tmp_path)
    shell.out("images", "rm", "--sync", redis)
    assert before - blob_bytes(tmp_path) == total["freed"] - small
    left = shell.out("content", "ls", "-q").split()
    assert not {each["name"] for each in objects} & set(left)
    assert len(left) == len(objects)


def test_gc_plan_as_a_table_and_quietly(shell: Shell, redis: str) -> None:
    header, *rows, total = shell.out("gc", "plan", "--without", redis).splitlines()
    assert header.split() == ["NAMESPACE", "KIND", "NAME", "SIZE"]
    assert {row.split()[0] for row in rows} == {"default"}
    assert total.startswith(f"{len(rows)} objects, {len(rows)} blobs; would free ")
    done = shell.run("gc", "plan", "--quiet", "--without", redis)
    assert sorted(done.stdout.split()) == sorted(row.split()[2] for row in rows)
    assert done.stderr == total + "\n"
    assert images(shell) == [redis]


def test_gc_plan_without_an_image_that_is_not_there(shell: Shell) -> None:
    done = shell.run("gc", "plan", "--without", "none")
    assert (done.returncode, done.stdout) == (3, "")
    one_line(done.stderr)


# why ---------------------------------------------------------------------------------------------------------


def test_why_shows_a_line_for_each_path(shell: Shell, redis: str) -> None:
    digests = shell.out("content", "ls", "-q").split()
    for digest in digests:
        first, *paths = shell.out("why", digest).splitlines()
        assert first == f"default: content {digest} is alive"
        assert paths
        assert all(path.startswith(f"  image {redis} --target--> content ") for path in paths)
        assert all(path.endswith(f"content {digest}") for path in paths)
    assert shell.out("why", redis).splitlines() == [f"default: image {redis} is alive", f"  image {redis}"]


def test_why_in_json(shell: Shell) -> None:
    digest = ingest(shell, "blob")
    (found,) = json.loads(shell.out("why", "--json", digest))
    assert (found["namespace"], found["kind"], found["name"], found["state"]) == ("default", "content", digest, "alive")
    assert [[step["kind"] for step in path] for path in found["paths"]] == [["root", "content"]]


def test_why_has_a_limit(shell: Shell) -> None:
    digest = ingest(shell, "blob")
    for name in ("a", "b"):
        shell.out("leases", "create", "--id", name)
        shell.out("leases", "add", name, "content", digest)
    assert len(shell.out("why", digest).splitlines()) == 4
    text = shell.out("why", "--limit", "2", digest).splitlines()
    assert (len(text), text[-1]) == (4, "  ... and more")
    assert shell.run("why", "--limit", "0", digest).returncode == 2


def test_why_in_all_namespaces(shell: Shell) -> None:
    for namespace in ("one", "two"):
        shell.out("-n", namespace, "leases", "create", "--id", "l")
        digest = shell.out("-n", namespace, "--lease", "l", "content", "ingest", "ref", stdin="both").strip()
    done = shell.run("why", digest)
    assert (done.returncode, done.stdout) == (3, "")
    one_line(done.stderr)
    assert "--all-namespaces" in done.stderr
    found = json.loads(shell.out("why", "--all-namespaces", "--json", digest))
    assert [each["namespace"] for each in found] == ["one", "two"]


def test_why_takes_a_snapshot(shell: Shell) -> None:
    shell.out("snapshots", "prepare", *NATIVE, "a")
    text = shell.out("why", "native/a").splitlines()
    assert text[0] == "default: snapshot native/a is alive"


def test_why_finds_an_image_by_its_short_name(shell: Shell) -> None:
    digest = ingest(shell, "blob")
    shell.out("leases", "create", "--id", "l")
    shell.out("leases", "add", "l", "content", digest)
    done = shell.run("why", "redis")
    assert done.returncode == 3
    one_line(done.stderr)


# undelete ----------------------------------------------------------------------------------------------------


def test_undelete_brings_an_image_back(patient: Shell, registry: str) -> None:
    pull(patient, name := f"{registry}/library/redis:latest")
    before = patient.out("images", "inspect", name)
    patient.out("images", "rm", name)
    patient.out("gc", "run")
    assert images(patient) == []
    assert patient.out("undelete", name) == f"image {name} is back, kept by itself\n"
    patient.out("gc", "run", "--empty-bin")
    assert patient.out("images", "inspect", name) == before
    assert is_whole(patient, name)


def test_undelete_brings_a_blob_back_in_json(patient: Shell) -> None:
    patient.out("leases", "create", "--id", "l")
    digest = patient.out("--lease", "l", "content", "ingest", "--no-root", "ref", stdin="blob").strip()
    patient.out("leases", "rm", "l")
    patient.out("gc", "run")
    text = patient.out("why", digest)
    assert "is condemned" in text
    assert "it was kept last by lease l (entry)" in text
    assert f"orlop undelete {digest}" in text
    done = json.loads(patient.out("undelete", "--json", digest))
    assert done == {"kind": "content", "name": digest, "kept_by": "label containerd.io/gc.root"}
    patient.out("gc", "run", "--empty-bin")
    assert patient.out("content", "get", digest) == "blob"


def test_undelete_of_what_is_alive_or_nowhere(patient: Shell) -> None:
    digest = ingest(patient, "blob")
    for name, code in ((digest, 1), ("none", 3), ("native/none", 3)):
        done = patient.run("undelete", name)
        assert (done.returncode, done.stdout) == (code, "")
        one_line(done.stderr)


# df ----------------------------------------------------------------------------------------------------------


def test_df_counts_each_namespace_and_the_store(shell: Shell) -> None:
    for namespace in ("one", "two"):
        ingest_in = ("-n", namespace, "content", "ingest")
        shell.out(*ingest_in, "both", stdin="x" * 2048)
        shell.out(*ingest_in, "own", stdin=namespace * 341)
    found = json.loads(shell.out("df", "--json"))
    each = {"packed": 3071, "unpacked": 0, "exclusive": 1023, "shared": 2048, "reclaimable": 0}
    assert {name: found["namespaces"][name] for name in ("one", "two")} == {"one": each, "two": each}
    assert found["total"] == {**each, "packed": 4094, "exclusive": 2046}
    header, *rows = shell.out("df").splitlines()
    assert header.split() == ["NAMESPACE", "PACKED", "UNPACKED", "EXCLUSIVE", "SHARED", "RECLAIMABLE"]
    assert [row.split()[0] for row in rows][-3:] == ["one", "two", "(store)"]
    assert rows[-1].split()[1:3] == ["4.0", "KiB"]


def test_df_of_an_empty_store(shell: Shell) -> None:
    _, total = shell.out("df").splitlines()
    assert total.split() == ["(store)", *["0", "B"] * 5]


# images prune ------------------------------------------------------------------------------------------------


def test_pruning_images_takes_a_filter_or_all(shell: Shell, redis: str) -> None:
    for more in ((), ("--dry-run",)):
        done = shell.run("images", "prune", *more)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "nothing pruned: give filters, or --all\n"
    assert images(shell) == [redis]


def test_pruning_all_images_keeps_what_containers_use(shell: Shell, redis: str, other: str) -> None:
    shell.out("containers", "create", other, "c1")
    done = shell.run("images", "prune", "--all")
    assert (done.returncode, done.stdout) == (0, f"{redis}\n")
    assert done.stderr.startswith("1 images; freed ")
    assert images(shell) == [other]
    assert is_whole(shell, other)
    digests = {each["digest"] for each in json.loads(shell.out("images", "inspect", "--json", other))["objects"]}
    assert set(shell.out("content", "ls", "-q").split()) == digests


def test_pruning_images_by_filter(shell: Shell, redis: str, other: str) -> None:
    shell.out("images", "label", redis, "old")
    assert shell.out("images", "prune", "labels.old==true") == f"{redis}\n"
    assert images(shell) == [other]
    assert shell.out("images", "prune", "labels.old==true") == ""


def test_a_filter_spares_what_containers_use(shell: Shell, redis: str, other: str) -> None:
    shell.out("containers", "create", other, "c1")
    assert shell.out("images", "prune", "name~=latest") == f"{redis}\n"
    assert images(shell) == [other]


def test_a_dry_run_says_what_pruning_images_then_frees(shell: Shell, redis: str, other: str) -> None:
    done = shell.run("images", "prune", "--dry-run", "--all")
    assert (done.returncode, sorted(done.stdout.split())) == (0, sorted([redis, other]))
    assert images(shell) == sorted([redis, other])
    freed = done.stderr.partition("would free ")[2]
    assert shell.run("images", "prune", "--all").stderr == f"2 images; freed {freed}"
    assert shell.out("content", "ls", "-q") == ""


def test_pruning_with_a_filter_that_cannot_be_read(shell: Shell, redis: str) -> None:
    done = shell.run("images", "prune", "labels.a/b==1")
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert images(shell) == [redis]


def test_pruning_concerns_one_namespace(shell: Shell, redis: str) -> None:
    assert shell.out("-n", "elsewhere", "images", "prune", "--all") == ""
    assert images(shell) == [redis]


# content prune references ------------------------------------------------------------------------------------


def layers_of(shell: Shell, name: str) -> list[str]:
    objects = json.loads(shell.out("images", "inspect", "--json", name))["objects"]
    return sorted(each["digest"] for each in objects if "layer" in each["media_type"])


def test_layers_of_what_is_unpacked_go_and_it_can_still_be_mounted(
    shell: Shell, redis: str, other: str, tmp_path: Path
) -> None:
    shell.out("images", "unpack", "--quiet", *NATIVE, redis)
    gone, kept = layers_of(shell, redis), layers_of(shell, other)
    done = shell.run("content", "prune", "references")
    assert (done.returncode, sorted(line.split()[2] for line in done.stdout.splitlines())) == (0, gone)
    assert done.stderr.splitlines()[0] == "2 references removed"
    left = shell.out("content", "ls", "-q").split()
    assert set(left).isdisjoint(gone)
    assert set(kept) < set(left)
    assert images(shell) == sorted([redis, other])
    chain = shell.out("images", "rootfs", *NATIVE, redis).strip()
    (mount,) = json.loads(shell.out("snapshots", "view", *NATIVE, "--mounts", "v", chain))
    assert len(list(Path(mount.get("Source") or mount["source"]).rglob("*"))) > 4


def test_a_dry_run_removes_no_reference(shell: Shell, redis: str) -> None:
    shell.out("images", "unpack", "--quiet", *NATIVE, redis)
    before = shell.out("content", "ls", "--json")
    for flag in ("--dry-run", "--dry"):
        done = shell.run("content", "prune", "references", flag)
        assert (done.returncode, sorted(line.split()[2] for line in done.stdout.splitlines())) == (
            0, layers_of(shell, redis),
        )  # fmt: skip
        assert done.stderr == "2 references would go\n"
    shell.out("gc", "run")
    assert shell.out("content", "ls", "--json") == before


def test_references_of_what_is_not_unpacked_stay(shell: Shell, redis: str) -> None:
    done = shell.run("content", "prune", "references")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "0 references removed\n")
    assert is_whole(shell, redis)


def test_references_of_what_is_no_longer_unpacked_stay(shell: Shell, redis: str) -> None:
    shell.out("images", "unpack", "--quiet", *NATIVE, redis)
    names = shell.out("snapshots", "ls", *NATIVE, "-q").split()
    for name in (*names, *names):  # children before parents, whatever their order
        shell.run("snapshots", "rm", *NATIVE, name)
    assert shell.out("snapshots", "ls", *NATIVE, "-q") == ""
    assert shell.run("content", "prune", "references").stderr == "0 references removed\n"


def test_references_are_pruned_by_filter(shell: Shell, redis: str, other: str) -> None:
    for name in (redis, other):
        shell.out("images", "unpack", "--quiet", *NATIVE, name)
    objects = json.loads(shell.out("images", "inspect", "--json", redis))["objects"]
    manifest = next(each["digest"] for each in objects if "manifest" in each["media_type"])
    text = shell.out("content", "prune", "references", f"digest=={manifest}")
    assert {line.split()[0] for line in text.splitlines()} == {manifest}
    assert set(layers_of(shell, other)) < set(shell.out("content", "ls", "-q").split())


def test_a_layer_that_another_image_needs_stays(shell: Shell, redis: str) -> None:
    shell.out("images", "unpack", "--quiet", *NATIVE, redis)
    layer = layers_of(shell, redis)[0]
    shell.out("content", "label", layer, "containerd.io/gc.root=wanted")
    shell.out("content", "prune", "references")
    assert layer in shell.out("content", "ls", "-q").split()
