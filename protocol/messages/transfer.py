"""Pulls."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

__all__ = ["Credentials", "PullImage", "TransferProgress", "TransferState", "RegistryAccess", "UnpackImage", "Unpacked"]


class Credentials(msgspec.Struct, frozen=True):
    """`user` empty and a `secret`: an identity token."""

    user: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, secret=…)"


class RegistryAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How a registry is spoken to. Files and folders are named by absolute paths on the store's machine.

    `hosts_dir`: a folder of `hosts.toml` folders instead of the store's own. `ca`: a PEM file of authorities beside the
    system's. `client_cert`, `client_key`: what we show; the key may stand in the certificate's file.
    """

    plain_http: bool = False
    skip_verify: bool = False
    credentials: Credentials | None = None
    hosts_dir: str = ""
    ca: str = ""
    client_cert: str = ""
    client_key: str = ""


class PullImage(RegistryAccess, frozen=True):
    """Bring the image `reference` (taken literally) from its registry and record it under that name.

    `platforms` in order of preference, empty: the machine's own. With `all_platforms` everything is brought.
    """

    reference: str
    platforms: list[str] = []
    all_platforms: bool = False
    skip_metadata: bool = False
    """Leave out the manifests and configs of platforms that were not asked for."""
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


class TransferState(Enum):
    RESOLVING = "resolving"
    RESOLVED = "resolved"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    UPLOADING = "uploading"
    MOUNTED = "mounted"
    EXISTS = "already exists"
    COMPLETE = "complete"
    UNPACKING = "unpacking"
    UNPACKED = "unpacked"
    SAVED = "saved"
    PUSHED = "pushed"
    NOTE = "note"


class TransferProgress(msgspec.Struct, frozen=True):
    """How one object of a pull, push or copy stands. `transferred` counts bytes that went over the network.

    While it is unpacked, `offset` counts what came out of it, and `total` is 0: how much that will be nobody says.
    """

    name: str
    state: TransferState
    digest: str = ""
    kind: str = ""
    offset: int = 0
    total: int = 0
    transferred: int = 0
    note: str = ""
    """What a person should know of it, say that owners could not be kept."""
    rate: int = 0
    """Bytes per second, of late."""
    stalled_s: float = 0.0
    """For how long nothing has come."""
    source: str = ""
    """The host that it comes from or goes to."""
