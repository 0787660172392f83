"""A plain word on figures that want one: above all where orlop is behind, and what it would take."""

from __future__ import annotations

from typing import Final

__all__ = ["REMARKS", "SECTIONS"]

SECTIONS: Final = {
    "limits": "What the same machine does with the bare work, in the same run.",
}
REMARKS: Final[dict[str, str]] = {}
