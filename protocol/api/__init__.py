"""The typed interface of a store: the same whether it lives in this process or behind a socket.

`Store` groups the resources; each method is one line of the table of methods. What a call raises is the same
either way too: the classes of `orlop.protocol.errors`.

Cancellation, unless a method says otherwise: a read leaves nothing behind; a write that was cancelled may or
may not have happened. Durability: a write that returned survives a power cut.
"""

from .caller import BlobReader, Caller
from .content import IngestWriter
from .snapshots import Snapshots
from .store import Store
from .transaction import Planned, Transaction

__all__ = ["BlobReader", "Caller", "IngestWriter", "Planned", "Snapshots", "Store", "Transaction"]
