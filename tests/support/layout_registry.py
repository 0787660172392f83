"""A small read-only registry that serves OCI layout folders from a thread.

    with LayoutRegistry({"library/redis": "images/redis"}) as registry:
        ...  # pull registry.address + "/library/redis:latest"

    python -m tests.support.layout_registry --layout library/redis=images/redis --port 5000

Source: the OCI distribution specification, end-1, end-2, end-3 and end-8 (pull and list tags).
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import re
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict
from urllib.parse import unquote

__all__ = ["LayoutRegistry", "Reply", "ResetConnection", "Seen", "refusal"]

_REF_NAME = "org.opencontainers.image.ref.name"
_INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_ROUTE = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs|tags)/(?P<reference>[^/]+)")
_DIGEST = re.compile(r"(sha256|sha384|sha512):([0-9a-f]{64,128})")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PART = 1 << 18  # bytes read and sent at a time
_MAX_BODY = 1 << 20  # a request with more is not read; a token request has a few hundred bytes
_POLL_S = 0.02  # how soon the accepting thread notices close()
_DRAIN_S = 5.0  # how long a reset waits for the peer to take what was sent before


class ResetConnection(Exception):
    """Raised while answering: end the connection with a TCP reset after the bytes sent so far."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived: the path with its query, header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def line(self) -> str:
        """`METHOD path`."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `parts` yields `length` bytes and is not touched for HEAD."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int = 0
    parts: Iterator[bytes] = field(default_factory=lambda: iter(()))


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error in the form all registries use."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, len(body), iter([body]))


class _Descriptor(TypedDict, total=False):
    mediaType: str
    digest: str
    annotations: dict[str, str]


class _Layout:
    """The tags of one layout folder and the media type of every manifest they lead to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tags: dict[str, str] = {}
        self.types: dict[str, str] = {}
        for descriptor in self._manifests(folder / "index.json"):
            tag = descriptor.get("annotations", {}).get(_REF_NAME)
            if tag is not None:
                self.tags[tag] = descriptor["digest"]
            self._walk(descriptor)

    def blob(self, digest: str) -> Path | None:
        found = _DIGEST.fullmatch(digest)
        if found is None:
            return None
        path = self.folder / "blobs" / found[1] / found[2]
        return path if path.is_file() else None

    def _walk(self, descriptor: _Descriptor) -> None:
        digest = descriptor["digest"]
        path = self.blob(digest)
        if path is None or digest in self.types:  # an index may name platforms that the layout leaves out
            return
        self.types[digest] = descriptor["mediaType"]
        if descriptor["mediaType"] in _INDEX_TYPES:
            for child in self._manifests(path):
                self._walk(child)

    @staticmethod
    def _manifests(path: Path) -> list[_Descriptor]:
        found: list[_Descriptor] = json.loads(path.read_bytes())["manifests"]
        return found


class LayoutRegistry:
    """Serves layout folders on 127.0.0.1 while its context is open.

    Owns the listening socket, one accepting thread and one thread per connection; `close` ends them all, also
    in the middle of an answer, and then raises what went wrong inside a handler.

    Args:
        layouts: repository -> OCI layout folder, read once; `add` takes more, or reads one again.
        port: 0 lets the kernel pick.
        tls: speak TLS with this.
    """

    def __init__(
        self, layouts: Mapping[str, str | os.PathLike[str]], *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.tls = tls
        self.tls_failures: list[str] = []
        """OpenSSL's words for every connection over which no TLS came about; all of them once it is closed."""
        self._layouts: dict[str, _Layout] = {}
        for repository, folder in layouts.items():
            self.add(repository, folder)
        self._wanted_port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._requests: list[Seen] = []
        self.closing = threading.Event()

    def add(self, repository: str, folder: str | os.PathLike[str]) -> None:
        """Serve one more layout; the repository's former one is forgotten."""
        self._layouts[repository] = _Layout(Path(folder))

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("the registry is not running")
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, as it stands in a reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def requests(self) -> list[Seen]:
        """A copy of the requests seen since the start or the last `clear`, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def clear(self) -> None:
        """Forget the requests seen so far."""
        with self._lock:
            self._requests.clear()

    def __enter__(self) -> Self:
        self.closing.clear()
        self._server = _Server(self, self._wanted_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": _POLL_S}, name="registry"
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and thread; a second call does nothing.

        Raises:
            ExceptionGroup: a handler failed with something else than a lost connection (a defect here).
        """
        server, self._server = self._server, None
        thread, self._thread = self._thread, None
        if server is None or thread is None:
            return
        self.closing.set()
        server.shutdown()
        thread.join()
        server.end_connections()
        server.server_close()
        if server.failures:
            raise ExceptionGroup("requests that failed inside the registry", server.failures)

    def record(self, seen: Seen) -> None:
        with self._lock:
            self._requests.append(seen)

    def answer(self, seen: Seen) -> Reply:
        """What to send for a request; runs in the connection's thread.

        Raises:
            ResetConnection: from here, or later from the parts of the reply.
        """
        if seen.method not in ("GET", "HEAD"):
            return refusal(405, "UNSUPPORTED", "this registry is read-only")
        path = unquote(seen.path.partition("?")[0])
        if path in ("/v2", "/v2/"):
            return Reply(200, {"Content-Type": "application/json"}, 2, iter([b"{}"]))
        found = _ROUTE.fullmatch(path)
        if found is None:
            return refusal(404, "UNSUPPORTED", "no such endpoint")
        layout = self._layouts.get(found["repository"])
        if layout is None:
            return refusal(404, "NAME_UNKNOWN", "repository name not known to registry")
        reference = found["reference"]
        match found["kind"]:
            case "manifests":
                return self._manifest(layout, reference)
            case "blobs":
                return self._blob(layout, reference, seen.headers.get("range"))
            case _ if reference == "list":
                body = json.dumps({"name": found["repository"], "tags": sorted(layout.tags)}).encode()
                return Reply(200, {"Content-Type": "application/json"}, len(body), iter([body]))
        return refusal(404, "UNSUPPORTED", "no such endpoint")

    def _manifest(self, layout: _Layout, reference: str) -> Reply:
        digest = layout.tags.get(reference, reference)
        path = layout.blob(digest)
        if path is None or digest not in layout.types:
            return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")
        headers = {"Content-Type": layout.types[digest], "Docker-Content-Digest": digest}
        return _file_reply(200, headers, path, 0, path.stat().st_size)

    def _blob(self, layout: _Layout, digest: str, wanted: str | None) -> Reply:
        path = layout.blob(digest)
        if path is None:
            return refusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
        size = path.stat().st_size
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
        }
        found = _RANGE.fullmatch(wanted or "")
        if found is None or found[0] == "bytes=-":
            # Several ranges or nonsense: the whole, as RFC 9110 section 14.2 allows.
            return _file_reply(200, headers, path, 0, size)
        if found[1]:
            start, end = int(found[1]), min(int(found[2] or size), size - 1)
        else:
            start, end = max(size - int(found[2]), 0), size - 1
        if start > end:
            unsatisfied = {"Content-Range": f"bytes */{size}"}
            return refusal(416, "RANGE_INVALID", "range not satisfiable", unsatisfied)
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        return _file_reply(206, headers, path, start, end - start + 1)


