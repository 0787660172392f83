"""What keeps a snapshot, and what of it goes with a collection. Source: spec snapshots 3, 6.6, 6.7; 13; spec gc 3 to 5.

What must go is made under a lease called `scaffold`, because the collector may run at any moment.
"""

from __future__ import annotations

import pytest

import orlop
from orlop.protocol.errors import FailedPrecondition, NotFound
from tests.support.outcomes import outcome

from ..support.snapshotters import ROOT, Snapshots, Subject, held, journal, kinds, paths

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


async def commit_one(snapshots: Snapshots, name: str, parent: str = "", **labels: str) -> None:
    await snapshots.prepare(f"{name}-active", parent)
    await snapshots.commit(name, f"{name}-active", labels)


async def survivors(subject: Subject) -> set[str]:
    """Once the scaffold is taken away."""
    await subject.store.leases.delete("scaffold", sync=True)
    await subject.store.collect()
    return await subject.names()


async def test_nothing_keeps_a_snapshot_that_has_no_root_no_lease_and_no_reference(
    snapshots: Snapshots, subject: Subject
) -> None:
    await commit_one(snapshots, "c")
    await snapshots.prepare("a", "c")
    await snapshots.view("v", "c")
    await snapshots.prepare("emptied", labels={"containerd.io/gc.root": ""})
    assert await survivors(subject) == set()


async def test_a_root_keeps_itself_and_its_parents(snapshots: Snapshots, subject: Subject) -> None:
    for kept in ("a", "v"):
        await commit_one(snapshots, f"c1-{kept}")
        await commit_one(snapshots, f"c2-{kept}", f"c1-{kept}")
        await commit_one(snapshots, f"other-{kept}", f"c1-{kept}")
    await snapshots.prepare("a", "c2-a", {"containerd.io/gc.root": "any"})
    await snapshots.view("v", "c2-v", {"containerd.io/gc.root": "value"})
    assert await survivors(subject) == {"a", "c1-a", "c2-a", "v", "c1-v", "c2-v"}


async def test_children_keep_parents_and_not_the_reverse(snapshots: Snapshots, subject: Subject) -> None:
    await commit_one(snapshots, "c1", **ROOT)
    await commit_one(snapshots, "c2", "c1")
    await snapshots.view("v", "c1")
    assert await survivors(subject) == {"c1"}


async def test_a_root_label_that_an_update_takes_away_keeps_no_more(snapshots: Snapshots, subject: Subject) -> None:
    await snapshots.prepare("a", labels=ROOT)
    await snapshots.prepare("b")
    await snapshots.update("b", ROOT, ["labels.containerd.io/gc.root"])
    assert await survivors(subject) == {"a", "b"}
    await subject.snapshots.update("a", {}, ["labels"])
    await subject.store.collect()
    assert await subject.names() == {"b"}


async def test_what_a_lease_made_goes_with_the_lease_and_so_do_its_folders(plain: Subject) -> None:
    """18"""
    await plain.store.leases.create("l")
    leased = plain.leased("l")
    await leased.prepare("a")
    await commit_one(leased, "c")
    await leased.view("v", "c")
    await plain.store.collect()
    assert await plain.names() == {"a", "c", "v"}
    await plain.store.leases.delete("l", sync=True)
    await plain.store.collect()
    assert await plain.names() == set()
    assert plain.folders() == set()
    removed = [event.event.key for event in await journal(plain.store) if event.topic == "/snapshot/remove"]
    assert sorted(removed) == ["a", "c", "v"]


async def test_a_removed_one_is_gone_from_the_disk_after_a_collection(plain: Subject) -> None:
    """N6"""
    await plain.committed("c")
    await plain.prepare("a", "c")
    await plain.snapshots.remove("a")
    await plain.store.collect()
    assert len(plain.folders()) == 1
    await plain.snapshots.remove("c")
    await plain.store.collect()
    assert plain.folders() == set()


async def test_cleanup_frees_what_was_removed(plain: Subject) -> None:
    await plain.prepare("a")
    kept = plain.folders()
    await plain.prepare("b")
    await plain.snapshots.remove("b")
    assert await plain.snapshots.cleanup() is None
    assert plain.folders() == kept
    assert await plain.snapshots.cleanup() is None
    assert plain.folders() == kept


async def test_a_name_may_be_used_again_at_once(subject: Subject) -> None:
    first = await subject.prepare("a")
    await subject.snapshots.remove("a")
    second = await subject.prepare("a")
    assert first != second
    await subject.store.collect()
    assert await subject.snapshots.mounts("a") == second
    if subject.name != "btrfs":
        assert all(path.is_dir() for path in paths(second))
        assert not any(path.exists() for path in paths(first))


