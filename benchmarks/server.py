"""A daemon that also measures the longest step of its event loop, and prints it when it ends."""

from __future__ import annotations

import signal
import sys
import time

import trio

import orlop
from orlop.bin.daemon import bound_memory, settle_memory


class LongestStep(trio.abc.Instrument):
    """Wall time and CPU time of the longest step: on a busy machine only the second is ours."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.wall_ns = self.cpu_ns = 0
        self.task = ""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._wall, self._cpu = time.perf_counter_ns(), time.thread_time_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.wall_ns = max(self.wall_ns, time.perf_counter_ns() - self._wall)
        cpu = time.thread_time_ns() - self._cpu
        if cpu > self.cpu_ns:
            self.cpu_ns, self.task = cpu, task.name


async def main(config: orlop.StoreConfig, instrument: LongestStep) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(orlop.serve, config)
            settle_memory()
            await trio.lowlevel.checkpoint()  # the step that started all this ends here
            instrument.forget()
            print("ready", flush=True)
            async for number in signals:
                if number == signal.SIGTERM:
                    break
                print(f"{instrument.wall_ns / 1e6:.1f} {instrument.cpu_ns / 1e6:.1f} {instrument.task}", flush=True)
                instrument.forget()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    bound_memory()
    measured = LongestStep()
    root, address, instrumented = sys.argv[1], sys.argv[2], sys.argv[3] == "yes"
    trio.run(main, orlop.StoreConfig(root, [address]), measured, instruments=[measured] if instrumented else [])
