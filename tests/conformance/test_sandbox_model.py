"""Sandbox records against a model in plain dicts. Source: spec metadata 8, 13; RELIABILITY 3.1."""

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
    LabelMaps,
    RecordMachine,
    Runtimes,
    Times,
    anywhere,
    hold,
    masks,
    mostly,
    somewhere,
)
from ..support.models import Place, SandboxModel

Sandboxes = st.builds(
    orlop.Sandbox,
    sandbox_id=st.just("replaced"),
    runtime=Runtimes,
    spec=st.none() | Anys,
    labels=LabelMaps,
    created_at=Times,
    updated_at=Times,
    extensions=Extensions,
    sandboxer=st.sampled_from(["", "podsandbox"]),
)


class SandboxMachine(RecordMachine):
    kind = "sandboxes"
    model: SandboxModel

    def make_model(self) -> SandboxModel:
        return SandboxModel()

    @rule(at=anywhere(), given=Sandboxes)
    def create(self, at: Place, given: orlop.Sandbox) -> None:
        given = replace(given, sandbox_id=at[1])
        got = self.ask(lambda: self.of(at[0]).create(given))
        self.settle(got, self.model.create(at[0], given), at)

    @rule(
        at=somewhere(), given=Sandboxes, alike=mostly([True], [False], times=2),
        mask=masks(
            *LABEL_PATHS, *EXTENSION_PATHS, "spec", "runtime",
            bad=["extensions.", "runtime.name", "sandboxer", "sandbox_id", "spec.value"],
        ),
    )  # fmt: skip
    def update(self, at: Place, given: orlop.Sandbox, alike: bool, mask: list[str] | None) -> None:
        given = replace(given, sandbox_id=at[1])
        before = self.model.records.get(at)
        if alike and before is not None:  # what an update without a mask must leave alone
            given = replace(given, runtime=replace(given.runtime, name=before.runtime.name))
        got = self.ask(lambda: self.of(at[0]).update(given, mask))
        self.settle(got, self.model.update(at[0], given, mask), at)


@pytest.mark.slow
def test_sandboxes_do_what_the_model_does() -> None:
    hold(SandboxMachine)
