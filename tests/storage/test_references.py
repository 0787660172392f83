"""What labels and fields mean to the collector, row by row. Source: spec gc 2 to 4."""

from __future__ import annotations

from itertools import pairwise

import pytest

from orlop.protocol.records import Container, ContentInfo, Descriptor, Image, Lease, Sandbox, SnapshotInfo, SnapshotKind
from orlop.storage.engine import Kind
from orlop.storage.ingests import IngestRecord
from orlop.storage.references import (
    EdgeKind,
    edges,
    expires_at,
    holds,
    is_flat,
    is_root,
    resource_target,
    switches_at,
    used_at,
)

GC = "containerd.io/gc."
DIGEST = "sha256:" + "1" * 64
TARGET = "sha256:" + "2" * 64
SECOND = 1_000_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
NOW = 1_700_000_000 * SECOND
"""2023-11-14T22:13:20Z"""


def content(labels: dict[str, str]) -> ContentInfo:
    return ContentInfo(DIGEST, 1, labels)


def snapshot(labels: dict[str, str], parent: str = "") -> SnapshotInfo:
    return SnapshotInfo("native", "key", SnapshotKind.COMMITTED, parent, labels)


def image(labels: dict[str, str]) -> Image:
    return Image("name", Descriptor("type", TARGET, 1), labels)


def container(labels: dict[str, str], snapshotter: str = "") -> Container:
    return Container("id", labels, image="name", snapshotter=snapshotter, snapshot_key="top" if snapshotter else "")


def sandbox(labels: dict[str, str]) -> Sandbox:
    return Sandbox("id", labels=labels)


def lease(labels: dict[str, str]) -> Lease:
    return Lease("id", labels=labels)


def implied(record: object, *edge_kinds: EdgeKind) -> list[tuple[Kind, str]]:
    """The other ends of the record's edges of these kinds."""
    values = {kind.value for kind in edge_kinds}
    return [(out.kind, out.name) for out in edges(record) if out.edge in values]


def labelled(record: object) -> list[tuple[Kind, str]]:
    return implied(record, EdgeKind.LABEL, EdgeKind.CONTAINER)


# grammar of references ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word, kind", [("content", Kind.CONTENT), ("image", Kind.IMAGE)])
@pytest.mark.parametrize("suffix", ["", ".", "/", ".l.0", ".a/b", "/a.b", "/ any", "..", "./"])
def test_a_reference_ends_or_goes_on_with_dot_or_slash(word: str, kind: Kind, suffix: str) -> None:
    assert labelled(content({f"{GC}ref.{word}{suffix}": "value"})) == [(kind, "value")]


@pytest.mark.parametrize("word", ["content", "image"])
@pytest.mark.parametrize("suffix", ["X", "-x", "_", "s", " ", ":x", "|"])
def test_any_other_character_after_a_reference_makes_it_another_word(word: str, suffix: str) -> None:
    assert edges(content({f"{GC}ref.{word}{suffix}": "value"})) == []


@pytest.mark.parametrize(
    "key, snapshotter",
    [
        ("native", "native"),
        ("native/", "native"),
        ("native/n", "native"),
        ("native/a/b.c", "native"),
        ("native.1", "native.1"),
        ("native.1/n", "native.1"),
        ("my-proxy", "my-proxy"),
    ],
)
@pytest.mark.parametrize("value", ["key", "d/e", "a b|c"])
def test_only_a_slash_ends_the_name_of_a_snapshotter(key: str, snapshotter: str, value: str) -> None:
    expected = [(Kind.SNAPSHOT, f"{snapshotter}/{value}")]
    assert labelled(content({f"{GC}ref.snapshot.{key}": value})) == expected
    assert implied(content({f"{GC}bref.snapshot.{key}": value}), EdgeKind.BACK) == expected


@pytest.mark.parametrize(
    "word, kind", [("content", Kind.CONTENT), ("image", Kind.IMAGE), ("container", Kind.CONTAINER)]
)
@pytest.mark.parametrize("suffix", [".", "/", ".x", "/x", ".a/b"])
def test_a_back_reference_goes_on_with_dot_or_slash(word: str, kind: Kind, suffix: str) -> None:
    assert implied(content({f"{GC}bref.{word}{suffix}": "value"}), EdgeKind.BACK) == [(kind, "value")]


