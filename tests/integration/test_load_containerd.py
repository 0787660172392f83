"""The load harness asks a real containerd, and containerd's own client finds what it did."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from orlop.bin.load.steps.blobs import Blob, bytes_at, digest_of_blob
from orlop.bin.load.targets.interface import ROOT_LABEL, VALUE_LABEL, Seen, Target
from orlop.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
    Unknown,
)
from tests.support.containerd import Containerd, why_not
from tests.support.registries import DockerRegistry, MadeImage, make_layout, push_layout

if TYPE_CHECKING or not why_not():
    from orlop.bin.load.targets.containerd import connected, write_requests
    from orlop.bin.load.targets.containerd_calls import open_calls, pass_over
    from orlop.bin.load.targets.containerd_messages import WRITE_CONTENT

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "all is there")

MIB = 1024 * 1024
NAME = "registry.example/a:latest"
ROOT = {ROOT_LABEL: "load"}


async def read(target: Target, space: str, blob: Blob, offset: int, length: int) -> bytes:
    pieces: list[bytes] = []
    await target.read(space, blob, offset, length, pieces.append)
    return b"".join(pieces)


@pytest.fixture(autouse=True)
def closed_sockets() -> Iterator[None]:
    """gRPC closes its sockets a moment after it says so."""
    before = _sockets()
    yield
    deadline = time.monotonic() + 10
    while _sockets() > before:
        assert time.monotonic() < deadline, "a socket was left open"
        time.sleep(0.001)


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with Containerd() as running:
        yield running


@pytest.fixture
def mortal() -> Iterator[Containerd]:
    """One for a test that stops or kills it."""
    with Containerd() as running:
        yield running


@pytest.fixture
def space(request: pytest.FixtureRequest) -> str:
    """A namespace for each test, of which the other tests see nothing."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name).strip("-")[:70]


@pytest.fixture
async def target(containerd: Containerd, space: str) -> AsyncIterator[Target]:
    async with connected(containerd.address) as opened:
        await opened.ensure_namespace(space)
        yield opened


def images_of(containerd: Containerd, space: str) -> dict[str, tuple[str, str]]:
    """By name: digest and labels."""
    rows = containerd.rows(space, "images", "ls")
    return {row[0]: (row[2], row[-1]) for row in rows}


def blobs_of(containerd: Containerd, space: str) -> set[str]:
    return set(containerd.ctr(space, "content", "ls", "-q").decode().split())


def snapshots_of(containerd: Containerd, space: str) -> set[tuple[str, ...]]:
    return {tuple(row) for row in containerd.rows(space, "snapshots", "ls")}


# images ------------------------------------------------------------------------------------------------------


async def test_a_namespace_may_be_there_already(containerd: Containerd, target: Target, space: str):
    await target.ensure_namespace(space)
    assert space in containerd.ctr(space, "namespaces", "ls", "-q").decode().split()


async def test_a_created_image_is_what_ctr_shows(containerd: Containerd, target: Target, space: str):
    await target.create_image(space, NAME, "1")
    assert images_of(containerd, space) == {NAME: ("sha256:" + "a" * 64, f"{VALUE_LABEL}=1")}
    assert await target.get_image(space, NAME) == Seen(NAME, "1")


async def test_an_update_changes_the_one_label(containerd: Containerd, target: Target, space: str):
    await target.create_image(space, NAME, "1")
    containerd.ctr(space, "images", "label", NAME, "other=kept")
    await target.update_image(space, NAME, "2")
    assert images_of(containerd, space)[NAME] == ("sha256:" + "a" * 64, f"{VALUE_LABEL}=2,other=kept")
    assert (await target.get_image(space, NAME)).value == "2"


