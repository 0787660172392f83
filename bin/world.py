"""The real machine: the only place where orlop reads clocks, opens files and sockets, or draws randomness."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import random
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio

from ..protocol.errors import InvalidArgument, Unavailable
from ..protocol.world import Address, FileStatus, Listener, Tls, Transport, User, Work, World
from .btrfs import BtrfsSubvolumes
from .mounts import LinuxMounts
from .processes import ForkedProcesses
from .programs import ForeignPrograms

if TYPE_CHECKING:
    import httpx

__all__ = ["parse_address", "real_world"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# A receive buffer is allocated for every read. Above malloc's threshold that means fresh pages from the kernel
# each time, so the large one is only for peers that just filled the small one.
_RECEIVE_BYTES = 16 * 1024
_RECEIVE_MORE_BYTES = 512 * 1024
_MAX_DESCRIPTORS = 64
_SYNC_FILE_RANGE_WRITE = 2


class RealClock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class RealRandomness:
    def token(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self) -> float:
        return random.random()


class ThreadWorkers:
    """Each class of work has its own limiter, so that hashing cannot keep the engine's writer waiting."""

    def __init__(self) -> None:
        cores = os.cpu_count() or 1
        self._limiters = {
            Work.COMMIT: trio.CapacityLimiter(1),
            Work.BYTES: trio.CapacityLimiter(max(2, cores)),
            Work.FILES: trio.CapacityLimiter(4),
        }

    async def run(self, kind: Work, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(fn, *args, limiter=self._limiters[kind])


class RealFiles:
    """POSIX, with close-on-exec everywhere."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._sync_range = getattr(libc, "sync_file_range", None)
        self._sync_file_system = getattr(libc, "syncfs", None)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        return os.pread(fd, count, offset)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def seek(self, fd: int, offset: int) -> None:
        os.lseek(fd, offset, os.SEEK_SET)

    def sync(self, fd: int) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)

    def sync_folder(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def flush_behind(self, fd: int, offset: int, count: int) -> None:
        if self._sync_range is not None:
            self._sync_range(
                fd, ctypes.c_longlong(offset), ctypes.c_longlong(count), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
            )

    def allocate(self, fd: int, size: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:  # macOS: what is written is reserved
            os.write(fd, bytes(size))

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def new_folder(self, path: str, mode: int) -> None:
        os.mkdir(path, 0o700)
        os.chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid, follow_symlinks=False)

    def sync_file_system(self, path: str) -> None:
        if self._sync_file_system is None:  # macOS
            os.sync()
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._sync_file_system(fd) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        finally:
            os.close(fd)

    def list_folder(self, path: str) -> Sequence[str]:
        return os.listdir(path)

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def status(self, path: str) -> FileStatus | None:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return FileStatus(found.st_size, found.st_mtime_ns, found.st_ino, found.st_uid, found.st_gid, found.st_mode)

    def set_modified(self, path: str, at_ns: int) -> None:
        os.utime(path, ns=(at_ns, at_ns))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class SocketTransport:
    """A connected stream socket. Unix sockets always receive with recvmsg: a plain recv drops descriptors."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self.descriptors = sock.family == socket.AF_UNIX
        if not self.descriptors:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # trio's socket is non-blocking already; this view of it can be written to without a checkpoint.
        self._raw = socket.socket(fileno=os.dup(sock.fileno()))
        self._raw.setblocking(False)
        self._want = _RECEIVE_BYTES
        self._ancillary_bytes = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)

    async def receive(self) -> tuple[bytes, list[int]]:
        await trio.lowlevel.wait_readable(self._socket)
        try:
            data, ancillary, flags = self._receive_now()
        except BlockingIOError:  # a false alarm
            return await self.receive()
        self._want = _RECEIVE_MORE_BYTES if len(data) >= _RECEIVE_BYTES else _RECEIVE_BYTES
        if not ancillary:
            return data, []
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if flags & socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise OSError("file descriptors were lost on the way: too many open files")
        return data, list(fds)

    def _receive_now(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        if not self.descriptors:
            return self._raw.recv(self._want), [], 0
        data, ancillary, flags, _ = self._raw.recvmsg(
            self._want, self._ancillary_bytes, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        )
        return data, ancillary, flags

    async def send(self, data: bytes | bytearray | memoryview, descriptor: int | None = None) -> None:
        rest = memoryview(data)
        if descriptor is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())]
            rest = rest[await self._socket.sendmsg([rest], ancillary) :]
        while rest:
            rest = rest[await self._socket.send(rest) :]

    def send_nowait(self, data: bytes | bytearray) -> int:
        try:
            return self._raw.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def close_descriptor(self, fd: int) -> None:
        os.close(fd)

    async def close(self) -> None:
        self._raw.close()
        self._socket.close()
        await trio.lowlevel.cancel_shielded_checkpoint()


