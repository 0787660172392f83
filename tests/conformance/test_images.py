"""Images: records under free-form names, each with one target.

Source: spec metadata 1.3 to 1.6, 2, 4, 5, 8, 11, 18.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol import errors, methods
from orlop.protocol.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.protocol.messages import CreateImage, ListImages, UpdateImage

VECTORS = Path(__file__).parent.parent / "vectors"
DIGESTS = json.loads((VECTORS / "digests.json").read_text())
SIZES = json.loads((VECTORS / "label_sizes.json").read_text())
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
A = orlop.Descriptor(MANIFEST, "sha256:" + "a" * 64, 7)
B = orlop.Descriptor("application/vnd.oci.image.index.v1+json", "sha256:" + "b" * 64, 8)
HOUR_NS = 3600 * 1_000_000_000
EXPIRE = "containerd.io/gc.expire"


async def names(store: orlop.Store) -> list[str]:
    return [image.name async for image in store.images.list()]


def target_of(data: bytes) -> orlop.Descriptor:
    return orlop.Descriptor(MANIFEST, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))


async def outcome(call: Awaitable[object]) -> str:
    """`ok`, or the class of the error."""
    try:
        await call
    except errors.OrlopError as error:
        return type(error).__name__
    return "ok"


# create and get ------------------------------------------------------------------------------------------


async def test_a_created_image_is_got_as_it_was_given(store: orlop.Store) -> None:
    target = orlop.Descriptor(MANIFEST, A.digest, 2**40, {"note": "x" * 9001, "empty": ""})
    before = time.time_ns()
    created = await store.images.create("example/app:1", target, {"a": "1", "empty": ""})
    after = time.time_ns()
    assert created.name == "example/app:1"
    assert created.labels == {"a": "1"}
    assert created.target == orlop.Descriptor(MANIFEST, A.digest, 2**40, {"note": "x" * 9001})
    assert before <= created.created_at <= after
    assert created.updated_at == created.created_at
    assert await store.images.get("example/app:1") == created
    assert [image async for image in store.images.list()] == [created]


async def test_a_name_is_any_text_of_up_to_512_bytes(store: orlop.Store) -> None:
    accepted = ["a b/c:d@e", "\x00", "牛/🚢", "new\nline", "../../etc", "é" * 256, "n" * 512]
    for name in accepted:
        assert (await store.images.create(name, A)).name == name
        assert (await store.images.get(name)).name == name
    for name in ("", "é" * 256 + "x", "n" * 513):
        with pytest.raises(InvalidArgument):
            await store.images.create(name, A)
    assert await names(store) == sorted(accepted)


async def test_create_refuses_what_is_no_target(store: orlop.Store) -> None:
    for target in (
        orlop.Descriptor(MANIFEST, A.digest, 0),
        orlop.Descriptor(MANIFEST, A.digest, -1),
        orlop.Descriptor(MANIFEST, A.digest, 2**63),
        orlop.Descriptor("", A.digest, 7),
        orlop.Descriptor(MANIFEST, "", 7),
    ):
        assert await outcome(store.images.create("i", target)) == "InvalidArgument", target
    for row in DIGESTS:
        target = orlop.Descriptor(MANIFEST, row["digest"], 7)
        if row["ok"]:
            await store.images.create(row["digest"], target)
        else:
            assert await outcome(store.images.create("i", target)) == "InvalidArgument", row
    assert await names(store) == sorted(row["digest"] for row in DIGESTS if row["ok"])


async def test_label_sizes_count_bytes_of_key_and_value(store: orlop.Store) -> None:
    for number, row in enumerate(SIZES):
        labels = {"k" * row["key_bytes"]: row["value_fill"] * row["value_repeat"]}
        # A value without a key is refused, whatever its size.
        if row["ok"] and row["key_bytes"] > 0:
            image = await store.images.create(f"n{number}", A, labels)
            assert image.labels == {key: value for key, value in labels.items() if value}, row
        else:
            assert await outcome(store.images.create(f"n{number}", A, labels)) == "InvalidArgument", row
    assert (await store.images.create("empty pair", A, {"": ""})).labels == {}


async def test_create_of_a_taken_name_is_refused_and_changes_nothing(store: orlop.Store) -> None:
    created = await store.images.create("i", A, {"a": "1"})
    with pytest.raises(AlreadyExists, match="i"):
        await store.images.create("i", B, {"a": "2"})
    with pytest.raises(InvalidArgument):
        await store.images.create("i", orlop.Descriptor("", B.digest, 8))
    assert await store.images.get("i") == created


async def test_an_absent_image_is_not_found(store: orlop.Store) -> None:
    for elsewhere_too in (False, True):
        if elsewhere_too:
            await store.in_namespace("other").images.create("absent", A)
        for name in ("absent", ""):
            with pytest.raises(NotFound):
                await store.images.get(name)
            with pytest.raises(NotFound):
                await store.images.delete(name)
            with pytest.raises(NotFound):
                await store.images.delete(name, target=A.digest, sync=True)
    with pytest.raises(NotFound):
        await store.images.update("absent", target=A)
    with pytest.raises(InvalidArgument):
        await store.images.update("", target=A)


async def test_of_32_concurrent_creates_one_succeeds(store: orlop.Store) -> None:
    won: list[orlop.Image] = []
    refused: list[AlreadyExists] = []

    async def create(number: int) -> None:
        try:
            won.append(await store.images.create("one", A, {"winner": str(number)}))
        except AlreadyExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(create, number)
    assert (len(won), len(refused)) == (1, 31)
    assert [image async for image in store.images.list()] == won


# update --------------------------------------------------------------------------------------------------


async def test_update_without_a_mask_replaces_labels_and_target(store: orlop.Store) -> None:
    annotated = orlop.Descriptor(A.media_type, A.digest, A.size, {"n": "1"})
    created = await store.images.create("i", annotated, {"a": "1", "b": "2"})
    updated = await store.images.update("i", target=B, labels={"b": "3", "c": ""})
    assert (updated.target, updated.labels) == (B, {"b": "3"})
    assert updated.created_at == created.created_at
    assert updated.updated_at > created.updated_at
    assert await store.images.get("i") == updated
    assert (await store.images.update("i", target=B)).labels == {}


async def test_update_without_a_mask_needs_a_whole_target(store: orlop.Store) -> None:
    created = await store.images.create("i", A, {"a": "1"})
    for target in (
        None,
        orlop.Descriptor("", B.digest, 8),
        orlop.Descriptor(MANIFEST, "sha256:short", 8),
        orlop.Descriptor(MANIFEST, B.digest, 0),
    ):
        with pytest.raises(InvalidArgument):
            await store.images.update("i", target=target, labels={"a": "2"})
    assert await store.images.get("i") == created


async def test_a_mask_without_paths_means_no_mask(store: orlop.Store) -> None:
    await store.images.create("i", A, {"a": "1"})
    updated = await store.images.update("i", target=B, labels={"b": "2"}, mask=[])
    assert (updated.target, updated.labels) == (B, {"b": "2"})


async def test_label_paths_change_labels_alone_and_need_no_target(store: orlop.Store) -> None:
    annotated = orlop.Descriptor(A.media_type, A.digest, A.size, {"n": "1"})
    await store.images.create("i", annotated, {"keep": "1", "gone": "2", "emptied": "3"})
    updated = await store.images.update(
        "i",
        labels={"x.y.z/w": "new", "emptied": "", "unselected": "9"},
        mask=["labels.x.y.z/w", "labels.gone", "labels.emptied", "labels.never", "labels.gone"],
    )
    assert updated.labels == {"keep": "1", "x.y.z/w": "new"}
    assert updated.target == annotated
    replaced = await store.images.update("i", target=B, labels={"only": "1"}, mask=["labels"])
    assert replaced.labels == {"only": "1"}
    assert replaced.target == annotated
    overlapping = await store.images.update("i", labels={"a": "1"}, mask=["labels.a", "labels", "labels.a"])
    assert overlapping.labels == {"a": "1"}
    assert (await store.images.update("i", mask=["labels."])).labels == {"a": "1"}
    assert (await store.images.update("i", mask=["labels"])).labels == {}


async def test_annotation_paths_change_annotations_of_the_stored_target(store: orlop.Store) -> None:
    annotated = orlop.Descriptor(A.media_type, A.digest, A.size, {"keep": "1", "gone": "2"})
    await store.images.create("i", annotated, {"a": "1"})
    body = orlop.Descriptor(B.media_type, B.digest, B.size, {"x.y/z": "new", "unselected": "9"})
    updated = await store.images.update(
        "i", target=body, labels={"a": "2"}, mask=["annotations.x.y/z", "annotations.gone"]
    )
    assert updated.target == orlop.Descriptor(A.media_type, A.digest, A.size, {"keep": "1", "x.y/z": "new"})
    assert updated.labels == {"a": "1"}
    updated = await store.images.update("i", target=body, mask=["annotations"])
    assert updated.target == orlop.Descriptor(A.media_type, A.digest, A.size, {"x.y/z": "new", "unselected": "9"})


async def test_the_path_target_replaces_it_as_a_whole_and_no_label(store: orlop.Store) -> None:
    annotated = orlop.Descriptor(A.media_type, A.digest, A.size, {"n": "1"})
    await store.images.create("i", annotated, {"a": "1"})
    updated = await store.images.update("i", target=B, labels={"a": "2"}, mask=["target"])
    assert (updated.target, updated.labels) == (B, {"a": "1"})
    with pytest.raises(InvalidArgument):
        await store.images.update("i", labels={"a": "2"}, mask=["labels", "target"])
    assert await store.images.get("i") == updated


async def test_update_looks_for_the_record_before_the_paths(store: orlop.Store) -> None:
    with pytest.raises(NotFound):
        await store.images.update("absent", target=A, mask=["no.such.path"])
    with pytest.raises(NotFound):
        await store.images.update("absent", target=orlop.Descriptor("", "", 0))


async def test_a_refused_path_undoes_those_before_it(store: orlop.Store) -> None:
    created = await store.images.create("i", A, {"a": "1"})
    for path in ("target.digest", "name", "created_at", "", "*", "labels[a]"):
        assert (
            await outcome(store.images.update("i", target=B, labels={"a": "2"}, mask=["labels.a", "target", path]))
            == "InvalidArgument"
        ), path
    assert await store.images.get("i") == created


async def test_what_is_validated_is_what_would_be_stored(store: orlop.Store) -> None:
    created = await store.images.create("i", A, {"a": "1"})
    huge = {"a": "2", "k": "é" * 2048}
    assert (await store.images.update("i", labels=huge, mask=["labels.a"])).labels == {"a": "2"}
    unsound = orlop.Descriptor("", "no digest", 0)
    assert (await store.images.update("i", target=unsound, labels=huge, mask=["labels.a"])).target == A
    assert (await store.images.update("i", target=B, labels=huge, mask=["target"])).target == B
    for mask in (None, ["labels"], ["labels.k"]):
        with pytest.raises(InvalidArgument):
            await store.images.update("i", target=A, labels=huge, mask=mask)
    found = await store.images.get("i")
    assert (found.target, found.labels, found.created_at) == (B, {"a": "2"}, created.created_at)


async def test_every_successful_update_moves_updated_at_and_no_failed_one(store: orlop.Store) -> None:
    last = await store.images.create("i", A, {"a": "1"})
    for mask in (None, ["labels"], ["labels.a"], ["target"], ["annotations"]):
        updated = await store.images.update("i", target=A, labels={"a": "1"}, mask=mask)
        assert updated.updated_at > last.updated_at, mask
        assert (updated.created_at, updated.target, updated.labels) == (last.created_at, A, {"a": "1"}), mask
        last = updated
    with pytest.raises(InvalidArgument):
        await store.images.update("i", target=A, mask=["name"])
    assert await store.images.get("i") == last


async def test_source_date_epoch_stands_for_now(store: orlop.Store) -> None:
    created = await store.images._call(methods.IMAGES_CREATE, CreateImage("i", A, {}, 2 * HOUR_NS))
    assert (created.created_at, created.updated_at) == (2 * HOUR_NS, 2 * HOUR_NS)
    request = UpdateImage("i", A, {}, None, HOUR_NS)
    updated = await store.images._call(methods.IMAGES_UPDATE, request)
    assert (updated.created_at, updated.updated_at) == (2 * HOUR_NS, HOUR_NS)
    assert await store.images.get("i") == updated
    assert (await store.images.update("i", target=A)).updated_at > 2 * HOUR_NS


async def test_concurrent_updates_of_different_labels_all_hold(store: orlop.Store) -> None:
    await store.images.create("i", A)
    async with trio.open_nursery() as nursery:
        for number in range(32):
            labels = {f"k{number}": str(number)}

            async def update(labels: dict[str, str] = labels) -> None:
                await store.images.update("i", labels=labels, mask=[f"labels.{next(iter(labels))}"])

            nursery.start_soon(update)
    assert (await store.images.get("i")).labels == {f"k{n}": str(n) for n in range(32)}


# delete --------------------------------------------------------------------------------------------------


async def test_delete_with_a_target_compares_the_digest_alone(store: orlop.Store) -> None:
    created = await store.images.create("i", A)
    with pytest.raises(NotFound) as refused:
        await store.images.delete("i", target=B.digest)
    assert A.digest in str(refused.value)
    assert B.digest in str(refused.value)
    assert await store.images.get("i") == created
    await store.images.delete("i", target=A.digest)
    await store.images.create("i", B)
    await store.images.delete("i", target="")
    with pytest.raises(NotFound):
        await store.images.get("i")


async def test_synchronous_delete_answers_when_what_only_it_held_is_gone(store: orlop.Store) -> None:
    await store.images.create("kept", target_of(b"kept"))
    await store.images.create("gone", target_of(b"gone"))
    await store.content.put(b"kept")
    await store.content.put(b"gone")
    await store.images.delete("gone", sync=True)
    assert [info.digest async for info in store.content.list()] == [target_of(b"kept").digest]


async def test_a_deleted_name_can_be_taken_again(store: orlop.Store) -> None:
    first = await store.images.create("i", A, {"a": "1"})
    await store.images.delete("i")
    second = await store.images.create("i", B)
    assert second.labels == {}
    assert second.created_at > first.created_at


async def _until_gone(store: orlop.Store, digest: str) -> None:
    """Collections of content publish nothing, so that one can only be waited for by looking."""
    with trio.fail_after(5):
        while True:
            try:
                await store.content.info(digest)
            except NotFound:
                return
            await trio.sleep(0.002)


async def test_an_update_that_drops_a_reference_wakes_the_collector(store: orlop.Store) -> None:
    leaf = target_of(b"leaf")
    await store.images.create("i", target_of(b"root"), {"containerd.io/gc.ref.content.leaf": leaf.digest})
    await store.content.put(b"root")
    await store.content.put(b"leaf")
    await store.images.update("i", mask=["labels.containerd.io/gc.ref.content.leaf"])
    await _until_gone(store, leaf.digest)
    assert await store.content.read(target_of(b"root").digest) == b"root"
    await store.images.update("i", target=B, mask=["target"])
    await _until_gone(store, target_of(b"root").digest)


async def test_a_collection_removes_expired_images_and_no_others(store: orlop.Store) -> None:
    await store.images.create("i-past", target_of(b"past"), {EXPIRE: "2001-02-03T04:05:06Z"})
    await store.images.create("i-offset", target_of(b"past"), {EXPIRE: "2001-02-03T04:05:06.789+02:00"})
    await store.images.create("i-future", A, {EXPIRE: "2999-02-03T04:05:06Z"})
    await store.images.create("i-unparsable", A, {EXPIRE: "tomorrow"})
    await store.images.create("other", A)
    await store.images.delete("other", sync=True)
    assert await names(store) == ["i-future", "i-unparsable"]


# lists ---------------------------------------------------------------------------------------------------


async def test_images_are_listed_in_the_byte_order_of_their_names(store: orlop.Store) -> None:
    expected = [
        "\x00", "\x00\x00", "\x01", "B", "a", "a\x00", "a\x00b", "a\x01", "a!", "a/b", "a10", "a9", "a_1", "aa",
        "c1", "z", "é", "牛", "\uffee", "\uffff", "🚢",
    ]  # fmt: skip
    for name in expected[::2] + expected[1::2]:
        await store.images.create(name, A)
    assert await names(store) == expected
    for limit in (1, 4):
        listed, after = [], ""
        while True:
            page = await store.images._call(methods.IMAGES_LIST, ListImages(after=after, limit=limit))
            assert len(page.items) <= limit
            listed += [image.name for image in page.items]
            after = page.next
            if not after:
                break
        assert listed == expected


async def test_a_list_of_2500_is_gapless_while_others_come_and_go(store: orlop.Store) -> None:
    stable = [f"s/{number:04}" for number in range(2500)]
    started: list[str] = []

    async def create(share: list[str]) -> None:
        for name in share:
            await store.images.create(name, A)

    async with trio.open_nursery() as nursery:
        for part in range(64):
            nursery.start_soon(create, stable[part::64])
    # Beside each hundredth stands one that is deleted when the list has come to it.
    passing = [f"s/{number:04}+" for number in range(99, 2500, 100)]
    await create(passing)

    listed: list[str] = []
    ended = trio.Event()

    async def churn() -> None:
        turn = 0
        while not ended.is_set():
            name = f"s/{turn * 7 % 2500:04}~{turn}"
            started.append(name)
            await store.images.create(name, A)
            await store.images.delete(name)
            turn += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(churn)
        after = ""
        while True:
            page = await store.images._call(methods.IMAGES_LIST, ListImages(after=after, limit=101))
            here = [image.name for image in page.items]
            listed += here
            for name in here:
                if name.endswith("+"):  # also when the cursor stands on it
                    await store.images.delete(name)
            after = page.next
            if not after:
                break
            await create([f"r/{len(listed)}", f"s/{len(listed):04}-"])
        ended.set()
    assert [name for name in listed if len(name) == 6] == stable
    assert [name for name in listed if name.endswith("+")] == passing
    assert listed == sorted(set(listed))
    assert len(started) > 0
