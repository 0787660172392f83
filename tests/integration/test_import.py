"""Images out of archives: OCI layouts in every form, embedded and through a unix socket. Source: spec registry 11; the
numbers in comments are those of its section 14.

Docker's archives are in test_import_docker.py.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError
from orlop.protocol.records import Descriptor
from orlop.protocol.registry.platforms import parse_platform
from tests.support.archive_stores import TIMEOUT_S, brought, has, here, nothing_came, opened, recorded, refused, written
from tests.support.archives import (
    HOST,
    OTHER,
    Files,
    blob_path,
    for_other,
    layout_files,
    named,
    simple,
)
from tests.support.images import INDEX, MANIFEST, MadeImage
from tests.support.layers import digest_of

NAME = "quay.io/a/b:1"
FORMS = ("folder", "tar", "tar.gz", "tar.zst")


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


@pytest.mark.parametrize("form", FORMS)
async def test_layouts_are_brought_in_every_form(store: orlop.Store, tmp_path: Path, form: str) -> None:  # 54
    made = simple()
    path = written(tmp_path, layout_files([(made, named(NAME))]), form)
    assert await brought(store, path) == {NAME: made.target.digest}
    target = (await store.images.get(NAME)).target
    assert (target.media_type, target.size) == (MANIFEST, len(made.manifest))
    await has(store, made)


async def test_a_document_keeps_its_children_by_labels(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    await brought(store, written(tmp_path, layout_files([({HOST: made, OTHER: for_other()}, named(NAME))])))
    root = (await store.images.get(NAME)).target
    assert root.media_type == INDEX
    assert (await store.content.info(root.digest)).labels == {
        "containerd.io/gc.ref.content.m.0": made.target.digest,
        "containerd.io/gc.ref.content.m.1": for_other().target.digest,
    }
    assert (await store.content.info(made.target.digest)).labels == {
        "containerd.io/gc.ref.content.config": made.config_digest,
        "containerd.io/gc.ref.content.l.0": made.layers[0].digest,
        "containerd.io/gc.ref.content.l.1": made.layers[1].digest,
    }
    await has(store, made, for_other())


async def test_blobs_by_another_algorithm_are_brought(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    digest = f"sha512:{hashlib.sha512(made.manifest).hexdigest()}"
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(made.manifest), "annotations": named(NAME)}
    files = layout_files([(made, {})])
    files[blob_path(digest)] = made.manifest
    files["index.json"] = json.dumps({"manifests": [entry]}).encode()
    assert await brought(store, written(tmp_path, files)) == {NAME: digest}


# Names


def dated() -> str:
    return f"import-{time.strftime('%Y-%m-%d')}"


async def test_a_tag_alone_is_named_after_the_day(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(simple(), named("", "v1"))]))
    before = dated()
    found = await brought(store, path)
    assert list(found) in ([f"{before}:v1"], [f"{dated()}:v1"])  # it may have been midnight


async def test_names_with_a_base_and_by_digest(store: orlop.Store, tmp_path: Path) -> None:
    one, two, three = simple("1"), simple("2"), simple("3")
    entries = [(one, named("", "v1")), (two, named("", "bar.io/x:v2")), (three, named("foo.io/x/y:v3"))]
    path = written(tmp_path, layout_files(entries))
    found = await brought(store, path, naming=orlop.Naming("foo.io/x"))
    assert found == {"foo.io/x:v1": one.target.digest, "foo.io/x/y:v3": three.target.digest}
    by_digest = {f"foo.io/x@{each.target.digest}": each.target.digest for each in (one, two, three)}
    assert await brought(store, path, naming=orlop.Naming("foo.io/x", digests=True)) == found | by_digest
    naming = orlop.Naming("foo.io/x", digests=True, skip_named=True)
    unnamed = {f"foo.io/x@{two.target.digest}": two.target.digest}
    assert await brought(store.in_namespace("other"), path, naming=naming) == found | unnamed


async def test_several_names_of_one_image(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    path = written(tmp_path, layout_files([(made, named(NAME)), (made, named("", "quay.io/c/d:2"))]))
    assert await brought(store, path) == {NAME: made.target.digest, "quay.io/c/d:2": made.target.digest}


async def test_labels_are_for_the_records(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(simple(), named(NAME))]))
    await brought(store, path, labels={"mine": "yes"})
    assert (await store.images.get(NAME)).labels == {"mine": "yes"}


async def test_the_index_may_have_a_name_and_takes_the_others_with_it(store: orlop.Store, tmp_path: Path) -> None:
    one, two = simple("1"), simple("2")
    files = layout_files([(one, named(NAME)), (two, named("quay.io/c/d:2"))])
    whole = files["index.json"]
    assert isinstance(whole, bytes)
    found = await brought(store, written(tmp_path, files), naming=orlop.Naming(index="idx.io/a:b"))
    assert found == {
        "idx.io/a:b": digest_of(whole),
        NAME: one.target.digest,
        "quay.io/c/d:2": two.target.digest,
    }
    assert (await store.images.get("idx.io/a:b")).target == Descriptor(INDEX, digest_of(whole), len(whole))
    labels = (await store.images.get(NAME)).labels
    assert labels["containerd.io/gc.bref.image"] == "idx.io/a:b"
    assert "containerd.io/gc.expire" in labels
    await has(store, one, two)
    assert await recorded(store) == found
    await store.images.delete("idx.io/a:b", sync=True)
    await nothing_came(store)


async def test_an_archive_without_names_is_an_error_that_says_what_to_do(store: orlop.Store, tmp_path: Path) -> None:
    error = await refused(store, written(tmp_path, layout_files([(simple(), {})])), InvalidArgument)
    assert "--digests" in error.hint
    assert "--base-name" in error.hint


async def test_records_are_made_together_or_not_at_all(store: orlop.Store, tmp_path: Path) -> None:
    entries = [(simple("1"), named(NAME)), (simple("2"), named("", "quay.io/" + "x" * 600))]
    await refused(store, written(tmp_path, layout_files(entries)), InvalidArgument)


async def test_a_second_import_changes_nothing_and_a_newer_one_moves_the_name(
    store: orlop.Store, tmp_path: Path
) -> None:
    made, newer = simple(), simple("newer")
    path = written(tmp_path, layout_files([(made, named(NAME))]))
    found = await brought(store, path)
    content = await here(store)
    assert await brought(store, path) == found
    assert await here(store) == content
    assert await brought(store, written(tmp_path, layout_files([(newer, named(NAME))]))) == {NAME: newer.target.digest}
    await has(store, newer)
    assert await here(store) == set(newer.blobs)


# What is wrong with it


@pytest.mark.parametrize("which", ["manifest", "config", "small layer", "large layer"])
async def test_a_corrupt_blob_is_an_error(store: orlop.Store, tmp_path: Path, which: str) -> None:  # 51
    made = simple()
    digest = {
        "manifest": made.target.digest,
        "config": made.config_digest,
        "large layer": made.layers[0].digest,
        "small layer": made.layers[1].digest,
    }[which]
    files = layout_files([(made, named(NAME))])
    data = files[blob_path(digest)]
    assert isinstance(data, bytes)
    assert (len(data) > 16 * 1024) == (which == "large layer")
    files[blob_path(digest)] = data[:-1] + bytes([data[-1] ^ 1])
    error = await refused(store, written(tmp_path, files), FailedPrecondition)
    assert digest in str(error)
    assert [each async for each in store.content.ingests()] == []
    files[blob_path(digest)] = data
    assert await brought(store, written(tmp_path, files)) == {NAME: made.target.digest}
    await has(store, made)


@pytest.mark.parametrize("form", FORMS)
async def test_nothing_is_left_half_read_when_an_import_fails(store: orlop.Store, tmp_path: Path, form: str) -> None:
    files = layout_files([(simple(), named(NAME))])
    name = next(name for name in files if name.startswith("blobs/"))
    files[name] = b"another"
    await refused(store, written(tmp_path, files, form), FailedPrecondition)
    gc.collect()  # a generator that was left in the middle would show now


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
async def test_a_missing_blob_is_an_error_that_names_it(store: orlop.Store, tmp_path: Path, which: str) -> None:
    made = simple()
    digest = {"manifest": made.target.digest, "config": made.config_digest, "layer": made.layers[1].digest}[which]
    files = layout_files([(made, named(NAME))])
    del files[blob_path(digest)]
    assert f"{which} {digest}" in str(await refused(store, written(tmp_path, files), NotFound))


def without(name: str) -> Files:
    return {key: data for key, data in layout_files([(simple(), named(NAME))]).items() if key != name}


ODD: dict[str, tuple[Files | bytes, str]] = {
    "version 1.1.0": (layout_files([(simple(), named(NAME))], version="1.1.0"), "1.1.0"),  # 50
    "no index.json": (without("index.json"), "missing index.json"),
    "no oci-layout": (without("oci-layout"), "unrecognized image format"),
    "other files": ({"README": b"hello", "etc/passwd": b"root"}, "unrecognized image format"),
    "no files": ({}, "unrecognized image format"),
    "no bytes": (b"", "cut short|no tar"),
    "no tar": (b"x" * 5000, "no tar"),
    "an index.json that is none": (without("index.json") | {"index.json": b"[1]"}, "index.json"),
    "an index.json without an end": (without("index.json") | {"index.json": b" " * (20 << 20) + b" "}, "index.json"),
    "an oci-layout that is none": (without("oci-layout") | {"oci-layout": b"1.0.0"}, "oci-layout"),
}


@pytest.mark.parametrize("case", ODD)
async def test_what_is_no_layout_is_refused(store: orlop.Store, tmp_path: Path, case: str) -> None:
    files, text = ODD[case]
    error = await refused(store, written(tmp_path, files), InvalidArgument)
    assert any(part in str(error) for part in text.split("|"))


async def test_what_is_no_file_is_not_found(store: orlop.Store, tmp_path: Path) -> None:
    assert "none.tar" in str(await refused(store, tmp_path / "none.tar", NotFound))


async def test_what_else_is_in_the_archive_is_left_alone(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    files: Files = {
        "../evil": b"x",
        "/etc/evil": b"x",
        "repositories": b"{}",
        "blobs/sha256/none": b"x",
        "blobs/x": b"x",
    }
    files |= {f"./{name}": data for name, data in layout_files([(made, named(NAME))]).items()}
    assert await brought(store, written(tmp_path, files)) == {NAME: made.target.digest}
    assert await here(store) == set(made.blobs)
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("form", FORMS[1:])
async def test_an_archive_that_is_cut_short_brings_no_image(tmp_path: Path, form: str) -> None:
    """Wherever that is, and however it is packed. What came before is gone after a collection."""
    data = written(tmp_path, layout_files([(simple(), named(NAME))]), form).read_bytes()
    last = len(data) - 1024 if form == "tar" else len(data) - 1
    places = sorted({0, 1, 511, 512, last, *random.Random(form).choices(range(last), k=20)})
    async with opened(tmp_path / "store") as store:
        for at in places:
            await refused(store, written(tmp_path, data[:at]), InvalidArgument)
        assert list(await brought(store, written(tmp_path, data))) == [NAME]


@pytest.mark.parametrize("form", FORMS[2:])
async def test_damage_of_the_packing_is_an_error(tmp_path: Path, form: str) -> None:
    """Be it in what no digest covers."""
    files = layout_files([(simple(), named(NAME))])
    data = written(tmp_path, files, form).read_bytes()
    async with opened(tmp_path / "store") as store:
        for at in random.Random(form).choices(range(20, len(data)), k=20):
            damaged = written(tmp_path, data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
            with trio.fail_after(TIMEOUT_S), pytest.raises(OrlopError):
                await orlop.import_archive(store, damaged)
            await nothing_came(store)


@pytest.mark.parametrize("step", [1, 3, 8])
async def test_an_import_that_is_cancelled_leaves_no_image(store: orlop.Store, tmp_path: Path, step: int) -> None:
    path = written(tmp_path, layout_files([(simple(), named(NAME)), (simple("2"), named("quay.io/c/d:2"))]))
    steps = 0
    with trio.CancelScope() as scope:

        def told(_: orlop.TransferProgress) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                scope.cancel()

        await orlop.import_archive(store, path, told=told)
    assert scope.cancelled_caught
    for ingest in [each async for each in store.content.ingests()]:  # a cut-off blob shortens the next attempt
        await store.content.abort(ingest.ref)
    await nothing_came(store)


# Platforms


BOTH: Mapping[str, MadeImage] = {HOST: simple(), OTHER: for_other()}


async def test_of_an_index_what_the_archive_holds_is_brought(store: orlop.Store, tmp_path: Path) -> None:
    files = layout_files([(BOTH, named(NAME))])
    for digest in BOTH[OTHER].blobs:
        files.pop(blob_path(digest))
    await brought(store, written(tmp_path, files))
    await has(store, BOTH[HOST])


async def test_platforms_can_be_chosen(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(BOTH, named(NAME))]))
    await brought(store, path, platforms=[parse_platform(OTHER, host_platform())])
    await has(store, BOTH[OTHER])
    assert not {blob.digest for blob in BOTH[HOST].layers} & await here(store)


async def test_a_platform_that_is_not_there_is_not_found(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(BOTH, named(NAME))]))
    error = await refused(store, path, NotFound, platforms=[parse_platform("linux/s390x", host_platform())])
    assert "linux/s390x" in str(error)
    assert HOST in error.hint
    assert OTHER in error.hint


async def test_a_chosen_platform_must_be_whole(store: orlop.Store, tmp_path: Path) -> None:
    files = layout_files([(BOTH, named(NAME))])
    del files[blob_path(BOTH[OTHER].layers[0].digest)]
    path = written(tmp_path, files)
    await refused(store, path, NotFound)
    await refused(store, path, NotFound, platforms=[parse_platform(OTHER, host_platform())])
    await brought(store, path, platforms=[host_platform()])
    await has(store, BOTH[HOST])
