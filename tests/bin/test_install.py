"""install: programs of an image put into a folder, and nothing put anywhere else. Source: spec cli 8."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archive_stores import written
from tests.support.archives import OTHER, layout_files, named
from tests.support.images import MadeImage, image
from tests.support.layers import GZIP, TAR, ZSTD, device, digest_of, fifo, file, folder, hardlink, layer, symlink
from tests.support.shell import CLI, ENVIRONMENT, Shell, daemon, one_line

NAME = "quay.io/team/tools:1"
PLAIN = image(
    [
        layer(
            folder("bin"),
            file("bin/one", "1", mode=0o755),
            file("bin/two", "2", mode=0o4750),
            symlink("bin/link", "one"),
            file("lib/library", "l"),
            file("bin/sub/deep", "no"),
            file("usr/bin/other", "no"),
            file("etc/file", "no"),
        )
    ]
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is nobody's business."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "file").write_text("untouched")
    return path


def brought(shell: Shell, folder: Path, *layers: bytes, made: MadeImage | None = None, name: str = NAME) -> MadeImage:
    made = made or image(layers)
    shell.out("images", "import", "-q", "--no-unpack", str(written(folder, layout_files([(made, named(name))]))))
    return made


def tree(path: Path) -> dict[str, str]:
    """What is below: the text of files, where links lead."""
    found = {}
    for parent, folders, names in os.walk(path):
        for name in [*folders, *names]:
            at = Path(parent, name)
            shown = f"-> {os.readlink(at)}" if at.is_symlink() else "folder" if at.is_dir() else at.read_text()
            found[str(at.relative_to(path))] = shown
    return found


def install(shell: Shell, target: Path, *options: str) -> list[str]:
    """What it says it has installed, relative to the target."""
    shown = shell.out("install", "-q", "--path", str(target), *options, NAME).splitlines()
    assert all(line.startswith(f"{target}/") for line in shown)
    return [line.removeprefix(f"{target}/") for line in shown]


def refused(shell: Shell, target: Path, *options: str, status: int = 1) -> str:
    """It fails in one line, and the target is as it was."""
    before = tree(target) if target.is_dir() else {}
    done = shell.run("install", "-q", "--path", str(target), *options, NAME)
    assert (done.returncode, done.stdout) == (status, "")
    one_line(done.stderr)
    after = tree(target) if target.is_dir() else {}
    assert {key: value for key, value in after.items() if value != "folder" or key in before} == before
    assert not any(".orlop" in key for key in after)
    return done.stderr


# What is installed


def test_what_is_right_inside_bin_is_installed(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, made=PLAIN)
    assert install(shell, target) == ["bin/link", "bin/one", "bin/two"]
    assert tree(target) == {"bin": "folder", "bin/one": "1", "bin/two": "2", "bin/link": "-> one"}


def test_libraries_are_installed_where_they_are_asked_for(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, made=PLAIN)
    assert install(shell, target, "--libs") == ["bin/link", "bin/one", "bin/two", "lib/library"]
    assert tree(target)["lib/library"] == "l"


@needs_root
def test_owners_modes_and_times_are_the_archives(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, layer(file("bin/a", "x", mode=0o6751, uid=1234, gid=99, mtime=1_000_000_000)))
    install(shell, target)
    status = (target / "bin" / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o6751, 1234, 99)
    assert status.st_mtime == 1_000_000_000


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD])
def test_layers_may_be_packed_in_any_way(shell: Shell, tmp_path: Path, target: Path, media_type: str) -> None:
    large = "".join(f"{number}\n" for number in range(600_000))
    brought(shell, tmp_path, made=image([layer(file("bin/large", large))], media_type=media_type))
    install(shell, target)
    assert (target / "bin" / "large").read_text() == large


def test_hard_links_between_programs_are_one_file(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, layer(file("bin/busybox", "b"), hardlink("bin/sh", "bin/busybox")))
    install(shell, target)
    assert (target / "bin" / "sh").samefile(target / "bin" / "busybox")


def test_names_may_be_written_with_dots_in_front(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, layer(file("./bin/a", "1"), file("bin//b", "2")))
    assert install(shell, target) == ["bin/a", "bin/b"]


def test_devices_and_pipes_are_left_out(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, layer(device("bin/null", "char", 1, 3), fifo("bin/pipe"), file("bin/a", "1")))
    assert install(shell, target) == ["bin/a"]
    assert tree(target) == {"bin": "folder", "bin/a": "1"}


@pytest.mark.parametrize(
    "second, expected",
    [
        ([file("bin/a", "new")], {"bin/a": "new", "bin/b": "b"}),
        ([file("bin/.wh.a")], {"bin/b": "b"}),
        ([file("bin/.wh.a"), file("bin/a", "new")], {"bin/a": "new", "bin/b": "b"}),
        ([file("bin/.wh..wh..opq"), file("bin/c", "c")], {"bin/c": "c"}),
        ([file(".wh.bin"), file("bin/c", "c")], {"bin/c": "c"}),
        ([file(".wh..wh..opq"), file("bin/c", "c")], {"bin/c": "c"}),
        ([symlink("bin/a", "b")], {"bin/a": "-> b", "bin/b": "b"}),
        ([hardlink("bin/c", "bin/a")], {"bin/a": "a", "bin/b": "b", "bin/c": "a"}),
    ],
    ids=["replaced", "hidden", "hidden and new", "opaque", "folder hidden", "all hidden", "link", "hard link"],
)
def test_of_several_layers_the_last_ones_word_counts(
    shell: Shell, tmp_path: Path, target: Path, second: list[bytes], expected: dict[str, str]
) -> None:
    brought(shell, tmp_path, layer(file("bin/a", "a"), file("bin/b", "b")), layer(*second))
    install(shell, target)
    assert tree(target) == {"bin": "folder", **expected}


def test_an_image_hides_nothing_that_was_there_before_it(shell: Shell, tmp_path: Path, target: Path) -> None:
    (target / "bin").mkdir(parents=True)
    (target / "bin" / "mine").write_text("mine")
    brought(shell, tmp_path, layer(file("bin/a", "a")), layer(file("bin/.wh.mine"), file("bin/.wh..wh..opq")))
    refused(shell, target, status=3)
    brought(shell, tmp_path, layer(file("bin/a", "a")), layer(file("bin/.wh.mine"), file("bin/b", "b")))
    install(shell, target)
    assert tree(target) == {"bin": "folder", "bin/a": "a", "bin/b": "b", "bin/mine": "mine"}


def test_it_prints_json(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, made=PLAIN)
    found = json.loads(shell.out("install", "--json", "--path", str(target), NAME))
    assert found == {"path": str(target), "installed": ["bin/link", "bin/one", "bin/two"]}


# What is there already


def test_a_file_that_is_there_is_not_replaced_unless_it_is_said(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, layer(file("bin/a", "new"), file("bin/b", "new")))
    (target / "bin").mkdir(parents=True)
    (target / "bin" / "b").write_text("old")
    os.link(target / "bin" / "b", tmp_path / "held")
    assert f"cannot replace bin/b in {target}" in refused(shell, target)
    assert install(shell, target, "--replace") == ["bin/a", "bin/b"]
    assert tree(target) == {"bin": "folder", "bin/a": "new", "bin/b": "new"}
    assert (tmp_path / "held").read_text() == "old"  # who has it open goes on with it
    assert install(shell, target, "-r") == ["bin/a", "bin/b"]


@pytest.mark.parametrize("options", [(), ("--replace",)])
def test_a_folder_that_is_there_is_never_replaced(
    shell: Shell, tmp_path: Path, target: Path, options: tuple[str, ...]
) -> None:
    brought(shell, tmp_path, layer(file("bin/a", "new"), file("bin/b", "new")))
    (target / "bin" / "b").mkdir(parents=True)
    assert "bin/b" in refused(shell, target, *options)


def test_a_program_that_runs_is_replaced(shell: Shell, tmp_path: Path, target: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    (target / "bin").mkdir(parents=True)
    shutil.copy(sleep, target / "bin" / "a")
    brought(shell, tmp_path, layer(file("bin/a", "new")))
    with subprocess.Popen([target / "bin" / "a", "60"]) as running:
        install(shell, target, "--replace")
        assert running.poll() is None
        running.kill()
    assert (target / "bin" / "a").read_text() == "new"


# Nothing outside


def hostile(outside: Path) -> dict[str, list[bytes]]:
    out = str(outside)
    return {
        "above": [file("../bin/x", "bad"), file("bin/../../x", "bad"), file("../outside/file", "bad")],
        "absolute": [file("/bin/x", "bad"), file(f"{out}/file", "bad")],
        "sideways": [file("bin/../x", "bad"), file("bin/../outside/file", "bad"), file("bin/..", "bad")],
        "a link for bin": [symlink("bin", out), file("bin/file", "good")],
        "a folder that becomes a link": [folder("bin"), symlink("bin", out), file("bin/file", "good")],
        "below a link": [symlink("bin/d", out), file("bin/d/file", "bad")],
        "through a link": [symlink("bin/file", f"{out}/file"), file("bin/file", "good")],
        "through a link to a folder": [symlink("bin/file", out), file("bin/file", "good")],
        "a folder in a link's place": [symlink("bin/d", out), folder("bin/d"), file("bin/d/x", "bad")],
        "whiteouts": [file("bin/.wh...", ""), file("../.wh.outside"), file("bin/../../.wh.outside")],
        "a whiteout of a link": [symlink("bin/d", out), file("bin/.wh.d"), file("bin/d/.wh.file")],
    }


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("which", list(hostile(Path("/"))))
def test_nothing_is_written_outside(
    shell: Shell, tmp_path: Path, target: Path, outside: Path, which: str, layers: int, replace: bool
) -> None:
    """In one layer, or with each entry in a layer of its own; whatever else comes of it."""
    entries = hostile(outside)[which]
    good = [file("bin/good", "good")]
    made = [layer(*good, *entries)] if layers == 1 else [layer(*good), *(layer(entry) for entry in entries)]
    brought(shell, tmp_path, *made)
    shell.run("install", "-q", "--path", str(target), *(["--replace"] if replace else []), "--libs", NAME)
    shell.run("install", "-q", "--path", str(target), "--replace", "--libs", NAME)
    assert tree(outside) == {"file": "untouched"}
    assert "bad" not in tree(target).values()
    assert not any(".orlop" in name for name in tree(target))
    assert set(os.listdir(target)) <= {"bin", "lib"}
    assert {each.name for each in tmp_path.iterdir()} - {"outside", "target", "store"} == {
        each.name for each in tmp_path.glob("archive-*")
    }


@pytest.mark.parametrize("link", ["{out}/file", "../outside/file", "/etc/passwd", "../../outside/file", "usr/bin/x"])
def test_a_hard_link_to_what_is_not_installed_is_refused(
    shell: Shell, tmp_path: Path, target: Path, outside: Path, link: str
) -> None:
    brought(
        shell, tmp_path, layer(file("usr/bin/x", "x"), file("bin/a", "a"), hardlink("bin/b", link.format(out=outside)))
    )
    assert "bin/b" in refused(shell, target)
    assert (outside / "file").stat().st_nlink == 1


@pytest.mark.parametrize("lead", ["absolute", "relative"])
def test_a_link_in_a_folders_place_is_not_followed(
    shell: Shell, tmp_path: Path, target: Path, outside: Path, lead: str
) -> None:
    """Also not where it leads to a folder of the target: who may change it may change where it leads."""
    brought(shell, tmp_path, layer(file("bin/file", "new"), file("lib/file", "new")))
    target.mkdir()
    (target / "bin").symlink_to(outside if lead == "absolute" else "../outside")
    assert f"bin in {target}" in refused(shell, target, "--replace")
    (target / "bin").unlink()
    (target / "lib").symlink_to(outside)
    assert f"lib in {target}" in refused(shell, target, "--replace", "--libs")
    assert tree(outside) == {"file": "untouched"}


def test_a_link_in_a_files_place_is_replaced_and_not_followed(
    shell: Shell, tmp_path: Path, target: Path, outside: Path
) -> None:
    brought(shell, tmp_path, layer(file("bin/a", "new"), file("bin/b", "new")))
    (target / "bin").mkdir(parents=True)
    (target / "bin" / "a").symlink_to(outside / "file")
    (target / "bin" / "b").symlink_to(outside / "nothing")
    assert "cannot replace bin/a" in refused(shell, target)
    install(shell, target, "--replace")
    assert tree(target) == {"bin": "folder", "bin/a": "new", "bin/b": "new"}
    assert tree(outside) == {"file": "untouched"}


def test_the_target_itself_may_be_a_link(shell: Shell, tmp_path: Path, target: Path) -> None:
    """It is the caller's own word."""
    brought(shell, tmp_path, layer(file("bin/a", "new")))
    (tmp_path / "real").mkdir()
    target.symlink_to("real")
    install(shell, target)
    assert tree(tmp_path / "real") == {"bin": "folder", "bin/a": "new"}


