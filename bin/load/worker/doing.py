"""A step, done to a target; and what is there afterwards, compared with what was acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import trio

from ....protocol.errors import DataLoss, NotFound, OutOfRange
from ..steps import client as s
from ..steps.blobs import Blob, bytes_at, digest_of_blob
from ..targets.interface import ROOT_LABEL, Target
from .ledger import ABSENT, HERE, Ledger, Thing

__all__ = ["check_everything", "clear_up", "do_step", "get_ready"]

_LARGE = 1024 * 1024
_CHECKS_AT_ONCE = 64
_LOST = (NotFound, DataLoss, OutOfRange)
"""What is answered of bytes that are not there any more."""


async def get_ready(step: s.Step) -> None:
    """What a client would know before it asks, and is not timed: the digests of the bytes it brings or wants."""
    action = step.action
    blobs: tuple[Blob, ...] = ()
    if isinstance(action, s.Ingest | s.Read | s.ReadAt | s.DeleteBlob):
        blobs = (action.blob,)
    elif isinstance(action, s.Publish):
        blobs = action.layers
    for blob in blobs:
        if blob.size > _LARGE:
            await trio.to_thread.run_sync(digest_of_blob, blob)
        else:
            digest_of_blob(blob)


async def do_step(target: Target, step: s.Step, ledger: Ledger, *, verify: bool) -> None:
    """Raises OrlopError. Cancellation: it may or may not have happened, which the ledger notes."""
    namespace = step.namespace
    match step.action:
        case s.Get(name=name):
            await _get(target, Thing("image", namespace, name), ledger, verify=verify)
        case s.List(filters=filters):
            await target.list_images(namespace, filters)
        case s.Create(name=name, value=value):
            with ledger.writing(Thing("image", namespace, name), value, fresh=True):
                await target.create_image(namespace, name, value)
        case s.Update(name=name, value=value):
            with ledger.writing(Thing("image", namespace, name), value):
                await target.update_image(namespace, name, value)
        case s.Delete(name=name, sync=sync):
            image = Thing("image", namespace, name)
            ledger.loses_parts(image)
            with ledger.writing(image, ABSENT):
                await target.delete_image(namespace, name, sync=sync)
        case s.Publish(name=name, value=value, layers=layers):
            image = Thing("image", namespace, name)
            with ledger.writing(image, value, fresh=True):
                await target.publish_image(namespace, name, value, layers)
            ledger.has_parts(image, [_of(namespace, layer) for layer in layers])
        case s.Ingest(blob=blob):
            with ledger.writing(_of(namespace, blob), HERE, fresh=True):
                await target.ingest(namespace, blob, {ROOT_LABEL: "load"})
        case s.DeleteBlob(blob=blob):
            with ledger.writing(_of(namespace, blob), ABSENT):
                await target.delete_blob(namespace, blob)
        case s.Read(blob=blob):
            await _read(target, namespace, blob, 0, blob.size, ledger, verify=verify)
        case s.ReadAt(blob=blob, offset=offset, length=length):
            await _read(target, namespace, blob, offset, length, ledger, verify=verify)
        case s.Prepare(key=key, parent=parent):
            with ledger.writing(Thing("snapshot", namespace, key), HERE, fresh=True):
                await target.prepare_snapshot(namespace, key, parent)
        case s.Commit(name=name, key=key):
            with (
                ledger.writing(Thing("snapshot", namespace, name), HERE, fresh=True),
                ledger.writing(Thing("snapshot", namespace, key), ABSENT),
            ):
                await target.commit_snapshot(namespace, name, key)
        case s.RemoveSnapshot(key=key):
            with ledger.writing(Thing("snapshot", namespace, key), ABSENT):
                await target.remove_snapshot(namespace, key)
        case s.Pull(reference=reference, unpack=unpack, plain_http=plain_http):
            await target.pull(namespace, reference, unpack=unpack, plain_http=plain_http)
        case s.Collect():
            await target.collect()


async def clear_up(target: Target, step: s.Step) -> None:
    """What a step leaves that would spoil the next like it; not timed. Raises OrlopError."""
    if isinstance(step.action, s.Pull):
        await target.drop_images(step.namespace)


async def _get(target: Target, thing: Thing, ledger: Ledger, *, verify: bool) -> None:
    if not verify:
        await target.get_image(thing.namespace, thing.name)
        return
    with ledger.reading(thing, must_be=True) as found:
        try:
            found((await target.get_image(thing.namespace, thing.name)).value or "no value")
        except NotFound:
            found(ABSENT)
            raise


async def _read(
    target: Target, namespace: str, blob: Blob, offset: int, length: int, ledger: Ledger, *, verify: bool
) -> None:
    """Of the population: it must be there."""
    if not verify:
        await target.read(namespace, blob, offset, length, _pass_over)
        return
    ledger.reads += 1
    comparing = _Comparing(blob, offset)
    try:
        await target.read(namespace, blob, offset, length, comparing.take)
    except _LOST as error:
        ledger.differs(_of(namespace, blob), f"bytes {offset} to {offset + length}", error.message)
        raise
    if comparing.differs:
        ledger.differs(_of(namespace, blob), f"bytes {offset} to {offset + length}", "others")


class _Comparing:
    """What a blob must say, held against what comes."""

    def __init__(self, blob: Blob, offset: int) -> None:
        self._blob = blob
        self._at = offset
        self.differs = False

    def take(self, data: bytes) -> None:
        self.differs = self.differs or data != bytes_at(self._blob, self._at, len(data))
        self._at += len(data)


def _pass_over(data: bytes) -> None:
    pass


def _of(namespace: str, blob: Blob) -> Thing:
    return Thing("blob", namespace, blob.name, blob.size)


async def check_everything(target: Target, ledger: Ledger, population: Iterable[Thing]) -> None:
    """Look at every thing of which something is known, and at what was there before. Raises what the target raises."""
    things = chain(ledger.things(), population)

    async def look() -> None:
        for thing in things:
            with ledger.reading(thing, must_be=True) as found:
                found(await _found(target, thing))

    async with trio.open_nursery() as nursery:
        for _ in range(_CHECKS_AT_ONCE):
            nursery.start_soon(look)


async def _found(target: Target, thing: Thing) -> str:
    """What is there, in the ledger's words."""
    try:
        if thing.kind == "image":
            return (await target.get_image(thing.namespace, thing.name)).value or "no value"
        if thing.kind == "blob":
            blob = Blob(thing.name, thing.size)
            if not await target.has_blob(thing.namespace, blob):
                return ABSENT
            comparing = _Comparing(blob, 0)
            await target.read(thing.namespace, blob, 0, blob.size, comparing.take)
            return "other bytes" if comparing.differs else HERE
        return HERE if await target.has_snapshot(thing.namespace, thing.name) else ABSENT
    except NotFound as error:
        return ABSENT if thing.kind == "image" else f"a record, and {error.message}"
    except (DataLoss, OutOfRange) as error:
        return error.message
