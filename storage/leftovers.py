"""What vanishes with a namespace: its leases with their entries, its sandboxes, and its open ingests.

All of it in the deciding transaction, so that nobody ever sees a namespace half gone; a namespace with more
leftovers than a transaction takes is refused with advice instead.
"""

from __future__ import annotations

from ..protocol.errors import FailedPrecondition
from ..protocol.identifiers import quote
from .blobs.ledger import drop_ingest_files
from .engine import MAX_TRANSACTION_WRITES, Transaction
from .lease_entries import end_lease
from .tables import INGESTS, LEASES, SANDBOXES

__all__ = ["drop_leftovers"]

_WRITES_LEASE, _WRITES_INGEST, _WRITES_SANDBOX = 2, 3, 10  # at most, for each; a sandbox may lie in parts
_MOST_WRITES = MAX_TRANSACTION_WRITES - 50


async def drop_leftovers(txn: Transaction, namespace: str) -> None:
    """Raises FailedPrecondition when there are too many."""
    leases = await LEASES.page(txn, namespace, "", _MOST_WRITES)
    ingests = await INGESTS.page(txn, namespace, "", _MOST_WRITES)
    sandboxes = await SANDBOXES.page(txn, namespace, "", _MOST_WRITES)
    writes = (
        _WRITES_LEASE * len(leases.rows) + _WRITES_INGEST * len(ingests.rows) + _WRITES_SANDBOX * len(sandboxes.rows)
    )
    if leases.next or ingests.next or sandboxes.next or writes > _MOST_WRITES:
        raise FailedPrecondition(
            f"namespace {quote(namespace)} still has too many leases, sandboxes or ingests to go in one step",
            hint="delete leases and sandboxes and abort ingests first",
        )
    for name in leases.names:
        await end_lease(txn, namespace, name, inline=0)
    for name in sandboxes.names:
        await SANDBOXES.remove(txn, namespace, name)
        txn.made_garbage()
    for name in ingests.names:
        await drop_ingest_files(txn, await INGESTS.remove(txn, namespace, name))
