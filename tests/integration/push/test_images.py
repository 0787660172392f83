"""What a push sends, where to, and in which order: to a real registry and to one in memory.

Source: spec registry 10; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import orlop
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from orlop.protocol.messages import TransferProgress, TransferState
from orlop.protocol.registry.upload import mount_candidate
from tests.support.faulty_registry import FaultyRegistry, Status
from tests.support.images import INDEX, MANIFEST, Blob, MadeImage, image, index_of
from tests.support.layers import digest_of, put_blob
from tests.support.registries import DockerRegistry, make_layout
from tests.support.transfers import (
    as_pulled,
    has,
    is_absent,
    lines,
    opened,
    pull,
    push,
    random_image,
    refuses,
    stored,
)
from tests.support.writable_registry import WritableRegistry

REPOSITORY = "lib/app"
TAR = "application/vnd.oci.image.layer.v1.tar"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
real_registry = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")


@pytest.fixture(scope="module")
def made() -> MadeImage:
    return random_image("push")


@pytest.fixture(scope="module")
def several() -> dict[str, MadeImage]:
    """Three platforms, each with a layer of its own and one that they share."""
    shared = b"shared by all".ljust(20_000)
    return {
        f"linux/{architecture}": image(
            [shared, architecture.encode().ljust(20_000)], media_type=TAR, config={"architecture": architecture}
        )
        for architecture in ("amd64", "arm64", "s390x")
    }


@pytest.fixture
async def store(store: orlop.Store, several: dict[str, MadeImage]) -> orlop.Store:
    """With the image `index` as well."""
    await stored(store, "index", several)
    return store


@pytest.fixture
def real(tmp_path: Path) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path / "registry") as registry:
        yield registry


def at(registry: FaultyRegistry | DockerRegistry, repository: str = REPOSITORY, tail: str = ":v1") -> str:
    return f"{registry.address}/{repository}{tail}"


# To a real registry


@real_registry
async def test_a_push_sends_every_object_once_and_the_tag_last(
    store: orlop.Store, tmp_path: Path, made: MadeImage, real: DockerRegistry
) -> None:
    seen: list[TransferProgress] = []
    request = orlop.PushImage(at(real), "one", access=orlop.RegistryAccess(plain_http=True))
    pushed = await store.push(request, seen.append)
    assert pushed == orlop.Pushed(at(real), made.target, sum(map(len, made.blobs.values())))
    asked = [(method, path.partition("?")[0].rpartition("/")[2]) for method, path in real.requests()]
    blobs = sorted(set(made.blobs) - {made.target.digest})
    assert asked[0] == ("HEAD", "v1")
    assert asked[-1] == ("PUT", "v1")
    assert sorted(name for method, name in asked[1:] if method == "HEAD") == blobs
    assert sum(method == "POST" for method, _ in asked) == len(blobs)
    assert sum(method == "PUT" for method, _ in asked) == len(blobs) + 1
    assert {step.digest for step in seen if step.state is TransferState.COMPLETE} == set(made.blobs)
    assert (seen[-1].state, seen[-1].digest) == (TransferState.PUSHED, made.target.digest)
    async with opened(tmp_path / "other") as other:
        assert (await pull(other, at(real))).target.digest == made.target.digest
        await has(other, made)


@real_registry
async def test_a_second_push_is_one_head(store: orlop.Store, real: DockerRegistry, made: MadeImage) -> None:  # 43
    await push(store, at(real), "one")
    real.clear()
    assert await push(store, at(real), "one") == orlop.Pushed(at(real), made.target, 0)
    assert real.requests() == [("HEAD", f"/v2/{REPOSITORY}/manifests/v1")]


@real_registry
async def test_another_tag_sends_the_manifest_alone_and_an_older_one_is_moved(
    store: orlop.Store, real: DockerRegistry, made: MadeImage
) -> None:  # 43
    await push(store, at(real), "one")
    newer = random_image("newer")
    await stored(store, "newer", newer)
    await push(store, at(real), "newer")
    real.clear()
    pushed = await push(store, at(real), "one")
    assert pushed.sent == made.target.size
    assert [line for line in real.requests() if line[0] != "HEAD"] == [("PUT", f"/v2/{REPOSITORY}/manifests/v1")]
    await store.images.delete("one")
    await pull(store, at(real))
    assert (await store.images.get(at(real))).target.digest == made.target.digest


@real_registry
async def test_what_was_pulled_from_another_repository_is_mounted(
    store: orlop.Store, tmp_path: Path, real: DockerRegistry, made: MadeImage
) -> None:  # 40
    await push(store, at(real, "lib/source"), "one")
    async with opened(tmp_path / "other") as other:
        await pull(other, at(real, "lib/source"))
        real.clear()
        pushed = await push(other, at(real), at(real, "lib/source"))
        assert pushed.sent == made.target.size
    blobs = set(made.blobs) - {made.target.digest}
    asked = [line for line in real.requests() if line[0] != "HEAD"]
    mounts = {f"/v2/{REPOSITORY}/blobs/uploads/?mount={digest}&from=lib/source" for digest in blobs}
    assert {path for method, path in asked if method == "POST"} == mounts
    assert [path for method, path in asked if method == "PUT"] == [f"/v2/{REPOSITORY}/manifests/v1"]


@real_registry
async def test_an_index_is_pushed_with_all_its_platforms(
    store: orlop.Store, tmp_path: Path, real: DockerRegistry, several: dict[str, MadeImage]
) -> None:
    pushed = await push(store, at(real), "index")
    async with opened(tmp_path / "other") as other:
        pulled = await pull(other, at(real), all_platforms=True)
        assert pulled.target == pushed.target
        for made in several.values():
            await has(other, made)


@real_registry
@pytest.mark.skipif(shutil.which("skopeo") is None or shutil.which("umoci") is None, reason="needs skopeo and umoci")
async def test_what_was_pushed_is_what_skopeo_and_umoci_get(
    store: orlop.Store, tmp_path: Path, real: DockerRegistry
) -> None:
    source = tmp_path / "source"
    made = make_layout(source, "--layers", "3", "--files", "60", "--size", "300K", "--tag", "latest")
    with FaultyRegistry({REPOSITORY: source}) as origin:
        await pull(store, at(origin, tail=":latest"))
        await push(store, at(real), at(origin, tail=":latest"))
    target = tmp_path / "target"
    command = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
    ]
    run(*command, f"docker://{at(real)}", f"oci:{target}:latest")
    (entry,) = json.loads((target / "index.json").read_text())["manifests"]
    assert entry["digest"] == made["digest"]
    assert blobs_of(target) == blobs_of(source)
    for layout in (source, target):
        run("umoci", "unpack", "--rootless", "--image", f"{layout}:latest", f"{layout}-unpacked")
    run("diff", "-r", "--no-dereference", f"{source}-unpacked/rootfs", f"{target}-unpacked/rootfs")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def blobs_of(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


# Mounts


@pytest.mark.parametrize(
    "target, sources, chosen",
    [
        ("library/busybox", "", ""),
        ("library/busybox", "library/busybox", ""),
        ("library/busybox", "user/busybox,library/redis", "library/redis"),
        ("path", "foo,path,bar", "bar"),
        ("a/b/c", "a/b/d,a/x,z", "a/b/d"),
        ("a/b", "x/y,z/w", "z/w"),
        ("a/b/c", "z,a/b,a/b/d/e,a/x", "a/b/d/e"),
    ],
)
def test_which_repository_is_mounted_from(target: str, sources: str, chosen: str) -> None:
    assert mount_candidate(sources, target) == chosen


async def test_where_a_mount_is_not_made_the_upload_that_was_opened_is_used(
    store: orlop.Store, made: MadeImage
) -> None:  # 41
    with WritableRegistry(mounts=False) as registry:
        await push(store, at(registry, "lib/source"), "one")
        await as_pulled(store, made, registry.address, "lib/source")
        registry.clear()
        await push(store, at(registry), "one")
        assert len(lines(registry, "POST ")) == len(lines(registry, "?mount=")) == 3
        assert registry.held[REPOSITORY].digests == set(made.blobs)


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_where_a_mount_is_refused_an_upload_is_opened(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, code: int
) -> None:  # 41
    registry.require_bearer()
    headers = {"WWW-Authenticate": f'Bearer realm="{registry.url}/token",error="insufficient_scope"'}
    registry.fault("?mount=", Status(code, headers if code == 401 else {}), times=None)
    await as_pulled(store, made, registry.address, "lib/source")
    await push(store, at(registry), "one")
    assert lines(registry, "?mount=")
    assert registry.held[REPOSITORY].digests == set(made.blobs)


# Tag and digest


@pytest.mark.parametrize("tail, path", [(":v1", "v1"), (":v1@{root}", "v1"), ("@{root}", "{root}"), ("", "{root}")])
async def test_where_the_root_goes(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, tail: str, path: str
) -> None:
    root = made.target.digest
    await push(store, at(registry, tail=tail.format(root=root)), "one")
    assert lines(registry, "/manifests/")[-1] == f"PUT /v2/{REPOSITORY}/manifests/{path.format(root=root)}"
    assert registry.held[REPOSITORY].tags == ({"v1": root} if path == "v1" else {})
    assert root in registry.held[REPOSITORY].manifests


@pytest.mark.parametrize("tail", [":v1@{other}", "@{other}"])
async def test_a_digest_that_is_not_the_roots_is_refused(
    store: orlop.Store, registry: WritableRegistry, tail: str
) -> None:  # 44
    async with refuses(FailedPrecondition, InvalidArgument):
        await push(store, at(registry, tail=tail.format(other=digest_of(b"other"))), "one")
    assert registry.requests == []


async def test_a_manifest_of_an_index_is_pushed_by_its_digest(
    store: orlop.Store, registry: WritableRegistry, several: dict[str, MadeImage]
) -> None:
    arm = several["linux/arm64"]
    assert (await push(store, at(registry), target=arm.target.digest)).target == arm.target
    assert registry.held[REPOSITORY].tags == {"v1": arm.target.digest}
    assert registry.held[REPOSITORY].digests == set(arm.blobs)


@pytest.mark.parametrize("name", ["", "nobody"])
async def test_an_image_that_is_not_here_is_not_found_without_a_request(
    store: orlop.Store, registry: WritableRegistry, name: str
) -> None:
    async with refuses(NotFound):
        await push(store, at(registry), name)
    assert registry.requests == []


# Order


async def test_of_an_index_blobs_go_first_then_manifests_and_the_tag_last(
    store: orlop.Store, registry: WritableRegistry, several: dict[str, MadeImage]
) -> None:  # 42
    pushed = await push(store, at(registry), "index")
    manifests = {made.target.digest for made in several.values()}
    order = registry.stored
    assert order[-2:] == [pushed.target.digest, "v1"]
    assert set(order[-5:-2]) == manifests
    assert set(order[:-5]) == set().union(*(made.blobs for made in several.values())) - manifests
    assert len(order) == len(set(order))
    names = [line.rpartition("/")[2] for line in lines(registry, "PUT ") if "/manifests/" in line]
    assert (set(names[:-1]), names[-1]) == (manifests, "v1")  # only the root by a tag


def index_over(*children: tuple[str, bytes]) -> bytes:
    entries = [{"mediaType": kind, "digest": digest_of(data), "size": len(data)} for kind, data in children]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


@pytest.mark.parametrize("order", ["inner first", "inner last"])
async def test_nested_indexes_go_from_the_inside_out(
    store: orlop.Store, registry: WritableRegistry, made: MadeImage, order: str
) -> None:
    """The root lists `inner`, and `middle` which lists it as well; the registry refuses what has missing parts."""
    inner = index_over((MANIFEST, made.manifest))
    middle = index_over((INDEX, inner))
    both = [(INDEX, inner), (INDEX, middle)]
    root = index_over(*(both if order == "inner first" else reversed(both)))
    await put_documents(store, "nested", [inner, middle, root])
    await push(store, at(registry), "nested")
    documents = [made.manifest, inner, middle, root]
    assert registry.stored[-5:] == [*map(digest_of, documents), "v1"]


async def put_documents(store: orlop.Store, name: str, documents: Sequence[bytes], kind: str = INDEX) -> None:
    """The last one is the image's."""
    for data in documents:
        await put_blob(store, data, labels={"containerd.io/gc.root": "test"})
    await store.images.create(name, orlop.Descriptor(kind, digest_of(documents[-1]), len(documents[-1])))


