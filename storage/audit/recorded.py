"""Which paths inside the store belong to something."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...protocol.errors import OrlopError
from .. import keys
from ..blobs import ledger
from ..engine import Reader
from .backends import each_ingest, has_holders
from .folders import is_claimed

__all__ = ["unrecorded", "waiting"]


async def unrecorded(reader: Reader, paths: Sequence[str]) -> list[str]:
    """Those that nothing speaks of. What cannot be read may speak of anything."""
    left = [path for path in paths if not await _is_recorded(reader, path)]
    if not left:
        return []
    try:
        # Under an ingest's own name, or that of the blob that it is about to be.
        open_ = {str(record.generation) async for _, record in each_ingest(reader)}
    except (OrlopError, msgspec.MsgspecError):
        return [path for path in left if path.startswith("snapshots/")]
    return [path for path in left if path.startswith("snapshots/") or _generation(path) not in open_]


async def _is_recorded(reader: Reader, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    if folder == "ingests":
        return False
    if folder.startswith("snapshots/"):
        return name.isdecimal() and await is_claimed(reader, int(name))
    encoded, _, generation = name.rpartition(".")
    digest = f"{folder.partition('/')[2]}:{encoded}"
    if not generation.isdecimal():
        return False
    try:
        blob = await ledger.find_blob(reader, digest)
    except (OrlopError, msgspec.MsgspecError):
        return True
    if blob is None:
        return await has_holders(reader, digest)
    return blob.generation == int(generation)


def _generation(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return name if folder == "ingests" else name.rpartition(".")[2]


async def waiting(reader: Reader) -> set[str]:
    """Paths that are to be removed, those that could not be among them."""
    found = set()
    for region in (keys.REMOVALS, keys.ASIDE):
        after = region
        while True:
            page = await reader.scan(after, keys.prefix_end(region), 1000)
            for key, value in page:
                found.add(ledger.decode_removal(key, value).path)
            if len(page) < 1000:
                break
            after = page[-1][0] + b"\x00"
    return found
