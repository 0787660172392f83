"""The leader: starts the workers, has them do what is to be done, and gathers what they tell."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import trio

from ....actors.failures import first_of
from ....protocol.errors import FailedPrecondition, error_from_wire
from .. import messages as m
from ..histograms import decoded, new_histogram, percentiles_us
from ..pipes import Pipes
from ..result import Discrepancy, Interval, OperationResult, Round, ServerSample, Verification

__all__ = ["Crew", "Gathered", "Watch", "open_crew"]

_LEAD_S: Final = 0.3  # until a phase begins, so that all workers have heard of it
_END_S: Final = 5.0
_MOST_TOLD: Final = 100
_RECENT: Final = 5

Watch = Callable[["Gathered"], None]
"""Is told when a second is complete; must not block."""


@dataclass
class _Second:
    """What workers told of one second so far."""

    histograms: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, dict[str, int]] = field(default_factory=dict)
    waiting: int = 0
    told: int = 0


@dataclass
class _Operation:
    """Of one operation: every second in short, and all latencies together."""

    whole: Any = field(default_factory=new_histogram)
    errors: dict[str, int] = field(default_factory=dict)
    series: dict[int, Interval] = field(default_factory=dict)


class Gathered:
    """A phase so far. A second of which all have told is kept in short: only the last few are there whole, for those
    who watch."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._open: dict[int, _Second] = {}
        self._operations: dict[str, _Operation] = {}
        self._length = 0
        self.recent: deque[_Second] = deque(maxlen=_RECENT)
        self.server: list[ServerSample] = []

    def add(self, told: m.Told) -> bool:
        """Whether a second is complete by it."""
        second = self._open.setdefault(told.at_s, _Second())
        for operation, each in told.operations.items():
            if each.histogram:
                if operation in second.histograms:
                    second.histograms[operation].add(decoded(each.histogram))
                else:
                    second.histograms[operation] = decoded(each.histogram)
            errors = second.errors.setdefault(operation, {})
            for name, count in each.errors.items():
                errors[name] = errors.get(name, 0) + count
        second.waiting += told.waiting
        second.told += 1
        if told.server is not None:
            self.server.append(told.server)
        if second.told < self._workers:
            return False
        self._close(told.at_s)
        return True

    def close(self) -> None:
        """Nobody tells more."""
        for at_s in sorted(self._open):
            self._close(at_s)

    def _close(self, at_s: int) -> None:
        second = self._open.pop(at_s)
        self._length = max(self._length, at_s + 1)
        for name in second.histograms.keys() | second.errors.keys():
            operation = self._operations.setdefault(name, _Operation())
            histogram, errors = second.histograms.get(name), second.errors.get(name, {})
            count, p50, p99, most = 0, 0, 0, 0
            if histogram is not None:
                operation.whole.add(histogram)
                count = int(histogram.get_total_count())
                p50, p99, most = percentiles_us(histogram, 50, 99, 100)
            for error, times in errors.items():
                operation.errors[error] = operation.errors.get(error, 0) + times
            before = operation.series.get(at_s)  # somebody told of it once more, at the end
            failed = sum(errors.values())
            if before is not None:
                count, failed = count + before.count, failed + before.errors
                p50, p99, most = max(p50, before.p50_us), max(p99, before.p99_us), max(most, before.max_us)
            operation.series[at_s] = Interval(at_s, count, failed, p50, p99, most)
        self.recent.append(second)

    def operations(self) -> list[str]:
        return sorted(self._operations)

    def all_latencies(self) -> Any:
        """One histogram over everything."""
        whole = new_histogram()
        for operation in self._operations.values():
            whole.add(operation.whole)
        return whole

    def count_errors(self) -> int:
        return sum(sum(operation.errors.values()) for operation in self._operations.values())

    def result_of(self, name: str, seconds: float) -> OperationResult:
        operation = self._operations[name]
        whole = operation.whole
        count = int(whole.get_total_count())
        p50, p90, p99, p999, most = percentiles_us(whole, 50, 90, 99, 99.9, 100)
        mean = float(whole.get_mean_value()) if count else 0.0
        text = whole.encode().decode() if count else ""
        series = [operation.series.get(at_s, Interval(at_s, 0, 0, 0, 0, 0)) for at_s in range(self._length)]
        return OperationResult(
            name, count, operation.errors, count / seconds, mean, p50, p90, p99, p999, most, text, series
        )


class _Member:
    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.pipes = Pipes(process.stdout, process.stdin)

    async def send(self, order: m.ToWorker) -> None:
        try:
            await self.pipes.send(m.encode(order))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # why it ended is in what it said

    async def receive(self) -> m.FromWorker:
        """Raises what the worker ran into."""
        data = await self.pipes.receive()
        if data is None:
            raise FailedPrecondition("a worker of the load ended before its time", hint="its traceback is above")
        message = m.decode_from_worker(data)
        if isinstance(message, m.Failed):
            raise error_from_wire(message.error)
        return message


