"""The registries of tests/support do what the tests of pulls and pushes rely on."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.faulty_registry import (
    BreakAfter,
    FaultyRegistry,
    IgnoreRange,
    Lie,
    Redirect,
    Stall,
    Status,
    WrongBytes,
)
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import DockerRegistry, MadeImage, make_layout, push_layout

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

needs_docker_registry = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo here")


@dataclass(frozen=True)
class Image:
    folder: Path
    made: MadeImage

    @property
    def layer(self) -> str:
        return f"/v2/a/b/blobs/{self.made['layers'][0]['digest']}"

    def blob(self, digest: str) -> bytes:
        return (self.folder / "blobs" / digest.replace(":", "/")).read_bytes()

    @property
    def layer_bytes(self) -> bytes:
        return self.blob(self.made["layers"][0]["digest"])


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image") / "layout"
    options = ["--layers", "2", "--files", "8", "--size", "600K", "--noise", "0.9", "--tag", "v1"]
    return Image(folder, make_layout(folder, *options, "--platforms", "linux/amd64,linux/arm64"))


@pytest.fixture
def registry(image: Image) -> Iterator[FaultyRegistry]:
    with FaultyRegistry({"a/b": image.folder}) as registry:
        yield registry


def ask(
    registry: LayoutRegistry,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> Answer:
    connection = http.client.HTTPConnection(registry.address, timeout=10)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        reply = connection.getresponse()
        return Answer(reply.status, dict(reply.headers), reply.read())
    finally:
        connection.close()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@needs_docker_registry
@needs_skopeo
def test_docker_registry_keeps_a_pushed_layout_and_lists_requests(image: Image, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path) as registry:
        push_layout(image.folder, registry.address, "a/b", "v1")
        assert ("PUT", "/v2/a/b/manifests/v1") in registry.requests()
        registry.clear()
        assert registry.requests() == []
        connection = http.client.HTTPConnection(registry.address, timeout=10)
        try:
            for path in ("/v2/a/b/manifests/v1?ns=x", image.layer):
                connection.request("GET", path, headers={"Accept": INDEX_TYPE})
                reply = connection.getresponse()
                assert reply.status == 200
                assert sha256(reply.read()) in (image.made["digest"], image.made["layers"][0]["digest"])
        finally:
            connection.close()
        assert registry.requests() == [("GET", "/v2/a/b/manifests/v1?ns=x"), ("GET", image.layer)]


@needs_docker_registry
def test_docker_registry_serves_again_what_its_folder_holds(image: Image, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path) as registry:
        folder = tmp_path / "other"
        options = ["--files", "2", "--layers", "1", "--size", "1K", "--media-types", "docker"]
        made = make_layout(folder, *options, "--push", f"{registry.address}/x:latest")
    with DockerRegistry(tmp_path) as registry:
        connection = http.client.HTTPConnection(registry.address, timeout=10)
        try:
            connection.request("HEAD", "/v2/x/manifests/latest", headers={"Accept": made["media_type"]})
            assert connection.getresponse().headers["Docker-Content-Digest"] == made["digest"]
        finally:
            connection.close()


def test_layouts_are_the_same_for_the_same_options(tmp_path: Path) -> None:
    options = ["--files", "2", "--layers", "1", "--size", "1K"]
    assert make_layout(tmp_path / "a", *options) == make_layout(tmp_path / "b", *options)


@needs_skopeo
def test_skopeo_reads_a_layout_registry(image: Image, registry: FaultyRegistry, tmp_path: Path) -> None:
    source, target = f"docker://{registry.address}/a/b:v1", f"oci:{tmp_path}/copy:v1"
    command = ["skopeo", "--insecure-policy", "copy", "--all", "--src-no-creds", "--src-tls-verify=false"]
    done = subprocess.run([*command, source, target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    copied = json.loads((tmp_path / "copy" / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in copied] == [image.made["digest"]]


def test_manifests_are_served_by_tag_and_through_the_index(image: Image, registry: FaultyRegistry) -> None:
    head = ask(registry, "/v2/a/b/manifests/v1", "HEAD")
    full = ask(registry, "/v2/a/b/manifests/v1")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == INDEX_TYPE
    assert head.headers["Docker-Content-Digest"] == image.made["digest"] == sha256(full.body)
    assert head.headers["Content-Length"] == str(len(full.body))
    for child in json.loads(full.body)["manifests"]:
        answer = ask(registry, f"/v2/a/b/manifests/{child['digest']}")
        assert answer.headers["Content-Type"] == MANIFEST_TYPE
        assert sha256(answer.body) == child["digest"]


@pytest.mark.parametrize(
    ("wanted", "start", "stop"), [("bytes=0-9", 0, 10), ("bytes=1000-", 1000, None), ("bytes=-7", -7, None)]
)
def test_ranges_of_blobs(image: Image, registry: FaultyRegistry, wanted: str, start: int, stop: int | None) -> None:
    data = image.layer_bytes
    answer = ask(registry, image.layer, headers={"Range": wanted})
    first = start % len(data)
    assert (answer.status, answer.body) == (206, data[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(data)}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/", 200),
        ("GET", "/v2/a/b/tags/list", 200),
        ("GET", "/v2/a/b/manifests/v2", 404),
        ("GET", "/v2/other/manifests/v1", 404),
        ("GET", "/v2/a/b/blobs/sha256:../../index.json", 404),
        ("PUT", "/v2/a/b/manifests/v1", 405),
    ],
)
def test_status_of_other_requests(registry: FaultyRegistry, method: str, path: str, status: int) -> None:
    assert ask(registry, path, method).status == status


def test_range_past_the_end_is_refused(image: Image, registry: FaultyRegistry) -> None:
    size = len(image.layer_bytes)
    answer = ask(registry, image.layer, headers={"Range": f"bytes={size}-"})
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{size}")


def test_one_connection_carries_several_requests_and_they_are_recorded(registry: FaultyRegistry) -> None:
    connection = http.client.HTTPConnection(registry.address, timeout=10)
    try:
        for path in ("/v2/", "/v2/a/b/manifests/none", "/v2/a/b/manifests/v1?ns=x"):
            connection.request("GET", path, headers={"X-Test": "1"})
            connection.getresponse().read()
            assert connection.sock is not None
    finally:
        connection.close()
    lines = [seen.line for seen in registry.requests]
    assert lines == ["GET /v2/", "GET /v2/a/b/manifests/none", "GET /v2/a/b/manifests/v1?ns=x"]
    assert {seen.headers["x-test"] for seen in registry.requests} == {"1"}
    registry.clear()
    assert registry.requests == []


def test_layout_registry_is_a_program(image: Image) -> None:
    command = [sys.executable, "-m", "tests.support.layout_registry", "--layout", f"a/b={image.folder}"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as program:
        assert program.stdout is not None
        found = re.fullmatch(r"listening on (127\.0\.0\.1:\d+)\n", program.stdout.readline())
        try:
            assert found is not None
            connection = http.client.HTTPConnection(found[1], timeout=10)
            connection.request("GET", "/v2/a/b/tags/list")
            assert json.loads(connection.getresponse().read()) == {"name": "a/b", "tags": ["v1"]}
            connection.close()
        finally:
            program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0


def test_faults_happen_in_order_and_run_out(registry: FaultyRegistry) -> None:
    busy = registry.fault("/manifests/v1", Status(429, {"Retry-After": "1"}, b"busy"), times=2)
    registry.fault(re.compile(r"^GET .*/manifests/"), Status(500))
    answers = [ask(registry, "/v2/a/b/manifests/v1") for _ in range(4)]
    assert [answer.status for answer in answers] == [429, 429, 500, 200]
    assert (answers[0].headers["Retry-After"], answers[0].body) == ("1", b"busy")
    assert busy.applied == 2


def test_fault_without_end_lasts_until_healed(registry: FaultyRegistry) -> None:
    registry.fault("HEAD ", Status(405), times=None)
    assert [ask(registry, "/v2/", "HEAD").status for _ in range(3)] == [405, 405, 405]
    registry.heal()
    assert ask(registry, "/v2/", "HEAD").status == 200


def test_wrong_bytes_have_the_right_length(image: Image, registry: FaultyRegistry) -> None:
    registry.fault("/blobs/", WrongBytes())
    wrong, right = ask(registry, image.layer), ask(registry, image.layer)
    assert right.body == image.layer_bytes
    assert [a ^ b for a, b in zip(wrong.body, right.body, strict=True) if a != b] == [1]
    assert wrong.headers["Docker-Content-Digest"] == right.headers["Docker-Content-Digest"]


@pytest.mark.parametrize("delta", [-10, 10])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_lie_about_the_length(image: Image, registry: FaultyRegistry, delta: int, method: str) -> None:
    registry.fault("/manifests/", Lie(content_length_delta=delta))
    right = image.blob(image.made["digest"])
    answer = ask(registry, "/v2/a/b/manifests/v1", method)
    assert int(answer.headers["Content-Length"]) == len(right) + delta
    if method == "GET":
        assert answer.body == (right[:delta] if delta < 0 else right + b" " * delta)


def test_lie_in_the_headers(registry: FaultyRegistry) -> None:
    registry.fault("/manifests/", Lie(digest="sha256:zz", content_type="text/plain"))
    registry.fault("/manifests/", Lie(digest=""))
    first, second = (ask(registry, "/v2/a/b/manifests/v1") for _ in range(2))
    assert first.headers["Docker-Content-Digest"] == "sha256:zz"
    assert first.headers["Content-Type"] == "text/plain"
    assert "Docker-Content-Digest" not in second.headers
    assert first.body == second.body


@pytest.mark.parametrize("count", [0, 1, 200_000])
def test_broken_connection_delivers_exactly_n_bytes(image: Image, registry: FaultyRegistry, count: int) -> None:
    registry.fault("/blobs/", BreakAfter(count))
    connection = http.client.HTTPConnection(registry.address, timeout=10)
    got = bytearray()
    try:
        connection.request("GET", image.layer)
        reply = connection.getresponse()
        assert reply.headers["Content-Length"] == str(len(image.layer_bytes))
        with pytest.raises(ConnectionResetError):  # how many reads succeed is up to the kernel
            while part := reply.read1(65536):
                got += part
    finally:
        connection.close()
    assert got == image.layer_bytes[:count]


@pytest.mark.parametrize(("method", "count"), [("HEAD", 5), ("GET", None)])
def test_connection_broken_before_the_headers(registry: FaultyRegistry, method: str, count: int | None) -> None:
    registry.fault("/v2/", BreakAfter(count))
    with pytest.raises(ConnectionResetError):
        ask(registry, "/v2/", method)


def test_stall_ends_after_its_time(image: Image, registry: FaultyRegistry) -> None:
    registry.fault("/blobs/", Stall(after=100, seconds=0.05))
    before = time.monotonic()
    assert ask(registry, image.layer).body == image.layer_bytes
    assert time.monotonic() - before >= 0.05


@pytest.mark.parametrize("after", [100, None])
def test_closing_ends_a_stall_and_idle_connections(image: Image, after: int | None) -> None:
    before = time.monotonic()
    threads = set(threading.enumerate())
    with FaultyRegistry({"a/b": image.folder}) as registry:
        registry.fault("/blobs/", Stall(after=after))
        idle = http.client.HTTPConnection(registry.address, timeout=10)
        idle.request("GET", "/v2/")
        idle.getresponse().read()
        stalled = http.client.HTTPConnection(registry.address, timeout=10)
        stalled.request("GET", image.layer)
        if after is not None:
            reply = stalled.getresponse()
            assert reply.read(after) == image.layer_bytes[:after]
            reply.close()
    idle.close()
    stalled.close()
    assert set(threading.enumerate()) <= threads  # others' idle threads may end meanwhile
    assert time.monotonic() - before < 5


def test_redirect_keeps_path_and_query(image: Image, registry: FaultyRegistry) -> None:
    registry.fault("/blobs/", Redirect("http://localhost:1/"))
    answer = ask(registry, image.layer + "?ns=x")
    assert (answer.status, answer.headers["Location"]) == (307, f"http://localhost:1{image.layer}?ns=x")


def test_ignored_range_waits_for_a_request_with_one(image: Image, registry: FaultyRegistry) -> None:
    fault = registry.fault("/blobs/", IgnoreRange())
    assert ask(registry, image.layer).status == 200
    assert fault.applied == 0
    answer = ask(registry, image.layer, headers={"Range": "bytes=10-"})
    assert (answer.status, len(answer.body)) == (200, len(image.layer_bytes))
    assert "Content-Range" not in answer.headers
    assert ask(registry, image.layer, headers={"Range": "bytes=10-"}).status == 206


def test_basic_credentials(registry: FaultyRegistry) -> None:
    registry.require_basic("ann", "secret")
    refused = ask(registry, "/v2/a/b/manifests/v1")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="test"')
    assert ask(registry, "/v2/a/b/manifests/v1", headers=basic("ann:wrong")).status == 401
    assert ask(registry, "/v2/a/b/manifests/v1", headers=basic("ann:secret")).status == 200


def test_refused_request_uses_up_no_fault(registry: FaultyRegistry) -> None:
    registry.require_basic("ann", "secret")
    registry.fault("/v2/", Status(503))
    assert ask(registry, "/v2/").status == 401
    assert ask(registry, "/v2/", headers=basic("ann:secret")).status == 503


def test_bearer_token_is_good_for_its_scope_until_revoked(registry: FaultyRegistry) -> None:
    registry.require_bearer()
    challenge = ask(registry, "/v2/a/b/manifests/v1").headers["WWW-Authenticate"]
    realm = f'Bearer realm="http://{registry.address}/token",service="test"'
    assert challenge == realm + ',scope="repository:a/b:pull"'
    granted = json.loads(ask(registry, "/token?service=test&scope=repository%3Aa%2Fb%3Apull").body)
    assert granted["expires_in"] == 300
    assert ask(registry, "/v2/a/b/manifests/v1", headers=bearer(granted["token"])).status == 200
    other = ask(registry, "/v2/a/c/manifests/v1", headers=bearer(granted["token"]))
    assert other.headers["WWW-Authenticate"].endswith(',error="insufficient_scope"')
    registry.revoke_tokens()
    late = ask(registry, "/v2/a/b/manifests/v1", headers=bearer(granted["token"]))
    assert late.headers["WWW-Authenticate"].endswith(',error="invalid_token"')
    assert registry.token_requests == 1


def test_token_service_on_another_server_wants_a_password(image: Image) -> None:
    form = "grant_type=password&service=test&scope=repository%3Aa%2Fb%3Apull%2Cpush&username=ann&password="
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    with FaultyRegistry({}) as issuer, FaultyRegistry({"a/b": image.folder}) as registry:
        registry.require_bearer(issuer, "ann", "secret")
        issuer.fault("POST /token", Status(405))
        assert issuer.address in ask(registry, "/v2/").headers["WWW-Authenticate"]
        posts = [ask(issuer, "/token", "POST", kind, form + word) for word in ("secret", "wrong", "secret")]
        assert [answer.status for answer in posts] == [405, 401, 200]
        assert issuer.requests[0].body.endswith(b"password=secret")
        gets = [ask(issuer, "/token?scope=repository:a/b:pull", headers=h) for h in ({}, basic("ann:secret"))]
        assert [answer.status for answer in gets] == [401, 200]
        for answer in (posts[2], gets[1]):
            token = json.loads(answer.body)["token"]
            assert ask(registry, image.layer, "HEAD", bearer(token)).status == 200
        assert (issuer.token_requests, registry.token_requests) == (5, 0)
