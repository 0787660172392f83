"""Lines on axes, as SVG that stands in a page: no script, no colour that is needed to tell lines apart.

Each line has its name at its end, a colour that the page's style defines (for light, dark and paper) and marks of a
shape of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple
from xml.sax.saxutils import escape

from ...output import visible
from .scales import Point, Scale

__all__ = ["COLOURS", "Line", "Plot", "Rule", "draw"]

COLOURS = 6
"""That the style has; with five shapes of marks thirty lines differ."""
SHAPES = 5
MARKS = 8
"""Of a line, at most."""

_LETTER = 6.4
"""The width of one, in units of the picture."""
_LINE_HEIGHT = 13.0
_TOP = 34.0
"""Room for the title of the axis and the names of rules."""
_BOTTOM = 40.0


class Line(NamedTuple):
    """`parts`: points that belong together; between parts there is a gap. `texts`: of each point of the parts one after
    another, what it says when it is pointed at. `number`: which of the colours and marks. `faint`: what others are held
    against. `joined` false: marks only."""

    name: str
    parts: Sequence[Sequence[Point]]
    number: int
    texts: Sequence[str] = ()
    faint: bool = False
    joined: bool = True


class Rule(NamedTuple):
    """A line across, at a value of the horizontal axis."""

    at: float
    name: str


class Plot(NamedTuple):
    """`identity`: unique in its page. `description`: in words what is to be seen, for who does not see it."""

    identity: str
    title: str
    description: str
    across: Scale
    up: Scale
    lines: Sequence[Line]
    rules: Sequence[Rule] = ()
    width: int = 760
    height: int = 320


class _Frame(NamedTuple):
    left: float
    top: float
    width: float
    height: float
    across: Scale
    up: Scale

    def x(self, value: float) -> float:
        return self.left + self.width * min(1.0, max(0.0, self.across.place(value)))

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - min(1.0, max(0.0, self.up.place(value))))


def draw(plot: Plot) -> str:
    """One `svg` element, well-formed."""
    frame = _frame(plot)
    named_by = f"{plot.identity}-t {plot.identity}-d"
    parts = [
        f'<svg class="plot" viewBox="0 0 {plot.width} {plot.height}" role="img" aria-labelledby="{named_by}">',
        f'<title id="{plot.identity}-t">{_text(plot.title)}</title>',
        f'<desc id="{plot.identity}-d">{_text(plot.description)}</desc>',
        _axes(frame, plot.height),
        *(_rule(frame, rule) for rule in plot.rules),
        *(_line(frame, line) for line in plot.lines),
        *_labels(frame, plot),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _frame(plot: Plot) -> _Frame:
    ticks = max((len(text) for _, text in plot.up.ticks), default=1)
    names = max((len(_short(line.name)) for line in plot.lines), default=0)
    left, right = 10 + _LETTER * ticks, 16 + _LETTER * names
    return _Frame(left, _TOP, plot.width - left - right, plot.height - _TOP - _BOTTOM, plot.across, plot.up)


def _axes(frame: _Frame, height: int) -> str:
    right, bottom = frame.left + frame.width, frame.top + frame.height
    parts = [f'<text class="axis" x="2" y="12">{_text(frame.up.title)}</text>']
    for value, text in frame.up.ticks:
        y = frame.y(value)
        parts.append(f'<path class="grid" d="M{frame.left:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{frame.left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{_text(text)}</text>'
        )
    free = -1.0
    for value, text in frame.across.ticks:
        x, half = frame.x(value), len(text) * _LETTER / 2
        parts.append(f'<path class="grid" d="M{x:.1f} {frame.top:.1f}V{bottom:.1f}"/>')
        if x - half < free:
            continue
        free = x + half + 4
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{_text(text)}</text>')
    parts.append(f'<path class="frame" d="M{frame.left:.1f} {frame.top:.1f}V{bottom:.1f}H{right:.1f}"/>')
    middle = frame.left + frame.width / 2
    parts.append(
        f'<text class="axis" x="{middle:.1f}" y="{height - 6}" text-anchor="middle">{_text(frame.across.title)}</text>'
    )
    return "\n".join(parts)


def _rule(frame: _Frame, rule: Rule) -> str:
    x = frame.x(rule.at)
    if rule.at and x > frame.left + frame.width * 0.7:
        place = f'x="{x - 3:.1f}" text-anchor="end"'
    else:
        place = f'x="{x + 3:.1f}"'
    return (
        f'<path class="rule" d="M{x:.1f} {frame.top:.1f}v{frame.height:.1f}"/>'
        f'<text class="rule-name" {place} y="{frame.top - 4:.1f}">{_text(rule.name)}</text>'
    )


def _line(frame: _Frame, line: Line) -> str:
    kind = "faint" if line.faint else f"c{line.number % COLOURS}"
    drawn = "".join(_path(frame, part) for part in line.parts if len(part) > 1) if line.joined else ""
    path = f'<path class="line" d="{drawn}"/>' if drawn else ""
    marks = "" if line.faint else _marks(frame, line)
    return f'<g class="{kind}">{path}{marks}</g>'


def _path(frame: _Frame, points: Sequence[Point]) -> str:
    """Steps from point to point, in tenths, which takes half the room of places."""
    places = [(round(frame.x(x) * 10), round(frame.y(y) * 10)) for x, y in points]
    found = [f"M{_tenths(places[0][0])} {_tenths(places[0][1])}l"]
    steps = []
    for (x, y), (next_x, next_y) in pairwise(places):
        step_y = _tenths(next_y - y)
        steps.append(f"{_tenths(next_x - x)}{'' if step_y.startswith('-') else ' '}{step_y}")
    return found[0] + " ".join(steps)


def _marks(frame: _Frame, line: Line) -> str:
    points = [point for part in line.parts for point in part]
    step = max(1, -(-len(points) // MARKS)) if line.joined else 1
    shown = range(line.number % step, len(points), step)
    found = []
    for index in shown:
        x, y = points[index]
        text = f"<title>{_text(line.texts[index])}</title>" if line.texts else ""
        found.append(f'<path class="mark" d="{_shape(line.number % SHAPES, frame.x(x), frame.y(y))}">{text}</path>')
    return "".join(found)


def _shape(number: int, x: float, y: float) -> str:
    """Round, square, triangle, diamond, or triangle on its head."""
    match number:
        case 0:
            return f"M{x - 3.2:.1f} {y:.1f}a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z"
        case 1:
            return f"M{x - 2.9:.1f} {y - 2.9:.1f}h5.8v5.8h-5.8z"
        case 2:
            return f"M{x:.1f} {y - 4:.1f}l3.8 6.6h-7.6z"
        case 3:
            return f"M{x:.1f} {y - 4.2:.1f}l4.2 4.2l-4.2 4.2l-4.2-4.2z"
        case _:
            return f"M{x:.1f} {y + 4:.1f}l3.8-6.6h-7.6z"


def _labels(frame: _Frame, plot: Plot) -> list[str]:
    """Names, where their lines end; no two on each other."""
    ends = sorted(
        (frame.y(points[-1][1]), number, frame.x(points[-1][0]), line)
        for number, line in enumerate(plot.lines)
        if (points := [point for part in line.parts for point in part])
    )
    places = _apart([y for y, *_ in ends], frame.top + 4, frame.top + frame.height)
    right = frame.left + frame.width
    found = []
    for (y, _, x, line), place in zip(ends, places, strict=True):
        kind = "faint" if line.faint else f"c{line.number % COLOURS}"
        shape = "" if line.faint else f'<path class="mark" d="{_shape(line.number % SHAPES, right + 9, place)}"/>'
        if not line.joined or sum(map(len, line.parts)) < 2:  # else one point would look like a line
            x = right
        lead = f'<path class="lead" d="M{x:.1f} {y:.1f}H{right:.1f}L{right + 5:.1f} {place:.1f}"/>'
        full = f"<title>{_text(line.name)}</title>" if _short(line.name) != line.name else ""
        name = f'<text class="name" x="{right + 16:.1f}" y="{place + 4:.1f}">{_text(_short(line.name))}{full}</text>'
        found.append(f'<g class="{kind}">{lead}{shape}{name}</g>')
    return found


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Places in the same order, a line's height from each other as far as there is room."""
    step = min(_LINE_HEIGHT, (bottom - top) / max(1, len(wanted) - 1))
    places: list[float] = []
    for each in wanted:
        places.append(max(each, places[-1] + step) if places else max(each, top))
    limit = bottom
    for number in range(len(places) - 1, -1, -1):
        places[number] = min(places[number], limit)
        limit = places[number] - step
    return places


def _short(name: str) -> str:
    name = visible(name)
    return name if len(name) <= 24 else name[:23] + "…"


def _tenths(value: int) -> str:
    """Without what says nothing."""
    return str(value // 10) if value % 10 == 0 else f"{value / 10:.1f}"


def _text(text: str) -> str:
    return escape(visible(text))