@pytest.mark.parametrize(
    "key",
    [
        "containerd.io/gc.ref",
        "containerd.io/gc.ref.",
        "containerd.io/gc.ref.unknown",
        "containerd.io/gc.ref.container",
        "containerd.io/gc.ref.container.x",
        "containerd.io/gc.ref.lease",
        "containerd.io/gc.ref.Content",
        "containerd.io/gc.ref.snapshot",
        "containerd.io/gc.ref.snapshot/native",
        "containerd.io/gc.ref.snapshotnative",
        "containerd.io/gc.refcontent",
        "containerd.io/gc.ref/content",
        "containerd.io/gc.reference.content",
        "containerd.io/gc.bref.contentx",
        "containerd.io/gc.bref.containerx",
        "containerd.io/gc.bref.image-x",
        "containerd.io/gc.bref.snapshot",
        "containerd.io/gc.bref.snapshot/native",
        "containerd.io/gc.bref.lease",
        "containerd.io/gc.bref",
        "containerd.io/gc.cond.value-usedat",
        "containerd.io/gc",
        "gc.ref.content",
        "x/containerd.io/gc.ref.content",
        "containerd.io/xgc.ref.content",
    ],
)
def test_what_is_no_reference(key: str) -> None:
    assert edges(content({key: "value"})) == []


def test_every_label_counts_and_each_target_once() -> None:
    labels = {f"{GC}ref.content.{n}": f"d{n // 2}" for n in range(4)} | {f"{GC}ref.image": "i", "other": "label"}
    assert sorted(labelled(content(labels))) == sorted([(Kind.CONTENT, "d0"), (Kind.CONTENT, "d1"), (Kind.IMAGE, "i")])


# which labels count on which object --------------------------------------------------------------------------

REF = {f"{GC}ref.content": "d", f"{GC}ref.image.x": "i", f"{GC}ref.snapshot.native/x": "s"}
REFERRED = {(Kind.CONTENT, "d"), (Kind.IMAGE, "i"), (Kind.SNAPSHOT, "native/s")}
BREF = {f"{GC}bref.content.x": "d", f"{GC}bref.container.x": "c", f"{GC}bref.snapshot.native": "s"}
REFERRED_BACK = {(Kind.CONTENT, "d"), (Kind.CONTAINER, "c"), (Kind.SNAPSHOT, "native/s")}
COND = {f"{GC}cond.snapshot.native": "usedat<2h|s"}
PAST = {f"{GC}expire": "2001-01-01T00:00:00Z"}


@pytest.mark.parametrize("make", [content, snapshot, image, container, sandbox])
def test_references_count_on(make) -> None:
    assert set(labelled(make(REF))) == REFERRED


@pytest.mark.parametrize("make", [container, sandbox])
def test_labels_of_containers_and_sandboxes_are_told_from_those_of_others(make) -> None:
    assert set(implied(make(REF), EdgeKind.CONTAINER)) == REFERRED
    assert implied(make(REF), EdgeKind.LABEL) == []


@pytest.mark.parametrize("make", [content, snapshot, image])
def test_back_references_count_on(make) -> None:
    assert set(implied(make(BREF | PAST), EdgeKind.BACK)) == REFERRED_BACK


@pytest.mark.parametrize("make, count", [(content, 1), (image, 1), (snapshot, 0), (container, 0), (sandbox, 0)])
def test_conditions_count_on(make, count: int) -> None:
    assert implied(make(COND), EdgeKind.CONDITION) == [(Kind.SNAPSHOT, "native/s")] * count


def test_labels_of_a_sandbox_and_a_lease_lead_nowhere_else() -> None:
    assert edges(sandbox(BREF | COND)) == []
    assert edges(lease(REF | BREF | COND)) == []


