"""Credentials that docker keeps are found: in its config.json, and with the helper programs that it names.

Source: docker's documentation of config.json and of credential helpers.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orlop.bin.docker_config import find_credentials
from orlop.protocol.errors import InvalidArgument, OrlopError, Unauthenticated
from orlop.protocol.messages import Credentials
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import MadeImage, write_layout
from tests.support.shell import Shell
from tests.support.transfers import random_image
from tests.support.writable_registry import WritableRegistry

HUB = "https://index.docker.io/v1/"
NOT_FOUND = "credentials not found in native keychain"
ANN = Credentials("ann", "s3:cret")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


AUTH = encoded("ann:s3:cret")


@dataclass(frozen=True)
class Docker:
    """A home with docker's configuration, and a folder of programs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.folder), "PATH": f"{self.folder / 'programs'}{os.pathsep}{os.environ['PATH']}"}

    def configure(self, config: Any, folder: str = ".docker") -> None:
        path = self.folder / folder / "config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(config if isinstance(config, str) else json.dumps(config))

    def helper(self, name: str, answers: dict[str, dict[str, str]], otherwise: str = NOT_FOUND, code: int = 1) -> None:
        """A program that answers `get` for these servers, and notes what it was asked."""
        lines = ["#!/bin/sh", 'read -r server || [ "$server" ]', f'echo "$1 $server" >> "{self.folder}/asked"']
        lines.append('case "$1 $server" in')
        for server, answer in answers.items():
            lines.append(f"\"get {server}\") echo '{json.dumps(answer)}' ;;")
        lines += [f"*) echo '{otherwise}'; exit {code} ;;", "esac"]
        path = self.folder / "programs" / f"docker-credential-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def find(self, host: str) -> Credentials | None:
        return find_credentials(host, self.environment)


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


# In the file


