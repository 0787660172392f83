"""How bytes are packed, as the command line and the library name it."""

from __future__ import annotations

from enum import Enum

__all__ = ["Compression"]


class Compression(Enum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
