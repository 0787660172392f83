"""The documents of an OCI image layout: which images it holds, and what they are called.

Source: OCI image-spec, image layout; spec registry 11.2 and 12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..errors import InvalidArgument, OrlopError
from ..records import Descriptor
from ..registry.documents import INDEX_TYPES, Child
from ..registry.references import parse_reference

__all__ = ["IMAGE_NAME", "LAYOUT", "REF_NAME", "Naming", "check_layout", "layout_index", "names_of", "read_index"]

IMAGE_NAME: Final = "io.containerd.image.name"
REF_NAME: Final = "org.opencontainers.image.ref.name"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


class _Layout(msgspec.Struct):
    version: str = msgspec.field(name="imageLayoutVersion", default="")


class _Index(msgspec.Struct):
    manifests: list[Child] = []


@dataclass(frozen=True)
class Naming:
    """How images are called that an archive brings. `base`: only names that begin so, and before bare tags; empty:
    `prefix`, which stands for `import-<date>`. `digests`: also by their digests; `skip_named`: but not those that have
    a name. `index`: a name for the archive's whole index."""

    base: str = ""
    prefix: str = ""
    digests: bool = False
    skip_named: bool = False
    index: str = ""


def check_layout(data: bytes) -> None:
    """Raises InvalidArgument."""
    try:
        version = msgspec.json.decode(data, type=_Layout).version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"oci-layout: {error}") from None
    if version != "1.0.0":
        raise InvalidArgument(f"unsupported OCI layout version {version!r}; orlop reads 1.0.0")


def read_index(data: bytes) -> list[Child]:
    """Raises InvalidArgument."""
    try:
        return msgspec.json.decode(data, type=_Index).manifests
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"index.json: {error}") from None


def names_of(child: Child, naming: Naming) -> Iterator[str]:
    """What one entry of an index is to be called; nothing where its annotations do not say."""
    name = _name_of(child.annotations, naming)
    if name:
        yield name
    if naming.digests and not (name and naming.skip_named):
        yield f"{naming.base or naming.prefix}@{child.digest}"


def _name_of(annotations: Mapping[str, str], naming: Naming) -> str:
    whole, ref = annotations.get(IMAGE_NAME, ""), annotations.get(REF_NAME, "")
    if whole:
        # Any text may name an image. Of one that has no tag, exports say the whole name twice: it is no accident then.
        return whole if (ref == whole or _is_complete(whole)) and _begins(whole, naming.base) else ""
    if not ref:
        return ""
    if not any(mark in ref for mark in "/:@"):
        return f"{naming.base or naming.prefix}:{ref}"
    return ref if _begins(ref, naming.base) else ""


def _is_complete(name: str) -> bool:
    try:
        parse_reference(name)
    except OrlopError:
        return False
    return True


def _begins(name: str, base: str) -> bool:
    return not base or name == base or (name.startswith(base) and name[len(base)] in "/:@")


def layout_index(entries: Sequence[tuple[Descriptor, Mapping[str, str]]]) -> bytes:
    """index.json of descriptors, and annotations that go before their own; the same entries make the same bytes."""
    manifests: list[dict[str, Any]] = []
    for target, said in entries:
        annotations = dict(sorted({**target.annotations, **said}.items()))
        entry = {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
        manifests.append({**entry, "annotations": annotations} if annotations else entry)
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": manifests})
