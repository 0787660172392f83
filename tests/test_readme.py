"""The README's examples, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import orlop

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(
    r"<!-- (tests/test_readme\.py[^>]*) -->\n```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.S
)


def block(language: str, mark: str = "") -> str:
    found = [text for note, kind, text in BLOCKS if kind == language and mark in note]
    assert found, "the README lost an example"
    return found[0]


@pytest.mark.slow
def test_the_shell_example(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "orlop"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
                      "from orlop.bin.cli import main\nmain()\n")  # fmt: skip
    script.chmod(0o755)
    environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}")
    done = subprocess.run(
        ["sh", "-ec", block("sh")], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ci   team=build" in done.stdout
    assert "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03" in done.stdout
    assert "/content/create" in done.stdout
    assert "/base is alive" in done.stdout
    assert "0 findings" in done.stdout


def test_the_embedded_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python")], cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("b'a manifest'\n")


async def test_the_example_for_any_language(tmp_path: Path) -> None:
    config = orlop.StoreConfig(str(tmp_path / "store"), [f"unix:{tmp_path}/sock"])
    async with trio.open_nursery() as nursery:
        await nursery.start(orlop.serve, config)
        code = f"SOCKET = {str(tmp_path / 'sock')!r}\n" + block("python", "SOCKET")
        done = await trio.run_process([sys.executable, "-W", "ignore", "-c", code], capture_stdout=True)
        assert b"'store_format': 2" in done.stdout
        assert b"'items': []" in done.stdout
        nursery.cancel_scope.cancel()
