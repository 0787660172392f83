"""The stores of these tests: of graphs, once with all labels set afterwards; and those whose collector rests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ..conftest import COMBINATIONS, StoreMaker
from ..support.calm import Calm, CalmMaker
from ..support.graphs import Graph


@pytest.fixture(params=[*COMBINATIONS, ("embedded", "memory", "late")], ids="-".join)
async def graph(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Graph]:
    way, engine, *late = request.param
    async with StoreMaker(way, engine, tmp_path).open() as store:
        yield Graph(store, late=bool(late))


@pytest.fixture(params=[("embedded", "memory"), ("unix", "leveldb")], ids="-".join)
def calm_stores(request: pytest.FixtureRequest, tmp_path: Path) -> CalmMaker:
    """Stores whose collector rests until it is asked."""
    return CalmMaker(*request.param, tmp_path)


@pytest.fixture
async def calm(calm_stores: CalmMaker) -> AsyncIterator[Calm]:
    """An empty one. Nothing waits in the bin."""
    async with calm_stores.open() as opened:
        yield opened


@pytest.fixture
async def binned(calm_stores: CalmMaker) -> AsyncIterator[Calm]:
    """An empty one in which what is found dead waits in the bin for an hour."""
    async with calm_stores.open(grace_s=3600) as opened:
        yield opened


@pytest.fixture
def lasting(tmp_path: Path) -> CalmMaker:
    """Of stores that can be opened again."""
    return CalmMaker("embedded", "leveldb", tmp_path)
