"""orlop content"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import click
import trio

from ...actors.timestamps import rfc3339
from ...protocol.api import Store
from ...protocol.errors import AlreadyExists, FailedPrecondition
from ...protocol.labels import GC_ROOT
from ..output import age, labels_text, print_json, print_table, size_text
from ..session import Session
from ..world import RealClock
from .options import for_each, json_option, parse_labels, quiet_option

__all__ = ["content"]

_PIECE = 1024 * 1024


@click.group()
def content() -> None:
    """Content: blobs by digest."""


@content.command("list")
@quiet_option
@json_option
@click.option("--bytes", "-b", "plain", is_flag=True, help="Sizes as plain numbers.")
@click.pass_obj
def list_(session: Session, quiet: bool, as_json: bool, plain: bool) -> None:
    """List the blobs of the namespace."""

    async def run(store: Store) -> None:
        found = [info async for info in store.content.list()]
        if as_json:
            print_json(found)
        elif quiet:
            for info in found:
                click.echo(info.digest)
        else:
            now = RealClock().now_ns()
            print_table(
                ("DIGEST", "SIZE", "AGE", "LABELS"),
                [
                    (
                        i.digest,
                        str(i.size) if plain else size_text(i.size),
                        age(i.created_at, now),
                        labels_text(i.labels),
                    )
                    for i in found
                ],
            )

    session.run(run)


@content.command("get")
@click.argument("digest")
@click.option("--offset", type=click.IntRange(0), default=0)
@click.option("--length", type=click.IntRange(1), help="Default: to the end.")
@click.option("--output", "-o", type=click.File("wb"), default="-", help="A file instead of standard output.")
@click.pass_obj
def get(session: Session, digest: str, offset: int, length: int | None, output: BinaryIO) -> None:
    """Write a blob's bytes to standard output."""

    async def run(store: Store) -> None:
        async with store.content.open(digest) as reader:
            end = reader.size if length is None else min(reader.size, offset + length)
            at = offset
            while at < end:
                data = await reader.read_at(at, min(_PIECE, end - at))
                if not data:
                    raise FailedPrecondition(f"content {digest} ended at {at} of {reader.size} bytes")
                await trio.to_thread.run_sync(output.write, data)
                at += len(data)
        await trio.to_thread.run_sync(output.flush)

    session.run(run)


@content.command("info")
@click.argument("digest")
@click.pass_obj
def info(session: Session, digest: str) -> None:
    """A blob's record, as JSON."""

    async def run(store: Store) -> None:
        print_json(await store.content.info(digest))

    session.run(run)


@content.command("ingest")
@click.argument("ref")
@click.option("--expected-size", type=click.IntRange(0), default=0, metavar="BYTES")
@click.option("--expected-digest", default="", metavar="DIGEST")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--no-root", is_flag=True, help="Let the next collection take it unless something refers to it.")
@click.argument("file", type=click.File("rb"), default="-")
@click.pass_obj
def ingest(
    session: Session,
    ref: str,
    expected_size: int,
    expected_digest: str,
    labels: tuple[str, ...],
    no_root: bool,
    file: BinaryIO,
) -> None:
    """Store standard input, or FILE, as a blob, and print its digest.

    The blob gets a root label, so that it stays until it is removed. On failure nothing is left.

    \b
    tar c . | orlop content ingest my-tree
    """
    given = parse_labels(labels)
    if not no_root:
        given.setdefault(GC_ROOT, rfc3339(RealClock().now_ns()))

    async def run(store: Store) -> None:
        try:
            async with store.content.ingest(ref, size=expected_size, expected=expected_digest) as writer:
                try:
                    if writer.offset:
                        await writer.truncate()  # what an earlier attempt left is not these bytes
                    await writer.write_many(_pieces(file))
                    stored = await writer.commit(size=expected_size, expected=expected_digest, labels=given)
                except AlreadyExists:
                    raise
                except BaseException:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                        await writer.close()
                        await store.content.abort(ref)
                    raise
            click.echo(stored.digest)
        except AlreadyExists as there:
            digest = expected_digest or there.message.split()[1].rstrip(":")
            click.echo(digest)

    session.run(run)


@content.command("remove")
@click.argument("digests", nargs=-1, required=True)
@click.pass_obj
def remove(session: Session, digests: tuple[str, ...]) -> None:
    """Remove blobs from the namespace, whatever refers to them."""

    async def run(store: Store) -> None:
        await for_each(digests, store.content.delete)

    session.run(run)


@content.command("active")
@json_option
@click.pass_obj
def active(session: Session, as_json: bool) -> None:
    """List ingests in progress."""

    async def run(store: Store) -> None:
        found = [status async for status in store.content.ingests()]
        if as_json:
            print_json(found)
            return
        now = RealClock().now_ns()
        rows = [(s.ref, size_text(s.offset), age(s.started_at, now)) for s in found]
        print_table(("REF", "SIZE", "AGE"), rows)

    session.run(run)


async def _pieces(file: BinaryIO) -> Any:
    while piece := await trio.to_thread.run_sync(file.read, _PIECE, abandon_on_cancel=file is sys.stdin.buffer):
        yield piece


for command, aliases in ((list_, ("ls",)), (remove, ("rm", "delete", "del"))):
    for alias in aliases:
        content.add_command(command, alias)
