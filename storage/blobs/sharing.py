"""Whether one namespace may take over bytes that another brought, without sending them itself.

Source: spec content 6.2.
"""

from __future__ import annotations

from enum import Enum

from ...protocol.errors import InvalidArgument
from ...protocol.identifiers import quote
from .. import keys
from ..engine import Reader
from ..tables import CONTENT
from .ledger import Blob, find_blob

__all__ = ["Sharing", "adoptable", "sharing_policy"]

_MOST_SHAREABLE = 1000


class Sharing(Enum):
    SHARED = "shared"
    """Everybody may have what is here."""
    ISOLATED = "isolated"
    """Only bytes of namespaces with the label `containerd.io/namespace.shareable` = `true`; all others are to be
    sent again, which proves that one has them."""


def sharing_policy(name: str) -> Sharing:
    """Raises InvalidArgument."""
    try:
        return Sharing(name)
    except ValueError:
        raise InvalidArgument(
            f"content_sharing_policy {quote(name)}", hint=f"it is one of: {', '.join(each.value for each in Sharing)}"
        ) from None


async def adoptable(reader: Reader, digest: str, size: int, policy: Sharing) -> Blob | None:
    """The live blob of a digest, if a namespace that lacks it may join it. `size` 0: not announced."""
    blob = await find_blob(reader, digest)
    if blob is None or blob.damaged or (size and size != blob.size):
        return None
    if policy is Sharing.SHARED:
        return blob
    for namespace in await _shareable(reader):
        if await CONTENT.find(reader, namespace, digest) is not None:
            return blob
    return None


async def _shareable(reader: Reader) -> list[str]:
    pairs = await reader.scan(keys.SHAREABLE, keys.prefix_end(keys.SHAREABLE), _MOST_SHAREABLE)
    return [key[len(keys.SHAREABLE) :].decode() for key, _ in pairs]
