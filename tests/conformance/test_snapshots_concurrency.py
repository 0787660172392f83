"""Several calls at one time, and calls that are cancelled: each is done or not done, and no folder is left over.

Source: spec snapshots 13, cases 42 to 44; 11.4, N9; RELIABILITY 3.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from orlop.protocol.errors import AlreadyExists, FailedPrecondition, NotFound
from tests.support.outcomes import outcome

from ..support.snapshotters import ROOT, Subject, held, kinds, paths
from ..support.trees import apply, make_file, make_folder
from .test_cancellation import MOST_STEPS, CancelBefore, every_step

CALLERS = 12


async def together(*calls: Awaitable[object]) -> Counter[str]:
    """How often each outcome was had."""
    outcomes: list[str] = []

    async def one(call: Awaitable[object]) -> None:
        outcomes.append(await due(call))

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call)
    return Counter(outcomes)


async def amid(
    step: int, first: Callable[[], Awaitable[object]], second: Callable[[], Awaitable[object]]
) -> tuple[list[str], bool]:
    """The outcomes of both, the second begun before the first's step of that number; whether there was such a step."""
    begin = trio.Event()
    outcomes, fired = ["", ""], False

    async def one() -> None:
        nonlocal fired
        instrument = CancelBefore(Signal(begin), step)
        trio.lowlevel.add_instrument(instrument)
        try:
            outcomes[0] = await due(first())
        finally:
            trio.lowlevel.remove_instrument(instrument)
            fired = instrument.fired
            begin.set()

    async def other() -> None:
        await begin.wait()
        outcomes[1] = await due(second())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(other)
    return outcomes, fired


class Signal:
    """In the place of a scope: nothing is cancelled, an event comes."""

    def __init__(self, event: trio.Event) -> None:
        self.cancel = event.set


async def due(call: Awaitable[object]) -> str:
    try:
        await call
    except (AlreadyExists, NotFound, FailedPrecondition) as error:  # no other is due
        return type(error).__name__
    return "ok"


async def nothing_over(subject: Subject) -> None:
    """Each snapshot has a folder, as long as none is a view; and there is no other."""
    await subject.store.collect()
    await subject.snapshots.cleanup()
    everywhere = [subject.within(space.name) async for space in subject.store.namespaces.list()]
    snapshots = [name for there in everywhere for name in await there.names()]
    if subject.name != "btrfs":
        assert len(subject.folders()) == len(snapshots), (subject.folders(), snapshots)


async def test_of_many_prepares_with_one_key_one_succeeds(subject: Subject) -> None:
    """42"""
    await subject.committed("c")
    found = await together(*(subject.prepare("k", "c" if n % 2 else "") for n in range(CALLERS)))
    assert found == {"ok": 1, "AlreadyExists": CALLERS - 1}
    await nothing_over(subject)
    assert await subject.names() == {"c", "k"}


async def test_of_many_commits_to_one_name_one_succeeds(subject: Subject) -> None:
    """43"""
    keys = [f"a{number}" for number in range(CALLERS)]
    for key in keys:
        await subject.prepare(key, labels={"from": key, **ROOT})
    found = await together(*(subject.commit("c", key, {"from": key, **ROOT}) for key in keys))
    assert found == {"ok": 1, "AlreadyExists": CALLERS - 1}
    left = await kinds(subject.snapshots)
    winner = (await subject.snapshots.get("c")).labels["from"]
    assert left == {"c": "COMMITTED", **{key: "ACTIVE" for key in keys if key != winner}}
    for key in set(keys) - {winner}:
        await subject.snapshots.mounts(key)
    await nothing_over(subject)


async def test_of_many_commits_of_one_key_one_succeeds(subject: Subject) -> None:
    await subject.prepare("a")
    found = await together(*(subject.commit(f"c{number}", "a") for number in range(CALLERS)))
    assert found == {"ok": 1, "NotFound": CALLERS - 1}
    assert len(await subject.names()) == 1
    await nothing_over(subject)


async def test_of_many_removals_of_one_key_one_succeeds(subject: Subject) -> None:
    await subject.prepare("a")
    found = await together(*(subject.snapshots.remove("a") for _ in range(CALLERS)))
    assert found == {"ok": 1, "NotFound": CALLERS - 1}
    await nothing_over(subject)


