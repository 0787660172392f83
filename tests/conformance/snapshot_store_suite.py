"""What the record of a snapshot does, whichever snapshotter has its files. Source: spec snapshots 11.3, 11.4, 3.1, 7.

Metadata and files are one store here, so the scenarios of the database (M) and those of the namespaces before it (N)
both go through the public interface: a look-up for mounts is `mounts`, an id is the folder that a mount points to.
No snapshotter here finds a target by itself, and what clients committed is never shared between namespaces.
"""

from __future__ import annotations

from typing import Final

import pytest

import orlop
from orlop.protocol import errors
from orlop.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
)

from ..support.snapshotters import ROOT, Subject, Window, held, paths
from .snapshot_suite import Scenario

SCENARIOS: Final[list[Scenario]] = []

Kind = orlop.SnapshotKind
REF: Final = "containerd.io/snapshot.ref"
POPULATION: Final = {
    "committed-1": (Kind.COMMITTED, ""),
    "committed-2": (Kind.COMMITTED, "committed-1"),
    "active-1": (Kind.ACTIVE, ""),
    "active-2": (Kind.ACTIVE, "committed-1"),
    "active-3": (Kind.ACTIVE, "committed-2"),
    "view-1": (Kind.VIEW, ""),
    "view-2": (Kind.VIEW, "committed-2"),
}


def scenario(run: Scenario) -> Scenario:
    SCENARIOS.append(run)
    return run


async def populate(subject: Subject) -> dict[str, list[orlop.Mount]]:
    """The base population; what each of those that can be mounted was answered."""
    answered = {}
    for name, (kind, parent) in POPULATION.items():
        match kind:
            case Kind.COMMITTED:
                await subject.committed(name, parent)
            case Kind.ACTIVE:
                answered[name] = await subject.prepare(name, parent)
            case Kind.VIEW:
                answered[name] = await subject.view(name, parent)
    return answered


async def unchanged(subject: Subject, before: dict[str, orlop.SnapshotInfo]) -> None:
    assert await subject.infos() == before


# the database (M) -------------------------------------------------------------------------------------------


@scenario
async def m01_info_of_each(subject: Subject) -> None:
    with Window() as window:
        await populate(subject)
    for name, (kind, parent) in POPULATION.items():
        info = await subject.snapshots.get(name)
        assert (info.name, info.kind, info.parent, info.labels) == (name, kind, parent, ROOT)
        assert info.created_at == info.updated_at
        assert info.created_at in window