async def test_an_image_of_somebody_else_has_no_value(containerd: Containerd, target: Target, space: str):
    await target.create_image(space, NAME, "1")
    containerd.ctr(space, "images", "tag", NAME, "registry.example/b:latest")
    containerd.ctr(space, "images", "label", "registry.example/b:latest", f"{VALUE_LABEL}=")
    assert await target.get_image(space, "registry.example/b:latest") == Seen("registry.example/b:latest", "")


async def test_filters_choose_among_images(containerd: Containerd, target: Target, space: str):
    for number in range(12):
        await target.create_image(space, f"registry.example/{number}:latest", str(number % 3))
    assert await target.list_images(space, ()) == 12
    assert await target.list_images(space, (f'labels."{VALUE_LABEL}"==1',)) == 4
    assert await target.list_images(space, ("name==registry.example/3:latest", "name==registry.example/4:latest")) == 2
    assert len(images_of(containerd, space)) == 12


@pytest.mark.parametrize("sync", (False, True))
async def test_a_deleted_image_is_gone(containerd: Containerd, target: Target, space: str, sync: bool):
    await target.create_image(space, NAME, "1")
    await target.delete_image(space, NAME, sync=sync)
    assert images_of(containerd, space) == {}


async def test_errors_have_orlops_classes(target: Target, space: str):
    with pytest.raises(NotFound, match=f'image "{NAME}": not found'):
        await target.get_image(space, NAME)
    with pytest.raises(NotFound):
        await target.update_image(space, NAME, "1")
    with pytest.raises(NotFound):
        await target.delete_image(space, NAME, sync=True)
    await target.create_image(space, NAME, "1")
    with pytest.raises(AlreadyExists):
        await target.create_image(space, NAME, "2")
    with pytest.raises(InvalidArgument):
        await target.list_images(space, ("==",))
    with pytest.raises(InvalidArgument):
        await target.create_image("no namespace", NAME, "2")


async def test_a_published_image_holds_its_content_and_no_lease_is_left(
    containerd: Containerd, target: Target, space: str
):
    layers = [Blob("layer/1", 1000), Blob("layer/2", 2 * MIB + 1)]
    await target.publish_image(space, NAME, "1", layers)
    digest, labels = images_of(containerd, space)[NAME]
    assert labels == f"{VALUE_LABEL}=1"
    manifest = json.loads(containerd.ctr(space, "content", "get", digest))
    assert [(each["digest"], each["size"]) for each in manifest["layers"]] == [
        (digest_of_blob(layer), layer.size) for layer in layers
    ]
    assert containerd.rows(space, "leases", "ls") == []
    await target.collect()
    assert blobs_of(containerd, space) == {digest, *map(digest_of_blob, layers)}
    assert containerd.ctr(space, "content", "get", digest_of_blob(layers[1])) == bytes_at(layers[1], 0, 2 * MIB + 1)


async def test_layers_that_are_here_are_published_again(containerd: Containerd, target: Target, space: str):
    layers = [Blob("layer/here", 1000)]
    await target.publish_image(space, NAME, "1", layers)
    await target.publish_image(space, "registry.example/b:latest", "2", layers)
    await target.delete_image(space, NAME, sync=True)
    assert digest_of_blob(layers[0]) in blobs_of(containerd, space)


async def test_what_could_not_be_published_leaves_no_lease(containerd: Containerd, target: Target, space: str):
    await target.create_image(space, NAME, "1")
    with pytest.raises(AlreadyExists):
        await target.publish_image(space, NAME, "2", [Blob("layer/3", 1000)])
    assert containerd.rows(space, "leases", "ls") == []
    assert (await target.get_image(space, NAME)).value == "1"


async def test_dropped_images_take_their_content_with_them(containerd: Containerd, target: Target, space: str):
    await target.publish_image(space, NAME, "1", [Blob("layer/4", 1000)])
    await target.publish_image(space, "registry.example/b:latest", "1", [Blob("layer/5", 1000)])
    await target.drop_images(space)
    assert images_of(containerd, space) == {}
    assert blobs_of(containerd, space) == set()
    await target.drop_images(space)


