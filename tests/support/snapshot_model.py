"""What snapshots do, in plain dicts: of two snapshotters in two namespaces, with leases and the collector.

Written from the specification, as tests/support/models.py is; a method answers what the store must answer.
A space is a namespace and a snapshotter, "ns1/native". Source: spec snapshots 1 to 3, 6; spec gc 3 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

import orlop

from .models import (
    BLOCKED,
    INVALID,
    MISSING,
    NOW,
    TAKEN,
    Labels,
    Mask,
    Place,
    Records,
    accepted,
    is_name,
    kept,
    merged,
    sound,
)

__all__ = ["GC_REF", "GC_ROOT", "REF", "Snapshot", "SnapshotModel", "told"]

REF: Final = "containerd.io/snapshot.ref"
GC_ROOT: Final = "containerd.io/gc.root"
GC_REF: Final = "containerd.io/gc.ref.snapshot."
UNSUPPORTED: Final = "NotImplemented"


class Snapshot(msgspec.Struct, frozen=True):
    """What of an info the model knows."""

    name: str
    kind: str
    parent: str
    labels: Labels
    created_at: int = NOW
    updated_at: int = NOW


def told(info: orlop.SnapshotInfo) -> Snapshot:
    return Snapshot(info.name, info.kind.name, info.parent, dict(info.labels), info.created_at, info.updated_at)


class SnapshotModel(Records[Snapshot]):
    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, set[Place]] = {}
        """By namespace: what its only lease names, whether it is there or not."""

    def hold(self, at: Place, leased: bool) -> None:
        if leased:
            self.held.setdefault(namespace_of(at), set()).add(at)

    def release(self, at: Place) -> None:
        self.held.get(namespace_of(at), set()).discard(at)

    def refused(self, at: Place, leased: bool) -> str:
        """It is there: whoever asked may rely on it from now on."""
        self.hold(at, leased)
        return TAKEN

    # operations ---------------------------------------------------------------------------------------------

    def create(self, kind: str, at: Place, parent: str, labels: Labels, leased: bool) -> Any:
        if not is_name(at[1]) or not sound(labels):
            return INVALID
        target = at[0], labels.get(REF, "")
        if target in self.records:
            return self.refused(target, leased)
        if at in self.records:
            return self.refused(at, leased)
        if parent:
            upon = self.records.get((at[0], parent))
            if upon is None:
                return MISSING if is_name(parent) else {MISSING, INVALID}
            if upon.kind != "COMMITTED":
                return INVALID
        self.hold(at, leased)
        return self.put(at, Snapshot(at[1], kind, parent, kept(labels)))

    def commit(self, at: Place, key: str, labels: Labels, parent: str, leased: bool) -> Any:
        if not is_name(at[1]) or not sound(labels):
            return INVALID
        if at in self.records:
            return self.refused(at, leased)
        active = self.records.get((at[0], key))
        if active is None:
            return MISSING if is_name(key) else {MISSING, INVALID}
        if active.kind != "ACTIVE":
            return BLOCKED
        if fault := self.rebase_fault(at[0], active, parent):
            return fault
        del self.records[at[0], key]
        self.hold(at, leased)
        self.release((at[0], key))
        return self.put(at, Snapshot(at[1], "COMMITTED", active.parent or parent, kept(labels)))

    def rebase_fault(self, space: str, active: Snapshot, parent: str) -> Any:
        if not parent:
            return None
        if not space.endswith("/overlayfs"):
            return {BLOCKED, UNSUPPORTED, INVALID, MISSING}
        if active.parent == parent:
            return None
        upon = self.records.get((space, parent))
        refused = {
            INVALID: bool(active.parent) or not is_name(parent),
            MISSING: upon is None,
            BLOCKED: upon is not None and upon.kind != "COMMITTED",
        }
        return {kind for kind, so in refused.items() if so} or None

    def mounts(self, at: Place) -> Any:
        found = self.records.get(at)
        if found is None:
            return MISSING if is_name(at[1]) else {MISSING, INVALID}
        return BLOCKED if found.kind == "COMMITTED" else None

    def get(self, at: Place) -> Any:
        return self.records.get(at, MISSING if is_name(at[1]) else {MISSING, INVALID})

    def update(self, at: Place, labels: Labels, mask: Mask) -> Any:
        before = self.records.get(at)
        sound_mask = accepted(mask, [], ["labels"])
        if before is None:
            return {MISSING, INVALID} if not is_name(at[1]) or not sound_mask or not sound(labels) else MISSING
        after = merged(before.labels, labels, mask, "labels")
        if not sound_mask or not sound(after):
            return INVALID
        return self.put(at, replace(before, labels=kept(after), updated_at=NOW))

    def remove(self, at: Place) -> Any:
        if at not in self.records:
            return MISSING if is_name(at[1]) else {MISSING, INVALID}
        if any(at == (space, record.parent) for (space, _), record in self.records.items()):
            return BLOCKED
        del self.records[at]
        self.release(at)
        return None

    # collection ---------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """What nothing keeps is gone."""
        left = [at for at, record in self.records.items() if any(label.startswith(GC_ROOT) for label in record.labels)]
        left += [at for held in self.held.values() for at in held]
        alive: set[Place] = set()
        while left:
            at = left.pop()
            if at in alive or at not in self.records:
                continue
            alive.add(at)
            left.append((at[0], self.records[at].parent))
            left += references(at, self.records[at].labels)
        self.records = {at: record for at, record in self.records.items() if at in alive}


def namespace_of(at: Place) -> str:
    return at[0].partition("/")[0]


def references(at: Place, labels: Mapping[str, str]) -> list[Place]:
    return [
        (f"{namespace_of(at)}/{label.removeprefix(GC_REF).partition('/')[0]}", value)
        for label, value in labels.items()
        if label.startswith(GC_REF)
    ]
