"""The command line as a person or a script meets it: exit codes, help, which store, signals.

Real processes where signals, pipes or two programs at once are the point. Source: spec cli; DESIGN 10.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.faulty_registry import FaultyRegistry, Stall
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import make_layout
from tests.support.shell import DAEMON, ENVIRONMENT, TIMEOUT_S, Shell, daemon, one_line

MISSING = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "arguments, example",
    [
        ((), "orlop pull redis"),
        (("containers", "create"), "orlop containers create"),
        (("containers", "ls"), "orlop containers ls 'labels.tier==db'"),
        (("leases", "create"), "orlop leases create --id"),
        (("images", "label"), "orlop images label redis tier=db"),
        (("content", "active"), "orlop content active 'ref~=^layer-'"),
        (("pull",), "orlop pull --platform linux/arm64"),
        (("images", "pull"), "orlop pull"),
        (("images", "tag"), "orlop images tag redis:latest"),
        (("namespaces", "create"), "orlop namespaces create foo mylabel=bar"),
        (("content", "ingest"), "orlop content ingest"),
        (("events",), "orlop events --since 0"),
    ],
    ids=lambda value: " ".join(value) or "orlop" if isinstance(value, tuple) else None,
)
def test_help_comes_with_examples(shell: Shell, arguments: tuple[str, ...], example: str) -> None:
    text = shell.out(*arguments, "--help")
    assert text.startswith("Usage: ")
    assert example in text


def test_help_does_not_touch_the_store(shell: Shell, tmp_path: Path) -> None:
    shell.out("images", "ls", "--help")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("images", "rm", "docker.io/library/none:1"),
        ("content", "info", MISSING),
        ("content", "get", MISSING),
        ("content", "rm", MISSING),
        ("namespaces", "rm", "none"),
        ("namespaces", "label", "none", "a=b"),
        ("images", "tag", "none", "other"),
        ("images", "label", "none", "a=b"),
        ("images", "inspect", "none"),
        ("content", "label", MISSING, "a=b"),
        ("containers", "info", "none"),
        ("containers", "label", "none", "a=b"),
        ("containers", "rm", "none"),
        ("containers", "create", "none", "c1"),
        ("leases", "rm", "none"),
        ("leases", "resources", "none"),
        ("leases", "add", "none", "images", "x"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_exits_3_and_prints_nothing(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    one_line(done.stderr)
    assert "not found" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("images", "bogus"),
        ("images", "ls", "--bogus"),
        ("images", "rm"),
        ("pull",),
        ("namespaces", "create", "foo", "=value"),
        ("pull", "x", "--max-concurrent-downloads", "0"),
        ("--store", "a", "--address", "unix:b", "images", "ls"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_with_its_reason_on_stderr(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("content", "get", "sha256:xyz"),
        ("namespaces", "create", "bad-"),
        ("pull", "http://quay.io/a:1"),
        ("-n", "a/b", "images", "ls"),
        ("--address", "carrier-pigeon", "images", "ls"),
    ],
    ids=" ".join,
)
def test_what_can_never_work_exits_1_with_one_line(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)


def test_of_several_names_the_good_ones_are_done_and_the_exit_tells_the_rest(shell: Shell) -> None:
    shell.out("namespaces", "create", "one")
    shell.out("namespaces", "create", "two")
    done = shell.run("namespaces", "rm", "one", "missing", "two")
    assert done.returncode != 0
    assert done.stdout.split() == ["one", "two"]
    assert "missing" in done.stderr
    assert shell.out("namespaces", "ls", "-q").split() == []


def test_a_namespace_that_is_not_empty_says_what_is_in_it(shell: Shell) -> None:
    shell.out("-n", "foo", "content", "ingest", "ref", stdin="data")
    done = shell.run("namespaces", "rm", "foo")
    assert done.returncode == 1
    assert 'namespace "foo" must be empty' in done.stderr
    assert "blobs" in done.stderr
    assert "failed precondition" in done.stderr


def test_the_namespace_is_the_flags_then_orlops_then_containerds(shell: Shell) -> None:
    shell.out("content", "ingest", "ref", stdin="data", CONTAINERD_NAMESPACE="theirs")
    assert len(shell.out("content", "ls", "-q", CONTAINERD_NAMESPACE="theirs").split()) == 1
    both = {"CONTAINERD_NAMESPACE": "theirs", "ORLOP_NAMESPACE": "ours"}
    assert shell.out("content", "ls", "-q", **both) == ""
    assert len(shell.out("-n", "theirs", "content", "ls", "-q", ORLOP_NAMESPACE="ours").split()) == 1
    assert shell.out("content", "ls", "-q") == ""
    assert shell.out("namespaces", "ls", "-q").split() == ["theirs"]


def test_ingest_prints_the_digest_and_get_gives_the_bytes_back(shell: Shell) -> None:
    digest = shell.out("content", "ingest", "ref", stdin="data").strip()
    assert digest == "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    assert shell.out("content", "get", digest) == "data"
    assert shell.out("content", "get", digest, "--offset", "1", "--length", "2") == "at"
    assert shell.out("content", "ingest", "other", stdin="data").strip() == digest


def test_an_ingest_of_other_bytes_than_announced_leaves_nothing(shell: Shell) -> None:
    done = shell.run("content", "ingest", "ref", "--expected-digest", MISSING, stdin="data")
    assert done.returncode == 1
    assert shell.run("content", "ingest", "ref", "--expected-size", "10", stdin="data").returncode == 1
    assert shell.out("content", "ls", "-q") == ""


def test_json_can_be_read_by_machines(shell: Shell) -> None:
    assert json.loads(shell.out("images", "ls", "--json")) == []
    digest = shell.out("content", "ingest", "ref", stdin="data").strip()
    (found,) = json.loads(shell.out("content", "ls", "--json"))
    assert (found["digest"], found["size"]) == (digest, 4)
    assert json.loads(shell.out("content", "info", digest))["digest"] == digest
    assert json.loads(shell.out("namespaces", "ls", "--json")) == [{"name": "default", "labels": {}}]
    events = [json.loads(line) for line in shell.out("events", "--since", "0", "--no-follow", "--json").splitlines()]
    assert "/content/create" in [event["topic"] for event in events]
    assert "version" in json.loads(shell.out("version", "--json"))["client"]


def test_a_folder_that_a_daemon_has_is_reached_through_the_socket_of_its_lock(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with daemon(store, "--listen", f"unix:{tmp_path}/elsewhere.sock") as process:
        shell.out("namespaces", "create", "foo")
        there = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=f"unix:{tmp_path}/elsewhere.sock")
        assert there.out("namespaces", "ls", "-q").split() == ["foo"]
        assert str(process.pid) in there.out("version")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    assert shell.out("namespaces", "ls", "-q").split() == ["foo"]


def test_commands_that_begin_together_on_one_folder_all_do_their_work(shell: Shell) -> None:
    """DESIGN 10: two commands on one store meet instead of colliding."""
    names = [f"n{number}" for number in range(6)]
    with ExitStack() as stack:
        processes = [stack.enter_context(shell.started("namespaces", "create", name)) for name in names]
        ended = [(process.wait(TIMEOUT_S), process.stderr and process.stderr.read()) for process in processes]
    assert ended == [(0, "")] * len(names)
    assert shell.out("namespaces", "ls", "-q").split() == names


def test_a_folder_whose_holder_has_no_socket_is_an_error_at_once(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with daemon(store, "--listen", "tcp:127.0.0.1:0"):
        done = shell.run("namespaces", "ls")
    assert done.returncode == 1
    one_line(done.stderr)
    assert str(store) in done.stderr
    assert "in use" in done.stderr


@pytest.mark.parametrize("kind", ["missing", "nobody listens", "no socket"])
def test_a_server_that_is_not_there_is_one_line_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "orlop.sock"
    if kind == "nobody listens":
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
    elif kind == "no socket":
        path.write_text("")
    began = time.monotonic()
    done = Shell(HOME=str(tmp_path)).run("--address", f"unix:{path}", "images", "ls")
    assert time.monotonic() - began < 5
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)
    assert str(path) in done.stderr


def test_an_address_that_is_named_is_never_replaced_by_a_folder(shell: Shell, tmp_path: Path) -> None:
    shell.out("namespaces", "create", "foo")
    assert shell.run("namespaces", "ls", ORLOP_ADDRESS=f"unix:{tmp_path}/none.sock").returncode == 1


def test_version_is_told_without_a_store(tmp_path: Path) -> None:
    done = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=f"unix:{tmp_path}/none.sock").run("version")
    assert done.returncode == 1
    assert "Client:" in done.stdout
    assert "none.sock" in done.stderr


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image") / "layout"
    make_layout(folder, "--layers", "2", "--files", "4", "--size", "200K", "--noise", "0.9", "--index")
    return folder


def test_a_piped_pull_prints_lines_without_escape_sequences(shell: Shell, layout: Path) -> None:
    with LayoutRegistry({"a/b": layout}) as registry:
        name = f"{registry.address}/a/b:latest"
        done = shell.spawn("pull", "--plain-http", "--platform", "linux/amd64", name, TERM="xterm-256color")
        assert done.returncode == 0, done.stderr
        for text in (done.stdout, done.stderr):
            assert "\x1b" not in text
            assert "\r" not in text
        assert re.search(r"done: elapsed \d+\.\d s, total \S+ \w+", done.stdout)
        quiet = shell.run("pull", "--plain-http", "--platform", "linux/amd64", "--quiet", name)
        assert (quiet.returncode, quiet.stderr) == (0, "")
        assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", quiet.stdout)
        as_json = shell.run("pull", "--plain-http", "--platform", "linux/amd64", "--json", name)
        assert json.loads(as_json.stdout)["name"] == name


def test_a_platform_that_is_not_offered_exits_3_with_those_that_are(shell: Shell, layout: Path) -> None:
    with LayoutRegistry({"a/b": layout}) as registry:
        done = shell.run("pull", "--plain-http", "--platform", "linux/s390x", f"{registry.address}/a/b:latest")
    assert done.returncode == 3
    one_line(done.stderr[done.stderr.index("orlop: ") :])
    assert "linux/amd64" in done.stderr
    assert shell.out("images", "ls", "-q") == ""


def test_a_timeout_ends_a_pull_from_a_silent_registry(shell: Shell, layout: Path) -> None:
    with FaultyRegistry({"a/b": layout}) as registry:
        registry.fault("HEAD ", Stall(None, None), times=None)
        began = time.monotonic()
        done = shell.run("--timeout", "1", "pull", "--plain-http", f"{registry.address}/a/b:latest")
    assert time.monotonic() - began < 4
    assert done.returncode == 1
    assert "deadline exceeded" in done.stderr


def test_ctrl_c_during_a_pull_into_an_own_store_ends_it_at_once(shell: Shell, layout: Path) -> None:
    with FaultyRegistry({"a/b": layout}) as registry:
        registry.fault("/blobs/", Stall(None, None), times=None)
        with shell.started("pull", "--plain-http", f"{registry.address}/a/b:latest") as process:
            assert process.stderr is not None
            while "config" not in process.stderr.readline():
                pass
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 130
            assert time.monotonic() - began < 4
            assert "Traceback" not in process.stderr.read()
    assert shell.out("images", "ls", "-q") == ""


def test_a_password_is_not_asked_for_where_nobody_can_answer(shell: Shell) -> None:
    done = shell.run("pull", "--user", "ann", "127.0.0.1:1/a/b:latest")
    assert done.returncode == 2
    assert "password" in done.stderr


def test_sigterm_drains_the_daemon(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/orlop.sock"
    shell = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address)
    with daemon(tmp_path / "store", "--listen", address) as process:
        with shell.started("events") as events:
            shell.out("namespaces", "create", "foo")
            read_until_event(shell, events)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0
            assert events.wait(TIMEOUT_S) == 1  # its server has gone
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert not (tmp_path / "orlop.sock").exists()


def read_until_event(shell: Shell, events: subprocess.Popen[str]) -> str:
    """Change labels until the subscriber, which starts when it starts, has seen one change."""
    assert events.stdout is not None
    os.set_blocking(events.stdout.fileno(), False)
    deadline = time.monotonic() + TIMEOUT_S
    number = 0
    while time.monotonic() < deadline:
        number += 1
        shell.out("namespaces", "label", "foo", f"n={number}")
        if line := events.stdout.readline():
            return line
    raise AssertionError("no event came")


def wait_for_holder(store: Path, process: subprocess.Popen[str]) -> None:
    """Until the process has the store and listens; before that, the next command would have it."""
    deadline = time.monotonic() + TIMEOUT_S
    while str(process.pid) not in (store / "lock").read_text() or not (store / "socket").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_during_events_exits_130_quietly(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/orlop.sock"
    shell = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address)
    with daemon(tmp_path / "store", "--listen", address), shell.started("events") as events:
        shell.out("namespaces", "create", "foo")
        line = read_until_event(shell, events)
        assert " foo /namespaces/" in line
        events.send_signal(signal.SIGINT)
        assert events.wait(TIMEOUT_S) == 130
        assert events.stderr is not None
        assert events.stderr.read().strip() in ("", "orlop: interrupted")


def test_ctrl_c_during_events_of_an_own_store_exits_130_quietly(shell: Shell, tmp_path: Path) -> None:
    shell.out("namespaces", "create", "foo")
    with shell.started("events") as events:
        wait_for_holder(tmp_path / "store", events)
        line = read_until_event(shell, events)  # the second command reaches the first through its socket
        assert " foo /namespaces/" in line
        events.send_signal(signal.SIGINT)
        assert events.wait(TIMEOUT_S) == 130
        assert events.stderr is not None
        assert events.stderr.read().strip() in ("", "orlop: interrupted")
    assert shell.out("namespaces", "ls", "-q").split() == ["foo"]


def test_ctrl_c_drains_the_daemon_too(tmp_path: Path) -> None:
    with daemon(tmp_path / "store") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0


def test_a_daemon_that_cannot_start_says_why_in_a_line(tmp_path: Path) -> None:
    with daemon(tmp_path / "store") as process:
        command = [*DAEMON, "--root", str(tmp_path / "store")]
        second = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
        assert second.returncode == 1
        assert second.stderr == f"orlopd: store {tmp_path}/store is in use by orlopd (pid {process.pid}): unavailable\n"


def test_a_reader_that_goes_is_no_traceback(shell: Shell) -> None:
    shell.out("namespaces", "create", "foo")
    with shell.started("events", "--since", "0") as events:
        assert events.stdout is not None
        assert "/namespaces/create" in events.stdout.readline()
        events.stdout.close()
        for number in range(3):
            shell.run("namespaces", "label", "foo", f"n={number}")
        events.wait(TIMEOUT_S)
        assert events.stderr is not None
        assert "Traceback" not in events.stderr.read()
