"""The edges of single calls: what is refused, what stays as it was, and what is told of it.

Source: spec snapshots 13, whose numbers the tests name, and 2. All is made under a lease: no collection takes any.
"""

from __future__ import annotations

import pytest

import orlop
from orlop.protocol import errors
from orlop.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from tests.support.outcomes import outcome

from ..support.snapshotters import Snapshots, Subject, held, kinds, paths

REF = "containerd.io/snapshot.ref"


async def commit_one(snapshots: Snapshots, name: str, parent: str = "") -> orlop.SnapshotInfo:
    await snapshots.prepare(f"{name}-active", parent)
    return await snapshots.commit(name, f"{name}-active")


# prepare, view and commit -----------------------------------------------------------------------------------


async def test_an_active_is_no_parent(snapshots: Snapshots) -> None:
    """1"""
    await snapshots.prepare("a")
    for create in (snapshots.prepare, snapshots.view):
        with pytest.raises(InvalidArgument):
            await create("x", "a")
    with pytest.raises(NotFound):
        await snapshots.get("x")


async def test_a_view_is_no_parent(snapshots: Snapshots) -> None:
    """2"""
    await snapshots.view("v")
    for create in (snapshots.prepare, snapshots.view):
        with pytest.raises(InvalidArgument):
            await create("x", "v")
    with pytest.raises(NotFound):
        await snapshots.get("x")


async def test_commit_does_not_inherit_labels(snapshots: Snapshots) -> None:
    """3"""
    await snapshots.prepare("a", labels={"k": "v"})
    assert (await snapshots.commit("c", "a")).labels == {}
    assert (await snapshots.get("c")).labels == {}
    await snapshots.prepare("a", labels={"k": "v", "l": "w"})
    await snapshots.commit("d", "a", {"l": "x"})
    assert (await snapshots.get("d")).labels == {"l": "x"}


async def test_commit_of_a_key_to_itself_is_refused(snapshots: Snapshots) -> None:
    """4"""
    await snapshots.prepare("a")
    with pytest.raises(AlreadyExists):
        await snapshots.commit("a", "a")
    assert await kinds(snapshots) == {"a": "ACTIVE"}


async def test_commit_looks_at_the_name_before_the_key(snapshots: Snapshots) -> None:
    """5"""
    await commit_one(snapshots, "c")
    with pytest.raises(AlreadyExists):
        await snapshots.commit("c", "zz")


async def test_commit_of_a_view_is_refused(snapshots: Snapshots) -> None:
    """6"""
    await snapshots.view("v")
    before = await snapshots.get("v")
    with pytest.raises(FailedPrecondition):
        await snapshots.commit("c", "v")
    assert [info async for info in snapshots.list()] == [before]


async def test_a_committed_one_has_no_mounts(snapshots: Snapshots) -> None:
    """7"""
    await commit_one(snapshots, "c")
    with pytest.raises(FailedPrecondition):
        await snapshots.mounts("c")


async def test_what_is_not_there_is_not_found(snapshots: Snapshots, subject: Subject) -> None:
    """8"""
    await subject.within("other").prepare("zz")
    for call in (snapshots.mounts, snapshots.get, snapshots.usage, snapshots.remove):
        with pytest.raises(NotFound, match="zz"):
            await call("zz")
    with pytest.raises(NotFound, match="zz"):
        await snapshots.update("zz", {"a": "1"})
    with pytest.raises(NotFound, match="zz"):
        await snapshots.commit("c", "zz")


async def test_a_commit_frees_its_key_and_takes_its_name(snapshots: Snapshots) -> None:
    await snapshots.prepare("a")
    await snapshots.commit("c", "a")
    await snapshots.view("a", "c")
    with pytest.raises(AlreadyExists):
        await snapshots.prepare("c")
    assert await kinds(snapshots) == {"a": "VIEW", "c": "COMMITTED"}


async def test_a_failed_commit_leaves_the_active_as_it_was(snapshots: Snapshots, subject: Subject) -> None:
    await commit_one(snapshots, "c")
    mounts = await snapshots.prepare("a", "c", {"k": "v"})
    before, folders = await snapshots.get("a"), subject.folders()
    assert await outcome(snapshots.commit("c", "a")) == "AlreadyExists"
    assert await outcome(snapshots.commit("d", "a", {"k": "v" * 4096})) == "InvalidArgument"
    assert await outcome(snapshots.commit("", "a")) == "InvalidArgument"
    assert await snapshots.get("a") == before
    assert await snapshots.mounts("a") == mounts
    assert subject.folders() == folders


async def test_commit_upon_another_than_its_own_parent_is_refused(snapshots: Snapshots, subject: Subject) -> None:
    """46"""
    await commit_one(snapshots, "p")
    await commit_one(snapshots, "q")
    mounts = await snapshots.prepare("a", "p")
    refusals = (
        InvalidArgument if subject.name == "overlayfs" else (InvalidArgument, FailedPrecondition, errors.NotImplemented)
    )
    with pytest.raises(refusals):
        await snapshots.commit("c", "a", parent="q")
    assert await snapshots.mounts("a") == mounts
    assert (await snapshots.commit("c", "a")).parent == "p"