@pytest.mark.parametrize("key", ["root", "root.of.something", "rootfoo"])
@pytest.mark.parametrize("make", [content, snapshot])
def test_the_root_label_counts_on(make, key: str) -> None:
    assert is_root(make({GC + key: "no matter what"}), NOW)
    assert not is_root(make({f"{GC}roo": "x", "gc.root": "x"}), NOW)
    assert not is_root(make({}), NOW)


@pytest.mark.parametrize("make", [image, lease])
def test_the_root_label_means_nothing_on(make) -> None:
    assert not is_root(make({f"{GC}root": "x"} | PAST), NOW)


@pytest.mark.parametrize("make", [content, snapshot])
def test_an_expiry_means_nothing_on(make) -> None:
    assert not is_root(make({f"{GC}expire": "2200-01-01T00:00:00Z"}), NOW)
    assert is_root(make({f"{GC}root": "x"} | PAST), NOW)
    assert expires_at(make(PAST)) is None


def test_a_container_is_always_a_root() -> None:
    assert is_root(container(PAST), NOW)


@pytest.mark.parametrize("value", ["true", "false", "0", "x"])
def test_any_value_makes_a_lease_flat(value: str) -> None:
    assert is_flat(lease({f"{GC}flat": value}))
    assert not is_flat(lease({f"{GC}flat.x": value}))
    assert not is_flat(lease({}))


