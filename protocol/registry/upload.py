"""Putting blobs and documents into one repository of a registry.

A blob is mounted from another repository of the same host if it can be, else sent in one piece; what breaks off goes on
where the registry says it stands, in chunks. Source: spec registry 10; OCI distribution-spec, push.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
import structlog

from ..errors import FailedPrecondition, NotFound, Unauthenticated, Unavailable
from ..identifiers import digest_of, split_digest
from ..records import Descriptor
from .client import Registry, read_limited, scope_of
from .documents import INDEX_TYPES, annotations_of, artifact_type_of, kind_of, subject_of
from .endpoint import Body, BrokenTransfer, Endpoint, error_of, is_final
from .hosts import Capability

__all__ = ["Source", "Uploader", "mount_candidate"]

log = structlog.get_logger("orlop.registry")


class _Index(msgspec.Struct):
    manifests: list[dict[str, Any]] = []


_OK: Final = (200, 201, 202, 204)
_LOST: Final = (404, 408, 416, 500, 502, 504)
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_BREAKS_WITHOUT_PROGRESS: Final = 3
Sent = Callable[[int], None]


@dataclass(frozen=True)
class Source:
    """Where a blob's bytes come from: `open(offset)` gives them from there to the end."""

    size: int
    open: Callable[[int], AsyncGenerator[bytes, None]]

    def body(self, start: int, stop: int, sent: Sent) -> Body:
        """The bytes between two offsets; `sent` is told how far it got."""

        async def pieces() -> AsyncGenerator[bytes, None]:
            at = start
            async with aclosing(self.open(start)) as found:
                async for piece in found:
                    wanted = piece[: stop - at]
                    yield wanted
                    at += len(wanted)
                    sent(at)
                    if at >= stop:
                        return

        return Body(stop - start, pieces)


