"""content edit: what an editor makes of a blob, and whom it leaves alone. Source: spec cli 4.

The editors are programs: sed, a shell script, and at a terminal one that asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.archive_stores import written
from tests.support.archives import layout_files, named, simple
from tests.support.images import MadeImage
from tests.support.layers import digest_of
from tests.support.shell import CLI, ENVIRONMENT, Shell, one_line
from tests.support.terminal import Terminal

NAME = "quay.io/a/b:1"
MADE = simple(layers=2)
ROOT = "containerd.io/gc.root"
TEXT = b"one\ntwo\n"
TO_THREE = "sed -i s/two/three/"
CHANGED = b"one\nthree\n"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the copies are, and are to be gone from."""
    folder = tmp_path / "temporary files"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def text(shell: Shell) -> str:
    return ingested(shell, TEXT)


@pytest.fixture
def made(shell: Shell, tmp_path: Path) -> MadeImage:
    """An image, which is in the store."""
    archive = written(tmp_path, layout_files([(MADE, named(NAME))]))
    shell.out("images", "import", "-q", "--no-unpack", str(archive))
    return MADE


def ingested(shell: Shell, data: bytes, *labels: str) -> str:
    options = [part for label in labels for part in ("--label", label)]
    return shell.out("content", "ingest", "ref", *options, stdin=data).strip()


