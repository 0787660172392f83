"""One host of a registry: a request with its authentication, redirects, retries, and its place among all others.

Judges what came over the wire as far as every request has it in common: status, redirects, errors' words. Source: spec
registry 3.2 and 4; OCI distribution-spec, errors.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
import structlog
import trio

from ..errors import (
    FailedPrecondition,
    NotFound,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from ..world import World
from .auth import Authorizer
from .hosts import DOCKER_HUB, Host
from .traffic import HostTraffic

__all__ = ["ATTEMPTS", "Body", "BrokenTransfer", "Endpoint", "Warned", "authority_of", "is_final"]

log = structlog.get_logger("orlop.registry")

ATTEMPTS: Final = 5
_BACKOFF_S: Final = 0.25
_BACKOFF_MAX_S: Final = 10.0
_RETRY_AFTER_MAX_S: Final = 60.0
_MAX_REDIRECTS: Final = 10
_ERROR_BODY_BYTES: Final = 64_000
_RETRIED: Final = frozenset((408, 429, 500, 502, 503, 504))
_REFUSALS: Final = frozenset((429, 503))
_ONCE_MORE: Final = frozenset((500, 502, 503, 504))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_WORTH_A_RETRY: Final = (httpx.TimeoutException, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)
Warned = Callable[[str], None]


class BrokenTransfer(Exception):
    """A body ended early or stalled. What came before is good; ask again from there. `status`: of the answer that came
    instead of what was expected; 0 if there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Body:
    """What is sent: `open` gives the bytes from their beginning, every time it is called."""

    size: int
    open: Callable[[], AsyncGenerator[bytes, None]]

    @classmethod
    def of(cls, data: bytes) -> Body:
        async def whole() -> AsyncGenerator[bytes, None]:
            yield data

        return cls(len(data), whole)


class _RegistryError(msgspec.Struct):
    code: str = ""
    message: str = ""


class _RegistryErrors(msgspec.Struct):
    errors: list[_RegistryError] = []


