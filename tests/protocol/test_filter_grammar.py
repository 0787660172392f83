"""The grammar of filters, against a reference made from its text alone. Source: spec metadata 7."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.protocol.errors import InvalidArgument
from orlop.protocol.filters import fields
from orlop.protocol.filters.grammar import FilterError, Operator, Selector, parse_filter
from orlop.protocol.filters.matching import compile_filters

MANY = 1000  # texts of each kind
relaxed = settings(deadline=None)  # hypothesis' deadline measures the machine

GRAPHIC = "".join(map(chr, range(0x21, 0x7F))).replace(",", "") + "éöß牛€\u0301\u2160"
NOT_GRAPHIC = "\x01\x1c\x1f\x7f\u200b\u2060\ue000"
BLANKS = "\t\v\f\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
REFUSED = "\x00\ufffd"
LONE = "\ud800\udc80\udfff"

BLANK = f"[\n{BLANKS}]*"
HEX = "[0-9a-fA-F]"


def quoted(delimiter: str) -> str:
    q = re.escape(delimiter)
    escapes = [
        rf"[abfnrtv\\{q}]",
        "[0-3][0-7]{2}",
        f"x{HEX}{{2}}",
        f"u{HEX}{{4}}",
        f"U00(?:0{HEX}|10){HEX}{{4}}",
    ]
    return rf"{q}(?:[^\\\n{REFUSED}{q}]|\\(?:{'|'.join(escapes)}))*{q}"


PART = f"{BLANK}(?:[A-Za-z0-9_]+|{quoted(chr(34))})"
BARE = rf'[^\n{BLANKS}{REFUSED},.=!~"/|][{re.escape(GRAPHIC)}]*'
SELECTOR = re.compile(
    rf"(?P<path>{PART}(?:\.{PART})*)"
    rf"(?:{BLANK}(?:(?P<compares>==|!=){BLANK}(?P<value>{BARE}|{quoted(chr(34))})"
    rf"|~={BLANK}(?P<pattern>{BARE}|{quoted(chr(34))}|{quoted('/')}|{quoted('|')})))?"
)
PART_ALONE = re.compile(rf"{BLANK}([A-Za-z0-9_]+|{quoted(chr(34))})\.?")
PIECE = re.compile(rf"\\([0-7]{{3}}|x{HEX}{{2}}|u{HEX}{{4}}|U{HEX}{{8}}|.)|[^\\]", re.DOTALL)
NAMED = {"a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v"}


def piece(found: re.Match[str]) -> bytes:
    escape = found[1]
    if escape is None:
        return found[0].encode()
    if escape[0] in "uU" and len(escape) > 1:
        return chr(int(escape[1:], 16)).encode(errors="replace").replace(b"?", "\ufffd".encode())
    if escape[0] == "x" and len(escape) > 1:
        return bytes([int(escape[1:], 16)])
    if len(escape) == 3:
        return bytes([int(escape, 8)])
    return NAMED.get(escape, escape.encode())


def unquoted(text: str) -> bytes:
    if text[:1] not in ('"', "/", "|"):
        return text.encode()
    return b"".join(piece(found) for found in PIECE.finditer(text[1:-1]))


def reference(text: str) -> list[tuple[list[bytes], str, bytes]] | None:
    """The selectors of a text over the characters above; None when it is no filter."""
    if not text:
        return []
    if any(c in LONE for c in text):
        return None
    selectors, at = [], 0
    while found := SELECTOR.match(text, at):
        path = [unquoted(part) for part in PART_ALONE.findall(found["path"])]
        operator = found["compares"] or ("~=" if found["pattern"] else "")
        selectors.append((path, operator, unquoted(found["value"] or found["pattern"] or "")))
        at = found.end()
        if at == len(text):
            return selectors
        if text[at] != ",":
            return None
        at += 1
    return None


def parsed(text: str) -> list[tuple[list[bytes], str, bytes]] | None:
    def raw(value: str) -> bytes:
        return value.encode(errors="surrogateescape")  # bytes that are no UTF-8 stand as lone surrogates

    try:
        selectors = parse_filter(text)
    except FilterError:
        return None
    return [([raw(part) for part in s.path], s.operator.value, raw(s.value)) for s in selectors]


ESCAPES = [
    "\\a", "\\n", "\\\\", '\\"', "\\/", "\\|", "\\'", "\\d", "\\101", "\\303\\274", "\\377", "\\400", "\\12", "\\8",
    "\\x41", "\\xff", "\\x4", "\\u00e9", "\\ud800", "\\u12", "\\U0001F6a2", "\\U0010ffff", "\\U00110000", "\\U0000dfff",
]  # fmt: skip
PARTS = ["id", "labels", "9", "_", '"a b"', '""', '"\\x41\\"', "größe"]
OPERATORS = ["==", "!=", "~=", "=", "===", "=~", "!", "~", "!=="]
VALUES = ["x", "'q'", 'x"y"', "a/b|c=!~", '"v,w"', '""', "/a\\\\d/", "|a/b|", "//", ".5", "-1", "$", "é", "\x01x"]
token = st.sampled_from([*PARTS, *OPERATORS, *VALUES, *ESCAPES, ",", ".", '"', "/", "|", "\\", " ", "\n", *REFUSED])
character = st.sampled_from(GRAPHIC + NOT_GRAPHIC + BLANKS + REFUSED + LONE + "\n,")
jumble = st.lists(token | character, max_size=9).map("".join)


@st.composite
def nearly(draw: st.DrawFn) -> str:
    """A filter, but for a character or two."""
    space = st.sampled_from(["", "", "", " ", "\u2003\n"])
    selectors = []
    for _ in range(draw(st.integers(1, 3))):
        parts = draw(st.lists(st.sampled_from(PARTS[:-1]), min_size=1, max_size=3))
        selector = ".".join(draw(space) + part for part in parts)
        if draw(st.booleans()):
            inner = draw(st.lists(st.sampled_from(ESCAPES[:3] + ESCAPES[8:11] + [*GRAPHIC]), max_size=4).map("".join))
            quote = draw(st.sampled_from('"/|'))
            value = draw(st.sampled_from([*VALUES, f"{quote}{inner}{quote}"]))
            selector += draw(space) + draw(st.sampled_from(OPERATORS[:3])) + draw(space) + value
        selectors.append(selector)
    text = ",".join(selectors)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(token | character) + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(relaxed, max_examples=MANY)
@given(jumble | nearly() | nearly())
def test_exactly_the_texts_of_the_grammar_are_filters(text: str) -> None:
    assert parsed(text) == reference(text)


@settings(relaxed, max_examples=200)
@given(st.text(), st.sampled_from('"/|'))
def test_any_text_can_be_asked_for_between_quotes(text: str, quote: str) -> None:
    raw = text.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n")
    raw = raw.replace("\x00", "\\x00").replace("\ufffd", "\\ufffd")
    octal = "".join(f"\\{byte:03o}" for byte in text.encode())
    for inner in (raw, octal):
        assert parse_filter(f"k~={quote}{inner}{quote}") == (Selector(("k",), Operator.MATCHES, text),)


@settings(relaxed, max_examples=MANY)
@given(st.text(st.characters() | character))
def test_any_text_is_a_filter_or_an_invalid_argument_that_can_travel(text: str) -> None:
    refused: InvalidArgument | None = None
    try:
        compile_filters(fields.IMAGE, [text])
    except InvalidArgument as error:
        refused = error
    assert (refused is not None) is (parsed(text) is None)
    if refused is not None:
        assert type(refused) is InvalidArgument  # not the parser's own class, which does not travel
        assert refused.message.encode()


def test_only_the_blanks_of_the_table_are_blank() -> None:
    for c in "\n" + BLANKS:
        assert parse_filter(f"{c}labels.{c}k{c}=={c}v,{c}id") == (
            Selector(("labels", "k"), Operator.EQUAL, "v"),
            Selector(("id",), Operator.PRESENT, ""),
        ), repr(c)
        for text in (f"id{c}", f"id{c},x", f"labels{c}.k", f"id==x{c}", f"id==x{c},y", c):
            with pytest.raises(FilterError):
                parse_filter(text)
    for c in "\x1c\x1d\x1e\x1f\u180e\u200b\u2060\ufeff":
        for text in (f"{c}id", f"id{c}==x", f"id==x{c}"):
            with pytest.raises(FilterError):
                parse_filter(text)
        assert parse_filter(f"id=={c}x")[0].value == f"{c}x"  # the first character may be anything
