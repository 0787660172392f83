"""Why something is kept, or since when it is not. Source: DESIGN 8, messages (Explain), spec gc 3 to 5."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

import orlop
from orlop.protocol import errors
from orlop.protocol import messages as m

from ..support.calm import (
    BREF,
    BREF_IMAGE,
    EXPIRE,
    FLAT,
    HOUR_S,
    REF,
    REF_IMAGE,
    REF_NATIVE,
    ROOT,
    ROOTED,
    Calm,
    CalmMaker,
    data_of,
    make_snapshot,
)  # fmt: skip
from ..support.layers import digest_of

HOUR_NS = HOUR_S * 10**9
USED_AT = "containerd.io/gc.cond.value-usedat"
CONDITION = "containerd.io/gc.cond.snapshot.native"
BACK = "is named by a back reference"


class Names:
    """Blobs by names of their own. A label's value is a blob's name where the label refers to content."""

    def __init__(self, store: orlop.Store) -> None:
        self.store = store
        self._known: dict[str, str] = {}

    def digest(self, name: str) -> str:
        digest = digest_of(data_of(name))
        self._known[digest] = name
        return digest

    async def blob(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        given = {k: self.digest(v) if k.startswith((REF, BREF)) else v for k, v in (labels or {}).items()}
        await self.store.content.put(data_of(name), labels=given)
        return self.digest(name)

    async def image(self, name: str, target: str, labels: Mapping[str, str] | None = None) -> None:
        await self.store.images.create(name, orlop.Descriptor("t", self.digest(target), 300), dict(labels or {}))

    def path(self, reasons: list[m.Reason]) -> str:
        """`image app -target-> content m`"""
        *above, last = reasons
        assert last.how == ""
        steps = [f"{each.kind} {self._name(each.name)} -{each.how}-> " for each in above]
        return "".join(steps) + f"{last.kind} {self._name(last.name)}"

    def _name(self, name: str) -> str:
        return self._known.get(name, name)

    async def why(self, name: str, **more) -> m.Explanation:
        (found,) = await self.store.why(name, **more)
        assert (found.namespace, found.name) == ("default", name)
        return found

    async def ways(self, name: str) -> list[str]:
        """Once nothing is in question."""
        await self.store.collect()
        found = await self.why(name)
        assert (found.state, found.more) == (m.Kept.ALIVE, False)
        return sorted(self.path(each) for each in found.paths)


@pytest.fixture
def names(calm: Calm) -> Names:
    return Names(calm.store)


@pytest.fixture
def bin_names(binned: Calm) -> Names:
    return Names(binned.store)


# paths -------------------------------------------------------------------------------------------------------


async def test_a_path_leads_from_the_image_down(names: Names) -> None:
    await names.image("app", "m")
    await names.blob("m", {f"{REF}.l.0": "l"})
    await names.blob("l")
    assert await names.ways(names.digest("l")) == ["image app -target-> content m -label-> content l"]
    assert await names.ways(names.digest("m")) == ["image app -target-> content m"]
    assert await names.ways("app") == ["image app"]


async def test_every_way_from_every_root_is_told(names: Names) -> None:
    await names.image("one", "m1")
    await names.image("two", "m2")
    await names.blob("m1", {f"{REF}.l.0": "base"})
    await names.blob("m2", {f"{REF}.l.0": "base", f"{REF}.config": "c"})
    await names.blob("c", {REF: "base"})
    await names.blob("base", ROOTED)
    assert await names.ways(names.digest("base")) == [
        "image one -target-> content m1 -label-> content base",
        "image two -target-> content m2 -label-> content base",
        "image two -target-> content m2 -label-> content c -label-> content base",
        "root label containerd.io/gc.root --> content base",
    ]


async def test_a_lease_is_a_root(names: Names) -> None:
    await names.store.leases.create("l")
    leased = Names(names.store.with_lease("l"))
    await leased.blob("m", {REF: "k"})
    await leased.store.leases.add("l", orlop.LeaseResource("app", "images"))
    await names.image("app", "m", {EXPIRE: "2001-01-01T00:00:00Z"})
    names.digest("m")
    assert await names.ways("app") == ["lease l -entry-> image app"]
    assert await names.ways(names.digest("m")) == [
        "lease l -entry-> content m",
        "lease l -entry-> image app -target-> content m",
    ]


async def test_of_a_root_that_expires_it_is_said_when(names: Names, calm: Calm) -> None:
    await names.image("app", "m", {EXPIRE: "2200-01-01T00:00:00Z"})
    await names.blob("m")
    (way,) = await names.ways(names.digest("m"))
    assert way.startswith("root until 2200-01-01T00:00:00")
    assert way.endswith(" --> image app -target-> content m")


async def test_a_flat_lease_keeps_its_entries_alone(names: Names) -> None:
    await names.store.leases.create("flat", {FLAT: "true"})
    await Names(names.store.with_lease("flat")).blob("m", {REF: "k"})
    names.digest("m")
    await names.blob("k")
    assert (await names.why(names.digest("k"))).paths == []
    assert await names.ways(names.digest("m")) == ["lease flat -entry-> content m"]


async def test_a_flat_lease_keeps_an_images_target_and_a_snapshots_parents(names: Names) -> None:
    await names.store.leases.create("flat", {FLAT: "true"})
    for entry in (("app", "images"), ("top", "snapshots/native")):
        await names.store.leases.add("flat", orlop.LeaseResource(*entry))
    await names.image("app", "m", {EXPIRE: "2001-01-01T00:00:00Z"})
    await names.blob("m")
    await make_snapshot(names.store, "base")
    await make_snapshot(names.store, "top", "base")
    assert await names.ways(names.digest("m")) == ["lease flat -entry-> image app -target-> content m"]
    assert await names.ways("native/base") == ["lease flat -entry-> snapshot native/top -parent-> snapshot native/base"]


async def test_what_is_kept_flat_and_normally_has_both_ways(names: Names) -> None:
    await names.store.leases.create("flat", {FLAT: "true"})
    await names.image("app", "m")
    await Names(names.store.with_lease("flat")).blob("m")
    assert await names.ways(names.digest("m")) == ["image app -target-> content m", "lease flat -entry-> content m"]


async def test_a_back_reference_is_a_way(names: Names) -> None:
    await names.image("app", "m")
    await names.blob("m")
    await names.blob("of image", {BREF_IMAGE: "app"})
    await names.blob("of blob", {BREF: "m"})
    assert await names.ways(names.digest("of image")) == [f"image app -{BACK}-> content of image"]
    assert await names.ways(names.digest("of blob")) == [f"image app -target-> content m -{BACK}-> content of blob"]


async def test_a_way_may_lead_over_what_is_absent(names: Names) -> None:
    await names.blob("a", {ROOT: "r", REF: "absent"})
    await names.blob("b", {BREF: "absent"})
    assert await names.ways(names.digest("b")) == [
        f"root label containerd.io/gc.root --> content a -label-> content absent -{BACK}-> content b"
    ]


async def test_a_condition_is_a_way_while_it_holds(names: Names, calm: Calm) -> None:
    await make_snapshot(names.store, "s", labels={USED_AT: calm.clock.after(0)})
    await names.image("app", "m", {f"{CONDITION}/x": "usedat<2h|s"})
    assert await names.ways("native/s") == ["image app -condition-> snapshot native/s"]
    calm.clock.shift_s = 3 * HOUR_S
    await names.store.collect()
    with pytest.raises(errors.NotFound):
        await names.store.why("native/s")


async def test_containers_images_and_snapshots_keep_by_label_and_by_parent(names: Names) -> None:
    await make_snapshot(names.store, "base")
    await make_snapshot(names.store, "top", "base")
    await names.store.containers.create(
        orlop.Container("c", runtime=orlop.Runtime("r"), spec=orlop.Any("t", b""), snapshotter="native",
                        snapshot_key="top")
    )  # fmt: skip
    await names.blob("config", {REF_NATIVE: "top"})
    await names.image("app", "config")
    await names.image("main", "none", {REF_IMAGE: "app"})
    below = "snapshot native/top -parent-> snapshot native/base"
    assert await names.ways("native/base") == [
        f"container c -snapshot-> {below}",
        f"image app -target-> content config -label-> {below}",
        f"image main -label-> image app -target-> content config -label-> {below}",
    ]


async def test_a_ring_is_gone_round_once(names: Names) -> None:
    await names.image("app", "b")
    for name, following in (("a", "b"), ("b", "c"), ("c", "a"), ("self", "self")):
        await names.blob(name, {REF: following, **(ROOTED if name == "self" else {})})
    assert await names.ways(names.digest("b")) == ["image app -target-> content b"]
    way = "image app -target-> content b -label-> content c -label-> content a"
    assert await names.ways(names.digest("a")) == [way]
    assert await names.ways(names.digest("self")) == ["root label containerd.io/gc.root --> content self"]


@pytest.mark.parametrize("limit, paths, more", [(1, 1, True), (4, 4, True), (5, 5, False), (6, 5, False)])
async def test_no_more_ways_are_told_than_were_asked_for(names: Names, limit: int, paths: int, more: bool) -> None:
    for number in range(5):
        await names.image(f"image {number}", "m")
    await names.blob("m")
    found = await names.why(names.digest("m"), limit=limit)
    assert (found.state, len(found.paths), found.more) == (m.Kept.ALIVE, paths, more)
    assert len({names.path(each) for each in found.paths}) == paths


@pytest.mark.parametrize("limit", [0, 1001])
async def test_a_limit_has_limits(names: Names, limit: int) -> None:
    await names.blob("m", ROOTED)
    with pytest.raises(errors.InvalidArgument):
        await names.store.why(names.digest("m"), limit=limit)


async def test_a_long_chain_is_followed_to_its_root(names: Names) -> None:
    count = 120
    await names.image("app", "node 0")
    for number in range(count):
        await names.blob(f"node {number}", {REF: f"node {number + 1}"})
    (way,) = await names.ways(names.digest(f"node {count - 1}"))
    assert way.count("->") == count


@pytest.mark.slow
async def test_what_a_chain_too_long_to_tell_keeps_is_alive(lasting: CalmMaker) -> None:
    count = 1100
    async with lasting.open() as calm:
        names = Names(calm.store)
        await names.image("app", "node 0")
        for first in range(0, count, 110):
            async with calm.store.transaction() as tx:
                for number in range(first, first + 110):
                    labels = {REF: names.digest(f"node {number + 1}")}
                    tx.content.put(data_of(f"node {number}"), labels=labels)
        await calm.store.collect()
        found = await names.why(names.digest(f"node {count - 1}"))
        assert found.more
        assert found.state is m.Kept.ALIVE


# namespaces and names ----------------------------------------------------------------------------------------


async def test_one_namespace_or_all_are_asked(calm: Calm) -> None:
    mine, other = Names(calm.store), Names(calm.store.in_namespace("other"))
    for each in (mine, other):
        await each.image("app", "both")
        await each.blob("both")
    digest = mine.digest("both")
    assert [each.namespace for each in await mine.store.why(digest)] == ["default"]
    found = await mine.store.why(digest, all_namespaces=True)
    assert [each.namespace for each in found] == ["default", "other"]
    assert [mine.path(each.paths[0]) for each in found] == ["image app -target-> content both"] * 2


async def test_what_only_another_namespace_has_is_not_found_here(calm: Calm) -> None:
    await Names(calm.store.in_namespace("other")).image("theirs", "m")
    with pytest.raises(errors.NotFound) as error:
        await calm.store.why("theirs")
    assert "all-namespaces" in error.value.hint
    (found,) = await calm.store.why("theirs", all_namespaces=True)
    assert (found.namespace, found.kind, found.state) == ("other", "image", m.Kept.ALIVE)


@pytest.mark.parametrize("name", ["none", "native/none", "sha256:" + "0" * 64, "native/", "sha256:xyz"])
@pytest.mark.parametrize("all_namespaces", [False, True])
async def test_what_is_nowhere_is_not_found(calm: Calm, name: str, all_namespaces: bool) -> None:
    with pytest.raises(errors.NotFound) as error:
        await calm.store.why(name, all_namespaces=all_namespaces)
    assert "snapshotter/key" in error.value.hint


async def test_an_image_and_a_snapshot_of_one_name_are_both_explained(names: Names) -> None:
    await names.image("native/a", "m")
    await make_snapshot(names.store, "a", labels=ROOTED)
    found = await names.store.why("native/a")
    assert [(each.kind, each.state) for each in found] == [("image", m.Kept.ALIVE), ("snapshot", m.Kept.ALIVE)]


# not alive ---------------------------------------------------------------------------------------------------


async def test_until_the_collector_has_looked_it_is_in_question(names: Names) -> None:
    await names.image("app", "m")
    await names.blob("m")
    await names.store.images.delete("app")
    found = await names.why(names.digest("m"))
    assert (found.state, found.paths, found.lost) == (m.Kept.SUSPECT, [], None)


async def test_the_condemned_say_since_when_until_when_and_what_they_lost(bin_names: Names) -> None:
    names = bin_names
    await names.image("app", "m")
    await names.blob("m", {REF: "l"})
    await names.blob("l")
    await names.store.images.delete("app")
    before = time.time_ns()
    await names.store.collect()
    after = time.time_ns()
    for name, lost in (
        ("m", m.Reason("image", "app", "target")),
        ("l", m.Reason("content", names.digest("m"), "label")),
    ):
        found = await names.why(names.digest(name))
        assert (found.state, found.paths, found.lost) == (m.Kept.CONDEMNED, [], lost)
        assert before <= found.since <= after
        assert found.since + HOUR_NS <= found.due_at <= after + HOUR_NS


async def test_of_what_expired_it_is_said_that_it_was_its_own_root(binned: Calm) -> None:
    names = Names(binned.store)
    await names.image("app", "m", {EXPIRE: binned.clock.after(60)})
    binned.clock.shift_s = HOUR_S
    await names.store.collect()
    found = await names.why("app")
    assert (found.state, found.lost) == (m.Kept.CONDEMNED, m.Reason("root", "", ""))


async def test_when_the_condemned_are_due_follows_the_round(binned: Calm) -> None:
    """Those that are found dead together go together."""
    names = Names(binned.store)
    for name in ("a", "b"):
        await names.image(name, f"m {name}")
        await names.blob(f"m {name}")
        await names.store.images.delete(name)
        await names.store.collect()
        binned.clock.shift_s += 100
    due = [(await names.why(names.digest(f"m {name}"))).due_at for name in ("a", "b")]
    assert due == [each.due_at for each in (await names.store.collector()).bin]
    assert 100 * 10**9 <= due[1] - due[0] < 200 * 10**9


async def test_what_was_never_kept_is_condemned_and_goes_with_the_next_collection(names: Names) -> None:
    digest = await names.blob("loose")
    found = await names.why(digest)
    assert (found.state, found.due_at, found.lost) == (m.Kept.CONDEMNED, None, None)
    assert found.since > 0
    await names.store.collect()
    with pytest.raises(errors.NotFound):
        await names.store.why(digest)


async def test_what_lives_again_says_so(bin_names: Names) -> None:
    names = bin_names
    await names.image("app", "m")
    digest = await names.blob("m")
    await names.store.images.delete("app")
    await names.store.collect()
    await names.image("again", "m")
    await names.store.collect()
    assert await names.ways(digest) == ["image again -target-> content m"]


async def test_asking_changes_nothing(names: Names, calm: Calm) -> None:
    await names.image("app", "m")
    digest = await names.blob("m")
    commit = calm.running.storage.statistics().commit
    await names.store.why(digest)
    await names.store.why(digest, all_namespaces=True)
    assert calm.running.storage.statistics().commit == commit