# What is not whole is not installed


def test_a_layer_that_is_not_what_the_config_says_installs_nothing(shell: Shell, tmp_path: Path, target: Path) -> None:
    first, second = layer(file("bin/a", "a")), layer(file("bin/b", "b"))
    wrong = digest_of(b"something else")
    brought(shell, tmp_path, made=image([first, second], diff_ids=[digest_of(first), wrong]))
    assert wrong in refused(shell, target)


def test_a_layer_that_is_cut_short_installs_nothing(shell: Shell, tmp_path: Path, target: Path) -> None:
    first, second = layer(file("bin/a", "a")), layer(file("bin/b", "b" * 2000))[:1500]
    brought(shell, tmp_path, first, second)
    refused(shell, target)


def test_a_damaged_layer_installs_nothing(shell: Shell, tmp_path: Path, target: Path) -> None:
    noise = "".join(digest_of(b"%d" % number) for number in range(1000))
    made = brought(shell, tmp_path, made=image([layer(file("bin/a", noise))], media_type=TAR))
    (path,) = (tmp_path / "store" / "blobs").rglob(f"{made.layers[0].digest.partition(':')[2]}*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    done = shell.run("install", "-q", "--path", str(target), NAME)
    assert done.returncode == 1
    assert made.layers[0].digest in done.stderr  # which says what is damaged to who watches the store, too
    assert "data loss" in done.stderr
    assert tree(target) == {}


def test_a_layer_that_is_not_here_says_how_to_get_it(shell: Shell, tmp_path: Path, target: Path) -> None:
    made = brought(shell, tmp_path, layer(file("bin/a", "a")), layer(file("bin/b", "b")))
    shell.out("content", "rm", made.layers[1].digest)
    error = refused(shell, target, status=3)
    assert made.layers[1].digest in error
    assert "--fetch-all" in error


def test_an_image_that_is_not_here_or_not_for_here_is_not_found(shell: Shell, tmp_path: Path, target: Path) -> None:
    refused(shell, target, status=3)
    foreign = {"architecture": OTHER.partition("/")[2], "variant": ""}
    brought(shell, tmp_path, made=image([layer(file("bin/a", "a"))], config=foreign))
    assert NAME in refused(shell, target, status=3)
    assert not target.exists()


def test_nothing_to_install_is_not_found(shell: Shell, tmp_path: Path, target: Path) -> None:
    brought(shell, tmp_path, layer(file("usr/bin/a", "a"), file("lib/l", "l")))
    assert "--libs" in refused(shell, target, status=3)
    assert install(shell, target, "--libs") == ["lib/l"]


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_target_that_is_no_folder_is_refused(shell: Shell, tmp_path: Path, path: str) -> None:
    brought(shell, tmp_path, made=PLAIN)
    (tmp_path / "file").write_text("x")
    refused(shell, tmp_path / path)
    assert (tmp_path / "file").read_text() == "x"


# Where to


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Shell, Path]]:
    """A server whose settings say where to."""
    address = f"unix:{tmp_path}/orlop.sock"
    (tmp_path / "orlop.toml").write_text(f'install_path = "{tmp_path}/opt"\n')
    with daemon(tmp_path / "served", "--listen", address, "--config", str(tmp_path / "orlop.toml")):
        yield Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address), tmp_path / "opt"


