"""What a run found, as it is written to JSON and read again by reports and comparisons.

Times are seconds except where the name says microseconds (`_us`).
"""

from __future__ import annotations

import os
import platform
from itertools import pairwise

import msgspec
import trio

from ...protocol.errors import InvalidArgument
from ...protocol.version import __version__
from .scenario import Scenario

__all__ = [
    "FORMAT",
    "Discrepancy",
    "Interval",
    "Machine",
    "OperationResult",
    "Result",
    "Round",
    "SearchStep",
    "ServerSample",
    "Verification",
    "read_result",
    "this_machine",
    "write_result",
]

FORMAT = 1


class Machine(msgspec.Struct, frozen=True):
    system: str
    cores: int
    memory_bytes: int
    python: str
    trio: str
    orlop: str
    processor: str = ""
    file_system: str = ""


class Interval(msgspec.Struct, frozen=True):
    """One second of one operation: `at_s` since the measuring began. Without a success its latencies are 0."""

    at_s: int
    count: int
    errors: int
    p50_us: int
    p99_us: int
    max_us: int


class OperationResult(msgspec.Struct, frozen=True):
    """One operation. `count`: successes, `errors` by class. `histogram`: all latencies of successes in microseconds, as
    HdrHistogram encodes them (V2, compressed, base 64)."""

    operation: str
    count: int
    errors: dict[str, int]
    rate: float
    mean_us: float
    p50_us: int
    p90_us: int
    p99_us: int
    p999_us: int
    max_us: int
    histogram: str
    series: list[Interval] = []


class ServerSample(msgspec.Struct, frozen=True):
    """The server at one instant: `cpu_s` since it started; of a store also how late its loop was, transactions and the
    syncs that made them durable since it started. `pid`: another one has begun anew."""

    at_s: float
    cpu_s: float
    resident_bytes: int
    descriptors: int
    loop_lag_p99_s: float = 0.0
    transactions: float = 0.0
    commits: float = 0.0
    pid: int = 0


class Round(msgspec.Struct, frozen=True):
    """One measured phase. `offered`: arrivals per second of an open loop, 0 for a closed one; `dropped`: arrivals that
    were never begun, as too many waited. `batches`: how many commits had up to so many transactions."""

    began_at: float
    seconds: float
    operations: list[OperationResult]
    server: list[ServerSample]
    client_cpu_s: float
    server_cpu_s: float
    offered: float = 0.0
    dropped: int = 0
    batches: list[tuple[float, int]] = []

    @property
    def rate(self) -> float:
        """Successes per second, of all operations."""
        return sum(each.rate for each in self.operations)

    @property
    def writes_a_sync(self) -> float:
        """Transactions for each commit, 0 if there was none, while servers lived: what was done last before one was
        killed is not in it."""
        transactions = commits = 0.0
        for before, after in pairwise(self.server):
            if after.pid == before.pid and after.commits > before.commits:
                transactions += after.transactions - before.transactions
                commits += after.commits - before.commits
        return transactions / commits if commits else 0.0


class SearchStep(msgspec.Struct, frozen=True):
    """An offered rate that was tried. `p99_us`: of all operations together."""

    rate: float
    achieved: float
    p99_us: int
    held: bool


class Discrepancy(msgspec.Struct, frozen=True):
    """Something is not as it was acknowledged."""

    namespace: str
    name: str
    expected: str
    found: str


class Verification(msgspec.Struct, frozen=True):
    """What was compared. `uncertain`: writes of which nobody knows whether they happened, as the connection broke;
    `kills`: how often the server was killed meanwhile. `discrepancies`: the first hundred of `wrong`."""

    reads: int
    writes: int
    uncertain: int
    kills: int
    wrong: int
    discrepancies: list[Discrepancy] = []


class Result(msgspec.Struct, frozen=True):
    """`driver`: in-process, unix, tcp or containerd. `workers`: client processes."""

    scenario: Scenario
    driver: str
    address: str
    workers: int
    machine: Machine
    rounds: list[Round]
    search: list[SearchStep] = []
    verification: Verification | None = None
    label: str = ""
    format: int = FORMAT


def this_machine(folder: str) -> Machine:
    """Facts about where it ran; `folder`: whose file system is meant."""
    return Machine(
        system=platform.platform(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        trio=trio.__version__,
        orlop=__version__,
        processor=_processor(),
        file_system=_file_system(folder),
    )


def write_result(result: Result, path: str) -> None:
    """Raises InvalidArgument: it cannot be written there."""
    data = msgspec.json.format(msgspec.json.encode(result), indent=1)
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None


def read_result(path: str) -> Result:
    """Raises InvalidArgument: it cannot be read, or is none."""
    try:
        with open(path, "rb") as file:
            result = msgspec.json.decode(file.read(), type=Result)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"{path} is no result of a run: {error}") from None
    if result.format != FORMAT:
        raise InvalidArgument(f"{path} has format {result.format}, this program reads {FORMAT}")
    return result


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _file_system(folder: str) -> str:
    """The type of the mount in which a folder lies."""
    folder = os.path.realpath(folder)
    best, found = "", ""
    try:
        with open("/proc/mounts") as file:
            for line in file:
                _, at, kind, *_ = line.split()
                if (folder + "/").startswith(at.rstrip("/") + "/") and len(at) >= len(best):
                    best, found = at, kind
    except OSError:
        pass
    return found
