"""A registry that misbehaves as a test tells it to, and one that asks for credentials.

with FaultyRegistry({"a/b": layout}) as registry:
    registry.fault("GET /v2/a/b/blobs/", BreakAfter(100_000), times=2)
    registry.fault(re.compile("^HEAD "), Status(405), times=None)
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, unquote

from tests.support.layout_registry import LayoutRegistry, Reply, ResetConnection, Seen, refusal

__all__ = [
    "Action",
    "BreakAfter",
    "Fault",
    "FaultyRegistry",
    "IgnoreRange",
    "Lie",
    "NoAnswer",
    "Redirect",
    "Stall",
    "Status",
    "TakeOnly",
    "WrongBytes",
]

_SERVICE = "test"
_REPOSITORY = re.compile(r"/v2/(.+?)/(?:manifests|blobs|tags|referrers)/.+")


@dataclass(frozen=True, slots=True)
class Status:
    """Answer this instead."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class WrongBytes:
    """One bit in the middle of the body is flipped; all headers are those of the right one."""


@dataclass(frozen=True, slots=True)
class Lie:
    """The answer does not fit the descriptor; what is None or 0 stays true.

    Args:
        content_length_delta: so many spaces more (or bytes fewer) in the body; Content-Length agrees.
        digest: the value of Docker-Content-Digest; empty leaves the header out.
        content_type: the value of Content-Type.
    """

    content_length_delta: int = 0
    digest: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class BreakAfter:
    """Right headers, `n` bytes of the body, then a TCP reset.

    None, and any answer to HEAD: reset before the headers.
    """

    n: int | None = 0


@dataclass(frozen=True, slots=True)
class Stall:
    """Right headers, `after` bytes of the body, then nothing for `seconds` (None: for ever), then the rest.

    `after` None, and any answer to HEAD: silent before the headers. Closing the registry ends a stall.
    """

    after: int | None = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """307 to the same path and query at `to_url_prefix`, say `http://127.0.0.1:1234`."""

    to_url_prefix: str


@dataclass(frozen=True, slots=True)
class IgnoreRange:
    """200 and the whole body although a range was asked. Requests without a range do not use it up."""


