"""Graphs of objects from a short description, and who survives a collection. Notation: spec gc 16.

One object a line, what it stands upon before it: its name, then words `key=value`. Kinds: `c` content, `s` committed
snapshot, `v` view, `a` active snapshot, `i` image, `k` container, `b` sandbox, `L` lease. The keys `target`, `parent`,
`snapshot`, `image` and `holds` (several with commas) are fields; any other is a label, without `containerd.io/gc.`.
A value `c:x` is the digest of blob x, whose bytes are its name. Times: past, future, now, or `3h-ago`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orlop

__all__ = ["Graph", "digest_of", "label"]

_PREFIX: Final = "containerd.io/gc."
_FIELDS: Final = ("target", "parent", "snapshot", "image", "holds")
_TIMES: Final = {"past": "2001-01-01T00:00:00Z", "future": "2200-01-01T00:00:00Z"}
_TYPES: Final = {"c": "content", "i": "images", "g": "ingests", "s": "snapshots/native"}
_SCAFFOLD: Final = "scaffold"


def digest_of(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def label(key: str, value: str) -> tuple[str, str]:
    """As it is stored."""
    if key.startswith(("expire", "cond.value-usedat")):
        value = _time(value)
    return _PREFIX + key, digest_of(value[2:]) if value.startswith("c:") else value


def _time(text: str) -> str:
    if text == "now":
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if text.endswith("h-ago"):
        return (datetime.now(UTC) - timedelta(hours=int(text[:-5]))).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _TIMES.get(text, text)


@dataclass
class _Object:
    kind: str
    name: str
    fields: dict[str, str]
    labels: dict[str, str]

    @property
    def is_root_by_label(self) -> bool:
        return any(key.startswith(_PREFIX + "root") for key in self.labels)

    @property
    def is_expired(self) -> bool:
        expires = self.labels.get(_PREFIX + "expire", "")
        return expires[:1].isdigit() and expires <= _time("now")


def _objects(description: str) -> Iterator[_Object]:
    for line in description.strip().splitlines():
        head, *words = line.split()
        pairs = [(key, value) for key, _, value in (word.partition("=") for word in words)]
        fields = {key: value for key, value in pairs if key in _FIELDS}
        labels = dict(label(key, value) for key, value in pairs if key not in _FIELDS)
        yield _Object(*head.split(":", 1), fields, labels)


class Graph:
    """Builds objects in one namespace under a lease called `scaffold`, because the collector may run at any moment.

    `late`: everything is made without labels first, and labelled afterwards, the last first.
    """

    def __init__(self, store: orlop.Store, *, late: bool = False) -> None:
        self.store = store
        self.scaffold = store.with_lease(_SCAFFOLD)
        self._late = late
        self._objects: list[_Object] = []
        self._names: dict[str, str] = {}

    async def build(self, description: str) -> None:
        if not [lease async for lease in self.store.leases.list([f"id=={_SCAFFOLD}"])]:
            await self.store.leases.create(_SCAFFOLD)
        made = list(_objects(description))
        self._objects += made
        for each in made:
            await self._make(each, {} if self._late and each.kind != "L" else each.labels)
        for each in reversed(made) if self._late else ():
            await self._label(each)

    async def _make(self, each: _Object, labels: dict[str, str]) -> None:
        snapshots = self.scaffold.snapshots.using("native")
        parent = each.fields.get("parent", "")
        match each.kind:
            case "c":
                self.knows(each.name)
                await self.scaffold.content.put(each.name.encode(), labels=labels)
            case "s":
                await snapshots.prepare(f"{each.name} active", parent)
                await snapshots.commit(each.name, f"{each.name} active", labels)
            case "v":
                await snapshots.view(each.name, parent, labels)
            case "a":
                await snapshots.prepare(each.name, parent, labels)
            case "i":
                target = each.fields.get("target", "c:nothing")[2:]
                descriptor = orlop.Descriptor("application/octet-stream", digest_of(target), len(target))
                await self.scaffold.images.create(each.name, descriptor, labels)
            case "k":
                await self.store.containers.create(self._container(each, labels))
            case "b":
                await self.store.sandboxes.create(orlop.Sandbox(each.name, labels=labels))
            case "L":
                async with self.store.transaction() as tx:
                    tx.leases.create(each.name, labels)
                    for held in filter(None, each.fields.get("holds", "").split(",")):
                        kind, name = held.split(":", 1)
                        key = digest_of(name) if kind == "c" else name
                        tx.leases.add(each.name, orlop.LeaseResource(key, _TYPES[kind]))

    def _container(self, each: _Object, labels: dict[str, str]) -> orlop.Container:
        snapshot = each.fields.get("snapshot", "")
        return orlop.Container(
            each.name,
            labels,
            image=each.fields.get("image", ""),
            runtime=orlop.Runtime("runtime"),
            spec=orlop.Any("type", b""),
            snapshotter="native" if snapshot else "",
            snapshot_key=snapshot,
        )

    async def _label(self, each: _Object) -> None:
        match each.kind:
            case "c":
                await self.store.content.update(digest_of(each.name), each.labels)
            case "s" | "v" | "a":
                await self.store.snapshots.using("native").update(each.name, each.labels)
            case "i":
                await self.scaffold.images.update(each.name, labels=each.labels, mask=["labels"])
            case "k":
                await self.store.containers.update(self._container(each, each.labels), ["labels"])
            case "b":
                await self.store.sandboxes.update(orlop.Sandbox(each.name, labels=each.labels), ["labels"])

    def knows(self, name: str) -> None:
        """A blob of this name may be found."""
        self._names[digest_of(name)] = name

    async def survivors(self) -> set[str]:
        """Without the scaffold, after a collection. Snapshots of all kinds are `s:`; sandboxes are left out."""
        if [lease async for lease in self.store.leases.list([f"id=={_SCAFFOLD}"])]:
            await self.store.leases.delete(_SCAFFOLD)
        await self.store.collect()
        found = await self.present()
        for name in [each[2:] for each in found if each.startswith("c:")]:
            assert await self.store.content.read(digest_of(name)) == name.encode()
        return found

    async def present(self) -> set[str]:
        snapshots = self.store.snapshots.using("native")
        return (
            {f"c:{self._names[info.digest]}" async for info in self.store.content.list()}
            | {f"s:{info.name}" async for info in snapshots.list()}
            | {f"i:{image.name}" async for image in self.store.images.list()}
            | {f"k:{container.id}" async for container in self.store.containers.list()}
            | {f"L:{lease.id}" async for lease in self.store.leases.list()}
        )

    async def let_go(self) -> None:
        """Take away all that is a root by itself; what is left is the collector's."""
        mask = [f"labels.{_PREFIX}root"]
        async with self.store.transaction() as tx:
            for each in self._objects:
                if each.kind == "L" and not each.is_expired:
                    tx.leases.delete(each.name)
                elif each.kind == "i" and not each.is_expired:
                    tx.images.delete(each.name)
                elif each.kind == "k":
                    tx.containers.delete(each.name)
                elif each.kind == "b":
                    tx.sandboxes.delete(each.name)
                elif each.kind == "c" and each.is_root_by_label:
                    tx.content.update(digest_of(each.name), {}, mask)
        for each in self._objects:
            if each.kind in "sva" and each.is_root_by_label:
                await self.store.snapshots.using("native").update(each.name, {}, mask)

    async def check(self, description: str, survivors: str) -> None:
        """Just these survive, of two collections as of one; and nothing does once the roots are gone."""
        await self.build(description)
        expected = set(survivors.split())
        assert await self.survivors() == expected
        assert await self.survivors() == expected
        await self.let_go()
        assert await self.survivors() == set()
