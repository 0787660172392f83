"""orlop-load as a person runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from orlop.bin.load.result import read_result

from ..support.loading import LOAD, load, planted_daemon
from ..support.shell import ENVIRONMENT, Shell, daemon

MINE = """
name = "mine"
warmup_s = 0.2
duration_s = 1.0
[load]
clients = 4
[population]
images = 5
blobs = 3
[[operations]]
do = "image-get"
[[operations]]
do = "image-create"
[[operations]]
do = "blob-ingest"
[[operations]]
do = "snapshot-prepare"
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.toml").write_text(MINE)
    return str(tmp_path / "mine.toml")


def test_a_run_without_more_words_makes_its_own_store_and_removes_it(mine: str, tmp_path: Path) -> None:
    done = load("run", mine, "--verify", "--json", str(tmp_path / "a.json"))
    assert done.returncode == 0, done.stderr
    assert "image-create" in done.stdout
    assert "all as acknowledged" in done.stdout
    result = read_result(str(tmp_path / "a.json"))
    assert (result.driver, result.workers) == ("unix", 1)
    assert not Path(result.address.removeprefix("unix:")).parent.parent.exists()


def test_a_server_that_is_there_is_loaded_and_cleaned(mine: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/sock"
    with daemon(tmp_path / "store", "--listen", address):
        for _ in range(2):  # a second run meets nothing of the first
            done = load("run", mine, "--address", address, "--json", "-", "--quiet", "--duration", "0.5")
            assert (done.returncode, done.stderr) == (0, "")
            assert all(not each["errors"] for each in json.loads(done.stdout)["rounds"][0]["operations"])
            time.sleep(1)  # its names are made of the second
        shell = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address)
        assert shell.out("namespaces", "ls", "-q").split() == ["load-0"]
        assert load("clean", "--address", address).stdout == "1 namespaces removed\n"
        assert shell.out("namespaces", "ls", "-q") == ""


def test_changes_of_the_command_line_win(mine: str, tmp_path: Path) -> None:
    arguments = ["--seed", "7", "--clients", "2", "--connections", "own", "--duration", "0.3", "--warmup", "0"]
    arguments += ["--driver", "tcp", "--workers", "2", "--rounds", "2", "--label", "here"]
    done = load("run", mine, *arguments, "--json", str(tmp_path / "a.json"))
    assert done.returncode == 0, done.stderr
    result = read_result(str(tmp_path / "a.json"))
    assert (result.scenario.seed, result.scenario.load.clients, result.scenario.warmup_s) == (7, 2, 0)
    assert (result.driver, result.workers, len(result.rounds), result.label) == ("tcp", 2, 2, "here")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "a TOML file, or one of"),
        (["metadata", "--address", "unix:/x", "--store", "/y"], "not both"),
        (["metadata", "--driver", "containerd"], "give its socket"),
        (["metadata", "--address", "tcp:h:1", "--driver", "unix"], "does not go with"),
        (["metadata", "--store", "/tmp/x", "--workers", "2"], "one process"),
        (["metadata", "--store", "/tmp/x", "--kill", "1"], "--driver unix"),
        (["metadata", "--ramp", "fast"], "FROM:TO"),
        (["metadata", "--ramp", "0:5"], "above 0"),
        (["cold-pull"], "--registry"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(arguments: list[str], said: str) -> None:
    done = load("run", *arguments)
    assert done.returncode in (1, 3)
    assert done.stderr.startswith("orlop-load: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_wrong_store_makes_the_exit_status(mine: str, tmp_path: Path) -> None:
    with planted_daemon("lost-write", tmp_path) as address:
        done = load("run", mine, "--address", address, "--verify")
    assert done.returncode == 1
    assert "WRONG" in done.stdout
    assert "found nothing" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(mine: str, tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    command = [*LOAD, "run", mine, "--duration", "60"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "round 1" not in process.stderr.readline():
            assert process.poll() is None
        [store] = folder.iterdir()
        process.send_signal(number)
        assert process.wait(30) == 130
        assert process.stderr.read() == "orlop-load: interrupted\n"
    assert list(folder.iterdir()) == []
    assert not [line for line in processes() if str(store) in line]


def processes() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def test_scenarios_are_listed_and_shown(tmp_path: Path) -> None:
    listed = load("scenarios").stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == [
        "ci-runner", "cold-pull", "gc-churn", "many-tenants", "metadata", "mixed", "model-store"
    ]  # fmt: skip
    shown = load("scenarios", "gc-churn").stdout
    (tmp_path / "copy.toml").write_text(shown)
    assert load("scenarios", str(tmp_path / "copy.toml")).stdout == shown
