"""The power fails after any file call: the store opens, what was acknowledged is there, and no blob has wrong bytes.

The calls of real runs (LevelDB's and ours) are recorded; every disk that could be left after each of them is made
and opened. Source: RELIABILITY 3.6 a; spec content 7.3. A failure names the seed; ORLOP_CUT_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

import orlop
from orlop.actors.config import StoreConfig
from orlop.actors.supervisor import run_store
from orlop.bin.embed import host_platform
from orlop.bin.world import real_world
from orlop.protocol import errors
from orlop.protocol.world import Work

from ..support.files.calls import entries, environment, needs_calls
from ..support.files.power_cut import Disk, Model, State, write_out
from .workload import BLOBS, NAMESPACES, ROOT

REPOSITORY = Path(__file__).parents[2]
SOAK = bool(os.environ.get("ORLOP_SOAK"))
RECORDS = 80 if SOAK else 8
STATES = 5_000  # from all records of a run, at least
ROUNDS = 12
INLINE_BYTES = 16 * 1024
NOTHING: Any = object()


@pytest.mark.slow
@needs_calls
@pytest.mark.parametrize("number", range(RECORDS))
def test_no_power_cut_loses_what_was_acknowledged(memory: Path, number: int) -> None:
    seed = int(os.environ.get("ORLOP_CUT_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"ORLOP_CUT_SEED={seed}")
    states = list(_states(memory, seed, STATES // RECORDS + 1))
    assert len(states) > STATES // RECORDS, "too few states"
    print(Counter(state.model.value for state in states))
    trio.run(_check_all, states, memory)


def _states(memory: Path, seed: int, most: int) -> list[State]:
    """Of one recorded run: all different disks of KEPT and SYNCED, and so many of the others that it is `most`."""
    root, log = memory / "store", memory / "log"
    root.mkdir()
    command = [sys.executable, "-m", "tests.crash.workload", str(root), str(seed), str(ROUNDS)]
    subprocess.run(command, env=environment(root, memory, log), cwd=REPOSITORY, check=True, timeout=60)
    shutil.rmtree(root)
    chance, disk = random.Random(seed), Disk(root)
    found: dict[bytes, State] = {}
    for entry in entries(log):
        if disk.follow(entry):
            for state in disk.states(chance, 3):
                found.setdefault(state.key, state)
    always = [state for state in found.values() if state.model in (Model.KEPT, Model.SYNCED)]
    others = [state for state in found.values() if state.model not in (Model.KEPT, Model.SYNCED)]
    return always + chance.sample(others, min(max(most - len(always), 0), len(others)))


async def _check_all(states: Sequence[State], memory: Path) -> None:
    for number, state in enumerate(states):
        root = memory / f"{number}"
        write_out(state, root)
        try:
            await _check(state, root)
        except BaseException as error:
            last = state.marks[-1] if state.marks else None
            error.add_note(f"the disk after call {state.call}, {state.model.value}; last mark {last}")
            raise
        shutil.rmtree(root)


class Expected:
    """What the marks up to a moment say of each object: its value for certain, and what a call under way may make."""

    def __init__(self, marks: Sequence[dict[str, Any]]) -> None:
        self.certain: dict[str, Any] = {}
        self.under_way: dict[str, Any] = {}
        for mark in marks:
            if "begin" in mark:
                self.under_way[mark["begin"]] = mark["value"]
            else:
                del self.under_way[mark["end"]]
                self.certain[mark["end"]] = mark["value"]

    def allows(self, name: str, value: Any) -> bool:
        return value == self.certain.get(name) or value == self.under_way.get(name, NOTHING)

    def ingested(self) -> set[str]:
        """The digests that an ingest is under way for."""
        return {name.split()[2] for name in self.under_way if name.startswith("ingest ")}

    def settled(self, kind: str) -> Iterator[tuple[str, str, Any]]:
        """(namespace, key, value) of what nothing is under way for."""
        for name, value in self.certain.items():
            what, namespace, key = name.split()
            if what == kind and value is not None and name not in self.under_way:
                yield namespace, key, value


class _NoThreads:
    """Workers that block the loop: nothing waits meanwhile, and a start has two dozen steps."""

    async def run(self, _: Work, fn: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return fn(*args)


async def _check(state: State, root: Path) -> None:
    expected, world = Expected(state.marks), replace(real_world(), workers=_NoThreads())
    async with run_store(StoreConfig(str(root)), world, host_platform()) as running:
        held = set()
        for namespace in NAMESPACES:
            store = running.store.in_namespace(namespace)
            held |= await _check_content(store, expected)
            await _check_images(store, expected)
        for namespace, digest, offset in expected.settled("ingest"):
            await _check_ingest(running.store.in_namespace(namespace), digest, offset)
            held.add(digest)
        await running.store.collect()
        await _check_files(running.store, root, held, expected.ingested())


async def _check_content(store: orlop.Store, expected: Expected) -> set[str]:
    held = {info.digest: info async for info in store.content.list()}
    for digest, data in BLOBS.items():
        count = held[digest].labels["count"] if digest in held else None
        name = f"content {store.namespace} {digest}"
        assert expected.allows(name, count), f"{name}: {count}"
        if digest in held:
            assert held[digest].labels.keys() == {*ROOT, "count"}
            assert await store.content.read(digest) == data
    return set(held)


async def _check_images(store: orlop.Store, expected: Expected) -> None:
    images = {image.name: image async for image in store.images.list()}
    for digest in BLOBS:
        name = digest[7:12]
        count = images[name].labels["count"] if name in images else None
        assert expected.allows(f"image {store.namespace} {name}", count), f"image {name}: {count}"


async def _check_ingest(store: orlop.Store, digest: str, offset: int) -> None:
    """What was kept is there, and the rest of it makes the blob."""
    data = BLOBS[digest]
    async with store.content.ingest(digest, expected=digest, size=len(data)) as writer:
        assert writer.offset == offset
        await writer.write(data[writer.offset :])
        await writer.commit(labels=ROOT)
    assert await store.content.read(digest) == data


async def _check_files(store: orlop.Store, root: Path, held: set[str], maybe: set[str]) -> None:
    """A file for every blob that has one, and soon none besides: what a crash left is settled beside other work.
    An ingest that adopts keeps a blob, too: of `maybe` there may be files."""
    ingests = 0
    for namespace in NAMESPACES:
        async for _ in store.in_namespace(namespace).content.ingests():
            ingests += 1
    with trio.move_on_after(5):
        while _surplus(root, held, maybe) or len(os.listdir(root / "ingests")) > ingests:
            await trio.sleep(0.001)
    assert not _surplus(root, held, maybe)
    assert len(os.listdir(root / "ingests")) <= ingests


def _surplus(root: Path, held: set[str], maybe: set[str]) -> Counter[str]:
    """Files beyond one for each large blob. Raises AssertionError if one is missing."""
    names = Counter(f"sha256:{name.split('.')[0]}" for name in os.listdir(root / "blobs" / "sha256"))
    large = {digest for digest in held if len(BLOBS[digest]) > INLINE_BYTES}
    assert large <= names.keys()
    return names - Counter(large | maybe)


@needs_calls
def test_a_planted_loss_is_found(memory: Path) -> None:
    """The check can fail: a disk without the last acknowledged write is none that it accepts."""
    states = _states(memory, 1, 0)
    last = [state for state in states if state.model is Model.KEPT][-1]
    early = next(state for state in states if len(state.marks) > 10)
    write_out(State(early.model, early.call, early.folders, early.files, last.marks), memory / "planted")
    with pytest.raises((AssertionError, errors.OrlopError)):
        trio.run(_check, last, memory / "planted")
