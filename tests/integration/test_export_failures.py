"""Exports that cannot be: they say why, and leave nothing, or what was there before as it was.

Source: spec registry 12; cli 3.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import (
    AlreadyExists,
    DataLoss,
    NotFound,
    OrlopError,
    PermissionDenied,
    ResourceExhausted,
)
from tests.support.archive_stores import TIMEOUT_S, opened, stored
from tests.support.archives import HOST, OTHER, for_other, members, simple
from tests.support.images import MadeImage, image, index_of, write_layout
from tests.support.layers import TAR, digest_of, file, layer
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import DockerRegistry, push_layout

NAME = "quay.io/a/b:1"
BOTH: Mapping[str, MadeImage] = {HOST: simple(), OTHER: for_other()}
REPOSITORY = "library/app"
FORMS = ("x.tar", "x.tar.gz", "x.tar.zst", "x/")
MISSING = BOTH[HOST].layers[0].digest
real_registry = pytest.mark.skipif(
    not DockerRegistry.available() or shutil.which("skopeo") is None, reason="needs docker-registry and skopeo"
)


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where exports go; nothing else is in there."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


async def export(store: orlop.Store, path: Path | str, *names: str, all_platforms: bool = False, **more: Any) -> None:
    with trio.fail_after(TIMEOUT_S):
        options = orlop.ExportOptions(host_platform(), all_platforms=all_platforms)
        await orlop.export_archive(store, names, path, options, **more)


async def refused(
    store: orlop.Store, target: Path, form: str, kind: type[OrlopError], *names: str, **more: Any
) -> OrlopError:
    """It fails so, and leaves nothing; an older file is as it was."""
    with pytest.raises(kind) as caught:
        await export(store, f"{target}/{form}", *names, **more)
    assert os.listdir(target) == []
    if not form.endswith("/"):
        older = target / form
        older.write_bytes(b"older")
        with pytest.raises(kind):
            await export(store, older, *names, **more)
        assert os.listdir(target) == [form]
        assert older.read_bytes() == b"older"
        older.unlink()
    assert "\n" not in str(caught.value)
    return caught.value


# What is not here


@pytest.mark.parametrize("form", FORMS)
async def test_an_image_that_is_not_here_is_not_found(store: orlop.Store, target: Path, form: str) -> None:
    await stored(store, BOTH, NAME)
    assert "quay.io/c/d:1" in str(await refused(store, target, form, NotFound, NAME, "quay.io/c/d:1"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["index", "manifest"])
async def test_missing_content_is_named_with_its_platform(
    store: orlop.Store, target: Path, kind: str, form: str
) -> None:
    await stored(store, BOTH if kind == "index" else BOTH[HOST], NAME, without=[MISSING])
    error = await refused(store, target, form, NotFound, NAME)
    for part in (f"layer {MISSING}", NAME, HOST):
        assert part in str(error)
    assert "--missing" in error.hint


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
async def test_whatever_is_missing_fails_an_export_of_all_platforms(
    store: orlop.Store, target: Path, which: str
) -> None:
    other = BOTH[OTHER]
    digest = {"manifest": other.target.digest, "config": other.config_digest, "layer": other.layers[1].digest}[which]
    await stored(store, BOTH, NAME, without=[digest])
    error = await refused(store, target, "x.tar", NotFound, NAME, all_platforms=True)
    for part in (f"{which} {digest}", OTHER):
        assert part in str(error)
    await export(store, target / "x.tar", NAME)


async def test_what_is_missing_can_be_left_out(store: orlop.Store, target: Path) -> None:
    """Docker, which needs all of an image, does not see it then."""
    await stored(store, BOTH[HOST], NAME, without=[MISSING])
    await stored(store, simple("whole"), "quay.io/a/whole:1")
    await export(store, target / "x.tar", NAME, "quay.io/a/whole:1", missing=orlop.OnMissing.SKIP)
    found = members(target / "x.tar")
    names = {name.rpartition("/")[2] for name in found if name.startswith("blobs/sha256/")}
    whole = {digest.partition(":")[2] for digest in {*BOTH[HOST].blobs, *simple("whole").blobs} - {MISSING}}
    assert names == whole
    assert found["manifest.json"] is not None
    assert NAME.encode() not in found["manifest.json"]
    assert b"quay.io/a/whole:1" in found["manifest.json"]
    assert found["index.json"] is not None
    assert NAME.encode() in found["index.json"]


def plainly(_: str) -> orlop.RegistryAccess:
    return orlop.RegistryAccess(plain_http=True)


async def pulled(store: orlop.Store, registry: DockerRegistry | LayoutRegistry) -> str:
    name = f"{registry.address}/{REPOSITORY}:latest"
    access = orlop.RegistryAccess(plain_http=True)
    await store.pull(orlop.PullImage(name, access=access, all_platforms=True))
    return name


@real_registry
async def test_what_is_missing_can_be_fetched_from_where_it_came(
    store: orlop.Store, tmp_path: Path, target: Path
) -> None:
    layout = write_layout(tmp_path / "layout", BOTH)
    other = BOTH[OTHER]
    with DockerRegistry(tmp_path / "registry") as registry:
        push_layout(layout, registry.address, REPOSITORY)
        name = await pulled(store, registry)
        await export(store, target / "whole.tar", name, all_platforms=True)
        for digest in (MISSING, other.target.digest):
            await store.content.delete(digest)
        await store.collect()  # what only the manifest held is gone with it
        with pytest.raises(NotFound) as caught:
            await export(store, target / "x.tar", name, all_platforms=True)
        assert f"{registry.address}/{REPOSITORY}" in caught.value.hint
        registry.clear()
        more = {"missing": orlop.OnMissing.FETCH, "access": plainly}
        await export(store, target / "x.tar", name, all_platforms=True, **more)
        got = [path for method, path in registry.requests() if method == "GET" and path.startswith("/v2/lib")]
        asked = sorted(path.rpartition("/")[2] for path in got)
        assert asked == sorted([MISSING, *other.blobs])
    assert (target / "x.tar").read_bytes() == (target / "whole.tar").read_bytes()


async def test_what_is_missing_is_fetched_also_under_another_name(
    store: orlop.Store, tmp_path: Path, target: Path
) -> None:
    with LayoutRegistry({REPOSITORY: write_layout(tmp_path / "layout", BOTH[HOST])}) as registry:
        name = await pulled(store, registry)
        await store.images.create(NAME, (await store.images.get(name)).target)
        await store.content.delete(MISSING)
        await store.collect()
        await export(store, target / "x.tar", NAME, missing=orlop.OnMissing.FETCH, access=plainly)
    assert digest_of(members(target / "x.tar")[f"blobs/{MISSING.replace(':', '/')}"] or b"") == MISSING


async def test_what_cannot_be_fetched_is_an_error(store: orlop.Store, tmp_path: Path, target: Path) -> None:
    fetch = {"missing": orlop.OnMissing.FETCH, "access": plainly}
    await stored(store, BOTH[HOST], NAME, without=[MISSING])
    error = await refused(store, target, "x.tar", NotFound, NAME, **fetch)  # nobody says where it came from
    assert MISSING in str(error)
    layout = write_layout(tmp_path / "layout", BOTH[HOST])
    with LayoutRegistry({REPOSITORY: layout}) as registry:
        other = store.in_namespace("other")
        name = await pulled(other, registry)
        digest = BOTH[HOST].layers[1].digest
        await store.content.delete(digest)
        await other.content.delete(digest)
        await store.collect()
        (layout / "blobs" / digest.replace(":", "/")).unlink()
        assert digest in str(await refused(other, target, "x.tar", NotFound, name, **fetch))


# Damage


@pytest.mark.parametrize("form", FORMS)
async def test_a_damaged_blob_is_not_passed_on(store: orlop.Store, tmp_path: Path, target: Path, form: str) -> None:
    await stored(store, BOTH[HOST], NAME)
    (path,) = (tmp_path / "store" / "blobs").rglob(f"{MISSING.partition(':')[2]}*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert MISSING in str(await refused(store, target, form, DataLoss, NAME))


# Places


async def test_a_folder_with_something_in_it_is_left_alone(store: orlop.Store, target: Path) -> None:
    await stored(store, BOTH[HOST], NAME)
    (target / "mine").write_bytes(b"x")
    for path in (target, f"{target}/"):
        with pytest.raises(AlreadyExists):
            await export(store, path, NAME)
    assert os.listdir(target) == ["mine"]


async def test_a_file_is_no_folder(store: orlop.Store, target: Path) -> None:
    await stored(store, BOTH[HOST], NAME)
    (target / "mine").write_bytes(b"x")
    for path in ("mine/", "mine/x.tar", "mine/x/"):
        with pytest.raises((AlreadyExists, PermissionDenied)):
            await export(store, f"{target}/{path}", NAME)
    assert os.listdir(target) == ["mine"]
    assert (target / "mine").read_bytes() == b"x"


async def test_a_folder_that_is_not_there_is_not_made_for_a_file(store: orlop.Store, target: Path) -> None:
    await stored(store, BOTH[HOST], NAME)
    with pytest.raises(NotFound, match=r"none/x\.tar"):
        await export(store, target / "none" / "x.tar", NAME)
    assert os.listdir(target) == []


async def test_the_working_folder_can_be_filled(
    store: orlop.Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is there stays that folder: somebody may stand in it, or have mounted it."""
    await stored(store, BOTH[HOST], NAME)
    monkeypatch.chdir(target)
    await export(store, ".", NAME)
    assert sorted(os.listdir()) == ["blobs", "index.json", "manifest.json", "oci-layout"]
    assert os.listdir(target) == os.listdir()