# expiry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [image, lease])
@pytest.mark.parametrize(
    "text, at_ns",
    [
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-15T00:13:20+02:00", NOW),
        ("2023-11-14T16:43:20-05:30", NOW),
        ("2023-11-14T22:13:20.5Z", NOW + SECOND // 2),
        ("2023-11-14T22:13:20.000000001Z", NOW + 1),
    ],
)
def test_expired_is_strictly_later(make, text: str, at_ns: int) -> None:
    record = make({f"{GC}expire": text})
    assert expires_at(record) == at_ns
    assert is_root(record, at_ns - 1)
    assert is_root(record, at_ns)
    assert not is_root(record, at_ns + 1)


@pytest.mark.parametrize("make", [image, lease])
@pytest.mark.parametrize(
    "text",
    [
        "tomorrow",
        "garbage",
        "2001-01-01",
        "2001-01-01 00:00:00Z",
        "2001-01-01T00:00:00",
        "2001-01-01T00:00:00+0200",
        "2001-13-01T00:00:00Z",
        "2001-02-29T00:00:00Z",
        "2001-01-01T24:00:00Z",
        "2016-12-31T23:59:60Z",
        "2001-01-01T00:00:00Z ",
        "2001-01-01T00:00:00Z\n",
        "\uff12\uff10\uff10\uff11-01-01T00:00:00Z",
        "978307200",
    ],
)
def test_what_is_no_time_never_expires(make, text: str) -> None:
    record = make({f"{GC}expire": text})
    assert expires_at(record) is None
    assert is_root(record, NOW)


@pytest.mark.parametrize("make", [image, lease])
def test_only_the_exact_key_is_an_expiry(make) -> None:
    assert is_root(make({f"{GC}expire.x": PAST[f"{GC}expire"], f"{GC}expires": PAST[f"{GC}expire"]}), NOW)


def test_an_ingest_is_a_root_until_its_stored_expiry_and_without_one_never() -> None:
    record = IngestRecord("ref", 1, expires_at=NOW)
    assert is_root(record, NOW)
    assert not is_root(record, NOW + 1)
    assert not is_root(IngestRecord("ref", 1), NOW)


# built-in edges ----------------------------------------------------------------------------------------------


def test_built_in_edges() -> None:
    assert implied(image({}), EdgeKind.BUILT_IN) == [(Kind.CONTENT, TARGET)]
    assert implied(image(PAST), EdgeKind.BUILT_IN) == [(Kind.CONTENT, TARGET)]
    assert implied(container({}, "native"), EdgeKind.BUILT_IN) == [(Kind.SNAPSHOT, "native/top")]
    assert implied(snapshot({}, "base"), EdgeKind.BUILT_IN) == [(Kind.SNAPSHOT, "native/base")]
    adopting = IngestRecord("ref", 1, expected=DIGEST, held=DIGEST, adopting=True)
    assert implied(adopting, EdgeKind.BUILT_IN) == [(Kind.CONTENT, DIGEST)]


def test_what_keeps_nothing_by_itself() -> None:
    for record in (content({}), snapshot({}), container({}), sandbox({}), lease({}), IngestRecord("ref", 1)):
        assert edges(record) == []
    assert edges(IngestRecord("ref", 1, expected=DIGEST)) == []  # an ingest with bytes of its own


@pytest.mark.parametrize(
    "resource_type, key, target",
    [
        ("content", DIGEST, (Kind.CONTENT, DIGEST)),
        ("images", "a/b:c", (Kind.IMAGE, "a/b:c")),
        ("ingests", "ref", (Kind.INGEST, "ref")),
        ("snapshots/native", "d/e", (Kind.SNAPSHOT, "native/d/e")),
        ("unknown", "x", None),
    ],
)
def test_what_an_entry_of_a_lease_names(resource_type: str, key: str, target: tuple[Kind, str] | None) -> None:
    assert resource_target(resource_type, key) == target


# conditions --------------------------------------------------------------------------------------------------


def condition(value: str, key: str = "cond.snapshot.native") -> list[tuple[str, bytes]]:
    return [(out.name, out.value) for out in edges(content({GC + key: value})) if out.edge == EdgeKind.CONDITION.value]


@pytest.mark.parametrize(
    "key, snapshotter",
    [
        ("cond.snapshot.native", "native"),
        ("cond.snapshotnative", "native"),
        ("cond.snapshot/native", "native"),
        ("cond.snapshot././native", "native"),
        ("cond.snapshot...native", "native"),
        ("cond.snapshot.native/", "native"),
        ("cond.snapshot.native/1", "native"),
        ("cond.snapshot/native/a/b", "native"),
        ("cond.snapshot.native.1", "native.1"),
        ("cond.snapshot.native.1/2", "native.1"),
    ],
)
def test_dots_and_slashes_before_the_snapshotter_of_a_condition_are_stripped(key: str, snapshotter: str) -> None:
    assert [name for name, _ in condition("usedat<2h|key", key)] == [f"{snapshotter}/key"]


@pytest.mark.parametrize("key", ["cond.content.x", "cond.snap", "cond", "condsnapshot.native", "cond.value-usedat"])
def test_what_is_no_condition(key: str) -> None:
    assert condition("usedat<2h|key", key) == []


@pytest.mark.parametrize("value, key", [("usedat<2h|a|b", "a|b"), ("usedat<2h|d/e", "d/e"), ("usedat<2h|a,b", "a,b")])
def test_the_key_is_all_behind_the_first_bar(value: str, key: str) -> None:
    assert [name for name, _ in condition(value)] == [f"native/{key}"]


VOID = [
    "usedat=2h",
    "usedat==2h",
    "usedat!=2h",
    "usedat<=2h",
    "usedat>=2h",
    "usedat",
    "usedat<",
    "usedat>",
    "usedat<2",
    "usedat<2d",
    "usedat<2x",
    "usedat<h",
    "usedat<two hours",
    "usedat<2001-01-01T00:00:00Z",
    "usedat~2h",
    "Usedat<2h",
    "createdat<2h",
    "<2h",
    "2h",
    "bogus",
    "",
]


@pytest.mark.parametrize("text", VOID)
def test_a_void_condition_is_none_and_spoils_no_other(text: str) -> None:
    assert condition(f"{text}|key") == []
    for both in (f"{text},usedat<2h|key", f"usedat<2h,{text}|key"):
        ((name, value),) = condition(both)
        assert name == "native/key"
        assert holds(value, NOW - HOUR, NOW)
        assert not holds(value, NOW - 3 * HOUR, NOW)


@pytest.mark.parametrize("value", ["usedat<2h", "usedat<2h,usedat>3h", "key", ""])
def test_without_a_bar_there_is_no_condition(value: str) -> None:
    assert condition(value) == []


BOUNDS = [
    ("usedat<2h", [0, HOUR, 2 * HOUR - 1], [2 * HOUR, 2 * HOUR + 1, 300 * HOUR]),
    ("usedat>2h", [2 * HOUR + 1, 300 * HOUR], [0, 2 * HOUR - 1, 2 * HOUR]),
    ("usedat<90m", [90 * MINUTE - 1], [90 * MINUTE]),
    ("usedat<1h30m", [90 * MINUTE - 1], [90 * MINUTE]),
    ("usedat<1.5h", [90 * MINUTE - 1], [90 * MINUTE]),
    ("usedat<5400s", [90 * MINUTE - 1], [90 * MINUTE]),
    ("usedat<5400000ms", [90 * MINUTE - 1], [90 * MINUTE]),
    ("usedat<7us", [6999], [7000]),
    ("usedat<7µs", [6999], [7000]),
    ("usedat<7ns", [6], [7]),
    ("usedat>0", [1, HOUR], [0]),
    ("usedat>0s", [1, HOUR], [0]),
    ("usedat>-2h", [0, HOUR, -HOUR], [-2 * HOUR]),
    ("usedat<1h,usedat>3h", [0, HOUR - 1, 3 * HOUR + 1], [HOUR, 2 * HOUR, 3 * HOUR]),
    ("usedat<2h,usedat>1h", [0, HOUR, 90 * MINUTE, 2 * HOUR, 3 * HOUR], []),
    ("usedat<1h,usedat<2h", [0, HOUR, 2 * HOUR - 1], [2 * HOUR]),
]


@pytest.mark.parametrize("text, met, missed", BOUNDS)
def test_conditions_are_alternatives_on_the_time_since(text: str, met: list[int], missed: list[int]) -> None:
    ((_, value),) = condition(f"{text}|key")
    assert [age for age in met if not holds(value, NOW - age, NOW)] == []
    assert [age for age in missed if holds(value, NOW - age, NOW)] == []


@pytest.mark.parametrize("text, met, missed", BOUNDS)
def test_a_condition_changes_only_at_the_instants_at_which_it_switches(text: str, met: list, missed: list) -> None:
    ((_, value),) = condition(f"{text}|key")
    switches = switches_at(value, NOW)
    instants = sorted({NOW + age + step for age in (*met, *missed) for step in (-1, 0, 1)})
    for before, after in pairwise(instants):
        if holds(value, NOW, before) != holds(value, NOW, after):
            assert [at for at in switches if before < at <= after] != []
    if "," not in text:
        (at,) = switches
        assert holds(value, NOW, at - 1) != holds(value, NOW, at)


def test_two_labels_that_name_one_snapshot_are_alternatives() -> None:
    labels = {f"{GC}cond.snapshot.native/1": "usedat<1h|key", f"{GC}cond.snapshot/native/2": "usedat>3h|key"}
    (out,) = edges(content(labels))
    assert [holds(out.value, NOW - age, NOW) for age in (0, 2 * HOUR, 4 * HOUR)] == [True, False, True]


@pytest.mark.parametrize("text", ["usedat<2h", "usedat>2h", "usedat<1h,usedat>0"])
def test_without_a_time_of_use_no_condition_is_met(text: str) -> None:
    ((_, value),) = condition(f"{text}|key")
    assert not holds(value, None, NOW)


@pytest.mark.parametrize(
    "key", ["cond.value-usedat", "cond.value-usedat.x", "cond.value-usedat/x", "cond.value-usedatx"]
)
def test_the_time_of_use_is_any_label_that_begins_so(key: str) -> None:
    assert used_at(snapshot({GC + key: "2023-11-14T22:13:20Z"})) == NOW


@pytest.mark.parametrize("text", ["never", "2001-01-01", ""])
def test_an_unparsable_time_of_use_is_none(text: str) -> None:
    assert used_at(snapshot({f"{GC}cond.value-usedat": text})) is None


def test_only_snapshots_have_a_time_of_use() -> None:
    labels = {f"{GC}cond.value-usedat": "2023-11-14T22:13:20Z"}
    assert [used_at(make(labels)) for make in (content, image, container, sandbox, lease)] == [None] * 5
    assert used_at(snapshot({})) is None
    assert used_at(None) is None
