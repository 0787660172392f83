"""What worker processes are asked, and what they answer: one message each way at a time, over a socket of their own.

Folders are named relative to an open one that comes with the message, the snapshotter's root.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ...protocol.errors import WireError
from .apply import Applied, TargetKind
from .limits import LayerLimits

__all__ = [
    "Advanced",
    "ApplyLayer",
    "CopyTree",
    "Difference",
    "Done",
    "Failed",
    "Job",
    "LowerReady",
    "Measure",
    "NeedsLower",
    "Output",
    "Packed",
    "RemoveTrees",
    "Removed",
    "Report",
    "Unpacked",
    "decode_job",
    "decode_report",
    "encode",
]

encode = msgspec.msgpack.Encoder().encode


class ApplyLayer(msgspec.Struct, frozen=True, tag="apply"):
    """Lay a layer onto the folder `target`. Its bytes are `data`, or the file that comes as the second descriptor.

    `lower`: folders of the layers below, nearest first. `lower_ready`: they are complete; else the worker says when it
    needs them, and waits. `only`: of the layer no more than what lies right inside these folders; none named, all.
    """

    target: str
    media_type: str
    kind: TargetKind
    limits: LayerLimits
    data: bytes | None = None
    lower: list[str] = []
    lower_ready: bool = True
    only: list[str] = []


class CopyTree(msgspec.Struct, frozen=True, tag="copy"):
    """Fill the empty folder `target` with everything that is in `source`."""

    source: str
    target: str
    own: bool = True


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Count what a folder takes."""

    folder: str


class RemoveTrees(msgspec.Struct, frozen=True, tag="remove"):
    """Remove folders with all that is in them. One that is gone already is fine."""

    folders: list[str]


class Difference(msgspec.Struct, frozen=True, tag="diff"):
    """Write the layer that makes `lower` into `upper` (folders, nearest first; none: the empty tree)."""

    upper: list[str]
    lower: list[str]
    compression: str
    """`gzip`, `zstd` or empty."""
    userxattr: bool = False
    source_date_epoch_s: int | None = None


Job = ApplyLayer | CopyTree | Measure | RemoveTrees | Difference


class LowerReady(msgspec.Struct, frozen=True, tag="lower"):
    """To the worker: the layers below are complete."""


class NeedsLower(msgspec.Struct, frozen=True, tag="wants"):
    """From the worker: it goes on when the layers below are complete."""


class Advanced(msgspec.Struct, frozen=True, tag="advanced"):
    """Uncompressed bytes read so far."""

    bytes: int


class Output(msgspec.Struct, frozen=True, tag="output"):
    """The next bytes of a layer that is being written."""

    data: bytes


class Unpacked(msgspec.Struct, frozen=True, tag="unpacked"):
    """`digest` and `size` of the uncompressed layer, every byte of it."""

    digest: str
    size: int
    applied: Applied


class Packed(msgspec.Struct, frozen=True, tag="packed"):
    """`digest` of the uncompressed layer, and of the bytes that were put out."""

    digest: str
    stored: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """`size` in bytes that are allocated, and inodes, where something was to be counted."""

    size: int = 0
    inodes: int = 0


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    """`left`: folders that could not be removed, and why."""

    left: dict[str, str] = {}


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    error: WireError


Report = NeedsLower | Advanced | Output | Unpacked | Packed | Done | Removed | Failed

decode_job: Callable[[bytes], Job] = msgspec.msgpack.Decoder(Job).decode
decode_report: Callable[[bytes], Report] = msgspec.msgpack.Decoder(Report).decode
