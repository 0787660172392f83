"""Images into archives: what stands in them, and who reads them. Source: spec registry 12; the numbers in comments are
those of its section 14.

What goes wrong is in test_export_failures.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import NotFound
from orlop.protocol.registry.platforms import parse_platform
from tests.support.archive_stores import TIMEOUT_S, brought, has, opened, recorded, stored
from tests.support.archives import HOST, IMAGE_NAME, OTHER, REF_NAME, blob_path, for_other, members, raw_of, simple
from tests.support.images import INDEX, MANIFEST, Blob, image, index_of
from tests.support.layers import TAR, brief, digest_of, file, folder, layer, read_tree

NAME = "quay.io/a/b:1"
BOTH = {HOST: simple(), OTHER: for_other()}
ROOT = index_of(BOTH)
skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
umoci = pytest.mark.skipif(
    shutil.which("umoci") is None or os.geteuid() != 0, reason="needs umoci, and root for owners"
)


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


async def export(
    store: orlop.Store, path: Path | str, *names: str, compression: orlop.Compression | None = None, **options: Any
) -> None:
    with trio.fail_after(TIMEOUT_S):
        given = orlop.ExportOptions(host_platform(), **options)
        await orlop.export_archive(store, names, path, given, compression=compression)


def document(archive: Path, name: str) -> Any:
    data = members(archive)[name]
    assert data is not None
    return json.loads(data)


def blobs(archive: Path) -> set[str]:
    """The digests of the blobs in it, which must be what they are called."""
    found = set()
    for name, data in members(archive).items():
        if name.startswith("blobs/") and data is not None:
            found.add(digest_of(data))
            assert name == blob_path(digest_of(data))
    return found


# What stands in it


async def test_entries_are_sorted_and_the_same_for_everybody(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    await stored(store, made, NAME)
    path = tmp_path / "x.tar"
    await export(store, path, NAME)
    found = members(path)
    files = {"index.json", "manifest.json", "oci-layout", *map(blob_path, made.blobs)}
    assert list(found) == sorted({"blobs", "blobs/sha256", *files})
    for digest, data in made.blobs.items():
        assert found[blob_path(digest)] == data
    assert found["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}'
    modes = {"blobs": 0o755, "blobs/sha256": 0o755, "index.json": 0o644, "manifest.json": 0o644}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            assert member.mode == modes.get(member.name, 0o444)
            assert member.isdir() == (member.name in ("blobs", "blobs/sha256"))
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


async def test_the_index_says_what_images_are_called(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    digest = made.target.digest
    names = {
        "docker.io/library/t:latest": "latest",
        NAME: "1",
        f"quay.io/a/b:1@{digest}": f"1@{digest}",
        f"quay.io/a/b@{digest}": f"quay.io/a/b@{digest}",
        "weird": "weird",
    }
    await stored(store, made, *names)
    await export(store, tmp_path / "x.tar", *names)
    index = document(tmp_path / "x.tar", "index.json")
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    assert index["manifests"] == [
        {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": len(made.manifest),
            "annotations": {IMAGE_NAME: name, REF_NAME: ref},
        }
        for name, ref in names.items()
    ]


async def test_docker_sees_familiar_names_and_paths(store: orlop.Store, tmp_path: Path) -> None:
    one, two = simple("1"), simple("2")
    await stored(store, one, "docker.io/library/t:latest", "quay.io/a/b:1", f"quay.io/a/b@{one.target.digest}")
    await stored(store, two, "docker.io/foo/bar:2")
    await export(store, tmp_path / "x.tar", *await recorded(store))
    found = document(tmp_path / "x.tar", "manifest.json")
    for entry in found:
        entry["RepoTags"].sort()
    assert sorted(found, key=lambda entry: len(entry["RepoTags"])) == [
        {
            "Config": blob_path(made.config_digest),
            "RepoTags": tags,
            "Layers": [blob_path(blob.digest) for blob in made.layers],
        }
        for made, tags in ((two, ["foo/bar:2"]), (one, ["quay.io/a/b:1", "t:latest"]))
    ]
    await export(store, tmp_path / "y.tar", NAME, docker=False)
    assert "manifest.json" not in members(tmp_path / "y.tar")


async def test_several_names_share_their_blobs(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    await stored(store, made, NAME, "quay.io/c/d:2")
    await export(store, tmp_path / "x.tar", NAME, "quay.io/c/d:2", NAME)
    with tarfile.open(tmp_path / "x.tar", "r:") as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))
    assert blobs(tmp_path / "x.tar") == set(made.blobs)
    assert len(document(tmp_path / "x.tar", "index.json")["manifests"]) == 2
    (entry,) = document(tmp_path / "x.tar", "manifest.json")
    assert entry["RepoTags"] == [NAME, "quay.io/c/d:2"]


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst"])
async def test_the_same_images_make_the_same_bytes(tmp_path: Path, form: str) -> None:  # 52
    for number in (1, 2):
        async with opened(tmp_path / f"store-{number}") as store:
            await stored(store, BOTH, NAME)
            for turn in ("a", "b"):
                await export(store, tmp_path / f"{number}{turn}.{form}", NAME, all_platforms=True)
    assert len({(tmp_path / f"{name}.{form}").read_bytes() for name in ("1a", "1b", "2a", "2b")}) == 1


async def test_what_is_no_file_system_is_exported_too(store: orlop.Store, tmp_path: Path) -> None:
    """It is nothing that docker reads."""
    made = image(
        [Blob(b"text", "text/plain", "")], config=b"{}", config_type="application/vnd.oci.empty.v1+json", diff_ids=[]
    )
    await stored(store, made, NAME)
    await export(store, tmp_path / "x.tar", NAME)
    assert blobs(tmp_path / "x.tar") == set(made.blobs)
    assert "manifest.json" not in members(tmp_path / "x.tar")


FOREIGN = TAR.replace("layer.v1", "layer.nondistributable.v1")


async def test_layers_not_to_be_passed_on_can_be_left_out(store: orlop.Store, tmp_path: Path) -> None:
    raw = layer(file("theirs", "x"))
    made = image([layer(file("ours", "1")), Blob(raw, FOREIGN, digest_of(raw))])
    await stored(store, made, NAME)
    await export(store, tmp_path / "x.tar", NAME)
    assert blobs(tmp_path / "x.tar") == set(made.blobs)
    await export(store, tmp_path / "y.tar", NAME, skip_nondistributable=True)
    assert blobs(tmp_path / "y.tar") == set(made.blobs) - {digest_of(raw)}
    await store.content.delete(digest_of(raw))
    await export(store, tmp_path / "z.tar", NAME, skip_nondistributable=True)  # it need not be here either
    assert (tmp_path / "z.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()


# Platforms


def docker_configs(archive: Path) -> list[str]:
    return [entry["Config"] for entry in document(archive, "manifest.json")]


@pytest.mark.parametrize(
    "options, platforms, for_docker",
    [
        ({}, [HOST], HOST),
        ({"platforms": [HOST]}, [HOST], HOST),
        ({"platforms": [OTHER]}, [OTHER], OTHER),
        ({"platforms": [OTHER, HOST]}, [HOST, OTHER], HOST),
        ({"all_platforms": True}, [HOST, OTHER], HOST),
    ],
    ids=["this machine's", "its name", "another", "two", "all"],
)
async def test_of_an_index_come_the_chosen_platforms(
    store: orlop.Store, tmp_path: Path, options: dict[str, Any], platforms: list[str], for_docker: str
) -> None:
    """And the index as it is. Docker, which knows one platform, sees the chosen one, of several this machine's."""
    await stored(store, BOTH, NAME)
    given = {**options}
    if "platforms" in options:
        given["platforms"] = [parse_platform(text, host_platform()) for text in options["platforms"]]
    await export(store, tmp_path / "x.tar", NAME, **given)
    expected = {digest_of(ROOT)}.union(*(BOTH[platform].blobs for platform in platforms))
    assert blobs(tmp_path / "x.tar") == expected
    assert docker_configs(tmp_path / "x.tar") == [blob_path(BOTH[for_docker].config_digest)]
    (entry,) = document(tmp_path / "x.tar", "index.json")["manifests"]
    assert (entry["digest"], entry["mediaType"]) == (digest_of(ROOT), INDEX)


