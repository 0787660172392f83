"""Collections: to run one, to ask what one would free and why something stays, to bring back what is condemned."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

__all__ = [
    "BinRound",
    "BytesHeld",
    "Check",
    "Checked",
    "Collect",
    "Collection",
    "CollectorStatus",
    "DiskUsage",
    "Explain",
    "Explained",
    "Explanation",
    "Finding",
    "Fixed",
    "GetCollector",
    "GetDiskUsage",
    "Kept",
    "PlanCollection",
    "Planned",
    "PlannedCollection",
    "Problem",
    "Reason",
    "Undelete",
    "Undeleted",
]


class Collect(msgspec.Struct, frozen=True):
    """Run a collection that begins now, and wait for it. `full`: afterwards compare everything with the full mark, and
    look again at whatever differs. `empty_bin`: what waits in the bin goes as well."""

    full: bool = False
    empty_bin: bool = False


class Collection(msgspec.Struct, frozen=True):
    """What a collection removed, counted over all namespaces; `freed` in bytes on disk, also of ingests and snapshots
    that others gave up meanwhile. `differed`: objects on which a full mark did not agree, each a defect."""

    leases: int = 0
    images: int = 0
    ingests: int = 0
    content: int = 0
    snapshots: int = 0
    blobs: int = 0
    freed: int = 0
    duration_ms: int = 0
    differed: int = 0


class GetCollector(msgspec.Struct, frozen=True):
    pass


class BinRound(msgspec.Struct, frozen=True):
    """Objects that were found dead together: when, and when they go. Nanoseconds."""

    condemned_at: int
    due_at: int


class CollectorStatus(msgspec.Struct, frozen=True):
    """`runs`: collections since the start, and in `removed` what they removed together. `worked_ns`: how long their
    slices took together, `longest_ns`: the longest of them. `suspects`, `owed`: whether there is something to look at.
    `sweeping`: whether dead objects are being swept. `removals`: files and folders that wait to be removed. `next_at`:
    when something expires or is due, if ever."""

    collecting: bool
    runs: int
    failures: int
    removed: Collection
    worked_ns: int
    longest_ns: int
    suspects: bool
    owed: bool
    sweeping: bool
    removals: int
    grace_s: float
    bin: list[BinRound]
    next_at: int | None


class PlanCollection(msgspec.Struct, frozen=True):
    """What a collection would remove now, if these images of the namespace were deleted before."""

    without: Annotated[list[str], msgspec.Meta(max_length=1000)] = []


class Planned(msgspec.Struct, frozen=True):
    """One object that would go; `size`: its bytes, which others may hold as well."""

    namespace: str
    kind: str
    name: str
    size: int


class PlannedCollection(msgspec.Struct, frozen=True):
    """`freed`: exactly the bytes of blobs and committed snapshots that nobody would hold any more, as their commits
    counted them, and what ingests and active snapshots that would go have on disk now."""

    objects: int
    blobs: int
    freed: int


class Explain(msgspec.Struct, frozen=True):
    """Why something is kept: a digest, an image's name, or a snapshot as `snapshotter/key`. In the namespace of the
    call, or in all. `limit`: no more paths than that for each object."""

    name: str
    all_namespaces: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class Reason(msgspec.Struct, frozen=True):
    """One step of a path: an object, and how it keeps the next one. Of the last one `how` is empty."""

    kind: str
    name: str
    how: str = ""


class Kept(Enum):
    ALIVE = "alive"
    SUSPECT = "in question"
    """The collector has yet to find out."""
    CONDEMNED = "condemned"


class Explanation(msgspec.Struct, frozen=True):
    """`paths`: each begins with a root. `more`: there are more. Of a condemned object: since when, when it goes (None:
    with the next collection), and what kept it last."""

    namespace: str
    kind: str
    name: str
    state: Kept
    paths: list[list[Reason]] = []
    more: bool = False
    since: int = 0
    due_at: int | None = None
    lost: Reason | None = None


class Explained(msgspec.Struct, frozen=True):
    items: list[Explanation]


class Undelete(msgspec.Struct, frozen=True):
    """Bring back what is condemned or was deleted and waits in the bin: a digest, an image's name, or a snapshot as
    `snapshotter/key`."""

    name: str


class Undeleted(msgspec.Struct, frozen=True):
    """`kind` and `name`, and what keeps it from now on."""

    kind: str
    name: str
    kept_by: str


class GetDiskUsage(msgspec.Struct, frozen=True):
    pass


class BytesHeld(msgspec.Struct, frozen=True):
    """Bytes of blobs (`packed`) and of snapshots (`unpacked`); how much of both nobody else holds (`exclusive`) or
    others hold as well (`shared`); and how much of both the collector has found dead (`reclaimable`)."""

    packed: int
    unpacked: int
    exclusive: int
    shared: int
    reclaimable: int


class DiskUsage(msgspec.Struct, frozen=True):
    """By namespace, and of the store, where each byte counts once. `removals`: files and folders that wait to be
    removed."""

    namespaces: dict[str, BytesHeld]
    total: BytesHeld
    removals: int


class Problem(Enum):
    """What a check can find."""

    RECORD = "a record cannot be read"
    REFERENCE = "a reference is missing or stray"
    STATE = "what the collector knows is wrong"
    MARK = "the full mark does not agree with the collector"
    HOLDERS = "who holds it is recorded wrongly"
    BYTES = "bytes are missing"
    SIZE = "bytes have another size than recorded"
    SNAPSHOT = "a snapshot's record does not fit the others"
    FOLDER = "a snapshot's folder is missing"
    ORPHAN = "a file or folder belongs to nothing"
    MOUNT = "a mount shows a snapshot that is no more"
    USAGE = "bytes are counted wrongly"


class Check(msgspec.Struct, frozen=True):
    """Compare records, references, files, snapshots and mounts. `repair`: mend what has one safe answer, set aside the
    rest."""

    repair: bool = False


class Fixed(Enum):
    NO = "no"
    MENDED = "mended"
    QUARANTINED = "set aside"


class Finding(msgspec.Struct, frozen=True):
    problem: Problem
    namespace: str
    kind: str
    name: str
    detail: str = ""
    fixed: Fixed = Fixed.NO


class Checked(msgspec.Struct, frozen=True):
    """What was looked at, and how much of it was wrong. `compared`: whether the collector was at rest, so that its
    answer could be compared with the full mark."""

    records: int
    references: int
    blobs: int
    snapshots: int
    files: int
    mounts: int
    findings: int
    fixed: int
    compared: bool
