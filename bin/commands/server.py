"""orlop info, orlop plugins: who serves here."""

from __future__ import annotations

import click

from ...protocol.api import Store
from ..output import print_json, print_table
from ..session import Session
from .options import json_option, quiet_option

__all__ = ["info", "plugins"]


@click.command()
@click.pass_obj
def info(session: Session) -> None:
    """Who serves, and how much is in the namespace, as JSON.

    \b
    orlop info
    """

    async def run(store: Store) -> None:
        server = await store.server()
        counts = {}
        for name, listed in (
            ("images", store.images.list(fields=["name"])),
            ("containers", store.containers.list(fields=["id"])),
            ("content", store.content.list(fields=["digest"])),
            ("snapshots", store.snapshots.list(fields=["name"])),
            ("leases", store.leases.list(fields=["id"])),
        ):
            counts[name] = sum([1 async for _ in listed])
        print_json({"server": server, "namespace": store.namespace, "counts": counts, "limits": store.welcome().limits})

    session.run(run)


@click.group()
def plugins() -> None:
    """The parts that a store is made of."""


@plugins.command("list")
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@quiet_option
@json_option
@click.pass_obj
def list_(session: Session, filters: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """List the parts in the order in which they were started. Filters: type, id.

    \b
    orlop plugins ls
    """

    async def run(store: Store) -> None:
        found = await store.plugins(filters)
        if as_json:
            print_json(found)
        elif quiet:
            for plugin in found:
                click.echo(plugin.id)
        else:
            print_table(("TYPE", "ID", "STATUS"), [(plugin.type, plugin.id, "ok") for plugin in found])

    session.run(run)


plugins.add_command(list_, "ls")