# Platforms


def entries(registry: WritableRegistry) -> list[str]:
    return [each["digest"] for each in registry.held[REPOSITORY].manifest("v1")["manifests"]]


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm64/v8"])
async def test_of_one_platform_its_manifest_goes_under_the_tag(
    store: orlop.Store, registry: WritableRegistry, several: dict[str, MadeImage], platform: str
) -> None:
    made = several["linux/arm64"]
    assert (await push(store, at(registry), "index", platforms=[platform])).target.digest == made.target.digest
    assert registry.held[REPOSITORY].tags == {"v1": made.target.digest}
    assert registry.held[REPOSITORY].digests == set(made.blobs)


@pytest.mark.parametrize("platforms", [["linux/arm64", "linux/s390x"], ["linux/s390x", "linux/arm64"]])
async def test_of_several_platforms_an_index_of_those_goes_under_the_tag(
    store: orlop.Store, registry: WritableRegistry, several: dict[str, MadeImage], platforms: list[str]
) -> None:
    pushed = await push(store, at(registry), "index", platforms=platforms)
    assert pushed.target.media_type == INDEX
    wanted = [several["linux/arm64"], several["linux/s390x"]]
    assert entries(registry) == [made.target.digest for made in wanted]
    assert registry.held[REPOSITORY].digests == {pushed.target.digest, *wanted[0].blobs, *wanted[1].blobs}


