"""Changes to a store, for the tests of transactions, batches and leases: records to make, and all that can be seen."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec
import pytest

import orlop
from orlop.protocol import methods as t
from orlop.protocol.errors import InvalidArgument, OrlopError
from orlop.protocol.messages import Batch, Context, CreateImage, Operation, Precondition

__all__ = [
    "EXPIRE",
    "FINE",
    "FUTURE",
    "LARGE",
    "MANIFEST",
    "PAST",
    "ROOT",
    "A",
    "B",
    "OfTheBlock",
    "container",
    "create_all",
    "delete_all",
    "digest_of",
    "digests",
    "everything",
    "held",
    "journal",
    "lease_ids",
    "names",
    "raw",
    "records",
    "refused",
    "resource",
    "sandbox",
    "update_all",
]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
A = orlop.Descriptor(MANIFEST, "sha256:" + "a" * 64, 7)
"""A target that no store has the bytes of."""
B = orlop.Descriptor(MANIFEST, "sha256:" + "b" * 64, 8)
"""Another one."""
ROOT = {"containerd.io/gc.root": "test"}
"""Labels that keep content without anything that refers to it."""
EXPIRE = "containerd.io/gc.expire"
"""The label that says when a lease or an image ends."""
FUTURE = "2999-01-02T03:04:05Z"
PAST = "2001-02-03T04:05:06Z"
LARGE = 4096 * "x"
"""A value that makes any label too long."""

_SPEC = orlop.Any("types/spec", b"{}")
_SPACES = ("default", "fresh", "tenant")


class OfTheBlock(Exception):
    """What a block raises of its own."""


def digest_of(data: bytes) -> str:
    """The digest that content of these bytes has."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def container(id_: str, **fields: Any) -> orlop.Container:
    """A container with what every container must have."""
    return orlop.Container(id=id_, **{"runtime": orlop.Runtime("r"), "spec": _SPEC, **fields})


def sandbox(id_: str, **fields: Any) -> orlop.Sandbox:
    """A sandbox of that id."""
    return orlop.Sandbox(sandbox_id=id_, **fields)


def resource(name: str) -> orlop.LeaseResource:
    """An image, as a lease names it."""
    return orlop.LeaseResource(name, "images")


async def journal(store: orlop.Store) -> list[orlop.Event]:
    """Every event of the store, oldest first."""
    return (await store.events.page(0, 1000)).items


async def everything(store: orlop.Store) -> dict[str, object]:
    """All that can be seen of a store."""
    found: dict[str, object] = {
        "namespaces": [n async for n in store.namespaces.list()],
        "events": await journal(store),
    }
    for space in _SPACES:
        there = store.in_namespace(space)
        leases = [lease async for lease in there.leases.list()]
        found[space] = [
            [image async for image in there.images.list()],
            [c async for c in there.containers.list()],
            [s async for s in there.sandboxes.list()],
            [info async for info in there.content.list()],
            leases,
            [[entry async for entry in there.leases.resources(lease.id)] for lease in leases],
        ]
    return found


async def names(store: orlop.Store) -> list[str]:
    """The names of the images."""
    return [image.name async for image in store.images.list()]


async def lease_ids(store: orlop.Store) -> list[str]:
    """The ids of the leases."""
    return [lease.id async for lease in store.leases.list()]


async def held(store: orlop.Store, lease: str) -> list[tuple[str, str]]:
    """What a lease names: type and id of each."""
    return [(entry.type, entry.id) async for entry in store.leases.resources(lease)]


async def digests(store: orlop.Store) -> set[str]:
    """The digests of the content."""
    return {info.digest async for info in store.content.list()}


def create_all(tx: orlop.Transaction, name: str) -> list[Awaitable[Any]]:
    """One record of each kind that a transaction makes, under names that begin with `name`."""
    return [
        tx.namespaces.create(f"{name}-n", {"a": "1"}),
        tx.images.create(f"{name}-i", A, {"a": "1"}),
        tx.containers.create(container(f"{name}-c", labels={"a": "1"})),
        tx.sandboxes.create(sandbox(f"{name}-s", labels={"a": "1"})),
        tx.leases.create(f"{name}-l", {"a": "1"}),
        tx.leases.add(f"{name}-l", resource("i")),
        tx.content.put(name.encode(), labels={"a": "1", **ROOT}),
    ]


def update_all(tx: orlop.Transaction, name: str) -> list[Awaitable[Any]]:
    """A change to each record that `create_all` made."""
    labels = {"a": "2", **ROOT}
    return [
        tx.namespaces.update(f"{name}-n", labels),
        tx.images.update(f"{name}-i", target=B, labels=labels),
        tx.containers.update(container(f"{name}-c", labels=labels)),
        tx.sandboxes.update(sandbox(f"{name}-s", labels=labels)),
        tx.leases.update(f"{name}-l", labels),
        tx.leases.remove(f"{name}-l", resource("i")),
        tx.content.update(digest_of(name.encode()), labels),
    ]


def delete_all(tx: orlop.Transaction, name: str) -> list[Awaitable[Any]]:
    """The end of each record that `create_all` made."""
    return [
        tx.namespaces.delete(f"{name}-n"),
        tx.images.delete(f"{name}-i"),
        tx.containers.delete(f"{name}-c"),
        tx.sandboxes.delete(f"{name}-s"),
        tx.leases.delete(f"{name}-l"),
        tx.content.delete(digest_of(name.encode())),
    ]


async def records(store: orlop.Store, name: str) -> list[Any]:
    """Each record that `create_all` made, as it is now."""
    return [
        await store.namespaces.get(f"{name}-n"),
        await store.images.get(f"{name}-i"),
        await store.containers.get(f"{name}-c"),
        await store.sandboxes.get(f"{name}-s"),
        await store.leases.get(f"{name}-l"),
        await store.content.info(digest_of(name.encode())),
    ]


def raw(value: object) -> msgspec.Raw:
    """A value as it stands in a batch."""
    return msgspec.Raw(msgspec.msgpack.encode(value))


FINE = Operation("images.create", raw(CreateImage("new", A)))
"""An operation with which nothing is wrong."""


async def refused(
    store: orlop.Store, operations: Sequence[Operation], preconditions: Sequence[Precondition] = ()
) -> str:
    """What a store says of a batch that it must find invalid."""
    batch = Batch(list(operations), list(preconditions))
    with pytest.raises(OrlopError) as error:
        await store._caller.call(t.BATCH, batch, Context(namespace="fresh"))
    assert type(error.value) is InvalidArgument, (operations, error.value)
    return str(error.value)
