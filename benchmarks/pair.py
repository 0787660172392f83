"""The two that are compared, each freshly started on a folder of its own, on the same disk."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Server", "containerd", "containerd_version", "has_containerd", "orlop_daemon"]

_DAEMON = "from orlop.bin.daemon import main; main()"
_READY_S = 60.0


class Server(NamedTuple):
    """`driver`: what the load harness calls it. `ready_s`: from its start until it answered."""

    driver: str
    address: str
    pid: int
    ready_s: float


@contextmanager
def orlop_daemon(folder: Path) -> Iterator[Server]:
    """On `folder/store`, which may be there."""
    folder.mkdir(parents=True, exist_ok=True)
    address = f"unix:{folder}/orlop.sock"
    command = [sys.executable, "-c", _DAEMON, "--root", str(folder / "store"), "--listen", address]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        with socket.socket(socket.AF_UNIX) as caller:  # as the other is asked
            caller.connect(address.removeprefix("unix:"))
        try:
            yield Server("unix", address, process.pid, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_READY_S)


def has_containerd() -> bool:
    return shutil.which("containerd") is not None and shutil.which("ctr") is not None


def containerd_version() -> str:
    told = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return told[2] if len(told) > 2 else "?"


@contextmanager
def containerd(folder: Path) -> Iterator[Server]:
    """With its own root and socket, and without the part for Kubernetes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "containerd.sock"
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{path}"\n'
    )
    began = time.perf_counter()
    command = ["containerd", "--config", str(config), "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not _answers(path):
                assert process.poll() is None, "containerd does not start"
                time.sleep(0.005)
            yield Server("containerd", f"unix:{path}", process.pid, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_READY_S)


def _answers(path: Path) -> bool:
    """Without starting a program, which takes longer than what is measured."""
    import grpc

    if not path.exists():
        return False
    with grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        ask = channel.unary_unary(
            "/containerd.services.version.v1.Version/Version",
            request_serializer=lambda data: data,
            response_deserializer=lambda data: data,
        )
        try:
            ask(b"", timeout=5)
        except grpc.RpcError:
            return False
    return True
