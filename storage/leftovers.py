"""What vanishes with a namespace: its leases with their entries, and its open ingests.

All of it in the deciding transaction, so that nobody ever sees a namespace half gone; a namespace with more
leftovers than a transaction takes is refused with advice instead.
"""

from __future__ import annotations

from ..protocol.errors import FailedPrecondition
from ..protocol.identifiers import quote
from . import keys
from .blobs.ledger import drop_ingest_files
from .engine import MAX_TRANSACTION_WRITES, Transaction
from .tables import INGESTS, LEASES

__all__ = ["drop_leftovers"]

_MOST = MAX_TRANSACTION_WRITES // 5  # an ingest costs up to four writes


async def drop_leftovers(txn: Transaction, namespace: str) -> None:
    """Raises FailedPrecondition when there are too many."""
    leases = await LEASES.page(txn, namespace, "", _MOST)
    ingests = await INGESTS.page(txn, namespace, "", _MOST)
    prefix = keys.all_lease_entries(namespace)
    entries = await txn.scan(prefix, keys.prefix_end(prefix), _MOST)
    if max(len(leases), len(ingests), len(entries)) == _MOST:
        raise FailedPrecondition(
            f"namespace {quote(namespace)} still has too many leases or ingests to go in one step",
            hint="delete leases and abort ingests first",
        )
    for name, _ in leases:
        await LEASES.remove(txn, namespace, name)
    for key, _ in entries:
        txn.delete(key)
    for name, _ in ingests:
        await drop_ingest_files(txn, await INGESTS.remove(txn, namespace, name))
    if leases or ingests:
        txn.made_garbage()  # what they protected