async def test_a_collected_child_does_not_keep_its_parent_from_being_removed(subject: Subject) -> None:
    """19"""
    await subject.committed("p")
    await subject.store.leases.create("l")
    await subject.leased("l").view("v", "p")
    await subject.leased("l").prepare("a", "p")
    assert await outcome(subject.snapshots.remove("p")) == "FailedPrecondition"
    await subject.store.leases.delete("l", sync=True)
    await subject.store.collect()
    assert await subject.names() == {"p"}
    await subject.snapshots.remove("p")
    assert await subject.names() == set()


async def test_namespaces_with_the_same_names_go_each_by_itself(plain: Subject) -> None:
    """12"""
    one, two = plain.within("one"), plain.within("two")
    for there, data in ((one, b"one"), (two, b"two")):
        (folder,) = paths(await there.prepare("a"))
        (folder / "f").write_bytes(data)
        await there.commit("c", "a")
    await one.snapshots.remove("c")
    await plain.store.collect()
    assert len(plain.folders()) == 1
    (folder,) = paths(await two.view("v", "c"))
    assert (folder / "f").read_bytes() == b"two"


# leases -----------------------------------------------------------------------------------------------------


async def test_prepare_view_and_commit_join_the_lease(subject: Subject) -> None:
    await subject.store.leases.create("l")
    leased, kind = subject.leased("l"), f"snapshots/{subject.name}"
    await leased.prepare("a")
    assert await held(subject.store, "l") == [(kind, "a")]
    await leased.commit("c", "a")
    assert await held(subject.store, "l") == [(kind, "c")]
    await leased.view("v", "c")
    assert await held(subject.store, "l") == [(kind, "c"), (kind, "v")]
    await leased.remove("v")
    assert await held(subject.store, "l") == [(kind, "c")]
    await leased.get("c")
    await leased.update("c", {"a": "1"})
    await subject.prepare("outside", "c")
    assert await held(subject.store, "l") == [(kind, "c")]


async def test_what_is_refused_because_it_is_there_joins_the_lease(snapshots: Snapshots, subject: Subject) -> None:
    await commit_one(snapshots, "t")
    await commit_one(snapshots, "c")
    await snapshots.prepare("a")
    await subject.store.leases.create("l")
    leased = subject.leased("l")
    assert await outcome(leased.prepare("x", "", {"containerd.io/snapshot.ref": "t"})) == "AlreadyExists"
    assert await outcome(leased.commit("c", "not-there")) == "AlreadyExists"
    assert await outcome(leased.prepare("a", "not-there")) == "AlreadyExists"
    assert await outcome(leased.prepare("x", "not-there")) == "NotFound"
    assert await outcome(leased.commit("x", "not-there")) == "NotFound"
    kind = f"snapshots/{subject.name}"
    assert await held(subject.store, "l") == [(kind, "a"), (kind, "c"), (kind, "t")]
    assert await survivors(subject) == {"a", "c", "t"}


async def test_a_lease_keeps_what_it_names_in_its_own_snapshotter_and_namespace(
    snapshots: Snapshots, subject: Subject
) -> None:
    await snapshots.prepare("a")
    await snapshots.prepare("b")
    await snapshots.prepare("c")
    await subject.store.leases.create("l")
    await subject.store.leases.add("l", orlop.LeaseResource("a", f"snapshots/{subject.name}"))
    await subject.store.leases.add("l", orlop.LeaseResource("b", "snapshots/another"))
    other = subject.within("other")
    await other.store.leases.create("l")
    await other.store.leases.add("l", orlop.LeaseResource("c", f"snapshots/{subject.name}"))
    assert await survivors(subject) == {"a"}


async def test_a_flat_lease_keeps_the_parents_and_nothing_else_of_a_snapshot(
    snapshots: Snapshots, subject: Subject
) -> None:
    """Without its parents none can be mounted. Source: spec gc 15, row 11."""
    scaffolded = subject.store.with_lease("scaffold")
    layer = await scaffolded.content.put(b"layer")
    await commit_one(snapshots, "base")
    await commit_one(snapshots, "c", "base")
    await snapshots.prepare("a", "c", {"containerd.io/gc.ref.content.layer": layer.digest})
    await subject.store.leases.create("l", {"containerd.io/gc.flat": "no matter what"})
    await subject.store.leases.add("l", orlop.LeaseResource("a", f"snapshots/{subject.name}"))
    assert await survivors(subject) == {"a", "c", "base"}
    assert [info.digest async for info in subject.store.content.list()] == []


# references -------------------------------------------------------------------------------------------------


