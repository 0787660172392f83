"""What a store can be told. Read from a TOML file by the programs, or given by who embeds it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = [
    "CollectorConfig",
    "JournalConfig",
    "RegistryConfig",
    "SnapshotConfig",
    "StoreConfig",
    "TransferConfig",
    "UnpackConfig",
]


class JournalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The journal keeps the newest `events`, none of them older than `age_s` seconds."""

    events: Annotated[int, msgspec.Meta(ge=1000)] = 1_000_000
    age_s: Annotated[float, msgspec.Meta(gt=0)] = 7 * 24 * 3600.0


class TransferConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A registry that sends nothing for `stall_s` seconds is asked again. Blobs larger than two times `range_bytes` are
    fetched in parts of that size, `ranges` at once (1: never), where the registry serves ranges."""

    stall_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    ranges: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    range_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024)] = 4 * 1024 * 1024


class RegistryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`hosts_dir`: a folder with one for each registry that holds its `hosts.toml`, as containerd reads them; empty:
    none. For each host, over all pulls and pushes together: requests at a time, requests per second (0: any number),
    and how many retries may be saved up; a good answer earns a fifth of one."""

    hosts_dir: str = ""
    connections_per_host: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    requests_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    retries_per_host: Annotated[int, msgspec.Meta(ge=0)] = 60


class SnapshotConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`default`: the snapshotter that is used where none is named; empty: overlayfs where it can be mounted, else
    native. `mount_options`: added to every overlay."""

    default: str = ""
    mount_options: list[str] = []


class UnpackConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one layer may unfold to: bytes, entries, times its own size; and how many seconds it may take. `workers`
    unpack at once, 0: as many as there are cores."""

    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 128 * 1024**3
    max_entries: Annotated[int, msgspec.Meta(ge=1)] = 5_000_000
    max_ratio: Annotated[int, msgspec.Meta(ge=1)] = 1100
    max_depth: Annotated[int, msgspec.Meta(ge=1)] = 1024
    time_s: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0


class CollectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a collection runs: `pause_s` after something was deleted, so that a burst of deletes is one; at once when
    `deletion_threshold` changes have come since the first delete, that one counted (0: never); and after
    `mutation_threshold` changes of any kind (0: never); always `schedule_delay_s` later. After a start that finds work
    left over, `startup_delay_s`. Unless somebody waits it takes no more than `share` of the time. What it finds dead
    waits in the bin for `grace_s` seconds, where it can be brought back."""

    pause_s: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    deletion_threshold: Annotated[int, msgspec.Meta(ge=0)] = 0
    mutation_threshold: Annotated[int, msgspec.Meta(ge=0)] = 100
    schedule_delay_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    startup_delay_s: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    grace_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`root` is the store's folder. `listen`: `unix:PATH` or `tcp:HOST:PORT`, any number."""

    root: str
    listen: list[str] = []
    socket_mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o600
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    journal: JournalConfig = JournalConfig()
    transfer: TransferConfig = TransferConfig()
    registry: RegistryConfig = RegistryConfig()
    snapshots: SnapshotConfig = SnapshotConfig()
    unpack: UnpackConfig = UnpackConfig()
    gc: CollectorConfig = CollectorConfig()
    content_sharing_policy: Literal["shared", "isolated"] = "shared"
    """`isolated`: a namespace sends (or is allowed to pull) its own copy of what another has, unless that one is
    shareable."""