@scenario
async def m02_info_of_one_that_is_not_there(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await subject.snapshots.get("committed-1")
    await populate(subject)
    with pytest.raises(NotFound):
        await subject.snapshots.get("not-there")


@scenario
async def m03_walk_tells_of_each_once(subject: Subject) -> None:
    assert [info async for info in subject.snapshots.list()] == []
    await populate(subject)
    listed = [info async for info in subject.snapshots.list()]
    assert sorted(info.name for info in listed) == sorted(POPULATION)
    for info in listed:
        assert info == await subject.snapshots.get(info.name)


@scenario
async def m04_mounts_are_those_that_were_answered(subject: Subject) -> None:
    answered = await populate(subject)
    for key, mounts in answered.items():
        assert await subject.snapshots.mounts(key) == mounts
    await subject.snapshots.update("active-3", {"a": "1", **ROOT})
    await subject.committed("later", "committed-2")
    await subject.snapshots.remove("active-2")
    assert await subject.snapshots.mounts("active-3") == answered["active-3"]


@scenario
async def m05_mounts_of_one_that_is_not_there(subject: Subject) -> None:
    await populate(subject)
    with pytest.raises(NotFound):
        await subject.snapshots.mounts("active-not-there")


@scenario
async def m06_mounts_of_a_committed_one(subject: Subject) -> None:
    await populate(subject)
    with pytest.raises(FailedPrecondition):
        await subject.snapshots.mounts("committed-1")


@scenario
async def m07_each_has_a_folder_of_its_own_and_keeps_it_at_commit(subject: Subject) -> None:
    if subject.name == "btrfs":  # a mount names the device; its commit makes another subvolume
        return
    (active,) = paths(await subject.prepare("active-1"))
    (view,) = paths(await subject.view("view-1"))
    await subject.commit("committed-1", "active-1")
    upper, *lower = paths(await subject.prepare("active-3", "committed-1"))
    (seen,) = paths(await subject.view("view-2", "committed-1"))
    assert seen == active
    assert lower in ([], [active])  # a copy has no lower folders
    assert len({active, view, upper}) == 3


@scenario
async def m08_a_key_in_use(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    for key in ("active-1", "committed-1", "view-1"):
        for create in (subject.prepare, subject.view):
            with pytest.raises(AlreadyExists):
                await create(key)
            with pytest.raises(AlreadyExists):
                await create(key, "committed-2")
    await unchanged(subject, before)


@scenario
async def m09_a_parent_that_is_not_there(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    for create in (subject.prepare, subject.view):
        with pytest.raises(NotFound):
            await create("new", "not-there")
    await unchanged(subject, before)


@scenario
async def m10_a_parent_that_is_not_committed(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    for parent in ("active-1", "active-3", "view-1", "view-2"):
        for create in (subject.prepare, subject.view):
            with pytest.raises(InvalidArgument):
                await create("new", parent)
    await unchanged(subject, before)


@scenario
async def m11_commit_keeps_the_parent_and_stores_the_usage(subject: Subject) -> None:
    await populate(subject)
    usage = await subject.snapshots.usage("active-2")
    with Window() as window:
        answered = await subject.commit("committed", "active-2")
    info = await subject.snapshots.get("committed")
    assert info == answered
    assert (info.kind, info.parent, info.labels) == (Kind.COMMITTED, "committed-1", ROOT)
    assert info.created_at == info.updated_at
    assert info.created_at in window
    assert await subject.snapshots.usage("committed") == usage
    with pytest.raises(NotFound):
        await subject.snapshots.get("active-2")


@scenario
async def m12_commit_of_a_key_that_is_not_there(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    with pytest.raises(NotFound):
        await subject.commit("committed", "not-there")
    await unchanged(subject, before)


@scenario
async def m13_commit_to_a_name_in_use(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    for name in ("committed-1", "active-2", "view-1"):
        with pytest.raises(AlreadyExists):
            await subject.commit(name, "active-1")
    await unchanged(subject, before)


@scenario
async def m14_commit_of_a_committed_one(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    with pytest.raises(FailedPrecondition):
        await subject.commit("committed", "committed-1")
    await unchanged(subject, before)


@scenario
async def m15_commit_of_a_view(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    for key in ("view-1", "view-2"):
        with pytest.raises(FailedPrecondition):
            await subject.commit("committed", key)
    await unchanged(subject, before)


@scenario
async def m16_remove_leaf_first(subject: Subject) -> None:
    await populate(subject)
    left = set(POPULATION)
    for name in ("active-1", "active-2", "active-3", "view-1", "view-2", "committed-2", "committed-1"):
        await subject.snapshots.remove(name)
        left.remove(name)
        assert await subject.names() == left


@scenario
async def m17_remove_of_one_that_is_not_there(subject: Subject) -> None:
    await populate(subject)
    with pytest.raises(NotFound):
        await subject.snapshots.remove("not-there")
    assert await subject.names() == set(POPULATION)


@scenario
async def m18_remove_of_one_with_children(subject: Subject) -> None:
    await populate(subject)
    await subject.committed("lonely")
    await subject.view("only-child", "lonely")
    before = await subject.infos()
    for name in ("committed-2", "committed-1", "lonely"):  # an active and a view; an active and a committed; a view
        with pytest.raises(FailedPrecondition, match="remove"):
            await subject.snapshots.remove(name)
    await unchanged(subject, before)


@scenario
async def m19_parents_are_told_nearest_first(subject: Subject) -> None:
    if subject.name != "overlayfs":
        return
    answered = await populate(subject)
    (first,) = paths(await subject.view("of-one", "committed-1"))
    assert [path.name for path in paths(answered["active-1"])] == ["fs"]
    assert paths(answered["active-2"])[1:] == [first]
    second, *more = paths(answered["view-2"])
    assert more == [first]
    assert paths(answered["active-3"])[1:] == [second, first]


@scenario
async def m20_commit_upon_a_parent(subject: Subject) -> None:
    await populate(subject)
    before = await subject.infos()
    if subject.name != "overlayfs":  # without the capability it is refused, rather than ignored
        with pytest.raises((FailedPrecondition, errors.NotImplemented)):
            await subject.commit("committed", "active-1", parent="committed-1")
        await unchanged(subject, before)
        return
    for key, parent, error in [
        ("active-2", "committed-2", InvalidArgument),
        ("active-2", "not-there", OrlopError),
        ("active-1", "not-there", NotFound),
        ("active-1", "active-3", FailedPrecondition),
        ("active-1", "view-1", FailedPrecondition),
    ]:
        with pytest.raises(error):
            await subject.commit("committed", key, parent=parent)
        await unchanged(subject, before)
    for name, key, parent, expected in [
        ("upon-another", "active-1", "committed-2", "committed-2"),
        ("upon-its-own", "active-2", "committed-1", "committed-1"),
        ("as-it-was", "active-3", "", "committed-2"),
    ]:
        assert (await subject.commit(name, key, parent=parent)).parent == expected
        assert (await subject.snapshots.get(name)).parent == expected
    _, *lower = paths(await subject.prepare("child", "upon-another"))
    assert len(lower) == 3
    assert paths(await subject.view("twin", "upon-another")) == lower


# namespaces (N) ---------------------------------------------------------------------------------------------


@scenario
async def n02_every_label_is_in_the_record(subject: Subject) -> None:
    """Which of them a snapshotter is told of does not show."""
    labels = {
        "foo": "bar",
        REF: "t",
        "containerd.io/snapshot.reference": "t",
        "containerd.io/snapshot/diff-id": "sha256:" + "0" * 64,
        "containerd.io/snapshot/anything/at/all": "x",
        "containerd.io/snapshots/x": "y",
        **ROOT,
    }
    await subject.prepare("a", labels={**labels, "empty": ""})
    await subject.view("v", labels={**labels, "empty": ""})
    assert (await subject.snapshots.get("a")).labels == (await subject.snapshots.get("v")).labels == labels
    await subject.snapshots.update("v", {**labels, "foo": ""})
    assert (await subject.snapshots.get("v")).labels == {key: labels[key] for key in labels if key != "foo"}
    await subject.commit("c", "a", {**labels, "empty": ""})
    assert (await subject.snapshots.get("c")).labels == labels
    await subject.prepare("none", labels=ROOT)
    assert (await subject.snapshots.get("none")).labels == ROOT


@scenario
async def n03_a_label_beyond_the_limit(subject: Subject) -> None:
    fits, spoils = {**ROOT, "k": "v" * 4095}, {**ROOT, "k": "v" * 4096}
    await subject.prepare("a", labels=fits)
    before = await subject.infos()
    with pytest.raises(InvalidArgument):
        await subject.prepare("new", labels=spoils)
    with pytest.raises(InvalidArgument):
        await subject.view("new", labels=spoils)
    with pytest.raises(InvalidArgument):
        await subject.commit("new", "a", spoils)
    with pytest.raises(InvalidArgument):
        await subject.snapshots.update("a", spoils)
    with pytest.raises(InvalidArgument):
        await subject.snapshots.update("a", spoils, ["labels.k"])
    with pytest.raises(InvalidArgument):
        await subject.prepare("new", labels={**ROOT, "é" * 2048: "x"})  # bytes, not characters
    await unchanged(subject, before)
    await subject.commit("c", "a", fits)
    assert (await subject.snapshots.get("c")).labels == fits


@scenario
async def n04_one_key_in_two_namespaces(subject: Subject) -> None:
    other = subject.within(f"{subject.store.namespace}-other")
    mine, yours = await subject.prepare("a", labels={**ROOT, "l": "mine"}), await other.prepare("a")
    assert mine != yours
    assert await subject.snapshots.mounts("a") == mine
    assert await other.snapshots.mounts("a") == yours
    await subject.commit("c", "a")
    assert (await other.snapshots.get("a")).labels == ROOT
    assert await other.names() == {"a"}
    await other.snapshots.remove("a")
    assert await subject.names() == {"c"}


@scenario
async def n05_a_parent_in_another_namespace(subject: Subject) -> None:
    other = subject.within(f"{subject.store.namespace}-other")
    await subject.committed("c")
    for create in (other.prepare, other.view):
        with pytest.raises(NotFound):
            await create("a", "c")
    for call in (other.snapshots.get, other.snapshots.usage, other.snapshots.mounts, other.snapshots.remove):
        with pytest.raises(NotFound):
            await call("c")
    assert await other.names() == set()


@scenario
async def n07_a_reference_to_a_target(subject: Subject) -> None:
    """7.3, where nothing is shared: in each namespace the target is there when it was committed there."""
    base = subject.store.namespace
    one, two, three = (subject.within(f"{base}-{number}") for number in (1, 2, 3))
    ref = {REF: "t1", **ROOT}
    await one.prepare("preparing t1", labels=ref)
    await one.commit("t1", "preparing t1", ref)
    assert (await one.snapshots.get("t1")).labels == ref

    await two.store.leases.create("l")
    await two.committed("base")
    leased = two.leased("l")
    await leased.prepare("k", "", ref)  # another namespace's is not taken over
    assert (await two.snapshots.get("k")).labels == ref
    assert await held(two.store, "l") == [(f"snapshots/{subject.name}", "k")]
    await leased.commit("t1", "k", ref)
    await two.store.leases.create("again")
    for key, parent in [("k", ""), ("k2", "base"), ("k3", "not-there"), ("t1", "")]:  # the parent is not compared
        with pytest.raises(AlreadyExists):
            await two.leased("again").prepare(key, parent, ref)
        with pytest.raises(AlreadyExists):
            await two.leased("again").view(key, parent, ref)
    assert await two.names() == {"base", "t1"}
    assert await held(two.store, "again") == [(f"snapshots/{subject.name}", "t1")]

    await three.committed("own")
    await three.prepare("k", "own", ref)
    assert (await three.snapshots.get("k")).kind == Kind.ACTIVE
    await three.store.leases.create("l")
    with pytest.raises(NotFound):
        await three.leased("l").prepare("k2", "not-there", {REF: "t2", **ROOT})
    assert await held(three.store, "l") == []

    await one.snapshots.remove("t1")
    await subject.store.collect()
    assert (await two.snapshots.get("t1")).labels == ref
    await two.prepare("upon", "t1")


@scenario
async def n08_a_snapshotter_that_refuses_leaves_no_record(subject: Subject) -> None:
    if subject.name == "btrfs":
        return
    await subject.store.leases.create("l")
    for create in (subject.leased("l").prepare, subject.leased("l").view):
        with pytest.raises(OrlopError):
            await create("a", "", {"containerd.io/snapshot/uidmapping": "0:abc:1", **ROOT})
    assert await subject.names() == set()
    assert await held(subject.store, "l") == []
