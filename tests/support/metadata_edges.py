"""What the numbered edge cases of the metadata share, which are tests/conformance/metadata_edges.

Source: spec metadata 18. Where the reference's behaviour is an accident, the suggestion is tested.

Not there:
* those of snapshots, which are in tests/conformance: 5 and 6 (`a_namespace_with_a_snapshot_is_not_empty`), 35 and 40
  (`a_lease_that_is_not_there_lets_nothing_be_made`), 38 (`prepare_view_and_commit_join_the_lease`), 53 (the filters of
  test_snapshots_lists.py), 59 (`a_view_is_not_told_as_prepared`); 39 opens an ingest instead;
* 13: a request has one namespace, not headers that could repeat;
* 61: nobody can listen for "dirty"; that deletions are followed by collections is tested elsewhere;
* 67: an event is part of its change, so that publishing can not fail after it;
* of 31, the size and media type of a delete's target: a delete names the digest alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import msgspec
import trio

import orlop
from orlop.protocol.errors import OrlopError, WireError, error_from_wire, error_to_wire

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
A = orlop.Descriptor(MANIFEST, "sha256:" + "a" * 64, 7)
B = orlop.Descriptor("application/vnd.oci.image.index.v1+json", "sha256:" + "b" * 64, 8)
SPEC = orlop.Any("types.example/spec", b"spec")
C = orlop.Container("c", runtime=orlop.Runtime("r"), spec=SPEC)
EXPIRE = "containerd.io/gc.expire"
PAST, FUTURE = "2001-02-03T04:05:06Z", "2999-01-02T03:04:05Z"
HOUR_NS = 3600 * 1_000_000_000


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def nowhere(store: orlop.Store) -> orlop.Store:
    return orlop.Store(store._caller, orlop.Context(namespace=None))


async def namespaces(store: orlop.Store) -> list[str]:
    return [namespace.name async for namespace in store.namespaces.list()]


async def containers(store: orlop.Store, *filters: str) -> list[str]:
    return [container.id async for container in store.containers.list(filters)]


async def images(store: orlop.Store) -> list[str]:
    return [image.name async for image in store.images.list()]


async def held(store: orlop.Store, lease: str) -> list[tuple[str, str]]:
    return [(entry.type, entry.id) async for entry in store.leases.resources(lease)]


async def said(store: orlop.Store) -> list[tuple[str, object]]:
    return [(event.namespace, event.event) for event in (await store.events.page()).items]


async def opened(store: orlop.Store, ref: str, expected: str = "") -> None:
    async with store.content.ingest(ref, expected=expected):
        pass


async def take(events: AsyncIterator[orlop.Event], count: int) -> list[orlop.Event]:
    with trio.fail_after(10):
        return [await anext(events) for _ in range(count)]


def over_the_wire(error: BaseException) -> OrlopError:
    data = msgspec.msgpack.encode(error_to_wire(error))
    return error_from_wire(msgspec.msgpack.decode(data, type=WireError))
