"""What deleting one image of ten blobs takes until its bytes are gone, by how much else is there; and how long others,
who create images meanwhile, have to wait at most."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import trio

import orlop
from orlop.bin.load.steps.blobs import Blob
from orlop.bin.load.targets import containerd as containerd_target
from orlop.bin.load.targets import store as store_target
from orlop.bin.load.targets.interface import Target

from .collection import fill
from .figures import Comparison, Side
from .pair import containerd, orlop_daemon

__all__ = ["garbage"]

RECORDS_AN_IMAGE = 10
DELETES = 10
NAMESPACE = "load-0"


async def garbage(sizes: Sequence[int], most_containerd: int, folder: Path, *, both: bool) -> list[Comparison]:
    """`sizes`: content records; containerd is not filled beyond `most_containerd`, which would take hours."""
    found = []
    for size in sizes:
        took, stalls = await _orlop(size, folder / f"orlop-{size}")
        theirs = await _containerd(size, folder / f"containerd-{size}") if both and size <= most_containerd else None
        other = [None, None] if theirs is None else [Side(each) for each in theirs]
        for key, title, ours, side in (
            ("delete", "deleted, bytes gone", took, other[0]),
            ("stall", "longest create meanwhile", stalls, other[1]),
        ):
            comparison = Comparison(f"gc-{key}-{size}", f"{size:,} records: {title}", "ms", "lower", Side(ours), side)
            print(f"  {comparison.title:44} {comparison.orlop.value:8.1f} ms {side.value if side else 0:10.1f} ms")
            found.append(comparison)
    return found


async def _orlop(size: int, folder: Path) -> tuple[list[float], list[float]]:
    with orlop_daemon(folder) as server:
        async with orlop.connect(server.address, namespace=NAMESPACE) as store:
            await fill(store, size // RECORDS_AN_IMAGE)
        async with store_target.connected(server.address) as target:
            return await _measure(target)


async def _containerd(size: int, folder: Path) -> tuple[list[float], list[float]]:
    with containerd(folder) as server:
        async with containerd_target.connected(server.address) as target:
            await target.ensure_namespace(NAMESPACE)
            await _publish(target, "filling", size // RECORDS_AN_IMAGE)
            return await _measure(target)


async def _publish(target: Target, name: str, count: int) -> None:
    numbers = iter(range(count))

    async def publish() -> None:
        for number in numbers:
            layers = [Blob(f"{name}/{number}/{layer}", 300) for layer in range(RECORDS_AN_IMAGE - 1)]
            await target.publish_image(NAMESPACE, f"example.org/{name}/{number}:1", name, layers)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(publish)


async def _measure(target: Target) -> tuple[list[float], list[float]]:
    """Milliseconds of each delete, and of the longest create during each."""
    await target.ensure_namespace(NAMESPACE)
    await _publish(target, "going", DELETES)
    await target.collect()
    took, stalls = [], []
    for number in range(DELETES):
        longest = 0.0

        async def create(prefix: int = number) -> None:
            nonlocal longest
            made = 0
            while True:
                began = time.perf_counter()
                with trio.CancelScope(shield=True):
                    await target.create_image(NAMESPACE, f"example.org/beside/{prefix}-{made}:1", "beside")
                longest = max(longest, time.perf_counter() - began)
                made += 1
                await trio.sleep(0.002)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            await trio.sleep(0.05)
            longest = 0.0
            began = time.perf_counter()
            await target.delete_image(NAMESPACE, f"example.org/going/{number}:1", sync=True)
            took.append((time.perf_counter() - began) * 1e3)
            nursery.cancel_scope.cancel()
        stalls.append(longest * 1e3)
    return took, stalls