async def test_of_platforms_that_are_not_chosen_nothing_need_be_here(store: orlop.Store, tmp_path: Path) -> None:
    await stored(store, BOTH, NAME, without=list(BOTH[OTHER].blobs))
    await export(store, tmp_path / "x.tar", NAME)
    assert blobs(tmp_path / "x.tar") == {digest_of(ROOT), *BOTH[HOST].blobs}


@pytest.mark.parametrize("kind", ["index", "manifest"])
async def test_a_platform_that_an_image_is_not_for_is_not_found(store: orlop.Store, tmp_path: Path, kind: str) -> None:
    await stored(store, BOTH if kind == "index" else BOTH[HOST], NAME)
    with pytest.raises(NotFound, match="linux/s390x") as caught:
        await export(store, tmp_path / "x.tar", NAME, platforms=[parse_platform("linux/s390x", host_platform())])
    assert HOST in caught.value.hint
    assert os.listdir(tmp_path) == ["store"]


async def test_of_several_platforms_without_this_machine_s_docker_sees_the_first(
    store: orlop.Store, tmp_path: Path
) -> None:
    third = simple("third", config={"architecture": "s390x", "variant": ""})
    await stored(store, BOTH | {"linux/s390x": third}, NAME)
    wanted = [parse_platform(text, host_platform()) for text in ("linux/s390x", OTHER)]
    await export(store, tmp_path / "x.tar", NAME, platforms=wanted)
    assert docker_configs(tmp_path / "x.tar") == [blob_path(third.config_digest)]


