"""The few file idioms that are needed more than once. Blocking: call them through the workers."""

from __future__ import annotations

import os

from ..protocol.world import Files

__all__ = ["sync_path", "write_all", "write_file"]


def write_all(files: Files, fd: int, data: bytes | memoryview) -> None:
    """Write every byte, however few the system takes at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[files.write(fd, rest) :]


def write_file(files: Files, path: str, data: bytes) -> None:
    """Make or replace a file's contents and sync them. Its name is durable once its folder is synced."""
    fd = files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(files, fd, data)
        files.sync(fd)
    finally:
        files.close(fd)


def sync_path(files: Files, path: str) -> None:
    fd = files.open(path, os.O_RDONLY)
    try:
        files.sync(fd)
    finally:
        files.close(fd)
