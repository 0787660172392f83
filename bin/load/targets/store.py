"""orlop as a target: in this process or behind a socket, by the same interface."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from ....actors.config import StoreConfig
from ....protocol.api import Store
from ....protocol.errors import AlreadyExists, DataLoss, NotFound
from ....protocol.messages import Metrics, PullImage, RegistryAccess
from ....protocol.records import Descriptor
from ...embed import connect, open_store
from ...world import parse_address
from ..steps.blobs import Blob, digest_of_blob, pieces
from .interface import MADE_LABEL, ROOT_LABEL, VALUE_LABEL, Seen, Target

__all__ = ["StoreTarget", "connected", "in_process"]

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_NOWHERE = Descriptor(_MANIFEST, "sha256:" + "a" * 64, 1234)
_SMALL = 16 * 1024  # what `put` takes
_PIECE = 4 * 1024 * 1024


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Target]:
    where = parse_address(address)
    near = bool(where.path) or where.host in ("localhost", "::1") or where.host.startswith("127.")
    async with connect(where) as store:
        yield StoreTarget(store, near=near)


@asynccontextmanager
async def in_process(folder: str) -> AsyncIterator[Target]:
    async with open_store(StoreConfig(os.path.abspath(folder)), serve_socket=False) as store:
        yield StoreTarget(store, near=True)


class StoreTarget:
    def __init__(self, store: Store, *, near: bool) -> None:
        """`near`: it is on this machine."""
        self._store = store
        self._near = near
        self._namespaces: dict[str, Store] = {}

    def _in(self, namespace: str) -> Store:
        found = self._namespaces.get(namespace)
        if found is None:
            found = self._namespaces[namespace] = self._store.in_namespace(namespace)
        return found

    async def ensure_namespace(self, namespace: str) -> None:
        try:
            await self._store.namespaces.create(namespace, {MADE_LABEL: "true"})
        except AlreadyExists:
            pass

    async def get_image(self, namespace: str, name: str) -> Seen:
        image = await self._in(namespace).images.get(name)
        return Seen(image.name, image.labels.get(VALUE_LABEL, ""))

    async def list_images(self, namespace: str, filters: Sequence[str]) -> int:
        count = 0
        async with self._in(namespace).images.stream(filters) as images:
            async for _ in images:
                count += 1
        return count

    async def create_image(self, namespace: str, name: str, value: str) -> None:
        await self._in(namespace).images.create(name, _NOWHERE, {VALUE_LABEL: value})

    async def update_image(self, namespace: str, name: str, value: str) -> None:
        mask = [f"labels.{VALUE_LABEL}"]
        await self._in(namespace).images.update(name, labels={VALUE_LABEL: value}, mask=mask)

    async def delete_image(self, namespace: str, name: str, *, sync: bool) -> None:
        await self._in(namespace).images.delete(name, sync=sync)

    async def publish_image(self, namespace: str, name: str, value: str, layers: Sequence[Blob]) -> None:
        async with self._in(namespace).lease() as leased:
            described = []
            for layer in layers:
                await self._ingest(leased, layer, {})
                described.append({"mediaType": _LAYER, "digest": digest_of_blob(layer), "size": layer.size})
            manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "name": name, "layers": described})
            labels = {f"containerd.io/gc.ref.content.l.{n}": str(each["digest"]) for n, each in enumerate(described)}
            data = manifest.encode()
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            await leased.content.write(name, data, size=len(data), expected=digest, labels=labels)
            await leased.images.create(name, Descriptor(_MANIFEST, digest, len(data)), {VALUE_LABEL: value})

    async def ingest(self, namespace: str, blob: Blob, labels: Mapping[str, str]) -> None:
        await self._ingest(self._in(namespace), blob, labels)

    async def _ingest(self, store: Store, blob: Blob, labels: Mapping[str, str]) -> None:
        digest = digest_of_blob(blob)
        if blob.size <= _SMALL:
            await store.content.put(b"".join(pieces(blob)), expected=digest, labels=labels)
        else:
            await store.content.write(blob.name, pieces(blob), size=blob.size, expected=digest, labels=labels)

    async def read(self, namespace: str, blob: Blob, offset: int, length: int, each: Callable[[bytes], None]) -> None:
        async with self._in(namespace).content.open(digest_of_blob(blob)) as reader:
            while length > 0:
                data = await reader.read_at(offset, min(length, _PIECE))
                if not data:
                    raise DataLoss(f"blob {blob.name} ends at {offset}, {length} bytes before it should")
                each(data)
                offset, length = offset + len(data), length - len(data)

    async def has_blob(self, namespace: str, blob: Blob) -> bool:
        return await self._in(namespace).content.has(digest_of_blob(blob))

    async def delete_blob(self, namespace: str, blob: Blob) -> None:
        await self._in(namespace).content.delete(digest_of_blob(blob))

    async def prepare_snapshot(self, namespace: str, key: str, parent: str) -> None:
        await self._in(namespace).snapshots.prepare(key, parent, {ROOT_LABEL: "load"})

    async def commit_snapshot(self, namespace: str, name: str, key: str) -> None:
        await self._in(namespace).snapshots.commit(name, key, {ROOT_LABEL: "load"})

    async def has_snapshot(self, namespace: str, name: str) -> bool:
        try:
            await self._in(namespace).snapshots.get(name)
        except NotFound:
            return False
        return True

    async def remove_snapshot(self, namespace: str, key: str) -> None:
        await self._in(namespace).snapshots.remove(key)

    async def pull(self, namespace: str, reference: str, *, unpack: bool, plain_http: bool) -> None:
        access = RegistryAccess(plain_http=plain_http)
        await self._in(namespace).pull(PullImage(reference, unpack=unpack, access=access))

    async def drop_images(self, namespace: str) -> None:
        store = self._in(namespace)
        names = [image.name async for image in store.images.list()]
        for name in names:
            await store.images.delete(name, sync=name == names[-1])

    async def collect(self) -> None:
        await self._store.collect()

    async def server_pid(self) -> int:
        server = await self._store.server()
        return server.pid if self._near and server.pidns == _own_pidns() else 0

    async def metrics(self) -> Metrics | None:
        return await self._store.metrics()


def _own_pidns() -> int:
    """0 where there is none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
