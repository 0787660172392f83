"""Filters compiled, once for a call, into one predicate over stored records.

Only the fields that the filters ask for are decoded: a list of containers filtered by a label never looks at
their specs. Source: spec metadata 7.1, 7.4 and 7.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import re2  # type: ignore[import-untyped]  # it has none

from ..errors import InvalidArgument
from ..projection import part_decoder
from .fields import Filterable, Getter
from .grammar import FilterError, Operator, Selector, parse_filter

__all__ = ["MAX_FILTERS", "Matcher", "compile_filters", "search_text"]

MAX_FILTERS = 64
_HEAVY_PROGRAM = 200
_REGEX_MEMORY = 1024 * 1024

Test = Callable[[Any], bool]


class Matcher:
    """Whether a record passes. `accepts` takes it as it is stored, `accepts_record` decoded.

    `heavy`: a regular expression is large enough to hold up the loop: ask in a thread.
    """

    def __init__(self, alternatives: Sequence[Test], decode: Callable[[bytes], Any], heavy: bool) -> None:
        test = alternatives[0] if len(alternatives) == 1 else _some(alternatives)
        self.accepts_record = test
        self.accepts: Callable[[bytes], bool] = lambda payload: test(decode(payload))
        self.heavy = heavy


def compile_filters(fields: Filterable, filters: Sequence[str]) -> Matcher | None:
    """None when everything passes. Every filter is read before any record is: one bad one refuses the call.

    Raises InvalidArgument.
    """
    if len(filters) > MAX_FILTERS:
        raise InvalidArgument(f"{len(filters)} filters; a call takes at most {MAX_FILTERS}")
    try:
        parsed = [parse_filter(text) for text in filters]
    except FilterError as error:  # callers see the classes of errors that travel, and no others
        raise InvalidArgument(text=error.message, hint=error.hint) from None
    if not all(parsed):  # none at all, or one that asks for nothing
        return None
    needed: set[str] = set()
    heavy = False
    alternatives = []
    for selectors in parsed:
        tests = []
        for selector in selectors:
            read, attribute = fields.getter(selector.path)
            if attribute is not None:
                needed.add(attribute)
            test, large = _test(selector, read)
            heavy |= large
            tests.append(test)
        alternatives.append(tests[0] if len(tests) == 1 else _every(tests))
    if not alternatives:
        return None
    return Matcher(alternatives, part_decoder(fields.record, needed, fields.types), heavy)


def search_text(pattern: str) -> tuple[Callable[[str], bool], bool]:
    """A search anywhere in a text by Go's dialect of RE2, and whether it is heavy. A pattern that does not
    compile never matches."""
    try:
        compiled = None if _has_any_byte(pattern) else re2.compile(pattern.encode(), options=_options())
    except (re2.error, UnicodeEncodeError):
        compiled = None
    if compiled is None:
        return (lambda _: False), False
    search = compiled.search
    return (lambda text: search(text.encode()) is not None), compiled.programsize > _HEAVY_PROGRAM


def _some(tests: Sequence[Test]) -> Test:
    return lambda record: any(test(record) for test in tests)


def _every(tests: Sequence[Test]) -> Test:
    return lambda record: all(test(record) for test in tests)


def _test(selector: Selector, read: Getter) -> tuple[Test, bool]:
    wanted = selector.value
    if selector.operator is Operator.PRESENT:
        return (lambda record: read(record) is not None), False
    if selector.operator is Operator.EQUAL:
        return (lambda record: read(record) == wanted), False
    if selector.operator is Operator.UNEQUAL:
        return (lambda record: (read(record) or "") != wanted), False
    search, heavy = search_text(wanted)
    return (lambda record: search(read(record) or "")), heavy


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_MEMORY
    return options


def _has_any_byte(pattern: str) -> bool:
    r"""`\C`, which this RE2 knows and Go's does not."""
    at = 0
    while (at := pattern.find("\\", at)) >= 0:
        following = pattern[at + 1 : at + 2]
        if following == "C":
            return True
        if following == "Q":
            end = pattern.find("\\E", at)
            if end < 0:
                return False
            at = end
        at += 2
    return False
