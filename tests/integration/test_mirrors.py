"""Pulls and pushes through the hosts that `hosts.toml` names: who is asked, for what, and what comes of it.

Source: spec registry 2; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import orlop
from orlop.actors.config import RegistryConfig
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, Unauthenticated, Unavailable
from orlop.protocol.messages import TransferProgress, TransferState
from tests.support.faulty_registry import FaultyRegistry, Redirect, Status, WrongBytes
from tests.support.images import MadeImage, write_layout
from tests.support.layout_registry import Reply, Seen
from tests.support.transfers import AT_ONCE, PLAIN, has, lines, opened, pull, push, random_image, refuses, write_hosts
from tests.support.writable_registry import WritableRegistry

NAME = "example.test"
REPOSITORY = "lib/a"
REFERENCE = f"{NAME}/{REPOSITORY}:v"
FROM_HOSTS = orlop.RegistryAccess()
"""Nothing but what is configured."""


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("hosts")


@pytest.fixture(scope="module")
def layout(made: MadeImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("hosts") / "layout", made, "v")


@pytest.fixture
def mirror(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: layout}) as registry:
        yield registry


@pytest.fixture
def server(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: layout}) as registry:
        yield registry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", registry=RegistryConfig(hosts_dir=str(tmp_path / "hosts"))) as store:
        yield store


def configure(tmp_path: Path, text: str, namespace: str = NAME) -> None:
    write_hosts(tmp_path / "hosts", namespace, text)


def mirrored(mirror: FaultyRegistry, server: FaultyRegistry, more: str = "", path: str = "") -> str:
    return f'server = "{server.url}"\n[host."{mirror.url}{path}"]\n{more}\n'


async def pulled(store: orlop.Store, made: MadeImage, reference: str = REFERENCE, **options: Any) -> orlop.Image:
    """Through the hosts' configuration alone."""
    image = await pull(store, reference, FROM_HOSTS, **options)
    assert image.target.digest == made.target.digest
    await has(store, made)
    return image


async def test_a_mirror_serves_it_all_and_is_told_for_whom(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, mirrored(mirror, server))
    await pulled(store, made)
    assert server.requests == []
    assert lines(mirror)[0] == f"HEAD /v2/{REPOSITORY}/manifests/v?ns={NAME}"
    assert all(line.endswith(f"?ns={NAME}") for line in lines(mirror))
    assert len(lines(mirror, "/blobs/")) == 3


@pytest.mark.parametrize(
    "more, path, asked",
    [
        ('capabilities = ["pull", "resolve"]', "/proxy", "/proxy/v2"),
        ("override_path = true", "/v2/proxy", "/v2/proxy"),
    ],
)
async def test_what_the_mirror_has_not_the_server_is_asked_for(
    store: orlop.Store,
    tmp_path: Path,
    made: MadeImage,
    mirror: FaultyRegistry,
    server: FaultyRegistry,
    more: str,
    path: str,
    asked: str,
) -> None:  # 24, and the worked example of 2.3
    configure(tmp_path, mirrored(mirror, server, more, path))  # nothing is served below that path
    await pulled(store, made)
    assert lines(mirror)[0] == f"HEAD {asked}/{REPOSITORY}/manifests/v?ns={NAME}"
    assert all(line.split()[1].startswith(f"{asked}/") for line in lines(mirror))
    assert lines(server)[0] == f"HEAD /v2/{REPOSITORY}/manifests/v?ns={NAME}"
    assert len(lines(server)) == len(lines(mirror))


