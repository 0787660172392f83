"""The client of one repository of a registry: resolve a name, fetch documents, stream blobs, list referrers.

Its hosts are asked in order, until one answers as it should; a mirror that fails costs one request. Only what came over
the wire is judged here; digests are the caller's to check, as the bytes stream. Source: spec registry 2 to 7; OCI
distribution-spec, pull and referrers.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from hashlib import new as new_hash
from typing import Final, TypeVar
from urllib.parse import urljoin

import httpx
import msgspec

from ..errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError, OutOfRange, Unauthenticated, Unavailable
from ..identifiers import check_digest, split_digest
from ..messages import Credentials, RegistryAccess
from ..records import Descriptor
from ..version import __version__
from ..world import Work, World
from .auth import Authorizer
from .documents import ACCEPT, INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT_BYTES, SCHEMA1_TYPE, Child, kind_of, sniff
from .endpoint import ATTEMPTS, BrokenTransfer, Endpoint, Warned, authority_of, error_of
from .hosts import DOCKER_HUB, Capability, Host, find_hosts
from .references import Reference
from .traffic import HostTraffic, Traffic

__all__ = ["BrokenTransfer", "Registry", "read_limited", "scope_of"]

STALL_S: Final = 30.0
_BREAKS_WITHOUT_PROGRESS: Final = 3
_DECODED: Final = ("gzip", "deflate", "zstd")
T = TypeVar("T")


_BYTES: Final = "application/octet-stream"
_MOST_PAGES: Final = 100
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


class _Referrers(msgspec.Struct):
    manifests: list[Child] = []


def scope_of(repository: str, *actions: str) -> str:
    return f"repository:{repository}:{','.join(actions)}"


class Registry:
    """One repository at its registry, for the length of one pull, push or copy. Use `async with Registry.open(...)`."""

    def __init__(self, reference: Reference, endpoints: Sequence[Endpoint]) -> None:
        self.reference = reference
        self.endpoints = endpoints
        self._scope = scope_of(reference.repository, "pull")
        self._distrusted: set[tuple[str, str]] = set()
        self._served: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        reference: Reference,
        world: World,
        access: RegistryAccess,
        traffic: Traffic,
        *,
        hosts_dir: str = "",
        stall_s: float = STALL_S,
        warned: Warned = lambda _: None,
    ) -> AsyncIterator[Registry]:
        """Raises InvalidArgument: the hosts' configuration or certificates."""
        folder = access.hosts_dir or hosts_dir
        hosts = await world.workers.run(Work.FILES, find_hosts, world.files, folder, reference.host, access)
        credentials = _for_registry(hosts, reference, access.credentials)
        async with AsyncExitStack() as stack:
            endpoints = []
            for host in hosts:
                client = await stack.enter_async_context(await _http_client(world, host, stall_s))
                authorizer = Authorizer(credentials, client, {authority_of(host.base): host.headers})
                endpoints.append(
                    Endpoint(host, reference.host, client, authorizer, traffic.to(host.authority), world, warned)
                )
            yield cls(reference, endpoints)

    def with_capability(self, *wanted: Capability) -> list[Endpoint]:
        return [each for each in self.endpoints if each.host.capabilities.issuperset(wanted)]

    async def resolve(self) -> Descriptor:
        """The descriptor that the reference stands for. Raises NotFound, InvalidArgument, Unauthenticated…"""
        wanted = self.reference.digest
        if wanted:
            check_digest(wanted, f"reference {self.reference}")
        needed = (Capability.PULL,) if wanted else (Capability.PULL, Capability.RESOLVE)
        return await self._first(self.with_capability(*needed), lambda at, tries: self._resolve_at(at, tries, wanted))

    async def _resolve_at(self, at: Endpoint, attempts: int, wanted: str) -> Descriptor:
        what = str(self.reference)
        path = f"{self.reference.repository}/manifests/{wanted or self.reference.tag}"
        async with at.exchange(
            "HEAD", path, scope=self._scope, what=what, headers={"Accept": ACCEPT}, attempts=attempts
        ) as response:
            status, headers = response.status_code, response.headers
            if status not in (403, 405):
                _check(response, what)
        if status in (403, 405):  # HEAD is not served, or its refusal has no words
            return await self._resolve_by_get(at, path, wanted, attempts)
        media_type = _media_type(headers)
        digest = wanted or headers.get("docker-content-digest", "")
        if media_type == SCHEMA1_TYPE:
            raise InvalidArgument(f"{what}: schema 1 image manifests are no longer supported")
        length = headers.get("content-length", "")
        if not digest or not length.isdigit() or media_type not in MANIFEST_TYPES + INDEX_TYPES:
            return await self._resolve_by_get(at, path, wanted, attempts)
        check_digest(digest, f"{what}: digest that the registry sent")
        _check_document_size(int(length), what)
        return Descriptor(media_type, digest, int(length))

    async def _resolve_by_get(self, at: Endpoint, path: str, wanted: str, attempts: int) -> Descriptor:
        what = str(self.reference)
        data, headers = await self._small(at, path, ACCEPT, what, attempts)
        media_type = _media_type(headers)
        if media_type in (SCHEMA1_TYPE, "text/plain"):
            raise InvalidArgument(f"{what}: schema 1 image manifests are no longer supported")
        if media_type not in MANIFEST_TYPES + INDEX_TYPES:
            media_type = sniff(data, what)
        algorithm = split_digest(wanted)[0] if wanted else "sha256"
        found = f"{algorithm}:{new_hash(algorithm, data).hexdigest()}"
        if wanted and found != wanted:
            raise FailedPrecondition(f"{what}: the registry sent {found}")
        return Descriptor(media_type, found, len(data))

    async def find(self, digest: str) -> Descriptor:
        """A blob of the repository, whatever it is. Raises NotFound."""
        what, path = f"blob {digest}", f"{self.reference.repository}/blobs/{digest}"

        async def ask(at: Endpoint, attempts: int) -> Descriptor:
            async with at.exchange("HEAD", path, scope=self._scope, what=what, attempts=attempts) as response:
                _check(response, what)
                length = response.headers.get("content-length", "")
                if not length.isdigit():
                    raise FailedPrecondition(f"{what}: {at.name} does not say its size")
                return Descriptor(_media_type(response.headers) or _BYTES, digest, int(length))

        return await self._first(self.with_capability(Capability.PULL), ask)

    async def document(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, their length checked. The caller checks the digest."""
        _check_document_size(descriptor.size, descriptor.digest)
        path = f"{self.reference.repository}/manifests/{descriptor.digest}"
        accept, what = f"{descriptor.media_type}, */*", f"{kind_of(descriptor.media_type)} {descriptor.digest}"

        async def fetch(at: Endpoint, attempts: int) -> bytes:
            data, _ = await self._small(at, path, accept, what, attempts)
            if len(data) != descriptor.size:
                raise FailedPrecondition(f"{what}: the registry sent {len(data)} bytes instead of {descriptor.size}")
            self._served[descriptor.digest] = at.name
            return data

        return await self._first(self._trusted(descriptor), fetch)

    async def has(self, descriptor: Descriptor) -> bool:
        """Whether the registry would give us this object, with our credentials. Raises what `blob` does."""
        kind = "manifests" if kind_of(descriptor.media_type) in ("index", "manifest") else "blobs"
        what = f"{kind_of(descriptor.media_type)} {descriptor.digest}"
        path, headers = f"{self.reference.repository}/{kind}/{descriptor.digest}", _accept(descriptor)

        async def ask(at: Endpoint, attempts: int) -> bool:
            async with at.exchange(
                "HEAD", path, scope=self._scope, what=what, headers=headers, attempts=attempts
            ) as response:
                if response.status_code >= 500:
                    raise error_of(response, what)
                return response.status_code == 200

        return await self._first(self.with_capability(Capability.PULL), ask)

    @asynccontextmanager
    async def blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The blob's bytes from `offset` on, up to `end`. Raises BrokenTransfer when they end early or stall,
        OutOfRange when an end was given and the registry does not serve ranges."""
        what = f"{kind_of(descriptor.media_type)} {descriptor.digest}"
        async with AsyncExitStack() as stack:

            async def start(at: Endpoint, attempts: int) -> tuple[Endpoint, httpx.Response]:
                # Identity: the digest is over these bytes, and ranges must count them.
                headers = {**_accept(descriptor), "Accept-Encoding": "identity"}
                if offset or end is not None:
                    headers["Range"] = f"bytes={offset}-{'' if end is None else end - 1}"
                path = f"{self.reference.repository}/blobs/{descriptor.digest}"
                async with AsyncExitStack() as opening:
                    response = await opening.enter_async_context(
                        at.exchange("GET", path, scope=self._scope, what=what, headers=headers, attempts=attempts)
                    )
                    _check(response, what)
                    _check_body(response, descriptor, offset)
                    if end is not None and response.status_code != 206:
                        raise OutOfRange(f"{at.name} serves no ranges")
                    stack.push_async_exit(opening.pop_all())
                self._served[descriptor.digest] = at.name
                return at, response

            at, response = await self._first(self._trusted(descriptor), start)
            # A server that does not know ranges: what we have comes once more.
            skip = 0 if response.status_code == 206 else offset
            async with aclosing(_body(response, skip, at.traffic)) as body:
                yield body

    async def steady_blob(
        self, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from `start` to `end` (None: its own), asked for again where they break off. Take it in
        `aclosing`. Raises Unavailable when nothing more comes, FailedPrecondition when too much does."""
        offset, breaks = start, -1  # the first time nothing is reopened
        stop = descriptor.size if end is None else end
        while offset < stop:
            before = offset
            reason = "the registry sent fewer bytes than it announced"
            try:
                async with self.blob(descriptor, offset, end) as pieces:
                    async for piece in pieces:
                        offset += len(piece)
                        if offset > stop:
                            raise FailedPrecondition(
                                f"blob {descriptor.digest}: the registry sends more than {descriptor.size} bytes"
                            )
                        yield piece
            except BrokenTransfer as broken:
                reason = str(broken)
            breaks = 0 if offset > before else breaks + 1
            if offset < stop and breaks >= _BREAKS_WITHOUT_PROGRESS:
                raise Unavailable(
                    f"blob {descriptor.digest}: {offset} of {descriptor.size} bytes came from "
                    f"{self.source_of(descriptor.digest)}, then it broke off again and again ({reason})",
                    hint="try again: a pull goes on from there",
                )

    def source_of(self, digest: str) -> str:
        """Which host served it last."""
        return self._served.get(digest, self.reference.host)

    def distrust(self, descriptor: Descriptor) -> None:
        """What this object's last host sent was wrong: others are asked first from now on."""
        self._distrusted.add((self._served.get(descriptor.digest, ""), descriptor.digest))

    async def referrers(self, digest: str, artifact_type: str = "") -> list[Child]:
        """What refers to a document: by the API, or else by the tag that stands in for it; none if there is neither.

        Source: OCI distribution-spec, listing referrers."""
        repository = self.reference.repository
        algorithm, value = split_digest(digest)
        query = {"artifactType": artifact_type} if artifact_type else {}
        ways = [
            (self.with_capability(Capability.REFERRERS), f"{repository}/referrers/{digest}", query),
            (self.with_capability(Capability.RESOLVE), f"{repository}/manifests/{algorithm}-{value}", {}),
        ]
        for endpoints, path, asked in ways:
            if not endpoints:
                continue
            try:
                found = await self._first(endpoints, lambda at, tries, p=path, q=asked: self._list_at(at, tries, p, q))  # type: ignore[misc]
            except NotFound:
                continue
            return [each for each in found if artifact_type in ("", each.artifact_type)]
        return []

    async def _list_at(self, at: Endpoint, attempts: int, path: str, query: Mapping[str, str]) -> list[Child]:
        what = f"referrers in {self.reference.repository}"
        found: list[Child] = []
        for _ in range(_MOST_PAGES):
            data, headers = await self._small(at, path, INDEX_TYPES[0], what, attempts, query)
            try:
                found += msgspec.json.decode(data, type=_Referrers).manifests
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise FailedPrecondition(f"{what}: the registry's answer is no index: {error}") from None
            following = _NEXT.search(headers.get("link", ""))
            if following is None:
                break
            path, query = urljoin(path if "://" in path else at.url(path), following.group(1)), {}
        return found

    async def _small(
        self,
        at: Endpoint,
        path: str,
        accept: str,
        what: str,
        attempts: int,
        query: Mapping[str, str] | None = None,
    ) -> tuple[bytes, httpx.Headers]:
        last: BaseException | None = None
        for _ in range(attempts):
            try:
                async with at.exchange(
                    "GET",
                    path,
                    scope=self._scope,
                    what=what,
                    headers={"Accept": accept},
                    query=query,
                    attempts=attempts,
                ) as response:
                    _check(response, what)
                    return await read_limited(response, what), response.headers
            except BrokenTransfer as error:
                last = error
        raise Unavailable(f"{what}: {at.name} broke off {attempts} times") from last

    def _trusted(self, descriptor: Descriptor) -> list[Endpoint]:
        able = self.with_capability(Capability.PULL)
        return sorted(able, key=lambda each: (each.name, descriptor.digest) in self._distrusted)

    async def _first(self, endpoints: Sequence[Endpoint], ask: Callable[[Endpoint, int], Awaitable[T]]) -> T:
        """The first good answer; hosts before the last one get one attempt each. Raises the last one's error, which is
        the registry itself, and says what came of the others."""
        if not endpoints:
            raise FailedPrecondition(
                f"no host of {self.reference.host} is configured for this", hint="see its hosts.toml"
            )
        failures: list[str] = []
        for at in endpoints[:-1]:
            try:
                return await ask(at, 1)
            except (OrlopError, BrokenTransfer) as error:
                if isinstance(error, InvalidArgument):
                    raise
                failures.append(f"{at.name}: {error}")
        try:
            return await ask(endpoints[-1], ATTEMPTS)
        except OrlopError as error:
            if failures and not error.hint and not isinstance(error, Unauthenticated):
                error.hint = "mirrors failed, too: " + "; ".join(failures)[:1000]
            raise


async def _http_client(world: World, host: Host, stall_s: float) -> httpx.AsyncClient:
    try:
        transport = await world.workers.run(Work.FILES, world.network.http, host.tls)
    except OSError as error:
        files = ", ".join((*host.tls.ca, *(path for pair in host.tls.client for path in pair if path)))
        raise InvalidArgument(f"certificates for {host.authority} ({files}): {error}") from None
    return httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(stall_s, connect=host.dial_s),
        headers={"User-Agent": f"orlop/{__version__}"},
        follow_redirects=False,  # we decide which host may see which header
        trust_env=False,
    )


def _for_registry(
    hosts: Sequence[Host], reference: Reference, credentials: Credentials | None
) -> dict[str, Credentials]:
    """Who may see them: the registry itself, and where it goes by another name (`server` in its hosts.toml) that one;
    never its mirrors."""
    if credentials is None:
        return {}
    own = DOCKER_HUB if reference.host == "docker.io" else reference.host
    return {authority_of(each.base): credentials for each in hosts if each.authority in (own, hosts[-1].authority)}


async def _body(response: httpx.Response, skip: int, traffic: HostTraffic) -> AsyncGenerator[bytes, None]:
    encoded = response.headers.get("content-encoding", "identity") not in ("", "identity")
    try:
        async for piece in response.aiter_bytes() if encoded else response.aiter_raw():
            traffic.received += len(piece)
            if skip >= len(piece):
                skip -= len(piece)
                continue
            yield piece[skip:] if skip else piece
            skip = 0
    except httpx.DecodingError as error:
        raise FailedPrecondition(f"the registry's encoding is broken: {error}") from None
    except httpx.TimeoutException:
        raise BrokenTransfer("stalled") from None
    except httpx.TransportError as error:
        raise BrokenTransfer(str(error) or type(error).__name__) from error


async def read_limited(response: httpx.Response, what: str) -> bytes:
    """A document's bytes, up to the limit for such. Raises FailedPrecondition, BrokenTransfer."""
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


def _check(response: httpx.Response, what: str) -> None:
    if response.status_code > 399:
        raise error_of(response, what)


def _check_body(response: httpx.Response, descriptor: Descriptor, offset: int) -> None:
    """Whether what is about to come is what was asked for."""
    encodings = [each.strip() for each in response.headers.get("content-encoding", "identity").split(",")]
    unknown = [each for each in encodings if each not in ("", "identity", *_DECODED)]
    if unknown:
        raise FailedPrecondition(f"blob {descriptor.digest}: the registry encodes it as {unknown[0]}")
    if response.status_code == 206:
        said = response.headers.get("content-range", "")
        if not said.startswith(f"bytes {offset}-"):
            raise FailedPrecondition(
                f"blob {descriptor.digest}: asked for bytes from {offset}, the registry sent {said or 'no range'}"
            )
        return
    length = response.headers.get("content-length", "")
    if encodings == ["identity"] and length.isdigit() and int(length) != descriptor.size:
        raise FailedPrecondition(
            f"blob {descriptor.digest}: the registry says {length} bytes, the manifest {descriptor.size}"
        )


def _check_document_size(size: int, what: str) -> None:
    if size > MAX_DOCUMENT_BYTES:
        raise FailedPrecondition(f"rejecting a manifest of {size} bytes for {what}")


def _media_type(headers: httpx.Headers) -> str:
    return str(headers.get("content-type", "")).partition(";")[0].strip()


def _accept(descriptor: Descriptor) -> dict[str, str]:
    return {"Accept": f"{descriptor.media_type}, */*"}
