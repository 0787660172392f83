"""Images against a model in plain dicts. Source: spec metadata 8, 11, 12.6; RELIABILITY 3.1."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

import orlop

from ..support.machines import (
    HOUR_NS,
    LABEL_PATHS,
    RecordMachine,
    anywhere,
    hold,
    label_maps,
    masks,
    mostly,
    somewhere,
    usually,
)
from ..support.models import DIGESTS, EXPIRE, ImageModel, Place

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Labels = label_maps(EXPIRE, EXPIRE)
Annotations = st.dictionaries(st.sampled_from(["k", "x.y/z"]), st.sampled_from(["1", "2", ""]), max_size=2)
Targets = st.builds(
    orlop.Descriptor, st.just(MANIFEST), st.sampled_from(DIGESTS), st.sampled_from([1, 2**62]), Annotations
)
BadTargets = st.sampled_from(
    [
        orlop.Descriptor("", DIGESTS[0], 7),
        orlop.Descriptor(MANIFEST, "sha256:short", 7, {"k": "3"}),
        orlop.Descriptor(MANIFEST, DIGESTS[0].upper(), 7),
        orlop.Descriptor(MANIFEST, "", 7),
        orlop.Descriptor(MANIFEST, DIGESTS[0], 0),
        orlop.Descriptor(MANIFEST, DIGESTS[0], -1),
    ]
)
AnyTargets = usually(Targets, BadTargets)
Epochs = mostly([None], [0, HOUR_NS, 2 * HOUR_NS])
Leases = mostly([None, "held"], ["gone"], times=4)


class ImageMachine(RecordMachine):
    """The lease `held` is in the first namespace only: in the second it is missing."""

    kind = "images"
    names = mostly(["a b/c:d@e", "牛"], ["B", "\x00", "n" * 512, "", "n" * 511 + "é"], times=12)
    model: ImageModel

    def make_model(self) -> ImageModel:
        return ImageModel(("ns1", "held"))

    async def prepare(self) -> None:
        await self.within("ns1").leases.create("held")

    @rule(at=anywhere(), given=AnyTargets, labels=Labels, epoch=Epochs, lease=Leases)
    def create(
        self, at: Place, given: orlop.Descriptor, labels: dict[str, str], epoch: int | None, lease: str | None
    ) -> None:
        images = self.of(at[0], lease)
        got = self.ask(lambda: images.create(at[1], given, labels, source_date_epoch=epoch))
        self.settle(got, self.model.create(at, given, labels, epoch, lease), at)

    @rule(
        at=somewhere(), given=AnyTargets, labels=Labels, epoch=Epochs, lease=Leases,
        mask=masks(
            *LABEL_PATHS, f"labels.{EXPIRE}", "target", "annotations", "annotations.k", "annotations.x.y/z",
            bad=["target.digest", "target.annotations.k", "annotation"],
        ),
    )  # fmt: skip
    def update(
        self,
        at: Place,
        given: orlop.Descriptor,
        labels: dict[str, str],
        epoch: int | None,
        lease: str | None,
        mask: list[str] | None,
    ) -> None:
        images = self.of(at[0], lease)
        got = self.ask(lambda: images.update(at[1], target=given, labels=labels, mask=mask, source_date_epoch=epoch))
        self.settle(got, self.model.update(at, given, labels, mask, epoch, lease), at)

    @rule(at=somewhere(), labels=Labels, mask=masks(*LABEL_PATHS, "target", "annotations.k"))
    def update_without_a_target(self, at: Place, labels: dict[str, str], mask: list[str] | None) -> None:
        got = self.ask(lambda: self.of(at[0]).update(at[1], labels=labels, mask=mask))
        self.settle(got, self.model.update(at, None, labels, mask), at)

    @rule(at=somewhere(), digest=st.sampled_from(["", *DIGESTS]), sync=st.booleans(), lease=Leases)
    def delete(self, at: Place, digest: str, sync: bool, lease: str | None) -> None:
        images = self.of(at[0], lease)
        got = self.ask(lambda: images.delete(at[1], target=digest, sync=sync))
        self.agree(got, self.model.delete_target(at, digest, lease))

    @invariant()
    def the_lease_holds_what_joined_it(self) -> None:
        for (space, lease), held in self.model.held.items():
            entries = self.every(self.within(space).leases.resources(lease))
            assert entries == [orlop.LeaseResource(name, "images") for name in sorted(held)]


@pytest.mark.slow
def test_images_do_what_the_model_does() -> None:
    hold(ImageMachine)
