"""What a person at a terminal sees: bars that move, tables that fit, no escape sequences where nobody looks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.faulty_registry import FaultyRegistry, Stall
from tests.support.registries import make_layout
from tests.support.shell import CLI, ENVIRONMENT, Shell, daemon
from tests.support.terminal import Terminal

ESCAPE = b"\x1b["


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_STORE": str(tmp_path / "store")}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    make_layout(tmp_path / "layout", "--layers", "3", "--tag", "latest")
    return tmp_path / "layout"


def largest_layer(layout: Path) -> str:
    return max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size).name


def test_a_pull_shows_bars_a_stall_and_a_summary(environment: dict[str, str], layout: Path, tmp_path: Path) -> None:
    stuck = largest_layer(layout)
    with FaultyRegistry({"app": layout}) as registry:
        registry.fault(f"GET /v2/app/blobs/sha256:{stuck}", Stall(after=1000, seconds=3), times=1)
        command = [*CLI, "pull", "--plain-http", f"{registry.address}/app:latest"]
        with Terminal(command, environment, columns=120) as terminal:
            terminal.until(lambda screen: "manifest (" in screen and "complete" in screen)
            terminal.until(lambda screen: re.search(rf"layer \({stuck[:12]}\).*stalled \d s", screen) is not None)
            assert terminal.wait() == 0
            shown = terminal.text
    assert ESCAPE in terminal.seen
    assert "Traceback" not in shown
    assert re.search(r"done: elapsed .* s, total .*iB, downloaded .*iB .*3 layers unpacked", shown), shown
    assert len(re.findall(r"layer \([0-9a-f]{12}\).*unpacked", shown)) == 3, shown
    assert all(len(line) <= 120 for line in terminal.lines)


def test_ctrl_c_during_a_pull_ends_it_and_leaves_the_terminal_usable(
    environment: dict[str, str], layout: Path, tmp_path: Path
) -> None:
    with FaultyRegistry({"app": layout}) as registry:
        registry.fault("GET /v2/app/blobs/", Stall(after=0, seconds=None), times=None)
        with Terminal([*CLI, "pull", "--plain-http", f"{registry.address}/app:latest"], environment) as terminal:
            terminal.until(lambda screen: "downloading" in screen)
            terminal.type("\x03")
            assert terminal.wait() == 130
            shown = terminal.text
    assert "Traceback" not in shown
    assert not terminal.screen.cursor.hidden
    shell = Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "store"))
    assert shell.out("images", "ls", "-q") == ""


def test_nothing_but_text_where_nobody_looks(environment: dict[str, str], layout: Path) -> None:
    with FaultyRegistry({"app": layout}) as registry:
        command = [*CLI, "pull", "--plain-http", f"{registry.address}/app:latest"]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    assert ESCAPE not in done.stdout + done.stderr
    assert done.stderr.decode().count("unpacked") == 3


def test_no_color_is_heard(environment: dict[str, str], layout: Path) -> None:
    with FaultyRegistry({"app": layout}) as registry:
        command = [*CLI, "pull", "--plain-http", f"{registry.address}/app:latest"]
        with Terminal(command, {**environment, "NO_COLOR": "1"}) as terminal:
            assert terminal.wait() == 0
    colours = re.compile(rb"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[0-9;]*m")
    assert not colours.search(terminal.seen)


def test_tables_fit_the_terminal_and_are_whole_in_a_pipe(
    environment: dict[str, str], layout: Path, tmp_path: Path
) -> None:
    shell = Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "store"))
    shell.out("images", "import", str(layout), "--base-name", "registry.example/a/rather/long/name", "-q")
    with Terminal([*CLI, "images", "ls"], environment, columns=80) as terminal:
        assert terminal.wait() == 0
    shown = [line for line in terminal.lines if line]
    assert len(shown) == 2
    assert shown[0].split()[:4] == ["REF", "TYPE", "DIGEST", "SIZE"]
    assert "…" in shown[1]
    whole = shell.out("images", "ls").splitlines()[1].split()
    assert whole[0] == "registry.example/a/rather/long/name:latest"
    assert len(whole[2]) == len("sha256:") + 64
    with Terminal([*CLI, "images", "ls"], environment, columns=300) as terminal:
        assert terminal.wait() == 0
    assert "…" not in terminal.text


def test_events_appear_as_they_happen(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/orlop.sock"
    shell = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address)
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_ADDRESS": address}
    with daemon(tmp_path / "store", "--listen", address), Terminal([*CLI, "events"], environment) as terminal:
        shell.out("namespaces", "create", "first")
        for attempt in range(100):  # the first may have come before anybody listened
            shell.out("namespaces", "label", "first", f"n={attempt}")
            terminal.look()
            if "/namespaces/update" in terminal.text:
                break
        terminal.until(lambda screen: " first /namespaces/update" in screen)
        terminal.type("\x03")
        assert terminal.wait() == 130


def test_a_password_is_asked_for_and_not_shown(environment: dict[str, str], layout: Path) -> None:
    with FaultyRegistry({"app": layout}) as registry:
        registry.require_basic("ann", "secret")
        command = [*CLI, "pull", "--plain-http", "-u", "ann", f"{registry.address}/app:latest"]
        with Terminal(command, environment) as terminal:
            terminal.until(lambda screen: "Password:" in screen)
            terminal.type("secret\n")
            assert terminal.wait() == 0
    assert "secret" not in terminal.text


def test_top_shows_a_store_at_work(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/orlop.sock"
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_ADDRESS": address}
    command = [*CLI, "top", "--every", "0.2"]
    with daemon(tmp_path / "store", "--listen", address), Terminal(command, environment, columns=140) as terminal:
        terminal.until(lambda screen: "METHOD" in screen and "introspection.metrics" in screen)
        assert "transactions/s" in terminal.text
        terminal.type("\x03")
        assert terminal.wait() == 130