async def test_commit_upon_a_parent_makes_a_child_of_it(snapshots: Snapshots, subject: Subject) -> None:
    """47"""
    await commit_one(snapshots, "p")
    await snapshots.prepare("a")
    if subject.name != "overlayfs":
        with pytest.raises((FailedPrecondition, errors.NotImplemented)):
            await snapshots.commit("c", "a", parent="p")
        await snapshots.remove("p")
        return
    await snapshots.commit("c", "a", parent="p")
    assert (await snapshots.get("c")).parent == "p"
    with pytest.raises(FailedPrecondition):
        await snapshots.remove("p")


# labels -----------------------------------------------------------------------------------------------------


async def test_a_label_may_have_4096_bytes_and_no_more(snapshots: Snapshots) -> None:
    """13"""
    await snapshots.prepare("a", labels={"k": "v" * 4095})
    for create in (snapshots.prepare, snapshots.view):
        with pytest.raises(InvalidArgument):
            await create("x", labels={"k": "v" * 4096})
    assert (await snapshots.get("a")).labels == {"k": "v" * 4095}
    assert await kinds(snapshots) == {"a": "ACTIVE"}


async def test_there_may_be_many_labels(snapshots: Snapshots) -> None:
    labels = {f"label-{number}": "x" * 1000 for number in range(100)}
    await snapshots.prepare("a", labels=labels)
    assert (await snapshots.get("a")).labels == labels


async def test_an_update_removes_a_label_that_the_mask_names_and_the_input_has_not(snapshots: Snapshots) -> None:
    """20"""
    await snapshots.prepare("a", labels={"x": "1", "y": "2", "z": "3"})
    before = await snapshots.get("a")
    after = await snapshots.update("a", {"y": "9", "z": ""}, ["labels.x", "labels.z"])
    assert after.labels == {"y": "2"}
    assert after.created_at == before.created_at
    assert after.updated_at > before.updated_at
    assert await snapshots.get("a") == after


async def test_an_update_of_anything_but_labels_is_refused_whole(snapshots: Snapshots) -> None:
    """21"""
    await snapshots.prepare("a", labels={"a": "1"})
    before = await snapshots.get("a")
    for path in ("kind", "parent", "name", "created_at", "updated_at", "snapshotter", "label", "*", ""):
        with pytest.raises(InvalidArgument):
            await snapshots.update("a", {"a": "2"}, ["labels.a", path])
        assert await snapshots.get("a") == before


async def test_an_update_without_a_mask_replaces_the_labels_and_nothing_else(snapshots: Snapshots) -> None:
    """22"""
    await commit_one(snapshots, "p")
    await snapshots.prepare("a", "p", {"x": "1", "y": "2"})
    before = await snapshots.get("a")
    after = await snapshots.update("a", {"y": "3", "e": ""})
    assert after.labels == {"y": "3"}
    assert (after.parent, after.kind, after.name, after.created_at) == ("p", before.kind, "a", before.created_at)


async def test_an_update_goes_for_every_kind(snapshots: Snapshots) -> None:
    await commit_one(snapshots, "c")
    await snapshots.prepare("a", "c")
    await snapshots.view("v", "c")
    for name in ("a", "c", "v"):
        assert (await snapshots.update(name, {"of": name})).labels == {"of": name}
    assert await kinds(snapshots) == {"a": "ACTIVE", "c": "COMMITTED", "v": "VIEW"}


# targets ----------------------------------------------------------------------------------------------------


async def test_a_target_that_is_there_is_told_before_the_parent_is_looked_at(snapshots: Snapshots) -> None:
    """14"""
    await commit_one(snapshots, "t")
    with pytest.raises(AlreadyExists):
        await snapshots.prepare("k", "not-there", {REF: "t"})
    with pytest.raises(NotFound):
        await snapshots.get("k")


async def test_a_target_that_is_not_there_is_built_once(snapshots: Snapshots) -> None:
    """15"""
    await snapshots.prepare("k", labels={REF: "t"})
    assert (await snapshots.get("k")).labels == {REF: "t"}
    await snapshots.commit("t", "k", {REF: "t"})
    with pytest.raises(AlreadyExists):
        await snapshots.prepare("k", labels={REF: "t"})
    assert await kinds(snapshots) == {"t": "COMMITTED"}


# remove -----------------------------------------------------------------------------------------------------


async def test_a_parent_whose_only_child_is_a_view_is_not_removed(snapshots: Snapshots) -> None:
    """9"""
    await commit_one(snapshots, "c")
    await snapshots.view("v", "c")
    with pytest.raises(FailedPrecondition):
        await snapshots.remove("c")
    await snapshots.remove("v")
    await snapshots.remove("c")
    assert await kinds(snapshots) == {}


