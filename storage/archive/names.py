"""Names inside a layer: cleaned, bounded by the root, and what the special ones mean. Source: spec unpack 5.1, 5.6."""

from __future__ import annotations

from typing import Final

from ...protocol.errors import InvalidArgument

__all__ = ["OPAQUE_MARKER", "WHITEOUT", "clean", "shown", "split", "whiteout_name"]

MAX_PATH_BYTES: Final = 4095
WHITEOUT: Final = b".wh."
OPAQUE_MARKER: Final = b".wh..wh..opq"
_META: Final = b".wh..wh."


def clean(name: bytes) -> bytes:
    """Without leading `/`, empty parts and `.`; `..` never climbs above the root. Empty: the root itself."""
    if name.startswith(b"./"):
        name = name[2:]
    name = name.rstrip(b"/")
    if name and b"//" not in name and b"/." not in name and name[0] not in b"./":
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def split(name: bytes) -> tuple[bytes, bytes]:
    """(folder, last part) of an entry's cleaned name. Raises InvalidArgument when it is too long."""
    cleaned = clean(name)
    if len(cleaned) > MAX_PATH_BYTES:
        raise InvalidArgument(f"entry {shown(name)}: a name of {len(cleaned)} bytes is too long")
    folder, _, base = cleaned.rpartition(b"/")
    return folder, base


def whiteout_name(base: bytes, entry: bytes) -> bytes:
    """What a whiteout `.wh.<name>` hides; empty for those that mean nothing here. Raises InvalidArgument."""
    if base.startswith(_META):
        return b""
    name = base[len(WHITEOUT) :]
    if name in (b"", b".", b".."):
        raise InvalidArgument(f"entry {shown(entry)}: a whiteout of no name")
    return name


def shown(name: bytes) -> str:
    """For an error message."""
    text = name.decode(errors="backslashreplace")
    text = text if len(text) <= 160 else f"{text[:160]}…"
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + '"'