@dataclass(frozen=True, slots=True)
class TakeOnly:
    """Of what is uploaded only the first `count` bytes arrive; the connection is reset before any answer."""

    count: int


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Do what was asked, and reset the connection instead of an answer."""


Action = Status | WrongBytes | Lie | BreakAfter | Stall | Redirect | IgnoreRange | TakeOnly | NoAnswer


@dataclass(slots=True)
class Fault:
    """A fault in force: how often it may still happen (None: no end), and how often it did."""

    match: str | re.Pattern[str]
    action: Action
    left: int | None
    applied: int = 0

    def takes(self, seen: Seen) -> bool:
        if self.left == 0 or (isinstance(self.action, IgnoreRange) and "range" not in seen.headers):
            return False
        if isinstance(self.match, str):
            return self.match in seen.line
        return self.match.search(seen.line) is not None


@dataclass(frozen=True, slots=True)
class _Basic:
    user: str
    password: str

    def refuse(self, seen: Seen, repository: str | None) -> Reply | None:
        if seen.headers.get("authorization") == _basic(self.user, self.password):
            return None
        return _unauthorized('Basic realm="test"')


class _Tokens:
    """Grants tokens and remembers what each is good for."""

    def __init__(self, user: str | None, password: str | None, expires_in: int) -> None:
        self.user = user
        self.password = password
        self.expires_in = expires_in
        self._lock = threading.Lock()
        self._count = 0
        self._granted: dict[str, frozenset[str]] = {}

    def answer(self, seen: Seen) -> Reply:
        if seen.method == "POST":
            form = parse_qs(seen.body.decode())
            allowed = self._form_allowed(form)
        else:
            form = parse_qs(seen.path.partition("?")[2])
            allowed = self.user is None or seen.headers.get("authorization") == _basic(self.user, self.password or "")
        if not allowed:
            return refusal(401, "UNAUTHORIZED", "incorrect username or password")
        scopes = frozenset(scope for text in form.get("scope", []) for scope in text.split())
        with self._lock:
            self._count += 1
            token = f"token-{self._count}"
            self._granted[token] = scopes
        body = json.dumps({"token": token, "expires_in": self.expires_in}).encode()
        return Reply(200, {"Content-Type": "application/json"}, len(body), iter([body]))

    def scopes_of(self, token: str) -> frozenset[str] | None:
        with self._lock:
            return self._granted.get(token)

    def revoke(self) -> None:
        with self._lock:
            self._granted.clear()

    def _form_allowed(self, form: dict[str, list[str]]) -> bool:
        if self.user is None:
            return True
        match form.get("grant_type"):
            case ["password"]:
                return form.get("username") == [self.user] and form.get("password") == [self.password]
            case ["refresh_token"]:
                return form.get("refresh_token") == [self.password]
        return False


@dataclass(frozen=True, slots=True)
class _Bearer:
    tokens: _Tokens
    realm_server: LayoutRegistry
    names_scope: bool = True

    def refuse(self, seen: Seen, repository: str | None) -> Reply | None:
        challenge = f'Bearer realm="{self.realm_server.url}/token",service="{_SERVICE}"'
        needed = {} if repository is None else _needed(seen, repository)
        if needed and self.names_scope:
            words = " ".join(f"repository:{name}:{','.join(sorted(actions))}" for name, actions in needed.items())
            challenge += f',scope="{words}"'
        scheme, _, token = seen.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return _unauthorized(challenge)
        scopes = self.tokens.scopes_of(token)
        if scopes is None:
            return _unauthorized(challenge + ',error="invalid_token"')
        if not all(any(_allows(scope, *need) for scope in scopes) for need in needed.items()):
            return _unauthorized(challenge + ',error="insufficient_scope"')
        return None


class FaultyRegistry(LayoutRegistry):
    """A layout registry with scripted faults and authentication.

    Credentials are checked first: a request that is refused for them uses up no fault. Faults hold for every
    path, `/token` included.
    """

    def __init__(
        self, layouts: Mapping[str, str | os.PathLike[str]], *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(layouts, port=port, tls=tls)
        self._script = threading.Lock()
        self._faults: list[Fault] = []
        self._guard: _Basic | _Bearer | None = None
        self._tokens: _Tokens | None = None

    def fault(self, match: str | re.Pattern[str], action: Action, times: int | None = 1) -> Fault:
        """Let something go wrong; of several faults that fit a request, the first one in force happens.

        Args:
            match: a part of `METHOD path` (the path with its query), or a pattern that is searched in it.
            action: what goes wrong.
            times: how many requests it befalls; None for all.
        """
        fault = Fault(match, action, times)
        with self._script:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self._script:
            self._faults.clear()

    def require_basic(self, user: str, password: str) -> None:
        """Refuse everything below /v2/ that does not carry this user and password."""
        self._guard = _Basic(user, password)

    def require_bearer(
        self,
        token_realm_server: FaultyRegistry | None = None,
        user: str | None = None,
        password: str | None = None,
        *,
        expires_in: int = 300,
        names_scope: bool = True,
    ) -> None:
        """Refuse everything below /v2/ that does not carry a token for its repository: for pull, and for pull and push
        where something is changed; and for pull of the repository that it mounts from.

        Args:
            token_realm_server: who serves /token; None for this registry itself.
            user: whom the token service wants: as basic credentials of a GET, or in the form of a POST with
                grant_type=password. None gives tokens to anybody.
            password: also what a POST with grant_type=refresh_token has to send.
            expires_in: what the token service says, in seconds; nothing here expires by itself.
            names_scope: whether the challenge says what is needed.
        """
        server = token_realm_server or self
        server._tokens = _Tokens(user, password, expires_in)
        self._guard = _Bearer(server._tokens, server, names_scope)

    def revoke_tokens(self) -> None:
        """Every token this registry's /token has granted is invalid from now on."""
        if self._tokens is not None:
            self._tokens.revoke()

    @property
    def token_requests(self) -> int:
        """How many requests for /token came here since the start or the last `clear`."""
        return sum(_is_token(seen) for seen in self.requests)

    def answer(self, seen: Seen) -> Reply:
        path = unquote(seen.path.partition("?")[0])
        if self._guard is not None and path.startswith("/v2"):
            found = _REPOSITORY.fullmatch(path)
            refused = self._guard.refuse(seen, found[1] if found else None)
            if refused is not None:
                return refused
        action = self._take(seen)
        match action:
            case None:
                return self._right(seen)
            case Status(code, headers, body):
                return Reply(code, headers, len(body), iter([body]))
            case Redirect(prefix):
                return Reply(307, {"Location": prefix.rstrip("/") + seen.path})
            case IgnoreRange():
                headers = {name: value for name, value in seen.headers.items() if name != "range"}
                return self._right(replace(seen, headers=headers))
            case WrongBytes():
                reply = self._right(seen)
                return replace(reply, parts=_flipped(reply.parts, reply.length // 2))
            case Lie():
                return _lied(self._right(seen), action)
            case TakeOnly(count):
                self._keep(replace(seen, body=seen.body[:count]))
                raise ResetConnection
            case BreakAfter(n):
                if n is None or seen.method == "HEAD":
                    raise ResetConnection
                reply = self._right(seen)
                return replace(reply, parts=_broken(reply.parts, n))
            case NoAnswer():
                self._right(seen)
                raise ResetConnection
            case Stall(after, seconds):
                if after is None or seen.method == "HEAD":
                    self._hang(seconds)
                    return self._right(seen)
                reply = self._right(seen)
                return replace(reply, parts=self._stalled(reply.parts, after, seconds))

    def _right(self, seen: Seen) -> Reply:
        if self._tokens is not None and _is_token(seen):
            return self._tokens.answer(seen)
        return super().answer(seen)

    def _keep(self, seen: Seen) -> None:
        """What is left of an upload whose body broke off; here nothing."""

    def _take(self, seen: Seen) -> Action | None:
        with self._script:
            for fault in self._faults:
                if fault.takes(seen):
                    fault.applied += 1
                    if fault.left is not None:
                        fault.left -= 1
                    return fault.action
        return None

    def _hang(self, seconds: float | None) -> None:
        if self.closing.wait(seconds):
            raise ResetConnection

    def _stalled(self, parts: Iterator[bytes], after: int, seconds: float | None) -> Iterator[bytes]:
        head, rest = _cut(parts, after)
        yield head
        self._hang(seconds)
        yield from rest


def _cut(parts: Iterator[bytes], at: int) -> tuple[bytes, Iterator[bytes]]:
    """The first `at` bytes (fewer when there are not so many), and what follows them."""
    head = bytearray()
    while len(head) < at and (part := next(parts, b"")):
        head += part

    def rest() -> Iterator[bytes]:
        if len(head) > at:
            yield bytes(head[at:])
        yield from parts

    return bytes(head[:at]), rest()


def _flipped(parts: Iterator[bytes], at: int) -> Iterator[bytes]:
    left = at
    for part in parts:
        if 0 <= left < len(part):
            part = part[:left] + bytes([part[left] ^ 1]) + part[left + 1 :]
        left -= len(part)
        yield part


def _broken(parts: Iterator[bytes], at: int) -> Iterator[bytes]:
    yield _cut(parts, at)[0]
    raise ResetConnection


def _lied(reply: Reply, lie: Lie) -> Reply:
    headers = dict(reply.headers)
    if lie.digest is not None:
        headers.pop("Docker-Content-Digest", None)
        if lie.digest:
            headers["Docker-Content-Digest"] = lie.digest
    if lie.content_type is not None:
        headers["Content-Type"] = lie.content_type
    length = max(reply.length + lie.content_length_delta, 0)

    def parts() -> Iterator[bytes]:
        left = length
        for part in reply.parts:
            yield part[:left]
            left -= min(left, len(part))
        yield b" " * left

    return Reply(reply.status, headers, length, parts())


def _is_token(seen: Seen) -> bool:
    return seen.path.partition("?")[0] == "/token"


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _unauthorized(challenge: str) -> Reply:
    return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})


def _needed(seen: Seen, repository: str) -> dict[str, set[str]]:
    """What a request has to be allowed: repository -> actions."""
    reads = seen.method in ("GET", "HEAD")
    needed = {repository: {"pull"} if reads else {"pull", "push"}}
    for source in parse_qs(seen.path.partition("?")[2]).get("from", []):
        needed.setdefault(source, {"pull"})
    return needed


def _allows(scope: str, repository: str, needed: set[str]) -> bool:
    name, _, actions = scope.rpartition(":")
    return name == f"repository:{repository}" and needed <= set(actions.split(","))
