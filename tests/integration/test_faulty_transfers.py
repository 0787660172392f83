"""Pulls and pushes through a proxy that does what networks do: all end right, or with one clear error; never wrong.

Whatever happened, each blob that the store or the registry keeps is what its digest says, no image is recorded and no
tag set that is not whole, and once the network is well again the next attempt is whole. ORLOP_TRANSFERS says how many
are tried (100), ORLOP_SEED with which seed it begins; a failure names the seed that does it again.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

import orlop
from orlop.actors.config import TransferConfig
from orlop.protocol.errors import Internal, OrlopError
from tests.support.faulty_proxy import FaultyProxy, Harm, Odds
from tests.support.images import MANIFEST, MadeImage
from tests.support.registries import DockerRegistry
from tests.support.transfers import PLAIN, digests, has, opened, pull, push, random_image, stored

COUNT: Final = int(os.environ.get("ORLOP_TRANSFERS", "100"))
GROUPS: Final = 8
AT_ONCE: Final = 8
STALL_S: Final = 0.4
TIMEOUT_S: Final = 60.0
REPOSITORY: Final = "lib/app"
SIZES: Final = (300_000, 40_000, 3_000)
"""Fetched in parts, in one piece through an ingest, and without one."""
ODDS: Final = ((0.1, 2), (0.25, 2), (0.4, 3), (0.25, None), (0.7, None))
DECEIVING: Final = {Harm.FLIPPED, Harm.SPOILED, Harm.SHIFTED, Harm.SHORT}
FINAL: Final = {Harm.FAILED, Harm.BAD_GATEWAY}
"""What is final when it befalls a request twice. Source: spec registry 4."""
TRANSFER: Final = TransferConfig(stall_s=STALL_S, ranges=3, range_bytes=64 * 1024, range_below=math.inf)
pytestmark = pytest.mark.skipif(not DockerRegistry.available(), reason="no docker-registry here")
Transfer = Callable[[int, Path, DockerRegistry, Counter[str]], Awaitable[None]]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize("kind", ["pull", "push"])
async def test_through_a_bad_network(tmp_path: Path, registry: DockerRegistry, kind: str, group: int) -> None:
    start = int(os.environ.get("ORLOP_SEED", random.SystemRandom().randrange(10**9)))
    seeds = [start + number for number in range(COUNT // 2) if number % GROUPS == group]
    print(f"seeds {seeds}")
    transfer: Transfer = pulled if kind == "pull" else pushed
    ends: Counter[str] = Counter()
    if kind == "pull":
        await fill(tmp_path, registry)
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def one(seed: int) -> None:
        async with limiter:
            try:
                with trio.fail_after(TIMEOUT_S):
                    await transfer(seed, tmp_path / str(seed), registry, ends)
            except Exception as error:
                error.add_note(f"{kind}, ORLOP_SEED={seed}")
                raise

    async with trio.open_nursery() as nursery:
        for seed in seeds:
            nursery.start_soon(one, seed)
    print(dict(ends))
    assert ends.total() == len(seeds)
    check_storage(registry)


def proxy_of(seed: int, registry: DockerRegistry) -> FaultyProxy:
    chance, most = ODDS[seed % len(ODDS)]
    return FaultyProxy(registry.address, Odds(seed, chance, most), STALL_S)


def shared_image() -> MadeImage:
    return random_image("bad network", SIZES)


async def fill(folder: Path, registry: DockerRegistry) -> None:
    async with opened(folder / "first") as store:
        await stored(store, "one", shared_image())
        await push(store, f"{registry.address}/{REPOSITORY}:v", "one")


async def ends_clearly(transfer: Awaitable[object], proxy: FaultyProxy) -> str:
    """Well, or with one error that a person can read; in any case well if all was lost or refused twice at most, and
    not twice in the way that nobody tries again."""
    assert proxy.odds is not None
    twice_at_most = proxy.odds.most == 2
    try:
        await transfer
    except OrlopError as caught:
        error = caught
    else:
        return "well"
    final = any(count > 1 for (harm, _), count in Counter(proxy.done).items() if harm in FINAL)
    assert not twice_at_most or final or DECEIVING & {harm for harm, _ in proxy.done}, (error, proxy.done)
    assert not isinstance(error, Internal)
    assert "\n" not in str(error)
    return type(error).__name__


async def pulled(seed: int, folder: Path, registry: DockerRegistry, ends: Counter[str]) -> None:
    made = shared_image()
    with proxy_of(seed, registry) as proxy:
        name = f"{proxy.address}/{REPOSITORY}:v"
        async with opened(folder, transfer=TRANSFER) as store:
            request = orlop.PullImage(name, access=PLAIN)
            end = await ends_clearly(store.pull(request), proxy)
            ends[end] += 1
            images = [image.target.digest async for image in store.images.list()]
            assert images == ([made.target.digest] if end == "well" else [])
            if end == "well":
                await has(store, made)
            await is_right(store)
            proxy.heal()
            await pull(store, name)
            await has(store, made)
            await is_right(store)
            assert await digests(store) == set(made.blobs)


async def is_right(store: orlop.Store) -> None:
    """All that the store keeps is what its digest says."""
    found = [info async for info in store.content.list()]
    for info in found:
        data = await store.content.read(info.digest)
        assert (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) == (info.digest, info.size)
    verified = await store.content.verify()
    assert (verified.checked, verified.damaged, verified.missing) == (len(found), 0, 0)


async def pushed(seed: int, folder: Path, registry: DockerRegistry, ends: Counter[str]) -> None:
    made = random_image(f"pushed by {seed}", SIZES)
    repository = f"seed-{seed}/app"
    with proxy_of(seed, registry) as proxy:
        name = f"{proxy.address}/{repository}:v"
        async with opened(folder / "here", transfer=TRANSFER) as store:
            await stored(store, "one", made)
            chunk_bytes = (0, 0, 100_000)[seed % 3]
            request = orlop.PushImage(name, "one", access=PLAIN, chunk_bytes=chunk_bytes)
            end = await ends_clearly(store.push(request), proxy)
            ends[end] += 1
            tag = tag_at(registry, repository)
            assert tag in ([made.target.digest] if end == "well" else [made.target.digest, ""])
            if tag:  # then all of it is there
                await is_there(folder / "there", registry, repository, made)
            proxy.heal()
            await push(store, name, "one", chunk_bytes=chunk_bytes)
        await is_there(folder / "again", registry, repository, made)


async def is_there(folder: Path, registry: DockerRegistry, repository: str, made: MadeImage) -> None:
    async with opened(folder) as store:
        assert (await pull(store, f"{registry.address}/{repository}:v")).target.digest == made.target.digest
        await has(store, made)


def tag_at(registry: DockerRegistry, repository: str) -> str:
    """What the tag stands for; nothing if there is none."""
    connection = http.client.HTTPConnection(registry.address, timeout=20)
    try:
        connection.request("HEAD", f"/v2/{repository}/manifests/v", headers={"Accept": MANIFEST})
        answer = connection.getresponse()
        answer.read()
        return answer.getheader("Docker-Content-Digest", "") if answer.status == 200 else ""
    finally:
        connection.close()


def check_storage(registry: DockerRegistry) -> None:
    """All that the registry keeps is what its digest says."""
    found = list((registry.folder / "storage" / "docker/registry/v2/blobs/sha256").glob("*/*/data"))
    assert found
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name


async def test_the_proxy_does_all_the_harm_there_is(tmp_path: Path, registry: DockerRegistry) -> None:
    """Else the tests above show less than they say."""
    done: set[Harm] = set()
    await fill(tmp_path, registry)
    for seed in range(200):
        with FaultyProxy(registry.address, Odds(seed, 1.0)) as proxy:
            digest = shared_image().layers[0].digest
            for number in range(20):
                proxy.harm("GET", f"/v2/{REPOSITORY}/blobs/{digest}?{number}", b"")
                proxy.harm("PUT", f"/v2/{REPOSITORY}/blobs/uploads/{number}?digest={digest}", b"body")
            done |= {harm for harm, _ in proxy.done}
        if done == set(Harm):
            return
    raise AssertionError(f"never: {set(Harm) - done}")
