"""Performing mounts for the length of a block. Linux, and privileges."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from ..protocol.errors import NotImplemented as Unsupported
from ..protocol.errors import PermissionDenied, Unavailable
from ..protocol.records import Mount
from .mounts import LinuxMounts

__all__ = ["is_mounted", "mount_all", "mounted", "unmount"]

_MOUNTS: Final = "/proc/self/mountinfo"


@asynccontextmanager
async def mounted(mounts: Sequence[Mount], path: str | os.PathLike[str] | None = None) -> AsyncIterator[str]:
    """`async with orlop.mounted(await store.snapshots.view(...)) as path:` perform the mounts that a snapshotter
    answered, at a folder or at a temporary one that goes with the block.

    Raises PermissionDenied, Unavailable (the kernel's refusal). A clean-up that fails is raised, not hidden.
    Cancellation: everything is unmounted, shielded.
    """
    folder = tempfile.mkdtemp(prefix="orlop-") if path is None else os.fspath(path)
    try:
        await trio.to_thread.run_sync(mount_all, mounts, folder)
        try:
            yield folder
        finally:
            with trio.CancelScope(shield=True):  # a detached unmount does not wait
                for _ in mounts:
                    await trio.to_thread.run_sync(unmount, folder)
    finally:
        if path is None:
            os.rmdir(folder)


def mount_all(mounts: Sequence[Mount], folder: str) -> None:
    """All of them or none. Blocks."""
    system = LinuxMounts()
    done = 0
    try:
        for each in mounts:
            system.mount(each.type, each.source, os.path.join(folder, each.target).rstrip("/"), each.options)
            done += 1
    except OSError as error:
        for _ in range(done):
            system.unmount(folder)
        raise _refusal(error) from error


def is_mounted(folder: str) -> bool:
    """Whether something is mounted on the folder. Its device does not tell: a bind may show the same file system."""
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            places = [line.split(" ")[4] for line in file]
    except OSError:
        return os.path.ismount(folder)
    real = os.path.realpath(folder)
    return any(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place) == real for place in places)


def unmount(folder: str) -> None:
    """Detached: at once for whoever comes, later for who is inside. Blocks."""
    try:
        LinuxMounts().unmount(folder)
    except OSError as error:
        raise _refusal(error) from error


def _refusal(error: OSError) -> Exception:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            str(error.strerror), hint="mounting needs root, or a user and mount namespace of your own"
        )
    if isinstance(error, NotImplementedError):
        return Unsupported(str(error))
    return Unavailable(str(error.strerror or error))
