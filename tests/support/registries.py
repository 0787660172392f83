"""A real registry on the loopback, image layouts to put into it, and skopeo to put them there."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, cast

__all__ = ["DockerRegistry", "MadeImage", "MadeLayer", "make_layout", "push_layout"]

_MAKE_IMAGES = Path(__file__).parent.parent / "tools" / "make_images.py"
_START_S = 20.0  # it answers after 0.1 s on an idle core; the rest is room for a loaded machine
_STOP_S = 10.0
_POLL_S = 0.005
_MARK = "/v2/?mark="
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
# Combined log format: 127.0.0.1 - - [time] "GET /v2/ HTTP/1.1" 200 2 "" "agent"
_ACCESS = re.compile(r'^\S+ \S+ \S+ \[[^]]*\] "(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[0-9.]+" ')


class MadeLayer(TypedDict):
    """One layer as make_images.py describes it (counts of its entries, sizes in bytes)."""

    digest: str
    diff_id: str
    size: int
    raw_size: int
    platform: str
    index: int
    files: int
    dirs: int
    symlinks: int
    hardlinks: int
    whiteouts: int


class MadeImage(TypedDict):
    """An image as make_images.py describes it; `digest` is that of the tagged manifest or index."""

    digest: str
    media_type: str
    tag: str
    compression: str
    compressed_bytes: int
    raw_bytes: int
    files: int
    dirs: int
    layers: list[MadeLayer]


class DockerRegistry:
    """Runs Debian's docker-registry on 127.0.0.1 for as long as the context is open.

    Owns the process and everything it puts into `folder`: its storage, its configuration and two logs.

    Args:
        folder: an empty or new folder; opening a second registry on it later serves what the first stored.
        settings: more sections of its configuration; those of `http` are added to what stands there.
        tls: how to ask it, where the settings make it speak TLS.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._settings = dict(settings or {})
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._marks = 0
        self._skip = 0

    @classmethod
    def available(cls) -> bool:
        """Whether the binary is installed."""
        return cls._binary() is not None

    @classmethod
    def _binary(cls) -> str | None:
        return shutil.which("docker-registry", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin"]))

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, as it stands in a reference."""
        if not self._port:
            raise RuntimeError("the registry is not running")
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def __enter__(self) -> Self:
        binary = self._binary()
        if binary is None:
            raise FileNotFoundError("docker-registry is not installed")
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yml"
        config.write_text(
            # JSON is YAML. Port 0: the kernel picks, so two registries never race for one port.
            json.dumps(
                {
                    "version": "0.1",
                    "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": False}},
                    "storage": {
                        "filesystem": {"rootdirectory": str(self.folder / "storage")},
                        "delete": {"enabled": True},
                    },
                    **self._settings,
                    "http": {"addr": "127.0.0.1:0", "secret": "only for tests", **self._settings.get("http", {})},
                }
            )
        )
        # REGISTRY_* variables would override the file.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        # The access log goes to standard output, the server's own log to standard error.
        with open(self._access_log, "wb") as access, open(self._server_log, "wb") as server:
            self._process = subprocess.Popen(
                [binary, "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=access,
                stderr=server,
                env=environment,
            )
        self._skip = 0
        try:
            self._port = self._wait_for_port()
            self._ask("/v2/")
        except BaseException:
            self.close()
            raise
        self.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        process, self._process, self._port = self._process, None, 0
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def requests(self) -> list[tuple[str, str]]:
        """(method, path with query) of every request since the start or the last `clear`, in log order.

        The registry logs a request when it has handled it, which for a blob may be a moment after the client has the
        last byte. So the log is read when none of its threads has anything left to do.
        """
        found = self._logged()
        return [item for item in found[self._skip :] if not item[1].startswith(_MARK)]

    def clear(self) -> None:
        """Forget the requests so far."""
        self._skip = len(self._logged())

    @property
    def _access_log(self) -> Path:
        return self.folder / "access.log"

    @property
    def _server_log(self) -> Path:
        return self.folder / "server.log"

    def _logged(self) -> list[tuple[str, str]]:
        if self._process is not None:
            self._marks += 1
            self._ask(f"{_MARK}{self._marks}")
            _wait_until_idle(self._process.pid)
        lines = self._access_log.read_text().splitlines()
        return [(found["method"], found["path"]) for line in lines if (found := _ACCESS.match(line))]

    def _wait_for_port(self) -> int:
        """The port it says it listens on; the socket accepts by the time the line is written."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _START_S
        while True:
            found = _LISTENING.search(self._server_log.read_text())
            if found:
                return int(found[1])
            if time.monotonic() > deadline:
                raise TimeoutError(f"docker-registry did not listen: {self._server_log.read_text()}")
            try:
                code = process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"docker-registry ended with {code}: {self._server_log.read_text()}")

    def _ask(self, path: str) -> None:
        connection = (
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=_START_S)
            if self._tls is None
            else http.client.HTTPSConnection("127.0.0.1", self._port, timeout=_START_S, context=self._tls)
        )
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            reply.read()
            if reply.status not in (200, 401):  # 401: it asks for credentials, which is an answer
                raise RuntimeError(f"docker-registry answered {reply.status} to {path}")
        finally:
            connection.close()


def make_layout(folder: str | os.PathLike[str], *args: str) -> MadeImage:
    """Write an OCI image layout with tests/tools/make_images.py; equal arguments give equal digests.

    Args:
        folder: where the layout goes; replaced if a layout is there already (unless `--append` is given).
        args: further options of make_images.py.
    """
    out = _run([sys.executable, str(_MAKE_IMAGES), "--out", os.fspath(folder), *args])
    return cast("MadeImage", json.loads(out.splitlines()[-1]))


def _wait_until_idle(pid: int) -> None:
    """Until no thread of the process runs or waits to run. Seen three times in a row: one may wake another and fall
    asleep between two looks. Where there is no /proc, the marked request before it has to do."""
    deadline, quiet = time.monotonic() + _START_S, 0
    while quiet < 3 and time.monotonic() < deadline:
        tasks = Path(f"/proc/{pid}/task").glob("*/stat")
        quiet = quiet + 1 if all(_sleeps(stat) for stat in tasks) else 0


def _sleeps(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "S"
    except (FileNotFoundError, ProcessLookupError):  # the thread has ended
        return True


def push_layout(
    layout_dir: str | os.PathLike[str], registry_address: str, repository: str, tag: str = "latest"
) -> None:
    """Push the image `tag` of a layout to `registry_address/repository:tag` over plain http, with skopeo.

    skopeo finds the image in the layout by the annotation org.opencontainers.image.ref.name, which is what
    `make_images.py --tag` writes. Digests are kept. skopeo 1.9.3 refuses Docker media types in an OCI layout:
    push those with `make_layout(..., "--media-types", "docker", "--push", "ADDRESS/REPOSITORY:TAG")`.
    """
    _run(
        [
            "skopeo",
            "--insecure-policy",  # else it needs a policy file in /etc
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--dest-no-creds",
            f"oci:{os.fspath(layout_dir)}:{tag}",
            f"docker://{registry_address}/{repository}:{tag}",
        ]
    )


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
