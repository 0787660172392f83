"""Archives of images, made by hand for imports; and what stands in one that was exported.

Files of an archive are a dictionary in their order: `tar_of(layout_files([(made, {"ref": "v1"})]))`.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from orlop.bin.embed import host_platform

from .images import INDEX, MANIFEST, MadeImage, image, index_of
from .layers import digest_of, file, folder, layer, symlink

__all__ = [
    "HOST", "IMAGE_NAME", "OTHER", "REF_NAME", "Files", "LinkTo", "blob_path", "docker_files", "for_other",
    "layout_files", "members", "named", "old_docker_files", "raw_of", "simple", "squeezed", "tar_of", "write_folder",
]  # fmt: skip

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
HOST = f"{host_platform().os}/{host_platform().architecture}"
OTHER = "linux/arm64" if host_platform().architecture != "arm64" else "linux/amd64"


@dataclass(frozen=True)
class LinkTo:
    """A symbolic link as the content of a file."""

    target: str


Files = dict[str, bytes | LinkTo]
Made = MadeImage | Mapping[str, MadeImage]


def simple(text: str = "hello", layers: int = 2, **more: Any) -> MadeImage:
    """A small image for this machine; other texts make others. Its first layer is too large to be stored inline."""
    large = b"".join(digest_of(f"{text} {number}".encode()).encode() for number in range(800))
    raw = [layer(folder("etc"), file("etc/text", text), file("large", large))]
    raw += [layer(file(f"etc/{number}", f"{text} {number}")) for number in range(1, layers)]
    return image(raw, **more)


def for_other(text: str = "hello", **more: Any) -> MadeImage:
    """The like for another machine than this."""
    return simple(f"{text} elsewhere", config={"architecture": OTHER.partition("/")[2], "variant": ""}, **more)


def named(image_name: str = "", ref_name: str = "") -> dict[str, str]:
    """The annotations of an entry of index.json."""
    return {key: value for key, value in ((IMAGE_NAME, image_name), (REF_NAME, ref_name)) if value}


def layout_files(images: Iterable[tuple[Made, Mapping[str, str]]], *, version: str = "1.0.0") -> Files:
    """An OCI layout of these images (or indexes of them by platform), each with annotations; in the order of an
    export."""
    blobs: dict[str, bytes] = {}
    entries = []
    for made, said in images:
        root = made.manifest if isinstance(made, MadeImage) else index_of(made)
        for one in [made] if isinstance(made, MadeImage) else made.values():
            blobs |= one.blobs
        blobs[digest_of(root)] = root
        media_type = MANIFEST if isinstance(made, MadeImage) else INDEX
        entry: dict[str, Any] = {"mediaType": media_type, "digest": digest_of(root), "size": len(root)}
        entries.append(entry | ({"annotations": dict(said)} if said else {}))
    files: Files = {blob_path(digest): data for digest, data in sorted(blobs.items())}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    files["oci-layout"] = json.dumps({"imageLayoutVersion": version}).encode()
    return files


def docker_files(images: Iterable[tuple[MadeImage, Sequence[str] | None]], *, packing: str = "") -> Files:
    """As skopeo and newer dockers write it: `<hex>.json`, `<hex>.tar` and manifest.json with the tags."""
    files: Files = {}
    entries = []
    for made, tags in images:
        config = f"{made.config_digest.partition(':')[2]}.json"
        files[config] = made.config
        layers = []
        for blob in made.layers:
            name = f"{blob.diff_id.partition(':')[2]}.tar"
            files[name] = squeezed(raw_of(blob.data), packing)
            layers.append(name)
        entries.append({"Config": config, "RepoTags": None if tags is None else list(tags), "Layers": layers})
    files["manifest.json"] = json.dumps(entries).encode()
    return files


def old_docker_files(made: MadeImage, tags: Sequence[str] | None) -> Files:
    """As docker 1.10 wrote it: a folder for each layer, and a link where a layer is there already."""
    files: Files = {"repositories": b"{}"}
    layers: list[str] = []
    first: dict[str, str] = {}
    for number, blob in enumerate(made.layers):
        identity = digest_of(f"{number} {blob.digest}".encode()).partition(":")[2]
        files[f"{identity}/VERSION"] = b"1.0"
        files[f"{identity}/json"] = b"{}"
        known = first.setdefault(blob.digest, identity)
        files[f"{identity}/layer.tar"] = raw_of(blob.data) if known == identity else LinkTo(f"../{known}/layer.tar")
        layers.append(f"{identity}/layer.tar")
    config = f"{made.config_digest.partition(':')[2]}.json"
    files[config] = made.config
    entry = {"Config": config, "RepoTags": None if tags is None else list(tags), "Layers": layers}
    files["manifest.json"] = json.dumps([entry]).encode()
    return files


def blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def raw_of(data: bytes) -> bytes:
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def squeezed(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    return zstandard.ZstdCompressor().compress(data) if how == "zstd" else data


def tar_of(files: Mapping[str, bytes | LinkTo]) -> bytes:
    entries = (
        symlink(name, data.target) if isinstance(data, LinkTo) else file(name, data) for name, data in files.items()
    )
    return layer(*entries)


def write_folder(path: Path, files: Mapping[str, bytes | LinkTo]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, LinkTo):
            (path / name).symlink_to(data.target)
        else:
            (path / name).write_bytes(data)
    return path


def members(archive: bytes | Path) -> dict[str, bytes | None]:
    """Everything in a tar, plain or packed, in its order; a folder is None."""
    data = archive if isinstance(archive, bytes) else archive.read_bytes()
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        data = zstandard.ZstdDecompressor().stream_reader(data).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {}
        for member in tar:
            content = tar.extractfile(member)
            found[member.name] = None if content is None else content.read()
        return found
