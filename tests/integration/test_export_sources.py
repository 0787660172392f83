"""What an export lacks is asked of every repository that it may have come from, in turn. Source: spec registry 8.2."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import InvalidArgument, NotFound, OrlopError, Unauthenticated, Unavailable
from tests.support.archive_stores import TIMEOUT_S, opened, written
from tests.support.archives import layout_files, members, named, simple
from tests.support.faulty_registry import FaultyRegistry, Status
from tests.support.images import MadeImage, write_layout
from tests.support.layers import digest_of
from tests.support.shell import Shell, one_line

MADE = simple(layers=3)
LAYERS = [blob.digest for blob in MADE.layers]
A, B = "lib/a", "lib/b"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store") as store:
        yield store


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[tuple[FaultyRegistry, FaultyRegistry]]:
    """Two, each with the image in two repositories."""
    with ExitStack() as stack:
        found = []
        for number in range(2):
            layouts = {each: write_layout(tmp_path / f"{number}-{each}", MADE) for each in (A, B)}
            found.append(stack.enter_context(FaultyRegistry(layouts)))
        yield found[0], found[1]


def without(folder: Path, registry: int, repository: str, *digests: str) -> None:
    for digest in digests:
        (folder / f"{registry}-{repository}" / "blobs" / digest.replace(":", "/")).unlink()


def plainly(_: str) -> orlop.RegistryAccess:
    return orlop.RegistryAccess(plain_http=True)


async def pulled(store: orlop.Store, *repositories: str, layers: Sequence[str] = LAYERS) -> str:
    """From all of these; the first one's name. Then the layers are gone."""
    for repository in repositories:
        await store.pull(orlop.PullImage(f"{repository}:latest", access=plainly(repository), fetch_all=True))
    for digest in layers:
        await store.content.delete(digest)
    await store.collect()
    return f"{repositories[0]}:latest"


async def export(store: orlop.Store, target: Path, *names: str) -> None:
    with trio.fail_after(TIMEOUT_S):
        await orlop.export_archive(
            store,
            names,
            target,
            orlop.ExportOptions(host_platform()),
            missing=orlop.OnMissing.FETCH,
            access=plainly,
        )


def is_whole(archive: Path, made: MadeImage = MADE) -> None:
    found = members(archive)
    for digest in made.blobs:
        assert digest_of(found[f"blobs/{digest.replace(':', '/')}"] or b"") == digest


async def refused(store: orlop.Store, target: Path, kind: type[OrlopError], *names: str) -> OrlopError:
    with pytest.raises(kind) as caught:
        await export(store, target, *names)
    assert not target.exists()
    assert "\n" not in str(caught.value) + caught.value.hint
    return caught.value


def blobs_asked(registry: FaultyRegistry) -> list[str]:
    return [seen.path.removeprefix("/v2/") for seen in registry.requests if "/blobs/" in seen.path]


