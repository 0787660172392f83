"""Uploads that break, stall, are refused or meet each other: what is sent again, and what is told in the end.

Source: spec registry 4 and 10; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition, OrlopError, PermissionDenied, ResourceExhausted, Unavailable
from tests.support.faulty_registry import (
    Action,
    BreakAfter,
    FaultyRegistry,
    Lie,
    NoAnswer,
    Redirect,
    Stall,
    Status,
    TakeOnly,
)
from tests.support.images import MadeImage
from tests.support.layers import digest_of
from tests.support.layout_registry import Reply, Seen
from tests.support.registries import DockerRegistry
from tests.support.transfers import (
    AT_ONCE,
    STALL_S,
    TIMEOUT_S,
    has,
    lines,
    opened,
    pull,
    push,
    random_image,
    refuses,
    stored,
)
from tests.support.writable_registry import WritableRegistry

REPOSITORY = "lib/app"
SIZE = 60_000
UPLOADS = f"/v2/{REPOSITORY}/blobs/uploads/"
PUT_BLOB = f"PUT {UPLOADS}"
PATCH_BLOB = f"PATCH {UPLOADS}"
real_registry = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")


@pytest.fixture(scope="module")
def made() -> MadeImage:
    """One large layer; the config is its only other blob."""
    return random_image("uploads", (SIZE,))


def at(registry: FaultyRegistry | DockerRegistry, tag: str = "v1") -> str:
    return f"{registry.address}/{REPOSITORY}:{tag}"


def layer_only(registry: WritableRegistry, made: MadeImage) -> None:
    """The registry has the config already, so all uploads are of the layer."""
    registry.held[REPOSITORY].blobs[made.config_digest] = made.config


def is_whole(registry: WritableRegistry, made: MadeImage) -> None:
    held = registry.held[REPOSITORY]
    assert held.tags == {"v1": made.target.digest}
    assert held.digests == set(made.blobs)
    assert held.blobs[made.layers[0].digest] == made.layers[0].data


def ranges(registry: WritableRegistry) -> list[str]:
    return [seen.headers.get("content-range", "") for seen in registry.requests if seen.method == "PATCH"]


# In chunks


async def test_a_blob_is_sent_in_one_piece(store: orlop.Store, registry: WritableRegistry, made: MadeImage) -> None:
    layer_only(registry, made)
    await push(store, at(registry), "one")
    assert lines(registry, "PATCH ") == []
    (put,) = (seen for seen in registry.requests if seen.line.startswith(PUT_BLOB))
    assert (put.headers["content-type"], put.headers["content-length"]) == ("application/octet-stream", str(SIZE))
    assert "transfer-encoding" not in put.headers
    assert put.path.endswith(f"&digest={made.layers[0].digest}")
    is_whole(registry, made)


@pytest.mark.parametrize("absolute", [False, True])
async def test_a_blob_is_sent_in_chunks_if_it_is_said(store: orlop.Store, made: MadeImage, absolute: bool) -> None:
    with WritableRegistry(absolute=absolute) as registry:
        layer_only(registry, made)
        await push(store, at(registry), "one", chunk_bytes=25_000)
        assert ranges(registry) == ["0-24999", "25000-49999", "50000-59999"]
        assert [len(seen.body) for seen in registry.requests if seen.line.startswith(PUT_BLOB)] == [0]
        is_whole(registry, made)


@real_registry
@pytest.mark.parametrize("chunk_bytes", [SIZE - 1, SIZE, SIZE + 1, 1 << 30, 7000])
async def test_a_real_registry_takes_chunks(
    store: orlop.Store, tmp_path: Path, made: MadeImage, chunk_bytes: int
) -> None:
    with DockerRegistry(tmp_path / "registry") as registry:
        await push(store, at(registry), "one", chunk_bytes=chunk_bytes)
        patches = [line for line in registry.requests() if line[0] == "PATCH" and UPLOADS in line[1]]
        assert len(patches) == -(-SIZE // chunk_bytes) + -(-len(made.config) // chunk_bytes)
        async with opened(tmp_path / "other") as other:
            await pull(other, at(registry))
            await has(other, made)


# Broken off


@pytest.mark.parametrize("count", [2, 100, 20_000, SIZE - 1])
async def test_an_upload_goes_on_where_the_registry_says_it_stands(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, count: int
) -> None:
    layer_only(registry, made)
    registry.fault(PUT_BLOB, TakeOnly(count))
    await push(store, at(registry), "one")
    assert ranges(registry) == [f"{count}-{SIZE - 1}"]
    assert len(lines(registry, "POST ")) == 1
    is_whole(registry, made)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("chunk_bytes", [0, 25_000])
async def test_where_it_cannot_be_told_whether_a_byte_came_the_blob_is_right_all_the_same(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, count: int, chunk_bytes: int
) -> None:
    """`Range: 0-0` is what docker's registry says of no byte and of one."""
    layer_only(registry, made)
    registry.fault(PATCH_BLOB if chunk_bytes else PUT_BLOB, TakeOnly(count))
    await push(store, at(registry), "one", chunk_bytes=chunk_bytes)
    is_whole(registry, made)


