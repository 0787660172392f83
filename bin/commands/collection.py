"""orlop gc, why, undelete, df: what is collected, why things stay, and what they take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from ...actors.timestamps import rfc3339
from ...protocol import messages as m
from ...protocol.api import Store
from ...protocol.errors import NotFound
from ..output import print_json, print_table, size_text
from ..session import Session
from .names import resolve_name, spellings
from .options import json_option, quiet_option

__all__ = ["df", "gc", "undelete", "why"]


T = TypeVar("T")


@click.group()
def gc() -> None:
    """Garbage collection: run it, ask about it, try it out."""


@gc.command("run")
@click.option("--full", is_flag=True, help="Compare the outcome with a full mark; what differs is looked at again.")
@click.option("--empty-bin", is_flag=True, help="What waits in the bin goes as well.")
@json_option
@click.pass_obj
def run_(session: Session, full: bool, empty_bin: bool, as_json: bool) -> None:
    """Collect now; returns when the freed bytes are off the disk.

    \b
    orlop gc run --empty-bin
    """

    async def run(store: Store) -> None:
        done = await store.collect(full=full, empty_bin=empty_bin)
        if as_json:
            print_json(done)
        else:
            _print_collection(done)
        if done.differed:
            click.echo(f"{done.differed} objects were not as a full mark has them; they are looked at again", err=True)
            raise click.exceptions.Exit(1)

    session.run(run)


def _print_collection(done: m.Collection) -> None:
    counts = [
        f"{count} {word if count != 1 else single}"
        for count, word, single in (
            (done.images, "images", "image"),
            (done.content, "blobs", "blob"),
            (done.snapshots, "snapshots", "snapshot"),
            (done.ingests, "ingests", "ingest"),
            (done.leases, "leases", "lease"),
        )
        if count
    ]
    what = ", ".join(counts) or "nothing"
    click.echo(f"removed {what}; freed {size_text(done.freed)} in {done.duration_ms / 1000:.2f} s")


@gc.command("status")
@json_option
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """What the collector does and waits for.

    \b
    orlop gc status --json
    """

    async def run(store: Store) -> None:
        found = await store.collector()
        if as_json:
            print_json(found)
            return
        doing = "collecting" if found.collecting else "resting"
        click.echo(f"{doing}; {found.runs} collections since the start, {found.failures} failed")
        click.echo(f"removed since the start: {found.removed.content} blobs, {found.removed.snapshots} snapshots, "
                   f"{found.removed.images} images, {found.removed.ingests} ingests, {found.removed.leases} leases; "
                   f"freed {size_text(found.removed.freed)}")  # fmt: skip
        click.echo(f"longest slice: {found.longest_ns / 1e6:.1f} ms; files and folders to remove: {found.removals}")
        if found.next_at is not None:
            click.echo(f"next expiry: {rfc3339(found.next_at)}")
        if found.grace_s:
            click.echo(f"dead objects wait in the bin for {found.grace_s:g} s:")
            for each in found.bin:
                click.echo(f"  found dead {rfc3339(each.condemned_at)}, swept {rfc3339(each.due_at)}")

    session.run(run)


@gc.command("plan")
@click.option("--without", "without", multiple=True, metavar="REF", help="As if this image were deleted before.")
@json_option
@quiet_option
@click.pass_obj
def plan(session: Session, without: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """What a collection would free now, to the byte. Nothing is changed.

    \b
    orlop gc plan --without docker.io/library/redis:6
    """
    rows: list[m.Planned] = []

    def show(planned: m.Planned) -> None:
        if as_json:
            print_json(planned)
        elif quiet:
            click.echo(planned.name)
        else:
            rows.append(planned)

    async def run(store: Store) -> None:
        names = [await resolve_name(store, each) for each in without]
        done = await store.plan_collection(names, show)
        if as_json:
            print_json(done)
            return
        if rows:
            print_table(
                ("NAMESPACE", "KIND", "NAME", "SIZE"),
                [(each.namespace, each.kind, each.name, size_text(each.size)) for each in rows],
            )
        click.echo(f"{done.objects} objects, {done.blobs} blobs; would free {done.freed} bytes "
                   f"({size_text(done.freed)})", err=quiet)  # fmt: skip

    session.run(run)


@click.command()
@click.argument("name", metavar="DIGEST|SNAPSHOT|REF")
@click.option("--all-namespaces", is_flag=True, help="In every namespace, not only the one of this command.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Paths for each object.")
@json_option
@click.pass_obj
def why(session: Session, name: str, all_namespaces: bool, limit: int, as_json: bool) -> None:
    """Every path from a root to a blob, an image or a snapshot (as SNAPSHOTTER/KEY); or since when it is condemned.

    \b
    orlop why sha256:...
    orlop why --all-namespaces overlayfs/sha256:...
    """

    async def run(store: Store) -> None:
        found = await _first_found(name, lambda spelled: store.why(spelled, all_namespaces=all_namespaces, limit=limit))
        if as_json:
            print_json(found)
            return
        for each in found:
            _print_explanation(each)

    session.run(run)


async def _first_found(name: str, ask: Callable[[str], Awaitable[T]]) -> T:
    """For the name as given, else as `pull` would have stored it; of two misses the first is told."""
    missing: NotFound | None = None
    for spelled in spellings(name):
        try:
            return await ask(spelled)
        except NotFound as error:
            missing = missing or error
    assert missing is not None
    raise missing


def _print_explanation(found: m.Explanation) -> None:
    click.echo(f"{found.namespace}: {found.kind} {found.name} is {found.state.value}")
    if found.state is m.Kept.CONDEMNED:
        click.echo(f"  since {rfc3339(found.since)}, when nothing that lives referred to it any more")
        if found.lost is not None:
            click.echo(
                f"  it was kept last by {found.lost.kind} {found.lost.name} ({found.lost.how})".replace(" ()", "")
            )
        when = "the next collection" if found.due_at is None else rfc3339(found.due_at)
        click.echo(f"  it goes with {when}; to keep it: orlop undelete {found.name}")
    for path in found.paths:
        steps = []
        for reason in path:
            shown = f"{reason.kind} {reason.name}".strip() if reason.kind != "root" else f"[{reason.name}]"
            steps.append(f"{shown} --{reason.how}-->" if reason.how else shown)
        click.echo("  " + " ".join(steps))
    if found.more:
        click.echo("  ... and more")


@click.command()
@click.argument("name", metavar="DIGEST|SNAPSHOT|REF")
@json_option
@click.pass_obj
def undelete(session: Session, name: str, as_json: bool) -> None:
    """Bring back what waits in the bin: a deleted image as it was, a condemned blob or snapshot with a root label.

    How long things wait there is gc.grace_s in the server's configuration; without it nothing does.

    \b
    orlop undelete docker.io/library/redis:latest
    """

    async def run(store: Store) -> None:
        done = await _first_found(name, store.undelete)
        if as_json:
            print_json(done)
        else:
            click.echo(f"{done.kind} {done.name} is back, kept by {done.kept_by}")

    session.run(run)


@click.command()
@json_option
@click.pass_obj
def df(session: Session, as_json: bool) -> None:
    """Bytes held by each namespace, and by the store, where each counts once.

    PACKED: blobs. UNPACKED: snapshots. EXCLUSIVE: of both, what nobody else holds; SHARED: what others hold as well.
    RECLAIMABLE: of both, what was found dead.

    \b
    orlop df --json
    """

    async def run(store: Store) -> None:
        found = await store.disk_usage()
        if as_json:
            print_json(found)
            return
        rows = [(name, held) for name, held in sorted(found.namespaces.items())] + [("(store)", found.total)]
        print_table(
            ("NAMESPACE", "PACKED", "UNPACKED", "EXCLUSIVE", "SHARED", "RECLAIMABLE"),
            [
                (name, *(size_text(size) for size in (h.packed, h.unpacked, h.exclusive, h.shared, h.reclaimable)))
                for name, h in rows
            ],
        )
        if found.removals:
            click.echo(f"{found.removals} files and folders wait to be removed")

    session.run(run)