def _file_reply(status: int, headers: Mapping[str, str], path: Path, start: int, length: int) -> Reply:
    def parts() -> Iterator[bytes]:
        with open(path, "rb") as file:
            file.seek(start)
            left = length
            while left and (part := file.read(min(left, _PART))):
                left -= len(part)
                yield part

    return Reply(status, headers, length, parts())


class _Server(http.server.ThreadingHTTPServer):
    """Knows its open connections, so that close() can end them, and joins their threads."""

    daemon_threads = False  # server_close() joins only threads that are not daemons
    request_queue_size = 128

    def __init__(self, registry: LayoutRegistry, port: int) -> None:
        self.registry = registry
        self.failures: list[Exception] = []
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        self._reset: set[Any] = set()
        super().__init__(("127.0.0.1", port), _Connection)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.registry.tls is not None:  # the handshake is the first read's, in the connection's own thread
            connection = self.registry.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def reset(self, request: socket.socket) -> None:
        """Let the coming end of this connection be a reset, once the peer's kernel has what was sent."""
        _wait_until_sent(request, self.registry.closing)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._lock:
            self._reset.add(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
            reset = request in self._reset
            self._reset.discard(request)
        if reset:  # a shutdown would send FIN first, and the peer would see a tidy end of file
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def end_connections(self) -> None:
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):  # the peer has gone already
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, ssl.SSLError):
            self.registry.tls_failures.append(error.reason or str(error))
        elif isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.failures.append(error)


class _Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a small body waits 40 ms for the acknowledgement of its headers
    server: _Server

    def _respond(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        readable = size <= _MAX_BODY and "Transfer-Encoding" not in self.headers
        if not readable:
            self.close_connection = True
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        seen = Seen(self.command, self.path, headers, self.rfile.read(size) if readable and size else b"")
        registry = self.server.registry
        registry.record(seen)
        try:
            reply = registry.answer(seen)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(reply.length), **reply.headers}.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                for part in reply.parts:
                    self.wfile.write(part)
        except ResetConnection:
            self.close_connection = True
            self.server.reset(self.connection)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _respond  # noqa: N815  names of the base class

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `requests` is the log."""


def _wait_until_sent(connection: socket.socket, closing: threading.Event) -> None:
    """A reset throws away what the kernel has not delivered; without this wait its offset would vary."""
    if sys.platform != "linux":
        return
    import fcntl
    import termios

    deadline = time.monotonic() + _DRAIN_S
    while time.monotonic() < deadline:
        unsent = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        if struct.unpack("i", unsent)[0] == 0 or closing.wait(0.001):
            return


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve OCI layout folders on 127.0.0.1, read-only.")
    parser.add_argument("--layout", action="append", required=True, metavar="REPOSITORY=DIR", help="may be repeated")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    options = parser.parse_args(arguments)
    layouts: dict[str, str] = {}
    for text in options.layout:
        repository, equals, folder = text.partition("=")
        if not (repository and equals and folder):
            parser.error(f"--layout wants REPOSITORY=DIR, not {text!r}")
        layouts[repository] = folder
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the threads, which inherit it
    with LayoutRegistry(layouts, port=options.port) as registry:
        print(f"listening on {registry.address}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
