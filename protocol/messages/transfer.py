"""Pulls."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

__all__ = ["Credentials", "PullImage", "PullProgress", "PullState", "UnpackImage", "Unpacked"]


class Credentials(msgspec.Struct, frozen=True):
    """`user` empty and a `secret`: an identity token."""

    user: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, secret=…)"


class PullImage(msgspec.Struct, frozen=True):
    """Bring the image `reference` (taken literally) from its registry and record it under that name.

    `platforms` in order of preference, empty: the machine's own. With `all_platforms` everything is brought.
    """

    reference: str
    platforms: list[str] = []
    all_platforms: bool = False
    skip_metadata: bool = False
    """Leave out the manifests and configs of platforms that were not asked for."""
    plain_http: bool = False
    skip_verify: bool = False
    credentials: Credentials | None = None
    labels: dict[str, str] = {}
    max_concurrent_downloads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    unpack: bool = False
    """Also lay its layers down as snapshots. Those that are there need not be downloaded."""
    snapshotter: str = ""
    """Empty: the store's default one."""
    fetch_all: bool = False
    """Download layers also where their snapshots are there, so that the image can be pushed and exported."""


class UnpackImage(msgspec.Struct, frozen=True):
    """Lay the layers of an image that is in the store down as snapshots, named by their chain IDs.

    `platform`: which of an index, empty: the machine's own.
    """

    name: str
    platform: str = ""
    snapshotter: str = ""


class Unpacked(msgspec.Struct, frozen=True):
    """`chain_id` names the top snapshot; empty for an image without layers."""

    chain_id: str
    snapshotter: str


class PullState(Enum):
    RESOLVING = "resolving"
    RESOLVED = "resolved"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    EXISTS = "already exists"
    COMPLETE = "complete"
    UNPACKING = "unpacking"
    UNPACKED = "unpacked"
    SAVED = "saved"


class PullProgress(msgspec.Struct, frozen=True):
    """How one object of a pull stands. `transferred` counts bytes that came over the network.

    While it is unpacked, `offset` counts what came out of it, and `total` is 0: how much that will be nobody says.
    """

    name: str
    state: PullState
    digest: str = ""
    kind: str = ""
    offset: int = 0
    total: int = 0
    transferred: int = 0
    note: str = ""
    """What a person should know of it, say that owners could not be kept."""