@pytest.mark.parametrize("what", ["commit", "usage"])
async def test_what_is_measured_while_it_is_removed_is_measured_or_not_found(subject: Subject, what: str) -> None:
    """Many at once, so that some are late."""
    keys = [f"a{number}" for number in range(3 * CALLERS)]
    for key in keys:
        await subject.prepare(key)
    measuring = [subject.snapshots.usage(key) if what == "usage" else subject.commit(f"c-{key}", key) for key in keys]
    removing = [subject.snapshots.remove(key) for key in keys]
    found = await together(*(call for pair in zip(measuring, removing, strict=True) for call in pair))
    assert set(found) <= {"ok", "NotFound"}
    assert found["ok"] >= len(keys)
    if what == "commit":
        assert found == {"ok": len(keys), "NotFound": len(keys)}
    await nothing_over(subject)


@pytest.mark.parametrize(
    "first,second",
    [
        ("commit", "remove"),
        ("commit", "remove and clean up"),
        ("usage", "remove and clean up"),
        ("remove", "commit"),
        ("remove", "prepare upon"),
        ("prepare upon", "remove"),
        ("prepare upon", "remove and clean up"),
    ],
)
async def test_one_call_may_come_amid_another_at_any_of_its_steps(plain: Subject, first: str, second: str) -> None:
    """Of an active; of a committed one where a child is made. Each is done, or refused for what the other did."""

    async def remove_and_clean_up() -> None:
        await plain.snapshots.remove("it")
        await plain.snapshots.cleanup()

    calls = {
        "commit": lambda: plain.commit("c", "it"),
        "usage": lambda: plain.snapshots.usage("it"),
        "remove": lambda: plain.snapshots.remove("it"),
        "remove and clean up": remove_and_clean_up,
        "prepare upon": lambda: plain.prepare("child", "it"),
    }
    for step in range(MOST_STEPS):
        await plain.prepare("it")
        if "prepare upon" in (first, second):
            await plain.commit("committed", "it")  # an id that is not the first
            await plain.snapshots.remove("committed")
            await plain.committed("it")
        found, fired = await amid(step, calls[first], calls[second])
        assert "ok" in found, found
        for name in ("child", "c", "it"):
            assert await outcome(plain.snapshots.remove(name)) in ("ok", "NotFound")
        if not fired:
            break
    await nothing_over(plain)
    assert await plain.names() == set()


async def test_a_parent_is_not_removed_under_a_child_that_is_being_made(subject: Subject) -> None:
    for number in range(CALLERS):
        await subject.committed("p")
        made: list[str] = []

        async def make(number: int = number, made: list[str] = made) -> None:
            made.append(await outcome(subject.prepare(f"a{number}", "p")))

        removed = await together(make(), subject.snapshots.remove("p"))
        if made == ["ok"]:
            assert removed == {"ok": 1, "FailedPrecondition": 1}
            assert (await subject.snapshots.get(f"a{number}")).parent == "p"
            await subject.snapshots.remove(f"a{number}")
            await subject.snapshots.remove("p")
        else:
            assert made == ["NotFound"]
            assert removed == {"ok": 2}
    assert await subject.names() == set()
    await nothing_over(subject)


async def test_a_lease_that_ends_while_a_snapshot_is_made_leaves_none_or_a_collectable_one(subject: Subject) -> None:
    """N9: the record may be refused after the folder was made."""
    for number in range(CALLERS):
        await subject.store.leases.create("l")
        leased = subject.leased("l")
        found = await together(leased.prepare(f"a{number}", "", {}), subject.store.leases.delete("l"))
        assert found in ({"ok": 2}, {"ok": 1, "NotFound": 1})
    await nothing_over(subject)
    assert await subject.names() == set()


async def test_a_collection_takes_nothing_that_is_being_made_under_a_lease(subject: Subject) -> None:
    """44"""
    await subject.store.leases.create("l")
    leased = subject.leased("l")

    async def make(number: int) -> None:
        await leased.prepare(f"k{number}")
        await leased.commit(f"c{number}", f"k{number}")
        mounts = await leased.prepare(f"a{number}", f"c{number}")
        assert await leased.mounts(f"a{number}") == mounts

    async def collect() -> None:
        for _ in range(6):
            await subject.store.collect()

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(make, number)
        nursery.start_soon(collect)
        nursery.start_soon(collect)
    numbers = range(CALLERS)
    assert await subject.names() == {f"a{number}" for number in numbers} | {f"c{number}" for number in numbers}
    assert len(await held(subject.store, "l")) == 2 * CALLERS
    if subject.name != "btrfs":
        for number in numbers:
            assert all(path.is_dir() for path in paths(await leased.mounts(f"a{number}")))
    await nothing_over(subject)


