"""Snapshots: their records, ids and links within a namespace, and what the backends have of them. Source: DESIGN 7."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

import msgspec

from ...protocol.errors import FailedPrecondition, OrlopError
from ...protocol.messages import Problem
from ...protocol.records import SnapshotInfo
from .. import keys, snapshots
from ..collection.alive import is_gone, sealed_rounds
from ..collection.kinds import find_record
from ..engine import Kind, Reader, Transaction
from .flaw import Flaw, Mend, Page, delete_key, page_of

__all__ = [
    "SnapshotPage",
    "audit_backends",
    "audit_ids",
    "audit_links",
    "audit_record_of_snapshot",
    "audit_snapshot_holders",
    "audit_unpacked",
    "count_children",
    "is_claimed",
]

_AT_ONCE: Final = 100
_MOST_HOLDERS: Final = 100_000
_UNREADABLE: Final = (OrlopError, msgspec.MsgspecError)


class SnapshotPage(NamedTuple):
    """`folders`: snapshotter and id of snapshots that have a folder of their own."""

    page: Page
    folders: list[tuple[str, int]]


async def audit_record_of_snapshot(reader: Reader, namespace: str, name: str, info: SnapshotInfo) -> list[Flaw]:
    """It has an id, a backend by that id, which says that it is held, and its parent knows of it."""
    flaws: list[Flaw] = []

    def flaw(problem: Problem, detail: str, mend: Mend | None = None) -> None:
        flaws.append(Flaw(problem, namespace, "snapshot", name, detail, mend))

    if info.parent:
        parent = f"{info.snapshotter}/{info.parent}"
        if await reader.get(keys.snapshot_children(namespace, parent) + name.encode()) is None:
            flaw(Problem.SNAPSHOT, f"{parent} does not know of it", partial(_link, namespace=namespace, name=name))
    snapshot_id = await snapshots.find_id(reader, namespace, name)
    if not snapshot_id:
        flaw(Problem.SNAPSHOT, "it has no id", partial(_find_id_again, namespace=namespace, name=name))
        return flaws
    try:
        backend = await snapshots.find_backend(reader, snapshot_id)
    except _UNREADABLE:
        return flaws  # reported itself
    if backend is None:
        flaw(Problem.SNAPSHOT, f"its backend {snapshot_id} is not there")
        return flaws
    if backend.snapshotter != info.snapshotter:
        flaw(Problem.SNAPSHOT, f"its backend {snapshot_id} is one of {backend.snapshotter}")
    if await reader.get(keys.snapshot_holders(snapshot_id) + namespace.encode()) is None:
        flaw(Problem.HOLDERS, "is not said to hold it", partial(_put_holder, namespace=namespace, name=name))
    if info.parent and not await _is_dying(reader, namespace, name):
        below = await snapshots.find_id(reader, namespace, f"{info.snapshotter}/{info.parent}")
        if below and below != backend.parent:
            flaw(Problem.SNAPSHOT, f"it stands on {backend.parent}, its parent {info.parent} is {below}")
    return flaws


async def _is_dying(reader: Reader, namespace: str, name: str) -> bool:
    sealed = await sealed_rounds(reader)
    return bool(sealed) and await is_gone(reader, sealed, keys.state(namespace, b"x", name))


async def audit_ids(reader: Reader, after: bytes) -> Page:
    """Every id is that of a record. Without one nobody finds the folder, and nothing may remove it."""
    region = keys.snapshot_id("", "")[:2]
    page, following = await page_of(reader, region, after, _AT_ONCE)
    flaws: list[Flaw] = []
    for key, value in page:
        space, _, name = key[len(region) :].partition(b"\x00")
        if await reader.get(keys.records(space.decode(), b"x") + name) is None:
            snapshot_id = int.from_bytes(value, "big")
            detail = f"it has the id {snapshot_id}, and its record is gone"
            mend = None
            if await reader.get(keys.backend_snapshot(snapshot_id)) is None:
                mend = partial(delete_key, key=key)
            flaws.append(Flaw(Problem.SNAPSHOT, space.decode(), "snapshot", name.decode(), detail, mend))
    return Page(flaws, len(page), following)


async def audit_links(reader: Reader, after: bytes) -> Page:
    """Every child that is said to stand on another has a record."""
    region = keys.snapshot_children("", "")[:2]
    page, following = await page_of(reader, region, after, _AT_ONCE)
    flaws: list[Flaw] = []
    for key, _ in page:
        space, _, rest = key[len(region) :].partition(b"\x00")
        namespace, name = space.decode(), rest[33:].decode()
        try:
            info = await find_record(reader, namespace, Kind.SNAPSHOT, name)
        except _UNREADABLE:
            continue
        if not _stands_on(info, key, namespace, name):
            mend = partial(_unlink, key=key, namespace=namespace, name=name)
            detail = "is said to stand on what it does not stand on"
            flaws.append(Flaw(Problem.SNAPSHOT, namespace, "snapshot", name, detail, mend))
    return Page(flaws, len(page), following)


def _stands_on(info: msgspec.Struct | None, key: bytes, namespace: str, name: str) -> bool:
    if not isinstance(info, SnapshotInfo) or not info.parent:
        return False
    return key == keys.snapshot_children(namespace, f"{info.snapshotter}/{info.parent}") + name.encode()


async def audit_snapshot_holders(reader: Reader, after: bytes) -> Page:
    """Whoever is said to hold a backend's snapshot has the id of it. Where the backend counts it as a holder, it is the
    id that was lost."""
    region = keys.HOLDERS[1]
    page, following = await page_of(reader, region, after, _AT_ONCE)
    flaws: list[Flaw] = []
    known: dict[str, set[int]] = {}
    for key, _ in page:
        number, namespace = int.from_bytes(key[len(region) :][:8], "big"), key[len(region) + 8 :].decode()
        if namespace not in known:
            known[namespace] = await _ids(reader, namespace)
        if number not in known[namespace]:
            mend = partial(_drop_holder, key=key) if await _is_odd(reader, number) else None
            detail = "is said to hold it, and has no snapshot of that id"
            flaws.append(Flaw(Problem.HOLDERS, namespace, "snapshot", str(number), detail, mend))
    return Page(flaws, len(page), following)


async def _ids(reader: Reader, namespace: str) -> set[int]:
    found: set[int] = set()
    prefix = keys.snapshot_id(namespace, "")
    after = prefix
    while True:
        page = await reader.scan(after, prefix[:-1] + b"\x01", 1000)
        found |= {int.from_bytes(value, "big") for _, value in page}
        if len(page) < 1000:
            return found
        after = page[-1][0] + b"\x00"


async def _is_odd(reader: Reader, number: int) -> bool:
    """Whether the index has one holder more than the backend counts."""
    try:
        backend = await snapshots.find_backend(reader, number)
    except _UNREADABLE:
        return False
    return backend is None or backend.holders < await _holders(reader, number)


async def _holders(reader: Reader, number: int) -> int:
    prefix = keys.snapshot_holders(number)
    return len([key for key, _ in await reader.scan(prefix, prefix + b"\x7f", _MOST_HOLDERS) if len(key) > len(prefix)])


async def audit_unpacked(reader: Reader, after: bytes) -> Page:
    """What is found by its origin is there, and of that origin."""
    region = keys.unpacked(b"")
    page, following = await page_of(reader, region, after, _AT_ONCE)
    flaws: list[Flaw] = []
    for key, value in page:
        number = int.from_bytes(value, "big")
        try:
            backend = await snapshots.find_backend(reader, number)
        except _UNREADABLE:
            continue
        if backend is None or backend.origin != key[len(region) :]:
            mend, detail = partial(delete_key, key=key), "is found by an origin that is not its"
            flaws.append(Flaw(Problem.SNAPSHOT, "", "snapshot", str(number), detail, mend))
    return Page(flaws, len(page), following)


async def count_children(reader: Reader) -> dict[int, int]:
    """How many snapshots stand on each, those among them that are being made."""
    counts: dict[int, int] = {}
    for region in (keys.BACKEND_SNAPSHOTS, keys.UNFINISHED_SNAPSHOTS):
        after = region
        while True:
            page = await reader.scan(after, keys.prefix_end(region), 1000)
            for key, _ in page:
                number = int.from_bytes(key[len(region) :], "big")
                if region == keys.BACKEND_SNAPSHOTS:
                    backend = await snapshots.find_backend(reader, number)
                    below = backend.parent if backend is not None else 0
                else:
                    below = await snapshots.unfinished_parent(reader, number)
                if below:
                    counts[below] = counts.get(below, 0) + 1
            if len(page) < 1000:
                break
            after = page[-1][0] + b"\x00"
    return counts


async def audit_backends(reader: Reader, after: bytes, children: dict[int, int] | None) -> SnapshotPage:
    """Parents are there, and holders and children are as many as recorded. `children`: as counted on this very view;
    None: they cannot be counted."""
    page, following = await page_of(reader, keys.BACKEND_SNAPSHOTS, after, _AT_ONCE)
    flaws: list[Flaw] = []
    folders = []
    for key, _ in page:
        number = int.from_bytes(key[len(keys.BACKEND_SNAPSHOTS) :], "big")
        try:
            backend = await snapshots.find_backend(reader, number)
        except _UNREADABLE as error:
            flaws.append(Flaw(Problem.RECORD, "", "snapshot", str(number), str(error)))
            continue
        if backend is None:
            continue
        if backend.own_folder:
            folders.append((backend.snapshotter, number))
        name = f"{backend.snapshotter}/{number}"
        if backend.parent and await reader.get(keys.backend_snapshot(backend.parent)) is None:
            flaws.append(Flaw(Problem.SNAPSHOT, "", "snapshot", name, f"its parent {backend.parent} is not there"))
        holders = await _holders(reader, number)
        above = backend.children if children is None else children.get(number, 0)
        if (holders, above) != (backend.holders, backend.children):
            detail = f"{backend.holders} holders and {backend.children} children recorded, {holders} and {above} there"
            mend = None if children is None else partial(_recount, number=number)
            problem = Problem.HOLDERS if holders != backend.holders else Problem.SNAPSHOT
            flaws.append(Flaw(problem, "", "snapshot", name, detail, mend))
        elif not holders and not above and await reader.get(keys.unheld_snapshot(number)) is None:
            detail = "nobody holds it, and the collector does not know"
            flaws.append(Flaw(Problem.HOLDERS, "", "snapshot", name, detail, partial(_recount, number=number)))
    return SnapshotPage(Page(flaws, len(page), following), folders)


async def is_claimed(reader: Reader, number: int) -> bool:
    """Whether anything speaks of a backend's snapshot, so that its folder is not to be touched."""
    return (
        await reader.get(keys.backend_snapshot(number)) is not None
        or await reader.get(keys.unfinished_snapshot(number)) is not None
        or await _holders(reader, number) > 0
    )


