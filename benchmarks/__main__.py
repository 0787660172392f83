"""`python -m benchmarks [--quick] [--only CHAPTER,...] [--folder DIR]`: the book.

Everything is measured in one run on one machine, orlop and Debian's containerd in turns, and written to
`docs/performance.md`. `--quick` takes under five minutes, prints, and writes nothing. Without containerd on this
machine orlop stands alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from orlop.bin.load.result import this_machine
from orlop.protocol.version import __version__

from . import chapters, page
from .figures import Book, Section
from .pair import containerd_version, has_containerd

CHAPTERS: dict[str, Callable[[chapters.Terms], Section]] = {
    "limits": chapters.limits,
    "records": chapters.records,
    "content": chapters.content,
    "builds": chapters.builds,
    "garbage": chapters.garbage,
    "pulls": chapters.pulls,
    "standing": chapters.standing,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help=", ".join(CHAPTERS))
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="whose disk is measured")
    parser.add_argument("--results", default="", help="where the figures go; docs/performance.json for a whole run")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(CHAPTERS)
    both = has_containerd()
    if not both:
        print("containerd is not installed: orlop alone")
    folder = Path(tempfile.mkdtemp(prefix="orlop-bench-", dir=options.folder))
    sections = []
    try:
        for name in names:
            print(f"\n{name}", flush=True)
            terms = chapters.Terms(folder / name, quick=options.quick, both=both)
            sections.append(CHAPTERS[name](terms))
            shutil.rmtree(folder / name, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    book = Book(
        machine=this_machine(options.folder),
        measured_on=dt.date.today().isoformat(),
        versions={"orlop": __version__, "containerd": containerd_version() if both else "-"},
        quick=options.quick,
        sections=sections,
    )
    page.write_figures(book, options.results, whole=not options.quick and not options.only)


if __name__ == "__main__":
    main()
