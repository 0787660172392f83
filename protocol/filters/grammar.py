"""The text of a filter becomes selectors.

    filter    = "" | selector { "," selector }
    selector  = path [ operator value ]
    path      = part { "." part }
    part      = word | "…"
    operator  = == | != | ~=
    value     = bare | "…" | (after ~= only) /…/ | |…|

Source: spec metadata 7.2 and 7.6.
"""

from __future__ import annotations

import unicodedata
from enum import Enum
from typing import NamedTuple, NoReturn

from ..errors import InvalidArgument

__all__ = ["MAX_FILTER_BYTES", "FilterError", "Operator", "Selector", "parse_filter"]

MAX_FILTER_BYTES = 16 * 1024

_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_OPERATOR = frozenset("=!~")
_QUOTES = frozenset('"/|')
_ILLEGAL = frozenset("\x00\ufffd")
# Not str.isspace: that also takes U+001C to U+001F.
_SPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))
_NOT_FIRST = _SPACE | _OPERATOR | _QUOTES | _ILLEGAL | frozenset(",.")
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_HEX = frozenset("0123456789abcdefABCDEF")
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


class Operator(Enum):
    PRESENT = ""
    EQUAL = "=="
    UNEQUAL = "!="
    MATCHES = "~="


class Selector(NamedTuple):
    """One condition. Escapes may build bytes that are no UTF-8: those stand as lone surrogates in `path` and
    `value`, and so equal nothing that is stored."""

    path: tuple[str, ...]
    operator: Operator
    value: str


class FilterError(InvalidArgument):
    """`at` counts bytes; None is the end of the text. `why` is the category of spec metadata 7.6."""

    def __init__(self, text: str, at: int | None, why: str) -> None:
        self.at = at
        self.why = why
        super().__init__(f"filter {_shown(text, at)}: {_REASONS[why]}", hint=_HINTS.get(why, ""))


_REASONS = {
    "field-expected": "a field name is expected",
    "operator-expected": "an operator (==, != or ~=), a comma or the end is expected",
    "operator-unknown": "the operators are ==, != and ~=",
    "value-expected": "a value is expected",
    "quote-not-allowed": "only ~= takes a value between slashes or bars",
    "quote-unterminated": "the quote is not closed",
    "escape-illegal": "no such escape",
    "escape-number-illegal": "the escape lacks digits",
    "unquote-failed": "the escape is out of range",
    "trailing-input": "a comma or the end is expected",
    "nul": "NUL is not allowed",
    "bad-unicode": "this is not valid Unicode",
    "too-long": f"a filter has at most {MAX_FILTER_BYTES} bytes",
}
_HINTS = {
    "quote-unterminated": 'put a key or value with special characters in double quotes: labels."example.com/x"==1',
    "escape-illegal": "between quotes every backslash of a regular expression is written twice",
    "quote-not-allowed": 'put the value in double quotes: topic=="/images/create"',
}


