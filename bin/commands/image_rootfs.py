"""orlop images unpack, mount, unmount, rootfs, usage: an image as a file system."""

from __future__ import annotations

import os
import time

import click

from ...actors.timestamps import rfc3339
from ...protocol.api import Snapshots, Store
from ...protocol.errors import AlreadyExists, FailedPrecondition, NotFound, OrlopError
from ...protocol.identifiers import quote
from ...protocol.labels import GC_ROOT
from ...protocol.messages import Unpacked
from ...protocol.records import Mount, SnapshotKind
from ..mounting import is_mounted, mount_all
from ..mounting import unmount as unmount_folder
from ..output import print_json, print_table
from ..session import Session
from .names import resolve_name
from .options import json_option, snapshotter_option, sync_fs_option
from .progress import open_display
from .snapshots import usage_row

__all__ = ["mount", "rootfs", "unmount", "unpack", "usage"]

_platform = click.option("--platform", default="", metavar="OS/ARCH", help="Default: this machine's.")


@click.command()
@click.argument("name", metavar="REF")
@_platform
@sync_fs_option
@snapshotter_option
@click.option("--quiet", "-q", is_flag=True, help="No progress, only the chain ID.")
@json_option
@click.pass_obj
def unpack(session: Session, name: str, platform: str, snapshotter: str, quiet: bool, as_json: bool) -> None:
    """Lay an image's layers down as snapshots, and print the top's name. What is there already is left as it is.

    \b
    orlop images unpack redis
    """

    async def run(store: Store) -> None:
        literal = await resolve_name(store, name)
        with open_display(quiet or as_json) as display:
            unpacked = await store.images.unpack(
                literal, snapshotter=snapshotter, platform=platform, progress=display.show
            )
        print_json(unpacked) if as_json else click.echo(unpacked.chain_id)

    session.run(run)


@click.command()
@click.argument("name", metavar="REF")
@_platform
@snapshotter_option
@click.pass_obj
def rootfs(session: Session, name: str, platform: str, snapshotter: str) -> None:
    """Print the name of the snapshot that is an image's whole file system; unpacks it first if it must.

    \b
    orlop images rootfs redis
    """

    async def run(store: Store) -> None:
        click.echo((await _unpacked(store, name, platform, snapshotter)).chain_id)

    session.run(run)


@click.command()
@click.argument("name", metavar="REF")
@_platform
@snapshotter_option
@click.option("--bytes", "-b", "plain", is_flag=True, help="Sizes as plain numbers.")
@click.pass_obj
def usage(session: Session, name: str, platform: str, snapshotter: str, plain: bool) -> None:
    """What an image's snapshots take on disk, from the top down.

    \b
    orlop images usage redis
    """

    async def run(store: Store) -> None:
        unpacked = await _unpacked(store, name, platform, snapshotter)
        found = store.snapshots.using(unpacked.snapshotter)
        rows, at = [], unpacked.chain_id
        while at:
            rows.append(await usage_row(found, at, plain))
            at = (await found.get(at)).parent
        print_table(("KEY", "SIZE", "INODES"), rows)

    session.run(run)


@click.command()
@click.argument("name", metavar="REF")
@click.argument("target", metavar="DIR")
@click.option("--rw", is_flag=True, help="Writable; what is written stays until `images unmount --rm`.")
@_platform
@sync_fs_option
@snapshotter_option
@click.pass_obj
def mount(session: Session, name: str, target: str, rw: bool, platform: str, snapshotter: str) -> None:
    """Mount an image on DIR, read-only. Unpacks it first if it must. Needs privileges.

    A snapshot named like DIR stands for the mount, until `orlop images unmount DIR`.

    \b
    orlop images mount redis /mnt
    """
    folder = os.path.abspath(target)

    async def run(store: Store) -> None:
        if not os.path.isdir(folder):
            raise NotFound(f"folder {quote(target)}", hint="make it first")
        unpacked = await _unpacked(store, name, platform, snapshotter)
        found = store.snapshots.using(unpacked.snapshotter)
        mounts, is_new = await _mounts(found, folder, unpacked.chain_id, rw)
        try:
            if not is_mounted(folder):
                mount_all(mounts, folder)
        except OrlopError:
            if is_new:
                await found.remove(folder)
            raise
        click.echo(folder)

    session.run(run)


@click.command()
@click.argument("target", metavar="DIR")
@click.option("--rm", "remove", is_flag=True, help="Also remove what was written.")
@snapshotter_option
@click.pass_obj
def unmount(session: Session, target: str, remove: bool, snapshotter: str) -> None:
    """Undo `images mount`. A writable one's snapshot stays, unless --rm is given.

    \b
    orlop images unmount /mnt --rm
    """
    folder = os.path.abspath(target)

    async def run(store: Store) -> None:
        if is_mounted(folder):
            unmount_folder(folder)
        found = store.snapshots.using(snapshotter)
        try:
            info = await found.get(folder)
        except NotFound:
            return
        if remove or info.kind is SnapshotKind.VIEW:
            await found.remove(folder)
        else:
            click.echo(f"what was written is kept in snapshot {quote(folder)}; --rm removes it", err=True)

    session.run(run)


async def _unpacked(store: Store, name: str, platform: str, snapshotter: str) -> Unpacked:
    literal = await resolve_name(store, name)
    return await store.images.unpack(literal, snapshotter=snapshotter, platform=platform)


async def _mounts(found: Snapshots, folder: str, chain_id: str, rw: bool) -> tuple[list[Mount], bool]:
    """Of a snapshot for this folder: a new one, or the one that an earlier mount of the same image left."""
    labels = {GC_ROOT: rfc3339(time.time_ns())}
    make = found.prepare if rw else found.view
    try:
        return await make(folder, chain_id, labels), True
    except AlreadyExists:
        info = await found.get(folder)
        wanted = SnapshotKind.ACTIVE if rw else SnapshotKind.VIEW
        if info.parent != chain_id or info.kind is not wanted:
            raise FailedPrecondition(
                f"snapshot {quote(folder)} stands for another mount", hint=f"orlop images unmount --rm {folder}"
            ) from None
        return await found.mounts(folder), False
