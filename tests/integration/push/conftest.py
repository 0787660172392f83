"""A store with an image, and a registry that takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import orlop
from tests.support.images import MadeImage
from tests.support.transfers import opened, stored
from tests.support.writable_registry import WritableRegistry


@pytest.fixture
async def store(tmp_path: Path, made: MadeImage) -> AsyncIterator[orlop.Store]:
    """With the image `one`, as the module made it."""
    async with opened(tmp_path / "store") as store:
        await stored(store, "one", made)
        yield store


@pytest.fixture
def registry() -> Iterator[WritableRegistry]:
    """Without the API for referrers."""
    with WritableRegistry() as registry:
        yield registry