async def test_a_trimmed_index_of_one_platform_stays_an_index_and_keeps_what_else_it_says(
    store: orlop.Store, registry: WritableRegistry, several: dict[str, MadeImage]
) -> None:
    document: dict[str, Any] = json.loads(index_of(several))
    document |= {"annotations": {"a": "b"}, "unheard.of": [1, 2]}
    document["manifests"][1]["annotations"] = {"c": "d"}
    await put_documents(store, "annotated", [json.dumps(document).encode()])
    pushed = await push(store, at(registry), "annotated", platforms=["linux/arm64"], trim=True)
    document["manifests"] = [document["manifests"][1]]
    assert registry.held[REPOSITORY].manifest("v1") == document
    assert pushed.target.digest == registry.held[REPOSITORY].tags["v1"]
    assert registry.held[REPOSITORY].digests == {pushed.target.digest, *several["linux/arm64"].blobs}


async def test_a_platform_that_is_not_there_is_not_found_and_nothing_is_asked(
    store: orlop.Store, registry: WritableRegistry
) -> None:
    async with refuses(NotFound) as caught:
        await push(store, at(registry), "index", platforms=["linux/arm64", "windows/amd64"])
    assert "windows/amd64" in str(caught[0])
    assert "linux/s390x" in caught[0].hint
    assert registry.requests == []


