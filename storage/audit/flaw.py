"""What a check finds, with the transaction that mends it where there is one safe answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ...protocol.messages import Problem
from .. import keys
from ..engine import Reader, Transaction

__all__ = ["Flaw", "Mend", "Page", "delete_key", "page_of"]

Mend = Callable[[Transaction], Awaitable[None]]
"""Looks again in its own transaction, so a flaw that is gone by then is left alone."""


class Flaw(NamedTuple):
    """`quarantine`: a path inside the store that is to be set aside. `heals`: whether `mend` makes it whole; False
    where bytes are lost and it only keeps others from reading what is not there."""

    problem: Problem
    namespace: str
    kind: str
    name: str
    detail: str = ""
    mend: Mend | None = None
    quarantine: str = ""
    heals: bool = True


class Page(NamedTuple):
    """What was wrong in one page, how much was looked at, and where the next one begins; empty: that was all."""

    flaws: list[Flaw]
    looked: int
    next: bytes


async def page_of(reader: Reader, region: bytes, after: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Some pairs of a region, and where the next ones begin; empty: those were all."""
    pairs = await reader.scan(after or region, keys.prefix_end(region), limit)
    return pairs, pairs[-1][0] + b"\x00" if len(pairs) == limit else b""


async def delete_key(txn: Transaction, key: bytes) -> None:
    txn.delete(key)
