"""What each client does, one step after another: decided by the scenario and the seed alone, never by how it went."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from .. import scenario as s
from .blobs import Blob
from .chance import chance_of, pick_index, pick_size, pick_weighted

__all__ = [
    "POPULATED",
    "Client",
    "Collect",
    "Commit",
    "Create",
    "Delete",
    "DeleteBlob",
    "Get",
    "Ingest",
    "List",
    "Prepare",
    "Publish",
    "Pull",
    "Read",
    "ReadAt",
    "RemoveSnapshot",
    "Step",
    "Update",
    "namespace_name",
    "populated_blob",
    "populated_image",
    "populated_snapshot",
    "pull_namespace",
]

POPULATED = "populated"
"""The value of what was there before it began."""


class Get(NamedTuple):
    name: str


class List(NamedTuple):
    filters: tuple[str, ...]


class Create(NamedTuple):
    name: str
    value: str


class Update(NamedTuple):
    name: str
    value: str


class Delete(NamedTuple):
    name: str
    sync: bool


class Publish(NamedTuple):
    name: str
    value: str
    layers: tuple[Blob, ...]


class Ingest(NamedTuple):
    blob: Blob


class DeleteBlob(NamedTuple):
    blob: Blob


class Read(NamedTuple):
    blob: Blob


class ReadAt(NamedTuple):
    blob: Blob
    offset: int
    length: int


class Prepare(NamedTuple):
    key: str
    parent: str


class Commit(NamedTuple):
    name: str
    key: str


class RemoveSnapshot(NamedTuple):
    key: str


class Pull(NamedTuple):
    reference: str
    unpack: bool
    plain_http: bool


class Collect(NamedTuple):
    pass


Action = (
    Get
    | List
    | Create
    | Update
    | Delete
    | Publish
    | Ingest
    | DeleteBlob
    | Read
    | ReadAt
    | Prepare
    | Commit
    | RemoveSnapshot
    | Pull
    | Collect
)


class Step(NamedTuple):
    """`operation`: under what name it is counted."""

    operation: str
    namespace: str
    action: Action


def namespace_name(number: int) -> str:
    return f"load-{number}"


def pull_namespace(client: int) -> str:
    """A client's own, for what it pulls."""
    return f"load-pull-{client}"


def populated_image(number: int) -> str:
    return f"registry.example/populated/{number}:latest"


def populated_blob(scenario: s.Scenario, tenant: int, number: int) -> Blob:
    chance = chance_of(scenario.seed, "populated", tenant, number)
    return Blob(f"populated/{scenario.seed}/{tenant}/{number}", pick_size(chance, scenario.population.blob_size))


def populated_snapshot(number: int) -> str:
    return f"populated-{number}"


@dataclass
class _Own:
    """What a client has made in one namespace, the oldest first."""

    images: deque[str] = field(default_factory=deque)
    blobs: deque[Blob] = field(default_factory=deque)
    active: deque[str] = field(default_factory=deque)
    committed: deque[str] = field(default_factory=deque)


