"""Which snapshots the backends have, and who holds them: the transactional half of the snapshot store.

A snapshot's id names its folder, never comes again, and stays when it is committed. What is being made is listed
before anything is on disk, so start-up looks at that list alone. Every namespace with a record of a snapshot holds it,
and every snapshot made on it keeps it; without either it stays until a collection takes its record away and queues its
folder, children before parents.

A snapshot that orlop itself unpacked is found by what it was made of: see `origin`. Source: DESIGN 7, spec snapshots 4.
"""

from __future__ import annotations

import hashlib

import msgspec

from . import keys
from .blobs.ledger import queue_removal
from .codec import decoder, encode, open_value, seal
from .engine import Reader, Transaction
from .tables import next_generation
from .usage import snapshot_held, snapshot_released, snapshot_resized

__all__ = [
    "FOLDERS",
    "BackendSnapshot",
    "Unfinished",
    "abandon",
    "announce",
    "ancestors",
    "children",
    "drop_id",
    "find_backend",
    "find_id",
    "find_unpacked",
    "finish",
    "folder_of",
    "forget_unheld_snapshot",
    "has_children",
    "hold",
    "id_of",
    "link_child",
    "origin",
    "parse_folder",
    "page_unfinished",
    "page_unheld_snapshots",
    "rebase",
    "release",
    "set_counts",
    "set_id",
    "unfinished_parent",
    "unlink_child",
]


FOLDERS = "snapshots/"
"""What the paths of snapshots begin with, inside the store."""


class BackendSnapshot(msgspec.Struct, frozen=True):
    """`parent` 0: none. `holders`: records of namespaces. `children`: snapshots made on it, also unfinished ones.
    `own_folder`: False for a view that only shows its parent's."""

    snapshotter: str
    parent: int = 0
    holders: int = 0
    children: int = 0
    size: int = 0
    inodes: int = 0
    origin: bytes = b""
    own_folder: bool = True


class Unfinished(msgspec.Struct, frozen=True):
    snapshotter: str
    parent: int = 0


_BACKEND = decoder(BackendSnapshot)
_UNFINISHED = decoder(Unfinished)


def folder_of(snapshotter: str, snapshot_id: int) -> str:
    """Its path inside the store."""
    return f"{FOLDERS}{snapshotter}/{snapshot_id}"


def parse_folder(path: str) -> tuple[str, int] | None:
    """The snapshotter and id whose folder that is; None: it is another path inside the store."""
    if not path.startswith(FOLDERS):
        return None
    snapshotter, _, name = path[len(FOLDERS) :].rpartition("/")
    return snapshotter, int(name)


def origin(snapshotter: str, options: str, below: bytes, layer: str, diff_id: str) -> bytes:
    """What a snapshot was made of: the snapshotter, the options that change what lies on disk, the origin of what it
    stands on (none: empty), and the layer's blob with what that unfolded to. All of it was verified: a config that
    claims something else finds nothing."""
    parts = (snapshotter, options, below.hex(), layer, diff_id)
    return hashlib.sha256("\n".join(parts).encode()).digest()


async def find_backend(reader: Reader, snapshot_id: int) -> BackendSnapshot | None:
    key = keys.backend_snapshot(snapshot_id)
    value = await reader.get(key)
    return None if value is None else _BACKEND.decode(open_value(value, key)[1])


async def ancestors(reader: Reader, snapshot_id: int, most: int) -> list[int]:
    """Ids of the snapshots below one, nearest first, up to `most` of them."""
    found: list[int] = []
    at = snapshot_id
    while len(found) < most:
        backend = await find_backend(reader, at)
        if backend is None or not backend.parent:
            break
        at = backend.parent
        found.append(at)
    return found


# being made --------------------------------------------------------------------------------------------------


async def announce(txn: Transaction, snapshotter: str, parent: int = 0) -> int:
    """A new id, before anything of it is on disk. The parent stays while it is being made."""
    snapshot_id = await next_generation(txn)
    txn.put(keys.unfinished_snapshot(snapshot_id), seal(encode(Unfinished(snapshotter, parent))))
    await _count_children(txn, parent, 1)
    return snapshot_id


