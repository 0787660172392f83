"""Pieces of a page. Everything that goes in as text is escaped; what is Markup already is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

from ...output import visible
from .plots import Plot, draw

__all__ = [
    "Markup",
    "Row",
    "bullets",
    "element",
    "figure",
    "figures",
    "join",
    "numbers_table",
    "pairs_table",
    "text_of",
]

LONG = 40
"""Rows beyond which a table may be cut between two pages."""


class Markup(str):
    """Safe to stand in a page: made here, of escaped parts."""

    __slots__ = ()


Row = Sequence[str]


def text_of(part: str) -> Markup:
    return part if isinstance(part, Markup) else Markup(escape(visible(part)))


def element(name: str, *parts: str, **attributes: str) -> Markup:
    """`kind` stands for class, `identity` for id."""
    names = {"kind": "class", "identity": "id"}
    said = "".join(f" {names.get(key, key)}={quoteattr(visible(value))}" for key, value in attributes.items())
    return Markup(f"<{name}{said}>{''.join(map(text_of, parts))}</{name}>")


def join(parts: Iterable[str], between: str = "\n") -> Markup:
    return Markup(between.join(map(text_of, parts)))


def bullets(items: Iterable[str]) -> Markup:
    return element("ul", *(element("li", item) for item in items))


def numbers_table(caption: str, header: Row, rows: Sequence[Row], *, words: Sequence[int] = (0,)) -> Markup:
    """The first column heads its row; all columns but those of `words` are numbers."""
    head = element("tr", *(_cell("th", text, number in words, scope="col") for number, text in enumerate(header)))
    body = (
        element(
            "tr",
            *(
                _cell("td" if number else "th", text, number in words, **({} if number else {"scope": "row"}))
                for number, text in enumerate(row)
            ),
        )
        for row in rows
    )
    table = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *body),
        **({"kind": "long"} if len(rows) > LONG else {}),
    )
    return element("div", table, kind="scroll", role="region", tabindex="0", **{"aria-label": caption})


def pairs_table(caption: str, rows: Iterable[tuple[str, str]]) -> Markup:
    """What is called how."""
    body = (element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows)
    return element("table", element("caption", caption), element("tbody", *body), kind="facts")


def figure(plot: Plot) -> Markup:
    return element("figure", element("figcaption", plot.title), Markup(draw(plot)))


def figures(plots: Iterable[Plot]) -> Markup:
    """Side by side."""
    return element("div", *map(figure, plots), kind="plots")


def _cell(name: str, text: str, words: bool, **attributes: str) -> Markup:
    return element(name, text, **attributes) if words else element(name, text, kind="n", **attributes)
