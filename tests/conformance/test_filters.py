"""Every vector about filters, asked of a store by every way in. Source: spec metadata 7 and 14.4, and its vectors.

Rows about records that no store takes (a container with the id "-x") are left to tests/protocol/test_filters.py,
which asks the matcher alone; here each resource says how many rows it had to leave out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import orlop
from orlop.protocol import errors

from ..conftest import StoreMaker

VECTORS = Path(__file__).parent.parent / "vectors"
ROWS = [
    {"filters": [row["filter"]], **row} if "filter" in row else row
    for name in ("filters.json", "filters_any.json")
    for row in json.loads((VECTORS / name).read_text())
]
REGEX = json.loads((VECTORS / "regex.json").read_text())
SPEC = orlop.Any("types/spec", b"{}")

Record = dict[str, Any]


async def create_container(store: orlop.Store, record: Record) -> None:
    runtime = orlop.Runtime(record.pop("runtime.name", "r"))
    await store.containers.create(orlop.Container(**record, runtime=runtime, spec=SPEC))


async def create_image(store: orlop.Store, record: Record) -> None:
    annotations = record.pop("annotations", {})
    target = orlop.Descriptor(record.pop("target.mediatype"), record.pop("target.digest"), 7, annotations)
    await store.images.create(record["name"], target, record.get("labels", {}))


async def create_sandbox(store: orlop.Store, record: Record) -> None:
    runtime = orlop.Runtime(record.pop("runtime.name", "r"))
    await store.sandboxes.create(orlop.Sandbox(record.pop("id"), runtime, **record))


async def create_lease(store: orlop.Store, record: Record) -> None:
    await store.leases.create(record["id"], labels=record.get("labels", {}))


async def leave_ingest(store: orlop.Store, record: Record) -> None:
    async with store.content.ingest(record["ref"]) as writer:
        await writer.write(b"x")


Create = Callable[[orlop.Store, Record], Awaitable[None]]
List = Callable[[orlop.Store, list[str]], AsyncIterator[Any]]
RESOURCES: dict[str, tuple[Create, List, int]] = {
    "container": (create_container, lambda store, filters: store.containers.list(filters), 3),
    "image": (create_image, lambda store, filters: store.images.list(filters), 0),
    "sandbox": (create_sandbox, lambda store, filters: store.sandboxes.list(filters), 0),
    "lease": (create_lease, lambda store, filters: store.leases.list(filters), 0),
    "ingest": (leave_ingest, lambda store, filters: store.content.ingests(filters), 0),
}
"""How one is made, how they are listed, and of how many rows at most the record cannot be made."""


@pytest.mark.parametrize("resource", RESOURCES)
async def test_a_list_has_what_the_vectors_let_pass(stores: StoreMaker, resource: str) -> None:
    create, listed, may_lack = RESOURCES[resource]
    namespaces: dict[str, orlop.Store | None] = {}
    lacking, wrong = [], []
    async with stores.open() as store:
        for row in (row for row in ROWS if row["resource"] == resource):
            record = row.get("record") or {}
            key = json.dumps(record, sort_keys=True)
            if key not in namespaces:
                within = namespaces[key] = store.in_namespace(f"n{len(namespaces)}")
                try:
                    await create(within, dict(record))
                except (errors.InvalidArgument, KeyError):
                    namespaces[key] = None
            place = namespaces[key] or (store if row["result"] == "error" else None)
            if place is None or ("runtime" in str(row["filters"]) and "runtime.name" not in record):
                lacking.append(row)
                continue
            try:
                found: object = bool([each async for each in listed(place, row["filters"])])
            except errors.InvalidArgument:
                found = "error"
            if found != row["result"]:
                wrong.append((row["filters"], record, found))
    assert not wrong
    assert len(lacking) <= may_lack, [row["filters"] for row in lacking]


async def test_patterns_are_searched_as_the_vectors_say(stores: StoreMaker) -> None:
    wrong = []
    async with stores.open() as store:
        for number, row in enumerate(REGEX):
            within = store.in_namespace(f"n{number}")
            await within.leases.create("l", labels={"t": row["text"]})
            pattern = row["pattern"].replace("\\", "\\\\").replace('"', '\\"')
            found = [lease async for lease in within.leases.list([f'labels.t~="{pattern}"'])]
            if bool(found) is not row["match"]:
                wrong.append((row, found))
    assert not wrong


async def test_a_pattern_that_explodes_elsewhere_is_answered(store: orlop.Store) -> None:
    await store.leases.create("l", labels={"t": "a" * 3_000 + "!"})
    assert [lease async for lease in store.leases.list(['labels.t~="(a+)+$"'])] == []


@pytest.mark.parametrize("text", ["x" * 65_536, "id==\x00", "id~=\ud800", "id==x,", "id===", '"id"==', "labels."])
async def test_a_bad_filter_is_refused_and_named(store: orlop.Store, text: str) -> None:
    for listed in (store.images.list, store.containers.list, store.leases.list, store.content.list):
        with pytest.raises(errors.InvalidArgument, match=r"filter|carry"):
            [each async for each in listed([text])]
    assert [each async for each in store.images.list()] == []
