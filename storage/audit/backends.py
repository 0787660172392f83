"""Blobs: who holds them, and which bytes must be there. Source: DESIGN 6."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from hashlib import new as new_hash
from typing import Final, NamedTuple

import msgspec

from ...protocol.errors import OrlopError
from ...protocol.identifiers import split_digest
from ...protocol.messages import Problem
from ...protocol.records import ContentInfo
from .. import keys
from ..blobs import ledger
from ..codec import read_record
from ..collection.kinds import find_record
from ..engine import Kind, Reader, Transaction
from ..ingests import IngestRecord
from ..tables import INGESTS
from ..usage import Unit, add_bytes
from .flaw import Flaw, Page, delete_key, page_of

__all__ = [
    "BlobPage",
    "LostBlob",
    "audit_blobs",
    "audit_holders",
    "audit_small_bytes",
    "audit_unheld",
    "each_ingest",
    "find_lost",
    "has_holders",
    "mark_damaged",
    "mend_usage",
    "restore",
]

_AT_ONCE: Final = 100
_MOST_HOLDERS: Final = 100_000
_UNREADABLE: Final = (OrlopError, msgspec.MsgspecError)


class BlobPage(NamedTuple):
    """`files`: digest, generation and size of blobs whose bytes lie in files."""

    page: Page
    files: list[tuple[str, int, int]]


class LostBlob(NamedTuple):
    """A blob that namespaces hold and that has no record. `small`: its bytes lie in the engine."""

    digest: str
    size: int
    small: bool


async def audit_blobs(reader: Reader, after: bytes) -> BlobPage:
    """Small bytes are there, and there are as many holders as namespaces and ingests that hold it."""
    page, following = await page_of(reader, keys.BLOBS, after, _AT_ONCE)
    flaws: list[Flaw] = []
    files = []
    ingests: dict[str, int] | None = None
    for key, _ in page:
        digest = key[len(keys.BLOBS) :].decode()
        try:
            blob = await ledger.find_blob(reader, digest)
        except _UNREADABLE as error:
            flaws.append(Flaw(Problem.RECORD, "", "blob", digest, str(error)))
            continue
        if blob is None:
            continue
        if blob.damaged:
            flaws.append(Flaw(Problem.BYTES, "", "content", digest, "known to be damaged; pull or ingest it again"))
        elif blob.generation:
            files.append((digest, blob.generation, blob.size))
        elif await _small_size(reader, digest) != blob.size:
            mend = partial(mark_damaged, digest=digest, generation=0)
            detail = "its bytes are not in the engine; pull or ingest it again"
            flaws.append(Flaw(Problem.BYTES, "", "content", digest, detail, mend, heals=False))
        holders = await _count(reader, keys.blob_holders(digest))
        if holders != blob.holders:  # ingests may be the others; of this view, so that nobody comes in between
            try:
                ingests = await _held_by_ingests(reader) if ingests is None else ingests
            except _UNREADABLE:
                continue  # an ingest that cannot be read may hold anything, and is reported itself
            holders += ingests.get(digest, 0)
        if holders != blob.holders:
            detail = f"{blob.holders} recorded, {holders} there"
            flaws.append(Flaw(Problem.HOLDERS, "", "content", digest, detail, partial(_recount, digest=digest)))
        elif (not holders) != (await reader.get(keys.unheld(digest)) is not None):
            detail = "the collector does not know whether anybody holds it"
            flaws.append(Flaw(Problem.HOLDERS, "", "content", digest, detail, partial(_recount, digest=digest)))
    return BlobPage(Page(flaws, len(page), following), files)


async def _small_size(reader: Reader, digest: str) -> int | None:
    try:
        data = await ledger.small_bytes(reader, digest)
    except OrlopError:
        return None
    return None if data is None else len(data)


async def audit_holders(reader: Reader, after: bytes) -> Page:
    """Whoever is said to hold a blob has a record of it. Where the blob counts it as a holder, it is the record that
    was lost, and the bytes stay."""
    region = keys.HOLDERS[0]
    page, following = await page_of(reader, region, after, _AT_ONCE)
    flaws: list[Flaw] = []
    for key, _ in page:
        digest, namespace = _holder(key)
        if await reader.get(keys.records(namespace, b"b") + digest.encode()) is None:
            odd = await _is_odd(reader, digest)
            mend = partial(_drop_holder, key=key) if odd else None
            detail = "is said to hold it, and has no record of it"
            if not odd:
                detail += ": that is lost; pull or ingest it again"
            flaws.append(Flaw(Problem.HOLDERS, namespace, "content", digest, detail, mend))
    return Page(flaws, len(page), following)


async def audit_unheld(reader: Reader, after: bytes) -> Page:
    """What nobody is said to hold is a blob."""
    page, following = await page_of(reader, keys.UNHELD, after, _AT_ONCE)
    flaws = []
    for key, _ in page:
        digest = key[len(keys.UNHELD) :].decode()
        if await reader.get(keys.blob(digest)) is None:
            mend = partial(delete_key, key=key)
            flaws.append(Flaw(Problem.HOLDERS, "", "content", digest, "nobody holds it, and it is not there", mend))
    return Page(flaws, len(page), following)


async def audit_small_bytes(reader: Reader, after: bytes) -> Page:
    """Small bytes belong to a blob. Those that nobody holds become a blob again, which the next collection removes."""
    region = keys.small_bytes("")
    page, following = await page_of(reader, region, after, _AT_ONCE)
    flaws = []
    for key, _ in page:
        digest = key[len(region) :].decode()
        if await reader.get(keys.blob(digest)) is None and not await has_holders(reader, digest):
            size = await _small_size(reader, digest) or 0
            mend = partial(restore, lost=LostBlob(digest, size, True), generation=0)
            detail = "bytes in the engine that belong to nothing"
            flaws.append(Flaw(Problem.ORPHAN, "", "content", digest, detail, mend))
    return Page(flaws, len(page), following)


async def find_lost(reader: Reader, after: bytes) -> tuple[list[LostBlob], bytes]:
    """Blobs that namespaces hold, and have records of, and that have none themselves."""
    region = keys.HOLDERS[0]
    page, following = await page_of(reader, region, after, _AT_ONCE)
    found: list[LostBlob] = []
    for key, _ in page:
        digest, namespace = _holder(key)
        if (found and found[-1].digest == digest) or await reader.get(keys.blob(digest)) is not None:
            continue
        try:
            info = await find_record(reader, namespace, Kind.CONTENT, digest)
        except _UNREADABLE:
            continue
        if isinstance(info, ContentInfo):
            small = await reader.get(keys.small_bytes(digest)) is not None
            found.append(LostBlob(digest, info.size, small))
    return found, following


async def has_holders(reader: Reader, digest: str) -> bool:
    prefix = keys.blob_holders(digest)
    return bool(await reader.scan(prefix, prefix + b"\x7f", 1))


async def each_ingest(reader: Reader) -> AsyncIterator[tuple[str, IngestRecord]]:
    """Every ingest with its namespace, those among them that are dead and not swept. Raises DataLoss."""
    space = keys.NAMESPACES
    while True:
        names = await reader.scan(space, keys.prefix_end(keys.NAMESPACES), _AT_ONCE)
        for name, _ in names:
            namespace = name[len(keys.NAMESPACES) :].decode()
            prefix = keys.records(namespace, b"w")
            after = prefix
            while True:
                page = await reader.scan(after, keys.prefix_end(prefix), _AT_ONCE)
                for key, value in page:
                    yield namespace, INGESTS.decode(await read_record(reader, key, value))
                if len(page) < _AT_ONCE:
                    break
                after = page[-1][0] + b"\x00"
        if len(names) < _AT_ONCE:
            return
        space = names[-1][0] + b"\x00"


async def _held_by_ingests(reader: Reader) -> dict[str, int]:
    """How many ingests hold each blob that they adopt."""
    held: dict[str, int] = {}
    async for _, record in each_ingest(reader):
        if record.held:
            held[record.held] = held.get(record.held, 0) + 1
    return held


def _holder(key: bytes) -> tuple[str, str]:
    digest, _, namespace = key[len(keys.HOLDERS[0]) :].partition(b"\x00")
    return digest.decode(), namespace.decode()


async def _count(reader: Reader, prefix: bytes) -> int:
    return len(await reader.scan(prefix, prefix + b"\x7f", _MOST_HOLDERS))


async def _holders(reader: Reader, digest: str) -> int:
    return await _count(reader, keys.blob_holders(digest)) + (await _held_by_ingests(reader)).get(digest, 0)


async def _is_odd(reader: Reader, digest: str) -> bool:
    """Whether the index has one holder more than the blob counts."""
    try:
        blob = await ledger.find_blob(reader, digest)
        return blob is None or blob.holders < await _holders(reader, digest)
    except _UNREADABLE:
        return False


# mending ----------------------------------------------------------------------------------------------------


async def mark_damaged(txn: Transaction, digest: str, generation: int) -> None:
    await ledger.mark_damaged(txn, digest, generation)


async def _recount(txn: Transaction, digest: str) -> None:
    await ledger.set_holders(txn, digest, await _holders(txn, digest))


async def _drop_holder(txn: Transaction, key: bytes) -> None:
    digest, namespace = _holder(key)
    if await txn.get(keys.records(namespace, b"b") + digest.encode()) is None and await _is_odd(txn, digest):
        txn.index(key, None)


async def restore(txn: Transaction, lost: LostBlob, generation: int | None) -> None:
    """Record a blob again, with the file of that generation; None: its bytes are lost, and fresh ones take over."""
    if lost.small and generation == 0:
        algorithm, encoded = split_digest(lost.digest)
        data = await ledger.small_bytes(txn, lost.digest) or b""
        if len(data) != lost.size or new_hash(algorithm, data).hexdigest() != encoded:
            generation = None
    holders = await _holders(txn, lost.digest)
    await ledger.restore(txn, lost.digest, ledger.Blob(lost.size, generation or 0, holders, generation is None))


async def mend_usage(txn: Transaction, namespace: str, by: dict[Unit, int]) -> None:
    """Add what a walk found more than the counters said on the same view: whatever changed since then counts itself."""
    for unit, size in by.items():
        await add_bytes(txn, namespace, unit, size)
