"""The actor of a domain that owns nothing but the order of its writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import trio

from ..protocol.messages import Context
from ..protocol.service import Answer, Submit
from ..storage.engine import Transaction
from .promise import Promise
from .storage import Rejected, StorageActor, Submission

__all__ = ["MAILBOX_SIZE", "Plan", "PlanActor", "Result"]

Result = msgspec.Raw | msgspec.Struct
Plan = Callable[[Transaction, Any, Context], Awaitable[Result | Rejected]]
"""Decides and writes through its transaction only; what it returns is the answer. Each takes the request type
under which it stands in its actor's table."""

MAILBOX_SIZE = 256  # as many as one group takes


class PlanActor:
    """Each command becomes one transaction, handed to the storage actor together with where to answer.

    The actor takes the next command at once; it never waits for the disk.
    """

    def __init__(self, plans: Mapping[type[msgspec.Struct], Plan], storage: StorageActor) -> None:
        self.plans = plans
        self._storage = storage
        self._send, self._receive = trio.open_memory_channel[tuple[Any, Context, Answer[Any]]](MAILBOX_SIZE)
        self.route = Submit(self._submit, self._submit_later)

    async def ask(self, request: msgspec.Struct, context: Context) -> Result:
        """Cancellation: nothing happened if it was not planned yet; otherwise it may have."""
        promise: Promise[Result] = Promise()
        await self._send.send((request, context, promise))
        return await promise.wait()

    async def run(self) -> None:
        plans, submit = self.plans, self._storage.submit
        async for command in self._receive:
            while True:
                request, context, answer = command
                await submit(Submission(_bind(plans[type(request)], request, context), answer))
                # Whatever else has come is handed over in the same step: groups are made of what queued up.
                try:
                    command = self._receive.receive_nowait()
                except trio.WouldBlock:
                    break

    def _submit(self, request: msgspec.Struct, context: Context, answer: Answer[Result]) -> None:
        self._send.send_nowait((request, context, answer))

    async def _submit_later(self, request: msgspec.Struct, context: Context, answer: Answer[Result]) -> None:
        await self._send.send((request, context, answer))


def _bind(plan: Plan, request: Any, context: Context) -> Callable[[Transaction], Awaitable[Result | Rejected]]:
    return lambda txn: plan(txn, request, context)
