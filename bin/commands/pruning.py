"""orlop images prune, orlop content prune: what nobody uses goes, in one sweep."""

from __future__ import annotations

import re

import click

from ...protocol.api import Store
from ...protocol.labels import GC_REF_CONTENT, GC_REF_SNAPSHOT
from ..output import size_text
from ..session import Session
from .content import content
from .images import images
from .options import for_each

__all__: list[str] = []

_LAYER = re.compile(re.escape(GC_REF_CONTENT) + r"\.(l\..+|[1-9]\d*)")


@images.command("prune")
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@click.option("--all", "everything", is_flag=True, help="Every image that no container uses.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and how many bytes that would free.")
@click.pass_obj
def prune_images(session: Session, filters: tuple[str, ...], everything: bool, dry_run: bool) -> None:
    """Remove images that no container uses: those that match a FILTER, or all of them; then collect.

    \b
    orlop images prune --dry-run 'name~=^docker.io/library/'
    orlop images prune --all
    """

    async def run(store: Store) -> None:
        if not filters and not everything:
            click.echo("nothing pruned: give filters, or --all", err=True)
            return
        used = {container.image async for container in store.containers.list()}
        names = [image.name async for image in store.images.list(list(filters)) if image.name not in used]
        if dry_run:
            for name in names:
                click.echo(name)
            planned = await store.plan_collection(names)
            click.echo(f"{len(names)} images; would free {size_text(planned.freed)}", err=True)
            return
        await for_each(names, store.images.delete)
        done = await store.collect()
        click.echo(f"{len(names)} images; freed {size_text(done.freed)}", err=True)

    session.run(run)


@content.group("prune")
def prune_content() -> None:
    """Let go of blobs that are no longer needed."""


@prune_content.command("references")
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@click.option("--dry-run", "--dry", is_flag=True, help="Say which references would go.")
@click.option("--async", "later", is_flag=True, help="Leave the collection to the server.")
@click.pass_obj
def prune_references(session: Session, filters: tuple[str, ...], dry_run: bool, later: bool) -> None:
    """Remove references to layers that are unpacked, so that their blobs can be collected; images stay mountable.

    A manifest's layers count as unpacked when its config refers to a snapshot that is there. FILTER: which manifests.

    \b
    orlop content prune references --dry-run
    """

    async def run(store: Store) -> None:
        removed = 0
        manifests = [info async for info in store.content.list(list(filters))]
        labels = {info.digest: info.labels async for info in store.content.list()} if filters else {}
        labels |= {info.digest: info.labels for info in manifests}
        for info in manifests:
            layers = [key for key in info.labels if _LAYER.fullmatch(key)]
            if not layers or not await _is_unpacked(store, info.labels, labels):
                continue
            for key in layers:
                click.echo(f"{info.digest} {key} {info.labels[key]}")
            removed += len(layers)
            if not dry_run:
                await store.content.update(info.digest, {}, [f"labels.{key}" for key in layers])
        click.echo(f"{removed} references {'would go' if dry_run else 'removed'}", err=True)
        if removed and not dry_run and not later:
            done = await store.collect()
            click.echo(f"freed {size_text(done.freed)}", err=True)

    session.run(run)


async def _is_unpacked(store: Store, manifest: dict[str, str], known: dict[str, dict[str, str]]) -> bool:
    """Whether one of the blobs that a manifest refers to, its config, refers to a snapshot that is there."""
    for key, digest in manifest.items():
        if not key.startswith(f"{GC_REF_CONTENT}.") or _LAYER.fullmatch(key):
            continue
        for label, name in known.get(digest, {}).items():
            if label.startswith(f"{GC_REF_SNAPSHOT}."):
                snapshotter = label[len(GC_REF_SNAPSHOT) + 1 :].partition("/")[0]
                if [info async for info in store.snapshots.using(snapshotter).list([f"name=={name}"])]:
                    return True
    return False