# content -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", (1, 4096, MIB, MIB + 1, 3 * MIB + 500))
async def test_an_ingested_blob_is_what_ctr_reads(containerd: Containerd, target: Target, space: str, size: int):
    blob = Blob(f"blob/{size}", size)
    assert not await target.has_blob(space, blob)
    await target.ingest(space, blob, ROOT)
    assert await target.has_blob(space, blob)
    assert containerd.ctr(space, "content", "get", digest_of_blob(blob)) == bytes_at(blob, 0, size)
    (row,) = containerd.rows(space, "content", "ls")
    assert row[0] == digest_of_blob(blob)
    assert row[-1] == f"{ROOT_LABEL}=load"
    assert containerd.rows(space, "content", "active") == []


async def test_ranges_of_a_blob_are_read(target: Target, space: str):
    blob = Blob("ranges", 3 * MIB)
    await target.ingest(space, blob, ROOT)
    for offset, length in ((0, 1), (10, 4096), (MIB - 1, 2), (MIB + 7, MIB), (3 * MIB - 5, 5), (5, 0)):
        assert await read(target, space, blob, offset, length) == (bytes_at(blob, offset, length) if length else b"")
    for offset, length in ((0, 3 * MIB), (100, 2 * MIB)):
        assert await read(target, space, blob, offset, length) == bytes_at(blob, offset, length)


async def test_errors_of_content_have_orlops_classes(target: Target, space: str):
    for size in (1000, 2 * MIB):
        blob = Blob(f"errors/{size}", size)
        for length in (0, 1, size):
            with pytest.raises(NotFound):
                await read(target, space, blob, 0, length)
        with pytest.raises(NotFound):
            await target.delete_blob(space, blob)
        await target.ingest(space, blob, ROOT)
        with pytest.raises(AlreadyExists):
            await target.ingest(space, blob, ROOT)
        await target.delete_blob(space, blob)
        assert not await target.has_blob(space, blob)


async def test_a_collection_takes_what_nothing_holds(containerd: Containerd, target: Target, space: str):
    held, free = Blob("held", 1000), Blob("free", 1000)
    await target.ingest(space, held, ROOT)
    await target.ingest(space, free, {})
    await target.collect()
    assert blobs_of(containerd, space) == {digest_of_blob(held)}
    assert containerd.rows("default", "leases", "ls") == []


# snapshots ---------------------------------------------------------------------------------------------------


async def test_snapshots_are_what_ctr_shows(containerd: Containerd, target: Target, space: str):
    await target.prepare_snapshot(space, "base-key", "")
    assert not await target.has_snapshot(space, "base")
    assert snapshots_of(containerd, space) == {("base-key", "Active")}
    await target.commit_snapshot(space, "base", "base-key")
    await target.prepare_snapshot(space, "upper-key", "base")
    assert await target.has_snapshot(space, "base")
    await target.collect()
    assert snapshots_of(containerd, space) == {("base", "Committed"), ("upper-key", "base", "Active")}
    for name in ("base", "upper-key"):
        assert json.loads(containerd.ctr(space, "snapshots", "info", name))["Labels"] == ROOT
    with pytest.raises(FailedPrecondition):
        await target.remove_snapshot(space, "base")
    await target.remove_snapshot(space, "upper-key")
    await target.remove_snapshot(space, "base")
    assert snapshots_of(containerd, space) == set()
    with pytest.raises(NotFound):
        await target.commit_snapshot(space, "base", "base-key")
    with pytest.raises(NotFound):
        await target.prepare_snapshot(space, "upper-key", "base")


async def test_another_snapshotter_can_be_chosen(containerd: Containerd, space: str):
    async with connected(containerd.path, snapshotter="native") as target:
        await target.prepare_snapshot(space, "key", "")
    rows = containerd.rows(space, "snapshots", "--snapshotter", "native", "ls")
    assert rows == [["key", "Active"]]
    assert snapshots_of(containerd, space) == set()


