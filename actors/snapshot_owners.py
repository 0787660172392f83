"""The owner of a snapshot's root folder when its labels map a container's ids. Source: spec snapshots 8.7."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ..protocol.errors import InvalidArgument
from ..protocol.identifiers import quote
from ..storage.snapshotters.interface import Owner

__all__ = ["mapped_owner"]

_UID: Final = "containerd.io/snapshot/uidmapping"
_GID: Final = "containerd.io/snapshot/gidmapping"
_TRIPLE: Final = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,10})")


def mapped_owner(labels: Mapping[str, str]) -> Owner | None:
    """Whom id 0 of the container is on the host; None without such labels. Raises InvalidArgument."""
    if not labels.get(_UID) and not labels.get(_GID):
        return None
    return Owner(_host_id(labels, _UID), _host_id(labels, _GID))


def _host_id(labels: Mapping[str, str], label: str) -> int:
    text = labels.get(label)
    if not text:
        return 0
    found: int | None = None
    for part in text.split(","):
        triple = _TRIPLE.fullmatch(part)
        if triple is None or int(triple[3]) == 0:
            raise InvalidArgument(f"label {label}: {quote(text)}", hint="write CONTAINER:HOST:LENGTH,...")
        if int(triple[1]) == 0:
            found = int(triple[2])
    if found is None:
        raise InvalidArgument(f"label {label}: {quote(text)} does not map id 0")
    return found
