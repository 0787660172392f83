"""What a check finds, with the transaction that mends it where there is one safe answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ...protocol.messages import Problem
from ..engine import Transaction

__all__ = ["Flaw", "Mend", "Page"]

Mend = Callable[[Transaction], Awaitable[None]]
"""Looks again in its own transaction, so a flaw that is gone by then is left alone."""


class Flaw(NamedTuple):
    """`quarantine`: a path inside the store that is to be set aside."""

    problem: Problem
    namespace: str
    kind: str
    name: str
    detail: str = ""
    mend: Mend | None = None
    quarantine: str = ""


class Page(NamedTuple):
    """What was wrong in one page, how much was looked at, and where the next one begins; empty: that was all."""

    flaws: list[Flaw]
    looked: int
    next: bytes
