"""An answer that a task waits for."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import outcome
import trio

__all__ = ["Promise"]

T = TypeVar("T")


class Promise(Generic[T]):
    """The Answer of a caller in this process; one task waits for it."""

    __slots__ = ("_outcome", "_task", "deadline", "withdrawn")

    def __init__(self, deadline: float = math.inf) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[T] | None = None
        self.deadline = deadline
        self.withdrawn = False

    def succeed(self, value: T) -> None:
        self._settle(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        self._settle(outcome.Error(error))

    async def wait(self) -> T:
        """The value, or the error raised.

        Cancellation: withdraws the request if nobody has begun it; otherwise it goes on unheard.
        """
        if self._outcome is None:
            self._task = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                self._task = None
                self.withdrawn = True
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _settle(self, result: outcome.Outcome[T]) -> None:
        self._outcome = result
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
