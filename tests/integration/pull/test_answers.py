"""What a pull makes of what the registry answers."""

from __future__ import annotations

import gzip

import pytest
import trio

import orlop
from orlop.protocol.errors import (
    InvalidArgument,
    NotFound,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from tests.support.faulty_registry import FaultyRegistry, Lie, Status
from tests.support.layout_registry import LayoutRegistry
from tests.support.pulls import (
    ANY_BLOB,
    AT_ONCE,
    REPOSITORY,
    Layout,
    asked,
    blob_path,
    is_complete,
    pull,
    ranges,
    refused,
    replace_reference,
)


async def test_a_missing_tag_is_not_found(store: orlop.Store, registry: FaultyRegistry) -> None:
    error = await refused(store, replace_reference(asked(registry), f"{registry.address}/{REPOSITORY}:none"), NotFound)
    assert f"{REPOSITORY}:none" in str(error)


async def test_a_missing_blob_is_not_found_by_name(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.fault(blob_path(image.layer), Status(404), times=None)
    error = await refused(store, asked(registry), NotFound)
    assert image.layer in str(error)


async def test_403_is_permission_denied_and_is_not_tried_again(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"pay first"}]}'
    registry.fault(blob_path(image.layer), Status(403, {"Content-Type": "application/json"}, body), times=None)
    error = await refused(store, asked(registry), PermissionDenied)
    assert image.layer in str(error)
    assert "pay first" in str(error)
    assert len(ranges(registry, image.layer)) == 1


async def test_403_to_the_head_gives_the_registrys_words(store: orlop.Store, registry: FaultyRegistry) -> None:
    """Spec registry 5: a 403 to HEAD triggers one GET to obtain the error text."""
    body = b'{"errors":[{"code":"DENIED","message":"pay first"}]}'
    registry.fault("/manifests/latest", Status(403, {"Content-Type": "application/json"}, body), times=None)
    error = await refused(store, asked(registry), PermissionDenied)
    assert "pay first" in str(error)


async def test_retry_after_is_waited_for(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:  # 14
    registry.fault("HEAD ", Status(429, {"Retry-After": "1"}))
    began = trio.current_time()
    await pull(store, asked(registry))
    assert trio.current_time() - began >= 1.0
    await is_complete(store, image)


async def test_429_four_times_is_survived(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:  # 13
    registry.fault(blob_path(image.layer), Status(429, AT_ONCE), times=4)
    await pull(store, asked(registry))
    assert len(ranges(registry, image.layer)) == 5


async def test_429_without_end_is_resource_exhausted_after_five_requests(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault("HEAD ", Status(429, AT_ONCE), times=None)
    await refused(store, asked(registry), ResourceExhausted)
    assert len(registry.requests) == 5


async def test_server_errors_are_tried_again(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:  # 15
    for match, code in (("HEAD ", 500), ("/manifests/sha256", 502), (blob_path(image.layer), 503), (ANY_BLOB, 504)):
        registry.fault(match, Status(code, AT_ONCE))
    await pull(store, asked(registry))
    await is_complete(store, image)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_the_same_server_error_twice_is_unavailable_and_names_the_blob(
    store: orlop.Store, image: Layout, registry: FaultyRegistry, code: int
) -> None:  # 15
    """Spec registry 4: not tried again if the previous answer was the same status."""
    headers = {} if code == 503 else AT_ONCE
    registry.fault(blob_path(image.layer), Status(code, headers), times=2)
    error = await refused(store, asked(registry), Unavailable)
    assert image.layer in str(error)
    assert str(code) in str(error)
    assert len(ranges(registry, image.layer)) == 2
    await pull(store, asked(registry))
    await is_complete(store, image)


async def test_server_errors_that_differ_are_each_tried_again(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    for code in (500, 504, 500, 502):
        registry.fault(blob_path(image.layer), Status(code, AT_ONCE))
    await pull(store, asked(registry))
    assert len(ranges(registry, image.layer)) == 5
    await is_complete(store, image)


async def test_a_registry_that_says_when_to_come_again_is_asked_up_to_five_times(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault(blob_path(image.layer), Status(503, AT_ONCE), times=None)
    await refused(store, asked(registry), Unavailable)
    assert len(ranges(registry, image.layer)) == 5
    registry.heal()
    registry.clear()
    registry.fault(blob_path(image.layer), Status(503, AT_ONCE), times=4)
    await pull(store, asked(registry))
    assert len(ranges(registry, image.layer)) == 5


async def test_a_registry_that_is_not_there_is_unavailable(store: orlop.Store, image: Layout) -> None:
    with LayoutRegistry({REPOSITORY: image.folder}) as registry:
        request = asked(registry)
    error = await refused(store, request, Unavailable)
    assert request.reference.partition("/")[0] in str(error)


async def test_head_that_is_not_allowed_becomes_get(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 4
    registry.fault("HEAD ", Status(405), times=None)
    await pull(store, asked(registry))
    await is_complete(store, image)


async def test_head_without_a_digest_is_followed_by_get(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 3
    registry.fault("HEAD ", Lie(digest=""), times=None)
    assert (await pull(store, asked(registry))).target.digest == image.root


async def test_a_digest_that_is_none_is_refused_by_its_value(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.fault("HEAD ", Lie(digest="sha256:zz"), times=None)
    assert "sha256:zz" in str(await refused(store, asked(registry), OrlopError))  # 5


async def test_schema_1_is_refused(store: orlop.Store, registry: FaultyRegistry) -> None:  # 30
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    registry.fault("/manifests/", Lie(content_type=kind), times=None)
    assert "schema 1" in str(await refused(store, asked(registry), InvalidArgument))


async def test_a_type_that_says_nothing_is_found_out(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.fault("/manifests/", Lie(content_type="application/json"), times=None)
    pulled = await pull(store, asked(registry))
    assert pulled.target.media_type == image.made["media_type"]
    await is_complete(store, image)


async def test_a_manifest_over_the_limit_is_refused(store: orlop.Store, registry: FaultyRegistry) -> None:  # 31
    registry.fault("/manifests/", Lie(content_length_delta=4_393_217), times=None)
    await refused(store, asked(registry), OrlopError)


async def test_an_encoded_manifest_is_decoded(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    packed = gzip.compress(image.blob(image.root))
    headers = {"Content-Encoding": "gzip", "Content-Type": image.made["media_type"]}
    registry.fault(f"GET /v2/{REPOSITORY}/manifests/{image.root}", Status(200, headers, packed))
    await pull(store, asked(registry))
    await is_complete(store, image)
