"""How a registry lets itself be read and written: passwords, tokens with their scopes, and where none of it may go.

Source: spec registry 3; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import trio

import orlop
from orlop.actors.config import TransferConfig
from orlop.protocol.errors import OrlopError, Unauthenticated, Unavailable
from tests.support.faulty_registry import Action, BreakAfter, FaultyRegistry, Redirect, Stall, Status
from tests.support.images import MadeImage, write_layout
from tests.support.layout_registry import Reply, Seen
from tests.support.registries import DockerRegistry
from tests.support.transfers import as_pulled, has, lines, opened, pull, push, random_image, refuses
from tests.support.writable_registry import WritableRegistry

USER, PASSWORD = "ann", "right horse"
ANN = orlop.RegistryAccess(plain_http=True, credentials=orlop.Credentials(USER, PASSWORD))
WRONG = orlop.RegistryAccess(plain_http=True, credentials=orlop.Credentials(USER, "wrong horse"))
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuLK4yYxcGJwQr33yKnQTmKjI1WQSUD2K\n"  # bcrypt of the password
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
REPOSITORY = "lib/app"
PUSH = f"repository:{REPOSITORY}:pull,push"
PULL = f"repository:{REPOSITORY}:pull"
real_registry = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("access")


@pytest.fixture(scope="module")
def layout(made: MadeImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("access") / "layout", made)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store") as store:
        yield store


@pytest.fixture
async def full(tmp_path: Path, made: MadeImage) -> AsyncIterator[orlop.Store]:
    """A store with the image `here`, of which it says not where it came from."""
    async with opened(tmp_path / "full") as store:
        await made.stored(store, "here")
        yield store


@pytest.fixture
def registry(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: layout}) as registry:
        yield registry


@pytest.fixture
def writable() -> Iterator[WritableRegistry]:
    with WritableRegistry() as registry:
        yield registry


def at(registry: FaultyRegistry | DockerRegistry, repository: str = REPOSITORY) -> str:
    return f"{registry.address}/{repository}:latest"


# Passwords, at a real registry


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[DockerRegistry]:
    path = tmp_path / "htpasswd"
    path.write_text(HTPASSWD)
    settings = {"auth": {"htpasswd": {"realm": "tests", "path": str(path)}}}
    with DockerRegistry(tmp_path / "registry", settings) as registry:
        yield registry


@real_registry
async def test_a_password_opens_a_real_registry_for_push_and_pull(
    store: orlop.Store, full: orlop.Store, made: MadeImage, guarded: DockerRegistry
) -> None:
    pushed = await push(full, at(guarded), "here", ANN)
    assert pushed.target.digest == made.target.digest
    assert (await pull(store, at(guarded), ANN)).target.digest == made.target.digest
    await has(store, made)


@real_registry
async def test_a_wrong_password_is_tried_no_more_than_twice(
    store: orlop.Store, full: orlop.Store, guarded: DockerRegistry
) -> None:  # 20
    for transfer in (pull(store, at(guarded), WRONG), push(full, at(guarded), "here", WRONG)):
        guarded.clear()
        async with refuses(Unauthenticated) as caught:
            await transfer
        assert "horse" not in str(caught[0])
        assert len(guarded.requests()) <= 2


@real_registry
async def test_without_a_password_a_real_registry_is_asked_once(
    store: orlop.Store, full: orlop.Store, guarded: DockerRegistry
) -> None:  # 19
    for transfer in (pull(store, at(guarded)), push(full, at(guarded), "here")):
        guarded.clear()
        async with refuses(Unauthenticated):
            await transfer
        assert len(guarded.requests()) == 1


async def test_a_password_is_sent_unasked_once_it_is_known_to_be_wanted(
    full: orlop.Store, writable: WritableRegistry
) -> None:
    writable.require_basic(USER, PASSWORD)
    await push(full, at(writable), "here", ANN)
    assert [seen.headers.get("authorization") for seen in writable.requests][1:] == [BASIC] * (
        len(writable.requests) - 1
    )
    assert "authorization" not in writable.requests[0].headers


# Tokens


def scopes(registry: FaultyRegistry) -> list[list[str]]:
    """What each token was asked for."""
    found = []
    for seen in registry.requests:
        path, _, query = seen.path.partition("?")
        if path == "/token":
            form = parse_qs(seen.body.decode() if seen.method == "POST" else query)
            found.append([scope for text in form["scope"] for scope in text.split()])
    return found


async def test_a_pull_asks_for_pull_alone(store: orlop.Store, registry: FaultyRegistry) -> None:  # 16
    registry.require_bearer(names_scope=False)
    await pull(store, at(registry))
    assert scopes(registry) == [[PULL]]


async def test_a_push_asks_for_pull_and_push(full: orlop.Store, writable: WritableRegistry, made: MadeImage) -> None:
    writable.require_bearer(names_scope=False)
    await push(full, at(writable), "here")
    assert scopes(writable) == [[PUSH]]
    assert writable.held[REPOSITORY].tags == {"latest": made.target.digest}


async def test_a_mount_asks_for_pull_of_the_other_repository_too(
    full: orlop.Store, writable: WritableRegistry, made: MadeImage
) -> None:
    writable.require_bearer(names_scope=False)
    await push(full, at(writable, "lib/source"), "here")
    await as_pulled(full, made, writable.address, "lib/source")
    writable.clear()
    await push(full, at(writable), "here")
    assert scopes(writable) == [[PUSH], [PUSH, "repository:lib/source:pull"]]
    assert len(set(lines(writable, "?mount="))) == 3
    assert lines(writable, "PUT ") == [f"PUT /v2/{REPOSITORY}/manifests/latest"]


async def test_what_the_challenge_names_is_asked_for_as_well(
    full: orlop.Store, writable: WritableRegistry
) -> None:  # spec registry 3.1: the sorted union
    writable.require_bearer()
    await push(full, at(writable), "here")
    assert scopes(writable) == [[PULL, PUSH]]


async def test_what_is_asked_for_with_get_has_a_parameter_for_each_scope(
    full: orlop.Store, writable: WritableRegistry
) -> None:
    writable.require_bearer()
    await push(full, at(writable), "here")
    (query,) = (parse_qs(seen.path.partition("?")[2]) for seen in writable.requests if "/token" in seen.path)
    assert query == {"service": ["test"], "scope": [PULL, PUSH]}


@pytest.mark.parametrize(
    "credentials, expected",
    [
        (
            orlop.Credentials(USER, PASSWORD),
            {"grant_type": ["password"], "username": [USER], "password": [PASSWORD]},
        ),
        (orlop.Credentials("", PASSWORD), {"grant_type": ["refresh_token"], "refresh_token": [PASSWORD]}),
    ],
    ids=["password", "identity token"],
)
async def test_credentials_are_sent_in_a_form(
    full: orlop.Store, writable: WritableRegistry, credentials: orlop.Credentials, expected: dict[str, list[str]]
) -> None:
    writable.require_bearer(user=USER, password=PASSWORD)
    await push(full, at(writable), "here", orlop.RegistryAccess(plain_http=True, credentials=credentials))
    (request,) = (seen for seen in writable.requests if seen.path.startswith("/token"))
    assert (request.method, request.path) == ("POST", "/token")
    form = parse_qs(request.body.decode())
    assert form.pop("client_id")
    assert form == {**expected, "service": ["test"], "scope": [f"{PULL} {PUSH}"]}
    assert "authorization" not in request.headers


@pytest.mark.parametrize("code", [400, 401, 404, 405])
async def test_a_token_server_that_takes_no_form_is_asked_with_get(
    full: orlop.Store, writable: WritableRegistry, made: MadeImage, code: int
) -> None:  # 17
    writable.require_bearer(user=USER, password=PASSWORD)
    writable.fault("POST /token", Status(code), times=None)
    await push(full, at(writable), "here", ANN)
    (got,) = (seen for seen in writable.requests if seen.line.startswith("GET /token"))
    assert got.headers["authorization"] == BASIC
    assert writable.held[REPOSITORY].tags == {"latest": made.target.digest}


@pytest.mark.parametrize("body", [b"{}", b'{"token": ""}', b"[]", b"no json", b"\xff"])
async def test_an_answer_without_token_is_said_clearly(
    full: orlop.Store, writable: WritableRegistry, body: bytes
) -> None:  # 18
    writable.require_bearer()
    writable.fault("/token", Status(200, {"Content-Type": "application/json"}, body), times=None)
    async with refuses(Unauthenticated) as caught:
        await push(full, at(writable), "here")
    assert "sent no token" in str(caught[0])
    assert writable.held == {}


class TwoTokens(FaultyRegistry):
    """Sends the good token under the name that wins, and another one under the other name."""

    def _right(self, seen: Seen) -> Reply:
        reply = super()._right(seen)
        if not seen.path.startswith("/token"):
            return reply
        said = json.loads(b"".join(reply.parts))
        body = json.dumps({"access_token": said["token"], "token": "another"}).encode()
        return replace(reply, length=len(body), parts=iter([body]))


async def test_of_two_tokens_access_token_is_used(store: orlop.Store, layout: Path, made: MadeImage) -> None:
    with TwoTokens({REPOSITORY: layout}) as registry:
        registry.require_bearer()
        await pull(store, at(registry))
        assert registry.token_requests == 1
    await has(store, made)


async def test_a_token_is_replaced_when_its_time_is_over(tmp_path: Path, layout: Path, made: MadeImage) -> None:
    """One that lives no longer than a second, and a layer that takes longer."""
    async with opened(tmp_path / "patient", transfer=TransferConfig(stall_s=10.0)) as store:
        with FaultyRegistry({REPOSITORY: layout}) as registry:
            registry.require_bearer(expires_in=1)
            registry.fault(f"GET /v2/{REPOSITORY}/blobs/", Stall(10, 1.2))
            await pull(store, at(registry), max_concurrent_downloads=1)
            assert registry.token_requests >= 2
        await has(store, made)


async def test_a_token_with_a_long_life_is_used_again(full: orlop.Store, writable: WritableRegistry) -> None:
    writable.require_bearer(expires_in=3600)
    await push(full, at(writable), "here", max_concurrent_uploads=8)
    assert writable.token_requests == 1


class Forgetful(WritableRegistry):
    """Revokes all tokens when the first blob comes."""

    forgot = False

    def answer(self, seen: Seen) -> Reply:
        if seen.method == "PUT" and "/blobs/" in seen.path and not self.forgot:
            self.forgot = True
            self.revoke_tokens()
        return super().answer(seen)


async def test_a_blob_whose_token_was_forgotten_is_sent_again(full: orlop.Store, made: MadeImage) -> None:
    with Forgetful() as registry:
        registry.require_bearer()
        await push(full, at(registry), "here", max_concurrent_uploads=1)
        assert registry.token_requests == 2
        assert len(lines(registry, "PUT ")) == 1 + len(made.blobs)
        assert registry.held[REPOSITORY].digests == set(made.blobs)


async def test_a_registry_that_refuses_its_own_tokens_ends_it(store: orlop.Store, registry: FaultyRegistry) -> None:
    registry.require_bearer()
    challenge = f'Bearer realm="{registry.url}/token",error="insufficient_scope"'
    registry.fault("/v2/", Status(401, {"WWW-Authenticate": challenge}), times=None)
    async with refuses(Unauthenticated):
        await pull(store, at(registry))
    assert len(lines(registry, "/v2/")) <= 3
    assert registry.token_requests <= 2


async def test_a_token_server_that_does_not_answer_is_unavailable_by_name(
    store: orlop.Store, registry: FaultyRegistry
) -> None:
    with FaultyRegistry({}) as tokens:
        registry.require_bearer(tokens)
        tokens.fault("/token", BreakAfter(None), times=None)
        async with refuses(Unavailable) as caught:
            await pull(store, at(registry))
        assert tokens.address in str(caught[0])


@pytest.mark.parametrize("fault", [BreakAfter(None), Status(503), Status(429)], ids=str)
async def test_a_token_server_that_fails_once_is_asked_again(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage, fault: Action
) -> None:
    registry.require_bearer()
    failed = registry.fault("/token", fault)
    await pull(store, at(registry))
    await has(store, made)
    assert failed.applied == 1


@pytest.mark.parametrize("realm", ["", "/token", "ftp://127.0.0.1/token", "nonsense"])
async def test_a_realm_that_is_no_url_is_refused(store: orlop.Store, registry: FaultyRegistry, realm: str) -> None:
    registry.fault("/v2/", Status(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}), times=None)
    async with refuses(Unauthenticated):
        await pull(store, at(registry), ANN)
    assert len(registry.requests) == 1


class Polyglot(FaultyRegistry):
    """Offers more ways to authenticate than it has."""

    def answer(self, seen: Seen) -> Reply:
        reply = super().answer(seen)
        if reply.status != 401:
            return reply
        ways = ['Negotiate, NTLM dGVzdA==, Digest realm="x, y",nonce=z', 'Basic realm="x"']
        offered = ", ".join([*ways, reply.headers["WWW-Authenticate"]])
        return replace(reply, headers={**reply.headers, "WWW-Authenticate": offered})


async def test_bearer_is_preferred_and_what_is_unknown_is_passed_over(
    store: orlop.Store, layout: Path, made: MadeImage
) -> None:
    with Polyglot({REPOSITORY: layout}) as registry:
        registry.require_bearer(user=USER, password=PASSWORD)
        await pull(store, at(registry), ANN)
        assert not any(seen.headers.get("authorization") == BASIC for seen in registry.requests)
        assert registry.token_requests == 1
    await has(store, made)


class Particular(FaultyRegistry):
    """Its token server wants to be asked with a query of its own."""

    def answer(self, seen: Seen) -> Reply:
        reply = super().answer(seen)
        challenge = reply.headers.get("WWW-Authenticate", "").replace('/token"', '/token?account=x&scope=none"')
        return replace(reply, headers={**reply.headers, "WWW-Authenticate": challenge}) if challenge else reply


async def test_the_query_of_a_realm_is_kept(store: orlop.Store, layout: Path, made: MadeImage) -> None:
    with Particular({REPOSITORY: layout}) as registry:
        registry.require_bearer()
        await pull(store, at(registry))
        (query,) = (parse_qs(line.partition("?")[2]) for line in lines(registry, "/token"))
        assert query == {"account": ["x"], "service": ["test"], "scope": [PULL]}
    await has(store, made)


# Where credentials do not go


async def test_an_upload_to_another_host_carries_no_credentials(full: orlop.Store, made: MadeImage) -> None:  # 46
    with WritableRegistry() as registry, WritableRegistry(shares=registry) as elsewhere:
        registry.require_bearer(user=USER, password=PASSWORD)
        registry.uploads_at = elsewhere.url
        await push(full, at(registry), "here", ANN)
        assert len(lines(elsewhere, "PUT ")) == 3
        assert not any("authorization" in seen.headers for seen in elsewhere.requests)
        assert registry.held[REPOSITORY].tags == {"latest": made.target.digest}


async def test_an_upload_elsewhere_that_asks_for_credentials_gets_none(full: orlop.Store) -> None:
    with WritableRegistry() as registry, WritableRegistry(shares=registry) as elsewhere:
        registry.require_basic(USER, PASSWORD)
        elsewhere.require_basic(USER, PASSWORD)
        registry.uploads_at = elsewhere.url
        async with refuses(Unauthenticated):
            await push(full, at(registry), "here", ANN)
        assert not any("authorization" in seen.headers for seen in elsewhere.requests)
        assert registry.held[REPOSITORY].tags == {}


async def test_a_redirect_to_the_same_machine_by_another_name_carries_no_credentials(
    store: orlop.Store, registry: FaultyRegistry
) -> None:
    registry.require_basic(USER, PASSWORD)
    registry.fault("/blobs/", Redirect(f"http://localhost:{registry.port}"), times=None)
    async with refuses(Unauthenticated):
        await pull(store, at(registry), ANN)
    there = [seen for seen in registry.requests if seen.headers["host"].startswith("localhost")]
    assert there
    assert not any("authorization" in seen.headers for seen in there)


async def test_a_redirect_on_the_same_host_keeps_credentials(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage
) -> None:
    registry.require_bearer(user=USER, password=PASSWORD)
    registry.fault(made.layers[0].digest, Redirect(registry.url), times=3)
    await pull(store, at(registry), ANN)
    assert len(lines(registry, made.layers[0].digest)) == 4
    await has(store, made)


@pytest.mark.parametrize("hops, well", [(10, True), (11, False)])
async def test_ten_redirects_are_followed_and_no_more(
    store: orlop.Store, registry: FaultyRegistry, hops: int, well: bool
) -> None:  # 22
    registry.fault("HEAD ", Redirect(registry.url), times=hops)
    if well:
        await pull(store, at(registry))
        return
    async with refuses(OrlopError) as caught:
        await pull(store, at(registry))
    assert "10 redirects" in str(caught[0])
    assert len(registry.requests) == 11


async def test_a_push_is_redirected_with_its_bytes(full: orlop.Store, made: MadeImage) -> None:
    with WritableRegistry() as registry, WritableRegistry(shares=registry) as elsewhere:
        registry.require_basic(USER, PASSWORD)
        registry.fault("PUT ", Redirect(elsewhere.url), times=None)
        await push(full, at(registry), "here", ANN)
        assert registry.held[REPOSITORY].digests == set(made.blobs)
        assert not any("authorization" in seen.headers for seen in elsewhere.requests)


async def test_secrets_are_in_no_error(full: orlop.Store, writable: WritableRegistry) -> None:
    """Spec registry 5: what follows the question mark of a URL is left out of errors."""
    writable.require_bearer(user=USER, password=PASSWORD)
    writable.fault("PUT /v2/", Status(403), times=None)
    async with refuses(OrlopError) as caught:
        await push(full, at(writable), "here", ANN)
    assert "_state" not in str(caught[0])
    assert PASSWORD not in str(caught[0])


async def test_a_cancelled_wait_for_a_token_does_not_hold_up_the_others(
    store: orlop.Store, registry: FaultyRegistry, made: MadeImage
) -> None:
    registry.require_bearer()
    stalled = registry.fault("/token", Stall(None, None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, store, at(registry))
        while not stalled.applied:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await pull(store, at(registry))
    await has(store, made)