class Endpoint:
    """A host, as the work on one repository speaks to it. Errors name URLs without their query, which may hold
    secrets. `warned` is told what the registry wants a person to know."""

    def __init__(
        self,
        host: Host,
        namespace: str,
        client: httpx.AsyncClient,
        authorizer: Authorizer,
        traffic: HostTraffic,
        world: World,
        warned: Warned,
    ) -> None:
        self.host = host
        self._namespace = namespace
        self._client = client
        self._authorizer = authorizer
        self.traffic = traffic
        self._world = world
        self._warned = warned
        self._base = host.base
        self._to_probe = host.probe
        self._probing = trio.Lock()

    @property
    def name(self) -> str:
        return self.host.authority

    def url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """The API's URL of a path below its root. A mirror is told for whom it stands in."""
        pairs = dict(query or {})
        itself = DOCKER_HUB if self._namespace == "docker.io" else self._namespace
        if self.host.authority not in (itself, self._namespace):
            pairs = {"ns": self._namespace, **pairs}
        return f"{self._base}/{path}" + (f"?{urlencode(pairs, safe=':/,')}" if pairs else "")

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        what: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        attempts: int = ATTEMPTS,
        refusals_only: bool = False,
    ) -> AsyncIterator[httpx.Response]:
        """One logical request; `path` may be a whole URL. The body of a good answer is still to be read, that of
        another is there. `refusals_only`: it is tried again only where it was not looked at, as some of the bytes that
        it sends may have arrived. Raises Unavailable (nobody answers; for good), Unauthenticated, FailedPrecondition
        (redirects)."""
        if self.host.probe:
            await self._probe()
        url = path if "://" in path else self.url(path, query)
        failure: OrlopError | None = None
        unauthorized = tries = before = 0
        while tries < ATTEMPTS:
            tries += 1
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.traffic.slot(sends=body is not None))
                retry_after = None
                try:
                    response = await self._follow(method, url, headers or {}, scope, body)
                except httpx.TooManyRedirects as error:
                    raise FailedPrecondition(f"{what}: {error}") from error
                except (httpx.TransportError, httpx.InvalidURL) as error:
                    failure = Unavailable(f"{what}: {_plain(error, url)}")
                    if not _is_lost(error) or refusals_only or not self._again(tries, attempts):
                        raise failure from error
                else:
                    stack.push_async_callback(_close, response)
                    for warning in response.headers.get_list("warning"):
                        self._warned(_words_of(warning))
                    if response.status_code == 401:
                        await _read_error(response)
                        before = 401
                        failure = await self._answer(response, scope, what, unauthorized + 1)
                        if failure is None:
                            unauthorized += 1
                            continue
                        if not self._again(tries, attempts):
                            raise failure
                    elif response.status_code not in _RETRIED:
                        self.traffic.answered()
                        if response.status_code > 399:
                            await _read_error(response)
                        yield response
                        return
                    else:
                        await _read_error(response)
                        failure = error_of(response, what)
                        retry_after = response.headers.get("retry-after")
                        final = refusals_only and response.status_code not in _REFUSALS
                        final = final or is_final(response.status_code, before, retry_after)
                        if final or not self._again(tries, attempts):
                            yield response
                            return
                        before = response.status_code
            await self._pause(tries, retry_after)
        raise failure or Unauthenticated(f"{what}: {self.name} answered 401 {ATTEMPTS} times")

    def _again(self, tries: int, attempts: int) -> bool:
        return tries < min(attempts, ATTEMPTS) and self.traffic.may_retry()

    async def _answer(self, response: httpx.Response, scope: str, what: str, times: int) -> Unavailable | None:
        """Learn from a 401; or what kept the token server from answering, if it may answer when it is asked again."""
        host = authority_of(str(response.request.url))
        if times > 2:
            raise Unauthenticated(f"{what}: {host} answered 401 again")
        used = response.request.headers.get("authorization")
        try:
            await self._authorizer.answer(host, scope, response, used, again=times > 1)
        except Unavailable as error:
            if error.__cause__ is not None and not _is_lost(error.__cause__):
                raise
            return error
        return None

    async def _follow(
        self, method: str, url: str, headers: Mapping[str, str], scope: str, body: Body | None
    ) -> httpx.Response:
        own = authority_of(self._base)
        for _ in range(_MAX_REDIRECTS + 1):
            authority = authority_of(url)
            # They may be secrets, too; and one may stand there several times.
            sent = httpx.Headers(list(self.host.headers) if authority == own else None)
            sent.update(headers)
            # Decided for each host anew, so a redirect elsewhere carries no credentials.
            if authorization := self._authorizer.header(authority, scope):
                sent["Authorization"] = authorization
            if body is not None:
                sent["Content-Length"] = str(body.size)
            async with AsyncExitStack() as stack:
                content = None
                if body is not None:  # whose sending may be cut short
                    content = await stack.enter_async_context(aclosing(body.open()))
                request = self._client.build_request(method, url, headers=sent, content=content)
                response = await self._client.send(request, stream=True)
            location = response.headers.get("location", "")
            if response.status_code not in _REDIRECTS or not location:
                return response
            await response.aclose()
            url = str(response.request.url.join(location))
            scheme = urlsplit(url).scheme
            if scheme not in ("http", "https"):
                raise httpx.UnsupportedProtocol(f"redirect to {scheme}")
            if scheme == "http" and request.url.scheme == "https":
                raise httpx.UnsupportedProtocol(f"refused a redirect from https to http ({authority_of(url)})")
        raise httpx.TooManyRedirects(f"stopped after {_MAX_REDIRECTS} redirects")

    async def _pause(self, tries: int, retry_after: str | None) -> None:
        wait = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (tries - 1)) * (0.5 + self._world.random.uniform() / 2)
        if retry_after is not None:
            asked = _seconds(retry_after, self._world.clock.now_ns())
            if asked is not None:
                wait = max(0.0, min(asked, _RETRY_AFTER_MAX_S))
        await trio.sleep(wait)

    async def _probe(self) -> None:
        """https first, then plain http on the same port: registries on the loopback are often without TLS."""
        async with self._probing:
            to_probe, self._to_probe = self._to_probe, False
            if not to_probe:
                return
            try:
                response = await self._client.get(self._base + "/")
                await response.aclose()
            except httpx.ConnectError as error:
                # Who speaks TLS and refuses us is not asked without it; if nobody listens, the real request says so.
                if _tls_refusal(error) is None and not _is_refused(error):
                    self._base = self._base.replace("https://", "http://", 1)
            except httpx.ConnectTimeout:
                self._base = self._base.replace("https://", "http://", 1)
            except httpx.TransportError:
                pass  # TLS was spoken, and that is what we wanted to know


