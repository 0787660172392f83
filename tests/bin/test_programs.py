"""Programs of others as the seam runs them: real ones, that obey and that do not."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from orlop.bin.world import real_world
from orlop.protocol.world import Finished
from tests.support.programs import Programs, is_running, written

PATIENCE_S = 20.0
KEEP_BYTES = 1000
LONG = 3600  # seconds that nobody here waits
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs.below(tmp_path)


async def run(*command: str, data: bytes = b"") -> Finished:
    with trio.fail_after(PATIENCE_S):
        return await real_world().programs.run(command, data, KEEP_BYTES)


async def test_what_it_is_given_and_what_it_says(programs: Programs) -> None:
    path = programs.add("one", 'cat; printf "[%s]" "$@"; echo oops >&2; exit 3')
    finished = await run(path, "a b", "*", data=b"given\n")
    assert finished == Finished(3, b"given\n[a b][*]", b"oops\n")


async def test_it_has_our_environment(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORLOP_TEST_WORD", "inherited")
    assert (await run(programs.add("one", "echo $ORLOP_TEST_WORD"))).out == b"inherited\n"


@linux
async def test_it_has_none_of_our_descriptors(programs: Programs, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        os.set_inheritable(fd, True)
        held = (await run(programs.add("one", "readlink /proc/$$/fd/*"))).out.decode().splitlines()
    finally:
        os.close(fd)
    assert held
    assert str(tmp_path) not in held


@linux
async def test_it_has_a_session_of_its_own(programs: Programs) -> None:
    """No terminal of ours reaches it, neither its keys nor its hanging up."""
    numbers = (await run(programs.add("one", "cut -d' ' -f1,5,6 /proc/$$/stat"))).out.split()
    assert len(numbers) == 3  # its own, its group's, its session's
    assert len(set(numbers)) == 1


async def test_a_signal_is_a_negative_code(programs: Programs) -> None:
    assert (await run(programs.add("one", "kill -TERM $$"))).code == -signal.SIGTERM


@pytest.mark.parametrize("count, cut", [(KEEP_BYTES, False), (KEEP_BYTES + 1, True), (1 << 20, True)])
async def test_of_its_output_only_the_beginning_is_kept(programs: Programs, count: int, cut: bool) -> None:
    """And it is read to its end all the same: the program neither waits nor hears of a broken pipe."""
    body = f"head -c {count} /dev/zero && head -c {count} /dev/zero >&2 && echo whole > $NOTES/end"
    finished = await run(programs.add("one", body))
    assert finished == Finished(0, bytes(KEEP_BYTES), bytes(KEEP_BYTES), cut)
    assert programs.noted("end") == "whole\n"


@pytest.mark.parametrize("body", ["exec 0<&-", "exit 0", "sleep 0.1"], ids=["closes", "ends", "ignores"])
@pytest.mark.parametrize("count", [10, 1 << 20])
async def test_it_need_not_read_what_it_is_given(programs: Programs, body: str, count: int) -> None:
    assert (await run(programs.add("one", body), data=bytes(count))).code == 0


@pytest.mark.parametrize(
    "interpreter, kind", [("/nowhere/at/all", FileNotFoundError), ("", OSError), ("/", PermissionError)]
)
async def test_what_cannot_be_run_is_an_error(programs: Programs, interpreter: str, kind: type[OSError]) -> None:
    path = programs.add("one", "", interpreter=interpreter)
    with pytest.raises(kind):
        await run(path)
    with pytest.raises(FileNotFoundError):
        await run(f"{path}-not")
    Path(path).chmod(0o644)
    with pytest.raises(PermissionError):
        await run(path)


@linux
async def test_what_it_leaves_behind_is_neither_waited_for_nor_left(programs: Programs) -> None:
    finished = await run(programs.add("one", f"sleep {LONG} & echo $! > $NOTES/pid; echo said"))
    assert (finished.code, finished.out) == (0, b"said\n")
    assert not is_running(int(programs.noted("pid")))


@linux
async def test_nor_is_what_has_a_group_of_its_own(programs: Programs) -> None:
    """As timeout(1) makes one for itself and whom it runs."""
    inner = f"sh -c 'echo $$ > $NOTES/pid; exec sleep {LONG}'"
    body = f"timeout {LONG} {inner} & while ! test -s $NOTES/pid; do :; done; cut -d' ' -f5 /proc/$!/stat; echo $$"
    finished = await run(programs.add("one", body))
    group, leader = finished.out.split()
    assert group != leader
    assert not is_running(int(programs.noted("pid")))
    assert not is_running(int(group))


@linux
async def test_who_left_its_session_is_not_waited_for(programs: Programs) -> None:
    """That one is not ours to end any more; it holds the pipes open."""
    body = f"setsid sh -c 'echo $$ > $NOTES/pid; exec sleep {LONG}' & while ! test -s $NOTES/pid; do :; done; echo said"
    finished = await run(programs.add("one", body))
    pid = int(programs.noted("pid"))
    try:
        assert (finished.code, finished.out) == (0, b"said\n")
        assert is_running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


@linux
@pytest.mark.parametrize("before", ["", "trap '' TERM INT HUP;"], ids=["plain", "stubborn"])
async def test_a_cancelled_one_has_ended_with_its_children(programs: Programs, before: str) -> None:
    body = f"{before} sleep {LONG} & echo $$ > $NOTES/own; echo $! > $NOTES/child; wait; sleep {LONG}"
    path = programs.add("one", body)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, path)
        own, child = [int(await written(programs.notes / name)) for name in ("own", "child")]
        assert is_running(own)
        assert is_running(child)
        nursery.cancel_scope.cancel()
    assert not Path(f"/proc/{own}").exists()
    assert not is_running(child)


@linux
async def test_one_that_writes_for_ever_can_be_cancelled(programs: Programs) -> None:
    path = programs.add("one", "echo $$ > $NOTES/own; exec cat /dev/zero")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, path)
        own = int(await written(programs.notes / "own"))
        nursery.cancel_scope.cancel()
    assert not Path(f"/proc/{own}").exists()


@linux
async def test_a_code_that_nobody_can_tell_is_not_taken_for_0(programs: Programs) -> None:
    """Where SIGCHLD is ignored, as some who start daemons leave it, the kernel keeps no codes."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for body in ("exit 1", "sleep 0.1; exit 1"):
            with pytest.raises(ChildProcessError):
                await run(programs.add("one", body))
    finally:
        signal.signal(signal.SIGCHLD, before)
