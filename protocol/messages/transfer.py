"""Pulls."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from ..records import Descriptor

__all__ = [
    "CopyImage",
    "Credentials",
    "FetchBlobs",
    "ListReferrers",
    "PullImage",
    "PullPolicy",
    "PushImage",
    "PushOptions",
    "Pushed",
    "Referrer",
    "Referrers",
    "RegistryAccess",
    "ResolveReference",
    "TransferProgress",
    "TransferState",
    "UnpackImage",
    "Unpacked",
]


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


class PullPolicy(Enum):
    """When a registry is asked. ALWAYS: every time, and what it says holds. NEWER: every time, but while it is down or
    refuses for now, what is here serves. MISSING: when something is not here. NEVER."""

    ALWAYS = "always"
    NEWER = "newer"
    MISSING = "missing"
    NEVER = "never"


class PullImage(msgspec.Struct, frozen=True):
    """Bring the image `reference` (taken literally) from its registry and record it under that name.

    `platforms` in order of preference, empty: the machine's own. With `all_platforms` everything is brought.
    """

    reference: str
    platforms: list[str] = []
    all_platforms: bool = False
    access: RegistryAccess = RegistryAccess()
    skip_metadata: bool = False
    """Leave out the manifests and configs of platforms that were not asked for."""
    labels: dict[str, str] = {}
    max_concurrent_downloads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    unpack: bool = False
    """Also lay its layers down as snapshots. Those that are there need not be downloaded."""
    snapshotter: str = ""
    """Empty: the store's default one."""
    policy: PullPolicy = PullPolicy.ALWAYS
    referrers: bool = False
    """Also what describes it in its registry: signatures, bills of materials. They live as long as it does."""
    fetch_all: bool = False
    """Download layers also where their snapshots are there, so that the image can be pushed and exported."""


class ResolveReference(msgspec.Struct, frozen=True):
    """What stands in a registry under a name or digest: an image or, where there is none with that digest, a blob."""

    reference: str
    access: RegistryAccess = RegistryAccess()


class FetchBlobs(msgspec.Struct, frozen=True):
    """Bring these objects of a repository (`host/name`), and record no image."""

    repository: str
    blobs: list[Descriptor]
    access: RegistryAccess = RegistryAccess()
    max_concurrent_downloads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class PushOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of an image goes to a registry, and how.

    Without `platforms` all of it; with one, its manifest alone, under the tag; with several, or with `trim`, an index
    of those. `chunk_bytes` 0: blobs in one piece each. `referrers`: also what describes it.
    """

    platforms: list[str] = []
    trim: bool = False
    allow_nondistributable: bool = False
    """Also layers that are not meant to be passed on."""
    referrers: bool = False
    max_concurrent_uploads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    chunk_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class PushImage(PushOptions, frozen=True):
    """Send the image `name` (empty: `reference` itself) to its registry as `reference`. `target`: instead of an image's
    content that of a manifest or index by its digest, which is sent under the tag; or, with a `media_type` that is that
    of neither, a blob alone."""

    reference: str
    name: str = ""
    target: str = ""
    access: RegistryAccess = RegistryAccess()
    media_type: str = ""


class CopyImage(PushOptions, frozen=True):
    """From one registry to another, through the store but not into it."""

    source: str
    target: str
    source_access: RegistryAccess = RegistryAccess()
    target_access: RegistryAccess = RegistryAccess()


class Pushed(msgspec.Struct, frozen=True):
    """What stands in the registry now, and the bytes that had to be sent for it."""

    reference: str
    target: Descriptor
    sent: int = 0


class ListReferrers(msgspec.Struct, frozen=True):
    """What in the registry of `reference` describes it."""

    reference: str
    artifact_type: str = ""
    access: RegistryAccess = RegistryAccess()


class Referrer(msgspec.Struct, frozen=True):
    artifact_type: str
    descriptor: Descriptor


class Referrers(msgspec.Struct, frozen=True):
    target: Descriptor
    items: list[Referrer] = []


class UnpackImage(msgspec.Struct, frozen=True):
    """Lay the layers of an image that is in the store down as snapshots, named by their chain IDs.

    `platform`: which of an index, empty: the machine's own. `target`: content of an image `name` that is not recorded
    yet.
    """

    name: str
    platform: str = ""
    snapshotter: str = ""
    target: Descriptor | None = None


class Unpacked(msgspec.Struct, frozen=True):
    """`chain_id` names the top snapshot; empty for an image without layers."""

    chain_id: str
    snapshotter: str


class TransferState(Enum):
    RESOLVING = "resolving"
    RESOLVED = "resolved"
    VERIFYING = "verifying"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    UPLOADING = "uploading"
    IMPORTING = "importing"
    EXPORTING = "exporting"
    CONVERTING = "converting"
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
