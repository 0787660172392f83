"""Registries behind TLS: whom we trust, what we show, and that nothing is ever asked without it instead.

Certificates are made with openssl. Source: spec registry 2; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import orlop
from orlop.protocol.errors import InvalidArgument, OrlopError, Unavailable
from tests.support.certificates import Authority, needs_openssl
from tests.support.faulty_registry import FaultyRegistry, Redirect
from tests.support.images import MadeImage, write_layout
from tests.support.registries import DockerRegistry
from tests.support.transfers import has, lines, opened, pull, push, random_image, refuses, write_hosts
from tests.support.writable_registry import WritableRegistry

NAME = "registry.test"
REPOSITORY = "lib/app"
REFERENCE = f"{NAME}/{REPOSITORY}:latest"
VERIFY = "skip_verify = false\n"  # which on the loopback has to be said
real_registry = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")
pytestmark = [needs_openssl]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "another authority of the tests")


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("tls")


@pytest.fixture(scope="module")
def layout(made: MadeImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("tls") / "layout", made)


@pytest.fixture
def secure(layout: Path, authority: Authority) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({REPOSITORY: layout}, tls=authority.serving()) as registry:
        yield registry


@pytest.fixture
def private(layout: Path, authority: Authority) -> Iterator[FaultyRegistry]:
    """One that wants to know who asks."""
    with FaultyRegistry({REPOSITORY: layout}, tls=authority.serving(asks_for_ours=True)) as registry:
        yield registry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store") as store:
        yield store


def hosts(tmp_path: Path, registry: FaultyRegistry | DockerRegistry, more: str = "") -> orlop.RegistryAccess:
    """The registry, under a name that is not on the loopback."""
    root = write_hosts(tmp_path / "hosts", NAME, f'server = "https://{registry.address}"\n{VERIFY}{more}')
    return orlop.RegistryAccess(hosts_dir=str(root))


def with_more(access: orlop.RegistryAccess, **more: Any) -> orlop.RegistryAccess:
    return orlop.RegistryAccess(hosts_dir=access.hosts_dir, **more)


async def refused_before_any_request(
    store: orlop.Store, registry: FaultyRegistry, access: orlop.RegistryAccess, reference: str = REFERENCE
) -> str:
    """No TLS, no request; and none without TLS either."""
    async with refuses(OrlopError) as caught:
        await pull(store, reference, access)
    only_tls(registry)
    return f"{caught[0]} {caught[0].hint}"


def only_tls(registry: FaultyRegistry) -> None:
    """It was asked for TLS, and for nothing else. All it has to tell it has told once it is closed."""
    registry.close()
    assert registry.requests == []
    assert "HTTP_REQUEST" not in registry.tls_failures  # what OpenSSL says to a request without TLS


# A real registry


@real_registry
@pytest.mark.parametrize("asks_for_ours", [False, True])
async def test_push_and_pull_with_a_real_registry_of_a_private_authority(
    store: orlop.Store, tmp_path: Path, made: MadeImage, authority: Authority, asks_for_ours: bool
) -> None:
    ours, theirs = authority.client(), authority.server()
    tls: dict[str, object] = {"certificate": str(theirs.certificate), "key": str(theirs.key)}
    if asks_for_ours:
        tls["clientcas"] = [str(authority.certificate)]
    settings = {"http": {"tls": tls}}
    await made.stored(store, "here")
    with DockerRegistry(tmp_path / "registry", settings, authority.asking(ours)) as registry:
        access = hosts(tmp_path, registry, f'ca = "my.pem"\nclient = [["{ours.certificate}", "{ours.key}"]]')
        (tmp_path / "hosts" / NAME / "my.pem").write_bytes(authority.certificate.read_bytes())
        assert (await push(store, REFERENCE, "here", access)).target.digest == made.target.digest
        async with opened(tmp_path / "other") as other:
            assert (await pull(other, REFERENCE, access)).target.digest == made.target.digest
            await has(other, made)


# Whom we trust


@pytest.mark.parametrize("given", ["hosts.toml", "several in hosts.toml", "caller"])
async def test_an_authority_that_is_named_is_trusted(
    store: orlop.Store,
    tmp_path: Path,
    made: MadeImage,
    secure: FaultyRegistry,
    authority: Authority,
    stranger: Authority,
    given: str,
) -> None:
    more = {
        "hosts.toml": f'ca = "{authority.certificate}"',
        "several in hosts.toml": f'ca = ["{stranger.certificate}", "{authority.certificate}"]',
        "caller": "",
    }[given]
    access = hosts(tmp_path, secure, more)
    if given == "caller":
        access = with_more(access, ca=str(authority.certificate))
    await pull(store, REFERENCE, access)
    await has(store, made)


async def test_a_crt_file_in_the_registrys_folder_is_an_authority(
    store: orlop.Store, tmp_path: Path, made: MadeImage, private: FaultyRegistry, authority: Authority
) -> None:
    ours = authority.client()
    folder = tmp_path / "hosts" / private.address
    folder.mkdir(parents=True)
    for name, source in (
        ("a.crt", authority.certificate),
        ("me.cert", ours.certificate),
        ("me.key", ours.key),
    ):
        (folder / name).write_bytes(source.read_bytes())
    access = orlop.RegistryAccess(hosts_dir=str(tmp_path / "hosts"))
    await pull(store, f"{private.address}/{REPOSITORY}:latest", access)
    await has(store, made)


@pytest.mark.parametrize("which", ["none", "another"])
async def test_an_authority_that_is_unknown_is_refused_and_http_is_not_tried(
    store: orlop.Store, tmp_path: Path, secure: FaultyRegistry, stranger: Authority, which: str
) -> None:  # 29
    access = hosts(tmp_path, secure, "" if which == "none" else f'ca = "{stranger.certificate}"')
    assert "certificate" in (await refused_before_any_request(store, secure, access)).lower()


async def test_a_push_to_an_unknown_authority_is_refused_and_http_is_not_tried(
    store: orlop.Store, tmp_path: Path, made: MadeImage, authority: Authority
) -> None:
    await made.stored(store, "here")
    with WritableRegistry(tls=authority.serving()) as registry:
        async with refuses(Unavailable) as caught:
            await push(store, REFERENCE, "here", hosts(tmp_path, registry))
        assert "certificate" in str(caught[0]).lower()
        only_tls(registry)


async def test_a_certificate_for_another_name_is_refused(
    store: orlop.Store, tmp_path: Path, layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = Authority(tmp_path_factory.mktemp("elsewhere"))
    authority.server("DNS:elsewhere.test")
    with FaultyRegistry({REPOSITORY: layout}, tls=authority.serving()) as registry:
        access = hosts(tmp_path, registry, f'ca = "{authority.certificate}"')
        assert "certificate" in (await refused_before_any_request(store, registry, access)).lower()


async def test_on_the_loopback_an_unknown_authority_is_good_enough(
    store: orlop.Store, made: MadeImage, secure: FaultyRegistry
) -> None:  # 29
    await pull(store, f"{secure.address}/{REPOSITORY}:latest", orlop.RegistryAccess())
    await has(store, made)
    assert secure.tls_failures == []


@pytest.mark.parametrize("given", ["hosts.toml", "caller"])
async def test_who_skips_verification_trusts_anybody(
    store: orlop.Store, tmp_path: Path, made: MadeImage, secure: FaultyRegistry, given: str
) -> None:
    access = with_more(hosts(tmp_path, secure), skip_verify=True)
    if given == "hosts.toml":
        root = write_hosts(tmp_path / "hosts", NAME, f'server = "{secure.url}"\nskip_verify = true')
        access = orlop.RegistryAccess(hosts_dir=str(root))
    await pull(store, REFERENCE, access)
    await has(store, made)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_that_holds_no_certificate_is_refused_by_name(
    store: orlop.Store, tmp_path: Path, secure: FaultyRegistry, content: str | None
) -> None:
    access = hosts(tmp_path, secure, 'ca = "my.pem"')
    path = tmp_path / "hosts" / NAME / "my.pem"
    if content is not None:
        path.write_text(content)
    async with refuses(InvalidArgument) as caught:
        await pull(store, REFERENCE, access)
    assert str(path) in str(caught[0])
    assert (secure.requests, secure.tls_failures) == ([], [])


# What we show


@pytest.mark.parametrize("given", ["pair", "one file", "caller"])
async def test_our_certificate_is_shown(
    store: orlop.Store, tmp_path: Path, made: MadeImage, private: FaultyRegistry, authority: Authority, given: str
) -> None:
    ours = authority.client()
    ca = f'ca = "{authority.certificate}"\n'
    more = {
        "pair": f'client = [["{ours.certificate}", "{ours.key}"]]',
        "one file": f'client = "{ours.joined(tmp_path / "both.pem")}"',
        "caller": "",
    }[given]
    access = hosts(tmp_path, private, ca + more)
    if given == "caller":
        access = with_more(access, client_cert=str(ours.certificate), client_key=str(ours.key))
    await pull(store, REFERENCE, access)
    await has(store, made)


@pytest.mark.parametrize("shown", ["nothing", "another authority's"])
async def test_without_a_certificate_that_is_wanted_http_is_not_tried(
    store: orlop.Store,
    tmp_path: Path,
    private: FaultyRegistry,
    authority: Authority,
    stranger: Authority,
    shown: str,
) -> None:
    more = f'ca = "{authority.certificate}"\n'
    if shown != "nothing":
        theirs = stranger.client()
        more += f'client = [["{theirs.certificate}", "{theirs.key}"]]'
    await refused_before_any_request(store, private, hosts(tmp_path, private, more))


async def test_on_the_loopback_a_tls_alert_is_no_reason_to_try_http(
    store: orlop.Store, private: FaultyRegistry
) -> None:
    """Spec registry 2.4: any other TLS failure (bad certificate, alert) is not a reason to fall back."""
    reference = f"{private.address}/{REPOSITORY}:latest"
    await refused_before_any_request(store, private, orlop.RegistryAccess(), reference)


# Redirects


async def test_a_redirect_out_of_tls_is_refused(
    store: orlop.Store, tmp_path: Path, layout: Path, secure: FaultyRegistry, authority: Authority
) -> None:  # 23
    access = hosts(tmp_path, secure, f'ca = "{authority.certificate}"')
    with FaultyRegistry({REPOSITORY: layout}) as plain:
        secure.fault("/blobs/", Redirect(plain.url), times=None)
        async with refuses(OrlopError) as caught:
            await pull(store, REFERENCE, access, max_concurrent_downloads=1)
        assert "redirect" in str(caught[0])
        assert plain.requests == []


async def test_a_redirect_into_tls_is_followed_to_whom_we_trust(
    store: orlop.Store, tmp_path: Path, made: MadeImage, layout: Path, secure: FaultyRegistry, authority: Authority
) -> None:
    with FaultyRegistry({REPOSITORY: layout}) as plain:
        root = write_hosts(
            tmp_path / "hosts", NAME, f'server = "{plain.url}"\n{VERIFY}ca = "{authority.certificate}"\n'
        )
        plain.fault("/blobs/", Redirect(secure.url), times=None)
        await pull(store, REFERENCE, orlop.RegistryAccess(hosts_dir=str(root)))
        assert len(lines(secure)) == 3
    await has(store, made)


async def test_an_upload_that_leaves_tls_is_refused(
    store: orlop.Store, tmp_path: Path, made: MadeImage, authority: Authority
) -> None:
    """As a redirect out of it would be: the bytes would be seen, and could be changed."""
    await made.stored(store, "here")
    with WritableRegistry(tls=authority.serving()) as registry, WritableRegistry(shares=registry) as plain:
        registry.uploads_at = plain.url
        access = hosts(tmp_path, registry, f'ca = "{authority.certificate}"')
        async with refuses(OrlopError):
            await push(store, REFERENCE, "here", access, max_concurrent_uploads=1)
        assert plain.requests == []
