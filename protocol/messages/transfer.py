"""Pulls."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

__all__ = ["Credentials", "PullImage", "PullProgress", "PullState"]


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


class PullState(Enum):
    RESOLVING = "resolving"
    RESOLVED = "resolved"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    EXISTS = "already exists"
    COMPLETE = "complete"
    SAVED = "saved"


class PullProgress(msgspec.Struct, frozen=True):
    """How one object of a pull stands. `transferred` counts bytes that came over the network."""

    name: str
    state: PullState
    digest: str = ""
    kind: str = ""
    offset: int = 0
    total: int = 0
    transferred: int = 0
