"""Docker's own archives: manifest.json with configs and layers beside it. Source: spec registry 11.1 and 12."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import InvalidArgument, OrlopError
from ..records import Descriptor
from ..registry.references import normalize

__all__ = ["CONFIG_TYPE", "LAYER_TYPES", "MANIFEST_TYPE", "DockerImage", "docker_manifest", "familiar", "read_images"]

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
LAYER_TYPES: Final = {
    "": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
}


class DockerImage(msgspec.Struct, rename="pascal"):
    """`repo_tags` and `layers`: Go writes an empty list as null."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None

    def names(self) -> list[str]:
        """Its tags in full. Raises InvalidArgument for one that is none: nothing is imported then."""
        found = []
        for tag in self.repo_tags or []:
            try:
                found.append(normalize(tag))
            except OrlopError as error:
                raise InvalidArgument(f"tag {tag!r} of the archive: {error.message}") from None
        return found


def read_images(data: bytes) -> list[DockerImage]:
    """Raises InvalidArgument."""
    try:
        return msgspec.json.decode(data, type=list[DockerImage])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"manifest.json: {error}") from None


def docker_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The manifest that a docker archive does not have."""

    def entry(each: Descriptor) -> dict[str, str | int]:
        return {"mediaType": each.media_type, "size": each.size, "digest": each.digest}

    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": entry(config),
            "layers": [entry(each) for each in layers],
        }
    )


def familiar(name: str) -> str:
    """As docker writes it: without docker.io, and without library before a single name."""
    short = name.removeprefix("docker.io/")
    if short == name:
        return name
    official = short.removeprefix("library/")
    return short if "/" in official else official
