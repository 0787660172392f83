"""An image, a registry that has it, and a store by two ways in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import orlop
from orlop.storage.memory import MemoryStore
from tests.support.faulty_registry import FaultyRegistry
from tests.support.pulls import REPOSITORY, Layout, Opener
from tests.support.registries import make_layout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("image") / "layout"
    options = ["--layers", "2", "--files", "8", "--size", "500K", "--noise", "0.9", "--platforms"]
    return Layout(folder, make_layout(folder, *options, "linux/amd64,linux/arm64"))


@pytest.fixture
def registry(image: Layout) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: image.folder}) as registry:
        yield registry


@pytest.fixture(params=["embedded", "unix"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return Opener(request.param, tmp_path)


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[orlop.Store]:
    """Over the memory engine, which is held to the same suite as LevelDB and does not wait for the disk."""
    async with opener.open(MemoryStore()) as store:
        yield store
