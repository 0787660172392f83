"""A proxy before a registry that, by a seed, does to requests and answers what networks and machines do to them.

    with FaultyProxy(registry.address, Odds(seed=1, chance=0.3)) as proxy:
        ...  # speak to proxy.address; afterwards proxy.done says what went wrong

What befalls a request follows from the seed and the request alone: its method, its path, and how many of its kind there
were before. So a seed does the same again, as far as the same is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import re
import socket
import struct
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Self

__all__ = ["FaultyProxy", "Harm", "Odds"]

_POLL_S = 0.02
_TIMEOUT_S = 20.0
_UPLOAD = re.compile(r"/uploads/[0-9a-f-]{36}")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Harm(Enum):
    """What befalls a request: before it gets to the registry, there, or on the way back."""

    LOST = "the connection is reset, and the registry never hears of it"
    UNANSWERED = "the registry does it, but the connection is reset instead of an answer"
    CUT = "the registry gets a part of the body, then both connections are reset"
    SPOILED = "one bit of the body that the registry gets is another"
    TOO_MANY = "429, try again at once"
    BUSY = "503, try again at once"
    FAILED = "500"
    BAD_GATEWAY = "502"
    SILENT = "no answer for longer than anybody waits"
    ELSEWHERE = "307 to the registry itself"
    BROKEN = "a part of the answer's body, then a reset"
    STALLED = "a part of the answer's body, then nothing for longer than anybody waits"
    SHORT = "the answer is shorter, and says so"
    FLIPPED = "one bit of the answer's body is another"
    SHIFTED = "a part that says it begins elsewhere"


_REFUSALS = {Harm.TOO_MANY: 429, Harm.BUSY: 503, Harm.FAILED: 500, Harm.BAD_GATEWAY: 502}
_ANY = (Harm.LOST, Harm.UNANSWERED, Harm.SILENT, *_REFUSALS)
_WITH_BODY = (Harm.CUT, Harm.SPOILED)
_READING = (Harm.ELSEWHERE, Harm.BROKEN, Harm.STALLED, Harm.SHORT, Harm.FLIPPED, Harm.SHIFTED)


@dataclass(frozen=True)
class Odds:
    """`chance`: of a request to come to harm. `most`: how often that happens to equal requests; None: any number."""

    seed: int
    chance: float
    most: int | None = 2


@dataclass
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultyProxy:
    """Listens on 127.0.0.1 while its context is open: one accepting thread, and one for each connection.

    Args:
        upstream: `127.0.0.1:PORT` of a registry that speaks plain http.
        odds: what goes wrong how often; None: nothing.
        patience_s: for longer than this the client waits for nothing.
    """

    def __init__(self, upstream: str, odds: Odds | None, patience_s: float = 1.0) -> None:
        self.upstream = upstream
        self.odds = odds
        self.patience_s = patience_s
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self.done: list[tuple[Harm, str]] = []
        """What was done to which request, in order."""
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        if self._server is None:
            raise RuntimeError("the proxy is not running")
        return f"127.0.0.1:{self._server.server_address[1]}"

    def heal(self) -> None:
        """From now on nothing goes wrong."""
        self.odds = None

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="proxy")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, thread = self._server, self._thread
        assert server is not None
        assert thread is not None
        self.closing.set()
        server.shutdown()
        thread.join()
        server.end_connections()
        server.server_close()
        if server.failures:
            raise ExceptionGroup("requests that failed inside the proxy", server.failures)

    def harm(self, method: str, path: str, body: bytes) -> tuple[Harm | None, random.Random]:
        """What befalls this request, and the dice for where."""
        odds = self.odds
        name, _, query = path.partition("?")
        kind = f"{method} {_UPLOAD.sub('/uploads/one', name)}"
        if "digest=" in query:
            kind += query[query.index("digest=") :]
        with self._lock:
            self._asked[kind] += 1
            dice = random.Random(f"{odds and odds.seed} {kind} {self._asked[kind]}")
            if odds is None or (odds.most is not None and self._done[kind] >= odds.most):
                return None, dice
            if dice.random() >= odds.chance:
                return None, dice
            possible = [*_ANY, *(_READING if method in ("GET", "HEAD") else ()), *(_WITH_BODY if body else ())]
            if "/manifests/" in name:  # what the registry then held would be right by its own digest
                possible = [each for each in possible if each is not Harm.SPOILED]
            chosen = dice.choice(possible)
            self._done[kind] += 1
            self.done.append((chosen, kind))
            return chosen, dice


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self.failures: list[Exception] = []
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        super().__init__(("127.0.0.1", 0), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        self.close_request(request)

    def end_connections(self) -> None:
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.failures.append(error)


class _Reset(Exception):
    """The client's connection ends with a reset."""