async def test_a_parent_of_a_committed_one_is_not_removed(snapshots: Snapshots) -> None:
    """10"""
    await commit_one(snapshots, "c1")
    await commit_one(snapshots, "c2", "c1")
    with pytest.raises(FailedPrecondition, match="remove"):
        await snapshots.remove("c1")
    assert await kinds(snapshots) == {"c1": "COMMITTED", "c2": "COMMITTED"}


async def test_what_is_removed_twice_is_not_found_the_second_time(snapshots: Snapshots) -> None:
    """50"""
    await snapshots.prepare("a")
    await snapshots.remove("a")
    with pytest.raises(NotFound):
        await snapshots.remove("a")


async def test_a_parent_in_another_namespace_is_not_found(snapshots: Snapshots, subject: Subject) -> None:
    """11"""
    await commit_one(snapshots, "c")
    other = subject.within("other")
    for create in (other.prepare, other.view):
        with pytest.raises(NotFound):
            await create("a", "c")


# keys and names ---------------------------------------------------------------------------------------------


async def test_an_empty_key_or_name_is_refused(snapshots: Snapshots) -> None:
    """41"""
    await snapshots.prepare("a")
    for call in (
        lambda: snapshots.prepare(""),
        lambda: snapshots.view(""),
        lambda: snapshots.commit("", "a"),
        lambda: snapshots.update("", {}),
    ):
        with pytest.raises(InvalidArgument):
            await call()
    for call in (lambda: snapshots.get(""), lambda: snapshots.remove(""), lambda: snapshots.mounts("")):
        with pytest.raises((InvalidArgument, NotFound)):
            await call()
    assert await kinds(snapshots) == {"a": "ACTIVE"}


KEYS = ("a\n/" + "k" * 297, "../../etc", "/etc/passwd", "..", " a  b ", "a\x00b", "牛 🚢 é \uffff", "k" * 400)


async def test_any_text_is_a_key_and_a_name(snapshots: Snapshots) -> None:
    """40; the longest: test_snapshots_hostile.py"""
    for key in KEYS:
        name = f"{key[:-1]}!"
        mounts = await snapshots.prepare(key)
        info = await snapshots.get(key)
        assert info.name == key
        assert await snapshots.mounts(key) == mounts
        assert [info async for info in snapshots.list()] == [info]
        await snapshots.commit(name, key)
        await snapshots.view(key, name)
        assert (await snapshots.get(key)).parent == name
        await snapshots.remove(key)
        await snapshots.remove(name)
        assert await kinds(snapshots) == {}


async def test_a_key_of_more_than_512_bytes_is_refused(snapshots: Snapshots) -> None:
    await snapshots.prepare("a")
    for key in ("k" * 513, "é" * 256 + "k"):
        assert await outcome(snapshots.prepare(key)) == "InvalidArgument"
        assert await outcome(snapshots.view(key)) == "InvalidArgument"
        assert await outcome(snapshots.commit(key, "a")) == "InvalidArgument"
    assert await kinds(snapshots) == {"a": "ACTIVE"}


async def test_no_key_is_a_path(snapshots: Snapshots, subject: Subject) -> None:
    """39"""
    await snapshots.prepare("first")
    beside = set(subject.folder.parent.iterdir())
    for key in ("../../etc", "../upwards", "x/y/downwards", "."):
        mounts = await snapshots.prepare(key)
        if subject.name != "btrfs":
            assert all(subject.root in path.resolve().parents for path in paths(mounts))
    assert set(subject.folder.parent.iterdir()) == beside
    assert {"etc", "upwards", "x", "y", "downwards"}.isdisjoint(path.name for path in subject.folder.rglob("*"))


# leases ----------------------------------------------------------------------------------------------------


async def test_a_lease_that_is_not_there_lets_nothing_be_made(subject: Subject) -> None:
    """17"""
    await subject.prepare("a")
    folders = subject.folders()
    lost = subject.leased("not-there")
    for call in (lost.prepare("x"), lost.view("x"), lost.commit("c", "a")):
        with pytest.raises(NotFound):
            await call
    await subject.store.collect()
    await subject.snapshots.cleanup()
    assert await kinds(subject.snapshots) == {"a": "ACTIVE"}
    assert subject.folders() == folders


async def test_a_key_that_is_there_joins_the_lease(snapshots: Snapshots, subject: Subject) -> None:
    """16"""
    await commit_one(snapshots, "c")
    await snapshots.prepare("k", "c")
    await subject.store.leases.create("l")
    leased = subject.leased("l")
    for refused in (leased.prepare("k"), leased.commit("c", "k"), leased.view("c"), leased.prepare("x", "none")):
        assert await outcome(refused) in ("AlreadyExists", "NotFound")
    kind = f"snapshots/{subject.name}"
    assert await held(subject.store, "l") == [(kind, "c"), (kind, "k")]
