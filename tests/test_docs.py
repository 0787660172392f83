"""What the documents list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec

from benchmarks.figures import Book
from benchmarks.page import drawings, render
from orlop.actors.config import StoreConfig
from orlop.bin.cli import cli
from orlop.bin.commands.config import default_config
from orlop.bin.daemon import read_config
from orlop.bin.load.cli import main as load
from orlop.bin.load.scenario import find_scenario, parse_scenario
from orlop.bin.manual import manual
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


def test_the_page_of_commands_is_made_from_the_commands() -> None:
    """By what it names: how click words things differs between its versions. `make docs` makes it anew."""
    page = (DOCS / "cli.md").read_text()
    now = manual()
    assert re.findall(r"^#+ .*", page, re.MULTILINE) == re.findall(r"^#+ .*", now, re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", page)) == set(re.findall(r"--[a-z-]+", now))


def test_the_operations_page_shows_every_setting() -> None:
    assert f"```toml\n{default_config()}```" in (DOCS / "operations.md").read_text()


def test_default_settings_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "orlop.toml"
    file.write_text(default_config())
    assert read_config(None, (), str(file)) == StoreConfig("/var/lib/orlop")


def test_the_performance_page_is_made_from_its_figures() -> None:
    """`python -m benchmarks.page` makes it anew."""
    book = msgspec.json.decode((DOCS / "performance.json").read_bytes(), type=Book)
    assert (DOCS / "performance.md").read_text() == render(book)
    assert {each.name: each.read_text() for each in (DOCS / "performance").iterdir()} == drawings(book)


def test_every_command_has_an_example() -> None:
    def without(command: click.Command, path: str) -> list[str]:
        if isinstance(command, click.Group):
            found = [each for each in command.commands.items() if not each[1].hidden]
            return [name for inner, each in found for name in without(each, f"{path} {inner}")]
        return [] if re.search(r"\x08\n.*orlop(-load)? ", command.help or "") else [path]

    assert without(cli, "orlop") == without(load, "orlop-load") == []


def test_the_scenario_of_the_page_about_load_is_one() -> None:
    text = (DOCS / "load.md").read_text().partition("```toml\n")[2].partition("```")[0]
    assert parse_scenario(text, "load.md").name == "mine"
    assert all(find_scenario(name) for name in re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
