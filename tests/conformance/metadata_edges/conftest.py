"""Stores for many short cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StoreMaker


@pytest.fixture(params=[("embedded", "memory"), ("unix", "leveldb")], ids=lambda pair: "-".join(pair))
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """In process and behind a socket, in memory and on disk: two for so many cases."""
    way, engine = request.param
    return StoreMaker(way, engine, tmp_path)
