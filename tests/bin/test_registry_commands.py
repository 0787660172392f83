"""push, copy, referrers and the options with which registries are spoken to, at a shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, needs_openssl
from tests.support.faulty_registry import FaultyRegistry, Stall
from tests.support.images import MadeImage, image, write_layout
from tests.support.shell import Shell, one_line
from tests.support.transfers import lines, write_hosts
from tests.support.writable_registry import WritableRegistry

TAR = "application/vnd.oci.image.layer.v1.tar"
SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
REPOSITORY = "team/app"


@pytest.fixture(scope="module")
def several() -> dict[str, MadeImage]:
    return {
        f"linux/{name}": image([name.encode().ljust(20_000)], media_type=TAR, config={"architecture": name})
        for name in ("amd64", "arm64", "s390x")
    }


@pytest.fixture(scope="module")
def layout(several: dict[str, MadeImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("commands") / "layout", several)


@pytest.fixture
def root(layout: Path) -> str:
    """The digest of the index."""
    digest: str = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return digest


@pytest.fixture
def source(layout: Path) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({"lib/app": layout}) as registry:
        yield registry


@pytest.fixture
def target() -> Iterator[WritableRegistry]:
    with WritableRegistry() as registry:
        yield registry


@pytest.fixture
def local(shell: Shell, source: FaultyRegistry) -> str:
    """The name of the image, all of which is in the store."""
    name = f"{source.address}/lib/app:latest"
    shell.out("pull", "--plain-http", "--no-unpack", "--all-platforms", "-q", name)
    return name


def at(registry: FaultyRegistry, tail: str = ":v1") -> str:
    return f"{registry.address}/{REPOSITORY}{tail}"


def test_a_push_says_what_was_sent_and_what_was_there(
    shell: Shell, local: str, target: WritableRegistry, root: str
) -> None:
    said = shell.out("push", "--plain-http", at(target), local).splitlines()
    assert said[-2] == f"{at(target)}@{root}"
    assert said[-1].startswith("done: elapsed ")
    assert target.held[REPOSITORY].tags == {"v1": root}
    again = shell.out("push", "--plain-http", at(target), local).splitlines()
    assert "sent 0" in again[-1]


def test_quiet_prints_the_digest_and_json_the_answer(
    shell: Shell, local: str, target: WritableRegistry, root: str
) -> None:
    quiet = shell.run("push", "--plain-http", "-q", at(target), local)
    assert (quiet.stdout, quiet.stderr) == (f"{root}\n", "")
    said = json.loads(shell.out("push", "--plain-http", "--json", at(target, ":v2"), local))
    assert (said["reference"], said["target"]["digest"]) == (at(target, ":v2"), root)
    assert said["sent"] > 0


def test_without_a_local_name_the_image_has_the_same(
    shell: Shell, target: WritableRegistry, local: str, root: str
) -> None:
    shell.out("images", "tag", local, at(target, ":latest"))
    shell.out("push", "--plain-http", "-q", at(target, ""))  # :latest is understood
    assert target.held[REPOSITORY].tags == {"latest": root}


def test_literally_a_name_without_a_tag_is_pushed_by_its_digest(
    shell: Shell, target: WritableRegistry, local: str, root: str
) -> None:
    shell.out("push", "--plain-http", "-q", "--literal", at(target, ""), local)
    assert target.held[REPOSITORY].tags == {}
    assert root in target.held[REPOSITORY].manifests


def test_platforms_a_trimmed_index_and_one_manifest(
    shell: Shell, target: WritableRegistry, local: str, several: dict[str, MadeImage]
) -> None:
    arm = several["linux/arm64"].target.digest
    push = ("push", "--plain-http", "-q")
    assert shell.out(*push, "--platform", "linux/arm64", at(target, ":one"), local).strip() == arm
    assert shell.out(*push, "--manifest", arm, at(target, ":manifest")).strip() == arm
    shell.out(*push, "--platform", "linux/arm64", "--trim", at(target, ":trimmed"), local)
    held = target.held[REPOSITORY]
    assert [each["digest"] for each in held.manifest("trimmed")["manifests"]] == [arm]
    assert held.tags["one"] == held.tags["manifest"] == arm


def test_chunks_and_how_many_at_once_are_as_they_are_said(shell: Shell, target: WritableRegistry, local: str) -> None:
    shell.out("push", "--plain-http", "-q", "--chunk-size", "8000", "--max-concurrent-uploads", "1", at(target), local)
    asked = [seen.headers["content-range"] for seen in target.requests if seen.method == "PATCH"]
    assert asked.count("0-7999") == asked.count("8000-15999") == asked.count("16000-19999") == 3


@pytest.mark.parametrize("arguments", [("nobody",), ("--manifest", f"sha256:{'0' * 64}")])
def test_what_is_not_here_exits_3_in_one_line(
    shell: Shell, target: WritableRegistry, arguments: tuple[str, ...]
) -> None:
    done = shell.run("push", "--plain-http", at(target), *arguments)
    assert done.returncode == 3
    one_line(done.stderr[done.stderr.index("orlop: ") :])
    assert target.requests == []


def test_what_is_neither_here_nor_there_says_what_to_do(
    shell: Shell, source: FaultyRegistry, target: WritableRegistry
) -> None:
    name = f"{source.address}/lib/app:latest"
    pull = ("pull", "--plain-http", "--no-unpack", "-q", "--platform", "linux/amd64", "--skip-metadata")
    shell.out(*pull, name)
    done = shell.run("push", "--plain-http", "--user", "a:b", at(target), name)
    assert done.returncode == 3
    assert "hint: " in done.stderr
    assert shell.run("push", "--plain-http", "--platform", "linux/amd64", at(target), name).returncode == 0


def test_a_copy_keeps_nothing_here(shell: Shell, source: FaultyRegistry, target: WritableRegistry, root: str) -> None:
    said = shell.out("copy", "--plain-http", f"{source.address}/lib/app", at(target)).splitlines()
    assert said[-2] == f"{at(target)}@{root}"
    assert target.held[REPOSITORY].tags == {"v1": root}
    assert shell.out("images", "ls", "-q") == ""
    assert shell.out("content", "ls", "-q") == ""


def test_what_describes_an_image_is_listed(shell: Shell, target: WritableRegistry, local: str, root: str) -> None:
    shell.out("push", "--plain-http", "-q", at(target), local)
    subject = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": root, "size": 1}
    entries = []
    for kind in (SIGNATURE, "application/spdx+json"):
        digest = f"sha256:{len(kind):064x}"
        entries.append({"mediaType": subject["mediaType"], "digest": digest, "size": 2048, "artifactType": kind})
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    held = target.held[REPOSITORY]
    held.manifests["sha256:list"] = ("application/vnd.oci.image.index.v1+json", index)
    held.tags[root.replace(":", "-")] = "sha256:list"
    command = ("referrers", "ls", "--plain-http")
    table = shell.out(*command, at(target)).splitlines()
    assert table[0].split() == ["DIGEST", "ARTIFACT", "TYPE", "SIZE"]
    assert [line.split()[1] for line in table[1:]] == [each["artifactType"] for each in entries]
    signature = shell.out(*command, "-q", "--artifact-type", SIGNATURE, at(target))
    assert signature == f"{entries[0]['digest']}\n"
    said = json.loads(shell.out(*command, "--json", at(target)))
    assert said["target"]["digest"] == root
    assert [item["artifact_type"] for item in said["items"]] == [each["artifactType"] for each in entries]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--user", "ann:secret", "--refresh", "token"),
        ("--user", "ann"),
        ("--tlskey", "{file}"),
        ("--tlscacert", "{file}.none"),
        ("--max-concurrent-uploads", "0"),
        ("--chunk-size", "-1"),
    ],
)
def test_options_that_do_not_fit_are_a_matter_of_usage(
    shell: Shell, tmp_path: Path, target: WritableRegistry, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "file"
    file.touch()
    done = shell.run("push", *[each.format(file=file) for each in arguments], at(target))
    assert done.returncode == 2, done.stderr
    assert target.requests == []


def test_an_identity_token_is_sent_as_one(shell: Shell, target: WritableRegistry, local: str, root: str) -> None:
    target.require_bearer(user="ann", password="t0ken")
    shell.out("push", "--plain-http", "-q", "--refresh", "t0ken", at(target), local)
    asked = [seen.body for seen in target.requests if seen.path.startswith("/token")]
    assert asked
    assert all(b"grant_type=refresh_token&refresh_token=t0ken" in body for body in asked)
    assert target.held[REPOSITORY].tags == {"v1": root}


def test_a_folder_of_hosts_may_be_named_from_where_one_stands(
    shell: Shell, tmp_path: Path, target: WritableRegistry, local: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hosts(tmp_path / "hosts", "registry.test", f'server = "{target.url}"')
    monkeypatch.chdir(tmp_path)
    shell.out("push", "-q", "--hosts-dir", "hosts", f"registry.test/{REPOSITORY}:v1", local)
    assert target.held[REPOSITORY].tags == {"v1": root}
    assert all("?ns=registry.test" in line or "/uploads/upload-" in line for line in lines(target))


@needs_openssl
@pytest.mark.parametrize("trust", ["--tlscacert", "--skip-verify"])
def test_certificates_are_given_as_files(
    shell: Shell, tmp_path: Path, local: str, root: str, trust: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    ours = authority.client()
    monkeypatch.chdir(tmp_path / "authority")
    with WritableRegistry(tls=authority.serving(asks_for_ours=True)) as registry:
        write_hosts(tmp_path / "hosts", "registry.test", f'server = "{registry.url}"\nskip_verify = false')
        push = ("push", "-q", "--hosts-dir", str(tmp_path / "hosts"), f"registry.test/{REPOSITORY}:v1", local)
        assert shell.run(*push).returncode == 1
        trusting = (trust, authority.certificate.name) if trust == "--tlscacert" else (trust,)
        shell.out(*push, *trusting, "--tlscert", ours.certificate.name, "--tlskey", ours.key.name)
        assert registry.held[REPOSITORY].tags == {"v1": root}


def test_a_timeout_ends_a_push_to_a_silent_registry(shell: Shell, target: WritableRegistry, local: str) -> None:
    target.fault("HEAD ", Stall(None, None), times=None)
    done = shell.run("--timeout", "1", "push", "--plain-http", at(target), local)
    assert done.returncode == 1
    assert "deadline exceeded" in done.stderr
    assert target.held == {}
