"""orlop config"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click
import msgspec
from msgspec import NODEFAULT, Meta

from ...actors.config import StoreConfig
from ..daemon import read_config

__all__ = ["config", "default_config"]


@click.group()
def config() -> None:
    """The daemon's settings: a TOML file, given with `orlopd --config FILE`."""


@config.command("default")
def default() -> None:
    """Print every setting with its default and what it means.

    \b
    orlop config default > orlop.toml
    """
    click.echo(default_config(), nl=False)


@config.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def check(file: str) -> None:
    """Say whether a file of settings can be used, and which of them differ from the defaults.

    \b
    orlop config check /etc/orlop/orlop.toml
    """
    found = read_config(None, (), file)
    for line in _differences(found, StoreConfig(found.root), ""):
        click.echo(line)
    click.echo(f"{file}: good", err=True)


def default_config() -> str:
    """All settings as a TOML file that changes nothing but the root."""
    return "\n".join(_described(StoreConfig, "")) + "\n"


def _described(kind: type[msgspec.Struct], table: str) -> Iterator[str]:
    hints = get_type_hints(kind, include_extras=True)
    tables = []
    for field in msgspec.structs.fields(kind):
        default = field.default
        if isinstance(default, msgspec.Struct):
            tables.append((field.encode_name, type(default)))
            continue
        if default is NODEFAULT and field.default_factory is not NODEFAULT:
            default = field.default_factory()
        yield f"# {_description(hints[field.name])}"
        if field.name == "root":
            yield 'root = "/var/lib/orlop"'
        else:
            yield f"{field.encode_name} = {_toml(field.name, default)}"
    for name, inner in tables:
        whole = f"{table}.{name}" if table else name
        yield ""
        yield f"# {inner.__doc__}"
        yield f"[{whole}]"
        yield from _described(inner, whole)


def _description(hint: Any) -> str:
    assert get_origin(hint) is Annotated
    return next(each.description for each in get_args(hint) if isinstance(each, Meta) and each.description)


def _toml(name: str, value: Any) -> str:
    if name == "socket_mode":
        return f"0o{value:o}"
    if isinstance(value, float) and value == int(value):
        return f"{value:.1f}"
    return msgspec.json.encode(value).decode()


def _differences(found: Any, usual: Any, table: str) -> Iterator[str]:
    for field in msgspec.structs.fields(found):
        mine, theirs = getattr(found, field.name), getattr(usual, field.name)
        name = f"{table}{field.encode_name}"
        if isinstance(mine, msgspec.Struct):
            yield from _differences(mine, theirs, f"{name}.")
        elif mine != theirs or name == "root":
            yield f"{name} = {_toml(field.name, mine)}"