# mending ----------------------------------------------------------------------------------------------------


async def _link(txn: Transaction, namespace: str, name: str) -> None:
    info = await find_record(txn, namespace, Kind.SNAPSHOT, name)
    if isinstance(info, SnapshotInfo) and info.parent:
        snapshots.link_child(txn, namespace, f"{info.snapshotter}/{info.parent}", name)


async def _unlink(txn: Transaction, key: bytes, namespace: str, name: str) -> None:
    if not _stands_on(await find_record(txn, namespace, Kind.SNAPSHOT, name), key, namespace, name):
        txn.delete(key)


async def _put_holder(txn: Transaction, namespace: str, name: str) -> None:
    snapshot_id = await snapshots.find_id(txn, namespace, name)
    if snapshot_id and await find_record(txn, namespace, Kind.SNAPSHOT, name) is not None:
        txn.index(keys.snapshot_holders(snapshot_id) + namespace.encode(), b"")


async def _drop_holder(txn: Transaction, key: bytes) -> None:
    rest = key[len(keys.HOLDERS[1]) :]
    number, namespace = int.from_bytes(rest[:8], "big"), rest[8:].decode()
    if number not in await _ids(txn, namespace) and await _is_odd(txn, number):
        txn.index(key, None)


async def _recount(txn: Transaction, number: int) -> None:
    above = (await count_children(txn)).get(number, 0)
    await snapshots.set_counts(txn, number, await _holders(txn, number), above)


