"""Numbers that are given out or counted, and the queues that they bound; namespaces and what is known of them."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

import msgspec

from ...protocol.errors import OrlopError
from ...protocol.labels import SHAREABLE
from ...protocol.messages import Problem
from .. import keys
from ..blobs import ledger
from ..codec import open_value, read_record
from ..engine import Reader, Transaction
from ..keys import RecordKind
from ..tables import find_namespace, read_number
from .backends import each_ingest
from .flaw import Flaw, Page, delete_key, page_of
from .recorded import unrecorded

__all__ = [
    "audit_back_counts",
    "audit_deleted",
    "audit_journal",
    "audit_namespaces",
    "audit_numbers",
    "audit_shareable",
]

_AT_ONCE: Final = 100
_EVENTS_AT_ONCE: Final = 500
_COUNTED_AT_ONCE: Final = 1000
_UNREADABLE: Final = (OrlopError, msgspec.MsgspecError)


class _Line(NamedTuple):
    """Entries by number: `head` is the last that was given out, up to `floor` they are done with."""

    what: str
    region: bytes
    head: bytes
    floor: bytes


_LINES: Final = (
    _Line("removals", keys.REMOVALS, keys.QUEUE_HEAD, keys.QUEUE_FLOOR),
    _Line("owed work", keys.OWED, keys.OWED_HEAD, keys.OWED_FLOOR),
    _Line("events", keys.JOURNAL, keys.JOURNAL_HEAD, keys.JOURNAL_FLOOR),
)


async def audit_namespaces(reader: Reader, after: bytes) -> Page:
    """Each can be read, its labels stand where they are looked for, and its records are counted."""
    page, following = await page_of(reader, keys.NAMESPACES, after, _AT_ONCE)
    flaws: list[Flaw] = []
    for key, _ in page:
        name = key[len(keys.NAMESPACES) :].decode()
        try:
            found = await find_namespace(reader, name)
        except _UNREADABLE as error:
            flaws.append(Flaw(Problem.RECORD, name, "namespace", name, str(error)))
            continue
        shareable = found is not None and found.labels.get(SHAREABLE) == "true"
        if shareable != (await reader.get(keys.shareable(name)) is not None):
            mend = partial(_set_shareable, namespace=name)
            detail = "whether others may share is not known where it is looked for"
            flaws.append(Flaw(Problem.REFERENCE, name, "namespace", name, detail, mend))
        for kind in RecordKind:
            counted = read_number(await reader.get(keys.count(name, kind.value)))
            there = await _count(reader, name, kind)
            if counted != there:
                mend_count = partial(_set_count, namespace=name, kind=kind)
                detail = f"{counted} records counted, {there} there"
                flaws.append(Flaw(Problem.USAGE, name, kind.name.lower(), name, detail, mend_count))
    return Page(flaws, len(page), following)


async def audit_back_counts(reader: Reader, after: bytes) -> Page:
    """Back references are counted: where there are none, nobody looks for them."""
    page, following = await page_of(reader, keys.NAMESPACES, after, _AT_ONCE)
    flaws: list[Flaw] = []
    for key, _ in page:
        name = key[len(keys.NAMESPACES) :].decode()
        counted, there = read_number(await reader.get(keys.back_count(name))), await _count_back(reader, name)
        if counted != there:
            mend = partial(_set_back_count, namespace=name)
            detail = f"{counted} back references counted, {there} there"
            flaws.append(Flaw(Problem.REFERENCE, name, "namespace", name, detail, mend))
    return Page(flaws, len(page), following)


async def audit_shareable(reader: Reader, after: bytes) -> Page:
    page, following = await page_of(reader, keys.SHAREABLE, after, _AT_ONCE)
    flaws = []
    for key, _ in page:
        name = key[len(keys.SHAREABLE) :].decode()
        if await reader.get(keys.namespace(name)) is None:
            mend = partial(delete_key, key=key)
            detail = "others may share of it, and it is not there"
            flaws.append(Flaw(Problem.REFERENCE, name, "namespace", name, detail, mend))
    return Page(flaws, len(page), following)


async def audit_numbers(reader: Reader) -> list[Flaw]:
    """Numbers that are in use were given out, and what lies in a queue is where it is looked for."""
    flaws: list[Flaw] = []
    for line in _LINES:
        head, floor = read_number(await reader.get(line.head)), read_number(await reader.get(line.floor))
        first, last = await _first(reader, line.region), await _last(reader, line.region, head)
        if max(last, floor) > head:
            detail = f"{max(last, floor)} is in use, given out are {head}"
            flaws.append(Flaw(Problem.USAGE, "", "queue", line.what, detail, partial(_set_head, line=line)))
        if (first and first <= floor) or (line.region == keys.JOURNAL and head > floor and first != floor + 1):
            detail = f"the first is {first}, expected is {floor + 1}"
            flaws.append(Flaw(Problem.USAGE, "", "queue", line.what, detail, partial(_set_floor, line=line)))
    counted, unheld = await ledger.count_unheld(reader), await _count_keys(reader, keys.UNHELD)
    if counted != unheld:
        detail = f"{counted} blobs counted that nobody holds, {unheld} there"
        flaws.append(Flaw(Problem.USAGE, "", "counter", "blobs", detail, _set_unheld))
    given, used = read_number(await reader.get(keys.GENERATION)), await _highest(reader)
    if used > given:
        detail = f"{used} is in use, given out are {given}"
        flaws.append(Flaw(Problem.USAGE, "", "counter", "files and folders", detail, _set_generation))
    return flaws


async def audit_journal(reader: Reader, after: bytes) -> Page:
    """Events follow each other, and can be read."""
    floor, head = read_number(await reader.get(keys.JOURNAL_FLOOR)), read_number(await reader.get(keys.JOURNAL_HEAD))
    start = max(after, keys.event(floor + 1))
    if start > keys.event(head):
        return Page([], 0, b"")
    pairs = await reader.scan(start, keys.event(head) + b"\x00", _EVENTS_AT_ONCE)
    flaws: list[Flaw] = []
    expected = int.from_bytes(start[len(keys.JOURNAL) :][:8], "big") + (len(start) > len(keys.event(0)))
    for key, value in pairs:
        number = int.from_bytes(key[len(keys.JOURNAL) :], "big")
        if number > expected > floor + 1:
            detail = "it is missing" if number == expected + 1 else f"missing, with those up to {number - 1}"
            flaws.append(Flaw(Problem.RECORD, "", "event", str(expected), detail))
        expected = number + 1
        try:
            await read_record(reader, key, value)
        except _UNREADABLE as error:
            flaws.append(Flaw(Problem.RECORD, "", "event", str(number), str(error)))
    if len(pairs) == _EVENTS_AT_ONCE:
        return Page(flaws, len(pairs), pairs[-1][0] + b"\x00")
    if expected <= head and (pairs or after):
        flaws.append(Flaw(Problem.RECORD, "", "event", str(expected), f"missing, with those up to {head}"))
    return Page(flaws, len(pairs), b"")


async def audit_deleted(reader: Reader, after: bytes) -> Page:
    """Images that were deleted and may be brought back can be."""
    page, following = await page_of(reader, keys.DELETED_IMAGES, after, _AT_ONCE)
    flaws = []
    for key, value in page:
        try:
            open_value(value, key)
        except OrlopError as error:
            space, _, name = key[len(keys.DELETED_IMAGES) + 8 :].partition(b"\x00")
            flaws.append(Flaw(Problem.RECORD, space.decode("utf-8", "replace"), "image", repr(name), str(error)))
    return Page(flaws, len(page), following)


async def _count(reader: Reader, namespace: str, kind: RecordKind) -> int:
    return await _count_keys(reader, keys.records(namespace, kind.value))


async def _count_back(reader: Reader, namespace: str) -> int:
    return await _count_keys(reader, keys.BACK_EDGES + namespace.encode() + b"\x00")


async def _count_keys(reader: Reader, prefix: bytes) -> int:
    total, after = 0, prefix
    while True:
        page = await reader.scan(after, keys.prefix_end(prefix), _COUNTED_AT_ONCE)
        total += len(page)
        if len(page) < _COUNTED_AT_ONCE:
            return total
        after = page[-1][0] + b"\x00"


async def _first(reader: Reader, region: bytes) -> int:
    found = await reader.scan(region, keys.prefix_end(region), 1)
    return int.from_bytes(found[0][0][len(region) :], "big") if found else 0


async def _last(reader: Reader, region: bytes, head: int) -> int:
    """The last number in use, looked for behind the one that should be it."""
    last, after = 0, region + keys.number(head)
    while True:
        page = await reader.scan(after, keys.prefix_end(region), _COUNTED_AT_ONCE)
        if page:
            last = int.from_bytes(page[-1][0][len(region) :], "big")
        if len(page) < _COUNTED_AT_ONCE:
            return last
        after = page[-1][0] + b"\x00"


async def _highest(reader: Reader) -> int:
    """The highest number of a file or folder."""
    highest = 0
    for region in (keys.BACKEND_SNAPSHOTS, keys.UNFINISHED_SNAPSHOTS):
        highest = max(highest, await _last(reader, region, 0))
    try:
        async for _, record in each_ingest(reader):
            highest = max(highest, record.generation)
    except _UNREADABLE:
        pass  # reported itself
    after = keys.BLOBS
    while True:
        page = await reader.scan(after, keys.prefix_end(keys.BLOBS), _COUNTED_AT_ONCE)
        for key, _ in page:
            try:
                blob = await ledger.find_blob(reader, key[len(keys.BLOBS) :].decode())
            except _UNREADABLE:
                continue
            highest = max(highest, blob.generation if blob is not None else 0)
        if len(page) < _COUNTED_AT_ONCE:
            return highest
        after = page[-1][0] + b"\x00"


# mending ----------------------------------------------------------------------------------------------------


async def _set_shareable(txn: Transaction, namespace: str) -> None:
    found = await find_namespace(txn, namespace)
    if found is not None and found.labels.get(SHAREABLE) == "true":
        txn.put(keys.shareable(namespace), b"")
    else:
        txn.delete(keys.shareable(namespace))


async def _set_back_count(txn: Transaction, namespace: str) -> None:
    count = await _count_back(txn, namespace)
    txn.index(keys.back_count(namespace), keys.number(count) if count else None)
    txn.made_garbage()


async def _set_count(txn: Transaction, namespace: str, kind: RecordKind) -> None:
    txn.put(keys.count(namespace, kind.value), keys.number(await _count(txn, namespace, kind)))


async def _set_head(txn: Transaction, line: _Line) -> None:
    head, floor = read_number(await txn.get(line.head)), read_number(await txn.get(line.floor))
    txn.put(line.head, keys.number(max(head, floor, await _last(txn, line.region, head))))


async def _set_floor(txn: Transaction, line: _Line) -> None:
    first = await _first(txn, line.region)
    head, floor = read_number(await txn.get(line.head)), read_number(await txn.get(line.floor))
    if line.region == keys.REMOVALS:
        await _remove_again(txn, floor)
    else:
        txn.put(line.floor, keys.number(first - 1 if first else head))


async def _remove_again(txn: Transaction, floor: int) -> None:
    """Removals that were passed over get a later place; of paths that belong to something they are struck."""
    pairs = await ledger.page_removals(txn, -1, _AT_ONCE)
    for position, removal in pairs:
        if position > floor:
            break
        txn.delete(keys.removal(position))
        if await unrecorded(txn, [removal.path]):
            await ledger.queue_removal(txn, removal.path, removal.size)


async def _set_unheld(txn: Transaction) -> None:
    count = await _count_keys(txn, keys.UNHELD)
    txn.index(keys.UNHELD_COUNT, keys.number(count) if count else None)
    txn.made_garbage()


async def _set_generation(txn: Transaction) -> None:
    given = read_number(await txn.get(keys.GENERATION))
    txn.put(keys.GENERATION, keys.number(max(given, await _highest(txn))))