async def finish(txn: Transaction, namespace: str, snapshot_id: int, backend: BackendSnapshot) -> None:
    """Its folder stands and is durable: this namespace is the first that holds it. Its parent may be another than was
    announced."""
    key = keys.unfinished_snapshot(snapshot_id)
    value = await txn.get(key)
    assert value is not None, f"snapshot {snapshot_id} was not announced"
    announced = _UNFINISHED.decode(open_value(value, key)[1])
    txn.delete(key)
    if announced.parent != backend.parent:
        await _count_children(txn, announced.parent, -1)
        await _count_children(txn, backend.parent, 1)
    _put(txn, snapshot_id, backend)
    await snapshot_held(txn, namespace, snapshot_id, backend.size, alone=True)
    if backend.origin:
        txn.put(keys.unpacked(backend.origin), keys.number(snapshot_id))


async def abandon(txn: Transaction, snapshot_id: int) -> None:
    """What was announced will not be. One that was finished or abandoned already is left alone."""
    key = keys.unfinished_snapshot(snapshot_id)
    value = await txn.get(key)
    if value is None:
        return
    unfinished = _UNFINISHED.decode(open_value(value, key)[1])
    txn.delete(key)
    await _count_children(txn, unfinished.parent, -1)
    await queue_removal(txn, folder_of(unfinished.snapshotter, snapshot_id))


async def page_unfinished(reader: Reader, limit: int) -> list[int]:
    pairs = await reader.scan(keys.UNFINISHED_SNAPSHOTS, keys.prefix_end(keys.UNFINISHED_SNAPSHOTS), limit)
    return [int.from_bytes(key[len(keys.UNFINISHED_SNAPSHOTS) :], "big") for key, _ in pairs]


async def unfinished_parent(reader: Reader, snapshot_id: int) -> int:
    """On which snapshot one that is being made is to stand; 0: none."""
    key = keys.unfinished_snapshot(snapshot_id)
    value = await reader.get(key)
    return 0 if value is None else _UNFINISHED.decode(open_value(value, key)[1]).parent


# held --------------------------------------------------------------------------------------------------------


async def hold(txn: Transaction, namespace: str, snapshot_id: int) -> BackendSnapshot:
    """One more namespace has a record of it."""
    backend = await _get(txn, snapshot_id)
    await snapshot_held(txn, namespace, snapshot_id, backend.size, alone=not backend.holders)
    if not backend.holders:
        txn.delete(keys.unheld_snapshot(snapshot_id))
    held = msgspec.structs.replace(backend, holders=backend.holders + 1)
    _put(txn, snapshot_id, held)
    return held


async def release(txn: Transaction, namespace: str, snapshot_id: int) -> None:
    """One namespace fewer. The last one leaves it for the collector."""
    backend = await find_backend(txn, snapshot_id)
    if backend is None:
        return
    await snapshot_released(txn, namespace, snapshot_id, backend.size, alone=backend.holders <= 1)
    left = msgspec.structs.replace(backend, holders=max(0, backend.holders - 1))
    _put(txn, snapshot_id, left)
    if not left.holders and not left.children:
        txn.put(keys.unheld_snapshot(snapshot_id), b"")


async def rebase(txn: Transaction, namespace: str, snapshot_id: int, parent: int, size: int, inodes: int) -> None:
    """It is committed, on a parent that it may not have been made on. One that was active has one holder."""
    backend = await _get(txn, snapshot_id)
    await snapshot_resized(txn, namespace, size - backend.size)
    if backend.parent != parent:
        await _count_children(txn, parent, 1)
    _put(txn, snapshot_id, msgspec.structs.replace(backend, parent=parent, size=size, inodes=inodes))


async def find_unpacked(reader: Reader, made_of: bytes) -> int:
    """The id of a snapshot that orlop unpacked from just these layers; 0: there is none."""
    value = await reader.get(keys.unpacked(made_of))
    return 0 if value is None else int.from_bytes(value, "big")


