"""Which blobs the backend has, and who holds them: the transactional half of the blob store.

A blob is *live* while its record stands here. Every namespace with a content record holds it. Without holders
it stays, until a collection takes the record away and queues the file for removal in one transaction; bytes
that come after that get a new generation, so a late unlink can never hit a newer file.

Source: DESIGN 6; spec content 6.
"""

from __future__ import annotations

import msgspec

from ...protocol.identifiers import split_digest
from .. import keys
from ..codec import decoder, encode, open_value, seal
from ..engine import Reader, Transaction
from ..ingests import IngestRecord
from ..tables import read_number

__all__ = [
    "Blob",
    "Removal",
    "blob_path",
    "count_removals",
    "decode_removal",
    "drop_ingest_files",
    "find_blob",
    "first_removal",
    "count_unheld",
    "forget_unheld",
    "hold",
    "ingest_path",
    "last_removal",
    "mark_damaged",
    "page_removals",
    "page_unheld",
    "queue_removal",
    "record_file",
    "record_small",
    "release",
    "restore",
    "set_aside",
    "set_holders",
    "take_back",
    "replace_lost",
    "small_bytes",
    "strike_removals",
]


class Blob(msgspec.Struct, frozen=True):
    """`generation` 0: the bytes live in the engine. `holders`: records of namespaces, and ingests that adopt it.
    `damaged`: its bytes are not what its digest says; they are out of the way, and fresh ones will take over."""

    size: int
    generation: int
    holders: int = 0
    damaged: bool = False


class Removal(msgspec.Struct, frozen=True):
    """A file to unlink, by its path inside the store, and how many bytes that frees."""

    path: str
    size: int = 0


_BLOB = decoder(Blob)
_REMOVAL = decoder(Removal)


def blob_path(digest: str, generation: int) -> str:
    algorithm, encoded = split_digest(digest)
    return f"blobs/{algorithm}/{encoded}.{generation}"


def ingest_path(generation: int) -> str:
    return f"ingests/{generation}"


async def find_blob(reader: Reader, digest: str) -> Blob | None:
    """The live blob of a digest. One that is queued for removal is not live."""
    key = keys.blob(digest)
    value = await reader.get(key)
    return None if value is None else _BLOB.decode(open_value(value, key)[1])


async def small_bytes(reader: Reader, digest: str) -> bytes | None:
    """The bytes of a blob that lives in the engine."""
    key = keys.small_bytes(digest)
    value = await reader.get(key)
    return None if value is None else open_value(value, key)[1]


async def record_file(txn: Transaction, digest: str, size: int, generation: int) -> Blob:
    """A synced file stands under its final name. Join the live one and queue ours, or become it. Somebody holds it
    before the transaction ends."""
    live = await find_blob(txn, digest)
    if live is not None and live.generation == generation:
        return live
    if live is not None and live.damaged:
        await _drop_bytes(txn, digest, live)
        healed = Blob(size, generation, live.holders)
        _put(txn, digest, healed)
        return healed
    if live is not None:
        await queue_removal(txn, blob_path(digest, generation), size)
        return live
    blob = Blob(size, generation)
    _put(txn, digest, blob)
    return blob


async def replace_lost(txn: Transaction, digest: str, lost: int, generation: int) -> None:
    """If the live blob still is generation `lost`, whose file has vanished, ours takes its place."""
    live = await find_blob(txn, digest)
    if live is not None and live.generation == lost:
        _put(txn, digest, msgspec.structs.replace(live, generation=generation, damaged=False))


async def record_small(txn: Transaction, digest: str, data: bytes) -> Blob:
    """Keep the bytes in the engine, in this transaction, unless the blob is live already. Somebody holds it before the
    transaction ends."""
    live = await find_blob(txn, digest)
    if live is not None and not live.damaged:
        return live
    if live is not None:
        await _drop_bytes(txn, digest, live)
    blob = Blob(len(data), 0, live.holders if live is not None else 0)
    _put(txn, digest, blob)
    txn.put(keys.small_bytes(digest), seal(data))
    return blob


async def hold(txn: Transaction, digest: str, blob: Blob) -> None:
    """One more namespace has a record of it. `blob` is as it was read, and may have lost a holder since: one that was
    dead under the same name."""
    blob = await find_blob(txn, digest) or blob
    if blob.holders == 0:
        await _drop_unheld(txn, digest)
    _put(txn, digest, msgspec.structs.replace(blob, holders=blob.holders + 1))


async def release(txn: Transaction, digest: str) -> None:
    """One holder fewer. The last one leaves it for the collector; until then others may adopt it."""
    blob = await find_blob(txn, digest)
    if blob is None:
        return
    holders = max(0, blob.holders - 1)
    if holders == 0:
        await _put_unheld(txn, digest)
        txn.made_garbage()
    _put(txn, digest, msgspec.structs.replace(blob, holders=holders))


async def set_holders(txn: Transaction, digest: str, holders: int) -> None:
    """Put right how many hold it, after somebody counted."""
    blob = await find_blob(txn, digest)
    if blob is None:
        return
    _put(txn, digest, msgspec.structs.replace(blob, holders=holders))
    if holders:
        await _drop_unheld(txn, digest)
    else:
        await _put_unheld(txn, digest)
        txn.made_garbage()


async def restore(txn: Transaction, digest: str, blob: Blob) -> None:
    """Record a blob whose record was lost. `blob.damaged`: so were its bytes."""
    if await find_blob(txn, digest) is not None:
        return
    _put(txn, digest, blob)
    await set_holders(txn, digest, blob.holders)


