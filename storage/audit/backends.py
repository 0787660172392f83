"""What the backends have: who holds it, what stands on it, and which bytes must be there. Source: DESIGN 6 and 7."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from ...protocol.messages import Problem
from .. import keys, snapshots
from ..blobs import ledger
from ..engine import Reader, Transaction
from ..tables import CONTENT, INGESTS
from ..usage import Unit, add_bytes
from .flaw import Flaw, Page

__all__ = [
    "BlobPage",
    "SnapshotPage",
    "audit_blobs",
    "audit_holders",
    "audit_snapshots",
    "held_by_ingests",
    "mend_usage",
]

_AT_ONCE: Final = 100
_MOST_HOLDERS: Final = 10_000


class BlobPage(NamedTuple):
    """`files`: digest, generation and size of blobs whose bytes lie in files."""

    page: Page
    files: list[tuple[str, int, int]]


class SnapshotPage(NamedTuple):
    """`folders`: snapshotter and id of snapshots that have a folder of their own."""

    page: Page
    folders: list[tuple[str, int]]


async def audit_blobs(reader: Reader, after: bytes, held_by_ingests: dict[str, int]) -> BlobPage:
    """Small bytes are there, and there are as many holders as namespaces and ingests that hold it."""
    page = await reader.scan(after or keys.BLOBS, keys.prefix_end(keys.BLOBS), _AT_ONCE)
    flaws: list[Flaw] = []
    files = []
    for key, _ in page:
        digest = key[len(keys.BLOBS) :].decode()
        blob = await ledger.find_blob(reader, digest)
        if blob is None:
            continue
        if blob.damaged:
            flaws.append(Flaw(Problem.BYTES, "", "content", digest, "known to be damaged; pull or ingest it again"))
        elif blob.generation:
            files.append((digest, blob.generation, blob.size))
        elif (data := await ledger.small_bytes(reader, digest)) is None or len(data) != blob.size:
            mend = partial(_mark_damaged, digest=digest, generation=0)
            flaws.append(Flaw(Problem.BYTES, "", "content", digest, "its bytes are not in the engine", mend))
        holders = await _count(reader, keys.blob_holders(digest)) + held_by_ingests.get(digest, 0)
        if holders != blob.holders:
            mend = partial(_set_blob_holders, digest=digest, by_ingests=held_by_ingests.get(digest, 0))
            detail = f"{blob.holders} recorded, {holders} there"
            flaws.append(Flaw(Problem.HOLDERS, "", "content", digest, detail, mend))
    return BlobPage(Page(flaws, len(page), _next(page)), files)


async def audit_holders(reader: Reader, after: bytes) -> Page:
    """Whoever is said to hold a blob has a record of it."""
    region = keys.HOLDERS[0]
    page = await reader.scan(after or region, keys.prefix_end(region), _AT_ONCE)
    flaws: list[Flaw] = []
    for key, _ in page:
        digest, _, namespace = key[len(region) :].partition(b"\x00")
        if await CONTENT.find(reader, namespace.decode(), digest.decode()) is None:
            if await reader.get(keys.records(namespace.decode(), b"b") + digest) is not None:
                continue  # being swept
            mend = partial(_delete_key, key=key)
            detail = "is said to hold it, and has no record of it"
            flaws.append(Flaw(Problem.HOLDERS, namespace.decode(), "content", digest.decode(), detail, mend))
    return Page(flaws, len(page), _next(page))


async def audit_snapshots(reader: Reader, after: bytes) -> SnapshotPage:
    """Parents are there, and holders and children are as many as recorded."""
    page = await reader.scan(after or keys.BACKEND_SNAPSHOTS, keys.prefix_end(keys.BACKEND_SNAPSHOTS), _AT_ONCE)
    flaws: list[Flaw] = []
    folders = []
    for key, _ in page:
        number = int.from_bytes(key[len(keys.BACKEND_SNAPSHOTS) :], "big")
        backend = await snapshots.find_backend(reader, number)
        if backend is None:
            continue
        if backend.own_folder:
            folders.append((backend.snapshotter, number))
        name = f"{backend.snapshotter}/{number}"
        if backend.parent and await snapshots.find_backend(reader, backend.parent) is None:
            flaws.append(Flaw(Problem.SNAPSHOT, "", "snapshot", name, f"its parent {backend.parent} is not there"))
        holders = await _count(reader, keys.snapshot_holders(number))
        if holders != backend.holders:
            detail = f"{backend.holders} recorded, {holders} there"
            flaws.append(Flaw(Problem.HOLDERS, "", "snapshot", name, detail))
    return SnapshotPage(Page(flaws, len(page), _next(page)), folders)


async def held_by_ingests(reader: Reader, namespaces: list[str]) -> dict[str, int]:
    """How many ingests hold each blob that they adopt."""
    held: dict[str, int] = {}
    for namespace in namespaces:
        after = ""
        while True:
            page = await INGESTS.page(reader, namespace, after, _AT_ONCE)
            for _, raw in page.rows:
                if (digest := INGESTS.decode(raw).held) != "":
                    held[digest] = held.get(digest, 0) + 1
            if not page.next:
                break
            after = page.next
    return held


async def _count(reader: Reader, prefix: bytes) -> int:
    return len(await reader.scan(prefix, prefix + b"\x7f", _MOST_HOLDERS))


def _next(page: list[tuple[bytes, bytes]]) -> bytes:
    return page[-1][0] + b"\x00" if len(page) == _AT_ONCE else b""


async def _mark_damaged(txn: Transaction, digest: str, generation: int) -> None:
    await ledger.mark_damaged(txn, digest, generation)


async def _set_blob_holders(txn: Transaction, digest: str, by_ingests: int) -> None:
    await ledger.set_holders(txn, digest, await _count(txn, keys.blob_holders(digest)) + by_ingests)


async def _delete_key(txn: Transaction, key: bytes) -> None:
    txn.delete(key)


async def mend_usage(txn: Transaction, namespace: str, by: dict[Unit, int]) -> None:
    """Add what a walk found more than the counters said on the same view: whatever changed since then counts itself."""
    for unit, size in by.items():
        await add_bytes(txn, namespace, unit, size)