async def page_unheld_snapshots(reader: Reader, after: int, limit: int) -> list[int]:
    start = keys.unheld_snapshot(after + 1)
    pairs = await reader.scan(start, keys.prefix_end(keys.UNHELD_SNAPSHOTS), limit)
    return [int.from_bytes(key[len(keys.UNHELD_SNAPSHOTS) :], "big") for key, _ in pairs]


async def forget_unheld_snapshot(txn: Transaction, snapshot_id: int) -> int | None:
    """If still nobody holds it, it is no more, and its folder is queued for removal. Its parent may be next. Returns
    the bytes that frees."""
    txn.delete(keys.unheld_snapshot(snapshot_id))
    backend = await find_backend(txn, snapshot_id)
    if backend is None or backend.holders or backend.children:
        return None
    txn.delete(keys.backend_snapshot(snapshot_id))
    if backend.origin and await find_unpacked(txn, backend.origin) == snapshot_id:
        txn.delete(keys.unpacked(backend.origin))
    await _count_children(txn, backend.parent, -1)
    if backend.own_folder:
        await queue_removal(txn, folder_of(backend.snapshotter, snapshot_id), backend.size)
    return backend.size


async def set_counts(txn: Transaction, snapshot_id: int, holders: int, children: int) -> None:
    """Put right how many hold it and stand on it, after somebody counted."""
    backend = await find_backend(txn, snapshot_id)
    if backend is None:
        return
    _put(txn, snapshot_id, msgspec.structs.replace(backend, holders=holders, children=children))
    if holders or children:
        txn.delete(keys.unheld_snapshot(snapshot_id))
    else:
        txn.put(keys.unheld_snapshot(snapshot_id), b"")
        txn.made_garbage()


# within a namespace: ids, parents and children; all by `snapshotter/key` ---------------------------------------


async def id_of(reader: Reader, namespace: str, name: str) -> int:
    """The id of a snapshot that has a record."""
    value = await reader.get(keys.snapshot_id(namespace, name))
    assert value is not None, f"snapshot {name} is recorded and has no id"
    return int.from_bytes(value, "big")


async def find_id(reader: Reader, namespace: str, name: str) -> int:
    """0: there is none, or not yet."""
    return int.from_bytes(await reader.get(keys.snapshot_id(namespace, name)) or b"", "big")


def set_id(txn: Transaction, namespace: str, name: str, snapshot_id: int) -> None:
    txn.put(keys.snapshot_id(namespace, name), keys.number(snapshot_id))


def drop_id(txn: Transaction, namespace: str, name: str) -> None:
    txn.delete(keys.snapshot_id(namespace, name))


def link_child(txn: Transaction, namespace: str, parent: str, child: str) -> None:
    txn.put(keys.snapshot_children(namespace, parent) + child.encode(), b"")


def unlink_child(txn: Transaction, namespace: str, parent: str, child: str) -> None:
    txn.delete(keys.snapshot_children(namespace, parent) + child.encode())


async def has_children(reader: Reader, namespace: str, parent: str) -> bool:
    return bool(await children(reader, namespace, parent, 1))


async def children(reader: Reader, namespace: str, parent: str, limit: int) -> list[str]:
    prefix = keys.snapshot_children(namespace, parent)
    pairs = await reader.scan(prefix, keys.prefix_end(prefix), limit)
    return [key[len(prefix) :].decode() for key, _ in pairs]


async def _get(txn: Transaction, snapshot_id: int) -> BackendSnapshot:
    backend = await find_backend(txn, snapshot_id)
    assert backend is not None, f"snapshot {snapshot_id} is recorded and has no backend"
    return backend


async def _count_children(txn: Transaction, snapshot_id: int, change: int) -> None:
    if not snapshot_id:
        return
    backend = await _get(txn, snapshot_id)
    left = msgspec.structs.replace(backend, children=backend.children + change)
    _put(txn, snapshot_id, left)
    if not left.holders and not left.children:
        txn.put(keys.unheld_snapshot(snapshot_id), b"")
        txn.made_garbage()


def _put(txn: Transaction, snapshot_id: int, backend: BackendSnapshot) -> None:
    txn.put(keys.backend_snapshot(snapshot_id), seal(encode(backend)))
