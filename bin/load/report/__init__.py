"""Reports of results: `render` makes one page of them.

`page` puts it together; `words` are what it says, `charts` which plots there are, `plots` and `scales` how they are
drawn, `side_by_side` how results compare; `markup` escapes.
"""

from .page import render

__all__ = ["render"]
