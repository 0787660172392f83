"""What a layer may cost. Source: spec unpack 3 and 5.9."""

from __future__ import annotations

import msgspec

__all__ = ["LayerLimits"]


class LayerLimits(msgspec.Struct, frozen=True):
    """`bytes` and `entries` of one uncompressed layer; `ratio` of uncompressed to stored bytes, once there are 64 MiB;
    `depth` of folders. How long it may take is for who asks a worker."""

    bytes: int = 128 * 1024**3
    entries: int = 5_000_000
    ratio: int = 1100
    """Deflate cannot exceed 1032; a zstd frame that does holds little but zeros."""
    depth: int = 1024
