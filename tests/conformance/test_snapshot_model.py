"""The life of snapshots against a model in plain dicts. Source: spec snapshots 1 to 3, 6; RELIABILITY 3.1.

Two namespaces, two snapshotters, one lease in each namespace. A collection may begin by itself at any moment, so
after each step that could leave something to nobody there is one, in the store and in the model alike.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from msgspec.structs import replace

import orlop

from ..support.machines import LABEL_PATHS, SPACES, Machine, hold, label_maps, masks, mostly, usually
from ..support.models import NOW, Place
from ..support.snapshot_model import GC_REF, GC_ROOT, REF, Snapshot, SnapshotModel, told
from ..support.snapshotters import Snapshots, held, paths

SNAPSHOTTERS = ("overlayfs", "native")
ROOMS = [f"{space}/{snapshotter}" for space in SPACES for snapshotter in SNAPSHOTTERS]

Rooms = mostly([ROOMS[0], ROOMS[0], ROOMS[1]], ROOMS, times=2)
Names = mostly(["a", "b", "c", "牛/../\n"], ["n" * 512, "", "n" * 513, "never"], times=8)
Parents = usually(mostly(["", "a", "b", "c"]), Names, times=6)
Labels = usually(
    st.fixed_dictionaries(
        {},
        optional={
            GC_ROOT: st.sampled_from(["any", ""]),
            f"{GC_REF}overlayfs": st.sampled_from(["a", "b"]),
            f"{GC_REF}native/x": st.sampled_from(["a", "c"]),
            REF: st.sampled_from(["b", "never", ""]),
            "a": st.sampled_from(["1", "2"]),
        },
    ),
    label_maps(GC_ROOT),
    times=5,
)
Leased = mostly([True], [False], times=4)


def anywhere() -> st.SearchStrategy[Place]:
    return st.tuples(Rooms, Names)


def somewhere(*kinds: str) -> st.SearchStrategy[Place]:
    """Where something is, most of the time, of one of these kinds."""

    def known(machine: Any) -> st.SearchStrategy[Place]:
        records = machine.model.records
        there = sorted(at for at, record in records.items() if not kinds or record.kind in kinds)
        return st.sampled_from(there) if there else anywhere()

    return usually(st.runner().flatmap(known), anywhere())


class SnapshotMachine(Machine):
    model: SnapshotModel

    def make_model(self) -> SnapshotModel:
        return SnapshotModel()

    async def prepare(self) -> None:
        self.answered: dict[Place, list[orlop.Mount]] = {}
        for space in SPACES:
            await self.within(space).leases.create("l")

    def of(self, room: str, leased: bool = False) -> Snapshots:
        space, _, snapshotter = room.partition("/")
        return self.within(space, "l" if leased else None).snapshots.using(snapshotter)

    def info(self, at: Place) -> Any:
        async def get() -> Snapshot:
            return told(await self.of(at[0]).get(at[1]))

        return self.ask(get)

    def settle(self, at: Place, expected: Snapshot) -> None:
        """The model learns the times of what was written, from the record itself."""
        asked_ns = self.asked_ns
        got = self.info(at)
        assert isinstance(got, Snapshot), (got, self.message)
        self.asked_ns = asked_ns
        at_ns = self.now(got.updated_at)
        created = at_ns if expected.created_at == NOW else expected.created_at
        learned = replace(expected, created_at=created, updated_at=at_ns)
        assert got == learned
        self.model.learn(at, learned)

    def swept(self) -> None:
        self.agree(self.ask(self.store.collect), None)
        self.model.collect()
        self.answered = {at: mounts for at, mounts in self.answered.items() if at in self.model.records}

    def created(self, kind: str, at: Place, parent: str, labels: dict[str, str], leased: bool) -> None:
        """Under the lease, if only for this call: else it might go before it is looked at."""
        expected = self.model.create(kind, at, parent, labels, True)
        snapshots = self.of(at[0], True)
        call = snapshots.prepare if kind == "ACTIVE" else snapshots.view
        got = self.ask(lambda: call(at[1], parent, labels))
        if isinstance(got, str) or isinstance(expected, str | set):
            self.agree(got, expected)
            return
        self.answered[at] = got
        self.settle(at, expected)
        if not leased:
            self.let_go(at)

    @rule(at=anywhere(), parent=Parents, labels=Labels, leased=Leased)
    def prepare_one(self, at: Place, parent: str, labels: dict[str, str], leased: bool) -> None:
        self.created("ACTIVE", at, parent, labels, leased)

    @rule(at=anywhere(), parent=Parents, labels=Labels, leased=Leased)
    def view(self, at: Place, parent: str, labels: dict[str, str], leased: bool) -> None:
        self.created("VIEW", at, parent, labels, leased)

    @rule(at=somewhere("ACTIVE"), name=Names, labels=Labels, parent=mostly(["", "", "a", "b"], ["never"], times=3))
    def commit(self, at: Place, name: str, labels: dict[str, str], parent: str) -> None:
        to = at[0], name
        expected = self.model.commit(to, at[1], labels, parent, True)

        async def commit() -> Snapshot:
            return told(await self.of(at[0], True).commit(name, at[1], labels, parent=parent))

        got = self.ask(commit)
        if isinstance(got, str) or isinstance(expected, str | set):
            self.agree(got, expected)
            return
        self.answered.pop(at, None)
        self.settle(to, expected)
        assert self.model.get(to) == got
        self.swept()  # what the active's labels kept

    @rule(at=somewhere(), labels=Labels, mask=masks(*LABEL_PATHS, f"labels.{GC_ROOT}", bad=["parent", "kind"]))
    def update(self, at: Place, labels: dict[str, str], mask: list[str] | None) -> None:
        expected = self.model.update(at, labels, mask)

        async def update() -> Snapshot:
            return told(await self.of(at[0]).update(at[1], labels, mask))

        got = self.ask(update)
        if isinstance(got, str) or isinstance(expected, str | set):
            self.agree(got, expected)
            return
        assert replace(got, updated_at=NOW) == replace(expected, updated_at=NOW)
        self.now(got.updated_at)
        self.model.learn(at, got)
        self.swept()

    @rule(at=somewhere())
    def get(self, at: Place) -> None:
        self.agree(self.info(at), self.model.get(at))

    @rule(at=somewhere())
    def mounts(self, at: Place) -> None:
        got, expected = self.ask(lambda: self.of(at[0]).mounts(at[1])), self.model.mounts(at)
        self.agree(got, expected)
        if expected is None:
            assert got == self.answered[at]

    @rule(at=somewhere())
    def usage(self, at: Place) -> None:
        got, expected = self.ask(lambda: self.of(at[0]).usage(at[1])), self.model.get(at)
        if isinstance(expected, Snapshot):
            assert (got.size, got.inodes) == ((0, 0) if expected.kind == "VIEW" else (got.size, 1))
        else:
            self.agree(got, expected)

    @rule(at=somewhere())
    def remove(self, at: Place) -> None:
        self.agree(self.ask(lambda: self.of(at[0], True).remove(at[1])), self.model.remove(at))
        if at not in self.model.records:
            self.answered.pop(at, None)
        self.swept()

    @rule(at=somewhere())
    def let_go(self, at: Place) -> None:
        """The lease names it no longer."""
        space, _, snapshotter = at[0].partition("/")
        if at in self.model.held.get(space, ()):
            entry = orlop.LeaseResource(at[1], f"snapshots/{snapshotter}")
            self.agree(self.ask(lambda: self.within(space).leases.remove("l", entry)), None)
            self.model.release(at)
            self.swept()

    @rule(at=somewhere())
    def take_hold(self, at: Place) -> None:
        space, _, snapshotter = at[0].partition("/")
        if at[1] and len(at[1]) <= 512 and at in self.model.records:
            entry = orlop.LeaseResource(at[1], f"snapshots/{snapshotter}")
            self.agree(self.ask(lambda: self.within(space).leases.add("l", entry)), None)
            self.model.hold(at, True)

    @rule(snapshotter=st.sampled_from(SNAPSHOTTERS))
    def clean_up(self, snapshotter: str) -> None:
        """Then every snapshot has its folder, some views aside, and no folder is left over."""
        self.swept()
        self.agree(self.ask(lambda: self.of(f"ns1/{snapshotter}").cleanup()), None)
        folder = f"{self.folder}/snapshots/{snapshotter}"
        folders = os.listdir(folder) if os.path.isdir(folder) else []
        records = [it for (room, _), it in self.model.records.items() if room.endswith(f"/{snapshotter}")]
        views = sum(it.kind == "VIEW" for it in records)
        assert len(records) - views <= len(folders) <= len(records)

    @rule(room=Rooms, kind=st.sampled_from(["ACTIVE", "VIEW", "COMMITTED"]), parent=st.sampled_from(["", "a", "b"]))
    def list_by_kind_and_parent(self, room: str, kind: str, parent: str) -> None:
        found = self.every(self.of(room).list([f'kind=={kind.lower()},parent=="{parent}"']))
        expected = [record for record in self.model.list(room) if (record.kind, record.parent) == (kind, parent)]
        assert sorted(map(told, found), key=lambda it: it.name) == expected

    @invariant()
    def lists_are_as_the_model_says(self) -> None:
        for room in ROOMS:
            found = sorted(map(told, self.every(self.of(room).list())), key=lambda it: it.name)
            assert found == self.model.list(room)

    @invariant()
    def leases_name_what_the_model_says(self) -> None:
        for space in SPACES:
            entries = self.loop.run(lambda space=space: held(self.within(space), "l"))
            expected = {(f"snapshots/{room.partition('/')[2]}", name) for room, name in self.model.held.get(space, ())}
            assert set(entries) == expected

    @invariant()
    def mounts_point_to_what_is_there(self) -> None:
        for mounts in self.answered.values():
            assert all(path.is_dir() for path in paths(mounts))


@pytest.mark.slow
def test_snapshots_do_what_the_model_does() -> None:
    hold(SnapshotMachine, lives=10)  # each step is followed by a collection
