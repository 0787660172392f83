"""When a pull asks its registry, and what it brings besides. Source: spec registry 7, 9 and 14."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import HOST, OTHER, for_other, simple
from tests.support.faulty_registry import FaultyRegistry, Status
from tests.support.images import INDEX, MANIFEST, MadeImage, write_layout
from tests.support.layers import digest_of
from tests.support.layout_registry import LayoutRegistry, Reply, Seen
from tests.support.shell import Done, Shell

BOTH = {HOST: simple(), OTHER: for_other()}
AGO = re.compile(r"\d+ (second|minute)s? ago")
AT_ONCE = {"Retry-After": "0"}  # retries without their pauses
BUSY = Status(429, AT_ONCE)
MISSING = BOTH[HOST].layers[0].digest


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", BOTH)


@pytest.fixture
def registry(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({"a/b": layout}) as registry:
        yield registry


def name_at(registry: LayoutRegistry) -> str:
    return f"{registry.address}/a/b:latest"


def pull(shell: Shell, name: str, *options: str) -> Done:
    return shell.run("pull", "--plain-http", *options, name)


def brought(shell: Shell, name: str, *options: str) -> str:
    done = pull(shell, name, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(shell: Shell, name: str, *options: str) -> Done:
    done = pull(shell, name, "-q", *options)
    assert done.returncode in (1, 3)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith(("orlop: ", "  hint: "))] == []
    return done


def asked(registry: LayoutRegistry) -> list[str]:
    return [seen.line for seen in registry.requests]


def newer(registry: FaultyRegistry, tmp_path: Path) -> str:
    """The tag moves on; to where."""
    made = simple("newer")
    registry.add("a/b", write_layout(tmp_path / "newer", made))
    return made.target.digest


def digest_in(shell: Shell, name: str) -> str:
    (found,) = json.loads(shell.out("images", "ls", "--json", f"name=={name}"))
    digest: str = found["target"]["digest"]
    return digest


def lose(shell: Shell, digest: str) -> None:
    """With its bytes, which another pull could take over until they are collected."""
    shell.out("content", "rm", digest)
    shell.out("gc", "run")


# always


def test_always_asks_and_brings_what_is_new(shell: Shell, registry: FaultyRegistry, tmp_path: Path) -> None:
    name = name_at(registry)
    brought(shell, name)
    registry.clear()
    brought(shell, name, "--policy", "always")
    assert asked(registry) == ["HEAD /v2/a/b/manifests/latest"]
    assert brought(shell, name, "-q").strip() != newer(registry, tmp_path)
    assert brought(shell, name, "-q").strip() == digest_in(shell, name) == simple("newer").target.digest


@pytest.mark.parametrize("fault", ["down", "busy", "ill"])
def test_always_fails_without_its_registry_and_says_what_else_there_is(shell: Shell, layout: Path, fault: str) -> None:
    with FaultyRegistry({"a/b": layout}) as registry:
        name = name_at(registry)
        before = brought(shell, name, "-q")
        if fault != "down":
            registry.fault("", BUSY if fault == "busy" else Status(503, AT_ONCE), times=None)
            done = refused(shell, name)
    if fault == "down":
        done = refused(shell, name)
    assert "--policy=newer" in done.stderr
    assert AGO.search(done.stderr)
    assert digest_in(shell, name) == before.strip()


def test_what_is_not_here_is_not_offered(shell: Shell, registry: FaultyRegistry) -> None:
    registry.fault("", BUSY, times=None)
    assert "policy" not in refused(shell, name_at(registry)).stderr


# newer


@pytest.mark.parametrize("fault", ["down", "busy", "ill"])
@pytest.mark.parametrize("options", [(), ("-q",)], ids=["", "quiet"])
def test_newer_serves_what_is_here_while_its_registry_is_down_and_says_how_old_that_is(
    shell: Shell, layout: Path, fault: str, options: tuple[str, ...]
) -> None:
    with FaultyRegistry({"a/b": layout}) as registry:
        name = name_at(registry)
        digest = brought(shell, name, "-q").strip()
        if fault != "down":
            registry.fault("", BUSY if fault == "busy" else Status(503, AT_ONCE), times=None)
            done = pull(shell, name, "--policy", "newer", *options)
    if fault == "down":
        done = pull(shell, name, "--policy", "newer", *options)
    assert done.returncode == 0
    assert digest in done.stdout
    (note,) = (line for line in done.stderr.splitlines() if line.startswith("note: "))
    assert AGO.search(note)
    assert digest_in(shell, name) == digest


def test_newer_brings_what_is_new(shell: Shell, registry: FaultyRegistry, tmp_path: Path) -> None:
    name = name_at(registry)
    brought(shell, name)
    done = pull(shell, name, "-q", "--policy", "newer")
    assert "note" not in done.stderr
    assert newer(registry, tmp_path) == brought(shell, name, "-q", "--policy", "newer").strip()


@pytest.mark.parametrize("code", [401, 403, 404])
def test_newer_believes_a_registry_that_says_no(shell: Shell, registry: FaultyRegistry, code: int) -> None:
    name = name_at(registry)
    brought(shell, name)
    registry.fault("", Status(code), times=None)
    refused(shell, name, "--policy", "newer")


def test_newer_fails_without_its_registry_when_nothing_or_not_all_is_here(shell: Shell, layout: Path) -> None:
    with FaultyRegistry({"a/b": layout}) as registry:
        name = name_at(registry)
        brought(shell, name, "--no-unpack")
    refused(shell, name.replace("a/b", "c/d"), "--policy", "newer")
    refused(shell, name, "--policy", "newer", "--platform", OTHER)
    lose(shell, MISSING)
    assert MISSING in refused(shell, name, "--policy", "newer").stderr


# missing


def test_missing_asks_nobody_when_all_is_here(shell: Shell, registry: FaultyRegistry, tmp_path: Path) -> None:
    name = name_at(registry)
    digest = brought(shell, name, "-q").strip()
    newer(registry, tmp_path)
    registry.clear()
    assert digest in brought(shell, name, "--policy", "missing")
    assert asked(registry) == []
    lose(shell, MISSING)  # its snapshot is here, and that is all that is needed
    brought(shell, name, "--policy", "missing")
    assert asked(registry) == []


def test_missing_brings_what_is_not_here(shell: Shell, registry: FaultyRegistry) -> None:
    name = name_at(registry)
    brought(shell, name, "--policy", "missing", "--no-unpack")
    lose(shell, MISSING)
    registry.clear()
    brought(shell, name, "--policy", "missing", "--no-unpack")
    assert f"GET /v2/a/b/blobs/{MISSING}" in asked(registry)
    assert len([line for line in asked(registry) if "/blobs/" in line]) == 1
    assert "complete (3/3)" in shell.out("images", "check")
    registry.clear()
    brought(shell, name, "--policy", "missing", "--no-unpack")
    assert asked(registry) == []


def test_missing_brings_a_platform_that_is_not_here(shell: Shell, registry: FaultyRegistry) -> None:
    name = name_at(registry)
    brought(shell, name)
    registry.clear()
    brought(shell, name, "--policy", "missing", "--platform", OTHER)
    got = {line.rpartition("/")[2] for line in asked(registry) if "/blobs/" in line}
    assert {blob.digest for blob in BOTH[OTHER].layers} <= got
    registry.clear()
    brought(shell, name, "--policy", "missing", "--all-platforms")
    assert asked(registry) == []


def test_missing_needs_its_registry_when_something_is_missing(shell: Shell, layout: Path) -> None:
    with FaultyRegistry({"a/b": layout}) as registry:
        name = name_at(registry)
        brought(shell, name, "--no-unpack")
    brought(shell, name, "--policy", "missing", "--no-unpack")
    lose(shell, MISSING)
    refused(shell, name, "--policy", "missing", "--no-unpack")


# never


def test_never_asks_nobody(shell: Shell, registry: FaultyRegistry) -> None:
    name = name_at(registry)
    done = refused(shell, name, "--policy", "never")
    assert (done.returncode, asked(registry)) == (3, [])
    assert name in done.stderr
    assert "hint" in done.stderr
    digest = brought(shell, name, "-q", "--no-unpack").strip()
    registry.clear()
    assert digest in brought(shell, name, "--policy", "never")
    refused(shell, name, "--policy", "never", "--platform", OTHER)
    shell.out("images", "rm", name)
    assert refused(shell, name, "--policy", "never").returncode == 3
    assert asked(registry) == []


def test_never_does_not_find_what_is_missing(shell: Shell, registry: FaultyRegistry) -> None:
    name = name_at(registry)
    brought(shell, name, "--no-unpack")
    lose(shell, MISSING)
    registry.clear()
    done = refused(shell, name, "--policy", "never")
    assert (done.returncode, asked(registry)) == (3, [])
    assert MISSING in done.stderr


def test_what_is_no_policy_is_wrong_usage(shell: Shell, registry: FaultyRegistry) -> None:
    done = pull(shell, name_at(registry), "--policy", "sometimes")
    assert (done.returncode, done.stdout, asked(registry)) == (2, "", [])


# Referrers


class WithReferrers(LayoutRegistry):
    """A registry that has the list of what describes an image."""

    def __init__(self, layouts: dict[str, Path], lists: dict[str, bytes]) -> None:
        super().__init__(layouts)
        self._lists = lists

    def answer(self, seen: Seen) -> Reply:
        _, found, digest = seen.path.partition("?")[0].rpartition("/referrers/")
        if not found:
            return super().answer(seen)
        empty = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
        data = self._lists.get(digest, empty)
        return Reply(200, {"Content-Type": INDEX}, len(data), iter([data]))


def signature(subject: MadeImage, kind: str) -> MadeImage:
    """A signature as cosign makes it, with the config of an image; or one with an artifactType."""
    made = simple(f"signature of {subject.target.digest}", layers=1)
    manifest: dict[str, Any] = json.loads(made.manifest)
    manifest["layers"][0]["mediaType"] = "application/vnd.dev.cosign.simplesigning.v1+json"
    if kind == "artefact":
        manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"
        manifest["artifactType"] = "application/vnd.example.signature"
    target = subject.target
    manifest["subject"] = {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
    return dataclasses.replace(made, manifest=json.dumps(manifest).encode())


def put(layout: Path, tag: str | None, made: MadeImage | bytes) -> str:
    """More blobs for a layout, and a tag."""
    root = made if isinstance(made, bytes) else made.manifest
    digest = f"sha256:{hashlib.sha256(root).hexdigest()}"
    for data in (root, *(made.blobs.values() if isinstance(made, MadeImage) else ())):
        (layout / "blobs" / digest_of(data).replace(":", "/")).write_bytes(data)
    index = json.loads((layout / "index.json").read_text())
    entry: dict[str, Any] = {"mediaType": MANIFEST, "digest": digest, "size": len(root)}
    if isinstance(made, bytes):
        entry["mediaType"] = INDEX
    if tag is not None:
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index["manifests"].append(entry)
    (layout / "index.json").write_text(json.dumps(index))
    return digest


@pytest.mark.parametrize("kind", ["cosign", "artefact"])
@pytest.mark.parametrize("way", ["list", "tag"])
def test_what_describes_an_image_can_be_brought_with_it(shell: Shell, tmp_path: Path, way: str, kind: str) -> None:
    """It lives as long as the image. A registry that has no list of it has a tag."""
    made = simple()
    layout = write_layout(tmp_path / "layout", made)
    signed = signature(made, kind)
    entry = {"mediaType": MANIFEST, "digest": signed.target.digest, "size": len(signed.manifest)}
    listed = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    put(layout, None, signed)
    if way == "tag":
        put(layout, made.target.digest.replace(":", "-"), listed)
        registry: LayoutRegistry = LayoutRegistry({"a/b": layout})
    else:
        registry = WithReferrers({"a/b": layout}, {made.target.digest: listed})
    with registry:
        name = name_at(registry)
        brought(shell, name)
        assert signed.target.digest not in shell.out("content", "ls", "-q")
        brought(shell, name, "--referrers")
    shell.out("gc", "run")
    assert set(signed.blobs) | set(made.blobs) <= set(shell.out("content", "ls", "-q").split())
    assert shell.out("images", "ls", "-q").split() == [name]
    shell.out("images", "rm", name)
    assert shell.out("content", "ls", "-q") == ""


def test_an_image_that_nothing_describes_is_brought_all_the_same(shell: Shell, registry: FaultyRegistry) -> None:  # 48
    brought(shell, name_at(registry), "--referrers")
    assert any("/referrers/" in line for line in asked(registry))
    assert any("/manifests/sha256-" in line for line in asked(registry))


def test_of_an_index_what_describes_its_manifests_comes_too(shell: Shell, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", BOTH)
    signed = signature(BOTH[HOST], "cosign")
    entry = {"mediaType": MANIFEST, "digest": signed.target.digest, "size": len(signed.manifest)}
    put(layout, None, signed)
    listed = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    put(layout, BOTH[HOST].target.digest.replace(":", "-"), listed)
    with LayoutRegistry({"a/b": layout}) as registry:
        brought(shell, name_at(registry), "--referrers")
    shell.out("gc", "run")
    assert set(signed.blobs) <= set(shell.out("content", "ls", "-q").split())
