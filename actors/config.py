"""What a store can be told. Read from a TOML file by the programs, or given by who embeds it.

Every setting says in its description what it means; `orlop config default` and docs/operations.md are made of these.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "CollectorConfig",
    "JournalConfig",
    "MetricsConfig",
    "RegistryConfig",
    "SnapshotConfig",
    "StoreConfig",
    "TransferConfig",
    "UnpackConfig",
    "VerifierConfig",
]


class JournalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The journal of events."""

    events: Annotated[int, Meta(ge=1000, description="How many events are kept, the newest.")] = 1_000_000
    age_s: Annotated[float, Meta(gt=0, description="For how many seconds they are kept.")] = 7 * 24 * 3600.0


class TransferConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pulls and pushes."""

    stall_s: Annotated[
        float, Meta(gt=0, description="A registry that sends nothing for so many seconds is asked again.")
    ] = 30.0
    ranges: Annotated[
        int, Meta(ge=1, le=16, description="Parts of a large blob that are fetched at once; 1: never in parts.")
    ] = 4
    range_bytes: Annotated[
        int, Meta(ge=64 * 1024, description="The size of a part. Only blobs larger than two are fetched so.")
    ] = 4 * 1024 * 1024
    range_below: Annotated[
        float,
        Meta(ge=0, description="In parts, once one connection brings fewer bytes per second than this; inf: always."),
    ] = 32 * 1024 * 1024.0


class RegistryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How registries are found and spoken to."""

    hosts_dir: Annotated[
        str,
        Meta(description="A folder with one for each registry, which holds its hosts.toml; empty: none."),
    ] = ""
    connections_per_host: Annotated[
        int,
        Meta(ge=1, le=1024, description="Requests to one host at a time, of all transfers; as many again that send."),
    ] = 32
    requests_per_s: Annotated[float, Meta(ge=0, description="Requests to one host per second; 0: any number.")] = 0.0
    retries_per_host: Annotated[
        int, Meta(ge=0, description="Retries that may be saved up for a host; a good answer earns a fifth of one.")
    ] = 60


class VerifierConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Programs that may deny a pull: asked when it is known what a name stands for, before anything is fetched."""

    bin_dir: Annotated[
        str,
        Meta(
            description="A folder of them, asked in the order of their names; all must allow. Empty: nobody is asked."
        ),
    ] = ""
    max_verifiers: Annotated[int, Meta(ge=-1, description="Only the first so many are asked; -1: all.")] = -1
    per_verifier_timeout_s: Annotated[
        float, Meta(gt=0, description="One that has not answered after so many seconds is killed, and has denied.")
    ] = 10.0


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers for Prometheus."""

    listen: Annotated[str, Meta(description="Where Prometheus may scrape, say tcp:127.0.0.1:9644; empty: nowhere.")] = (
        ""
    )


class SnapshotConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Snapshots."""

    default: Annotated[
        str,
        Meta(description="The snapshotter where none is named; empty: overlayfs where it can be mounted, else native."),
    ] = ""
    mount_options: Annotated[list[str], Meta(description="Added to every overlay.")] = []


class UnpackConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one layer may unfold to."""

    max_bytes: Annotated[int, Meta(ge=1, description="Bytes.")] = 128 * 1024**3
    max_entries: Annotated[int, Meta(ge=1, description="Files, folders and links.")] = 5_000_000
    max_ratio: Annotated[int, Meta(ge=1, description="Times its own size.")] = 1100
    max_depth: Annotated[int, Meta(ge=1, description="Folders within folders.")] = 1024
    time_s: Annotated[float, Meta(gt=0, description="Seconds.")] = 3600.0
    workers: Annotated[
        int, Meta(ge=0, le=64, description="Layers that are unpacked at once; 0: as many as there are cores.")
    ] = 0


class CollectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the garbage collector runs, and how much of the time it takes."""

    pause_s: Annotated[
        float, Meta(ge=0, description="So long after something was deleted, so that a burst of deletes is one.")
    ] = 0.1
    deletion_threshold: Annotated[
        int,
        Meta(
            ge=0,
            description="At once after so many changes since the first delete, which counts; 0: never.",
        ),
    ] = 0
    mutation_threshold: Annotated[int, Meta(ge=0, description="After so many changes of any kind; 0: never.")] = 100
    schedule_delay_s: Annotated[float, Meta(ge=0, description="Always so much later.")] = 0.0
    startup_delay_s: Annotated[
        float, Meta(ge=0, description="After a start that finds work left over, so much later.")
    ] = 0.1
    share: Annotated[
        float, Meta(gt=0, le=1, description="Unless somebody waits it takes no more than this share of the time.")
    ] = 0.5
    grace_s: Annotated[
        float,
        Meta(ge=0, description="What it finds dead waits in the bin for so long, where it can be brought back."),
    ] = 0.0


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A store, and who may come to it."""

    root: Annotated[str, Meta(description="The store's folder; made if it is not there.")]
    listen: Annotated[list[str], Meta(description="unix:PATH or tcp:HOST:PORT, any number; none: ROOT/socket.")] = []
    socket_mode: Annotated[int, Meta(ge=0, le=0o777, description="Who may use the unix sockets, as chmod says it.")] = (
        0o600
    )
    install_path: Annotated[
        str, Meta(description="Where orlop install puts programs, unless it is told; empty: only where it is told.")
    ] = "/opt/orlop"
    drain_s: Annotated[float, Meta(ge=0, description="When it ends, calls under way have so many seconds.")] = 10.0
    content_sharing_policy: Annotated[
        Literal["shared", "isolated"],
        Meta(
            description="isolated: a namespace sends (or is allowed to pull) its own copy of what another has, unless "
            "that one is shareable."
        ),
    ] = "shared"
    journal: JournalConfig = JournalConfig()
    transfer: TransferConfig = TransferConfig()
    registry: RegistryConfig = RegistryConfig()
    verifiers: VerifierConfig = VerifierConfig()
    metrics: MetricsConfig = MetricsConfig()
    snapshots: SnapshotConfig = SnapshotConfig()
    unpack: UnpackConfig = UnpackConfig()
    gc: CollectorConfig = CollectorConfig()
