"""A real containerd as a child process, and what its own client says of it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Containerd", "why_not"]

_START_S = 30.0  # it answers after 0.2 s on an idle core
_STOP_S = 10.0
_POLL_S = 0.01


def why_not() -> str:
    """Why nothing here can be tested; empty: it can."""
    missing = [program for program in ("containerd", "ctr") if shutil.which(program) is None]
    missing += [library for library in ("grpc", "google.protobuf") if not _importable(library)]
    if missing:
        return f"needs {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "containerd needs root"


def _importable(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:
        return False


class Containerd:
    """Runs containerd in a folder of its own, and nothing of Kubernetes in it, for as long as the context is open.

    The folder is short: the path of a socket has at most 107 bytes.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ctd-"))
        self.path = str(self._folder / "socket")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.resume()
            self.end(signal.SIGTERM)
        shutil.rmtree(self._folder)

    def start(self) -> None:
        config = self._folder / "config.toml"
        config.write_text(
            f"version = 2\nroot = {json.dumps(str(self._folder / 'root'))}\n"
            f"state = {json.dumps(str(self._folder / 'state'))}\n"
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = {json.dumps(self.path)}\n'
        )
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["containerd", "--config", str(config)], stdin=subprocess.DEVNULL, stderr=log
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "containerd does not answer"
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self.path)
            except OSError:
                return False
        return True

    def pause(self) -> None:
        """Until `resume` it answers nothing; its socket still accepts."""
        self._signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in tasks.glob("*/stat")):
            time.sleep(_POLL_S)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """By this signal, until it is gone."""
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def ctr(self, namespace: str, *arguments: str) -> bytes:
        """What it prints."""
        command = ["ctr", "--address", self.path, "--namespace", namespace, *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout

    def rows(self, namespace: str, *arguments: str) -> list[list[str]]:
        """Of a table that it prints: the words of each line without the heading."""
        return [line.split() for line in self.ctr(namespace, *arguments).decode().splitlines()[1:]]
