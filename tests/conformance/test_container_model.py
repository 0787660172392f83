"""Containers against a model in plain dicts. Source: spec metadata 8, 10; RELIABILITY 3.1."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from msgspec.structs import replace

import orlop

from ..support.machines import (
    EXTENSION_PATHS,
    LABEL_PATHS,
    Anys,
    Extensions,
    Ids,
    LabelMaps,
    RecordMachine,
    Runtimes,
    Times,
    anywhere,
    hold,
    masks,
    mostly,
    somewhere,
    usually,
)
from ..support.models import ContainerModel, Place

Containers = st.builds(
    orlop.Container,
    id=st.just("replaced"),
    labels=LabelMaps,
    image=st.sampled_from(["", "i", "j"]),
    runtime=Runtimes,
    spec=usually(Anys, st.none(), times=12),
    snapshotter=mostly(["native"], [""], times=12),
    snapshot_key=st.sampled_from(["", "k"]),
    created_at=Times,
    updated_at=Times,
    extensions=usually(Extensions, st.just({"": orlop.Any("types/one", b"1")}), times=12),
    sandbox=st.sampled_from(["", "s", "t"]),
)


class ContainerMachine(RecordMachine):
    kind = "containers"
    model: ContainerModel

    def make_model(self) -> ContainerModel:
        return ContainerModel()

    @rule(at=anywhere(), given=Containers)
    def create(self, at: Place, given: orlop.Container) -> None:
        given = replace(given, id=at[1])
        got = self.ask(lambda: self.of(at[0]).create(given))
        self.settle(got, self.model.create(at[0], given), at)

    @rule(
        at=somewhere(), given=Containers, alike=mostly([True], [False], times=2),
        mask=masks(
            *LABEL_PATHS, *EXTENSION_PATHS, "spec", "image", "snapshotkey",
            bad=["extensions.", "snapshot_key", "snapshotter", "runtime", "runtime.name", "sandbox", "spec.value"],
        ),
    )  # fmt: skip
    def update(self, at: Place, given: orlop.Container, alike: bool, mask: list[str] | None) -> None:
        given = replace(given, id=at[1])
        before = self.model.records.get(at)
        if alike and before is not None:  # what an update without a mask must leave alone
            runtime = replace(given.runtime, name=before.runtime.name)
            given = replace(given, runtime=runtime, snapshotter=before.snapshotter)
        got = self.ask(lambda: self.of(at[0]).update(given, mask))
        self.settle(got, self.model.update(at[0], given, mask), at)

    @rule(name=Ids, given=Containers, mask=masks("labels"))
    def update_without_a_namespace(self, name: str, given: orlop.Container, mask: list[str] | None) -> None:
        given = replace(given, id=name)
        self.agree(self.ask(lambda: self.of("").update(given, mask)), self.model.update("", given, mask))


@pytest.mark.slow
def test_containers_do_what_the_model_does() -> None:
    hold(ContainerMachine)
