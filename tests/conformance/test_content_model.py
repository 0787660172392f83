"""What namespaces know of blobs against a model in plain dicts. Source: spec metadata 4, 8; RELIABILITY 3.1.

Blobs themselves, their files and their ingests: tests/storage/test_state_machine.py.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ..storage.test_state_machine import INLINE_BYTES, digest_of
from ..support.machines import (
    LABEL_PATHS,
    SPACES,
    LabelMaps,
    RecordMachine,
    Spaces,
    anywhere,
    hold,
    masks,
    mostly,
    somewhere,
)
from ..support.models import INVALID, ContentModel, Place

BLOBS = {digest_of(data): data for data in (b"", b"one", b"two", b"x" * INLINE_BYTES)}
Expected = mostly(["", "right"], ["wrong", "malformed"], times=10)


class ContentMachine(RecordMachine):
    """All of it is put into a lease, so that no collection takes any."""

    kind = "content"
    names = st.sampled_from(sorted(BLOBS))
    model: ContentModel

    def make_model(self) -> ContentModel:
        return ContentModel()

    async def prepare(self) -> None:
        for space in SPACES:
            await self.within(space).leases.create("keep")

    @rule(at=anywhere(), labels=LabelMaps, expected=Expected)
    def put(self, at: Place, labels: dict[str, str], expected: str) -> None:
        space, digest = at
        announced = {"": "", "right": digest, "wrong": digest_of(b"other"), "malformed": "sha256:short"}[expected]
        data = BLOBS[digest]
        got = self.ask(lambda: self.of(space, "keep").put(data, expected=announced, labels=labels))
        self.settle(got, self.model.put_blob(at, len(data), labels, announced), at)

    @rule(space=Spaces)
    def put_too_much(self, space: str) -> None:
        self.agree(self.ask(lambda: self.of(space).put(b"x" * (INLINE_BYTES + 1))), INVALID)

    @rule(at=somewhere(), labels=LabelMaps, mask=masks(*LABEL_PATHS, bad=["size", "digest"]))
    def update(self, at: Place, labels: dict[str, str], mask: list[str] | None) -> None:
        got = self.ask(lambda: self.of(at[0]).update(at[1], labels, mask))
        self.settle(got, self.model.update(at, labels, mask), at)

    @rule(at=somewhere())
    def get(self, at: Place) -> None:
        space, digest = at
        found = self.model.get(at)
        self.agree(self.ask(lambda: self.of(space).info(digest)), found)
        self.agree(self.ask(lambda: self.of(space).read(digest)), found if isinstance(found, str) else BLOBS[digest])


@pytest.mark.slow
def test_content_does_what_the_model_does() -> None:
    hold(ContentMachine)