async def test_an_index_without_this_machine_is_not_found_unless_one_says_what_of_it(
    store: orlop.Store, tmp_path: Path
) -> None:
    await stored(store, {OTHER: BOTH[OTHER]}, NAME)
    with pytest.raises(NotFound) as caught:
        await export(store, tmp_path / "x.tar", NAME)
    assert OTHER in caught.value.hint
    await export(store, tmp_path / "x.tar", NAME, all_platforms=True)
    assert docker_configs(tmp_path / "x.tar") == [blob_path(BOTH[OTHER].config_digest)]


async def test_a_single_manifest_is_exported_whatever_it_is_for(store: orlop.Store, tmp_path: Path) -> None:
    await stored(store, BOTH[OTHER], NAME)
    await export(store, tmp_path / "x.tar", NAME)
    assert blobs(tmp_path / "x.tar") == set(BOTH[OTHER].blobs)


# Forms


@pytest.mark.parametrize(
    "name, compression, magic",
    [
        ("x.tar", None, b"blobs/"),
        ("x.tar.gz", None, b"\x1f\x8b"),
        ("x.tgz", None, b"\x1f\x8b"),
        ("x.tar.zst", None, b"\x28\xb5\x2f\xfd"),
        ("x.tar", orlop.Compression.GZIP, b"\x1f\x8b"),
        ("x.tar", orlop.Compression.ZSTD, b"\x28\xb5\x2f\xfd"),
        ("x.tar.gz", orlop.Compression.NONE, b"blobs/"),
        ("x.tar.zst", orlop.Compression.GZIP, b"\x1f\x8b"),
    ],
)
async def test_archives_are_packed_as_their_name_or_the_option_says(
    tmp_path: Path, name: str, compression: orlop.Compression | None, magic: bytes
) -> None:
    made = simple()
    async with opened(tmp_path / "store") as store:
        await stored(store, made, NAME)
        await export(store, tmp_path / name, NAME, compression=compression)
        assert (tmp_path / name).read_bytes().startswith(magic)
        assert blobs(tmp_path / name) == set(made.blobs)
        assert await brought(store.in_namespace("other"), tmp_path / name) == {NAME: made.target.digest}


@pytest.mark.parametrize("there", [False, True])
async def test_a_folder_has_the_same_files_as_a_tar(store: orlop.Store, tmp_path: Path, there: bool) -> None:
    await stored(store, simple(), NAME)
    await export(store, tmp_path / "x.tar", NAME)
    target = tmp_path / "some" / "folder"
    if there:
        target.mkdir(parents=True)
    await export(store, target if there else f"{target}/", NAME)
    found = {str(path.relative_to(target)): path for path in target.rglob("*")}
    assert {name: path.read_bytes() if path.is_file() else None for name, path in found.items()} == members(
        tmp_path / "x.tar"
    )
    assert {path.stat().st_mode & 0o777 for name, path in found.items() if name.startswith("blobs/sha256/")} == {0o444}
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["folder"]


async def test_importing_what_was_exported_restores_it(store: orlop.Store, tmp_path: Path) -> None:  # 53
    one, two = simple("1"), simple("2")
    await stored(
        store, one, "docker.io/library/t:latest", "docker.io/library/a/b:1", f"quay.io/a/b@{one.target.digest}"
    )
    await stored(store, two, NAME)
    await stored(store, BOTH, "quay.io/a/both:1")
    before = await recorded(store)
    other = store.in_namespace("other")
    for form in ("x.tar", "x.tar.gz", "folder/"):
        await export(store, f"{tmp_path}/{form}", *before, all_platforms=True)
        await brought(other, f"{tmp_path}/{form}")
        assert await recorded(other) == before
        await has(other, one, two, *BOTH.values())
        for name in before:
            await other.images.delete(name, sync=True)
    assert [info async for info in other.content.list()] == []