@pytest.mark.parametrize(
    "server, host",
    [
        ("quay.io", "quay.io"),
        ("https://quay.io", "quay.io"),
        ("https://quay.io/v1/", "quay.io"),
        ("http://quay.io/v2/", "quay.io"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        (HUB, "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_a_server_is_found_however_it_is_written(docker: Docker, server: str, host: str) -> None:
    docker.configure({"auths": {"other.io": {"auth": encoded("eve:eve")}, server: {"auth": AUTH}}})
    assert docker.find(host) == ANN


@pytest.mark.parametrize(
    "entry, found",
    [
        ({"auth": AUTH}, ANN),
        ({"auth": encoded("ann:")}, Credentials("ann", "")),
        ({"username": "ann", "password": "s3:cret"}, ANN),
        ({"auth": AUTH, "email": "ann@quay.io"}, ANN),
        ({"identitytoken": "t0ken"}, Credentials("", "t0ken")),
        ({"auth": encoded("ann:"), "identitytoken": "t0ken"}, Credentials("", "t0ken")),
        ({}, None),
        ({"auth": ""}, None),
    ],
)
def test_what_an_entry_says(docker: Docker, entry: dict[str, str], found: Credentials | None) -> None:
    docker.configure({"auths": {"quay.io": entry}, "HttpHeaders": {"X": "y"}, "psFormat": "table"})
    assert docker.find("quay.io") == found


@pytest.mark.parametrize("host", ["quay.io:5000", "sub.quay.io", "io", "docker.io"])
def test_another_server_gets_nothing(docker: Docker, host: str) -> None:
    docker.configure({"auths": {"quay.io": {"auth": AUTH}}})
    assert docker.find(host) is None


def test_without_a_file_there_is_nothing(docker: Docker) -> None:
    assert docker.find("quay.io") is None
    assert find_credentials("quay.io", {}) is None


def test_the_folder_may_be_named(docker: Docker) -> None:
    docker.configure({"auths": {"quay.io": {"auth": encoded("eve:eve")}}})
    docker.configure({"auths": {"quay.io": {"auth": AUTH}}}, "elsewhere")
    environment = {**docker.environment, "DOCKER_CONFIG": str(docker.folder / "elsewhere")}
    assert find_credentials("quay.io", environment) == ANN


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        {"auths": []},
        {"auths": {"quay.io": "ann"}},
        {"auths": {"quay.io": {"auth": "no base64!"}}},
        {"auths": {"quay.io": {"auth": base64.b64encode(b"\xff:\xff").decode()}}},
        {"credHelpers": ["quay.io"]},
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_by_name(docker: Docker, config: Any) -> None:
    docker.configure(config)
    with pytest.raises(InvalidArgument) as caught:
        docker.find("quay.io")
    assert str(docker.folder / ".docker" / "config.json") in str(caught.value)


def test_secrets_are_not_shown() -> None:
    assert "s3" not in repr(ANN)


# With helpers


@pytest.mark.parametrize(
    "answer, found",
    [
        ({"ServerURL": "quay.io", "Username": "ann", "Secret": "s3:cret"}, ANN),
        ({"ServerURL": "quay.io", "Username": "<token>", "Secret": "t0ken"}, Credentials("", "t0ken")),
    ],
)
@pytest.mark.parametrize("config", [{"credHelpers": {"quay.io": "fake"}}, {"credsStore": "fake"}])
def test_a_helper_is_asked(docker: Docker, config: dict[str, Any], answer: dict[str, str], found: Credentials) -> None:
    docker.configure(config)
    docker.helper("fake", {"quay.io": answer})
    assert docker.find("quay.io") == found
    assert docker.asked == ["get quay.io"]


def test_a_servers_own_helper_goes_before_everything_else(docker: Docker) -> None:
    docker.configure(
        {
            "auths": {"quay.io": {"auth": encoded("eve:eve")}},
            "credHelpers": {"quay.io": "own"},
            "credsStore": "all",
        }
    )
    docker.helper("own", {"quay.io": {"Username": "ann", "Secret": "s3:cret"}})
    docker.helper("all", {"quay.io": {"Username": "eve", "Secret": "eve"}})
    assert docker.find("quay.io") == ANN


def test_a_helper_of_another_server_is_not_asked(docker: Docker) -> None:
    docker.configure({"credHelpers": {"other.io": "fake"}, "auths": {"quay.io": {"auth": AUTH}}})
    docker.helper("fake", {})
    assert docker.find("quay.io") == ANN
    assert docker.asked == []


def test_the_store_holds_what_an_empty_entry_stands_for(docker: Docker) -> None:
    """This is how docker writes it after a login."""
    docker.configure({"auths": {"quay.io": {}}, "credsStore": "fake"})
    docker.helper("fake", {"quay.io": {"Username": "ann", "Secret": "s3:cret"}})
    assert docker.find("quay.io") == ANN


@pytest.mark.parametrize("config", [{"credsStore": "fake"}, {"credHelpers": {HUB: "fake"}}])
def test_docker_hub_is_asked_for_by_its_old_name(docker: Docker, config: dict[str, Any]) -> None:
    docker.configure(config)
    docker.helper("fake", {HUB: {"Username": "ann", "Secret": "s3:cret"}})
    assert docker.find("docker.io") == ANN


@pytest.mark.parametrize("config", [{"credHelpers": {"quay.io": "fake"}}, {"credsStore": "fake"}])
def test_a_helper_that_has_nothing_is_no_failure(docker: Docker, config: dict[str, Any]) -> None:
    docker.configure(config)
    docker.helper("fake", {})
    assert docker.find("quay.io") is None


@pytest.mark.parametrize("otherwise, code", [("the keychain is locked", 2), ("no json", 0), ("[]", 0)])
def test_a_helper_that_fails_is_said_by_name(docker: Docker, otherwise: str, code: int) -> None:
    docker.configure({"credsStore": "fake"})
    docker.helper("fake", {}, otherwise, code)
    with pytest.raises(Unauthenticated, match="docker-credential-fake") as caught:
        docker.find("quay.io")
    assert code == 0 or otherwise in str(caught.value)


def test_a_helper_that_is_not_installed_is_said_by_name(docker: Docker) -> None:
    docker.configure({"credsStore": "none-such"})
    with pytest.raises(Unauthenticated, match="docker-credential-none-such"):
        docker.find("quay.io")


def test_a_helper_that_may_not_be_run_is_said_by_name(docker: Docker) -> None:
    docker.configure({"credsStore": "fake"})
    docker.helper("fake", {})
    (docker.folder / "programs" / "docker-credential-fake").chmod(0o644)
    with pytest.raises(Unauthenticated, match="docker-credential-fake"):
        docker.find("quay.io")


@pytest.mark.parametrize("name", ["../evil", "/bin/evil", "a/b"])
def test_a_helper_with_a_slash_in_its_name_is_not_run(docker: Docker, name: str) -> None:
    docker.configure({"credsStore": name})
    with pytest.raises(OrlopError):
        docker.find("quay.io")


# At a shell


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("docker credentials")


@pytest.fixture(scope="module")
def layout(made: MadeImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("credentials") / "layout", made)


@pytest.fixture
def shell(docker: Docker) -> Shell:
    return Shell(**docker.environment, ORLOP_STORE=str(docker.folder / "store"))


@pytest.fixture
def source(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({"lib/app": layout}) as registry:
        registry.require_basic("ann", "s3:cret")
        yield registry


def test_pull_push_and_copy_send_what_docker_would(
    docker: Docker, shell: Shell, source: FaultyRegistry, made: MadeImage
) -> None:
    with WritableRegistry() as target:
        target.require_bearer(user="bob", password="hidden")
        docker.configure({"auths": {source.address: {"auth": AUTH}}, "credHelpers": {target.address: "fake"}})
        docker.helper("fake", {target.address: {"Username": "<token>", "Secret": "hidden"}})
        pull = f"{source.address}/lib/app:latest"
        digest = made.target.digest
        assert shell.out("pull", "--plain-http", "--no-unpack", "-q", pull).strip() == digest
        assert shell.out("push", "--plain-http", "-q", f"{target.address}/lib/app:v1", pull).strip() == digest
        assert shell.out("copy", "--plain-http", "-q", pull, f"{target.address}/lib/app:v2").strip() == digest
        assert target.held["lib/app"].tags == {"v1": digest, "v2": digest}
        assert set(docker.asked) == {f"get {target.address}"}


def test_what_is_given_goes_before_what_docker_keeps(docker: Docker, shell: Shell, source: FaultyRegistry) -> None:
    docker.configure({"auths": {source.address: {"auth": encoded("eve:eve")}}})
    command = ("pull", "--plain-http", "--no-unpack", f"{source.address}/lib/app:latest")
    assert shell.run(*command).returncode != 0
    assert shell.run(*command, "--user", "ann:s3:cret").returncode == 0


def test_a_copy_may_have_other_credentials_for_its_target(shell: Shell, source: FaultyRegistry) -> None:
    with WritableRegistry() as target:
        target.require_basic("bob", "hidden")
        names = (f"{source.address}/lib/app:latest", f"{target.address}/lib/app:v2")
        shell.out("copy", "--plain-http", "--user", "ann:s3:cret", "--target-user", "bob:hidden", *names)
        assert set(target.held["lib/app"].tags) == {"v2"}