class Uploader:
    """One repository, at the first of its host that takes pushes. `also`: repositories from which may be mounted."""

    def __init__(self, registry: Registry, also: Sequence[str] = ()) -> None:
        endpoints = registry.with_capability(Capability.PUSH)
        if not endpoints:
            raise FailedPrecondition(f"no host of {registry.reference.host} takes pushes", hint="see its hosts.toml")
        self._at: Endpoint = endpoints[0]
        self._repository = registry.reference.repository
        self._scope = scope_of(self._repository, "pull", "push")
        self._mounts: dict[str, str] = {each: " ".join(sorted((self._scope, scope_of(each, "pull")))) for each in also}

    @property
    def host(self) -> str:
        return self._at.name

    async def has(self, descriptor: Descriptor, tag: str = "") -> bool:
        """Whether the repository has the object; with a tag, whether that is what the tag names."""
        document = kind_of(descriptor.media_type) in ("index", "manifest")
        kind = "manifests" if document else "blobs"
        what = _what(descriptor)
        for method in ("HEAD", "GET"):
            async with self._at.exchange(
                method,
                f"{self._repository}/{kind}/{tag or descriptor.digest}",
                scope=self._scope,
                what=what,
                headers={"Accept": f"{descriptor.media_type}, */*"},
            ) as response:
                if response.status_code == 403 and method == "HEAD":
                    continue  # its words come with the answer to a GET
                if response.status_code == 404:
                    return False
                if response.status_code > 399:
                    raise error_of(response, what)
                return not tag or response.headers.get("docker-content-digest") == descriptor.digest
        raise AssertionError("unreachable")

    async def put_blob(
        self, descriptor: Descriptor, source: Source | None, mount_from: str, sent: Sent, *, chunk_bytes: int = 0
    ) -> bool:
        """Have the blob there; returns whether it was mounted, and no byte sent. `source` None: that is the only way.
        `chunk_bytes` 0: in one piece. Raises NotFound (no source), Unavailable, FailedPrecondition (the registry got
        other bytes), PermissionDenied, Unauthenticated."""
        location = ""
        if source is not None or mount_from:
            location, mounted = await self._start(descriptor, mount_from)
            if mounted:
                return True
        if source is None:
            raise NotFound(
                f"{_what(descriptor)} is neither here nor at {self.host}",
                hint="choose what is here with --platform, or pull the rest with --all-platforms --fetch-all",
            )
        offset, breaks, whole, answered = 0, 0, not chunk_bytes, 0
        reason: Exception | None = None
        counted = 0

        def told(offset: int) -> None:
            nonlocal counted
            self._at.traffic.sent += max(0, offset - counted)
            counted = offset
            sent(offset)

        while breaks <= _BREAKS_WITHOUT_PROGRESS:
            before = offset
            try:
                if whole and not offset:
                    await self._finish(location, descriptor, source.body(0, source.size, told))
                    return False
                location = await self._send_chunks(location, descriptor, source, offset, chunk_bytes, told)
                await self._finish(location, descriptor, Body.of(b""))
                return False
            except BrokenTransfer as error:
                reason = error
                place = await self._find_place(location, descriptor)
                if place is None:  # all of it came, only the answer did not
                    return False
                location, offset = place
                sent(offset)
                breaks = 0 if offset > before else breaks + 1
                if breaks and is_final(error.status, answered):
                    break
                answered = error.status or answered
        raise Unavailable(
            f"{_what(descriptor)}: {self.host} took {offset} of {descriptor.size} bytes, then it broke off ({reason})",
            hint="push again: what is there is not sent twice",
        )

    async def put_document(self, descriptor: Descriptor, data: bytes, name: str) -> bool:
        """A manifest or index under a tag or its digest. Raises FailedPrecondition also when parts are missing. Returns
        whether the registry keeps account of its subject itself."""
        what = _what(descriptor)
        async with self._at.exchange(
            "PUT",
            f"{self._repository}/manifests/{name}",
            scope=self._scope,
            what=what,
            headers={"Content-Type": descriptor.media_type},
            body=Body.of(data),
        ) as response:
            if response.status_code not in _OK:
                error = error_of(response, what)
                if response.status_code == 400 and descriptor.media_type in INDEX_TYPES:
                    error.hint = "an index needs all its manifests there; push all platforms, or one manifest"
                raise error
            _check_digest(response, descriptor)
            return "oci-subject" in response.headers

    async def put_referrer(self, descriptor: Descriptor, data: bytes, name: str) -> None:
        """A manifest that describes another one. Where the registry keeps no account of that, the tag that stands in
        for it gets one more entry. Source: OCI distribution-spec, pushing manifests with subject."""
        if await self.put_document(descriptor, data, name):
            return
        subject = subject_of(descriptor.media_type, data, descriptor.digest)
        assert subject is not None
        entry: dict[str, Any] = {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        }
        if kind := artifact_type_of(data, descriptor.digest):
            entry["artifactType"] = kind
        if annotations := annotations_of(data, descriptor.digest):
            entry["annotations"] = annotations
        tag = _fallback_tag(subject.digest)
        index = await self._index_at(f"manifests/{tag}") or []
        found = [each for each in index if each.get("digest") != descriptor.digest]
        whole = msgspec.json.encode({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [*found, entry]})
        digest = digest_of(whole)
        await self.put_document(Descriptor(INDEX_TYPES[0], digest, len(whole)), whole, tag)

    async def lists(self, descriptor: Descriptor, subject: str) -> bool:
        """Whether who asks what describes the subject is told of this."""
        for path in (f"referrers/{subject}", f"manifests/{_fallback_tag(subject)}"):
            index = await self._index_at(path)
            if index is not None:
                return any(each.get("digest") == descriptor.digest for each in index)
        return False

    async def _index_at(self, path: str) -> list[dict[str, Any]] | None:
        """What describes a document, by the registry's own account or by that in a tag; None: there is no such."""
        what = f"{self._repository}/{path}"
        async with self._at.exchange(
            "GET",
            f"{self._repository}/{path}",
            scope=self._scope,
            what=what,
            headers={"Accept": INDEX_TYPES[0]},
        ) as response:
            if response.status_code == 404:
                return None
            if response.status_code > 399:
                raise error_of(response, what)
            data, media_type = await read_limited(response, what), response.headers.get("content-type", "")
        try:
            index = msgspec.json.decode(data, type=_Index)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FailedPrecondition(f"{what} is no index of referrers: {error}") from None
        if media_type.partition(";")[0].strip() != INDEX_TYPES[0]:
            raise FailedPrecondition(f"{what} is no index of referrers but {media_type or 'of no type'}")
        return index.manifests

    async def _start(self, descriptor: Descriptor, mount_from: str) -> tuple[str, bool]:
        """Where to send the bytes, or that they need not be sent."""
        what, path = _what(descriptor), f"{self._repository}/blobs/uploads/"
        query = {"mount": descriptor.digest, "from": mount_from} if mount_from else {}
        scope = self._mounts.get(mount_from, self._scope)
        try:
            async with self._at.exchange("POST", path, scope=scope, what=what, query=query) as response:
                if response.status_code == 201 and mount_from:
                    return "", True
                if response.status_code in _OK:
                    return _location(response, what), False
                refused = error_of(response, what)
        except Unauthenticated as error:
            refused = error
        if mount_from:  # we may not read there, or it cannot be done
            return await self._start(descriptor, "")
        raise refused

    async def _send_chunks(
        self, location: str, descriptor: Descriptor, source: Source, offset: int, chunk_bytes: int, sent: Sent
    ) -> str:
        step = chunk_bytes or source.size
        while offset < source.size:
            stop = min(source.size, offset + step)
            place = {"Content-Range": f"{offset}-{stop - 1}"}
            response = await self._send("PATCH", location, descriptor, source.body(offset, stop, sent), place)
            location, offset = _location(response, _what(descriptor)), stop
        return location

    async def _finish(self, location: str, descriptor: Descriptor, body: Body) -> None:
        joint = "&" if "?" in location else "?"
        response = await self._send("PUT", f"{location}{joint}digest={descriptor.digest}", descriptor, body, {})
        _check_digest(response, descriptor)

    async def _send(
        self, method: str, url: str, descriptor: Descriptor, body: Body, headers: Mapping[str, str]
    ) -> httpx.Response:
        """Part of a blob. Raises BrokenTransfer: the registry can be asked how much of it came; whatever else it says
        is its answer."""
        what = _what(descriptor)
        try:
            async with self._at.exchange(
                method,
                url,
                scope=self._scope,
                what=what,
                headers={"Content-Type": "application/octet-stream", **headers},
                body=body,
                refusals_only=True,
            ) as response:
                if response.status_code in _OK:
                    return response
                refused = error_of(response, what)
                if response.status_code in _LOST:
                    raise BrokenTransfer(refused.message, response.status_code)
        except Unavailable as error:  # the connection
            raise BrokenTransfer(error.message) from error
        raise refused

    async def _find_place(self, location: str, descriptor: Descriptor) -> tuple[str, int] | None:
        """Where an upload that broke off stands; a new one from its beginning if the registry forgot it; None if the
        blob is there."""
        what = _what(descriptor)
        async with self._at.exchange("GET", location, scope=self._scope, what=what) as response:
            match = _RANGE.fullmatch(response.headers.get("range", ""))
            # 0-0 is what some say of one byte, and of none.
            if response.status_code in _OK and match is not None and match.group(1) != "0":
                return _location(response, what, location), int(match.group(1)) + 1
        if await self.has(descriptor):
            return None
        fresh, _ = await self._start(descriptor, "")
        return fresh, 0


