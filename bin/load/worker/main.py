"""A worker: a process with a share of the clients. It speaks with its leader over standard input and output."""

from __future__ import annotations

import gc
import os
import time
from functools import partial

import msgspec
import trio

from ....protocol.errors import FailedPrecondition, OrlopError, error_to_wire
from ....protocol.messages import Metrics
from .. import messages as m
from ..pipes import Pipes
from ..result import ServerSample
from ..steps.client import Client
from ..targets.interface import TargetMaker
from .clients import Clients
from .doing import check_everything
from .ledger import Ledger
from .line import Line
from .populating import count_population, populate
from .tally import Tally
from .watching import batches_between, sample_server

__all__ = ["main"]

_EVERY_S = 1.0
_SAMPLE_S = 0.5


def main() -> None:
    trio.run(_main)


async def _main() -> None:
    ours = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not disturb the messages
    async with trio.lowlevel.FdStream(os.dup(0)) as reading, trio.lowlevel.FdStream(ours) as writing:
        pipes = Pipes(reading, writing)
        try:
            first = await pipes.receive()
            if first is None:
                return
            setup = m.decode_to_worker(first)
            assert isinstance(setup, m.Setup)
            await _Worker(pipes, setup).run()
        except* OrlopError as group:
            await _tell_failure(pipes, group)
        except* trio.BrokenResourceError:
            pass  # nobody listens any more


async def _tell_failure(pipes: Pipes, group: BaseExceptionGroup[OrlopError]) -> None:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    await pipes.send(m.encode(m.Failed(error_to_wire(error))))


def make_target(driver: str, address: str) -> TargetMaker:
    """Raises FailedPrecondition: what the driver needs is not installed."""
    if driver == "containerd":
        from ..targets import containerd  # gRPC, for those who use it

        return partial(containerd.connected, address)
    from ..targets import store

    return partial(store.in_process if driver == "in-process" else store.connected, address)


class _Worker:
    def __init__(self, pipes: Pipes, setup: m.Setup) -> None:
        self._pipes = pipes
        self._setup = setup
        self._scenario = setup.scenario
        self._ledger = Ledger()
        self._tally = Tally()
        maker = make_target(setup.driver, setup.address)
        count = setup.scenario.load.clients
        mine = range(setup.index, count, setup.workers)
        clients = [Client(setup.scenario, number, count, setup.run) for number in mine]
        own = setup.scenario.load.connections == "own" and setup.driver != "in-process"
        self._lines = [Line(maker) for _ in range(max(1, len(clients)) if own else 1)]
        # Whoever looks at the server must not wait behind what it is asked.
        self._control = self._lines[0] if setup.driver == "in-process" else Line(maker)
        self._watches = setup.index == 0
        self._clients = Clients(setup.scenario, clients, self._lines, self._tally, self._ledger, verify=setup.verify)

    async def run(self) -> None:
        gc.freeze()
        async with trio.open_nursery() as nursery:
            for line in {*self._lines, self._control}:
                nursery.start_soon(line.keep)
            try:
                with trio.fail_after(self._setup.connect_s):
                    target = await self._control.target()
            except trio.TooSlowError:
                raise FailedPrecondition(
                    f"nobody answers at {self._setup.address}", hint="is the server running there?"
                ) from None
            await self._send(m.Ready(await target.server_pid()))
            while (message := await self._pipes.receive()) is not None:
                await self._obey(m.decode_to_worker(message))
            nursery.cancel_scope.cancel()

    async def _obey(self, order: m.ToWorker) -> None:
        match order:
            case m.Populate():
                await self._populate()
            case m.Phase():
                await self._phase(order)
            case m.Verify():
                await check_everything(await self._control.target(), self._ledger)
                await self._send(m.Verified(self._ledger.outcome()))
            case m.Setup():
                raise FailedPrecondition("set up already")

    async def _populate(self) -> None:
        total = count_population(self._scenario)

        async def tell(done: int) -> None:
            await self._send(m.Populated(done, total))

        target = await self._control.target()
        await populate(target, self._scenario, self._setup.index, self._setup.workers, tell)
        await self._send(m.Populated(-1, total))

    async def _phase(self, phase: m.Phase) -> None:
        phase = msgspec.structs.replace(phase, start=trio.current_time() + phase.start - time.monotonic())
        self._tally.take()
        first, before = await self._sample(0.0, None)
        cpu_s = time.process_time()
        async with trio.open_nursery() as nursery:
            telling = await nursery.start(self._tell_each_second, phase.start, before)
            await self._clients.run(phase)
            seconds = trio.current_time() - phase.start
            telling.cancel()
        await self._send(m.Told(int(seconds), self._tally.take(), self._clients.waiting))
        cpu_s = time.process_time() - cpu_s
        last, after = await self._sample(seconds, before)
        batches = batches_between(before, after)
        dropped = self._clients.dropped
        await self._send(m.PhaseDone(seconds, cpu_s, dropped, _some(first), _some(last), batches))

    async def _tell_each_second(
        self, start: float, metrics: Metrics | None, *, task_status: trio.TaskStatus[trio.CancelScope]
    ) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            number = 0
            while True:
                await trio.sleep_until(start + (number + 1) * _EVERY_S)
                sample, metrics = await self._sample(trio.current_time() - start, metrics)
                with trio.CancelScope(shield=True):  # what was taken is told; the leader reads
                    await self._send(m.Told(number, self._tally.take(), self._clients.waiting, sample))
                number += 1

    async def _sample(self, at_s: float, before: Metrics | None) -> tuple[ServerSample | None, Metrics | None]:
        """The server now, if this worker is the one that watches it and somebody answers at once."""
        target = self._control.now
        if not self._watches or target is None:
            return None, None
        with trio.move_on_after(_SAMPLE_S):
            try:
                return await sample_server(target, await target.server_pid(), at_s, before)
            except OrlopError:
                await self._control.look(target)
        return None, None

    async def _send(self, message: m.FromWorker) -> None:
        await self._pipes.send(m.encode(message))


def _some(sample: ServerSample | None) -> list[ServerSample]:
    return [] if sample is None else [sample]


if __name__ == "__main__":
    main()
