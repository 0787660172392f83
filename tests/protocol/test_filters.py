"""Filters: what their text means, and which records they let pass. Source: spec metadata 7 and 14.4, its vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from orlop.protocol import records as r
from orlop.protocol.errors import InvalidArgument
from orlop.protocol.filters import fields
from orlop.protocol.filters.fields import Filterable
from orlop.protocol.filters.grammar import MAX_FILTER_BYTES, FilterError, parse_filter
from orlop.protocol.filters.matching import MAX_FILTERS, compile_filters, search_text
from orlop.protocol.messages import Plugin

VECTORS = Path(__file__).parent.parent / "vectors"
FILTERS = json.loads((VECTORS / "filters.json").read_text())
FILTERS_ANY = json.loads((VECTORS / "filters_any.json").read_text())
REGEX = json.loads((VECTORS / "regex.json").read_text())

encode = msgspec.msgpack.encode
MANY = 3000  # texts of each kind
relaxed = settings(deadline=None)  # hypothesis' deadline measures the machine


# records of the vectors ----------------------------------------------------------------------------------


def container(paths: dict[str, Any]) -> r.Container:
    name = paths.pop("runtime.name", "")
    return r.Container(**paths, runtime=r.Runtime(name))


def image(paths: dict[str, Any]) -> r.Image:
    target = r.Descriptor(paths.pop("target.mediatype"), paths.pop("target.digest"), 7, paths.pop("annotations", {}))
    return r.Image(**paths, target=target)


def sandbox(paths: dict[str, Any]) -> r.Sandbox:
    return r.Sandbox(paths.pop("id"), r.Runtime(paths.pop("runtime.name", "")), **paths)


def snapshot(paths: dict[str, Any]) -> r.SnapshotInfo:
    # The vectors give kinds as they print, filters compare them as they travel.
    return r.SnapshotInfo("native", kind=r.SnapshotKind(paths.pop("kind").lower()), **paths)


def event(paths: dict[str, Any]) -> r.Event:
    kind = getattr(r, paths.pop("$type"))
    envelope = paths.pop("namespace"), paths.pop("topic")
    payload = {path.removeprefix("event."): value for path, value in paths.items()}
    if "runtime.name" in payload:
        payload["runtime"] = r.Runtime(payload.pop("runtime.name"))
    if kind is r.ContentCreate:
        payload["size"] = 7
    renamed = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    return r.Event(1, 1, *envelope, kind(**{renamed[name]: value for name, value in payload.items()}))


RESOURCES: dict[str, tuple[Filterable, Callable[[dict[str, Any]], msgspec.Struct]]] = {
    "container": (fields.CONTAINER, container),
    "image": (fields.IMAGE, image),
    "lease": (fields.LEASE, lambda paths: r.Lease(**paths)),
    "sandbox": (fields.SANDBOX, sandbox),
    "content": (fields.CONTENT, lambda paths: r.ContentInfo(size=7, **paths)),
    "ingest": (fields.INGEST, lambda paths: r.IngestStatus(**paths)),
    "snapshot": (fields.SNAPSHOT, snapshot),
    "plugin": (fields.PLUGIN, lambda paths: Plugin(**paths)),
    "event": (fields.EVENT, event),
}


def stored(resource: str, paths: dict[str, Any]) -> bytes:
    return encode(RESOURCES[resource][1](dict(paths)))


def passes(filterable: Filterable, record: msgspec.Struct | bytes, *filters: str) -> bool:
    matcher = compile_filters(filterable, filters)
    return matcher is None or matcher.accepts(record if isinstance(record, bytes) else encode(record))


def label_passes(labels: dict[str, str], *filters: str) -> bool:
    return passes(fields.LEASE, r.Lease("l", labels=labels), *filters)


def fault(text: str) -> tuple[str, int | None]:
    with pytest.raises(FilterError) as refused:
        parse_filter(text)
    return refused.value.why, refused.value.at


def named(row: dict[str, Any]) -> str:
    return f"{row['resource']} {row.get('filter', row.get('filters'))!r}"


# vectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", FILTERS, ids=named)
def test_filter_vectors(row: dict[str, Any]) -> None:
    filterable, _ = RESOURCES[row["resource"]]
    if row["result"] == "error":
        assert fault(row["filter"]) == (row["why"], None if row["at"] == "end" else row["at"])
        with pytest.raises(InvalidArgument):
            compile_filters(filterable, [row["filter"]])
    else:
        assert passes(filterable, stored(row["resource"], row["record"]), row["filter"]) is row["result"]


@pytest.mark.parametrize("row", FILTERS_ANY, ids=named)
def test_filter_list_vectors(row: dict[str, Any]) -> None:
    filterable, _ = RESOURCES[row["resource"]]
    if row["result"] == "error":
        with pytest.raises(InvalidArgument):
            compile_filters(filterable, row["filters"])
    else:
        assert passes(filterable, stored(row["resource"], row["record"]), *row["filters"]) is row["result"]


@pytest.mark.parametrize("row", REGEX, ids=lambda row: f"{row['pattern']!r} in {row['text']!r}")
def test_regex_vectors(row: dict[str, Any]) -> None:
    search, _ = search_text(row["pattern"])
    assert search(row["text"]) is row["match"]
    # The same as a filter: backslashes are doubled between quotes.
    pattern = row["pattern"].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assert label_passes({"k": row["text"]}, f'labels.k~="{pattern}"') is row["match"]


# what the vectors leave open ----------------------------------------------------------------------------------


def test_a_refusal_shows_the_filter_and_a_reason() -> None:
    with pytest.raises(InvalidArgument, match=r"\[id >\|=\|< x\]: .*=="):
        compile_filters(fields.IMAGE, ["id=x"])
    with pytest.raises(InvalidArgument, match=r"\[id==\]: .*value"):
        compile_filters(fields.IMAGE, ["id=="])


def test_offsets_count_bytes() -> None:
    assert fault("id==é牛 x") == ("trailing-input", 9)
    assert fault("\u3000é") == ("field-expected", 3)
    assert fault('labels."é"=x') == ("operator-unknown", 11)


def test_what_is_no_unicode_is_refused_where_it_stands() -> None:
    for text in ("\ud800", "id==\ud800", "id==\udfff", 'id=="\udc80"', "id==x\ud83d\udea2"):
        why, at = fault(text)
        assert (why, at) == ("bad-unicode", len(text[: min(map(text.index, set(text) & ODD))].encode())), repr(text)
    assert fault("id==\ufffd") == ("bad-unicode", 4)
    assert fault("id==x\ufffd") == ("bad-unicode", 5)
    assert fault("id\ufffd") == ("bad-unicode", 2)
    assert fault("\ufffd") == ("bad-unicode", 0)
    assert fault("\x00") == ("nul", 0)
    assert fault("id==x\x00") == ("nul", 5)
    for quote in ('"a\x00b"', '"a\ufffdb"', "/a\x00b/", "|a\ufffdb|"):
        assert fault(f"id~={quote}")[1] in (4, 6)


ODD = {chr(code) for code in range(0xD800, 0xE000)}


def test_bytes_that_are_no_utf_8_equal_nothing_and_match_nothing() -> None:
    for value in ('"\\xff"', '"\\xed\\xa0\\x80"', '"a\\200"'):
        assert not label_passes({"k": "\ufffd", "": "a\ufffd"}, f"labels.k=={value}")
        assert label_passes({"k": "\ufffd"}, f"labels.k!={value}")
        assert not label_passes({"k": "\ufffd"}, f"labels.k~={value}")
        assert not label_passes({"\ufffd": "x", "a": "x"}, f"labels.{value}")
    assert label_passes({"k": "\ufffd"}, 'labels.k=="\\ud800"')


def test_a_filter_has_at_most_16_kib() -> None:
    assert MAX_FILTER_BYTES == 16 * 1024
    fits = "id==" + "é" * (8 * 1024 - 2)
    assert parse_filter(fits)[0].value == fits[4:]
    with pytest.raises(InvalidArgument, match="16384"):
        compile_filters(fields.IMAGE, [fits + "x"])
    assert len(parse_filter("id," * 5000 + "id")) == 5001
    assert len(parse_filter("a." * 8000 + "a")[0].path) == 8001
    assert not label_passes({}, *["labels.a," * 1500 + "id"] * 8)


def test_a_call_takes_at_most_64_filters() -> None:
    assert MAX_FILTERS == 64
    assert label_passes({}, *["id==x"] * 63, "id==l")
    assert compile_filters(fields.IMAGE, [""] * 64) is None
    for text in ("id==l", ""):
        with pytest.raises(InvalidArgument, match="64"):
            compile_filters(fields.IMAGE, [text] * 65)


def test_one_bad_filter_refuses_the_call_wherever_it_stands() -> None:
    for filters in (["id=", ""], ["", "id="], ["id", "id", " "], ["id~=[", "image~=.*"]):
        with pytest.raises(InvalidArgument):
            compile_filters(fields.CONTAINER, filters)


# fields --------------------------------------------------------------------------------------------------

FULL = {
    "container": r.Container(
        "c",
        {"k": "v"},
        "img",
        r.Runtime("rt", r.Any_("u", b"v")),
        r.Any_("u", b"v"),
        "native",
        "key",
        1,
        2,
        {"e": r.Any_("u", b"v")},
        "sb",
    ),
    "image": r.Image("i", r.Descriptor("m/t", "sha256:aa", 7, {"n": "1"}), {"k": "v"}, 1, 2),
    "lease": r.Lease("l", 1, {"k": "v"}),
    "sandbox": r.Sandbox(
        "s", r.Runtime("rt"), r.Any_("u", b"v"), {"k": "v"}, 1, 2, {"e": r.Any_("u", b"v")}, "podsandbox"
    ),
    "content": r.ContentInfo("sha256:aa", 7, {"k": "v"}, 1, 2),
    "ingest": r.IngestStatus("r", 1, 2, "sha256:aa", 3, 4),
    "snapshot": r.SnapshotInfo("native", "n", r.SnapshotKind.VIEW, "p", {"k": "v"}, 1, 2),
    "plugin": Plugin("t", "p", ["c"], {"e": "x"}),
    "event": r.Event(1, 2, "ns", "/t", r.ContainerUpdate("c", "img", {"k": "v"}, "key")),
}
FILTERABLE = {
    "container": ["id", "image", "runtime.name", "labels.k"],
    "image": ["name", "target.digest", "target.mediatype", "labels.k", "annotations.n"],
    "lease": ["id", "labels.k"],
    "sandbox": ["id", "labels.k"],
    "content": ["digest", "labels.k"],
    "ingest": ["ref"],
    "snapshot": ["kind", "name", "parent", "labels.k"],
    "plugin": ["type", "id"],
    "event": ["namespace", "topic", "event.id", "event.image", "event.labels.k", "event.snapshot_key"],
}
CANDIDATES = sorted(
    {path for paths in FILTERABLE.values() for path in paths}
    | {f"{prefix}{f.name}" for each in FULL.values() for f in msgspec.structs.fields(each) for prefix in ("", "event.")}
    | {"ID", "Labels.k", "extensions.e", "runtime.options", "target.media_type", "target.mediaType", "target.size"}
    | {"target.annotations.n", "event.labels", "event.type", "capabilities.c", "exports.e", "offset", "spec.value"}
)  # fmt: skip


@pytest.mark.parametrize("resource", FULL)
def test_the_table_of_fields_is_all_that_is_filterable(resource: str) -> None:
    filterable, _ = RESOURCES[resource]
    found = [path for path in CANDIDATES if passes(filterable, FULL[resource], path)]
    assert found == sorted(FILTERABLE[resource])


def test_a_leaf_ignores_what_follows_and_a_map_joins_it() -> None:
    full = FULL["container"]
    for path in ("id.anything", 'id."a b".c', "image.x", "runtime.name.x.y", '"labels".k', '"runtime"."name"'):
        assert passes(fields.CONTAINER, full, path), path
    assert passes(fields.IMAGE, FULL["image"], "target.digest.q==sha256:aa")
    assert passes(fields.EVENT, FULL["event"], "event.id.q==c")
    for path in ('labels.a."b.c".d', "labels.a.b.c.d", 'labels."a.b.c.d"', 'labels. a. "b" .c.d'.replace(" .", ".")):
        assert label_passes({"a.b.c.d": ""}, path), path
    assert label_passes({"": "x"}, "labels==x", 'labels.""==x')
    assert label_passes({".": "x"}, 'labels."".""==x')


def test_what_is_empty_is_absent_where_the_table_says_so() -> None:
    for filterable, record, present, absent in [
        (fields.CONTAINER, r.Container("", {"k": ""}), ["labels.k"], ["id", "image", "runtime.name", "labels.n"]),
        (fields.IMAGE, r.Image("", r.Descriptor("", "", 0)), [], ["name", "target.digest", "target.mediatype"]),
        (fields.LEASE, r.Lease(""), [], ["id"]),
        (fields.SANDBOX, r.Sandbox(""), ["id"], ["labels"]),
        (fields.CONTENT, r.ContentInfo("", 0), ["digest"], ["labels"]),
        (fields.INGEST, r.IngestStatus(""), ["ref"], []),
        (fields.SNAPSHOT, r.SnapshotInfo("", "", r.SnapshotKind.VIEW), ["kind", "name", "parent"], ["labels"]),
        (fields.PLUGIN, Plugin("", ""), [], ["type", "id"]),
        (
            fields.EVENT,
            r.Event(1, 2, "", "", r.ContainerUpdate("", labels={"k": ""})),
            ["event.labels.k"],
            ["namespace", "topic", "event.id"],
        ),
    ]:
        for path in present:
            assert passes(filterable, record, path), path
            assert passes(filterable, record, path + "~=//"), path
        for path in absent:
            assert not passes(filterable, record, path), path
            assert not passes(filterable, record, path + '==""'), path
            assert not passes(filterable, record, path + '!=""'), path
            assert passes(filterable, record, path + "!=x"), path
            assert passes(filterable, record, path + "~=^$"), path


def test_a_payload_is_asked_by_the_names_on_the_wire() -> None:
    def told(payload: r.EventPayload, text: str) -> bool:
        return passes(fields.EVENT, r.Event(1, 2, "ns", "/t", payload), text)

    assert told(r.ContentCreate("sha256:aa", 7, "m/t"), "event.mediaType==m/t,event.digest")
    assert not told(r.ContentCreate("sha256:aa", 7, "m/t"), "event.media_type")
    assert not told(r.ContentCreate("sha256:aa", 7), "event.size")
    assert told(r.ContainerCreate("c", runtime=r.Runtime("rt", r.Any_("u", b""))), "event.runtime.name.x==rt")
    for path in ("event.runtime", "event.runtime.options", "event.runtime.options.type_url", "event.type"):
        assert not told(r.ContainerCreate("c", runtime=r.Runtime("rt", r.Any_("u", b""))), path), path
    assert not told(r.ContainerCreate("c"), "event.runtime.name")
    for path in ("event", "event.type_url", "event.value", "event.id", "event.type"):
        assert not told(r.Opaque("example.Event", b"\x0a\x01c"), path), path
    assert told(r.Opaque("example.Event", b""), "event.id!=x,topic,namespace==ns")


def test_fields_that_no_filter_asks_for_are_never_decoded() -> None:
    odd = {"id": "c", "labels": {"k": "v"}, "spec": 17, "runtime": ["x"], "image": {}, "extensions": "no", "new": 1}
    raw = encode(odd)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=r.Container)
    assert passes(fields.CONTAINER, raw, "labels.k==v")
    assert passes(fields.CONTAINER, raw, "id==x", "labels.k~=^v$,id==c,spec!=x")
    assert not passes(fields.CONTAINER, raw, "labels.k==w")
    assert passes(fields.CONTAINER, encode({"id": 5}), "nosuchfield!=x")
    assert passes(fields.EVENT, encode({"namespace": "ns", "topic": 5, "event": 6}), "namespace==ns")
    assert passes(fields.IMAGE, encode({"name": "i", "target": 5}), "name==i")


# regular expressions ----------------------------------------------------------------------------------------


def test_patterns_that_explode_elsewhere_are_answered() -> None:
    for pattern in (
        "(a+)+$", "(a|aa)+$", "(a|a?)+b", "(.*a){20}$", "(a*)*b", "(?:a?){100}a{100}$", "^([a-zA-Z]+)*$",
        "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y", "(?:a*){50}c",
    ):  # fmt: skip
        search, _ = search_text(pattern)
        assert search("a" * 2000 + "!") is False, pattern


def test_any_single_byte_is_not_of_the_dialect() -> None:
    for pattern in (r"\C", r"a\C", r"(?:\C)", r"x|\C|a", r"[\C]", r"\C*", r"\Qa\E\C", r"\\\C", r"\\Q\C", r"(?i)\C"):
        search, _ = search_text(pattern)
        assert [text for text in ("a", "", "\\", "C", "\\C", "\\Qa", "é") if search(text)] == [], pattern
    for pattern in (r"\\C", r"\Q\C\E", r"\Q\C", r"\Q\\EC", r"\\(?:C)"):
        search, _ = search_text(pattern)
        assert search("x\\C"), pattern


def test_a_pattern_that_does_not_compile_fails_its_own_selector_only() -> None:
    for pattern in ("[", "(", "a++", "(?=a)", "\\\\C", "a{1001}", "(?:a{100}){11}", "\\\\1", "*"):
        selector = f'id~="{pattern}"'
        assert not label_passes({}, selector), pattern
        assert not label_passes({}, f"id==l,{selector}"), pattern
        assert not label_passes({}, f"{selector},id==l"), pattern
        assert label_passes({}, selector, "id==l"), pattern
        assert not label_passes({}, selector.replace("id", "labels.absent")), pattern


def test_an_absent_field_is_matched_as_empty() -> None:
    for pattern in ("/.*/", "^$", "//", "x?", "(?:)", "\\z"):
        assert label_passes({}, f"labels.nope~={pattern}"), pattern
    for pattern in ("/.+/", "x", "^x"):
        assert not label_passes({}, f"labels.nope~={pattern}"), pattern


def test_texts_with_nul_and_newlines_are_searched_whole() -> None:
    labels = {"k": "a\x00b\nc"}
    for pattern in ("b", "c$", '"^a\\\\x00b"', '"\\x00b"', "/b\\nc/", '"(?m)^c$"', '"(?s)a.+c"'):
        assert label_passes(labels, f"labels.k~={pattern}"), pattern
    assert not label_passes(labels, "labels.k~=b$")