def parse_filter(text: str) -> tuple[Selector, ...]:
    """The selectors, all of which must match; none for the empty text. Raises FilterError."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise FilterError(text, len(text[: error.start].encode()), "bad-unicode") from None
    if size > MAX_FILTER_BYTES:
        raise FilterError(text, None, "too-long")
    return _Parser(text).selectors() if text else ()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._end = len(text)
        self._at = 0

    def selectors(self) -> tuple[Selector, ...]:
        found = [self._selector()]
        while self._at < self._end:
            if self._text[self._at] != ",":
                self._fail(self._at, "trailing-input")
            self._at += 1
            found.append(self._selector())
        return tuple(found)

    def _selector(self) -> Selector:
        path = [self._part()]
        while self._peek() == ".":
            self._at += 1
            path.append(self._part())
        if self._peek() in ("", ","):
            return Selector(tuple(path), Operator.PRESENT, "")
        operator = self._operator()
        return Selector(tuple(path), operator, self._value(operator))

    def _part(self) -> str:
        self._skip_space()
        first = self._peek()
        if first == '"':
            return self._quoted()
        if first in ("/", "|"):
            opening = self._at
            self._scan_quoted()
            self._fail(opening, "quote-not-allowed")
        start = self._at
        while self._at < self._end and self._text[self._at] in _WORD:
            self._at += 1
        if start == self._at:
            self._fail(self._at, "field-expected")
        return self._text[start : self._at]

    def _operator(self) -> Operator:
        self._skip_space()
        start = self._at
        while self._peek() in _OPERATOR:
            self._at += 1
        run = self._text[start : self._at]
        if not run:
            if self._peek() in _QUOTES:
                self._scan_quoted()  # one that is not closed is the better reason
            self._fail(start, "operator-expected")
        if run not in ("==", "!=", "~="):
            self._fail(start, "operator-unknown")
        return Operator(run)

    def _value(self, operator: Operator) -> str:
        self._skip_space()
        first = self._peek()
        if first == '"' or (first in ("/", "|") and operator is Operator.MATCHES):
            return self._quoted()
        if first in ("/", "|"):
            opening = self._at
            self._scan_quoted()
            self._fail(opening, "quote-not-allowed")
        if not first or first in _NOT_FIRST:
            self._fail(self._at, "value-expected")
        start = self._at
        self._at += 1
        while self._at < self._end and _is_bare(self._text[self._at]):
            self._at += 1
        return self._text[start : self._at]

    def _scan_quoted(self) -> list[tuple[str, str]]:
        """From the opening quote to behind the closing one: each ordinary character as ("", c), each escape as
        (letter, digits)."""
        opening, quote = self._at, self._text[self._at]
        self._at += 1
        pieces: list[tuple[str, str]] = []
        while True:
            c = self._peek()
            self._at += 1
            if c == quote:
                return pieces
            if not c or c == "\n" or c in _ILLEGAL:
                self._fail(opening, "quote-unterminated")
            pieces.append(self._escape(opening, quote) if c == "\\" else ("", c))

    def _escape(self, opening: int, quote: str) -> tuple[str, str]:
        c = self._peek()
        if not c:
            self._fail(opening, "quote-unterminated")
        if c in _ESCAPES:
            self._at += 1
            return "\\", c
        if c == quote:
            self._at += 1
            return "", c
        if c in "01234567":
            digits = self._text[self._at : self._at + 3]
            self._at += 3
            if len(digits) < 3 or not set(digits) <= set("01234567"):
                self._fail(opening, "escape-number-illegal")
            return "8", digits
        if c in _HEX_DIGITS:
            digits = self._text[self._at + 1 : self._at + 1 + _HEX_DIGITS[c]]
            self._at += 1 + _HEX_DIGITS[c]
            if len(digits) < _HEX_DIGITS[c] or not set(digits) <= _HEX:
                self._fail(opening, "escape-number-illegal")
            return c, digits
        raise self._fault(opening, "escape-illegal")

    def _quoted(self) -> str:
        opening = self._at
        data = bytearray()
        for letter, text in self._scan_quoted():
            if not letter:
                data += text.encode()
            elif letter == "\\":
                data.append(_ESCAPES[text])
            else:
                number = int(text, 8 if letter == "8" else 16)
                if number > (255 if letter == "8" else 0x10FFFF):
                    self._fail(opening, "unquote-failed")
                if letter in ("8", "x"):
                    data.append(number)
                else:
                    data += ("\ufffd" if 0xD800 <= number < 0xE000 else chr(number)).encode()
        return data.decode(errors="surrogateescape")

    def _peek(self) -> str:
        return self._text[self._at] if self._at < self._end else ""

    def _skip_space(self) -> None:
        while self._at < self._end and self._text[self._at] in _SPACE:
            self._at += 1

    def _fail(self, at: int, why: str) -> NoReturn:
        raise self._fault(at, why)

    def _fault(self, at: int, why: str) -> FilterError:
        if at >= self._end:
            return FilterError(self._text, None, why)
        if self._text[at] == "\x00":
            why = "nul"
        elif self._text[at] == "\ufffd":
            why = "bad-unicode"
        return FilterError(self._text, len(self._text[:at].encode()), why)


def _is_bare(c: str) -> bool:
    return c not in _ILLEGAL and c != "," and c not in _SPACE and unicodedata.category(c)[0] in "LMNPS"


def _shown(text: str, at: int | None) -> str:
    """The filter with the offending byte set apart, or what surrounds that byte in a long one."""
    data = text.encode(errors="replace")
    if at is None:
        return f"[{_clean(data if len(data) <= 160 else b'...' + data[-120:])}]"
    start, stop = max(0, at - 80), at + 80
    left = b"..." * (start > 0) + data[start:at]
    right = data[at + 1 : stop] + b"..." * (stop < len(data))
    return f"[{_clean(left)} >|{_clean(data[at : at + 1])}|< {_clean(right)}]"


def _clean(data: bytes) -> str:
    text = data.decode(errors="replace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
