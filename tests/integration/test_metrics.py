"""The store's numbers: they count what happened, over the socket and for Prometheus, whose own parser reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

import orlop
from orlop.actors.supervisor import RunningStore
from orlop.protocol.messages import MetricFamily, Sample

TARGET = orlop.Descriptor("application/x", "sha256:" + "0" * 64, 1)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[RunningStore]:
    config = orlop.StoreConfig(str(folder), ["tcp:127.0.0.1:0"], metrics=orlop.MetricsConfig("tcp:127.0.0.1:0"))
    async with trio.open_nursery() as nursery:
        running: RunningStore = await nursery.start(orlop.serve, config)
        yield running
        nursery.cancel_scope.cancel()


async def scrape(running: RunningStore, path: str = "/metrics", method: str = "GET") -> httpx.Response:
    address = running.metrics_address
    assert address is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(method, f"http://{address.host}:{address.port}{path}")


def sample(families: list[MetricFamily], name: str, **labels: str) -> Sample:
    family = next(each for each in families if each.name == name)
    return next(each for each in family.samples if labels.items() <= each.labels.items())


async def test_calls_are_counted_by_method_and_by_how_they_failed(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as running, orlop.connect(running.addresses[0]) as store:
        for number in range(7):
            await store.images.create(f"image-{number}", TARGET)
        for _ in range(3):
            with pytest.raises(orlop.errors.NotFound):
                await store.images.get("nothing")
        with pytest.raises(orlop.errors.AlreadyExists):
            await store.images.create("image-0", TARGET)
        found = (await store.metrics()).families
    assert sample(found, "orlop_requests_total", method="images.create").value == 8
    assert sample(found, "orlop_requests_total", method="images.get").value == 3
    assert sample(found, "orlop_request_errors_total", method="images.get", error="NotFound").value == 3
    assert sample(found, "orlop_request_errors_total", method="images.create").value == 1
    assert sample(found, "orlop_connections").value == 1
    assert sample(found, "orlop_requests_under_way", method="images.create").value == 0
    assert sample(found, "orlop_requests_under_way", method="introspection.metrics").value == 1
    seconds = sample(found, "orlop_request_seconds", method="images.create")
    assert seconds.buckets[-1] == (float("inf"), 8)
    assert [count for _, count in seconds.buckets] == sorted(count for _, count in seconds.buckets)


async def test_a_call_in_this_process_counts_as_well(tmp_path: Path) -> None:
    async with orlop.open_store(tmp_path / "store") as store:
        await store.images.create("image", TARGET)
        with pytest.raises(orlop.errors.NotFound):
            await store.images.get("nothing")
        found = (await store.metrics()).families
    assert sample(found, "orlop_requests_total", method="images.create").value == 1
    assert sample(found, "orlop_request_errors_total", method="images.get").value == 1


async def test_commits_collections_and_bytes(tmp_path: Path) -> None:
    async with orlop.open_store(tmp_path / "store") as store:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(store.content.put, b"blob %d" % number)
        before = (await store.metrics()).families
        await store.collect()
        after = (await store.metrics()).families
    assert sample(before, "orlop_transactions_total").value >= 100
    commits = sample(before, "orlop_commits_total").value
    assert commits < sample(before, "orlop_transactions_total").value  # they shared syncs
    sizes = sample(before, "orlop_commit_transactions")
    assert sizes.buckets[-1][1] <= commits
    assert sizes.value >= 100
    assert sample(before, "orlop_store_bytes", kind="packed").value == sum(len(b"blob %d" % n) for n in range(100))
    assert sample(after, "orlop_store_bytes", kind="packed").value == 0
    assert sample(after, "orlop_gc_removed_total", kind="content").value == 100
    assert sample(after, "orlop_gc_runs_total").value >= 1


async def test_prometheus_reads_them(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as running, orlop.connect(running.addresses[0]) as store:
        await store.images.create('with "quotes"\n', TARGET)
        answer = await scrape(running)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert families["orlop_requests"].type == "counter"
    created = [each for each in families["orlop_requests"].samples if each.labels["method"] == "images.create"]
    assert [each.value for each in created] == [1.0]
    assert families["orlop_request_seconds"].type == "histogram"
    assert families["orlop_loop_lag_seconds"].type == "histogram"
    assert all(family.documentation for family in families.values())


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 200), ("/metrics", "HEAD", 200), ("/x", "GET", 404), ("/", "POST", 405)]
)
async def test_nothing_else_is_served(tmp_path: Path, path: str, method: str, status: int) -> None:
    async with serving(tmp_path / "store") as running:
        answer = await scrape(running, path, method)
    assert answer.status_code == status
    if method == "HEAD":
        assert answer.content == b""


async def test_who_speaks_nonsense_or_nothing_disturbs_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path / "store") as running:
        address = running.metrics_address
        assert address is not None
        silent = [await trio.open_tcp_stream(address.host, address.port) for _ in range(5)]
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(b"\x00\xff nonsense\r\n\r\n" * 100)
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(b"GET /" + b"x" * 100_000)
        assert (await scrape(running)).status_code == 200
        for stream in silent:
            await stream.aclose()


async def test_no_listener_without_being_asked(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        running: RunningStore = await nursery.start(orlop.serve, orlop.StoreConfig(str(tmp_path / "store")))
        assert running.metrics_address is None
        nursery.cancel_scope.cancel()
