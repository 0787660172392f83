"""What a server costs the machine, and what it tells of itself: a sample now and then."""

from __future__ import annotations

import os

from ....protocol.errors import OrlopError
from ....protocol.messages import Metrics
from ...readings import Readings
from ..result import ServerSample
from ..targets.interface import Target

__all__ = ["batches_between", "sample_server"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_ENDLESS = 1e9  # JSON knows no infinity
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


async def sample_server(
    target: Target, pid: int, at_s: float, before: Metrics | None
) -> tuple[ServerSample, Metrics | None]:
    """`before`: what it told the last time; how late its loop was is known between the two."""
    try:
        metrics = await target.metrics()
    except OrlopError:  # it is being started again
        metrics = None
    cpu_s, resident, descriptors = _cost(pid)
    if metrics is None:
        return ServerSample(at_s, cpu_s, resident, descriptors, pid=pid), None
    now = Readings.of(metrics)
    lag = now.since(Readings.of(before)).percentile("orlop_loop_lag_seconds", 0.99) if before is not None else 0.0
    return ServerSample(
        at_s,
        cpu_s,
        resident,
        descriptors,
        loop_lag_p99_s=min(lag or 0.0, _ENDLESS),
        transactions=now.value("orlop_transactions_total"),
        commits=now.value("orlop_commits_total"),
        pid=pid,
    ), metrics


def batches_between(before: Metrics | None, after: Metrics | None) -> list[tuple[float, int]]:
    """How many commits had more transactions than the bound before, and up to this one."""
    if before is None or after is None:
        return []
    since = Readings.of(after).since(Readings.of(before)).buckets("orlop_commit_transactions")
    found, below = [], 0
    for bound, count in sorted(since.items()):
        if count > below:
            found.append((min(bound, _ENDLESS), count - below))
        below = count
    return found


def _cost(pid: int) -> tuple[float, int, int]:
    """CPU seconds, resident bytes and open descriptors of a process and all below it; of one that is gone none."""
    cpu_s, resident, descriptors = 0.0, 0, 0
    for each in _family(pid):
        try:
            with open(f"/proc/{each}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            resident += int(fields[21]) * _PAGE_BYTES
            # With that of the children that have ended: their parent has it from then on.
            cpu_s += sum(int(field) for field in fields[11:15]) * _TICK_S
            if each == pid:
                descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    return cpu_s, resident, descriptors


def _family(pid: int) -> list[int]:
    """A process and what it started, as far as the system tells."""
    found = [pid] if pid else []
    for each in found:
        try:
            for thread in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{thread}/children") as file:
                    found += [int(child) for child in file.read().split()]
        except OSError:
            continue
    return found
