"""What the documents list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from orlop.protocol.methods import METHODS

DOCS = Path(__file__).parent.parent / "docs"


def test_the_protocol_page_names_every_method() -> None:
    table = (DOCS / "protocol.md").read_text().partition("## Methods")[2]
    named = set(re.findall(r"`((?:[a-z]+\.)?[a-z_]+)`", table)) - {"delete", "sync", "update", "read", "verify"}
    assert named >= set(METHODS)
    assert {name for name in named if "." in name} <= set(METHODS)


def test_links_between_documents_lead_somewhere() -> None:
    for page in [DOCS.parent / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"
