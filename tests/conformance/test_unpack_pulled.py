"""Images that are unpacked while they are pulled: what is fetched, what is kept, and what a kill leaves.

Source: spec unpack 2; a number such as 9.4 is that of its list of edge cases. Registries are on loopback.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import FailedPrecondition, OrlopError

from ..support.daemon import Daemon
from ..support.faulty_registry import FaultyRegistry, Stall
from ..support.images import MadeImage, image, write_layout
from ..support.layers import (
    GZIP,
    TAR,
    ZSTD,
    Stack,
    brief,
    digest_of,
    file,
    folder,
    layer,
    names_of,
    quick_store,
)

TIMEOUT_S = 20.0
LAYERS = [
    layer(folder("etc"), file("etc/a", "1"), file("gone", "x")),
    layer(file("etc/b", "2"), file(".wh.gone")),
    layer(file("etc/a", "3")),
]
MERGED = {"etc": "dir", "etc/a": "file:3", "etc/b": "file:2"}
OTHER = "arm64" if host_platform().architecture != "arm64" else "amd64"


@dataclass
class Images:
    """Repositories of one image each, on one registry."""

    folder: Path
    registry: FaultyRegistry = field(default_factory=lambda: FaultyRegistry({}))

    def add(self, repository: str, made: MadeImage | dict[str, MadeImage]) -> None:
        self.registry.add(repository, write_layout(self.folder / repository, made))

    def reference(self, repository: str) -> str:
        return f"{self.registry.address}/{repository}:latest"

    async def pull(self, store: orlop.Store, repository: str, snapshotter: str, **options) -> orlop.Image:
        """With a clean list of requests; that it ends is part of what is tested."""
        self.registry.clear()
        request = orlop.PullImage(
            self.reference(repository),
            access=orlop.RegistryAccess(plain_http=True),
            unpack=True,
            snapshotter=snapshotter,
            **options,
        )
        with trio.fail_after(TIMEOUT_S):
            return await store.pull(request)

    def fetched(self) -> list[str]:
        """The digests of the blobs that were asked for since the last pull began."""
        return [seen.path.rpartition("/")[2] for seen in self.registry.requests if "/blobs/" in seen.path]


@pytest.fixture
def images(tmp_path: Path):
    found = Images(tmp_path / "layouts")
    with found.registry:
        yield found


@pytest.fixture
async def quick(mounts: None, tmp_path: Path):
    """No lease holds what is pulled but that of the pull itself."""
    async with quick_store(tmp_path / "store", leased=False) as store:
        yield store


async def tree(store: orlop.Store, snapshotter: str, name: str) -> dict[str, str]:
    return brief(await Stack(store, snapshotter).tree(name))


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD])
async def test_a_pull_unpacks_and_a_collection_takes_nothing(
    quick: orlop.Store, images: Images, snapshotter: str, media_type: str
) -> None:
    made = image(LAYERS, media_type=media_type)
    images.add("a", made)
    await images.pull(quick, "a", snapshotter)
    assert sorted(images.fetched()) == sorted([made.config_digest, *(blob.digest for blob in made.layers)])
    assert await names_of(quick, snapshotter) == set(made.chain)
    await quick.collect()
    assert await names_of(quick, snapshotter) == set(made.chain)
    assert {info.digest async for info in quick.content.list()} == set(made.blobs)
    assert await tree(quick, snapshotter, made.chain[-1]) == MERGED
    config = await quick.content.info(made.config_digest)
    assert config.labels[f"containerd.io/gc.ref.snapshot.{snapshotter}"] == made.chain[-1]


async def test_snapshots_go_with_their_image(quick: orlop.Store, images: Images, snapshotter: str) -> None:
    one, two = image(LAYERS), image([*LAYERS[:2], layer(file("two", "x"))])
    images.add("one", one)
    images.add("two", two)
    await images.pull(quick, "one", snapshotter)
    await images.pull(quick, "two", snapshotter)
    assert await names_of(quick, snapshotter) == {*one.chain, *two.chain}
    await quick.images.delete(images.reference("one"), sync=True)
    assert await names_of(quick, snapshotter) == set(two.chain)
    await quick.images.delete(images.reference("two"), sync=True)
    assert await names_of(quick, snapshotter) == set()


async def test_a_second_pull_asks_for_nothing(quick: orlop.Store, images: Images, snapshotter: str) -> None:  # 9.3
    made = image(LAYERS)
    images.add("a", made)
    await images.pull(quick, "a", snapshotter)
    before = [info async for info in quick.snapshots.using(snapshotter).list()]
    await images.pull(quick, "a", snapshotter)
    assert images.fetched() == []
    assert [info async for info in quick.snapshots.using(snapshotter).list()] == before


async def test_layers_that_are_snapshots_are_not_fetched(
    quick: orlop.Store, images: Images, snapshotter: str
) -> None:  # 9.4
    made = image(LAYERS)
    images.add("a", made)
    await images.pull(quick, "a", snapshotter)
    for blob in made.layers:
        await quick.content.delete(blob.digest)
    await quick.collect()
    await images.pull(quick, "a", snapshotter)
    assert images.fetched() == []
    assert await tree(quick, snapshotter, made.chain[-1]) == MERGED


async def test_the_same_layers_packed_otherwise_are_not_fetched(
    quick: orlop.Store, images: Images, snapshotter: str
) -> None:  # 9.5
    images.add("gzip", image(LAYERS, media_type=GZIP))
    other = image(LAYERS, media_type=ZSTD, config={"author": "makes it another config"})
    images.add("zstd", other)
    await images.pull(quick, "gzip", snapshotter)
    await images.pull(quick, "zstd", snapshotter)
    assert images.fetched() == [other.config_digest]
    assert await names_of(quick, snapshotter) == set(other.chain)


async def test_only_the_layers_above_the_shared_ones_are_fetched(
    quick: orlop.Store, images: Images, snapshotter: str
) -> None:
    images.add("base", image(LAYERS[:2]))
    made = image([*LAYERS[:2], layer(file("more", "x"))], media_type=ZSTD)
    images.add("more", made)
    await images.pull(quick, "base", snapshotter)
    await images.pull(quick, "more", snapshotter)
    assert sorted(images.fetched()) == sorted([made.config_digest, made.layers[2].digest])


async def test_a_layer_that_is_there_twice_is_fetched_once(
    quick: orlop.Store, images: Images, snapshotter: str
) -> None:  # 9.9
    made = image([LAYERS[0], LAYERS[1], LAYERS[0]])
    images.add("a", made)
    await images.pull(quick, "a", snapshotter)
    assert sorted(images.fetched()) == sorted({made.config_digest, *(blob.digest for blob in made.layers)})
    assert await names_of(quick, snapshotter) == set(made.chain)


async def test_another_snapshotter_needs_the_layers_again(quick: orlop.Store, images: Images) -> None:
    made = image(LAYERS)
    images.add("a", made)
    await images.pull(quick, "a", "overlayfs")
    for blob in made.layers:
        await quick.content.delete(blob.digest)
    await quick.collect()
    await images.pull(quick, "a", "native")
    assert sorted(images.fetched()) == sorted(blob.digest for blob in made.layers)
    assert await tree(quick, "native", made.chain[-1]) == MERGED


async def test_of_an_index_the_platform_that_was_asked_for_is_unpacked(
    quick: orlop.Store, images: Images, snapshotter: str
) -> None:
    here = host_platform().architecture
    mine, other = image(LAYERS), image([layer(file("other", "x"))], config={"architecture": OTHER})
    images.add("a", {f"linux/{OTHER}": other, f"linux/{here}": mine})
    await images.pull(quick, "a", snapshotter)
    assert await names_of(quick, snapshotter) == set(mine.chain)
    await images.pull(quick, "a", snapshotter, platforms=[f"linux/{OTHER}"])
    assert await names_of(quick, snapshotter) == {*mine.chain, *other.chain}
    assert (await quick.images.unpack(images.reference("a"), snapshotter=snapshotter)).chain_id == mine.chain[-1]


@pytest.mark.parametrize(
    "config",
    [{"os": "windows"}, {"rootfs": {"type": "strange", "diff_ids": [digest_of(raw) for raw in LAYERS]}}],
    ids=["windows", "a strange rootfs"],
)
async def test_what_is_for_others_is_pulled_and_not_unpacked(
    quick: orlop.Store, images: Images, snapshotter: str, config: dict[str, object]
) -> None:
    made = image(LAYERS, config=config)
    images.add("a", made)
    await images.pull(quick, "a", snapshotter)
    assert await names_of(quick, snapshotter) == set()
    assert {info.digest async for info in quick.content.list()} == set(made.blobs)


async def test_a_pull_whose_unpack_fails_records_no_image(quick: orlop.Store, images: Images, snapshotter: str) -> None:
    made = image(LAYERS, diff_ids=[digest_of(LAYERS[0]), digest_of(b"x"), digest_of(LAYERS[2])])
    images.add("a", made)
    with pytest.raises(FailedPrecondition, match="wrong diff id"):
        await images.pull(quick, "a", snapshotter)
    assert [found async for found in quick.images.list()] == []
    assert await names_of(quick, snapshotter) <= {made.chain[0]}


async def test_a_mismatch_of_counts_fails_the_pull(quick: orlop.Store, images: Images, snapshotter: str) -> None:  # 9.1
    images.add("a", image(LAYERS[:2], diff_ids=[digest_of(raw) for raw in LAYERS]))
    with pytest.raises(OrlopError):
        await images.pull(quick, "a", snapshotter)
    assert await names_of(quick, snapshotter) == set()


# Several at once, and a kill


async def test_pulls_over_two_connections_make_one_snapshot_each(
    mounts: None, tmp_path: Path, images: Images, snapshotter: str
) -> None:  # 9.7
    made = image([*LAYERS, *(layer(file(f"f{number}", "x" * 5000)) for number in range(5))])
    images.add("a", made)
    address = f"unix:{tmp_path}/store/socket"
    async with orlop.open_store(tmp_path / "store") as here:
        async with orlop.connect(address) as one, orlop.connect(address) as other, trio.open_nursery() as nursery:
            for store in (here, one, other):
                nursery.start_soon(images.pull, store, "a", snapshotter)
        assert await names_of(here, snapshotter) == set(made.chain)
        assert len(await tree(here, snapshotter, made.chain[-1])) == 8


async def until(check: Callable[[], bool | Awaitable[bool]]) -> None:
    """What another process does is seen on the disk and at the registry alone."""
    with trio.fail_after(TIMEOUT_S):
        while not check():
            await trio.sleep(0.002)


async def swallowed(images: Images, store: orlop.Store, snapshotter: str) -> None:
    with pytest.raises(OrlopError):
        await images.pull(store, "a", snapshotter)


@pytest.mark.slow
async def test_a_kill_while_a_layer_is_fetched_is_made_good(
    mounts: None, tmp_path: Path, images: Images, snapshotter: str
) -> None:  # 9.6
    made = image(LAYERS)
    images.add("a", made)
    stalled = images.registry.fault(f"GET /v2/a/blobs/{made.layers[1].digest}", Stall(10, None))
    await killed(tmp_path, images, snapshotter, lambda: stalled.applied == 1)
    images.registry.heal()
    await is_made_good(tmp_path, images, snapshotter, made, MERGED)


@pytest.mark.slow
async def test_a_kill_while_a_layer_is_laid_is_made_good(
    mounts: None, tmp_path: Path, images: Images, snapshotter: str
) -> None:  # 9.6
    size = 64 << 20
    made = image([LAYERS[0], layer(file("big", bytes(size)))])
    images.add("a", made)
    await killed(tmp_path, images, snapshotter, lambda: bool(list(tmp_path.rglob("big"))))
    expected = {"big": f"file:{size} bytes {digest_of(bytes(size))}", "etc": "dir", "etc/a": "file:1", "gone": "file:x"}
    await is_made_good(tmp_path, images, snapshotter, made, expected)


async def killed(tmp_path: Path, images: Images, snapshotter: str, when: Callable[[], bool]) -> None:
    """A daemon that pulls is killed as soon as `when` holds."""
    daemon = Daemon(tmp_path / "daemon")
    daemon.folder.mkdir()
    async with daemon.running() as process, trio.open_nursery() as nursery, orlop.connect(daemon.address) as store:
        nursery.start_soon(swallowed, images, store, snapshotter)
        await until(when)
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def is_made_good(
    tmp_path: Path, images: Images, snapshotter: str, made: MadeImage, expected: dict[str, str]
) -> None:
    async with orlop.open_store(tmp_path / "daemon" / "store") as store:
        assert await names_of(store, snapshotter) <= set(made.chain)
        async for lease in store.leases.list():  # what it had is held for the next attempt; not here
            await store.leases.delete(lease.id)
        await store.collect()
        assert await names_of(store, snapshotter) == set()
        assert list(tmp_path.rglob("big")) == []
        await images.pull(store, "a", snapshotter)
        assert await names_of(store, snapshotter) == set(made.chain)
        assert await tree(store, snapshotter, made.chain[-1]) == expected
        await store.collect()
        assert await names_of(store, snapshotter) == set(made.chain)
