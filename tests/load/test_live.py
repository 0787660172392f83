"""What a run shows on a terminal while it runs."""

from __future__ import annotations

import re
from pathlib import Path

from ..support.loading import LOAD
from ..support.shell import ENVIRONMENT
from ..support.terminal import Terminal
from .test_cli import MINE


def test_a_run_shows_how_it_goes_and_then_what_came_of_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    with Terminal([*LOAD, "run", "mine.toml", "--duration", "3"], environment, folder=tmp_path) as terminal:
        shown = terminal.until(lambda screen: re.search(r"mine on unix - round 1 of 1, \d s left", screen) is not None)
        shown = terminal.until(lambda screen: "server:" in screen and "image-create" in screen)
        assert re.search(r"operation +rate +errors +p50 +p99 +max", shown)
        assert re.search(r"image-get +[\d,.]+ /s .* (µs|ms)", shown)
        assert terminal.wait() == 0
    assert "s left" not in terminal.text  # the view has gone; what it found stands there
    assert "OPERATION" in terminal.text
    assert "Traceback" not in terminal.text
    assert not terminal.screen.cursor.hidden


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    with Terminal([*LOAD, "run", "mine.toml", "--duration", "60"], environment, folder=tmp_path) as terminal:
        terminal.until(lambda screen: "image-create" in screen)
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert "orlop-load: interrupted" in terminal.text
    assert "Traceback" not in terminal.text
    assert not terminal.screen.cursor.hidden
    assert list(folder.iterdir()) == []
