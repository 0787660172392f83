"""The documents of an image: manifests and indexes, what their children are, and how those are labelled.

Source: OCI image-spec; spec metadata 16, registry 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import InvalidArgument
from ..identifiers import split_digest
from ..labels import GC_BREF_CONTENT, GC_REF_CONTENT
from ..records import Descriptor
from .platforms import Platform

__all__ = [
    "ACCEPT",
    "CONFIG_TYPES",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "MAX_DOCUMENT_BYTES",
    "Child",
    "annotations_of",
    "artifact_type_of",
    "children",
    "document_labels",
    "is_distributable",
    "is_layer",
    "kind_of",
    "reference_labels",
    "sniff",
    "subject_of",
    "trimmed",
]

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
CONFIG_TYPES: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.containerd.container.criu.checkpoint.criu.tar",
    "application/vnd.containerd.container.checkpoint.config.v1+proto",
)
SCHEMA1_TYPE: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
_DOCKER_LAYERS: Final = {
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.erofs.layer.v1",
}
ACCEPT: Final = ", ".join((MANIFEST_TYPES[1], INDEX_TYPES[1], MANIFEST_TYPES[0], INDEX_TYPES[0], "*/*"))
MAX_DOCUMENT_BYTES: Final = 4 * 1048 * 1048
"""Of a manifest or index; the reference's own limit, which is not 4 MiB."""
_SUBJECT: Final = "io.containerd.manifest.subject"


class Child(msgspec.Struct, frozen=True, rename={"media_type": "mediaType", "artifact_type": "artifactType"}):
    """A descriptor as it stands in a document. `data`: the object itself, where it is small. Source: OCI image-spec,
    descriptor."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    urls: list[str] = []
    artifact_type: str = ""
    data: bytes = b""

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, self.size, self.annotations)


class _Document(
    msgspec.Struct,
    rename={
        "artifact_type": "artifactType",
        "media_type": "mediaType",
        "fs_layers": "fsLayers",
        "schema": "schemaVersion",
    },
):
    media_type: str = ""
    schema: int = 0
    config: Child | None = None
    layers: list[Child] | None = None
    manifests: list[Child] | None = None
    subject: Child | None = None
    artifact_type: str = ""
    fs_layers: list[msgspec.Raw] | None = None


class _Annotated(msgspec.Struct):
    annotations: dict[str, str] | None = None


_DECODE = msgspec.json.Decoder(_Document)


def _read(data: bytes, what: str) -> _Document:
    try:
        document = _DECODE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not a manifest or index: {error}") from None
    if document.fs_layers:
        raise InvalidArgument(f"{what}: schema 1 image manifests are no longer supported")
    return document


def children(media_type: str, data: bytes, what: str) -> list[Child]:
    """The descriptors a document refers to, in order; none for what is not a document.

    Raises InvalidArgument for one that is not what its type says.
    """
    if media_type in MANIFEST_TYPES:
        document = _read(data, what)
        if document.manifests or document.media_type in INDEX_TYPES:
            raise InvalidArgument(f"{what}: expected a manifest but found an index")
        return [*([document.config] if document.config else []), *(document.layers or [])]
    if media_type in INDEX_TYPES:
        document = _read(data, what)
        if document.config or document.layers or document.media_type in MANIFEST_TYPES:
            raise InvalidArgument(f"{what}: expected an index but found a manifest")
        return list(document.manifests or [])
    return []


def document_labels(media_type: str, data: bytes, what: str) -> dict[str, str]:
    """The labels of a document that is stored: it keeps its children, and lives as long as its subject does, if it
    describes another document. Raises InvalidArgument like `children`. Source: OCI image-spec, manifest, `subject`."""
    labels = reference_labels(children(media_type, data, what))
    subject = subject_of(media_type, data, what)
    if subject is not None:
        labels[f"{GC_BREF_CONTENT}.subject"] = subject.digest
    return labels


def sniff(data: bytes, what: str) -> str:
    """The media type of a document whose server did not say it. Raises InvalidArgument."""
    document = _read(data, what)
    if document.media_type in MANIFEST_TYPES + INDEX_TYPES:
        return document.media_type
    if document.manifests is not None:
        return INDEX_TYPES[0]
    if document.layers is not None or document.config is not None:
        return MANIFEST_TYPES[0]
    raise InvalidArgument(f"{what} is neither a manifest nor an index")


def is_distributable(media_type: str) -> bool:
    """Some layers were not meant to be passed on. Source: OCI image-spec, layer; docker's foreign layers."""
    return ".nondistributable." not in media_type and ".foreign." not in media_type


def subject_of(media_type: str, data: bytes, what: str) -> Child | None:
    """What a manifest describes, if it is such a one. Source: OCI image-spec, manifest, `subject`."""
    return _read(data, what).subject if media_type in MANIFEST_TYPES + INDEX_TYPES else None


def artifact_type_of(data: bytes, what: str) -> str:
    """What kind of artefact a manifest is. Source: OCI distribution-spec, listing referrers."""
    document = _read(data, what)
    return document.artifact_type or (document.config.media_type if document.config else "")


def annotations_of(data: bytes, what: str) -> dict[str, str]:
    """A document's own annotations. Raises InvalidArgument."""
    try:
        return msgspec.json.decode(data, type=_Annotated).annotations or {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{what}: annotations: {error}") from None


def trimmed(data: bytes, keep: Sequence[str], what: str) -> bytes:
    """An index with some of its manifests only; everything else of it as it was."""
    _read(data, what)
    index = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    manifests = msgspec.json.decode(index["manifests"], type=list[msgspec.Raw])
    kept = [each for each in manifests if msgspec.json.decode(each, type=Child).digest in keep]
    return msgspec.json.encode({**index, "manifests": kept})


def is_layer(media_type: str) -> bool:
    return media_type.startswith("application/vnd.oci.image.layer.") or media_type.partition("+")[0] in _DOCKER_LAYERS


def kind_of(media_type: str) -> str:
    """index, manifest, config, layer, attestation or unknown; the first word of an ingest's ref."""
    if media_type in INDEX_TYPES:
        return "index"
    if media_type in MANIFEST_TYPES:
        return "manifest"
    if media_type in CONFIG_TYPES:
        return "config"
    if media_type == "application/vnd.in-toto+json":
        return "attestation"
    return "layer" if is_layer(media_type) else "unknown"


def reference_labels(found: list[Child]) -> dict[str, str]:
    """The labels that make a document keep its children, those not brought here included."""
    labels: dict[str, str] = {}
    counts: dict[str, int] = {}
    for child in found:
        prefix = _label_prefix(child)
        if prefix.endswith("."):
            key = f"{prefix}{counts.get(prefix, 0)}"
        else:
            key = prefix if not counts.get(prefix) else f"{prefix}{counts[prefix]}"
        counts[prefix] = counts.get(prefix, 0) + 1
        labels[key] = child.digest
    return labels


def _label_prefix(child: Child) -> str:
    if _SUBJECT in child.annotations:
        return f"{GC_REF_CONTENT}.referrer.sha256.{split_digest(child.digest)[1][:12]}"
    kind = kind_of(child.media_type)
    if kind == "config":
        return f"{GC_REF_CONTENT}.config"
    return {"manifest": f"{GC_REF_CONTENT}.m.", "layer": f"{GC_REF_CONTENT}.l."}.get(kind, f"{GC_REF_CONTENT}.")
