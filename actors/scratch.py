"""A store that only exists for a question: transactions over a view, of which nothing is ever written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..storage.engine import Transaction
from ..storage.overlay import Overlay, OverlayTransaction
from .driving import drive
from .storage import DurableView

__all__ = ["Scratch"]

T = TypeVar("T")


class Scratch:
    """Valid as long as its view is held. In memory it holds what would have been written."""

    def __init__(self, view: DurableView, now_ns: int) -> None:
        self._view = view
        self._overlay = Overlay()
        self._number = view.number
        self._now_ns = now_ns

    def transact(self, plan: Callable[[Transaction], Awaitable[T]]) -> T:
        """What the transaction would return; later ones see what it would have written."""
        self._number += 1
        self._now_ns += 1
        txn = OverlayTransaction(self._view.snapshot, self._overlay, self._now_ns, self._number)
        result: T = drive(plan(txn))
        self._overlay.add(self._number, txn.writes)
        return result