class Crew:
    """Use `open_crew`."""

    def __init__(self, members: list[_Member]) -> None:
        self._members = members
        self._phases = 0
        self.server_pid = 0

    async def set_up(self, setup: Callable[[int], m.Setup]) -> None:
        for index, member in enumerate(self._members):
            await member.send(setup(index))
        for member in self._members:
            ready = await member.receive()
            assert isinstance(ready, m.Ready)
            self.server_pid = ready.server_pid

    async def populate(self, watch: Callable[[int, int], None]) -> None:
        """`watch` hears how much is there, of how much. Raises OrlopError."""
        done = [0] * len(self._members)

        async def one(index: int, member: _Member) -> None:
            await member.send(m.Populate())
            while True:
                message = await member.receive()
                assert isinstance(message, m.Populated)
                if message.done < 0:
                    return
                done[index] = message.done
                watch(sum(done), message.total)

        async with trio.open_nursery() as nursery:
            for index, member in enumerate(self._members):
                nursery.start_soon(one, index, member)

    async def run(
        self, seconds: float, *, rate: float = 0.0, rate_end: float | None = None, watch: Watch | None = None
    ) -> tuple[Round, Gathered]:
        """One phase. `rate` over all workers, 0: a closed loop. Raises OrlopError."""
        self._phases += 1
        count = len(self._members)
        began_at, start = time.time(), time.monotonic() + _LEAD_S
        last = rate if rate_end is None else rate_end
        phase = m.Phase(self._phases, start, seconds, rate / count, last / count)
        gathered, ended = Gathered(count), []

        async def one(member: _Member) -> None:
            await member.send(phase)
            while True:
                message = await member.receive()
                if isinstance(message, m.PhaseDone):
                    ended.append(message)
                    return
                assert isinstance(message, m.Told)
                if gathered.add(message) and watch is not None:
                    watch(gathered)

        async with trio.open_nursery() as nursery:
            for member in self._members:
                nursery.start_soon(one, member)
        gathered.close()
        took = max(done.seconds for done in ended)
        samples = [*(first for done in ended for first in done.first), *gathered.server]
        samples += [last for done in ended for last in done.last]
        outcome = Round(
            began_at=began_at,
            seconds=took,
            operations=[gathered.result_of(name, took) for name in gathered.operations()],
            server=samples,
            client_cpu_s=sum(done.cpu_s for done in ended),
            server_cpu_s=_used(samples),
            offered=(rate + last) / 2,
            dropped=sum(done.dropped for done in ended),
            batches=next((done.batches for done in ended if done.batches), []),
        )
        return outcome, gathered

    async def verify(self) -> Verification:
        """All workers compare. Raises OrlopError."""
        found: list[Verification] = []

        async def one(member: _Member) -> None:
            await member.send(m.Verify())
            message = await member.receive()
            assert isinstance(message, m.Verified)
            found.append(message.outcome)

        async with trio.open_nursery() as nursery:
            for member in self._members:
                nursery.start_soon(one, member)
        wrong: list[Discrepancy] = [each for outcome in found for each in outcome.discrepancies]
        return Verification(
            reads=sum(each.reads for each in found),
            writes=sum(each.writes for each in found),
            uncertain=sum(each.uncertain for each in found),
            kills=0,
            wrong=sum(each.wrong for each in found),
            discrepancies=wrong[:_MOST_TOLD],
        )


def _used(samples: list[ServerSample]) -> float:
    """CPU seconds between the first sample and the last; a server that began anew counts from nothing."""
    used = 0.0
    for before, after in pairwise(samples):
        used += after.cpu_s - before.cpu_s if after.pid == before.pid else after.cpu_s
    return used


@asynccontextmanager
async def open_crew(workers: int, setup: Callable[[int], m.Setup]) -> AsyncIterator[Crew]:
    """So many workers, each set up as its number says, for the length of the block; none outlives it. Raises what they
    run into."""
    members: list[_Member] = []
    try:
        for _ in range(workers):
            command = [sys.executable, "-m", "orlop.bin.load.worker.main"]
            # A session of its own: Ctrl-C is for the leader, which ends the others.
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            members.append(_Member(process))
        crew = Crew(members)
        try:
            await crew.set_up(setup)
            yield crew
        except BaseExceptionGroup as group:
            raise first_of(group) from None
    except BaseException:
        for member in members:
            member.process.terminate()
        raise
    finally:
        with trio.CancelScope(shield=True):
            for member in members:
                await member.pipes.close()
            for member in members:
                with trio.move_on_after(_END_S):
                    await member.process.wait()
                if member.process.returncode is None:
                    member.process.kill()
                    await member.process.wait()
