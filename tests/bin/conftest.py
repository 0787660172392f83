from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "store"))