# pulls -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, MadeImage]]:
    if not DockerRegistry.available() or shutil.which("skopeo") is None:
        pytest.skip("needs docker-registry and skopeo")
    folder = tmp_path_factory.mktemp("pushed")
    with DockerRegistry(folder / "registry") as registry:
        made = make_layout(folder / "layout", "--layers", "2", "--files", "5", "--size", "60K", "--tag", "1")
        push_layout(folder / "layout", registry.address, "a/b", "1")
        yield f"{registry.address}/a/b:1", made


@pytest.mark.parametrize("unpack", (True, False))
async def test_a_pull_is_as_ctr_pulls(
    containerd: Containerd, target: Target, space: str, pushed: tuple[str, MadeImage], unpack: bool
):
    reference, made = pushed
    await target.pull(space, reference, unpack=unpack, plain_http=True)
    assert images_of(containerd, space)[reference][0] == made["digest"]
    assert {layer["digest"] for layer in made["layers"]} < blobs_of(containerd, space)
    assert len(snapshots_of(containerd, space)) == (2 if unpack else 0)
    await target.drop_images(space)
    assert blobs_of(containerd, space) == set()
    assert snapshots_of(containerd, space) == set()


async def test_a_reference_that_is_not_there_is_not_found(target: Target, space: str, pushed: tuple[str, MadeImage]):
    reference, _ = pushed
    with pytest.raises(NotFound, match="not found"):
        await target.pull(space, reference + "0", unpack=True, plain_http=True)


async def test_without_ctr_nothing_is_pulled(
    target: Target, space: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPrecondition, match="ctr"):
        await target.pull(space, NAME, unpack=True, plain_http=True)


# connections -------------------------------------------------------------------------------------------------


async def test_it_knows_who_answers(containerd: Containerd, target: Target):
    assert await target.server_pid() == containerd.pid
    assert await target.metrics() is None


async def test_nobody_answers(tmp_path: Path):
    with pytest.raises(Unavailable):
        async with connected(f"unix:{tmp_path}/none"):
            pass


async def test_somebody_who_does_not_answer_is_nobody(mortal: Containerd):
    mortal.pause()
    with pytest.raises(Unavailable, match="does not answer"):
        async with open_calls(mortal.path, timeout_s=0.05):
            pass


async def test_containerd_has_no_port():
    with pytest.raises(InvalidArgument, match="tcp:127"):
        async with connected("tcp:127.0.0.1:1"):
            pass


async def test_each_connection_has_its_own_socket(containerd: Containerd):
    async with connected(containerd.address):
        one = _sockets()
        async with connected(containerd.address) as second:
            assert _sockets() == one + 1
            assert await second.server_pid() == containerd.pid


