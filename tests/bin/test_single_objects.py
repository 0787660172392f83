"""content fetch-object, fetch-blob and push-object."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import msgspec
import pytest

from tests.support.registries import make_layout
from tests.support.shell import CLI, ENVIRONMENT, Shell, one_line
from tests.support.writable_registry import WritableRegistry


@pytest.fixture
def registry(tmp_path: Path, shell: Shell) -> WritableRegistry:  # type: ignore[misc]
    make_layout(tmp_path / "layout", "--layers", "2", "--tag", "1")
    shell.out("images", "import", str(tmp_path / "layout"), "--base-name", "example.org/app", "-q", "--no-unpack")
    with WritableRegistry() as registry:
        shell.out("push", "--plain-http", f"{registry.address}/app:1", "example.org/app:1", "-q")
        yield registry


def bytes_of(tmp_path: Path, *arguments: str) -> bytes:
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_STORE": str(tmp_path / "other")}
    done = subprocess.run([*CLI, *arguments], env=environment, capture_output=True, check=True, timeout=60)
    return done.stdout


def test_a_manifest_and_its_blobs_are_written_and_not_kept(registry: WritableRegistry, tmp_path: Path) -> None:
    manifest = bytes_of(tmp_path, "content", "fetch-object", "--plain-http", f"{registry.address}/app:1")
    layers = [each["digest"] for each in msgspec.json.decode(manifest)["layers"]]
    data = bytes_of(tmp_path, "content", "fetch-blob", "--plain-http", f"{registry.address}/app:1", *layers)
    sizes = [each["size"] for each in msgspec.json.decode(manifest)["layers"]]
    first, second = data[: sizes[0]], data[sizes[0] :]
    assert [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in (first, second)] == layers
    shell = Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "other"))
    shell.out("gc", "run")
    assert shell.out("content", "ls", "-q") == ""
    assert shell.out("images", "ls", "-q") == ""


def test_what_is_not_there_is_not_found(registry: WritableRegistry, shell: Shell) -> None:
    for arguments in (
        ("fetch-object", f"{registry.address}/app:2"),
        ("fetch-blob", f"{registry.address}/app:1", f"sha256:{'0' * 64}"),
        ("push-object", f"{registry.address}/app:1", f"sha256:{'0' * 64}", "application/octet-stream"),
    ):
        done = shell.run("content", arguments[0], "--plain-http", *arguments[1:])
        assert done.returncode == 3
        one_line(done.stderr)


def test_a_blob_is_sent_alone(registry: WritableRegistry, shell: Shell) -> None:
    digest = shell.out("content", "ingest", "data", stdin="some bytes").strip()
    done = shell.out(
        "content", "push-object", "--plain-http", f"{registry.address}/other:1", digest, "application/octet-stream"
    )
    assert done.strip() == digest
    back = shell.out("content", "fetch-blob", "--plain-http", f"{registry.address}/other:1", digest)
    assert back == "some bytes"
    assert shell.run("content", "fetch-object", "--plain-http", f"{registry.address}/other:1").returncode == 3


def test_a_manifest_is_sent_under_the_tag(registry: WritableRegistry, shell: Shell) -> None:
    image = msgspec.json.decode(shell.out("images", "ls", "--json"))[0]["target"]
    target = f"{registry.address}/app:again"
    shell.out("content", "push-object", "--plain-http", target, image["digest"], image["media_type"])
    assert (
        hashlib.sha256(shell.out("content", "fetch-object", "--plain-http", target).encode()).hexdigest()
        in (image["digest"])
    )


def test_a_dry_run_says_what_would_be_pulled(registry: WritableRegistry, tmp_path: Path) -> None:
    name = f"{registry.address}/app:1"
    said = bytes_of(tmp_path, "pull", "--dry-run", "--plain-http", name).decode()
    digest = hashlib.sha256(bytes_of(tmp_path, "content", "fetch-object", "--plain-http", name)).hexdigest()
    assert said.startswith(f"{name}@sha256:{digest} application/vnd.oci.image.manifest.v1+json ")
    shell = Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "other"))
    assert shell.out("images", "ls", "-q") == ""
