"""orlop images"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from ...actors.timestamps import rfc3339
from ...protocol.api import Store
from ...protocol.errors import AlreadyExists
from ...protocol.records import Image
from ...protocol.registry.references import normalize
from ..output import labels_text, print_json, size_text
from ..session import Session
from .archives import export, import_
from .conversion import convert
from .image_check import check
from .image_documents import Node, measure, walk
from .image_rootfs import mount, rootfs, unmount, unpack, usage
from .listing import ListOptions, list_options, print_labels, run_list
from .names import resolve_name
from .options import for_each, json_option, parse_labels
from .pull import pull
from .push import push

__all__ = ["images"]


@click.group()
def images() -> None:
    """Images: names that point at content and keep it."""


@images.command("list")
@list_options
@click.option("--bytes", "-b", "plain", is_flag=True, help="Sizes as plain numbers.")
@click.pass_obj
def list_(session: Session, options: ListOptions, plain: bool) -> None:
    """List images. SIZE is that of the content that is here.

    Filters: name, target.digest, target.mediatype, labels.<key>, annotations.<key>; several are alternatives.

    \b
    orlop images ls 'name~=redis' 'labels.tier==db,labels.zone!=a'
    """

    async def row(store: Store, image: Image) -> list[str]:
        size, platforms = await measure(store, image)
        return [
            image.name,
            image.target.media_type,
            image.target.digest,
            "-" if size is None else str(size) if plain else size_text(size),
            platforms,
            labels_text(image.labels),
        ]

    run_list(
        session,
        options,
        lambda store: store.images.list(options.filters),
        lambda image: image.name,
        ("REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"),
        row,
    )


@images.command("label")
@click.argument("name", metavar="REF")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--replace-all", "-r", is_flag=True, help="Remove all other labels.")
@click.pass_obj
def label(session: Session, name: str, labels: tuple[str, ...], replace_all: bool) -> None:
    """Set labels and print what came of it; `key=` removes one. Other labels stay.

    \b
    orlop images label redis tier=db owner=
    """

    async def run(store: Store) -> None:
        given = parse_labels(labels)
        literal = await resolve_name(store, name)
        if not given and not replace_all:
            print_labels((await store.images.get(literal)).labels)
            return
        mask = ["labels"] if replace_all else [f"labels.{key}" for key in given]
        print_labels((await store.images.update(literal, labels=given, mask=mask)).labels)

    session.run(run)


@images.command("inspect")
@click.argument("name", metavar="REF")
@click.option("--content", "with_content", is_flag=True, help="Also print the documents themselves.")
@json_option
@click.pass_obj
def inspect(session: Session, name: str, with_content: bool, as_json: bool) -> None:
    """Show an image as a tree of what it is made of, and which of that is here.

    \b
    orlop images inspect redis --content
    """

    async def run(store: Store) -> None:
        image = await store.images.get(await resolve_name(store, name))
        nodes = [node async for node in walk(store, image)]
        if as_json:
            print_json({"image": image, "objects": [_object(node, with_content) for node in nodes]})
            return
        click.echo(image.name)
        click.echo(f" Created: {rfc3339(image.created_at)}")
        click.echo(f" Updated: {rfc3339(image.updated_at)}")
        if image.labels:
            click.echo(f" Labels: {labels_text(image.labels)}")
        for at, node in enumerate(nodes):
            lead = _lead(nodes, at)
            click.echo(f"{lead}{_described(node)}")
            if with_content and node.data:
                for line in _pretty(node.data).splitlines():
                    click.echo(f"{' ' * len(lead)}│ {line}")

    session.run(run)


@images.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="REF...")
@click.option("--async", "asynchronous", is_flag=True, help="Do not wait until what only they held is gone.")
@click.option("--sync", is_flag=True, help="Nothing of it waits in the bin, where there is one.")
@click.pass_obj
def remove(session: Session, names: tuple[str, ...], asynchronous: bool, sync: bool) -> None:
    """Remove images, and wait until the content that only they held is gone.

    With a grace period (gc.grace_s) it waits in the bin instead, and `orlop undelete` brings all of it back. Short
    names stand for what `pull` makes of them.

    \b
    orlop images rm redis
    orlop images rm redis:6 redis:7 --sync
    """

    async def run(store: Store) -> None:
        async def act(name: str) -> None:
            literal = await resolve_name(store, name)
            await store.images.delete(literal, sync=sync)

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
    """Give an image further names, and print them. Those that cannot be given do not keep it from giving the others.

    \b
    orlop images tag redis:latest registry.example/mirror/redis:7
    """

    async def run(store: Store) -> None:
        image = await store.images.get(await resolve_name(store, source))

        async def act(target: str) -> str:
            name = target if skip_reference_check else normalize(target)
            try:
                await store.images.create(name, image.target, image.labels)
            except AlreadyExists as error:
                if not force:
                    raise AlreadyExists(f'image "{name}"', hint="use --force to move it") from error
                await store.images.update(name, target=image.target, labels=image.labels)
            return name

        await for_each(targets, act)

    session.run(run)


def _lead(nodes: Sequence[Node], at: int) -> str:
    """The box characters before a node: for each level whether anything of it follows."""
    depth = nodes[at].depth
    lead = ""
    for level in range(1, depth + 1):
        follows = False
        for later in nodes[at + 1 :]:
            if later.depth < level:
                break
            if later.depth == level:
                follows = True
                break
        if level == depth:
            lead += "├── " if follows else "└── "
        else:
            lead += "│   " if follows else "    "
    return " " + lead


def _described(node: Node) -> str:
    text = f"{node.descriptor.media_type} @{node.descriptor.digest} ({node.descriptor.size} bytes)"
    if node.platform is not None:
        text += f" {node.platform}"
    if node.descriptor.annotations:
        text += f" [{labels_text(node.descriptor.annotations)}]"
    return text if node.here else f"{text} (not here)"


def _object(node: Node, with_content: bool) -> dict[str, Any]:
    found = {
        "depth": node.depth,
        **msgspec.to_builtins(node.descriptor),
        "platform": None if node.platform is None else str(node.platform),
        "here": node.here,
    }
    if with_content and node.data:
        found["content"] = msgspec.Raw(node.data)
    return found


def _pretty(data: bytes) -> str:
    return msgspec.json.format(data, indent=2).decode()


for command, aliases in ((list_, ("ls",)), (remove, ("rm", "delete", "del")), (inspect, ("i",))):
    for alias in aliases:
        images.add_command(command, alias)
for command in (pull, push, import_, export, convert, check, unpack, rootfs, usage, mount, unmount):
    images.add_command(command)