def _sockets() -> int:
    """Of this process."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
        except OSError:
            pass  # the listing's own
    return count


async def test_many_tasks_share_a_connection(containerd: Containerd, target: Target, space: str):
    async def work(number: int) -> None:
        for turn in range(5):
            name = f"registry.example/{number}/{turn}:latest"
            blob = Blob(f"shared/{number}/{turn}", 1000)
            await target.create_image(space, name, f"{number}.{turn}")
            await target.ingest(space, blob, ROOT)
            assert await target.get_image(space, name) == Seen(name, f"{number}.{turn}")
            assert await read(target, space, blob, 0, 1000) == bytes_at(blob, 0, 1000)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(work, number)
    assert len(images_of(containerd, space)) == 100
    assert len(blobs_of(containerd, space)) == 100


Work = Callable[[Target, str], Awaitable[object]]


async def _update(target: Target, space: str) -> None:
    await target.update_image(space, NAME, "2")


async def _ingest(target: Target, space: str) -> None:
    await target.ingest(space, Blob("small", 1000), ROOT)


async def _ingest_large(target: Target, space: str) -> None:
    await target.ingest(space, Blob("large", 5 * MIB), ROOT)


async def _get(target: Target, space: str) -> None:
    await target.get_image(space, NAME)


async def _read(target: Target, space: str) -> None:
    await read(target, space, Blob("here", 1000), 0, 1000)


WRITES = (_update, _ingest, _ingest_large)
READS = (_get, _read)


@pytest.mark.parametrize("work", WRITES + READS, ids=lambda work: work.__name__.strip("_"))
async def test_a_cancelled_call_ends_at_once_and_the_connection_lives(mortal: Containerd, work: Work):
    async with connected(mortal.address) as target:
        await _furnish(target)
        mortal.pause()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, target, "x")
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
        mortal.resume()
        with trio.CancelScope() as before:
            before.cancel()
            await work(target, "x")
        assert before.cancelled_caught
        await target.collect()
        try:
            await work(target, "x")
        except AlreadyExists:
            pass  # the cancelled one went through
        assert mortal.rows("x", "content", "active") == []


@pytest.mark.parametrize("work", WRITES + READS, ids=lambda work: work.__name__.strip("_"))
async def test_a_connection_that_is_left_in_the_middle_leaves_no_socket(mortal: Containerd, work: Work):
    async with connected(mortal.address) as target:
        await _furnish(target)
        mortal.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, target, "x")
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("work", "kind"),
    [*((work, Unknown) for work in WRITES), *((work, Unavailable) for work in READS)],
    ids=lambda value: value.__name__.strip("_"),
)
async def test_a_broken_connection_is_unknown_to_writes_and_comes_again(
    mortal: Containerd, work: Work, kind: type[Exception]
):
    async with connected(mortal.address) as target:
        await _furnish(target)
        mortal.pause()
        caught: list[OrlopError] = []

        async def ask() -> None:
            try:
                await work(target, "x")
            except OrlopError as error:
                caught.append(error)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.05)
                mortal.end(signal.SIGKILL)
        assert [type(error) for error in caught] == [kind]
        with pytest.raises(Unavailable):
            await work(target, "x")
        mortal.start()
        with trio.fail_after(20):
            while True:
                try:
                    assert await target.get_image("x", NAME) == Seen(NAME, "1")
                    break
                except Unavailable:
                    await trio.testing.wait_all_tasks_blocked(0.05)
        await work(target, "x")
        assert await target.server_pid() == mortal.pid


async def _furnish(target: Target) -> None:
    await target.ensure_namespace("x")
    await target.create_image("x", NAME, "1")
    await target.ingest("x", Blob("here", 1000), ROOT)


async def test_a_ref_that_another_writes_is_unavailable(containerd: Containerd, target: Target, space: str):
    """containerd says so itself: it is certainly not done."""
    blob = Blob("two", 2 * MIB)
    begun, ended = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def first_only() -> Iterator[dict[str, object]]:
        yield next(write_requests(blob, ROOT))
        ended.wait(20)

    def told(answers: Iterator[object]) -> None:
        next(answers)
        token.run_sync_soon(begun.set)
        pass_over(answers)

    async with open_calls(containerd.path) as calls, trio.open_nursery() as nursery:
        try:
            nursery.start_soon(lambda: calls.converse(WRITE_CONTENT, first_only(), told, namespace=space))
            await begun.wait()
            with pytest.raises(Unavailable, match="locked"):
                await target.ingest(space, blob, ROOT)
        finally:
            ended.set()


def test_without_its_libraries_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    package = "orlop.bin.load.targets"
    for name in ("containerd", "containerd_calls", "containerd_messages"):
        monkeypatch.delitem(sys.modules, f"{package}.{name}", raising=False)
        monkeypatch.delattr(sys.modules[package], name, raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(FailedPrecondition, match="grpc") as caught:
        __import__(f"{package}.containerd")
    assert caught.value.hint == "pip install 'orlop[load]'"
