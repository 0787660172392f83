"""What vanishes with a namespace: its leases with their entries, and its open ingests.

All of it in the deciding transaction, so that nobody ever sees a namespace half gone; a namespace with more
leftovers than a transaction takes is refused with advice instead.
"""

from __future__ import annotations

from ..protocol.errors import FailedPrecondition
from ..protocol.identifiers import quote
from .blobs.ledger import drop_ingest_files
from .engine import MAX_TRANSACTION_WRITES, Transaction
from .lease_entries import end_lease
from .tables import INGESTS, LEASES

__all__ = ["drop_leftovers"]

_WRITES_LEASE, _WRITES_INGEST = 2, 3  # at most, for each
_MOST = (MAX_TRANSACTION_WRITES - 50) // _WRITES_LEASE


async def drop_leftovers(txn: Transaction, namespace: str) -> None:
    """Raises FailedPrecondition when there are too many."""
    leases, more_leases = await LEASES.page(txn, namespace, "", _MOST)
    ingests, more_ingests = await INGESTS.page(txn, namespace, "", _MOST)
    if (
        more_leases
        or more_ingests
        or _WRITES_LEASE * len(leases) + _WRITES_INGEST * len(ingests) >= _WRITES_LEASE * _MOST
    ):
        raise FailedPrecondition(
            f"namespace {quote(namespace)} still has too many leases or ingests to go in one step",
            hint="delete leases and abort ingests first",
        )
    for name, _ in leases:
        await end_lease(txn, namespace, name, inline=0)
    for name, _ in ingests:
        await drop_ingest_files(txn, await INGESTS.remove(txn, namespace, name))