async def test_what_came_whole_but_was_not_answered_is_only_finished(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    layer_only(registry, made)
    registry.fault(PUT_BLOB, TakeOnly(SIZE))
    await push(store, at(registry), "one")
    assert ranges(registry) == []
    assert [len(seen.body) for seen in registry.requests if seen.line.startswith(PUT_BLOB)] == [SIZE, 0]
    is_whole(registry, made)


@pytest.mark.parametrize("chunk_bytes", [0, 25_000])
async def test_what_was_stored_but_not_answered_is_good(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, chunk_bytes: int
) -> None:
    layer_only(registry, made)
    registry.fault(PUT_BLOB, NoAnswer())
    registry.fault("PUT /v2/lib/app/manifests/", NoAnswer())
    await push(store, at(registry), "one", chunk_bytes=chunk_bytes)
    assert len(lines(registry, PUT_BLOB)) == 1  # it is not sent twice
    is_whole(registry, made)


async def test_a_chunk_that_breaks_goes_on_within_it(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    layer_only(registry, made)
    patch = registry.fault(PATCH_BLOB, TakeOnly(25_000))
    registry.fault(PATCH_BLOB, TakeOnly(10_000))
    await push(store, at(registry), "one", chunk_bytes=25_000)
    assert patch.applied == 1
    assert ranges(registry) == ["0-24999", "25000-49999", "35000-59999"]
    is_whole(registry, made)


async def test_as_long_as_it_gets_on_it_may_break_any_number_of_times(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    layer_only(registry, made)
    registry.fault(re.compile(f"^(PUT|PATCH) {UPLOADS}"), TakeOnly(7000), times=8)
    await push(store, at(registry), "one")
    assert ranges(registry) == [f"{7000 * number}-{SIZE - 1}" for number in range(1, 9)]
    is_whole(registry, made)


async def test_an_upload_that_stalls_goes_on(store: orlop.Store, registry: WritableRegistry, made: MadeImage) -> None:
    layer_only(registry, made)
    registry.fault(PUT_BLOB, Stall(None, None))
    await push(store, at(registry), "one")
    is_whole(registry, made)


async def test_an_upload_that_the_registry_forgot_begins_anew(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    layer_only(registry, made)
    registry.fault(PUT_BLOB, TakeOnly(20_000))
    registry.fault(f"GET {UPLOADS}", Status(404))
    await push(store, at(registry), "one")
    assert len(lines(registry, "POST ")) == 2
    is_whole(registry, made)


async def test_an_upload_that_never_gets_on_ends_and_sets_no_tag(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    layer_only(registry, made)
    registry.fault(PUT_BLOB, TakeOnly(20_000))
    registry.fault(re.compile(f"^(PUT|PATCH) {UPLOADS}"), TakeOnly(0), times=None)
    async with refuses(Unavailable) as caught:
        await push(store, at(registry), "one")
    assert made.layers[0].digest in str(caught[0])
    assert len(lines(registry, PATCH_BLOB)) <= 5
    assert registry.held[REPOSITORY].tags == {}
    registry.heal()
    await push(store, at(registry), "one")
    is_whole(registry, made)


@real_registry
async def test_a_push_to_a_registry_that_ended_is_unavailable_and_the_next_one_is_whole(
    store: orlop.Store, tmp_path: Path, made: MadeImage
) -> None:
    with DockerRegistry(tmp_path / "registry") as registry:
        gone = at(registry)
    async with refuses(Unavailable):
        await push(store, gone, "one")
    with DockerRegistry(tmp_path / "registry") as registry:
        await push(store, at(registry), "one")
        async with opened(tmp_path / "other") as other:
            await pull(other, at(registry))
            await has(other, made)


# Refused for now, or for good


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("match", ["HEAD ", "POST ", PUT_BLOB, f"PUT /v2/{REPOSITORY}/manifests/"])
async def test_what_is_refused_for_now_is_sent_again(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str, code: int
) -> None:
    fault = registry.fault(match, Status(code, AT_ONCE))
    await push(store, at(registry), "one")
    assert fault.applied == 1
    is_whole(registry, made)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
@pytest.mark.parametrize("match", ["HEAD ", "POST ", f"P.* {UPLOADS}.", f"PUT /v2/{REPOSITORY}/manifests/"])
async def test_the_same_server_error_twice_ends_the_push(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str, code: int
) -> None:
    """Spec registry 10.1: as for pulls; also where the blob's bytes would be asked for once more."""
    layer_only(registry, made)
    fault = registry.fault(re.compile(match), Status(code), times=None)
    async with refuses(Unavailable) as caught:
        await push(store, at(registry), "one")
    assert f"{code}" in str(caught[0])
    assert fault.applied == 2
    assert registry.held[REPOSITORY].tags == {}
    registry.heal()
    await push(store, at(registry), "one")
    is_whole(registry, made)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("match", ["POST ", PUT_BLOB, PATCH_BLOB, f"PUT /v2/{REPOSITORY}/manifests/"])
async def test_retry_after_is_waited_for(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str, code: int
) -> None:  # 14
    layer_only(registry, made)
    registry.fault(match, Status(code, {"Retry-After": "1"}))
    began = trio.current_time()
    await push(store, at(registry), "one", chunk_bytes=SIZE if match == PATCH_BLOB else 0)
    assert trio.current_time() - began >= 1.0
    is_whole(registry, made)


@pytest.mark.parametrize("match", ["POST ", PUT_BLOB, f"PUT /v2/{REPOSITORY}/manifests/"])
async def test_429_four_times_is_survived_and_without_end_is_resource_exhausted(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str
) -> None:  # 13
    layer_only(registry, made)
    registry.fault(match, Status(429, AT_ONCE), times=None)
    async with refuses(ResourceExhausted):
        await push(store, at(registry), "one")
    assert len(lines(registry, match)) == 5
    registry.heal()
    registry.fault(match, Status(429, AT_ONCE), times=4)
    await push(store, at(registry), "one")
    is_whole(registry, made)


@pytest.mark.parametrize("code, kind", [(403, PermissionDenied), (400, FailedPrecondition), (413, FailedPrecondition)])
@pytest.mark.parametrize("match", ["POST ", PUT_BLOB, f"PUT /v2/{REPOSITORY}/manifests/"])
async def test_what_is_refused_for_good_is_told_in_the_registrys_words(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str, code: int, kind: type[OrlopError]
) -> None:
    layer_only(registry, made)
    body = b'{"errors":[{"code":"DENIED","message":"pay first"}]}'
    registry.fault(match, Status(code, {"Content-Type": "application/json"}, body), times=None)
    async with refuses(kind) as caught:
        await push(store, at(registry), "one")
    assert "pay first" in str(caught[0])
    assert len(lines(registry, match)) == 1
    assert registry.held[REPOSITORY].tags == {}


async def test_an_index_that_is_refused_says_what_may_be_missing(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    await stored(store, "index", {"linux/amd64": made})
    registry.fault("PUT /v2/lib/app/manifests/v1", Status(400), times=None)
    async with refuses(FailedPrecondition) as caught:
        await push(store, at(registry), "index")
    assert "platform" in caught[0].hint


@pytest.mark.parametrize("match", [PUT_BLOB, f"PUT /v2/{REPOSITORY}/manifests/"])
async def test_an_answer_with_another_digest_is_an_error(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str
) -> None:  # 45
    other = digest_of(b"other")
    registry.fault(match, Lie(digest=other), times=None)
    async with refuses(FailedPrecondition) as caught:
        await push(store, at(registry), "one", max_concurrent_uploads=1)
    assert other in str(caught[0])


@pytest.mark.parametrize("match", [PUT_BLOB, f"PUT /v2/{REPOSITORY}/manifests/"])
async def test_an_answer_without_a_digest_is_fine(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str
) -> None:
    registry.fault(match, Lie(digest=""), times=None)
    await push(store, at(registry), "one")
    is_whole(registry, made)


async def test_a_registry_that_does_not_say_where_to_send_it_is_refused(
    store: orlop.Store, registry: WritableRegistry
) -> None:
    registry.fault("POST ", Status(202), times=None)
    async with refuses(FailedPrecondition):
        await push(store, at(registry), "one")


# Several at once


async def test_two_pushes_at_once_send_each_blob_once(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage
) -> None:
    registry.fault("PUT ", Stall(None, STALL_S / 2), times=3)
    other = store.in_namespace("other")
    await stored(other, "one", made)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(push, store, at(registry, "v1"), "one")
        nursery.start_soon(push, store, at(registry, "v2"), "one")
        nursery.start_soon(push, other, at(registry, "v3"), "one")
    assert registry.held[REPOSITORY].tags == dict.fromkeys(("v1", "v2", "v3"), made.target.digest)
    assert len(lines(registry, PUT_BLOB)) == len(made.blobs) - 1
    assert len(lines(registry, "POST ")) == len(made.blobs) - 1


class Counting(WritableRegistry):
    """Remembers how many blobs came at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self._guard_of_count = threading.Lock()
        self._now = self.most = 0

    def answer(self, seen: Seen) -> Reply:
        if not seen.line.startswith(PUT_BLOB):
            return super().answer(seen)
        with self._guard_of_count:
            self._now += 1
            self.most = max(self.most, self._now)
        self.closing.wait(0.05)  # so that those allowed at once meet
        with self._guard_of_count:
            self._now -= 1
        return super().answer(seen)


async def test_no_more_blobs_at_once_than_was_said(store: orlop.Store) -> None:
    many = random_image("many", [500] * 10)
    await stored(store, "many", many)
    with Counting() as registry:
        await push(store, at(registry), "many", max_concurrent_uploads=3)
        assert registry.most == 3
        assert registry.held[REPOSITORY].digests == set(many.blobs)


# Cancelled


@pytest.mark.parametrize(
    "match, action",
    [
        ("HEAD ", Stall(None, None)),
        ("POST ", Stall(None, None)),
        (PUT_BLOB, Stall(None, None)),
        (PUT_BLOB, Redirect("http://127.0.0.1:1")),
        (f"PUT /v2/{REPOSITORY}/manifests/", Stall(None, None)),
        (f"PUT /v2/{REPOSITORY}/manifests/", BreakAfter(None)),
    ],
)
async def test_a_push_that_ends_early_leaves_the_tag_where_it_was(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, match: str, action: Action
) -> None:
    older = random_image("older")
    await stored(store, "older", older)
    await push(store, at(registry), "older")
    fault = registry.fault(match, action, times=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(may_fail, store, at(registry))
        with trio.fail_after(TIMEOUT_S):
            while not fault.applied:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert registry.held[REPOSITORY].tags == {"v1": older.target.digest}
    registry.heal()
    await push(store, at(registry), "one")
    assert registry.held[REPOSITORY].tags == {"v1": made.target.digest}


async def may_fail(store: orlop.Store, reference: str) -> None:
    with suppress(OrlopError):
        await push(store, reference, "one")
