"""The programs as a person or a script runs them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orlop.bin.cli import main

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from orlop.bin.cli import main; main()"]
DAEMON = [sys.executable, "-c", "from orlop.bin.daemon import main; main()"]
TIMEOUT_S = 30.0
INHERITED = {key: value for key, value in os.environ.items() if not key.startswith(("ORLOP_", "CONTAINERD_"))}
ENVIRONMENT = {**INHERITED, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str
    raw: bytes = b""
    """Standard output as it came."""


class Shell:
    """Commands in one environment: `run` calls the program's main function in this process, which saves the
    start of an interpreter; `spawn` and `started` make real processes."""

    def __init__(self, **environment: str) -> None:
        self._own = environment

    def run(self, *arguments: str, stdin: str | bytes = "", **extra: str) -> Done:
        given = io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode())
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with pytest.MonkeyPatch.context() as patch:
            for key in set(os.environ) - set(INHERITED):
                patch.delenv(key)
            for key, value in {**self._own, **extra}.items():
                patch.setenv(key, value)
            patch.setattr(sys, "argv", ["orlop", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(given)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as ended:
                main()
        for stream in (out, err):
            stream.flush()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Done(code or 0, text_of(out), text_of(err), bytes_of(out))

    def out(self, *arguments: str, stdin: str | bytes = "", **extra: str) -> str:
        done = self.run(*arguments, stdin=stdin, **extra)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def spawn(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CLI, *arguments],
            env={**ENVIRONMENT, **self._own, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with started([*CLI, *arguments], {**ENVIRONMENT, **self._own}) as process:
            yield process


def text_of(stream: io.TextIOWrapper) -> str:
    return bytes_of(stream).decode(errors="backslashreplace")


def bytes_of(stream: io.TextIOWrapper) -> bytes:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def daemon(root: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon that is ready; `address` of the first listener is what it printed."""
    with started([*DAEMON, "--root", str(root), *arguments], ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        yield process


def one_line(text: str) -> None:
    """One line, or one and a hint."""
    lines = text.splitlines()
    assert lines[0].startswith("orlop: ")
    assert [line for line in lines[1:] if not line.startswith("  hint: ")] == []
    assert len(lines) <= 2
