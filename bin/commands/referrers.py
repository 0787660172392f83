"""orlop referrers: what describes an image in its registry."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator
from typing import Any, Final

import click
import msgspec
import trio

from ...protocol.api import Store
from ...protocol.identifiers import digest_of
from ...protocol.messages import ListReferrers, PushImage, RegistryAccess
from ...protocol.records import Descriptor
from ...protocol.registry.documents import MANIFEST_TYPES, document_labels
from ...protocol.registry.references import parse_reference
from ..output import print_json, print_table, size_text
from ..session import Session
from .options import json_option, parse_labels
from .progress import open_display
from .registry_options import access_for, literal_option, reference_of, registry_options

__all__ = ["referrers"]

_EMPTY: Final = b"{}"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_FILE_TYPE: Final = "application/octet-stream"
_TITLE: Final = "org.opencontainers.image.title"
_PIECE: Final = 1024 * 1024


@click.group()
def referrers() -> None:
    """What describes an image: signatures, bills of materials, attestations."""


@referrers.command("list")
@click.argument("reference", metavar="REF")
@click.option("--artifact-type", default="", metavar="TYPE", help="Only of this type.")
@registry_options
@literal_option
@click.option("--quiet", "-q", is_flag=True, help="Print only the digests.")
@json_option
@click.pass_obj
def list_(
    session: Session,
    reference: str,
    artifact_type: str,
    access: RegistryAccess,
    literal: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """List what in the registry of REF describes it.

    \b
    orlop referrers ls registry.example/team/app:1 --artifact-type application/spdx+json
    """
    remote = reference_of(reference, literal=literal)
    request = ListReferrers(remote, artifact_type, access_for(access, remote))

    async def run(store: Store) -> None:
        found = await store.referrers(request)
        if as_json:
            print_json(found)
        elif quiet:
            for each in found.items:
                click.echo(each.descriptor.digest)
        else:
            print_table(
                ("DIGEST", "ARTIFACT TYPE", "SIZE"),
                [(r.descriptor.digest, r.artifact_type or "-", size_text(r.descriptor.size)) for r in found.items],
            )

    session.run(run)


@referrers.command("attach")
@click.argument("reference", metavar="REF")
@click.argument("files", nargs=-1, required=True, metavar="FILE[:TYPE]...")
@click.option("--artifact-type", required=True, metavar="TYPE", help="What kind of thing it is.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE")
@registry_options
@literal_option
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_obj
def attach(
    session: Session,
    reference: str,
    files: tuple[str, ...],
    artifact_type: str,
    annotations: tuple[str, ...],
    access: RegistryAccess,
    literal: bool,
    quiet: bool,
) -> None:
    """Put files into the registry of REF that describe it, and print the digest of what they became.

    If the image is here as well, they live here as long as it does.

    \b
    orlop referrers attach registry.example/team/app:1 sbom.json:application/spdx+json \\
      --artifact-type application/spdx+json
    """
    remote = reference_of(reference, literal=literal)
    spoken = access_for(access, remote)
    given = [_split(text) for text in files]

    async def run(store: Store) -> None:
        subject = (await store.referrers(ListReferrers(remote, "", spoken))).target
        where = parse_reference(remote)
        async with store.lease() as leased:
            layers = [await _bring(leased, path, kind) for path, kind in given]
            config = await _put(leased, _EMPTY, _EMPTY_TYPE, {})
            data = msgspec.json.encode(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST_TYPES[0],
                    "artifactType": artifact_type,
                    "config": _entry(config),
                    "layers": [_entry(each) for each in layers],
                    "subject": _entry(Descriptor(subject.media_type, subject.digest, subject.size)),
                    "annotations": parse_labels(annotations),
                }
            )
            labels = document_labels(MANIFEST_TYPES[0], data, "the manifest")
            manifest = await _put(leased, data, MANIFEST_TYPES[0], labels)
            request = PushImage(f"{where.host}/{where.repository}", "", manifest.digest, spoken)
            with open_display(quiet) as display:
                pushed = await leased.push(request, display.show)
        click.echo(pushed.target.digest)

    session.run(run)


def _split(text: str) -> tuple[str, str]:
    """`FILE:TYPE`; a colon that is part of a file's name stays with it."""
    path, colon, kind = text.rpartition(":")
    path, kind = (path, kind) if colon and "/" in kind and not os.path.exists(text) else (text, _FILE_TYPE)
    if not os.path.isfile(path):
        raise click.UsageError(f"there is no file {path}")
    return path, kind


async def _bring(store: Store, path: str, kind: str) -> Descriptor:
    digest = await trio.to_thread.run_sync(_hash, path)
    size = os.path.getsize(path)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with await trio.open_file(path, "rb") as file:
            while piece := await file.read(_PIECE):
                yield piece

    await store.content.write(f"attach-{digest}", pieces(), size=size, expected=digest)
    return Descriptor(kind, digest, size, {_TITLE: os.path.basename(path)})


async def _put(store: Store, data: bytes, kind: str, labels: dict[str, str]) -> Descriptor:
    digest = digest_of(data)
    await store.content.write(f"attach-{digest}", data, size=len(data), expected=digest, labels=labels)
    return Descriptor(kind, digest, len(data))


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _entry(each: Descriptor) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": each.media_type, "digest": each.digest, "size": each.size}
    return {**found, "annotations": each.annotations} if each.annotations else found


referrers.add_command(list_, "ls")
