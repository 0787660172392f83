"""orlop images import and export"""

from __future__ import annotations

from functools import partial

import click
import msgspec

from ...protocol.api import Store
from ...protocol.archives.exporting import ExportOptions
from ...protocol.archives.importing import ImportOptions
from ...protocol.archives.layout import Naming
from ...protocol.errors import InvalidArgument
from ...protocol.messages import RegistryAccess
from ...protocol.registry.platforms import Platform, parse_platform
from ...protocol.registry.references import parse_reference
from ..archives import OnMissing, export_archive, import_archive
from ..compression import Compression
from ..embed import host_platform
from ..output import print_json, size_text, visible
from ..session import Session
from .names import resolve_name
from .options import json_option, parse_labels, snapshotter_option, sync_fs_option
from .progress import open_display
from .registry_options import access_for, platform_option, registry_options

__all__ = ["export", "import_"]


@click.command("import")
@click.argument("file", type=click.Path(), metavar="FILE|DIR|-")
@click.option("--base-name", default="", metavar="NAME", help="For tags without a name, and only names that begin so.")
@click.option("--digests", is_flag=True, help="Also name each image by its digest.")
@click.option("--skip-digest-for-named", is_flag=True, help="With --digests: not those that have a name.")
@click.option("--index-name", default="", metavar="NAME", help="A name for the archive's whole index.")
@click.option("--all-platforms", is_flag=True, help="What the archive holds, which is the default.")
@platform_option
@click.option("--no-unpack", is_flag=True, help="Lay no layer down as a snapshot.")
@click.option("--discard-unpacked-layers", is_flag=True, help="Keep the snapshots, but not the layers.")
@click.option("--compress-blobs", is_flag=True, help="Store layers that are plain tars as gzip.")
@sync_fs_option
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@snapshotter_option
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_obj
def import_(
    session: Session,
    file: str,
    base_name: str,
    digests: bool,
    skip_digest_for_named: bool,
    index_name: str,
    all_platforms: bool,
    platforms: tuple[str, ...],
    no_unpack: bool,
    discard_unpacked_layers: bool,
    compress_blobs: bool,
    labels: tuple[str, ...],
    snapshotter: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Bring images from an OCI layout or a docker archive: a folder, a tar (plain, gzip or zstd), or standard input.

    Prints the name and digest of each image, and unpacks those that are for this machine, or for --platform.
    With --compress-blobs manifests and indexes get other digests than they had in the archive, so that signatures do
    not fit any more; file systems stay what they are.

    \b
    orlop images import app.tar
    docker save app:1 | orlop images import -
    orlop images import ./layout --base-name registry.example/team/app
    orlop images import --compress-blobs app.tar
    """
    if no_unpack and discard_unpacked_layers:
        raise click.UsageError("--discard-unpacked-layers needs them unpacked; leave out --no-unpack")
    if skip_digest_for_named and not digests:
        raise click.UsageError("--skip-digest-for-named belongs to --digests")
    if all_platforms and platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    wanted = _platforms(platforms)
    naming = Naming(base_name, digests=digests, skip_named=skip_digest_for_named, index=index_name)
    options = ImportOptions(naming, wanted, parse_labels(labels), discard_unpacked_layers)

    async def run(store: Store) -> None:
        with open_display(quiet or as_json) as display:
            host = host_platform()
            unpack_for = [] if no_unpack else [each for each in wanted or [host] if each.os == host.os]
            images = await import_archive(
                store,
                file,
                options,
                unpack_for=unpack_for,
                snapshotter=snapshotter,
                compress_blobs=compress_blobs,
                told=display.show,
            )
        if as_json:
            print_json(images)
            return
        for image in images:
            click.echo(f"{visible(image.name)} {image.target.digest}")

    session.run(run)


@click.command("export")
@click.argument("file", type=click.Path(), metavar="FILE|DIR/|-")
@click.argument("names", nargs=-1, required=True, metavar="REF...")
@platform_option
@click.option("--all-platforms", is_flag=True, help="Every platform; each must be whole.")
@click.option("--skip-manifest-json", is_flag=True, help="Leave out what only docker reads.")
@click.option("--skip-non-distributable", is_flag=True, help="Leave out layers that are not to be passed on.")
@click.option("--missing", type=click.Choice([each.value for each in OnMissing]), default="fail", show_default=True,
              help="What to do about content that is not here.")  # fmt: skip
@click.option(
    "--compress", type=click.Choice([each.value for each in Compression]), help="Default: as FILE's name says."
)
@registry_options
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_obj
def export(
    session: Session,
    file: str,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    all_platforms: bool,
    skip_manifest_json: bool,
    skip_non_distributable: bool,
    missing: str,
    compress: str | None,
    access: RegistryAccess,
    quiet: bool,
) -> None:
    """Write images into a file that orlop, docker, skopeo and umoci read: an OCI layout with docker's manifest.json.

    A FILE that ends in a slash, or is a folder, becomes a layout folder; `-` is standard output. Without --platform of
    each image what suits this machine. The file appears when it is whole.

    \b
    orlop images export app.tar app:1 app:2
    orlop images export - redis | docker load
    orlop images export ./layout/ redis --all-platforms --missing=fetch
    """
    if all_platforms and platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    options = ExportOptions(
        host_platform(), _platforms(platforms), all_platforms, not skip_manifest_json, skip_non_distributable
    )

    async def run(store: Store) -> None:
        literal = [await resolve_name(store, name) for name in names]
        with open_display(quiet) as display:
            done = await export_archive(
                store,
                literal,
                file,
                options,
                missing=OnMissing(missing),
                compression=None if compress is None else Compression(compress),
                access=partial(_access_to, access, frozenset(map(_host_of, literal))),
                told=display.show,
            )
        if file != "-":
            images = f"{len(done.images)} image{'s' if len(done.images) != 1 else ''}"
            click.echo(f"{file}: {images}, {len(done.blobs)} blobs, {size_text(done.size)}", err=True)

    session.run(run)


def _access_to(access: RegistryAccess, hosts: frozenset[str], source: str) -> RegistryAccess:
    """Credentials that were given are for the registries that the images are named after, and for nobody else that a
    label may name."""
    if _host_of(source) not in hosts:
        access = msgspec.structs.replace(access, credentials=None)
    return access_for(access, source)


def _host_of(name: str) -> str:
    try:
        return parse_reference(name, needs_object=False).host
    except InvalidArgument:  # any name may stand in a store
        return ""


def _platforms(texts: tuple[str, ...]) -> list[Platform]:
    return [parse_platform(text, host_platform()) for text in texts]
