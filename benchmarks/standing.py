"""What each costs before anybody asks anything: the time to start, and memory."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

import trio

import orlop

from .figures import Comparison, Side
from .pair import Server, containerd, orlop_daemon

__all__ = ["standing"]

TARGET = orlop.Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 1234)


def standing(folder: Path, rounds: int, records: int, *, both: bool) -> list[Comparison]:
    """`records`: images in the store that is started beside the empty one."""
    starts: dict[str, list[float]] = {"orlop": [], "containerd": [], "full": []}
    memory: dict[str, list[float]] = {"orlop": [], "containerd": []}
    with orlop_daemon(folder / "full") as server:
        trio.run(_fill, server.address, records)
    for number in range(rounds):
        makers: dict[str, AbstractContextManager[Server]] = {"orlop": orlop_daemon(folder / f"orlop-{number}")}
        if both:
            makers["containerd"] = containerd(folder / f"containerd-{number}")
        makers["full"] = orlop_daemon(folder / "full")
        for name, maker in makers.items():
            with maker as server:
                starts[name].append(server.ready_s * 1e3)
                if name in memory:
                    time.sleep(0.5)
                    memory[name].append(_own_mib(server.pid))
    other = Side(starts["containerd"]) if both else None
    resting = Side(memory["containerd"]) if both else None
    full = f"start, a store of {records:,} images"
    found = [
        Comparison("start", "start, an empty store", "ms", "lower", Side(starts["orlop"]), other),
        Comparison("start-full", full, "ms", "lower", Side(starts["full"])),
        Comparison("memory-idle", "memory at rest, its own", "MiB", "lower", Side(memory["orlop"]), resting),
    ]
    for each in found:
        print(f"  {each.title:44} {each.orlop.value:8.0f} {each.other.value if each.other else 0:8.0f} {each.unit}")
    return found


async def _fill(address: str, records: int) -> None:
    async with orlop.connect(address) as store:
        for first in range(0, records, 100):
            async with store.transaction() as tx:
                for number in range(first, min(first + 100, records)):
                    tx.images.create(f"image-{number}", TARGET)


def _own_mib(pid: int) -> float:
    """Without what is shared with others: program files and the page cache."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0