async def _find_id_again(txn: Transaction, namespace: str, name: str) -> None:
    """Exactly one snapshot that this namespace holds, and has no id of, fits the record. Else a person is needed."""
    info = await find_record(txn, namespace, Kind.SNAPSHOT, name)
    if not isinstance(info, SnapshotInfo) or await snapshots.find_id(txn, namespace, name):
        return
    taken = await _ids(txn, namespace)
    below = await snapshots.find_id(txn, namespace, f"{info.snapshotter}/{info.parent}") if info.parent else 0
    fitting = []
    region, after = keys.HOLDERS[1], keys.HOLDERS[1]
    while True:
        page, following = await page_of(txn, region, after, 1000)
        for key, _ in page:
            number = int.from_bytes(key[len(region) :][:8], "big")
            if key[len(region) + 8 :] == namespace.encode() and number not in taken:
                backend = await snapshots.find_backend(txn, number)
                if backend is not None and (backend.snapshotter, backend.parent) == (info.snapshotter, below):
                    fitting.append(number)
        if not following:
            break
        after = following
    if len(fitting) != 1 or await _lacks_another_id(txn, namespace, name, info):
        raise FailedPrecondition(f"{len(fitting)} snapshots fit {name}")
    snapshots.set_id(txn, namespace, name, fitting[0])


async def _lacks_another_id(txn: Transaction, namespace: str, name: str, info: SnapshotInfo) -> bool:
    """Whether another record of the same parent lacks its id too."""
    prefix = keys.records(namespace, b"x")
    after = prefix
    while True:
        page = await txn.scan(after, keys.prefix_end(prefix), 1000)
        for key, _ in page:
            other = key[len(prefix) :].decode()
            if other == name or await snapshots.find_id(txn, namespace, other):
                continue
            found = await find_record(txn, namespace, Kind.SNAPSHOT, other)
            if isinstance(found, SnapshotInfo) and (found.snapshotter, found.parent) == (info.snapshotter, info.parent):
                return True
        if len(page) < 1000:
            return False
        after = page[-1][0] + b"\x00"
