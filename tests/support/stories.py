"""Histories that are told by hand: small worlds, in which every transaction is followed by every check."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from orlop.actors import containers, content, images, leases, snapshot_plans
from orlop.actors.storage import Rejected
from orlop.actors.timestamps import rfc3339
from orlop.protocol import messages as m
from orlop.protocol.messages import Context
from orlop.protocol.records import Any_, Container, Descriptor, LeaseResource, Runtime, Usage
from orlop.storage import keys
from orlop.storage.collection.collector import Slice
from orlop.storage.collection.state import Clock, State, Vertex, decode_clock
from orlop.storage.engine import Kind, Transaction
from orlop.storage.references import resource_target
from orlop.storage.tables import CONTENT, IMAGES, LEASES, SNAPSHOTS
from tests.support.forest_checks import Seen, check_always, check_rest, check_seal
from tests.support.histories import COND, SECOND, World

__all__ = ["Story", "condition", "digest", "label", "of_content", "of_snapshot", "snapshot_label", "vertex_of"]

_TABLES = {Kind.CONTENT: CONTENT, Kind.IMAGE: IMAGES, Kind.LEASE: LEASES, Kind.SNAPSHOT: SNAPSHOTS}
NOWHERE = "sha256:" + "0" * 64


def digest(n: int | str) -> str:
    return f"sha256:{hashlib.sha256(_data(n)).hexdigest()}"


def _data(n: int | str) -> bytes:
    return f"blob {n}".encode()


def label(*names: int | str, way: str = "ref") -> dict[str, str]:
    """Labels that refer to content (`way` bref: that say who keeps the object)."""
    return {f"containerd.io/gc.{way}.content.{at}": digest(name) for at, name in enumerate(names)}


def snapshot_label(*names: str, way: str = "ref") -> dict[str, str]:
    return {f"containerd.io/gc.{way}.snapshot.native/{at}": name for at, name in enumerate(names)}


def condition(snapshot: str, bound: str) -> dict[str, str]:
    return {f"{COND}/0": f"usedat{bound}|{snapshot}"}


class Story:
    """One store. Whatever is done is checked at once, and what was sealed with it; `check` False: at rest only."""

    def __init__(self, budget: float = 8, *, grace_ns: int = 0, check: bool = True, most_steps: int = 2_000) -> None:
        self.world = World(grace_ns=grace_ns)
        self.budget = budget
        self.checking = check
        self.most_steps = most_steps
        self.seen: Seen | None = None
        self.namespace = "one"
        self.lease: str | None = None

    # what clients do

    def run(self, plan: Callable[..., Awaitable[Any]], request: Any) -> Any:
        context = Context(namespace=self.namespace, lease=self.lease)
        return self.transact(lambda txn: plan(txn, request, context))

    def transact(self, plan: Callable[[Transaction], Awaitable[Any]]) -> Any:
        result = self.world.transact(plan)
        self._look()
        return result

    def _look(self) -> None:
        self.seen = Seen(self.world) if self.checking else None
        if self.seen is not None:
            check_always(self.seen)

    def batch(self, *steps: tuple[Callable[..., Awaitable[Any]], Any]) -> None:
        """Several requests in one transaction."""

        async def all_of(txn: Transaction) -> None:
            for at, (plan, request) in enumerate(steps):
                if at:
                    txn.tick()
                await plan(txn, request, Context(namespace=self.namespace, lease=self.lease))

        self.transact(all_of)

    def put(self, n: int | str, *refs: int | str, labels: dict[str, str] | None = None) -> Any:
        return self.run(content.put, m.PutContent(_data(n), labels={**label(*refs), **(labels or {})}))

    def label(self, n: int | str, *refs: int | str, labels: dict[str, str] | None = None) -> None:
        request = m.UpdateContent(digest(n), {**label(*refs), **(labels or {})}, ["labels"])
        self.run(content.update, request)

    def drop(self, n: int | str) -> None:
        self.run(content.delete, m.DeleteContent(digest(n)))

    def image(self, name: str, target: int | str | None = None, labels: dict[str, str] | None = None) -> None:
        aim = Descriptor("x", NOWHERE if target is None else digest(target), 1)
        self.run(images.create, m.CreateImage(name, aim, labels or {}))

    def relabel(self, name: str, target: int | str | None = None, labels: dict[str, str] | None = None) -> None:
        aim = Descriptor("x", NOWHERE if target is None else digest(target), 1)
        self.run(images.update, m.UpdateImage(name, aim, labels or {}))

    def untag(self, name: str, *, sync: bool = False) -> None:
        self.run(images.delete, m.DeleteImage(name, sync=sync))

    def open_lease(self, name: str, *, flat: bool = False, seconds: int | None = None) -> None:
        labels = {"containerd.io/gc.flat": "x"} if flat else {}
        if seconds is not None:
            labels["containerd.io/gc.expire"] = self.at(seconds)
        self.run(leases.create, m.CreateLease(name, labels))

    def flatten(self, name: str, *, flat: bool) -> None:
        self.run(leases.update, m.UpdateLease(name, {"containerd.io/gc.flat": "x"} if flat else {}, ["labels"]))

    def end_lease(self, name: str, *, sync: bool = False) -> None:
        self.run(leases.delete, m.DeleteLease(name, sync=sync))

    def hold(self, lease: str, *resources: LeaseResource) -> None:
        for each in resources:
            self.run(leases.add, m.AddLeaseResource(lease, each))

    def let_go(self, lease: str, resource: LeaseResource) -> None:
        self.run(leases.remove, m.DeleteLeaseResource(lease, resource))

    def snapshot(self, key: str, parent: str = "", labels: dict[str, str] | None = None) -> None:
        context = Context(namespace=self.namespace, lease=self.lease)
        prepare = m.PrepareSnapshot(key=f"{key} active", parent=parent, snapshotter="native")
        commit = m.CommitSnapshot(name=key, key=f"{key} active", labels=labels or {}, snapshotter="native")

        async def made(txn: Transaction) -> None:
            announced = await snapshot_plans.announce(txn, prepare, context)
            assert not isinstance(announced, Rejected)
            await snapshot_plans.record(txn, prepare, context, announced, own_folder=True)
            await snapshot_plans.commit(txn, commit, context, Usage(10, 1), rebase=True)

        self.transact(made)

    def mark_used(self, key: str, seconds: float | None, labels: dict[str, str] | None = None) -> None:
        """Say when a snapshot was used, seconds from now. None: say nothing about it."""
        used = {} if seconds is None else {"containerd.io/gc.cond.value-usedat": self.at(seconds)}
        self.run(snapshot_plans.update, m.UpdateSnapshot(key, {**used, **(labels or {})}, ["labels"], "native"))

    def container(self, name: str, snapshot: str = "", labels: dict[str, str] | None = None) -> None:
        record = Container(
            name,
            labels or {},
            runtime=Runtime("r"),
            spec=Any_("spec", b""),
            snapshotter="native",
            snapshot_key=snapshot,
        )
        self.run(containers.create, m.CreateContainer(record))

    def remove_container(self, name: str) -> None:
        self.run(containers.delete, m.DeleteContainer(name))

    # time

    def at(self, seconds: float) -> str:
        return rfc3339(self.world.now_ns + int(seconds * SECOND))

    def wait(self, seconds: float) -> None:
        self.world.now_ns += int(seconds * SECOND)

    # what the collector does

    def step(self, times: int = 1) -> Slice:
        part = Slice()
        for _ in range(times):
            before = self.seen
            part = self.world.collect(self.budget, most_steps=1)
            self._look()
            if before is not None and self.seen is not None:
                check_seal(before, self.seen)
        return part

    def until(self, reached: Callable[[Clock], object]) -> None:
        """Steps until the collector's state is such."""
        for _ in range(self.most_steps):
            if reached(self.clock):
                return
            self.step()
        raise AssertionError("that never happens")

    def until_sealed(self) -> None:
        self.until(lambda clock: clock.sealed)

    def settle(self) -> None:
        for _ in range(self.most_steps):
            if not self.step().more:
                check_rest(Seen(self.world))
                return
        raise AssertionError("the queue never empties")

    def crash(self) -> None:
        self.world.crash()
        self.world.disk = self.world.disk.power_cut()

    # what there is

    @property
    def clock(self) -> Clock:
        async def read(txn: Transaction) -> Clock:
            return decode_clock(await txn.get(keys.CLOCK))

        return self.world.read(read)

    def state(self, vertex: Vertex) -> State:
        return Seen(self.world).states.get(vertex, State())

    def has(self, kind: Kind, name: str) -> bool:
        """Whether a client finds it."""

        async def find(txn: Transaction) -> bool:
            return await _TABLES[kind].find(txn, "one", name) is not None

        return self.world.read(find)

    def there(self, names: Iterable[int | str]) -> list[int | str]:
        """Which content of these a client finds."""
        return [each for each in names if self.has(Kind.CONTENT, digest(each))]

    def snapshots(self, *names: str) -> list[str]:
        return [each for each in names if self.has(Kind.SNAPSHOT, f"native/{each}")]


def of_content(n: int | str) -> LeaseResource:
    return LeaseResource(digest(n), "content")


def of_snapshot(key: str) -> LeaseResource:
    return LeaseResource(key, "snapshots/native")


def vertex_of(resource: LeaseResource, *, flat: bool = False) -> Vertex:
    target = resource_target(resource.type, resource.id)
    assert target is not None
    return Vertex("one", *target, flat)
