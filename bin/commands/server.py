"""orlop info, orlop plugins: who serves here."""

from __future__ import annotations

import click

from ...protocol.api import Store
from ...protocol.messages import Plugin
from ..output import labels_text, print_json, print_table, visible
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
@click.option("--detailed", "-d", is_flag=True, help="Also what they export, what they can, and what is wrong.")
@quiet_option
@json_option
@click.pass_obj
def list_(session: Session, filters: tuple[str, ...], detailed: bool, quiet: bool, as_json: bool) -> None:
    """List the parts in the order in which they were started, and how they stand. Filters: type, id.

    What cannot work on this machine, such as a snapshotter, says `skip`; what should and does not says `error`. Either
    ends with exit status 0.

    \b
    orlop plugins ls
    orlop plugins ls -d id==btrfs
    """

    async def run(store: Store) -> None:
        found = await store.plugins(filters)
        if as_json:
            print_json(found)
        elif quiet:
            for plugin in found:
                click.echo(plugin.id)
        elif detailed:
            click.echo("".join(f"{_described(each)}\n\n" for each in found).removesuffix("\n"), nl=False)
        else:
            print_table(
                ("TYPE", "ID", "PLATFORMS", "STATUS"),
                [(each.type, each.id, ",".join(each.platforms) or "-", each.status.value) for each in found],
            )

    session.run(run)


def _described(plugin: Plugin) -> str:
    """A line for each thing that it says of itself."""
    said = {
        "Type": plugin.type,
        "ID": plugin.id,
        "Platforms": ", ".join(plugin.platforms),
        "Status": plugin.status.value,
        "Error": plugin.error,
        "Capabilities": ", ".join(plugin.capabilities),
        "Exports": labels_text(plugin.exports) if plugin.exports else "",
    }
    return "\n".join(f"{name + ':':<14}{visible(text)}" for name, text in said.items() if text)


plugins.add_command(list_, "ls")
