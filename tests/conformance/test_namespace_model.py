"""Namespaces against a model in plain dicts. Source: spec metadata 1.4, 3, 9; RELIABILITY 3.1."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

import orlop

from ..support.machines import LABEL_PATHS, LabelMaps, Machine, hold, masks, mostly
from ..support.models import BLOCKED, DIGESTS, INVALID, NamespaceModel

GOOD = ["a", "b", "B", "version"]
Names = mostly(["a", "b"], ["B", "version", "", "a..b", "a\n", "z" * 77], times=5)
Inside = mostly(["a", "b"], ["B", "version"])
Kinds = st.sampled_from(["images", "blobs", "containers", "sandboxes", "leases"])


def make(kind: str, there: orlop.Store) -> Awaitable[Any]:
    """The one record of this kind; blobs are roots, so that no collection takes them."""
    spec = orlop.Any("types/spec", b"{}")
    return {
        "images": lambda: there.images.create("x", orlop.Descriptor("application/x", DIGESTS[0], 7)),
        "blobs": lambda: there.content.put(b"x", labels={"containerd.io/gc.root": "1"}),
        "containers": lambda: there.containers.create(orlop.Container("x", runtime=orlop.Runtime("r"), spec=spec)),
        "sandboxes": lambda: there.sandboxes.create(orlop.Sandbox("x")),
        "leases": lambda: there.leases.create("x"),
    }[kind]()


def records(kind: str, there: orlop.Store) -> AsyncIterator[Any]:
    return (there.content if kind == "blobs" else getattr(there, kind)).list()  # type: ignore[no-any-return]


async def unmake(kind: str, there: orlop.Store) -> None:
    if kind == "blobs":
        digests = [info.digest async for info in there.content.list()]
        await there.content.delete(digests[0] if digests else DIGESTS[0])
    else:
        await getattr(there, kind).delete("x")


class NamespaceMachine(Machine):
    model: NamespaceModel

    def make_model(self) -> NamespaceModel:
        return NamespaceModel()

    @rule(name=Names, labels=LabelMaps)
    def create(self, name: str, labels: dict[str, str]) -> None:
        self.agree(self.ask(lambda: self.store.namespaces.create(name, labels)), self.model.create(name, labels))

    @rule(name=Names, labels=LabelMaps, mask=masks(*LABEL_PATHS[1:-1], bad=["labels", "labels."]))
    def update(self, name: str, labels: dict[str, str], mask: list[str] | None) -> None:
        got = self.ask(lambda: self.store.namespaces.update(name, labels, mask))
        self.agree(got, self.model.update(name, labels, mask))

    @rule(name=Names)
    def get(self, name: str) -> None:
        self.agree(self.ask(lambda: self.store.namespaces.get(name)), self.model.get(name))

    @rule(name=Names)
    def delete(self, name: str) -> None:
        blocking = self.model.blocking(name)
        self.agree(self.ask(lambda: self.store.namespaces.delete(name)), self.model.delete(name))
        if blocking:
            assert re.search(f'"{name}".*' + ", ".join(rf"\b{kind} \(1\)" for kind in blocking), self.message)
            assert re.findall(r"images|blobs|containers|sandboxes|leases", self.message) == blocking

    @rule(name=Inside, kind=Kinds)
    def write_inside(self, name: str, kind: str) -> None:
        self.agree(self.ask(lambda: make(kind, self.within(name))), self.model.write_inside(name, kind))

    @rule(name=Inside, kind=Kinds)
    def delete_inside(self, name: str, kind: str) -> None:
        self.agree(self.ask(lambda: unmake(kind, self.within(name))), self.model.delete_inside(name, kind))

    @rule(name=st.sampled_from(["", "no/name", "a..b"]))
    def write_nowhere(self, name: str) -> None:
        got = self.ask(lambda: self.within(name).leases.create("x"))
        self.agree(got, INVALID if name else BLOCKED)

    @invariant()
    def lists_are_as_the_model_says(self) -> None:
        assert self.every(self.store.namespaces.list()) == self.model.list()
        for name in GOOD:
            assert self.loop.run(lambda name=name: self.kinds_in(name)) == self.model.inside.get(name, set())

    async def kinds_in(self, name: str) -> set[str]:
        kinds = ("images", "blobs", "containers", "sandboxes", "leases")
        return {kind for kind in kinds if [record async for record in records(kind, self.within(name))]}


@pytest.mark.slow
def test_namespaces_do_what_the_model_does() -> None:
    hold(NamespaceMachine)