def mount_candidate(sources: str, target: str) -> str:
    """Of the repositories in a source label, the one whose path shares most with the target's; ties: the last. The
    target itself is none. Source: spec registry 10.1."""
    best, most = "", -1
    wanted = target.split("/")
    for each in sources.split(","):
        if not each or each == target:
            continue
        shared = 0
        for ours, theirs in zip(wanted, each.split("/"), strict=False):
            if ours != theirs:
                break
            shared += 1
        if shared >= most:
            best, most = each, shared
    return best


def _fallback_tag(subject: str) -> str:
    algorithm, value = split_digest(subject)
    return f"{algorithm}-{value}"


def _what(descriptor: Descriptor) -> str:
    return f"{kind_of(descriptor.media_type)} {descriptor.digest}"


def _location(response: httpx.Response, what: str, otherwise: str = "") -> str:
    found = response.headers.get("location", "")
    if not found:
        if otherwise:
            return otherwise
        raise FailedPrecondition(f"{what}: the registry does not say where to send it")
    url, asked = response.request.url.join(found), response.request.url
    if url.scheme == "http" and asked.scheme == "https":
        raise FailedPrecondition(f"{what}: the registry wants it sent from https to http ({url.host})")
    return str(url)


def _check_digest(response: httpx.Response, descriptor: Descriptor) -> None:
    said = response.headers.get("docker-content-digest", "")
    if said and said != descriptor.digest:
        raise FailedPrecondition(f"{_what(descriptor)}: the registry stored {said}")
