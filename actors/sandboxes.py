"""Sandboxes: records of environments that containers share. No events tell of them.

Source: spec metadata 13, with its suggestions taken (docs/differences.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..protocol.errors import InvalidArgument
from ..protocol.identifiers import check_identifier, quote
from ..protocol.labels import check_mask, merge_map, stored_labels
from ..protocol.messages import Context, CreateSandbox, DeleteSandbox, Empty, GetSandbox, UpdateSandbox
from ..protocol.records import Sandbox
from ..storage.engine import Engine, Transaction
from ..storage.tables import SANDBOXES
from .actor import Plan
from .containers import check_extensions

__all__ = ["PLANS", "get"]

_PATHS = ("labels", "extensions", "spec", "runtime")
_MAPS = ("labels", "extensions")


async def create(txn: Transaction, request: CreateSandbox, context: Context) -> msgspec.Raw:
    now = txn.now_ns
    sandbox = _checked(msgspec.structs.replace(request.sandbox, created_at=now, updated_at=now))
    return await SANDBOXES.insert(txn, context.namespace or "", sandbox.sandbox_id, sandbox)


async def update(txn: Transaction, request: UpdateSandbox, context: Context) -> msgspec.Raw:
    namespace, given = context.namespace or "", request.sandbox
    before = await SANDBOXES.get(txn, namespace, given.sandbox_id)
    sandbox = _checked(_merged(before, given, request.mask, txn.now_ns))
    return await SANDBOXES.replace(txn, namespace, given.sandbox_id, sandbox)


async def delete(txn: Transaction, request: DeleteSandbox, context: Context) -> Empty:
    await SANDBOXES.remove(txn, context.namespace or "", request.sandbox_id)
    txn.made_garbage()  # its labels may have held something
    return Empty()


async def get(engine: Engine, request: GetSandbox, context: Context) -> msgspec.Raw:
    with engine.view() as view:
        return await SANDBOXES.encoded(view, context.namespace or "", request.sandbox_id)


def _merged(before: Sandbox, given: Sandbox, mask: list[str] | None, now: int) -> Sandbox:
    """The record after the update; the sandboxer and the creation time stay as they are."""
    what = f"sandbox {quote(given.sandbox_id)}"
    if not mask and given.runtime.name != before.runtime.name:
        raise InvalidArgument(
            f"{what}: runtime.name cannot change from {quote(before.runtime.name)} without a mask",
            hint='name the path "runtime"',
        )
    check_mask(mask, _PATHS, _MAPS, what)
    check_extensions({}, mask, what)
    return msgspec.structs.replace(
        before,
        labels=merge_map(before.labels, given.labels, mask, "labels"),
        extensions=merge_map(before.extensions, given.extensions, mask, "extensions"),
        spec=given.spec if not mask or "spec" in mask else before.spec,
        runtime=given.runtime if not mask or "runtime" in mask else before.runtime,
        updated_at=now,
    )


def _checked(sandbox: Sandbox) -> Sandbox:
    check_identifier(sandbox.sandbox_id, "sandbox id")
    check_extensions(sandbox.extensions, None, f"sandbox {quote(sandbox.sandbox_id)}")
    return msgspec.structs.replace(sandbox, labels=stored_labels(sandbox.labels))


PLANS: Mapping[type[msgspec.Struct], Plan] = {
    CreateSandbox: create,
    UpdateSandbox: update,
    DeleteSandbox: delete,
}