class _Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _respond(self) -> None:
        proxy = self.server.proxy
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:  # the client has given up
            self.close_connection = True
            return
        harm, dice = proxy.harm(self.command, self.path, body)
        try:
            if harm is None:
                self._send(self._ask(body))
            else:
                self._harm(harm, dice, body)
        except _Reset:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _respond  # noqa: N815  names of the base class

    def _harm(self, harm: Harm, dice: random.Random, body: bytes) -> None:
        proxy = self.server.proxy
        if harm is Harm.LOST:
            raise _Reset
        if harm in _REFUSALS:
            headers = [("Retry-After", "0")] if harm in (Harm.TOO_MANY, Harm.BUSY) else []
            self._send(_Answer(_REFUSALS[harm], headers, b'{"errors":[{"code":"FAULT","message":"by the proxy"}]}'))
        elif harm is Harm.SILENT:
            proxy.closing.wait(2 * proxy.patience_s)
            raise _Reset
        elif harm is Harm.ELSEWHERE:
            self._send(_Answer(307, [("Location", f"http://{proxy.upstream}{self.path}")], b""))
        elif harm is Harm.CUT:
            self._ask(body, dice.randrange(len(body)))
            raise _Reset
        elif harm is Harm.SPOILED:
            self._send(self._ask(_flipped(body, dice)))
        else:
            answer = self._ask(body)
            if harm is Harm.UNANSWERED:
                raise _Reset
            self._harm_answer(harm, dice, answer)

    def _harm_answer(self, harm: Harm, dice: random.Random, answer: _Answer) -> None:
        part = answer.body[: dice.randrange(len(answer.body))] if answer.body else b""
        if harm is Harm.SHORT and answer.body:
            self._send(_Answer(answer.status, _without(answer.headers, "content-length"), part))
        elif harm is Harm.FLIPPED and answer.body:
            self._send(_Answer(answer.status, answer.headers, _flipped(answer.body, dice)))
        elif harm is Harm.SHIFTED:
            self._send(_Answer(answer.status, [_shifted(pair) for pair in answer.headers], answer.body))
        elif harm in (Harm.BROKEN, Harm.STALLED) and answer.body:
            self._send(answer, part)
            if harm is Harm.STALLED:
                self.server.proxy.closing.wait(2 * self.server.proxy.patience_s)
            raise _Reset
        else:
            self._send(answer)

    def _ask(self, body: bytes, most: int | None = None) -> _Answer:
        """What the registry says. `most`: it gets so many bytes of the body, and no answer is waited for."""
        host, _, port = self.server.proxy.upstream.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "keep-alive"):
                    connection.putheader(name, value)
            connection.endheaders()
            if most is not None:
                connection.send(body[:most])
                return _Answer(0, [], b"")
            if body:
                connection.send(body)
            reply = connection.getresponse()
            data = reply.read()
            return _Answer(reply.status, [(n, v) for n, v in reply.getheaders() if n.lower() != "connection"], data)
        finally:
            connection.close()

    def _send(self, answer: _Answer, part: bytes | None = None) -> None:
        """The whole answer, or of its body only a part."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in answer.headers) and answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body if part is None else part)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _flipped(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def _without(headers: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    return [pair for pair in headers if pair[0].lower() != name]


def _shifted(pair: tuple[str, str]) -> tuple[str, str]:
    found = _RANGE.fullmatch(pair[1]) if pair[0].lower() == "content-range" else None
    if found is None:
        return pair
    begin, end, size = map(int, found.groups())
    return (pair[0], f"bytes {begin + 1}-{min(end + 1, size - 1)}/{size}")
