"""The record of an ingest, which only the store knows."""

from __future__ import annotations

import msgspec

__all__ = ["IngestRecord"]


class IngestRecord(msgspec.Struct, frozen=True):
    """An ingest as the engine knows it. Its bytes are `ingests/<generation>`, until they become the blob
    `<digest>.<generation>`; `sealed` announces that name before the rename, so that start-up finds it."""

    ref: str
    generation: int
    total: int = 0
    expected: str = ""
    media_type: str = ""
    started_at: int = 0
    updated_at: int = 0
    expires_at: int | None = None
    """None: opened under a lease, which protects it instead."""
    sealed: str = ""
    held: str = ""
    """The shared blob that this ingest adopts, or was made from; the ingest keeps it alive."""
    adopting: bool = False
    """Nothing was written: there is no file, and a commit takes the shared blob."""
