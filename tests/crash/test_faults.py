"""The k-th file call fails, for every k: a clear error, nothing acknowledged lost, and the store goes on by itself.

The calls are LevelDB's as well as ours. Source: RELIABILITY 3.4; the steps are in fault_sweep.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.files.calls import environment, needs_calls
from .fault_sweep import STEPS

REPOSITORY = Path(__file__).parents[2]


@needs_calls
@pytest.mark.parametrize("step", [*STEPS, "start"])
def test_every_file_call_may_fail(tmp_path: Path, memory: Path, step: str) -> None:
    root = memory / "store"
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.fault_sweep", str(root), step],
        env=environment(root, tmp_path), cwd=REPOSITORY, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    print(done.stdout)
    faults = re.search(r"faults=(\d+)", done.stdout)
    assert faults is not None, done.stdout
    assert int(faults[1]) > 5, done.stdout