# What is not here


async def test_what_is_neither_here_nor_there_is_not_found_and_no_tag_is_set(
    tmp_path: Path, registry: WritableRegistry, made: MadeImage
) -> None:
    missing = made.layers[0].digest
    async with opened(tmp_path / "partial") as store:
        await stored(store, "one", made, without=[missing])
        async with refuses(NotFound) as caught:
            await push(store, at(registry), "one")
    assert missing in str(caught[0])
    assert caught[0].hint
    assert registry.held[REPOSITORY].tags == {}


async def test_what_is_not_here_but_there_is_good_enough(
    store: orlop.Store, tmp_path: Path, registry: WritableRegistry, several: dict[str, MadeImage]
) -> None:
    await push(store, at(registry, tail=":old"), "index")
    arm = several["linux/arm64"]
    async with opened(tmp_path / "partial") as partial:
        target = await stored(partial, "index", several, without=[arm.layers[1].digest, arm.target.digest])
        await push(partial, at(registry), "index")
    assert registry.held[REPOSITORY].tags["v1"] == target.digest


async def test_a_manifest_that_is_neither_here_nor_there_is_not_found(
    tmp_path: Path, registry: WritableRegistry, several: dict[str, MadeImage]
) -> None:
    missing = several["linux/arm64"].target.digest
    async with opened(tmp_path / "partial") as partial:
        await stored(partial, "index", several, without=[missing])
        async with refuses(NotFound) as caught:
            await push(partial, at(registry), "index")
        assert missing in str(caught[0])
        assert registry.held[REPOSITORY].tags == {}


