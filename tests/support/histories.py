"""Random histories of a store's metadata, driven through the real plans of the actors over a memory engine.

One seed decides everything: objects, labels, operations, the clock, how finely the collector's work is cut. What lives
is compared with the full mark, which knows nothing of witnesses; see `forest_checks`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from orlop.actors import containers, content, images, ingest_plans, leases, sandboxes, snapshot_plans
from orlop.actors.storage import Rejected
from orlop.actors.timestamps import rfc3339
from orlop.protocol import messages as m
from orlop.protocol.errors import OrlopError
from orlop.protocol.messages import Context
from orlop.protocol.records import Any_, Container, Descriptor, LeaseResource, Runtime, Sandbox, Usage
from orlop.storage.collection.collector import Places, Slice, collect_some
from orlop.storage.collection.kinds import register
from orlop.storage.engine import Kind, Transaction
from orlop.storage.keys import RecordKind
from orlop.storage.memory import MemoryStore
from orlop.storage.overlay import Overlay, OverlayTransaction
from orlop.storage.tables import Table

START_NS = 1_700_000_000 * 10**9
SECOND = 10**9
REF, BREF, COND = "containerd.io/gc.ref.", "containerd.io/gc.bref.", "containerd.io/gc.cond.snapshot.native"
ROOT, EXPIRE, FLAT = "containerd.io/gc.root", "containerd.io/gc.expire", "containerd.io/gc.flat"
USED_AT = "containerd.io/gc.cond.value-usedat"


class Stream(msgspec.Struct, frozen=True):
    """A further kind of resource, as somebody might add one."""

    name: str
    active: bool = False
    labels: dict[str, str] = {}


STREAMS: Table[Stream] = Table(RecordKind.STREAM, Stream, Kind.STREAM, "stream")


async def _drop_stream(txn: Transaction, namespace: str, name: str) -> None:
    await STREAMS.remove(txn, namespace, name)


register(Kind.STREAM, Stream, _drop_stream, "stream")


def drive(running: Awaitable[Any]) -> Any:
    assert isinstance(running, Coroutine)
    try:
        running.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("a plan awaited something other than its transaction")


class World:
    """One store in memory, transaction by transaction."""

    def __init__(self, *, grace_ns: int = 0) -> None:
        self.disk = MemoryStore()
        self.now_ns = START_NS
        self.number = 0
        self.grace_ns = grace_ns
        self.places = Places()

    def transact(self, plan: Callable[[Transaction], Awaitable[Any]]) -> Any:
        """All of it or, when it raises, nothing."""
        self.number += 1
        self.now_ns += 1
        snapshot = self.disk.snapshot()
        txn = OverlayTransaction(snapshot, Overlay(), self.now_ns, self.number)
        try:
            result = drive(plan(txn))
        finally:
            snapshot.close()
        self.disk.write(txn.writes)
        return result

    def read(self, reading: Callable[[Transaction], Awaitable[Any]]) -> Any:
        snapshot = self.disk.snapshot()
        try:
            return drive(reading(OverlayTransaction(snapshot, Overlay(), self.now_ns, self.number + 1)))
        finally:
            snapshot.close()

    def collect(self, budget: float, most_steps: int = 0) -> Slice:
        async def some(txn: Transaction) -> Slice:
            return await collect_some(txn, self.places, budget=budget, grace_ns=self.grace_ns, most_steps=most_steps)

        return self.transact(some)

    def crash(self) -> None:
        """What is in memory is lost; what was written is there."""
        self.places = Places()


NAMESPACES = ("one", "two")
BLOBS = [b"blob %d" % n for n in range(4)]
DIGESTS = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in BLOBS]
SNAPSHOTS = ["s0", "s1", "s2", "s3"]
IMAGES = ["i0", "i1", "i2"]
INGESTS = ["w0", "w1"]
STREAM_NAMES = ["t0", "t1"]
LEASES = ["l0", "l1", "l2"]


class History:
    """`step` does one random thing. `many`: labels and entries beyond what a transaction takes at once."""

    def __init__(self, seed: int, *, many: bool = False, namespaces: int = 1, grace: bool = False) -> None:
        self.random = random.Random(seed)
        self.world = World(grace_ns=self.random.choice([0, 3 * SECOND]) if grace else 0)
        self.budget: float = self.random.choice([1, 8, 24, float("inf")])
        self.many = many
        self.namespaces = NAMESPACES[:namespaces]
        self.log: list[str] = []

    # what may stand in labels

    def digest(self) -> str:
        return self.random.choice([*DIGESTS, "sha256:" + "0" * 64])

    def labels(self, *, on: str) -> dict[str, str]:
        pick = self.random.random
        labels: dict[str, str] = {}
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 3])):
            labels.update(self.reference(on))
        if on in ("content", "snapshot") and pick() < 0.2:
            labels[ROOT] = "x"
        if on == "snapshot" and pick() < 0.5:
            labels[USED_AT] = self.time(-6, 2)
        if on == "image" and pick() < 0.6:
            labels[EXPIRE] = self.time(-6, 12) if pick() < 0.9 else "tomorrow"
        if self.many and pick() < 0.4:
            for n in range(self.random.choice([45, 90])):
                labels[f"{REF}content.x.{n}"] = "sha256:" + f"{n:064x}" if n % 9 else self.digest()
        return labels

    def reference(self, on: str) -> dict[str, str]:
        n = self.random.randrange(2)
        forward: dict[str, str] = self.random.choice(
            [
                {f"{REF}content.{n}": self.digest()},
                {f"{REF}snapshot.native/{n}": self.random.choice([*SNAPSHOTS, "absent"])},
                {f"{REF}image.{n}": self.random.choice([*IMAGES, "absent"])},
                {f"{REF}stream.{n}": self.random.choice([*STREAM_NAMES, "absent"])},
            ]
        )
        back: dict[str, str] = self.random.choice(
            [
                {f"{BREF}content.{n}": self.digest()},
                {f"{BREF}snapshot.native/{n}": self.random.choice([*SNAPSHOTS, "absent"])},
                {f"{BREF}image.{n}": self.random.choice([*IMAGES, "absent"])},
                {f"{BREF}container.{n}": "k"},
            ]
        )
        condition = f"usedat{self.random.choice('<>')}{self.random.choice([1, 2, 5])}s"
        conditional = {f"{COND}/{n}": f"{condition}|{self.random.choice(SNAPSHOTS)}"}
        chance = self.random.random()
        if chance < 0.55 or on in ("container", "sandbox"):
            return forward
        if chance < 0.75 or on == "snapshot":
            return back
        return conditional

    def time(self, low: int, high: int) -> str:
        return rfc3339(self.world.now_ns + self.random.randint(low, high) * SECOND)

    # what may happen

    def operations(self) -> list[tuple[int, Callable[[Context], None]]]:
        return [
            (6, self.put_content), (3, self.update_content), (2, self.delete_content),
            (5, self.make_snapshot), (2, self.update_snapshot), (2, self.delete_snapshot),
            (5, self.make_image), (3, self.update_image), (2, self.delete_image),
            (3, self.make_lease), (2, self.delete_lease), (1, self.update_lease),
            (3, self.add_entry), (2, self.remove_entry),
            (2, self.container), (2, self.sandbox), (2, self.ingest), (2, self.stream),
            (4, self.move_clock), (12, self.collect), (1, self.settle), (1, self.restart),
        ]  # fmt: skip

    def step(self) -> None:
        namespace = self.random.choice(self.namespaces)
        lease = self.random.choice([*LEASES, None, None])
        context = Context(namespace=namespace, lease=lease)
        operations = self.operations()
        weights = [weight for weight, _ in operations]
        operation = self.random.choices([each for _, each in operations], weights)[0]
        self.log.append(operation.__name__)
        try:
            operation(context)
        except OrlopError as error:
            self.log.append(f"  refused: {error}")

    def run(self, plan: Callable[..., Awaitable[Any]], request: Any, context: Context) -> Any:
        self.log.append(f"  {context.namespace} {context.lease} {request}")
        result = self.world.transact(lambda txn: plan(txn, request, context))
        if isinstance(result, Rejected):
            self.log.append(f"  refused: {result.error}")
        return result

    def put_content(self, context: Context) -> None:
        data = self.random.choice(BLOBS)
        self.run(content.put, m.PutContent(data, labels=self.labels(on="content")), context)

    def update_content(self, context: Context) -> None:
        request = m.UpdateContent(self.random.choice(DIGESTS), self.labels(on="content"), ["labels"])
        self.run(content.update, request, context)

    def delete_content(self, context: Context) -> None:
        self.run(content.delete, m.DeleteContent(self.random.choice(DIGESTS)), context)

    def make_snapshot(self, context: Context) -> None:
        key, parent = self.random.choice(SNAPSHOTS), self.random.choice(["", "", *SNAPSHOTS])
        labels = self.labels(on="snapshot")
        prepare = m.PrepareSnapshot(key=f"{key} active", parent=parent, labels=labels, snapshotter="native")
        announced = self.run(snapshot_plans.announce, prepare, context)
        if isinstance(announced, Rejected):
            return

        async def record(txn: Transaction, request: Any, given: Context) -> Any:
            return await snapshot_plans.record(txn, request, given, announced, own_folder=True)

        self.run(record, prepare, context)
        if self.random.random() < 0.9:

            async def commit(txn: Transaction, request: Any, given: Context) -> Any:
                return await snapshot_plans.commit(txn, request, given, Usage(10, 1), rebase=True)

            self.run(
                commit, m.CommitSnapshot(name=key, key=f"{key} active", labels=labels, snapshotter="native"), context
            )

    def update_snapshot(self, context: Context) -> None:
        request = m.UpdateSnapshot(self.random.choice(SNAPSHOTS), self.labels(on="snapshot"), ["labels"], "native")
        self.run(snapshot_plans.update, request, context)

    def delete_snapshot(self, context: Context) -> None:
        key = self.random.choice([*SNAPSHOTS, *(f"{name} active" for name in SNAPSHOTS)])
        self.run(snapshot_plans.delete, m.DeleteSnapshot(key, "native"), context)

    def make_image(self, context: Context) -> None:
        target = Descriptor("x", self.digest(), 1)
        request = m.CreateImage(self.random.choice(IMAGES), target, self.labels(on="image"))
        self.run(images.create, request, context)

    def update_image(self, context: Context) -> None:
        target = Descriptor("x", self.digest(), 1)
        request = m.UpdateImage(self.random.choice(IMAGES), target, self.labels(on="image"))
        self.run(images.update, request, context)

    def delete_image(self, context: Context) -> None:
        request = m.DeleteImage(self.random.choice(IMAGES), sync=self.random.random() < 0.3)
        self.run(images.delete, request, context)

    def make_lease(self, context: Context) -> None:
        labels = {}
        if self.random.random() < 0.5:
            labels[FLAT] = "x"
        if self.random.random() < 0.5:
            labels[EXPIRE] = self.time(-6, 12)
        name = self.random.choice(LEASES)
        self.run(leases.create, m.CreateLease(name, labels), context)
        if self.many and self.random.random() < 0.6:
            for n in range(60):
                resource = LeaseResource("sha256:" + f"{n:064x}" if n % 9 else self.digest(), "content")
                self.world.transact(lambda txn, r=resource: leases.add(txn, m.AddLeaseResource(name, r), context))

    def update_lease(self, context: Context) -> None:
        labels = {}
        if self.random.random() < 0.5:
            labels[FLAT] = "x"
        if self.random.random() < 0.5:
            labels[EXPIRE] = self.time(-2, 12)
        self.run(leases.update, m.UpdateLease(self.random.choice(LEASES), labels), context)

    def delete_lease(self, context: Context) -> None:
        request = m.DeleteLease(self.random.choice(LEASES), sync=self.random.random() < 0.3)
        self.run(leases.delete, request, context)

    def resource(self) -> LeaseResource:
        return self.random.choice(
            [
                LeaseResource(self.digest(), "content"),
                LeaseResource(self.random.choice([*SNAPSHOTS, "absent"]), "snapshots/native"),
                LeaseResource(self.random.choice([*IMAGES, "absent"]), "images"),
                LeaseResource(self.random.choice(INGESTS), "ingests"),
            ]
        )

    def add_entry(self, context: Context) -> None:
        self.run(leases.add, m.AddLeaseResource(self.random.choice(LEASES), self.resource()), context)

    def remove_entry(self, context: Context) -> None:
        self.run(leases.remove, m.DeleteLeaseResource(self.random.choice(LEASES), self.resource()), context)

    def container(self, context: Context) -> None:
        if self.random.random() < 0.5:
            self.run(containers.delete, m.DeleteContainer("k"), context)
            return
        record = Container(
            "k",
            self.labels(on="container"),
            runtime=Runtime("r"),
            spec=Any_("spec", b""),
            snapshotter="native",
            snapshot_key=self.random.choice(SNAPSHOTS),
        )
        self.run(containers.create, m.CreateContainer(record), context)

    def sandbox(self, context: Context) -> None:
        if self.random.random() < 0.5:
            self.run(sandboxes.delete, m.DeleteSandbox("b"), context)
            return
        record = Sandbox("b", Runtime("r"), labels=self.labels(on="sandbox"))
        self.run(sandboxes.create, m.CreateSandbox(record), context)

    def ingest(self, context: Context) -> None:
        ref = self.random.choice(INGESTS)
        if self.random.random() < 0.3:
            self.run(ingest_plans.abort, m.AbortIngest(ref), context)
        else:
            self.run(ingest_plans.open_ingest, m.OpenIngest(ref), context)

    def stream(self, context: Context) -> None:
        name = self.random.choice(STREAM_NAMES)
        record = Stream(name, self.random.random() < 0.4, self.labels(on="sandbox"))

        async def change(txn: Transaction, request: Stream, given: Context) -> None:
            if await STREAMS.find(txn, given.namespace or "", name) is None:
                await STREAMS.insert(txn, given.namespace or "", name, request)
            elif self.random.random() < 0.5:
                await STREAMS.replace(txn, given.namespace or "", name, request)
            else:
                await STREAMS.remove(txn, given.namespace or "", name)

        self.run(change, record, context)

    def move_clock(self, _: Context) -> None:
        by = self.random.randint(-4, 12)
        self.log.append(f"  by {by} s")
        self.world.now_ns += by * SECOND

    def collect(self, _: Context) -> None:
        for _ in range(self.random.randint(1, 4)):
            self.world.collect(self.budget, most_steps=1)

    def settle(self, _: Context) -> None:
        """Until nothing is left to do."""
        for _ in range(20_000):
            if not self.world.collect(self.budget).more:
                return
        raise AssertionError("the queue never empties")

    def restart(self, _: Context) -> None:
        self.world.crash()
