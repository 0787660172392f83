"""Images at a shell: import, export, convert and tag. Source: spec cli 3, 10 and 11, whose rows the numbers in comments
are.

What they do to a store is in tests/integration; here is what a person sees and types.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.archive_stores import written
from tests.support.archives import HOST, OTHER, for_other, layout_files, members, named, simple
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import write_layout
from tests.support.shell import CLI, ENVIRONMENT, Shell, one_line

NAME = "quay.io/a/b:1"
MADE = simple()
LINE = f"{NAME} {MADE.target.digest}"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return written(tmp_path, layout_files([(MADE, named(NAME))]))


@pytest.fixture
def imported(shell: Shell, archive: Path) -> str:
    shell.out("images", "import", "-q", "--no-unpack", str(archive))
    return NAME


def names(shell: Shell) -> list[str]:
    return shell.out("images", "ls", "-q").split()


def targets(shell: Shell) -> dict[str, str]:
    return {each["name"]: each["target"]["digest"] for each in json.loads(shell.out("images", "ls", "--json"))}


# import


def test_an_import_prints_names_and_digests_and_tells_the_rest_elsewhere(shell: Shell, archive: Path) -> None:
    done = shell.run("images", "import", str(archive))
    assert (done.returncode, done.stdout) == (0, LINE + "\n")
    assert f"blob ({MADE.layers[0].digest[7:19]}): complete" in done.stderr
    assert "\x1b" not in done.stderr
    assert len(shell.out("snapshots", "ls", "-q").split()) == 2
    quiet = shell.run("images", "import", "--quiet", str(archive))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, LINE + "\n", "")
    (found,) = json.loads(shell.out("images", "import", "--json", str(archive)))
    assert (found["name"], found["target"]["digest"]) == (NAME, MADE.target.digest)


def test_layers_may_stay_packed(shell: Shell, imported: str) -> None:
    assert shell.out("snapshots", "ls", "-q") == ""


def test_an_archive_comes_through_standard_input(shell: Shell, archive: Path) -> None:  # 18
    assert shell.out("images", "import", "-q", "-", stdin=archive.read_bytes()) == LINE + "\n"


def test_a_stream_that_is_cut_short_brings_nothing(shell: Shell, archive: Path) -> None:  # 18
    data = archive.read_bytes()
    for at in (0, 700, len(data) // 2, len(data) - 1024):
        done = shell.run("images", "import", "-q", "-", stdin=data[:at])
        assert (done.returncode, done.stdout) == (1, "")
        one_line(done.stderr)
    assert names(shell) == []


def test_a_name_from_an_archive_does_not_command_the_terminal(shell: Shell, tmp_path: Path) -> None:
    name = "a\x1b[2Jb"
    path = written(tmp_path, layout_files([(MADE, named(name, name))]))
    done = shell.run("images", "import", "-q", "--no-unpack", str(path))
    assert (done.returncode, done.stdout) == (0, f"a\\x1b[2Jb {MADE.target.digest}\n")
    assert targets(shell) == {name: MADE.target.digest}


def test_an_archive_without_names_fails_and_says_what_to_do(shell: Shell, tmp_path: Path) -> None:  # 19
    path = str(written(tmp_path, layout_files([(MADE, {})])))
    done = shell.run("images", "import", "-q", path)
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "--digests" in done.stderr
    name, digest = shell.out("images", "import", "-q", "--digests", path).split()
    assert name.startswith("import-20")
    assert name.endswith(f"@{digest}")
    assert digest == MADE.target.digest


def test_options_say_what_images_are_called(shell: Shell, tmp_path: Path) -> None:  # 21
    entries = [(MADE, named("", "v1")), (simple("2"), {})]
    path = str(written(tmp_path, layout_files(entries)))
    base = ("images", "import", "-q", "--no-unpack", "--base-name", "foo.io/x")
    assert shell.out(*base, path) == f"foo.io/x:v1 {MADE.target.digest}\n"
    found = shell.out(*base, "--digests", "--skip-digest-for-named", path).split()
    assert found[::2] == ["foo.io/x:v1", f"foo.io/x@{simple('2').target.digest}"]
    found = shell.out(*base, "--digests", path).split()
    assert found[::2] == [
        "foo.io/x:v1",
        f"foo.io/x@{MADE.target.digest}",
        f"foo.io/x@{simple('2').target.digest}",
    ]
    found = shell.out(*base, "--index-name", "foo.io/all:1", path).split()
    assert found[::2] == ["foo.io/all:1", "foo.io/x:v1"]


def test_labels_are_given_to_the_images(shell: Shell, archive: Path) -> None:
    shell.out("images", "import", "-q", "--no-unpack", "--label", "tier=db", "--label", "mine", str(archive))
    assert shell.out("images", "ls", "-q", "labels.tier==db,labels.mine==true").split() == [NAME]


@pytest.mark.parametrize(
    "arguments",
    [
        ("import",),
        ("import", "--no-unpack", "--discard-unpacked-layers", "x.tar"),  # 20
        ("import", "--skip-digest-for-named", "x.tar"),
        ("import", "--platform", "linux/amd64", "--all-platforms", "x.tar"),
        ("import", "--label", "=x", "x.tar"),
        ("export", "x.tar"),
        ("export", "x.tar", "a", "--missing", "sometimes"),
        ("export", "x.tar", "a", "--compress", "lzw"),
        ("export", "--platform", "linux/amd64", "--all-platforms", "x.tar", "a"),
        ("convert", "a"),
        ("convert", "--platform", "linux/amd64", "--all-platforms", "a", "b"),
        ("tag", "a"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_does_nothing(shell: Shell, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = shell.run("images", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: " in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [("import", "x.tar"), ("export", "x.tar", "a"), ("convert", "a", "b")], ids=str)
def test_what_is_no_platform_is_said(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run("images", arguments[0], "--platform", "bogus", *arguments[1:])
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "bogus" in done.stderr


def test_a_file_that_is_not_there_is_not_found(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("images", "import", "-q", str(tmp_path / "none.tar"))
    assert (done.returncode, done.stdout) == (3, "")
    one_line(done.stderr)
    assert "none.tar" in done.stderr


@pytest.mark.parametrize("command", ["import", "export", "convert", "check"])
def test_help_comes_with_examples(shell: Shell, command: str) -> None:
    text = shell.out("images", command, "--help")
    assert f"orlop images {command} " in text


# export


def test_an_export_says_on_standard_error_what_it_wrote(shell: Shell, imported: str, tmp_path: Path) -> None:
    done = shell.run("images", "export", str(tmp_path / "x.tar"), imported)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{tmp_path}/x.tar: 1 image, 4 blobs" in done.stderr
    assert "\x1b" not in done.stderr
    assert {"index.json", "manifest.json", "oci-layout"} <= set(members(tmp_path / "x.tar"))
    shell.out("images", "export", "-q", "--skip-manifest-json", str(tmp_path / "y.tar"), imported)
    assert "manifest.json" not in members(tmp_path / "y.tar")
    shell.out("images", "export", "-q", "--compress", "zstd", str(tmp_path / "z.tar"), imported)
    assert (tmp_path / "z.tar").read_bytes().startswith(b"\x28\xb5\x2f\xfd")
    assert members(tmp_path / "z.tar") == members(tmp_path / "x.tar")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_an_export_to_standard_output_is_the_archive_alone(
    shell: Shell, imported: str, tmp_path: Path, compression: str
) -> None:  # 17
    done = shell.run("images", "export", "--compress", compression, "-", imported)
    assert done.returncode == 0
    shell.out("images", "export", "--compress", compression, str(tmp_path / "x"), imported)
    assert done.raw == (tmp_path / "x").read_bytes()
    assert shell.out("-n", "other", "images", "import", "-q", "-", stdin=done.raw) == LINE + "\n"


def test_short_names_are_what_pull_makes_of_them(shell: Shell, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(MADE, named("docker.io/library/t:latest"))]))
    shell.out("images", "import", "-q", "--no-unpack", str(path))
    shell.out("images", "export", str(tmp_path / "x.tar"), "t", "docker.io/library/t:latest")
    index = json.loads(members(tmp_path / "x.tar")["index.json"] or b"")
    assert len(index["manifests"]) == 1


def test_an_export_of_what_is_not_there_leaves_no_file(shell: Shell, imported: str, tmp_path: Path) -> None:  # 16
    before = sorted(os.listdir(tmp_path))
    done = shell.run("images", "export", str(tmp_path / "x.tar"), imported, "none")
    assert done.returncode in (1, 3)
    assert done.stdout == ""
    one_line(done.stderr)
    assert "none" in done.stderr
    assert sorted(os.listdir(tmp_path)) == before


def test_what_is_missing_is_told_with_what_can_be_done(shell: Shell, imported: str, tmp_path: Path) -> None:
    missing = MADE.layers[1].digest
    shell.out("content", "rm", missing)
    done = shell.run("images", "export", str(tmp_path / "x.tar"), imported)
    assert done.returncode in (1, 3)
    one_line(done.stderr)
    for part in (missing, HOST, "--missing=fetch", "--missing=skip"):
        assert part in done.stderr
    shell.out("images", "export", "--missing", "skip", str(tmp_path / "x.tar"), imported)
    assert f"blobs/{missing.replace(':', '/')}" not in members(tmp_path / "x.tar")


def test_what_is_missing_is_fetched_with_docker_s_own_credentials(shell: Shell, tmp_path: Path) -> None:
    with FaultyRegistry({"a/b": write_layout(tmp_path / "layout", MADE)}) as registry:
        registry.require_basic("ann", "secret")
        config = {"auths": {registry.address: {"auth": base64.b64encode(b"ann:secret").decode()}}}
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
        name = f"{registry.address}/a/b:latest"
        shell.out("pull", "--plain-http", "--no-unpack", "-q", name)
        shell.out("content", "rm", MADE.layers[0].digest)
        shell.out("gc", "run")
        shell.out("images", "export", "--missing=fetch", "--plain-http", str(tmp_path / "x.tar"), name)
    data = members(tmp_path / "x.tar")[f"blobs/{MADE.layers[0].digest.replace(':', '/')}"]
    assert data == MADE.layers[0].data


def test_a_standard_output_that_is_full_or_gone_is_no_traceback(shell: Shell, imported: str, tmp_path: Path) -> None:
    command = [*CLI, "images", "export", "-q", "-", imported]
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_STORE": str(tmp_path / "store")}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    one_line(done.stderr)
    assert "standard output" in done.stderr
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# convert


def test_a_conversion_prints_the_new_digest(shell: Shell, imported: str) -> None:
    digest = shell.out("images", "convert", "--zstd", imported, "quay.io/a/b:zstd").strip()
    assert targets(shell) == {NAME: MADE.target.digest, "quay.io/a/b:zstd": digest}
    for option in ("--gzip", "--uncompress", "--oci"):
        assert shell.out("images", "convert", "-q", option, "quay.io/a/b:zstd", f"quay.io/a/b:from{option}")
    assert targets(shell)["quay.io/a/b:from--oci"] == digest


def test_a_conversion_moves_no_name_unless_told(shell: Shell, imported: str) -> None:
    shell.out("images", "tag", imported, "quay.io/a/b:2")
    done = shell.run("images", "convert", "-q", "--zstd", imported, "quay.io/a/b:2")
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "--force" in done.stderr
    assert targets(shell)["quay.io/a/b:2"] == MADE.target.digest
    digest = shell.out("images", "convert", "-q", "--zstd", "--force", imported, "quay.io/a/b:2").strip()
    assert targets(shell)["quay.io/a/b:2"] == digest


def test_the_name_of_a_conversion_is_normalised_unless_told(shell: Shell, imported: str) -> None:
    shell.out("images", "convert", "-q", "--zstd", imported, "short")
    shell.out("images", "convert", "-q", "--zstd", "--literal", imported, "Literal")
    assert set(names(shell)) == {NAME, "docker.io/library/short:latest", "Literal"}
    assert shell.run("images", "convert", "-q", "--zstd", imported, "BAD:x").returncode == 1
    assert shell.run("images", "convert", "-q", "--zstd", "none", "other").returncode == 3


def test_an_image_of_another_platform_is_converted_by_name(shell: Shell, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([({HOST: MADE, OTHER: for_other()}, named(NAME))]))
    shell.out("images", "import", "-q", "--no-unpack", str(path))
    digests = {shell.out("images", "convert", "-q", "--zstd", *options, "--force", NAME, "x").strip() for options in (
        (), ("--platform", OTHER), ("--all-platforms",), ("--platform", OTHER, "--platform", HOST),
    )}  # fmt: skip
    assert len(digests) == 3


# tag


def test_names_that_exist_are_moved_only_by_force(shell: Shell, imported: str, tmp_path: Path) -> None:  # 11
    other = written(tmp_path, layout_files([(simple("2"), named("quay.io/c/d:2"))]))
    shell.out("images", "import", "-q", "--no-unpack", str(other))
    done = shell.run("images", "tag", NAME, "quay.io/c/d:2")
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "already exists" in done.stderr
    assert "--force" in done.stderr
    assert targets(shell)["quay.io/c/d:2"] == simple("2").target.digest
    assert shell.out("images", "tag", "--force", NAME, "quay.io/c/d:2") == "quay.io/c/d:2\n"
    assert targets(shell) == {NAME: MADE.target.digest, "quay.io/c/d:2": MADE.target.digest}


def test_several_names_are_given_and_printed_in_order(shell: Shell, imported: str) -> None:  # 12
    assert shell.out("images", "tag", NAME, "quay.io/z:1", "quay.io/a:2") == "quay.io/z:1\nquay.io/a:2\n"
    assert set(targets(shell).values()) == {MADE.target.digest}
    assert len(targets(shell)) == 3


def test_what_can_be_tagged_is_and_the_exit_tells_the_rest(shell: Shell, imported: str) -> None:
    """As every command does that takes several names. Spec cli 10."""
    done = shell.run("images", "tag", NAME, "quay.io/z:1", NAME, "BAD:x", "quay.io/a:2")
    assert (done.returncode, done.stdout) == (1, "quay.io/z:1\nquay.io/a:2\n")
    assert "BAD:x" in done.stderr
    assert "already exists" in done.stderr
    assert set(names(shell)) == {NAME, "quay.io/z:1", "quay.io/a:2"}


def test_names_are_checked_and_normalised_unless_told(shell: Shell, imported: str) -> None:  # 13
    done = shell.run("images", "tag", NAME, "BAD:x")
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "BAD:x" in done.stderr
    assert shell.out("images", "tag", NAME, "busybox") == "docker.io/library/busybox:latest\n"
    assert shell.out("images", "tag", "--skip-reference-check", NAME, "BAD:x", "busybox") == "BAD:x\nbusybox\n"
    assert set(names(shell)) == {NAME, "docker.io/library/busybox:latest", "BAD:x", "busybox"}


def test_a_source_that_is_not_there_is_not_found(shell: Shell, imported: str) -> None:
    done = shell.run("images", "tag", "none", "other")
    assert (done.returncode, done.stdout) == (3, "")
    one_line(done.stderr)
    assert names(shell) == [NAME]


def test_a_stream_through_real_pipes(shell: Shell, imported: str, tmp_path: Path) -> None:
    """`orlop images export - x | orlop images import -`, with two stores."""
    environment = {**ENVIRONMENT, "HOME": str(tmp_path)}
    with subprocess.Popen(
        [*CLI, "images", "export", "-", imported],
        env={**environment, "ORLOP_STORE": str(tmp_path / "store")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as export:
        done = subprocess.run(
            [*CLI, "images", "import", "-q", "-"],
            env={**environment, "ORLOP_STORE": str(tmp_path / "other")},
            stdin=export.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (export.returncode, done.returncode, done.stdout) == (0, 0, LINE + "\n")


def test_a_standard_input_that_is_closed_is_no_traceback(shell: Shell, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_STORE": str(tmp_path / "store")}
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *CLI, "images", "import", "-q", "-"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert "standard input" in done.stderr