def is_final(status: int, before: int, retry_after: str | None = None) -> bool:
    """Whether an answer ends a request because the one before said the same: a server that fails in the same way twice
    is broken, and others wait for this host's retries. One that says when to come again (503) only has much to do.
    Source: spec registry 4."""
    return status in _ONCE_MORE and status == before and not (status == 503 and retry_after is not None)


def error_of(response: httpx.Response, what: str) -> OrlopError:
    """What an answer with an error's status means."""
    status = response.status_code
    said = _said(response)
    url = str(response.request.url.copy_with(query=None))
    context = f"{what}: {response.request.method} {url} answered {status}{said}"
    if status == 404:
        return NotFound(f"{what} ({authority_of(url)} answered 404{said})")
    if status == 403:
        return PermissionDenied(context)
    if status == 401:
        return Unauthenticated(context)
    if status == 429:
        return ResourceExhausted(context, hint="the registry limits requests; wait, or authenticate")
    return Unavailable(context) if status >= 500 or status == 408 else FailedPrecondition(context)


def authority_of(url: str) -> str:
    """Host and port, as they are compared: in lower case, and without a port that is the scheme's own."""
    try:
        return httpx.URL(url).netloc.decode()
    except httpx.InvalidURL:
        return urlsplit(url).netloc.rpartition("@")[2]


async def _close(response: httpx.Response) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
        await response.aclose()


async def _read_error(response: httpx.Response) -> None:
    """Read an error's body, up to a limit, so that it can be told."""
    body = bytearray()
    try:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > _ERROR_BODY_BYTES:
                break
    except httpx.TransportError:
        pass
    finally:
        await response.aclose()
    response._content = bytes(body[:_ERROR_BODY_BYTES])


def _plain(error: Exception, url: str) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"{authority_of(url)} does not answer in time"
    refusal = _tls_refusal(error)
    if isinstance(refusal, ssl.SSLCertVerificationError):
        return f"cannot trust {authority_of(url)}: its certificate does not verify: {refusal.verify_message}"
    if refusal is not None:
        return f"{authority_of(url)} refuses TLS with us: {(refusal.reason or '').lower().replace('_', ' ')}"
    return f"cannot reach {authority_of(url)}: {str(error) or type(error).__name__}"


def _said(response: httpx.Response) -> str:
    """The registry's own words, if it has any."""
    try:
        errors = msgspec.json.decode(response.content, type=_RegistryErrors).errors
    except (msgspec.MsgspecError, UnicodeDecodeError, httpx.ResponseNotRead):
        return ""
    text = "; ".join(f"{e.code}: {e.message}" if e.message else e.code for e in errors[:4] if e.code or e.message)
    return f" ({text[:500]})" if text else ""


def _is_refused(error: BaseException) -> bool:
    """Whether no connection came about, unlike one over which no TLS came about."""
    return any(
        isinstance(each, OSError) and each.errno is not None and not isinstance(each, ssl.SSLError)
        for each in _causes(error)
    )


def _is_lost(error: BaseException) -> bool:
    """Whether a connection broke or nobody answered in time: another try may fare better."""
    return isinstance(error, _WORTH_A_RETRY) and _tls_refusal(error) is None


def _tls_refusal(error: BaseException) -> ssl.SSLError | None:
    """That one side will not speak TLS with the other, and said so; not that the peer does not speak it at all, or
    that the connection was lost."""
    for each in _causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return each
        if isinstance(each, ssl.SSLError) and "ALERT" in (each.reason or ""):
            return each
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _words_of(warning: str) -> str:
    """`299 - "text"` is text. Source: RFC 7234, 5.5."""
    text = warning.partition('"')[2].rpartition('"')[0]
    return text.replace('\\"', '"') or warning


def _seconds(retry_after: str, now_ns: int) -> float | None:
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - now_ns / 1e9
    except (ValueError, TypeError):
        return None