async def test_snapshots_come_and_go_in_many_namespaces_amid_collections(subject: Subject) -> None:
    async def come_and_go(number: int) -> None:
        there = subject.within(f"ns{number % 4}")
        for turn in range(4):
            await there.committed(f"c{number}-{turn}", f"c{number}-{turn - 1}" if turn else "")
            mounts = await there.prepare(f"a{number}-{turn}", f"c{number}-{turn}")
            assert await there.snapshots.mounts(f"a{number}-{turn}") == mounts
            await there.snapshots.remove(f"a{number}-{turn}")
        await there.snapshots.remove(f"c{number}-3")
        with pytest.raises(NotFound):
            await there.prepare(f"a{number}", f"c{number}-3")

    async def collect() -> None:
        for _ in range(4):
            await subject.store.collect()
            await subject.snapshots.cleanup()

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(come_and_go, number)
        nursery.start_soon(collect)
    await nothing_over(subject)
    for space in range(4):
        there = subject.within(f"ns{space}")
        assert await there.names() == {f"c{n}-{turn}" for n in range(space, CALLERS, 4) for turn in range(3)}


# cancellation -----------------------------------------------------------------------------------------------


async def test_a_prepare_may_be_cancelled_anywhere(subject: Subject) -> None:
    await subject.prepare("base")
    if subject.name != "btrfs":
        (folder,) = paths(await subject.snapshots.mounts("base"))
        apply(folder, [make_folder("d"), *(make_file(f"d/f{number}", b"data") for number in range(20))])
    await subject.commit("c", "base")

    async def call(step: int) -> None:
        await subject.prepare(f"a{step}", "c")

    async def look(step: int) -> None:
        kind = (await kinds(subject.snapshots)).get(f"a{step}")
        assert kind in (None, "ACTIVE")
        with trio.fail_after(5):  # over a socket it may still come about: then it stays
            assert await outcome(subject.prepare(f"a{step}", "c")) in ("ok", "AlreadyExists")
        mounts = await subject.snapshots.mounts(f"a{step}")
        if subject.name == "native":
            assert len(list(paths(mounts)[0].rglob("*"))) == 21

    await every_step(call, look)
    await nothing_over(subject)


async def test_a_commit_may_be_cancelled_anywhere(subject: Subject) -> None:
    async def call(step: int) -> None:
        await subject.commit(f"c{step}", f"a{step}")

    async def look(step: int) -> None:
        assert await outcome(subject.commit(f"c{step}", f"a{step}")) in ("ok", "AlreadyExists")
        assert await outcome(subject.snapshots.get(f"a{step}")) == "NotFound"
        assert (await subject.snapshots.get(f"c{step}")).kind.name == "COMMITTED"
        await subject.prepare(f"a{step + 1}")

    await subject.prepare("a0")
    await every_step(call, look)
    await nothing_over(subject)


@pytest.mark.parametrize("what", ["remove", "cleanup", "collect"])
async def test_what_takes_away_may_be_cancelled_anywhere(subject: Subject, what: str) -> None:
    async def call(step: int) -> None:
        await subject.prepare(f"a{step}")
        await subject.prepare(f"b{step}")
        await subject.snapshots.remove(f"b{step}")
        await {
            "remove": partial(subject.snapshots.remove, f"a{step}"),
            "cleanup": subject.snapshots.cleanup,
            "collect": subject.store.collect,
        }[what]()

    async def look(step: int) -> None:
        assert await subject.names() <= {f"a{n}" for n in range(step + 1)} | {f"b{step}"}
        for key in (f"a{step}", f"b{step}"):
            assert await outcome(subject.snapshots.remove(key)) in ("ok", "NotFound")

    await every_step(call, look)
    await nothing_over(subject)
    assert await subject.names() == set()
