"""The main job, through the command line: pull an image once, use it from two namespaces, remove it.

Told twice: on a store's folder without any daemon, and against a daemon. The registry is a real one, and its log
is the witness that nothing is downloaded twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.registries import DockerRegistry, MadeImage, make_layout, push_layout

pytestmark = pytest.mark.skipif(
    not DockerRegistry.available() or shutil.which("skopeo") is None, reason="needs docker-registry and skopeo"
)

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from orlop.bin.cli import main; main()"]
DAEMON = [sys.executable, "-c", "from orlop.bin.daemon import main; main()"]
TIMEOUT_S = 30.0


class Shell:
    """A person at a shell, whose environment says which store is meant."""

    def __init__(self, **environment: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ORLOP_", "CONTAINERD_"))}
        self._environment = {**kept, "PYTHONPATH": str(ROOT), **environment}

    def run(self, *arguments: str, namespace: str = "") -> subprocess.CompletedProcess[str]:
        extra = {"ORLOP_NAMESPACE": namespace} if namespace else {}
        return subprocess.run(
            [*CLI, *arguments],
            env={**self._environment, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def lines(self, *arguments: str, namespace: str = "") -> list[str]:
        """What a command that works prints."""
        done = self.run(*arguments, namespace=namespace)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@contextmanager
def daemon(folder: Path) -> Iterator[str]:
    """A daemon on a fresh store; yields its address, ends it with SIGTERM."""
    command = [*DAEMON, "--root", str(folder / "served"), "--listen", f"unix:{folder}/orlop.sock"]
    with (
        open(folder / "daemon.log", "w") as log,
        subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready == f"ready: unix:{folder}/orlop.sock\n", (folder / "daemon.log").read_text()
            yield f"unix:{folder}/orlop.sock"
        finally:
            process.terminate()
            assert process.wait(TIMEOUT_S) == 0


@pytest.fixture(params=["store folder", "daemon"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if request.param == "daemon":
        with daemon(tmp_path) as address:
            yield Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address)
    else:
        yield Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "store"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MadeImage]:
    folder = tmp_path_factory.mktemp("redis") / "layout"
    return folder, make_layout(folder, "--layers", "3", "--files", "9", "--size", "1M", "--noise", "0.9")


@pytest.fixture
def registry(made: tuple[Path, MadeImage], tmp_path: Path) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path / "registry") as registry:
        push_layout(made[0], registry.address, "library/redis")
        registry.clear()
        yield registry


def downloads(registry: DockerRegistry) -> list[str]:
    return sorted(path for method, path in registry.requests() if method == "GET" and "/blobs/" in path)


@pytest.mark.slow
def test_the_main_job(shell: Shell, registry: DockerRegistry, made: tuple[Path, MadeImage]) -> None:
    image = made[1]
    name = f"{registry.address}/library/redis:latest"

    assert shell.lines("namespaces", "create", "foo", "mylabel=bar") == []
    header, *rows = shell.lines("namespaces", "ls")
    assert header.split() == ["NAME", "LABELS"]
    assert ["foo", "mylabel=bar"] in [row.split() for row in rows]

    pulled = shell.run("pull", "--plain-http", name)
    assert pulled.returncode == 0, pulled.stderr
    assert "resolved" in pulled.stderr
    for layer in image["layers"]:
        assert layer["digest"].removeprefix("sha256:")[:12] in pulled.stderr
    assert image["digest"] in pulled.stdout
    for word in ("done", "elapsed", "total"):
        assert word in pulled.stdout
    assert len(downloads(registry)) == len(image["layers"]) + 1  # and a config
    registry.clear()

    header, *rows = shell.lines("images", "ls")
    assert header.split() == ["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"]
    (row,) = rows
    assert row.split()[:3] == [name, image["media_type"], image["digest"]]

    assert [line.split()[0] for line in shell.lines("images", "ls", namespace="foo")] == ["REF"]
    shell.lines("pull", "--plain-http", name, namespace="foo")
    assert downloads(registry) == []
    assert len(shell.lines("images", "ls", namespace="foo")) == 2

    assert shell.lines("images", "rm", name, namespace="foo") == [name]
    assert len(shell.lines("images", "ls", namespace="foo")) == 1
    assert shell.lines("images", "ls")[1:] == [row]

    assert shell.lines("namespaces", "rm", "foo") == ["foo"]
    assert "foo" not in [line.split()[0] for line in shell.lines("namespaces", "ls")]
    refused = shell.run("namespaces", "rm", "default")
    assert refused.returncode != 0
    assert 'namespace "default" must be empty' in refused.stderr
    assert "failed precondition" in refused.stderr
    assert shell.lines("images", "ls")[1:] == [row]

    digest, copy = image["layers"][0]["digest"], registry.folder / "copy"
    shell.lines("content", "get", digest, "--output", str(copy))
    assert copy.read_bytes() == (made[0] / "blobs" / digest.replace(":", "/")).read_bytes()