async def count_unheld(reader: Reader) -> int:
    """How many live blobs no namespace holds. Where many were, a look for the first is slow."""
    return int.from_bytes(await reader.get(keys.UNHELD_COUNT) or b"", "big")


async def _put_unheld(txn: Transaction, digest: str) -> None:
    if await txn.get(keys.unheld(digest)) is None:
        txn.put(keys.unheld(digest), b"")
        await _count_unheld(txn, 1)


async def _drop_unheld(txn: Transaction, digest: str) -> None:
    if await txn.get(keys.unheld(digest)) is not None:
        txn.delete(keys.unheld(digest))
        await _count_unheld(txn, -1)


async def _count_unheld(txn: Transaction, change: int) -> None:
    count = await count_unheld(txn) + change
    if count > 0:
        txn.put(keys.UNHELD_COUNT, keys.number(count))
    else:
        txn.delete(keys.UNHELD_COUNT)


async def page_unheld(reader: Reader, after: str, limit: int) -> list[str]:
    """Digests of live blobs that no namespace holds."""
    start = keys.unheld(after) + b"\x00" if after else keys.UNHELD
    pairs = await reader.scan(start, keys.prefix_end(keys.UNHELD), limit)
    return [key[len(keys.UNHELD) :].decode() for key, _ in pairs]


async def forget_unheld(txn: Transaction, digest: str) -> int | None:
    """If still nobody holds it: it is no longer live, its file is queued. Returns the bytes that frees."""
    blob = await find_blob(txn, digest)
    await _drop_unheld(txn, digest)
    if blob is None or blob.holders:
        return None
    txn.delete(keys.blob(digest))
    await _drop_bytes(txn, digest, blob)
    return blob.size


async def mark_damaged(txn: Transaction, digest: str, generation: int) -> bool:
    """The bytes of this generation are not what they should be. They stay where they are, and nobody reads them
    any more; what is committed under this digest next takes their place. False: others did so already."""
    blob = await find_blob(txn, digest)
    if blob is None or blob.generation != generation or blob.damaged:
        return False
    _put(txn, digest, msgspec.structs.replace(blob, damaged=True))
    return True


async def _drop_bytes(txn: Transaction, digest: str, blob: Blob) -> None:
    if blob.generation:
        await queue_removal(txn, blob_path(digest, blob.generation), blob.size)
    else:
        txn.delete(keys.small_bytes(digest))


async def drop_ingest_files(txn: Transaction, ingest: IngestRecord) -> None:
    """Queue whatever an ingest that is no more may have on disk.

    Its own name goes first: a writer that is about to rename then finds nothing, and one that just did has
    its new name taken away next.
    """
    await queue_removal(txn, ingest_path(ingest.generation))
    if ingest.sealed:
        await queue_removal(txn, blob_path(ingest.sealed, ingest.generation))
    if ingest.held:
        await release(txn, ingest.held)


async def queue_removal(txn: Transaction, path: str, size: int = 0) -> None:
    position = read_number(await txn.get(keys.QUEUE_HEAD)) + 1
    txn.put(keys.QUEUE_HEAD, keys.number(position))
    txn.put(keys.removal(position), seal(encode(Removal(path, size))))
    txn.queued_removal()


async def last_removal(reader: Reader) -> int:
    """The position of the newest entry there ever was."""
    return read_number(await reader.get(keys.QUEUE_HEAD))


async def page_removals(reader: Reader, after: int, limit: int) -> list[tuple[int, Removal]]:
    pairs = await reader.scan(keys.removal(after + 1), keys.prefix_end(keys.REMOVALS), limit)
    return [
        (int.from_bytes(key[len(keys.REMOVALS) :], "big"), _REMOVAL.decode(open_value(value, key)[1]))
        for key, value in pairs
    ]


def decode_removal(key: bytes, value: bytes) -> Removal:
    """An entry of the queue, or one that was set aside. Raises DataLoss."""
    return _REMOVAL.decode(open_value(value, key)[1])


def strike_removals(txn: Transaction, positions: list[int]) -> None:
    """The files are gone. Positions are in order; start-up looks for more after the last."""
    for position in positions:
        txn.delete(keys.removal(position))
    txn.put(keys.QUEUE_FLOOR, keys.number(positions[-1]))


def set_aside(txn: Transaction, position: int, removal: Removal) -> None:
    """It could not be removed: others do not wait for it, and it is tried again later."""
    txn.put(keys.aside(position), seal(encode(removal)))


async def take_back(txn: Transaction, limit: int) -> int:
    """Queue again what was set aside; returns how much there was."""
    pairs = await txn.scan(keys.ASIDE, keys.prefix_end(keys.ASIDE), limit)
    for key, value in pairs:
        removal = _REMOVAL.decode(open_value(value, key)[1])
        txn.delete(key)
        await queue_removal(txn, removal.path, removal.size)
    return len(pairs)


async def count_removals(reader: Reader) -> int:
    """How many files and folders wait, those that could not be removed among them."""
    aside = await reader.scan(keys.ASIDE, keys.prefix_end(keys.ASIDE), 1000)
    return await last_removal(reader) - await first_removal(reader) + len(aside)


async def first_removal(reader: Reader) -> int:
    """The position after which entries may wait."""
    return read_number(await reader.get(keys.QUEUE_FLOOR))


def _put(txn: Transaction, digest: str, blob: Blob) -> None:
    txn.put(keys.blob(digest), seal(encode(blob)))
