"""orlop check, orlop repair: whether a store fits together."""

from __future__ import annotations

import click

from ...protocol import messages as m
from ...protocol.api import Store
from ..output import EXIT_FAILED, print_json
from ..session import Session
from .options import json_option

__all__ = ["check", "repair"]


@click.command()
@json_option
@click.pass_obj
def check(session: Session, as_json: bool) -> None:
    """Compare records, references, files, snapshots and mounts. Reads only; others are served meanwhile.

    Exits 1 if anything is wrong. Bytes of blobs are not hashed: see `orlop content verify`.

    \b
    orlop check
    orlop check --json
    """
    _check(session, as_json, repair=False)


@click.command()
@json_option
@click.pass_obj
def repair(session: Session, as_json: bool) -> None:
    """Check, mend what has one safe answer, and set aside what belongs to nothing (into DIR/quarantine).

    Exits 1 if something is left that could not be mended.

    \b
    orlop repair
    """
    _check(session, as_json, repair=True)


def _check(session: Session, as_json: bool, *, repair: bool) -> None:
    def show(finding: m.Finding) -> None:
        if as_json:
            print_json(finding)
            return
        where = f"{finding.namespace}: " if finding.namespace else ""
        outcome = f" [{finding.fixed.value}]" if repair else ""
        click.echo(f"{where}{finding.kind} {finding.name}: {finding.problem.value}: {finding.detail}{outcome}")

    async def run(store: Store) -> None:
        done = await store.check(repair=repair, each=show)
        if as_json:
            print_json(done)
        else:
            click.echo(
                f"{done.records} records, {done.references} references, {done.blobs} blobs, "
                f"{done.snapshots} snapshots, {done.files} files, {done.mounts} mounts: {done.findings} findings"
                + (f", {done.fixed} of them mended or set aside" if repair else "")
                + ("" if done.compared else "; the collector was busy, so it was not compared with the full mark")
            )
        if done.findings - done.fixed:
            raise click.exceptions.Exit(EXIT_FAILED)

    session.run(run)