def labels(shell: Shell, digest: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(shell.out("content", "info", digest))["labels"]
    return found


def content(shell: Shell) -> set[str]:
    return set(shell.out("content", "ls", "-q").split())


def python(code: str) -> str:
    """An editor that runs this over `path`."""
    return f"{sys.executable} -c {shlex.quote(f'import json, os, sys; path = sys.argv[1]; {code}')}"


def rewriting(expression: str) -> str:
    """An editor of JSON: `it` is the document before, the expression the one after."""
    return python(f"it = json.load(open(path)); json.dump({expression}, open(path, 'w'))")


def test_the_result_is_a_blob_of_its_own(shell: Shell, text: str, temporary: Path) -> None:
    done = shell.run("content", "edit", text, EDITOR=TO_THREE)
    assert (done.returncode, done.stdout, done.stderr) == (0, digest_of(CHANGED) + "\n", "")
    assert shell.run("content", "get", digest_of(CHANGED)).raw == CHANGED
    assert shell.run("content", "get", text).raw == TEXT
    assert os.listdir(temporary) == []


def test_what_is_not_changed_has_the_same_digest_and_that_is_said(shell: Shell, text: str, temporary: Path) -> None:
    done = shell.run("content", "edit", text, EDITOR="true")
    assert (done.returncode, done.stdout, done.stderr) == (0, text + "\n", "unchanged\n")
    assert content(shell) == {text}
    assert shell.out("content", "active", "-q") == ""
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("editor", ["false", "sh -c 'echo more >> $0; exit 3'", "no-such-editor", "rm"])
def test_an_editor_that_ends_badly_stores_nothing(shell: Shell, text: str, temporary: Path, editor: str) -> None:
    done = shell.run("content", "edit", text, EDITOR=editor)
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert content(shell) == {text}
    assert os.listdir(temporary) == []


@pytest.mark.parametrize(
    "options, environment, expected",
    [
        ([], {"EDITOR": TO_THREE}, 0),
        ([], {"VISUAL": TO_THREE, "EDITOR": "false"}, 0),
        (["--editor", TO_THREE], {"VISUAL": "false", "EDITOR": "false"}, 0),
        ([], {"VISUAL": "", "EDITOR": TO_THREE}, 0),
        ([], {"VISUAL": "", "EDITOR": ""}, 2),
    ],
)
def test_the_editor_is_what_is_named_first(
    shell: Shell, text: str, options: list[str], environment: dict[str, str], expected: int
) -> None:
    done = shell.run("content", "edit", *options, text, **environment)
    assert done.returncode == expected
    assert (digest_of(CHANGED) in content(shell)) is (expected == 0)


def test_what_is_not_here_is_not_edited(shell: Shell, temporary: Path) -> None:
    started = temporary / "started"
    missing = digest_of(b"never")
    done = shell.run("content", "edit", missing, EDITOR=f"touch {shlex.quote(str(started))}")
    assert (done.returncode, done.stdout) == (3, "")
    one_line(done.stderr)
    assert os.listdir(temporary) == []


def test_an_editor_may_put_another_file_in_its_place(shell: Shell, text: str) -> None:
    editor = python("open(path + '~', 'w').write('new'); os.rename(path + '~', path)")
    assert shell.out("content", "edit", text, EDITOR=editor) == digest_of(b"new") + "\n"


def test_the_copy_is_for_nobody_else(shell: Shell, text: str) -> None:
    editor = python("open(path, 'w').write(oct(os.stat(os.path.dirname(path)).st_mode & 0o777))")
    digest = shell.out("content", "edit", text, EDITOR=editor).strip()
    assert shell.out("content", "get", digest) == "0o700"


def test_json_is_called_so_for_the_colours(shell: Shell) -> None:
    editor = python("open(path, 'a').write(' ' + os.path.splitext(path)[1])")
    for data, ending in ((b"{}", b".json"), (b"text", b"")):
        digest = shell.out("content", "edit", ingested(shell, data), EDITOR=editor).strip()
        assert shell.run("content", "get", digest).raw == data + b" " + ending


def test_a_large_blob_of_any_bytes_goes_through(shell: Shell) -> None:
    data = bytes(range(256)) * 30_000
    digest = ingested(shell, data)
    assert shell.out("content", "edit", digest, EDITOR=python("open(path, 'ab').write(b'x')")).strip() == digest_of(
        data + b"x"
    )


def test_the_algorithm_stays(shell: Shell, tmp_path: Path) -> None:
    digest = f"sha512:{hashlib.sha512(TEXT).hexdigest()}"
    assert shell.out("content", "ingest", "r", "--expected-digest", digest, stdin=TEXT).strip() == digest
    found = shell.out("content", "edit", digest, EDITOR=TO_THREE).strip()
    assert found == f"sha512:{hashlib.sha512(CHANGED).hexdigest()}"


# Labels


def test_labels_are_carried_but_for_those_that_speak_of_the_old_bytes(shell: Shell) -> None:
    source = "containerd.io/distribution.source.quay.io=a/b"
    uncompressed = f"containerd.io/uncompressed={digest_of(b'x')}"
    digest = ingested(shell, TEXT, "team=build", source, uncompressed, "containerd.io/gc.ref.content.other=sha256:0")
    found = shell.out("content", "edit", digest, EDITOR=TO_THREE).strip()
    carried = labels(shell, found)
    assert carried.pop(ROOT)
    assert carried == {"team": "build", "containerd.io/gc.ref.content.other": "sha256:0"}
    assert len(labels(shell, digest)) == 5


def test_what_is_stored_stays_also_where_the_old_one_was_no_root(shell: Shell) -> None:
    digest = shell.out("content", "ingest", "r", "--no-root", "--label", "a=b", stdin=TEXT).strip()
    found = shell.out("content", "edit", digest, EDITOR=TO_THREE).strip()
    shell.out("gc", "run")
    assert content(shell) == {found}


def test_a_manifest_keeps_what_it_refers_to_now(shell: Shell, made: MadeImage) -> None:
    without_second = rewriting("{**it, 'layers': it['layers'][:1]}")
    found = shell.out("content", "edit", "--validate", made.target.digest, EDITOR=without_second).strip()
    assert {key: value for key, value in labels(shell, found).items() if key != ROOT} == {
        "containerd.io/gc.ref.content.config": made.config_digest,
        "containerd.io/gc.ref.content.l.0": made.layers[0].digest,
    }
    shell.out("images", "rm", NAME)
    assert content(shell) == {found, made.config_digest, made.layers[0].digest}


def test_what_is_no_manifest_any_more_keeps_nothing(shell: Shell, made: MadeImage) -> None:
    found = shell.out("content", "edit", made.target.digest, EDITOR=rewriting("{'plain': 1}")).strip()
    assert set(labels(shell, found)) == {ROOT}


def test_a_blob_that_is_here_already_gets_the_labels_that_it_lacks(shell: Shell) -> None:
    digest = ingested(shell, TEXT, "team=build", "stage=new")
    there = shell.out("content", "ingest", "r", "--no-root", "--label", "stage=old", stdin=CHANGED).strip()
    assert shell.out("content", "edit", digest, EDITOR=TO_THREE).strip() == there
    found = labels(shell, there)
    assert (found["team"], found["stage"]) == ("build", "old")
    assert ROOT in found


# Validation


@pytest.mark.parametrize(
    "what, editor, said",
    [
        ("manifest", "sed -i s/{//", "manifest"),
        ("manifest", rewriting("{'schemaVersion': 2, 'manifests': []}"), "it reads as index"),
        ("manifest", rewriting("{**it, 'layers': 7}"), "layers"),
        ("manifest", rewriting("{'a': 1}"), "manifest"),
        ("config", rewriting("{'a': 1}"), "no image config"),
        ("config", rewriting("{**it, 'rootfs': {'diff_ids': ['x']}}"), "no image config"),
        ("config", "sed -i s/{//", "no image config"),
    ],
)
def test_what_is_not_any_more_what_it_was_is_not_stored_and_nobodys_work_is_lost(
    shell: Shell, made: MadeImage, temporary: Path, what: str, editor: str, said: str
) -> None:
    digest = {"manifest": made.target.digest, "config": made.config_digest}[what]
    before = content(shell)
    done = shell.run("content", "edit", "--validate", digest, EDITOR=editor)
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert said in done.stderr
    assert content(shell) == before
    (kept,) = temporary.glob("*/*.json")
    assert str(kept) in done.stderr
    assert kept.read_bytes() not in made.blobs.values()


def test_json_stays_json(shell: Shell, temporary: Path) -> None:
    digest = ingested(shell, b'{"a": [1, 2]}')
    assert shell.run("content", "edit", "--validate", digest, EDITOR="sed -i s/]//").returncode == 1
    assert shell.run("content", "edit", digest, EDITOR="sed -i s/]//").returncode == 0
    done = shell.run("content", "edit", "--validate", digest, EDITOR="sed -i s/2/3/")
    assert (done.returncode, done.stdout) == (0, digest_of(b'{"a": [1, 3]}') + "\n")


def test_what_is_no_json_cannot_be_validated(shell: Shell, text: str, temporary: Path) -> None:
    started = temporary / "started"
    done = shell.run("content", "edit", "--validate", text, EDITOR=f"touch {shlex.quote(str(started))}")
    assert done.returncode == 1
    one_line(done.stderr)
    assert os.listdir(temporary) == []


# As programs of their own


def test_no_word_of_a_path_is_a_command(shell: Shell, text: str, tmp_path: Path) -> None:
    folder = tmp_path / "a b'c$(touch x)"
    folder.mkdir()
    done = shell.spawn("content", "edit", text, EDITOR=TO_THREE, TMPDIR=str(folder))
    assert (done.returncode, done.stdout) == (0, digest_of(CHANGED) + "\n")
    assert os.listdir(folder) == []


def test_what_the_editor_prints_is_not_taken_for_the_digest(shell: Shell, text: str) -> None:
    done = shell.spawn("content", "edit", text, EDITOR=f"echo drawing; {TO_THREE}")
    assert (done.returncode, done.stdout) == (0, digest_of(CHANGED) + "\n")
    assert "drawing" in done.stderr


def test_ctrl_c_is_the_editors(shell: Shell, text: str, tmp_path: Path) -> None:
    """One that takes it goes on, and so does what waits for it."""
    script = tmp_path / "editor"
    reads = 'until [ -n "$line" ]; do read line; done'  # a trap may end a read
    script.write_text(f'#!/bin/sh\ntrap \'echo heard\' INT\necho ready\n{reads}\necho "$line" > "$1"\n')
    script.chmod(0o755)
    environment = {
        **ENVIRONMENT,
        "HOME": str(tmp_path),
        "ORLOP_STORE": str(tmp_path / "store"),
        "EDITOR": str(script),
    }
    with Terminal([*CLI, "content", "edit", text], environment) as terminal:
        terminal.until(lambda screen: "ready" in screen)
        terminal.type("\x03")
        terminal.until(lambda screen: "heard" in screen)
        terminal.type("written\n")
        terminal.until(lambda screen: digest_of(b"written\n") in screen)
        assert terminal.wait() == 0


def test_the_store_is_everybodys_while_the_editor_runs(shell: Shell, text: str, tmp_path: Path) -> None:
    """What is edited for an hour does not hold it; a blob that goes meanwhile is no reason to lose the result."""
    program = shlex.join([*CLI, "content", "rm", text])
    socket = shlex.quote(str(tmp_path / "store" / "socket"))
    editor = f"test ! -e {socket} && {program} >/dev/null && {TO_THREE}"
    done = shell.spawn("content", "edit", text, EDITOR=editor)
    assert (done.returncode, done.stdout) == (0, digest_of(CHANGED) + "\n")
    assert digest_of(CHANGED) in content(shell)
