"""orlop leases"""

from __future__ import annotations

import re

import click

from ...actors.timestamps import rfc3339
from ...protocol.api import Store
from ...protocol.records import Lease, LeaseResource
from ..output import labels_text, print_json, print_table
from ..session import Session
from .listing import ListOptions, list_options, run_list
from .options import for_each, json_option, parse_labels, quiet_option

__all__ = ["leases"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> int:
    """Seconds, or parts with units: 90, 15m, 1h30m, 7d."""
    if text.isdecimal():
        return int(text)
    if not re.fullmatch(r"(\d+[smhd])+", text):
        raise click.BadParameter(f"{text!r} is no duration; write 90, 15m, 1h30m or 7d")
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([smhd])", text))


@click.group()
def leases() -> None:
    """Leases: they keep what they name from the collector until they end or expire."""


@leases.command("create")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--id", "name", default="", metavar="ID", help="Default: one is made up.")
@click.option("--expires", "-x", type=duration, metavar="DURATION", default="24h", show_default=True, help="0: never.")
@click.pass_obj
def create(session: Session, labels: tuple[str, ...], name: str, expires: int) -> None:
    """Create a lease and print its id.

    \b
    orlop leases create --id build-17 --expires 2h owner=ci
    orlop --lease build-17 content ingest ref < file       # what this makes, the lease keeps
    """

    async def run(store: Store) -> None:
        lease = await store.leases.create(name, parse_labels(labels), expires_in_s=expires or None)
        click.echo(lease.id)

    session.run(run)


@leases.command("list")
@list_options
@click.pass_obj
def list_(session: Session, options: ListOptions) -> None:
    """List leases, also those that have expired and are not collected yet. Filters: id, labels.<key>.

    \b
    orlop leases ls 'labels.owner==ci'
    """

    async def row(_: Store, lease: Lease) -> list[str]:
        return [lease.id, rfc3339(lease.created_at), labels_text(lease.labels)]

    run_list(
        session,
        options,
        lambda store: store.leases.list(options.filters),
        lambda lease: lease.id,
        ("ID", "CREATED AT", "LABELS"),
        row,
    )


@leases.command("remove")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--sync", is_flag=True, help="Wait until what only they held is gone.")
@click.pass_obj
def remove(session: Session, ids: tuple[str, ...], sync: bool) -> None:
    """End leases. What nothing else keeps is collected.

    \b
    orlop leases rm build-17 --sync
    """

    async def run(store: Store) -> None:
        try:
            await for_each(ids, store.leases.delete)
        finally:
            if sync:
                await store.collect()  # once for all of them

    session.run(run)


@leases.command("resources")
@click.argument("id", metavar="ID")
@quiet_option
@json_option
@click.pass_obj
def resources(session: Session, id: str, quiet: bool, as_json: bool) -> None:
    """List what a lease holds.

    \b
    orlop leases resources build-17
    """

    async def run(store: Store) -> None:
        found = [resource async for resource in store.leases.resources(id)]
        if as_json:
            print_json(found)
        elif quiet:
            for resource in found:
                click.echo(resource.id)
        else:
            print_table(("TYPE", "ID"), [(resource.type, resource.id) for resource in found])

    session.run(run)


@leases.command("add")
@click.argument("id", metavar="ID")
@click.argument("type", metavar="TYPE")
@click.argument("resource", metavar="RESOURCE")
@click.pass_obj
def add(session: Session, id: str, type: str, resource: str) -> None:
    """Let a lease hold something. TYPE: content, images, ingests or snapshots/SNAPSHOTTER.

    \b
    orlop leases add build-17 images redis:latest
    """

    async def run(store: Store) -> None:
        await store.leases.add(id, LeaseResource(resource, type))

    session.run(run)


@leases.command("remove-resource")
@click.argument("id", metavar="ID")
@click.argument("type", metavar="TYPE")
@click.argument("resource", metavar="RESOURCE")
@click.pass_obj
def remove_resource(session: Session, id: str, type: str, resource: str) -> None:
    """Let a lease no longer hold something.

    \b
    orlop leases remove-resource build-17 images redis:latest
    """

    async def run(store: Store) -> None:
        await store.leases.remove(id, LeaseResource(resource, type))

    session.run(run)


for command, aliases in (
    (list_, ("ls",)),
    (remove, ("rm", "delete", "del")),
    (remove_resource, ("rm-resource",)),
):
    for alias in aliases:
        leases.add_command(command, alias)