async def test_a_label_keeps_the_snapshot_that_it_names(snapshots: Snapshots, subject: Subject) -> None:
    ref = f"containerd.io/gc.ref.snapshot.{subject.name}"
    await commit_one(snapshots, "base")
    for name in ("one", "two", "three", "four", "five"):
        await commit_one(snapshots, name, "base")
    await snapshots.prepare("a", labels={ref: "one", f"{ref}/more": "two", **ROOT})
    await snapshots.prepare("b", labels={"containerd.io/gc.ref.snapshot.another": "three", f"{ref}x": "four"} | ROOT)
    assert await survivors(subject) == {"a", "b", "one", "two", "base"}


async def test_an_image_keeps_the_snapshots_that_its_content_names(snapshots: Snapshots, subject: Subject) -> None:
    scaffolded = subject.store.with_lease("scaffold")
    await commit_one(snapshots, "base")
    await commit_one(snapshots, "top", "base")
    await commit_one(snapshots, "other", "base")
    config = await scaffolded.content.put(b"config", labels={f"containerd.io/gc.ref.snapshot.{subject.name}": "top"})
    manifest = await scaffolded.content.put(b"manifest", labels={"containerd.io/gc.ref.content.config": config.digest})
    await scaffolded.images.create("i", orlop.Descriptor(MANIFEST, manifest.digest, manifest.size))
    assert await survivors(subject) == {"top", "base"}
    await subject.store.images.delete("i", sync=True)
    await subject.store.collect()
    assert await subject.names() == set()


async def test_a_container_keeps_its_snapshot(snapshots: Snapshots, subject: Subject) -> None:
    await commit_one(snapshots, "base")
    await snapshots.prepare("a", "base")
    await snapshots.prepare("b", "base")
    await subject.store.containers.create(
        orlop.Container(
            "c", runtime=orlop.Runtime("r"), spec=orlop.Any("t", b""), snapshotter=subject.name, snapshot_key="a"
        )
    )
    assert await survivors(subject) == {"a", "base"}
    await subject.store.containers.delete("c")
    await subject.store.collect()
    assert await subject.names() == set()


async def test_a_snapshot_keeps_the_content_that_it_names(snapshots: Snapshots, subject: Subject) -> None:
    scaffolded = subject.store.with_lease("scaffold")
    layer = await scaffolded.content.put(b"layer")
    await scaffolded.content.put(b"other")
    await commit_one(snapshots, "c", **{"containerd.io/gc.ref.content.layer": layer.digest, **ROOT})
    assert await survivors(subject) == {"c"}
    assert [info.digest async for info in subject.store.content.list()] == [layer.digest]
    await subject.snapshots.remove("c")
    await subject.store.collect()
    assert [info.digest async for info in subject.store.content.list()] == []


async def test_a_back_reference_keeps_a_snapshot_while_what_it_names_lives(
    snapshots: Snapshots, subject: Subject
) -> None:
    await subject.store.images.create("i", orlop.Descriptor(MANIFEST, "sha256:" + "a" * 64, 7))
    await snapshots.prepare("of-image", labels={"containerd.io/gc.bref.image": "i"})
    await snapshots.prepare("of-snapshot", labels={f"containerd.io/gc.bref.snapshot.{subject.name}": "of-image"})
    await snapshots.prepare("of-none", labels={"containerd.io/gc.bref.image": "another"})
    assert await survivors(subject) == {"of-image", "of-snapshot"}
    await subject.store.images.delete("i", sync=True)
    await subject.store.collect()
    assert await subject.names() == set()


# events -----------------------------------------------------------------------------------------------------


async def test_every_collected_snapshot_is_told_once(snapshots: Snapshots, subject: Subject) -> None:
    await commit_one(snapshots, "c1")
    await commit_one(snapshots, "c2", "c1")
    await snapshots.view("v", "c2")
    await subject.within("other").store.leases.create("l")
    await subject.within("other").leased("l").prepare("a")
    await subject.within("other").store.leases.delete("l")
    assert await survivors(subject) == set()
    events = [event for event in await journal(subject.store) if event.topic == "/snapshot/remove"]
    told = sorted((event.namespace, event.event.key, event.event.snapshotter) for event in events)
    assert told == [
        ("default", "c1", subject.name),
        ("default", "c2", subject.name),
        ("default", "v", subject.name),
        ("other", "a", subject.name),
    ]


async def test_a_namespace_with_a_snapshot_is_not_empty(subject: Subject) -> None:
    there = subject.within("tenant")
    await there.prepare("a")
    with pytest.raises(FailedPrecondition):
        await subject.store.namespaces.delete("tenant")
    await there.snapshots.remove("a")
    await subject.store.collect()
    await subject.store.namespaces.delete("tenant")
    with pytest.raises(NotFound):
        await there.snapshots.get("a")
    assert await kinds(there.snapshots) == {}
