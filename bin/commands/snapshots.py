"""orlop snapshots"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, BinaryIO

import click

from ...actors.timestamps import rfc3339
from ...protocol.api import Snapshots, Store
from ...protocol.labels import GC_ROOT
from ...protocol.records import Mount, SnapshotInfo
from ..mounting import mount_all, unmount
from ..output import labels_text, print_json, print_table, size_text
from ..session import Session
from .listing import ListOptions, list_options, print_labels, run_list
from .options import for_each, json_option, parse_labels, snapshotter_option

__all__ = ["mount_lines", "snapshots"]


@click.group()
def snapshots() -> None:
    """Snapshots: file systems layer by layer, to mount and to build upon."""


def _with_snapshots(command: Callable[..., Any]) -> Any:
    """The command gets `session` and `snapshotter`."""

    @snapshotter_option
    @click.pass_obj
    @wraps(command)
    def gathered(session: Session, *arguments: Any, **options: Any) -> Any:
        return command(session, *arguments, **options)

    return gathered


@snapshots.command("list")
@list_options
@_with_snapshots
def list_(session: Session, options: ListOptions, snapshotter: str) -> None:
    """List snapshots. Filters: name, parent, kind (active, view, committed), labels.<key>.

    \b
    orlop snapshots ls kind==active
    """

    async def row(_: Store, info: SnapshotInfo) -> list[str]:
        kind = info.kind.value.capitalize()
        return [info.name, info.parent, kind, rfc3339(info.created_at), labels_text(info.labels)]

    run_list(
        session,
        options,
        lambda store: store.snapshots.using(snapshotter).list(options.filters),
        lambda info: info.name,
        ("KEY", "PARENT", "KIND", "CREATED AT", "LABELS"),
        row,
    )


@snapshots.command("tree")
@_with_snapshots
def tree(session: Session, snapshotter: str) -> None:
    """Show which snapshot stands on which.

    \b
    orlop snapshots tree
    """

    async def run(store: Store) -> None:
        below: dict[str, list[str]] = {}
        async for info in store.snapshots.using(snapshotter).list(fields=["name", "parent"]):
            below.setdefault(info.parent, []).append(info.name)
        waiting = [(name, 0) for name in sorted(below.get("", []), reverse=True)]
        while waiting:
            name, depth = waiting.pop()
            click.echo(f" {name}" if not depth else f"{'  ' * depth}\\_ {name}")
            waiting += [(child, depth + 1) for child in sorted(below.get(name, []), reverse=True)]

    session.run(run)


@snapshots.command("info")
@click.argument("key")
@_with_snapshots
def info(session: Session, key: str, snapshotter: str) -> None:
    """Show a snapshot's record as JSON.

    \b
    orlop snapshots info base
    """

    async def run(store: Store) -> None:
        print_json(await store.snapshots.using(snapshotter).get(key))

    session.run(run)


def _making(command: Callable[..., Any]) -> Any:
    for option in (
        _with_snapshots,
        click.option("--label", "labels", multiple=True, metavar="KEY=VALUE"),
        click.option("--mounts", "as_json", is_flag=True, help="Print its mounts as JSON."),
        click.option("--target", "-t", metavar="DIR", help="Print the commands that mount it there."),
        click.argument("parent", default=""),
        click.argument("key"),
    ):
        command = option(command)
    return command


@snapshots.command("prepare")
@_making
def prepare(
    session: Session,
    key: str,
    parent: str,
    target: str | None,
    as_json: bool,
    labels: tuple[str, ...],
    snapshotter: str,
) -> None:
    """Make an active snapshot, empty or on a committed one. It stays until it is removed.

    \b
    orlop snapshots prepare --target /mnt work sha256:2970b4f7...
    """

    async def run(store: Store) -> None:
        made = await store.snapshots.using(snapshotter).prepare(key, parent, _kept(labels))
        _print_mounts(made, target, as_json)

    session.run(run)


@snapshots.command("view")
@_making
def view(
    session: Session,
    key: str,
    parent: str,
    target: str | None,
    as_json: bool,
    labels: tuple[str, ...],
    snapshotter: str,
) -> None:
    """Make a snapshot that is only looked at. It stays until it is removed.

    \b
    orlop snapshots view look base --mounts
    """

    async def run(store: Store) -> None:
        made = await store.snapshots.using(snapshotter).view(key, parent, _kept(labels))
        _print_mounts(made, target, as_json)

    session.run(run)


@snapshots.command("commit")
@click.argument("name")
@click.argument("key")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@_with_snapshots
def commit(session: Session, name: str, key: str, labels: tuple[str, ...], snapshotter: str) -> None:
    """Turn the active snapshot KEY into the committed one NAME. It stays until it is removed.

    \b
    orlop snapshots commit base work
    """

    async def run(store: Store) -> None:
        await store.snapshots.using(snapshotter).commit(name, key, _kept(labels))

    session.run(run)


@snapshots.command("mounts")
@click.argument("target", metavar="DIR")
@click.argument("key")
@json_option
@_with_snapshots
def mounts(session: Session, target: str, key: str, as_json: bool, snapshotter: str) -> None:
    """Print the commands that mount a snapshot on DIR.

    \b
    orlop snapshots mounts /mnt work | sudo sh
    """

    async def run(store: Store) -> None:
        _print_mounts(await store.snapshots.using(snapshotter).mounts(key), target, as_json)

    session.run(run)


@snapshots.command("mount")
@click.argument("key")
@click.argument("target", metavar="DIR")
@_with_snapshots
def mount(session: Session, key: str, target: str, snapshotter: str) -> None:
    """Mount an active snapshot or a view on DIR. Needs privileges.

    \b
    orlop snapshots mount work /mnt
    """

    async def run(store: Store) -> None:
        mount_all(await store.snapshots.using(snapshotter).mounts(key), target)

    session.run(run)


@snapshots.command("unmount")
@click.argument("target", metavar="DIR")
def unmount_(target: str) -> None:
    """Unmount what is mounted on DIR. Whoever is inside keeps it until they leave.

    \b
    orlop snapshots unmount /mnt
    """
    unmount(target)


@snapshots.command("diff")
@click.argument("upper", metavar="KEY")
@click.argument("lower", required=False, metavar="[LOWER]")
@click.option("--media-type", default="", help="Default: OCI tar+gzip; also OCI tar and tar+zstd.")
@click.option("--ref", default="", help="Of the ingest.")
@click.option("--keep", is_flag=True, help="Keep the layer in the store, and print its descriptor as JSON.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the layer's bytes to a file.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Of the layer's blob.")
@click.option("--source-date-epoch", type=int, envvar="SOURCE_DATE_EPOCH", metavar="SECONDS")
@_with_snapshots
def diff(
    session: Session,
    upper: str,
    lower: str | None,
    media_type: str,
    ref: str,
    keep: bool,
    output: str | None,
    labels: tuple[str, ...],
    source_date_epoch: int | None,
    snapshotter: str,
) -> None:
    """Make a layer of what KEY has beyond LOWER (default: its parent), and write it to standard output.

    \b
    orlop snapshots diff work > layer.tar.gz
    orlop snapshots diff --keep work                 # a blob in the store
    """
    given = parse_labels(labels)
    if keep:
        given[GC_ROOT] = rfc3339(time.time_ns())
    epoch = None if source_date_epoch is None else source_date_epoch * 10**9

    async def run(store: Store) -> None:
        async with store.lease() as leased:
            layer = await leased.snapshots.using(snapshotter).diff(
                upper, lower, media_type=media_type, ref=ref, labels=given, source_date_epoch=epoch
            )
            if output or not keep:
                with _output(output) as file:
                    async with leased.content.chunks(layer.digest) as pieces:
                        async for piece in pieces:
                            file.write(piece)
        if keep:
            print_json(layer)

    session.run(run)


@snapshots.command("usage")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--bytes", "-b", "plain", is_flag=True, help="Sizes as plain numbers.")
@_with_snapshots
def usage(session: Session, keys: tuple[str, ...], plain: bool, snapshotter: str) -> None:
    """What snapshots take on disk, each without its parents; of none named, all.

    \b
    orlop snapshots usage base --bytes
    """

    async def run(store: Store) -> None:
        found = store.snapshots.using(snapshotter)
        names = list(keys) or [info.name async for info in found.list(fields=["name"])]
        print_table(("KEY", "SIZE", "INODES"), [await usage_row(found, name, plain) for name in names])

    session.run(run)


async def usage_row(found: Snapshots, name: str, plain: bool) -> list[str]:
    used = await found.usage(name)
    return [name, str(used.size) if plain else size_text(used.size), str(used.inodes)]


@snapshots.command("remove")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_with_snapshots
def remove(session: Session, keys: tuple[str, ...], snapshotter: str) -> None:
    """Remove snapshots that nothing stands on. Their files go with the next collection.

    \b
    orlop snapshots rm work base
    """

    async def run(store: Store) -> None:
        await for_each(keys, store.snapshots.using(snapshotter).remove)

    session.run(run)


@snapshots.command("label")
@click.argument("key")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@_with_snapshots
def label(session: Session, key: str, labels: tuple[str, ...], snapshotter: str) -> None:
    """Set labels and print what came of it; `key=` removes one. Other labels stay.

    \b
    orlop snapshots label base stage=done
    """

    async def run(store: Store) -> None:
        found, given = store.snapshots.using(snapshotter), parse_labels(labels)
        if given:
            print_labels((await found.update(key, given, [f"labels.{name}" for name in given])).labels)
        else:
            print_labels((await found.get(key)).labels)

    session.run(run)


@snapshots.command("cleanup")
@_with_snapshots
def cleanup(session: Session, snapshotter: str) -> None:
    """Remove the files of snapshots that were removed, without a collection.

    \b
    orlop snapshots cleanup
    """

    async def run(store: Store) -> None:
        await store.snapshots.using(snapshotter).cleanup()

    session.run(run)


@contextmanager
def _output(path: str | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with open(path, "wb") as file:
            yield file


def _kept(labels: tuple[str, ...]) -> dict[str, str]:
    return {GC_ROOT: rfc3339(time.time_ns()), **parse_labels(labels)}


def _print_mounts(found: list[Mount], target: str | None, as_json: bool) -> None:
    if as_json:
        print_json([{"Type": m.type, "Source": m.source, "Target": m.target, "Options": m.options} for m in found])
    elif target is not None:
        for line in mount_lines(found, target):
            click.echo(line)


def mount_lines(found: list[Mount], target: str) -> list[str]:
    """For a shell."""
    return [
        shlex.join(["mount", "-t", m.type, m.source, f"{target}/{m.target}".rstrip("/"), "-o", ",".join(m.options)])
        for m in found
    ]


for command, aliases in ((list_, ("ls",)), (remove, ("rm", "delete", "del")), (mounts, ("m",))):
    for alias in aliases:
        snapshots.add_command(command, alias)
