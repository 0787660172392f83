"""orlop images convert"""

from __future__ import annotations

import click

from ...protocol.api import Store
from ...protocol.errors import AlreadyExists
from ...protocol.registry.platforms import parse_platform
from ...protocol.registry.references import normalize
from ..compression import Compression
from ..conversion import Conversion, convert_image
from ..embed import host_platform
from ..session import Session
from .names import resolve_name
from .progress import open_display
from .registry_options import platform_option

__all__ = ["convert"]


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--uncompress", "layers", flag_value="none", help="Layers as plain tars.")
@click.option("--gzip", "layers", flag_value="gzip", help="Layers as gzip.")
@click.option("--zstd", "layers", flag_value="zstd", help="Layers as zstd; implies --oci.")
@click.option("--oci", is_flag=True, help="Media types of OCI instead of docker's.")
@platform_option
@click.option("--all-platforms", is_flag=True)
@click.option("--force", is_flag=True, help="Move TARGET if it exists.")
@click.option("--literal", is_flag=True, help="Take TARGET as it stands.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_obj
def convert(
    session: Session,
    source: str,
    target: str,
    layers: str | None,
    oci: bool,
    platforms: tuple[str, ...],
    all_platforms: bool,
    force: bool,
    literal: bool,
    quiet: bool,
) -> None:
    """Make an image in another packing: recompressed layers, OCI's media types. Prints its digest.

    \b
    orlop images convert redis redis:zstd --zstd
    orlop images convert old/app:1 old/app:oci --oci
    """
    if all_platforms and platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    host = host_platform()
    wanted = [parse_platform(text, host) for text in platforms]
    conversion = Conversion(None if layers is None else Compression(layers), oci, wanted, all_platforms)
    name = target if literal else normalize(target)

    async def run(store: Store) -> None:
        before = await resolve_name(store, source)
        if not force and await store.images.has(name):
            raise AlreadyExists(f'image "{name}"', hint="use --force to move it")
        with open_display(quiet) as display:
            image = await convert_image(store, before, name, conversion, host, display.show)
        click.echo(image.target.digest)

    session.run(run)
