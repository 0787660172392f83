"""The seam: everything that the code asks of the machine reaches it through one `World`.

Production gets the real one (`bin/world.py`); tests get simulated disks, clocks and networks, so that one seed
can decide everything. Nothing below `bin/` may reach the machine in another way (tests/test_seam.py holds it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
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
    "Finished",
    "Job",
    "Listener",
    "Mounts",
    "Network",
    "Pool",
    "Processes",
    "Programs",
    "Randomness",
    "Subvolumes",
    "Tls",
    "Transport",
    "User",
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
    FILES = "files"  # names: rename, unlink, folder syncs, mounts


class Workers(Protocol):
    async def run(self, kind: Work, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a blocking function off the loop. Cancellation: waits for the function to end first."""


class FileStatus(msgspec.Struct, frozen=True):
    size: int
    modified_ns: int
    inode: int
    uid: int = 0
    gid: int = 0
    mode: int = 0
    """Its type and permissions, as `stat.S_ISREG` and its like read them."""


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

    def new_folder(self, path: str, mode: int) -> None:
        """Make it with exactly this mode. Raises FileExistsError."""

    def chown(self, path: str, uid: int, gid: int) -> None: ...
    def sync_file_system(self, path: str) -> None:
        """Everything written so far to the file system that holds the path."""

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


class Tls(msgspec.Struct, frozen=True):
    """How a peer is verified, and what it is shown. `ca`: PEM files beside the system's. `client`: certificates with
    their keys; an empty key stands in the certificate's file."""

    verify: bool = True
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()


class Network(Protocol):
    async def listen(self, address: Address, mode: int = 0o600) -> Listener: ...
    async def connect(self, address: Address) -> Transport: ...
    def http(self, tls: Tls) -> httpx.AsyncBaseTransport:
        """The way to a registry. Blocking: reads certificates. Raises OSError (ssl.SSLError is one) for those that
        cannot be read."""


class Job(Protocol):
    """A worker process at work: whole messages in both directions."""

    async def send(self, message: bytes) -> None:
        """Raises OSError when it has ended."""

    async def receive(self) -> bytes:
        """Its next message; none when it has ended. Cancellation: nothing was received."""

    async def close(self) -> None:
        """End it, if it still runs; when this returns, it does nothing any more. Cancellation: shielded."""


class Pool(Protocol):
    """Where worker processes come from."""

    async def warm(self) -> None:
        """Do beforehand what the first worker would have to wait for. Raises OSError."""

    async def start(self, message: bytes, descriptors: Sequence[int]) -> Job:
        """A worker that is given a message and duplicates of descriptors. Raises OSError.

        Cancellation: there is none, or one that ends by itself.
        """


class Processes(Protocol):
    def pool(self) -> AbstractAsyncContextManager[Pool]:
        """A pool for the length of the block; every worker ends with it. The first is what costs time."""


class Finished(msgspec.Struct, frozen=True):
    """How a foreign program ended: its exit code, or the signal that killed it as a negative number; and the beginning
    of what it wrote. `cut`: there was more on its standard output."""

    code: int
    out: bytes
    error: bytes
    cut: bool = False


class Programs(Protocol):
    """Programs of others."""

    async def run(self, command: Sequence[str], data: bytes, keep_bytes: int) -> Finished:
        """Run a program to its end, with `data` on its standard input, whether it reads that or not, and our
        environment. Of each of its outputs the first `keep_bytes` are kept, and the rest is read and thrown away.

        It has a session of its own. When it has ended, what it started there is killed (on macOS: what stayed in its
        process group); what made itself another session is out of reach.

        Raises OSError when it cannot be run; ChildProcessError when nobody can tell how it ended. Cancellation: it is
        killed, with what it started, and has ended when this returns.
        """


class Mounts(Protocol):
    """The mount table. Blocking; raises OSError."""

    def mount(self, kind: str, source: str, target: str, options: Sequence[str]) -> None: ...
    def unmount(self, target: str) -> None:
        """Detached: at once for everybody who comes, later for who is inside."""


class Subvolumes(Protocol):
    """Those of btrfs. Blocking; they raise OSError."""

    def possible(self, folder: str) -> bool:
        """Whether the folder lies on btrfs."""

    def make(self, path: str) -> None: ...
    def clone(self, source: str, path: str) -> None:
        """A writable one with the same contents, which share their blocks."""

    def remove(self, path: str) -> None: ...


@dataclass(frozen=True)
class User:
    """As whom this process runs. `uid` 0 inside a user namespace is not the machine's root. `gives_away`: whether it
    may make files that belong to others."""

    uid: int = 0
    in_user_namespace: bool = False
    gives_away: bool = True


@dataclass(frozen=True)
class World:
    clock: Clock
    random: Randomness
    files: Files
    workers: Workers
    network: Network
    processes: Processes
    programs: Programs
    mounts: Mounts
    subvolumes: Subvolumes
    user: User = User()
    cores: int = 1
    pid: int = 0
    program: str = "orlop"
