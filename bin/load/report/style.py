"""How a report looks: light, dark, and black on white on paper."""

from __future__ import annotations

from typing import Final

__all__ = ["STYLE"]

_LIGHT = """
--page: #fff; --ink: #1b1d21; --soft: #5a6068; --edge: #d5d9de; --band: #f4f6f8;
--good: #00694d; --bad: #a8320a;
--c0: #0060a8; --c1: #c8500a; --c2: #007a5a; --c3: #9b3a8a; --c4: #2391c9; --c5: #555;
"""
_DARK = """
--page: #16181c; --ink: #e8eaed; --soft: #a4abb5; --edge: #3a4048; --band: #1f2329;
--good: #3fcf9f; --bad: #ff9a5c;
--c0: #5aa9f0; --c1: #ff9a5c; --c2: #3fcf9f; --c3: #e79ad8; --c4: #f0d95a; --c5: #c9c9c9;
"""

_COLOURS = "\n".join(f".c{number} {{ --line: var(--c{number}); }}" for number in range(6))

STYLE: Final = f"""
:root {{ color-scheme: light; {_LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .8rem; border-top: 2px solid var(--edge);
  overflow-wrap: anywhere; }}
h3 {{ font-size: 1.05rem; margin: 1.8rem 0 .4rem; }}
a {{ color: inherit; }}
p, ul {{ margin: .4rem 0; }}
.about {{ color: var(--soft); }}
.summary {{ border-left: 4px solid var(--edge); padding: .3rem 1rem; margin: .8rem 0; background: var(--band); }}
.summary ul {{ padding-left: 1.1rem; }}
.good {{ color: var(--good); font-weight: 600; }}
.bad {{ color: var(--bad); font-weight: 700; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: .4rem 0 1rem; font-variant-numeric: tabular-nums; font-size: .9rem; }}
caption {{ text-align: left; color: var(--soft); padding: .2rem 0; }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid var(--edge); text-align: left; vertical-align: top; }}
thead th {{ border-bottom: 2px solid var(--edge); vertical-align: bottom; }}
th.n, td.n {{ text-align: right; white-space: nowrap; }}
tbody th {{ font-weight: 600; min-width: 7rem; }}
table.facts th {{ width: 11rem; font-weight: 400; color: var(--soft); }}
td, th {{ overflow-wrap: break-word; max-width: 28rem; }}
thead th, thead th.n {{ white-space: normal; max-width: 14rem; overflow-wrap: break-word; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: .5rem 1.5rem; }}
figure {{ margin: .6rem 0; }}
figcaption {{ font-weight: 600; font-size: .95rem; overflow-wrap: anywhere; }}
svg.plot {{ display: block; width: 100%; height: auto; color: var(--ink); overflow: visible; }}
svg text {{ font: 11px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: var(--ink); }}
svg .axis, svg .tick, svg .rule-name {{ fill: var(--soft); }}
svg .grid {{ stroke: var(--edge); stroke-width: .7; fill: none; }}
svg .frame {{ stroke: var(--soft); stroke-width: 1; fill: none; }}
svg .rule {{ stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; fill: none; }}
svg .line {{ stroke: var(--line); stroke-width: 1.5; fill: none; stroke-linejoin: round; }}
svg .mark {{ fill: var(--line); stroke: var(--page); stroke-width: .8; }}
svg .lead {{ stroke: var(--line); stroke-width: .8; stroke-dasharray: 1 3; fill: none; }}
svg .faint {{ --line: var(--soft); }}
svg .faint .line {{ stroke-dasharray: 5 4; stroke-width: 1; }}
{_COLOURS}
@media print {{
  :root {{ --page: #fff; --ink: #000; --soft: #333; --edge: #aaa; --band: #fff; --good: #000; --bad: #000; }}
  body {{ max-width: none; padding: 0; font-size: 9.5pt; }}
  .scroll {{ overflow: visible; }}
  table {{ font-size: 8.5pt; }}
  th, td {{ padding: .15rem .4rem; }}
  table, figure, .summary {{ break-inside: avoid; }}
  table.long {{ break-inside: auto; }}
  thead {{ display: table-header-group; }}
  tr {{ break-inside: avoid; }}
  h2, h3, caption, figcaption {{ break-after: avoid; }}
  .plots {{ grid-template-columns: 1fr 1fr; gap: .2rem 1rem; }}
  nav {{ display: none; }}
}}
"""
