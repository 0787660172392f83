"""The rooms' walls: the machine is reached through the seam alone, and every module has one name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import orlop
from orlop.protocol.methods import METHODS

ROOT = Path(__file__).parent.parent
# Layers are laid down and made in worker processes, which the seam starts; inside one, the machine is what it works on.
WORKERS = ROOT / "storage" / "archive"
BELOW_BIN = [
    path
    for room in ("protocol", "storage", "actors")
    for path in sorted((ROOT / room).rglob("*.py"))
    if WORKERS not in path.parents
]

# Functions that read a clock, draw randomness, touch the file system, sockets, processes or the environment.
FORBIDDEN = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "os": {
        "urandom", "open", "read", "write", "close", "fsync", "fdatasync", "rename", "replace", "unlink", "remove",
        "mkdir", "makedirs", "listdir", "scandir", "stat", "environ", "getenv", "getpid", "fork", "system", "link",
    },
    "random": {"random", "randrange", "randbytes", "choice", "shuffle", "uniform", "Random"},
    "datetime": {"now", "today", "utcnow"},
}  # fmt: skip
FORBIDDEN_IMPORTS = {"socket", "subprocess", "threading", "multiprocessing", "secrets", "tempfile", "shutil", "fcntl"}


@pytest.mark.parametrize("path", BELOW_BIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_below_bin_reaches_the_machine_on_its_own(path: Path) -> None:
    faults = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            faults.append(f"line {node.lineno}: open()")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in FORBIDDEN.get(node.value.id, ()):
                faults.append(f"line {node.lineno}: {node.value.id}.{node.attr}")
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            faults += [f"line {node.lineno}: import {name}" for name in names & FORBIDDEN_IMPORTS]
    assert not faults


def test_no_module_is_loaded_under_two_names() -> None:
    code = (
        "import sys, orlop, orlop.bin.cli, orlop.bin.daemon, orlop.bin.load.cli\n"
        "rooms = ('actors', 'storage', 'protocol', 'bin')\n"
        "bad = [n for n in sys.modules if n.partition('.')[0] in rooms]\n"
        "sys.exit(f'loaded without the prefix: {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_public_names_are_those_of_all() -> None:
    assert sorted(orlop.__all__) == sorted(set(orlop.__all__))
    for name in orlop.__all__:
        assert getattr(orlop, name) is not None


async def test_every_method_has_a_handler(tmp_path: Path) -> None:
    async with orlop.open_store(tmp_path / "store") as store:
        routes = store._caller._service.routes
        # hello is the connection's own
        assert {method.name for method in routes} == set(METHODS) - {"hello"}
