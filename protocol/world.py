"""The seam: everything that the code asks of the machine reaches it through one `World`.

Production gets the real one (`bin/world.py`); tests get simulated disks, clocks and networks, so that one seed
can decide everything. Nothing below `bin/` may reach the machine in another way (tests/test_seam.py holds it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple

import msgspec

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Address",
    "Clock",
    "FileStatus",
    "Files",
    "Listener",
    "Network",
    "Randomness",
    "Transport",
    "Work",
    "Workers",
    "World",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Clock(Protocol):
    def now_ns(self) -> int:
        """Wall clock, nanoseconds since the epoch. May jump either way."""

    def monotonic_ns(self) -> int:
        """For measuring how long something took, never for deciding when: that is trio's clock."""


class Randomness(Protocol):
    def token(self, count: int) -> bytes:
        """`count` unpredictable bytes."""

    def uniform(self) -> float:
        """In [0, 1), for jitter."""


class Work(Enum):
    """Classes of blocking work; each has its own bound, so that one kind cannot starve another."""

    COMMIT = "commit"  # the engine's single writer
    BYTES = "bytes"  # hashing and file contents
    FILES = "files"  # names: rename, unlink, folder syncs


class Workers(Protocol):
    async def run(self, kind: Work, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a blocking function off the loop. Cancellation: waits for the function to end first."""


class FileStatus(msgspec.Struct, frozen=True):
    size: int
    modified_ns: int
    inode: int


class Files(Protocol):
    """Blocking file calls with the meaning of their POSIX namesakes; they raise OSError.

    Call them through `Workers`, never on the loop. A fault-injecting version can fail any one of them.
    """

    def open(self, path: str, flags: int, mode: int = 0o600) -> int: ...
    def close(self, fd: int) -> None: ...
    def write(self, fd: int, data: bytes | memoryview) -> int: ...
    def size(self, fd: int) -> int: ...
    def pread(self, fd: int, count: int, offset: int) -> bytes: ...
    def truncate(self, fd: int, size: int) -> None: ...
    def seek(self, fd: int, offset: int) -> None: ...
    def sync(self, fd: int) -> None: ...
    def sync_folder(self, path: str) -> None: ...
    def flush_behind(self, fd: int, offset: int, count: int) -> None:
        """Ask the kernel to begin writing these bytes to disk; promises nothing."""

    def allocate(self, fd: int, size: int) -> None:
        """Reserve space on the disk. Raises OSError when there is not enough."""

    def rename(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def make_folder(self, path: str) -> None:
        """Make it, and the missing ones above it; one that exists is fine."""

    def list_folder(self, path: str) -> Sequence[str]: ...
    def remove_tree(self, path: str) -> None: ...
    def status(self, path: str) -> FileStatus | None:
        """None if there is no such name."""

    def set_modified(self, path: str, at_ns: int) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def lock(self, fd: int) -> bool:
        """Take an exclusive lock that goes with the descriptor; False if another holds it."""


class Transport(Protocol):
    """Bytes in both directions, and over unix sockets file descriptors."""

    descriptors: bool

    async def receive(self) -> tuple[bytes, list[int]]:
        """Some bytes (none: the peer has closed) and the descriptors that came with them.

        Cancellation: nothing was received. Raises OSError when the connection broke.
        """

    async def send(self, data: bytes | bytearray | memoryview, descriptor: int | None = None) -> None:
        """All of `data`; the descriptor goes with its first byte. Cancellation: some of it may have left."""

    def send_nowait(self, data: bytes | bytearray) -> int:
        """As much as leaves without waiting; how many bytes that was."""

    def close_descriptor(self, fd: int) -> None:
        """Close a descriptor that came, or that was to go."""

    async def close(self) -> None: ...


class Address(msgspec.Struct, frozen=True):
    """Where a server listens: `unix:PATH` or `tcp:HOST:PORT`."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


class Listener(Protocol):
    address: Address

    async def accept(self) -> Transport: ...
    async def close(self) -> None: ...


class Network(Protocol):
    async def listen(self, address: Address, mode: int = 0o600) -> Listener: ...
    async def connect(self, address: Address) -> Transport: ...
    def http(self, *, verify: bool) -> httpx.AsyncBaseTransport:
        """The way to registries."""


@dataclass(frozen=True)
class World:
    clock: Clock
    random: Randomness
    files: Files
    workers: Workers
    network: Network
    pid: int = 0
    program: str = "orlop"
