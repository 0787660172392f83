"""What each resource does, in plain dicts. Written from the specification; shares no rule with orlop, only its records.

A method answers what the store must answer: the record, None, or the name of the error's class; a set of names
where the order of checks is not specified. A time of NOW in a record is one that the store sets; who compares
learns it, and hands it back with `learn`. A model changes only when it does not refuse.

Source: spec metadata 1 to 5, 8 to 13, 18, with its suggestions taken; docs/differences.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from msgspec.structs import replace

import orlop

__all__ = [
    "BLOCKED",
    "DIGESTS",
    "EXPIRE",
    "INVALID",
    "MISSING",
    "NOW",
    "RENEWED",
    "TAKEN",
    "ContainerModel",
    "ContentModel",
    "ImageModel",
    "LeaseModel",
    "NamespaceModel",
    "Place",
    "Records",
    "SandboxModel",
]

R = TypeVar("R")
V = TypeVar("V")
Labels = dict[str, str]
Mask = Sequence[str] | None
Place = tuple[str, str]
"""A namespace and a name in it."""

INVALID: Final = "InvalidArgument"
MISSING: Final = "NotFound"
TAKEN: Final = "AlreadyExists"
BLOCKED: Final = "FailedPrecondition"
UNKNOWN_TYPE: Final = "NotImplemented"

EXPIRE = "containerd.io/gc.expire"
NOW: Final = -1
RENEWED: Final = "renewed"
"""Stands for the expiry that the store computes from a lifetime."""

DIGESTS = ("sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha512:" + "c" * 128)


# rules that several resources share -------------------------------------------------------------------------


def is_identifier(text: str) -> bool:
    return len(text.encode()) <= 76 and bool(re.fullmatch(r"[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*", text))


def is_name(text: str) -> bool:
    return 0 < len(text.encode()) <= 512


def is_digest(text: str) -> bool:
    lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == lengths.get(algorithm) and bool(re.fullmatch("[a-f0-9]+", encoded))


def sound(labels: Mapping[str, str]) -> bool:
    return all((key or not value) and len((key + value).encode()) <= 4096 for key, value in labels.items())


def kept(labels: Mapping[str, str]) -> Labels:
    return {key: value for key, value in labels.items() if value}


def accepted(mask: Mask, whole: Sequence[str], maps: Sequence[str]) -> bool:
    """Spec metadata 8.2: `whole` paths as they are, those of `maps` also with a key."""
    return all(path in whole or path in maps or is_key_of(path, maps) for path in mask or ())


def is_key_of(path: str, maps: Sequence[str]) -> bool:
    head, dot, _ = path.partition(".")
    return head in maps and bool(dot)


def names(mask: Mask, field: str) -> bool:
    """No mask names every field."""
    return not mask or field in mask


def merged(current: Mapping[str, V], given: Mapping[str, V], mask: Mask, field: str) -> dict[str, V]:
    """Spec metadata 8.1, rules 2 to 4."""
    if names(mask, field):
        return dict(given)
    result = dict(current)
    for path in mask or ():
        head, _, key = path.partition(".")
        if head == field:
            result.pop(key, None)
            if key in given:
                result[key] = given[key]
    return result


class Records(Generic[R]):
    """Resources with one record a name, in several namespaces."""

    def __init__(self) -> None:
        self.records: dict[Place, R] = {}

    def learn(self, at: Place, record: R) -> None:
        """The record as the store answered it, its times included."""
        self.records[at] = record

    def get(self, at: Place) -> Any:
        return self.records.get(at, MISSING)

    def delete(self, at: Place) -> Any:
        return MISSING if self.records.pop(at, None) is None else None

    def list(self, space: str) -> list[R]:
        return [self.records[at] for at in sorted(self.records) if at[0] == space]

    def put(self, at: Place, record: R) -> R:
        self.records[at] = record
        return record


# namespaces -------------------------------------------------------------------------------------------------


class NamespaceModel:
    """Namespaces, and what brings them into being and keeps them from being deleted."""

    BLOCKING = ("images", "blobs", "containers")

    def __init__(self) -> None:
        self.labels: dict[str, Labels] = {}
        self.inside: dict[str, set[str]] = {}

    def create(self, name: str, labels: Labels) -> Any:
        if not is_identifier(name) or not sound(labels):
            return INVALID
        if name in self.labels:
            return TAKEN
        self.labels[name] = kept(labels)
        self.inside[name] = set()
        return orlop.Namespace(name, labels)  # verbatim: spec metadata 9.4

    def update(self, name: str, labels: Labels, mask: Mask) -> Any:
        fits = all(is_key_of(path, ["labels"]) and path != "labels." for path in mask or ())
        if name not in self.labels:
            return MISSING if fits else {MISSING, INVALID}
        after = merged(self.labels[name], labels, mask, "labels")
        if not fits or not sound(after):
            return INVALID
        self.labels[name] = kept(after)
        return self.get(name)

    def get(self, name: str) -> Any:
        return orlop.Namespace(name, self.labels[name]) if name in self.labels else MISSING

    def list(self) -> list[orlop.Namespace]:
        return [orlop.Namespace(name, self.labels[name]) for name in sorted(self.labels)]

    def blocking(self, name: str) -> list[str]:
        """The kinds that keep it from being deleted, in the order in which they are told."""
        return [kind for kind in self.BLOCKING if kind in self.inside.get(name, ())]

    def delete(self, name: str) -> Any:
        if self.blocking(name):
            return BLOCKED
        if name not in self.labels:
            return MISSING
        del self.labels[name], self.inside[name]
        return None

    def write_inside(self, name: str, kind: str) -> Any:
        if kind in self.inside.get(name, ()):
            return TAKEN
        self.labels.setdefault(name, {})
        self.inside.setdefault(name, set()).add(kind)
        return None

    def delete_inside(self, name: str, kind: str) -> Any:
        if kind not in self.inside.get(name, ()):
            return MISSING
        self.inside[name].remove(kind)
        return None


# images -----------------------------------------------------------------------------------------------------


def is_target(target: orlop.Descriptor) -> bool:
    return bool(target.media_type) and is_digest(target.digest) and target.size > 0


class ImageModel(Records[orlop.Image]):
    """Images, and how they join the lease of a request: spec metadata 12.6."""

    def __init__(self, *leases: Place) -> None:
        super().__init__()
        self.held: dict[Place, set[str]] = {lease: set() for lease in leases}

    def create(self, at: Place, target: orlop.Descriptor, labels: Labels, epoch: int | None, lease: str | None) -> Any:
        time = NOW if epoch is None else epoch
        image = orlop.Image(at[1], target, labels, time, time)
        if not self.fits(image):
            return INVALID
        if self.lacks_its_lease(image, at[0], lease):
            return MISSING  # even if the name is taken: spec metadata 18, row 36
        return TAKEN if at in self.records else self.stored(at, image, lease)

    def update(
        self,
        at: Place,
        target: orlop.Descriptor | None,
        labels: Labels,
        mask: Mask,
        epoch: int | None = None,
        lease: str | None = None,
    ) -> Any:
        before = self.records.get(at)
        if before is None:
            return MISSING if at[1] else INVALID
        if not accepted(mask, ["target"], ["labels", "annotations"]) or (target is None and names(mask, "target")):
            return INVALID
        aim = target if target and names(mask, "target") else before.target
        if not names(mask, "target"):
            given = target.annotations if target else {}
            aim = replace(aim, annotations=merged(aim.annotations, given, mask, "annotations"))
        after = merged(before.labels, labels, mask, "labels")
        if f"labels.{EXPIRE}" in (mask or ()):
            after.setdefault(EXPIRE, "")  # a key that the body lacks is an empty value, which counts: 8.1, rule 3
        image = orlop.Image(at[1], aim, after, before.created_at, NOW if epoch is None else epoch)
        if not self.fits(image):
            return INVALID
        return MISSING if self.lacks_its_lease(image, at[0], lease) else self.stored(at, image, lease)

    def delete_target(self, at: Place, digest: str, lease: str | None) -> Any:
        """Delete, if it is this digest: spec metadata 11.6."""
        before = self.records.get(at)
        if before is None or (digest and digest != before.target.digest):
            return MISSING
        self.held.get((at[0], lease or ""), set()).discard(at[1])
        return self.delete(at)

    def fits(self, image: orlop.Image) -> bool:
        return is_name(image.name) and sound(image.labels) and is_target(image.target)

    def lacks_its_lease(self, image: orlop.Image, space: str, lease: str | None) -> bool:
        """The labels as given decide; an empty value counts."""
        return lease is not None and EXPIRE in image.labels and (space, lease) not in self.held

    def stored(self, at: Place, image: orlop.Image, lease: str | None) -> orlop.Image:
        if lease is not None and EXPIRE in image.labels:
            self.held[at[0], lease].add(at[1])
        target = replace(image.target, annotations=kept(image.target.annotations))
        return self.put(at, replace(image, target=target, labels=kept(image.labels)))


# containers and sandboxes -----------------------------------------------------------------------------------


class ContainerModel(Records[orlop.Container]):
    def fits(self, record: orlop.Container) -> bool:
        """Spec metadata 10.2."""
        return (
            is_identifier(record.id)
            and "" not in record.extensions
            and sound(record.labels)
            and bool(record.runtime.name)
            and record.spec is not None
            and bool(record.snapshotter or not record.snapshot_key)
        )

    def create(self, space: str, given: orlop.Container) -> Any:
        if not self.fits(given):
            return INVALID
        at = space, given.id
        record = replace(given, labels=kept(given.labels), created_at=NOW, updated_at=NOW)
        return TAKEN if at in self.records else self.put(at, record)

    def update(self, space: str, given: orlop.Container, mask: Mask) -> Any:
        at = space, given.id
        if not given.id or not space:
            return BLOCKED if given.id else INVALID  # the id before the namespace: spec metadata 10.5
        before = self.records.get(at)
        if before is None:
            return MISSING
        if not mask and (given.snapshotter, given.runtime.name) != (before.snapshotter, before.runtime.name):
            return INVALID
        if not accepted(mask, ["spec", "image", "snapshotkey"], ["labels", "extensions"]):
            return INVALID
        after = replace(
            before,
            labels=merged(before.labels, given.labels, mask, "labels"),
            extensions=merged(before.extensions, given.extensions, mask, "extensions"),
            spec=given.spec if names(mask, "spec") else before.spec,
            image=given.image if names(mask, "image") else before.image,
            snapshot_key=given.snapshot_key if names(mask, "snapshotkey") else before.snapshot_key,
            updated_at=NOW,
        )
        if not self.fits(after) or "extensions." in (mask or ()):
            return INVALID
        return self.put(at, replace(after, labels=kept(after.labels)))


class SandboxModel(Records[orlop.Sandbox]):
    def create(self, space: str, given: orlop.Sandbox) -> Any:
        if not is_identifier(given.sandbox_id) or not sound(given.labels):
            return INVALID
        at = space, given.sandbox_id
        record = replace(given, labels=kept(given.labels), created_at=NOW, updated_at=NOW)
        return TAKEN if at in self.records else self.put(at, record)

    def update(self, space: str, given: orlop.Sandbox, mask: Mask) -> Any:
        at = space, given.sandbox_id
        before = self.records.get(at)
        if before is None:
            return MISSING  # also for an empty id: spec metadata 18, row 65
        if not mask and given.runtime.name != before.runtime.name:
            return INVALID
        if not accepted(mask, ["spec", "runtime"], ["labels", "extensions"]) or "extensions." in (mask or ()):
            return INVALID
        after = replace(
            before,
            labels=merged(before.labels, given.labels, mask, "labels"),
            extensions=merged(before.extensions, given.extensions, mask, "extensions"),
            spec=given.spec if names(mask, "spec") else before.spec,
            runtime=given.runtime if names(mask, "runtime") else before.runtime,
            updated_at=NOW,
        )
        return self.put(at, replace(after, labels=kept(after.labels))) if sound(after.labels) else INVALID


# leases -----------------------------------------------------------------------------------------------------


def entry_fault(entry: orlop.LeaseResource) -> str | None:
    """Spec metadata 12.5."""
    group, slash, rest = entry.type.partition("/")
    if group not in ("content", "images", "ingests", "snapshots"):
        return UNKNOWN_TYPE
    shape = bool(rest) and "/" not in rest if group == "snapshots" else not slash
    return None if shape and (is_digest(entry.id) if group == "content" else is_name(entry.id)) else INVALID


class LeaseModel(Records[orlop.Lease]):
    """Labels are judged as they would be stored: an expiry that a lifetime replaces may be anything."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[Place, set[tuple[str, str]]] = {}

    def create(self, at: Place, labels: Labels, seconds: int | None) -> Any:
        after = self.with_lifetime(labels, seconds)
        if not is_name(at[1]) or not self.is_lifetime(seconds) or not sound(after):
            return INVALID
        if at in self.records:
            return TAKEN
        self.entries[at] = set()
        return self.put(at, orlop.Lease(at[1], NOW, kept(after)))

    def update(self, at: Place, labels: Labels, mask: Mask, seconds: int | None) -> Any:
        before = self.records.get(at)
        if not self.is_lifetime(seconds):
            return INVALID
        if before is None:
            return MISSING
        only_renewed = seconds is not None and not labels and not mask
        after = before.labels if only_renewed else merged(before.labels, labels, mask, "labels")
        after = self.with_lifetime(after, seconds)
        if not accepted(mask, [], ["labels"]) or not sound(after):
            return INVALID
        return self.put(at, replace(before, labels=kept(after)))

    def is_lifetime(self, seconds: int | None) -> bool:
        return seconds is None or seconds >= 1

    def with_lifetime(self, labels: Labels, seconds: int | None) -> Labels:
        return labels if seconds is None else {**labels, EXPIRE: RENEWED}

    def delete(self, at: Place) -> Any:
        self.entries.pop(at, None)
        return super().delete(at)

    def add(self, at: Place, entry: orlop.LeaseResource) -> Any:
        if at not in self.records:
            return MISSING  # before the entry is looked at: spec metadata 12.5
        if fault := entry_fault(entry):
            return fault
        self.entries[at].add((entry.type, entry.id))
        return None

    def remove(self, at: Place, entry: orlop.LeaseResource) -> Any:
        if at not in self.records:
            return MISSING
        if fault := entry_fault(entry):
            return fault
        self.entries[at].discard((entry.type, entry.id))
        return None

    def resources(self, at: Place) -> list[orlop.LeaseResource]:
        return [orlop.LeaseResource(id_, type_) for type_, id_ in sorted(self.entries[at])]


# content ----------------------------------------------------------------------------------------------------


class ContentModel(Records[orlop.ContentInfo]):
    """What namespaces know of blobs; the bytes are the machine's."""

    def put_blob(self, at: Place, size: int, labels: Labels, expected: str) -> Any:
        refused = {
            INVALID: bool(expected and not is_digest(expected)) or not sound(labels),
            BLOCKED: is_digest(expected) and expected != at[1],
            TAKEN: at in self.records,
        }
        return {kind for kind, so in refused.items() if so} or self.put(
            at, orlop.ContentInfo(at[1], size, kept(labels), NOW, NOW)
        )

    def update(self, at: Place, labels: Labels, mask: Mask) -> Any:
        before = self.records.get(at)
        if before is None:
            return MISSING
        after = merged(before.labels, labels, mask, "labels")
        if not accepted(mask, [], ["labels"]) or not sound(after):
            return INVALID
        return self.put(at, replace(before, labels=kept(after), updated_at=NOW))
