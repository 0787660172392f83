"""Images made by hand of given layers: as records of a store, and as layouts for a registry."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orlop
from orlop.bin.embed import host_platform

from .layers import GZIP, digest_of, put_blob, zstd_stored

__all__ = [
    "CONFIG",
    "INDEX",
    "MANIFEST",
    "Blob",
    "MadeImage",
    "chain_ids",
    "image",
    "index_of",
    "packed",
    "write_layout",
]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
_REFERENCE = "containerd.io/gc.ref.content"


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """What the stack of layers 1 to n is called, for every n. Source: spec unpack 1."""
    chain: list[str] = []
    for diff_id in diff_ids:
        text = f"{chain[-1]} {diff_id}" if chain else ""
        chain.append("sha256:" + hashlib.sha256(text.encode()).hexdigest() if chain else diff_id)
    return chain


@dataclass(frozen=True)
class Blob:
    """A layer as it is stored, and the digest of what is in it."""

    data: bytes
    media_type: str
    diff_id: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest_of(self.data)


def packed(raw: bytes, media_type: str = GZIP, **more: Any) -> Blob:
    """A layer in the form its type promises."""
    data = raw
    if media_type.endswith("gzip"):
        data = gzip.compress(raw, mtime=0)
    elif media_type.endswith("zstd"):
        data = zstd_stored(raw)
    return Blob(data, media_type, digest_of(raw), **more)


@dataclass(frozen=True)
class MadeImage:
    layers: list[Blob]
    config: bytes
    manifest: bytes
    diff_ids: list[str]

    @property
    def config_digest(self) -> str:
        return digest_of(self.config)

    @property
    def target(self) -> orlop.Descriptor:
        return orlop.Descriptor(MANIFEST, digest_of(self.manifest), len(self.manifest))

    @property
    def chain(self) -> list[str]:
        return chain_ids(self.diff_ids)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Everything of it by digest."""
        return {digest_of(data): data for data in (self.manifest, self.config, *(b.data for b in self.layers))}

    async def stored(self, store: orlop.Store, name: str, *, without: Sequence[str] = ()) -> str:
        """Put into the store, as a pull leaves it, but for the blobs in `without`; its name."""
        for blob in self.layers:
            if blob.digest not in without:
                await put_blob(store, blob.data)
        await put_blob(store, self.config)
        labels = {f"{_REFERENCE}.l.{number}": blob.digest for number, blob in enumerate(self.layers)}
        labels[f"{_REFERENCE}.config"] = self.config_digest
        await put_blob(store, self.manifest, labels=labels)
        await store.images.create(name, self.target)
        return name


def image(
    layers: Sequence[bytes | Blob],
    *,
    media_type: str = GZIP,
    diff_ids: Sequence[str] | None = None,
    config: Mapping[str, Any] | bytes | None = None,
    config_type: str = CONFIG,
) -> MadeImage:
    """An image for this machine, where `config` does not say otherwise; of raw layers, or of blobs as they are."""
    blobs = [one if isinstance(one, Blob) else packed(one, media_type) for one in layers]
    found = list(diff_ids) if diff_ids is not None else [blob.diff_id for blob in blobs]
    here = host_platform()
    document: dict[str, Any] = {
        "architecture": here.architecture,
        "os": here.os,
        "rootfs": {"type": "layers", "diff_ids": found},
    }
    if here.variant:
        document["variant"] = here.variant
    written = config if isinstance(config, bytes) else _json(document | dict(config or {}))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(config_type, written),
        "layers": [
            _descriptor(b.media_type, b.data) | ({"annotations": dict(b.annotations)} if b.annotations else {})
            for b in blobs
        ],
    }
    return MadeImage(blobs, written, _json(manifest), found)


def index_of(images: Mapping[str, MadeImage]) -> bytes:
    """An index of images by platform (`os/architecture`)."""
    entries = []
    for platform, one in images.items():
        os_, _, architecture = platform.partition("/")
        entry = _descriptor(MANIFEST, one.manifest) | {"platform": {"os": os_, "architecture": architecture}}
        entries.append(entry)
    return _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})


def write_layout(folder: Path, made: MadeImage | Mapping[str, MadeImage], tag: str = "latest") -> Path:
    """An OCI image layout with one image, or an index of several, under a tag."""
    several = {"": made} if isinstance(made, MadeImage) else dict(made)
    root = made.manifest if isinstance(made, MadeImage) else index_of(made)
    blobs = {digest_of(root): root}
    for one in several.values():
        blobs |= one.blobs
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for digest, data in blobs.items():
        (folder / "blobs" / digest.replace(":", "/")).write_bytes(data)
    entry = _descriptor(MANIFEST if isinstance(made, MadeImage) else INDEX, root)
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
