"""Images that were deleted while dead objects wait in the bin, kept as long as what they refer to."""

from __future__ import annotations

from typing import Final

from ...protocol.records import Image
from .. import keys
from ..codec import decoder, encode, open_value, seal
from ..engine import Reader, Transaction

__all__ = ["drop_expired", "find_deleted", "grace_ns", "keep_deleted", "take_deleted"]

_IMAGE: Final = decoder(Image).decode
_AT_ONCE: Final = 200


async def grace_ns(reader: Reader) -> int:
    """How long dead objects wait in the bin; what the collector was told last."""
    return int.from_bytes(await reader.get(keys.GRACE) or b"", "big")


async def keep_deleted(txn: Transaction, namespace: str, image: Image) -> None:
    """Called when somebody deletes an image. Without a grace period nothing is kept."""
    if not txn.urgent and await grace_ns(txn):
        txn.put(keys.deleted_image(txn.now_ns, namespace, image.name), seal(encode(image)))


async def find_deleted(reader: Reader, namespace: str, name: str) -> tuple[bytes, Image] | None:
    """The image of that name that was deleted last, with its key."""
    end = b"%b\x00%b" % (namespace.encode(), name.encode())
    found, after = None, keys.DELETED_IMAGES
    while True:
        page = await reader.scan(after, keys.prefix_end(keys.DELETED_IMAGES), _AT_ONCE)
        for key, value in page:
            if key[len(keys.DELETED_IMAGES) + 8 :] == end:
                found = key, _IMAGE(open_value(value, key)[1])
        if len(page) < _AT_ONCE:
            return found
        after = page[-1][0] + b"\x00"


def take_deleted(txn: Transaction, key: bytes) -> None:
    txn.delete(key)


async def drop_expired(txn: Transaction, grace: int, place: bytes, limit: int) -> tuple[bool, bytes]:
    """Forget those whose time is over. Whether there may be more, and where they begin: `place` is from the last time,
    or empty."""
    if place > keys.deleted_image(txn.now_ns, "", ""):  # the clock was set back
        place = b""
    page = await txn.scan(place or keys.DELETED_IMAGES, keys.prefix_end(keys.DELETED_IMAGES), limit)
    dropped = 0
    for key, _ in page:
        at = int.from_bytes(key[len(keys.DELETED_IMAGES) :][:8], "big")
        if at + grace > txn.now_ns:
            break
        txn.index(key, None)
        dropped += 1
        place = key
    return dropped == limit, place
