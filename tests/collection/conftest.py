"""The graphs' store: every way in and engine, and once with all labels set afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ..conftest import COMBINATIONS, StoreMaker
from ..support.graphs import Graph


@pytest.fixture(params=[*COMBINATIONS, ("embedded", "memory", "late")], ids="-".join)
async def graph(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Graph]:
    way, engine, *late = request.param
    async with StoreMaker(way, engine, tmp_path).open() as store:
        yield Graph(store, late=bool(late))
