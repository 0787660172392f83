"""SIGKILL while snapshots are made, committed, removed and collected: records and folders agree afterwards.

What was acknowledged is there, with its folder; what has no record has no folder once it was cleaned up; keys of
what did not come about are free. Source: spec snapshots 10; 13, cases 34, 35. The seed of each run is printed.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import orlop
from orlop.protocol import errors

from ..support.daemon import Daemon
from ..support.snapshotters import Subject, paths

ROUNDS = 2
FILES = 8


def subject_of(store: orlop.Store, name: str, folder: Path) -> Subject:
    return Subject(name, store, folder / "store", folder / "work")


async def cleaned(subject: Subject) -> None:
    await subject.store.collect()
    await subject.snapshots.cleanup()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overlayfs", "native"])
async def test_folders_and_records_agree_after_kills(tmp_path: Path, chance: random.Random, name: str) -> None:
    daemon = Daemon(tmp_path)
    layers: dict[str, str] = {}  # acknowledged, with the active that became it
    actives: dict[str, list[orlop.Mount]] = {}
    removed: set[str] = set()
    numbers = iter(range(10**9))

    async def come_and_go(store: orlop.Store) -> None:
        subject = subject_of(store, name, tmp_path)
        parent = ""
        while True:
            number = next(numbers)
            key, layer = f"key-{number}", f"layer-{number}"
            mounts = await subject.prepare(key, parent)
            folder = paths(mounts)[0]
            for file in range(FILES):
                (folder / f"{number}-{file}").write_text(key)
            actives[key] = mounts
            if number % 3:
                del actives[key]  # whether it is a commit or a key now, a kill may hide
                await subject.commit(layer, key)
                layers[layer] = str(number)
                parent = layer
            elif number % 2:
                del actives[key]
                await subject.snapshots.remove(key)
                removed.add(key)
            if number % 5 == 0:
                await cleaned(subject)
                parent = ""

    async def verify(store: orlop.Store) -> None:
        subject = subject_of(store, name, tmp_path)
        await cleaned(subject)
        infos = await subject.infos()
        assert set(actives) | set(layers) <= set(infos)
        assert removed.isdisjoint(infos)
        assert len(subject.folders()) == len(infos)
        assert all(entry.isdecimal() for entry in subject.folders())
        for key, mounts in actives.items():
            assert await subject.snapshots.mounts(key) == mounts
        for key, info in infos.items():
            if info.kind.name == "ACTIVE":
                assert all(path.is_dir() for path in paths(await subject.snapshots.mounts(key)))
        for layer, number in layers.items():
            await subject.view("look", layer)
            (folder, *_) = paths(await subject.snapshots.mounts("look"))
            found = [path.name for path in folder.iterdir() if path.name.startswith(f"{number}-")]
            assert len(found) == FILES, layer
            await subject.snapshots.remove("look")

    for round_ in range(ROUNDS):
        async with daemon.running() as process, trio.open_nursery() as nursery:
            if round_:
                async with orlop.connect(daemon.address) as store:
                    await verify(store)
            nursery.start_soon(daemon.work_until_gone, come_and_go, 8)
            await trio.sleep(chance.uniform(0.05, 0.4))
            process.send_signal(signal.SIGKILL)
    async with daemon.store() as store:
        await verify(store)
        subject = subject_of(store, name, tmp_path)
        taken = set(await subject.infos())
        for number in range(next(numbers)):  # what is not there may be made
            if f"key-{number}" not in taken and number % 7 == 0:
                await subject.prepare(f"key-{number}")
        while await subject.infos():
            for key in await subject.infos():
                with suppress(errors.FailedPrecondition):
                    await subject.snapshots.remove(key)
        await cleaned(subject)
        assert subject.folders() == set()
    print(len(layers), "layers", len(actives), "actives", len(removed), "removed")


@pytest.mark.parametrize("name", ["overlayfs", "native"])
async def test_a_folder_of_nobody_is_never_handed_out(tmp_path: Path, name: str) -> None:
    """As when records are older than folders: what lies at a number is somebody's, and no new snapshot has it."""
    async with orlop.open_store(tmp_path / "store") as store:
        subject = subject_of(store, name, tmp_path)
        mounts = await subject.prepare("a")
    for number in (2, 3, 4, 99):
        (subject.root / str(number) / "fs" / "deep").mkdir(parents=True)
        (subject.root / str(number) / "fs" / "deep" / "secret").write_text("of another")
    async with orlop.open_store(tmp_path / "store") as store:
        subject = subject_of(store, name, tmp_path)
        await cleaned(subject)
        assert await subject.snapshots.mounts("a") == mounts
        made = []
        for attempt in range(6):
            with suppress(errors.Unavailable):
                made += paths(await subject.prepare(f"k{attempt}"))
        assert made
        assert all(os.listdir(path) == [] for path in made)
        await cleaned(subject)
        assert set(await subject.infos()) >= {"a"}
