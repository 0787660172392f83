"""What is unpacked of an archive, and what then becomes of its layers; large archives, and pipes. Source: spec registry
9 and 11."""

from __future__ import annotations

import fcntl
import gzip
import os
import struct
import subprocess
import termios
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trio

import orlop
from orlop.bin.embed import host_platform
from orlop.protocol.errors import FailedPrecondition, InvalidArgument, NotFound
from orlop.protocol.registry.platforms import parse_platform
from tests.support.archive_stores import TIMEOUT_S, brought, has, here, nothing_came, opened, refused, written
from tests.support.archives import HOST, OTHER, for_other, layout_files, named, simple, tar_of
from tests.support.images import MadeImage, image, write_layout
from tests.support.layers import TAR, brief, digest_of, file, layer, names_of, read_tree
from tests.support.layout_registry import LayoutRegistry
from tests.support.shell import CLI, ENVIRONMENT, Shell

NAME = "quay.io/a/b:1"
BOTH: Mapping[str, MadeImage] = {HOST: simple(), OTHER: for_other()}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture(params=["embedded", "unix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[orlop.Store]:
    async with opened(tmp_path / "store", request.param) as store:
        yield store


# Unpacking


async def test_images_for_this_machine_are_unpacked(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    path = written(tmp_path, layout_files([(made, named(NAME)), (for_other(), named("quay.io/a/other:1"))]))
    assert len(await brought(store, path, unpack_for=[host_platform()])) == 2
    await has(store, made, for_other())
    assert await names_of(store, "") == set(made.chain)


async def test_of_an_index_what_this_machine_runs_is_unpacked(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(BOTH, named(NAME))]))
    await brought(store, path, unpack_for=[host_platform()])
    await has(store, *BOTH.values())
    assert await names_of(store, "") == set(BOTH[HOST].chain)


async def test_what_is_not_asked_for_is_not_unpacked(store: orlop.Store, tmp_path: Path) -> None:
    await brought(store, written(tmp_path, layout_files([(simple(), named(NAME))])))
    assert await names_of(store, "") == set()


async def test_an_archive_that_lacks_this_machine_is_brought_and_not_unpacked(
    store: orlop.Store, tmp_path: Path
) -> None:
    files = layout_files([(BOTH, named(NAME))])
    for digest in BOTH[HOST].blobs:
        files.pop(f"blobs/{digest.replace(':', '/')}")
    await brought(store, written(tmp_path, files), unpack_for=[host_platform()])
    await has(store, BOTH[OTHER])
    assert await names_of(store, "") == set()


@needs_root
async def test_what_is_unpacked_is_the_image(tmp_path: Path) -> None:
    made = image([layer(file("a", "1"), file("b", "1")), layer(file(".wh.b"), file("c", "2"))])
    async with opened(tmp_path / "store") as store:
        await brought(store, written(tmp_path, layout_files([(made, named(NAME))])), unpack_for=[host_platform()])
        await store.collect()
        assert await shown(store, made) == {"a": "file:1", "c": "file:2"}


async def shown(store: orlop.Store, made: MadeImage) -> dict[str, str]:
    async with store.lease() as leased, orlop.mounted(await leased.snapshots.view("look", made.chain[-1])) as root:
        return brief(read_tree(root))


async def test_an_image_that_cannot_be_unpacked_is_not_recorded(store: orlop.Store, tmp_path: Path) -> None:
    """As with a pull: the record comes last. Spec registry 9, 11."""
    wrong = simple(diff_ids=[digest_of(b"1"), digest_of(b"2")])
    path = written(tmp_path, layout_files([(simple("good"), named("quay.io/a/good:1")), (wrong, named(NAME))]))
    with trio.fail_after(TIMEOUT_S), pytest.raises(FailedPrecondition):
        await orlop.import_archive(store, path, unpack_for=[host_platform()])
    await nothing_came(store)
    assert await names_of(store, "") == set()


# Layers that are only for unpacking


async def test_layers_can_be_let_go_once_they_are_unpacked(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    path = written(tmp_path, layout_files([(made, named(NAME))]))
    await brought(store, path, unpack_for=[host_platform()], discard_layers=True)
    await store.collect()
    assert await here(store) == {made.target.digest, made.config_digest}
    assert await names_of(store, "") == set(made.chain)
    assert (await store.images.unpack(NAME)).chain_id == made.chain[-1]
    await brought(store, path)
    await has(store, made)


async def test_layers_that_are_not_unpacked_are_not_let_go(store: orlop.Store, tmp_path: Path) -> None:
    """Else nothing would be left of them."""
    path = written(tmp_path, layout_files([(BOTH, named(NAME)), (for_other("two"), named("quay.io/a/other:1"))]))
    await brought(store, path, unpack_for=[host_platform()], discard_layers=True)
    await has(store, BOTH[OTHER], for_other("two"))
    assert not {blob.digest for blob in BOTH[HOST].layers} & await here(store)


async def test_layers_that_were_here_before_are_let_go_too(store: orlop.Store, tmp_path: Path) -> None:
    made = simple()
    path = written(tmp_path, layout_files([(made, named(NAME))]))
    await brought(store, path)
    await brought(store, path, unpack_for=[host_platform()], discard_layers=True)
    await store.collect()
    assert await here(store) == {made.target.digest, made.config_digest}


# At a shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(HOME=str(tmp_path), ORLOP_STORE=str(tmp_path / "own"))


def test_a_chosen_platform_is_what_is_unpacked(shell: Shell, tmp_path: Path) -> None:
    """As with a pull. Spec registry 11."""
    path = written(tmp_path, layout_files([(BOTH, named(NAME))]))
    shell.out("images", "import", "--platform", OTHER, str(path))
    assert set(shell.out("snapshots", "ls", "-q").split()) == set(BOTH[OTHER].chain)


@needs_root
def test_an_image_whose_layers_are_let_go_can_be_mounted(shell: Shell, tmp_path: Path) -> None:
    made = image([layer(file("a", "1"))])
    path = written(tmp_path, layout_files([(made, named(NAME))]))
    shell.out("images", "import", "--discard-unpacked-layers", str(path))
    shell.out("gc", "run")
    assert made.layers[0].digest not in shell.out("content", "ls", "-q")
    target = tmp_path / "mnt"
    target.mkdir()
    try:
        shell.out("images", "mount", NAME, str(target))
        assert (target / "a").read_text() == "1"
        shell.out("images", "unmount", "--rm", str(target))
        assert not any(target.iterdir())
    finally:
        subprocess.run(["umount", "-l", target], capture_output=True, check=False)  # if the above did not


def test_a_pipe_is_read_however_its_bytes_come(tmp_path: Path) -> None:
    """The first two bytes are alone: too few to see how the archive is packed."""
    made = simple()
    data = gzip.compress(tar_of(layout_files([(made, named(NAME))])))
    with piped(tmp_path, "-q", "--no-unpack") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data[:2])
        deadline = time.monotonic() + TIMEOUT_S
        while unread(process.stdin.fileno()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.stdin.write(data[2:])
        process.stdin.close()
        assert process.stdout.read().decode() == f"{NAME} {made.target.digest}\n"
        assert process.wait(TIMEOUT_S) == 0


def piped(tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*CLI, "images", "import", *arguments, "-"],
        env={**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_STORE": str(tmp_path / "own")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )


def unread(descriptor: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(count)


def test_ctrl_c_ends_an_import_from_a_pipe_in_which_nothing_comes(shell: Shell, tmp_path: Path) -> None:
    data = tar_of(layout_files([(simple(), named(NAME))]))
    with piped(tmp_path, "-q") as process:
        assert process.stdin is not None
        process.stdin.write(data[:2000])
        deadline = time.monotonic() + TIMEOUT_S
        while unread(process.stdin.fileno()) or not (tmp_path / "own" / "socket").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(2)
        assert process.wait(TIMEOUT_S) == 130
    assert shell.out("images", "ls", "-q") == ""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_large_archive_is_not_loaded_into_memory(tmp_path: Path) -> None:
    small, large = (peak_of_import(tmp_path, megabytes) for megabytes in (1, 64))
    assert large - small < 32, f"{small} MiB for a small archive, {large} MiB for a large one"


def peak_of_import(tmp_path: Path, megabytes: int) -> int:
    """The most memory, in MiB, that the program had while it brought a layer of this size."""
    made = image([layer(file("zeros", bytes(megabytes << 20)))], media_type=TAR)
    path = written(tmp_path, layout_files([(made, named(NAME))]))
    program = f"{CLI[2].removesuffix('main()')}\ntry: main()\nfinally: print(open('/proc/self/status').read())"
    done = subprocess.run(
        [CLI[0], "-c", program, "images", "import", "-q", "--no-unpack", path],
        env={**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_STORE": str(tmp_path / "own")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.target.digest in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) >> 10


# Where the packing ends with the archive


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
async def test_the_end_of_the_packing_is_looked_at(tmp_path: Path, form: str) -> None:
    """Also where the archive ends with a whole piece of what is read at a time, so that nobody needs to read on."""
    files = layout_files([(simple(), named(NAME))])
    files["z"] = bytes((1 << 20) - len(tar_of(files)) - 512)
    assert len(tar_of(files)) == 1 << 20
    data = written(tmp_path, files, form).read_bytes()
    async with opened(tmp_path / "store") as store:
        await refused(store, written(tmp_path, data[:-1]), InvalidArgument)
        await brought(store, written(tmp_path, data))


async def test_a_platform_is_not_found_before_anything_is_unpacked(store: orlop.Store, tmp_path: Path) -> None:
    path = written(tmp_path, layout_files([(BOTH, named(NAME))]))
    nowhere = parse_platform("linux/s390x", host_platform())
    await refused(store, path, NotFound, platforms=[nowhere])
    assert await names_of(store, "") == set()


# Durability


def test_sync_fs_is_taken_wherever_something_is_unpacked(shell: Shell, tmp_path: Path) -> None:
    """It asks for what is always so; see tests/actors/test_unpack_durability.py."""
    path = written(tmp_path, layout_files([(simple(), named(NAME))]))
    assert shell.out("images", "import", "-q", "--sync-fs", str(path)).startswith(NAME)
    assert shell.out("images", "unpack", "-q", "--sync-fs", NAME).strip() == simple().chain[-1]
    with LayoutRegistry({"a/b": write_layout(tmp_path / "layout", simple())}) as registry:
        name = f"{registry.address}/a/b:latest"
        assert shell.out("pull", "-q", "--plain-http", "--sync-fs", name).strip() == simple().target.digest
    done = shell.run("images", "mount", "--sync-fs", NAME, str(tmp_path / "nowhere"))
    assert done.returncode == 3  # the folder is not there; the option is