async def test_what_is_not_here_is_mounted_from_where_the_rest_came_from(
    store: orlop.Store, tmp_path: Path, registry: WritableRegistry, several: dict[str, MadeImage]
) -> None:
    """Spec registry 10.3: content missing here that can be mounted is fine. A pull for one platform leaves it so."""
    pushed = await push(store, at(registry, "lib/source"), "index")
    missing = several["linux/arm64"].layers[1].digest
    async with opened(tmp_path / "partial") as partial:
        await pull(partial, at(registry, "lib/source"), platforms=["linux/amd64"])
        assert await is_absent(partial, missing)
        registry.clear()
        await push(partial, at(registry), at(registry, "lib/source"))
    assert registry.held[REPOSITORY].tags == {"v1": pushed.target.digest}
    assert f"POST /v2/{REPOSITORY}/blobs/uploads/?mount={missing}&from=lib/source" in lines(registry)
    assert not [line for line in lines(registry, "PUT ") if "/blobs/" in line]


@pytest.mark.parametrize("allow", [False, True])
async def test_layers_that_are_not_to_be_passed_on_stay_here_unless_it_is_said(
    store: orlop.Store, registry: WritableRegistry, allow: bool
) -> None:  # 47
    layers = [Blob(kind.encode().ljust(500), kind, digest_of(kind.encode())) for kind in (TAR, NONDISTRIBUTABLE)]
    made = image(layers)
    await stored(store, "foreign", made)
    await push(store, at(registry), "foreign", allow_nondistributable=allow)
    assert registry.held[REPOSITORY].digests == set(made.blobs) - (set() if allow else {layers[1].digest})
    assert registry.held[REPOSITORY].tags == {"v1": made.target.digest}


@pytest.mark.parametrize("match", ["HEAD /v2/lib/app/manifests/", "HEAD /v2/lib/app/blobs/"])
async def test_403_to_a_head_gives_the_registrys_words(
    store: orlop.Store, registry: WritableRegistry, match: str
) -> None:
    """Spec registry 10.1: 403 to the question whether it exists: GET for the text, then fail."""
    body = b'{"errors":[{"code":"DENIED","message":"pay first"}]}'
    registry.fault(match.replace("HEAD ", ""), Status(403, {"Content-Type": "application/json"}, body), times=None)
    async with refuses(PermissionDenied) as caught:
        await push(store, at(registry), "one")
    assert "pay first" in str(caught[0])
