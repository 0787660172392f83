"""Who a pull says it is, and to whom."""

from __future__ import annotations

import re

import orlop
from orlop.protocol.errors import Internal, OrlopError, Unauthenticated
from orlop.protocol.messages import Credentials
from tests.support.faulty_registry import BreakAfter, FaultyRegistry, Redirect, Status
from tests.support.layout_registry import Reply, Seen
from tests.support.pulls import (
    ANY_BLOB,
    REPOSITORY,
    Layout,
    asked,
    blob_path,
    is_complete,
    lines,
    pull,
    ranges,
    refused,
)


async def test_one_token_serves_the_whole_pull(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.require_bearer(user="ann", password="secret")
    await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
    assert registry.token_requests == 1  # 16
    (token,) = (seen for seen in registry.requests if seen.path.startswith("/token"))
    assert b"scope=repository%3Alibrary%2Fapp%3Apull" in token.body
    await is_complete(store, image)


async def test_a_token_for_anybody_needs_no_credentials(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:
    registry.require_bearer()
    await pull(store, asked(registry))
    assert lines(registry, "/token") == ["GET /token?service=test&scope=repository%3Alibrary%2Fapp%3Apull"]
    await is_complete(store, image)


async def test_an_identity_token_gets_a_token(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.require_bearer(user="ann", password="identity")
    await pull(store, asked(registry, credentials=Credentials("", "identity")))
    await is_complete(store, image)


async def test_a_token_server_that_takes_no_post_is_asked_with_get(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 17
    registry.require_bearer(user="ann", password="secret")
    registry.fault("POST /token", Status(404), times=None)
    await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
    await is_complete(store, image)


class Forgetful(FaultyRegistry):
    """Revokes all tokens when the first blob is asked for."""

    forgot = False

    def answer(self, seen: Seen) -> Reply:
        if "/blobs/" in seen.path and not self.forgot:
            self.forgot = True
            self.revoke_tokens()
        return super().answer(seen)


async def test_a_token_that_the_registry_forgot_is_fetched_anew(store: orlop.Store, image: Layout) -> None:
    """Spec registry 3: only a challenge with an error that comes twice for one request is the end."""
    with Forgetful({REPOSITORY: image.folder}) as registry:
        registry.require_bearer()
        await pull(store, asked(registry))
        assert registry.token_requests == 2
    await is_complete(store, image)


async def test_an_answer_of_the_token_server_without_token_is_said_clearly(
    store: orlop.Store, registry: FaultyRegistry
) -> None:  # 18
    registry.require_bearer()
    registry.fault("/token", Status(200, {"Content-Type": "application/json"}, b"{}"))
    error = await refused(store, asked(registry), Unauthenticated)
    assert "token" in str(error)


async def test_basic_credentials_are_sent(store: orlop.Store, image: Layout, registry: FaultyRegistry) -> None:
    registry.require_basic("ann", "secret")
    await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
    await is_complete(store, image)


async def test_wrong_basic_credentials_are_tried_once(store: orlop.Store, registry: FaultyRegistry) -> None:  # 20
    registry.require_basic("ann", "secret")
    error = await refused(store, asked(registry, credentials=Credentials("ann", "wrong")), Unauthenticated)
    assert "wrong" not in str(error)
    assert sum("authorization" in seen.headers for seen in registry.requests) == 1


async def test_wrong_credentials_for_a_token_are_unauthenticated(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.require_bearer(user="ann", password="secret")
    error = await refused(store, asked(registry, credentials=Credentials("ann", "wrong")), Unauthenticated)
    assert "wrong" not in str(error)
    assert registry.token_requests <= 2


async def test_no_credentials_where_some_are_needed_ends_after_one_request(
    store: orlop.Store, registry: FaultyRegistry
) -> None:  # 19
    registry.require_basic("ann", "secret")
    await refused(store, asked(registry), Unauthenticated)
    assert len(registry.requests) == 1


async def test_a_redirect_to_another_host_carries_no_credentials(
    store: orlop.Store, image: Layout, registry: FaultyRegistry
) -> None:  # 21
    registry.require_basic("ann", "secret")
    with FaultyRegistry({REPOSITORY: image.folder}) as elsewhere:
        registry.fault(ANY_BLOB, Redirect(elsewhere.url), times=None)
        elsewhere.fault(blob_path(image.layer), BreakAfter(60_000))
        await pull(store, asked(registry, credentials=Credentials("ann", "secret")))
        assert len(elsewhere.requests) == 5  # two layers, two configs, and one layer's rest
        assert not any("authorization" in seen.headers for seen in elsewhere.requests)
        assert ranges(elsewhere, image.layer)[0] is None
        assert re.fullmatch(r"bytes=\d+-", ranges(elsewhere, image.layer)[1] or "")
    await is_complete(store, image)


async def test_redirects_in_a_ring_end(store: orlop.Store, registry: FaultyRegistry) -> None:  # 22
    registry.fault(ANY_BLOB, Redirect(registry.url), times=None)
    error = await refused(store, asked(registry, max_concurrent_downloads=1), OrlopError)
    assert not isinstance(error, Internal)
    assert "redirect" in str(error)
    assert len(lines(registry, "/blobs/")) <= 3 * 11