async def test_a_registry_that_is_asked_by_its_own_name_is_told_nothing(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    mirror.fault("/", Status(404), times=None)
    configure(tmp_path, f'server = "{server.url}"\n[host."{mirror.url}"]', namespace=server.address)
    await pulled(store, made, f"{server.address}/{REPOSITORY}:v")
    assert lines(server, "ns=") == []
    assert all(line.endswith(f"?ns={server.address}") for line in lines(mirror))


@pytest.mark.parametrize("code", [500, 502, 503, 429, 403])
async def test_a_mirror_that_fails_costs_one_request(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry, code: int
) -> None:  # 26
    configure(tmp_path, mirrored(mirror, server))
    mirror.fault("HEAD ", Status(code), times=None)
    mirror.fault("/blobs/", Status(code), times=None)
    await pulled(store, made)
    blobs = [blob.digest for blob in made.layers]
    assert [len(lines(mirror, digest)) for digest in blobs] == [1, 1]
    assert [len(lines(server, digest)) for digest in blobs] == [1, 1]
    # Some are told what is wrong only when they are asked with GET. Spec registry 5: one.
    assert len(lines(mirror, "/manifests/v")) == (2 if code == 403 else 1)


async def test_a_mirror_that_is_gone_is_passed_over(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, mirrored(mirror, server))
    mirror.close()
    await pulled(store, made)


async def test_wrong_bytes_of_a_mirror_are_replaced_by_the_servers(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, mirrored(mirror, server))
    for blob in made.layers:
        mirror.fault(blob.digest, WrongBytes(), times=None)
    await pulled(store, made)
    assert len(lines(server, "/blobs/")) == len(made.layers)


async def test_a_mirror_without_resolve_is_not_asked_for_tags(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:  # 25
    configure(tmp_path, mirrored(mirror, server, 'capabilities = ["pull"]'))
    await pulled(store, made)
    assert lines(server) == [f"HEAD /v2/{REPOSITORY}/manifests/v?ns={NAME}"]
    assert len(lines(mirror, "GET ")) == len(lines(mirror)) == 4


async def test_a_mirror_without_resolve_is_asked_for_digests(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, mirrored(mirror, server, 'capabilities = ["pull"]'))
    await pulled(store, made, f"{NAME}/{REPOSITORY}@{made.target.digest}")
    assert server.requests == []


async def test_without_a_host_that_resolves_nothing_is_asked(
    store: orlop.Store, tmp_path: Path, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, f'server = "{server.url}"\ncapabilities = ["pull"]\n')
    async with refuses(FailedPrecondition):
        await pull(store, REFERENCE, FROM_HOSTS)
    assert server.requests == []


async def test_what_nobody_has_is_not_found(
    store: orlop.Store, tmp_path: Path, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, mirrored(mirror, server))
    async with refuses(NotFound):
        await pull(store, f"{NAME}/{REPOSITORY}:none", FROM_HOSTS)
    assert [len(lines(each)) for each in (mirror, server)] == [1, 1]


# Settings that are refused, or change


@pytest.mark.parametrize("text", ['[host."{url}"]\ncapabilities = ["pull", "bogus"]', "server = ["])
async def test_broken_settings_refuse_pull_and_push_before_any_request(
    store: orlop.Store, tmp_path: Path, made: MadeImage, server: FaultyRegistry, text: str
) -> None:  # 27
    configure(tmp_path, text.replace("{url}", server.url), namespace=server.address)
    await made.stored(store, "here")
    async with refuses(InvalidArgument) as caught:
        await pull(store, f"{server.address}/{REPOSITORY}:v")
    assert "hosts.toml" in str(caught[0])
    async with refuses(InvalidArgument):
        await push(store, f"{server.address}/{REPOSITORY}:v", "here")
    assert server.requests == []


async def test_settings_are_read_again_for_each_operation(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, f'server = "{server.url}"')
    await pulled(store, made)
    server.clear()
    configure(tmp_path, f'server = "{mirror.url}"')
    await pulled(store, made)
    assert (len(lines(mirror)), len(lines(server))) == (1, 0)


async def test_a_callers_own_folder_replaces_that_of_the_store(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    configure(tmp_path, f'server = "{server.url}"')
    own = write_hosts(tmp_path / "own", NAME, f'server = "{mirror.url}"')
    await pull(store, REFERENCE, orlop.RegistryAccess(hosts_dir=str(own)))
    assert server.requests == []
    await has(store, made)


# Pushes


async def test_a_push_goes_to_the_server_alone(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry
) -> None:
    await made.stored(store, "here")
    with WritableRegistry() as server:
        configure(tmp_path, mirrored(mirror, server, 'capabilities = ["pull", "resolve"]'))
        await push(store, REFERENCE, "here", FROM_HOSTS)
        assert server.held[REPOSITORY].tags == {"v": made.target.digest}
        assert lines(server)[0] == f"HEAD /v2/{REPOSITORY}/manifests/v?ns={NAME}"
    assert mirror.requests == []


async def test_a_push_goes_to_the_first_host_that_takes_it(
    store: orlop.Store, tmp_path: Path, made: MadeImage, server: FaultyRegistry
) -> None:
    await made.stored(store, "here")
    with WritableRegistry() as mirror:
        configure(tmp_path, mirrored(mirror, server, 'capabilities = ["push"]'))
        await push(store, REFERENCE, "here", FROM_HOSTS)
        assert mirror.held[REPOSITORY].tags == {"v": made.target.digest}
    assert server.requests == []


async def test_where_no_host_takes_pushes_nothing_is_asked(
    store: orlop.Store, tmp_path: Path, made: MadeImage, server: FaultyRegistry
) -> None:
    await made.stored(store, "here")
    configure(tmp_path, f'server = "{server.url}"\ncapabilities = ["pull", "resolve"]')
    async with refuses(FailedPrecondition):
        await push(store, REFERENCE, "here", FROM_HOSTS)
    assert server.requests == []


# Headers


async def test_headers_go_with_every_request_to_their_host_and_nowhere_else(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    mirror.fault(made.layers[0].digest, Status(404))
    mirror.fault(made.layers[1].digest, Redirect(server.url))
    configure(tmp_path, mirrored(mirror, server, 'header = { X-Secret = "abracadabra", X-Two = ["1", "2"] }'))
    await pulled(store, made)
    assert len(server.requests) == 2
    assert all(seen.headers.get("x-secret") == "abracadabra" for seen in mirror.requests)
    assert all(seen.headers.get("x-two") == "1, 2" for seen in mirror.requests)
    assert not any({"x-secret", "x-two"} & set(seen.headers) for seen in server.requests)


async def test_headers_go_to_the_token_server_of_their_host(
    store: orlop.Store, tmp_path: Path, made: MadeImage, server: FaultyRegistry
) -> None:
    """Spec registry 2.3, `header`: also to token requests."""
    with FaultyRegistry({}) as tokens:
        server.require_bearer(tokens)
        configure(tmp_path, f'server = "{server.url}"\nheader = {{ X-Secret = "abracadabra" }}')
        await pulled(store, made)
        assert [seen.headers.get("x-secret") for seen in tokens.requests] == ["abracadabra"]


async def test_headers_do_not_follow_an_upload_to_another_host(
    store: orlop.Store, tmp_path: Path, made: MadeImage
) -> None:
    await made.stored(store, "here")
    with WritableRegistry() as server, WritableRegistry(shares=server) as elsewhere:
        server.uploads_at = elsewhere.url
        configure(tmp_path, f'server = "{server.url}"\nheader = {{ X-Secret = "abracadabra" }}')
        await push(store, REFERENCE, "here", FROM_HOSTS)
        assert server.held[REPOSITORY].tags == {"v": made.target.digest}
        assert len(lines(elsewhere, "PUT ")) == 3
        assert not any("x-secret" in seen.headers for seen in elsewhere.requests)
        assert all("x-secret" in seen.headers for seen in server.requests)


# Registries as they name themselves


async def test_a_registry_on_the_loopback_needs_no_flag_for_plain_http(
    store: orlop.Store, made: MadeImage, server: FaultyRegistry
) -> None:  # 29
    await pulled(store, made, f"{server.address}/{REPOSITORY}:v")


class AsProxy(FaultyRegistry):
    """Stands in for every host there is: what it is asked for as a proxy it serves itself."""

    def answer(self, seen: Seen) -> Reply:
        scheme, _, rest = seen.path.partition("://")
        self.hosts.add(rest.partition("/")[0])
        assert scheme == "http"
        return super().answer(replace(seen, path=f"/{rest.partition('/')[2]}"))

    hosts: set[str]


@pytest.mark.parametrize("namespace", ["registry.test", "registry.test:80", "Registry.test", "Registry.test:80"])
@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_credentials_are_found_however_the_host_is_written(
    store: orlop.Store,
    layout: Path,
    made: MadeImage,
    monkeypatch: pytest.MonkeyPatch,
    namespace: str,
    scheme: str,
) -> None:
    """A port that is the scheme's own, and the case of letters, change nothing of who is meant."""
    access = replace_credentials(PLAIN, "ann", "secret")
    with AsProxy({REPOSITORY: layout}) as proxy:
        proxy.hosts = set()
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        if scheme == "basic":
            proxy.require_basic("ann", "secret")
        else:
            proxy.require_bearer(user="ann", password="secret")
        await pull(store, f"{namespace}/{REPOSITORY}:v", access)
        assert "registry.test" in proxy.hosts
    await has(store, made)


def replace_credentials(access: orlop.RegistryAccess, user: str, secret: str) -> orlop.RegistryAccess:
    return orlop.RegistryAccess(plain_http=access.plain_http, credentials=orlop.Credentials(user, secret))


async def test_credentials_are_for_the_registry_and_not_for_its_mirrors(
    store: orlop.Store, tmp_path: Path, made: MadeImage, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    mirror.require_basic("ann", "secret")
    server.require_basic("ann", "secret")
    configure(tmp_path, mirrored(mirror, server))
    await pull(store, REFERENCE, orlop.RegistryAccess(credentials=orlop.Credentials("ann", "secret")))
    await has(store, made)
    assert not any("authorization" in seen.headers for seen in mirror.requests)


# How much is asked of a host


async def test_a_host_that_fails_everybody_is_not_asked_ever_more(tmp_path: Path, server: FaultyRegistry) -> None:
    server.fault("HEAD ", Status(503, AT_ONCE), times=None)
    config = RegistryConfig(retries_per_host=6)
    async with opened(tmp_path / "store", registry=config) as store:
        for _ in range(4):
            async with refuses(Unavailable):
                await pull(store, f"{server.address}/{REPOSITORY}:v")
    assert len(lines(server)) == 4 + 6


async def test_the_registrys_own_refusal_is_told_when_mirrors_fail_too(
    store: orlop.Store, tmp_path: Path, mirror: FaultyRegistry, server: FaultyRegistry
) -> None:
    mirror.fault("HEAD ", Status(500), times=None)
    server.require_basic("ann", "secret")
    configure(tmp_path, mirrored(mirror, server))
    async with refuses(Unauthenticated):
        await pull(store, REFERENCE, FROM_HOSTS)


class Warner(FaultyRegistry):
    """Has something to say with every answer."""

    def answer(self, seen: Seen) -> Reply:
        reply = super().answer(seen)
        return replace(reply, headers={**reply.headers, "Warning": '299 - "be \\"kind\\""'})


async def test_what_a_registry_warns_of_is_told_once(store: orlop.Store, layout: Path) -> None:  # 60
    notes: list[str] = []

    def watch(step: TransferProgress) -> None:
        if step.state is TransferState.NOTE:
            notes.append(step.note)

    with Warner({REPOSITORY: layout}) as registry:
        await store.pull(orlop.PullImage(f"{registry.address}/{REPOSITORY}:v", access=PLAIN), watch)
        assert notes == [f'{registry.address}: be "kind"']