def test_the_server_says_where_to(served: tuple[Shell, Path], tmp_path: Path) -> None:
    shell, opt = served
    brought(shell, tmp_path, made=PLAIN)
    assert f"path={opt}" in shell.out("plugins", "ls", "-d", "type==io.orlop.opt.v1")
    assert f"{opt}/bin/one" in shell.out("install", "-q", NAME)
    assert tree(opt)["bin/one"] == "1"


def test_where_nobody_says_where_to_it_is_asked_for(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/orlop.sock"
    (tmp_path / "orlop.toml").write_text('install_path = ""\n')
    with daemon(tmp_path / "served", "--listen", address, "--config", str(tmp_path / "orlop.toml")):
        shell = Shell(HOME=str(tmp_path), ORLOP_ADDRESS=address)
        brought(shell, tmp_path, made=PLAIN)
        done = shell.run("install", NAME)
        assert (done.returncode, done.stdout) == (1, "")
        one_line(done.stderr)
        assert "--path" in done.stderr
        assert " skip" in shell.out("plugins", "ls", "type==io.orlop.opt.v1")


def test_the_default_is_a_folder_of_its_own(shell: Shell) -> None:
    (found,) = json.loads(shell.out("plugins", "ls", "--json", "type==io.orlop.opt.v1"))
    assert found["exports"] == {"path": "/opt/orlop"}


# Without privileges


@needs_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_who_may_not_give_files_away_has_them_himself_and_nobody_runs_them_as_him(
    shell: Shell, tmp_path: Path, target: Path
) -> None:
    """In a user namespace that knows one user."""
    brought(shell, tmp_path, layer(file("bin/a", "x", mode=0o6755, uid=1234)))
    command = ["unshare", "--user", "--map-root-user", *CLI, "install", "-q", "--path", str(target), NAME]
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "ORLOP_STORE": str(tmp_path / "store")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    if done.stderr.startswith("unshare: "):
        pytest.skip("no user namespaces here")
    assert done.returncode == 0, done.stderr
    assert "owners are not kept" in done.stderr
    status = (target / "bin" / "a").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o755)
