"""The worker processes: one server that forks a confined child for each job.

A child that is forked from a process with everything imported costs a millisecond, where a new interpreter costs a
hundred. The server holds no state but which children it has; it ends when its socket does, and takes them with it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

from ...protocol.errors import Internal, NotFound, OrlopError, ResourceExhausted, Unavailable, error_to_wire
from .apply import Applied, LayerApplier
from .choosing import ChosenEntries
from .confine import confine, die_with_parent
from .copying import copy_tree
from .diff import write_difference
from .jobs import (
    Advanced,
    ApplyLayer,
    CopyTree,
    Difference,
    Done,
    Failed,
    Job,
    Measure,
    NeedsLower,
    Output,
    Packed,
    Removed,
    Report,
    Unpacked,
    decode_job,
    encode,
)
from .measure import measure
from .removing import remove_trees
from .streams import LayerStream
from .tar import TarReader
from .tree import FOLDER_FLAGS, Folder, opaque_name, opened_folder

__all__ = ["COMMAND", "KILL", "MAX_MESSAGE_BYTES", "START", "run_job", "serve"]

MAX_MESSAGE_BYTES: Final = 160 * 1024
COMMAND: Final = struct.Struct("!BQ")
START, KILL = 1, 2
_REPORT_EVERY_S: Final = 0.1
_OUTPUT_BYTES: Final = 128 * 1024
_MOST_FOLDERS_DEEP: Final = 30_000


def serve(fd: int) -> None:
    """Take commands from the socket `fd` until it closes: START with a job's socket, or KILL, each with a number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act upon
    control = socket.socket(fileno=fd)
    me = os.getpid()
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control], [], [], 1.0 if children else None)
        _reap(children)
        if not ready:
            continue
        try:
            message, fds, _, _ = socket.recv_fds(control, COMMAND.size, 1)
        except ConnectionError:
            message, fds = b"", []
        if not message:
            break
        kind, number = COMMAND.unpack(message)
        if kind == KILL:
            if number in children:
                os.kill(children[number], signal.SIGKILL)
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            die_with_parent(me)
            _child(fds[0])
        os.close(fds[0])
        children[number] = pid
    for pid in children.values():
        os.kill(pid, signal.SIGKILL)
    while children:
        _reap(children)
        time.sleep(0.005)


def _reap(children: dict[int, int]) -> None:
    for number, pid in list(children.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del children[number]


def _child(fd: int) -> None:
    """Never returns: the parent's stack is not ours."""
    try:
        sys.setrecursionlimit(_MOST_FOLDERS_DEEP)  # a frame for each folder on the way down
        with socket.socket(fileno=fd) as channel:
            message, fds, _, _ = socket.recv_fds(channel, MAX_MESSAGE_BYTES, 4)
            if message:
                run_job(decode_job(message), fds, channel.send, channel.recv)
    except (BrokenPipeError, ConnectionResetError):  # nobody waits for it any more
        pass
    except BaseException:  # noqa: BLE001 - the last thing before the end
        traceback.print_exc()
    finally:
        os._exit(0)


def run_job(
    job: Job, fds: list[int], send: Callable[[bytes], object], receive: Callable[[int], bytes], *, confined: bool = True
) -> None:
    """Carry out a job. `fds`: the snapshotter's root, and what else the job's message says. The outcome is sent."""

    def report(message: Report) -> None:
        send(encode(message))

    try:
        outcome = _run(job, fds, report, receive, confined)
    except OrlopError as error:
        outcome = Failed(error_to_wire(error))
    except MemoryError:
        outcome = Failed(error_to_wire(ResourceExhausted("a layer needs more memory than a worker may have")))
    except RecursionError:
        deep = ResourceExhausted(f"a tree of more than {_MOST_FOLDERS_DEEP} folders in each other")
        outcome = Failed(error_to_wire(deep))
    except OSError as error:
        outcome = Failed(error_to_wire(Unavailable(f"a worker process: {error}")))
    except Exception as defect:  # noqa: BLE001 - told to whoever asked
        traceback.print_exc()
        outcome = Failed(error_to_wire(Internal(f"{type(defect).__name__}: {defect}")))
    report(outcome)


def _run(
    job: Job, fds: list[int], report: Callable[[Report], None], receive: Callable[[int], bytes], confined: bool
) -> Report:
    root = fds[0]
    if isinstance(job, ApplyLayer):
        return _apply(job, fds, report, receive, confined)
    if isinstance(job, Difference):
        return _difference(job, root, report, confined)
    if isinstance(job, CopyTree):
        with opened_folder(job.source, root) as source, opened_folder(job.target, root) as target:
            if confined:
                confine(target)
            copy_tree(source, target, own=job.own)
            return Done(*measure(target))
    if isinstance(job, Measure):
        with opened_folder(job.folder, root) as folder:
            if confined:
                confine(folder)
            return Done(*measure(folder))
    if confined:
        confine(root)
    return Removed(remove_trees(root, job.folders))


def _apply(
    job: ApplyLayer,
    fds: list[int],
    report: Callable[[Report], None],
    receive: Callable[[int], bytes],
    confined: bool,
) -> Report:
    root = fds[0]
    lower_fds = [os.open(name, FOLDER_FLAGS, dir_fd=root) for name in job.lower]
    lower = Folder(lower_fds, opaque_name(job.kind.userxattr)) if lower_fds else None

    def wait_for_lower() -> Folder | None:
        if not job.lower_ready:
            report(NeedsLower())
            if not receive(MAX_MESSAGE_BYTES):
                raise Unavailable("nobody waits for this layer any more")
        return lower

    last = 0.0

    def advanced(count: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_EVERY_S:
            last = now
            report(Advanced(count))

    with opened_folder(job.target, root) as target:
        if confined:
            os.close(root)
            confine(target)
        stream = LayerStream(job.media_type, _reader(job.data, fds), job.limits, advanced)
        try:
            applier = LayerApplier(target, job.kind, job.limits, wait_for_lower)
            chunks = stream.read_chunk
            applied = applier.apply(ChosenEntries(chunks, job.only) if job.only else TarReader(chunks))
            stream.drain()
        finally:
            stream.close()
            if lower is not None:
                lower.close()
        if applied.inodes < 0:
            size, inodes = measure(target)
            applied = Applied(applied.entries, size // 512, inodes, applied.warnings)
    return Unpacked(stream.digest, stream.size, applied)


def _difference(job: Difference, root: int, report: Callable[[Report], None], confined: bool) -> Report:
    name = opaque_name(job.userxattr)
    try:
        upper = Folder([os.open(each, FOLDER_FLAGS, dir_fd=root) for each in job.upper], name)
        lower = Folder([os.open(each, FOLDER_FLAGS, dir_fd=root) for each in job.lower], name)
    except FileNotFoundError:
        raise NotFound("a snapshot's folder", hint="it was removed meanwhile") from None

    def emit(data: bytes) -> None:
        for at in range(0, len(data), _OUTPUT_BYTES):
            report(Output(data[at : at + _OUTPUT_BYTES]))

    try:
        if confined:
            confine(root)
        return Packed(*write_difference(lower, upper, job.compression, job.source_date_epoch_s, emit))
    finally:
        upper.close()
        lower.close()


def _reader(data: bytes | None, fds: list[int]) -> Callable[[int], bytes]:
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        piece = data[at : at + count] if data is not None else os.pread(fds[1], count, at)
        at += len(piece)
        return piece

    return read