async def test_the_next_repository_of_a_host_is_asked(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    registry, _ = registries
    name = await pulled(store, f"{registry.address}/{A}", f"{registry.address}/{B}")
    without(tmp_path, 0, A, LAYERS[1])
    registry.clear()
    await export(store, tmp_path / "x.tar", name)
    is_whole(tmp_path / "x.tar")
    asked = blobs_asked(registry)
    assert [each for each in asked if each.startswith(B)] == [f"{B}/blobs/{LAYERS[1]}"]  # only what the first has not


async def test_the_next_host_is_asked_when_the_first_is_down(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    first, second = registries
    name = await pulled(store, f"{first.address}/{A}", f"localhost:{second.port}/{B}")
    first.close()
    await export(store, tmp_path / "x.tar", name)
    is_whole(tmp_path / "x.tar")


async def test_hosts_that_differ_only_by_their_port_are_both_asked(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    """Labels leave the port out."""
    first, second = registries
    name = await pulled(store, f"{first.address}/{A}", f"{second.address}/{A}")
    without(tmp_path, 0, A, *LAYERS)
    await export(store, tmp_path / "x.tar", name)
    is_whole(tmp_path / "x.tar")


async def test_what_no_single_source_has_comes_from_several(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    registry, _ = registries
    name = await pulled(store, f"{registry.address}/{A}", f"{registry.address}/{B}")
    without(tmp_path, 0, A, LAYERS[0])
    without(tmp_path, 0, B, LAYERS[1], LAYERS[2])
    await export(store, tmp_path / "x.tar", name)
    is_whole(tmp_path / "x.tar")


async def test_one_blob_that_a_host_cannot_give_does_not_spoil_its_others(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    registry, _ = registries
    name = await pulled(store, f"{registry.address}/{A}", f"{registry.address}/{B}")
    registry.fault(f"{A}/blobs/{LAYERS[0]}", Status(500), times=None)
    without(tmp_path, 0, B, LAYERS[1], LAYERS[2])
    await export(store, tmp_path / "x.tar", name)
    is_whole(tmp_path / "x.tar")


async def test_another_of_the_images_may_know_others_to_ask(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    """Two images with the same layer, one from each registry; the first of them has lost it."""
    first, second = registries
    other = MadeImage(MADE.layers, MADE.config, MADE.manifest + b" ", MADE.diff_ids)
    second.add(A, write_layout(tmp_path / "other", other))
    name = await pulled(store, f"{first.address}/{A}")
    theirs = await pulled(store, f"localhost:{second.port}/{A}")
    first.close()
    await export(store, tmp_path / "x.tar", name, theirs)
    is_whole(tmp_path / "x.tar")
    is_whole(tmp_path / "x.tar", other)


async def test_the_error_names_all_that_were_asked(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    first, second = registries
    places = [f"{first.address}/{A}", f"{first.address}/{B}", f"localhost:{second.port}/{A}"]
    name = await pulled(store, *places)
    without(tmp_path, 0, A, LAYERS[1])
    without(tmp_path, 0, B, LAYERS[1])
    without(tmp_path, 1, A, LAYERS[1])
    error = await refused(store, tmp_path / "x.tar", NotFound, name)
    for part in (LAYERS[1], name, *places):
        assert part in str(error)
    assert error.hint.count("answered 404") == 3


async def test_what_is_not_simply_absent_is_what_the_error_says(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    """Somebody who is down may have it: asking later may help."""
    first, second = registries
    name = await pulled(store, f"{first.address}/{A}", f"localhost:{second.port}/{A}")
    without(tmp_path, 0, A, LAYERS[1])
    address = f"localhost:{second.port}"
    second.close()
    error = await refused(store, tmp_path / "x.tar", Unavailable, name)
    assert first.address in error.hint
    assert f"cannot reach {address}" in error.hint


async def test_a_host_that_fails_for_everything_is_given_up(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    first, second = registries
    made = simple(layers=12)
    layout = write_layout(tmp_path / "many", made)
    for registry in registries:
        registry.add(A, layout)
    digests = [blob.digest for blob in made.layers]
    name = await pulled(store, f"{first.address}/{A}", f"localhost:{second.port}/{A}", layers=digests)
    first.clear()
    first.fault("/blobs/", Status(403), times=None)
    await export(store, tmp_path / "x.tar", name)
    is_whole(tmp_path / "x.tar", made)
    assert len(blobs_asked(first)) < len(digests)


async def test_settings_that_cannot_be_understood_end_it(
    store: orlop.Store, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    """They are no reason to ask somebody else."""
    first, second = registries
    name = await pulled(store, f"{first.address}/{A}", f"localhost:{second.port}/{A}")
    (tmp_path / "hosts" / first.address).mkdir(parents=True)
    (tmp_path / "hosts" / first.address / "hosts.toml").write_text("[broken")
    second.clear()

    def access(_: str) -> orlop.RegistryAccess:
        return orlop.RegistryAccess(plain_http=True, hosts_dir=str(tmp_path / "hosts"))

    with pytest.raises(InvalidArgument):
        await orlop.export_archive(
            store,
            [name],
            tmp_path / "x.tar",
            orlop.ExportOptions(host_platform()),
            missing=orlop.OnMissing.FETCH,
            access=access,
        )
    assert second.requests == []


# At a shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "own"))


def pull_and_lose(shell: Shell, *repositories: str) -> str:
    for repository in repositories:
        shell.out("pull", "-q", "--plain-http", "--fetch-all", f"{repository}:latest")
    shell.out("content", "rm", *LAYERS)
    shell.out("gc", "run")
    return f"{repositories[0]}:latest"


def test_credentials_go_to_the_registry_that_the_image_is_named_after_and_to_no_other(
    shell: Shell, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    first, second = registries
    name = pull_and_lose(shell, f"{first.address}/{A}", f"localhost:{second.port}/{A}")
    without(tmp_path, 0, A, LAYERS[1])
    for registry in registries:
        registry.require_basic("ann", "secret")
        registry.clear()
    arguments = ["--missing=fetch", "--plain-http", "--user", "ann:secret"]
    done = shell.run("images", "export", "-q", str(tmp_path / "x.tar"), name, *arguments)
    assert done.returncode == 1
    one_line(done.stderr)
    assert str(Unauthenticated.class_text) in done.stderr
    assert any("authorization" in seen.headers for seen in first.requests)
    assert second.requests
    assert not any("authorization" in seen.headers for seen in second.requests)


def test_an_export_at_a_shell_says_whom_it_asked(
    shell: Shell, tmp_path: Path, registries: tuple[FaultyRegistry, FaultyRegistry]
) -> None:
    first, second = registries
    places = [f"{first.address}/{A}", f"localhost:{second.port}/{A}"]
    name = pull_and_lose(shell, *places)
    for number in range(2):
        without(tmp_path, number, A, LAYERS[2])
    done = shell.run("images", "export", "-q", str(tmp_path / "x.tar"), name, "--missing=fetch", "--plain-http")
    assert done.returncode == 3
    one_line(done.stderr)
    for part in (LAYERS[2], *places, "404"):
        assert part in done.stderr
    assert not (tmp_path / "x.tar").exists()


def test_where_nobody_says_where_it_came_from_nobody_is_asked(shell: Shell, tmp_path: Path) -> None:
    archive = written(tmp_path, layout_files([(MADE, named("quay.io/a/b:1"))]))
    shell.out("images", "import", "-q", "--no-unpack", str(archive))
    shell.out("content", "rm", LAYERS[0])
    shell.out("gc", "run")
    done = shell.run("images", "export", "-q", str(tmp_path / "x.tar"), "quay.io/a/b:1", "--missing=fetch")
    assert done.returncode == 3
    one_line(done.stderr)
    assert "nobody says where it came from" in done.stderr
    assert "--missing=fetch" not in done.stderr
