"""What vanishes with a namespace: its leases with their entries, its sandboxes, its open ingests, and what is dead.

All of it in the deciding transaction, so that nobody ever sees a namespace half gone; a namespace with more
leftovers than a transaction takes is refused with advice instead.
"""

from __future__ import annotations

from typing import Any, Final

from ..protocol.errors import FailedPrecondition
from ..protocol.identifiers import quote
from . import keys
from .blobs.ledger import drop_ingest_files
from .collection.changes import bury_if_dead
from .engine import MAX_TRANSACTION_WRITES, Transaction
from .lease_entries import end_lease
from .tables import CONTENT, IMAGES, INGESTS, LEASES, SANDBOXES, SNAPSHOTS, Table

__all__ = ["drop_dead", "drop_leftovers"]

_WRITES_LEASE, _WRITES_INGEST, _WRITES_SANDBOX = 2, 3, 10  # at most, for each; a sandbox may lie in parts
_MOST_WRITES = MAX_TRANSACTION_WRITES - 50
_MOST_DEAD: Final = 100


async def drop_dead(txn: Transaction, namespace: str) -> None:
    """Images, content and snapshots that are condemned count for nothing: they go now, if that is all there is. Stops
    at what is alive. Raises FailedPrecondition when there are too many."""
    for table in (IMAGES, CONTENT, SNAPSHOTS):
        names = await _names(txn, namespace, table, _MOST_DEAD + 1)
        for name in names[:_MOST_DEAD]:
            if not await bury_if_dead(txn, namespace, table.node, name):
                return
        if len(names) > _MOST_DEAD:
            raise FailedPrecondition(
                f"namespace {quote(namespace)} still has many {table.what}s that are condemned and not swept",
                hint="orlop gc run --empty-bin",
            )


async def drop_leftovers(txn: Transaction, namespace: str) -> None:
    """Raises FailedPrecondition when there are too many."""
    leases = await _names(txn, namespace, LEASES, _MOST_WRITES)
    ingests = await _names(txn, namespace, INGESTS, _MOST_WRITES)
    sandboxes = await _names(txn, namespace, SANDBOXES, _MOST_WRITES)
    writes = _WRITES_LEASE * len(leases) + _WRITES_INGEST * len(ingests) + _WRITES_SANDBOX * len(sandboxes)
    if writes > _MOST_WRITES:
        raise FailedPrecondition(
            f"namespace {quote(namespace)} still has too many leases, sandboxes or ingests to go in one step",
            hint="delete leases and sandboxes and abort ingests first",
        )
    for name in leases:
        if not await bury_if_dead(txn, namespace, LEASES.node, name):
            await end_lease(txn, namespace, name, inline=0)
    for name in sandboxes:
        await SANDBOXES.remove(txn, namespace, name)
        txn.made_garbage()
    for name in ingests:
        if not await bury_if_dead(txn, namespace, INGESTS.node, name):
            await drop_ingest_files(txn, await INGESTS.remove(txn, namespace, name))


async def _names(txn: Transaction, namespace: str, table: Table[Any], limit: int) -> list[str]:
    """All that there is a record of, what is sealed and not swept among them."""
    prefix = keys.records(namespace, table.kind.value)
    found = await txn.scan(prefix, keys.prefix_end(prefix), limit)
    return [key[len(prefix) :].decode() for key, _ in found]
