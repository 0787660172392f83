"""SIGKILL of the daemon or of a worker, at any moment of a pull that unpacks.

After a restart the same pull succeeds, every snapshot that has a record has its folder, and no folder is left that no
record knows; removed, everything is gone. The seed of each run is printed.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol import errors
from tests.support.daemon import GONE, Daemon
from tests.support.layout_registry import LayoutRegistry
from tests.support.registries import make_layout

ROUNDS = 100 if os.environ.get("ORLOP_SOAK") else 8
KILLED = (*GONE, errors.NotFound)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image") / "layout"
    make_layout(folder, "--layers", "4", "--files", "300", "--size", "2M", "--tag", "latest")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
async def test_pulls_survive_kills_and_leave_nothing(
    tmp_path: Path, chance: random.Random, layout: Path, snapshotter: str
) -> None:
    daemon = Daemon(tmp_path)
    with LayoutRegistry({"x": layout}) as registry:
        request = orlop.PullImage(
            f"{registry.address}/x:latest",
            access=orlop.RegistryAccess(plain_http=True),
            unpack=True,
            snapshotter=snapshotter,
        )
        for _ in range(ROUNDS // 2):
            async with daemon.running() as process:
                await pull_until_killed(daemon, process, request, chance)
            async with daemon.running(), orlop.connect(daemon.address) as store:
                await store.pull(request)
                await store.collect()  # which ends when what was queued for removal is gone
                await folders_are_those_of_records(store, tmp_path / "store", snapshotter, layers=4)
                await store.images.delete(request.reference)
                for lease in [lease async for lease in store.leases.list()]:
                    await store.leases.delete(lease.id)
                await store.collect()
                await folders_are_those_of_records(store, tmp_path / "store", snapshotter, layers=0)


async def pull_until_killed(
    daemon: Daemon, process: trio.Process, request: orlop.PullImage, chance: random.Random
) -> None:
    """One pull, and somewhere in it the end of the daemon, of its workers' server, or of one worker."""
    victim = chance.choice(["daemon", "daemon", "worker", "server"])
    async with trio.open_nursery() as nursery:

        async def kill() -> None:
            await trio.sleep(chance.uniform(0, 0.5))
            pid = process.pid
            if victim != "daemon":
                servers = children(pid)
                workers = [worker for server in servers for worker in children(server)]
                found = workers if victim == "worker" else servers
                if not found:
                    return
                pid = chance.choice(found)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # that one had ended by itself

        nursery.start_soon(kill)
        try:
            async with orlop.connect(daemon.address) as store:
                await store.pull(request)
        except KILLED:
            pass


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


async def folders_are_those_of_records(store: orlop.Store, root: Path, snapshotter: str, *, layers: int) -> None:
    snapshots = store.snapshots.using(snapshotter)
    names = [info.name async for info in snapshots.list()]
    assert len(names) == layers
    folders = {path.name for path in (root / "snapshots" / snapshotter).iterdir()}
    assert len(folders) == layers
    for name in names:
        mounts = await snapshots.view(f"look {name}", name, {"containerd.io/gc.root": "test"})
        await snapshots.remove(f"look {name}")
        sources = [mounts[0].source] if mounts[0].type == "bind" else mounts[0].options[0].partition("=")[2].split(":")
        assert all(Path(source).is_dir() for source in sources)
