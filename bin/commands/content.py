"""orlop content"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import click
import trio

from ...actors.timestamps import rfc3339
from ...protocol.api import Store
from ...protocol.durations import age_text
from ...protocol.errors import AlreadyExists, FailedPrecondition
from ...protocol.labels import GC_ROOT
from ...protocol.messages import VerifyProgress, VerifyState
from ...protocol.records import ContentInfo, IngestStatus
from ..output import EXIT_FAILED, labels_text, print_json, size_text
from ..session import Session
from ..world import RealClock
from .editing import edit
from .listing import ListOptions, list_options, print_labels, run_list
from .objects import fetch_blob, fetch_object, push_object
from .options import for_each, json_option, parse_labels
from .progress import transfer_bar
from .pull import fetch

__all__ = ["content"]

_PIECE = 1024 * 1024


@click.group()
def content() -> None:
    """Content: blobs by digest."""


@content.command("list")
@list_options
@click.option("--bytes", "-b", "plain", is_flag=True, help="Sizes as plain numbers.")
@click.pass_obj
def list_(session: Session, options: ListOptions, plain: bool) -> None:
    """List the blobs of the namespace. Filters: digest, labels.<key>.

    \b
    orlop content ls 'size>1000000' 'labels.team==build'
    """
    now = RealClock().now_ns()

    async def row(_: Store, info: ContentInfo) -> list[str]:
        size = str(info.size) if plain else size_text(info.size)
        return [info.digest, size, age_text(info.created_at, now), labels_text(info.labels)]

    run_list(
        session,
        options,
        lambda store: store.content.list(options.filters),
        lambda info: info.digest,
        ("DIGEST", "SIZE", "AGE", "LABELS"),
        row,
    )


@content.command("label")
@click.argument("digest")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_obj
def label(session: Session, digest: str, labels: tuple[str, ...]) -> None:
    """Set labels and print what came of it; `key=` removes one. Other labels stay.

    \b
    orlop content label sha256:... team=build stage=
    """

    async def run(store: Store) -> None:
        given = parse_labels(labels)
        if not given:
            print_labels((await store.content.info(digest)).labels)
            return
        print_labels((await store.content.update(digest, given, [f"labels.{key}" for key in given])).labels)

    session.run(run)


@content.command("get")
@click.argument("digest")
@click.option("--offset", type=click.IntRange(0), default=0)
@click.option("--length", type=click.IntRange(1), help="Default: to the end.")
@click.option("--output", "-o", type=click.File("wb"), default="-", help="A file instead of standard output.")
@click.option(
    "--verify", is_flag=True, help="Hash the bytes on their way; fail before the last ones if they are wrong."
)
@click.pass_obj
def get(session: Session, digest: str, offset: int, length: int | None, output: BinaryIO, verify: bool) -> None:
    """Write a blob's bytes to standard output.

    \b
    orlop content get --verify sha256:... > file
    """
    if verify and (offset or length is not None):
        raise click.UsageError("only a whole blob can be verified")

    async def run(store: Store) -> None:
        if verify:
            async with store.content.chunks(digest, verify=True) as pieces:
                async for piece in pieces:
                    await trio.to_thread.run_sync(output.write, piece)
            await trio.to_thread.run_sync(output.flush)
            return
        async with store.content.open(digest) as reader:
            end = reader.size if length is None else min(reader.size, offset + length)
            at = offset
            with transfer_bar("reading", max(0, end - at)) as advance:
                while at < end:
                    data = await reader.read_at(at, min(_PIECE, end - at))
                    if not data:
                        raise FailedPrecondition(f"content {digest} ended at {at} of {reader.size} bytes")
                    await trio.to_thread.run_sync(output.write, data)
                    at += len(data)
                    advance(len(data))
        await trio.to_thread.run_sync(output.flush)

    session.run(run)


@content.command("info")
@click.argument("digest")
@click.pass_obj
def info(session: Session, digest: str) -> None:
    """A blob's record, as JSON.

    \b
    orlop content info sha256:...
    """

    async def run(store: Store) -> None:
        print_json(await store.content.info(digest))

    session.run(run)


@content.command("verify")
@click.argument("digests", nargs=-1, metavar="[DIGEST]...")
@click.option("--rate", type=click.IntRange(1), metavar="MIB", help="Read no more than this many MiB a second.")
@json_option
@click.pass_obj
def verify(session: Session, digests: tuple[str, ...], rate: int | None, as_json: bool) -> None:
    """Hash blobs again (none named: all of the namespace) and tell which are damaged.

    Reads of a damaged blob fail from then on; pulling or ingesting it again heals it. Exits 1 if one is damaged or
    missing.

    \b
    orlop content verify --rate 50
    """

    def show(step: VerifyProgress) -> None:
        if as_json:
            print_json(step)
        elif step.state is VerifyState.CHECKING:
            click.echo(f"{step.digest} {size_text(step.offset)} of {size_text(step.total)}", err=True)
        elif step.state is not VerifyState.INTACT:
            known = ", ".join(f"{host}/{name}" for host, names in step.sources.items() for name in names.split(","))
            click.echo(f"{step.digest} {step.state.value}{f' (from {known})' if known else ''}")

    async def run(store: Store) -> None:
        limit = None if rate is None else rate * _PIECE
        done = await store.content.verify(digests, bytes_per_s=limit, progress=show)
        if as_json:
            print_json(done)
        else:
            click.echo(
                f"{done.checked} blobs, {size_text(done.bytes)}: {done.damaged} damaged, {done.missing} missing",
                err=True,
            )
        if done.damaged or done.missing:
            raise click.exceptions.Exit(EXIT_FAILED)

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
                    with transfer_bar("ingesting", expected_size or None) as advance:
                        await writer.write_many(_pieces(file, advance))
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
    """Remove blobs from the namespace, whatever refers to them.

    \b
    orlop content rm sha256:...
    """

    async def run(store: Store) -> None:
        await for_each(digests, store.content.delete)

    session.run(run)


@content.command("active")
@list_options
@click.pass_obj
def active(session: Session, options: ListOptions) -> None:
    """List ingests in progress. Filters: ref.

    \b
    orlop content active 'ref~=^layer-'
    """
    now = RealClock().now_ns()

    async def row(_: Store, status: IngestStatus) -> list[str]:
        return [status.ref, size_text(status.offset), age_text(status.started_at, now)]

    run_list(
        session,
        options,
        lambda store: store.content.ingests(options.filters),
        lambda status: status.ref,
        ("REF", "SIZE", "AGE"),
        row,
    )


async def _pieces(file: BinaryIO, advance: Callable[[int], None]) -> Any:
    while piece := await trio.to_thread.run_sync(file.read, _PIECE, abandon_on_cancel=file is sys.stdin.buffer):
        yield piece
        advance(len(piece))


for command in (edit, fetch, fetch_object, fetch_blob, push_object):
    content.add_command(command)
for command, aliases in ((list_, ("ls",)), (remove, ("rm", "delete", "del"))):
    for alias in aliases:
        content.add_command(command, alias)
