"""Which mask paths an update takes: the measured table, run against images and content.

Source: spec metadata 8, tests/vectors/masks.json.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from pathlib import Path

import pytest

import orlop
from orlop.protocol import errors

ROWS = json.loads((Path(__file__).parent.parent / "vectors" / "masks.json").read_text())
TARGET = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 7, {"k": "1"})
LABELS = {"a": "1"}
NEW = {"a": "2", "new": "2", "a.b/c": "2"}


async def outcome(call: Awaitable[object]) -> str:
    """`ok`, or the class of the error."""
    try:
        await call
    except errors.OrlopError as error:
        return type(error).__name__
    return "ok"


async def test_image_update_takes_the_paths_of_the_table(store: orlop.Store) -> None:
    await store.images.create("i", TARGET, LABELS)
    body = orlop.Descriptor("x/y", "sha256:" + "b" * 64, 8, {"k": "2"})
    for row in ROWS:
        before = await store.images.update("i", target=TARGET, labels=LABELS)
        got = await outcome(store.images.update("i", target=body, labels=NEW, mask=[row["path"]]))
        assert got == row["image"], row["path"]
        if got != "ok":
            assert await store.images.get("i") == before, row["path"]


async def test_content_update_takes_the_paths_of_the_table(store: orlop.Store) -> None:
    await store.leases.create("l")
    info = await store.with_lease("l").content.put(b"data", labels=LABELS)
    for row in ROWS:
        before = await store.content.update(info.digest, LABELS)
        got = await outcome(store.content.update(info.digest, NEW, [row["path"]]))
        assert got == row["content"], row["path"]
        if got != "ok":
            assert await store.content.info(info.digest) == before, row["path"]


async def test_accepted_paths_change_just_what_they_name(store: orlop.Store) -> None:
    await store.leases.create("l")
    info = await store.with_lease("l").content.put(b"data", labels=LABELS)
    await store.images.create("i", TARGET, LABELS)
    for path, expected in [
        ("labels", NEW),
        ("labels.a.b/c", {"a": "1", "a.b/c": "2"}),
        ("labels.new", {"a": "1", "new": "2"}),
        ("labels.absent", {"a": "1"}),
        ("labels.", {"a": "1"}),
    ]:
        await store.images.update("i", target=TARGET, labels=LABELS)
        await store.content.update(info.digest, LABELS)
        assert (await store.images.update("i", labels=NEW, mask=[path])).labels == expected, path
        updated = await store.content.update(info.digest, NEW, [path])
        assert (updated.labels, updated.size) == (expected, 4), path


async def test_a_path_that_is_refused_undoes_all_of_the_mask(store: orlop.Store) -> None:
    await store.leases.create("l")
    info = await store.with_lease("l").content.put(b"data", labels=LABELS)
    for row in ROWS:
        if row["content"] != "ok":
            with pytest.raises(errors.InvalidArgument):
                await store.content.update(info.digest, NEW, ["labels.new", row["path"], "labels"])
    found = await store.content.info(info.digest)
    assert (found.labels, found.updated_at) == (LABELS, info.updated_at)


async def test_an_absent_record_is_not_found_whatever_the_path(store: orlop.Store) -> None:
    for row in ROWS:
        with pytest.raises(errors.NotFound):
            await store.images.update("absent", target=TARGET, labels=NEW, mask=[row["path"]])
        with pytest.raises(errors.NotFound):
            await store.content.update(TARGET.digest, NEW, [row["path"]])


async def test_a_mask_without_paths_replaces_all_labels_of_content(store: orlop.Store) -> None:
    await store.leases.create("l")
    info = await store.with_lease("l").content.put(b"data", labels=LABELS)
    assert (await store.content.update(info.digest, {"b": "2"})).labels == {"b": "2"}
    assert (await store.content.update(info.digest, {"c": "3"}, [])).labels == {"c": "3"}
