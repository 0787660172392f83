"""Filters of list calls: the requests carry them, this version does not evaluate them yet."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.errors import NotImplemented as NotImplementedYet

__all__ = ["refuse_filters"]


def refuse_filters(filters: Sequence[str]) -> None:
    """An empty filter matches everything (spec metadata 7.1); any other is refused rather than ignored."""
    if filters and "" not in filters:
        raise NotImplementedYet("filters in list calls")
