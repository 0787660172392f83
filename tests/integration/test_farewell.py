"""A server that ends tells everybody what became of their calls (DESIGN 9: a drained call is answered)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import orlop
from orlop.actors.supervisor import RunningStore
from orlop.protocol.errors import OrlopError, Unavailable

ROUNDS = 40
CALLS = 8

Outcomes = dict[str, OrlopError | None]


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_what_a_server_took_before_it_ended_is_answered(tmp_path: Path, way: str) -> None:
    """Whoever hears Unavailable may try again: nothing was done. Unknown is for connections that broke."""
    config = orlop.StoreConfig(str(tmp_path / "store"), listen=["tcp:127.0.0.1:0"] if way == "tcp" else [])
    answered: Outcomes = {}

    async def create(store: orlop.Store, name: str) -> None:
        try:
            await store.namespaces.create(name)
            answered[name] = None
        except OrlopError as error:
            answered[name] = error

    async def serve(
        scope: trio.CancelScope, *, task_status: trio.TaskStatus[RunningStore] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with scope:
            await orlop.serve(config, task_status=task_status)

    async def end_amid_calls(number: int) -> None:
        async with trio.open_nursery() as nursery:
            server = trio.CancelScope()
            running = await nursery.start(serve, server)
            async with orlop.connect(running.addresses[0]) as store, trio.open_nursery() as callers:
                for call in range(CALLS):
                    callers.start_soon(create, store, f"n{number}-{call}")
                for _ in range(number % 10):
                    await trio.lowlevel.checkpoint()
                server.cancel()

    async def all_rounds() -> set[str]:
        for number in range(ROUNDS):
            await end_amid_calls(number)
        async with orlop.open_store(config.root) as store:
            return {namespace.name async for namespace in store.namespaces.list()}

    there = trio.run(all_rounds)
    assert {type(error) for error in answered.values()} == {type(None), Unavailable}
    assert there == {name for name, error in answered.items() if error is None}
