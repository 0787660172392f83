"""What a worker's clients do in one phase: a closed loop, or an open one to which operations arrive.

In an open loop a latency counts from the arrival: an operation that waits for its client is late, and is told so. Each
client's operations stay in order, so that what it made it may delete.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence

import trio

from ....protocol.errors import OrlopError, Unavailable, Unknown
from ..messages import Phase
from ..scenario import Scenario
from ..steps.chance import chance_of
from ..steps.client import Client, Step
from ..targets.interface import Target
from .doing import clear_up, do_step, get_ready
from .ledger import Ledger
from .line import Line
from .tally import Tally

__all__ = ["MOST_WAITING", "Arrivals", "Clients"]

MOST_WAITING = 100_000
"""Arrivals that wait in one worker; more are dropped, and counted."""
_OVERTIME_S = 10.0  # how long what has arrived may take after the phase


class Clients:
    """This worker's. `lines`: one that all share, or one for each. `share`: which worker it is, of how many."""

    def __init__(
        self,
        scenario: Scenario,
        share: tuple[int, int],
        clients: Sequence[Client],
        lines: Sequence[Line],
        tally: Tally,
        ledger: Ledger,
        *,
        verify: bool,
    ) -> None:
        self._scenario = scenario
        self._share = share
        self._clients = clients
        self._lines = lines
        self._tally = tally
        self._ledger = ledger
        self._verify = verify
        self.waiting = self.dropped = 0

    async def run(self, phase: Phase) -> None:
        """Returns when the last operation has ended. Cancellation: what is under way is given up."""
        await trio.sleep_until(phase.start)
        self.waiting = self.dropped = 0
        if phase.rate:
            await self._open_loop(phase)
            return
        async with trio.open_nursery() as nursery:
            for number, client in enumerate(self._clients):
                nursery.start_soon(self._closed_loop, client, self._line(number), phase.start + phase.seconds)

    def _line(self, number: int) -> Line:
        return self._lines[number % len(self._lines)]

    # closed

    async def _closed_loop(self, client: Client, line: Line, end: float) -> None:
        think_s = self._scenario.load.think_s
        while trio.current_time() < end:
            step = next(client)
            await get_ready(step)
            await self._do(step, line, trio.current_time(), end)
            if think_s:
                await trio.sleep(client.pause.expovariate(1 / think_s))

    # open

    async def _open_loop(self, phase: Phase) -> None:
        queues: list[deque[float]] = [deque() for _ in self._clients]
        busy = [False] * len(self._clients)
        end = phase.start + phase.seconds + _OVERTIME_S
        index, workers = self._share
        chance = chance_of(self._scenario.seed, "arrivals", phase.number, phase.rate, index)
        arrivals = Arrivals(phase, chance, even=self._scenario.load.arrivals == "even", first=(index + 1) / workers)
        with trio.move_on_at(end):
            async with trio.open_nursery() as nursery:
                turn = 0
                for at in arrivals:
                    if at > trio.current_time():
                        await trio.sleep_until(at)
                    number, turn = turn % len(self._clients), turn + 1
                    if self.waiting >= MOST_WAITING:
                        self.dropped += 1
                        continue
                    self.waiting += 1
                    queues[number].append(at)
                    if not busy[number]:
                        busy[number] = True
                        nursery.start_soon(self._serve, number, queues[number], busy, end)
        self.dropped += self.waiting  # they were late beyond measure
        self.waiting = 0

    async def _serve(self, number: int, queue: deque[float], busy: list[bool], end: float) -> None:
        """One client's arrivals, until none waits."""
        client, line = self._clients[number], self._line(number)
        while queue:
            arrived = queue.popleft()
            step = next(client)
            began = trio.current_time()
            await get_ready(step)
            self.waiting -= 1
            await self._do(step, line, arrived + trio.current_time() - began, end)
        busy[number] = False

    async def _do(self, step: Step, line: Line, since: float, until: float) -> None:
        """Its latency counts from `since`. `until`: how long a broken connection is waited for, by those who have not
        asked yet."""
        try:
            target = await line.target(until)
            await self._done(target, step, line)
        except OrlopError as error:
            self._tally.failed(step.operation, type(error).__name__)
            return
        except trio.Cancelled:
            self._tally.failed(step.operation, "Unfinished")
            raise
        self._tally.succeeded(step.operation, trio.current_time() - since)
        try:
            await clear_up(target, step)
        except OrlopError as error:
            self._tally.failed(f"{step.operation} (after it)", type(error).__name__)

    async def _done(self, target: Target, step: Step, line: Line) -> None:
        try:
            await do_step(target, step, self._ledger, verify=self._verify)
        except (Unavailable, Unknown):
            await line.look(target)
            raise


class Arrivals:
    """Instants at which operations arrive: at a rate that goes evenly from one to another. `first`: of those that come
    evenly, after which part of the time between two the first comes."""

    def __init__(self, phase: Phase, chance: random.Random, *, even: bool, first: float = 1.0) -> None:
        self._phase = phase
        self._chance = chance
        self._even = even
        self._next = first
        self._expected = 0.0  # how many should have arrived by now

    def __iter__(self) -> Arrivals:
        return self

    def __next__(self) -> float:
        phase = self._phase
        self._expected += self._next if self._even else self._chance.expovariate(1)
        self._next = 1.0
        # After t seconds rate * t + slope * t * t / 2 should have arrived; when is that so many?
        slope = (phase.rate_end - phase.rate) / phase.seconds
        root = phase.rate * phase.rate + 2 * slope * self._expected
        if root < 0:
            raise StopIteration
        at = 2 * self._expected / (phase.rate + math.sqrt(root))
        if at >= phase.seconds:
            raise StopIteration
        return phase.start + at
