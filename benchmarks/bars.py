"""Ratios as horizontal bars on a logarithmic axis, with a line where both are alike. SVG, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = ["draw_bars"]

_LEFT, _WIDTH, _ROW, _TOP = 380, 420, 24, 44
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
.axis { stroke: #999; stroke-width: 1 } .even { stroke: #222; stroke-width: 1.5 }
.better { fill: #2b7a9b } .worse { fill: #c26a1b } .small { font-size: 11px; fill: #555 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .axis { stroke: #666 } .even { stroke: #ddd }
  .better { fill: #5fb3d4 } .worse { fill: #e39a54 } .small { fill: #aaa }
}
"""


def draw_bars(title: str, bars: Sequence[tuple[str, float]]) -> str:
    """`bars`: names and ratios above 0; above 1 they go to the right."""
    least = min(0.5, *(ratio for _, ratio in bars))
    most = max(2.0, *(ratio for _, ratio in bars))
    low, high = math.log10(least) - 0.05, math.log10(most) + 0.05

    def x(ratio: float) -> float:
        return _LEFT + _WIDTH * (math.log10(ratio) - low) / (high - low)

    height = _TOP + _ROW * len(bars) + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text x="8" y="20" font-weight="600">{escape(title)}</text>',
    ]
    bottom = height - 24
    for tick in _ticks(least, most):
        kind = "even" if tick == 1 else "axis"
        parts.append(f'<line class="{kind}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP - 8}" y2="{bottom}"/>')
        parts.append(f'<text class="small" x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{tick:g}</text>')
    for number, (name, ratio) in enumerate(bars):
        y = _TOP + number * _ROW
        start, end = sorted((x(1), x(ratio)))
        kind = "better" if ratio >= 1 else "worse"
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect class="{kind}" x="{start:.1f}" y="{y + 2}" width="{max(1, end - start):.1f}" height="15"/>'
        )
        parts.append(f'<text class="small" x="{end + 5:.1f}" y="{y + 14}">{ratio:.2f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(least: float, most: float) -> list[float]:
    found = [base * 10.0**power for power in range(-3, 5) for base in (1, 2, 5)]
    inside = [tick for tick in found if least * 0.9 <= tick <= most * 1.1]
    return inside if len(inside) <= 9 else [tick for tick in inside if f"{tick:e}".startswith("1")]
