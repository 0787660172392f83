"""Histories of denser graphs and of what clients do in one transaction: objects replaced at once, batches that may be
given up half-way, ingests that become content, namespaces that are emptied, deleted, and used again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from orlop.actors import containers, content, images, ingest_plans, leases, namespaces, sandboxes, snapshot_plans
from orlop.actors.storage import Rejected
from orlop.protocol import messages as m
from orlop.protocol.errors import OrlopError
from orlop.protocol.messages import Context
from orlop.protocol.records import Descriptor, Usage
from orlop.storage.blobs.sharing import Sharing
from orlop.storage.engine import Transaction
from orlop.storage.tables import INGESTS
from tests.support.forest_checks import Seen, check_seal
from tests.support.histories import BLOBS, DIGESTS, FLAT, LEASES, REF, STREAM_NAMES, STREAMS, History
from tests.support.histories import IMAGES as IMAGE_NAMES
from tests.support.histories import INGESTS as REFS
from tests.support.histories import SNAPSHOTS as KEYS

__all__ = ["WildHistory"]

Asked = tuple[Callable[..., Awaitable[Any]], Any, Context]


class _GivenUp(Exception):
    pass


class WildHistory(History):
    """`rings`: more of what is referred to from below and from several sides at once."""

    def __init__(self, seed: int, *, rings: bool = False, **options: Any) -> None:
        super().__init__(seed, **options)
        self.rings = rings
        self.batched: list[Asked] | None = None
        self.budget = self.random.choice([1, 4, 8, 16, 24, 48, 256, float("inf")])

    def operations(self) -> list[tuple[int, Callable[[Context], None]]]:
        return [
            *((weight, each) for weight, each in super().operations() if each.__name__ not in ("settle", "collect")),
            (20, self.collect), (1, self.settle), (4, self.batch), (4, self.replace), (3, self.let_all_go),
            (4, self.refer_to_each_other), (2, self.commit_ingest), (1, self.adopt), (1, self.empty_namespace),
            *([(14, self.ring), (6, self.cut)] if self.rings else []),
        ]  # fmt: skip

    def digest(self) -> str:
        return self.random.choice([*DIGESTS, *DIGESTS, "sha256:" + "0" * 64])

    def run(self, plan: Callable[..., Awaitable[Any]], request: Any, context: Context) -> Any:
        if self.batched is not None:
            self.batched.append((plan, request, context))
            return None
        return super().run(plan, request, context)

    def batch(self, context: Context) -> None:
        """Several things in one transaction, which is given up now and then."""
        self.batched = []
        single = [
            self.put_content, self.update_content, self.delete_content, self.update_snapshot, self.snapshot_at_once,
            self.delete_snapshot, self.make_image, self.update_image, self.delete_image, self.update_lease,
            self.delete_lease, self.add_entry, self.remove_entry, self.container, self.sandbox, self.ingest,
            self.stream,
        ]  # fmt: skip
        for each in self.random.choices(single, k=self.random.randint(2, 5)):
            each(context)
        asked, self.batched = self.batched, None
        self._together(asked, give_up=self.random.random() < 0.2)

    def replace(self, context: Context) -> None:
        """Delete something and make it again, in one transaction."""
        self.batched = []
        digest = self.random.randrange(len(DIGESTS))
        image, lease = self.random.choice(IMAGE_NAMES), self.random.choice(LEASES)
        target = m.CreateImage(image, Descriptor("x", self.digest(), 1), self.labels(on="image"))
        flat = {FLAT: "x"} if self.random.random() < 0.5 else {}
        pairs: list[list[tuple[Callable[..., Awaitable[Any]], Any]]] = [
            [
                (content.delete, m.DeleteContent(DIGESTS[digest])),
                (content.put, m.PutContent(BLOBS[digest], labels=self.labels(on="content"))),
            ],
            [(images.delete, m.DeleteImage(image, sync=self.random.random() < 0.3)), (images.create, target)],
            [
                (leases.delete, m.DeleteLease(lease, sync=self.random.random() < 0.3)),
                (leases.create, m.CreateLease(lease, flat)),
                *((leases.add, m.AddLeaseResource(lease, self.resource())) for _ in range(self.random.randrange(3))),
            ],
        ]
        asked, self.batched = [(plan, request, context) for plan, request in self.random.choice(pairs)], None
        self._together(asked)

    def _together(self, asked: list[Asked], *, give_up: bool = False) -> None:
        async def all_of(txn: Transaction) -> None:
            for at, (plan, request, context) in enumerate(asked):
                if at:
                    txn.tick()
                self.log.append(f"  {at}: {context.namespace} {context.lease} {request}")
                await plan(txn, request, context)
            if give_up:
                raise _GivenUp

        try:
            self.world.transact(all_of)
        except _GivenUp:
            self.log.append("  given up")

    def snapshot_at_once(self, context: Context) -> None:
        key, parent = self.random.choice(KEYS), self.random.choice(["", "", *KEYS])
        labels = self.labels(on="snapshot")
        prepare = m.PrepareSnapshot(key=f"{key} active", parent=parent, labels=labels, snapshotter="native")
        commit = m.CommitSnapshot(name=key, key=f"{key} active", labels=labels, snapshotter="native")

        async def made(txn: Transaction, request: Any, given: Context) -> None:
            announced = await snapshot_plans.announce(txn, request, given)
            if not isinstance(announced, Rejected):
                await snapshot_plans.record(txn, request, given, announced, own_folder=True)
                await snapshot_plans.commit(txn, commit, given, Usage(10, 1), rebase=True)

        self.run(made, prepare, context)

    def let_all_go(self, context: Context) -> None:
        """A lease takes hold of much at once; another one ends."""
        lease = self.random.choice(LEASES)
        for _ in range(self.random.randint(2, 5)):
            self.run(leases.add, m.AddLeaseResource(lease, self.resource()), context)
        self.run(leases.delete, m.DeleteLease(self.random.choice(LEASES)), context)

    def refer_to_each_other(self, context: Context) -> None:
        some = self.random.sample(DIGESTS, self.random.randint(2, 4))
        for one, other in zip(some, [*some[1:], some[0]], strict=True):
            labels = {**self.labels(on="content"), "containerd.io/gc.ref.content.ring": other}
            self.run(content.update, m.UpdateContent(one, labels, ["labels"]), context)

    def ring(self, context: Context) -> None:
        """Content that refers to each other, all of it or some held by a lease and by images."""
        name = self.random.choice(LEASES)
        held = Context(namespace=context.namespace, lease=name)
        some = self.random.sample(range(len(DIGESTS)), self.random.randint(2, 4))
        self._try(leases.create, m.CreateLease(name, {}), context)
        for n in some:
            others = self.random.sample(some, self.random.randint(1, 2))
            labels = {f"{REF}content.{at}": DIGESTS[other] for at, other in enumerate(others)}
            self._try(content.put, m.PutContent(BLOBS[n]), held)
            self._try(content.update, m.UpdateContent(DIGESTS[n], labels, ["labels"]), context)
            if self.random.random() < 0.4:
                image = m.CreateImage(self.random.choice(IMAGE_NAMES), Descriptor("x", DIGESTS[n], 1))
                self._try(images.create, image, context)
            if self.random.random() < 0.3:
                self.watched()
        for _ in range(self.random.randrange(4)):
            self.watched()
        self._try(leases.delete, m.DeleteLease(name), context)
        for _ in range(self.random.randrange(4)):
            self.watched()

    def cut(self, context: Context) -> None:
        """Labels and images go one by one while the collector is at it."""
        for _ in range(self.random.randint(1, 4)):
            self._try(images.delete, m.DeleteImage(self.random.choice(IMAGE_NAMES)), context)
            self.watched()
            request = m.UpdateContent(self.random.choice(DIGESTS), self.labels(on="content"), ["labels"])
            self._try(content.update, request, context)

    def watched(self) -> None:
        """A step of the collector between what clients do."""
        before = Seen(self.world)
        self.world.collect(self.budget, most_steps=1)
        check_seal(before, Seen(self.world))

    def _try(self, plan: Callable[..., Awaitable[Any]], request: Any, context: Context) -> None:
        try:
            self.run(plan, request, context)
        except OrlopError as error:
            self.log.append(f"  refused: {error}")

    def commit_ingest(self, context: Context) -> None:
        ref, n = self.random.choice(REFS), self.random.randrange(len(BLOBS))
        labels = self.labels(on="content")

        async def commit(txn: Transaction, request: str, given: Context) -> Any:
            record = await INGESTS.get(txn, given.namespace or "", request)
            if record.adopting:
                return await ingest_plans.adopt_ingest(txn, record, given, labels)
            return await ingest_plans.commit_small(txn, record, given, DIGESTS[n], BLOBS[n], labels, on_disk=False)

        self.run(commit, ref, context)

    def adopt(self, context: Context) -> None:
        request = m.OpenIngest(self.random.choice(REFS), expected=self.random.choice(DIGESTS))

        async def opened(txn: Transaction, asked: Any, given: Context) -> Any:
            return await ingest_plans.open_adopting(txn, asked, given, Sharing.SHARED)

        self.run(opened, request, context)

    def empty_namespace(self, context: Context) -> None:
        """Everything in it is deleted, then itself."""
        name = context.namespace or ""
        gone: list[tuple[Callable[..., Awaitable[Any]], Any]] = [
            (containers.delete, m.DeleteContainer("k")),
            (sandboxes.delete, m.DeleteSandbox("b")),
            *((images.delete, m.DeleteImage(each)) for each in IMAGE_NAMES),
            *((content.delete, m.DeleteContent(each)) for each in DIGESTS),
            *((snapshot_plans.delete, m.DeleteSnapshot(f"{each} active", "native")) for each in KEYS),
            *((snapshot_plans.delete, m.DeleteSnapshot(each, "native")) for _ in KEYS for each in KEYS),
            *((self.drop_stream, each) for each in STREAM_NAMES),
            (namespaces.delete, m.DeleteNamespace(name)),
        ]
        for plan, request in gone:
            self._try(plan, request, Context(namespace=name))

    async def drop_stream(self, txn: Transaction, name: str, context: Context) -> None:
        await STREAMS.remove(txn, context.namespace or "", name)
