"""orlop pull and content fetch"""

from __future__ import annotations

import time

import click

from ...protocol.api import Store
from ...protocol.messages import PullImage, PullPolicy, RegistryAccess, TransferState
from ..output import print_json, size_text
from ..session import Session
from .options import json_option, parse_labels, snapshotter_option, sync_fs_option
from .progress import TransferDisplay, open_display
from .registry_options import access_for, literal_option, platform_option, reference_of, registry_options

__all__ = ["fetch", "pull"]


@click.command()
@click.argument("reference")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Default: this machine's.")
@click.option("--all-platforms", is_flag=True)
@click.option("--skip-metadata", is_flag=True, help="Leave out manifests and configs of other platforms.")
@registry_options
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--max-concurrent-downloads", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option(
    "--policy",
    type=click.Choice([each.value for each in PullPolicy]),
    default="always",
    show_default=True,
    help="newer: what is here serves while the registry is down; missing, never: do not ask it.",
)
@click.option("--referrers", is_flag=True, help="Also what describes the image: signatures, bills of materials.")
@click.option("--dry-run", is_flag=True, help="Only say what the registry has under that name.")
@click.option("--no-unpack", is_flag=True, help="Only download; lay no layer down as a snapshot.")
@click.option("--fetch-all", is_flag=True, help="Download layers also where their snapshots are here.")
@sync_fs_option
@snapshotter_option
@literal_option
@click.option("--quiet", "-q", is_flag=True, help="No progress, only the digest.")
@json_option
@click.pass_obj
def pull(
    session: Session,
    reference: str,
    platforms: tuple[str, ...],
    all_platforms: bool,
    skip_metadata: bool,
    access: RegistryAccess,
    labels: tuple[str, ...],
    max_concurrent_downloads: int,
    policy: str,
    referrers: bool,
    dry_run: bool,
    no_unpack: bool,
    fetch_all: bool,
    snapshotter: str,
    literal: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Bring an image from a registry, and unpack it for this machine.

    What is here already, in this namespace or another, is not downloaded or unpacked again. An interrupted pull goes
    on where it stopped.

    \b
    orlop pull redis
    orlop pull --platform linux/arm64 quay.io/prometheus/busybox:latest
    orlop pull --plain-http 127.0.0.1:5000/library/redis:latest
    """
    name = reference_of(reference, literal=literal)
    if dry_run:
        _resolve(session, name, access_for(access, name), as_json=as_json)
        return
    request = PullImage(
        reference=name,
        platforms=list(platforms),
        all_platforms=all_platforms,
        skip_metadata=skip_metadata,
        labels=parse_labels(labels),
        max_concurrent_downloads=max_concurrent_downloads,
        unpack=not no_unpack,
        snapshotter=snapshotter,
        fetch_all=fetch_all,
        policy=PullPolicy(policy),
        referrers=referrers,
        access=access_for(access, name),
    )

    _run(session, request, quiet=quiet, as_json=as_json)


@click.command()
@click.argument("reference")
@platform_option
@click.option("--all-platforms", is_flag=True)
@click.option("--skip-metadata", is_flag=True, help="Leave out manifests and configs of other platforms.")
@registry_options
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--referrers", is_flag=True, help="Also what describes the image.")
@literal_option
@click.option("--quiet", "-q", is_flag=True, help="No progress, only the digest.")
@json_option
@click.pass_obj
def fetch(
    session: Session,
    reference: str,
    platforms: tuple[str, ...],
    all_platforms: bool,
    skip_metadata: bool,
    access: RegistryAccess,
    labels: tuple[str, ...],
    referrers: bool,
    literal: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Bring an image with all its layers, and unpack nothing.

    \b
    orlop content fetch redis --all-platforms
    """
    name = reference_of(reference, literal=literal)
    request = PullImage(
        name,
        list(platforms),
        all_platforms,
        access_for(access, name),
        skip_metadata,
        parse_labels(labels),
        referrers=referrers,
        fetch_all=True,
    )
    _run(session, request, quiet=quiet, as_json=as_json)


def _run(session: Session, request: PullImage, *, quiet: bool, as_json: bool) -> None:
    async def run(store: Store) -> None:
        began = time.monotonic()
        with open_display(quiet or as_json) as display:
            image = await store.pull(request, display.show)
        if as_json:
            print_json(image)
        elif quiet:
            click.echo(image.target.digest)
        else:
            _summary(request.reference, image.target.digest, display, time.monotonic() - began)

    session.run(run)


def _resolve(session: Session, name: str, access: RegistryAccess, *, as_json: bool) -> None:
    async def run(store: Store) -> None:
        found = await store.resolve(name, access)
        if as_json:
            print_json(found)
        else:
            click.echo(f"{name}@{found.digest} {found.media_type} {size_text(found.size)}")

    session.run(run)


def _summary(name: str, digest: str, display: TransferDisplay, elapsed: float) -> None:
    transferred = sum(item.transferred for item in display.items.values())
    total = sum(item.total for item in display.items.values())
    unpacked = sum(item.state is TransferState.UNPACKED for item in display.items.values())
    already = max(0, total - transferred)
    rate = f" ({size_text(int(transferred / elapsed))}/s)" if transferred and elapsed > 0 else ""
    click.echo(f"{name}@{digest}")
    click.echo(
        f"done: elapsed {elapsed:.1f} s, total {size_text(total)}, "
        f"downloaded {size_text(transferred)}{rate}, already here {size_text(already)}"
        + (f", {unpacked} layer{'s' if unpacked > 1 else ''} unpacked" if unpacked else "")
    )
