"""A worker: a process with a share of the clients. It speaks with its leader over standard input and output."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
from functools import partial

import msgspec
import trio

from ....actors.failures import first_of
from ....protocol.errors import OrlopError, Unavailable, error_to_wire
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
from .populating import count_population, populate, populated_things
from .tally import Tally
from .watching import batches_between, sample_server

__all__ = ["main"]

_EVERY_S = 1.0
_SAMPLE_S = 0.5
_TRIES = 3  # of a comparison whose connection breaks


def main() -> None:
    _raise_limits()
    trio.run(_main)


def _raise_limits() -> None:
    """Of open files: each client may have a connection of its own."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _main() -> None:
    ours = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not disturb the messages
    async with trio.lowlevel.FdStream(os.dup(0)) as reading, trio.lowlevel.FdStream(ours) as writing:
        pipes = Pipes(reading, writing)
        first = await pipes.receive()
        if first is None:
            return
        setup = m.decode_to_worker(first)
        assert isinstance(setup, m.Setup)
        try:
            await _until_told(pipes, setup)
        except BaseExceptionGroup as group:
            error = first_of(group)
            if isinstance(error, OrlopError):
                await pipes.send(m.encode(m.Failed(error_to_wire(error))))
            elif not isinstance(error, trio.BrokenResourceError):  # that: nobody listens any more
                raise


async def _until_told(pipes: Pipes, setup: m.Setup) -> None:
    """Until the leader says nothing more, or ends us; then everything under way is given up, and connections close."""
    send, receive = trio.open_memory_channel[m.ToWorker](1)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def end_when_told() -> None:
                await anext(signals)
                nursery.cancel_scope.cancel()

            async def listen() -> None:
                while (message := await pipes.receive()) is not None:
                    await send.send(m.decode_to_worker(message))
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_when_told)
            nursery.start_soon(listen)
            await _Worker(pipes, setup).run(receive)


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
        self._ledger = Ledger(kept=setup.verify)
        self._tally = Tally()
        maker = make_target(setup.driver, setup.address)
        count = setup.scenario.load.clients
        mine = range(setup.index, count, setup.workers)
        clients = [Client(setup.scenario, number, count, setup.run) for number in mine]
        own = setup.scenario.load.connections == "own" and setup.driver != "in-process"
        self._lines = [Line(maker) for _ in range(len(clients) if own else 1)]
        # Whoever looks at the server must not wait behind what it is asked.
        self._control = self._lines[0] if setup.driver == "in-process" else Line(maker)
        self._watches = setup.index == 0
        self._batches: dict[float, int] = {}
        share = (setup.index, setup.workers)
        self._clients = Clients(
            setup.scenario, share, clients, self._lines, self._tally, self._ledger, verify=setup.verify
        )

    async def run(self, orders: trio.MemoryReceiveChannel[m.ToWorker]) -> None:
        async with trio.open_nursery() as nursery:
            for line in {*self._lines, self._control}:
                nursery.start_soon(line.keep)
            until = trio.current_time() + self._setup.connect_s
            for line in (self._control, *self._lines):
                target = await line.target(until)
            await self._send(m.Ready(await target.server_pid()))
            async for order in orders:
                await self._obey(order)

    async def _obey(self, order: m.ToWorker) -> None:
        match order:
            case m.Populate():
                await self._populate()
            case m.Phase():
                await self._phase(order)
            case m.Verify():
                await self._verify()
            case m.Setup():
                raise AssertionError("set up already")

    async def _populate(self) -> None:
        total = count_population(self._scenario)

        async def tell(done: int) -> None:
            await self._send(m.Populated(done, total))

        target = await self._control.target(trio.current_time() + self._setup.connect_s)
        await populate(target, self._scenario, self._setup.index, self._setup.workers, tell)
        await self._send(m.Populated(-1, total))

    async def _phase(self, phase: m.Phase) -> None:
        phase = msgspec.structs.replace(phase, start=trio.current_time() + phase.start - time.monotonic())
        self._tally.take()
        self._batches.clear()
        _set_aside_what_is_old()
        first, metrics = await self._sample(0.0, None)
        cpu_s = time.process_time()
        async with trio.open_nursery() as nursery:
            telling = trio.CancelScope()
            nursery.start_soon(self._tell_each_second, telling, phase.start, first, metrics)
            await self._clients.run(phase)
            seconds = max(phase.seconds, trio.current_time() - phase.start)
            telling.cancel()
        await self._send(m.Told(int(seconds), self._tally.take(), self._clients.waiting))
        cpu_s = time.process_time() - cpu_s
        last, _ = await self._sample(seconds, None)
        dropped = self._clients.dropped
        await self._send(m.PhaseDone(seconds, cpu_s, dropped, _some(first), _some(last), sorted(self._batches.items())))

    async def _tell_each_second(
        self, scope: trio.CancelScope, start: float, sample: ServerSample | None, metrics: Metrics | None
    ) -> None:
        number = 0
        with scope:
            while True:
                await trio.sleep_until(start + (number + 1) * _EVERY_S)
                told, before, pid = self._tally.take(), metrics, sample.pid if sample else 0
                try:
                    sample, metrics = await self._sample(trio.current_time() - start, before)
                    if before is not None and metrics is not None and sample is not None and sample.pid == pid:
                        for bound, count in batches_between(before, metrics):
                            self._batches[bound] = self._batches.get(bound, 0) + count
                finally:  # what was taken is told
                    with trio.CancelScope(shield=True):  # the leader reads
                        await self._send(m.Told(number, told, self._clients.waiting, sample))
                number += 1
                if number % 10 == 0:
                    _set_aside_what_is_old()

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

    async def _verify(self) -> None:
        """Once more if the connection breaks: who killed the server is the one who asks."""
        population = partial(populated_things, self._scenario, self._setup.index, self._setup.workers)
        for left in reversed(range(_TRIES)):
            if self._control.now is not None:
                await self._control.look(self._control.now)
            target = await self._control.target(trio.current_time() + self._setup.connect_s)
            try:
                await check_everything(target, self._ledger, population())
                break
            except BaseExceptionGroup as group:
                if not left or not isinstance(first_of(group), Unavailable):
                    raise
        await self._send(m.Verified(self._ledger.outcome()))

    async def _send(self, message: m.FromWorker) -> None:
        await self._pipes.send(m.encode(message))


def _set_aside_what_is_old() -> None:
    """Python's cycle collector need not look at it: of a large ledger that would take longer than what is measured."""
    gc.freeze()


def _some(sample: ServerSample | None) -> list[ServerSample]:
    return [] if sample is None else [sample]


if __name__ == "__main__":
    main()
