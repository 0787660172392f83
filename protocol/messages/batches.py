"""Several changes as one."""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = ["Batch", "BatchResult", "Condition", "Operation", "Precondition", "Resource"]


class Resource(Enum):
    NAMESPACE = "namespace"
    IMAGE = "image"
    CONTAINER = "container"
    SANDBOX = "sandbox"
    CONTENT = "content"
    LEASE = "lease"


class Condition(Enum):
    EXISTS = "exists"
    ABSENT = "absent"
    UNCHANGED = "unchanged"


class Precondition(msgspec.Struct, frozen=True):
    """What must hold for a batch to be done. `record`: with UNCHANGED, the whole record as it was read."""

    resource: Resource
    name: str
    condition: Condition
    record: msgspec.Raw = msgspec.Raw(b"\xc0")


class Operation(msgspec.Struct, frozen=True):
    """One change of a batch: a method that may stand in one, and its arguments."""

    method: str
    arguments: msgspec.Raw


class Batch(msgspec.Struct, frozen=True):
    """Changes that happen all or not at all, in their order, in the request's namespace."""

    operations: list[Operation]
    preconditions: list[Precondition] = []


class BatchResult(msgspec.Struct, frozen=True):
    """What each operation would have answered by itself."""

    results: list[msgspec.Raw]