async def test_a_link_to_a_folder_is_that_folder(store: orlop.Store, target: Path) -> None:
    await stored(store, BOTH[HOST], NAME)
    (target / "real").mkdir()
    (target / "link").symlink_to("real")
    await export(store, target / "link", NAME)
    assert (target / "link").is_symlink()
    assert (target / "real" / "oci-layout").exists()


async def test_what_is_no_file_is_written_to_and_not_replaced(store: orlop.Store, target: Path) -> None:
    """A pipe with a name, a device: whoever names one wants the bytes to go there."""
    await stored(store, BOTH[HOST], NAME)
    await export(store, target / "x.tar", NAME)
    os.mkfifo(target / "pipe")
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.append((target / "pipe").read_bytes()), daemon=True)
    reader.start()
    await export(store, target / "pipe", NAME)
    assert (target / "pipe").is_fifo()
    reader.join(TIMEOUT_S)
    assert came == [(target / "x.tar").read_bytes()]
    assert sorted(os.listdir(target)) == ["pipe", "x.tar"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for a few kilobytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("form", FORMS)
async def test_a_full_disk_is_told_and_left_as_it_was(store: orlop.Store, small: Path, form: str) -> None:
    noise = b"".join(bytes.fromhex(digest_of(b"%d" % number).partition(":")[2]) for number in range(8000))
    await stored(store, image([layer(file("noise", noise))], media_type=TAR), NAME)
    error = await refused(store, small, form, ResourceExhausted, NAME)
    assert str(small) in str(error)
    del error
    gc.collect()  # a generator that was left in the middle would show now


# Cancellation


@pytest.mark.parametrize("form", FORMS)
async def test_an_export_that_is_cancelled_leaves_nothing(store: orlop.Store, target: Path, form: str) -> None:
    await stored(store, BOTH[HOST], NAME)
    older = not form.endswith("/")
    if older:
        (target / form).write_bytes(b"older")
    for step in (1, 2, 4):
        steps = 0
        with trio.CancelScope() as scope:

            def told(_: orlop.TransferProgress, step: int = step, scope: trio.CancelScope = scope) -> None:
                nonlocal steps
                steps += 1
                if steps == step:
                    scope.cancel()

            await export(store, f"{target}/{form}", NAME, told=told)
        assert scope.cancelled_caught
        assert os.listdir(target) == ([form] if older else [])
    if older:
        assert (target / form).read_bytes() == b"older"


async def test_an_index_alone_is_no_index_of_nothing(store: orlop.Store, target: Path) -> None:
    """Of an index whose own blob is missing nobody knows what else is."""
    digest = await stored(store, BOTH, NAME)
    await store.content.delete(digest)
    assert digest == digest_of(index_of(BOTH))
    assert f"index {digest}" in str(await refused(store, target, "x.tar", NotFound, NAME))
