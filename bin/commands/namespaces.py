"""orlop namespaces"""

from __future__ import annotations

import click

from ...protocol.api import Store
from ...protocol.errors import NotFound
from ..output import labels_text, print_json, print_table
from ..session import Session
from .listing import print_labels
from .options import for_each, json_option, parse_labels, quiet_option

__all__ = ["namespaces"]


@click.group()
def namespaces() -> None:
    """Namespaces: each sees only what is its own."""


@namespaces.command("create")
@click.argument("name")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_obj
def create(session: Session, name: str, labels: tuple[str, ...]) -> None:
    """Create a namespace. They also come into being with their first record.

    \b
    orlop namespaces create foo mylabel=bar
    """

    async def run(store: Store) -> None:
        await store.namespaces.create(name, parse_labels(labels))

    session.run(run)


@namespaces.command("list")
@quiet_option
@json_option
@click.pass_obj
def list_(session: Session, quiet: bool, as_json: bool) -> None:
    """List all namespaces.

    \b
    orlop namespaces ls
    """

    async def run(store: Store) -> None:
        found = [namespace async for namespace in store.namespaces.list()]
        if as_json:
            print_json(found)
        elif quiet:
            for namespace in found:
                click.echo(namespace.name)
        else:
            rows = [(n.name, labels_text(n.labels) if n.labels else "") for n in found]
            print_table(("NAME", "LABELS"), rows)

    session.run(run)


@namespaces.command("label")
@click.argument("name")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_obj
def label(session: Session, name: str, labels: tuple[str, ...]) -> None:
    """Set labels and print what came of it; `key=` removes one. Other labels stay.

    \b
    orlop namespaces label ci team=build
    """

    async def run(store: Store) -> None:
        given = parse_labels(labels)
        if not given:
            print_labels((await store.namespaces.get(name)).labels)
            return
        print_labels((await store.namespaces.update(name, given, [f"labels.{key}" for key in given])).labels)

    session.run(run)


@namespaces.command("remove")
@click.argument("names", nargs=-1, required=True)
@click.option("--ignore-missing", is_flag=True, help="A namespace that is not there is no error.")
@click.pass_obj
def remove(session: Session, names: tuple[str, ...], ignore_missing: bool) -> None:
    """Remove empty namespaces. Leases and unfinished ingests do not count, and go with them.

    \b
    orlop namespaces rm ci
    """

    async def run(store: Store) -> None:
        async def act(name: str) -> None:
            try:
                await store.namespaces.delete(name)
            except NotFound:
                if not ignore_missing:
                    raise

        await for_each(names, act)

    session.run(run)


for command, aliases in ((list_, ("ls",)), (remove, ("rm", "delete", "del")), (create, ("c",))):
    for alias in aliases:
        namespaces.add_command(command, alias)
