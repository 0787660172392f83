"""Several changes as one: noted while a block runs, sent as one batch when it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from typing import Any

import msgspec

from .. import messages as m
from .. import methods as t
from ..messages import Condition, Context
from ..methods import Access, Method
from ..records import Container, ContentInfo, Image, Lease, Namespace, Sandbox
from .caller import Caller
from .content import Content, IngestWriter
from .resources import Containers, Images, Leases, Namespaces, Sandboxes

__all__ = ["Planned", "Transaction"]

Record = Namespace | Image | Container | Sandbox | ContentInfo | Lease
_ENCODE = msgspec.msgpack.Encoder().encode
_KINDS: dict[type[msgspec.Struct], tuple[m.Resource, str]] = {
    Namespace: (m.Resource.NAMESPACE, "name"),
    Image: (m.Resource.IMAGE, "name"),
    Container: (m.Resource.CONTAINER, "id"),
    Sandbox: (m.Resource.SANDBOX, "sandbox_id"),
    ContentInfo: (m.Resource.CONTENT, "digest"),
    Lease: (m.Resource.LEASE, "id"),
}


class Planned(Awaitable[Any]):
    """The result of an operation of a transaction; await it when the block has ended."""

    def __init__(self, method: Method[Any, Any]) -> None:
        self.method = method
        self.raw: msgspec.Raw | None = None

    def result(self) -> Any:
        if self.raw is None:
            raise RuntimeError(f"{self.method.name}: its result is known when the transaction's block has ended")
        return msgspec.msgpack.decode(self.raw, type=self.method.response)

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()  # never waits
        return self.result()


class Transaction:
    """What a transaction's block works with. Its operations are those of the store; reads go to the store itself.

    Preconditions are judged in the same step as the changes: nobody can come in between.
    """

    def __init__(self, context: Context) -> None:
        recorder = _Recorder()
        self._context = context
        self._writers: list[IngestWriter] = []
        self._recorder = recorder
        self._preconditions: list[m.Precondition] = []
        self.namespaces = Namespaces(recorder, context)
        self.images = Images(recorder, context)
        self.containers = Containers(recorder, context)
        self.sandboxes = Sandboxes(recorder, context)
        self.content = Content(recorder, context)
        self.leases = Leases(recorder, context)

    def commit(
        self, writer: IngestWriter, *, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None
    ) -> Awaitable[ContentInfo]:
        """Make an ingest a blob together with everything else. Content that is here already is as good.

        The writer ends with the transaction's block, whatever comes of it; bytes that were not recorded are kept
        for a resume.
        """
        self._writers.append(writer)
        request = m.CommitIngest(writer.handle, size, expected, dict(labels or {}))
        return self._recorder.call(t.INGESTS_COMMIT, request, self._context)

    def unchanged(self, record: Record) -> None:
        """Only if this record still is what was read. Else the block ends with Conflict, and nothing is done."""
        resource, key = _KINDS[type(record)]
        self._preconditions.append(
            m.Precondition(resource, getattr(record, key), Condition.UNCHANGED, msgspec.Raw(_ENCODE(record)))
        )

    def exists(self, resource: m.Resource, name: str) -> None:
        """Only if there is such a record. Else NotFound."""
        self._preconditions.append(m.Precondition(resource, name, Condition.EXISTS))

    def absent(self, resource: m.Resource, name: str) -> None:
        """Only if there is none. Else AlreadyExists."""
        self._preconditions.append(m.Precondition(resource, name, Condition.ABSENT))

    async def send(self, caller: Caller, context: Context) -> None:
        """Called by Store.transaction when its block has ended."""
        if not self._recorder.operations and not self._preconditions:
            return
        batch = m.Batch(self._recorder.operations, self._preconditions)
        done: m.BatchResult = await caller.call(t.BATCH, batch, context)
        for writer in self._writers:
            writer.ended()
        for planned, raw in zip(self._recorder.planned, done.results, strict=True):
            planned.raw = raw


class _Recorder:
    """The caller of a transaction: it notes instead of calling."""

    def __init__(self) -> None:
        self.operations: list[m.Operation] = []
        self.planned: list[Planned] = []

    def call(self, method: Method[Any, Any], request: Any, context: Context) -> Planned:  # noqa: ARG002
        if method.access is Access.READ:
            raise RuntimeError(f"{method.name} in a transaction: read from the store, and state with `unchanged`")
        self.operations.append(m.Operation(method.name, msgspec.Raw(_ENCODE(request))))
        self.planned.append(Planned(method))
        return self.planned[-1]

    def stream(self, *_: object) -> Any:
        raise RuntimeError("read from the store, not from a transaction")

    open_blob = welcome = stream
