"""What the tests of crashes share."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: the syncs of thousands of starts cost nothing there."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="orlop-power-cut-", dir=where) as folder:
        yield Path(folder)


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("ORLOP_KILL_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"ORLOP_KILL_SEED={seed}")
    return random.Random(seed)
