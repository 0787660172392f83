"""Several changes as one transaction: each is planned as it would be alone, and one that fails undoes all.

Source: DESIGN 5 (a client's batch is a list of plans in one `transact`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ..protocol import methods as t
from ..protocol.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    OrlopError,
    ResourceExhausted,
    prefixed,
)
from ..protocol.identifiers import quote
from ..protocol.messages import (
    Batch,
    BatchResult,
    Condition,
    Context,
    CreateLease,
    DeleteImage,
    DeleteLease,
    Precondition,
    Resource,
)
from ..protocol.methods import Method
from ..protocol.records import Namespace
from ..protocol.world import World
from ..storage import tables
from ..storage.codec import encode
from ..storage.engine import MAX_TRANSACTION_OPERATIONS, Reader, Transaction
from ..storage.tables import Table
from .actor import Plan
from .content_actor import PreparedCommit
from .leases import lease_id
from .storage import Rejected

__all__ = ["PLANS", "PreparedBatch", "place", "prepare"]

_TABLES: Final[Mapping[Resource, Table[Any]]] = {
    Resource.IMAGE: tables.IMAGES,
    Resource.CONTAINER: tables.CONTAINERS,
    Resource.SANDBOX: tables.SANDBOXES,
    Resource.CONTENT: tables.CONTENT,
    Resource.LEASE: tables.LEASES,
}
_DECODE_NAMESPACE = msgspec.msgpack.Decoder(Namespace).decode

BATCHED: Final[frozenset[Method[Any, Any]]] = frozenset(
    {
        t.NAMESPACES_CREATE, t.NAMESPACES_UPDATE, t.NAMESPACES_DELETE,
        t.IMAGES_CREATE, t.IMAGES_UPDATE, t.IMAGES_DELETE,
        t.CONTAINERS_CREATE, t.CONTAINERS_UPDATE, t.CONTAINERS_DELETE,
        t.SANDBOXES_CREATE, t.SANDBOXES_UPDATE, t.SANDBOXES_DELETE,
        t.CONTENT_UPDATE, t.CONTENT_DELETE, t.CONTENT_PUT, t.INGESTS_COMMIT,
        t.LEASES_CREATE, t.LEASES_UPDATE, t.LEASES_DELETE, t.LEASES_ADD, t.LEASES_REMOVE,
        t.EVENTS_PUBLISH,
    }
)  # fmt: skip
"""What may stand in a batch: everything that is decided by a transaction alone, and commits, whose bytes are made
ready before it."""

_ARGUMENTS = {method.name: msgspec.msgpack.Decoder(method.request).decode for method in BATCHED}


class _Check(NamedTuple):
    precondition: Precondition
    record: msgspec.Struct | None


class PreparedBatch(msgspec.Struct, frozen=True):
    """A batch with everything decoded that can be before its transaction."""

    checks: list[Any]
    operations: list[tuple[str, Any]]
    """Method and request; of a commit what was prepared of it takes the request's place."""
    plans: Mapping[type, Plan]


def prepare(batch: Batch, plans: Mapping[type[msgspec.Struct], Plan], world: World) -> PreparedBatch:
    """Raises InvalidArgument for what cannot be in a batch, ResourceExhausted beyond the limit; nothing is planned
    then."""
    count = len(batch.operations) + len(batch.preconditions)
    if count > MAX_TRANSACTION_OPERATIONS:
        raise ResourceExhausted(
            f"a batch of {count} operations and preconditions; the limit is {MAX_TRANSACTION_OPERATIONS}",
            hint="use several; `hello` states the limits",
        )
    checks = [_Check(each, _record(each)) for each in batch.preconditions]
    operations = []
    for index, operation in enumerate(batch.operations):
        decode = _ARGUMENTS.get(operation.method)
        if decode is None:
            raise InvalidArgument(f"{place(index, operation.method)}: this method cannot be part of a batch")
        try:
            request = decode(operation.arguments)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{place(index, operation.method)}: {error}") from None
        if isinstance(request, DeleteImage | DeleteLease) and request.sync:
            raise InvalidArgument(
                f"{place(index, operation.method)}: a synchronous delete cannot be part of a batch",
                hint="ask for a collection afterwards",
            )
        if isinstance(request, CreateLease) and not request.id:
            made_up = lease_id(world.clock.now_ns(), world.random.token(3))
            request = msgspec.structs.replace(request, id=made_up)
        operations.append((operation.method, request))
    return PreparedBatch(checks, operations, plans)


async def run(txn: Transaction, batch: PreparedBatch, context: Context) -> BatchResult:
    namespace = context.namespace or ""
    for precondition, record in batch.checks:
        await _require(txn, namespace, precondition, record)
    results = []
    for index, (method, request) in enumerate(batch.operations):
        if index:
            txn.tick()
        try:
            if isinstance(request, PreparedCommit):
                result: Any = await request.plan(txn, context)
            else:
                result = await batch.plans[type(request)](txn, request, context)
        except OrlopError as error:
            raise prefixed(place(index, method), error) from None
        if isinstance(result, Rejected):
            if result.existing is None:
                raise prefixed(place(index, method), result.error)
            result = result.existing  # content that is here, and in the lease: what was asked for
        results.append(result if isinstance(result, msgspec.Raw) else msgspec.Raw(encode(result)))
    return BatchResult(results)


async def _require(reader: Reader, namespace: str, wanted: Precondition, record: msgspec.Struct | None) -> None:
    what = f"precondition: {wanted.resource.value} {quote(wanted.name)}"
    found = await _find(reader, namespace, wanted)
    if wanted.condition is Condition.ABSENT:
        if found is not None:
            raise AlreadyExists(what)
    elif wanted.condition is Condition.EXISTS:
        if found is None:
            raise NotFound(what)
    elif found != record:
        changed = "is gone" if found is None else "was changed"
        raise Conflict(f"{what} {changed} since it was read", hint="read it again, then try again")


async def _find(reader: Reader, namespace: str, wanted: Precondition) -> msgspec.Struct | None:
    if wanted.resource is Resource.NAMESPACE:
        return await tables.find_namespace(reader, wanted.name)
    found: msgspec.Struct | None = await _TABLES[wanted.resource].find(reader, namespace, wanted.name)
    return found


def _record(wanted: Precondition) -> msgspec.Struct | None:
    """The record as it was read, typed."""
    if wanted.condition is not Condition.UNCHANGED:
        return None
    decode: Any = _DECODE_NAMESPACE if wanted.resource is Resource.NAMESPACE else _TABLES[wanted.resource].decode
    try:
        record: msgspec.Struct = decode(wanted.record)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"precondition on {wanted.resource.value} {quote(wanted.name)}: {error}") from None
    return record


def place(index: int, method: str) -> str:
    return f"operation {index + 1} ({method[:80]})"


PLANS: Mapping[type[msgspec.Struct], Plan] = {PreparedBatch: run}
