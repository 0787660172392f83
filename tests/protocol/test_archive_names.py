"""What the images of an archive are called, and the documents that say so. Source: spec registry 11.1, 11.2 and 12."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.protocol.archives.docker import DockerImage, docker_manifest, familiar, read_images
from orlop.protocol.archives.layout import (
    LAYOUT,
    Naming,
    check_layout,
    layout_index,
    names_of,
    read_index,
)
from orlop.protocol.errors import InvalidArgument
from orlop.protocol.records import Descriptor
from orlop.protocol.registry.documents import Child
from orlop.protocol.registry.references import normalize

DIGEST = "sha256:" + "a" * 64
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DATED = "import-2026-01-02"
IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
NESTED = b'{"x":' + b"[" * 99_999  # deeper than a parser that recurses can go
FOO = Naming("foo.io/x", DATED)


def named(name: str, ref: str, naming: Naming) -> list[str]:
    annotations = {key: value for key, value in ((IMAGE_NAME, name), (REF_NAME, ref)) if value}
    return list(names_of(Child(MANIFEST, DIGEST, 1, annotations), naming))


@pytest.mark.parametrize(
    "name, ref, naming, expected",
    [
        # every row of table 11.2; where containerd has several answers, the one of its daemon
        ("docker.io/library/t:latest", "", Naming("", DATED), ["docker.io/library/t:latest"]),
        ("", "v1", Naming("", DATED), [f"{DATED}:v1"]),
        ("", "docker.io/library/u:v1", Naming("", DATED), ["docker.io/library/u:v1"]),
        ("", "", Naming("", DATED), []),
        ("", "v1", FOO, ["foo.io/x:v1"]),
        ("", "foo.io/x:v2", FOO, ["foo.io/x:v2"]),
        ("", "foo.io/xy:v2", FOO, []),
        ("", "bar.io/x:v2", FOO, []),
        ("foo.io/x:v3", "v1", FOO, ["foo.io/x:v3"]),
        ("bar.io/x:v3", "v1", FOO, []),
        ("", "", Naming("", DATED, digests=True), [f"{DATED}@{DIGEST}"]),
        ("", "v1", Naming("foo.io/x", DATED, digests=True), ["foo.io/x:v1", f"foo.io/x@{DIGEST}"]),
        ("", "v1", Naming("foo.io/x", DATED, digests=True, skip_named=True), ["foo.io/x:v1"]),
        ("", "v1", Naming("", DATED, index="idx.io/a:b"), [f"{DATED}:v1"]),
        ("name with space", "", Naming("", DATED), []),
        ("", "weird/ref", Naming("", DATED), ["weird/ref"]),
        # and what follows from its text
        ("", "", Naming("foo.io/x", DATED, digests=True, skip_named=True), [f"foo.io/x@{DIGEST}"]),
        ("", "bar.io/x:v2", Naming("foo.io/x", DATED, digests=True, skip_named=True), [f"foo.io/x@{DIGEST}"]),
        ("docker.io/library/t:latest", "v1", Naming("", DATED), ["docker.io/library/t:latest"]),
        ("name with space", "v1", Naming("", DATED), []),
        ("t", "v1", Naming("", DATED), []),
        # what an export says of a name that is no complete reference is that name
        ("t", "t", Naming("", DATED), ["t"]),
        ("name with space", "name with space", Naming("", DATED), ["name with space"]),
        ("name with space", "name with space", FOO, []),
        ("foo.io/x", "foo.io/x", FOO, ["foo.io/x"]),
        ("foo.io/xy", "foo.io/xy", FOO, []),
        ("t", "t", Naming("", DATED, digests=True, skip_named=True), ["t"]),
        ("", "foo.io/x", FOO, ["foo.io/x"]),
        ("", "foo.io/x/y:v1", FOO, ["foo.io/x/y:v1"]),
        ("", f"foo.io/x@{DIGEST}", FOO, [f"foo.io/x@{DIGEST}"]),
        ("foo.io/xy:v3", "", FOO, []),
        ("foo.io/x/y:v3", "", FOO, ["foo.io/x/y:v3"]),
        ("", "v1", Naming("", DATED, skip_named=True), [f"{DATED}:v1"]),
    ],
)
def test_names_of_an_entry_of_an_index(name: str, ref: str, naming: Naming, expected: list[str]) -> None:
    assert named(name, ref, naming) == expected


@settings(deadline=None, max_examples=100)
@given(st.text("abxy./:@", max_size=12), st.sampled_from(["foo.io/x", "a", "a.b/x"]))
def test_with_a_base_every_name_begins_with_it(ref: str, base: str) -> None:
    for name in [*named("", ref, Naming(base, DATED)), *named(ref, "", Naming(base, DATED))]:
        assert name == base or (name.startswith(base) and name[len(base)] in ":/@")


# Documents of a layout


def test_the_version_of_a_layout_is_exactly_one() -> None:
    check_layout(LAYOUT)
    check_layout(b'{"imageLayoutVersion": "1.0.0", "more": 1}')


@pytest.mark.parametrize(
    "data, text",
    [
        (b'{"imageLayoutVersion":"1.1.0"}', "1.1.0"),
        (b"{}", "version"),
        (b"no", "oci-layout"),
        (b"\xff", "oci-layout"),
        (NESTED, "oci-layout"),
    ],
    ids=["another", "none", "no document", "no text", "nested"],
)
def test_another_version_of_a_layout_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        check_layout(data)


def test_an_index_is_read_with_what_it_says_of_its_entries() -> None:
    entry = {"mediaType": MANIFEST, "digest": DIGEST, "size": 7, "annotations": {REF_NAME: "v1"}, "unknown": 1}
    data = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    assert read_index(data) == [Child(MANIFEST, DIGEST, 7, {REF_NAME: "v1"})]
    assert read_index(b'{"schemaVersion": 2}') == []


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b'{"manifests": 1}', b'{"manifests": [{"size": 1}]}', NESTED],
    ids=["empty", "a list", "no list", "no entry", "nested"],
)
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"index\.json"):
        read_index(data)


def test_an_index_of_several_names_of_one_image() -> None:
    target = Descriptor(MANIFEST, DIGEST, 7, {"b": "2", "a": "1"})
    entries = [(target, {REF_NAME: tag, IMAGE_NAME: f"quay.io/a/b:{tag}"}) for tag in ("1", "2")]
    data = layout_index(entries)
    assert data == layout_index(entries)
    document = json.loads(data)
    assert (document["schemaVersion"], document["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    assert document["manifests"] == [
        {
            "mediaType": MANIFEST,
            "digest": DIGEST,
            "size": 7,
            "annotations": {"a": "1", "b": "2", IMAGE_NAME: f"quay.io/a/b:{tag}", REF_NAME: tag},
        }
        for tag in ("1", "2")
    ]
    assert [named(one.annotations[IMAGE_NAME], "", Naming("", DATED)) for one in read_index(data)] == [
        ["quay.io/a/b:1"],
        ["quay.io/a/b:2"],
    ]


# Docker's archives


@pytest.mark.parametrize(
    "tags, names",
    [
        (["busybox:1"], ["docker.io/library/busybox:1"]),
        (["busybox"], ["docker.io/library/busybox:latest"]),
        (["foo/bar:x", "localhost:5000/y:z"], ["docker.io/foo/bar:x", "localhost:5000/y:z"]),
        (["quay.io/q/w"], ["quay.io/q/w:latest"]),
        (None, []),
        ([], []),
    ],
)
def test_tags_of_a_docker_archive_are_normalised(tags: list[str] | None, names: list[str]) -> None:
    (image,) = read_images(json.dumps([{"Config": "c.json", "RepoTags": tags, "Layers": ["l/layer.tar"]}]).encode())
    assert (image.config, image.layers) == ("c.json", ["l/layer.tar"])
    assert image.names() == names


def test_a_tag_that_is_none_is_named() -> None:
    with pytest.raises(InvalidArgument, match="BAD:x"):
        DockerImage("c.json", ["good:1", "BAD:x"]).names()


def test_what_a_docker_archive_leaves_out() -> None:
    """Go writes an empty list as null."""
    (image,) = read_images(b'[{"Config": "c.json", "RepoTags": null, "Layers": null}]')
    assert not image.layers
    assert image.names() == []
    assert read_images(b"[]") == []


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b'[{"RepoTags": ["a"]}]', b'[{"Config": 1}]', b"\xff", b"[" + NESTED],
    ids=["empty", "no list", "no image", "no config", "odd config", "no text", "nested"],
)
def test_what_is_no_manifest_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"manifest\.json"):
        read_images(data)


def test_the_manifest_of_a_docker_image() -> None:
    config = Descriptor("application/vnd.docker.container.image.v1+json", DIGEST, 5)
    layer = Descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", DIGEST, 6)
    data = docker_manifest(config, [layer, layer])
    assert data == docker_manifest(config, [layer, layer])
    entry = {"mediaType": layer.media_type, "size": 6, "digest": DIGEST}
    assert json.loads(data) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": config.media_type, "size": 5, "digest": DIGEST},
        "layers": [entry, entry],
    }


@pytest.mark.parametrize(
    "name, short",
    [
        ("docker.io/library/t:latest", "t:latest"),
        ("docker.io/foo/bar:x", "foo/bar:x"),
        ("docker.io/library/a/b:1", "library/a/b:1"),
        ("quay.io/q/w:latest", "quay.io/q/w:latest"),
        ("localhost:5000/library/y:z", "localhost:5000/library/y:z"),
        ("import-2026-01-02:v1", "import-2026-01-02:v1"),
    ],
)
def test_names_as_docker_writes_them(name: str, short: str) -> None:
    assert familiar(name) == short
    if "/" in name:
        assert normalize(short) == name
