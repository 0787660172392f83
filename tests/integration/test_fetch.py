"""Single objects from a registry, without an image. Source: spec registry 6; 57 of its section 14."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError
from tests.support.archive_stores import TIMEOUT_S, here, opened, recorded
from tests.support.archives import simple
from tests.support.faulty_registry import FaultyRegistry, Lie, Stall, WrongBytes
from tests.support.images import write_layout
from tests.support.layers import GZIP, digest_of

REPOSITORY = "library/app"
SOURCE_LABEL = "containerd.io/distribution.source.127.0.0.1"
MADE = simple()
LARGE, SMALL = (orlop.Descriptor(GZIP, blob.digest, len(blob.data)) for blob in MADE.layers)
NOWHERE = orlop.Descriptor(GZIP, digest_of(b"nowhere"), 7)


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: write_layout(tmp_path / "layout", MADE)}) as registry:
        yield registry


def asked(registry: FaultyRegistry, *blobs: orlop.Descriptor, repository: str = REPOSITORY) -> orlop.FetchBlobs:
    access = orlop.RegistryAccess(plain_http=True)
    return orlop.FetchBlobs(f"{registry.address}/{repository}", list(blobs), access)


async def fetch(store: orlop.Store, request: orlop.FetchBlobs) -> None:
    with trio.fail_after(TIMEOUT_S):
        await store.fetch(request)


async def refused(store: orlop.Store, request: orlop.FetchBlobs, kind: type[OrlopError]) -> OrlopError:
    with pytest.raises(kind) as caught:
        await fetch(store, request)
    assert "\n" not in str(caught.value)
    assert await recorded(store) == {}
    return caught.value


async def test_what_is_fetched_under_a_lease_lives_as_long(store: orlop.Store, registry: FaultyRegistry) -> None:
    async with store.lease() as leased:
        await fetch(leased, asked(registry, SMALL, LARGE))
        await store.collect()
        assert await here(store) == {SMALL.digest, LARGE.digest}
        for descriptor in (SMALL, LARGE):
            assert await store.content.read(descriptor.digest) == MADE.blobs[descriptor.digest]
            assert (await store.content.info(descriptor.digest)).labels == {SOURCE_LABEL: REPOSITORY}
        assert await recorded(store) == {}
        paths = [seen.path for seen in registry.requests if seen.method == "GET" and REPOSITORY in seen.path]
        assert sorted(paths) == sorted(f"/v2/{REPOSITORY}/blobs/{each.digest}" for each in (SMALL, LARGE))
    await store.collect()
    assert await here(store) == set()


async def test_without_a_lease_it_goes_with_the_next_collection(store: orlop.Store, registry: FaultyRegistry) -> None:
    await fetch(store, asked(registry, SMALL))
    assert [lease async for lease in store.leases.list()] == []
    await store.collect()
    assert await here(store) == set()


async def test_a_manifest_is_fetched_alone_and_keeps_what_is_here_of_it(
    store: orlop.Store, registry: FaultyRegistry
) -> None:
    async with store.lease() as leased:
        await fetch(leased, asked(registry, MADE.target))
        assert await here(store) == {MADE.target.digest}
        labels = (await store.content.info(MADE.target.digest)).labels
        assert labels["containerd.io/gc.ref.content.l.0"] == LARGE.digest
        assert labels["containerd.io/gc.ref.content.config"] == MADE.config_digest


async def test_what_is_here_is_not_asked_for(store: orlop.Store, registry: FaultyRegistry) -> None:
    async with store.lease() as leased:
        await fetch(leased, asked(registry, SMALL, LARGE))
        registry.clear()
        await fetch(leased, asked(registry, SMALL, LARGE))
        await fetch(store.in_namespace("other"), asked(registry, SMALL, LARGE))
    assert [seen.line for seen in registry.requests if REPOSITORY in seen.path] == []


async def test_nothing_to_fetch_is_done_at_once(store: orlop.Store, registry: FaultyRegistry) -> None:
    await fetch(store, asked(registry))
    assert registry.requests == []


async def test_what_the_repository_does_not_have_is_not_found(store: orlop.Store, registry: FaultyRegistry) -> None:
    assert NOWHERE.digest in str(await refused(store, asked(registry, SMALL, NOWHERE), NotFound))
    await refused(store, asked(registry, LARGE, repository="library/none"), NotFound)


@pytest.mark.parametrize("descriptor", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", [WrongBytes(), Lie(content_length_delta=-1), Lie(content_length_delta=1)], ids=str)
async def test_wrong_bytes_are_refused_and_not_kept(
    store: orlop.Store, registry: FaultyRegistry, descriptor: orlop.Descriptor, fault: WrongBytes | Lie
) -> None:
    registry.fault("/blobs/", fault, times=None)
    await refused(store, asked(registry, descriptor), OrlopError)
    assert await here(store) == set()
    registry.heal()
    async with store.lease() as leased:
        await fetch(leased, asked(registry, descriptor))
        assert await store.content.read(descriptor.digest) == MADE.blobs[descriptor.digest]


async def test_a_size_that_is_not_that_of_the_blob_is_refused(store: orlop.Store, registry: FaultyRegistry) -> None:
    for size in (SMALL.size - 1, SMALL.size + 1):
        await refused(store, asked(registry, orlop.Descriptor(GZIP, SMALL.digest, size)), OrlopError)
        assert await here(store) == set()


@pytest.mark.parametrize("size", [0, -1])
async def test_a_blob_must_have_a_size(store: orlop.Store, registry: FaultyRegistry, size: int) -> None:
    """Said before any request, as for a pull."""
    await refused(store, asked(registry, orlop.Descriptor(GZIP, SMALL.digest, size)), InvalidArgument)
    assert registry.requests == []


async def test_what_can_never_be_is_refused_before_any_request(store: orlop.Store, registry: FaultyRegistry) -> None:
    await refused(store, asked(registry, SMALL, orlop.Descriptor(GZIP, "sha256:abc", 1)), InvalidArgument)
    for repository in ("library/app://x", "", " "):
        await refused(store, asked(registry, SMALL, repository=repository), InvalidArgument)
    assert registry.requests == []


async def test_a_fetch_that_is_cancelled_goes_on_where_it_was(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("/blobs/", Stall(LARGE.size // 2, None))
    begun = trio.Event()

    def told(progress: orlop.TransferProgress) -> None:
        if progress.offset:
            begun.set()

    async with trio.open_nursery() as nursery:

        async def fetching() -> None:
            await store.fetch(asked(registry, LARGE), told)

        nursery.start_soon(fetching)
        with trio.fail_after(TIMEOUT_S):
            await begun.wait()
        nursery.cancel_scope.cancel()
    assert await here(store) == set()
    registry.clear()
    await fetch(store, asked(registry, LARGE))
    ranges = [seen.headers.get("range") for seen in registry.requests if LARGE.digest in seen.path]
    assert ranges == [f"bytes={LARGE.size // 2}-"]


async def test_two_fetches_at_once_download_a_blob_once(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("/blobs/", Stall(100, 0.1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, store, asked(registry, LARGE))
        nursery.start_soon(fetch, store.in_namespace("other"), asked(registry, LARGE))
    assert len([seen for seen in registry.requests if LARGE.digest in seen.path]) == 1


async def test_wrong_bytes_are_a_failed_precondition(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("/blobs/", WrongBytes(), times=None)
    assert LARGE.digest in str(await refused(store, asked(registry, LARGE), FailedPrecondition))
