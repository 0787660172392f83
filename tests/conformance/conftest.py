"""A store where one is enough; and where the snapshot suites run: which snapshotter, by which way in, and whether this
machine lets us mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

import orlop
from tests.support.outcomes import outcome

from ..conftest import StoreMaker
from ..support.layers import quick_store
from ..support.snapshotters import Home, Snapshots, Subject

# Records are the same whatever the snapshotter: every way in and engine, and two kinds of folders. The scenarios run
# over all snapshotters in process. More would repeat, not add.
HOMES = [
    ("embedded", "memory", "overlayfs"),
    ("unix", "leveldb", "native"),
    ("tcp", "leveldb", "overlayfs"),
]
IN_PROCESS = [("embedded", "leveldb", snapshotter) for snapshotter in ("overlayfs", "native", "btrfs")]
MOUNTING = [*IN_PROCESS, ("unix", "leveldb", "overlayfs"), ("unix", "leveldb", "native")]


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[orlop.Store]:
    """A store behind a socket and over LevelDB, for rules that no way in changes."""
    async with StoreMaker("unix", "leveldb", tmp_path).open() as opened:
        yield opened


@pytest.fixture(scope="session")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on btrfs, in a file of its own."""
    folder = tmp_path_factory.mktemp("btrfs")
    image, top = folder / "image", folder / "top"
    top.mkdir()
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    try:
        run("mkfs.btrfs", "-q", "-m", "single", str(image))
        run("mount", "-o", "loop", str(image), str(top))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no btrfs: {getattr(error, 'stderr', None) or error}")
    try:
        if not trio.run(has_btrfs, StoreMaker("embedded", "leveldb", top)):
            pytest.skip("stores have no snapshotter btrfs")
        yield top
    finally:
        run("umount", str(top))
        image.unlink()


async def has_btrfs(stores: StoreMaker) -> bool:
    async with stores.open("probe") as store:
        return await outcome(store.snapshots.using("btrfs").get("any")) == "NotFound"


@pytest.fixture(scope="session")
def mounting(tmp_path_factory: pytest.TempPathFactory) -> None:
    """We may mount, binds and overlays: it is tried."""
    top = tmp_path_factory.mktemp("mounting")
    for name in ("lower", "upper", "work", "at"):
        (top / name).mkdir()
    overlay = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
    try:
        for what in (["--bind", str(top / "lower")], ["-t", "overlay", "-o", overlay, "overlay"]):
            run("mount", *what, str(top / "at"))
            run("umount", str(top / "at"))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount: {getattr(error, 'stderr', None) or error}")


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Modes are what was asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


def home_of(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    way, engine, snapshotter = request.param
    if snapshotter != "btrfs":
        return Home(StoreMaker(way, engine, tmp_path), snapshotter, tmp_path / "work")
    own = request.getfixturevalue("btrfs") / tmp_path.name
    own.mkdir()
    return Home(StoreMaker(way, engine, own), snapshotter, tmp_path / "work")


@pytest.fixture(params=HOMES, ids="-".join)
def home(request: pytest.FixtureRequest, tmp_path: Path, no_umask: None) -> Home:
    """A snapshotter, and how to open the store that has it."""
    return home_of(request, tmp_path)


@pytest.fixture(params=[*IN_PROCESS, *HOMES[1:]], ids="-".join)
def lasting_home(request: pytest.FixtureRequest, tmp_path: Path, no_umask: None) -> Home:
    """Of a store that can be opened again."""
    return home_of(request, tmp_path)


@pytest.fixture(params=IN_PROCESS, ids="-".join)
def home_in_process(request: pytest.FixtureRequest, tmp_path: Path, no_umask: None) -> Home:
    return home_of(request, tmp_path)


@pytest.fixture(params=MOUNTING, ids="-".join)
def mounting_home(request: pytest.FixtureRequest, tmp_path: Path, no_umask: None, mounting: None) -> Home:
    return home_of(request, tmp_path)


@pytest.fixture
async def subject(home: Home) -> AsyncIterator[Subject]:
    """A snapshotter of an empty store."""
    async with home.open() as opened:
        yield opened


@pytest.fixture
async def subject_in_process(home_in_process: Home) -> AsyncIterator[Subject]:
    async with home_in_process.open() as opened:
        yield opened


@pytest.fixture
async def mounting_subject(mounting_home: Home) -> AsyncIterator[Subject]:
    """The same where what it answers can be mounted."""
    async with mounting_home.open() as opened:
        yield opened


@pytest.fixture
async def overlay(tmp_path: Path, no_umask: None) -> AsyncIterator[Subject]:
    async with Home(StoreMaker("embedded", "leveldb", tmp_path), "overlayfs", tmp_path / "work").open() as opened:
        yield opened


@pytest.fixture
async def native(tmp_path: Path, no_umask: None) -> AsyncIterator[Subject]:
    async with Home(StoreMaker("embedded", "leveldb", tmp_path), "native", tmp_path / "work").open() as opened:
        yield opened


@pytest.fixture(params=["overlayfs", "native"])
async def plain(request: pytest.FixtureRequest, tmp_path: Path, no_umask: None) -> AsyncIterator[Subject]:
    """A snapshotter whose snapshots are folders that can be looked into without a mount."""
    async with Home(StoreMaker("embedded", "leveldb", tmp_path), request.param, tmp_path / "work").open() as opened:
        yield opened


@pytest.fixture
async def snapshots(subject: Subject) -> Snapshots:
    """Those of the subject, each made under a lease, so that no collection takes any."""
    await subject.store.leases.create("scaffold")
    return subject.leased("scaffold")


@pytest.fixture
def scaffolded(snapshots: Snapshots, subject: Subject) -> orlop.Store:
    """The store of `snapshots`, lease included."""
    return subject.store.with_lease("scaffold")


# What layers are laid upon


@pytest.fixture
def mounts(mounting: None, tmp_path: Path) -> Iterator[None]:
    """We may mount; and whatever is mounted of a test's folder is unmounted with the test."""
    yield
    left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
    assert left == []


@pytest.fixture(params=["overlayfs", "native"])
def snapshotter(request: pytest.FixtureRequest, mounts: None) -> str:
    return request.param


@pytest.fixture
async def leased(mounts: None, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    """A store that opens quickly; a lease holds whatever is made in it."""
    async with quick_store(tmp_path / "store") as store:
        yield store
