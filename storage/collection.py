"""The dirty flag: set in the transaction of every change that may have made garbage, so it survives a crash."""

from __future__ import annotations

from . import keys
from .engine import Reader, Transaction

__all__ = ["clear_dirty", "dirty_mark"]


async def dirty_mark(reader: Reader) -> bytes | None:
    """None: nothing was deleted since the last collection. Otherwise a mark that changes with every delete."""
    return await reader.get(keys.DIRTY)


async def clear_dirty(txn: Transaction, mark: bytes) -> None:
    """A collection that began when the mark stood like this has ended; later deletes keep it dirty."""
    if await txn.get(keys.DIRTY) == mark:
        txn.delete(keys.DIRTY)