class SocketListener:
    def __init__(self, sock: trio.socket.SocketType, address: Address, inode: int = 0) -> None:
        self._socket = sock
        self.address = address
        self._inode = inode

    async def accept(self) -> Transport:
        connected, _ = await self._socket.accept()
        return SocketTransport(connected)

    async def close(self) -> None:
        self._socket.close()
        path = self.address.path
        try:
            # Only our own: a later server may have put its socket there meanwhile.
            if path and os.stat(path).st_ino == self._inode:
                os.unlink(path)
        except FileNotFoundError:
            pass
        await trio.lowlevel.cancel_shielded_checkpoint()


class SocketNetwork:
    async def listen(self, address: Address, mode: int = 0o600) -> Listener:
        if address.path:
            return await self._listen_unix(address, mode)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await sock.bind((address.host, address.port))
            sock.listen(128)
        except BaseException:
            sock.close()
            raise
        host, port = sock.getsockname()[:2]
        return SocketListener(sock, Address(host=host, port=port))

    async def _listen_unix(self, address: Address, mode: int) -> Listener:
        path = address.path
        if await self._answers(address):
            raise Unavailable(f"socket {path} is in use by another server")
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The mode must hold from the first instant, not from a chmod after it.
        before = os.umask(0o777 & ~mode)
        try:
            with _ShortPath(path) as short:
                await sock.bind(short)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(before)
        sock.listen(128)
        return SocketListener(sock, address, os.stat(path).st_ino)

    async def _answers(self, address: Address) -> bool:
        try:
            transport = await self.connect(address)
        except OSError:
            return False
        await transport.close()
        return True

    async def connect(self, address: Address) -> Transport:
        if address.path:
            sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                with _ShortPath(address.path) as short:
                    await sock.connect(short)
            except BaseException:
                sock.close()
                raise
            return SocketTransport(sock)
        stream = await trio.open_tcp_stream(address.host, address.port)
        return SocketTransport(stream.socket)

    def http(self, tls: Tls) -> httpx.AsyncBaseTransport:
        from .transport import http_transport

        return http_transport(tls)


class _ShortPath:
    """A unix socket's path may have some 100 bytes; a longer one is reached through its folder's descriptor."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        if len(self._path.encode()) < 100 or not sys.platform.startswith("linux"):
            return self._path
        folder, name = os.path.split(self._path)
        self._fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{name}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def parse_address(text: str) -> Address:
    """`unix:PATH`, a bare PATH, or `tcp:HOST:PORT`. Raises InvalidArgument."""
    kind, colon, rest = text.partition(":")
    if kind == "tcp" and colon:
        host, _, port = rest.rpartition(":")
        if host and port.isascii() and port.isdigit() and int(port) < 65536:
            return Address(host=host.strip("[]"), port=int(port))
    elif kind == "unix" and rest:
        return Address(path=os.path.abspath(rest))
    elif text.startswith(("/", ".")):
        return Address(path=os.path.abspath(text))
    raise InvalidArgument(f'address "{text}"', hint="use unix:PATH or tcp:HOST:PORT")


def _user() -> User:
    uid = os.geteuid()
    try:
        with open("/proc/self/uid_map") as file:
            ranges = [[int(number) for number in line.split()] for line in file]
    except OSError:
        return User(uid, False, uid == 0)
    known = sum(length for _, _, length in ranges)
    return User(uid, ranges != [[0, 0, 2**32 - 1]], uid == 0 and known > 1)


def real_world(program: str = "orlop") -> World:
    return World(
        clock=RealClock(),
        random=RealRandomness(),
        files=RealFiles(),
        workers=ThreadWorkers(),
        network=SocketNetwork(),
        processes=ForkedProcesses(),
        programs=ForeignPrograms(),
        mounts=LinuxMounts(),
        subvolumes=BtrfsSubvolumes(),
        user=_user(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        pid=os.getpid(),
        program=program,
    )
