"""Transfers step by step: `async for step in store.images.pull(...)`, in this process and over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

import orlop
from orlop import TransferState
from tests.support.faulty_registry import FaultyRegistry, Stall, Status
from tests.support.registries import make_layout


@pytest.fixture(params=["embedded", "socket"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    config = orlop.StoreConfig(str(tmp_path / "store"), transfer=orlop.TransferConfig(stall_s=20))
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(orlop.open_store(config))
        if request.param == "embedded":
            yield own
        else:
            yield await stack.enter_async_context(orlop.connect(f"unix:{tmp_path}/store/socket"))


@pytest.fixture
def registry(tmp_path: Path) -> AsyncIterator[FaultyRegistry]:
    make_layout(tmp_path / "layout", "--layers", "3", "--tag", "latest")
    with FaultyRegistry({"app": tmp_path / "layout"}) as registry:
        yield registry


def asked(registry: FaultyRegistry) -> orlop.PullImage:
    access = orlop.RegistryAccess(plain_http=True)
    return orlop.PullImage(f"{registry.address}/app:latest", access=access)


async def test_a_pull_tells_its_steps(store: orlop.Store, registry: FaultyRegistry) -> None:
    request = asked(registry)
    steps = [step async for step in store.images.pull(request)]
    assert steps[0].state is TransferState.RESOLVING
    assert steps[-1].state is TransferState.SAVED
    last = {step.digest: step for step in steps if step.kind}
    assert len(last) == 5
    assert {step.state for step in last.values()} == {TransferState.COMPLETE}
    assert all(step.transferred == step.total > 0 for step in last.values())
    assert {step.source for step in last.values()} == {registry.address}
    assert (await store.images.get(request.reference)).target.digest == steps[-1].digest


async def test_its_result_is_there_at_the_end(store: orlop.Store, registry: FaultyRegistry) -> None:
    async with store.images.pull(asked(registry)) as steps:
        with pytest.raises(orlop.errors.FailedPrecondition):
            _ = steps.result
        count = len([step async for step in steps])
        image = steps.result
    assert count > 5
    assert image == await store.images.get(image.name)


async def test_who_leaves_ends_the_pull(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("GET /v2/app/blobs/", Stall(after=0, seconds=None), times=None)
    with trio.fail_after(15):
        async with store.images.pull(asked(registry)) as steps:
            async for step in steps:
                if step.state is TransferState.DOWNLOADING:
                    break
    assert [image.name async for image in store.images.list()] == []


async def test_its_error_comes_out_of_the_loop(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("HEAD /v2/app/manifests/", Status(404), times=None)
    with pytest.raises(orlop.errors.NotFound):
        _ = [step async for step in store.images.pull(asked(registry))]


async def test_what_stands_still_is_said_to(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("GET /v2/app/blobs/", Stall(after=1000, seconds=None), times=None)
    with trio.fail_after(15):
        async with store.images.pull(asked(registry)) as steps:
            async for step in steps:
                if step.stalled_s >= 1:
                    assert step.state is TransferState.DOWNLOADING
                    assert step.source == registry.address
                    break


async def test_a_push_tells_its_steps(store: orlop.Store, registry: FaultyRegistry) -> None:
    """This registry takes nothing: what matters is that it is said, and by whom."""
    request = asked(registry)
    await store.pull(request)
    push = orlop.PushImage(f"{registry.address}/other:1", request.reference, access=request.access)
    with pytest.raises(orlop.errors.OrlopError):
        _ = [step async for step in store.images.push(push)]
