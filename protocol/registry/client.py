"""The client of one repository of a registry: resolve a name, fetch documents, stream blobs.

Only what came over the wire is judged here: status, headers, lengths, retries, redirects. Digests are the
caller's to check, as the bytes stream. Source: spec registry 2 to 6; OCI distribution-spec, pull.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from hashlib import new as new_hash
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from ..errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from ..identifiers import check_digest, split_digest
from ..messages import Credentials
from ..records import Descriptor
from ..version import __version__
from ..world import Work, World
from .auth import Authorizer
from .documents import ACCEPT, INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT_BYTES, SCHEMA1_TYPE, kind_of, sniff
from .references import Reference

__all__ = ["BrokenTransfer", "Registry", "is_loopback"]

ATTEMPTS = 5
_BACKOFF_S = 0.25
_BACKOFF_MAX_S = 10.0
_RETRY_AFTER_MAX_S = 60.0
_MAX_REDIRECTS = 10
_ERROR_BODY_BYTES = 64_000
_RETRIED = {408, 429, 500, 502, 503, 504}
STALL_S = 30.0


class BrokenTransfer(Exception):
    """A body ended early or stalled. What came before is good; ask again from there."""


class _RegistryError(msgspec.Struct):
    code: str = ""
    message: str = ""


class _RegistryErrors(msgspec.Struct):
    errors: list[_RegistryError] = []


def is_loopback(host: str) -> bool:
    """localhost, 127.0.0.0/8 or ::1, with or without a port."""
    name = host
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        if port and not port[1:].isdigit():
            return False
    elif host.count(":") == 1:
        name, _, port = host.partition(":")
        if not port.isdigit():
            return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Registry:
    """One repository at its registry, for the length of one pull.

    Use `async with Registry.open(...)`. Errors name the URL without its query, which may hold secrets.
    """

    def __init__(
        self, reference: Reference, client: httpx.AsyncClient, authorizer: Authorizer, world: World, base: str
    ) -> None:
        self._reference = reference
        self._client = client
        self._authorizer = authorizer
        self._world = world
        self._base = base
        self._scope = f"repository:{reference.repository}:pull"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        reference: Reference,
        world: World,
        *,
        plain_http: bool = False,
        skip_verify: bool = False,
        credentials: Credentials | None = None,
        stall_s: float = STALL_S,
    ) -> AsyncIterator[Registry]:
        host = "registry-1.docker.io" if reference.host == "docker.io" else reference.host
        loopback = is_loopback(host)
        # Certificates are read from files: some 20 ms.
        made = partial(world.network.http, verify=not (skip_verify or loopback))
        transport = await world.workers.run(Work.FILES, made)
        client = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(30.0, read=stall_s),
            headers={"User-Agent": f"orlop/{__version__}"},
            follow_redirects=False,  # we decide which host may see which header
            trust_env=False,
        )
        async with client:
            authorizer = Authorizer(credentials, client)
            port_80 = loopback and host.endswith(":80")
            scheme = "http" if (plain_http and reference.host != "docker.io") or port_80 else "https"
            registry = cls(reference, client, authorizer, world, f"{scheme}://{host}/v2/{reference.repository}")
            if scheme == "https" and loopback and ":" in host and not host.endswith(":443"):
                registry._base = await registry._probe_loopback(host)
            yield registry

    async def resolve(self) -> Descriptor:
        """The descriptor that the reference stands for. Raises NotFound, InvalidArgument, Unauthenticated…"""
        wanted = self._reference.digest
        if wanted:
            check_digest(wanted, f"reference {self._reference}")
        name = wanted or self._reference.tag
        url = f"{self._base}/manifests/{name}"
        response = await self._request("HEAD", url, {"Accept": ACCEPT}, str(self._reference))
        if response.status_code in (403, 405):  # HEAD is not served, or its refusal has no words
            return await self._resolve_by_get(url, wanted)
        self._check(response, str(self._reference))
        media_type = _media_type(response)
        digest = wanted or response.headers.get("docker-content-digest", "")
        if media_type == SCHEMA1_TYPE:
            raise InvalidArgument(f"{self._reference}: schema 1 image manifests are no longer supported")
        length = response.headers.get("content-length", "")
        if not digest or not length.isdigit() or media_type not in MANIFEST_TYPES + INDEX_TYPES:
            return await self._resolve_by_get(url, wanted)
        check_digest(digest, f"{self._reference}: digest that the registry sent")
        _check_document_size(int(length), str(self._reference))
        return Descriptor(media_type, digest, int(length))

    async def document(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, their length checked. The caller checks the digest."""
        _check_document_size(descriptor.size, descriptor.digest)
        url = f"{self._base}/manifests/{descriptor.digest}"
        return await self._small(url, f"{descriptor.media_type}, */*", descriptor.digest, descriptor.size)

    async def has(self, descriptor: Descriptor) -> bool:
        """Whether the registry would give us this object, with our credentials. Raises what `blob` does."""
        kind = "manifests" if kind_of(descriptor.media_type) in ("index", "manifest") else "blobs"
        what = f"{kind_of(descriptor.media_type)} {descriptor.digest}"
        headers = {"Accept": f"{descriptor.media_type}, */*"}
        response = await self._request("HEAD", f"{self._base}/{kind}/{descriptor.digest}", headers, what)
        return response.status_code == 200

    @asynccontextmanager
    async def blob(self, descriptor: Descriptor, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """The blob's bytes from `offset` on. Raises BrokenTransfer when they end early or stall."""
        url = f"{self._base}/blobs/{descriptor.digest}"
        # Identity: the digest is over these bytes, and ranges must count them.
        headers = {"Accept": f"{descriptor.media_type}, */*", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response = await self._request("GET", url, headers, f"blob {descriptor.digest}", stream=True)
        try:
            self._check(response, f"blob {descriptor.digest}")
            skip = 0
            if response.status_code == 206:
                _check_range(response, offset, descriptor)
            else:
                skip = offset  # the server does not know ranges: what we have comes once more
                length = response.headers.get("content-length", "")
                if length.isdigit() and int(length) != descriptor.size:
                    raise FailedPrecondition(
                        f"blob {descriptor.digest}: the registry says {length} bytes, the manifest {descriptor.size}"
                    )
            async with aclosing(_body(response, skip)) as body:
                yield body
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await response.aclose()

    async def _resolve_by_get(self, url: str, wanted: str) -> Descriptor:
        what = str(self._reference)
        response = await self._request("GET", url, {"Accept": ACCEPT}, what, stream=True)
        try:
            self._check(response, what)
            data = await _read_limited(response, what)
        finally:
            await response.aclose()
        media_type = _media_type(response)
        if media_type in (SCHEMA1_TYPE, "text/plain"):
            raise InvalidArgument(f"{what}: schema 1 image manifests are no longer supported")
        if media_type not in MANIFEST_TYPES + INDEX_TYPES:
            media_type = sniff(data, what)
        algorithm = split_digest(wanted)[0] if wanted else "sha256"
        found = f"{algorithm}:{new_hash(algorithm, data).hexdigest()}"
        if wanted and found != wanted:
            raise FailedPrecondition(f"{what}: the registry sent {found}")
        return Descriptor(media_type, found, len(data))

    async def _small(self, url: str, accept: str, what: str, size: int) -> bytes:
        last: BaseException | None = None
        for _ in range(ATTEMPTS):
            response = await self._request("GET", url, {"Accept": accept}, what, stream=True)
            try:
                self._check(response, what)
                data = await _read_limited(response, what)
            except BrokenTransfer as error:
                last = error
                continue
            finally:
                await response.aclose()
            if len(data) != size:
                raise FailedPrecondition(f"{what}: the registry sent {len(data)} bytes instead of {size}")
            return data
        raise Unavailable(f"{what}: the registry broke off {ATTEMPTS} times") from last

    async def _request(
        self, method: str, url: str, headers: dict[str, str], what: str, *, stream: bool = False
    ) -> httpx.Response:
        """One logical request: authentication, redirects, and retries with backoff, within ATTEMPTS."""
        failure: OrlopError | None = None
        refusals = 0
        for attempt in range(ATTEMPTS):
            try:
                response = await self._follow(method, url, headers)
            except httpx.TooManyRedirects as error:
                raise FailedPrecondition(f"{what}: {error}") from error
            except (httpx.TransportError, httpx.InvalidURL) as error:
                failure = Unavailable(f"{what}: {_plain(error, url)}")
                if not isinstance(
                    error,
                    httpx.TimeoutException | httpx.ReadError | httpx.RemoteProtocolError | httpx.WriteError,
                ):
                    raise failure from error
                await self._pause(attempt, None)
                continue
            if response.status_code == 401:
                await response.aread()
                await response.aclose()
                refusals += 1
                if refusals > 2:
                    raise Unauthenticated(f"{what}: {_host(url)} answered 401 again")
                used = response.request.headers.get("authorization")
                host = _host(str(response.request.url))
                await self._authorizer.answer(host, self._scope, response, used, again=refusals > 1)
                continue
            if response.status_code in _RETRIED and attempt + 1 < ATTEMPTS:
                failure = self._error(await self._finish(response), what)
                await self._pause(attempt, response.headers.get("retry-after"))
                continue
            if not stream or response.status_code > 399:
                await self._finish(response)
            return response
        raise failure or Unauthenticated(f"{what}: {_host(url)} answered 401 {ATTEMPTS} times")

    async def _follow(self, method: str, url: str, headers: dict[str, str]) -> httpx.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            sent = dict(headers)
            # Decided for each host anew, so a redirect elsewhere carries no credentials.
            if authorization := self._authorizer.header(_host(url), self._scope):
                sent["Authorization"] = authorization
            request = self._client.build_request(method, url, headers=sent)
            response = await self._client.send(request, stream=True)
            location = response.headers.get("location", "")
            if response.status_code not in (301, 302, 303, 307, 308) or not location:
                return response
            await response.aclose()
            url = str(response.request.url.join(location))
            if urlsplit(url).scheme not in ("http", "https"):
                raise httpx.UnsupportedProtocol(f"redirect to {urlsplit(url).scheme}")
        raise httpx.TooManyRedirects(f"stopped after {_MAX_REDIRECTS} redirects")

    async def _finish(self, response: httpx.Response) -> httpx.Response:
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
        return response

    async def _pause(self, attempt: int, retry_after: str | None) -> None:
        if attempt + 1 >= ATTEMPTS:
            return
        wait = min(_BACKOFF_MAX_S, _BACKOFF_S * 2**attempt) * (0.5 + self._world.random.uniform() / 2)
        if retry_after is not None:
            asked = _seconds(retry_after, self._world.clock.now_ns())
            if asked is not None:
                wait = max(0.0, min(asked, _RETRY_AFTER_MAX_S))
        await trio.sleep(wait)

    async def _probe_loopback(self, host: str) -> str:
        """https first, then plain http on the same port: registries on loopback are often without TLS."""
        try:
            response = await self._client.get(f"https://{host}/v2/")
            await response.aclose()
        except (
            httpx.ConnectError,
            httpx.RemoteProtocolError,
            httpx.ReadError,
            httpx.TimeoutException,
        ) as error:
            if isinstance(error, httpx.ConnectError) and "SSL" not in str(error) and "record" not in str(error):
                return self._base  # nobody listens: the real request says so
            return self._base.replace("https://", "http://", 1)
        return self._base

    def _check(self, response: httpx.Response, what: str) -> None:
        if response.status_code > 399:
            raise self._error(response, what)

    def _error(self, response: httpx.Response, what: str) -> OrlopError:
        status = response.status_code
        said = _said(response)
        url = str(response.request.url.copy_with(query=None))
        context = f"{what}: {response.request.method} {url} answered {status}{said}"
        if status == 404:
            return NotFound(f"{what} ({_host(url)} answered 404{said})")
        if status == 403:
            return PermissionDenied(context)
        if status == 401:
            return Unauthenticated(context)
        if status == 429:
            return ResourceExhausted(context, hint="the registry limits requests; wait, or authenticate")
        return Unavailable(context) if status >= 500 else FailedPrecondition(context)


async def _body(response: httpx.Response, skip: int) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in response.aiter_raw():
            if skip >= len(piece):
                skip -= len(piece)
                continue
            yield piece[skip:] if skip else piece
            skip = 0
    except httpx.TimeoutException:
        raise BrokenTransfer("stalled") from None
    except httpx.TransportError as error:
        raise BrokenTransfer(str(error) or type(error).__name__) from error


async def _read_limited(response: httpx.Response, what: str) -> bytes:
    data = bytearray()
    try:
        async for piece in response.aiter_bytes():
            data += piece
            _check_document_size(len(data), what)
    except httpx.DecodingError as error:
        raise FailedPrecondition(f"{what}: the registry's encoding is broken: {error}") from None
    except httpx.TransportError as error:
        raise BrokenTransfer(str(error) or type(error).__name__) from error
    return bytes(data)


def _check_range(response: httpx.Response, offset: int, descriptor: Descriptor) -> None:
    said = response.headers.get("content-range", "")
    if not said.startswith(f"bytes {offset}-"):
        raise FailedPrecondition(
            f"blob {descriptor.digest}: asked for bytes from {offset}, the registry sent {said or 'no range'}"
        )


def _check_document_size(size: int, what: str) -> None:
    if size > MAX_DOCUMENT_BYTES:
        raise FailedPrecondition(f"rejecting a manifest of {size} bytes for {what}")


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip()


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _plain(error: Exception, url: str) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"{_host(url)} does not answer in time"
    return f"cannot reach {_host(url)}: {str(error) or type(error).__name__}"


def _said(response: httpx.Response) -> str:
    """The registry's own words, if it has any."""
    try:
        errors = msgspec.json.decode(response.content, type=_RegistryErrors).errors
    except (msgspec.MsgspecError, UnicodeDecodeError, httpx.ResponseNotRead):
        return ""
    text = "; ".join(f"{e.code}: {e.message}" if e.message else e.code for e in errors[:4] if e.code or e.message)
    return f" ({text[:500]})" if text else ""


def _seconds(retry_after: str, now_ns: int) -> float | None:
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - now_ns / 1e9
    except (ValueError, TypeError):
        return None
