"""A registry in memory that takes pushes, too: with the faults and the authentication of FaultyRegistry.

    with WritableRegistry() as registry:
        registry.fault("PUT /v2/a/b/blobs/", TakeOnly(1000))

Source: the OCI distribution specification, end-4 to end-7 and end-11 (push), end-12 (referrers).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.support.faulty_registry import FaultyRegistry
from tests.support.layers import digest_of
from tests.support.layout_registry import Reply, Seen, refusal

__all__ = ["Held", "WritableRegistry"]

_UPLOAD = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<id>[^/]*)")
_OBJECT = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs|referrers)/(?P<name>[^/]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CONTENT_RANGE = re.compile(r"(\d+)-(\d+)")
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Held:
    """What one repository holds."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """By digest: media type and bytes."""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> set[str]:
        return {*self.blobs, *self.manifests}

    def manifest(self, name: str) -> Any:
        return json.loads(self.manifests[self.tags.get(name, name)][1])


class WritableRegistry(FaultyRegistry):
    """Holds what is pushed to it, and nothing else.

    Args:
        port: 0 lets the kernel pick.
        tls: speak TLS with this.
        mounts: whether it mounts; else it opens an upload instead, as registries do that cannot.
        referrers: whether it has the API for them, and says so.
        uploads_at: where uploads go, as a URL, if not here; that registry `shares` what this one holds.
        shares: another registry whose repositories are served, too.
        absolute: whether the Location of an upload is a whole URL.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        mounts: bool = True,
        referrers: bool = False,
        shares: WritableRegistry | None = None,
        absolute: bool = False,
    ) -> None:
        nothing: Mapping[str, str | os.PathLike[str]] = {}
        super().__init__(nothing, port=port, tls=tls)
        self.mounts = mounts
        self.referrers = referrers
        self.absolute = absolute
        self.uploads_at = ""
        self.held: defaultdict[str, Held] = defaultdict(Held) if shares is None else shares.held
        self.stored: list[str] = [] if shares is None else shares.stored
        """Digests of everything that was stored, and tags that were set, in order."""
        self._uploads: dict[str, bytearray] = {} if shares is None else shares._uploads
        self._ids = itertools.count(1)
        self._changes: threading.Lock = threading.Lock() if shares is None else shares._changes

    def _right(self, seen: Seen) -> Reply:
        path, _, query = seen.path.partition("?")
        path = unquote(path)
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if upload := _UPLOAD.fullmatch(path):
            with self._changes:
                return self._upload(seen, upload["repository"], upload["id"], asked)
        found = _OBJECT.fullmatch(path)
        if found is None:
            return super()._right(seen)
        kind, name = found["kind"], found["name"]
        with self._changes:
            held = self.held[found["repository"]]
            if seen.method == "PUT" and kind == "manifests":
                return self._put_manifest(seen, held, name)
            if seen.method not in ("GET", "HEAD"):
                return refusal(405, "UNSUPPORTED", "not here")
            if kind == "blobs":
                return _blob(held, name, seen.headers.get("range", ""))
            if kind == "manifests":
                return _manifest(held, name)
            return self._referrers_of(held, name, asked.get("artifactType", ""))

    def _keep(self, seen: Seen) -> None:
        """The bytes that came before the connection was lost, as an upload keeps them."""
        found = _UPLOAD.fullmatch(unquote(seen.path.partition("?")[0]))
        with self._changes:
            if found is not None and found["id"] in self._uploads:
                self._uploads[found["id"]] += seen.body

    def _upload(self, seen: Seen, repository: str, id_: str, asked: Mapping[str, str]) -> Reply:
        if not id_:
            return self._begin(repository, asked)
        data = self._uploads.get(id_)
        if data is None:
            return refusal(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if "_state" not in asked:
            return refusal(400, "BLOB_UPLOAD_INVALID", "the query of the Location is missing")
        if seen.method == "GET":
            return self._stands(204, repository, id_)
        if begins := _CONTENT_RANGE.fullmatch(seen.headers.get("content-range", "")):
            if int(begins[1]) != len(data) or int(begins[2]) + 1 - int(begins[1]) != len(seen.body):
                return refusal(416, "RANGE_INVALID", "out of order")
        data += seen.body
        if seen.method == "PATCH":
            return self._stands(202, repository, id_)
        del self._uploads[id_]
        if digest_of(bytes(data)) != asked.get("digest"):
            return refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.held[repository].blobs[asked["digest"]] = bytes(data)
        self.stored.append(asked["digest"])
        return _created(asked["digest"])

    def _begin(self, repository: str, asked: Mapping[str, str]) -> Reply:
        wanted = asked.get("mount", "")
        found = self.held[asked["from"]].blobs.get(wanted) if "from" in asked else None
        if found is not None and self.mounts:
            self.held[repository].blobs[wanted] = found
            self.stored.append(wanted)
            return _created(wanted)
        id_ = f"upload-{next(self._ids)}"
        self._uploads[id_] = bytearray()
        return self._stands(202, repository, id_)

    def _stands(self, status: int, repository: str, id_: str) -> Reply:
        base = self.uploads_at or (self.url if self.absolute else "")
        size = len(self._uploads[id_])
        headers = {
            "Location": f"{base}/v2/{repository}/blobs/uploads/{id_}?_state={size}",
            "Range": f"0-{max(0, size - 1)}",  # that of nothing is that of one byte, as it is in docker's registry
        }
        return Reply(status, headers)

    def _put_manifest(self, seen: Seen, held: Held, name: str) -> Reply:
        digest = digest_of(seen.body)
        if ":" in name and name != digest:
            return refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        document = json.loads(seen.body)
        missing = [each["digest"] for each in _needed(document) if each["digest"] not in held.digests]
        if missing:
            return refusal(400, "MANIFEST_BLOB_UNKNOWN", f"unknown: {missing[0]}")
        held.manifests[digest] = (seen.headers.get("content-type", ""), seen.body)
        self.stored.append(digest)
        if name != digest:
            held.tags[name] = digest
            self.stored.append(name)
        headers = {}
        if self.referrers and "subject" in document:
            headers["OCI-Subject"] = document["subject"]["digest"]
        return _created(digest, headers)

    def _referrers_of(self, held: Held, digest: str, artifact_type: str) -> Reply:
        if not self.referrers:
            return refusal(404, "UNSUPPORTED", "no such endpoint")
        found = []
        for name, (media_type, data) in held.manifests.items():
            document = json.loads(data)
            kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
            if document.get("subject", {}).get("digest") == digest and artifact_type in ("", kind):
                found.append({"mediaType": media_type, "digest": name, "size": len(data), "artifactType": kind})
        body = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": found}).encode()
        return _whole(200, {"Content-Type": _INDEX}, body)


def _needed(document: Any) -> Iterator[Any]:
    """What has to be there before a manifest or index."""
    yield from document.get("manifests", [])
    for each in [document.get("config"), *document.get("layers", [])]:
        if each is not None and "nondistributable" not in each["mediaType"]:
            yield each


def _blob(held: Held, name: str, wanted: str) -> Reply:
    data = held.blobs.get(name)
    if data is None:
        return refusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
    headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": name}
    found = _RANGE.fullmatch(wanted)
    if found is None:
        return _whole(200, headers, data)
    begin, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
    headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
    return _whole(206, headers, data[begin : end + 1])


def _manifest(held: Held, name: str) -> Reply:
    digest = held.tags.get(name, name)
    found = held.manifests.get(digest)
    if found is None:
        return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")
    return _whole(200, {"Content-Type": found[0], "Docker-Content-Digest": digest}, found[1])


def _created(digest: str, more: Mapping[str, str] | None = None) -> Reply:
    return Reply(201, {"Docker-Content-Digest": digest, **(more or {})})


def _whole(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    return Reply(status, headers, len(body), iter([body]))
