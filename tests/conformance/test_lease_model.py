"""Leases and what they name against a model in plain dicts. Source: spec metadata 12; RELIABILITY 3.1."""

from __future__ import annotations

import re
import time
from datetime import datetime

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from msgspec.structs import replace

import orlop

from ..support.machines import LABEL_PATHS, RecordMachine, anywhere, hold, label_maps, masks, mostly, somewhere, usually
from ..support.models import DIGESTS, EXPIRE, NOW, RENEWED, LeaseModel, Place

Labels = label_maps(EXPIRE)  # an expiry of "1" is none: spec metadata 4
Lifetimes = mostly([None, None, 1000], [100_000, 0, -1], times=5)
Entries = usually(
    st.builds(
        orlop.LeaseResource, type=st.just("content"), id=st.sampled_from(DIGESTS)
    ) | st.builds(
        orlop.LeaseResource,
        type=st.sampled_from(["images", "ingests", "snapshots/native", "snapshots/a"]),
        id=st.sampled_from(["i", "B"]),
    ),
    st.sampled_from(
        [
            orlop.LeaseResource(id_, type_)
            for id_, type_ in [
                ("sha256:short", "content"), ("", "images"), ("", "ingests"), ("", "snapshots/native"),
                ("k", "snapshots"), ("k", "snapshots/"), ("k", "snapshots/a/b"), ("i", "images/x"),
                (DIGESTS[0], "content/x"), ("r", "ingests/x"),
                ("c", "containers"), ("l", "leases"), ("s", "sandboxes"), (DIGESTS[0], "Content"), ("r", "ingest"),
                ("x", ""),
            ]
        ]
    ),
    times=3,
)  # fmt: skip


class LeaseMachine(RecordMachine):
    kind = "leases"
    names = mostly(["any / thing 牛", "l"], ["B", "\x00", "l" * 512, "", "l" * 511 + "é"], times=12)
    model: LeaseModel
    seconds: int | None = None

    def make_model(self) -> LeaseModel:
        return LeaseModel()

    def learned(self, got: orlop.Lease, expected: orlop.Lease) -> orlop.Lease:
        if expected.created_at == NOW:
            expected = replace(expected, created_at=self.now(got.created_at))
        if expected.labels.get(EXPIRE) != RENEWED:
            return expected
        assert self.seconds is not None
        ends = datetime.fromisoformat(got.labels[EXPIRE]).timestamp()  # whole seconds: a little later, never sooner
        assert self.asked_ns / 1e9 + self.seconds <= ends <= time.time() + self.seconds + 2
        return replace(expected, labels={**expected.labels, EXPIRE: got.labels[EXPIRE]})

    @rule(at=anywhere(), labels=Labels, seconds=Lifetimes)
    def create(self, at: Place, labels: dict[str, str], seconds: int | None) -> None:
        space, name = at
        self.seconds = seconds
        got = self.ask(lambda: self.of(space).create(name, labels, expires_in_s=seconds))
        if not name and isinstance(got, orlop.Lease):  # an empty name asks for one
            assert re.fullmatch(r"\d{1,9}-[A-Za-z0-9_-]{4}", got.id)
        at = space, name or getattr(got, "id", "refused")
        self.settle(got, self.model.create(at, labels, seconds), at)

    @rule(at=somewhere(), labels=Labels, seconds=Lifetimes, mask=masks(*LABEL_PATHS, f"labels.{EXPIRE}"))
    def update(self, at: Place, labels: dict[str, str], seconds: int | None, mask: list[str] | None) -> None:
        self.changed(at, labels, mask, seconds)

    @rule(at=somewhere(), seconds=Lifetimes)
    def renew(self, at: Place, seconds: int | None) -> None:
        self.changed(at, {}, None, seconds)

    def changed(self, at: Place, labels: dict[str, str], mask: list[str] | None, seconds: int | None) -> None:
        self.seconds = seconds
        got = self.ask(lambda: self.of(at[0]).update(at[1], labels, mask, expires_in_s=seconds))
        self.settle(got, self.model.update(at, labels, mask, seconds), at)

    @rule(at=somewhere(), sync=st.booleans())
    def delete(self, at: Place, sync: bool) -> None:
        self.agree(self.ask(lambda: self.of(at[0]).delete(at[1], sync=sync)), self.model.delete(at))

    @rule(at=somewhere(), entry=Entries)
    def add(self, at: Place, entry: orlop.LeaseResource) -> None:
        self.agree(self.ask(lambda: self.of(at[0]).add(at[1], entry)), self.model.add(at, entry))

    @rule(at=somewhere(), entry=Entries, data=st.data())
    def remove(self, at: Place, entry: orlop.LeaseResource, data: st.DataObject) -> None:
        held = self.model.resources(at) if at in self.model.entries else []
        entry = data.draw(st.sampled_from([*held, entry]))
        self.agree(self.ask(lambda: self.of(at[0]).remove(at[1], entry)), self.model.remove(at, entry))

    @invariant()
    def leases_name_what_the_model_says(self) -> None:
        for at in self.model.entries:
            assert self.every(self.of(at[0]).resources(at[1])) == self.model.resources(at)


@pytest.mark.slow
def test_leases_do_what_the_model_does() -> None:
    hold(LeaseMachine)