class Client:
    """One of the scenario's clients: an endless iterator over its steps. `number` of `count`; `run` is part of all
    names that it makes, so that a second run meets nothing of the first."""

    def __init__(self, scenario: s.Scenario, number: int, count: int, run: str = "") -> None:
        self._scenario = scenario
        self._run = run
        self._number = number
        self._count = count
        self._chance = chance_of(scenario.seed, "client", number)
        self._weights = list(accumulate(operation.weight for operation in scenario.operations))
        self._own: defaultdict[int, _Own] = defaultdict(_Own)
        self._made = 0
        self._due: deque[Step] = deque()
        self.pause = chance_of(scenario.seed, "pause", number)

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self._due:
            return self._due.popleft()
        operation = self._scenario.operations[pick_weighted(self._chance, self._weights)]
        tenant = pick_index(self._chance, self._scenario.tenants.choose, self._scenario.tenants.count)
        return self._step(operation, tenant, self._own[tenant])

    def _step(self, operation: s.Operation, tenant: int, own: _Own) -> Step:
        match operation:
            case s.GetImage():
                return self._as("image-get", tenant, Get(populated_image(self._pick(self._scenario.population.images))))
            case s.ListImages(filters=filters):
                return self._as("image-list", tenant, List(tuple(filters)))
            case s.CreateImage():
                return self._create(tenant, own)
            case s.UpdateImage():
                return self._update(tenant, own)
            case s.DeleteImage(sync=sync):
                if not own.images:
                    return self._create_something(tenant, own)
                return self._as("image-delete", tenant, Delete(own.images.popleft(), sync))
            case s.PublishImage():
                return self._publish(operation, tenant, own)
            case s.Ingest():
                return self._ingest(operation, tenant, own)
            case s.ReadBlob():
                return self._as("blob-read", tenant, Read(self._blob(tenant)))
            case s.ReadBlobAt(length=length):
                blob = self._blob(tenant)
                length = min(length, blob.size)
                offset = self._chance.randint(0, blob.size - length)
                return self._as("blob-read-at", tenant, ReadAt(blob, offset, length))
            case s.PrepareSnapshot():
                return self._prepare(tenant, own)
            case s.CommitSnapshot(keep=keep):
                return self._commit(tenant, own, keep)
            case s.Pull(references=references, unpack=unpack, plain_http=plain_http):
                reference = references[self._chance.randrange(len(references))]
                return Step("pull", pull_namespace(self._number), Pull(reference, unpack, plain_http))
            case s.Collect():
                return self._as("collect", tenant, Collect())

    def _as(self, name: str, tenant: int, action: Action) -> Step:
        return Step(name, namespace_name(tenant), action)

    def _pick(self, count: int) -> int:
        return pick_index(self._chance, self._scenario.keys, count)

    def _next(self) -> int:
        self._made += 1
        return self._made

    def _words(self, number: int) -> str:
        return f"client{self._run}-{self._scenario.seed}-{self._number}/{number}"

    def _create(self, tenant: int, own: _Own) -> Step:
        number = self._next()
        name = f"registry.example/{self._words(number)}:latest"
        own.images.append(name)
        return self._as("image-create", tenant, Create(name, f"{self._number}.{number}"))

    def _create_something(self, tenant: int, own: _Own) -> Step:
        """There is nothing to delete: first make some."""
        for operation in self._scenario.operations:
            if isinstance(operation, s.PublishImage):
                return self._publish(operation, tenant, own)
        return self._create(tenant, own)

    def _update(self, tenant: int, own: _Own) -> Step:
        """Of the population, each image belongs to one client: what it must say afterwards is certain."""
        images = self._scenario.population.images
        number = self._pick(images)
        number -= (number - self._number) % self._count
        if number < 0:
            number += self._count
        if number >= images:  # there are more clients than images
            return self._create(tenant, own)
        value = f"{self._number}.{self._next()}"
        return self._as("image-update", tenant, Update(populated_image(number), value))

    def _publish(self, operation: s.PublishImage, tenant: int, own: _Own) -> Step:
        number = self._next()
        name = f"registry.example/{self._words(number)}:latest"
        own.images.append(name)
        layers = tuple(
            Blob(f"{self._words(number)}/{layer}", pick_size(self._chance, operation.size))
            for layer in range(operation.layers)
        )
        return self._as("image-publish", tenant, Publish(name, f"{self._number}.{number}", layers))

    def _ingest(self, operation: s.Ingest, tenant: int, own: _Own) -> Step:
        blob = Blob(self._words(self._next()), pick_size(self._chance, operation.size))
        own.blobs.append(blob)
        if len(own.blobs) > operation.keep:
            self._due.append(self._as("blob-delete", tenant, DeleteBlob(own.blobs.popleft())))
        return self._as("blob-ingest", tenant, Ingest(blob))

    def _blob(self, tenant: int) -> Blob:
        return populated_blob(self._scenario, tenant, self._pick(self._scenario.population.blobs))

    def _prepare(self, tenant: int, own: _Own) -> Step:
        count = self._scenario.population.snapshots
        parent = populated_snapshot(self._pick(count)) if count else ""
        key = self._words(self._next())
        own.active.append(key)
        return self._as("snapshot-prepare", tenant, Prepare(key, parent))

    def _commit(self, tenant: int, own: _Own, keep: int) -> Step:
        if not own.active:
            return self._prepare(tenant, own)
        key = own.active.popleft()
        name = f"{key}-committed"
        own.committed.append(name)
        if len(own.committed) > keep:
            self._due.append(self._as("snapshot-remove", tenant, RemoveSnapshot(own.committed.popleft())))
        return self._as("snapshot-commit", tenant, Commit(name, key))
