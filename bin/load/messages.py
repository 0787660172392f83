"""What the crew's leader and its workers say to each other, over pipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...protocol.errors import WireError
from .result import ServerSample, Verification
from .scenario import Scenario

__all__ = [
    "Failed",
    "FromWorker",
    "OperationTold",
    "Phase",
    "PhaseDone",
    "Populate",
    "Populated",
    "Ready",
    "Setup",
    "Told",
    "ToWorker",
    "Verified",
    "Verify",
    "decode_from_worker",
    "decode_to_worker",
    "encode",
]


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first message. `index` of `workers`; `address`: of a socket, or the store's folder.
    `connect_s`: how long somebody may take to answer there."""

    scenario: Scenario
    driver: str
    address: str
    index: int
    workers: int
    run: str
    verify: bool
    connect_s: float


class Populate(msgspec.Struct, frozen=True, tag="populate"):
    """Make this worker's share of what is to be there before."""


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """From `start` on (the machine's monotonic clock, seconds) for `seconds`. `rate`: this worker's arrivals per second
    at the beginning, `rate_end` at the end; 0: a closed loop. `number` decides the arrivals, with the seed."""

    number: int
    start: float
    seconds: float
    rate: float
    rate_end: float


class Verify(msgspec.Struct, frozen=True, tag="verify"):
    """Compare what was acknowledged with what is there."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """It is connected."""

    server_pid: int


class Populated(msgspec.Struct, frozen=True, tag="populated"):
    """So much more of the population is there."""

    done: int
    total: int


class OperationTold(msgspec.Struct, frozen=True):
    """One operation in one second: latencies in microseconds as an encoded HdrHistogram, empty for none."""

    histogram: str
    errors: dict[str, int]


class Told(msgspec.Struct, frozen=True, tag="told"):
    """A second has passed. `waiting`: arrivals that were not begun yet. `server`: by one of the workers."""

    at_s: int
    operations: dict[str, OperationTold]
    waiting: int
    server: ServerSample | None = None


class PhaseDone(msgspec.Struct, frozen=True, tag="done"):
    """The last of its operations has ended, so long after the start. `first` and `last`: the server before and after,
    by the one that watches it. `batches`: see Round."""

    seconds: float
    cpu_s: float
    dropped: int
    first: list[ServerSample] = []
    last: list[ServerSample] = []
    batches: list[tuple[float, int]] = []


class Verified(msgspec.Struct, frozen=True, tag="verified"):
    outcome: Verification


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    error: WireError


ToWorker = Setup | Populate | Phase | Verify
FromWorker = Ready | Populated | Told | PhaseDone | Verified | Failed

encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
decode_to_worker: Callable[[bytes], ToWorker] = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker: Callable[[bytes], FromWorker] = msgspec.msgpack.Decoder(FromWorker).decode
