"""orlop content fetch-object, fetch-blob and push-object: single objects of a registry, for who looks closely."""

from __future__ import annotations

import sys

import click
import trio

from ...protocol.api import Store
from ...protocol.errors import InvalidArgument
from ...protocol.identifiers import check_digest
from ...protocol.messages import FetchBlobs, PushImage, RegistryAccess
from ...protocol.records import Descriptor
from ...protocol.registry.references import parse_reference
from ..session import Session
from .progress import open_display
from .registry_options import access_for, literal_option, reference_of, registry_options

__all__ = ["fetch_blob", "fetch_object", "push_object"]


@click.command("fetch-object")
@click.argument("reference", metavar="REF")
@registry_options
@literal_option
@click.pass_obj
def fetch_object(session: Session, reference: str, access: RegistryAccess, literal: bool) -> None:
    """Write what REF names, a manifest or an index, to standard output. Nothing of it is kept.

    \b
    orlop content fetch-object redis
    """
    name = reference_of(reference, literal=literal)
    spoken = access_for(access, name)

    async def run(store: Store) -> None:
        await _write(store, _repository(name), [await store.resolve(name, spoken)], spoken)

    session.run(run)


@click.command("fetch-blob")
@click.argument("reference", metavar="REF")
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST...")
@registry_options
@literal_option
@click.pass_obj
def fetch_blob(
    session: Session, reference: str, digests: tuple[str, ...], access: RegistryAccess, literal: bool
) -> None:
    """Write blobs of REF's repository to standard output, one after another. Nothing of them is kept.

    \b
    orlop content fetch-blob redis sha256:... > layer.tar.gz
    """
    name = reference_of(reference, literal=literal)
    spoken = access_for(access, name)

    async def run(store: Store) -> None:
        for digest in digests:
            check_digest(digest)
        where = _repository(name)
        found = [await store.resolve(f"{where}@{digest}", spoken) for digest in digests]
        await _write(store, where, found, spoken)

    session.run(run)


@click.command("push-object")
@click.argument("reference", metavar="REF")
@click.argument("digest")
@click.argument("media_type", metavar="TYPE")
@registry_options
@literal_option
@click.pass_obj
def push_object(
    session: Session, reference: str, digest: str, media_type: str, access: RegistryAccess, literal: bool
) -> None:
    """Send one blob, manifest or index that is here to REF's repository; a manifest or index under REF's tag.

    \b
    orlop content push-object registry.example/team/app:1 sha256:... application/vnd.oci.image.layer.v1.tar+gzip
    """
    name = reference_of(reference, literal=literal)
    request = PushImage(name, "", digest, access_for(access, name), media_type)

    async def run(store: Store) -> None:
        if not media_type:
            raise InvalidArgument("an object needs a media type")
        with open_display(False) as display:
            pushed = await store.push(request, display.show)
        click.echo(pushed.target.digest)

    session.run(run)


def _repository(name: str) -> str:
    reference = parse_reference(name)
    return f"{reference.host}/{reference.repository}"


async def _write(store: Store, repository: str, found: list[Descriptor], access: RegistryAccess) -> None:
    """Verified on the way in, and kept only as long as the command runs."""
    async with store.lease() as leased:
        await leased.fetch(FetchBlobs(repository, found, access))
        for descriptor in found:
            async with leased.content.chunks(descriptor.digest) as pieces:
                async for piece in pieces:
                    await trio.to_thread.run_sync(sys.stdout.buffer.write, piece)
        sys.stdout.buffer.flush()
