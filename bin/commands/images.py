"""orlop images"""

from __future__ import annotations

import click
import msgspec

from ...protocol.api import Store
from ...protocol.errors import AlreadyExists, NotFound, OrlopError
from ...protocol.records import Image
from ...protocol.registry.documents import INDEX_TYPES, Child, children
from ...protocol.registry.platforms import Platform
from ...protocol.registry.references import normalize
from ..output import labels_text, print_json, print_table, size_text
from ..session import Session
from .options import for_each, json_option, quiet_option
from .pull import pull

__all__ = ["images"]


@click.group()
def images() -> None:
    """Images: names that point at content and keep it."""


@images.command("list")
@quiet_option
@json_option
@click.option("--bytes", "-b", "plain", is_flag=True, help="Sizes as plain numbers.")
@click.pass_obj
def list_(session: Session, quiet: bool, as_json: bool, plain: bool) -> None:
    """List images. SIZE is that of the content that is here."""

    async def run(store: Store) -> None:
        found = [image async for image in store.images.list()]
        if as_json:
            print_json(found)
        elif quiet:
            for image in found:
                click.echo(image.name)
        else:
            rows = []
            for image in found:
                size, platforms = await _measure(store, image)
                rows.append(
                    (
                        image.name,
                        image.target.media_type,
                        image.target.digest,
                        "-" if size is None else str(size) if plain else size_text(size),
                        platforms,
                        labels_text(image.labels),
                    )
                )
            print_table(("REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"), rows)

    session.run(run)


@images.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="REF...")
@click.option("--async", "asynchronous", is_flag=True, help="Do not wait until what only they held is gone.")
@click.option("--sync", is_flag=True, hidden=True, help="The default.")
@click.pass_obj
def remove(session: Session, names: tuple[str, ...], asynchronous: bool, sync: bool) -> None:
    """Remove images, and wait until the content that only they held is gone.

    Short names stand for what `pull` makes of them.
    """
    del sync

    async def run(store: Store) -> None:
        async def act(name: str) -> None:
            literal = await resolve_name(store, name)
            await store.images.delete(literal)

        try:
            await for_each(names, act)
        finally:
            if not asynchronous:
                await store.collect()  # once for all of them

    session.run(run)


@images.command("tag")
@click.argument("source")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--force", is_flag=True, help="Move names that exist.")
@click.option("--skip-reference-check", is_flag=True, help="Take target names literally, whatever they look like.")
@click.pass_obj
def tag(session: Session, source: str, targets: tuple[str, ...], force: bool, skip_reference_check: bool) -> None:
    """Give an image further names.

    \b
    orlop images tag redis:latest registry.example/mirror/redis:7
    """

    async def run(store: Store) -> None:
        image = await store.images.get(await resolve_name(store, source))
        for target in targets:
            name = target if skip_reference_check else normalize(target)
            try:
                await store.images.create(name, image.target, image.labels)
            except AlreadyExists as error:
                if not force:
                    raise AlreadyExists(f'image "{name}"', hint="use --force to move it") from error
                await store.images.update(name, target=image.target, labels=image.labels)
            click.echo(name)

    session.run(run)


async def resolve_name(store: Store, name: str) -> str:
    """The name as it stands in the store: as given, else as `pull` would have stored it."""
    try:
        return (await store.images.get(name)).name
    except NotFound as missing:
        try:
            full = normalize(name)
        except OrlopError:
            raise missing from None
        if full == name:
            raise
        return (await store.images.get(full)).name


async def _measure(store: Store, image: Image) -> tuple[int | None, str]:
    """(bytes of the documents, configs and layers that are here, platforms that are complete)."""
    total = 0
    seen: set[str] = set()
    platforms: list[str] = []
    waiting = [(image.target.media_type, image.target.digest)]
    try:
        while waiting:
            media_type, digest = waiting.pop()
            if digest in seen or len(seen) > 10_000:
                continue
            seen.add(digest)
            try:
                info = await store.content.info(digest)
            except NotFound:
                if digest == image.target.digest:
                    raise
                continue
            total += info.size
            if media_type in INDEX_TYPES or "manifest" in media_type:
                found = children(media_type, await store.content.read(digest), digest)
                if media_type in INDEX_TYPES:
                    waiting += [(child.media_type, child.digest) for child in found]
                elif await _all_here(store, found):
                    waiting += [(child.media_type, child.digest) for child in found]
                    platforms += [await _platform(store, child.digest) for child in found[:1]]
    except OrlopError:
        return None, "-"
    return total, ",".join(sorted({name for name in platforms if name})) or "-"


async def _all_here(store: Store, found: list[Child]) -> bool:
    for child in found:
        try:
            await store.content.info(child.digest)
        except NotFound:
            return False
    return True


async def _platform(store: Store, config: str) -> str:
    """What a config says of itself; attestations and other artefacts say nothing."""
    try:
        return str(msgspec.json.decode(await store.content.read(config), type=Platform))
    except msgspec.MsgspecError:
        return ""


for command, aliases in ((list_, ("ls",)), (remove, ("rm", "delete", "del"))):
    for alias in aliases:
        images.add_command(command, alias)
images.add_command(pull)