async def test_names_that_are_no_complete_references_come_back_as_they_were(store: orlop.Store, tmp_path: Path) -> None:
    """Any text may name an image, and an export with its import is how images move. Spec registry 12, last line."""
    names = ["t", "busybox", "quay.io/a/b", "name with space", "a:b", "BAD/:x", "über/ß", "x\ny", "/a:1", "n" * 512]
    await stored(store, simple(), *names)
    before = await recorded(store)
    other = store.in_namespace("other")
    await export(store, f"{tmp_path}/x.tar", *names)
    assert await brought(other, tmp_path / "x.tar") == before
    assert await recorded(other) == before
    some = store.in_namespace("some")
    await brought(some, tmp_path / "x.tar", naming=orlop.Naming("quay.io/a/b"))
    assert set(await recorded(some)) == {"quay.io/a/b"}


async def test_docker_s_part_of_what_was_exported_is_an_archive_of_its_own(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    await stored(store, made, NAME)
    await export(store, f"{tmp_path}/x/", NAME)
    (tmp_path / "x" / "oci-layout").unlink()
    other = store.in_namespace("other")
    await brought(other, tmp_path / "x")
    manifest = json.loads(await other.content.read((await recorded(other))[NAME]))
    assert manifest["config"]["digest"] == made.config_digest
    assert [each["digest"] for each in manifest["layers"]] == [blob.digest for blob in made.layers]
    assert {each["mediaType"].rpartition(".")[2] for each in manifest["layers"]} == {"gzip"}


# Who reads it


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def skopeo_copy(source: str, target: Path) -> Any:
    """The manifest that skopeo finds."""
    run("skopeo", "--insecure-policy", "copy", "--quiet", source, f"dir:{target}")
    return json.loads((target / "manifest.json").read_text())


@skopeo
async def test_skopeo_reads_it_as_a_layout_and_as_dockers(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    await stored(store, made, "docker.io/library/t:latest")
    await export(store, tmp_path / "x.tar", "docker.io/library/t:latest")
    found = skopeo_copy(f"oci-archive:{tmp_path}/x.tar:latest", tmp_path / "oci")
    assert digest_of((tmp_path / "oci" / "manifest.json").read_bytes()) == made.target.digest
    assert found["config"]["digest"] == made.config_digest
    found = skopeo_copy(f"docker-archive:{tmp_path}/x.tar:t:latest", tmp_path / "docker")
    assert found["config"]["digest"] == made.config_digest
    read = [(tmp_path / "docker" / each["digest"].partition(":")[2]).read_bytes() for each in found["layers"]]
    assert [digest_of(raw_of(data)) for data in read] == made.diff_ids


@umoci
async def test_umoci_reads_it_as_a_folder(store: orlop.Store, tmp_path: Path) -> None:
    made = image([layer(folder("d"), file("d/a", "1"), file("d/b", "1")), layer(file("d/.wh.b"), file("c", "2"))])
    await stored(store, made, NAME)
    await export(store, f"{tmp_path}/x/", NAME)
    assert run("umoci", "ls", "--layout", tmp_path / "x").split() == ["1"]
    run("umoci", "unpack", "--image", f"{tmp_path}/x:1", tmp_path / "bundle")
    assert brief(read_tree(tmp_path / "bundle" / "rootfs")) == {"c": "file:2", "d": "dir", "d/a": "file:1"}


@skopeo
async def test_skopeo_reads_every_platform_of_an_index(store: orlop.Store, tmp_path: Path) -> None:
    await stored(store, BOTH, NAME)
    await export(store, tmp_path / "x.tar", NAME, all_platforms=True)
    copied = tmp_path / "copied"
    run("skopeo", "--insecure-policy", "copy", "-q", "--all", f"oci-archive:{tmp_path}/x.tar:1", f"oci:{copied}:1")
    assert digest_of(ROOT) == json.loads((copied / "index.json").read_text())["manifests"][0]["digest"]
    for digest in {digest_of(ROOT)}.union(*(made.blobs for made in BOTH.values())):
        assert digest_of((copied / blob_path(digest)).read_bytes()) == digest
