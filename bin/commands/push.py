"""orlop push and copy"""

from __future__ import annotations

import time

import click
import msgspec

from ...protocol.api import Store
from ...protocol.errors import NotFound
from ...protocol.messages import CopyImage, Pushed, PushImage, RegistryAccess
from ..output import print_json, size_text
from ..session import Session
from .names import resolve_name
from .options import json_option
from .progress import TransferDisplay, open_display
from .registry_options import (
    access_for,
    credentials_of,
    literal_option,
    platform_option,
    reference_of,
    registry_options,
)

__all__ = ["copy", "push"]

_uploads = click.option("--max-concurrent-uploads", type=click.IntRange(1, 64), default=4, show_default=True)
_chunk = click.option("--chunk-size", type=click.IntRange(0), default=0, metavar="BYTES", help="0: blobs in one piece.")
_trim = click.option("--trim", is_flag=True, help="With --platform: an index of those platforms only.")
_nondistributable = click.option("--allow-non-distributable-blobs", is_flag=True)
_referrers = click.option("--referrers", "with_referrers", is_flag=True, help="Also what describes the image.")
_quiet = click.option("--quiet", "-q", is_flag=True, help="No progress, only the digest.")


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("local", required=False, metavar="[LOCAL]")
@platform_option
@_trim
@click.option("--manifest", default="", metavar="DIGEST", help="Push this manifest instead of what LOCAL names.")
@_nondistributable
@_referrers
@_uploads
@_chunk
@registry_options
@literal_option
@_quiet
@json_option
@click.pass_obj
def push(
    session: Session,
    reference: str,
    local: str | None,
    platforms: tuple[str, ...],
    trim: bool,
    manifest: str,
    allow_non_distributable_blobs: bool,
    with_referrers: bool,
    max_concurrent_uploads: int,
    chunk_size: int,
    access: RegistryAccess,
    literal: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Send an image to a registry as REF. LOCAL is its name here, if that is another one.

    What the registry has is not sent again; what it has in another repository is mounted. The tag is moved last.

    \b
    orlop push registry.example/team/app:1
    orlop push registry.example/team/app:1 app:dev --platform linux/amd64
    """
    remote = reference_of(reference, literal=literal)

    async def run(store: Store) -> None:
        name = "" if manifest else await _local_name(store, local or reference, remote if local is None else "")
        request = PushImage(
            remote,
            name,
            manifest,
            access_for(access, remote),
            platforms=list(platforms),
            trim=trim,
            allow_nondistributable=allow_non_distributable_blobs,
            referrers=with_referrers,
            max_concurrent_uploads=max_concurrent_uploads,
            chunk_bytes=chunk_size,
        )
        began = time.monotonic()
        with open_display(quiet or as_json) as display:
            pushed = await store.push(request, display.show)
        _tell(pushed, display, time.monotonic() - began, quiet=quiet, as_json=as_json)

    session.run(run)


@click.command()
@click.argument("source")
@click.argument("target")
@platform_option
@_trim
@_nondistributable
@_referrers
@_uploads
@_chunk
@registry_options
@click.option("--target-user", metavar="NAME:PASSWORD", help="For the target, if others than for the source.")
@literal_option
@_quiet
@json_option
@click.pass_obj
def copy(
    session: Session,
    source: str,
    target: str,
    platforms: tuple[str, ...],
    trim: bool,
    allow_non_distributable_blobs: bool,
    with_referrers: bool,
    max_concurrent_uploads: int,
    chunk_size: int,
    access: RegistryAccess,
    target_user: str | None,
    literal: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy an image from one registry to another. Nothing of it is kept here.

    \b
    orlop copy docker.io/library/redis:7 registry.example/mirror/redis:7
    """
    origin, remote = reference_of(source, literal=literal), reference_of(target, literal=literal)
    there = access
    if target_user is not None:
        there = msgspec.structs.replace(access, credentials=credentials_of(target_user, None))
    request = CopyImage(
        origin,
        remote,
        access_for(access, origin),
        access_for(there, remote),
        platforms=list(platforms),
        trim=trim,
        allow_nondistributable=allow_non_distributable_blobs,
        referrers=with_referrers,
        max_concurrent_uploads=max_concurrent_uploads,
        chunk_bytes=chunk_size,
    )

    async def run(store: Store) -> None:
        began = time.monotonic()
        with open_display(quiet or as_json) as display:
            pushed = await store.copy(request, display.show)
        _tell(pushed, display, time.monotonic() - began, quiet=quiet, as_json=as_json)

    session.run(run)


async def _local_name(store: Store, name: str, remote: str) -> str:
    """The image's name here; for the remote one itself, as it is written there, too."""
    try:
        return await resolve_name(store, name)
    except NotFound:
        if not remote:
            raise
        return await resolve_name(store, remote)


def _tell(pushed: Pushed, display: TransferDisplay, elapsed: float, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        print_json(pushed)
        return
    if quiet:
        click.echo(pushed.target.digest)
        return
    there = sum(item.total for item in display.items.values()) - pushed.sent
    rate = f" ({size_text(int(pushed.sent / elapsed))}/s)" if pushed.sent and elapsed > 0 else ""
    click.echo(f"{pushed.reference}@{pushed.target.digest}" if "@" not in pushed.reference else pushed.reference)
    click.echo(
        f"done: elapsed {elapsed:.1f} s, sent {size_text(pushed.sent)}{rate}, there already {size_text(max(0, there))}"
    )
